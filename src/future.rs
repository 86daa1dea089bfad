//! The response half: the states of a request under way, and what the response writes.
//!
//! ```text
//! Hot ──────────────────────────────► response        no cookie, or a fresh one
//! Cold: Refreshing ──► Calling ─────► response        a refresh was due
//!                      Calling ─────► response        cookies to write, or a refresh runs beside
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
use tower::Service;

use crate::cache::{self, Touch};
use crate::cookie::Writing;
use crate::deadline::Deadline;
use crate::extension::EuidLogout;
use crate::identity::AdvertisingToken;
use crate::layer::Shared;
use crate::observe;
use crate::plan::{self, Action, Consent, Wish};
use crate::refresh::{self, Waiter};
use crate::sight::{self, Due, Held, Origin, Settled};
use crate::update::EuidUpdate;

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
    /// The handler runs, and its response will, or may, write cookies.
    Calling {
        #[pin]
        inner: S::Future,
        shared: Arc<Shared>,
        planned: Planned,
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
    waiter: Waiter,
    /// Ends the wait; the refresh goes on without it.
    #[pin]
    patience: Deadline,
    /// Taken when the handler is called.
    parked: Option<Parked<S, B>>,
}

/// What waits.
pub(crate) struct Parked<S, B> {
    pub(crate) due: Due,
    pub(crate) ready: S,
    pub(crate) request: Request<B>,
}

/// What was found out before the handler ran.
pub(crate) struct Planned {
    pub(crate) action: Action,
    /// What the action stores, where it stores anything.
    pub(crate) held: Option<Box<Held>>,
    pub(crate) consent: Consent,
    /// What the handler was given, and may say with it.
    pub(crate) logout: EuidLogout,
    /// Whether the cookie for scripts says another thing than the handler saw.
    pub(crate) put_right: bool,
    /// A refresh that runs while the handler does.
    pub(crate) beside: Option<Box<Beside>>,
}

/// A refresh beside the handler.
pub(crate) struct Beside {
    pub(crate) waiter: Waiter,
    pub(crate) due: Due,
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    #[inline]
    pub(crate) fn calling(inner: S::Future, shared: Arc<Shared>, planned: Planned) -> Self {
        if planned.is_hot(&shared) {
            return Self(State::Hot { inner, shared, token: planned.logout.into_token() });
        }
        Self::cold(Cold::Calling { inner, shared, planned })
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
                if is_untouched(shared, &response, token.as_ref()) {
                    return Poll::Ready(Ok(response));
                }
                Poll::Ready(Ok(finish(shared, response, &Planned::hot(token.take()))))
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
                ColdProj::Calling { inner, shared, planned } => {
                    let response = ready!(inner.poll(cx))?;
                    planned.look_beside(shared);
                    return Poll::Ready(Ok(finish(shared, response, planned)));
                }
                ColdProj::Nested { inner } => return inner.poll(cx),
            };
            self.set(next);
        }
    }
}

impl<S, B> Refreshing<S, B> {
    pub(crate) fn new(shared: Arc<Shared>, waiter: Waiter, patience: Deadline, parked: Parked<S, B>) -> Self {
        Self { shared, waiter, patience, parked: Some(parked) }
    }

    /// Waits for the answer, shows it to the handler, calls the handler.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Cold<S, B>>
    where
        S: Service<Request<B>>,
    {
        let this = self.project();
        let (answer, too_late);
        let answer = match Pin::new(this.waiter).poll(cx) {
            Poll::Ready(outcome) => {
                answer = outcome;
                &*answer
            }
            Poll::Pending => {
                ready!(this.patience.poll(cx));
                too_late = refresh::failed("the page has waited long enough");
                &too_late
            }
        };
        let Some(Parked { due, mut ready, mut request }) = this.parked.take() else {
            // The state changes with the answer, so nobody comes by twice.
            return Poll::Pending;
        };
        let settled = sight::settle(this.shared, &due, this.shared.clock.now(), answer);
        let planned = sight::show(this.shared, &mut request, settled, None);
        let inner = ready.call(request);
        Poll::Ready(Cold::Calling { inner, shared: Arc::clone(this.shared), planned })
    }
}

impl Planned {
    /// Nothing but to look at what the handler did with its token, if it had one.
    fn hot(token: Option<AdvertisingToken>) -> Self {
        let logout = EuidLogout::of_token(token);
        Self { action: Action::Keep, held: None, consent: Consent::Granted, logout, put_right: false, beside: None }
    }

    /// Whether this is no more than [`hot`](Self::hot).
    fn is_hot(&self, shared: &Shared) -> bool {
        let no_matter = match self.consent {
            Consent::Granted => true,
            Consent::Withheld => !shared.cookies.hands_over(),
            Consent::Withdrawn => false,
        };
        let is_nothing_planned = self.action == Action::Keep && !self.put_right && self.beside.is_none();
        no_matter && is_nothing_planned && !self.logout.has_own_note()
    }

