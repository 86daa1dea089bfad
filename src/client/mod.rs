//! The client of an operator of EUID or UID2, for a publisher's server.
//!
//! [`EuidClient`] is the core's [`Operator`] and a [`transport`] to it; [`builder`] configures it. [`clients`] has one
//! for each scope. [`network`], with [`reuse`] and [`tls`], is the default HTTP client. [`failure`] is why a call got no
//! response.

mod builder;
mod clients;
mod failure;
mod network;
mod reuse;
mod tls;
mod transport;
mod variables;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use euid_core::clock::{Clock, UnixMillis};
#[cfg(doc)]
use euid_core::error::ErrorKind;
use euid_core::error::EuidError;
use euid_core::identity::Identity;
use euid_core::operator::{Answered, Call, ClockSkew};
use euid_core::{Dii, Environment, GenerateRequest, Generated, Operator, Refreshed, Scope};
use http::{Request, Response};
use tracing::Instrument;

pub use self::builder::EuidClientBuilder;
pub use self::clients::EuidClients;
use self::transport::Transport;
pub(crate) use self::variables::Variables;
use crate::refresh::{LogLimits, Mutex, Refresh, lock};
use crate::telemetry;
use crate::telemetry::spans::CallSpan;

/// A client of an operator of EUID or UID2. Cheap to clone; clones share connections.
///
/// Every call is one POST over HTTP/1.1: no redirect, an answer of at most 64 KiB, within
/// [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT) unless set otherwise. A call is repeated once, within the same time, only
/// if a connection from an earlier call turns out to be closed before the head of an answer has arrived; the operator
/// answers a repeated call like the first. An application can give its own HTTP client to
/// [`http_service`](EuidClientBuilder::http_service).
///
/// For https, the client uses the proxy in the environment variable `HTTPS_PROXY` (or `ALL_PROXY`), except for the
/// hosts in `NO_PROXY`. For plain http it uses no proxy, which would see the API key.
///
/// One client belongs to one tokio runtime. Connections are driven by tasks of the runtime in which they
/// were opened, and the clones of a client share connections. Once that runtime has ended, the first call
/// from another finds the connections closed and opens new ones; while it lives but is not polled, as a
/// current-thread runtime outside of `block_on`, a call over one of its connections waits until its timeout.
/// So build one client per runtime, and in tests one per test.
///
/// The machine's clock should be right. If the time of an answer differs by more than 30 seconds, the client accepts it
/// and logs a warning, once per client. From two minutes on the operator refuses calls.
///
/// ```no_run
/// use tower_euid::{Dii, Environment, EuidClient, Generated, Scope};
///
/// # async fn run(api_key: &str, secret: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let client = EuidClient::builder(Environment::Integration(Scope::Euid)).credentials(api_key, secret).build()?;
/// match client.generate(Dii::email("user@example.com")?).await? {
///     Generated::Identity(identity) => println!("{:?}", identity.times()),
///     Generated::OptedOut => println!("remember it, and stop asking for this person"),
///     Generated::InsufficientConsent => println!("ask again only with new consent"),
///     _ => {}
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Secrets in memory
///
/// The client secret, an opened answer and the refresh token that [`refresh`](Self::refresh) sends are wiped when
/// dropped. Not wiped are the API key, which is a header of every request, and the buffers of hyper (the HTTP library)
/// and rustls (the TLS library), into which both copy the data that they send and receive.
#[derive(Clone)]
pub struct EuidClient(Arc<Inner>);

struct Inner {
    operator: Operator,
    transport: Transport,
    /// The timeout of every call.
    timeout: Duration,
    clock: Arc<dyn Clock>,
    /// Whether the clock's difference from the operator's has been logged.
    has_warned: AtomicBool,
    /// Limits the log of failed logins.
    failures: Mutex<LogLimits>,
}

impl EuidClient {
    /// The default of [`connect_timeout`](EuidClientBuilder::connect_timeout): 2 s.
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    /// The default of [`timeout`](EuidClientBuilder::timeout): 5 s.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

