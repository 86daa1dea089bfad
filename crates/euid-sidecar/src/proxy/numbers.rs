//! The metrics and the access log of the proxy.
//!
//! 1. A line of the log has the method, the path, the status and the time to the head of the response. It has no query
//!    and no header.
//! 2. A metric has the class of a status, never a path.

use axum::http::{Method, Request, Response, StatusCode, Uri};
use metrics::{Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{gauge, histogram};
use tokio::time::Instant;

use super::send::SendError;
use crate::access::now;

/// Handles of the metrics: to look one up costs more than to count.
pub(super) struct Numbers {
    pub(super) in_flight: Gauge,
    /// Open connections to the site.
    pub(super) connections: Gauge,
    /// Requests that were sent a second time.
    pub(super) retried: Counter,
    /// By the first digit of the status, from 1.
    requests: [Counter; 5],
    seconds: Histogram,
    unreachable: Counter,
    broken: Counter,
}

/// A request whose response has not begun.
pub(super) struct Begun {
    method: Method,
    uri: Uri,
    at: Instant,
}

impl Numbers {
    pub(super) fn new() -> Self {
        describe();
        let requests = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        Self {
            in_flight: gauge!(IN_FLIGHT),
            connections: gauge!(CONNECTIONS),
            retried: counter!(RETRIES),
            requests: requests.map(|class| counter!(REQUESTS, "status" => class)),
            seconds: histogram!(SECONDS),
            unreachable: counter!(ERRORS, "error" => "connect"),
            broken: counter!(ERRORS, "error" => "exchange"),
        }
    }

    pub(super) fn failed(&self, error: &SendError) {
        match error {
            SendError::Visitor => {}
            SendError::Connect(error) => {
                self.unreachable.increment(1);
                tracing::warn!(%error, "the site can't be reached");
            }
            SendError::Exchange(error) => {
                self.broken.increment(1);
                let source = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(%error, source, "the site's response can't be used");
            }
        }
    }

    pub(super) fn answered<B>(&self, begun: &Begun, response: &Response<B>) {
        let (status, seconds) = (response.status(), now().saturating_duration_since(begun.at).as_secs_f64());
        self.seconds.record(seconds);
        if let Some(requests) = self.requests.get(class(status)) {
            requests.increment(1);
        }
        let (method, path) = (begun.method.as_str(), begun.uri.path());
        tracing::info!(method, path, status = status.as_u16(), milliseconds = seconds * 1000.0, "proxied");
    }
}

impl Begun {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        Self { method: request.method().clone(), uri: request.uri().clone(), at: now() }
    }
}

fn describe() {
    describe_gauge!(IN_FLIGHT, Unit::Count, "Requests to the proxy that are under way");
    describe_gauge!(CONNECTIONS, Unit::Count, "Open connections to the site");
    describe_counter!(RETRIES, Unit::Count, "Requests that were sent to the site a second time");
    describe_counter!(REQUESTS, Unit::Count, "Requests to the proxy, by the class of the status");
    describe_histogram!(SECONDS, Unit::Seconds, "Time of a request to the proxy, up to the head of its response");
    describe_counter!(ERRORS, Unit::Count, "Requests without a response of the site: no connection, or it broke off");
}

fn class(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).saturating_sub(1)
}

const IN_FLIGHT: &str = "euid_sidecar_proxy_requests_in_flight";
const CONNECTIONS: &str = "euid_sidecar_upstream_connections";
const RETRIES: &str = "euid_sidecar_upstream_retries_total";
const REQUESTS: &str = "euid_sidecar_proxy_requests_total";
const SECONDS: &str = "euid_sidecar_proxy_request_seconds";
const ERRORS: &str = "euid_sidecar_upstream_errors_total";
