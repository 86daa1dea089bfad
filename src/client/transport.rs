//! One POST to the operator, bounded in time and size. Knows HTTP and nothing of EUID.
//!
//! 1. https only; plain http is for this very machine, or for who asks for it by name.
//! 2. No redirects, no retries, no answer above 64 KiB, a deadline for connecting and one for all.
//! 3. Where plain http is spoken, no proxy is: it would see the API key in clear.
//! 4. With a sandbox in this very process there is no network, and all else is the same.

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url, redirect, retry};

use super::protocol::answer::Answer;
use crate::clock::UnixMillis;
use crate::error::{ConfigError, ErrorKind, EuidError};
#[cfg(feature = "sandbox")]
use crate::sandbox::Sandbox;

pub(super) struct Transport {
    line: Line,
    /// Of every request.
    headers: HeaderMap,
}

/// How the operator is reached.
enum Line {
    Network(Network),
    #[cfg(feature = "sandbox")]
    InProcess {
        sandbox: Sandbox,
        timeout: Duration,
    },
}

struct Network {
    http: Client,
    /// Scheme, host and path prefix, without a slash at the end.
    base_url: String,
}

/// What the builder hands over, each checked.
pub(super) struct Settings {
    /// From [`operator_url`].
    pub(super) url: Url,
    /// From [`bearer`].
    pub(super) authorization: Option<HeaderValue>,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
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

    /// The answer, which arrived `now`.
    pub(super) fn answer(&self, now: UnixMillis) -> Answer<'_> {
        Answer {
            status: self.status,
            content_type: self.content_type.as_deref(),
            retry_after: self.retry_after.as_deref().and_then(|text| retry_after(text, now)),
            body: &self.body,
        }
    }
}

impl Transport {
    pub(super) fn new(settings: Settings) -> Result<Self, ConfigError> {
        let headers = headers(settings.authorization.clone());
        Ok(Self { line: Line::Network(Network::new(settings)?), headers })
    }

    #[cfg(feature = "sandbox")]
    pub(super) fn in_process(sandbox: Sandbox, authorization: HeaderValue, timeout: Duration) -> Self {
        Self { line: Line::InProcess { sandbox, timeout }, headers: headers(Some(authorization)) }
    }

    pub(super) fn has_api_key(&self) -> bool {
        self.headers.contains_key(AUTHORIZATION)
    }

    pub(super) async fn post(&self, path: &'static str, body: String) -> Result<Received, EuidError> {
        let headers = self.headers.clone();
        match &self.line {
            Line::Network(network) => network.post(path, headers, body).await,
            #[cfg(feature = "sandbox")]
            Line::InProcess { sandbox, timeout } => {
                let answer = tokio::time::timeout(*timeout, sandbox.post(path, headers, body)).await;
                let answer = answer.map_err(|_| EuidError::new(ErrorKind::Transient, TIMED_OUT))?;
                let mut received = Received::with(answer.status().as_u16(), answer.headers());
                received.push(answer.body())?;
                Ok(received)
            }
        }
    }
}

