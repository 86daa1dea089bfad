//! The messages between host and module, as JSON. Moments are milliseconds since 1970, headers are pairs of name and value,
//! bodies are base64.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use serde::{Deserialize, Serialize};

use crate::exchange::Failure;

/// The message of `configure`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Configure {
    /// The keys that cookies are sealed under, newest first, separated by commas: base64 of 32 bytes each.
    pub(crate) cookie_keys: String,
    pub(crate) operator_url: String,
    pub(crate) api_key: String,
    pub(crate) client_secret: String,
}

/// The reply to `configure`.
#[derive(Serialize)]
pub(crate) struct Configured {
    /// The number of bytes of an operator's answer that the module reads. A longer answer is too long, so the host can stop
    /// one byte later.
    pub(crate) max_answer: usize,
}

/// The message of `begin`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Begin {
    pub(crate) now: i64,
    pub(crate) method: String,
    pub(crate) headers: Headers,
}

/// The message of `login`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    pub(crate) exchange: u64,
    pub(crate) now: i64,
    pub(crate) email: String,
}

/// The message of `answered`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answered {
    pub(crate) exchange: u64,
    pub(crate) now: i64,
    /// `null` if the operator did not answer in time.
    pub(crate) answer: Option<Answer>,
}

/// A response of the operator.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    status: u16,
    headers: Headers,
    body: String,
}

/// The message of `finish`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Finish {
    pub(crate) exchange: u64,
    pub(crate) now: i64,
    pub(crate) change: Asked,
    /// Of the response.
    pub(crate) status: u16,
    /// Of the response.
    pub(crate) headers: Headers,
}

/// The change that the page requests.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Asked {
    None,
    /// The outcome of `login`: an identity, an opt-out, or nothing. In each case the previous login ends.
    Login,
    Logout,
    OptOut,
}

/// The reply to `finish`.
#[derive(Serialize)]
pub(crate) struct Finished {
    /// All headers of the response: those from the host, and those of the engine.
    pub(crate) headers: Headers,
    /// For the host's log. Usually empty.
    pub(crate) log: Vec<String>,
}

/// The reply to all other functions: the number of the exchange, and one of the [`Step`]s.
#[derive(Serialize)]
pub(crate) struct Reply {
    pub(crate) exchange: u64,
    #[serde(flatten)]
    pub(crate) step: Step,
}

/// The next step of an exchange.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// The host makes this call and passes the answer to `answered`.
    Fetch(Fetch),
    /// The host can make the page, which may see this state and token.
    Euid { state: &'static str, token: Option<String> },
    /// A login has this outcome: `identity`, `opted_out`, `insufficient_consent`, or a failure with a text for the log.
    Login { outcome: &'static str, error: Option<String> },
}

/// A call to the operator.
#[derive(Serialize)]
pub(crate) struct Fetch {
    url: String,
    method: String,
    headers: Headers,
    body: String,
}

impl From<Request<Bytes>> for Fetch {
    fn from(request: Request<Bytes>) -> Self {
        let (head, body) = request.into_parts();
        Self {
            url: head.uri.to_string(),
            method: head.method.to_string(),
            headers: Headers(head.headers),
            body: BASE64_STANDARD.encode(body),
        }
    }
}

impl TryFrom<Answer> for http::Response<Vec<u8>> {
    type Error = Failure;

    fn try_from(answer: Answer) -> Result<Self, Failure> {
        let mut response = Self::new(BASE64_STANDARD.decode(answer.body)?);
        *response.status_mut() = answer.status.try_into()?;
        *response.headers_mut() = answer.headers.0;
        Ok(response)
    }
}

/// Headers as pairs. A value is bytes; in JSON each byte is the character with that code point, as in Node and in browsers.
#[derive(Clone, Deserialize, Serialize)]
#[serde(try_from = "Vec<(String, String)>", into = "Vec<(String, String)>")]
pub(crate) struct Headers(pub(crate) HeaderMap);

impl TryFrom<Vec<(String, String)>> for Headers {
    type Error = Failure;

    fn try_from(pairs: Vec<(String, String)>) -> Result<Self, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let value: Vec<u8> = value.chars().map(u8::try_from).collect::<Result<_, _>>()?;
            headers.try_append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?)?;
        }
        Ok(Self(headers))
    }
}

impl From<Headers> for Vec<(String, String)> {
    fn from(Headers(headers): Headers) -> Self {
        let text = |value: &HeaderValue| value.as_bytes().iter().copied().map(char::from).collect();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }
}
