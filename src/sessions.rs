//! The logins of users, from elsewhere than a request of theirs.

use std::fmt;
use std::sync::Arc;

use euid_core::Scope;

use crate::config::Config;
use crate::store::StoreError;

/// Ends the login of a user of the application, in a layer that keeps logins
/// [by subject](crate::EuidLayer::store_by_subject): for a user who closes the account, or an opt-out that reaches the
/// publisher in another way than through the operator. Cheap to clone. Take it from the finished layer: one that is taken
/// before `store_timeout` or the clock are set does not share its list of ends that the store has not confirmed.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # use tower_euid::{CookieKey, EuidLayer, Refreshed, refresh_fn};
/// # use tower_euid::StoreSecret;
/// # use tower_euid::store::MemoryStore;
/// # let refresh = refresh_fn(async |identity| Ok(Refreshed::Identity(identity)));
/// # let layer = EuidLayer::new(CookieKey::generate()?.into(), refresh);
/// let layer = layer.store_by_subject(MemoryStore::new(), StoreSecret::generate()?);
/// let sessions = layer.sessions().ok_or("the layer has a store by subject")?;
/// sessions.end("17").await?; // on all devices
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct EuidSessions(Arc<Config>);

impl EuidSessions {
    pub(crate) fn of(config: &Arc<Config>) -> Option<Self> {
        let keeps_users = config.records.is_some() && config.engine.has_store_by_user();
        keeps_users.then(|| Self(Arc::clone(config)))
    }

    /// Ends every login of this user that has begun by now, in each scope that the layer serves, on all devices. `subject`
    /// are the same bytes as in [`EuidUpdate::subject`](crate::EuidUpdate::subject). It takes at most six calls to the store
    /// for each scope, each at most [`store_timeout`](crate::EuidLayer::store_timeout).
    ///
    /// It notes no opt-out, and one that the store has stays. To prevent later logins, keep the opt-out in the application.
    ///
    /// ```
    /// use tower_euid::EuidSessions;
    /// use tower_euid::store::StoreError;
    ///
    /// async fn close_account(sessions: &EuidSessions, user_id: &str) -> Result<(), StoreError> {
    ///     sessions.end(user_id).await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// If the store did not confirm it for every scope. This node normally tries again every second, and shows nothing of
    /// those logins meanwhile. Other nodes still show them, and a restart of this node ends the attempts. So call it again.
    /// The same holds for a future that is dropped before it completes, for instance because a client hangs up.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with its timer.
    pub async fn end(&self, subject: impl AsRef<[u8]>) -> Result<(), StoreError> {
        let (config, user, now) = (&self.0, subject.as_ref(), self.0.now());
        let unconfirmed = || StoreError::new("the store did not confirm that the login has ended");
        let records = config.records.as_ref().ok_or_else(unconfirmed)?;
        let scopes = Scope::ALL.into_iter().filter(|scope| config.engine.scope().is_none_or(|own| own == *scope));
        let ends: Option<Vec<_>> = scopes.map(|scope| config.engine.end_of_user(scope, user, now)).collect();
        // Without randomness there is no end.
        records.end(ends.ok_or_else(unconfirmed)?).await.map_err(|_| unconfirmed())
    }
}

impl fmt::Debug for EuidSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EuidSessions(..)")
    }
}
