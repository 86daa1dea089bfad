//! What the application configures; how the layer refreshes is in [`refreshing`].

mod refreshing;

use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use http::{request, response};
use tower::Layer;

pub use self::refreshing::RefreshMode;
use crate::clock::{Clock, SystemClock};
use crate::cookie::{CookieConfig, Cookies, KeyRing};
use crate::mistakes::Mistakes;
use crate::plan::Consent;
use crate::refresh::{Desk, MemoLimit, Refresh, Settings};
use crate::service::EuidService;
use crate::tcf;

/// The layer around a site's pages: every handler behind it knows the visitor's [`Euid`](crate::Euid).
///
/// It is its own builder; every setting has a default that suits a small site. Clones share outcomes of
/// refreshes and the breaker, so make one and clone it.
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
/// # A layer inside another
///
/// Where a request passes two layers, the outer one reads and writes the cookies.
///
/// * If the inner layer is a clone with equal settings, requests pass through it.
/// * A different layer inside calls its own hooks, and they count where they are stricter: without consent the
///   handler sees `Withheld` and no token, withdrawn consent ends the login, an identity that is bound to
///   another user (or that the inner layer can't open, if it binds) is `Absent`, and `logout_when` is obeyed.
///   Its other settings have no effect, and an event warns of that once.
#[derive(Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct EuidLayer {
    pub(crate) shared: Arc<Shared>,
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
    pub(crate) mistakes: Mistakes,
}

impl Shared {
    /// Tells this layer, and its clones with equal settings, from others.
    pub(crate) fn id(&self) -> usize {
        ptr::from_ref(self).addr()
    }
}

pub(crate) type RefreshWhen = dyn Fn(&request::Parts) -> bool + Send + Sync;
pub(crate) type ConsentOf = dyn Fn(&request::Parts) -> Consent + Send + Sync;
pub(crate) type SignedInUser = dyn Fn(&request::Parts) -> Option<Box<[u8]>> + Send + Sync;
pub(crate) type LogoutWhen = dyn Fn(&response::Parts) -> bool + Send + Sync;

impl EuidLayer {
    /// How long before its end a token is no longer handed out, unless set otherwise: 1 s.
    pub const DEFAULT_EXPIRY_MARGIN: Duration = Duration::from_secs(1);

    /// A layer that seals under `keys` and refreshes identities through `refresh`, usually an
    /// [`EuidClient`](crate::EuidClient).
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
            mistakes: Mistakes::default(),
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

    /// What the visitor allows. The hook runs for each request, before the layer reads its cookies. Only the
    /// application knows where consent is kept; for the TC string of a consent banner there is
    /// [`consent_from_tcf_cookie`](Self::consent_from_tcf_cookie). Handlers find the answer in the request's
    /// extensions, as [`Consent`]. Default: granted, and no `Consent` in the extensions.
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
    ///
    /// The hook is not async. If the choice is kept in an async session (`tower_sessions`), let a middleware
    /// put it into the request's extensions, as [`bind`](Self::bind) shows for the user's id. With
    /// `axum_login`, the hook can read the user from `AuthSession` directly.
    pub fn consent(self, consent: impl Fn(&request::Parts) -> Consent + Send + Sync + 'static) -> Self {
        self.set(|shared| shared.consent = Some(Arc::new(consent)))
    }

    /// Takes consent from the TCF v2 string in the cookie `euconsent-v2`, where consent banners keep it: a
    /// [`consent`](Self::consent) hook, and replaces one that was set before. A string that allows enough
    /// grants consent, one that allows too little withdraws it; where there is none, or none that can be
    /// read, or two that differ, consent is withheld. The table in [`tcf`](crate::tcf) has all cases, and
    /// the parts for a hook of one's own.
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use http::{Request, header::COOKIE};
    /// # use tower::{Layer, service_fn};
    /// # use tower_euid::sandbox::{Sandbox, VisitorState};
    /// # let page = service_fn(async |request: Request<()>| Ok::<_, std::convert::Infallible>(
    /// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = sandbox.client_and_layer()?;
    /// let layer = layer.consent_from_tcf_cookie();
    /// let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?; // is logged in
    /// let app = layer.layer(page);
    /// for (choice, state) in [
    ///     ("theme=dark", "withheld"), // not asked yet
    ///     ("euconsent-v2=CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA", "active"),
    /// ] {
    ///     let request = Request::builder().header(COOKIE, choice).body(())?;
    ///     assert_eq!(visitor.send(&app, request).await?.into_body(), state);
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn consent_from_tcf_cookie(self) -> Self {
        self.consent(|request| tcf::consent(&request.headers))
    }

