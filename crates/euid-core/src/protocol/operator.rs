//! The operator's half of the envelopes: it opens requests and seals responses. For stand-in operators, and for the
//! tests of the client's half.

#![cfg_attr(not(feature = "operator"), allow(dead_code, reason = "the tests need a part of it"))]

use std::time::Duration;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::envelope::{BASE64, IV, Iv, Key, RequestNonce, STAMP, TAG, VERSION, gcm_open, gcm_seal, stamped, unstamped};
use super::json;
use crate::clock::UnixMillis;
use crate::error::{ConfigError, Setting};
use crate::scope::Scope;
use crate::secret::key_from_base64;

/// The reason why a request does not open. The variants stand in the operator's order of checks.
///
/// ```
/// use euid_core::clock::UnixMillis;
/// use euid_core::protocol::{RequestError, open_request_text};
///
/// let opened = open_request_text(&[1; 32], UnixMillis::from_millis(0), br#"{"email":"user@example.com"}"#);
/// assert_eq!(opened.unwrap_err(), RequestError::UnencryptedJson);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// There is no body.
    MissingBody,
    /// Not standard base64.
    BadBase64,
    /// JSON that is not encrypted.
    UnencryptedJson,
    /// Below the minimum length.
    TooShort,
    /// The first byte is not 1.
    BadVersion(u8),
    /// GCM authentication failed.
    Aead,
    /// The request's time is outside the operator's window.
    StaleTimestamp,
    /// Authentic, but not a JSON object.
    BadJson,
}

/// The content of a request envelope.
///
/// ```
/// use euid_core::clock::UnixMillis;
/// use euid_core::protocol::{open_request, seal_request};
///
/// let now = UnixMillis::from_millis(1_795_371_587_000);
/// let opened = open_request(&[1; 32], now, &seal_request(&[1; 32], [2; 12], now, [3; 8], b"")).unwrap();
/// assert_eq!((opened.nonce, opened.payload), ([3; 8], None));
/// ```
pub struct OpenedRequest {
    /// The response has to repeat it.
    pub nonce: RequestNonce,
    /// The JSON object; `None` if the envelope ends with the nonce.
    pub payload: Option<Map<String, Value>>,
}

/// The payload names a person.
impl std::fmt::Debug for OpenedRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedRequest").finish_non_exhaustive()
    }
}

/// Opens the bytes of a request as the operator does, in its order of checks.
///
/// ```
/// use euid_core::clock::UnixMillis;
/// use euid_core::protocol::{open_request, seal_request};
///
/// let now = UnixMillis::from_millis(1_795_371_587_000);
/// let request = seal_request(&[1; 32], [2; 12], now, [3; 8], br#"{"email":"user@example.com"}"#);
/// let opened = open_request(&[1; 32], now, &request).unwrap();
/// assert_eq!(opened.payload.unwrap()["email"], "user@example.com");
/// ```
///
/// # Errors
///
/// As [`RequestError`] lists them.
pub fn open_request(secret: &Key, now: UnixMillis, envelope: &[u8]) -> Result<OpenedRequest, RequestError> {
    // A body that is JSON gets a better answer than the check it happens to fail.
    let or_json = |error| if is_json_object(envelope) { RequestError::UnencryptedJson } else { error };
    if envelope.len() < 1 + IV + STAMP + TAG {
        return Err(or_json(RequestError::TooShort));
    }
    let (&version, sealed) = envelope.split_first().ok_or(RequestError::TooShort)?;
    if version != VERSION {
        return Err(or_json(RequestError::BadVersion(version)));
    }
    let plain = gcm_open(secret, sealed).map_err(|_| RequestError::Aead)?;
    let (sent, nonce, json) = unstamped(&plain).map_err(|_| RequestError::TooShort)?;
    if !is_fresh(sent, now) {
        return Err(RequestError::StaleTimestamp);
    }
    let payload = match json {
        [] => None,
        json => Some(json::object(json).ok_or(RequestError::BadJson)?),
    };
    Ok(OpenedRequest { nonce, payload })
}

/// Opens a request that came as base64 text, as [`open_request`] does.
///
/// ```
/// use euid_core::clock::UnixMillis;
/// use euid_core::protocol::{RequestError, open_request_text};
///
/// let opened = open_request_text(&[1; 32], UnixMillis::from_millis(0), b"not base64");
/// assert_eq!(opened.unwrap_err(), RequestError::BadBase64);
/// ```
///
/// # Errors
///
/// As [`RequestError`] lists them.
pub fn open_request_text(secret: &Key, now: UnixMillis, body: &[u8]) -> Result<OpenedRequest, RequestError> {
    if body.is_empty() {
        return Err(RequestError::MissingBody);
    }
    match decode_base64(body) {
        Some(envelope) => open_request(secret, now, &envelope),
        None if is_json_object(body) => Err(RequestError::UnencryptedJson),
        None => Err(RequestError::BadBase64),
    }
}

