//! The keys that cookies are sealed under.
//!
//! 1. The newest key seals, every key opens; which one is told by the key id in the cookie, so
//!    exactly one is tried.
//! 2. What can't be a good key is refused when the ring is made: wrong length, all bytes equal, the
//!    same key (or key id) twice.
//! 3. Keys are wiped when dropped and redacted in `Debug`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::KeyInit;
use zeroize::Zeroizing;

use crate::error::ConfigError;
use crate::random;

/// A key that cookies are sealed under: 32 random bytes.
///
/// ```
/// use tower_euid::CookieKey;
///
/// let key = CookieKey::generate()?;
/// println!("EUID_COOKIE_KEYS={}  # key id {}", key.expose_base64().as_str(), key.id());
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct CookieKey(Zeroizing<[u8; 32]>);

impl CookieKey {
    /// A fresh key from the operating system's randomness.
    ///
    /// # Errors
    ///
    /// If the operating system has none to give.
    pub fn generate() -> Result<Self, ConfigError> {
        match random::bytes() {
            Ok(bytes) => Ok(Self(Zeroizing::new(bytes))),
            Err(error) => Err(ConfigError::new(format!("no randomness for a cookie key: {error}"))),
        }
    }

    /// From standard base64 of 32 bytes: what `openssl rand -base64 32` prints.
    ///
    /// # Errors
    ///
    /// If it is not that, or if all bytes are equal.
    pub fn from_base64(text: &str) -> Result<Self, ConfigError> {
        let bytes = BASE64_STANDARD.decode(text).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| ConfigError::new("a cookie key is standard base64"))?;
        let Ok(key) = <[u8; 32]>::try_from(bytes.as_slice()) else {
            return Err(ConfigError::new(format!("a cookie key is 32 bytes, not {}", bytes.len())));
        };
        let key = Zeroizing::new(key);
        if key.iter().all(|byte| Some(byte) == key.first()) {
            return Err(ConfigError::new("a cookie key is random, not one byte repeated"));
        }
        Ok(Self(key))
    }

    /// The key in the form that [`from_base64`](Self::from_base64) and `EUID_COOKIE_KEYS` take. A
    /// secret; wiped when dropped.
    #[must_use]
    pub fn expose_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64_STANDARD.encode(self.0.as_slice()))
    }

    /// What tells this key from others: eight hex digits, no secret.
    #[must_use]
    pub fn id(&self) -> String {
        self.key_id().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn key_id(&self) -> KeyId {
        let digest = Sha256::new().chain_update(KEY_ID_LABEL).chain_update(self.0.as_slice()).finalize();
        let [a, b, c, d, ..] = <[u8; 32]>::from(digest);
        [a, b, c, d]
    }
}

impl fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The keys of a site, newest first: the first seals, all open. Cheap to clone.
///
/// ```
/// use tower_euid::{CookieKey, KeyRing};
///
/// let (new, old) = (CookieKey::generate()?, CookieKey::generate()?);
/// let ring = KeyRing::new([new, old])?;
/// // The same from text, as in an environment variable:
/// let ring: KeyRing = "gHQfqxmZxOfkd2oHczx9ZwNYfSQtoMFhSrbxXmG0eA4=,\
///                      4b6Dy3mqEQl6uoWNsl4dVoFvp4ZV0xkOIC8bVG6m1qM=".parse()?;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct KeyRing(Arc<[RingKey]>);

/// A key ready for use: its schedule is computed once.
pub(super) struct RingKey {
    pub(super) id: KeyId,
    pub(super) cipher: Xaes256Gcm,
}

/// The first four bytes of SHA-256 over a label and the key.
pub(super) type KeyId = [u8; 4];

impl KeyRing {
    /// A ring of `keys`, newest first.
    ///
    /// # Errors
    ///
    /// If there is none, or two have the same key id (as the same key given twice has).
    pub fn new(keys: impl IntoIterator<Item = CookieKey>) -> Result<Self, ConfigError> {
        let mut ring: Vec<RingKey> = Vec::new();
        for (position, key) in keys.into_iter().enumerate() {
            let id = key.key_id();
            if let Some(twin) = ring.iter().position(|other| other.id == id) {
                let (first, second) = (twin + 1, position + 1);
                return Err(ConfigError::new(format!(
                    "cookie keys {first} and {second} have the same key id: is it one key, twice?"
                )));
            }
            ring.push(RingKey { id, cipher: Xaes256Gcm::new((&*key.0).into()) });
        }
        if ring.is_empty() {
            return Err(ConfigError::new("there is no cookie key"));
        }
        Ok(Self(ring.into()))
    }

