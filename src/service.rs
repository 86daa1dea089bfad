//! The service, which calls the handler at once or after a refresh.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use euid_core::Euid;
use euid_core::engine::{Decision, RefreshCandidate, RequestContext, Step};
use http::{Request, Response};
use tower::Service;

use crate::config::{Config, RefreshMode};
use crate::future::{ConcurrentRefresh, Refreshing, ResponseFuture, Suspended};
use crate::hooks;
use crate::nested;
use crate::refresh::{Origin, Outcome, RefreshKey, Reply, transient};
use crate::request::{report, start_decision};
use crate::telemetry;

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
        let begin = |request: &Request<B>, context: &RequestContext<'_>| {
            config.engine.begin(request.method(), request.headers(), context, || config.now())
        };
        let step = if config.has_request_hooks {
            let answers;
            (request, answers) = hooks::answers(&config, request);
            begin(&request, &answers.context())
        } else {
            begin(&request, &RequestContext::UNRESTRICTED)
        };
        match step {
            Step::Ready(decision) => {
                if !decision.findings().is_empty() {
                    report(&config, decision.scope(), decision.findings());
                }
                if decision.stores_identity() {
                    return self.call_to_store(config, request, decision);
                }
                // The usual case, as in `call_now`, but in place: another function would copy the request once more.
                let pending = start_decision(&config, &mut request, decision);
                ResponseFuture::running(self.inner.call(request), config, pending, None)
            }
            Step::Refresh(candidate) => {
                if !candidate.findings().is_empty() {
                    report(&config, Some(candidate.scope()), candidate.findings());
                }
                self.call_due(config, request, candidate)
            }
        }
    }
}

impl<S> EuidService<S> {
    /// Calls the handler without a wait.
    fn call_now<B>(
        &mut self,
        config: Arc<Config>,
        mut request: Request<B>,
        decision: Decision,
        concurrent: Option<Box<ConcurrentRefresh>>,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        let pending = start_decision(&config, &mut request, decision);
        ResponseFuture::running(self.inner.call(request), config, pending, concurrent)
    }

    /// Calls the handler of a request whose identity must be written without a refresh: under a new key, or because it
    /// was migrated from the JS SDK.
    fn call_to_store<B>(
        &mut self,
        config: Arc<Config>,
        request: Request<B>,
        mut decision: Decision,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        let (request, hook_allows) = hooks::allows_writes(&config, request);
        if !hook_allows {
            decision.defer();
        }
        self.call_now(config, request, decision, None)
    }

    /// Calls the handler of a request whose identity is due: at once, or after the operator has answered.
    fn call_due<B>(
        &mut self,
        config: Arc<Config>,
        mut request: Request<B>,
        mut candidate: Box<RefreshCandidate>,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>> + Clone,
    {
        // The hook is not called for a response that may not write anyway, such as that to a request for an image:
        // `may_refresh` is false, and `settle` defers the write.
        let mut hook_allows = true;
        if candidate.may_write() {
            (request, hook_allows) = hooks::allows_writes(&config, request);
        }
        let now = candidate.arrived();
        // As bytes, since `refresh` must not import the engine.
        let lineage = candidate.lineage().map(|lineage| *lineage.as_bytes());
        let coordinator = config.coordinator(candidate.scope());
        let key = RefreshKey::new(candidate.identity(), lineage);
        let outcome = if hook_allows && candidate.may_refresh() {
            let origin = if candidate.is_migrated() { Origin::Migrated } else { Origin::Login };
            match coordinator.ask(&key, candidate.identity(), origin, now) {
                Reply::Known(outcome) => outcome,
                Reply::Refused(why) => refused(why),
                Reply::Waiting { waiter, patience, shared } => {
                    candidate.share(shared);
                    let is_concurrent = config.refresh_mode == RefreshMode::Concurrent && candidate.is_usable();
                    if is_concurrent || !candidate.may_wait() {
                        // The handler is called now, with the old token. `ConcurrentRefresh::adopt` settles the
                        // candidate again, if the operator has answered before the handler's response.
                        let unanswered = candidate.settle(&transient("not answered yet"), now);
                        let concurrent = Box::new(ConcurrentRefresh { waiter, candidate });
                        return self.call_now(config, request, unanswered, Some(concurrent));
                    }
                    // Only the service that `poll_ready` was called on is ready; a clone is not. The ready one moves
                    // into the request's future; the clone stays for the next `poll_ready`.
                    let clone = self.inner.clone();
                    let ready = mem::replace(&mut self.inner, clone);
                    let refreshing = Refreshing::new(config, waiter, patience, Suspended { candidate, ready, request });
                    return ResponseFuture::refreshing(refreshing);
                }
            }
        } else {
            // The outcome of another request's refresh applies to this one too.
            coordinator.recall(&key, now).unwrap_or_else(|| refused("this request may not refresh"))
        };
        let mut decision = candidate.settle(&outcome, now);
        if !hook_allows {
            decision.defer();
        }
        self.call_now(config, request, decision, None)
    }
}

/// Reports that no call is made, and returns that as the outcome.
fn refused(why: &'static str) -> Outcome {
    telemetry::refresh_refused(why);
    Arc::new(transient(why))
}

impl<S: fmt::Debug> fmt::Debug for EuidService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EuidService").field("inner", &self.inner).field("config", &self.config).finish()
    }
}
