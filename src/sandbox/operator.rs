//! The operator's endpoints: a request, its body and the time in, a response out.
//!
//! 1. Who asks is settled first, on every endpoint but refresh; then the envelope, then the payload.
//! 2. Only a 200 is encrypted: under the client secret, and on refresh under the response key that
//!    came inside the refresh token.
//! 3. Nothing is remembered about issued tokens. Who opted out is the only state, and an argument.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Lifetimes;
use super::consent::{self, Consent};
use super::fault::Fault;
use super::person::{Nobody, Person, Script, test_identities};
use super::token::{self, Grant, OpenedEnvelope, RawId, SealedShut};
use crate::client::protocol::envelope::{
    BASE64, EnvelopeError, Key, OpenedRequest, gcm_seal, open_request, open_request_text, seal_response,
};
use crate::client::protocol::{GENERATE, REFRESH, VALIDATE};
use crate::clock::UnixMillis;
use crate::random;

/// What an operator is configured with.
pub(super) struct Operator {
    pub(super) api_key: Zeroizing<String>,
    pub(super) secret: Zeroizing<Key>,
    pub(super) lifetimes: Lifetimes,
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
        Self { api_key, secret, lifetimes, test_identities: test_identities() }
    }

    pub(super) fn answer(&self, call: &Call<'_>) -> Response<Full<Bytes>> {
        let answer = match call.fault {
            Some(Fault::Status(status)) => Answer::page(status),
            Some(Fault::Garbage) => Answer::new(StatusCode::OK, Some(TEXT), GARBAGE),
            _ => self.route(call).unwrap_or_else(|refusal| refusal),
        };
        let mut response = Response::new(Full::from(answer.body));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from(ORIGIN));
        if let Some(content_type) = answer.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
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
            Endpoint::Unknown => Err(Answer::new(StatusCode::NOT_FOUND, Some(HTML), NOT_FOUND)),
            Endpoint::Health if method == Method::GET => Ok(Answer::new(StatusCode::OK, None, "OK")),
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
        opened.map_err(|error| Answer::client_error(envelope_message(error)))
    }

    fn generate(&self, call: &Call<'_>, payload: &Map<String, Value>) -> Result<Vec<u8>, Answer> {
        let person = Person::named_in(payload)?;
        if let Some(consent) = payload.get("tcf_consent_string") {
            match consent.as_str().map_or(Consent::Invalid, consent::check) {
                Consent::Sufficient => {}
                Consent::Insufficient => return Ok(status_json("insufficient_user_consent")),
                Consent::Invalid => return Err(Answer::client_error("User consent is invalid")),
            }
        }
        let opted_out = match self.test_identities.get(&person) {
            Some(Script::OptedOut) => true,
            Some(Script::Active | Script::OptsOutLater) => false,
            None => call.opted_out.contains(&person),
        };
        if opted_out {
            return Ok(status_json(OPTOUT));
        }
        Ok(self.issue(person, call.now, call.now)?)
    }

    fn validate(&self, _: &Call<'_>, payload: &Map<String, Value>) -> Result<Vec<u8>, Answer> {
        let person = Person::named_in(payload)?;
        let token = payload.get("token").and_then(Value::as_str).and_then(token::open_advertising_token);
        let raw_id = token.ok_or_else(|| Answer::client_error("Invalid token"))?;
        Ok(json(&Reply { body: Some(raw_id == RawId::of(&person)), status: SUCCESS }))
    }

    fn refresh(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let body = String::from_utf8_lossy(call.body.ok_or_else(Answer::too_long)?);
        // The operator counts UTF-16 units.
        let envelope = match body.encode_utf16().count() {
            token::REFRESH_TOKEN => {
                let opened = token::open_refresh_token(&body);
                Some(opened.map_err(|error| Answer::client_error(refresh_message(error)))?)
            }
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
            return Ok(Answer::new(StatusCode::OK, Some(JSON), json));
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
            return Ok(status_json(OPTOUT));
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
            return Ok(status_json(OPTOUT));
        }
        self.issue(person, established, call.now).map_err(|_| Ended::Internal)
    }

    /// The JSON of a fresh identity.
    fn issue(&self, person: Person, established: UnixMillis, now: UnixMillis) -> Result<Vec<u8>, getrandom::Error> {
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
        Ok(json(&Reply { body: Some(tokens), status: SUCCESS }))
    }
}

