//! The login that a sealed value belongs to, and the text of the anchor, which names it in the clear.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::random;

/// A login of a visitor: made when they log in, kept by all refreshes until they log out or in again.
///
/// It names no user. If the login is bound to one, it holds a digest of the user's id, which differs in each login.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (candidate, identity) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// # let decision = candidate.settle(&Ok(tower_euid::Refreshed::Identity(identity)), at(15_000));
/// use tower_euid::engine::Change;
///
/// let Change::Renew(record) = decision.change() else { panic!("{decision:?}") };
/// assert_eq!(Some(record.login.lineage()), candidate.lineage()); // a refresh keeps the login
/// assert!(record.login.is_bound());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    pub(crate) lineage: Lineage,
    /// The user that it is bound to.
    pub(crate) subject: Option<Subject>,
    /// It was migrated from the JS SDK's cookie, so no anchor names it.
    pub(crate) migrated: bool,
}

/// The number that names a login: 16 random bytes. All identities of one login have the same, so that a host can tell which
/// refreshes belong together.
///
/// It is no secret (the browser has it in the clear), but it names a visitor: `Debug` does not show it.
///
/// ```
/// # use euid_core as tower_euid;
/// use std::collections::HashMap;
/// use tower_euid::engine::Lineage;
///
/// let mut under_way: HashMap<Lineage, &str> = HashMap::new();
/// under_way.insert(Lineage::from_bytes([7; 16]), "a call to the operator");
/// assert!(under_way.contains_key(&Lineage::from_bytes([7; 16])));
/// assert_eq!(format!("{under_way:?}"), r#"{Lineage(..): "a call to the operator"}"#);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lineage([u8; 16]);

/// A lineage in base64url, as the anchor names it.
pub(crate) type LineageText = [u8; 22];

/// A user's id as a digest: the first half of HMAC-SHA-256 over a label and the id, keyed with the lineage. So the same
/// user is another in each login, and the lineage stays when cookie keys change.
pub(crate) type Subject = [u8; 16];

impl Lineage {
    /// The lineage of these bytes, for one that a host has kept elsewhere.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::engine::Lineage;
    /// let lineage = Lineage::from_bytes([7; 16]);
    /// assert_eq!(Lineage::from_bytes(*lineage.as_bytes()), lineage);
    /// ```
    #[inline]
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::engine::Lineage;
    /// assert_eq!(Lineage::from_bytes([7; 16]).as_bytes(), &[7; 16]);
    /// ```
    #[inline]
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Lineage {
    /// A number that is random, and the same in all requests of the login.
    #[inline]
    pub(crate) fn chance(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lineage(..)")
    }
}

impl Login {
    /// A new login, bound to `subject` if there is one.
    pub(crate) fn new(subject: Option<&[u8]>) -> Result<Self, getrandom::Error> {
        let lineage = Lineage(random::bytes()?);
        Ok(Self { lineage, subject: subject.map(|id| digest(&lineage, id)), migrated: false })
    }

    /// The number that names it.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::engine::{Lineage, Report};
    ///
    /// /// The login whose new pair a response has brought to the browser.
    /// fn delivered(report: &Report) -> Option<Lineage> {
    ///     report.renewed.as_ref().map(|record| record.login.lineage())
    /// }
    /// assert_eq!(delivered(&Report::default()), None);
    /// ```
    #[inline]
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    pub(crate) fn lineage_text(&self) -> LineageText {
        let mut text = LineageText::default();
        // Sixteen bytes are these 22 characters, too few for SIMD; if not, no anchor would name them.
        let _ = BASE64_URL_SAFE_NO_PAD.encode_slice(self.lineage.0, &mut text);
        text
    }

    /// Whether it is bound to a user of the application.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::engine::Report;
    ///
    /// /// For a site that is about to bind its logins: how many are not yet?
    /// fn count_unbound(report: &Report, unbound: &mut u64) {
    ///     *unbound += report.renewed.iter().filter(|record| !record.login.is_bound()).count() as u64;
    /// }
    /// # let mut unbound = 0;
    /// # count_unbound(&Report::default(), &mut unbound);
    /// # assert_eq!(unbound, 0);
    /// ```
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.subject.is_some()
    }

