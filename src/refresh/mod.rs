//! Refreshes: the trait that the layer calls, and the coordination of its calls.
//!
//! The layer refreshes an identity through a [`Refresh`], usually an [`EuidClient`](crate::EuidClient);
//! [`refresh_fn`] makes one of any function. A call is boxed once, where it begins, so the layer needs no type
//! parameter for it.
//!
//! A due request enters at [`coordinator`]. [`table`] decides what it does, from the outcomes in [`memo`] and from the
//! [`breaker`]. [`token_state`] is what the memo holds of one token, and [`backoff`] computes the wait after a failure.
//! [`leader`] makes the call, [`flight`] is the call that requests wait for. [`log_limit`] limits a log line that any
//! visitor or an outage can cause.

mod backoff;
mod breaker;
mod coordinator;
#[cfg(test)]
mod fixtures;
mod flight;
#[cfg(all(test, shuttle))]
mod interleavings;
mod leader;
mod log_limit;
mod memo;
mod sync;
mod table;
mod token_state;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use euid_core::error::{ErrorKind, EuidError};
use euid_core::identity::Identity;
use euid_core::{Refreshed, Scope};

pub(crate) use self::breaker::BreakerState;
pub use self::breaker::{Admission, Breaker};
pub(crate) use self::coordinator::{Coordinator, Reply, Settings};
pub(crate) use self::flight::Waiter;
pub(crate) use self::log_limit::LogLimit;
#[cfg(feature = "client")]
pub(crate) use self::log_limit::LogLimits;
pub(crate) use self::memo::{MemoLimit, RefreshKey};
pub(crate) use self::sync::{Mutex, lock};
pub(crate) use self::table::Origin;

/// Refreshes identities. Implemented by [`EuidClient`](crate::EuidClient).
///
/// Implement it with a plain `async fn`:
///
/// ```
/// use tower_euid::{EuidError, Identity, Refresh, Refreshed};
///
/// struct ThroughOurGateway;
///
/// impl Refresh for ThroughOurGateway {
///     async fn refresh(&self, identity: &Identity) -> Result<Refreshed, EuidError> {
///         # let ask = |identity: &Identity| identity.clone();
///         Ok(Refreshed::Identity(ask(identity)))
///     }
/// }
/// ```
pub trait Refresh: Send + Sync + 'static {
    /// Returns the successor of `identity`. The layer runs it in a task of its own; like any future it must not
    /// block the thread, because pages may be waiting on it.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use tower_euid::{EuidError, Identity, Refresh, Refreshed, Scope};
    ///
    /// /// Counts the calls of another `Refresh`.
    /// struct Counted<R>(R, AtomicU64);
    ///
    /// impl<R: Refresh> Refresh for Counted<R> {
    ///     async fn refresh(&self, identity: &Identity) -> Result<Refreshed, EuidError> {
    ///         self.1.fetch_add(1, Ordering::Relaxed);
    ///         self.0.refresh(identity).await
    ///     }
    ///
    ///     fn scope(&self) -> Option<Scope> {
    ///         self.0.scope()
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The layer reads the [kind](EuidError::kind): [`RejectedToken`](ErrorKind::RejectedToken) and
    /// [`LoginEnded`](ErrorKind::LoginEnded) end the identity,
    /// [`RejectedInput`](ErrorKind::RejectedInput) ends it once its advertising token has expired, and any other kind
    /// counts as a temporary failure.
    fn refresh(&self, identity: &Identity) -> impl Future<Output = Result<Refreshed, EuidError>> + Send;

    /// Returns the scope of the identities that it refreshes; `None`, the default, if it refreshes any. A `Refresh`
    /// around another one returns that one's.
    ///
    /// ```
    /// use tower_euid::{Refresh, Refreshed, Scope, refresh_fn};
    ///
    /// fn accepts(refresh: &impl Refresh, scope: Scope) -> bool {
    ///     refresh.scope().is_none_or(|of_refresh| of_refresh == scope)
    /// }
    /// let any = refresh_fn(async |_identity| Ok(Refreshed::OptedOut));
    /// assert!(accepts(&any, Scope::Euid) && accepts(&any, Scope::Uid2));
    /// # #[cfg(feature = "client")] {
    /// # use tower_euid::{Environment, EuidClient};
    /// let client = EuidClient::builder(Environment::Url("http://localhost:3000".to_owned())).scope(Scope::Uid2).build()?;
    /// assert!(!accepts(&client, Scope::Euid));
    /// # }
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    fn scope(&self) -> Option<Scope> {
        None
    }
}

