//! Stores: the state of a visitor on the side of the site, instead of in cookies.
//!
//! A [`Store`] maps keys to small values. [`MemoryStore`] is one for tests and for a site of one process; the crate
//! [tower-euid-redis](https://docs.rs/tower-euid-redis) has one for Redis and Valkey. For a store of your own,
//! the feature `conformance` adds `conformance`, the checks that every store must pass.
//!
//! [`EuidLayer::store`](crate::EuidLayer::store) uses one: then a visitor's client has only a handle. The guide
//! [*State in a store*](crate::docs::stores) says when that is worth it.
//!
//! # The contract
//!
//! 1. **`get` sees every `put` that returned**, from any node of the site. So a store reads from where it writes, not from
//!    a replica that may be behind.
//! 2. **What is past its `keep` is absent**: to `get`, and to [`When::Absent`]. A store may round `keep` up to whole seconds.
//! 3. **A `put` is atomic with its condition.** Of two writers with the same condition [`When::Absent`] or [`When::Is`],
//!    one is done and the other is refused.
//! 4. **A refused `put` changes nothing**, nor how long the value there is kept.
//! 5. **A `put` that failed may still happen**, at any time: the error says only that its outcome is unknown.
//! 6. **A store forgets nothing before its time.** Some values say that a login has ended or that a person has opted out. If
//!    they were evicted, the login would come back. A store without room returns an error.
//! 7. **A key is 32 bytes, a value at most [`Stored::MAX_BYTES`]**, and every bit of both counts. `keep` is at least one
//!    second and at most 400 days.
//! 8. **Each `put` has a version of its own.** So a store that repeats a `put` after a broken connection may take its own
//!    version in the store for a sign that the first attempt has succeeded.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! use std::time::Duration;
//! use bytes::Bytes;
//! use tower_euid::store::{MemoryStore, Put, Store, StoreKey, Stored, When};
//!
//! let (store, key, keep) = (MemoryStore::new(), StoreKey::new([7; 32]), Duration::from_secs(3600));
//! let value = |number| Stored { version: [number; 16], bytes: Bytes::from_static(b"sealed") };
//!
//! assert_eq!(store.put(&key, When::Absent, &value(1), keep).await?, Put::Done);
//! // Two nodes have read version 1, and both write. The second one must read again.
//! assert_eq!(store.put(&key, When::Is([1; 16]), &value(2), keep).await?, Put::Done);
//! assert_eq!(store.put(&key, When::Is([1; 16]), &value(3), keep).await?, Put::Refused);
//! assert_eq!(store.get(&key).await?, Some(value(2)));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "conformance")]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
pub mod conformance;
mod memory;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use euid_core::store::{Put, StoreKey, StoreMode, Stored, When};

pub use self::memory::MemoryStore;

/// Keeps the states of visitors. The [module](self) has the contract, by number.
///
/// Implement it with plain `async fn`s:
///
/// ```
/// use std::time::Duration;
/// use tower_euid::store::{Put, Store, StoreError, StoreKey, Stored, When};
///
/// /// A store that can be taken out of use, for maintenance.
/// struct Paused<S>(S, bool);
///
/// impl<S: Store> Store for Paused<S> {
///     async fn get(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
///         if self.1 { Err(StoreError::new("paused")) } else { self.0.get(key).await }
///     }
///
///     async fn put(&self, key: &StoreKey, when: When, stored: &Stored, keep: Duration) -> Result<Put, StoreError> {
///         if self.1 { Err(StoreError::new("paused")) } else { self.0.put(key, when, stored, keep).await }
///     }
/// }
/// ```
pub trait Store: Send + Sync + 'static {
    /// Returns the value of `key`; `None` if there is none, or if it is past its `keep`.
    ///
    /// A page waits for it. So it must return within a fixed time, about 40 ms, also if the store is down.
    ///
    /// ```
    /// use tower_euid::store::{Store, StoreError, StoreKey};
    ///
    /// async fn is_known(store: &impl Store, key: &StoreKey) -> Result<bool, StoreError> {
    ///     Ok(store.get(key).await?.is_some())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// If the store cannot know: it is down, slow or full, or what is there is no value of a [`Store`]. An error must
    /// never become a `None`: a missing value means that the visitor is not logged in.
    fn get(&self, key: &StoreKey) -> impl Future<Output = Result<Option<Stored>, StoreError>> + Send;

    /// Writes `stored` under `key`, in place of what is there, if the condition `when` holds. It is absent again after
    /// `keep`. Like [`get`](Self::get) it must return within a fixed time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_euid::store::{Put, Store, StoreError, StoreKey, Stored, When};
    ///
    /// /// Replaces the value that was read, unless it has changed since.
    /// async fn replace(store: &impl Store, key: &StoreKey, read: &Stored, new: &Stored) -> Result<bool, StoreError> {
    ///     let hour = Duration::from_secs(3600);
    ///     Ok(store.put(key, When::Is(read.version), new, hour).await? == Put::Done)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// If the outcome is unknown, or if there is no room. The write may still happen, at any time.
    fn put(
        &self,
        key: &StoreKey,
        when: When,
        stored: &Stored,
        keep: Duration,
    ) -> impl Future<Output = Result<Put, StoreError>> + Send;

    /// The time within which each call returns, whatever happens, if the store sees to that itself. A layer whose own limit is
    /// not shorter then sets no second timer. Default: `None`.
    ///
    /// ```
    /// use tower_euid::store::{MemoryStore, Store};
    ///
    /// assert!(MemoryStore::new().returns_within().is_some());
    /// ```
    fn returns_within(&self) -> Option<Duration> {
        None
    }
}

