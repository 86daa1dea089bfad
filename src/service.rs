//! The request half: calls the handler, at once or after a refresh, with what [`sight`](crate::sight) makes of the
//! cookies.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::Service;

use crate::future::{Parked, Refreshing, ResponseFuture};
use crate::gate::{self, Visitor};
use crate::layer::{RefreshMode, Shared};
use crate::nested;
use crate::observe;
use crate::refresh::{Asked, failed};
use crate::response::Beside;
use crate::sight::{self, Due, Settled, Sight};
use euid_core::euid::Euid;

/// The service that [`EuidLayer`](crate::EuidLayer) makes.
///
/// Its error is the inner one's, its responses are the inner one's; bodies are not touched.
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
    shared: Arc<Shared>,
}

impl<S> EuidService<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
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
            // A layer further out does the work already.
            let (request, layer) = nested::enter(&self.shared, request);
            return ResponseFuture::nested(self.inner.call(request), layer);
        }
        let shared = Arc::clone(&self.shared);
        let mut visitor = Visitor::WITHOUT_HOOKS;
        if gate::has_hooks(&shared) {
            // Hooks see `Parts`, for which the request must be moved; without hooks it stays where it is.
            (request, visitor) = gate::visitor(&shared, request);
        }
        match sight::look(&shared, request.headers(), &visitor) {
            Sight::Shown(settled) if settled.held.is_none() => {
                // The usual case, as in `call_now`, but in place: another function would copy the request once more.
                let planned = sight::show(&shared, &mut request, settled, None, gate::is_worth_it);
                ResponseFuture::calling(self.inner.call(request), shared, planned)
            }
            Sight::Shown(settled) => self.call_to_store(shared, request, settled),
            Sight::Due(due) => self.call_due(shared, request, *due),
        }
    }
}

impl<S> EuidService<S> {
    /// Calls the handler without a wait.
    fn call_now<B>(
        &mut self,
        shared: Arc<Shared>,
        mut request: Request<B>,
        settled: Settled,
        beside: Option<Box<Beside>>,
        may_write: bool,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        let planned = sight::show(&shared, &mut request, settled, beside, |_| may_write);
        ResponseFuture::calling(self.inner.call(request), shared, planned)
    }

    /// Calls the handler of a request whose identity is to be written without a refresh: under a new key, or
    /// because another kind of cookie brought it.
    fn call_to_store<B>(&mut self, shared: Arc<Shared>, request: Request<B>, settled: Settled) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        let (request, may_write) = gate::may_write(request, shared.refresh_when.as_deref());
        self.call_now(shared, request, settled, None, may_write)
    }

    /// Calls the handler of a request whose identity is due: now, or once the operator has answered.
    fn call_due<B>(&mut self, shared: Arc<Shared>, request: Request<B>, mut due: Due) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>> + Clone,
    {
        let (request, may_write) = gate::may_write(request, shared.refresh_when.as_deref());
        let is_usable = due.times.is_usable(due.now);
        let may_refresh = may_write && !(is_usable && gate::is_conditional(&request));
        let key = due.held.refresh_key();
        let asked = if may_refresh {
            shared.desk.ask(&key, &mut due.held.identity, due.now)
        } else {
            // The outcome of another request's refresh counts for this one too.
            shared.desk.recall(&key, due.now)
        };
        let answer = match asked {
            Asked::Known(outcome) => outcome,
            Asked::Refused(why) => {
                observe::refresh_refused(why);
                Arc::new(failed(why))
            }
            Asked::Waiting(waiter, patience) => {
                // A request with an unsafe method may be the logout or the login that ends this identity.
                let is_beside = shared.refresh_mode == RefreshMode::Beside && is_usable;
                if is_beside || !request.method().is_safe() {
                    let unanswered = sight::settle(&shared, &due, due.now, &failed("not answered yet"));
                    let beside = Box::new(Beside { waiter, due });
                    return self.call_now(shared, request, unanswered, Some(beside), may_write);
                }
                // Only the service that `poll_ready` was called on is ready; a clone is not. The ready one
                // goes with the request, the clone stays for the next `poll_ready`.
                let clone = self.inner.clone();
                let ready = mem::replace(&mut self.inner, clone);
                let refreshing = Refreshing::new(shared, waiter, patience, Parked { due, ready, request });
                return ResponseFuture::refreshing(refreshing);
            }
        };
        let settled = sight::settle(&shared, &due, due.now, &answer);
        self.call_now(shared, request, settled, None, may_write)
    }
}

impl<S: fmt::Debug> fmt::Debug for EuidService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EuidService").field("inner", &self.inner).field("shared", &self.shared).finish()
    }
}
