//! The two scopes, EUID and UID2: one wire, with different literals. All of these stand in one table here.

use std::fmt;
use std::str::FromStr;

use crate::error::ConfigError;

/// The identity framework that an operator, a token or a cookie belongs to.
///
/// EUID (European Unified ID) is for visitors in Europe; UID2 (Unified ID 2.0) for those elsewhere. Both have the same
/// API and the same tokens, but different operators, credentials and names: see [`Environment`](crate::Environment),
/// [`CookieConfig`](crate::CookieConfig) and [`Eid`](crate::openrtb::Eid). A token of one scope means nothing in the other.
///
/// Exhaustive: the wire has these two.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::Scope;
///
/// /// The scope for a visitor in this country, of a site that has contracts with both operators.
/// fn scope(country: &str) -> Scope {
///     match country {
///         "DE" | "FR" | "GB" => Scope::Euid, // and so on
///         _ => Scope::Uid2,
///     }
/// }
///
/// assert_eq!(scope("FR").eid_source(), "euid.eu");
/// assert_eq!(scope("JP").eid_source(), "uidapi.com");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// European Unified ID.
    #[default]
    Euid,
    /// Unified ID 2.0.
    Uid2,
}

/// All literals that differ between the scopes.
#[derive(Debug)]
pub(crate) struct Literals {
    /// In texts for people.
    pub(crate) name: &'static str,
    /// In metrics and environment variables that choose a scope.
    pub(crate) word: &'static str,
    /// The `source` of an `eid` in a bid request.
    pub(crate) eid_source: &'static str,
    pub(crate) production: &'static str,
    pub(crate) integration: &'static str,
    /// The domain of the public operators: a host in it has this scope.
    pub(crate) operator_domain: &'static str,
    /// What API keys begin with. Old ones begin with anything.
    pub(crate) api_key: &'static str,
    /// What advertising tokens of version 3 and 4 begin with: for an email address, then for a phone number.
    pub(crate) advertising_tokens: [[&'static str; 2]; 2],
    pub(crate) refresh_tokens: &'static str,
    /// The scope's part in the names of cookies, after a prefix such as `__Host-`, and what an app's headers begin with.
    pub(crate) stem: &'static str,
    /// The cookie in which the JavaScript SDK keeps a whole identity.
    pub(crate) js_sdk_cookie: &'static str,
    /// The cookie from which Prebid takes the bare advertising token.
    pub(crate) token_cookie: &'static str,
    /// What the names of environment variables begin with.
    pub(crate) variables: &'static str,
    /// The operator's documents: a sandbox's error texts point there.
    #[cfg_attr(not(feature = "operator"), allow(dead_code, reason = "the operator's half reads it"))]
    pub(crate) documents: &'static str,
    /// The bits of the scope in the first byte of a token.
    #[cfg_attr(not(feature = "operator"), allow(dead_code, reason = "the operator's half reads it"))]
    pub(crate) token_bits: u8,
}

static EUID: Literals = Literals {
    name: "EUID",
    word: "euid",
    eid_source: "euid.eu",
    production: "https://prod.euid.eu",
    integration: "https://integ.euid.eu",
    operator_domain: "euid.eu",
    api_key: "EUID-",
    advertising_tokens: [["E3", "E4"], ["F3", "F4"]],
    refresh_tokens: "EA",
    stem: "euid",
    js_sdk_cookie: "__euid",
    token_cookie: "__euid_advertising_token",
    variables: "EUID_",
    documents: "https://euid.eu/docs",
    token_bits: 0x10,
};

static UID2: Literals = Literals {
    name: "UID2",
    word: "uid2",
    eid_source: "uidapi.com",
    production: "https://prod.uidapi.com",
    integration: "https://operator-integ.uidapi.com",
    operator_domain: "uidapi.com",
    api_key: "UID2-",
    advertising_tokens: [["A3", "A4"], ["B3", "B4"]],
    refresh_tokens: "AA",
    stem: "uid2",
    js_sdk_cookie: "__uid_2",
    token_cookie: "__uid2_advertising_token",
    variables: "UID2_",
    documents: "https://unifiedid.com/docs",
    token_bits: 0x00,
};

/// A region that has its own public operator of UID2, for servers near it. EUID has none.
///
/// ```
/// use euid_core::{Environment, Operator, Uid2Region};
///
/// let operator = Operator::builder(Environment::Uid2Region(Uid2Region::Japan)).build()?;
/// assert_eq!(operator.base_url(), "https://jp.prod.uidapi.com/");
/// # Ok::<_, euid_core::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Uid2Region {
    /// The west of the USA: `usw`.
    UsWest,
    /// Australia: `au`.
    Australia,
    /// Japan: `jp`.
    Japan,
    /// Singapore: `sg`.
    Singapore,
    /// The region that is nearest to the caller: `global`.
    Global,
}

/// All literals that differ between the regions of UID2.
#[derive(Debug)]
pub(crate) struct RegionLiterals {
    /// In environment variables.
    pub(crate) word: &'static str,
    pub(crate) production: &'static str,
}

impl Uid2Region {
    pub(crate) const ALL: [Self; 5] = [Self::UsWest, Self::Australia, Self::Japan, Self::Singapore, Self::Global];

