//! The operator's endpoints: a request, its body and the time in, a response out.
//!
//! 1. Who asks is settled first, on every endpoint but refresh; then the envelope, then the payload.
//! 2. Only a 200 is encrypted: under the client secret, and on refresh under the response key that
//!    came inside the refresh token.
//! 3. Nothing is remembered about issued tokens. Who opted out is the only state, and an argument.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, ORIGIN, VARY};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Lifetimes;
use super::answer::{self, Answer, BINARY, Form, Tokens};
use super::fault::Fault;
use super::person::{Person, Script, test_identities};
use super::token::{self, Grant, OpenedEnvelope, RawId};
use crate::client::protocol::envelope::{BASE64, Key, gcm_seal};
use crate::client::protocol::operator::{OpenedRequest, open_request, open_request_text, seal_response};
use crate::client::protocol::{GENERATE, REFRESH, VALIDATE};
use crate::clock::UnixMillis;
use crate::random;
use crate::tcf::{self, Verdict};

/// What an operator is configured with.
pub(super) struct Operator {
    pub(super) api_key: Zeroizing<String>,
    pub(super) secret: Zeroizing<Key>,
    pub(super) lifetimes: Lifetimes,
    /// As it was up to 5.65: nobody is generated for without `optout_check`.
    pub(super) wants_optout_check: bool,
    test_identities: HashMap<Person, Script>,
}

/// A request, and the world that it arrives in.
pub(super) struct Call<'a> {
    pub(super) parts: &'a Parts,
    /// `None` if it was longer than [`MAX_BODY`].
    pub(super) body: Option<&'a [u8]>,
    pub(super) now: UnixMillis,
    pub(super) opted_out: &'a HashSet<Person>,
    pub(super) fault: Option<Fault>,
}

/// Whose turn it is, by path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Generate,
    Refresh,
    Validate,
    /// Exists, but no publisher's key has the role for it.
    WithoutRole,
    Health,
    Unknown,
}

impl Endpoint {
    /// One slash after the path is tolerated.
    pub(super) fn at(path: &str) -> Self {
        match path.strip_suffix('/').unwrap_or(path) {
            GENERATE => Self::Generate,
            REFRESH => Self::Refresh,
            VALIDATE => Self::Validate,
            path if WITHOUT_ROLE.contains(&path) => Self::WithoutRole,
            HEALTH => Self::Health,
            _ => Self::Unknown,
        }
    }
}

impl Operator {
    pub(super) fn new(api_key: Zeroizing<String>, secret: Zeroizing<Key>, lifetimes: Lifetimes) -> Self {
        Self { api_key, secret, lifetimes, wants_optout_check: false, test_identities: test_identities() }
    }

