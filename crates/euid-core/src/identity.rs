//! The *identity*, which the operator issues, and its parts.
//!
//! 1. An [`Identity`] has six members that belong together. It is checked when it is made.
//! 2. A handler gets the [`AdvertisingToken`](crate::AdvertisingToken) only. Refresh token and response key
//!    stay between the operator, the sealed cookie and this crate.
//! 3. `Debug` is redacted everywhere. [`RefreshToken`] and [`ResponseKey`] renew an identity, so they are
//!    wiped when dropped; the advertising token, which goes to every bidder, is not.

mod json;
mod secrets;

use std::fmt;

pub(crate) use self::json::{Object, Parts};
pub use self::secrets::{RefreshToken, ResponseKey};
use crate::clock::UnixMillis;
use crate::error::InvalidIdentity;
use crate::scope::Scope;

/// The three times of an identity, all by the operator's clock.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::clock::UnixMillis;
/// use tower_euid::identity::IdentityTimes;
///
/// let at = UnixMillis::from_millis;
/// let times = IdentityTimes { refresh_from: at(10), identity_expires: at(20), refresh_expires: at(30) };
/// assert!(!times.is_due(at(9)) && times.is_due(at(10)));
/// assert!(times.is_usable(at(19)) && !times.is_usable(at(20)));
/// assert!(times.is_refreshable(at(29)) && !times.is_refreshable(at(30)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityTimes {
    /// From this moment on the pair should be refreshed before the token is used.
    pub refresh_from: UnixMillis,
    /// From this moment on the advertising token is worthless.
    pub identity_expires: UnixMillis,
    /// From this moment on the refresh token is worthless; the visitor must log in again.
    pub refresh_expires: UnixMillis,
}

impl IdentityTimes {
    /// Whether a refresh is due.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::clock::UnixMillis;
    /// # use tower_euid::identity::IdentityTimes;
    /// # let at = UnixMillis::from_millis;
    /// let times = IdentityTimes { refresh_from: at(10), identity_expires: at(20), refresh_expires: at(30) };
    /// assert!(!times.is_due(at(9)) && times.is_due(at(10)));
    /// assert!(times.is_due(at(30))); // also when it is too late
    /// ```
    #[must_use]
    pub fn is_due(&self, now: UnixMillis) -> bool {
        now >= self.refresh_from
    }

    /// Whether the advertising token may be used.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::clock::UnixMillis;
    /// # use tower_euid::identity::IdentityTimes;
    /// # let at = UnixMillis::from_millis;
    /// let times = IdentityTimes { refresh_from: at(10), identity_expires: at(20), refresh_expires: at(30) };
    /// assert!(times.is_usable(at(19)) && !times.is_usable(at(20)));
    /// ```
    #[must_use]
    pub fn is_usable(&self, now: UnixMillis) -> bool {
        now < self.identity_expires
    }

    /// Whether the refresh token may be used.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::clock::UnixMillis;
    /// # use tower_euid::identity::IdentityTimes;
    /// # let at = UnixMillis::from_millis;
    /// let times = IdentityTimes { refresh_from: at(10), identity_expires: at(20), refresh_expires: at(30) };
    /// assert!(times.is_refreshable(at(5))); // before it is due, too
    /// assert!(times.is_refreshable(at(29)) && !times.is_refreshable(at(30)));
    /// ```
    #[must_use]
    pub fn is_refreshable(&self, now: UnixMillis) -> bool {
        now < self.refresh_expires
    }
}

/// The identity that the operator issues at a login and at every refresh: a token pair, its response key
/// and three times.
///
/// It deserializes from the operator's JSON; unknown members are ignored. There is no `Serialize`,
/// because an identity leaves the server sealed only.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::Identity;
///
/// let identity: Identity = serde_json::from_str(r#"{
///     "advertising_token": "E4AAAABl", "refresh_token": "EAAAAGZ",
///     "refresh_response_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
///     "refresh_from": 1735693200000, "identity_expires": 1735948800000, "refresh_expires": 1738281600000
/// }"#)?;
/// assert_eq!(identity.times().refresh_from.as_millis(), 1735693200000);
/// assert!(!format!("{identity:?}").contains("EAAAAGZ"));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    advertising_token: Box<str>,
    refresh_token: RefreshToken,
    response_key: ResponseKey,
    times: IdentityTimes,
}

impl Identity {
    /// Puts an identity together.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::Identity;
    /// use tower_euid::clock::UnixMillis;
    /// use tower_euid::identity::IdentityTimes;
    ///
    /// let at = UnixMillis::from_millis;
    /// let times = IdentityTimes { refresh_from: at(10), identity_expires: at(20), refresh_expires: at(30) };
    /// let new = |times| Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times);
    /// assert!(new(times).is_ok());
    /// assert!(new(IdentityTimes { refresh_expires: at(19), ..times }).is_err()); // ends before its token
    /// ```
    ///
    /// # Errors
    ///
    /// If a token is empty or has a character that is not visible ASCII or is one of `"'<>,;\`, or if the
    /// times are not `refresh_from ≤ identity_expires ≤ refresh_expires`.
    pub fn new(
        advertising_token: impl Into<Box<str>>,
        refresh_token: RefreshToken,
        response_key: ResponseKey,
        times: IdentityTimes,
    ) -> Result<Self, InvalidIdentity> {
        let advertising_token = advertising_token.into();
        if !is_token(&advertising_token) {
            return Err(InvalidIdentity::new("advertising_token has a character that no token has"));
        }
        if !is_token(&refresh_token.0) {
            return Err(InvalidIdentity::new("refresh_token has a character that no token has"));
        }
        Self::unsealed(advertising_token, refresh_token, response_key, times)
    }