    pub(crate) const fn literals(self) -> &'static RegionLiterals {
        match self {
            Self::UsWest => &RegionLiterals { word: "usw", production: "https://usw.prod.uidapi.com" },
            Self::Australia => &RegionLiterals { word: "au", production: "https://au.prod.uidapi.com" },
            Self::Japan => &RegionLiterals { word: "jp", production: "https://jp.prod.uidapi.com" },
            Self::Singapore => &RegionLiterals { word: "sg", production: "https://sg.prod.uidapi.com" },
            Self::Global => &RegionLiterals { word: "global", production: "https://global.prod.uidapi.com" },
        }
    }
}

impl Scope {
    /// Both scopes.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Scope;
    /// assert_eq!(Scope::ALL.map(Scope::as_str), ["euid", "uid2"]);
    /// ```
    pub const ALL: [Self; 2] = [Self::Euid, Self::Uid2];

    /// The scope as a word, for metrics and configuration: `euid` or `uid2`. [`FromStr`] reads it, and `Display` writes
    /// the name for people.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Scope;
    /// assert_eq!("uid2".parse::<Scope>()?.as_str(), "uid2");
    /// assert_eq!(Scope::Uid2.to_string(), "UID2");
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.literals().word
    }

    /// The other scope.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Scope;
    /// assert_eq!(Scope::Euid.other(), Scope::Uid2);
    /// ```
    #[inline]
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Euid => Self::Uid2,
            Self::Uid2 => Self::Euid,
        }
    }

    /// The `source` of this scope's tokens in an OpenRTB bid request: `euid.eu` or `uidapi.com`.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Scope;
    /// assert_eq!(Scope::Uid2.eid_source(), "uidapi.com");
    /// ```
    #[must_use]
    pub fn eid_source(self) -> &'static str {
        self.literals().eid_source
    }

    /// The beginning of the names of this scope's environment variables: `EUID_` or `UID2_`.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Scope;
    /// let name = format!("{}OPERATOR_URL", Scope::Uid2.env_prefix());
    /// assert_eq!(name, "UID2_OPERATOR_URL");
    /// ```
    #[must_use]
    pub fn env_prefix(self) -> &'static str {
        self.literals().variables
    }

    /// The name of the cookie in which the JavaScript SDK of this scope keeps an identity: `__euid` or `__uid_2`. See
    /// [`CookieConfig::migrate_js_sdk_cookie`](crate::CookieConfig::migrate_js_sdk_cookie).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Scope;
    /// assert_eq!(Scope::Uid2.js_sdk_cookie(), "__uid_2");
    /// ```
    #[must_use]
    pub fn js_sdk_cookie(self) -> &'static str {
        self.literals().js_sdk_cookie
    }

    /// The scope of an advertising token, by its first two characters. Returns `None` if they tell nothing: publishers
    /// must treat tokens as opaque, and an operator may begin them otherwise some day.
    ///
    /// | first characters | scope |
    /// | --- | --- |
    /// | `E4`, `F4`, `E3`, `F3` | EUID (email address, phone number; version 4, version 3) |
    /// | `A4`, `B4`, `A3`, `B3` | UID2 |
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Scope;
    /// assert_eq!(Scope::of_advertising_token("E4AAABl"), Some(Scope::Euid));
    /// assert_eq!(Scope::of_advertising_token("B4AAABl"), Some(Scope::Uid2));
    /// assert_eq!(Scope::of_advertising_token("AgAAABl"), None); // version 2 had no scope
    /// ```
    #[must_use]
    pub fn of_advertising_token(token: &str) -> Option<Self> {
        let begins = |scope: &Self| {
            let beginnings = scope.literals().advertising_tokens;
            beginnings.as_flattened().iter().any(|beginning| token.starts_with(beginning))
        };
        Self::ALL.into_iter().find(begins)
    }

    /// The scope of a refresh token, by its length and its first two characters; `None` if they tell nothing.
    pub(crate) fn of_refresh_token(token: &str) -> Option<Self> {
        let is_envelope = token.len() == REFRESH_TOKEN;
        Self::ALL.into_iter().find(|scope| is_envelope && token.starts_with(scope.literals().refresh_tokens))
    }

    /// The scope of an API key, by its beginning; `None` for an old one, which tells nothing.
    pub(crate) fn of_api_key(api_key: &str) -> Option<Self> {
        let begins = |prefix: &str| api_key.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        Self::ALL.into_iter().find(|scope| begins(scope.literals().api_key))
    }

    /// The scope of a public operator, by its host; `None` for any other host.
    pub(crate) fn of_host(host: &str) -> Option<Self> {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let is_in = |domain| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        Self::ALL.into_iter().find(|scope| is_in(scope.literals().operator_domain))
    }

    #[inline]
    pub(crate) const fn literals(self) -> &'static Literals {
        match self {
            Self::Euid => &EUID,
            Self::Uid2 => &UID2,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.literals().name)
    }
}

