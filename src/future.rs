//! The states of a request under way. [`response`](crate::response) writes the response.
//!
//! ```text
//! Hot ──────────────────────────────► response        nothing is planned for the state, or a removal
//! Cold: Loading ─────► Loaded: any of these           the identity is in the store
//!       Refreshing ──► Calling ─────► response        a refresh was due
//!                      Calling ─────► response        state to write, or a refresh runs beside
//!       Nested ─────────────────────► response        another layer outside does the work
//!                      Saving ──────► response        a login or a logout goes to the store first
//! ```
//!
//! The hot future is the inner one, the layer's configuration and the watch on the handler: two words more. All rare
//! state is in one box.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use euid_core::Reason;
use euid_core::engine::{Load, Pending, RefreshCandidate, Watch};
use http::{Request, Response};
use pin_project::pin_project;
use tower::Service;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::explain::Explanation;
use crate::hooks::HookAnswers;
use crate::nested::Inner;
use crate::records;
use crate::refresh::Waiter;
use crate::request::start_explained;
use crate::response::{self, Saving};
use crate::step::Ready;
use crate::telemetry;

/// The future of [`EuidService`](crate::EuidService).
///
/// ```
/// use std::task::{Context, Poll};
/// use http::{Request, Response};
/// use tower::Service;
/// use tower_euid::{EuidService, ResponseFuture};
///
/// /// A service around it needs no box, as the future has a name.
/// struct Counted<S>(EuidService<S>, u64);
///
/// impl<S, B, R> Service<Request<B>> for Counted<S>
/// where
///     S: Service<Request<B>, Response = Response<R>> + Clone,
/// {
///     type Response = S::Response;
///     type Error = S::Error;
///     type Future = ResponseFuture<S, B>;
/// #   fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> { self.0.poll_ready(context) }
///
///     fn call(&mut self, request: Request<B>) -> Self::Future {
///         self.1 += 1;
///         self.0.call(request)
///     }
/// }
/// ```
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<S: Service<Request<B>>, B>(#[pin] RequestState<S, B>);

#[pin_project(project = RequestStateProj)]
enum RequestState<S: Service<Request<B>>, B> {
    /// The handler runs, and its response may remove an identity, but writes none.
    Hot {
        #[pin]
        inner: S::Future,
        config: Arc<Config>,
        watch: Watch,
    },
    Cold(Pin<Box<Cold<S, B>>>),
}

#[pin_project(project = ColdProj)]
enum Cold<S: Service<Request<B>>, B> {
    /// The record of the visitor is looked for, and the handler has not been called.
    Loading(Loading<S, B>),
    /// That is done, and the rest is as without a store.
    Loaded(#[pin] ResponseFuture<S, B>),
    /// A refresh is under way, and the handler has not been called.
    Refreshing(#[pin] Refreshing<S, B>),
    /// The handler runs, and its response may write state.
    Calling {
        #[pin]
        inner: S::Future,
        config: Arc<Config>,
        pending: Pending,
        /// A refresh that runs beside the handler.
        concurrent: Option<Box<ConcurrentRefresh>>,
        explanation: Option<Box<Explanation>>,
    },
    /// The handler runs, and a layer further out writes the state.
    Nested {
        #[pin]
        inner: S::Future,
        /// The additions of this layer to its response.
        layer: Inner,
    },
    /// The handler has answered, and a login or a logout is written to the store.
    Saving(Saving<S::Response>),
}

/// A request whose record is looked for in the store.
pub(crate) struct Loading<S, B> {
    pub(crate) config: Arc<Config>,
    pub(crate) record: records::Loading,
    /// Taken out when the record has come.
    pub(crate) suspended: Option<(S, Request<B>, Load, Option<HookAnswers>)>,
}

/// A request that waits for a refresh.
#[pin_project]
pub(crate) struct Refreshing<S, B> {
    config: Arc<Config>,
    waiter: Waiter,
    /// Ends the wait; the refresh goes on without it.
    #[pin]
    patience: Deadline,
    /// Taken out when the handler is called.
    suspended: Option<Suspended<S, B>>,
}

/// The state that the handler's call needs once the wait has ended.
pub(crate) struct Suspended<S, B> {
    pub(crate) candidate: Box<RefreshCandidate>,
    pub(crate) ready: S,
    pub(crate) request: Request<B>,
}

/// A refresh beside the handler.
pub(crate) struct ConcurrentRefresh {
    pub(crate) waiter: Waiter,
    pub(crate) candidate: Box<RefreshCandidate>,
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    /// Returns the future of a handler that runs: cold if its response may write state, else hot. A removal writes none.
    #[inline]
    pub(crate) fn running(
        inner: S::Future,
        config: Arc<Config>,
        pending: Pending,
        concurrent: Option<Box<ConcurrentRefresh>>,
    ) -> Self {
        match pending.into_watch() {
            Ok(watch) if concurrent.is_none() => Self(RequestState::Hot { inner, config, watch }),
            Ok(watch) => Self::calling(inner, config, watch.into(), concurrent, None),
            Err(pending) => Self::calling(inner, config, pending, concurrent, None),
        }
    }

    /// Returns the future of a handler that runs, and whose response may write state or explain it.
    pub(crate) fn calling(
        inner: S::Future,
        config: Arc<Config>,
        pending: Pending,
        concurrent: Option<Box<ConcurrentRefresh>>,
        explanation: Option<Box<Explanation>>,
    ) -> Self {
        Self::cold(Cold::Calling { inner, config, pending, concurrent, explanation })
    }

    pub(crate) fn loading(loading: Loading<S, B>) -> Self {
        Self::cold(Cold::Loading(loading))
    }

    pub(crate) fn refreshing(refreshing: Refreshing<S, B>) -> Self {
        Self::cold(Cold::Refreshing(refreshing))
    }

    pub(crate) fn nested(inner: S::Future, layer: Inner) -> Self {
        Self::cold(Cold::Nested { inner, layer })
    }

    fn cold(cold: Cold<S, B>) -> Self {
        Self(RequestState::Cold(Box::pin(cold)))
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let saving = match self.as_mut().project().0.project() {
            RequestStateProj::Hot { inner, config, watch } => {
                let mut response = ready!(inner.poll(cx))?;
                if response::is_untouched(config, &response, watch) {
                    return Poll::Ready(Ok(response));
                }
                match response::finish(config, &mut response, mem::take(watch).into(), None) {
                    Ok(()) => return Poll::Ready(Ok(response)),
                    Err(save) => Saving::new(config, response, save, None),
                }
            }
            RequestStateProj::Cold(cold) => return cold.as_mut().poll(cx),
        };
        self.set(Self::cold(Cold::Saving(saving)));
        self.poll(cx)
    }
}

impl<S, B, R> Future for Cold<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project() {
                ColdProj::Loading(loading) => Cold::Loaded(ready!(loading.poll(cx))),
                ColdProj::Loaded(future) => return future.poll(cx),
                ColdProj::Refreshing(refreshing) => ready!(refreshing.poll(cx)),
                ColdProj::Calling { inner, config, pending, concurrent, explanation } => {
                    let mut response = ready!(inner.poll(cx))?;
                    if let Some(concurrent) = concurrent.take() {
                        concurrent.adopt(config, pending);
                    }
                    match response::finish(config, &mut response, mem::take(pending), explanation.as_deref()) {
                        Ok(()) => return Poll::Ready(Ok(response)),
                        Err(save) => Cold::Saving(Saving::new(config, response, save, explanation.take())),
                    }
                }
                ColdProj::Saving(saving) => return saving.poll(cx).map(Ok),
                ColdProj::Nested { inner, layer } => {
                    let response = ready!(inner.poll(cx))?;
                    return Poll::Ready(Ok(layer.leave(response)));
                }
            };
            self.set(next);
        }
    }
}

