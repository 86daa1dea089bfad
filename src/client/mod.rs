//! The client of the EUID operator, for a publisher's server.
//!
//! [`EuidClient`] makes the three calls; [`builder`], with [`credentials`] and [`endpoint`], configures it;
//! [`dii`] and [`generate`] hold the input and outcome of a login; [`protocol`] is the wire without I/O;
//! [`transport`], with [`reuse`] and [`tls`], is the HTTP; [`skew`] compares the clocks.

mod builder;
mod reuse;
mod skew;
mod tls;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use zeroize::Zeroizing;

pub use self::builder::EuidClientBuilder;
use self::skew::SkewCheck;
use self::transport::Transport;
use crate::refresh::Refresh;
#[cfg(feature = "sandbox")]
use crate::sandbox::Sandbox;
use euid_core::Refreshed;
use euid_core::clock::Clock;
#[cfg(feature = "sandbox")]
use euid_core::error::ConfigError;
use euid_core::error::{ErrorKind, EuidError};
use euid_core::identity::Identity;
#[cfg(feature = "sandbox")]
use euid_core::operator::credentials::parse_secret;
use euid_core::operator::credentials::{self, Given};
use euid_core::protocol::answer::{self, Question, Sent};
use euid_core::protocol::envelope::{BASE64, Key, seal_request};
use euid_core::random;
use euid_core::{Dii, GenerateRequest, Generated, protocol};

/// Which operator to call.
///
/// ```
/// use tower_euid::{Environment, EuidClient};
///
/// let sandbox = Environment::Url("http://localhost:3000".to_owned());
/// let client = EuidClient::builder(sandbox).build()?;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Environment {
    /// `https://prod.euid.eu`
    Production,
    /// `https://integ.euid.eu`: its own keys and ids, short lifetimes.
    Integration,
    /// A private operator or the sandbox: its base URL, without `/v2/…`.
    Url(String),
}

impl Environment {
    fn base_url(&self) -> &str {
        match self {
            Self::Production => "https://prod.euid.eu",
            Self::Integration => "https://integ.euid.eu",
            Self::Url(url) => url,
        }
    }
}

/// A client of the EUID operator. Cheap to clone; clones share connections.
///
/// Every call is one POST over HTTP/1.1: no redirect, an answer of at most 64 KiB, within
/// [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT) unless set otherwise. It is made once more, within the same
/// time, only if a connection that was kept from an earlier call turns out to be closed before the head of
/// an answer has come; the operator answers a repeated call as the first.
///
/// For https, the proxy in the environment variable `HTTPS_PROXY` (or `ALL_PROXY`) is used, except for
/// the hosts in `NO_PROXY`. For plain http no proxy is used: it would see the API key.
///
/// One client belongs to one tokio runtime. Connections are driven by tasks of the runtime in which they
/// were opened, and the clones of a client share connections. Once that runtime has ended, the first call
/// from another finds the connections closed and opens new ones; while it lives but is not polled, as a
/// current-thread runtime outside of `block_on`, a call over one of its connections waits until its timeout.
/// So build one client per runtime, and in tests one per test.
///
/// The machine's clock should be right: an answer whose time differs by more than 30 seconds is taken,
/// and logged as a warning once per client; from two minutes on the operator refuses calls.
///
/// ```no_run
/// use tower_euid::{Dii, Environment, EuidClient, Generated};
///
/// # async fn run(api_key: &str, secret: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let client = EuidClient::builder(Environment::Integration).credentials(api_key, secret).build()?;
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
/// The client secret, an opened answer and the refresh token that [`refresh`](Self::refresh) sends are
/// wiped when dropped. Not wiped are the API key, which is a header of every request, and the buffers of
/// hyper (the HTTP library) and rustls (the TLS library), into which both copy what they send and receive.
#[derive(Clone)]
pub struct EuidClient(Arc<Inner>);

struct Inner {
    transport: Transport,
    secret: Option<Zeroizing<Key>>,
    clock: Arc<dyn Clock>,
    optout_check: bool,
    skew: SkewCheck,
}

impl EuidClient {
    /// How long connecting may take, unless set otherwise: 2 s.
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    /// How long a whole call may take, unless set otherwise: 5 s.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

