//! The plaintexts of sealed values: an identity, and the record of an opt-out.
//!
//! ```text
//! identity: flags(1) · lineage(16) · [subject(16)] · refresh_from(8) · identity_expires(8)
//!           · refresh_expires(8) · response key(32) · length(2) advertising token
//!           · length(2) refresh token
//! opt-out:  flags(1) · lineage(16) · [subject(16)] · until(8)
//! ```
//!
//! Integers big-endian, times in milliseconds since the Unix epoch. Bits 0-1 of `flags` name the form of the stored
//! advertising token, bits 2-3 that of the refresh token: 0 is its text, 1 the bytes whose unpadded base64url is its
//! text, 2 the bytes whose padded standard base64 is its text. Bit 4 is set if there is a subject. The other bits are
//! zero. Tokens are opaque, so one is stored decoded only if encoding gives the same text again.

use base64::Engine;
use zeroize::Zeroizing;

use super::aead;
use super::login::{Lineage, Login};
use crate::clock::UnixMillis;
use crate::identity::{Identity, IdentityTimes, RefreshToken};
use crate::scope::Scope;
use crate::token::AdvertisingToken;

/// An identity, read in place.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    pub login: Login,
    pub times: IdentityTimes,
    response_key: &'a [u8; 32],
    advertising_token: StoredToken<'a>,
    refresh_token: StoredToken<'a>,
}

