//! Directly identifying information: the email address or phone number behind an identity.
//!
//! 1. An address is normalized exactly as the operator does it, else the same person gets another id.
//!    [`Dii::email`] lists the rules.
//! 2. It is always hashed here; the address itself never leaves the process.
//! 3. An error names the rule, never the address.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use crate::error::{ErrorKind, EuidError};

/// The person who logs in, in the form that the operator takes: the SHA-256 of a normalized email address
/// or phone number.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::Dii;
///
/// let a = Dii::email("  JANE.SAOIRSE@gmail.com ")?;
/// let b = Dii::email("JaneSaoirse+Work@gmail.com")?;
/// assert_eq!(a, b);
/// assert_eq!(a, Dii::email_hash("ku4mBX7Z3qJTXWyLFB1INzkyR2WZGW4ANSJUiW21iI8=")?);
/// # Ok::<_, tower_euid::error::InvalidDii>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Dii {
    kind: DiiKind,
    hash: [u8; 32],
}

/// The kind of a [`Dii`]. The operator keeps the two apart: a request names the kind of its hash.
///
/// Exhaustive: the operator takes these two.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::Dii;
/// use tower_euid::dii::DiiKind;
///
/// assert_eq!(Dii::phone("+442345678901")?.kind(), DiiKind::Phone);
/// # Ok::<_, tower_euid::error::InvalidDii>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiiKind {
    /// An email address.
    Email,
    /// A phone number.
    Phone,
}

impl Dii {
    /// Makes a [`Dii`] from an email address.
    ///
    /// The operator's rules count, not RFC 5322. ASCII letters become lower case. Spaces before the `@` and
    /// at the very end are dropped. For `gmail.com` (no other domain) the local part loses its dots and
    /// everything from the first `+` on. Everything else stays, also tabs and letters outside ASCII; a
    /// web form should refuse those itself.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Dii;
    /// assert_eq!(Dii::email("Jane.Saoirse+Ads@gmail.com")?, Dii::email("janesaoirse@gmail.com")?);
    /// assert_ne!(Dii::email("jane.saoirse@example.com")?, Dii::email("janesaoirse@example.com")?);
    /// assert!(Dii::email("jane.saoirse").is_err());
    /// # Ok::<_, tower_euid::error::InvalidDii>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is not exactly one `@`, or nothing is left before or after it.
    pub fn email(address: &str) -> Result<Self, InvalidDii> {
        normalize_email(address).map(|normalized| Self::hashed(DiiKind::Email, &normalized))
    }

    /// Makes a [`Dii`] from a phone number in E.164: `+`, country code, number, no spaces. It is checked, not repaired.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Dii;
    /// assert!(Dii::phone("+442345678901").is_ok());
    /// assert!(Dii::phone("+44 2345 678901").is_err() && Dii::phone("02345678901").is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// If it is not `+` and 10 to 15 ASCII digits.
    pub fn phone(number: &str) -> Result<Self, InvalidDii> {
        let digits = number.strip_prefix('+').ok_or(InvalidDii("a phone number starts with +"))?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidDii("a phone number has digits only after the +"));
        }
        if !(10..=15).contains(&digits.len()) {
            return Err(InvalidDii("a phone number has 10 to 15 digits"));
        }
        Ok(Self::hashed(DiiKind::Phone, number))
    }

    /// Makes a [`Dii`] from the SHA-256 of a normalized email address: standard base64 (44 characters) or hex (64).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Dii;
    /// let hex = "92ee26057ed9dea2535d6c8b141d48373932476599196e00352254896db5888f";
    /// assert_eq!(Dii::email_hash(hex)?, Dii::email("janesaoirse@gmail.com")?);
    /// # Ok::<_, tower_euid::error::InvalidDii>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is neither, or not 32 bytes.
    pub fn email_hash(hash: &str) -> Result<Self, InvalidDii> {
        parse_hash(hash).map(|hash| Self { kind: DiiKind::Email, hash })
    }

    /// Makes a [`Dii`] from the SHA-256 of a phone number in E.164: standard base64 (44 characters) or hex (64).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Dii;
    /// let hash = "vg2Z1qgdkpHePsT1llro3iXVrOQW7Xl2xmBqmn2zBBg=";
    /// assert_eq!(Dii::phone_hash(hash)?, Dii::phone("+442345678901")?);
    /// assert_ne!(Dii::phone_hash(hash)?, Dii::email_hash(hash)?); // the request names the kind
    /// # Ok::<_, tower_euid::error::InvalidDii>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is neither, or not 32 bytes.
    pub fn phone_hash(hash: &str) -> Result<Self, InvalidDii> {
        parse_hash(hash).map(|hash| Self { kind: DiiKind::Phone, hash })
    }

    fn hashed(kind: DiiKind, normalized: &str) -> Self {
        Self { kind, hash: Sha256::digest(normalized).into() }
    }

    /// Whether it was made from an email address or a phone number.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Dii;
    /// # use tower_euid::dii::DiiKind;
    /// assert_eq!(Dii::email("user@example.com")?.kind(), DiiKind::Email);
    /// # Ok::<_, tower_euid::error::InvalidDii>(())
    /// ```
    #[must_use]
    pub fn kind(&self) -> DiiKind {
        self.kind
    }

    /// The hash, 32 bytes.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Dii;
    /// assert_eq!(Dii::email("user@example.com")?.hash()[..3], [0xb4, 0xc9, 0xa2]);
    /// # Ok::<_, tower_euid::error::InvalidDii>(())
    /// ```
    #[cfg(feature = "operator")]
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The hash as standard base64, which is how a request holds it.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::Dii;
    /// assert_eq!(Dii::email("user@example.com")?.to_base64(), "tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ=");
    /// # Ok::<_, tower_euid::error::InvalidDii>(())
    /// ```
    #[must_use]
    pub fn to_base64(self) -> String {
        BASE64_STANDARD.encode(self.hash)
    }
}

