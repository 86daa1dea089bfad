//! A key that cookies are sealed under. A weak key is refused when it is read; `weak.rs` has the rules.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::weak;
use crate::error::{ConfigError, Setting};
use crate::hex::hex;
use crate::random;
use crate::secret::key_from_base64;

/// A key that cookies are sealed under: 32 random bytes.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::CookieKey;
///
/// let key = CookieKey::generate()?;
/// println!("EUID_COOKIE_KEYS={}  # key id {}", key.expose_base64().as_str(), key.id());
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct CookieKey(pub(super) Zeroizing<[u8; 32]>);

impl CookieKey {
    /// A fresh key from the operating system's randomness.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::CookieKey;
    /// assert_ne!(CookieKey::generate()?.id(), CookieKey::generate()?.id());
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the operating system returns no randomness.
    pub fn generate() -> Result<Self, ConfigError> {
        match random::bytes() {
            Ok(bytes) => Ok(Self::of(bytes)),
            Err(error) => Err(ConfigError::new(format!("no randomness for a cookie key: {error}"))),
        }
    }

    /// Decodes standard base64 of 32 bytes, as `openssl rand -base64 32` prints it.
    ///
    /// # Errors
    ///
    /// If `text` is something else, or if the key is weak: printed in documents or test data, the sandbox's
    /// client secret, one byte repeated, counting, readable or hex text used as bytes, or made of 16 different
    /// bytes or fewer. Less than one random key in 10 000 000 000 000 is taken for a weak one.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::CookieKey;
    /// let error = CookieKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap_err();
    /// assert!(error.to_string().contains("printed in documents"));
    /// ```
    pub fn from_base64(text: &str) -> Result<Self, ConfigError> {
        Self::parse(text, "the cookie key")
    }

    /// `noun` is the subject of an error.
    fn parse(text: &str, noun: &str) -> Result<Self, ConfigError> {
        strong_key(text, noun).map(Self).map_err(|error| error.about(Setting::CookieKeys))
    }

    /// The keys of a list: the first one seals; standard base64 of 32 bytes each, separated by commas. Spaces
    /// around a key are ignored.
    pub(super) fn parse_list(keys: &str) -> Result<Vec<Self>, ConfigError> {
        let parse = |(position, key): (usize, &str)| {
            let (noun, key) = (format!("cookie key {}", position + 1), key.trim());
            if key.is_empty() {
                return Err(refused(format!("{noun} is empty: is there a comma too many?")));
            }
            if key.contains(|character: char| character == ';' || character.is_whitespace()) {
                return Err(refused(format!(
                    "{noun} has a `;`, a blank or a line end in it: cookie keys are separated by commas"
                )));
            }
            Self::parse(key, &noun)
        };
        keys.split(',').enumerate().map(parse).collect()
    }

    /// The key in the form that [`from_base64`](Self::from_base64) and `EUID_COOKIE_KEYS` take. A
    /// secret; wiped when dropped.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::CookieKey;
    /// let key = CookieKey::generate()?;
    /// let same = CookieKey::from_base64(&key.expose_base64())?;
    /// assert_eq!(same.id(), key.id());
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn expose_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64_STANDARD.encode(self.0.as_slice()))
    }

    /// The id by which a cookie names its key: eight hex digits, no secret.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::CookieKey;
    /// let key = CookieKey::generate()?;
    /// assert_eq!(key.id().len(), 8);
    /// assert!(format!("{key:?}").contains(&key.id())); // and `Debug` shows nothing else
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.key_id())
    }

    /// The key of 32 bytes, which are not checked.
    pub(crate) fn of(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn key_id(&self) -> KeyId {
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

/// Decodes a key of 32 bytes, and refuses a weak one. `noun` is the subject of an error.
pub(super) fn strong_key(text: &str, noun: &str) -> Result<Zeroizing<[u8; 32]>, ConfigError> {
    let key = key_from_base64(text, noun)?;
    match weak::weakness(&key) {
        Some(weakness) => {
            let what = format!("{noun} {weakness}; make one of your own, as with `openssl rand -base64 32`");
            Err(ConfigError::new(what))
        }
        None => Ok(key),
    }
}

/// The first four bytes of SHA-256 over a label and the key.
pub(crate) type KeyId = [u8; 4];

/// The error of a setting that holds cookie keys.
pub(super) fn refused(what: impl Into<Cow<'static, str>>) -> ConfigError {
    ConfigError::new(what).about(Setting::CookieKeys)
}

/// Makes the id useless for any other purpose.
const KEY_ID_LABEL: &[u8] = b"tower-euid cookie key id";
