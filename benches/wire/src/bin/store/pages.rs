//! Requests of browsers.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// An HTTP client with connections that stay open.
#[derive(Clone)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

impl Http {
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        cookies: &str,
        body: String,
    ) -> Result<Response<Bytes>, String> {
        let request = Request::builder().method(method).uri(url);
        let request = if cookies.is_empty() { request } else { request.header(COOKIE, cookies) };
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = request.body(Full::from(body)).unwrap();
        let (parts, body) = self.0.request(request).await.map_err(|error| error.to_string())?.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}

/// The cookies of a browser.
#[derive(Clone, Default)]
pub(crate) struct Jar(BTreeMap<String, String>);

impl Jar {
    /// Keeps the cookies that a response sets. Returns the names of those that it removes.
    pub(crate) fn keep(&mut self, headers: &HeaderMap) -> Vec<String> {
        let mut removed = Vec::new();
        for line in headers.get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap()) {
            let (name, rest) = line.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if line.contains("Max-Age=0") {
                self.0.remove(name);
                removed.push(name.to_owned());
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
        removed
    }

    pub(crate) fn header(&self) -> String {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }
}

/// Returns the time below which this share of them is; zero if there is none.
pub(crate) fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}
