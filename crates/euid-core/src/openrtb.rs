//! The visitor's EUID in an OpenRTB bid request.
//!
//! [`Euid::eid`] is one entry of `eids`, for a list that holds other ids too. [`Euid::eids`] is the whole
//! member `eids` with that entry alone. Its place depends on the version of OpenRTB:
//!
//! | OpenRTB | place |
//! | --- | --- |
//! | 2.6 | `user.eids` |
//! | 2.5 | `user.ext.eids` |
//!
//! 1. The token is sent verbatim, under `source` `euid.eu` and `atype` 3 (a person).
//! 2. Without a valid token there is no entry, and no empty one either.
//! 3. Optional members that are not set are left out.
//! 4. An [`Eid`] that is written as JSON reads the token, which affects the [caching of the
//!    response](AdvertisingToken). One that is only made does not.
//!
//! ```
//! # use euid_core as tower_euid;
//! use serde_json::json;
//! use tower_euid::{AdvertisingToken, Euid, Identity};
//!
//! # let identity: Identity = serde_json::from_str(r#"{"advertising_token": "E4AAAABl", "refresh_token": "EA",
//! #     "refresh_response_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
//! #     "refresh_from": 1, "identity_expires": 2, "refresh_expires": 3}"#)?;
//! # let euid = Euid::Active(AdvertisingToken::from(&identity));
//! // `euid`, as a handler got it:
//! let user = json!({ "user": euid.eids() });
//! assert_eq!(
//!     user.to_string(),
//!     r#"{"user":{"eids":[{"source":"euid.eu","uids":[{"atype":3,"id":"E4AAAABl"}]}]}}"#
//! );
//! assert_eq!(json!({ "user": { "ext": euid.eids() } })["user"]["ext"], user["user"]);
//! assert_eq!(json!({ "user": Euid::OptedOut.eids() }).to_string(), r#"{"user":{}}"#);
//! # Ok::<_, serde_json::Error>(())
//! ```
//!
//! In types of your own, flatten it:
//!
//! ```
//! # use euid_core as tower_euid;
//! use serde::Serialize;
//! use tower_euid::Euid;
//! use tower_euid::openrtb::{Eids, MatchMethod};
//!
//! #[derive(Serialize)]
//! struct User {
//!     id: String,
//!     #[serde(flatten)]
//!     eids: Eids,
//! }
//!
//! fn user(id: String, euid: &Euid) -> User {
//!     // The optional members, for exchanges that ask for them.
//!     let eid = euid.eid().map(|eid| eid.inserter("publisher.example").mm(MatchMethod::Authenticated));
//!     User { id, eids: eid.into() }
//! }
//! assert_eq!(serde_json::to_string(&user("7".to_owned(), &Euid::Absent))?, r#"{"id":"7"}"#);
//! # Ok::<_, serde_json::Error>(())
//! ```

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use crate::euid::Euid;
use crate::token::AdvertisingToken;

impl Euid {
    /// The entry of a bid request's `eids`, if there is a token to use. An `Option` is an iterator:
    /// `eids.extend(euid.eid())` does the right thing.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{AdvertisingToken, Euid, Identity};
    /// # use tower_euid::identity::IdentityTimes;
    /// # use tower_euid::openrtb::Eid;
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// # let euid = Euid::Active(AdvertisingToken::from(&identity));
    /// let mut eids: Vec<Eid> = Vec::new(); // or of whatever other ids there are
    /// eids.extend(euid.eid());
    /// eids.extend(Euid::OptedOut.eid());
    /// assert_eq!(eids.len(), 1);
    /// # Ok::<_, tower_euid::error::InvalidIdentity>(())
    /// ```
    #[must_use]
    pub fn eid(&self) -> Option<Eid> {
        self.advertising_token().cloned().map(Eid::new)
    }

    /// The member `eids` of a bid request's `user` (OpenRTB 2.6) or `user.ext` (2.5); nothing, if
    /// there is no token to use. See [`openrtb`](self).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Euid;
    /// # use serde_json::json;
    /// assert_eq!(json!({ "user": Euid::Absent.eids() }).to_string(), r#"{"user":{}}"#);
    /// ```
    pub fn eids(&self) -> Eids {
        self.eid().into()
    }
}

