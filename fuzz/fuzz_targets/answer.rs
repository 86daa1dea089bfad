//! Fuzzes the operator's answers, either as raw bodies or as any JSON in a valid envelope; and requests, as the operator
//! opens them.
//!
//! Input: one byte for the endpoint and the kind of input, two for the HTTP status, then body or JSON.

#![no_main]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use euid_core::error::{ErrorKind, EuidError};
use euid_core::fuzzing::{Endpoint, Outcome, ask, receive, receive_text, seal_answer, understand};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| -> Corpus {
    let [selector, a, b, rest @ ..] = data else { return Corpus::Reject };
    let endpoint = match selector & 3 {
        0 => Endpoint::Generate,
        1 => Endpoint::Refresh,
        2 => Endpoint::Validate,
        _ => return request(selector & 4 != 0, rest),
    };
    let content_type = match selector >> 3 & 3 {
        0 => None,
        1 => Some("text/plain"),
        2 => Some("application/octet-stream"),
        _ => Some("Application/OCTET-stream"),
    };
    if selector & 4 == 0 {
        as_it_came(endpoint, u16::from_be_bytes([*a, *b]), content_type, rest);
    } else {
        well_sealed(endpoint, content_type, rest);
    }
    Corpus::Keep
});

/// A raw body: only a 200 has an outcome, and the status takes precedence in the kind of an error.
fn as_it_came(endpoint: Endpoint, status: u16, content_type: Option<&str>, body: &[u8]) {
    let error = match understand(endpoint, status, content_type, body) {
        Ok(outcome) => return assert_eq!(status, 200, "{outcome:?}"),
        Err(error) => error,
    };
    is_bounded(&error);
    match (status, error.kind()) {
        (401, kind) => assert_eq!(kind, ErrorKind::Unauthorized),
        (408 | 429 | 500.., kind) => assert_eq!(kind, ErrorKind::Transient),
        (_, kind) => assert!(!matches!(kind, ErrorKind::Unauthorized | ErrorKind::Transient)),
    }
    if error.kind() == ErrorKind::RejectedToken {
        assert_eq!(status, 400);
        // Fields that the client ignores need not be valid JSON, so `says` may be `None`.
        let says = serde_json::from_slice::<Value>(body).ok();
        assert!(says.is_none_or(|says| says["status"] == "invalid_token" || says["status"] == "expired_token"));
    }
}

/// JSON in a valid envelope: the outcome matches the JSON.
fn well_sealed(endpoint: Endpoint, content_type: Option<&str>, json: &[u8]) {
    let envelope = seal_answer(endpoint, json);
    let is_binary = content_type.is_some_and(|kind| kind.eq_ignore_ascii_case("application/octet-stream"));
    let body = if is_binary { envelope } else { BASE64_STANDARD.encode(envelope).into() };
    let understood = understand(endpoint, 200, content_type, &body);
    let says: Option<Value> = serde_json::from_slice(json).ok();
    let status = says.as_ref().map(|says| &says["status"]);
    match &understood {
        Ok(Outcome::Identity(identity)) => {
            let times = identity.times();
            assert!(times.refresh_from <= times.identity_expires && times.identity_expires <= times.refresh_expires);
            let Some(says) = &says else { return };
            let body = &says["body"];
            assert_eq!(says["status"], "success");
            assert_eq!(body["advertising_token"], identity.advertising_token());
            assert_eq!(body["refresh_token"], identity.refresh_token().expose_secret());
            assert_eq!(body["refresh_response_key"], BASE64_STANDARD.encode(identity.response_key().expose_secret()));
            assert_eq!(body["refresh_from"], times.refresh_from.as_millis());
            assert_eq!(body["identity_expires"], times.identity_expires.as_millis());
            assert_eq!(body["refresh_expires"], times.refresh_expires.as_millis());
        }
        Ok(Outcome::OptedOut) => assert!(status.is_none_or(|status| status == "optout")),
        Ok(Outcome::InsufficientConsent) => {
            assert!(
                endpoint == Endpoint::Generate && status.is_none_or(|status| status == "insufficient_user_consent")
            );
        }
        Ok(Outcome::Valid(valid)) => assert!(says.as_ref().is_none_or(|says| says["body"] == *valid)),
        Err(error) => {
            is_bounded(error);
            let is_unknown = error.kind() == ErrorKind::UnknownStatus;
            assert!(is_unknown || error.kind() == ErrorKind::Malformed, "{error:?}");
            assert!(!is_unknown || status.is_none_or(|status| status.is_string() && status != "success"));
        }
    }
}

/// An error's text is the client's own, except for the status and the beginning of the operator's message.
fn is_bounded(error: &EuidError) {
    let text = error.to_string();
    // The message follows the status in parentheses, or, for a refused API key, the client's own words.
    let (own, message) = match text.strip_prefix("the operator does not accept this API key: ") {
        Some(message) => ("", message),
        None => text.split_once("): ").unwrap_or((&text, "")),
    };
    let status = own.rsplit_once(" (").map_or("", |(_, status)| status);
    assert!(
        own.len() < 160 && status.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_ )".contains(&byte)),
        "{text}"
    );
    assert!(message.len() <= 200 && text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text}");
}

/// A request that the client seals opens with the same content. The operator refuses any other.
fn request(is_ours: bool, body: &[u8]) -> Corpus {
    if is_ours {
        let envelope = ask(body);
        let received = receive(&envelope);
        assert_eq!(receive_text(BASE64_STANDARD.encode(&envelope).as_bytes()), received);
        match received {
            Ok(None) => assert!(body.is_empty()),
            // The operator accepts more than serde_json does: comments, for example.
            Ok(Some(object)) => {
                if let Ok(expected) = serde_json::from_slice::<Map<String, Value>>(body) {
                    assert!(object.keys().eq(expected.keys()));
                }
            }
            Err(refused) => {
                assert!(refused.is_bad_json());
                let is_object = serde_json::from_slice::<Map<String, Value>>(body).is_ok();
                // The operator limits the length of numbers and names.
                assert!(!is_object || body.len() > 1000);
            }
        }
    } else {
        assert!(receive(body).is_err() && receive_text(body).is_err());
    }
    Corpus::Keep
}
