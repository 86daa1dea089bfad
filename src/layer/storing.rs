//! The store of a layer.

use std::sync::Arc;
use std::time::Duration;

use euid_core::StoreSecret;
use euid_core::store::StoreMode;

use super::EuidLayer;
use crate::records::{Records, Settings};
use crate::sessions::EuidSessions;
use crate::store::Store;

impl EuidLayer {
    /// The default of [`store_timeout`](Self::store_timeout), 40 ms.
    pub const DEFAULT_STORE_TIMEOUT: Duration = Duration::from_millis(40);
    /// The default of [`remember_for`](Self::remember_for), 1 s.
    pub const DEFAULT_REMEMBER_FOR: Duration = Duration::from_secs(1);

    /// Keeps the identity of each login in a store on the site's side. A visitor's client has only a random handle of 22
    /// characters, in the cookie or header that names the login, and after an opt-out an opt-out record. Default: no store,
    /// all state is sealed at the client.
    ///
    /// A layer has one store: the last call of `store` or `store_by_subject` counts, and sets the settings of the store back
    /// to their defaults.
    ///
    /// All nodes share one store, so one of them asks the operator for an identity, however many there are. If the store
    /// is down, handlers see [`Euid::Unavailable`](crate::Euid::Unavailable), a login is sealed at the client as without a
    /// store, and no visitor is logged out. The guide [*State in a store*](crate::docs::stores) has the rest.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower_euid::{CookieKey, EuidLayer, Refreshed, refresh_fn};
    /// # use tower::{Layer, ServiceExt, service_fn};
    /// # let refresh = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// use tower_euid::store::MemoryStore;
    ///
    /// let layer = EuidLayer::new(CookieKey::generate()?.into(), refresh).store(MemoryStore::new());
    /// # let app = layer.layer(service_fn(async |_: http::Request<()>| Ok::<_, std::convert::Infallible>(http::Response::new(()))));
    /// # app.oneshot(http::Request::new(())).await?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn store(self, store: impl Store) -> Self {
        self.set_store(store).set_engine(|engine| engine.with_store(StoreMode::ReadWrite))
    }

    /// Keeps one identity for each user of the application in a store on the site's side, for all their devices: a login, a
    /// logout and an opt-out on one of them hold for the others. A client has no state but an opt-out that it was told of.
    /// Default: no store.
    ///
    /// It needs the hook [`subject`](Self::subject), and every login needs the user's id:
    /// [`EuidUpdate::subject`](crate::EuidUpdate::subject). A login that the store does not confirm is not kept, and
    /// records are read for each request: there is no [`remember_for`](Self::remember_for). The `secret` never changes.
    /// [`sessions`](Self::sessions) ends the login of a user from elsewhere.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, Refreshed, refresh_fn};
    /// # let refresh = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// use tower_euid::StoreSecret;
    /// use tower_euid::store::MemoryStore;
    ///
    /// #[derive(Clone)]
    /// struct User(String); // as a session layer further out has it
    ///
    /// let layer = EuidLayer::new(CookieKey::generate()?.into(), refresh)
    ///     .subject(|request| request.extensions.get::<User>().map(|user| user.0.clone()))
    ///     .store_by_subject(MemoryStore::new(), StoreSecret::generate()?);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn store_by_subject(self, store: impl Store, secret: StoreSecret) -> Self {
        self.set_store(store).set_engine(|engine| engine.with_user_store(secret))
    }

    fn set_store(self, store: impl Store) -> Self {
        let store = Arc::new(store);
        self.set(|config| {
            config.records = Some(Arc::new(Records::new(Settings {
                store,
                clock: Arc::clone(&config.clock),
                timeout: Self::DEFAULT_STORE_TIMEOUT,
                remember_for: Self::DEFAULT_REMEMBER_FOR,
            })));
        })
    }

    /// A handle that ends the logins of users from elsewhere. `None` unless the layer keeps them
    /// [by subject](Self::store_by_subject).
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, Refreshed, refresh_fn};
    /// # use tower_euid::StoreSecret;
    /// # use tower_euid::store::MemoryStore;
    /// # let refresh = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// let layer = EuidLayer::new(CookieKey::generate()?.into(), refresh);
    /// assert!(layer.sessions().is_none());
    /// let layer = layer.store_by_subject(MemoryStore::new(), StoreSecret::generate()?);
    /// assert!(layer.sessions().is_some());
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn sessions(&self) -> Option<EuidSessions> {
        EuidSessions::of(&self.config)
    }

    /// Sets whether the layer writes its store, or only reads it. Call it after [`store`](Self::store); without a store it has
    /// no effect. Default: it writes.
    ///
    /// A site of several nodes begins to use a store in two steps, as with a new cookie key: first all nodes only read
    /// it, and go on to seal identities at the client; then they write it. It stops in the same two steps, backwards.
    /// A store [by subject](Self::store_by_subject) has no such steps.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, Refreshed, refresh_fn};
    /// # use tower_euid::store::MemoryStore;
    /// # let refresh = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// use tower_euid::store::StoreMode;
    ///
    /// let layer = EuidLayer::new(CookieKey::generate()?.into(), refresh).store(MemoryStore::new());
    /// let first_step = layer.clone().store_mode(StoreMode::ReadOnly);
    /// # let _ = first_step;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn store_mode(self, mode: StoreMode) -> Self {
        self.set_engine(|engine| if engine.has_store_by_handle() { engine.with_store(mode) } else { engine })
    }

    /// Sets how long one call to the store may take. If the store has a limit of its own, the shorter of the two counts.
    /// A store on Redis has one, of 40 ms by default, so for more time set `RedisStoreBuilder::timeout` of tower-euid-redis,
    /// too: `store(RedisStore::builder(url).timeout(time).build()?).store_timeout(time)`. The variable
    /// `EUID_STORE_TIMEOUT_MS` sets both. Default: [`DEFAULT_STORE_TIMEOUT`](Self::DEFAULT_STORE_TIMEOUT).
    ///
    /// A page makes one read, or two if it first waited for that of another request. A login, a logout and a refresh make
    /// several calls. Call it after [`store`](Self::store); without a store it has no effect.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, Refreshed, refresh_fn};
    /// # use tower_euid::store::MemoryStore;
    /// # let refresh = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// use std::time::Duration;
    ///
    /// let layer = EuidLayer::new(CookieKey::generate()?.into(), refresh)
    ///     .store(MemoryStore::new())
    ///     .store_timeout(Duration::from_millis(20)); // a store that hangs costs a page 20 ms
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn store_timeout(self, timeout: Duration) -> Self {
        self.set_records(|settings| settings.timeout = timeout)
    }

    /// Sets how long a node remembers a record that it has read, so that a page and its scripts cost one read. It never
    /// remembers that there is none. With zero each request reads the store itself. Call it after [`store`](Self::store);
    /// without a store it has no effect. Default: [`DEFAULT_REMEMBER_FOR`](Self::DEFAULT_REMEMBER_FOR).
    ///
    /// For that long another node may still show the token of a login that has ended, but only to a client that sends
    /// its handle, which a logout removes.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, Refreshed, refresh_fn};
    /// # use tower_euid::store::MemoryStore;
    /// # let refresh = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// use std::time::Duration;
    ///
    /// let layer = EuidLayer::new(CookieKey::generate()?.into(), refresh)
    ///     .store(MemoryStore::new())
    ///     .remember_for(Duration::ZERO);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn remember_for(self, time: Duration) -> Self {
        self.set_records(|settings| settings.remember_for = time)
    }

    /// Changes the settings of the store, if there is one.
    pub(super) fn set_records(self, change: impl FnOnce(&mut Settings)) -> Self {
        self.set(|config| {
            if let Some(records) = &mut config.records {
                *records = Arc::new(records.with(change));
            }
        })
    }
}