impl FromStr for Scope {
    type Err = ConfigError;

    /// Reads `euid` or `uid2`, in upper or lower case.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let is_word = |scope: &Self| text.eq_ignore_ascii_case(scope.as_str());
        Self::ALL.into_iter().find(is_word).ok_or_else(|| ConfigError::new("neither `euid` nor `uid2`"))
    }
}

/// The length of a refresh token, in characters: operators issue no other.
const REFRESH_TOKEN: usize = 388;

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};

    use super::*;

    /// The first byte of a token is `scope << 4 | type << 2 | 3`, the second its version: 112 or 128.
    #[test]
    fn scope_of_a_token_is_in_its_first_byte() {
        for scope in Scope::ALL {
            for (kind, version) in [(0, 112), (0, 128), (1, 112), (1, 128)] {
                let token = BASE64_URL_SAFE_NO_PAD.encode([scope.literals().token_bits | kind << 2 | 3, version, 0, 9]);
                assert_eq!(Scope::of_advertising_token(&token), Some(scope), "{token}");
            }
            let refresh_token = BASE64_STANDARD.encode([&[scope.literals().token_bits, 0, 9][..], &[0; 288]].concat());
            assert_eq!(Scope::of_refresh_token(&refresh_token), Some(scope), "{refresh_token}");
        }
        for token in ["", "E", "E5", "AgAA", "e4AA", " E4"] {
            assert_eq!(Scope::of_advertising_token(token), None, "{token}");
        }
        for token in ["", "EA", "AA", &format!("EA{}", "A".repeat(387)), &format!("EB{}", "A".repeat(386))] {
            assert_eq!(Scope::of_refresh_token(token), None, "{token}");
        }
    }

    #[test]
    fn scope_of_an_api_key_is_its_beginning_in_any_case() {
        for scope in Scope::ALL {
            let key = format!("{scope}-C-T-124-key");
            for key in [key.to_lowercase(), key] {
                assert_eq!(Scope::of_api_key(&key), Some(scope), "{key}");
            }
        }
        for key in
            ["", "EUID", "UID2key", " EUID-", "xUID2-", "ÜUID-key", "QDEJAFMOjilp4oh2hYyy1WWQJdvBEn81Wcaa32DTrbY="]
        {
            assert_eq!(Scope::of_api_key(key), None, "{key}");
        }
    }

    #[test]
    fn scope_of_a_host_is_its_domain() {
        for scope in Scope::ALL {
            let domain = scope.literals().operator_domain;
            for host in [domain.to_owned(), format!("prod.{domain}"), format!("A.B.{}.", domain.to_uppercase())] {
                assert_eq!(Scope::of_host(&host), Some(scope), "{host}");
            }
            for host in [format!("{domain}.example"), format!("not{domain}"), format!("prod.{domain}..")] {
                assert_eq!(Scope::of_host(&host), None, "{host}");
            }
        }
        for host in ["", ".", "localhost", "127.0.0.1", "[::1]"] {
            assert_eq!(Scope::of_host(host), None, "{host}");
        }
    }

    #[test]
    fn no_literal_is_the_same_in_both_scopes() {
        let fields = |scope: Scope| format!("{:#?}", scope.literals());
        let (euid, uid2) = (fields(Scope::Euid), fields(Scope::Uid2));
        for (ours, theirs) in
            euid.lines().zip(uid2.lines()).filter(|(line, _)| line.contains(['"']) || line.contains(": "))
        {
            assert!(ours != theirs || ours.trim().ends_with('['), "{ours}");
        }
    }

    #[test]
    fn scope_is_read_from_its_word() {
        for (text, scope) in
            [("euid", Scope::Euid), ("EUID", Scope::Euid), ("uid2", Scope::Uid2), ("Uid2", Scope::Uid2)]
        {
            assert_eq!(text.parse::<Scope>().unwrap(), scope);
        }
        assert_eq!("uid".parse::<Scope>().unwrap_err().to_string(), "neither `euid` nor `uid2`");
    }
}
