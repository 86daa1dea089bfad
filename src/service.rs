//! The service: it asks the engine about each request, and does what the [`step`](crate::step) says.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use euid_core::Euid;
use euid_core::engine::{RequestContext, Step};
use http::{Request, Response};
use tower::Service;

use crate::config::Config;
use crate::future::ResponseFuture;
use crate::nested;
use crate::request::{report, start_decision};
use crate::step::Ready;

/// The service that [`EuidLayer`](crate::EuidLayer) makes.
///
/// Errors and responses are those of the inner service. Bodies are not touched.
///
/// ```
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_euid::{Euid, EuidService};
///
/// async fn page(request: Request<()>) -> Result<Response<Euid>, std::convert::Infallible> {
///     Ok(Response::new(request.extensions().get().cloned().unwrap_or_default()))
/// }
/// # let keys = tower_euid::CookieKey::generate()?.into();
/// # let refresh = tower_euid::refresh_fn(async |identity| Ok(tower_euid::Refreshed::Identity(identity)));
/// # let layer = tower_euid::EuidLayer::new(keys, refresh);
/// let service: EuidService<_> = layer.layer(service_fn(page));
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let response = service.oneshot(Request::new(())).await?;
/// assert!(matches!(response.body(), Euid::Absent)); // no cookie, no identity
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct EuidService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> EuidService<S> {
    pub(crate) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }
}

impl<S, B, R> Service<Request<B>> for EuidService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if request.extensions().get::<Euid>().is_some() {
            // A layer further out already does the work.
            let (request, layer) = nested::enter(&self.config, request);
            return ResponseFuture::nested(self.inner.call(request), layer);
        }
        let config = Arc::clone(&self.config);
        if !config.is_plain {
            return Ready { inner: &mut self.inner, config }.call_with_hooks(request);
        }
        let (context, now) = (RequestContext::UNRESTRICTED, || config.now());
        let step = config.engine.begin(request.method(), request.headers(), &context, now);
        match step {
            // The usual case, as in `Ready::call_decided`, but in place: another function would copy the request once more.
            Step::Ready(decision) if !decision.stores_identity() => {
                if !decision.findings().is_empty() {
                    report(&config, decision.scope(), decision.findings());
                }
                let pending = start_decision(&config, &mut request, decision);
                ResponseFuture::running(self.inner.call(request), config, pending, None)
            }
            step => Ready { inner: &mut self.inner, config }.call_step(request, step, None),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for EuidService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EuidService").field("inner", &self.inner).field("config", &self.config).finish()
    }
}
