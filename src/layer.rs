//! What the application configures.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::response;
use tower::Layer;

use crate::clock::{Clock, SystemClock};
use crate::cookie::{CookieConfig, Cookies, KeyRing};
use crate::refresh::{ErasedRefresh, Refresh};
use crate::service::EuidService;

/// The layer around a site's pages: every handler behind it knows the visitor's [`Euid`](crate::Euid).
///
/// It is its own builder; every setting has a default that suits a small site. Clones share what
/// they know, so make one and clone it.
///
/// ```
/// use std::time::Duration;
/// use tower_euid::{CookieKey, Environment, EuidClient, EuidLayer, KeyRing};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keys = KeyRing::from(CookieKey::generate()?);
/// # let client = EuidClient::builder(Environment::Url("http://localhost:9".into())).build()?;
/// let layer = EuidLayer::new(keys, client).max_wait(Duration::from_millis(300));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct EuidLayer {
    shared: Arc<Shared>,
}

/// When the handler runs, while a refresh is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshMode {
    /// After the refresh, or after [`max_wait`](EuidLayer::max_wait) with what is still valid: the
    /// token is refreshed before it is used, as the EUID guide asks.
    #[default]
    Before,
}

/// All that requests share. Read-only once the layer has been put together.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) keys: KeyRing,
    pub(crate) cookies: Cookies,
    pub(crate) refresh: Arc<dyn ErasedRefresh>,
    pub(crate) refresh_mode: RefreshMode,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) max_wait: Duration,
    pub(crate) refresh_deadline: Duration,
    pub(crate) expiry_margin: Duration,
    pub(crate) logout_when: Option<Arc<LogoutWhen>>,
}

pub(crate) type LogoutWhen = dyn Fn(&response::Parts) -> bool + Send + Sync;

impl EuidLayer {
    /// How long a page waits for a refresh, unless set otherwise: 500 ms.
    pub const DEFAULT_MAX_WAIT: Duration = Duration::from_millis(500);
    /// How long a refresh may take, pages waiting or not, unless set otherwise: 10 s.
    pub const DEFAULT_REFRESH_DEADLINE: Duration = Duration::from_secs(10);
    /// How long before its end a token is no longer handed out, unless set otherwise: 1 s.
    pub const DEFAULT_EXPIRY_MARGIN: Duration = Duration::from_secs(1);

    /// A layer that seals under `keys` and asks `refresh`, usually an
    /// [`EuidClient`](crate::EuidClient), for new identities.
    pub fn new(keys: KeyRing, refresh: impl Refresh) -> Self {
        let shared = Shared {
            keys,
            cookies: Cookies::new(CookieConfig::default()),
            refresh: Arc::new(refresh),
            refresh_mode: RefreshMode::default(),
            clock: Arc::new(SystemClock),
            max_wait: Self::DEFAULT_MAX_WAIT,
            refresh_deadline: Self::DEFAULT_REFRESH_DEADLINE,
            expiry_margin: Self::DEFAULT_EXPIRY_MARGIN,
            logout_when: None,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Names and attributes of the cookies. Default: `__Host-euid`, secure.
    pub fn cookie(self, config: CookieConfig) -> Self {
        self.set(|shared| shared.cookies = Cookies::new(config))
    }

    /// How long a page waits for a refresh at most. Meanwhile it keeps the inner service's
    /// readiness, so with a `load_shed` inside others may be shed. Zero waits for nothing.
    /// Default: [`DEFAULT_MAX_WAIT`](Self::DEFAULT_MAX_WAIT).
    pub fn max_wait(self, max_wait: Duration) -> Self {
        self.set(|shared| shared.max_wait = max_wait)
    }

    /// When the handler runs, while a refresh is due. Default: [`RefreshMode::Before`].
    pub fn refresh_mode(self, mode: RefreshMode) -> Self {
        self.set(|shared| shared.refresh_mode = mode)
    }

    /// How long one refresh may take. It runs in a task of its own and goes on when the page that
    /// began it has gone. Default: [`DEFAULT_REFRESH_DEADLINE`](Self::DEFAULT_REFRESH_DEADLINE).
    pub fn refresh_deadline(self, deadline: Duration) -> Self {
        self.set(|shared| shared.refresh_deadline = deadline)
    }

    /// How long before `identity_expires` a token is no longer handed out, for the time that a bid
    /// request takes and for clocks that are a little off. Default:
    /// [`DEFAULT_EXPIRY_MARGIN`](Self::DEFAULT_EXPIRY_MARGIN).
    pub fn expiry_margin(self, margin: Duration) -> Self {
        self.set(|shared| shared.expiry_margin = margin)
    }

    /// The clock that identities are held against. Default: [`SystemClock`]. Give the same to the
    /// client, and to a sandbox.
    pub fn clock(self, clock: impl Clock) -> Self {
        self.set(|shared| shared.clock = Arc::new(clock))
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
            .field("max_wait", &self.max_wait)
            .field("refresh_deadline", &self.refresh_deadline)
            .field("expiry_margin", &self.expiry_margin)
            .field("logout_when", &self.logout_when.is_some())
            .finish_non_exhaustive()
    }
}