impl<R: Refresh> Refresh for Arc<R> {
    async fn refresh(&self, identity: &Identity) -> Result<Refreshed, EuidError> {
        (**self).refresh(identity).await
    }

    fn scope(&self) -> Option<Scope> {
        (**self).scope()
    }
}

/// Makes a [`Refresh`] of a function, for a gateway of your own in front of the operator, and for tests.
///
/// ```
/// use tower_euid::refresh_fn;
/// use tower_euid::error::{ErrorKind, EuidError};
///
/// let down = refresh_fn(|_identity| async { Err(EuidError::new(ErrorKind::Transient, "down for now")) });
/// ```
pub fn refresh_fn<F, Fut>(refresh: F) -> RefreshFn<F>
where
    F: Fn(Identity) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Refreshed, EuidError>> + Send,
{
    RefreshFn { refresh, scope: None }
}

/// The [`Refresh`] that [`refresh_fn`] makes.
///
/// ```
/// # use tower_euid::{CookieKey, EuidLayer, KeyRing, Refreshed, refresh_fn};
/// # let keys = KeyRing::from(CookieKey::generate()?);
/// // In a test, one function for two layers: every refresh finds an opt-out.
/// let all_opt_out = refresh_fn(|_identity| async { Ok(Refreshed::OptedOut) });
/// let (site, shop) = (EuidLayer::new(keys.clone(), all_opt_out), EuidLayer::new(keys, all_opt_out));
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone, Copy)]
pub struct RefreshFn<F> {
    refresh: F,
    scope: Option<Scope>,
}

impl<F> RefreshFn<F> {
    /// The same `Refresh`, of identities of this scope only.
    ///
    /// ```
    /// use tower_euid::error::{ErrorKind, EuidError};
    /// use tower_euid::{Refresh, Scope, refresh_fn};
    ///
    /// let down = refresh_fn(|_identity| async { Err(EuidError::new(ErrorKind::Transient, "down for now")) });
    /// assert_eq!(down.scope(), None);
    /// assert_eq!(down.with_scope(Scope::Uid2).scope(), Some(Scope::Uid2));
    /// ```
    #[must_use]
    pub fn with_scope(self, scope: Scope) -> Self {
        Self { scope: Some(scope), ..self }
    }
}

impl<F, Fut> Refresh for RefreshFn<F>
where
    F: Fn(Identity) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Refreshed, EuidError>> + Send,
{
    async fn refresh(&self, identity: &Identity) -> Result<Refreshed, EuidError> {
        (self.refresh)(identity.clone()).await
    }

    fn scope(&self) -> Option<Scope> {
        self.scope
    }
}

impl<F> fmt::Debug for RefreshFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshFn(..)")
    }
}

/// A transient failure, for a call that was not made or not answered.
pub(crate) fn transient(why: &'static str) -> Result<Refreshed, EuidError> {
    Err(EuidError::new(ErrorKind::Transient, why))
}

/// A [`Refresh`] with its type erased: each call is one box.
pub(crate) trait ErasedRefresh: Send + Sync {
    fn call(self: Arc<Self>, identity: Arc<Identity>) -> BoxedCall;
}

pub(crate) type BoxedCall = Pin<Box<dyn Future<Output = Called> + Send>>;

/// What became of a call.
pub(crate) enum Called {
    /// The outcome after the operator's answer, or after it gave none.
    Answered(Result<Refreshed, EuidError>),
    /// The outcome without asking the operator: another node has asked it, or the login has ended.
    Known(Result<Refreshed, EuidError>),
    /// The operator was not asked, for this reason, which says nothing about it.
    NotMade(&'static str),
}

impl<R: Refresh> ErasedRefresh for R {
    fn call(self: Arc<Self>, identity: Arc<Identity>) -> BoxedCall {
        Box::pin(async move { Called::Answered(self.refresh(&identity).await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refresh_in_an_arc_keeps_its_scope() {
        let any = refresh_fn(|_| async { transient("x") });
        assert_eq!(Arc::new(any).scope(), None);
        for scope in Scope::ALL {
            assert_eq!(Arc::new(any.with_scope(scope)).scope(), Some(scope));
        }
    }

    #[test]
    fn debug_of_refresh_fn_names_its_type() {
        assert_eq!(format!("{:?}", refresh_fn(|_| async { transient("x") })), "RefreshFn(..)");
    }
}