/// An extended identifier, the object `EID` of OpenRTB: one entry of `eids`.
///
/// It shares the token with the request that it was made from: to write it as JSON counts as a read.
///
/// ```
/// # use euid_core as tower_euid;
/// # use tower_euid::{AdvertisingToken, Identity};
/// # use tower_euid::identity::IdentityTimes;
/// use tower_euid::openrtb::{Eid, MatchMethod};
///
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
/// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
/// # let token = AdvertisingToken::from(&identity);
/// let eid = Eid::new(token).inserter("publisher.example").mm(MatchMethod::Authenticated);
/// assert_eq!(
///     serde_json::to_string(&eid)?,
///     r#"{"source":"euid.eu","inserter":"publisher.example","mm":3,"uids":[{"id":"E4AAAABl","atype":3}]}"#
/// );
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[must_use = "an eid does nothing until it is written into a bid request"]
pub struct Eid {
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    inserter: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matcher: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mm: Option<MatchMethod>,
    uids: [Uid; 1],
}

#[derive(Clone, Debug, Serialize)]
struct Uid {
    id: AdvertisingToken,
    atype: u8,
}

impl Eid {
    /// The entry for this token, with the members that every receiver needs and no optional one.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{AdvertisingToken, Identity};
    /// # use tower_euid::identity::IdentityTimes;
    /// # use tower_euid::openrtb::Eid;
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// # let token = AdvertisingToken::from(&identity);
    /// let json = serde_json::to_value(Eid::new(token))?;
    /// assert_eq!(json["uids"][0]["id"], "E4AAAABl");
    /// assert!(json.get("inserter").is_none());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(token: AdvertisingToken) -> Self {
        let source = token.scope().eid_source();
        Self { source, inserter: None, matcher: None, mm: None, uids: [Uid { id: token, atype: PERSON }] }
    }

    /// The domain of the company that adds the entry, as in `ads.txt`: for a publisher its own. Since
    /// OpenRTB 2.6-202409.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{AdvertisingToken, Identity};
    /// # use tower_euid::identity::IdentityTimes;
    /// # use tower_euid::openrtb::Eid;
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// # let token = AdvertisingToken::from(&identity);
    /// let eid = Eid::new(token).inserter("publisher.example");
    /// assert_eq!(serde_json::to_value(eid)?["inserter"], "publisher.example");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn inserter(mut self, domain: impl Into<Cow<'static, str>>) -> Self {
        self.inserter = Some(domain.into());
        self
    }

    /// The domain of the company whose technology matched the id to the visitor, if it is not the source.
    /// Since OpenRTB 2.6-202409.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{AdvertisingToken, Identity};
    /// # use tower_euid::identity::IdentityTimes;
    /// # use tower_euid::openrtb::Eid;
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// # let token = AdvertisingToken::from(&identity);
    /// let eid = Eid::new(token).matcher("logins.example"); // a company that logs in for many sites
    /// assert_eq!(serde_json::to_value(eid)?["matcher"], "logins.example");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn matcher(mut self, domain: impl Into<Cow<'static, str>>) -> Self {
        self.matcher = Some(domain.into());
        self
    }

    /// How the id was matched to the visitor. Since OpenRTB 2.6-202409.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{AdvertisingToken, Identity};
    /// # use tower_euid::identity::IdentityTimes;
    /// # use tower_euid::openrtb::{Eid, MatchMethod};
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// # let token = AdvertisingToken::from(&identity);
    /// let eid = Eid::new(token).mm(MatchMethod::Authenticated);
    /// assert_eq!(serde_json::to_value(eid)?["mm"], 3);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn mm(mut self, method: MatchMethod) -> Self {
        self.mm = Some(method);
        self
    }
}

