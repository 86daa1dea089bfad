//! The operator's half of the envelopes: opening requests as it does, sealing responses. For the
//! sandbox, and for the tests of the client's half.

use std::time::Duration;

use base64::Engine;
use serde_json::{Map, Value};

use super::envelope::{BASE64, IV, Iv, Key, RequestNonce, STAMP, TAG, VERSION, gcm_open, gcm_seal, stamped, unstamped};
use super::json;
use crate::clock::UnixMillis;

/// Why a request does not open, in the operator's order of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What a request envelope holds.
#[derive(Debug)]
pub struct OpenedRequest {
    pub nonce: RequestNonce,
    /// The JSON object; `None` if the envelope ends with the nonce.
    pub payload: Option<Map<String, Value>>,
}

/// Opens a request as the operator does, in its order of checks.
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

/// Opens a request that came as base64 text.
pub fn open_request_text(secret: &Key, now: UnixMillis, body: &[u8]) -> Result<OpenedRequest, RequestError> {
    if body.is_empty() {
        return Err(RequestError::MissingBody);
    }
    match decode(&BASE64, body) {
        Some(envelope) => open_request(secret, now, &envelope),
        None if is_json_object(body) => Err(RequestError::UnencryptedJson),
        None => Err(RequestError::BadBase64),
    }
}

/// Decodes base64 as the operator does: padding may be missing, but not in part.
pub fn decode(engine: &impl Engine, text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    let text = text.as_ref();
    if text.ends_with(b"=") && text.len() % 4 != 0 {
        return None;
    }
    engine.decode(text).ok()
}

/// Seals a response to the request that carried `nonce`.
pub fn seal_response(secret: &Key, iv: Iv, sent: UnixMillis, nonce: RequestNonce, json: &[u8]) -> Vec<u8> {
    gcm_seal(secret, iv, &stamped(sent, nonce, json))
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
    fn padding_is_complete_or_missing() {
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
            assert_eq!(decode(&BASE64, text).map(|bytes| bytes.len()), decoded, "{text}");
        }
    }
}