    /// The handler has answered: has the refresh beside it, too?
    fn look_beside(&mut self, shared: &Shared) {
        let Some(Beside { waiter, due }) = self.beside.take().map(|beside| *beside) else { return };
        if let Some(outcome) = waiter.outcome() {
            // What the handler saw stays as it was; only the cookies follow the answer.
            let Settled { action, held, .. } = sight::settle(shared, &due, shared.clock.now(), &outcome);
            (self.action, self.held) = (action, held);
        }
    }
}

/// Whether [`finish`] has nothing to do for the response of a hot future, which is the usual case.
fn is_untouched<R>(shared: &Shared, response: &Response<R>, token: Option<&AdvertisingToken>) -> bool {
    shared.logout_when.is_none()
        && token.is_none_or(AdvertisingToken::is_untouched)
        && response.extensions().get::<EuidUpdate>().is_none()
        && !response.headers().contains_key(CLEAR_SITE_DATA)
}

/// Takes the handler's wish out of its response, writes the cookies, guards the cache.
fn finish<R>(shared: &Shared, response: Response<R>, planned: &Planned) -> Response<R> {
    let (mut response, logged_out) = match &shared.logout_when {
        None => (response, false),
        Some(logout_when) => {
            let (parts, body) = response.into_parts();
            let is_logout = logout_when(&parts);
            (Response::from_parts(parts, body), is_logout)
        }
    };
    let logged_out = logged_out || planned.logout.was_called() || clears_cookies(response.headers());
    let update = EuidUpdate::take_from(response.extensions_mut());
    let wish = update.as_ref().map(EuidUpdate::wish).max(logged_out.then_some(Wish::Logout));
    let action = plan::resolve(planned.action, wish, planned.consent);
    if planned.consent == Consent::Withdrawn && wish == Some(Wish::Login) {
        observe::login_without_consent();
    }

    let not_modified = response.status() == StatusCode::NOT_MODIFIED;
    let writing = writing(action, planned, update.as_ref());
    // A 304 would change the headers of a page that is stored elsewhere; the next one brings what is new.
    let writing = writing.filter(|writing| !(not_modified && wish.is_none() && writing.brings_a_token()));
    let wrote = writing.is_some_and(|writing| write(shared, writing, planned.consent, response.headers_mut()));
    if wrote {
        cache::guard(Touch::Wrote, response.headers_mut());
    } else if planned.logout.token().is_some_and(AdvertisingToken::was_read) {
        cache::guard(Touch::Read, response.headers_mut());
    }
    response
}

/// What the action writes.
fn writing<'a>(action: Action, planned: &'a Planned, update: Option<&'a EuidUpdate>) -> Option<Writing<'a>> {
    let held = planned.held.as_deref();
    match (action, update.and_then(EuidUpdate::as_login), held) {
        (Action::ClearIdentity, ..) => Some(Writing::ClearIdentity),
        (Action::ClearBoth, ..) => Some(Writing::ClearBoth),
        (Action::OptOut, ..) => Some(Writing::OptOut),
        (Action::Login, Some((identity, subject)), _) => Some(Writing::Login(identity, subject)),
        (Action::Login, None, Some(Held { origin: Origin::Elsewhere(subject), identity })) => {
            Some(Writing::Login(identity, subject.as_deref()))
        }
        (Action::Store, _, Some(Held { origin: Origin::Cookies(login), identity })) => {
            Some(Writing::Store(login, identity))
        }
        (Action::RecordOptOut, _, Some(Held { origin: Origin::Cookies(login), .. })) => {
            Some(Writing::RecordOptOut(login))
        }
        (Action::Keep, ..) if planned.put_right => {
            let token = planned.logout.token();
            Some(Writing::HandOver(token.map(|token| (token.peek(), token.times()))))
        }
        // What has nothing to store is not planned.
        (Action::Keep | Action::Login | Action::Store | Action::RecordOptOut, ..) => None,
    }
}

/// Writes the cookies; false if none was written after all.
fn write(shared: &Shared, writing: Writing<'_>, consent: Consent, headers: &mut HeaderMap) -> bool {
    let now = shared.clock.now();
    if shared.bind.is_some() && matches!(writing, Writing::Login(_, None)) {
        observe::login_without_subject();
    }
    // A login is kept while consent is withheld, and handed to nobody.
    let to_scripts = consent == Consent::Granted;
    let Err(reason) = shared.cookies.write(writing, to_scripts, &shared.keys, now, headers) else {
        if let Writing::Store(login, _) = writing {
            shared.desk.delivered(login.lineage);
        }
        return true;
    };
    observe::cookie_not_written(reason);
    let instead = match writing {
        // Whoever was there before, another has logged in: the old identity must not stand for them.
        Writing::Login(..) => Writing::ClearBoth,
        // It ends, though there is nothing to record it with.
        Writing::RecordOptOut(_) => Writing::ClearIdentity,
        _ => return false,
    };
    shared.cookies.write(instead, to_scripts, &shared.keys, now, headers).is_ok()
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
