//! The secret from which a store that is keyed by the user has its keys.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::cookie_key::{CookieKey, strong_key};
use super::keys::KeyRing;
use crate::error::{ConfigError, Setting};
use crate::random;
use crate::scope::Scope;
use crate::store::StoreKey;

/// The secret from which a store that is keyed by the user has its keys: 32 random bytes. A clone is cheap.
///
/// **It never changes.** With another secret no record of before is found: all users are logged out, and an opt-out that the
/// store remembers is forgotten. It is no cookie key, and it must not be one of them, because these change.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::StoreSecret;
///
/// let secret = StoreSecret::generate()?;
/// println!("EUID_STORE_SECRET={}", secret.expose_base64().as_str());
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct StoreSecret(Zeroizing<[u8; 32]>);

impl StoreSecret {
    /// A fresh secret from the operating system's randomness.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::StoreSecret;
    /// let (one, other) = (StoreSecret::generate()?, StoreSecret::generate()?);
    /// assert_ne!(one.expose_base64(), other.expose_base64());
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the operating system returns no randomness.
    pub fn generate() -> Result<Self, ConfigError> {
        let no_randomness = |error| ConfigError::new(format!("no randomness for a store secret: {error}"));
        random::bytes().map(|bytes| Self(Zeroizing::new(bytes))).map_err(no_randomness)
    }

    /// Decodes standard base64 of 32 bytes, as `openssl rand -base64 32` prints it.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::StoreSecret;
    /// let error = StoreSecret::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap_err();
    /// assert!(error.to_string().contains("printed in documents"));
    /// ```
    ///
    /// # Errors
    ///
    /// If `text` is something else, or if the secret is weak, as
    /// [`CookieKey::from_base64`](crate::CookieKey::from_base64) has it.
    pub fn from_base64(text: &str) -> Result<Self, ConfigError> {
        strong_key(text.trim(), "the store secret").map(Self).map_err(|error| error.about(Setting::Store))
    }

    /// The secret in the form that [`from_base64`](Self::from_base64) takes. Wiped when dropped.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::StoreSecret;
    /// let secret = StoreSecret::generate()?;
    /// let same = StoreSecret::from_base64(&secret.expose_base64())?;
    /// assert_eq!(same.expose_base64(), secret.expose_base64());
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn expose_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64_STANDARD.encode(self.0.as_slice()))
    }

    /// Whether it is one of these cookie keys, which it must not be.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieKey, KeyRing, StoreSecret};
    /// let secret = StoreSecret::generate()?;
    /// let keys = KeyRing::new([CookieKey::generate()?, CookieKey::from_base64(&secret.expose_base64())?])?;
    /// assert!(secret.is_one_of(&keys) && !StoreSecret::generate()?.is_one_of(&keys));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn is_one_of(&self, keys: &KeyRing) -> bool {
        let same = CookieKey::from_base64(&self.expose_base64());
        same.is_ok_and(|same| keys.keys().find(same.key_id()).is_some())
    }

    /// The key of the user with this id: HMAC-SHA-256 over a label, the scope and the id.
    pub(crate) fn key_of(&self, scope: Scope, user: &[u8]) -> StoreKey {
        // HMAC pads a key with zeros itself; it never refuses a key of a whole block.
        let mut key = Zeroizing::new([0; 64]);
        key.iter_mut().zip(self.0.iter()).for_each(|(to, from)| *to = *from);
        let mac = Hmac::<Sha256>::new((&*key).into());
        let mac = mac.chain_update(USER_LABEL).chain_update([scope as u8]).chain_update(user);
        StoreKey::new(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for StoreSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreSecret(..)")
    }
}

const USER_LABEL: &[u8] = b"tower-euid user";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_of_a_user_depends_on_secret_scope_and_id() {
        let (secret, other) = (StoreSecret::generate().unwrap(), StoreSecret::generate().unwrap());
        let key = secret.key_of(Scope::Euid, b"17");
        assert_eq!(secret.clone().key_of(Scope::Euid, b"17"), key);
        for another in [
            other.key_of(Scope::Euid, b"17"),
            secret.key_of(Scope::Uid2, b"17"),
            secret.key_of(Scope::Euid, b"18"),
            secret.key_of(Scope::Euid, b""),
        ] {
            assert_ne!(another, key);
        }
    }

    #[test]
    fn debug_of_a_store_secret_shows_nothing() {
        assert_eq!(format!("{:?}", StoreSecret::generate().unwrap()), "StoreSecret(..)");
    }
}
