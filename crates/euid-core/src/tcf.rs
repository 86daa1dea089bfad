//! Consent from a TCF v2 string, judged as EUID's operator judges it.
//!
//! A consent banner (CMP) leaves the visitor's choice as a *TC string*, by custom in the cookie
//! `euconsent-v2`. In tower-euid, `EuidLayer::consent_from_tcf_cookie` makes the layer obey it in one call.
//! The functions here are its parts, for a hook or a host of your own:
//!
//! ```
//! # use euid_core as tower_euid;
//! use http::request;
//! use tower_euid::{Consent, tcf};
//!
//! /// The visitor agreed, at login, to an EUID being made from their address.
//! #[derive(Clone)]
//! struct AgreedToEuid;
//!
//! fn consent(request: &request::Parts) -> Consent {
//!     match request.extensions.get::<AgreedToEuid>() {
//!         Some(AgreedToEuid) => tcf::consent(&request.headers),
//!         None => Consent::Withheld,
//!     }
//! }
//! # let (mut request, ()) = http::Request::new(()).into_parts();
//! # assert_eq!(consent(&request), Consent::Withheld);
//! # request.extensions.insert(AgreedToEuid);
//! # request.headers.insert("cookie", "euconsent-v2=CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA".parse()?);
//! # assert_eq!(consent(&request), Consent::Granted);
//! # Ok::<_, http::header::InvalidHeaderValue>(())
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
//! Behind such a CMP, return [`Consent::Withheld`] instead of `Withdrawn`.
//!
//! No TC string says that the visitor agreed to an EUID being made from their address. Ask them at login, as
//! the example above assumes.

mod reader;

use std::error::Error;
use std::fmt;
use std::sync::LazyLock;

use http::HeaderMap;
use http::header::COOKIE;
use memchr::memmem::Finder;

use crate::consent::Consent;
use crate::reason::Reason;
use crate::transport::cookie::for_each;
use crate::transport::slots::AtMostOne;

/// The vendor that must be named: 21, The Trade Desk, which runs EUID's operator.
///
/// ```
/// # use euid_core as tower_euid;
/// assert_eq!(tower_euid::tcf::VENDOR, 21);
/// ```
pub const VENDOR: u16 = 21;

/// The purposes that are needed, by consent or legitimate interest.
///
/// ```
/// # use euid_core as tower_euid;
/// assert_eq!(tower_euid::tcf::PURPOSES, [1, 2, 3, 4, 7, 10]);
/// ```
pub const PURPOSES: [u8; 6] = [1, 2, 3, 4, 7, 10];

/// The longest string that is read, in bytes: 4096, the size of cookie that browsers keep.
///
/// ```
/// # use euid_core as tower_euid;
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
/// # use euid_core as tower_euid;
/// assert_eq!(tower_euid::tcf::COOKIE_NAME, "euconsent-v2");
/// ```
pub const COOKIE_NAME: &str = "euconsent-v2";

/// The verdict on a string, which decides the operator's answer to a generate with it.
///
/// Exhaustive: the operator tells these four cases apart, and a fifth would need a [`Consent`] of its own.
///
/// ```
/// # use euid_core as tower_euid;
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

/// A request holds two `euconsent-v2` cookies whose values differ: it is unknown which one the visitor chose
/// last.
///
/// ```
/// # use euid_core as tower_euid;
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
/// # use euid_core as tower_euid;
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

/// Why [`consent`] is not granted; `None` if it is.
///
/// ```
/// # use euid_core as tower_euid;
/// use http::{HeaderMap, HeaderValue, header::COOKIE};
/// use tower_euid::{Reason, tcf};
///
/// let reason = |cookies| tcf::reason(&HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(cookies))]));
/// assert_eq!(reason("theme=dark"), Some(Reason::NoConsentString));
/// assert_eq!(reason("euconsent-v2=CPehNtW"), Some(Reason::InvalidConsentString));
/// assert_eq!(reason("euconsent-v2=CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA"), None);
/// ```
#[must_use]
pub fn reason(headers: &HeaderMap) -> Option<Reason> {
    match cookie(headers) {
        Ok(Some(tc_string)) => match judge(tc_string) {
            Verdict::Sufficient => None,
            Verdict::Insufficient => Some(Reason::InsufficientConsent),
            Verdict::Version1 => Some(Reason::ConsentStringVersion1),
            Verdict::Invalid => Some(Reason::InvalidConsentString),
        },
        Ok(None) => Some(Reason::NoConsentString),
        Err(ConflictingCookies(())) => Some(Reason::ConsentStringsDiffer),
    }
}

/// The value of the cookie `euconsent-v2` of a request, byte for byte but without quotes around it. It
/// is looked for in all `Cookie` headers, up to 64 KiB of them; other cookies may hold any bytes.
///
/// ```
/// # use euid_core as tower_euid;
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
/// # use euid_core as tower_euid;
/// use tower_euid::tcf::{Verdict, judge};
///
/// assert_eq!(judge("CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA"), Verdict::Sufficient);
/// // Purpose 1 is refused.
/// assert_eq!(judge("CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA"), Verdict::Insufficient);
/// assert_eq!(judge("invalid_consent_string"), Verdict::Invalid);
/// ```
#[must_use]
pub fn judge(tc_string: impl AsRef<[u8]>) -> Verdict {
    reader::read(tc_string.as_ref()).unwrap_or(Verdict::Invalid)
}

/// The value without a pair of quotes around it, which some servers write.
fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(COOKIE_NAME));