    /// As [`new`](Self::new), with any text for tokens: for an identity that was checked when it was sealed,
    /// perhaps by a version with other rules.
    pub(crate) fn unsealed(
        advertising_token: Box<str>,
        refresh_token: RefreshToken,
        response_key: ResponseKey,
        times: IdentityTimes,
    ) -> Result<Self, InvalidIdentity> {
        if advertising_token.is_empty() {
            return Err(InvalidIdentity::new("advertising_token is empty"));
        }
        if refresh_token.0.is_empty() {
            return Err(InvalidIdentity::new("refresh_token is empty"));
        }
        if times.refresh_from > times.identity_expires {
            return Err(InvalidIdentity::new("refresh_from is after identity_expires"));
        }
        if times.identity_expires > times.refresh_expires {
            return Err(InvalidIdentity::new("identity_expires is after refresh_expires"));
        }
        Ok(Self { advertising_token, refresh_token, response_key, times })
    }

    /// The advertising token, e.g. for a bid request of the very response that logs in.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::identity::{Identity, IdentityTimes};
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// assert_eq!(identity.advertising_token(), "E4AAAABl");
    /// # Ok::<_, tower_euid::error::InvalidIdentity>(())
    /// ```
    #[must_use]
    pub fn advertising_token(&self) -> &str {
        &self.advertising_token
    }

    /// Whether it is an identity of EUID or of UID2, by the first characters of its advertising token
    /// ([`Scope::of_advertising_token`]), else of its refresh token. `None` if neither tells it.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Scope;
    /// # use tower_euid::identity::{Identity, IdentityTimes};
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// assert_eq!(identity.scope(), Some(Scope::Euid));
    /// # Ok::<_, tower_euid::error::InvalidIdentity>(())
    /// ```
    #[must_use]
    pub fn scope(&self) -> Option<Scope> {
        let by_refresh_token = || Scope::of_refresh_token(self.refresh_token.expose_secret());
        Scope::of_advertising_token(&self.advertising_token).or_else(by_refresh_token)
    }

    /// The token that the next refresh sends to the operator.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::identity::{Identity, IdentityTimes};
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// let body = identity.refresh_token().expose_secret(); // of `POST /v2/token/refresh`
    /// assert_eq!(body, "EAAAAGZ");
    /// # Ok::<_, tower_euid::error::InvalidIdentity>(())
    /// ```
    #[must_use]
    pub fn refresh_token(&self) -> &RefreshToken {
        &self.refresh_token
    }

    /// The key under which the operator encrypts its answer to the next refresh.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::identity::{Identity, IdentityTimes};
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// assert_eq!(identity.response_key(), &[5; 32].into());
    /// # Ok::<_, tower_euid::error::InvalidIdentity>(())
    /// ```
    #[must_use]
    pub fn response_key(&self) -> &ResponseKey {
        &self.response_key
    }

    /// When the refresh is due and when each token expires.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::identity::{Identity, IdentityTimes};
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// assert!(identity.times().is_due(at(1))); // and is refreshed on the next page
    /// # Ok::<_, tower_euid::error::InvalidIdentity>(())
    /// ```
    #[must_use]
    pub fn times(&self) -> IdentityTimes {
        self.times
    }

    /// The same identity, whose refresh is due from another moment on: at the latest when its advertising
    /// token expires.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::identity::{Identity, IdentityTimes};
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(10), identity_expires: at(20), refresh_expires: at(30) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// let identity = identity.with_refresh_from(at(15)); // spreads the refreshes of many visitors
    /// assert!(!identity.times().is_due(at(14)) && identity.times().is_due(at(15)));
    /// assert!(identity.with_refresh_from(at(25)).times().is_due(at(20)));
    /// # Ok::<_, tower_euid::error::InvalidIdentity>(())
    /// ```
    #[must_use]
    pub fn with_refresh_from(mut self, refresh_from: UnixMillis) -> Self {
        self.times.refresh_from = refresh_from.min(self.times.identity_expires);
        self
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("times", &self.times).finish_non_exhaustive()
    }
}

