//! The operator's responses: statuses, messages, content types.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use euid_core::Scope;
use euid_core::protocol::{RequestError, documents};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::person::PersonError;
use super::token::SealedShut;

/// An HTTP response in the making.
pub(crate) struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: StatusCode, content_type: Option<&'static str>, body: impl Into<Vec<u8>>) -> Self {
        let content_type = content_type.map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind)));
        Self { status, headers: content_type.into_iter().collect(), body: body.into() }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn empty(status: StatusCode) -> Self {
        Self::new(status, None, "")
    }

    pub(crate) fn refusal(status: StatusCode, word: &'static str, message: Option<&str>) -> Self {
        Self::new(status, Some(JSON), json(&Refusal { message, status: word }))
    }

    pub(crate) fn client_error(message: impl AsRef<str>) -> Self {
        Self::refusal(StatusCode::BAD_REQUEST, "client_error", Some(message.as_ref()))
    }

    /// The refusal of a request that does not open. Its text points to the documents of the operator's scope.
    pub(crate) fn unopened(error: RequestError, scope: Scope) -> Self {
        Self::client_error(envelope_message(error, scope))
    }

    pub(crate) fn unauthorized() -> Self {
        Self::refusal(StatusCode::UNAUTHORIZED, "unauthorized", None)
    }

    pub(crate) fn unknown(message: &str) -> Self {
        Self::refusal(StatusCode::INTERNAL_SERVER_ERROR, "unknown", Some(message))
    }

    pub(crate) fn internal() -> Self {
        Self::refusal(StatusCode::INTERNAL_SERVER_ERROR, "unknown", None)
    }

    pub(crate) fn bad_request() -> Self {
        Self::new(StatusCode::BAD_REQUEST, None, "Bad Request")
    }

    pub(crate) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, None, "Forbidden")
    }

    pub(crate) fn too_long() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, None, "Request Too Long")
    }

    pub(crate) fn crash() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, None, "Internal Server Error")
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, Some(HTML), "<html><body><h1>Resource not found</h1></body></html>")
    }

    pub(crate) fn healthy() -> Self {
        Self::new(StatusCode::OK, None, "OK")
    }

    /// A 200 without encryption: to a refresh token without an envelope.
    pub(crate) fn plain_json(json: Vec<u8>) -> Self {
        Self::new(StatusCode::OK, Some(JSON), json)
    }

    pub(crate) fn garbage() -> Self {
        Self::new(StatusCode::OK, Some(TEXT), "This is not what an operator says.")
    }

    pub(crate) fn large(bytes: usize) -> Self {
        Self::new(StatusCode::OK, Some(TEXT), vec![b'A'; bytes])
    }

    /// The response of a proxy in front of the operator.
    pub(crate) fn page(status: u16) -> Self {
        let status = StatusCode::from_u16(status).ok().filter(|status| !status.is_informational());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, Some(HTML), format!("<html><body><h1>{status}</h1></body></html>"))
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    #[cfg(test)]
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.body));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<getrandom::Error> for Answer {
    fn from(_: getrandom::Error) -> Self {
        Self::internal()
    }
}

impl From<PersonError> for Answer {
    fn from(error: PersonError) -> Self {
        Self::client_error(match error {
            PersonError::NotExactlyOne => {
                "Required Parameter Missing: exactly one of [email, email_hash, phone, phone_hash] must be specified"
            }
            PersonError::Invalid => "Invalid Identifier",
        })
    }
}

impl From<SealedShut> for Answer {
    fn from(error: SealedShut) -> Self {
        Self::client_error(refresh_message(error))
    }
}

/// The encoding of an envelope in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Binary,
}

impl Form {
    pub(crate) fn answer(&self, envelope: Vec<u8>) -> Answer {
        match self {
            Self::Text => Answer::new(StatusCode::OK, Some(TEXT), BASE64_STANDARD.encode(envelope)),
            Self::Binary => Answer::new(StatusCode::OK, Some(BINARY), envelope),
        }
    }
}

/// An identity as it is sent; times in milliseconds since the epoch.
#[derive(Serialize)]
pub(crate) struct Tokens {
    pub(crate) advertising_token: String,
    pub(crate) refresh_token: String,
    pub(crate) identity_expires: i64,
    pub(crate) refresh_expires: i64,
    pub(crate) refresh_from: i64,
    pub(crate) refresh_response_key: String,
}

/// The JSON of a 200, before it is encrypted.
pub(crate) fn success(body: impl Serialize) -> Vec<u8> {
    json(&Reply { body: Some(body), status: "success" })
}

pub(crate) fn opted_out() -> Vec<u8> {
    json(&Reply::<()> { body: None, status: "optout" })
}

pub(crate) fn insufficient_consent() -> Vec<u8> {
    json(&Reply::<()> { body: None, status: "insufficient_user_consent" })
}

#[derive(Serialize)]
struct Reply<B> {
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<B>,
    status: &'static str,
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

fn envelope_message(error: RequestError, scope: Scope) -> String {
    let manual = format!("{}/getting-started/gs-encryption-decryption", documents(scope));
    let what = match error {
        RequestError::MissingBody => return "Invalid body: Body is missing.".to_owned(),
        RequestError::StaleTimestamp => {
            return "Invalid timestamp: Request too old or client time drift.".to_owned();
        }
        RequestError::BadJson => return "Invalid payload in body: Data is not valid json string.".to_owned(),
        RequestError::UnencryptedJson => {
            return format!(
                "Invalid body: The request body is unencrypted JSON. It must be an encrypted request envelope. See \
                 {manual}#encryption-and-decryption-code-examples for encryption and decryption code examples."
            );
        }
        RequestError::BadBase64 => "Body is not valid base64.".to_owned(),
        RequestError::TooShort => "Body too short. Check encryption method.".to_owned(),
        RequestError::BadVersion(version) => {
            format!("Invalid request envelope format version: received {version}, must be 1.")
        }
        // There is no other reason today.
        _ => "Check encryption key (ClientSecret).".to_owned(),
    };
    format!("Invalid body: {what} See {manual} for details on the request envelope format.")
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

const TEXT: &str = "text/plain";
/// Also the content type of a request whose envelope is not base64.
pub(crate) const BINARY: &str = "application/octet-stream";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