/// The member `eids` with at most one entry: an object of its own, or flattened into another one.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::openrtb::Eids;
///
/// assert_eq!(serde_json::to_string(&Eids::from(None))?, "{}"); // no token, and no `"eids": []`
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[must_use = "eids do nothing until they are written into a bid request"]
pub struct Eids {
    #[serde(skip_serializing_if = "Option::is_none")]
    eids: Option<[Eid; 1]>,
}

impl From<Option<Eid>> for Eids {
    fn from(eid: Option<Eid>) -> Self {
        Self { eids: eid.map(|eid| [eid]) }
    }
}

/// How an id was matched to a visitor: the list *ID Match Methods* of AdCOM 1.0, as its number.
///
/// The variants from [`Authenticated`](Self::Authenticated) on go with a
/// [`matcher`](Eid::matcher), unless that is the source.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::openrtb::MatchMethod;
///
/// assert_eq!(serde_json::to_string(&MatchMethod::Authenticated)?, "3");
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum MatchMethod {
    /// Not known.
    Unknown = 0,
    /// No matching: straight from a third party's cookie or a device's advertising id.
    NoMatch = 1,
    /// A cookie sync in the browser.
    BrowserCookieSync = 2,
    /// The visitor logged in, with an email address for example. An EUID is matched so.
    Authenticated = 3,
    /// Seen by the site itself, without a login.
    Observed = 4,
    /// Concluded from other data than a login, such as IP address and browser.
    Inference = 5,
}

impl Serialize for MatchMethod {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

/// The agent type of an id that stands for a person, on whatever device.
const PERSON: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;
    use crate::clock::UnixMillis;
    use crate::identity::IdentityTimes;

    fn token() -> AdvertisingToken {
        let at = UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
        AdvertisingToken::new("E4-_\"é", times, Scope::Euid)
    }

    fn json(value: impl Serialize) -> String {
        serde_json::to_string(&value).unwrap()
    }

    #[test]
    fn eid_holds_prebids_members_and_the_token_verbatim() {
        assert_eq!(json(Eid::new(token())), r#"{"source":"euid.eu","uids":[{"id":"E4-_\"é","atype":3}]}"#);
    }

    #[test]
    fn optional_eid_members_are_written_once_set() {
        let eid =
            Eid::new(token()).inserter("a.example").matcher("b.example".to_owned()).mm(MatchMethod::Authenticated);
        let optional = r#""inserter":"a.example","matcher":"b.example","mm":3,"#;
        assert_eq!(json(eid), format!(r#"{{"source":"euid.eu",{optional}"uids":[{{"id":"E4-_\"é","atype":3}}]}}"#));
    }

    #[test]
    fn match_methods_serialize_as_their_numbers() {
        use MatchMethod::{Authenticated, BrowserCookieSync, Inference, NoMatch, Observed, Unknown};
        assert_eq!(json([Unknown, NoMatch, BrowserCookieSync, Authenticated, Observed, Inference]), "[0,1,2,3,4,5]");
    }

    #[test]
    fn eids_serialize_alike_alone_and_flattened() {
        #[derive(Serialize)]
        struct User {
            id: u8,
            #[serde(flatten)]
            eids: Eids,
        }
        let euid = Euid::Active(token());
        let eids = r#""eids":[{"source":"euid.eu","uids":[{"id":"E4-_\"é","atype":3}]}]"#;
        assert_eq!(json(User { id: 7, eids: euid.eids() }), format!(r#"{{"id":7,{eids}}}"#));
        assert_eq!(json(euid.eids()), format!("{{{eids}}}"));
    }

    #[test]
    fn eids_without_a_usable_token_have_no_member() {
        for euid in [Euid::Absent, Euid::OptedOut, Euid::Unavailable, Euid::Withheld] {
            assert!(euid.eid().is_none(), "{euid:?}");
            assert_eq!(json(euid.eids()), "{}", "{euid:?}");
        }
    }

    #[test]
    fn eids_count_as_a_read_once_serialized() {
        let token = token();
        let eids = Euid::Active(token.clone()).eids();
        assert!(!format!("{eids:?}").contains("E4"));
        assert!(!token.note().was_read());
        json(eids.clone());
        assert!(token.note().was_read());
    }
}
