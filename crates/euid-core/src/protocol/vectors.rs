//! Tests of every vector in `tests/vectors/envelopes.json`. Where a vector has its IV, it is also sealed again.

use base64::Engine;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::answer::Reply;
use super::envelope::{BASE64, EnvelopeError, Key, gcm_open, gcm_seal, open_response, seal_request};
use super::operator::{RequestError, open_request_text, seal_response};
use crate::clock::UnixMillis;

fn vectors(kind: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("../../tests/vectors/envelopes.json")).unwrap();
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

/// Returns the name of an operator's error in the vector file.
fn request_error(error: RequestError) -> &'static str {
    match error {
        RequestError::MissingBody => "missing_body",
        RequestError::BadBase64 => "bad_base64",
        RequestError::TooShort => "too_short",
        RequestError::BadVersion(_) => "bad_version",
        RequestError::Aead => "aead",
        RequestError::StaleTimestamp => "stale_timestamp",
        RequestError::BadJson => "bad_json",
        RequestError::UnencryptedJson => "unencrypted_json",
    }
}

/// Returns the name of a client's error in the vector file.
fn answer_error(error: EnvelopeError) -> &'static str {
    match error {
        EnvelopeError::MissingBody => "missing_body",
        EnvelopeError::BadBase64 => "bad_base64",
        EnvelopeError::TooShort => "too_short",
        EnvelopeError::Aead => "aead",
        EnvelopeError::NonceMismatch => "nonce_mismatch",
        EnvelopeError::BadJson => "bad_json",
    }
}

/// Returns the status in the answer's JSON.
fn status_of(json: &[u8]) -> Result<String, EnvelopeError> {
    Ok(match Reply::<IgnoredAny>::parse(json)? {
        Reply::Success(_) => "success".to_owned(),
        Reply::Status(status) => status.into(),
    })
}

#[test]
fn request_vectors_open_or_fail_as_recorded() {
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
            assert_eq!(request_error(opened.unwrap_err()), vector["expect"]["error"], "{id}");
        }
    }
}

#[test]
fn valid_request_vectors_seal_to_the_same_bytes() {
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
fn response_vectors_open_or_fail_as_recorded() {
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
        let status = opened.and_then(|(_, json)| {
            if vector["expect"]["ok"] == true {
                assert_eq!(std::str::from_utf8(&json).unwrap(), text(vector, "plaintext_json"), "{id}");
            }
            status_of(&json)
        });
        check(vector, status);
    }
}

#[test]
fn response_vectors_seal_to_the_same_bytes() {
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
fn refresh_response_vectors_open_or_fail_as_recorded_and_seal_to_the_same_bytes() {
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
        assert_eq!(answer_error(status.unwrap_err()), vector["expect"]["error"], "{}", vector["id"]);
    }
}