    /// Whether it is bound to `id`.
    pub(crate) fn is_bound_to(&self, id: &[u8]) -> bool {
        self.subject == Some(digest(&self.lineage, id))
    }
}

/// The content of an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor<'a> {
    /// The anchor names a login, if this is [the text of a lineage](is_lineage).
    Login(&'a LineageText),
    /// No login counts, also none that was migrated from the JS SDK's cookie.
    Ended,
}

/// Reads the value of an anchor; `None` if it is none.
#[inline]
pub(crate) fn parse_anchor(value: &[u8]) -> Option<Anchor<'_>> {
    match value.try_into() {
        Ok(lineage) => Some(Anchor::Login(lineage)),
        Err(_) => (value == ENDED.as_bytes()).then_some(Anchor::Ended),
    }
}

/// Reads the text of a lineage; `None` if it is none.
pub(crate) fn parse_lineage(text: &LineageText) -> Option<Lineage> {
    let mut bytes = [0; 16];
    (BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) == Ok(16)).then_some(Lineage(bytes))
}

/// Whether a text is that of a lineage: base64url, of whose last character only the first two bits count.
pub(crate) fn is_lineage(text: &LineageText) -> bool {
    let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    // In whole vectors and without an early end, so that the vector unit compares all characters at once.
    let mut vectors = [b'A'; 32];
    vectors.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    let all = vectors.iter().fold(true, |all, byte| all & is_base64url(byte));
    all && matches!(text.last(), Some(b'A' | b'Q' | b'g' | b'w'))
}

fn digest(lineage: &Lineage, id: &[u8]) -> Subject {
    // HMAC pads a key with zeros itself; it never refuses a key of a whole block.
    let mut key = [0; 64];
    key[..16].copy_from_slice(&lineage.0);
    let mac = Hmac::<Sha256>::new(&key.into()).chain_update(SUBJECT_LABEL).chain_update(id);
    let digest = <[u8; 32]>::from(mac.finalize().into_bytes());
    let mut subject = Subject::default();
    subject.copy_from_slice(&digest[..16]);
    subject
}

/// The value of an anchor that names no login.
pub(crate) const ENDED: &str = "none";
const SUBJECT_LABEL: &[u8] = b"tower-euid subject";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_lineage_is_canonical_base64url() {
        for last in 0..=u8::MAX {
            let mut text = *b"AAAAAAAAAAAAAAAAAAAAAA";
            text[21] = last;
            let decodes = BASE64_URL_SAFE_NO_PAD.decode(text).is_ok();
            assert_eq!(is_lineage(&text), decodes, "{last}");
            let lineage = parse_lineage(&text);
            assert_eq!(lineage.is_some(), decodes, "{last}");
            let login = lineage.map(|lineage| Login { lineage, subject: None, migrated: false });
            assert!(login.is_none_or(|login| login.lineage_text() == text), "{last}");
            text = *b"AAAAAAAAAAAAAAAAAAAAAA";
            text[4] = last;
            assert_eq!(is_lineage(&text), BASE64_URL_SAFE_NO_PAD.decode(text).is_ok(), "{last}");
        }
    }

    #[test]
    fn login_is_bound_to_one_subject_and_an_unbound_one_to_none() {
        let (bound, unbound) = (Login::new(Some(b"17")).unwrap(), Login::new(None).unwrap());
        assert!(bound.is_bound_to(b"17") && !bound.is_bound_to(b"18") && !bound.is_bound_to(b""));
        assert!(!unbound.is_bound_to(b"17") && !unbound.is_bound_to(b""));
        assert!(bound.is_bound() && !unbound.is_bound());
        assert!(Login::new(Some(b"")).unwrap().is_bound_to(b""));
    }

    #[test]
    fn subject_hash_differs_between_logins() {
        let [one, other] = [(); 2].map(|()| Login::new(Some(b"17")).unwrap());
        assert_ne!(one.subject, other.subject);
        assert!(!Login { lineage: other.lineage, ..one }.is_bound_to(b"17"));
    }
}