    /// The id of the signed-in user, in whatever form the application knows it. If a login named a
    /// [subject](crate::EuidUpdate::subject), its identity is used for that user only. For another user it is
    /// removed; while no user is signed in it is kept, and pages see `Absent`. The cookie holds a keyed
    /// digest of the id, not the id. Default: identities are not bound to a user.
    ///
    /// The hook sees what layers further out have put into the request, so the session layer must be
    /// outside. In axum that is the layer that is added later: `.layer(euid).layer(session)`. The other way
    /// round, the hook never finds a user, and bound identities are always `Absent`; an event warns of it once, after
    /// 20 of them. More in [the order of layers](crate::docs::layers);
    /// `examples/site.rs` is a whole site.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidError, EuidLayer, ErrorKind, KeyRing, refresh_fn};
    /// # #[derive(Clone)] struct UserId(u64);
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "")) });
    /// // A layer further out has put the user's id into the request:
    /// let layer = EuidLayer::new(keys, client)
    ///     .bind(|request| request.extensions.get::<UserId>().map(|user| user.0.to_string()));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    ///
    /// # With tower-sessions
    ///
    /// The hook is not async, but a session is: `tower_sessions::Session::get` may have to load it first.
    /// So read it in a middleware between the session layer and this one, which puts the id into the
    /// request's extensions:
    ///
    /// ```
    /// # #[cfg(all(feature = "sandbox", feature = "axum"))]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower_euid::sandbox::{Sandbox, VisitorState};
    /// # /// Has the shape of `tower_sessions::Session`.
    /// # #[derive(Clone)]
    /// # struct Session;
    /// # impl Session {
    /// #     async fn get<T: From<u32>>(&self, key: &str) -> Result<Option<T>, ()> { Ok((key == "user_id").then(|| 17.into())) }
    /// # }
    /// # impl<S: Sync> axum::extract::FromRequestParts<S> for Session {
    /// #     type Rejection = axum::http::StatusCode;
    /// #     async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, Self::Rejection> {
    /// #         parts.extensions.get().cloned().ok_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR)
    /// #     }
    /// # }
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = sandbox.client_and_layer()?;
    /// # let layer = layer.bind(|request| request.extensions.get::<UserId>().map(|user| user.0.to_string()));
    /// # let session_layer = axum::Extension(Session);
    /// # let mut visitor = sandbox.bound_visitor(&layer, VisitorState::Fresh, "17")?;
    /// use axum::{Router, extract::Request, middleware::{Next, from_fn}, response::Response, routing::get};
    /// # use tower_euid::Euid;
    ///
    /// #[derive(Clone)]
    /// struct UserId(i64);
    ///
    /// async fn signed_in(session: Session, mut request: Request, next: Next) -> Response {
    ///     if let Ok(Some(id)) = session.get("user_id").await {
    ///         request.extensions_mut().insert(UserId(id));
    ///     }
    ///     next.run(request).await
    /// }
    ///
    /// let app = Router::new()
    ///     .route("/", get(|euid: Euid| async move { euid.state() }))
    ///     .layer(layer)
    ///     .layer(from_fn(signed_in))
    ///     .layer(session_layer); // tower_sessions::SessionManagerLayer
    /// # let response = visitor.send(&app, Request::new(axum::body::Body::empty())).await?;
    /// # assert_eq!(axum::body::to_bytes(response.into_body(), 99).await?, "active");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # With axum-login
    ///
    /// Its layer loads the user before it calls what is inside, so no middleware is needed. `Backend` is
    /// your `AuthnBackend`:
    ///
    /// ```text
    /// .bind(|request| Some(request.extensions.get::<AuthSession<Backend>>()?.user.as_ref()?.id().to_string()))
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