    /// Starts configuring a client.
    ///
    /// ```
    /// # use tower_euid::{Dii, Environment, ErrorKind, EuidClient};
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
        EuidClientBuilder::new(Given::in_code(environment), None)
    }

    /// A client of a sandbox in this process, with its credentials and clock.
    #[cfg(feature = "sandbox")]
    pub(crate) fn in_process(sandbox: &Sandbox) -> Result<Self, ConfigError> {
        let authorization = credentials::bearer(sandbox.api_key())?;
        let inner = Inner {
            transport: Transport::in_process(sandbox.clone(), authorization, Self::DEFAULT_TIMEOUT),
            secret: Some(parse_secret(sandbox.client_secret())?),
            clock: Arc::new(sandbox.clock()),
            optout_check: false,
            skew: SkewCheck::default(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Asks for an identity: `POST /v2/token/generate`. To be called when a visitor has logged in
    /// and has consented to it.
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower_euid::{Dii, Generated};
    /// # use tower_euid::sandbox::Sandbox;
    /// let client = Sandbox::builder().build()?.client()?;
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
    /// [`RejectedInput`](ErrorKind::RejectedInput) for an address the operator does not take,
    /// [`Unauthorized`](ErrorKind::Unauthorized) also for a client without credentials, and every
    /// other [`ErrorKind`] but [`RejectedToken`](ErrorKind::RejectedToken).
    ///
    /// # Panics
    ///
    /// Where it would call the operator outside a tokio runtime with I/O and time enabled.
    pub async fn generate(&self, request: impl Into<GenerateRequest>) -> Result<Generated, EuidError> {
        let request = request.into();
        let mut question = Question::about(&request.dii);
        question.tcf_consent_string = request.tcf_consent_string.as_deref();
        question.optout_check = self.0.optout_check.then_some(1);
        answer::generated(&self.ask(protocol::GENERATE, &question).await?)
    }

    /// Asks whether `advertising_token` is one that this publisher got for this person:
    /// `POST /v2/token/validate`. For tests of an integration; expiry is not looked at.
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower_euid::{Dii, Generated};
    /// # use tower_euid::sandbox::Sandbox;
    /// # let client = Sandbox::builder().build()?.client()?;
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
        let mut question = Question::about(&dii);
        question.token = Some(advertising_token);
        answer::validated(&self.ask(protocol::VALIDATE, &question).await?)
    }

    /// Asks for the successor of an identity: `POST /v2/token/refresh`. The layer does this by
    /// itself; needs no credentials, but says more about a failure with them.
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower_euid::{Dii, Generated, Refreshed};
    /// # use tower_euid::sandbox::Sandbox;
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (client, user) = (sandbox.client()?, Dii::email("user@example.com")?);
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
    /// [`RejectedToken`](ErrorKind::RejectedToken) for a refresh token at its end. Without an API
    /// key, or with a wrong one, the operator does not tell that from other failures:
    /// [`UnknownStatus`](ErrorKind::UnknownStatus). [`RejectedInput`](ErrorKind::RejectedInput) for
    /// what it can't read as a refresh token, [`Undecryptable`](ErrorKind::Undecryptable) if the
    /// response key is another token's; and [`Transient`](ErrorKind::Transient) or
    /// [`Malformed`](ErrorKind::Malformed).
    ///
    /// # Panics
    ///
    /// As [`generate`](Self::generate).
    pub async fn refresh(&self, identity: &Identity) -> Result<Refreshed, EuidError> {
        let Inner { transport, clock, .. } = &*self.0;
        let token = identity.refresh_token().expose_secret();
        // The copy is wiped once the request is dropped.
        let body = Bytes::from_owner(Zeroizing::new(token.as_bytes().to_vec()));
        let received = transport.post(protocol::REFRESH, body).await?;
        let sent =
            Sent { noun: "the refresh token", values: [Some(token), None, None, None], api_key: transport.api_key() };
        answer::refreshed(received.answer(sent, clock.now()), identity.response_key())
    }

    /// Seals a question, posts it, and returns the JSON of the answer.
    async fn ask(&self, path: &'static str, question: &Question<'_>) -> Result<Zeroizing<Vec<u8>>, EuidError> {
        let Inner { transport, secret, clock, skew, .. } = &*self.0;
        let Some(secret) = secret else {
            return Err(EuidError::new(ErrorKind::Unauthorized, "this client was built without credentials"));
        };
        let no_randomness = |error| EuidError::new(ErrorKind::Transient, "no randomness for an IV").with_source(error);
        let iv = random::bytes().map_err(no_randomness)?;
        let nonce = random::bytes().map_err(no_randomness)?;
        let asked_at = clock.now();
        let envelope = seal_request(secret, iv, asked_at, nonce, &question.to_json()?);
        let received = transport.post(path, BASE64.encode(envelope).into()).await?;
        let answered_at = clock.now();
        let sent = Sent { noun: "the input", values: question.values(), api_key: transport.api_key() };
        let (operators_time, json) = answer::open(received.answer(sent, answered_at), secret, nonce)?;
        skew.compare(asked_at, operators_time, answered_at);
        Ok(json)
    }
}

impl Refresh for EuidClient {
    async fn refresh(&self, identity: &Identity) -> Result<Refreshed, EuidError> {
        self.refresh(identity).await
    }
}

impl fmt::Debug for EuidClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EuidClient").field("credentials", &self.0.transport.api_key().is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_credentials_generate_is_refused_before_anything_is_sent() {
        let client = EuidClient::builder(Environment::Url("http://127.0.0.1:9".to_owned())).build().unwrap();
        let error = client.generate(Dii::email("user@example.com").unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
    }
}