/// Decodes standard base64 as the operator does: padding may be missing, but not in part.
///
/// ```
/// use euid_core::protocol::decode_base64;
///
/// assert_eq!(decode_base64("/w==").as_deref(), Some(&[0xff][..]));
/// assert_eq!(decode_base64("/w=").as_deref(), None);
/// ```
pub fn decode_base64(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    decode(&BASE64, text.as_ref())
}

/// As [`decode_base64`], with the alphabet of advertising tokens.
///
/// ```
/// assert_eq!(euid_core::protocol::decode_base64_url("_w").as_deref(), Some(&[0xff][..]));
/// ```
pub fn decode_base64_url(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    decode(&BASE64_URL_SAFE, text.as_ref())
}

fn decode(engine: &impl Engine, text: &[u8]) -> Option<Vec<u8>> {
    if text.ends_with(b"=") && !text.len().is_multiple_of(4) {
        return None;
    }
    engine.decode(text).ok()
}

/// As [`BASE64`], with the alphabet of advertising tokens.
const BASE64_URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Seals what is read without a nonce: the answer to a refresh under its response key, the parts of a token. `iv` is
/// fresh random bytes.
///
/// ```
/// use euid_core::protocol::{open, seal};
///
/// let sealed = seal(&[1; 32], [2; 12], b"plain");
/// assert_eq!(open(&[1; 32], &sealed).as_deref().map(Vec::as_slice), Some(&b"plain"[..]));
/// ```
#[must_use]
pub fn seal(key: &Key, iv: Iv, plain: &[u8]) -> Vec<u8> {
    gcm_seal(key, iv, plain)
}

/// Opens what [`seal`] has sealed; `None` if it is too short, or was sealed under another key or changed since.
///
/// ```
/// assert!(euid_core::protocol::open(&[1; 32], b"too short").is_none());
/// ```
#[must_use]
pub fn open(key: &Key, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    gcm_open(key, sealed).ok()
}

/// The key that the text of a client secret stands for.
///
/// ```
/// use euid_core::protocol::parse_client_secret;
///
/// assert!(parse_client_secret("4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=").is_ok());
/// assert!(parse_client_secret("hunter2").is_err());
/// ```
///
/// # Errors
///
/// If it is not standard base64 of 32 bytes.
pub fn parse_client_secret(text: &str) -> Result<Zeroizing<Key>, ConfigError> {
    key_from_base64(text, "the client secret").map_err(|error| error.about(Setting::ClientSecret))
}

/// Seals a response to the request that carried `nonce`. `iv` is fresh random bytes; `sent` is the operator's time.
///
/// ```
/// use euid_core::clock::UnixMillis;
/// use euid_core::protocol::seal_response;
///
/// let now = UnixMillis::from_millis(1_795_371_587_000);
/// let sealed = seal_response(&[1; 32], [2; 12], now, [3; 8], br#"{"status":"optout"}"#);
/// assert_eq!(sealed.len(), 12 + 16 + 19 + 16);
/// ```
#[must_use]
pub fn seal_response(secret: &Key, iv: Iv, sent: UnixMillis, nonce: RequestNonce, json: &[u8]) -> Vec<u8> {
    gcm_seal(secret, iv, &stamped(sent, nonce, json))
}

/// What the API keys of a scope's operator begin with. Old keys begin with anything.
///
/// ```
/// use euid_core::{Scope, protocol::api_key_prefix};
///
/// assert_eq!(Scope::ALL.map(api_key_prefix), ["EUID-", "UID2-"]);
/// ```
#[must_use]
pub fn api_key_prefix(scope: Scope) -> &'static str {
    scope.literals().api_key
}

/// The address of the documents about a scope's operator, without a slash at the end. Its error texts point there.
///
/// ```
/// use euid_core::{Scope, protocol::documents};
///
/// assert_eq!(documents(Scope::Uid2), "https://unifiedid.com/docs");
/// ```
#[must_use]
pub fn documents(scope: Scope) -> &'static str {
    scope.literals().documents
}

/// The bits of a scope in the first byte of an advertising token or refresh token.
///
/// ```
/// use euid_core::{Scope, protocol::token_bits};
///
/// assert_eq!(Scope::ALL.map(token_bits), [0x10, 0x00]);
/// ```
#[must_use]
pub fn token_bits(scope: Scope) -> u8 {
    scope.literals().token_bits
}

/// The operator's window, wider than the documented minute: it truncates the distance to whole
/// minutes and accepts one; a negative distance is floored to whole seconds first.
fn is_fresh(sent: UnixMillis, now: UnixMillis) -> bool {
    now.saturating_since(sent) < Duration::from_secs(120) && sent.saturating_since(now) <= Duration::from_secs(119)
}

fn is_json_object(body: &[u8]) -> bool {
    json::object(body).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_padding_is_complete_or_missing() {
        for (text, decoded) in [
            ("AAAA", Some(3)),
            ("AAA=", Some(2)),
            ("AAA", Some(2)),
            ("AA==", Some(1)),
            ("AA", Some(1)),
            ("AA=", None),
            ("AAA==", None),
            ("AAAA=", None),
            ("A", None),
        ] {
            assert_eq!(decode_base64(text).map(|bytes| bytes.len()), decoded, "{text}");
        }
    }
}
