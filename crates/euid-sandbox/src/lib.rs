//! A stand-in operator of EUID or UID2, for demos and for tests of sites.
//!
//! A publisher's server sees the same status codes, messages and token sizes as from the real operator. But bidders do
//! not know the ids in its tokens.
//!
//! 1. [`Sandbox`] is a [`tower::Service`]; [`Sandbox::serve`] puts it on a loopback port.
//! 2. It answers `/v2/token/generate`, `/v2/token/refresh`, `/v2/token/validate` and `GET /ops/healthcheck`, to
//!    browsers too (CORS). Endpoints for which a publisher's key has no role respond with 401, among them
//!    `/v2/token/logout`. Endpoints for client-side generation respond with 404.
//! 3. Its time is a [`ManualClock`]: tests [`advance`](Sandbox::advance) it and do not sleep.
//! 4. Its only state about people is the list of those who [opted out](Sandbox::opt_out). Token keys are public
//!    constants, so tokens outlive the sandbox, can be refreshed more than once, and are worth nothing.
//! 5. It plays one [scope](SandboxBuilder::scope), EUID or UID2. A site with both has a sandbox for each, on one
//!    [clock](SandboxBuilder::clock).
//! 6. Some people have fixed outcomes, by email address or phone number (or its hash):
//!
//! | | generate | refresh |
//! | --- | --- | --- |
//! | `validate@example.com`, `+12345678901` | success | success, even if opted out |
//! | `optout@example.com`, `+00000000000` | opted out | |
//! | `refresh-optout@example.com`, `+00000000002` | success | opted out |
//! | `optout@email.com`, of older guides | success | opted out |
//! | `validate@email.com`, of older guides | success | success, even if opted out |
//!
//! The real operator now treats the last two as ordinary people.
//!
//! Never use it in production: its keys are public.
//!
//! ```
//! use std::time::Duration;
//! use euid_sandbox::Sandbox;
//! use tower_euid::{Dii, Generated, Refreshed};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sandbox = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
//! let client = tower_euid::EuidClientBuilder::from_operator(sandbox.operator()).clock(sandbox.sandbox().clock()).build()?;
//!
//! let user = Dii::email("user@example.com")?;
//! let Generated::Identity(identity) = client.generate(user).await? else { unreachable!() };
//!
//! sandbox.advance(Duration::from_secs(900));
//! assert!(matches!(client.refresh(&identity).await?, Refreshed::Identity(_)));
//!
//! sandbox.opt_out(user);
//! assert_eq!(client.refresh(&identity).await?, Refreshed::OptedOut);
//! # Ok(())
//! # }
//! ```
//!
//! [`docs::testing`](https://docs.rs/tower-euid/latest/tower_euid/docs/testing/) of tower-euid shows how a site uses it
//! in its tests, with one scope or both.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
mod body;
mod builder;
mod calls;
#[cfg(test)]
mod captures;
mod cors;
mod fault;
mod operator;
mod optout_check;
mod person;
mod route;
mod server;
mod service;
mod token;
mod visitor;
mod visitor_state;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use euid_core::clock::ManualClock;
#[cfg(test)]
use euid_core::protocol::{Key, RequestNonce};
use euid_core::protocol::{SANDBOX_API_KEY, api_key_prefix};
use euid_core::{Dii, Scope};
use zeroize::Zeroizing;

pub use self::builder::{Lifetimes, SandboxBuilder};
pub use self::calls::Calls;
use self::calls::Counters;
pub use self::fault::Fault;
use self::operator::Operator;
use self::person::Person;
pub use self::server::SandboxServer;
pub use self::visitor::Visitor;
pub use self::visitor_state::VisitorState;

