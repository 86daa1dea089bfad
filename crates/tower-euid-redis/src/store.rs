//! The store: its calls, their timeout, and their repetition.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tower_euid::ConfigError;
use tower_euid::store::{Put, Store, StoreError, StoreKey, Stored, When};

use crate::builder::RedisStoreBuilder;
use crate::commands::{Command, Get, Write};
use crate::failure::{Failure, Remedy};
use crate::link::{Link, now, runtime};
use crate::reads::{Answer, Read, Reads, Task, Waiting};

/// A [`Store`] on Redis or Valkey. The [crate](crate) has its rules, by number.
///
/// A clone is cheap and shares the connection. A call needs a tokio runtime with its timer and its I/O.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use bytes::Bytes;
/// use tower_euid::store::{Put, Store, StoreKey, Stored, When};
/// use tower_euid_redis::RedisStore;
///
/// let store = RedisStore::new("redis://127.0.0.1:7793")?;
/// let (key, value) = (StoreKey::new([7; 32]), Stored { version: [1; 16], bytes: Bytes::from_static(b"sealed") });
/// assert_eq!(store.put(&key, When::Absent, &value, Duration::from_secs(60)).await?, Put::Done);
/// assert_eq!(store.get(&key).await?, Some(value));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    link: Link,
    prefix: String,
    timeout: Duration,
    reads: Reads,
}

impl RedisStore {
    /// A store on the one server at this URL, with the default settings: `redis://[user][:password@]host[:port][/database]`,
    /// `rediss://…` with TLS, or `unix:///path`. The names `valkey` and `valkeys` mean the same as `redis` and `rediss`.
    ///
    /// ```
    /// use tower_euid_redis::RedisStore;
    ///
    /// let store = RedisStore::new("redis://:password@redis.internal:6379/0")?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`RedisStoreBuilder::build`].
    pub fn new(url: impl Into<String>) -> Result<Self, ConfigError> {
        Self::builder(url).build()
    }

    /// Begins the settings of a store.
    ///
    /// ```
    /// use tower_euid_redis::RedisStore;
    ///
    /// let store = RedisStore::builder("redis://redis.internal").prefix("shop:").build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn builder(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url.into())
    }

    pub(crate) fn with(link: Link, prefix: String, timeout: Duration) -> Self {
        Self(Arc::new(Inner { link, prefix, timeout, reads: Reads::default() }))
    }

    fn key(&self, key: &StoreKey) -> String {
        [self.0.prefix.as_str(), &key.to_hex()].concat()
    }

    /// Makes the reads that wait, in one round trip.
    async fn read_waiting(self, task: Task) {
        let Waiting { keys, answers } = self.0.reads.take(task).await;
        if keys.is_empty() {
            return;
        }
        let found = self.run(&Get(&keys)).await;
        let found = found.unwrap_or_else(|error| vec![Err(error); keys.len()]);
        for (answer, found) in answers.into_iter().zip(found) {
            // The request may be gone.
            let _ = answer.send(found);
        }
    }

    /// Reads a key alone. In a cluster the keys are on different servers.
    async fn read_alone(&self, key: &StoreKey) -> Answer {
        let found = self.run(&Get(&[self.key(key)])).await?;
        found.into_iter().next().unwrap_or_else(|| Err(Failure::foreign().error))
    }

    /// Runs a command, once more if that may help, and ends in time.
    async fn run<C: Command>(&self, command: &C) -> Result<C::Output, StoreError> {
        let link = &self.0.link;
        let mut attempt = link.attempt()?;
        let mut is_repeated = false;
        let call = async {
            loop {
                let Failure { error, remedy } = match command.run_on(link, &attempt).await {
                    Ok(output) => return Ok(output),
                    Err(failure) => failure,
                };
                let may_help = remedy != Remedy::Keep && link.failed(&attempt, remedy);
                if is_repeated || !may_help {
                    return Err(error);
                }
                (attempt, is_repeated) = (link.attempt()?, true);
            }
        };
        let outcome = self.in_time(call, || false).await;
        outcome.unwrap_or_else(|| {
            let Failure { error, remedy } = Failure::timeout();
            link.failed(&attempt, remedy);
            Err(error)
        })
    }

    /// Returns the output of a call, or `None` at the timeout. If that fires late, this process was frozen: an answer may
    /// have arrived meanwhile, and the connection's task needs a moment to hand it on. So does a call that `resends`.
    async fn in_time<T>(&self, call: impl Future<Output = T>, resends: impl FnOnce() -> bool) -> Option<T> {
        let (mut call, begun, time) = (pin!(call), now(), self.0.timeout);
        match timeout(time, call.as_mut()).await {
            Err(_) if resends() || now().saturating_duration_since(begun) >= time.saturating_add(LATE) => {
                timeout(GRACE, call).await.ok()
            }
            outcome => outcome.ok(),
        }
    }
}

impl Store for RedisStore {
    async fn get(&self, key: &StoreKey) -> Answer {
        let runtime = runtime()?;
        let shared = if self.0.link.is_cluster() { None } else { self.0.reads.begin(|| self.key(key)) };
        let Some(Read { answer, task, round }) = shared else {
            // In a box, as it is large.
            return Box::pin(self.read_alone(key)).await;
        };
        let start = |task| drop(runtime.spawn(self.clone().read_waiting(task)));
        if let Some(task) = task {
            start(task);
        }
        let call = async {
            match answer.await {
                Ok(answer) => answer,
                // Its task has ended, with another runtime.
                Err(_) => Box::pin(self.read_alone(key)).await,
            }
        };
        let resends = || {
            let is_waiting = self.0.reads.is_waiting(round);
            if is_waiting {
                start(Task::AtOnce);
            }
            is_waiting
        };
        self.in_time(call, resends).await.unwrap_or_else(|| Err(Failure::timeout().error))
    }

    fn returns_within(&self) -> Option<Duration> {
        Some(self.0.timeout)
    }

    async fn put(&self, key: &StoreKey, when: When, stored: &Stored, keep: Duration) -> Result<Put, StoreError> {
        let condition: &[u8] = match &when {
            When::Always => b"always",
            When::Absent => b"absent",
            When::Is(version) => version,
        };
        let value = [&stored.version, &*stored.bytes].concat();
        // Redis refuses 0, and what is later than its calendar.
        let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX).clamp(1, LONGEST_KEEP_MILLIS);
        self.run(&Write { key: &self.key(key), condition, value: &value, keep }).await
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("is_cluster", &self.0.link.is_cluster())
            .field("prefix", &self.0.prefix)
            .field("timeout", &self.0.timeout)
            .finish_non_exhaustive()
    }
}

/// A timeout that fires this late shows that nothing ran meanwhile. The layer's own deadlines have the same two times.
const LATE: Duration = Duration::from_millis(100);
/// The extra time for an answer that arrived while nothing ran.
const GRACE: Duration = Duration::from_millis(250);
/// A thousand years. Redis adds the time to the present one, and refuses what overflows.
const LONGEST_KEEP_MILLIS: u64 = 1000 * 365 * 86_400_000;
