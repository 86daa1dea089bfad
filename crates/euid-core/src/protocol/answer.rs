//! Turns an HTTP answer into an outcome or an error.
//!
//! 1. Only a 200 is encrypted; everything else is JSON at best and may be any page that a load
//!    balancer writes.
//! 2. The answer is read by its own content type, not by the one that was sent.
//! 3. Unknown members and unknown statuses are tolerated; a `success` without a whole body is not.
//! 4. The HTTP status and `status` decide. The `message` only distinguishes three more causes of `client_error`, which
//!    have no status of their own; otherwise it is quoted, see [`Sent`].

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use zeroize::Zeroizing;

use super::envelope::{BASE64, EnvelopeError, Key, RequestNonce, gcm_open, open_response};
use crate::clock::UnixMillis;
use crate::error::{ErrorKind, EuidError};
use crate::identity::{Identity, Object, Parts, ResponseKey};
use crate::outcome::{Generated, Refreshed};

/// An HTTP answer, as it came.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    pub status: u16,
    pub content_type: Option<&'a str>,
    /// From the `Retry-After` header, if it can be read.
    pub retry_after: Option<Duration>,
    pub body: &'a [u8],
    pub sent: Sent<'a>,
}

/// The values that a call sent, which an error must never repeat.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    /// The noun for them in an error.
    pub noun: &'static str,
    pub values: [Option<&'a str>; 4],
    pub api_key: Option<&'a str>,
}

/// The content of an opened answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<T> {
    /// `success`, with its body.
    Success(T),
    /// Any other status; none has a body worth reading.
    Status(Box<str>),
}

/// Opens an answer to `token/generate` or `token/validate`: the operator's time, and the JSON.
pub fn open(
    answer: Answer<'_>,
    secret: &Key,
    nonce: RequestNonce,
) -> Result<(UnixMillis, Zeroizing<Vec<u8>>), EuidError> {
    open_response(secret, nonce, &answer.envelope()?).map_err(unopened)
}

/// The outcome of `token/generate`.
pub fn generated(json: &[u8]) -> Result<Generated, EuidError> {
    match Reply::<Object<Parts>>::parse(json).map_err(unopened)? {
        Reply::Success(Object(parts)) => identity(parts).map(Generated::Identity),
        Reply::Status(status) if *status == *OPTOUT => Ok(Generated::OptedOut),
        Reply::Status(status) if *status == *INSUFFICIENT_CONSENT => Ok(Generated::InsufficientConsent),
        Reply::Status(status) => Err(unknown(&status, "")),
    }
}

/// The outcome of `token/validate`.
pub fn validated(json: &[u8]) -> Result<bool, EuidError> {
    match Reply::parse(json).map_err(unopened)? {
        Reply::Success(matches) => Ok(matches),
        Reply::Status(status) => Err(unknown(&status, "")),
    }
}

/// The outcome of `token/refresh`, which is encrypted under the response key of the pair that was
/// sent and carries neither time nor nonce.
pub fn refreshed(answer: Answer<'_>, key: &ResponseKey) -> Result<Refreshed, EuidError> {
    let json = gcm_open(key.expose_secret(), &answer.envelope()?).map_err(unopened)?;
    match Reply::<Object<Parts>>::parse(&json).map_err(unopened)? {
        Reply::Success(Object(parts)) => identity(parts).map(Refreshed::Identity),
        Reply::Status(status) if *status == *OPTOUT => Ok(Refreshed::OptedOut),
        Reply::Status(status) => Err(unknown(&status, "")),
    }
}

/// The identity of a `success`; an error names the member that is wrong.
fn identity(parts: Parts) -> Result<Identity, EuidError> {
    parts.identity().map_err(|error| {
        EuidError::new(ErrorKind::Malformed, format!("the operator's `success` is {error}")).with_source(error)
    })
}

