//! Consent from a TCF v2 string, judged as EUID's operator judges it.
//!
//! A consent banner (CMP) leaves the visitor's choice as a *TC string*, by custom in the cookie
//! `euconsent-v2`. [`EuidLayer::consent_from_tcf_cookie`](crate::EuidLayer::consent_from_tcf_cookie) makes
//! the layer obey it in one call. The functions here are its parts, for a hook of one's own:
//!
//! ```
//! use tower_euid::{Consent, EuidLayer, tcf};
//!
//! # #[derive(Clone)] struct AgreedToEuid;
//! # let keys = tower_euid::CookieKey::generate()?.into();
//! # let client = tower_euid::refresh_fn(async |identity| Ok(tower_euid::Refreshed::Identity(identity)));
//! // A layer further out has looked up what the visitor answered at login.
//! let layer = EuidLayer::new(keys, client).consent(|request| match request.extensions.get::<AgreedToEuid>() {
//!     Some(AgreedToEuid) => tcf::consent(&request.headers),
//!     None => Consent::Withheld,
//! });
//! # Ok::<_, tower_euid::ConfigError>(())
//! ```
//!
//! # The rules
//!
//! 1. The string must name vendor [`VENDOR`]. If the vendor has consent, the consented purposes count; if
//!    it has legitimate interest, the purposes with legitimate interest count too. Together they must
//!    hold all of [`PURPOSES`]. Special features and publisher restrictions do not matter.
//! 2. A string is invalid where it is invalid for the operator, which answers HTTP 400 to it. Fields that do
//!    not matter must be there all the same, and the other segments must be readable.
//! 3. A string of more than [`MAX_LENGTH`] bytes is invalid. The work is linear in the length; nothing is
//!    allocated, and no input panics.
//!
//! # What they mean for an identity
//!
//! | the cookie `euconsent-v2` | [`Verdict`] | [`Consent`] | the identity |
//! | --- | --- | --- | --- |
//! | holds enough | `Sufficient` | `Granted` | is used and refreshed |
//! | holds too little | `Insufficient` | `Withdrawn` | ends |
//! | cannot be read | `Invalid`, `Version1` | `Withheld` | is kept, neither used nor refreshed |
//! | is not there | – | `Withheld` | is kept, neither used nor refreshed |
//! | came twice, and the values differ | – | `Withheld` | is kept, neither used nor refreshed |
//!
//! A CMP that writes a string *before* the visitor has chosen makes `Insufficient` mean "not asked yet".
//! Behind such a CMP, write a hook that returns [`Consent::Withheld`] instead of `Withdrawn`.
//!
//! No TC string says that the visitor agreed to an EUID being made from their address. Ask them at login; the
//! hook above assumes so.

use std::error::Error;
use std::fmt;
use std::sync::LazyLock;

use http::HeaderMap;
use http::header::COOKIE;
use memchr::memmem::Finder;

use crate::cookie::{AtMostOne, for_each};
use crate::plan::Consent;

/// The vendor that must be named: 21, The Trade Desk, which runs EUID's operator.
///
/// ```
/// assert_eq!(tower_euid::tcf::VENDOR, 21);
/// ```
pub const VENDOR: u16 = 21;

/// The purposes that are needed, by consent or legitimate interest.
///
/// ```
/// assert_eq!(tower_euid::tcf::PURPOSES, [1, 2, 3, 4, 7, 10]);
/// ```
pub const PURPOSES: [u8; 6] = [1, 2, 3, 4, 7, 10];

/// The longest string that is read, in bytes: 4096, which is what browsers keep of a cookie.
///
/// ```
/// use tower_euid::tcf::{MAX_LENGTH, Verdict, judge};
///
/// let sufficient = "CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA";
/// assert_eq!(judge(format!("{sufficient:.<MAX_LENGTH$}")), Verdict::Sufficient);
/// assert_eq!(judge(format!("{sufficient:.<0$}", MAX_LENGTH + 1)), Verdict::Invalid);
/// ```
pub const MAX_LENGTH: usize = 4096;