/// Whether `text` can stand in a cookie, a header, a JSON string and a page without being changed.
fn is_token(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'<>,;\\".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::AdvertisingToken;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn parse(change: impl FnOnce(&mut serde_json::Value)) -> Result<Identity, String> {
        let mut json = serde_json::json!({
            "advertising_token": "advertising-secret", "refresh_token": "refresh-secret", "refresh_response_key": KEY,
            "refresh_from": 1, "identity_expires": 2, "refresh_expires": 3, "user_token": "long gone"
        });
        change(&mut json);
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn identity_is_validated_when_deserialized() {
        assert!(parse(|_| ()).is_ok());
        for (member, value, complaint) in [
            ("advertising_token", "".into(), "advertising_token is empty"),
            ("refresh_token", "".into(), "refresh_token is empty"),
            ("refresh_response_key", "AAEC".into(), "not 32 bytes"),
            ("refresh_response_key", "!".into(), "not standard base64"),
            ("refresh_from", 3.into(), "refresh_from is after identity_expires"),
            ("identity_expires", 4.into(), "identity_expires is after refresh_expires"),
            ("refresh_from", 1.5.into(), "refresh_from is missing or no integer"),
            ("refresh_from", "refresh-secret".into(), "refresh_from is missing or no integer"),
            ("refresh_token", 7.into(), "refresh_token is missing or no string"),
            ("refresh_expires", serde_json::Value::Null, "refresh_expires is missing or no integer"),
        ] {
            let error = parse(|json| json[member] = value).unwrap_err();
            assert!(error.contains(complaint) && !error.contains("-secret"), "{member}: {error}");
        }
        let error = parse(|json| drop(json.as_object_mut().unwrap().remove("refresh_token"))).unwrap_err();
        assert!(error.contains("refresh_token is missing"), "{error}");
        let members = format!(r#"["advertising-secret", "refresh-secret", "{KEY}", 1, 2, 3]"#);
        for json in ["\"refresh-secret\"", "[\"refresh-secret\"]", &members, "7"] {
            let error = serde_json::from_str::<Identity>(json).unwrap_err().to_string();
            assert!(error.starts_with("not an identity") && !error.contains("-secret"), "{error}");
        }
    }

    #[test]
    fn identity_tokens_are_visible_ascii_that_needs_no_escaping() {
        let allowed: String = ('!'..='~').filter(|character| !"\"'<>,;\\".contains(*character)).collect();
        for member in ["advertising_token", "refresh_token"] {
            assert!(parse(|json| json[member] = allowed.as_str().into()).is_ok(), "{member}");
            for refused in ["\"", "'", "<", ">", ",", ";", "\\", " ", "\t", "\n", "\r", "\0", "\x7f", "é", "…"] {
                let error = parse(|json| json[member] = format!("x-secret{refused}x").into()).unwrap_err();
                let complaint = format!("{member} has a character that no token has");
                assert!(error.contains(&complaint) && !error.contains("-secret"), "{refused:?}: {error}");
            }
        }
    }

    #[test]
    fn scope_of_an_identity_is_that_of_the_advertising_token_then_of_the_refresh_token() {
        let refresh_token = |beginning: &str| format!("{beginning:A<388}");
        for (advertising, refresh, scope) in [
            ("E4A", refresh_token("EA"), Some(Scope::Euid)),
            ("B4A", refresh_token("EA"), Some(Scope::Uid2)),
            ("opaque", refresh_token("EA"), Some(Scope::Euid)),
            ("opaque", refresh_token("AA"), Some(Scope::Uid2)),
            ("opaque", refresh_token("XA"), None),
            ("opaque", "EAAA".to_owned(), None),
        ] {
            let identity = parse(|json| {
                json["advertising_token"] = advertising.into();
                json["refresh_token"] = refresh.as_str().into();
            });
            assert_eq!(identity.unwrap().scope(), scope, "{advertising} {refresh}");
        }
    }

    #[test]
    fn identity_as_json_for_an_sdk_has_the_operators_six_members_and_is_read_back() {
        let identity = parse(|_| ()).unwrap();
        let json = identity.to_sdk_json();
        assert_eq!(serde_json::from_str::<Identity>(&json).unwrap(), identity);
        let expected = serde_json::json!({
            "advertising_token": "advertising-secret", "refresh_token": "refresh-secret", "refresh_response_key": KEY,
            "refresh_from": 1, "identity_expires": 2, "refresh_expires": 3
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), expected);
        // Every character that a token may have, and the least and the greatest time.
        let allowed: String = ('!'..='~').filter(|character| is_token(character.encode_utf8(&mut [0; 4]))).collect();
        let odd = parse(|json| {
            json["advertising_token"] = allowed.as_str().into();
            json["refresh_token"] = allowed.as_str().into();
            json["refresh_from"] = i64::MIN.into();
            json["refresh_expires"] = i64::MAX.into();
        });
        let odd = odd.unwrap();
        assert_eq!(serde_json::from_str::<Identity>(&odd.to_sdk_json()).unwrap(), odd);
    }

    #[test]
    fn debug_of_an_identity_shows_no_secret() {
        let identity = parse(|_| ()).unwrap();
        let token = AdvertisingToken::from(&identity);
        let shown = format!(
            "{identity:?} {token:?} {:?} {:?} {:#?}",
            identity.refresh_token(),
            identity.response_key(),
            (&identity, &token)
        );
        assert!(!shown.contains("-secret") && !shown.contains(KEY) && !shown.contains("1, 2, 3"), "{shown}");
    }
}