/// What an endpoint says to a payload: the JSON of a 200, or a refusal.
type Handler = fn(&Operator, &Call<'_>, &Map<String, Value>) -> Result<Vec<u8>, Answer>;

/// An HTTP response in the making.
struct Answer {
    status: StatusCode,
    content_type: Option<&'static str>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: StatusCode, content_type: Option<&'static str>, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type, body: body.into() }
    }

    fn empty(status: StatusCode) -> Self {
        Self::new(status, None, "")
    }

    fn refusal(status: StatusCode, word: &'static str, message: Option<&str>) -> Self {
        Self::new(status, Some(JSON), json(&Refusal { message, status: word }))
    }

    fn client_error(message: impl AsRef<str>) -> Self {
        Self::refusal(StatusCode::BAD_REQUEST, "client_error", Some(message.as_ref()))
    }

    fn unauthorized() -> Self {
        Self::refusal(StatusCode::UNAUTHORIZED, "unauthorized", None)
    }

    fn internal() -> Self {
        Self::refusal(StatusCode::INTERNAL_SERVER_ERROR, "unknown", None)
    }

    fn too_long() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, None, "Request Too Long")
    }

    fn crash() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, None, "Internal Server Error")
    }

    /// As something in front of the operator answers.
    fn page(status: u16) -> Self {
        let status = StatusCode::from_u16(status).ok().filter(|status| !status.is_informational());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, Some(HTML), format!("<html><body><h1>{status}</h1></body></html>"))
    }
}

impl From<getrandom::Error> for Answer {
    fn from(_: getrandom::Error) -> Self {
        Self::internal()
    }
}

impl From<Nobody> for Answer {
    fn from(nobody: Nobody) -> Self {
        Self::client_error(match nobody {
            Nobody::NotExactlyOne => {
                "Required Parameter Missing: exactly one of [email, email_hash, phone, phone_hash] must be specified"
            }
            Nobody::Invalid => "Invalid Identifier",
        })
    }
}

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

/// How an envelope travels.
enum Form {
    Text,
    Binary,
}

impl Form {
    fn answer(&self, envelope: Vec<u8>) -> Answer {
        match self {
            Self::Text => Answer::new(StatusCode::OK, Some(TEXT), BASE64_STANDARD.encode(envelope)),
            Self::Binary => Answer::new(StatusCode::OK, Some(BINARY), envelope),
        }
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

#[derive(Serialize)]
struct Reply<B> {
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<B>,
    status: &'static str,
}

#[derive(Serialize)]
struct Tokens {
    advertising_token: String,
    refresh_token: String,
    identity_expires: i64,
    refresh_expires: i64,
    refresh_from: i64,
    refresh_response_key: String,
}

#[derive(Serialize)]
struct Refusal<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    status: &'static str,
}

/// None of the types above has a way to fail.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn status_json(status: &'static str) -> Vec<u8> {
    json(&Reply::<()> { body: None, status })
}

/// The key in a header `Bearer key`: trimmed, the scheme in any case, one space.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.trim_ascii().split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then_some(key)
}

fn envelope_message(error: EnvelopeError) -> String {
    let what = match error {
        EnvelopeError::MissingBody => return "Invalid body: Body is missing.".to_owned(),
        EnvelopeError::StaleTimestamp => {
            return "Invalid timestamp: Request too old or client time drift.".to_owned();
        }
        EnvelopeError::BadJson => return "Invalid payload in body: Data is not valid json string.".to_owned(),
        EnvelopeError::UnencryptedJson => {
            return format!(
                "Invalid body: The request body is unencrypted JSON. It must be an encrypted request envelope. See \
                 {MANUAL}#encryption-and-decryption-code-examples for encryption and decryption code examples."
            );
        }
        EnvelopeError::BadBase64 => "Body is not valid base64.".to_owned(),
        EnvelopeError::TooShort => "Body too short. Check encryption method.".to_owned(),
        EnvelopeError::BadVersion(version) => {
            format!("Invalid request envelope format version: received {version}, must be 1.")
        }
        EnvelopeError::Aead | EnvelopeError::NonceMismatch => "Check encryption key (ClientSecret).".to_owned(),
    };
    format!("Invalid body: {what} See {MANUAL} for details on the request envelope format.")
}

fn refresh_message(error: SealedShut) -> String {
    match error {
        SealedShut::BadBase64 => "Invalid body: Body is not valid base64.".to_owned(),
        SealedShut::UnknownKey(id) => {
            format!("Invalid key: Generator of this token (Key ID: {id}) does not exist.")
        }
        SealedShut::Aead => "Invalid data: Check encryption method and encryption key.".to_owned(),
        SealedShut::BadJson => "Invalid format: Payload is not valid json or missing required data".to_owned(),
    }
}

/// Longer bodies are refused, in bytes.
pub(super) const MAX_BODY: usize = 1024 * 1024;

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

const SUCCESS: &str = "success";
const OPTOUT: &str = "optout";
const MANUAL: &str = "https://euid.eu/docs/getting-started/gs-encryption-decryption";
/// 2021-03-08T17:00:00Z: an identity from before then is answered like an opted-out one.
const FIRST_REFRESHABLE: UnixMillis = UnixMillis::from_millis(1_615_222_800_000);

const BEARER: &[u8] = b"bearer ";
const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
const TEXT: &str = "text/plain";
const BINARY: &str = "application/octet-stream";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const NOT_FOUND: &str = "<html><body><h1>Resource not found</h1></body></html>";
const GARBAGE: &str = "This is not what an operator says.";