impl<S: Store> Store for Arc<S> {
    async fn get(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        (**self).get(key).await
    }

    async fn put(&self, key: &StoreKey, when: When, stored: &Stored, keep: Duration) -> Result<Put, StoreError> {
        (**self).put(key, when, stored, keep).await
    }

    fn returns_within(&self) -> Option<Duration> {
        (**self).returns_within()
    }
}

/// A call to a store failed: its outcome is unknown. A clone is cheap.
///
/// Its text gets into logs. It must name no key, no value and no password, nor a URL that may have one.
///
/// ```
/// use std::error::Error;
/// use std::io;
/// use tower_euid::store::StoreError;
///
/// let error = StoreError::new("no answer from the store").with_source(io::Error::from(io::ErrorKind::TimedOut));
/// assert_eq!(error.to_string(), "no answer from the store");
/// assert_eq!(error.source().map(ToString::to_string), Some("timed out".to_owned()));
/// ```
#[derive(Clone)]
pub struct StoreError {
    what: Cow<'static, str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error with this text.
    ///
    /// ```
    /// use tower_euid::store::StoreError;
    ///
    /// assert_eq!(StoreError::new("the store is full").to_string(), "the store is full");
    /// ```
    #[must_use]
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), source: None }
    }

    /// The same error with its cause, which [`Error::source`] returns.
    ///
    /// ```
    /// use tower_euid::store::StoreError;
    ///
    /// let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    /// let error = StoreError::new("no connection to the store").with_source(cause);
    /// assert!(format!("{error:?}").contains("ConnectionRefused"));
    /// ```
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("StoreError");
        debug.field("what", &self.what);
        if let Some(source) = &self.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A [`Store`] with its type erased: each call is one box.
pub(crate) trait ErasedStore: Send + Sync {
    fn get(self: Arc<Self>, key: StoreKey) -> BoxedCall<Option<Stored>>;

    fn put(self: Arc<Self>, key: StoreKey, when: When, stored: Stored, keep: Duration) -> BoxedCall<Put>;

    fn returns_within(&self) -> Option<Duration>;
}

pub(crate) type BoxedCall<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

impl<S: Store> ErasedStore for S {
    fn get(self: Arc<Self>, key: StoreKey) -> BoxedCall<Option<Stored>> {
        Box::pin(async move { Store::get(&*self, &key).await })
    }

    fn put(self: Arc<Self>, key: StoreKey, when: When, stored: Stored, keep: Duration) -> BoxedCall<Put> {
        Box::pin(async move { Store::put(&*self, &key, when, &stored, keep).await })
    }

    fn returns_within(&self) -> Option<Duration> {
        Store::returns_within(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[tokio::test]
    async fn erased_store_is_the_store() {
        let store = Arc::new(MemoryStore::new());
        let erased: Arc<dyn ErasedStore> = Arc::clone(&store) as _;
        let key = StoreKey::new([1; 32]);
        let stored = Stored { version: [2; 16], bytes: Bytes::from_static(b"x") };
        let put = Arc::clone(&erased).put(key.clone(), When::Absent, stored.clone(), Duration::from_secs(1));
        assert_eq!(put.await.unwrap(), Put::Done);
        assert_eq!(erased.get(key.clone()).await.unwrap(), Some(stored.clone()));
        assert_eq!(Store::get(&store, &key).await.unwrap(), Some(stored));
    }

    #[test]
    fn store_error_keeps_its_source_in_a_clone() {
        let error = StoreError::new("x").with_source(std::io::Error::from(std::io::ErrorKind::TimedOut));
        assert_eq!(error.clone().source().unwrap().to_string(), "timed out");
        assert!(StoreError::new("x").source().is_none());
    }
}
