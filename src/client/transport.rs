//! One POST to the operator, bounded in time and size. Knows HTTP and nothing of EUID.
//!
//! 1. HTTP/1.1 and rustls only, whatever else the application enables in reqwest.
//! 2. No redirects, no answer above 64 KiB, a deadline for connecting and one for the whole call. Time in which the process
//!    was frozen does not count for the latter.
//! 3. A call that meets a closed connection is made once more, see [`Network::post`].
//! 4. Plain http uses no proxy: it would see the API key in clear.
//! 5. With a sandbox in this very process there is no network, and all else is the same.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use reqwest::{Client, ClientBuilder, redirect, retry};
use tower::util::MapRequestLayer;

use super::reuse;
use super::tls::Tls;
use crate::deadline;
#[cfg(feature = "sandbox")]
use crate::sandbox::Sandbox;
use euid_core::clock::UnixMillis;
use euid_core::error::{ConfigError, ErrorKind, EuidError};
use euid_core::operator::BEARER;
use euid_core::operator::endpoint::BaseUrl;
use euid_core::protocol::CLIENT_VERSION;
use euid_core::protocol::answer::{Answer, Sent};

pub(super) struct Transport {
    line: Line,
    /// Of every request.
    headers: HeaderMap,
    /// Of every call.
    timeout: Duration,
}

/// How the operator is reached.
enum Line {
    Network(Network),
    #[cfg(feature = "sandbox")]
    InProcess(Sandbox),
}

struct Network {
    http: Client,
    /// Keeps no connection: for the second attempt of a call.
    unpooled: Client,
    base_url: BaseUrl,
}

/// What the builder hands over, each checked.
pub(super) struct Settings {
    pub(super) url: BaseUrl,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
    pub(super) tls: Tls,
}

/// A whole answer in memory.
pub(super) struct Received {
    status: u16,
    content_type: Option<String>,
    retry_after: Option<String>,
    body: Vec<u8>,
}

impl Received {
    fn with(status: u16, headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self { status, content_type: text(CONTENT_TYPE), retry_after: text(RETRY_AFTER), body: Vec::new() }
    }

    fn push(&mut self, chunk: &[u8]) -> Result<(), EuidError> {
        if self.body.len() + chunk.len() > MAX_ANSWER {
            return Err(EuidError::new(ErrorKind::Malformed, "the operator's answer is larger than 64 KiB"));
        }
        self.body.extend_from_slice(chunk);
        Ok(())
    }

    /// The answer, which arrived `now`, to what was `sent`.
    pub(super) fn answer<'a>(&'a self, sent: Sent<'a>, now: UnixMillis) -> Answer<'a> {
        Answer {
            status: self.status,
            content_type: self.content_type.as_deref(),
            retry_after: self.retry_after.as_deref().and_then(|text| retry_after(text, now)),
            body: &self.body,
            sent,
        }
    }
}

impl Transport {
    pub(super) fn new(settings: Settings) -> Result<Self, ConfigError> {
        let (headers, timeout) = (headers(settings.authorization.clone()), settings.timeout);
        Ok(Self { line: Line::Network(Network::new(&settings)?), headers, timeout })
    }

    #[cfg(feature = "sandbox")]
    pub(super) fn in_process(sandbox: Sandbox, authorization: HeaderValue, timeout: Duration) -> Self {
        Self { line: Line::InProcess(sandbox), headers: headers(Some(authorization)), timeout }
    }

    pub(super) fn api_key(&self) -> Option<&str> {
        self.headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix(BEARER)
    }

    /// One call within the timeout.
    pub(super) async fn post(&self, path: &'static str, body: Bytes) -> Result<Received, EuidError> {
        let headers = self.headers.clone();
        let call = async {
            match &self.line {
                Line::Network(network) => network.post(path, headers, body).await,
                #[cfg(feature = "sandbox")]
                Line::InProcess(sandbox) => {
                    let answer = sandbox.post(path, headers, body).await;
                    let mut received = Received::with(answer.status().as_u16(), answer.headers());
                    received.push(answer.body())?;
                    Ok(received)
                }
            }
        };
        let answer = deadline::before(deadline::after(self.timeout), pin!(call)).await;
        answer.unwrap_or_else(|| Err(EuidError::new(ErrorKind::Transient, TIMED_OUT)))
    }
}

