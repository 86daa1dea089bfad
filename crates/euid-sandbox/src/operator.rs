//! The operator's endpoints: a request, its body and the time in, a response out.
//!
//! 1. The checks come in the operator's order: lengths, path, origin, method, size of the body, API key (on
//!    every endpoint but refresh), envelope, payload.
//! 2. Only a 200 is encrypted: under the client secret, and on refresh under the response key that
//!    came inside the refresh token.
//! 3. Issued tokens are not stored. The opt-outs are the only state, and an argument.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use euid_core::Scope;
use euid_core::clock::UnixMillis;
use euid_core::protocol::{Key, OpenedRequest, decode_base64, open_request, open_request_text, seal, seal_response};
use euid_core::tcf::{self, Verdict};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Lifetimes;
use super::answer::{self, Answer, Form, Tokens};
use super::body::RequestBody;
use super::cors::Cors;
use super::fault::Fault;
use super::optout_check;
use super::person::{Person, Script, test_identities};
use super::random;
use super::route::{self, Endpoint};
use super::token::{self, Grant, Issuer, OpenedEnvelope};

/// The configuration of an operator, and its endpoints.
pub(crate) struct Operator {
    pub(crate) api_key: Zeroizing<String>,
    pub(crate) secret: Zeroizing<Key>,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) issuer: Issuer,
    /// As up to 5.65: generate is refused without `optout_check`.
    pub(crate) wants_optout_check: bool,
    test_identities: HashMap<Person, Script>,
}

/// A request, with the state and the time at its arrival.
pub(crate) struct Call<'a> {
    pub(crate) parts: &'a Parts,
    /// As [`Endpoint::at`] reads it from the path.
    pub(crate) endpoint: Option<Endpoint>,
    /// `None` if it was longer than [`MAX_BODY`].
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) now: UnixMillis,
    pub(crate) opted_out: &'a HashSet<Person>,
    pub(crate) fault: Option<Fault>,
}

impl Operator {
    pub(crate) fn new(
        api_key: Zeroizing<String>,
        secret: Zeroizing<Key>,
        lifetimes: Lifetimes,
        issuer: Issuer,
    ) -> Self {
        Self { api_key, secret, lifetimes, issuer, wants_optout_check: false, test_identities: test_identities() }
    }

    pub(crate) fn answer(&self, call: &Call<'_>) -> Response<Full<Bytes>> {
        self.arrive(call).unwrap_or_else(|refusal| refusal).into_response()
    }

    /// Checks a request as the operator's server does before it looks for an endpoint. Its refusals carry no CORS headers.
    fn arrive(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        route::check_lengths(call.parts)?;
        route::check_query(call.parts)?;
        let endpoint = call.endpoint.ok_or_else(Answer::bad_request)?;
        let cors = Cors::of(call.parts)?;
        let answer = cors.preflight(endpoint).map_or_else(|| self.disturbed(endpoint, call), Ok);
        Ok(cors.allow(answer.unwrap_or_else(|refusal| refusal)))
    }

    /// Answers as the fault demands, else as the endpoint does.
    fn disturbed(&self, endpoint: Endpoint, call: &Call<'_>) -> Result<Answer, Answer> {
        match call.fault {
            Some(Fault::Status(status)) => Ok(Answer::page(status)),
            Some(Fault::Garbage) => Ok(Answer::garbage()),
            Some(Fault::Refuse(word)) => Ok(Answer::refusal(StatusCode::BAD_REQUEST, word, None)),
            Some(Fault::Redirect) => {
                // Every path of a URI is a header value.
                let here = HeaderValue::from_str(call.parts.uri.path()).unwrap_or(HeaderValue::from_static("/"));
                Ok(Answer::page(StatusCode::FOUND.as_u16()).with(LOCATION, here))
            }
            Some(Fault::LargeBody(bytes)) => Ok(Answer::large(bytes)),
            Some(Fault::Delay(_) | Fault::WrongNonce | Fault::WrongKey) | None => self.route(endpoint, call),
        }
    }