impl Answer<'_> {
    /// The encrypted part of a 200, or the error that any other answer stands for.
    fn envelope(&self) -> Result<Cow<'_, [u8]>, EuidError> {
        if self.status != 200 {
            return Err(self.refusal());
        }
        if self.content_type.is_some_and(|kind| kind.eq_ignore_ascii_case("application/octet-stream")) {
            return Ok(Cow::Borrowed(self.body));
        }
        match BASE64.decode(self.body) {
            Ok(envelope) => Ok(Cow::Owned(envelope)),
            Err(_) => Err(unopened(EnvelopeError::BadBase64)),
        }
    }

    /// The error that an answer other than 200 stands for.
    fn refusal(&self) -> EuidError {
        #[derive(Deserialize)]
        struct Refusal {
            status: Box<str>,
            message: Option<Box<str>>,
        }
        let http = self.status;
        let refusal = serde_json::from_slice::<Object<Refusal>>(self.body).ok();
        let message = refusal.as_ref().and_then(|Object(refusal)| refusal.message.as_deref()).unwrap_or_default();
        let quoted = self.sent.quote(message);
        match http {
            401 => {
                let what = format!("the operator does not accept this API key{quoted}");
                return EuidError::new(ErrorKind::Unauthorized, what);
            }
            408 | 429 | 500.. => {
                let what = format!("the operator can't answer now (HTTP {http}){quoted}");
                let error = EuidError::new(ErrorKind::Transient, what);
                // With other statuses it means something else.
                return match self.retry_after {
                    Some(wait) if matches!(http, 429 | 503) => error.with_retry_after(wait),
                    _ => error,
                };
            }
            _ => {}
        }
        let Some(Object(refusal)) = &refusal else {
            return EuidError::new(ErrorKind::Malformed, format!("not an answer of an operator (HTTP {http})"));
        };
        match &*refusal.status {
            status if http != 400 => unknown(status, &quoted),
            "client_error" => client_error(message).unwrap_or_else(|| {
                let what = format!("the operator refused {} (client_error){quoted}", self.sent.noun);
                EuidError::new(ErrorKind::RejectedInput, what)
            }),
            status @ ("invalid_token" | "expired_token") => {
                let what = format!("the refresh token has ended ({status}){quoted}");
                EuidError::new(ErrorKind::RejectedToken, what)
            }
            status => unknown(status, &quoted),
        }
    }
}

impl Sent<'_> {
    /// The operator's message as the end of an error's text: printable ASCII, bounded. Empty if there is none, or if it
    /// repeats a part of the sent values or holds what may be an address.
    fn quote(&self, message: &str) -> String {
        let is_long = message.char_indices().nth(MAX_MESSAGE);
        // The rest is not searched either: the time for it grows with the length.
        let beginning = is_long.and_then(|(end, _)| message.get(..end)).unwrap_or(message);
        if message.is_empty() || message.contains('@') || self.is_repeated_in(beginning) {
            return String::new();
        }
        let printable = |character: char| if matches!(character, ' '..='~') { character } else { '?' };
        format!(": {}", beginning.chars().map(printable).collect::<String>())
    }

    /// Whether eight characters in a row of a value, or a whole shorter value, are in `message`, in upper
    /// or lower case.
    fn is_repeated_in(&self, message: &str) -> bool {
        let message = message.to_ascii_lowercase();
        self.values.into_iter().chain([self.api_key]).flatten().filter(|value| !value.is_empty()).any(|value| {
            let value = Zeroizing::new(value.to_ascii_lowercase());
            let mut parts = value.as_bytes().windows(value.len().min(8));
            parts.any(|part| message.as_bytes().windows(part.len()).any(|other| other == part))
        })
    }
}

impl<T: DeserializeOwned> Reply<T> {
    /// Reads `{"status":…,"body":…}`, in any order, with any other members.
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeError> {
        #[derive(Deserialize)]
        struct Wire<B> {
            status: Box<str>,
            body: Option<B>,
        }
        let Object::<Wire<IgnoredAny>>(reply) = serde_json::from_slice(json).map_err(|_| EnvelopeError::BadJson)?;
        if &*reply.status != "success" {
            return Ok(Self::Status(reply.status));
        }
        reply.body.ok_or(EnvelopeError::MissingBody)?;
        // The parser's error may quote the body, so it is dropped.
        let Object::<Wire<T>>(reply) = serde_json::from_slice(json).map_err(|_| EnvelopeError::BadJson)?;
        reply.body.map(Self::Success).ok_or(EnvelopeError::MissingBody)
    }
}