    /// The ring in the environment variable `name`: keys newest first, standard base64 of 32 bytes
    /// each, separated by commas.
    ///
    /// # Errors
    ///
    /// If the variable is not set, or as for [`new`](Self::new) and [`CookieKey::from_base64`]. The
    /// text names the variable and the key's position, never a value.
    pub fn from_env(name: &str) -> Result<Self, ConfigError> {
        let value = std::env::var(name).map(Zeroizing::new);
        let value = value.map_err(|_| ConfigError::new(format!("{name} is not set (or is not UTF-8)")))?;
        value.parse().map_err(|error| ConfigError::new(format!("{name}: {error}")))
    }

    /// The one key that may open a cookie with this key id.
    pub(super) fn find(&self, id: KeyId) -> Option<&RingKey> {
        self.0.iter().find(|key| key.id == id)
    }

    /// The key that seals.
    pub(super) fn newest(&self) -> Option<&RingKey> {
        self.0.first()
    }
}

impl FromStr for KeyRing {
    type Err = ConfigError;

    /// Keys newest first, standard base64 of 32 bytes each, separated by commas; spaces around them
    /// are ignored.
    fn from_str(keys: &str) -> Result<Self, ConfigError> {
        let parse = |(position, key): (usize, &str)| {
            CookieKey::from_base64(key.trim())
                .map_err(|error| ConfigError::new(format!("cookie key {}: {error}", position + 1)))
        };
        Self::new(keys.split(',').enumerate().map(parse).collect::<Result<Vec<_>, _>>()?)
    }
}

impl From<CookieKey> for KeyRing {
    fn from(key: CookieKey) -> Self {
        let key = RingKey { id: key.key_id(), cipher: Xaes256Gcm::new((&*key.0).into()) };
        Self(Arc::new([key]))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("keys", &self.0.len()).finish_non_exhaustive()
    }
}

/// Keeps the id from being a digest that is of use for anything else.
const KEY_ID_LABEL: &[u8] = b"tower-euid cookie key id";

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "gHQfqxmZxOfkd2oHczx9ZwNYfSQtoMFhSrbxXmG0eA4=";
    const B: &str = "4b6Dy3mqEQl6uoWNsl4dVoFvp4ZV0xkOIC8bVG6m1qM=";

    #[test]
    fn a_ring_is_refused_by_position_and_rule_never_by_value() {
        for (keys, complaint) in [
            (String::new(), "key 1: a cookie key is 32 bytes, not 0"),
            (format!("{A},"), "key 2: a cookie key is 32 bytes, not 0"),
            (format!("{A},{A}"), "keys 1 and 2 have the same"),
            (format!("{A}, {B} ,{A}"), "keys 1 and 3 have the same"),
            (format!("{A},c2hvcnQ="), "key 2: a cookie key is 32 bytes, not 5"),
            (format!("hunter2!,{A}"), "key 1: a cookie key is standard base64"),
            (BASE64_STANDARD.encode([7; 32]), "key 1: a cookie key is random"),
        ] {
            let error = keys.parse::<KeyRing>().unwrap_err().to_string();
            assert!(error.contains(complaint) && !error.contains("hunter2"), "{error}");
        }
        let ring = format!(" {A} , {B} ").parse::<KeyRing>().unwrap();
        assert_eq!(ring.newest().map(|key| key.id), Some(CookieKey::from_base64(A).unwrap().key_id()));
    }

    #[test]
    fn a_missing_variable_is_named() {
        let error = KeyRing::from_env("TOWER_EUID_TEST_NOT_SET").unwrap_err().to_string();
        assert_eq!(error, "TOWER_EUID_TEST_NOT_SET is not set (or is not UTF-8)");
    }

    #[test]
    fn debug_shows_no_key() {
        let key = CookieKey::from_base64(A).unwrap();
        let shown = format!("{key:?} {:?}", KeyRing::from(key.clone()));
        assert!(!shown.contains(A) && !shown.contains("0x80") && !shown.contains("128"), "{shown}");
    }

    #[test]
    fn a_generated_key_survives_its_text_form() {
        let key = CookieKey::generate().unwrap();
        let again = CookieKey::from_base64(&key.expose_base64()).unwrap();
        assert_eq!(key.0, again.0);
        assert_eq!(key.id().len(), 8);
    }
}
