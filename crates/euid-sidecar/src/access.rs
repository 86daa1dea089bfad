//! The access log and the metrics of requests.
//!
//! 1. A line has the method, the route, the status and the time. It has no query, no header and no body.
//! 2. A path that is no route is not logged: anything may be in it.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use metrics::{counter, gauge, histogram};
use tokio::time::Instant;

/// Passes a request on, then logs and counts it.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = word(request.method());
    let (began, in_flight) = (now(), InFlight::begin());
    let response = next.run(request).await;
    drop(in_flight);
    let (status, seconds) = (response.status().as_u16(), now().saturating_duration_since(began).as_secs_f64());
    tracing::info!(method, route, status, milliseconds = seconds * 1000.0, "request");
    histogram!("euid_sidecar_request_seconds", "route" => route.clone()).record(seconds);
    counter!("euid_sidecar_requests_total", "route" => route, "status" => status.to_string()).increment(1);
    response
}

/// A request under way, also one whose caller hangs up.
struct InFlight;

impl InFlight {
    fn begin() -> Self {
        gauge!(IN_FLIGHT).increment(1);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        gauge!(IN_FLIGHT).decrement(1);
    }
}

/// A label has few values, so a method that is made up has none of its own.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    }
}

/// The runtime's clock, for measurements and for the timeouts of sockets.
#[expect(clippy::disallowed_methods, reason = "no state of a visitor depends on it")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

const IN_FLIGHT: &str = "euid_sidecar_requests_in_flight";
