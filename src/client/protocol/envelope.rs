//! The three envelopes, byte by byte.
//!
//! ```text
//! request           01 · IV(12) · AES-256-GCM{ unix ms(8) · nonce(8) · JSON }        client secret
//! response               IV(12) · AES-256-GCM{ unix ms(8) · nonce(8) · JSON }        client secret
//! refresh response       IV(12) · AES-256-GCM{ JSON }                                response key
//! ```
//!
//! 96-bit IV, 128-bit tag, no associated data, integers big-endian. A request carries a version byte,
//! a response none. Time and randomness are arguments. Both directions are here: the client seals
//! requests and opens responses, the sandbox does the reverse.

use std::time::Duration;

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use crate::clock::UnixMillis;

/// As the operator reads base64: standard alphabet, padding may be missing, no line breaks, stray
/// bits in the last symbol are ignored.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// An AES-256 key: a client secret, a response key.
pub(crate) type Key = [u8; 32];
/// A GCM initialization vector: fresh random bytes for every message.
pub(crate) type Iv = [u8; IV];
/// What ties a response to its request.
pub(crate) type RequestNonce = [u8; NONCE];

/// Why an envelope does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnvelopeError {
    /// There is nothing, or a `success` without a body.
    MissingBody,
    /// Not standard base64.
    BadBase64,
    /// Below the minimum length.
    TooShort,
    /// The first byte of a request is not 1.
    BadVersion(u8),
    /// GCM authentication failed.
    Aead,
    /// The request's time is outside the operator's window.
    StaleTimestamp,
    /// The response answers another request.
    NonceMismatch,
    /// Authentic, but not the expected JSON object.
    BadJson,
    /// JSON that nobody encrypted.
    UnencryptedJson,
}

/// What a request envelope holds.
#[derive(Debug)]
pub(crate) struct OpenedRequest {
    pub(crate) nonce: RequestNonce,
    /// The JSON object; `None` if the envelope ends with the nonce.
    pub(crate) payload: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Seals a request; `base64` of the result is the body.
pub(crate) fn seal_request(secret: &Key, iv: Iv, sent: UnixMillis, nonce: RequestNonce, json: &[u8]) -> Vec<u8> {
    let sealed = gcm_seal(secret, iv, &stamped(sent, nonce, json));
    let mut envelope = Vec::with_capacity(1 + sealed.len());
    envelope.push(VERSION);
    envelope.extend_from_slice(&sealed);
    envelope
}

/// Opens a request as the operator does, in its order of checks.
pub(crate) fn open_request(secret: &Key, now: UnixMillis, envelope: &[u8]) -> Result<OpenedRequest, EnvelopeError> {
    // A body that is JSON gets a better answer than the check it happens to fail.
    let or_json = |error| if is_json_object(envelope) { EnvelopeError::UnencryptedJson } else { error };
    if envelope.len() < 1 + IV + STAMP + TAG {
        return Err(or_json(EnvelopeError::TooShort));
    }
    let (&version, sealed) = envelope.split_first().ok_or(EnvelopeError::TooShort)?;
    if version != VERSION {
        return Err(or_json(EnvelopeError::BadVersion(version)));
    }
    let plain = gcm_open(secret, sealed)?;
    let (sent, nonce, json) = unstamped(&plain)?;
    if !is_fresh(sent, now) {
        return Err(EnvelopeError::StaleTimestamp);
    }
    let payload = match json {
        [] => None,
        json => Some(serde_json::from_slice(json).map_err(|_| EnvelopeError::BadJson)?),
    };
    Ok(OpenedRequest { nonce, payload })
}

/// Opens a request that came as base64 text.
pub(crate) fn open_request_text(secret: &Key, now: UnixMillis, body: &[u8]) -> Result<OpenedRequest, EnvelopeError> {
    if body.is_empty() {
        return Err(EnvelopeError::MissingBody);
    }
    match BASE64.decode(body) {
        Ok(envelope) => open_request(secret, now, &envelope),
        Err(_) if is_json_object(body) => Err(EnvelopeError::UnencryptedJson),
        Err(_) => Err(EnvelopeError::BadBase64),
    }
}

/// Seals a response to the request that carried `nonce`.
#[cfg(any(feature = "sandbox", test))]
pub(crate) fn seal_response(secret: &Key, iv: Iv, sent: UnixMillis, nonce: RequestNonce, json: &[u8]) -> Vec<u8> {
    gcm_seal(secret, iv, &stamped(sent, nonce, json))
}

/// Opens the response to the request that carried `nonce`. The operator's time is not checked: no
/// SDK does, and a wrong clock shows at the next request anyway.
pub(crate) fn open_response(
    secret: &Key,
    nonce: RequestNonce,
    envelope: &[u8],
) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
    let plain = gcm_open(secret, envelope)?;
    let (_, answered, json) = unstamped(&plain)?;
    if answered != nonce {
        return Err(EnvelopeError::NonceMismatch);
    }
    Ok(Zeroizing::new(json.to_vec()))
}

