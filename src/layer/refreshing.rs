//! The settings of refreshes: how long a page waits, how many refreshes run at once, how much is remembered, and which
//! requests may refresh.

use std::sync::Arc;
use std::time::Duration;

use euid_core::engine::Engine;
use http::request;

use super::EuidLayer;
use crate::config::RefreshMode;

/// The settings of refreshes.
impl EuidLayer {
    /// The default of [`max_wait`](Self::max_wait): 500 ms.
    pub const DEFAULT_MAX_WAIT: Duration = Duration::from_millis(500);
    /// The default of [`refresh_deadline`](Self::refresh_deadline): 10 s.
    pub const DEFAULT_REFRESH_DEADLINE: Duration = Duration::from_secs(10);
    /// The default of [`max_concurrent_refreshes`](Self::max_concurrent_refreshes): 64.
    pub const DEFAULT_MAX_CONCURRENT_REFRESHES: usize = 64;
    /// The default of [`memo_entries`](Self::memo_entries): 10 000 refresh tokens.
    pub const DEFAULT_MEMO_ENTRIES: usize = 10_000;
    /// The default of [`memo_bytes`](Self::memo_bytes): 16 MiB.
    pub const DEFAULT_MEMO_BYTES: usize = 16 << 20;
    /// The default of [`refresh_jitter`](Self::refresh_jitter): 10 min.
    pub const DEFAULT_REFRESH_JITTER: Duration = Engine::DEFAULT_REFRESH_JITTER;

    /// Sets how long a page waits for a refresh at most. A request with an unsafe method (`POST`) never waits. With
    /// zero no page waits, and the visitor's next request gets the answer. A waiting request holds the readiness of the
    /// inner service (its `poll_ready`), so a `load_shed` inside may reject other requests meanwhile. Default:
    /// [`DEFAULT_MAX_WAIT`](Self::DEFAULT_MAX_WAIT).
    ///
    /// ```
    /// # #[cfg(feature = "client")]
    /// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?.block_on(async {
    /// # use std::time::Duration;
    /// # use tokio::time::timeout;
    /// # use tower::{Layer, service_fn};
    /// # use euid_sandbox::{Fault, Sandbox, VisitorState};
    /// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
    /// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// let app = layer.clone().max_wait(Duration::from_millis(100)).layer(page);
    /// # let mut visitor = sandbox.visitor(&layer, VisitorState::Due)?;
    /// sandbox.fault(Fault::Delay(Duration::from_secs(60))); // the operator hangs
    /// let page = timeout(Duration::from_millis(101), visitor.send(&app, http::Request::new(()))).await?;
    /// assert_eq!(page?.into_body(), "active"); // with the old token, which is still valid
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_wait(self, max_wait: Duration) -> Self {
        self.set_coordinator(|settings| settings.max_wait = max_wait)
    }

