//! The store, and its two commands.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, RedisResult, Script, ServerErrorKind, Value, cmd, pipe};
use tokio::time::timeout;
use tower_euid::ConfigError;
use tower_euid::store::{Put, Store, StoreError, StoreKey, Stored, When};

use crate::builder::RedisStoreBuilder;
use crate::failure::{Failure, Remedy};
use crate::link::{Attempt, Connection, Link, now};

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
/// let store = RedisStore::new("redis://localhost")?;
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
        Self(Arc::new(Inner { link, prefix, timeout }))
    }

    fn key(&self, key: &StoreKey) -> String {
        [self.0.prefix.as_str(), &key.to_hex()].concat()
    }

    /// Runs a command, once more if that may help, and ends in time.
    async fn run(&self, command: &Command<'_>) -> Result<Value, StoreError> {
        let link = &self.0.link;
        let mut attempt = link.attempt()?;
        let outcome = self.in_time(async {
            match command.run_on(link, &attempt).await {
                Err(failure) if failure.remedy != Remedy::Keep && link.failed(&attempt, failure.remedy) => {
                    attempt = link.attempt()?;
                    command.run_on(link, &attempt).await.map_err(|failure| {
                        link.failed(&attempt, failure.remedy);
                        failure.error
                    })
                }
                outcome => outcome.map_err(|failure| failure.error),
            }
        });
        outcome.await.unwrap_or_else(|| {
            let Failure { error, remedy } = Failure::timeout();
            link.failed(&attempt, remedy);
            Err(error)
        })
    }

    /// Returns the output of a call, or `None` at the timeout. If that fires late, this process was frozen: an answer may
    /// have arrived meanwhile, and the connection's task needs a moment to hand it on.
    async fn in_time<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let (mut call, begun, time) = (pin!(call), now(), self.0.timeout);
        match timeout(time, call.as_mut()).await {
            Err(_) if now().saturating_duration_since(begun) >= time.saturating_add(LATE) => {
                timeout(GRACE, call).await.ok()
            }
            outcome => outcome.ok(),
        }
    }
}

impl Store for RedisStore {
    async fn get(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        match self.run(&Command::Get { key: &self.key(key) }).await? {
            Value::Nil => Ok(None),
            Value::BulkString(value) => match value.first_chunk() {
                Some(version) => Ok(Some(Stored { version: *version, bytes: Bytes::from(value).slice(VERSION..) })),
                None => Err(Failure::foreign().error),
            },
            _ => Err(Failure::foreign().error),
        }
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
        match self.run(&Command::Put { key: &self.key(key), condition, value: &value, keep }).await? {
            Value::Int(1) => Ok(Put::Done),
            Value::Int(0) => Ok(Put::Refused),
            _ => Err(Failure::foreign().error),
        }
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

enum Command<'a> {
    Get { key: &'a str },
    Put { key: &'a str, condition: &'a [u8], value: &'a [u8], keep: u64 },
}

impl Command<'_> {
    async fn run_on(&self, link: &Link, attempt: &Attempt) -> Result<Value, Failure> {
        let mut connection = attempt.connection().await?;
        match *self {
            Self::Get { key } => get(link, attempt, &mut connection, key).await,
            Self::Put { key, condition, value, keep } => {
                let script = |command: &str, script: &str| {
                    let mut command = cmd(command);
                    command.arg(script).arg(1).arg(key).arg(condition).arg(value).arg(keep);
                    command
                };
                match send(&mut connection, &script("EVALSHA", PUT.get_hash())).await {
                    // By `EVAL` the script gets to the server of this key. `SCRIPT LOAD`, in a cluster, needs all servers.
                    Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                        Ok(send(&mut connection, &script("EVAL", PUT_CODE)).await?)
                    }
                    outcome => Ok(outcome?),
                }
            }
        }
    }
}

async fn send(connection: &mut Connection, command: &Cmd) -> RedisResult<Value> {
    connection.req_packed_command(command).await?.extract_error()
}

/// Reads a key. One server also says its role, from time to time: it may have become a replica since the connection was
/// made. In a cluster a replica itself refuses.
async fn get(link: &Link, attempt: &Attempt, connection: &mut Connection, key: &str) -> Result<Value, Failure> {
    if attempt.is_primary || link.is_cluster() {
        return Ok(send(connection, cmd("GET").arg(key)).await?);
    }
    let commands = pipe().cmd("GET").arg(key).cmd("ROLE").to_owned();
    let answers = connection.req_packed_commands(&commands, 0, 2).await?;
    let Ok([value, role]) = <[Value; 2]>::try_from(answers) else { return Err(Failure::foreign()) };
    if is_replica(&role) {
        return Err(Failure::replica());
    }
    link.is_primary(attempt);
    Ok(value.extract_error()?)
}

/// An error, of a user who may not ask for the role, says nothing.
fn is_replica(role: &Value) -> bool {
    let Value::Array(role) = role else { return false };
    matches!(role.first(), Some(Value::BulkString(role)) if role == b"slave")
}

/// A timeout that fires this late shows that nothing ran meanwhile. The layer's own deadlines have the same two times.
const LATE: Duration = Duration::from_millis(100);
/// The extra time for an answer that arrived while nothing ran.
const GRACE: Duration = Duration::from_millis(250);
/// The bytes of a version, with which each value begins.
const VERSION: usize = 16;
/// A thousand years. Redis adds the time to the present one, and refuses what overflows.
const LONGEST_KEEP_MILLIS: u64 = 1000 * 365 * 86_400_000;

/// Compares and writes. A value of the new version is there only if this very put has been done before, and its answer was
/// lost.
const PUT_CODE: &str = "
local when, value = ARGV[1], ARGV[2]
if when ~= 'always' then
    local there = redis.call('GETRANGE', KEYS[1], 0, 15)
    if there == string.sub(value, 1, 16) then
        return 1
    end
    if when == 'absent' then
        if redis.call('EXISTS', KEYS[1]) == 1 then
            return 0
        end
    elseif there ~= when then
        return 0
    end
end
redis.call('SET', KEYS[1], value, 'PX', ARGV[3])
return 1
";

static PUT: LazyLock<Script> = LazyLock::new(|| Script::new(PUT_CODE));
