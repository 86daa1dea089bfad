//! How the layer refreshes: how long a page waits, how much runs at once and is remembered, which requests may refresh.

use std::sync::Arc;
use std::time::Duration;

use euid_core::engine::Engine;
use http::request;

use super::EuidLayer;
use crate::config::RefreshMode;

/// How it refreshes.
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
    pub const DEFAULT_REFRESH_JITTER: Duration = Engine::DEFAULT_REFRESH_JITTER;

    /// How long a page waits for a refresh at most; a request with an unsafe method (`POST`) waits for none.
    /// Meanwhile it keeps the inner service's
    /// readiness, so with a `load_shed` inside others may be shed. With zero no page waits, and the
    /// answer is there for the visitor's next request.
    /// Default: [`DEFAULT_MAX_WAIT`](Self::DEFAULT_MAX_WAIT).
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
    /// assert_eq!(page?.into_body(), "active"); // with the old token, which is still good
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_wait(self, max_wait: Duration) -> Self {
        self.set_coordinator(|settings| settings.max_wait = max_wait)
    }

    /// When the handler runs, while a refresh is due. Default: [`RefreshMode::Blocking`].
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, Refreshed, refresh_fn};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// use tower_euid::RefreshMode;
    ///
    /// // Pages that must not wait, and whose bidders take an older token:
    /// let layer = EuidLayer::new(keys, client).refresh_mode(RefreshMode::Concurrent);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn refresh_mode(self, mode: RefreshMode) -> Self {
        self.set(|config| config.refresh_mode = mode)
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
        self.set_coordinator(|settings| settings.deadline = deadline)
    }

    /// How many refreshes may be under way at once, at least one; others queue, and their pages wait no longer for it. While
    /// the operator is down, one call every 5 s finds out whether it is back. It does not queue: each such call that hangs is
    /// one more than this, until its [`refresh_deadline`](Self::refresh_deadline). If all of these hang, pages stop waiting at
    /// once. Default:
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
        self.set_coordinator(|settings| settings.max_concurrent = max)
    }

    /// How much is remembered of refreshes: of how many tokens (at least one), calls under way included, and in how many
    /// bytes. An answer is remembered for 45 s, or a tenth of the new token's life if that is less, so that requests which
    /// still carry the old cookie get it without a call; a new pair that no response could carry (the page answered 304, the
    /// visitor hung up), until it is due itself. A failure is remembered while its token backs off, and 5 min more, so that
    /// the next wait is longer. Where a limit is met the oldest outcome is forgotten, which costs a call at worst. Outcomes
    /// that no longer count are freed as later requests ask for refreshes. Defaults:
    /// [`DEFAULT_MEMO_ENTRIES`](Self::DEFAULT_MEMO_ENTRIES),
    /// [`DEFAULT_MEMO_BYTES`](Self::DEFAULT_MEMO_BYTES).
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, Refreshed, refresh_fn};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// // 2000 refreshes a second, each remembered for 45 s, and as many bytes a token as by default:
    /// let layer = EuidLayer::new(keys, client).memo_entries(90_000).memo_bytes(144 << 20);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn memo_entries(self, most: usize) -> Self {
        self.set_coordinator(|settings| settings.memo_limit.entries = most.max(1))
    }

    /// In how much memory outcomes of refreshes are remembered, in bytes. Default:
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

    /// By how much the moment of a refresh may lie behind `refresh_from`, so that visitors who
    /// logged in together do not refresh together. Each login has its own delay, the same on every
    /// node: at most this, and at most a tenth of the time from `refresh_from` to
    /// `identity_expires`. Zero turns it off. Default:
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

    /// Which requests may refresh. Those whose response is not shown as a page never do: prefetches and prerenders,
    /// `OPTIONS`, `CONNECT`, upgrades to a WebSocket, and what a browser loads for a page (images, scripts,
    /// styles, fonts, media and the like). They see a token that is still valid, and their responses bring
    /// no refreshed cookie. A conditional request (`If-None-Match`, `If-Modified-Since`) refreshes only if the
    /// token has expired, as a `304` can't bring the new cookie. Default: all others.
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