impl Network {
    fn new(settings: Settings) -> Result<Self, ConfigError> {
        let http = Client::builder()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.timeout)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT);
        let http = if settings.url.scheme() == "http" {
            // No TLS will be spoken, so no certificate authorities are needed.
            http.no_proxy().tls_certs_only([])
        } else {
            http.https_only(true)
        };
        let http = http.build().map_err(|error| ConfigError::new(why_unbuilt(&error)))?;
        let base_url = settings.url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, base_url })
    }

    async fn post(&self, path: &str, headers: HeaderMap, body: String) -> Result<Received, EuidError> {
        let request = self.http.post(format!("{}{path}", self.base_url)).headers(headers).body(body);
        let mut response = request.send().await.map_err(unanswered)?;
        let mut received = Received::with(response.status().as_u16(), response.headers());
        while let Some(chunk) = response.chunk().await.map_err(unanswered)? {
            received.push(&chunk)?;
        }
        Ok(received)
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

pub(super) fn operator_url(text: &str, insecure_http: bool) -> Result<Url, ConfigError> {
    let url = Url::parse(text).map_err(|error| ConfigError::new(format!("the operator's URL is not one: {error}")))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(ConfigError::new("the operator's URL starts with https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ConfigError::new("the operator's URL has a user name or password in it; use `credentials`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(ConfigError::new("the operator's URL has a query or fragment; give the base URL only"));
    }
    if url.path().trim_end_matches('/').ends_with("/v2") {
        return Err(ConfigError::new(
            "the operator's URL ends in /v2, which each call puts behind it; give what is before",
        ));
    }
    if url.scheme() == "http" && !is_loopback(&url) && !insecure_http {
        return Err(ConfigError::new(
            "the operator's URL is plain http to another machine: use https, or `EuidClientBuilder::insecure_http`",
        ));
    }
    Ok(url)
}

/// By the parsed host, not by resolving it: `localhost` and literal loopback addresses.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

pub(super) fn bearer(api_key: &str) -> Result<HeaderValue, ConfigError> {
    if api_key.is_empty() || !api_key.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'')) {
        return Err(ConfigError::new("the API key is empty, or has characters that no API key has (quotes?)"));
    }
    let mut value = HeaderValue::try_from(format!("Bearer {api_key}"))
        .map_err(|_| ConfigError::new("the API key does not fit into a header"))?;
    value.set_sensitive(true);
    Ok(value)
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
fn why_unbuilt(error: &reqwest::Error) -> String {
    let mut why = "no HTTPS client can be made (are the system's CA certificates installed?)".to_owned();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        why.push_str(": ");
        why.push_str(&error.to_string());
        cause = error.source();
    }
    why
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

/// The name keeps its `UID2` for EUID too.
const CLIENT_VERSION: HeaderName = HeaderName::from_static("x-uid2-client-version");
const TIMED_OUT: &str = "the operator did not answer in time";
const MAX_ANSWER: usize = 64 * 1024;
/// Below the minute that load balancers usually keep a connection.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn build(base_url: &str, insecure_http: bool) -> Result<String, String> {
        let second = Duration::from_secs(1);
        operator_url(base_url, insecure_http)
            .and_then(|url| {
                Network::new(Settings { url, authorization: None, connect_timeout: second, timeout: second })
            })
            .map(|network| network.base_url)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn plain_http_is_for_this_machine_or_on_request() {
        for loopback in ["http://127.0.0.1:8080", "http://127.9.9.9", "http://[::1]:1", "http://localhost:3000"] {
            assert!(build(loopback, false).is_ok(), "{loopback}");
        }
        for other in [
            "http://10.0.0.1",
            "http://localhost.example.com",
            "http://localhost.",
            "http://127.0.0.1.nip.io",
            "http://prod.euid.eu",
            "http://0.0.0.0",
        ] {
            let error = build(other, false).unwrap_err();
            assert!(error.contains("plain http"), "{other}: {error}");
            assert!(build(other, true).is_ok(), "{other}");
        }
    }

    #[test]
    fn a_url_that_can_not_work_is_refused_without_being_repeated() {
        for (url, complaint) in [
            ("prod.euid.eu", "not one"),
            ("", "not one"),
            ("ftp://prod.euid.eu", "starts with https"),
            ("https://key:hunter2@prod.euid.eu", "user name or password"),
            ("https://prod.euid.eu/?key=hunter2", "query"),
            ("https://prod.euid.eu/v2", "ends in /v2"),
            ("https://prod.euid.eu/euid/v2/", "ends in /v2"),
        ] {
            let error = build(url, false).unwrap_err();
            assert!(error.contains(complaint) && !error.contains("hunter2"), "{url}: {error}");
        }
    }

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

    #[test]
    fn slashes_at_the_end_are_tolerated_and_a_path_is_kept() {
        assert_eq!(build("http://localhost:1/", false).unwrap(), "http://localhost:1");
        assert_eq!(build("http://localhost:1/euid/", false).unwrap(), "http://localhost:1/euid");
    }
}
