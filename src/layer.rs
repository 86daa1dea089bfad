//! What the application configures.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{request, response};
use tower::Layer;

use crate::clock::{Clock, SystemClock};
use crate::cookie::{CookieConfig, Cookies, KeyRing};
use crate::plan::Consent;
use crate::refresh::{Desk, MemoLimit, Refresh, Settings};
use crate::service::EuidService;

/// The layer around a site's pages: every handler behind it knows the visitor's [`Euid`](crate::Euid).
///
/// It is its own builder; every setting has a default that suits a small site. Clones share what
/// they know, so make one and clone it.
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
#[derive(Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct EuidLayer {
    pub(crate) shared: Arc<Shared>,
}

/// When the handler runs, while a refresh is due.
///
/// ```
/// # #[cfg(feature = "sandbox")]
/// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?.block_on(async {
/// # use std::time::Duration;
/// # use tokio::time::timeout;
/// # use tower::{Layer, service_fn};
/// # use tower_euid::RefreshMode;
/// # use tower_euid::sandbox::{Fault, Sandbox, VisitorState};
/// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
/// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
/// # let sandbox = Sandbox::builder().build()?;
/// # let (_, layer) = sandbox.client_and_layer()?;
/// sandbox.fault(Fault::Delay(Duration::from_millis(200))); // the operator takes its time
/// for (mode, at_once) in [(RefreshMode::Before, false), (RefreshMode::Beside, true)] {
///     let mut visitor = sandbox.visitor(&layer, VisitorState::Due)?;
///     let app = layer.clone().refresh_mode(mode).layer(page);
///     let sent = timeout(Duration::from_millis(100), visitor.send(&app, http::Request::new(()))).await;
///     assert_eq!(sent.is_ok_and(|page| page.is_ok_and(|page| *page.body() == "active")), at_once);
/// }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshMode {
    /// After the refresh, or after [`max_wait`](EuidLayer::max_wait) with what is still valid: the
    /// token is refreshed before it is used, as the EUID guide asks.
    #[default]
    Before,
    /// At once, as long as the token is valid. The new cookie goes out if the answer is there when
    /// the response head is, else with the next request of this visitor that meets this node within
    /// 45 s. An expired token is waited for as in [`Before`](Self::Before).
    Beside,
}

/// All that requests share. Read-only once the layer has been put together.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) keys: KeyRing,
    pub(crate) cookies: Cookies,
    pub(crate) desk: Arc<Desk>,
    pub(crate) refresh_mode: RefreshMode,
    pub(crate) refresh_jitter: Duration,
    pub(crate) refresh_when: Option<Arc<RefreshWhen>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) expiry_margin: Duration,
    pub(crate) consent: Option<Arc<ConsentOf>>,
    pub(crate) bind: Option<Arc<SignedInUser>>,
    pub(crate) reseal: bool,
    pub(crate) logout_when: Option<Arc<LogoutWhen>>,
}

pub(crate) type RefreshWhen = dyn Fn(&request::Parts) -> bool + Send + Sync;
pub(crate) type ConsentOf = dyn Fn(&request::Parts) -> Consent + Send + Sync;
pub(crate) type SignedInUser = dyn Fn(&request::Parts) -> Option<Box<[u8]>> + Send + Sync;
pub(crate) type LogoutWhen = dyn Fn(&response::Parts) -> bool + Send + Sync;

impl EuidLayer {
    /// How long a page waits for a refresh, unless set otherwise: 500 ms.
    pub const DEFAULT_MAX_WAIT: Duration = Duration::from_millis(500);
    /// How long a refresh may take, pages waiting or not, unless set otherwise: 10 s.
    pub const DEFAULT_REFRESH_DEADLINE: Duration = Duration::from_secs(10);
    /// How many refreshes may be under way at once, unless set otherwise: 64.
    pub const DEFAULT_MAX_CONCURRENT_REFRESHES: usize = 64;
    /// How many refresh tokens are kept in mind, unless set otherwise: 10 000.
    pub const DEFAULT_MEMO_ENTRIES: usize = 10_000;
    /// How many bytes that may take, unless set otherwise: 16 MiB.
    pub const DEFAULT_MEMO_BYTES: usize = 16 << 20;
    /// By how much the moment of a refresh is spread at most, unless set otherwise: 10 min.
    pub const DEFAULT_REFRESH_JITTER: Duration = Duration::from_secs(600);
    /// How long before its end a token is no longer handed out, unless set otherwise: 1 s.
    pub const DEFAULT_EXPIRY_MARGIN: Duration = Duration::from_secs(1);