/// The name of the cookie in which consent banners keep the string.
///
/// ```
/// assert_eq!(tower_euid::tcf::COOKIE_NAME, "euconsent-v2");
/// ```
pub const COOKIE_NAME: &str = "euconsent-v2";

/// What a string allows, and what the operator answers to a generate with it.
///
/// ```
/// use tower_euid::Consent;
/// use tower_euid::tcf::Verdict;
///
/// assert_eq!(Consent::from(Verdict::Sufficient), Consent::Granted);
/// assert_eq!(Consent::from(Verdict::Insufficient), Consent::Withdrawn);
/// assert_eq!(Consent::from(Verdict::Invalid), Consent::Withheld);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Vendor and purposes are there: an identity.
    Sufficient,
    /// The vendor or a purpose is missing: `insufficient_user_consent`.
    Insufficient,
    /// A string of TCF version 1, which says nothing about these purposes: HTTP 500.
    Version1,
    /// Not a TC string: HTTP 400.
    Invalid,
}

impl From<Verdict> for Consent {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Sufficient => Self::Granted,
            Verdict::Insufficient => Self::Withdrawn,
            Verdict::Version1 | Verdict::Invalid => Self::Withheld,
        }
    }
}

/// A request holds two `euconsent-v2` cookies whose values differ, so it is unknown which one the visitor
/// chose last.
///
/// ```
/// use http::{HeaderMap, HeaderValue, header::COOKIE};
/// use tower_euid::tcf;
///
/// let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static("euconsent-v2=C1; euconsent-v2=C2"))]);
/// assert_eq!(tcf::cookie(&headers).unwrap_err().to_string(), "two euconsent-v2 cookies came, and they differ");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConflictingCookies(());

impl fmt::Display for ConflictingCookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "two {COOKIE_NAME} cookies came, and they differ")
    }
}

impl Error for ConflictingCookies {}

/// The consent that the cookie `euconsent-v2` of a request expresses, by the table above.
///
/// ```
/// use http::{HeaderMap, HeaderValue, header::COOKIE};
/// use tower_euid::{Consent, tcf};
///
/// let consent = |cookies| tcf::consent(&HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(cookies))]));
/// let (granted, refused) = (
///     "euconsent-v2=CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA",
///     "euconsent-v2=CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA",
/// );
/// assert_eq!(consent(granted), Consent::Granted);
/// assert_eq!(consent(refused), Consent::Withdrawn);
/// assert_eq!(consent("euconsent-v2=CPehNtW"), Consent::Withheld);
/// assert_eq!(consent("theme=dark"), Consent::Withheld);
/// ```
#[must_use]
pub fn consent(headers: &HeaderMap) -> Consent {
    match cookie(headers) {
        Ok(Some(tc_string)) => judge(tc_string).into(),
        Ok(None) | Err(ConflictingCookies(())) => Consent::Withheld,
    }
}

/// The value of the cookie `euconsent-v2` of a request, byte for byte but without quotes around it. It
/// is looked for in all `Cookie` headers, up to 64 KiB of them; other cookies may hold any bytes.
///
/// ```
/// use http::{HeaderMap, HeaderValue, header::COOKIE};
/// use tower_euid::tcf;
///
/// let neighbour = HeaderValue::from_bytes(b"city=K\xf6ln;euconsent-v2=\"CPehNtW\"")?;
/// let headers = HeaderMap::from_iter([(COOKIE, neighbour)]);
/// assert_eq!(tcf::cookie(&headers), Ok(Some(&b"CPehNtW"[..])));
/// assert_eq!(tcf::cookie(&HeaderMap::new()), Ok(None));
/// # Ok::<_, http::header::InvalidHeaderValue>(())
/// ```
///
/// # Errors
///
/// [`ConflictingCookies`] if the cookie came more than once and the values differ. That is not consent.
pub fn cookie(headers: &HeaderMap) -> Result<Option<&[u8]>, ConflictingCookies> {
    let mut hit = AtMostOne::None;
    for_each(&FINDER, headers.get_all(COOKIE), |rest_of_name, value| {
        if rest_of_name.is_empty() {
            hit.push(unquoted(value));
        }
    });
    match hit {
        AtMostOne::None => Ok(None),
        AtMostOne::One(value) => Ok(Some(value)),
        AtMostOne::Conflict => Err(ConflictingCookies(())),
    }
}