/// Shows the kind only: a hash identifies a person as the address does.
impl fmt::Debug for Dii {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dii").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The input is no email address, phone number or hash. The text names the rule, never the input.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::Dii;
///
/// let error = Dii::phone("02345678901").unwrap_err();
/// assert_eq!(error.to_string(), "a phone number starts with +");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidDii(&'static str);

impl fmt::Display for InvalidDii {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidDii {}

impl From<InvalidDii> for EuidError {
    fn from(error: InvalidDii) -> Self {
        Self::new(ErrorKind::RejectedInput, error.0)
    }
}

fn normalize_email(address: &str) -> Result<String, InvalidDii> {
    let (local, domain) = address.split_once('@').ok_or(InvalidDii("an email address has an @"))?;
    if domain.contains('@') {
        return Err(InvalidDii("an email address has one @ only"));
    }
    let domain = domain.trim_end_matches(' ').to_ascii_lowercase();
    if domain.is_empty() {
        return Err(InvalidDii("an email address has a domain after the @"));
    }
    let mut local = local.replace(' ', "").to_ascii_lowercase();
    if domain == "gmail.com" {
        local.truncate(local.find('+').unwrap_or(local.len()));
        local.retain(|character| character != '.');
    }
    if local.is_empty() {
        return Err(InvalidDii("an email address has a name before the @"));
    }
    Ok(format!("{local}@{domain}"))
}

fn parse_hash(hash: &str) -> Result<[u8; 32], InvalidDii> {
    match hash.len() {
        44 => {
            let bytes = BASE64_STANDARD.decode(hash).map_err(|_| InvalidDii("a hash is base64 or hex"))?;
            bytes.try_into().map_err(|_| InvalidDii("a hash is 32 bytes"))
        }
        64 => parse_hex(hash).ok_or(InvalidDii("a hash is base64 or hex")),
        _ => Err(InvalidDii("a hash has 44 characters of base64 or 64 of hex")),
    }
}

/// The bytes of 64 hex digits, of either case; `None` if a character is no hex digit.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::dii::parse_hex;
///
/// assert_eq!(parse_hex(&"0a".repeat(32)), Some([10; 32]));
/// assert_eq!(parse_hex(&"0g".repeat(32)), None);
/// ```
#[must_use]
pub fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        for &digit in digits {
            *byte = (*byte << 4) | u8::try_from(char::from(digit).to_digit(16)?).ok()?;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn dii_of_every_normalization_vector_has_the_operators_hash() {
        let file: Value = serde_json::from_str(include_str!("../tests/vectors/normalization.json")).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 144);
        for vector in vectors {
            let id = vector["id"].as_str().unwrap();
            let input = vector["input"].as_str().unwrap();
            let (dii, kind) = match vector["kind"].as_str().unwrap() {
                "email" => (Dii::email(input), DiiKind::Email),
                "phone" => (Dii::phone(input), DiiKind::Phone),
                "email_hash" => (Dii::email_hash(input), DiiKind::Email),
                "phone_hash" => (Dii::phone_hash(input), DiiKind::Phone),
                other => panic!("{other}"),
            };
            if vector["valid"] == true && vector["client_should_reject"] != true {
                let dii = dii.unwrap_or_else(|error| panic!("{id}: {error}"));
                assert_eq!(dii.to_base64(), vector["hash_base64"].as_str().unwrap(), "{id}");
                assert_eq!(dii.kind(), kind, "{id}");
            } else {
                let error = dii.expect_err(id).to_string();
                assert!(input.trim().len() < 5 || !error.contains(input.trim()), "{id}: {error}");
            }
        }
    }

    #[test]
    fn email_of_every_vector_normalizes_to_the_operators_text() {
        let file: Value = serde_json::from_str(include_str!("../tests/vectors/normalization.json")).unwrap();
        for vector in file["vectors"].as_array().unwrap().iter().filter(|vector| vector["kind"] == "email") {
            let normalized = normalize_email(vector["input"].as_str().unwrap()).ok();
            assert_eq!(normalized.as_deref(), vector["normalized"].as_str(), "{}", vector["id"]);
        }
    }

    #[test]
    fn debug_of_dii_shows_neither_address_nor_hash() {
        let dii = Dii::email("user@example.com").unwrap();
        assert_eq!(format!("{dii:?}"), "Dii { kind: Email, .. }");
    }
}