    /// A layer that seals under `keys` and asks `refresh`, usually an
    /// [`EuidClient`](crate::EuidClient), for new identities.
    ///
    /// ```
    /// use tower_euid::{CookieKey, EuidLayer, Refreshed, refresh_fn};
    ///
    /// // In a test that is about something else:
    /// let keeps_all = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// let layer = EuidLayer::new(CookieKey::generate()?.into(), keeps_all);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn new(keys: KeyRing, refresh: impl Refresh) -> Self {
        let clock = Arc::new(SystemClock);
        let settings = Settings {
            refresh: Arc::new(refresh),
            clock: clock.clone(),
            max_wait: Self::DEFAULT_MAX_WAIT,
            deadline: Self::DEFAULT_REFRESH_DEADLINE,
            max_concurrent: Self::DEFAULT_MAX_CONCURRENT_REFRESHES,
            memo_limit: MemoLimit { entries: Self::DEFAULT_MEMO_ENTRIES, bytes: Self::DEFAULT_MEMO_BYTES },
        };
        let shared = Shared {
            keys,
            cookies: Cookies::new(CookieConfig::default()),
            desk: Arc::new(Desk::new(settings)),
            refresh_mode: RefreshMode::default(),
            refresh_jitter: Self::DEFAULT_REFRESH_JITTER,
            refresh_when: None,
            clock,
            expiry_margin: Self::DEFAULT_EXPIRY_MARGIN,
            consent: None,
            bind: None,
            reseal: false,
            logout_when: None,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The keys that cookies are sealed under, to [`reload`](KeyRing::reload) while the layer works: clones
    /// of a ring share its keys.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidError, EuidLayer, ErrorKind, KeyRing, refresh_fn};
    /// # let (old, new) = (CookieKey::generate()?, CookieKey::generate()?);
    /// # let client = refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "")) });
    /// # let layer = EuidLayer::new(old.clone().into(), client);
    /// let keys = layer.keys(); // e.g. for a task that reads a mounted secret again
    /// keys.reload(KeyRing::new([new, old])?);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn keys(&self) -> KeyRing {
        self.shared.keys.clone()
    }

    /// Names and attributes of the cookies, and which cookies of scripts there are beside them.
    /// Default: `__Host-euid`, secure, and none.
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")] {
    /// # use tower_euid::CookieConfig;
    /// # use tower_euid::sandbox::{Sandbox, VisitorState};
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = sandbox.client_and_layer()?;
    /// let layer = layer.cookie(CookieConfig::default().domain("example.com")?);
    /// let visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
    /// assert!(visitor.cookie_header().starts_with("__Secure-euid="));
    /// # }
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn cookie(self, config: CookieConfig) -> Self {
        self.set(|shared| shared.cookies = Cookies::new(config))
    }

    /// How long a page waits for a refresh at most. Meanwhile it keeps the inner service's
    /// readiness, so with a `load_shed` inside others may be shed. With zero no page waits, and the
    /// answer is there for the visitor's next request.
    /// Default: [`DEFAULT_MAX_WAIT`](Self::DEFAULT_MAX_WAIT).
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")]
    /// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?.block_on(async {
    /// # use std::time::Duration;
    /// # use tokio::time::timeout;
    /// # use tower::{Layer, service_fn};
    /// # use tower_euid::sandbox::{Fault, Sandbox, VisitorState};
    /// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
    /// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = sandbox.client_and_layer()?;
    /// let app = layer.clone().max_wait(Duration::from_millis(100)).layer(page);
    /// # let mut visitor = sandbox.visitor(&layer, VisitorState::Due)?;
    /// sandbox.fault(Fault::Delay(Duration::from_secs(60))); // the operator hangs
    /// let page = timeout(Duration::from_millis(101), visitor.send(&app, http::Request::new(()))).await?;
    /// assert_eq!(page?.into_body(), "active"); // with the old token, which is still good
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_wait(self, max_wait: Duration) -> Self {
        self.set_desk(|settings| settings.max_wait = max_wait)
    }