/// Judges a TC string. The text is taken as it is: a blank or a newline at either end makes it invalid.
///
/// ```
/// use tower_euid::tcf::{Verdict, judge};
///
/// assert_eq!(judge("CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA"), Verdict::Sufficient);
/// // Purpose 1 is refused.
/// assert_eq!(judge("CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA"), Verdict::Insufficient);
/// assert_eq!(judge("invalid_consent_string"), Verdict::Invalid);
/// ```
#[must_use]
pub fn judge(tc_string: impl AsRef<[u8]>) -> Verdict {
    read(tc_string.as_ref()).unwrap_or(Verdict::Invalid)
}

/// `None` for what the operator refuses with HTTP 400.
fn read(text: &[u8]) -> Option<Verdict> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let (core, others) = segments(text);
    let mut bits = Bits::of(core)?;
    match bits.take(6)? {
        // The operator fails only later, without a look at the rest.
        1 => Some(Verdict::Version1),
        2 => {
            let is_sufficient = core_allows(&mut bits)?;
            check_others(others)?;
            Some(if is_sufficient { Verdict::Sufficient } else { Verdict::Insufficient })
        }
        _ => None,
    }
}

/// The core and the segments after it, where dots at the end do not begin a segment.
fn segments(text: &[u8]) -> (&[u8], impl Iterator<Item = &[u8]>) {
    let end = text.iter().rposition(|&byte| byte != b'.').map_or(0, |last| last + 1);
    let mut segments = text.get(..end).unwrap_or_default().split(|&byte| byte == b'.');
    (segments.next().unwrap_or_default(), segments)
}

/// Reads the core segment from behind its version to its end.
fn core_allows(bits: &mut Bits<'_>) -> Option<bool> {
    // When and by which CMP it was made, in which language, after which lists; special features.
    bits.skip(146)?;
    let (consented, of_legitimate_interest) = (bits.take(24)?, bits.take(24)?);
    // Purpose one treatment, country of the publisher.
    bits.skip(13)?;
    let mut purposes = 0;
    if names_vendor(bits)? {
        purposes |= consented;
    }
    if names_vendor(bits)? {
        purposes |= of_legitimate_interest;
    }
    for _ in 0..bits.take(12)? {
        // A publisher restriction: purpose and type, then vendors with no upper bound.
        bits.skip(8)?;
        range_names_vendor(bits, u32::MAX)?;
    }
    Some(PURPOSES.iter().all(|purpose| purposes & (1 << (24 - purpose)) != 0))
}

/// Reads the segments after the core. Of each type the operator reads the first, and to find the three
/// types it reads the types of all segments up to the last of the three.
fn check_others<'a>(segments: impl Iterator<Item = &'a [u8]>) -> Option<()> {
    let (mut disclosed, mut allowed, mut publisher) = (false, false, false);
    for segment in segments {
        let mut bits = Bits::of(segment)?;
        if disclosed && allowed && publisher {
            continue;
        }
        match bits.take(3)? {
            1 if !disclosed => {
                names_vendor(&mut bits)?;
                disclosed = true;
            }
            2 if !allowed => {
                names_vendor(&mut bits)?;
                allowed = true;
            }
            3 if !publisher => {
                // Purposes by consent and by legitimate interest, then the same for custom purposes.
                bits.skip(48)?;
                let custom = bits.take(6)?;
                bits.skip(2 * custom)?;
                publisher = true;
            }
            _ => {}
        }
    }
    Some(())
}

/// Reads a list of vendors, as a bit field or as ranges.
fn names_vendor(bits: &mut Bits<'_>) -> Option<bool> {
    let last = bits.take(16)?;
    if bits.take(1)? == 1 {
        return range_names_vendor(bits, last);
    }
    let vendor = u32::from(VENDOR);
    if last < vendor {
        bits.skip(last)?;
        return Some(false);
    }
    bits.skip(vendor - 1)?;
    let named = bits.take(1)? == 1;
    bits.skip(last - vendor)?;
    Some(named)
}