    fn route(&self, endpoint: Endpoint, call: &Call<'_>) -> Result<Answer, Answer> {
        endpoint.check_method(&call.parts.method)?;
        if endpoint == Endpoint::Health {
            return Ok(Answer::healthy());
        }
        let body = RequestBody::new(&call.parts.headers, call.body.ok_or_else(Answer::too_long)?);
        let answer = match endpoint {
            Endpoint::Generate => self.enveloped(call, &body, Self::generate),
            Endpoint::Validate => self.enveloped(call, &body, Self::validate),
            Endpoint::Refresh => self.refresh(call, &body),
            Endpoint::WithoutRole | Endpoint::Health | Endpoint::Unknown => Err(Answer::unauthorized()),
        };
        let answer = answer.unwrap_or_else(|refusal| refusal);
        Ok(match call.parts.headers.get(&TRACE_ID).filter(|trace_id| !trace_id.is_empty()) {
            Some(trace_id) => answer.with(TRACE_ID, trace_id.clone()),
            None => answer,
        })
    }

    /// The common part of generate and validate: API key, request envelope, response envelope.
    fn enveloped(&self, call: &Call<'_>, body: &RequestBody<'_>, endpoint: Handler) -> Result<Answer, Answer> {
        if !self.authenticates(&call.parts.headers) {
            return Err(Answer::unauthorized());
        }
        let (request, form) = self.open(call, body)?;
        let json = endpoint(self, call, &request.payload.unwrap_or_default())?;
        let key = Zeroizing::new(Fault::key(call.fault, &self.secret));
        let nonce = Fault::nonce(call.fault, request.nonce);
        Ok(form.answer(seal_response(&key, random()?, call.now, nonce, &json)))
    }

    fn authenticates(&self, headers: &HeaderMap) -> bool {
        headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes())) == Some(self.api_key.as_bytes())
    }

    /// Opens the request envelope, and returns the form in which the client expects the answer.
    fn open(&self, call: &Call<'_>, body: &RequestBody<'_>) -> Result<(OpenedRequest, Form), Answer> {
        let unopened = |error| Answer::unopened(error, self.issuer.scope);
        if body.form == Form::Binary && !body.bytes.is_empty() {
            match open_request(&self.secret, call.now, body.bytes) {
                Ok(request) => return Ok((request, Form::Binary)),
                Err(error) if decode_base64(&*body.text()?).is_none() => return Err(unopened(error)),
                Err(_) => {}
            }
        }
        let request = open_request_text(&self.secret, call.now, body.text()?.as_bytes());
        Ok((request.map_err(unopened)?, Form::Text))
    }

    fn generate(&self, call: &Call<'_>, payload: &Map<String, Value>) -> Result<Vec<u8>, Answer> {
        let person = Person::named_in(payload)?;
        if let Some(consent) = payload.get("tcf_consent_string")
            && self.issuer.scope == Scope::Euid
        {
            match consent.as_str().map_or(Verdict::Invalid, tcf::judge) {
                Verdict::Sufficient => {}
                Verdict::Insufficient => return Ok(answer::insufficient_consent()),
                Verdict::Invalid => return Err(Answer::client_error("User consent is invalid")),
                Verdict::Version1 => return Err(Answer::unknown("Unknown error while generating token v2")),
            }
        }
        if self.wants_optout_check {
            optout_check::check(payload)?;
        }
        let opted_out = match self.test_identities.get(&person) {
            Some(Script::OptedOut) => true,
            Some(Script::Active | Script::OptsOutLater) => false,
            None => call.opted_out.contains(&person),
        };
        if opted_out {
            return Ok(answer::opted_out());
        }
        Ok(self.issue(person, call.now, call.now)?)
    }

    fn validate(&self, _: &Call<'_>, payload: &Map<String, Value>) -> Result<Vec<u8>, Answer> {
        let person = Person::named_in(payload)?;
        let token = payload.get("token").and_then(Value::as_str).and_then(token::open_advertising_token);
        let raw_id = token.ok_or_else(|| Answer::client_error("Invalid token"))?;
        Ok(answer::success(raw_id == self.issuer.raw_id(&person)))
    }

    fn refresh(&self, call: &Call<'_>, body: &RequestBody<'_>) -> Result<Answer, Answer> {
        let text = body.text()?;
        // The operator counts UTF-16 units.
        let envelope = match text.encode_utf16().count() {
            token::REFRESH_TOKEN => Some(token::open_refresh_token(&text)?),
            _ => None,
        };
        let inner_token = envelope.as_ref().map_or(&*text, |envelope| &envelope.inner_token);
        let renewed = self.renew(call, inner_token).map_err(|ended| {
            // A caller without an API key does not learn the reason.
            if self.authenticates(&call.parts.headers) {
                ended.answer()
            } else {
                Answer::refusal(StatusCode::BAD_REQUEST, "error", Some("Error refreshing token"))
            }
        });
        let json = renewed?;
        let Some(OpenedEnvelope { response_key, .. }) = envelope else {
            return Ok(Answer::plain_json(json));
        };
        let key = Zeroizing::new(Fault::key(call.fault, &response_key));
        Ok(body.form.answer(seal(&key, random()?, &json)))
    }

    fn renew(&self, call: &Call<'_>, inner_token: &str) -> Result<Vec<u8>, Ended> {
        let Grant { person, established, expires } = self.issuer.open_inner_token(inner_token).ok_or(Ended::Invalid)?;
        if established < FIRST_REFRESHABLE {
            return Ok(answer::opted_out());
        }
        if expires < call.now {
            return Err(Ended::Expired);
        }
        let opted_out = match self.test_identities.get(&person) {
            Some(Script::OptedOut | Script::OptsOutLater) => true,
            Some(Script::Active) => false,
            None => call.opted_out.contains(&person),
        };
        if opted_out {
            return Ok(answer::opted_out());
        }
        self.issue(person, established, call.now).map_err(|_| Ended::Internal)
    }

    /// The JSON of a fresh identity.
    pub(crate) fn issue(
        &self,
        person: Person,
        established: UnixMillis,
        now: UnixMillis,
    ) -> Result<Vec<u8>, getrandom::Error> {
        let identity_expires = now.saturating_add(self.lifetimes.identity_expires);
        let refresh_expires = now.saturating_add(self.lifetimes.refresh_expires);
        let grant = |expires| Grant { person, established, expires };
        let refresh = self.issuer.issue_refresh_token(&grant(refresh_expires), now)?;
        let tokens = Tokens {
            advertising_token: self.issuer.issue_advertising_token(&grant(identity_expires), now)?,
            refresh_token: refresh.token,
            identity_expires: identity_expires.as_millis(),
            refresh_expires: refresh_expires.as_millis(),
            refresh_from: now.saturating_add(self.lifetimes.refresh_from).as_millis(),
            refresh_response_key: refresh.response_key,
        };
        Ok(answer::success(tokens))
    }
}

