//! The login that a sealed value belongs to, and the text of the anchor, which names it in the clear.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::clock::UnixMillis;
use crate::random;

/// Made by a login, kept by all its refreshes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    pub lineage: Lineage,
    /// The user that it is bound to: a digest of the user's id in the application.
    pub subject: Option<Subject>,
}

/// The random number that names a login.
pub type Lineage = [u8; 16];

/// A lineage in base64url, as the anchor names it.
pub type LineageText = [u8; 22];

/// The first half of HMAC-SHA-256 over a label and the id, keyed with the lineage: the same person is
/// another in each login, and the lineage stays when cookie keys change.
pub type Subject = [u8; 16];

impl Login {
    /// A login of its own, bound to `subject` if there is one.
    pub fn new(subject: Option<&[u8]>) -> Result<Self, getrandom::Error> {
        let lineage = random::bytes()?;
        Ok(Self { lineage, subject: subject.map(|id| digest(&lineage, id)) })
    }

    pub fn lineage_text(&self) -> LineageText {
        let mut text = LineageText::default();
        // Sixteen bytes are these 22 characters, too few for SIMD; if not, no anchor would name them.
        let _ = BASE64_URL_SAFE_NO_PAD.encode_slice(self.lineage, &mut text);
        text
    }

    pub fn is_bound(&self) -> bool {
        self.subject.is_some()
    }

    /// Whether it is bound to `id`.
    pub fn is_bound_to(&self, id: &[u8]) -> bool {
        self.subject == Some(digest(&self.lineage, id))
    }
}

/// What an anchor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// It names a login.
    Login(LineageText),
    /// The person opted out, which counts until then.
    OptedOut { until: UnixMillis },
}

/// Reads the value of an anchor; `None` if it is none.
#[inline]
pub(crate) fn parse_anchor(value: &[u8]) -> Option<Anchor> {
    let Some(seconds) = value.strip_prefix(OPTED_OUT.as_bytes()) else {
        return value.try_into().ok().map(Anchor::Login);
    };
    let digits = std::str::from_utf8(seconds).ok().filter(|text| text.bytes().all(|digit| digit.is_ascii_digit()))?;
    let seconds = digits.parse::<i64>().ok()?;
    Some(Anchor::OptedOut { until: UnixMillis::from_millis(seconds.saturating_mul(1000)) })
}

/// The value of an anchor that remembers an opt-out, in whole seconds.
pub(crate) fn opted_out_anchor(until: UnixMillis) -> String {
    format!("{OPTED_OUT}{}", until.as_millis().max(0) / 1000)
}

fn digest(lineage: &Lineage, id: &[u8]) -> Subject {
    // HMAC fills a key up with zeros itself; a whole block is one that can't be refused.
    let mut key = [0; 64];
    key[..16].copy_from_slice(lineage);
    let mac = Hmac::<Sha256>::new(&key.into()).chain_update(SUBJECT_LABEL).chain_update(id);
    let digest = <[u8; 32]>::from(mac.finalize().into_bytes());
    let mut subject = Subject::default();
    subject.copy_from_slice(&digest[..16]);
    subject
}

/// Of an anchor that remembers an opt-out; seconds since the Unix epoch follow.
const OPTED_OUT: &str = "out.";
/// Keeps the digest from being of use for anything else.
const SUBJECT_LABEL: &[u8] = b"tower-euid subject";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_bound_to_one_subject_and_an_unbound_one_to_none() {
        let (bound, unbound) = (Login::new(Some(b"17")).unwrap(), Login::new(None).unwrap());
        assert!(bound.is_bound_to(b"17") && !bound.is_bound_to(b"18") && !bound.is_bound_to(b""));
        assert!(!unbound.is_bound_to(b"17") && !unbound.is_bound_to(b""));
        assert!(bound.is_bound() && !unbound.is_bound());
        assert!(Login::new(Some(b"")).unwrap().is_bound_to(b""));
    }

    #[test]
    fn the_same_subject_is_another_in_each_login() {
        let [one, other] = [(); 2].map(|()| Login::new(Some(b"17")).unwrap());
        assert_ne!(one.subject, other.subject);
        assert!(!Login { lineage: other.lineage, ..one }.is_bound_to(b"17"));
    }
}