impl<S, B> Loading<S, B> {
    /// Waits for the record, then goes on with the request.
    fn poll<R>(&mut self, cx: &mut Context<'_>) -> Poll<ResponseFuture<S, B>>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
    {
        let loaded = ready!(Pin::new(&mut self.record).poll(cx));
        let Some((mut inner, request, load, answers)) = self.suspended.take() else {
            // This is unreachable: the state changes as soon as the record has come.
            return Poll::Pending;
        };
        let ready = Ready { inner: &mut inner, config: Arc::clone(&self.config) };
        Poll::Ready(ready.resume(request, load.key(), &loaded, answers.as_ref()))
    }
}

impl<S, B> Refreshing<S, B> {
    pub(crate) fn new(config: Arc<Config>, waiter: Waiter, patience: Deadline, suspended: Suspended<S, B>) -> Self {
        Self { config, waiter, patience, suspended: Some(suspended) }
    }

    /// Waits for the outcome, then shows it to the handler and calls it.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Cold<S, B>>
    where
        S: Service<Request<B>>,
    {
        let this = self.project();
        let outcome = match Pin::new(this.waiter).poll(cx) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => {
                ready!(this.patience.poll(cx));
                None
            }
        };
        let Some(Suspended { candidate, mut ready, mut request }) = this.suspended.take() else {
            // This is unreachable: the state changes as soon as the refresh is ready.
            return Poll::Pending;
        };
        let now = this.config.now();
        telemetry::spans::page_waited(now.saturating_since(candidate.arrived()));
        // A request waits only if its response may write, so nothing is deferred.
        let decision = match outcome {
            Some(outcome) => candidate.settle(&outcome, now),
            None => candidate.proceed(Reason::WaitedTooLong, now),
        };
        let (pending, explanation) = start_explained(this.config, &mut request, decision);
        let inner = ready.call(request);
        Poll::Ready(Cold::Calling { inner, config: Arc::clone(this.config), pending, concurrent: None, explanation })
    }
}

impl ConcurrentRefresh {
    /// Lets the response write the outcome of the refresh, if there is one by now. The handler has already run and does
    /// not see it.
    fn adopt(self, config: &Config, pending: &mut Pending) {
        if let Some(outcome) = self.waiter.outcome() {
            pending.adopt(self.candidate.settle(&outcome, config.now()));
        }
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.0 {
            RequestState::Hot { .. } => "Hot",
            RequestState::Cold(cold) => match &**cold {
                Cold::Loading(_) => "Loading",
                Cold::Loaded(_) => "Loaded",
                Cold::Saving(_) => "Saving",
                Cold::Refreshing(_) => "Refreshing",
                Cold::Calling { .. } => "Calling",
                Cold::Nested { .. } => "Nested",
            },
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
