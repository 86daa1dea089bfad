//! The layer and its settings. [`refreshing`] has the settings of refreshes, [`hooks`] the hooks of the application,
//! [`scopes`] the choice between EUID and UID2, [`storing`] the store, [`explaining`] the reasons for developers.

mod explaining;
mod hooks;
mod refreshing;
mod scopes;
mod storing;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use euid_core::clock::{Clock, SystemClock, UnixMillis};
use euid_core::engine::{Engine, Site};
use euid_core::{CookieConfig, HeaderConfig, KeyRing};
use tower::Layer;

use crate::config::{Config, RefreshMode};
use crate::mistakes::Mistakes;
use crate::refresh::{Coordinator, MemoLimit, Refresh, Settings};
use crate::service::EuidService;
use crate::telemetry::series;

/// The layer around a site's pages: every handler behind it gets the visitor's [`Euid`](crate::Euid).
///
/// The layer is its own builder. Every setting has a default that suits a small site. Make one layer and clone it:
/// clones share the outcomes of refreshes, and the breaker that stops calls while the operator is down.
///
/// ```
/// use std::time::Duration;
/// use tower_euid::{CookieConfig, EuidLayer};
///
/// # let keys = tower_euid::CookieKey::generate()?.into();
/// # let client = tower_euid::refresh_fn(async |identity| Ok(tower_euid::Refreshed::Identity(identity)));
/// let layer = EuidLayer::new(keys, client)
///     .cookie(CookieConfig::default().domain("example.com")?)
///     .max_wait(Duration::from_millis(300));
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
///
/// A late response to a page of one login does no harm to another login, to a logout or to an opt-out: see
/// [the order of responses](crate::docs::threat_model#the-order-of-responses).
///
/// # A layer inside another
///
/// If a request passes two layers, the outer one reads and writes the cookies. If the inner layer is a clone with equal
/// settings, it changes nothing. A different inner layer calls its own hooks, and it can only hide more than the outer
/// layer:
///
/// * If its hook `consent` finds no consent, the handler sees no token, and `Withheld` (or still `OptedOut`). Withdrawn
///   consent also ends the login.
/// * If it has the hook `subject`, an identity is `Absent` if it is bound to another user, or if the inner layer can't
///   decrypt it.
/// * If its hook `logout_when` recognises the response, the response is a logout.
///
/// Its other settings have no effect, and an event warns of that once.
#[derive(Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct EuidLayer {
    pub(crate) config: Arc<Config>,
}

impl EuidLayer {
    /// The default of [`expiry_margin`](Self::expiry_margin): 1 s.
    pub const DEFAULT_EXPIRY_MARGIN: Duration = Engine::DEFAULT_EXPIRY_MARGIN;