/// A stand-in operator. Cheap to clone; clones share clock, opt-outs, fault and counters.
///
/// It is a [`tower::Service`] for any `http::Request`. It is always ready and never returns an error: a wrong request
/// gets a response with the operator's status and message. See the [module](self).
///
/// ```
/// use http::Request;
/// use tower::ServiceExt;
/// use euid_sandbox::Sandbox;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sandbox = Sandbox::builder().build()?;
/// let unauthorized = sandbox.oneshot(Request::post("/v2/token/generate").body(String::new())?).await?;
/// assert_eq!(unauthorized.status(), 401); // the request has no API key
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    operator: Operator,
    /// This operator, as a publisher calls it.
    caller: euid_core::Operator,
    client_secret: Zeroizing<String>,
    clock: ManualClock,
    opted_out: Mutex<HashSet<Person>>,
    fault: Mutex<Option<Fault>>,
    calls: Counters,
}

impl Sandbox {
    /// The client secret that belongs to the default API keys: standard base64 of 32 bytes. It is public.
    pub const DEFAULT_CLIENT_SECRET: &str = "dG93ZXItZXVpZCBzYW5kYm94OiBubyBzZWNyZXQgMDE=";

    /// Returns a builder, which configures a sandbox.
    ///
    /// ```
    /// # use euid_sandbox::Sandbox;
    /// let sandbox = Sandbox::builder().build()?; // with all defaults
    /// assert_eq!(sandbox.client_secret(), Sandbox::DEFAULT_CLIENT_SECRET);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn builder() -> SandboxBuilder {
        SandboxBuilder::new()
    }

    /// Returns the API key that a sandbox of this scope accepts by default. It is public, and a client of a real operator
    /// refuses it.
    ///
    /// ```
    /// # use euid_sandbox::Sandbox;
    /// use tower_euid::Scope;
    ///
    /// let sandbox = Sandbox::builder().build()?;
    /// assert_eq!(sandbox.api_key(), Sandbox::default_api_key(Scope::Euid));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn default_api_key(scope: Scope) -> String {
        format!("{}{SANDBOX_API_KEY}", api_key_prefix(scope))
    }

    /// Returns the scope that the sandbox plays.
    ///
    /// ```
    /// # use euid_sandbox::Sandbox;
    /// use tower_euid::Scope;
    ///
    /// assert_eq!(Sandbox::builder().build()?.scope(), Scope::Euid);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.0.operator.issuer.scope
    }

    /// Returns the API key that the sandbox accepts.
    ///
    /// ```
    /// # use tower_euid::{Environment, EuidClient};
    /// # use euid_sandbox::Sandbox;
    /// # let sandbox = Sandbox::builder().build()?;
    /// // A client in another process knows only the URL of the sandbox:
    /// let client = EuidClient::builder(Environment::Url("http://localhost:3000".to_owned()))
    ///     .credentials(sandbox.api_key(), sandbox.client_secret())
    ///     .build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.0.operator.api_key
    }

    /// Returns the client secret that the sandbox accepts: standard base64 of 32 bytes.
    ///
    /// ```
    /// # use euid_sandbox::Sandbox;
    /// let sandbox = Sandbox::builder().build()?;
    /// let prefix = sandbox.scope().env_prefix(); // `EUID_` or `UID2_`
    /// println!("{prefix}API_KEY={} {prefix}CLIENT_SECRET={}", sandbox.api_key(), sandbox.client_secret());
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn client_secret(&self) -> &str {
        &self.0.client_secret
    }

    /// Returns the sandbox's credentials and URL, for a client. The URL reaches nothing: give the client the sandbox
    /// itself as its HTTP service. The URL in [`SandboxServer::operator`] has a port.
    ///
    /// ```
    /// # use tower_euid::{Dii, Generated};
    /// # use euid_sandbox::Sandbox;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let sandbox = Sandbox::builder().build()?;
    /// let (client, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// let generated = client.generate(Dii::email("user@example.com")?).await?;
    /// assert!(matches!(generated, Generated::Identity(_)));
    /// assert_eq!(sandbox.calls().generate, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn operator(&self) -> euid_core::Operator {
        self.0.caller.clone()
    }

    /// Returns the sandbox's clock, for layer and client to share.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_euid::clock::Clock;
    /// # use euid_sandbox::Sandbox;
    /// let sandbox = Sandbox::builder().build()?;
    /// let (clock, before) = (sandbox.clock(), sandbox.clock().now());
    /// sandbox.advance(Duration::from_secs(60));
    /// assert!(clock.now().saturating_since(before) >= Duration::from_secs(60)); // one clock
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn clock(&self) -> ManualClock {
        self.0.clock.clone()
    }

    /// Moves the clock forward by `duration`, in whole milliseconds.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_euid::{Dii, Generated};
    /// # use tower_euid::clock::Clock;
    /// # use euid_sandbox::Sandbox;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let user = Dii::email("user@example.com")?;
    /// # let Generated::Identity(identity) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?.0.generate(user).await? else { unreachable!() };
    /// assert!(!identity.times().is_due(sandbox.clock().now()));
    /// sandbox.advance(Duration::from_secs(900));
    /// assert!(identity.times().is_due(sandbox.clock().now()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn advance(&self, duration: Duration) {
        self.0.clock.advance(duration);
    }

    /// Opts a person out, for as long as the sandbox lives: generate and refresh return an opt-out from now on.
    ///
    /// ```
    /// # use tower_euid::{Dii, Generated};
    /// # use euid_sandbox::Sandbox;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let client = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?.0;
    /// let user = Dii::email("user@example.com")?;
    /// sandbox.opt_out(user);
    /// assert_eq!(client.generate(user).await?, Generated::OptedOut);
    /// # Ok(())
    /// # }
    /// ```
    pub fn opt_out(&self, person: Dii) {
        lock(&self.0.opted_out).insert(person.into());
    }

    /// Sets the fault of all calls from now on; `None` ends the fault.
    ///
    /// ```
    /// # use tower_euid::Dii;
    /// # use euid_sandbox::{Fault, Sandbox};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (client, user) = (tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?.0, Dii::email("user@example.com")?);
    /// sandbox.fault(Fault::Status(502));
    /// assert!(client.generate(user).await.is_err());
    /// sandbox.fault(None);
    /// assert!(client.generate(user).await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn fault(&self, fault: impl Into<Option<Fault>>) {
        *lock(&self.0.fault) = fault.into();
    }

    /// Returns the number of calls so far, by path. Calls with a fault and rejected calls count too.
    ///
    /// ```
    /// # use tower_euid::Dii;
    /// # use euid_sandbox::{Fault, Sandbox};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let client = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?.0;
    /// sandbox.fault(Fault::Garbage);
    /// let _ = client.generate(Dii::email("user@example.com")?).await;
    /// assert_eq!((sandbox.calls().generate, sandbox.calls().refresh), (1, 0)); // the call with the fault counts
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.0.calls.read()
    }

    /// Returns the number of calls of `/v2/token/refresh` so far.
    ///
    /// ```
    /// # use tower::{Layer, service_fn};
    /// # use euid_sandbox::{Sandbox, VisitorState};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
    /// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// # let app = layer.layer(page);
    /// let mut visitor = sandbox.visitor(&layer, VisitorState::Due)?;
    /// for _ in 0..2 {
    ///     visitor.send(&app, http::Request::new(())).await?;
    /// }
    /// assert_eq!(sandbox.refresh_calls(), 1); // the second page came with the new cookie
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn refresh_calls(&self) -> u64 {
        self.calls().refresh
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("scope", &self.scope())
            .field("clock", &self.0.clock)
            .field("lifetimes", &self.0.operator.lifetimes)
            .field("fault", &*lock(&self.0.fault))
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}

/// Fresh random bytes.
fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Opens a response, as the client that sent `nonce` does.
#[cfg(test)]
fn opened_response(secret: &Key, nonce: RequestNonce, envelope: &[u8]) -> Vec<u8> {
    let opened = euid_core::protocol::open(secret, envelope).unwrap();
    let (stamp, json) = opened.split_at(16);
    assert_eq!(stamp[8..], nonce);
    json.to_vec()
}

/// No code that holds one of the locks can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The README's code compiles as it stands there.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