/// Reads ranges of vendors. A range must not be reversed nor go past `last`; a single vendor may.
fn range_names_vendor(bits: &mut Bits<'_>, last: u32) -> Option<bool> {
    let mut named = false;
    for _ in 0..bits.take(12)? {
        let is_range = bits.take(1)? == 1;
        let from = bits.take(16)?;
        let to = if is_range { bits.take(16)? } else { from };
        if is_range && (from > to || to > last) {
            return None;
        }
        named |= (from..=to).contains(&u32::from(VENDOR));
    }
    Some(named)
}

/// The bits of a segment, read once from front to back: every step moves on, so there are no more steps
/// than bits.
struct Bits<'a> {
    characters: &'a [u8],
    at: usize,
    /// Whole bytes only, as base64 holds no others.
    end: usize,
}

impl<'a> Bits<'a> {
    /// `None` if the segment is not base64url, padded fully or not at all.
    fn of(segment: &'a [u8]) -> Option<Self> {
        let length = segment.iter().take_while(|&&byte| sextet(byte).is_some()).count();
        let (characters, padding) = segment.split_at_checked(length)?;
        let is_whole = matches!((length % 4, padding), (0, b"") | (2, b"" | b"==") | (3, b"" | b"="));
        is_whole.then_some(Self { characters, at: 0, end: length * 6 / 8 * 8 })
    }

    /// The next `count` bits, at most 24.
    fn take(&mut self, count: usize) -> Option<u32> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.end)?;
        let past = end.div_ceil(6);
        let characters = self.characters.get(self.at / 6..past)?;
        let bits = characters.iter().try_fold(0, |bits, &byte| Some(bits << 6 | u32::from(sextet(byte)?)))?;
        self.at = end;
        Some(bits >> (past * 6 - end) & ((1 << count) - 1))
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        self.at = self.at.checked_add(usize::try_from(count).ok()?).filter(|&at| at <= self.end)?;
        Some(())
    }
}

/// The six bits of a character of base64url.
fn sextet(character: u8) -> Option<u8> {
    #[cfg(test)]
    tests::LOOKS.set(tests::LOOKS.get() + 1);
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

/// The value without a pair of quotes around it, which some servers write.
fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(COOKIE_NAME));

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    thread_local! {
        /// How often a character was looked at.
        pub(super) static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    /// Checks that reading is linear, with a small factor.
    fn looks_are_few(text: &[u8]) {
        LOOKS.set(0);
        let verdict = judge(text);
        let most = if text.len() > MAX_LENGTH { 0 } else { 4 * text.len() + 64 };
        assert!(LOOKS.get() <= most, "{} looks at {} characters, {verdict:?}", LOOKS.get(), text.len());
    }

    /// Hundreds of ranges over all vendors, for which a decoder that expands ranges needs seconds.
    #[test]
    fn hostile_string_costs_no_more_than_its_length() {
        let hostile = include_bytes!("../tests/vectors/consent-hostile.txt").trim_ascii();
        assert_eq!(judge(hostile), Verdict::Sufficient);
        looks_are_few(hostile);
        looks_are_few(&hostile.repeat(12));
    }

    #[test]
    fn segments_cost_no_more_than_their_length() {
        let core = "CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA";
        for segment in [".", ".gA", ".YAAAAAAAAAAA", ".IAAA", ".AAAA", ".A"] {
            looks_are_few(format!("{core}{}", segment.repeat((MAX_LENGTH - core.len()) / segment.len())).as_bytes());
        }
        looks_are_few(&[b'.'; MAX_LENGTH]);
    }

    proptest! {
        /// Long runs of one character make long lists of ranges and restrictions.
        #[test]
        fn any_string_costs_no_more_than_its_length(
            head in "C[A-Za-z0-9_-]{35}",
            runs in vec((select(&b"A_QgIf4.YE"[..]), 0..900_usize), 0..12),
        ) {
            let runs = runs.into_iter().flat_map(|(character, count)| std::iter::repeat_n(character, count));
            looks_are_few(&head.into_bytes().into_iter().chain(runs).collect::<Vec<u8>>());
        }
    }
}