    /// Returns a layer that encrypts its cookies under `keys` and refreshes identities through `refresh`, usually an
    /// [`EuidClient`](crate::EuidClient).
    ///
    /// ```
    /// use tower_euid::{CookieKey, EuidLayer, Refreshed, refresh_fn};
    ///
    /// // In a test that needs no operator:
    /// let keeps_all = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// let layer = EuidLayer::new(CookieKey::generate()?.into(), keeps_all);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn new(keys: KeyRing, refresh: impl Refresh) -> Self {
        let clock = Arc::new(SystemClock);
        let scope = refresh.scope().unwrap_or_default();
        let settings = Settings {
            scope,
            refresh: Arc::new(refresh),
            clock: clock.clone(),
            max_wait: Self::DEFAULT_MAX_WAIT,
            call_deadline: Self::DEFAULT_REFRESH_DEADLINE,
            max_concurrent: Self::DEFAULT_MAX_CONCURRENT_REFRESHES,
            memo_limit: MemoLimit { entries: Self::DEFAULT_MEMO_ENTRIES, bytes: Self::DEFAULT_MEMO_BYTES },
        };
        let config = Config {
            engine: Engine::new(keys).with_scope(scope),
            has_domain: false,
            has_headers: false,
            clock,
            coordinator: Arc::new(Coordinator::new(settings)),
            other_scope: None,
            records: None,
            refresh_mode: RefreshMode::default(),
            refresh_when: None,
            consent: None,
            subject: None,
            logout_when: None,
            obeys_tcf_cookie: false,
            explains: false,
            has_request_hooks: false,
            is_plain: true,
            mistakes: Mistakes::default(),
            series: series::Added::default(),
        };
        Self { config: Arc::new(config) }
    }

    /// Returns the ring of keys that encrypt the cookies. You can [reload](KeyRing::reload) it while the layer runs,
    /// because clones of a ring share its keys.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, refresh_fn};
    /// # use tower_euid::error::{ErrorKind, EuidError};
    /// # let (old, new) = (CookieKey::generate()?, CookieKey::generate()?);
    /// # let client = refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "")) });
    /// # let layer = EuidLayer::new(old.clone().into(), client);
    /// let keys = layer.keys(); // e.g. for a task that reads a mounted secret again
    /// keys.reload(KeyRing::new([new, old])?);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn keys(&self) -> KeyRing {
        self.config.engine.keys().clone()
    }

    /// Sets the names and attributes of the cookies, whether scripts get a cookie with the token, and whether the
    /// cookie of the JavaScript SDK is migrated. Default: the prefix `__Host-`, `Secure`, and neither.
    ///
    /// ```
    /// # #[cfg(feature = "client")] {
    /// # use tower_euid::CookieConfig;
    /// # use euid_sandbox::{Sandbox, VisitorState};
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// let layer = layer.cookie(CookieConfig::default().domain("example.com")?);
    /// let visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
    /// assert!(visitor.cookie_header().starts_with("__Secure-euid-login="));
    /// # }
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn cookie(self, config: CookieConfig) -> Self {
        let has_domain = config.has_domain();
        self.set(|config| config.has_domain = has_domain).set_engine(|engine| engine.with_cookie(config))
    }

    /// Takes state in headers too, from apps and TV sets, which have no cookies: [`HeaderConfig`] has their names and what a
    /// client does, and [the guide](crate::docs::apps) all else. Default: cookies alone.
    ///
    /// ```
    /// # #[cfg(feature = "client")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use http::{Request, Response};
    /// # use tower::{Layer, ServiceExt, service_fn};
    /// # use euid_sandbox::Sandbox;
    /// # use tower_euid::{Dii, EuidUpdate};
    /// use tower_euid::HeaderConfig;
    ///
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// # let login = client.generate(Dii::email("user@example.com")?).await?;
    /// # let handler = service_fn(move |_: Request<()>| {
    /// #     let mut response = Response::new(());
    /// #     EuidUpdate::from(login.clone()).attach(&mut response);
    /// #     std::future::ready(Ok::<_, std::convert::Infallible>(response))
    /// # });
    /// let app = layer.headers(HeaderConfig::default()).layer(handler); // the handler of a login
    /// // An app that has no state yet says that it wants headers:
    /// let response = app.oneshot(Request::builder().method("POST").header("Euid-Login", "").body(())?).await?;
    /// assert!(response.headers().contains_key("euid-login") && !response.headers().contains_key("set-cookie"));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn headers(self, config: HeaderConfig) -> Self {
        self.set(|config| config.has_headers = true).set_engine(|engine| engine.with_headers(config))
    }

    /// Sets how long before its expiry (`identity_expires`) handlers no longer get an advertising token. The margin
    /// allows for the time that a bid request takes, and for clocks that are slightly wrong. Default:
    /// [`DEFAULT_EXPIRY_MARGIN`](Self::DEFAULT_EXPIRY_MARGIN).
    ///
    /// ```
    /// # #[cfg(feature = "client")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use std::time::Duration;
    /// # use tower::{Layer, service_fn};
    /// # use euid_sandbox::{Fault, Sandbox, VisitorState};
    /// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
    /// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// # let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
    /// let app = layer.expiry_margin(Duration::from_secs(120)).layer(page);
    /// sandbox.fault(Fault::Status(503)); // the operator issues no new token
    /// sandbox.advance(Duration::from_secs(3600 - 60)); // the old token expires in a minute
    /// assert_eq!(visitor.send(&app, http::Request::new(())).await?.into_body(), "unavailable");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn expiry_margin(self, margin: Duration) -> Self {
        self.set_engine(|engine| engine.with_expiry_margin(margin))
    }

    /// Sets the clock that the layer compares the times of identities with. Default: [`SystemClock`]. Give the same
    /// clock to the client, and to a sandbox.
    ///
    /// ```
    /// # #[cfg(feature = "client")] {
    /// # use tower_euid::{CookieKey, EuidLayer};
    /// # use tower_euid::clock::ManualClock;
    /// # use euid_sandbox::Sandbox;
    /// let clock = ManualClock::running();
    /// let sandbox = Sandbox::builder().clock(clock.clone()).build()?;
    /// # let (client, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// let layer = EuidLayer::new(CookieKey::generate()?.into(), client).clock(clock);
    /// # }
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn clock(self, clock: impl Clock) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(clock);
        self.set(|config| config.clock = Arc::clone(&clock))
            .set_coordinator(|settings| settings.clock = Arc::clone(&clock))
            .set_records(|settings| settings.clock = Arc::clone(&clock))
    }

    /// Sets whether the next page encrypts an identity again, under the first key, if it is under another one. By
    /// default only a refresh does that. Use it before the last step of a [change of keys](KeyRing#changing-keys), when
    /// all nodes have the same first key. Default: no.
    ///
    /// ```
    /// # #[cfg(feature = "client")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower::{Layer, service_fn};
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing};
    /// # use euid_sandbox::{Sandbox, VisitorState};
    /// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
    /// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (old, new) = (CookieKey::generate()?, CookieKey::generate()?);
    /// # let (client, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// let keys = KeyRing::from(old.clone());
    /// let layer = EuidLayer::new(keys.clone(), client).clock(sandbox.clock()).reseal(true);
    /// let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?; // sealed under the old key
    /// keys.reload(KeyRing::new([new, old])?);
    /// let response = visitor.send(&layer.layer(page), http::Request::new(())).await?;
    /// assert!(response.headers().contains_key("set-cookie"));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn reseal(self, at_once: bool) -> Self {
        self.set_engine(|engine| engine.with_reseal(at_once))
    }

    fn set(mut self, change: impl FnOnce(&mut Config)) -> Self {
        let config = Arc::make_mut(&mut self.config);
        change(config);
        config.has_request_hooks = config.consent.is_some() || config.subject.is_some() || config.other_scope.is_some();
        config.is_plain = !config.has_request_hooks && !config.explains;
        self
    }

    fn set_engine(self, change: impl FnOnce(Engine) -> Engine) -> Self {
        self.set(|config| config.engine = change(config.engine.clone()))
    }

    /// Changes the settings of refreshes, in each scope.
    fn set_coordinator(self, change: impl Fn(&mut Settings)) -> Self {
        self.set(|config| {
            config.coordinator = Arc::new(config.coordinator.with(&change));
            if let Some(other) = &mut config.other_scope {
                other.coordinator = Arc::new(other.coordinator.with(&change));
            }
        })
    }
}

impl<S> Layer<S> for EuidLayer {
    type Service = EuidService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        if self.config.has_domain && self.config.subject.is_none() {
            self.config.mistakes.domain_without_subject();
        }
        if self.config.other_scope.is_some() && self.config.subject.is_none() {
            self.config.mistakes.both_scopes_without_subject();
        }
        if self.config.subject.is_none() && self.sessions().is_some() {
            self.config.mistakes.store_without_subject();
        }
        self.config.add_series();
        EuidService::new(inner, Arc::clone(&self.config))
    }
}

impl Site for EuidLayer {
    fn engine(&self) -> &Engine {
        &self.config.engine
    }

    fn now(&self) -> UnixMillis {
        self.config.now()
    }
}

impl fmt::Debug for EuidLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EuidLayer").field("config", &self.config).finish()
    }
}
