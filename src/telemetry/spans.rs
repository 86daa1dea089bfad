//! The spans: a call to the operator, a refresh, and the wait of a page for it.
//!
//! No field holds a token, a key, a cookie's value or an address of a visitor. The operator gets no header of a trace: its
//! traces are not the site's.

use std::time::Duration;

use euid_core::Scope;
#[cfg(feature = "client")]
use http::{Request, StatusCode};
use tracing::Span;

use super::TARGET;

/// The span of a refresh, which runs in a task of its own. It follows from the span of the page that starts it, which may
/// end first.
pub(crate) fn refresh(scope: Scope) -> Span {
    let span =
        tracing::info_span!(target: TARGET, parent: None, "tower_euid.refresh", "tower_euid.scope" = scope.as_str());
    span.follows_from(Span::current());
    span
}

/// A page has waited for a refresh. The application's span of the request has it if it declares the field.
pub(crate) fn page_waited(waited: Duration) {
    Span::current().record("tower_euid.waited_ms", u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
}

/// The span of one call to the operator, by OpenTelemetry's semantic conventions for the client of an HTTP call.
#[cfg(feature = "client")]
pub(crate) struct CallSpan(Span);

#[cfg(feature = "client")]
impl CallSpan {
    pub(crate) fn begin<B>(scope: Option<Scope>, request: &Request<B>) -> Self {
        use tracing::field::Empty;

        let (method, uri) = (request.method().as_str(), request.uri());
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        // A gateway's path before the endpoint's may be a secret, so neither it nor the whole URL is a field.
        let endpoint = uri.path().rfind(VERSION).and_then(|start| uri.path().get(start..)).unwrap_or_default();
        Self(tracing::info_span!(
            target: TARGET,
            "tower_euid.call",
            "otel.name" = %format_args!("{method} {endpoint}"),
            "otel.kind" = "client",
            "otel.status_code" = Empty,
            "http.request.method" = method,
            "server.address" = uri.host(),
            "server.port" = port,
            "url.template" = endpoint,
            "http.response.status_code" = Empty,
            "error.type" = Empty,
            "tower_euid.scope" = super::word(scope),
            "tower_euid.outcome" = Empty,
        ))
    }

    /// The span itself, to enter it.
    pub(crate) fn span(&self) -> Span {
        self.0.clone()
    }

    /// A response has arrived.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.0.record("http.response.status_code", status.as_u16());
        if status.is_client_error() || status.is_server_error() {
            self.failed(status.as_str());
        }
    }

    /// The call has failed, with this word or status.
    pub(crate) fn failed(&self, why: &str) {
        self.0.record("error.type", why);
        self.0.record("otel.status_code", "ERROR");
    }

    /// The call has ended with this outcome.
    pub(crate) fn ended(&self, outcome: &'static str) {
        self.0.record("tower_euid.outcome", outcome);
    }
}

/// What the paths of the operator's endpoints begin with.
#[cfg(feature = "client")]
const VERSION: &str = "/v2/";