/// The JSON of a request: one identity member, and the other members that the endpoint takes.
#[derive(serde::Serialize)]
pub struct Question<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcf_consent_string: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optout_check: Option<u8>,
}

impl Question<'_> {
    pub fn values(&self) -> [Option<&str>; 4] {
        [self.token, self.email_hash.as_deref(), self.phone_hash.as_deref(), self.tcf_consent_string]
    }

    /// As bytes, wiped when dropped.
    pub fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, EuidError> {
        serde_json::to_vec(self)
            .map(Zeroizing::new)
            .map_err(|_| EuidError::new(ErrorKind::RejectedInput, "the request can't be written as JSON"))
    }
}

/// The causes of `client_error` that only its message names.
fn client_error(message: &str) -> Option<EuidError> {
    let (kind, what) = if message.starts_with("Invalid timestamp") {
        (ErrorKind::ClockDrift, "the operator finds the request too old or too new: this machine's clock is off")
    } else if message.contains("(ClientSecret)") {
        (
            ErrorKind::Undecryptable,
            "the operator can't decrypt the request: the client secret is not the one of this API key",
        )
    } else if message.contains("opt-out policy") {
        (ErrorKind::RejectedInput, "this operator wants `optout_check`, see `EuidClientBuilder::optout_check`")
    } else {
        return None;
    };
    Some(EuidError::new(kind, what))
}

fn unopened(error: EnvelopeError) -> EuidError {
    let (kind, what) = match error {
        EnvelopeError::Aead => (
            ErrorKind::Undecryptable,
            "the operator's answer does not decrypt: the secret or response key is not the one it used",
        ),
        EnvelopeError::NonceMismatch => (ErrorKind::Malformed, "the operator's answer belongs to another request"),
        EnvelopeError::MissingBody => (ErrorKind::Malformed, "the operator's `success` has no body"),
        EnvelopeError::BadJson => (ErrorKind::Malformed, "the operator's answer decrypts, but does not make sense"),
        EnvelopeError::TooShort => (ErrorKind::Malformed, "the operator's answer is too short"),
        EnvelopeError::BadBase64 => (ErrorKind::Malformed, "the operator's answer is no envelope"),
    };
    EuidError::new(kind, what)
}

/// The error for a status without a known meaning; `quoted` is from [`Sent::quote`].
fn unknown(status: &str, quoted: &str) -> EuidError {
    // A status is a word; anything else is not repeated.
    let is_word = status.len() <= 40 && status.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let status = if is_word { status } else { "not a word" };
    let what = format!("the operator refused without a known reason ({status}){quoted}");
    EuidError::new(ErrorKind::UnknownStatus, what)
}