/// `IV · ciphertext · tag`: a refresh response as it is, and the core of the other envelopes.
pub(crate) fn gcm_seal(key: &Key, iv: Iv, plain: &[u8]) -> Vec<u8> {
    let ciphertext = Aes256Gcm::new(key.into()).encrypt(&Nonce::from(iv), plain);
    // GCM fails on more than 64 GiB only; an empty message opens nowhere.
    let ciphertext = ciphertext.unwrap_or_default();
    let mut sealed = Vec::with_capacity(IV + ciphertext.len());
    sealed.extend_from_slice(&iv);
    sealed.extend_from_slice(&ciphertext);
    sealed
}

/// The reverse of [`gcm_seal`].
pub(crate) fn gcm_open(key: &Key, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
    let Some((iv, ciphertext)) = sealed.split_first_chunk::<IV>() else {
        return Err(EnvelopeError::TooShort);
    };
    if ciphertext.len() < TAG {
        return Err(EnvelopeError::TooShort);
    }
    let plain = Aes256Gcm::new(key.into()).decrypt(&Nonce::from(*iv), ciphertext);
    plain.map(Zeroizing::new).map_err(|_| EnvelopeError::Aead)
}

/// The operator's window, wider than the documented minute: it truncates the distance to whole
/// minutes and accepts one; a negative distance is floored to whole seconds first.
fn is_fresh(sent: UnixMillis, now: UnixMillis) -> bool {
    now.saturating_since(sent) < Duration::from_secs(120) && sent.saturating_since(now) <= Duration::from_secs(119)
}

fn stamped(sent: UnixMillis, nonce: RequestNonce, json: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(STAMP + json.len()));
    plain.extend_from_slice(&sent.as_millis().to_be_bytes());
    plain.extend_from_slice(&nonce);
    plain.extend_from_slice(json);
    plain
}

fn unstamped(plain: &[u8]) -> Result<(UnixMillis, RequestNonce, &[u8]), EnvelopeError> {
    let (sent, rest) = plain.split_first_chunk().ok_or(EnvelopeError::TooShort)?;
    let (nonce, json) = rest.split_first_chunk().ok_or(EnvelopeError::TooShort)?;
    Ok((UnixMillis::from_millis(i64::from_be_bytes(*sent)), *nonce, json))
}

fn is_json_object(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body).is_ok()
}