/// A token as the payload holds it. The encoding has been checked.
#[derive(Clone, Copy, Debug)]
enum StoredToken<'a> {
    Text(&'a str),
    Base64Url(&'a [u8]),
    Base64(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// Reads a payload; `None` if it is not one, to the last byte, or breaks the rules of an
    /// identity.
    pub(crate) fn parse(plain: &'a [u8]) -> Option<Self> {
        let (flags, login, rest) = parse_login(plain)?;
        let (refresh_from, rest) = parse_millis(rest)?;
        let (identity_expires, rest) = parse_millis(rest)?;
        let (refresh_expires, rest) = parse_millis(rest)?;
        let (response_key, rest) = rest.split_first_chunk()?;
        let (advertising_token, rest) = StoredToken::parse(flags & 3, rest)?;
        let (refresh_token, rest) = StoredToken::parse(flags >> 2 & 3, rest)?;
        let times = IdentityTimes { refresh_from, identity_expires, refresh_expires };
        let ordered = refresh_from <= identity_expires && identity_expires <= refresh_expires;
        let whole = rest.is_empty() && !advertising_token.is_empty() && !refresh_token.is_empty();
        (ordered && whole).then_some(Self { login, times, response_key, advertising_token, refresh_token })
    }

    /// The advertising token in the scope of its cookie, for a handler. Its text is put together when it is first read.
    pub(crate) fn advertising_token(&self, scope: Scope) -> AdvertisingToken {
        let packed = match self.advertising_token {
            StoredToken::Base64Url(bytes) => AdvertisingToken::packed(bytes, self.times, scope),
            StoredToken::Base64(_) | StoredToken::Text(_) => None,
        };
        packed.unwrap_or_else(|| AdvertisingToken::new(self.advertising_token.text(), self.times, scope))
    }

    /// The whole identity; `None` if it breaks the rules of one, which nothing sealed here does.
    pub(crate) fn identity(&self) -> Option<Identity> {
        let refresh_token = RefreshToken::from(self.refresh_token.text());
        let response_key = (*self.response_key).into();
        Identity::unsealed(self.advertising_token.text().into(), refresh_token, response_key, self.times).ok()
    }
}

/// The record of an opt-out.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (candidate, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use std::time::Duration;
/// use tower_euid::engine::Change;
///
/// let decision = candidate.settle(&Ok(tower_euid::Refreshed::OptedOut), at(17_000));
/// let Change::RecordOptOut(opt_out) = decision.change() else { panic!("{decision:?}") };
/// assert_eq!(Some(opt_out.login.lineage()), candidate.lineage());
/// assert_eq!(opt_out.until, candidate.arrived().saturating_add(Duration::from_secs(72 * 3600)));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptOut {
    /// The login whose refresh has found it, or one that states it.
    pub login: Login,
    /// The record expires at this time, 72 hours after the opt-out was noted.
    pub until: UnixMillis,
}

impl OptOut {
    /// Reads a record; `None` if it is not one, to the last byte.
    pub(crate) fn parse(plain: &[u8]) -> Option<Self> {
        let (flags, login, rest) = parse_login(plain)?;
        let (until, rest) = parse_millis(rest)?;
        (flags & !SUBJECT == 0 && rest.is_empty()).then_some(Self { login, until })
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut plain = Vec::with_capacity(1 + 16 + 16 + 8);
        write_login(0, &self.login, &mut plain);
        plain.extend_from_slice(&self.until.as_millis().to_be_bytes());
        plain
    }
}

/// Writes an identity; `None` if a token is longer than any cookie.
pub(crate) fn write(login: &Login, identity: &Identity) -> Option<Zeroizing<Vec<u8>>> {
    let (advertising_flags, advertising_token) = pack(identity.advertising_token());
    let (refresh_flags, refresh_token) = pack(identity.refresh_token().expose_secret());
    let times = identity.times();
    let length = MOST_BUT_TOKENS + advertising_token.len() + refresh_token.len();
    // With room for all of it: growing would leave a copy behind that is not wiped.
    let mut plain = Zeroizing::new(Vec::with_capacity(length));
    write_login(advertising_flags | refresh_flags << 2, login, &mut plain);
    for time in [times.refresh_from, times.identity_expires, times.refresh_expires] {
        plain.extend_from_slice(&time.as_millis().to_be_bytes());
    }
    plain.extend_from_slice(identity.response_key().expose_secret());
    for token in [advertising_token, refresh_token] {
        plain.extend_from_slice(&u16::try_from(token.len()).ok()?.to_be_bytes());
        plain.extend_from_slice(&token);
    }
    Some(plain)
}

/// Flags and login, with which both plaintexts begin.
fn parse_login(plain: &[u8]) -> Option<(u8, Login, &[u8])> {
    let (&[flags], rest) = plain.split_first_chunk()?;
    let (&lineage, rest) = rest.split_first_chunk()?;
    let (subject, rest) = if flags & SUBJECT == 0 {
        (None, rest)
    } else {
        let (&subject, rest) = rest.split_first_chunk()?;
        (Some(subject), rest)
    };
    (flags & UNKNOWN == 0).then_some((
        flags,
        Login { lineage: Lineage::from_bytes(lineage), subject, migrated: false },
        rest,
    ))
}

fn write_login(flags: u8, login: &Login, plain: &mut Vec<u8>) {
    plain.push(flags | if login.subject.is_some() { SUBJECT } else { 0 });
    plain.extend_from_slice(login.lineage.as_bytes());
    plain.extend_from_slice(login.subject.as_ref().map_or(&[], <[u8; 16]>::as_slice));
}

impl<'a> StoredToken<'a> {
    fn parse(encoding: u8, rest: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (length, rest) = rest.split_first_chunk()?;
        let (bytes, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let token = match encoding {
            TEXT => Self::Text(std::str::from_utf8(bytes).ok()?),
            BASE64URL => Self::Base64Url(bytes),
            BASE64 => Self::Base64(bytes),
            _ => return None,
        };
        Some((token, rest))
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Base64Url(bytes) | Self::Base64(bytes) => bytes.is_empty(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) => (*text).to_owned(),
            Self::Base64Url(bytes) => aead::BASE64URL.encode(bytes),
            Self::Base64(bytes) => aead::BASE64_STANDARD.encode(bytes),
        }
    }
}

/// The shortest form that gives the same text again, and its number in the flags.
fn pack(token: &str) -> (u8, Zeroizing<Vec<u8>>) {
    // Both decoders are strict about alphabet, padding and stray bits, so what they take comes back.
    if let Ok(bytes) = aead::BASE64URL.decode(token) {
        (BASE64URL, Zeroizing::new(bytes))
    } else if let Ok(bytes) = aead::BASE64_STANDARD.decode(token) {
        (BASE64, Zeroizing::new(bytes))
    } else {
        (TEXT, Zeroizing::new(token.as_bytes().to_vec()))
    }
}

fn parse_millis(rest: &[u8]) -> Option<(UnixMillis, &[u8])> {
    let (millis, rest) = rest.split_first_chunk()?;
    Some((UnixMillis::from_millis(i64::from_be_bytes(*millis)), rest))
}

const TEXT: u8 = 0;
const BASE64URL: u8 = 1;
const BASE64: u8 = 2;
/// Flag: a subject follows the lineage.
const SUBJECT: u8 = 1 << 4;
/// Flags without a meaning so far.
const UNKNOWN: u8 = 0b1110_0000;
/// All but the tokens themselves, at most.
const MOST_BUT_TOKENS: usize = 1 + 16 + 16 + 3 * 8 + 32 + 2 * 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOGIN: Login = Login { lineage: Lineage::from_bytes([7; 16]), subject: None, migrated: false };
    const BOUND: Login = Login { lineage: Lineage::from_bytes([7; 16]), subject: Some([8; 16]), migrated: false };

    fn identity(advertising_token: &str, refresh_token: &str) -> Identity {
        let at = UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(-1), identity_expires: at(2), refresh_expires: at(i64::MAX) };
        Identity::unsealed(advertising_token.into(), refresh_token.to_owned().into(), [5; 32].into(), times).unwrap()
    }

    #[test]
    fn payload_keeps_any_token_text() {
        let long = "x".repeat(3000);
        let texts =
            ["A", "AA", "AA==", "AAA=", "AAAA", "AB", "a-_b", "a+/b", "a+_b", "Zm9v\n", " ", "é", "=", "====", &long];
        for advertising in texts {
            for refresh in texts {
                let identity = identity(advertising, refresh);
                for login in [LOGIN, BOUND] {
                    let plain = write(&login, &identity).unwrap();
                    let payload = Payload::parse(&plain).unwrap();
                    assert_eq!(payload.identity().as_ref(), Some(&identity), "{advertising:?} {refresh:?}");
                    assert_eq!(payload.advertising_token(Scope::Euid).as_str(), advertising);
                    assert_eq!(payload.login, login);
                }
            }
        }
    }

    #[test]
    fn payload_token_reads_as_its_text_at_any_length() {
        for length in 1..200 {
            let bytes = vec![0xfe; length];
            for text in [aead::BASE64URL.encode(&bytes), aead::BASE64_STANDARD.encode(&bytes)] {
                let plain = write(&LOGIN, &identity(&text, "refresh")).unwrap();
                let token = Payload::parse(&plain).unwrap().advertising_token(Scope::Euid);
                assert_eq!(token.as_str(), text, "{length}");
                assert_eq!(token.as_str(), text, "{length}, second read");
            }
        }
    }

    /// Token texts of up to 3 KB: base64 of both kinds, texts that resemble base64, and any other text.
    fn token() -> impl Strategy<Value = String> {
        let bytes = || proptest::collection::vec(any::<u8>(), 1..2300);
        prop_oneof![
            bytes().prop_map(|bytes| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes)),
            bytes().prop_map(|bytes| base64::prelude::BASE64_STANDARD.encode(bytes)),
            "[A-Za-z0-9+/_=-]{1,12}",
            "[A-Za-z0-9+/_=-]{3000}",
            any::<String>().prop_filter("empty", |text| !text.is_empty()),
        ]
    }

    proptest! {
        #[test]
        fn payload_keeps_any_tokens_and_times(
            advertising in token(),
            refresh in token(),
            mut millis: [i64; 3],
            login: ([u8; 16], Option<[u8; 16]>),
            key: [u8; 32],
        ) {
            millis.sort_unstable();
            let [refresh_from, identity_expires, refresh_expires] = millis.map(UnixMillis::from_millis);
            let times = IdentityTimes { refresh_from, identity_expires, refresh_expires };
            let identity = Identity::unsealed(advertising.into(), refresh.into(), key.into(), times).unwrap();
            let login = Login { lineage: Lineage::from_bytes(login.0), subject: login.1, migrated: false };
            let plain = write(&login, &identity).unwrap();
            let payload = Payload::parse(&plain).unwrap();
            prop_assert_eq!(payload.identity(), Some(identity));
            prop_assert_eq!(payload.login, login);
        }
    }

    #[test]
    fn payload_stores_a_real_pair_decoded() {
        let identity = identity(&aead::BASE64URL.encode([1; 164]), &aead::BASE64_STANDARD.encode([2; 291]));
        assert_eq!(write(&BOUND, &identity).unwrap().len(), MOST_BUT_TOKENS + 164 + 291);
        assert_eq!(write(&LOGIN, &identity).unwrap().len(), MOST_BUT_TOKENS - 16 + 164 + 291);
    }

    #[test]
    fn payload_buffer_never_grows_and_so_leaves_no_copy() {
        let identity = identity(&"!".repeat(1000), &"!".repeat(2000));
        assert_eq!(write(&BOUND, &identity).unwrap().capacity(), MOST_BUT_TOKENS + 1000 + 2000);
    }

    #[test]
    fn opt_out_record_parses_only_if_complete_and_unchanged() {
        for login in [LOGIN, BOUND] {
            let record = OptOut { login, until: UnixMillis::from_millis(5) };
            let plain = record.write();
            assert_eq!(OptOut::parse(&plain), Some(record));
            for length in 0..plain.len() {
                assert_eq!(OptOut::parse(&plain[..length]), None, "{length}");
            }
            assert_eq!(OptOut::parse(&[&plain[..], &[0]].concat()), None);
            assert_eq!(OptOut::parse(&[&[plain[0] | 1], &plain[1..]].concat()), None, "a record has no token");
            assert!(Payload::parse(&plain).is_none());
        }
    }

    #[test]
    fn truncated_lengthened_or_unknown_payload_is_refused() {
        let plain = write(&BOUND, &identity("token", "other")).unwrap();
        for length in 0..plain.len() {
            assert!(Payload::parse(&plain[..length]).is_none(), "{length}");
        }
        let mut longer = plain.to_vec();
        longer.push(0);
        assert!(Payload::parse(&longer).is_none());
        for flags in [0x00, 0x30, 0x50, 0x90, 0x13, 0x1c] {
            let mut other = plain.to_vec();
            other[0] = flags;
            assert!(Payload::parse(&other).is_none(), "{flags:#x}");
        }
    }

    #[test]
    fn payload_that_breaks_the_rules_of_an_identity_is_refused() {
        let plain = write(&LOGIN, &identity("token", "other")).unwrap();
        let with = |range: std::ops::Range<usize>, bytes: &[u8]| {
            let mut other = plain.to_vec();
            other.splice(range, bytes.iter().copied());
            Payload::parse(&other).is_none()
        };
        assert!(!with(0..0, &[]));
        assert!(with(17..25, &3_i64.to_be_bytes()), "refresh_from after identity_expires");
        assert!(with(33..41, &1_i64.to_be_bytes()), "refresh_expires before identity_expires");
        assert!(with(73..80, &[0, 0]), "no advertising token");
        assert!(with(80..plain.len(), &[0, 0]), "no refresh token");
    }

    #[test]
    fn payload_with_a_token_too_long_for_its_length_field_is_not_written() {
        assert!(write(&LOGIN, &identity(&"!".repeat(70_000), "r")).is_none());
    }
}