impl Network {
    fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let client = |kept: usize| {
            let http = settings.http()?.pool_max_idle_per_host(kept);
            http.build().map_err(|error| ConfigError::new(why_unbuilt(&error, &settings.tls)))
        };
        Ok(Self { http: client(usize::MAX)?, unpooled: client(0)?, base_url: settings.url.clone() })
    }

    /// Without a timeout of its own. A call is made once more, over a new connection, if it failed on one
    /// that was kept from an earlier call, before the whole head of an answer had come: the peer has closed the
    /// connection while it was idle, and all calls may be repeated.
    async fn post(&self, path: &'static str, headers: HeaderMap, body: Bytes) -> Result<Received, EuidError> {
        let url = self.base_url.join(path).to_string();
        let send = |http: &Client| http.post(&url).headers(headers.clone()).body(body.clone()).send();
        let mut response = match reuse::observed(send(&self.http)).await {
            (Err(error), true) if is_closed_connection(&error) => send(&self.unpooled).await,
            (outcome, _) => outcome,
        }
        .map_err(unanswered)?;
        let mut received = Received::with(response.status().as_u16(), response.headers());
        while let Some(chunk) = response.chunk().await.map_err(unanswered)? {
            received.push(&chunk)?;
        }
        Ok(received)
    }
}

impl Settings {
    /// What configures both clients.
    fn http(&self) -> Result<ClientBuilder, ConfigError> {
        let http = Client::builder()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .http1_only()
            .tls_backend_rustls()
            .user_agent(USER_AGENT)
            .connector_layer(MapRequestLayer::new(reuse::note))
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT);
        if !self.url.is_https() {
            // No TLS will be spoken, so no certificate authorities are needed.
            Ok(http.no_proxy().tls_certs_only([]))
        } else {
            self.tls.apply(http.https_only(true))
        }
    }
}

fn headers(authorization: Option<HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    let version = concat!("tower-euid-", env!("CARGO_PKG_VERSION"));
    headers.insert(CLIENT_VERSION, HeaderValue::from_static(version));
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization);
    }
    headers
}

/// Whether the peer closed the connection instead of answering.
fn is_closed_connection(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            error.is_incomplete_message() || error.is_canceled() || error.is_closed()
        } else if let Some(error) = cause.downcast_ref::<io::Error>() {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
            matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
        } else {
            false
        }
    })
}

/// An error and its causes, the outermost first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// Reads a `Retry-After` header: seconds, or a date. `None` if it is neither.
fn retry_after(text: &str, now: UnixMillis) -> Option<Duration> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let date = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(UnixMillis::from_millis(0).saturating_add(date).saturating_since(now))
}

/// The builder's complaint with its causes: the outermost alone says "builder error".
fn why_unbuilt(error: &reqwest::Error, tls: &Tls) -> String {
    let hint = if tls.roots.is_some() || tls.client_certificate.is_some() {
        "are the given certificates valid?"
    } else {
        "are the system's CA certificates installed?"
    };
    let what = format!("no HTTPS client can be made ({hint})");
    causes(error).fold(what, |what, cause| format!("{what}: {cause}"))
}

fn unanswered(error: reqwest::Error) -> EuidError {
    let what = if error.is_timeout() {
        TIMED_OUT
    } else if error.is_connect() {
        "the operator can't be reached"
    } else {
        "the connection to the operator broke"
    };
    EuidError::new(ErrorKind::Transient, what).with_source(error.without_url())
}

const TIMED_OUT: &str = "the operator did not answer in time";
const USER_AGENT: &str = concat!("tower-euid/", env!("CARGO_PKG_VERSION"));
const MAX_ANSWER: usize = 64 * 1024;
/// Below the minute that load balancers usually keep a connection.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UnixMillis::from_millis(784_111_777_000);
        for (text, wait) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("99999999999999999999", None),
            ("Sun, 31 Feb 1994 08:50:37 GMT", None),
        ] {
            assert_eq!(retry_after(text, now), wait.map(Duration::from_secs), "{text}");
        }
    }
}
