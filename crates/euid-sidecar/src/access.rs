//! The access log and the metrics of requests.
//!
//! 1. A line has the method, the route, the status and the time. It has no query, no header and no body.
//! 2. A path that is no route is not logged: anything may be in it.
//! 3. A request without an answer, as when its caller hangs up, counts too. Its status is `aborted`.

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use tokio::time::Instant;

/// Passes a request on, then logs and counts it.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let mut under_way = UnderWay::begin(&request);
    let response = next.run(request).await;
    under_way.status = Some(response.status());
    response
}

/// A request under way. It is logged and counted when it is dropped: that of a caller who hangs up has no other end.
struct UnderWay {
    method: &'static str,
    route: String,
    began: Instant,
    status: Option<StatusCode>,
}

impl UnderWay {
    fn begin(request: &Request) -> Self {
        gauge!(IN_FLIGHT).increment(1);
        let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
        Self { method: word(request.method()), route, began: now(), status: None }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        gauge!(IN_FLIGHT).decrement(1);
        let (method, route) = (self.method, std::mem::take(&mut self.route));
        let seconds = now().saturating_duration_since(self.began).as_secs_f64();
        let milliseconds = seconds * 1000.0;
        let status = match self.status.map(|status| status.as_u16()) {
            Some(status) => {
                tracing::info!(method, route, status, milliseconds, "request");
                status.to_string()
            }
            None => {
                tracing::info!(method, route, status = ABORTED, milliseconds, "request");
                ABORTED.to_owned()
            }
        };
        histogram!(SECONDS, "route" => route.clone()).record(seconds);
        counter!(REQUESTS, "route" => route, "status" => status).increment(1);
    }
}

/// Describes the metrics, and adds the series of each route, with 0.
pub(crate) fn add_series() {
    describe_counter!(REQUESTS, Unit::Count, "Requests to the API, by route and status");
    describe_histogram!(SECONDS, Unit::Seconds, "Time of a request to the API");
    describe_gauge!(IN_FLIGHT, Unit::Count, "Requests to the API that are under way");
    drop(gauge!(IN_FLIGHT));
    for route in ROUTES {
        drop(histogram!(SECONDS, "route" => route));
        for status in STATUSES {
            drop(counter!(REQUESTS, "route" => route, "status" => status));
        }
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
const REQUESTS: &str = "euid_sidecar_requests_total";
const SECONDS: &str = "euid_sidecar_request_seconds";
/// Those that a site calls.
const ROUTES: [&str; 4] = ["/v1/page", "/v1/login", "/v1/logout", "/auth"];
/// The usual ones.
const STATUSES: [&str; 5] = ["200", "400", "502", "503", ABORTED];
const ABORTED: &str = "aborted";

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::task::{Context, Waker};

    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn request_counts_once_with_its_status_also_if_its_caller_hangs_up() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let router = Router::new().route("/fast", get(|| ready("")));
        let router = router.route("/slow", get(pending::<()>)).layer(from_fn(observe));
        let visit = |path| router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap());
        visit("/fast").await.unwrap();
        let mut slow = Box::pin(visit("/slow"));
        assert!(slow.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(metrics.render().contains("euid_sidecar_requests_in_flight 1\n"));
        drop(slow);
        let metrics = metrics.render();
        for line in [
            r#"euid_sidecar_requests_total{route="/fast",status="200"} 1"#,
            r#"euid_sidecar_requests_total{route="/slow",status="aborted"} 1"#,
            r#"euid_sidecar_request_seconds_count{route="/slow"} 1"#,
            "euid_sidecar_requests_in_flight 0",
        ] {
            assert!(metrics.lines().any(|present| present == line), "{line} is not in:\n{metrics}");
        }
    }
}