    /// Returns a builder, which configures a client.
    ///
    /// ```
    /// # use tower_euid::{Dii, Environment, EuidClient};
    /// # use tower_euid::error::ErrorKind;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // Without credentials it can refresh, which is all that the layer asks of it.
    /// let client = EuidClient::builder(Environment::Url("http://localhost:3000".to_owned())).build()?;
    /// let error = client.generate(Dii::email("user@example.com")?).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unauthorized);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(environment: Environment) -> EuidClientBuilder {
        EuidClientBuilder::new(environment)
    }

    /// Returns whether the operator belongs to EUID or to UID2; `None` while that is unknown.
    /// [`EuidClientBuilder::scope`] says what tells it.
    ///
    /// ```
    /// # use tower_euid::{Environment, EuidClient, Scope};
    /// let operator = Environment::Url("http://localhost:3000".to_owned());
    /// let (key, secret) = ("UID2-C-T-124-example", "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=");
    /// let client = EuidClient::builder(operator.clone()).credentials(key, secret).build()?;
    /// assert_eq!(client.scope(), Some(Scope::Uid2)); // the API key tells it
    /// assert_eq!(EuidClient::builder(operator).build()?.scope(), None);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn scope(&self) -> Option<Scope> {
        self.0.operator.scope()
    }

    /// Generates an identity: `POST /v2/token/generate`. Call it when a visitor has logged in and consented.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower_euid::{Dii, Generated};
    /// # use euid_sandbox::Sandbox;
    /// let sandbox = Sandbox::builder().build()?;
    /// let (client, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// let user = client.generate(Dii::email("user@example.com")?).await?;
    /// assert!(matches!(user, Generated::Identity(_)));
    /// assert_eq!(client.generate(Dii::email("optout@example.com")?).await?, Generated::OptedOut);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RejectedInput`](ErrorKind::RejectedInput) for an address that the operator does not accept,
    /// [`Unauthorized`](ErrorKind::Unauthorized) also for a client without credentials, and every other [`ErrorKind`]
    /// but [`RejectedToken`](ErrorKind::RejectedToken).
    ///
    /// # Panics
    ///
    /// If it would call the operator outside a tokio runtime with I/O and time enabled.
    pub async fn generate(&self, request: impl Into<GenerateRequest>) -> Result<Generated, EuidError> {
        let begun = self.0.clock.now();
        let outcome = self.generate_uncounted(request.into(), begun).await;
        let now = self.0.clock.now();
        let left_out = match &outcome {
            Err(error) => lock(&self.0.failures).admit(error.kind(), now),
            Ok(_) => None,
        };
        telemetry::generated(self.scope(), &outcome, left_out, now.saturating_since(begun));
        outcome
    }

    async fn generate_uncounted(&self, request: GenerateRequest, now: UnixMillis) -> Result<Generated, EuidError> {
        let (span, answered) = self.ask(&self.0.operator.generate(request, now)?).await;
        let outcome = answered.and_then(|answered| answered.generated());
        span.ended(telemetry::word_of_generate(&outcome));
        outcome
    }

    /// Validates that this publisher got `advertising_token` for this person: `POST /v2/token/validate`. It is for
    /// tests of an integration and ignores expiry.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower_euid::{Dii, Generated};
    /// # use euid_sandbox::Sandbox;
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (client, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// let (user, other) = (Dii::email("user@example.com")?, Dii::email("other@example.com")?);
    /// let Generated::Identity(identity) = client.generate(user).await? else { unreachable!() };
    /// assert!(client.validate(identity.advertising_token(), user).await?);
    /// assert!(!client.validate(identity.advertising_token(), other).await?);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`generate`](Self::generate); [`RejectedInput`](ErrorKind::RejectedInput) also for a token
    /// that the operator can't decode or that belongs to another publisher.
    ///
    /// # Panics
    ///
    /// As [`generate`](Self::generate).
    pub async fn validate(&self, advertising_token: &str, dii: Dii) -> Result<bool, EuidError> {
        let Inner { operator, clock, .. } = &*self.0;
        let (span, answered) = self.ask(&operator.validate(advertising_token, dii, clock.now())?).await;
        let outcome = answered.and_then(|answered| answered.validated());
        span.ended(telemetry::word_of_validate(&outcome));
        outcome
    }

    /// Refreshes an identity: `POST /v2/token/refresh` returns its successor. The layer does this by itself. The call
    /// needs no credentials, but with them its errors are more precise.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower_euid::{Dii, Generated, Refreshed};
    /// # use euid_sandbox::Sandbox;
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (client, user) = (tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?.0, Dii::email("user@example.com")?);
    /// # let Generated::Identity(identity) = client.generate(user).await? else { unreachable!() };
    /// let Refreshed::Identity(next) = client.refresh(&identity).await? else { unreachable!() };
    /// assert_ne!(next.advertising_token(), identity.advertising_token());
    /// sandbox.opt_out(user);
    /// assert_eq!(client.refresh(&next).await?, Refreshed::OptedOut);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RejectedToken`](ErrorKind::RejectedToken) for an expired refresh token. Without an API key, or with a wrong
    /// one, the operator does not distinguish that from other failures: [`UnknownStatus`](ErrorKind::UnknownStatus).
    /// [`RejectedInput`](ErrorKind::RejectedInput) for a refresh token that it can't read,
    /// [`Undecryptable`](ErrorKind::Undecryptable) if the response key belongs to another token,
    /// [`WrongScope`](ErrorKind::WrongScope) if the new pair is of the other scope; and
    /// [`Transient`](ErrorKind::Transient) or [`Malformed`](ErrorKind::Malformed).
    ///
    /// # Panics
    ///
    /// As [`generate`](Self::generate).
    pub async fn refresh(&self, identity: &Identity) -> Result<Refreshed, EuidError> {
        let Inner { operator, clock, .. } = &*self.0;
        let (span, response) = self.send(operator.refresh(identity), identity.scope()).await;
        let outcome = response.and_then(|response| operator.refreshed(identity, &response, clock.now()));
        span.ended(telemetry::word_of_refresh(&outcome));
        outcome
    }

    async fn ask(&self, call: &Call) -> (CallSpan, Result<Answered, EuidError>) {
        let (span, response) = self.send(call.request(), None).await;
        let answered = response.and_then(|response| self.answered(call, &response));
        (span, answered)
    }

    /// Sends a request, within a span of its own. The outcome that its caller reads from the response belongs to the span,
    /// too.
    async fn send(
        &self,
        request: Request<Bytes>,
        scope: Option<Scope>,
    ) -> (CallSpan, Result<Response<Bytes>, EuidError>) {
        let span = CallSpan::begin(scope.or(self.scope()), &request);
        let response = self.0.transport.send(request, self.0.timeout).instrument(span.span()).await;
        match &response {
            Ok(response) => span.answered(response.status()),
            Err(failure) => span.failed(failure.word),
        }
        (span, response.map_err(|failure| failure.error))
    }

    fn answered(&self, call: &Call, response: &Response<Bytes>) -> Result<Answered, EuidError> {
        let Inner { operator, clock, has_warned, .. } = &*self.0;
        let answered = operator.answered(call, response, clock.now())?;
        if let Some(skew) = answered.clock_skew()
            && !has_warned.swap(true, Ordering::Relaxed)
        {
            match skew {
                ClockSkew::Ahead(by) => telemetry::clock_skewed(by.as_secs(), "ahead"),
                ClockSkew::Behind(by) => telemetry::clock_skewed(by.as_secs(), "behind"),
            }
        }
        Ok(answered)
    }
}

impl Refresh for EuidClient {
    async fn refresh(&self, identity: &Identity) -> Result<Refreshed, EuidError> {
        self.refresh(identity).await
    }

    fn scope(&self) -> Option<Scope> {
        self.scope()
    }
}

impl fmt::Debug for EuidClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EuidClient")
            .field("scope", &self.scope())
            .field("credentials", &self.0.operator.has_credentials())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use euid_core::error::ErrorKind;

    #[tokio::test]
    async fn generate_without_credentials_fails_before_a_request_is_sent() {
        let client = EuidClient::builder(Environment::Url("http://127.0.0.1:9".to_owned())).build().unwrap();
        let error = client.generate(Dii::email("user@example.com").unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
    }
}
