//! Reads an identity from the operator's JSON, and writes it for the operator's SDKs.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use super::{Identity, IdentityTimes, RefreshToken, ResponseKey};
use crate::clock::UnixMillis;
use crate::error::InvalidIdentity;

/// An error names the member that is wrong, never what it holds.
impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object(parts) = Object::<Parts>::deserialize(deserializer)
            .map_err(|_| D::Error::custom("not an identity: not an object"))?;
        parts.identity().map_err(D::Error::custom)
    }
}

impl Identity {
    /// The identity as the JSON object that EUID's and UID2's SDKs for Android, iOS and TV sets take, with the names of the
    /// operator's answer. **It hands out everything**: a reader of it can refresh the identity until `refresh_expires`. It
    /// is for an app that the SDK then keeps fresh by itself, over a connection that is encrypted and authenticated; such
    /// an app needs neither cookies nor headers of this crate.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::identity::{Identity, IdentityTimes};
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// let json = identity.to_sdk_json();
    /// assert!(json.starts_with(r#"{"advertising_token":"E4AAAABl","refresh_token":"EAAAAGZ","#));
    /// assert_eq!(serde_json::from_str::<Identity>(&json)?, identity);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn to_sdk_json(&self) -> Zeroizing<String> {
        let times = self.times();
        let response_key = Zeroizing::new(BASE64_STANDARD.encode(self.response_key().expose_secret()));
        let members = Members {
            advertising_token: self.advertising_token(),
            refresh_token: self.refresh_token().expose_secret(),
            refresh_response_key: &response_key,
            identity_expires: times.identity_expires.as_millis(),
            refresh_expires: times.refresh_expires.as_millis(),
            refresh_from: times.refresh_from.as_millis(),
        };
        // Texts and numbers always fit into JSON.
        Zeroizing::new(serde_json::to_string(&members).unwrap_or_default())
    }
}

/// The operator's names, for writing.
#[derive(Serialize)]
struct Members<'a> {
    advertising_token: &'a str,
    refresh_token: &'a str,
    refresh_response_key: &'a str,
    identity_expires: i64,
    refresh_expires: i64,
    refresh_from: i64,
}

/// A struct read from an object only: a derived `Deserialize` reads it from an array as well.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// The operator's names. Times are i64 on purpose: a fraction or a string is refused.
#[derive(Deserialize)]
pub(crate) struct Parts {
    advertising_token: Option<Member<Box<str>>>,
    refresh_token: Option<Member<Zeroizing<String>>>,
    refresh_response_key: Option<Member<Zeroizing<String>>>,
    refresh_from: Option<Member<i64>>,
    identity_expires: Option<Member<i64>>,
    refresh_expires: Option<Member<i64>>,
}

/// A member of the right type or of another: serde's own complaint would quote the value.
#[derive(Deserialize)]
#[serde(untagged)]
enum Member<T> {
    Right(T),
    Wrong(IgnoredAny),
}

impl Parts {
    /// The identity, or the name of the member that is wrong.
    pub(crate) fn identity(self) -> Result<Identity, InvalidIdentity> {
        let response_key = right(self.refresh_response_key, "refresh_response_key is missing or no string")?;
        let millis = |member, rule| right(member, rule).map(UnixMillis::from_millis);
        let times = IdentityTimes {
            refresh_from: millis(self.refresh_from, "refresh_from is missing or no integer")?,
            identity_expires: millis(self.identity_expires, "identity_expires is missing or no integer")?,
            refresh_expires: millis(self.refresh_expires, "refresh_expires is missing or no integer")?,
        };
        Identity::new(
            right(self.advertising_token, "advertising_token is missing or no string")?,
            RefreshToken(right(self.refresh_token, "refresh_token is missing or no string")?),
            ResponseKey::from_base64(&response_key)?,
            times,
        )
    }
}

fn right<T>(member: Option<Member<T>>, rule: &'static str) -> Result<T, InvalidIdentity> {
    match member {
        Some(Member::Right(value)) => Ok(value),
        Some(Member::Wrong(_)) | None => Err(InvalidIdentity::new(rule)),
    }
}