const VERSION: u8 = 1;
const IV: usize = 12;
const NONCE: usize = 8;
/// Time and nonce.
const STAMP: usize = 8 + NONCE;
const TAG: usize = 16;

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;
    use serde_json::Value;

    use super::*;
    use crate::client::protocol::answer::Reply;

    fn vectors(kind: &str) -> Vec<Value> {
        let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/envelopes.json")).unwrap();
        let of_kind = |vector: &&Value| vector["kind"] == kind;
        file["vectors"].as_array().unwrap().iter().filter(of_kind).cloned().collect()
    }

    fn text<'a>(vector: &'a Value, member: &str) -> &'a str {
        vector[member].as_str().unwrap_or_else(|| panic!("{member} of {}", vector["id"]))
    }

    fn key(vector: &Value, member: &str) -> Key {
        BASE64.decode(text(vector, member)).unwrap().try_into().unwrap()
    }

    fn hex<const N: usize>(vector: &Value, member: &str) -> [u8; N] {
        let digits = text(vector, member);
        std::array::from_fn(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap())
    }

    fn millis(vector: &Value, member: &str) -> UnixMillis {
        UnixMillis::from_millis(vector[member].as_i64().unwrap())
    }

    /// The name that the vector file gives an error.
    fn name(error: EnvelopeError) -> &'static str {
        match error {
            EnvelopeError::MissingBody => "missing_body",
            EnvelopeError::BadBase64 => "bad_base64",
            EnvelopeError::TooShort => "too_short",
            EnvelopeError::BadVersion(_) => "bad_version",
            EnvelopeError::Aead => "aead",
            EnvelopeError::StaleTimestamp => "stale_timestamp",
            EnvelopeError::NonceMismatch => "nonce_mismatch",
            EnvelopeError::BadJson => "bad_json",
            EnvelopeError::UnencryptedJson => "unencrypted_json",
        }
    }

    /// What a receiver makes of the answer's JSON, as far as the envelope goes.
    fn status_of(json: &[u8]) -> Result<String, EnvelopeError> {
        Ok(match Reply::<IgnoredAny>::parse(json)? {
            Reply::Success(_) => "success".to_owned(),
            Reply::Status(status) => status.into(),
        })
    }

    #[test]
    fn every_request_vector_opens_or_fails_as_named() {
        let vectors = vectors("request");
        assert_eq!(vectors.len(), 31);
        for vector in &vectors {
            let id = text(vector, "id");
            let opened = open_request_text(
                &key(vector, "secret_b64"),
                millis(vector, "operator_now_ms"),
                text(vector, "body").as_bytes(),
            );
            if vector["expect"]["ok"] == true {
                let opened = opened.unwrap_or_else(|error| panic!("{id}: {error:?}"));
                assert_eq!(opened.nonce, hex(vector, "nonce_hex"), "{id}");
                let expected = serde_json::from_str(text(vector, "payload_utf8")).ok();
                assert_eq!(opened.payload, expected, "{id}");
            } else {
                assert_eq!(name(opened.unwrap_err()), vector["expect"]["error"], "{id}");
            }
        }
    }

    #[test]
    fn every_good_request_vector_seals_to_the_same_bytes() {
        let mut sealed = 0;
        for vector in vectors("request").iter().filter(|vector| vector["expect"]["ok"] == true) {
            let envelope = seal_request(
                &key(vector, "secret_b64"),
                hex(vector, "iv_hex"),
                millis(vector, "timestamp_ms"),
                hex(vector, "nonce_hex"),
                text(vector, "payload_utf8").as_bytes(),
            );
            let mut expected = text(vector, "body").to_owned();
            if vector["id"] == "req-09-unpadded-base64" {
                expected.push_str(&"=".repeat((4 - expected.len() % 4) % 4));
            }
            assert_eq!(BASE64.encode(envelope), expected, "{}", vector["id"]);
            sealed += 1;
        }
        assert_eq!(sealed, 16);
    }

    #[test]
    fn every_response_vector_opens_or_fails_as_named() {
        let vectors = vectors("response");
        assert_eq!(vectors.len(), 18);
        for vector in &vectors {
            let id = text(vector, "id");
            let secret = key(vector, "secret_b64");
            let nonce = hex(vector, "request_nonce_hex");
            let opened = BASE64
                .decode(text(vector, "body"))
                .map_err(|_| EnvelopeError::BadBase64)
                .and_then(|envelope| open_response(&secret, nonce, &envelope));
            let status = opened.and_then(|json| {
                if vector["expect"]["ok"] == true {
                    assert_eq!(std::str::from_utf8(&json).unwrap(), text(vector, "plaintext_json"), "{id}");
                }
                status_of(&json)
            });
            check(vector, status);
        }
    }

    #[test]
    fn every_response_vector_seals_to_the_same_bytes() {
        let with_iv = vectors("response").into_iter().filter(|vector| {
            vector["expect"]["ok"] == true && vector["iv_hex"].is_string() && vector["plaintext_json"].is_string()
        });
        let mut sealed = 0;
        for vector in with_iv {
            let envelope = seal_response(
                &key(&vector, "secret_b64"),
                hex(&vector, "iv_hex"),
                millis(&vector, "timestamp_ms"),
                hex(&vector, "nonce_hex"),
                text(&vector, "plaintext_json").as_bytes(),
            );
            assert_eq!(BASE64.encode(envelope), text(&vector, "body"), "{}", vector["id"]);
            sealed += 1;
        }
        assert_eq!(sealed, 8);
    }

    #[test]
    fn every_refresh_response_vector_opens_or_fails_as_named_and_seals_to_the_same_bytes() {
        let vectors = vectors("refresh_response");
        assert_eq!(vectors.len(), 9);
        for vector in &vectors {
            let id = text(vector, "id");
            let response_key = key(vector, "refresh_response_key_b64");
            let opened = BASE64
                .decode(text(vector, "body"))
                .map_err(|_| EnvelopeError::BadBase64)
                .and_then(|envelope| gcm_open(&response_key, &envelope));
            if vector["expect"]["ok"] == true {
                let json = text(vector, "plaintext_json").as_bytes();
                assert_eq!(opened.as_deref().map(Vec::as_slice), Ok(json), "{id}");
                if vector["iv_hex"].is_string() {
                    let envelope = gcm_seal(&response_key, hex(vector, "iv_hex"), json);
                    assert_eq!(BASE64.encode(envelope), text(vector, "body"), "{id}");
                }
            }
            check(vector, opened.and_then(|json| status_of(&json)));
        }
    }

    fn check(vector: &Value, status: Result<String, EnvelopeError>) {
        if vector["expect"]["ok"] == true {
            assert_eq!(status.as_deref(), Ok(text(&vector["expect"], "status")), "{}", vector["id"]);
        } else {
            assert_eq!(name(status.unwrap_err()), vector["expect"]["error"], "{}", vector["id"]);
        }
    }
}
