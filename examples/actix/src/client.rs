//! The calls to the operator: euid-core writes the requests and reads the responses, an HTTP client sends them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::time::timeout;
use bytes::Bytes;
use euid_core::clock::{Clock, UnixMillis};
use euid_core::engine::RefreshCandidate;
use euid_core::error::ErrorKind;
use euid_core::{Dii, EuidError, Generated, Identity, Operator, Refreshed};
use http::{Request, Response};

use crate::flight::Flights;

/// The operator and the HTTP client that reaches it. Cheap to clone; clones share their calls.
#[derive(Clone)]
pub struct Client {
    operator: Operator,
    clock: Arc<dyn Clock>,
    send: Arc<Send>,
    flights: Flights,
}

/// Sends one request. The threads of an actix-web server share it.
type Send = dyn Fn(Request<Bytes>) -> Pin<Box<dyn Future<Output = Answer>>> + std::marker::Send + Sync;

/// The operator's response, or a [`Transient`](ErrorKind::Transient) error if there is none.
pub type Answer = Result<Response<Bytes>, EuidError>;

impl Client {
    /// A client that sends with `send`: [`over_http`], or a stand-in of a test. `clock` tells the time.
    pub fn new<F, A>(operator: Operator, clock: impl Clock, send: F) -> Self
    where
        F: Fn(Request<Bytes>) -> A + std::marker::Send + Sync + 'static,
        A: Future<Output = Answer> + 'static,
    {
        let send = Arc::new(move |request| -> Pin<Box<dyn Future<Output = Answer>>> { Box::pin(send(request)) });
        Self { operator, clock: Arc::new(clock), send, flights: Flights::default() }
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Requests the identity of a person who logs in.
    ///
    /// # Errors
    ///
    /// Those of [`Operator::generate`] and [`Operator::generated`], and [`Transient`](ErrorKind::Transient) if the
    /// operator can't be reached within [`LOGIN_WAITS`].
    pub async fn generate(&self, user: Dii) -> Result<Generated, EuidError> {
        let call = self.operator.generate(user, self.now())?;
        let response = within(LOGIN_WAITS, (self.send)(call.request())).await?;
        self.operator.generated(&call, &response, self.now())
    }

    /// Refreshes the candidate's identity. Requests that arrive while the call is under way share it.
    ///
    /// # Errors
    ///
    /// Those of [`Operator::refreshed`], and [`Transient`](ErrorKind::Transient) if the
    /// operator has not answered within [`PAGE_WAITS`].
    pub async fn refresh(&self, candidate: &RefreshCandidate) -> Result<Refreshed, EuidError> {
        let identity = candidate.identity();
        let call = || self.refresh_alone(identity);
        match candidate.lineage() {
            Some(lineage) => within(PAGE_WAITS, self.flights.join(lineage, identity, call)).await,
            // The identity has no login yet, because it is from the JS SDK's cookie.
            None => within(PAGE_WAITS, call()).await,
        }
    }

    async fn refresh_alone(&self, identity: &Identity) -> Result<Refreshed, EuidError> {
        let response = (self.send)(self.operator.refresh(identity)).await?;
        self.operator.refreshed(identity, &response, self.now())
    }
}

/// Sends `request` with reqwest. Build `http` without redirects: they would take the refresh token elsewhere.
///
/// # Errors
///
/// [`Transient`](ErrorKind::Transient) if no whole response arrives.
pub async fn over_http(http: reqwest::Client, request: Request<Bytes>) -> Answer {
    let mut response = http.execute(request.try_into().map_err(unreachable)?).await.map_err(unreachable)?;
    let mut body = Vec::new();
    // One byte more than the limit is enough to refuse the answer.
    while body.len() <= Operator::MAX_ANSWER
        && let Some(chunk) = response.chunk().await.map_err(unreachable)?
    {
        body.extend_from_slice(&chunk);
    }
    let mut answer = Response::new(body.into());
    *answer.status_mut() = response.status();
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    Ok(answer)
}

/// Hides the URL, because a gateway's URL may contain a secret.
fn unreachable(error: reqwest::Error) -> EuidError {
    EuidError::new(ErrorKind::Transient, "the operator can't be reached").with_source(error.without_url())
}

async fn within<T>(time: Duration, call: impl Future<Output = Result<T, EuidError>>) -> Result<T, EuidError> {
    let too_late = |_| Err(EuidError::new(ErrorKind::Transient, "the operator has not answered in time"));
    timeout(time, call).await.unwrap_or_else(too_late)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("operator", &self.operator).finish_non_exhaustive()
    }
}

/// How long a page waits for a refresh: after that it goes on with the token that it has.
pub const PAGE_WAITS: Duration = Duration::from_millis(500);
/// How long a login waits for its identity.
pub const LOGIN_WAITS: Duration = Duration::from_secs(3);
