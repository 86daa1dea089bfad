//! The response half: the states of a request under way, and what the response writes.
//!
//! ```text
//! Hot ──────────────────────────────► response        no cookie, or a fresh one
//! Cold: Refreshing ──► Calling ─────► response        a refresh was due
//!                      Calling ─────► response        only cookies to clear
//!       Nested ─────────────────────► response        another layer outside does the work
//! ```
//!
//! The hot future is the inner one, the layer and the token: two words more. All that is rare is in
//! one box.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::HeaderName;
use http::{HeaderMap, Request, Response, StatusCode};
use pin_project::pin_project;
use tokio::time::Sleep;
use tower::Service;

use crate::cache::{self, Touch};
use crate::cookie::{Lineage, Writing};
use crate::error::{ErrorKind, EuidError};
use crate::identity::{AdvertisingToken, Identity};
use crate::layer::Shared;
use crate::plan::{self, Action, Consent, Wish};
use crate::refresh::{Refreshed, UnderWay};
use crate::service::{self, Due};
use crate::update::EuidUpdate;

/// The future of [`EuidService`](crate::EuidService).
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<S: Service<Request<B>>, B>(#[pin] State<S, B>);

#[pin_project(project = StateProj)]
enum State<S: Service<Request<B>>, B> {
    /// The handler runs, and nothing is planned for the cookies.
    Hot {
        #[pin]
        inner: S::Future,
        shared: Arc<Shared>,
        token: Option<AdvertisingToken>,
    },
    Cold(Pin<Box<Cold<S, B>>>),
}

#[pin_project(project = ColdProj)]
#[expect(clippy::large_enum_variant, reason = "it is boxed as a whole, once")]
enum Cold<S: Service<Request<B>>, B> {
    /// The operator is being asked; the handler has not been called.
    Refreshing(#[pin] Refreshing<S, B>),
    /// The handler runs, and its response will write cookies.
    Calling {
        #[pin]
        inner: S::Future,
        shared: Arc<Shared>,
        outcome: Outcome,
    },
    /// The handler runs, and its response is not ours.
    Nested {
        #[pin]
        inner: S::Future,
    },
}

/// A request that waits for a refresh.
#[pin_project]
pub(crate) struct Refreshing<S, B> {
    shared: Arc<Shared>,
    /// `None` where nobody can be asked: then nothing is waited for.
    #[pin]
    waiting: Option<Waiting>,
    /// Taken when the handler is called.
    parked: Option<Parked<S, B>>,
}

#[pin_project]
struct Waiting {
    under_way: UnderWay,
    /// Ends the wait; the refresh goes on in its own task.
    #[pin]
    patience: Sleep,
}

struct Parked<S, B> {
    due: Due,
    ready: S,
    request: Request<B>,
}

/// What was found out before the handler ran.
struct Outcome {
    action: Action,
    /// What [`Action::Store`] stores.
    renewed: Option<(Lineage, Identity)>,
    /// What the handler was given.
    token: Option<AdvertisingToken>,
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(crate) fn calling(
        inner: S::Future,
        shared: Arc<Shared>,
        token: Option<AdvertisingToken>,
        action: Action,
    ) -> Self {
        if action == Action::Keep {
            return Self(State::Hot { inner, shared, token });
        }
        Self::cold(Cold::Calling { inner, shared, outcome: Outcome { action, renewed: None, token } })
    }

    pub(crate) fn refreshing(refreshing: Refreshing<S, B>) -> Self {
        Self::cold(Cold::Refreshing(refreshing))
    }

    pub(crate) fn nested(inner: S::Future) -> Self {
        Self::cold(Cold::Nested { inner })
    }

    fn cold(cold: Cold<S, B>) -> Self {
        Self(State::Cold(Box::pin(cold)))
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().0.project() {
            StateProj::Hot { inner, shared, token } => {
                let response = ready!(inner.poll(cx))?;
                Poll::Ready(Ok(finish(shared, response, Action::Keep, None, token.as_ref())))
            }
            StateProj::Cold(cold) => cold.as_mut().poll(cx),
        }
    }
}

impl<S, B, R> Future for Cold<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project() {
                ColdProj::Refreshing(refreshing) => ready!(refreshing.poll(cx)),
                ColdProj::Calling { inner, shared, outcome } => {
                    let response = ready!(inner.poll(cx))?;
                    let Outcome { action, renewed, token } = outcome;
                    return Poll::Ready(Ok(finish(shared, response, *action, renewed.as_ref(), token.as_ref())));
                }
                ColdProj::Nested { inner } => return inner.poll(cx),
            };
            self.set(next);
        }
    }
}

