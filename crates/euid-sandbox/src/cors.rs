//! Cross-origin requests, as the operator's CORS handler answers them: every origin is allowed.
//!
//! 1. Each answer to a request with `Origin` repeats it in `Access-Control-Allow-Origin`.
//! 2. A preflight is an `OPTIONS` with `Origin` and `Access-Control-Request-Method`. It is answered on every
//!    path, and always with the same methods and headers.
//! 3. An empty `Origin` is refused.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
};
use http::request::Parts;
use http::{Method, StatusCode};

use super::answer::Answer;
use super::route::Endpoint;

/// The origin facts of a request.
pub(crate) struct Cors<'a> {
    origin: Option<&'a HeaderValue>,
    is_preflight: bool,
}

impl<'a> Cors<'a> {
    pub(crate) fn of(parts: &'a Parts) -> Result<Self, Answer> {
        let origin = parts.headers.get(ORIGIN);
        if origin.is_some_and(HeaderValue::is_empty) {
            return Err(Answer::forbidden());
        }
        let asks = parts.method == Method::OPTIONS && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        Ok(Self { origin, is_preflight: origin.is_some() && asks })
    }

    /// The answer to a preflight; `None` if the request is none.
    pub(crate) fn preflight(&self, endpoint: Endpoint) -> Option<Answer> {
        let headers = match endpoint {
            Endpoint::Validate => {
                "X-UID2-Client-Version,Access-Control-Request-Method,Access-Control-Allow-Credentials,\
                Access-Control-Allow-Origin,Access-Control-Allow-Headers,Content-Type,Authorization"
            }
            _ => {
                "X-UID2-Client-Version,Access-Control-Request-Method,Access-Control-Allow-Credentials,\
                Access-Control-Allow-Origin,Access-Control-Allow-Headers,Content-Type"
            }
        };
        self.is_preflight.then(|| {
            Answer::empty(StatusCode::NO_CONTENT)
                .with(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET,POST,OPTIONS"))
                .with(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(headers))
        })
    }

    /// Adds the headers of every answer.
    pub(crate) fn allow(&self, answer: Answer) -> Answer {
        let answer = if self.is_preflight { answer } else { answer.with(VARY, HeaderValue::from(ORIGIN)) };
        match self.origin {
            Some(origin) => answer.with(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
            None => answer,
        }
    }
}