    /// When the handler runs, while a refresh is due. Default: [`RefreshMode::Before`].
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, Refreshed, refresh_fn};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// use tower_euid::RefreshMode;
    ///
    /// // Pages that must not wait, and whose bidders take an older token:
    /// let layer = EuidLayer::new(keys, client).refresh_mode(RefreshMode::Beside);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn refresh_mode(self, mode: RefreshMode) -> Self {
        self.set(|shared| shared.refresh_mode = mode)
    }

    /// How long one refresh may take, the time in the queue for
    /// [`max_concurrent_refreshes`](Self::max_concurrent_refreshes) included. It runs in a task of its
    /// own and goes on when the page that began it has gone. Default:
    /// [`DEFAULT_REFRESH_DEADLINE`](Self::DEFAULT_REFRESH_DEADLINE).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, Refreshed, refresh_fn};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// // A little above the client's own timeout of 5 s:
    /// let layer = EuidLayer::new(keys, client).refresh_deadline(Duration::from_secs(6));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn refresh_deadline(self, deadline: Duration) -> Self {
        self.set_desk(|settings| settings.deadline = deadline)
    }

    /// How many refreshes may be under way at once, at least one; others queue, and their pages wait
    /// no longer for it. The one that finds out whether an operator is back does not queue. Default:
    /// [`DEFAULT_MAX_CONCURRENT_REFRESHES`](Self::DEFAULT_MAX_CONCURRENT_REFRESHES).
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, Refreshed, refresh_fn};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// // 20 nodes, and an operator that takes 400 calls at once:
    /// let layer = EuidLayer::new(keys, client).max_concurrent_refreshes(20);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn max_concurrent_refreshes(self, max: usize) -> Self {
        self.set_desk(|settings| settings.max_concurrent = max)
    }

    /// How much is remembered of refreshes: of how many tokens (at least one), calls under way
    /// included, and in how many bytes. An answer is remembered for 45 s, so that requests which still
    /// carry the old cookie get it without a call; a failure for as long as the token rests, and 5 min
    /// more, so that the next rest is longer. The oldest goes first, which costs a call at worst. Defaults:
    /// [`DEFAULT_MEMO_ENTRIES`](Self::DEFAULT_MEMO_ENTRIES),
    /// [`DEFAULT_MEMO_BYTES`](Self::DEFAULT_MEMO_BYTES).
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, Refreshed, refresh_fn};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// // 2000 refreshes a second, each remembered for 45 s, and as many bytes a token as by default:
    /// let layer = EuidLayer::new(keys, client).memo_limit(90_000, 144 << 20);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn memo_limit(self, entries: usize, bytes: usize) -> Self {
        self.set_desk(|settings| settings.memo_limit = MemoLimit { entries: entries.max(1), bytes })
    }

    /// By how much the moment of a refresh may lie behind `refresh_from`, so that visitors who
    /// logged in together do not refresh together. Each login has its own delay, the same on every
    /// node: at most this, and at most a tenth of the time from `refresh_from` to
    /// `identity_expires`. Zero turns it off. Default:
    /// [`DEFAULT_REFRESH_JITTER`](Self::DEFAULT_REFRESH_JITTER).
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use std::time::Duration;
    /// # use tower::{Layer, service_fn};
    /// # use tower_euid::sandbox::{Sandbox, VisitorState};
    /// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
    /// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
    /// # let clock = tower_euid::ManualClock::at(tower_euid::UnixMillis::from_millis(1_735_689_600_000));
    /// # let sandbox = Sandbox::builder().clock(clock).build()?;
    /// # let (_, layer) = sandbox.client_and_layer()?;
    /// # let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
    /// let app = layer.refresh_jitter(Duration::ZERO).layer(page);
    /// sandbox.advance(Duration::from_secs(900) - Duration::from_millis(1)); // due 15 min after the login
    /// visitor.send(&app, http::Request::new(())).await?;
    /// assert_eq!(sandbox.refresh_calls(), 0);
    /// sandbox.advance(Duration::from_millis(1));
    /// visitor.send(&app, http::Request::new(())).await?;
    /// assert_eq!(sandbox.refresh_calls(), 1);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn refresh_jitter(self, most: Duration) -> Self {
        self.set(|shared| shared.refresh_jitter = most)
    }

    /// Which requests may refresh. Those that no page is shown for never do: prefetches and
    /// prerenders, `OPTIONS`, upgrades, and what a browser fetches as image, script, style or font;
    /// they see a token that is still valid. Default: all others.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidError, EuidLayer, ErrorKind, KeyRing, refresh_fn};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "")) });
    /// let layer = EuidLayer::new(keys, client)
    ///     .refresh_when(|request| !request.uri.path().starts_with("/beacon/"));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn refresh_when(self, may_refresh: impl Fn(&request::Parts) -> bool + Send + Sync + 'static) -> Self {
        self.set(|shared| shared.refresh_when = Some(Arc::new(may_refresh)))
    }

    /// How long before `identity_expires` a token is no longer handed out, for the time that a bid
    /// request takes and for clocks that are a little off. Default:
    /// [`DEFAULT_EXPIRY_MARGIN`](Self::DEFAULT_EXPIRY_MARGIN).
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use std::time::Duration;
    /// # use tower::{Layer, service_fn};
    /// # use tower_euid::sandbox::{Fault, Sandbox, VisitorState};
    /// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
    /// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = sandbox.client_and_layer()?;
    /// # let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
    /// let app = layer.expiry_margin(Duration::from_secs(120)).layer(page);
    /// sandbox.fault(Fault::Status(503)); // no new token is to be had
    /// sandbox.advance(Duration::from_secs(3600 - 60)); // and a minute is left of the old one
    /// assert_eq!(visitor.send(&app, http::Request::new(())).await?.into_body(), "unavailable");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn expiry_margin(self, margin: Duration) -> Self {
        self.set(|shared| shared.expiry_margin = margin)
    }

    /// The clock that identities are held against. Default: [`SystemClock`]. Give the same to the
    /// client, and to a sandbox.
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")] {
    /// # use tower_euid::{CookieKey, EuidLayer, ManualClock};
    /// # use tower_euid::sandbox::Sandbox;
    /// let clock = ManualClock::running();
    /// let sandbox = Sandbox::builder().clock(clock.clone()).build()?; // and its client with it
    /// let layer = EuidLayer::new(CookieKey::generate()?.into(), sandbox.client()?).clock(clock);
    /// # }
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn clock(self, clock: impl Clock) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(clock);
        self.set(|shared| shared.clock = Arc::clone(&clock)).set_desk(|settings| settings.clock = clock)
    }

    /// What the visitor allows, asked for each request before its cookies are looked at. Where consent
    /// comes from, and what it must say, only the application knows; with a TCF string it is purposes
    /// 1, 2, 3, 4, 7 and 10 for vendor 21, as `examples/consent.rs` decodes it. Default: granted.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidError, EuidLayer, ErrorKind, KeyRing, refresh_fn};
    /// use tower_euid::Consent;
    ///
    /// # #[derive(Clone, Copy)] struct Choice { advertising: bool }
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "")) });
    /// // A layer further out has read the visitor's choice:
    /// let layer = EuidLayer::new(keys, client).consent(|request| match request.extensions.get::<Choice>() {
    ///     Some(Choice { advertising: true }) => Consent::Granted,
    ///     Some(Choice { advertising: false }) => Consent::Withdrawn,
    ///     None => Consent::Withheld,
    /// });
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn consent(self, consent: impl Fn(&request::Parts) -> Consent + Send + Sync + 'static) -> Self {
        self.set(|shared| shared.consent = Some(Arc::new(consent)))
    }

    /// Who is signed in, by whatever id the application knows its users. An identity whose login named
    /// a [subject](crate::EuidUpdate::subject) is then used for this user only: for another it is
    /// removed, while nobody is signed in it is kept and pages see `Absent`. The cookie holds a keyed
    /// digest of the id, not the id. Default: identities are bound to nobody.
    ///
    /// The hook sees what layers further out have put into the request. In axum that is those added after
    /// this one, so the session comes last: `.layer(euid).layer(session)`. The other way round nobody is
    /// ever signed in; `examples/site.rs` is a whole site.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidError, EuidLayer, ErrorKind, KeyRing, refresh_fn};
    /// # #[derive(Clone)] struct User { id: u64 }
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "")) });
    /// // A layer further out has found the session:
    /// let layer = EuidLayer::new(keys, client)
    ///     .bind(|request| request.extensions.get::<User>().map(|user| user.id.to_string()));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn bind<S: AsRef<[u8]>>(
        self,
        signed_in: impl Fn(&request::Parts) -> Option<S> + Send + Sync + 'static,
    ) -> Self {
        let signed_in = move |parts: &request::Parts| signed_in(parts).map(|id| id.as_ref().into());
        self.set(|shared| shared.bind = Some(Arc::new(signed_in)))
    }

    /// Whether a page whose identity is sealed under a key that is not the newest writes it anew at
    /// once, not only when it is refreshed. For the last step of a [change of
    /// keys](KeyRing#changing-keys), when all nodes seal under the same one. Default: no.
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower::{Layer, service_fn};
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing};
    /// # use tower_euid::sandbox::{Sandbox, VisitorState};
    /// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
    /// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (old, new) = (CookieKey::generate()?, CookieKey::generate()?);
    /// let keys = KeyRing::from(old.clone());
    /// let layer = EuidLayer::new(keys.clone(), sandbox.client()?).clock(sandbox.clock()).reseal(true);
    /// let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?; // sealed under the old key
    /// keys.reload(KeyRing::new([new, old])?);
    /// let response = visitor.send(&layer.layer(page), http::Request::new(())).await?;
    /// assert!(response.headers().contains_key("set-cookie"));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn reseal(self, at_once: bool) -> Self {
        self.set(|shared| shared.reseal = at_once)
    }

    /// Responses that are logouts although no handler says so with
    /// [`EuidUpdate::logout`](crate::EuidUpdate::logout). One with `Clear-Site-Data: "cookies"` (or
    /// `"*"`) always is.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidError, EuidLayer, ErrorKind, KeyRing, refresh_fn};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "")) });
    /// let layer = EuidLayer::new(keys, client)
    ///     .logout_when(|response| response.headers.contains_key("x-session-ended"));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn logout_when(self, logout: impl Fn(&response::Parts) -> bool + Send + Sync + 'static) -> Self {
        self.set(|shared| shared.logout_when = Some(Arc::new(logout)))
    }

    fn set(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    fn set_desk(self, change: impl FnOnce(&mut Settings)) -> Self {
        self.set(|shared| shared.desk = Arc::new(shared.desk.with(change)))
    }
}

impl<S> Layer<S> for EuidLayer {
    type Service = EuidService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        EuidService::new(inner, Arc::clone(&self.shared))
    }
}

impl fmt::Debug for EuidLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EuidLayer").field("shared", &self.shared).finish()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("keys", &self.keys)
            .field("cookies", &self.cookies)
            .field("refresh_mode", &self.refresh_mode)
            .field("refresh_jitter", &self.refresh_jitter)
            .field("refresh_when", &self.refresh_when.is_some())
            .field("desk", &self.desk)
            .field("expiry_margin", &self.expiry_margin)
            .field("consent", &self.consent.is_some())
            .field("bind", &self.bind.is_some())
            .field("reseal", &self.reseal)
            .field("logout_when", &self.logout_when.is_some())
            .finish_non_exhaustive()
    }
}