/// The most characters of a message that an error holds.
const MAX_MESSAGE: usize = 200;
const OPTOUT: &str = "optout";
const INSUFFICIENT_CONSENT: &str = "insufficient_user_consent";

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::clock::UnixMillis;
    use crate::protocol::envelope::gcm_seal;
    use crate::protocol::operator::seal_response;

    const SENT: Sent<'_> = Sent {
        noun: "the input",
        values: [None, Some("tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ="), None, Some("short")],
        api_key: Some("EUID-C-T-124-twrEUD"),
    };

    fn answer<'a>(status: u16, body: &'a [u8]) -> Answer<'a> {
        Answer { status, content_type: None, retry_after: None, body, sent: SENT }
    }

    fn refusal(status: u16, body: &str) -> ErrorKind {
        open(answer(status, body.as_bytes()), &[0; 32], [0; 8]).expect_err("a refusal").kind()
    }

    fn binary(body: &[u8]) -> Answer<'_> {
        Answer { content_type: Some("application/octet-stream"), ..answer(200, body) }
    }

    /// The outcome must match the recorded JSON; without JSON, the kind of the error counts.
    #[test]
    fn every_recorded_operator_answer_gives_its_outcome_or_error_kind() {
        let file: Value = serde_json::from_str(include_str!("../../tests/vectors/operator-captures.json")).unwrap();
        let secret: Key = BASE64.decode(file["secret_b64"].as_str().unwrap()).unwrap().try_into().unwrap();
        let captures = file["captures"].as_array().unwrap();
        assert_eq!(captures.len(), 110);
        for capture in captures {
            let name = capture["name"].as_str().unwrap();
            let raw = capture["response_body_b64_of_bytes"].as_str().map(|text| BASE64.decode(text).unwrap());
            let body = raw.unwrap_or_else(|| capture["response_body"].as_str().unwrap().into());
            let answer = Answer {
                content_type: capture["response_content_type"].as_str(),
                ..answer(capture["status"].as_u64().unwrap().try_into().unwrap(), &body)
            };
            let nonce = capture["request_nonce_hex"].as_str().unwrap_or("0000000000000000");
            let nonce = u64::from_str_radix(nonce, 16).unwrap().to_be_bytes();

            let outcome = if name.starts_with("refresh/") {
                let key = capture["refresh_response_key"].as_str().map(ResponseKey::from_base64);
                let key = key.unwrap_or(Ok([0; 32].into())).unwrap();
                refreshed(answer, &key).map(|outcome| format!("{outcome:?}"))
            } else if name.starts_with("validate/") {
                let opened = open(answer, &secret, nonce);
                opened.and_then(|(_, json)| validated(&json)).map(|matches| matches.to_string())
            } else {
                let opened = open(answer, &secret, nonce);
                opened.and_then(|(_, json)| generated(&json)).map(|outcome| format!("{outcome:?}"))
            };
            let outcome = outcome.as_deref().map_err(EuidError::kind);

            let Some(json) = capture["response_json"].as_str() else {
                assert_eq!(outcome, Err(expected_error(capture)), "{name}");
                continue;
            };
            let json: Value = serde_json::from_str(json).unwrap();
            match (&json["status"], &json["body"]) {
                (status, Value::Bool(matches)) if status == "success" => {
                    assert_eq!(outcome, Ok(&*matches.to_string()), "{name}");
                }
                (status, body) if status == "success" => {
                    let identity: Identity = serde_json::from_value(body.clone()).unwrap();
                    assert_eq!(outcome, Ok(&*format!("Identity({identity:?})")), "{name}");
                }
                (status, _) if status == "optout" => assert_eq!(outcome, Ok("OptedOut"), "{name}"),
                (_, _) => assert_eq!(outcome, Ok("InsufficientConsent"), "{name}"),
            }
        }
    }

    /// Returns the error kind by the protocol's status table, without the code under test.
    fn expected_error(capture: &Value) -> ErrorKind {
        let body = capture["response_body"].as_str().unwrap();
        match capture["status"].as_u64().unwrap() {
            401 => ErrorKind::Unauthorized,
            500 => ErrorKind::Transient,
            204 | 404 | 405 | 413 => ErrorKind::Malformed,
            400 if body.contains("Invalid timestamp") => ErrorKind::ClockDrift,
            400 if body.contains("(ClientSecret)") => ErrorKind::Undecryptable,
            400 if body.contains("\"client_error\"") => ErrorKind::RejectedInput,
            400 if body.contains("_token\"") => ErrorKind::RejectedToken,
            400 if body.contains("\"error\"") => ErrorKind::UnknownStatus,
            other => panic!("{other} {body}"),
        }
    }

    #[test]
    fn refusal_kind_follows_the_status_and_the_body() {
        assert_eq!(refusal(503, "<html>"), ErrorKind::Transient);
        assert_eq!(refusal(500, ""), ErrorKind::Transient);
        assert_eq!(refusal(429, "{}"), ErrorKind::Transient);
        assert_eq!(refusal(302, ""), ErrorKind::Malformed);
        assert_eq!(refusal(400, "<html>"), ErrorKind::Malformed);
        assert_eq!(refusal(400, r#"["client_error","x"]"#), ErrorKind::Malformed);
        assert_eq!(refusal(200, "{\"status\":\"success\"}"), ErrorKind::Malformed);
        assert_eq!(refusal(200, ""), ErrorKind::Malformed);
        assert_eq!(refusal(401, "<html>"), ErrorKind::Unauthorized);
        assert_eq!(refusal(403, r#"{"status":"invalid_http_origin"}"#), ErrorKind::UnknownStatus);
        assert_eq!(refusal(404, r#"{"status":"invalid_token"}"#), ErrorKind::UnknownStatus);
    }

    #[test]
    fn retry_after_counts_only_with_429_and_503() {
        let wait = Some(Duration::from_secs(30));
        for (status, expected) in [(429, wait), (503, wait), (500, None), (408, None), (401, None), (400, None)] {
            let answer = Answer { retry_after: wait, ..answer(status, b"{}") };
            assert_eq!(answer.refusal().retry_after(), expected, "{status}");
        }
    }

    #[test]
    fn unknown_encrypted_status_is_not_a_rejected_token() {
        let json = br#"{"status":"brand_new"}"#;
        let answered = seal_response(&[1; 32], [2; 12], UnixMillis::from_millis(7), [3; 8], json);
        let (stamp, opened) = open(binary(&answered), &[1; 32], [3; 8]).unwrap();
        assert_eq!(stamp, UnixMillis::from_millis(7));
        let renewed = gcm_seal(&[1; 32], [2; 12], json);
        for error in [
            generated(&opened).unwrap_err(),
            validated(&opened).unwrap_err(),
            refreshed(binary(&renewed), &[1; 32].into()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::UnknownStatus);
            assert!(error.to_string().contains("brand_new"), "{error}");
        }
    }

    #[test]
    fn decrypted_answer_with_invalid_content_is_malformed_and_names_the_reason() {
        for (json, reason) in [(r#"{"status":"success"}"#, "no body"), ("[]", "does not make sense")] {
            let renewed = gcm_seal(&[1; 32], [2; 12], json.as_bytes());
            let error = refreshed(binary(&renewed), &[1; 32].into()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed);
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn error_repeats_neither_a_status_of_two_words_nor_an_address() {
        let body = br#"{"status":"E4AAAABl secret","message":"visitor@example.com"}"#;
        let error = answer(400, body).refusal();
        assert!(!format!("{error} {error:?}").contains("secret"));
        let body = br#"{"status":"client_error","message":"visitor@example.com"}"#;
        let error = answer(400, body).refusal();
        assert!(!format!("{error} {error:?}").contains("visitor"));
    }

    fn refusal_text(status: &str, message: &str) -> String {
        let body = serde_json::json!({"status": status, "message": message}).to_string();
        answer(400, body.as_bytes()).refusal().to_string()
    }

    #[test]
    fn error_quotes_the_operators_message() {
        for (status, text) in [
            ("client_error", "the operator refused the input (client_error): Invalid Identifier"),
            ("error", "the operator refused without a known reason (error): Invalid Identifier"),
            ("expired_token", "the refresh token has ended (expired_token): Invalid Identifier"),
        ] {
            assert_eq!(refusal_text(status, "Invalid Identifier"), text);
        }
        assert_eq!(refusal_text("client_error", ""), "the operator refused the input (client_error)");
        let long = refusal_text("client_error", &"x ".repeat(150));
        assert!(long.ends_with(&format!(": {}", "x ".repeat(100))), "{long}");
        let odd = refusal_text("client_error", "line\nbreak \u{1b}[31mé\u{202e} end");
        assert!(odd.ends_with(": line?break ?[31m?? end"), "{odd}");
    }

    #[test]
    fn error_of_a_503_quotes_the_operators_message_if_present() {
        let error = answer(503, br#"{"status":"unknown","message":"keys are being loaded"}"#).refusal();
        assert_eq!(error.to_string(), "the operator can't answer now (HTTP 503): keys are being loaded");
        assert_eq!(answer(503, b"<html>").refusal().to_string(), "the operator can't answer now (HTTP 503)");
    }

    #[test]
    fn operator_message_that_repeats_sent_data_is_not_quoted() {
        for message in [
            "no: tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ=",
            "no: ...8av9jw4c...",
            "NO: 8AV9JW4CW",
            "no: short!",
            "key EUID-C-T-124-twrEUD is not enabled",
            "no: user@example.com",
        ] {
            assert_eq!(
                refusal_text("client_error", message),
                "the operator refused the input (client_error)",
                "{message}"
            );
        }
        // Seven equal characters may be chance.
        assert!(refusal_text("client_error", "no: 8av9jw4").ends_with(": no: 8av9jw4"));
    }

    #[test]
    fn error_of_a_refused_refresh_names_the_refresh_token() {
        let sent = Sent { noun: "the refresh token", ..SENT };
        let body = br#"{"status":"client_error","message":"Invalid key: Generator of this token (Key ID: 7) does not exist."}"#;
        let error = refreshed(Answer { sent, ..answer(400, body) }, &[0; 32].into()).unwrap_err().to_string();
        let expected = "the operator refused the refresh token (client_error): \
            Invalid key: Generator of this token (Key ID: 7) does not exist.";
        assert_eq!(error, expected);
    }

    #[test]
    fn error_of_an_invalid_identity_names_the_member() {
        let json = br#"{"status":"success","body":{"advertising_token":"a<script>","refresh_token":"r",
            "refresh_response_key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "refresh_from":1,"identity_expires":2,"refresh_expires":3}}"#;
        let error = generated(json).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        let text = format!("{error} {error:?}");
        assert!(text.contains("advertising_token has a character") && !text.contains("script"), "{text}");
        let renewed = gcm_seal(&[1; 32], [2; 12], br#"{"status":"success","body":{"advertising_token":"a"}}"#);
        let error = refreshed(binary(&renewed), &[1; 32].into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.to_string().contains("refresh_response_key is missing"), "{error}");
    }

    #[test]
    fn unknown_status_is_named_up_to_forty_characters() {
        for (length, named) in [(1, true), (40, true), (41, false)] {
            let status = "x".repeat(length);
            let body = format!(r#"{{"status":"{status}"}}"#);
            let error = answer(400, body.as_bytes()).refusal();
            assert_eq!(error.to_string().contains(&format!("({status})")), named, "{error}");
        }
    }

    #[test]
    fn reply_ignores_unknown_members_and_requires_a_complete_body() {
        let parse = |json: &str| Reply::<bool>::parse(json.as_bytes());
        assert_eq!(parse(r#"{"x":[1],"body":true,"status":"success","y":{}}"#), Ok(Reply::Success(true)));
        assert_eq!(parse(r#"{"status":"brand_new","body":{"any":1}}"#), Ok(Reply::Status("brand_new".into())));
        assert_eq!(parse(r#"{"status":"success","body":null}"#), Err(EnvelopeError::MissingBody));
        assert_eq!(parse(r#"{"status":"success","body":"true"}"#), Err(EnvelopeError::BadJson));
        assert_eq!(parse(r#"{"body":true}"#), Err(EnvelopeError::BadJson));
        assert_eq!(parse(r#"["success",true]"#), Err(EnvelopeError::BadJson));
    }

    #[test]
    fn operator_message_is_searched_only_as_far_as_it_is_quoted() {
        let key = SENT.api_key.unwrap();
        for (length, quoted) in [(MAX_MESSAGE, MAX_MESSAGE), (MAX_MESSAGE - 8, 0)] {
            let beginning = "é".repeat(length);
            let quote = SENT.quote(&format!("{beginning}{key}"));
            assert_eq!(quote.len().saturating_sub(2), quoted, "{quote}");
        }
        assert_eq!(
            SENT.quote(&format!("{}a@b", "m".repeat(MAX_MESSAGE))),
            "",
            "the quoted part may hold the beginning of an address"
        );
    }
}
