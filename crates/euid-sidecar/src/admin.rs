//! The admin listener: whether the sidecar lives, whether it takes requests, and its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

/// Whether the sidecar is about to end. Clones share the answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draining(Arc<AtomicBool>);

impl Draining {
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Returns the admin listener's routes. They exist only once the keys are loaded, so "ready" depends on draining alone.
pub(crate) fn router(draining: Draining, metrics: PrometheusHandle) -> Router {
    let ready = async move || {
        if draining.has_begun() { (StatusCode::SERVICE_UNAVAILABLE, "draining\n") } else { (StatusCode::OK, "ready\n") }
    };
    let metrics = async move || ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render());
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready)).route("/metrics", get(metrics))
}
