//! Both scopes in one layer.

use std::sync::Arc;

use euid_core::Scope;
use euid_core::error::ConfigError;
use http::request;

use super::EuidLayer;
use crate::config::{OtherScope, ScopeOf};
use crate::refresh::Refresh;

/// The scope: EUID, UID2, or both.
impl EuidLayer {
    /// Serves both scopes: EUID to some visitors, UID2 to others. `other` refreshes the identities of the scope that the
    /// layer does not serve yet, and the hook `choose` returns the scope that serves a request. Default: the layer serves
    /// the scope of the [`Refresh`] that it was made with ([`Refresh::scope`]), or EUID if that does not say.
    ///
    /// The hook runs before all others. They and the handler find its answer in the request's extensions, as [`Scope`]:
    /// a handler that logs a visitor in chooses the client by it. If the answer is `None`, no scope serves the request:
    /// the handler sees [`Absent`](crate::Euid::Absent), and a login is not written.
    ///
    /// Each scope has its own cookies (or headers), refreshes and breaker. A page leaves the state of the other scope alone, so a
    /// visitor who travels from one region to the other and back has each identity again. A logout and withdrawn consent
    /// end the logins of both scopes. A login does not end that of another person in the other scope, so set
    /// [`subject`](Self::subject) too: a layer without it warns when it is first applied.
    ///
    /// ```
    /// # #[cfg(feature = "client")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tower_euid::{CookieKey, EuidLayer, refresh_fn, Refreshed};
    /// use tower_euid::Scope;
    ///
    /// # let keys = CookieKey::generate()?;
    /// # let euid = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
    /// # let uid2 = euid.clone();
    /// // The CDN says where the visitor is.
    /// let layer = EuidLayer::new(keys.into(), euid).scope(uid2, |request| {
    ///     match request.headers.get("x-region")?.as_bytes() {
    ///         b"eu" => Some(Scope::Euid),
    ///         _ => Some(Scope::Uid2),
    ///     }
    /// })?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `other` has the scope that the layer serves already.
    pub fn scope(
        self,
        other: impl Refresh,
        choose: impl Fn(&request::Parts) -> Option<Scope> + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        let own = self.config.coordinator.scope();
        if other.scope() == Some(own) {
            let what =
                format!("both clients are of {own}: one layer serves EUID and UID2, each through its own client");
            return Err(ConfigError::new(what));
        }
        let other = Arc::new(other);
        let coordinator = self.config.coordinator.with(|settings| {
            settings.refresh = other;
            settings.scope = own.other();
        });
        let choose: Arc<ScopeOf> = Arc::new(choose);
        let other = OtherScope { coordinator: Arc::new(coordinator), choose };
        Ok(self.set(|config| config.other_scope = Some(other)).set_engine(|engine| engine.with_both_scopes()))
    }
}