impl<S, B> Refreshing<S, B> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        waiting: Option<(UnderWay, Sleep)>,
        due: Due,
        ready: S,
        request: Request<B>,
    ) -> Self {
        let waiting = waiting.map(|(under_way, patience)| Waiting { under_way, patience });
        Self { shared, waiting, parked: Some(Parked { due, ready, request }) }
    }

    /// The answer, or that there is none in time.
    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Refreshed, EuidError>> {
        let late = |what| Poll::Ready(Err(EuidError::new(ErrorKind::Transient, what)));
        let Some(waiting) = self.project().waiting.as_pin_mut() else {
            return late("there is no runtime with a timer to refresh on");
        };
        let waiting = waiting.project();
        match Pin::new(waiting.under_way).poll(cx) {
            Poll::Ready(Ok(answer)) => Poll::Ready(answer),
            Poll::Ready(Err(_)) => {
                tracing::error!("a refresh panicked, or its runtime is shutting down");
                late("the refresh broke down")
            }
            Poll::Pending => {
                ready!(waiting.patience.poll(cx));
                late("the page has waited long enough")
            }
        }
    }

    /// Waits for the answer, shows it to the handler, calls the handler.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Cold<S, B>>
    where
        S: Service<Request<B>>,
    {
        let answer = ready!(self.as_mut().poll_answer(cx));
        let this = self.project();
        let Some(Parked { due, mut ready, mut request }) = this.parked.take() else {
            // The state changes with the answer, so nobody comes by twice.
            return Poll::Pending;
        };
        let (euid, action, renewed) = service::settle(this.shared, due, answer);
        let token = service::show(&mut request, euid);
        let inner = ready.call(request);
        let outcome = Outcome { action, renewed, token };
        Poll::Ready(Cold::Calling { inner, shared: Arc::clone(this.shared), outcome })
    }
}

/// Takes the handler's wish out of its response, writes the cookies, guards the cache.
fn finish<R>(
    shared: &Shared,
    response: Response<R>,
    planned: Action,
    renewed: Option<&(Lineage, Identity)>,
    token: Option<&AdvertisingToken>,
) -> Response<R> {
    let (mut response, logged_out) = is_logout(shared, response);
    let update = response.extensions_mut().remove::<EuidUpdate>();
    let wish = update.as_ref().map(EuidUpdate::wish).max(logged_out.then_some(Wish::Logout));
    let action = plan::resolve(planned, wish, Consent::Granted);

    let identity = update.as_ref().and_then(EuidUpdate::identity);
    let not_modified = response.status() == StatusCode::NOT_MODIFIED;
    let writing = match (action, renewed, identity) {
        (Action::ClearIdentity, _, _) => Some(Writing::ClearIdentity),
        (Action::ClearBoth, _, _) => Some(Writing::ClearBoth),
        (Action::OptOut, _, _) => Some(Writing::OptOut),
        (Action::Login, _, Some(identity)) => Some(Writing::Login(identity)),
        // A 304 would change the headers of a page that is stored elsewhere; the next one writes it.
        (Action::Store, Some((lineage, identity)), _) if !not_modified => Some(Writing::Store(lineage, identity)),
        (Action::Keep | Action::Store | Action::Login, _, _) => None,
    };
    let wrote = writing.is_some_and(|writing| write(shared, writing, response.headers_mut()));
    if wrote {
        cache::guard(Touch::Wrote, response.headers_mut());
    } else if token.is_some_and(AdvertisingToken::was_read) {
        cache::guard(Touch::Read, response.headers_mut());
    }
    response
}

/// Writes the cookies; false if none was written after all.
fn write(shared: &Shared, writing: Writing<'_>, headers: &mut HeaderMap) -> bool {
    let now = shared.clock.now();
    let Err(reason) = shared.cookies.write(writing, &shared.keys, now, headers) else {
        return true;
    };
    tracing::warn!(?reason, "an identity could not be written into a cookie");
    // Whoever was there before, another has logged in: the old identity must not stand for them.
    matches!(writing, Writing::Login(_)) && shared.cookies.write(Writing::ClearBoth, &shared.keys, now, headers).is_ok()
}

/// Whether the response is a logout that no [`EuidUpdate`] says.
fn is_logout<R>(shared: &Shared, response: Response<R>) -> (Response<R>, bool) {
    if clears_cookies(response.headers()) {
        return (response, true);
    }
    match &shared.logout_when {
        None => (response, false),
        Some(logout_when) => {
            let (parts, body) = response.into_parts();
            let is_logout = logout_when(&parts);
            (Response::from_parts(parts, body), is_logout)
        }
    }
}

/// Whether `Clear-Site-Data` tells the browser to drop all cookies.
fn clears_cookies(headers: &HeaderMap) -> bool {
    headers.get_all(CLEAR_SITE_DATA).iter().any(|value| {
        let mut types = value.as_bytes().split(|&byte| byte == b',');
        types.any(|kind| matches!(kind.trim_ascii(), b"\"cookies\"" | b"\"*\""))
    })
}

impl<S: Service<Request<B>>, B> fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.0 {
            State::Hot { .. } => "Hot",
            State::Cold(cold) => match &**cold {
                Cold::Refreshing(_) => "Refreshing",
                Cold::Calling { .. } => "Calling",
                Cold::Nested { .. } => "Nested",
            },
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