    /// Sets whether the handler runs after a refresh that is due, or beside it. Default: [`RefreshMode::Blocking`].
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, Refreshed, refresh_fn};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// use tower_euid::RefreshMode;
    ///
    /// // For pages that must not wait, and bidders that accept an older token:
    /// let layer = EuidLayer::new(keys, client).refresh_mode(RefreshMode::Concurrent);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn refresh_mode(self, mode: RefreshMode) -> Self {
        self.set(|config| config.refresh_mode = mode)
    }

    /// Sets how long one refresh may take, including the time in the queue for
    /// [`max_concurrent_refreshes`](Self::max_concurrent_refreshes). A refresh runs in a task of its own and continues
    /// after the page that began it has ended. Default: [`DEFAULT_REFRESH_DEADLINE`](Self::DEFAULT_REFRESH_DEADLINE).
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
        self.set_coordinator(|settings| settings.call_deadline = deadline)
    }

    /// Sets how many refreshes may be under way at once, at least one. Further refreshes queue; the page's
    /// [`max_wait`](Self::max_wait) includes the queue. While the operator is down, one call every 5 s tests whether it
    /// is back. These calls do not queue: each one that hangs exceeds the limit by one, until its
    /// [`refresh_deadline`](Self::refresh_deadline). If all calls within the limit hang, further pages do not wait.
    /// Default: [`DEFAULT_MAX_CONCURRENT_REFRESHES`](Self::DEFAULT_MAX_CONCURRENT_REFRESHES).
    ///
    /// Calls for the cookie of the JavaScript SDK ([`migrate_js_sdk_cookie`](crate::CookieConfig::migrate_js_sdk_cookie))
    /// hold at most a quarter of the limit, at least one. They do not count as calls that hang: with a limit of five or
    /// less, further pages may then wait although all calls hang.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, Refreshed, refresh_fn};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// // For 20 nodes, and an operator that accepts 400 calls at once:
    /// let layer = EuidLayer::new(keys, client).max_concurrent_refreshes(20);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn max_concurrent_refreshes(self, max: usize) -> Self {
        self.set_coordinator(|settings| settings.max_concurrent = max)
    }

    /// Sets for how many refresh tokens the layer remembers the outcome of a refresh, at least one. Calls under way
    /// count too. [`memo_bytes`](Self::memo_bytes) limits the memory in bytes. The layer remembers
    ///
    /// * an answer for 45 s, or a tenth of the new token's life if that is less, so that requests which still carry the
    ///   old cookie get it without a call;
    /// * a new pair of tokens that no response could carry (the page was a 304, the visitor hung up) until the pair's
    ///   own refresh is due;
    /// * a failure for the pause before the next call, and 5 min more, so that a further failure causes a longer pause.
    ///
    /// At a limit the layer forgets the oldest outcome, which costs at most one call. Later refreshes free the memory
    /// of expired outcomes. Default: [`DEFAULT_MEMO_ENTRIES`](Self::DEFAULT_MEMO_ENTRIES).
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, Refreshed, refresh_fn};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// // For 2000 refreshes a second, each remembered for 45 s, with as many bytes a token as by default:
    /// let layer = EuidLayer::new(keys, client).memo_entries(90_000).memo_bytes(144 << 20);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn memo_entries(self, most: usize) -> Self {
        self.set_coordinator(|settings| settings.memo_limit.entries = most.max(1))
    }

    /// Sets how many bytes of memory the remembered outcomes of refreshes may take. Default:
    /// [`DEFAULT_MEMO_BYTES`](Self::DEFAULT_MEMO_BYTES).
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, Refreshed, refresh_fn};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// let layer = EuidLayer::new(keys, client).memo_bytes(0); // each page with an old cookie causes a call
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn memo_bytes(self, most: usize) -> Self {
        self.set_coordinator(|settings| settings.memo_limit.bytes = most)
    }

    /// Sets the maximum jitter: how long after `refresh_from` an identity is due at the latest. Each login has its own
    /// delay, the same on every node, so that visitors who logged in together do not refresh together. A delay is never
    /// longer than a tenth of the time from `refresh_from` to `identity_expires`. Zero turns the jitter off. Default:
    /// [`DEFAULT_REFRESH_JITTER`](Self::DEFAULT_REFRESH_JITTER).
    ///
    /// ```
    /// # #[cfg(feature = "client")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use std::time::Duration;
    /// # use tower::{Layer, service_fn};
    /// # use euid_sandbox::{Sandbox, VisitorState};
    /// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
    /// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
    /// # let clock = tower_euid::clock::ManualClock::at(tower_euid::clock::UnixMillis::from_millis(1_735_689_600_000));
    /// # let sandbox = Sandbox::builder().clock(clock).build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
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
        self.set_engine(|engine| engine.with_refresh_jitter(most))
    }

    /// Refreshes an identity this long before its refresh is due. Default: zero. It is for apps and TV sets that ask for
    /// tokens shortly before an ad break: the request that is made some time before finds the identity due, and that of
    /// the break finds a new token. Such refreshes have no [jitter](Self::refresh_jitter). A refresh is never
    /// further ahead than the token is usable after the refresh is due.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, Refreshed, refresh_fn};
    /// use std::time::Duration;
    ///
    /// # let keeps_all = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// let layer = EuidLayer::new(CookieKey::generate()?.into(), keeps_all).refresh_ahead(Duration::from_secs(300));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn refresh_ahead(self, ahead: Duration) -> Self {
        self.set_engine(|engine| engine.with_refresh_ahead(ahead))
    }

    /// Sets the hook that decides whether a request may refresh. Default: it may.
    ///
    /// The layer does not call the hook for requests that never refresh: prefetches and prerenders, `OPTIONS`,
    /// `CONNECT`, upgrades to a WebSocket, and the resources of a page (images, scripts, styles, fonts, media and the
    /// like). If a request may not refresh, its handler sees a token that is still valid, and its response sets no
    /// refreshed cookie. A conditional request (`If-None-Match`, `If-Modified-Since`) refreshes only if the token has
    /// expired, because a `304` can't set the new cookie.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, refresh_fn};
    /// # use tower_euid::error::{ErrorKind, EuidError};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "")) });
    /// let layer = EuidLayer::new(keys, client)
    ///     .refresh_when(|request| !request.uri.path().starts_with("/beacon/"));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn refresh_when(self, may_refresh: impl Fn(&request::Parts) -> bool + Send + Sync + 'static) -> Self {
        self.set(|config| config.refresh_when = Some(Arc::new(may_refresh)))
    }
}