    pub(super) fn answer(&self, call: &Call<'_>) -> Response<Full<Bytes>> {
        let answer = match call.fault {
            Some(Fault::Status(status)) => Answer::page(status),
            Some(Fault::Garbage) => Answer::garbage(),
            Some(Fault::Refuse(word)) => Answer::refusal(StatusCode::BAD_REQUEST, word, None),
            Some(Fault::Redirect) => Answer::page(StatusCode::FOUND.as_u16()),
            Some(Fault::LargeBody(bytes)) => Answer::large(bytes),
            _ => self.route(call).unwrap_or_else(|refusal| refusal),
        };
        let mut response = answer.into_response();
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from(ORIGIN));
        if call.fault == Some(Fault::Redirect)
            && let Ok(here) = HeaderValue::from_str(call.parts.uri.path())
        {
            headers.insert(LOCATION, here);
        }
        if let Some(trace_id) = call.parts.headers.get(&TRACE_ID) {
            headers.insert(TRACE_ID, trace_id.clone());
        }
        response
    }

    fn route(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let method = &call.parts.method;
        match Endpoint::at(call.parts.uri.path()) {
            _ if method == Method::OPTIONS => Ok(Answer::empty(StatusCode::NO_CONTENT)),
            Endpoint::Unknown => Err(Answer::not_found()),
            Endpoint::Health if method == Method::GET => Ok(Answer::healthy()),
            Endpoint::Health => Err(Answer::empty(StatusCode::METHOD_NOT_ALLOWED)),
            _ if method != Method::POST => Err(Answer::empty(StatusCode::METHOD_NOT_ALLOWED)),
            Endpoint::Generate => self.enveloped(call, Self::generate),
            Endpoint::Validate => self.enveloped(call, Self::validate),
            Endpoint::Refresh => self.refresh(call),
            Endpoint::WithoutRole => Err(Answer::unauthorized()),
        }
    }

    /// What generate and validate have in common: API key, request envelope, response envelope.
    fn enveloped(&self, call: &Call<'_>, endpoint: Handler) -> Result<Answer, Answer> {
        if !self.authenticates(&call.parts.headers) {
            return Err(Answer::unauthorized());
        }
        let (request, form) = self.open(call)?;
        let json = endpoint(self, call, &request.payload.unwrap_or_default())?;
        let key = Zeroizing::new(Fault::key(call.fault, &self.secret));
        let nonce = Fault::nonce(call.fault, request.nonce);
        Ok(form.answer(seal_response(&key, random::bytes()?, call.now, nonce, &json)))
    }

    fn authenticates(&self, headers: &HeaderMap) -> bool {
        headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes())) == Some(self.api_key.as_bytes())
    }

    /// Opens the request envelope; says in which form the answer is expected.
    fn open(&self, call: &Call<'_>) -> Result<(OpenedRequest, Form), Answer> {
        let body = call.body.ok_or_else(Answer::too_long)?;
        let as_text = || open_request_text(&self.secret, call.now, body).map(|request| (request, Form::Text));
        let opened = match ContentType::of(&call.parts.headers) {
            ContentType::Other => as_text(),
            ContentType::Binary if body.is_empty() => as_text(),
            ContentType::Binary => match open_request(&self.secret, call.now, body) {
                Ok(request) => Ok((request, Form::Binary)),
                Err(error) if BASE64.decode(body).is_err() => Err(error),
                Err(_) => as_text(),
            },
            ContentType::BinaryWithParameter if !body.is_ascii() => return Err(Answer::crash()),
            ContentType::BinaryWithParameter => as_text(),
        };
        opened.map_err(Answer::from)
    }

    fn generate(&self, call: &Call<'_>, payload: &Map<String, Value>) -> Result<Vec<u8>, Answer> {
        let person = Person::named_in(payload)?;
        if self.wants_optout_check && payload.get("optout_check") != Some(&Value::from(1)) {
            return Err(Answer::client_error(NO_OPTOUT_CHECK));
        }
        if let Some(consent) = payload.get("tcf_consent_string") {
            match consent.as_str().map_or(Verdict::Invalid, tcf::judge) {
                Verdict::Sufficient => {}
                Verdict::Insufficient => return Ok(answer::insufficient_consent()),
                Verdict::Invalid => return Err(Answer::client_error("User consent is invalid")),
                Verdict::Version1 => return Err(Answer::unknown("Unknown error while generating token v2")),
            }
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

    fn validate(_: &Self, _: &Call<'_>, payload: &Map<String, Value>) -> Result<Vec<u8>, Answer> {
        let person = Person::named_in(payload)?;
        let token = payload.get("token").and_then(Value::as_str).and_then(token::open_advertising_token);
        let raw_id = token.ok_or_else(|| Answer::client_error("Invalid token"))?;
        Ok(answer::success(raw_id == RawId::of(&person)))
    }

    fn refresh(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let body = String::from_utf8_lossy(call.body.ok_or_else(Answer::too_long)?);
        // The operator counts UTF-16 units.
        let envelope = match body.encode_utf16().count() {
            token::REFRESH_TOKEN => Some(token::open_refresh_token(&body)?),
            _ => None,
        };
        let inner_token = envelope.as_ref().map_or(&*body, |envelope| &envelope.inner_token);
        let renewed = self.renew(call, inner_token).map_err(|ended| {
            // Who does not say who he is learns no more.
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
        let form = match ContentType::of(&call.parts.headers) {
            ContentType::Binary => Form::Binary,
            ContentType::BinaryWithParameter | ContentType::Other => Form::Text,
        };
        let key = Zeroizing::new(Fault::key(call.fault, &response_key));
        Ok(form.answer(gcm_seal(&key, random::bytes()?, &json)))
    }

    fn renew(&self, call: &Call<'_>, inner_token: &str) -> Result<Vec<u8>, Ended> {
        let Grant { person, established, expires } = token::open_inner_token(inner_token).ok_or(Ended::Invalid)?;
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
    pub(super) fn issue(
        &self,
        person: Person,
        established: UnixMillis,
        now: UnixMillis,
    ) -> Result<Vec<u8>, getrandom::Error> {
        let identity_expires = now.saturating_add(self.lifetimes.identity_expires);
        let refresh_expires = now.saturating_add(self.lifetimes.refresh_expires);
        let grant = |expires| Grant { person, established, expires };
        let refresh = token::issue_refresh_token(&grant(refresh_expires), now)?;
        let tokens = Tokens {
            advertising_token: token::issue_advertising_token(&grant(identity_expires), now)?,
            refresh_token: refresh.token,
            identity_expires: identity_expires.as_millis(),
            refresh_expires: refresh_expires.as_millis(),
            refresh_from: now.saturating_add(self.lifetimes.refresh_from).as_millis(),
            refresh_response_key: refresh.response_key,
        };
        Ok(answer::success(tokens))
    }
}

/// What an endpoint says to a payload: the JSON of a 200, or a refusal.
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

/// What the operator looks at a request's content type for.
enum ContentType {
    Binary,
    /// Sends the operator down a path where it meets bytes that are no text, and fails.
    BinaryWithParameter,
    Other,
}

impl ContentType {
    fn of(headers: &HeaderMap) -> Self {
        let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match value.split_once(';') {
            None if value.eq_ignore_ascii_case(BINARY) => Self::Binary,
            Some((kind, _)) if kind.trim().eq_ignore_ascii_case(BINARY) => Self::BinaryWithParameter,
            _ => Self::Other,
        }
    }
}

/// The key in a header `Bearer key`: trimmed, the scheme in any case, one space.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.trim_ascii().split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then_some(key)
}

/// Longer bodies are refused, in bytes.
pub(super) const MAX_BODY: usize = 1024 * 1024;

const NO_OPTOUT_CHECK: &str = "Required opt-out policy argument for token/generate is missing or not set to 1";
const HEALTH: &str = "/ops/healthcheck";
const WITHOUT_ROLE: [&str; 8] = [
    "/v2/token/logout",
    "/v2/optout/status",
    "/v2/identity/map",
    "/v3/identity/map",
    "/v2/identity/buckets",
    "/v2/key/latest",
    "/v2/key/sharing",
    "/v2/key/bidstream",
];

/// 2021-03-08T17:00:00Z: an identity from before then is answered like an opted-out one.
const FIRST_REFRESHABLE: UnixMillis = UnixMillis::from_millis(1_615_222_800_000);

const BEARER: &[u8] = b"bearer ";
const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;
    use http::Request;
    use http_body_util::BodyExt;

    use super::*;
    use crate::client::dii::Dii;
    use crate::client::protocol::envelope::seal_request;

    const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);
    const SECRET: Key = [3; 32];

    fn operator() -> Operator {
        Operator::new(Zeroizing::new("key".to_owned()), Zeroizing::new(SECRET), Lifetimes::default())
    }

    /// Status, content type and body of the answer to a POST by someone with the API key.
    fn post(path: &str, content_type: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let request = Request::post(path).header(AUTHORIZATION, "Bearer key").header(CONTENT_TYPE, content_type);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let opted_out = HashSet::new();
        let call = Call { parts: &parts, body: Some(body), now: NOW, opted_out: &opted_out, fault: None };
        let response = operator().answer(&call);
        let content_type = response.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(response.collect());
        (status, content_type.unwrap_or_default(), body.unwrap().to_bytes().to_vec())
    }

    fn inner_token_of(refresh_token: &str) -> String {
        token::open_refresh_token(refresh_token).unwrap_or_else(|error| panic!("{error:?}")).inner_token
    }

    #[test]
    fn a_refresh_keeps_the_first_login_and_a_bare_token_is_answered_in_clear() {
        let established = NOW.saturating_sub(std::time::Duration::from_secs(3600));
        let person = Person::from(Dii::email("user@example.com").unwrap());
        let token = token::issue_refresh_token(&Grant { person, established, expires: NOW }, established).unwrap();
        let bare = inner_token_of(&token.token);

        let (status, content_type, body) = post(REFRESH, BINARY, bare.as_bytes());
        assert_eq!((status, &*content_type), (200, "application/json"));
        let json: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["status"], "success");
        let renewed = json["body"]["refresh_token"].as_str().unwrap();
        let renewed = token::open_inner_token(&inner_token_of(renewed)).unwrap();
        assert!(renewed.person == person);
        assert_eq!(renewed.established, established);
        assert_eq!(renewed.expires, NOW.saturating_add(Lifetimes::default().refresh_expires));
    }

    #[test]
    fn a_binary_body_is_answered_in_the_form_that_it_was_understood_in() {
        let json = br#"{"email":"user@example.com"}"#;
        let envelope = seal_request(&SECRET, [1; 12], NOW, [2; 8], json);
        let text = BASE64_STANDARD.encode(&envelope).into_bytes();
        let answer = |content_type: &str, body: &[u8]| {
            let (status, content_type, _) = post(GENERATE, content_type, body);
            (status, content_type)
        };
        for binary in ["application/octet-stream", "Application/Octet-Stream"] {
            assert_eq!(answer(binary, &envelope), (200, BINARY.to_owned()));
            assert_eq!(answer(binary, &text), (200, "text/plain".to_owned()));
            assert_eq!(answer(binary, b""), (400, "application/json".to_owned()));
            assert_eq!(answer(binary, &envelope[1..]), (400, "application/json".to_owned()));
        }
        let with_parameter = "application/octet-stream; charset=binary";
        assert_eq!(answer(with_parameter, &envelope), (500, String::new()));
        assert_eq!(answer(with_parameter, &text), (200, "text/plain".to_owned()));
        assert_eq!(answer("text/plain", &envelope), (400, "application/json".to_owned()));
    }

    #[test]
    fn a_consent_member_that_is_no_text_is_invalid() {
        for consent in ["null", "5", "\"\""] {
            let json = format!(r#"{{"email":"user@example.com","tcf_consent_string":{consent}}}"#);
            let envelope = seal_request(&SECRET, [1; 12], NOW, [2; 8], json.as_bytes());
            let (status, _, body) = post(GENERATE, BINARY, &envelope);
            assert_eq!(status, 400, "{consent}");
            assert!(String::from_utf8(body).unwrap().contains("User consent is invalid"), "{consent}");
        }
    }

    #[test]
    fn consent_string_of_version_1_is_an_unknown_error() {
        let json = br#"{"email":"user@example.com","tcf_consent_string":"BPehNtWPehNtWABAMBFRACBoALAAAEJAAIYg"}"#;
        let envelope = seal_request(&SECRET, [1; 12], NOW, [2; 8], json);
        let (status, content_type, body) = post(GENERATE, BINARY, &envelope);
        assert_eq!((status, &*content_type), (500, "application/json"));
        let body = String::from_utf8(body).unwrap();
        assert_eq!(body, r#"{"message":"Unknown error while generating token v2","status":"unknown"}"#);
    }
}