/// Answers a payload: the JSON of a 200, or a refusal.
type Handler = fn(&Operator, &Call<'_>, &Map<String, Value>) -> Result<Vec<u8>, Answer>;

/// Why an inner refresh token is not renewed.
enum Ended {
    Invalid,
    Expired,
    Internal,
}

impl Ended {
    fn answer(&self) -> Answer {
        let (word, message) = match self {
            Self::Invalid => ("invalid_token", "Invalid Token presented"),
            Self::Expired => ("expired_token", "Expired Token presented"),
            Self::Internal => return Answer::internal(),
        };
        Answer::refusal(StatusCode::BAD_REQUEST, word, Some(message))
    }
}

/// The key in a header `Bearer key`: trimmed, the scheme in any case, one space.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.trim_ascii().split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then_some(key)
}

/// Longer bodies are refused, in bytes.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

/// 2021-03-08T17:00:00Z: an identity from before then is answered like an opted-out one.
const FIRST_REFRESHABLE: UnixMillis = UnixMillis::from_millis(1_615_222_800_000);

const BEARER: &[u8] = b"bearer ";
const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use http::Request;
    use http::header::CONTENT_TYPE;
    use http_body_util::BodyExt;

    use super::*;
    use crate::answer::BINARY;
    use crate::opened_response;
    use euid_core::dii::Dii;
    use euid_core::protocol::{GENERATE, REFRESH, VALIDATE, seal_request, token_bits};

    const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);
    const SECRET: Key = [3; 32];

    /// An operator of each scope, with the lengths of its raw ids.
    fn operators() -> [Operator; 2] {
        [(Scope::Euid, true), (Scope::Uid2, false)].map(|(scope, identity_v3)| {
            let (key, secret) = (Zeroizing::new("key".to_owned()), Zeroizing::new(SECRET));
            Operator::new(key, secret, Lifetimes::default(), Issuer { scope, identity_v3 })
        })
    }

    fn euid() -> Operator {
        let [euid, _] = operators();
        euid
    }

    /// Returns status, content type and body of the answer to a POST with the API key.
    fn post(operator: &Operator, path: &str, content_type: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        post_with(operator, "key", path, content_type, body)
    }

    fn post_with(
        operator: &Operator,
        api_key: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> (u16, String, Vec<u8>) {
        let request = Request::post(path).header(AUTHORIZATION, format!("Bearer {api_key}"));
        let request = request.header(CONTENT_TYPE, content_type);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let opted_out = HashSet::new();
        let endpoint = Endpoint::at(&parts.uri);
        let call = Call { parts: &parts, endpoint, body: Some(body), now: NOW, opted_out: &opted_out, fault: None };
        let response = operator.answer(&call);
        let content_type = response.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(response.collect());
        (status, content_type.unwrap_or_default(), body.unwrap().to_bytes().to_vec())
    }

    fn inner_token_of(refresh_token: &str) -> String {
        token::open_refresh_token(refresh_token).unwrap_or_else(|error| panic!("{error:?}")).inner_token
    }

    #[test]
    fn refresh_of_a_bare_token_keeps_the_login_time_and_is_answered_in_clear() {
        let established = NOW.saturating_sub(std::time::Duration::from_secs(3600));
        let person = Person::from(Dii::email("user@example.com").unwrap());
        for operator in operators() {
            let grant = Grant { person, established, expires: NOW };
            let bare = inner_token_of(&operator.issuer.issue_refresh_token(&grant, established).unwrap().token);

            let (status, content_type, body) = post(&operator, REFRESH, BINARY, bare.as_bytes());
            assert_eq!((status, &*content_type), (200, "application/json"));
            let json: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(json["status"], "success");
            let renewed = json["body"]["refresh_token"].as_str().unwrap();
            let renewed = operator.issuer.open_inner_token(&inner_token_of(renewed)).unwrap();
            assert!(renewed.person == person);
            assert_eq!(renewed.established, established);
            assert_eq!(renewed.expires, NOW.saturating_add(Lifetimes::default().refresh_expires));
        }
    }

    #[test]
    fn refresh_token_of_the_other_scope_is_invalid_and_an_anonymous_caller_learns_less() {
        let [euid, uid2] = operators();
        let person = Person::from(Dii::email("user@example.com").unwrap());
        let grant = Grant { person, established: NOW, expires: NOW };
        for (operator, other) in [(&euid, &uid2), (&uid2, &euid)] {
            let token = other.issuer.issue_refresh_token(&grant, NOW).unwrap().token;
            // The first byte does not decide.
            let mut as_ours = BASE64_STANDARD.decode(&token).unwrap();
            as_ours[0] = token_bits(operator.issuer.scope);
            for token in [&token, &BASE64_STANDARD.encode(as_ours), &inner_token_of(&token)] {
                for (key, message, word) in
                    [("key", "Invalid Token presented", "invalid_token"), ("no key", "Error refreshing token", "error")]
                {
                    let (status, _, body) = post_with(operator, key, REFRESH, "text/plain", token.as_bytes());
                    let expected = serde_json::json!({ "message": message, "status": word });
                    assert_eq!((status, serde_json::from_slice(&body).unwrap()), (400, expected), "{token}");
                }
                let (status, ..) = post(other, REFRESH, "text/plain", token.as_bytes());
                assert_eq!(status, 200, "{token}");
            }
        }
    }

    #[test]
    fn advertising_token_of_the_other_scope_is_nobodys() {
        for (scope, identity_v3) in [(Scope::Euid, true), (Scope::Euid, false), (Scope::Uid2, false)] {
            let [euid, uid2] = operators().map(|mut operator| {
                operator.issuer.identity_v3 = identity_v3;
                operator
            });
            let (operator, other) = if scope == Scope::Euid { (euid, uid2) } else { (uid2, euid) };
            let token = advertising_token(&other);
            assert_eq!(validate(&operator, &token), Ok(Value::Bool(false)));
            assert_eq!(validate(&other, &token), Ok(Value::Bool(true)));
        }
    }

    #[test]
    fn error_texts_point_to_the_documents_of_the_scope() {
        let [euid, uid2] = operators();
        for (operator, documents) in [(euid, "https://euid.eu/docs"), (uid2, "https://unifiedid.com/docs")] {
            for (body, more) in [("{}", "#encryption-and-decryption-code-examples for"), ("!", " for details")] {
                let (status, _, body) = post(&operator, GENERATE, "text/plain", body.as_bytes());
                let expected = format!("See {documents}/getting-started/gs-encryption-decryption{more}");
                let body = String::from_utf8(body).unwrap();
                assert!(status == 400 && body.contains(&expected), "{body}");
            }
        }
    }

    #[test]
    fn body_is_answered_in_the_form_in_which_it_was_read() {
        for operator in operators() {
            let json = br#"{"email":"user@example.com"}"#;
            let envelope = seal_request(&SECRET, [1; 12], NOW, [2; 8], json);
            let text = BASE64_STANDARD.encode(&envelope).into_bytes();
            let answer = |content_type: &str, body: &[u8]| {
                let (status, content_type, _) = post(&operator, GENERATE, content_type, body);
                (status, content_type)
            };
            for binary in ["application/octet-stream", "Application/Octet-Stream"] {
                assert_eq!(answer(binary, &envelope), (200, BINARY.to_owned()));
                assert_eq!(answer(binary, &text), (200, "text/plain".to_owned()));
                assert_eq!(answer(binary, b""), (400, "application/json".to_owned()));
                assert_eq!(answer(binary, &envelope[1..]), (400, "application/json".to_owned()));
            }
            let with_parameter = "application/octet-stream; charset=utf-8";
            assert_eq!(answer(with_parameter, &envelope), (400, "application/json".to_owned()));
            assert_eq!(answer(with_parameter, &text), (200, "text/plain".to_owned()));
            for unknown in ["application/octet-stream; charset=binary", "text/plain; charset=bogus"] {
                assert_eq!(answer(unknown, &envelope), (500, String::new()));
                assert_eq!(answer(unknown, &text), (500, String::new()));
            }
            assert_eq!(answer("text/plain; charset=utf-16", &text), (400, "application/json".to_owned()));
            assert_eq!(answer("text/plain; charset=iso-8859-1", &text), (200, "text/plain".to_owned()));
            assert_eq!(answer("multipart/form-data; boundary=x", &text), (400, "application/json".to_owned()));
            assert_eq!(answer("text/plain", &envelope), (400, "application/json".to_owned()));
        }
    }

    #[test]
    fn consent_member_that_is_not_text_is_invalid() {
        for consent in ["null", "5", "\"\""] {
            let json = format!(r#"{{"email":"user@example.com","tcf_consent_string":{consent}}}"#);
            let envelope = seal_request(&SECRET, [1; 12], NOW, [2; 8], json.as_bytes());
            let (status, _, body) = post(&euid(), GENERATE, BINARY, &envelope);
            assert_eq!(status, 400, "{consent}");
            assert!(String::from_utf8(body).unwrap().contains("User consent is invalid"), "{consent}");
        }
    }

    /// Returns an endpoint's answer to this payload: the JSON of a 200, or the status and message of a refusal.
    fn reply(operator: &Operator, path: &str, payload: &[u8]) -> Result<Value, (u16, String)> {
        let envelope = seal_request(&SECRET, [1; 12], NOW, [2; 8], payload);
        let (status, _, body) = post(operator, path, BINARY, &envelope);
        if status == 200 {
            return Ok(serde_json::from_slice(&opened_response(&SECRET, [2; 8], &body)).unwrap());
        }
        let refusal: Value = serde_json::from_slice(&body).unwrap();
        Err((status, refusal["message"].as_str().unwrap_or_default().to_owned()))
    }

    #[test]
    fn consent_string_of_version_1_is_an_unknown_error() {
        let payload = br#"{"email":"user@example.com","tcf_consent_string":"BPehNtWPehNtWABAMBFRACBoALAAAEJAAIYg"}"#;
        let unknown = "Unknown error while generating token v2".to_owned();
        assert_eq!(reply(&euid(), GENERATE, payload), Err((500, unknown)));
    }

    #[test]
    fn consent_member_is_ignored_by_uid2() {
        let [_, uid2] = operators();
        for consent in ["\"\"", "null", "5", "\"CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA\"", "\"B\""] {
            let payload = format!(r#"{{"email":"user@example.com","tcf_consent_string":{consent}}}"#);
            let status = reply(&uid2, GENERATE, payload.as_bytes()).map(|json| json["status"].clone());
            assert_eq!(status, Ok(Value::from("success")), "{consent}");
        }
    }

    #[test]
    fn consent_string_is_checked_before_the_optout_check() {
        let operator = Operator { wants_optout_check: true, ..euid() };
        let generate = |members: &str| {
            let payload = format!(r#"{{"email":"user@example.com"{members}}}"#);
            reply(&operator, GENERATE, payload.as_bytes()).map(|json| json["status"].as_str().unwrap().to_owned())
        };
        let required = "Required opt-out policy argument for token/generate is missing or not set to 1";
        let (insufficient, sufficient) = (
            r#","tcf_consent_string":"CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA""#,
            r#","tcf_consent_string":"CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA""#,
        );
        assert_eq!(generate(""), Err((400, required.to_owned())));
        assert_eq!(generate(sufficient), Err((400, required.to_owned())));
        assert_eq!(generate(insufficient), Ok("insufficient_user_consent".to_owned()));
        assert_eq!(generate(r#","tcf_consent_string":"""#), Err((400, "User consent is invalid".to_owned())));
        assert_eq!(generate(r#","policy":1.5"#), Ok("success".to_owned()));
        assert_eq!(generate(r#","policy":2"#), Err((400, "request body contains invalid argument(s)".to_owned())));
        assert_eq!(generate(r#","policy":"1""#), Err((500, "Unknown error while generating token v2".to_owned())));
    }

    fn advertising_token(operator: &Operator) -> String {
        let generated = reply(operator, GENERATE, br#"{"email":"user@example.com"}"#).unwrap();
        generated["body"]["advertising_token"].as_str().unwrap().to_owned()
    }

    /// Whether the operator says that the token is the user's.
    fn validate(operator: &Operator, token: &str) -> Result<Value, (u16, String)> {
        let payload = serde_json::json!({ "email": "user@example.com", "token": token }).to_string();
        reply(operator, VALIDATE, payload.as_bytes()).map(|json| json["body"].clone())
    }

    #[test]
    fn advertising_token_is_accepted_with_its_padding() {
        for (operator, (padding, wrong_padding)) in operators().into_iter().zip([("=", "=="), ("==", "=")]) {
            let token = advertising_token(&operator);
            assert_eq!(validate(&operator, &token), Ok(Value::Bool(true)));
            assert_eq!(validate(&operator, &format!("{token}{padding}")), Ok(Value::Bool(true)));
            for wrong in [format!("{token}{wrong_padding}"), format!("{token} "), token[1..].to_owned(), String::new()]
            {
                assert_eq!(validate(&operator, &wrong), Err((400, "Invalid token".to_owned())), "{wrong}");
            }
        }
    }

    /// Only a raw id of 33 bytes repeats the first byte, which is outside the encryption.
    #[test]
    fn advertising_token_with_another_first_byte_is_invalid_if_the_raw_id_has_33_bytes() {
        for mut operator in operators() {
            for (has_33_bytes, expected) in
                [(true, Err((400, "Invalid token".to_owned()))), (false, Ok(Value::Bool(true)))]
            {
                operator.issuer.identity_v3 = has_33_bytes;
                let token = advertising_token(&operator);
                assert_eq!(validate(&operator, &token), Ok(Value::Bool(true)));
                for first in ["A", "B", "E", "F"].into_iter().filter(|first| !token.starts_with(first)) {
                    assert_eq!(validate(&operator, &format!("{first}{}", &token[1..])), expected, "{first}");
                }
            }
        }
    }

    #[test]
    fn dii_member_of_any_type_is_read_as_text() {
        for operator in operators() {
            let generate = |payload: &[u8]| reply(&operator, GENERATE, payload).map(|json| json["status"].clone());
            let deep = format!(r#"{{"email":{}"a@b"{}}}"#, "[".repeat(900), "]".repeat(900));
            let hash = format!(r#"{{"email_hash":{}}}"#, "1".repeat(44));
            for taken in [
                br#"{"email":["a@b"]}"#.as_slice(),
                br#"{"email":{"a":"b@c"}}"#,
                br#"{"email":[1.0,"a@b"]}"#,
                b"/* a comment */{\"email\":\"a\xff@b\"}",
                deep.as_bytes(),
                hash.as_bytes(),
            ] {
                assert_eq!(generate(taken), Ok(Value::from("success")), "{}", String::from_utf8_lossy(taken));
            }
            for refused in [r#"{"email":true}"#, r#"{"email":5}"#, r#"{"email":[]}"#, r#"{"phone":12345678901}"#] {
                assert_eq!(generate(refused.as_bytes()), Err((400, "Invalid Identifier".to_owned())), "{refused}");
            }
        }
    }
}
