//! The parts of an identity that renew it: secrets of the publisher's server.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::error::InvalidIdentity;

/// The token that a refresh sends to the operator. Wiped when dropped, redacted in `Debug`.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::identity::RefreshToken;
///
/// let token = RefreshToken::from("EAAAAGZ".to_owned());
/// assert_eq!(format!("{token:?}"), "RefreshToken(..)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken(pub(super) Zeroizing<String>);

impl RefreshToken {
    /// The token itself: the body of `POST /v2/token/refresh`. Never log it.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::identity::RefreshToken;
    /// let token = RefreshToken::from("EAAAAGZ".to_owned());
    /// assert_eq!(token.expose_secret(), "EAAAAGZ");
    /// ```
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        &self.0
    }
}

impl From<String> for RefreshToken {
    fn from(token: String) -> Self {
        Self(Zeroizing::new(token))
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(..)")
    }
}

/// The AES-256 key under which the operator encrypts its answer to a refresh. Wiped when dropped, redacted
/// in `Debug`.
///
/// It belongs to one refresh token; both are replaced together.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::identity::ResponseKey;
///
/// let key = ResponseKey::from([5; 32]);
/// assert_eq!(format!("{key:?}"), "ResponseKey(..)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ResponseKey(Zeroizing<[u8; 32]>);

impl ResponseKey {
    /// Decodes the operator's form: standard base64 of 32 bytes.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::identity::ResponseKey;
    /// assert!(ResponseKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").is_ok());
    /// assert!(ResponseKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").is_err()); // no padding
    /// ```
    ///
    /// # Errors
    ///
    /// If it is not base64 or not 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, InvalidIdentity> {
        let bytes = Zeroizing::new(
            BASE64_STANDARD
                .decode(text)
                .map_err(|_| InvalidIdentity::new("refresh_response_key is not standard base64"))?,
        );
        let key = <[u8; 32]>::try_from(bytes.as_slice())
            .map_err(|_| InvalidIdentity::new("refresh_response_key is not 32 bytes"))?;
        Ok(Self::from(key))
    }

    /// The 32 bytes themselves.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::identity::ResponseKey;
    /// let key = ResponseKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    /// assert_eq!(key.expose_secret()[..4], [0, 1, 2, 3]);
    /// # Ok::<_, tower_euid::error::InvalidIdentity>(())
    /// ```
    #[must_use]
    pub fn expose_secret(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for ResponseKey {
    fn from(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key))
    }
}

impl fmt::Debug for ResponseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseKey(..)")
    }
}
