//! The connection to the server, or to the nodes of a cluster: one that all calls share.
//!
//! 1. Nothing connects before the first call.
//! 2. An attempt to connect runs in a task of its own. All calls that need a connection wait for the same attempt, and it
//!    goes on if they stop waiting.
//! 3. A lost connection, and a failed attempt, are followed by a new attempt as soon as a call needs one: not within
//!    [`ATTEMPT_EVERY`] of the last attempt.
//! 4. A connection to a server that does not serve is replaced, at most once in [`REPLACE_EVERY`].
//! 5. What a server says of its role counts for [`ROLE_EVERY`]: it can become a replica and keep its connections.
//!
//! The connection manager of the crate `redis` is not used: after a reconnect that the server refused, for instance because it
//! was loading its data, it never connects again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisFuture, RedisResult, Value};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tower_euid::store::StoreError;

use crate::failure::{Failure, Remedy};

/// Where to connect to.
#[derive(Clone)]
pub(crate) enum Server {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
}

/// A connection. A clone is the same connection.
#[derive(Clone)]
pub(crate) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

pub(crate) struct Link {
    server: Server,
    connect_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Attempt>,
    /// When the server last said that it is the primary.
    primary_at: Option<Instant>,
    /// When a connection that worked was last replaced.
    replaced: Option<Instant>,
}

/// An attempt to connect, and its outcome.
#[derive(Clone)]
pub(crate) struct Attempt {
    begun: Instant,
    /// The server has lately said that it is the primary.
    pub(crate) is_primary: bool,
    outcome: Shared<BoxFuture<'static, Result<Connection, StoreError>>>,
}

impl Server {
    pub(crate) fn one(client: Client) -> Self {
        Self::One(Box::new(client))
    }

    pub(crate) fn cluster(client: ClusterClient) -> Self {
        Self::Cluster(Box::new(client))
    }

    async fn connect(self, timeout: Duration) -> RedisResult<Connection> {
        match self {
            Self::One(client) => {
                // Each call has its own timeout.
                let config =
                    AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(None);
                client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::One)
            }
            Self::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(commands, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

impl Link {
    pub(crate) fn new(server: Server, connect_timeout: Duration) -> Self {
        Self { server, connect_timeout, state: Mutex::default() }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.server, Server::Cluster(_))
    }

    /// The present attempt to connect; begins the first one.
    pub(crate) fn attempt(&self) -> Result<Attempt, StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(current) = &state.current else {
            return Ok(state.current.insert(self.begin(now())?).clone());
        };
        let is_recent = |at: Instant| now().saturating_duration_since(at) < ROLE_EVERY;
        Ok(Attempt { is_primary: state.primary_at.is_some_and(is_recent), ..current.clone() })
    }

    /// Notes that the server of this attempt has said that it is the primary.
    pub(crate) fn is_primary(&self, attempt: &Attempt) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.current.as_ref().is_some_and(|current| current.is(attempt)) {
            state.primary_at = Some(now());
        }
    }

    /// Notes that a call on this attempt's connection has failed. Returns whether there is another attempt by now.
    pub(crate) fn failed(&self, attempt: &Attempt, remedy: Remedy) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.current.as_ref().is_none_or(|current| !current.is(attempt)) {
            return true;
        }
        state.primary_at = None;
        let (now, is_made) = (now(), attempt.outcome.peek().is_some());
        let is_due = match remedy {
            Remedy::Keep => false,
            // It is still being made, and that takes at most the timeout.
            _ if !is_made => false,
            Remedy::Reconnect => now.saturating_duration_since(attempt.begun) >= ATTEMPT_EVERY,
            Remedy::Replace => state.replaced.is_none_or(|at| now.saturating_duration_since(at) >= REPLACE_EVERY),
        };
        let Some(next) = is_due.then(|| self.begin(now).ok()).flatten() else { return false };
        if remedy == Remedy::Replace {
            state.replaced = Some(now);
        }
        state.current = Some(next);
        true
    }

    fn begin(&self, begun: Instant) -> Result<Attempt, StoreError> {
        let (server, timeout) = (self.server.clone(), self.connect_timeout);
        let task = runtime()?.spawn(async move {
            let connecting = tokio::time::timeout(timeout, server.connect(timeout));
            match connecting.await {
                Ok(connected) => connected.map_err(|error| Failure::from(error).error),
                Err(_) => Err(Failure::timeout().error),
            }
        });
        // rustls panics if a program has several providers of cryptography and no default one.
        let outcome =
            task.map(|outcome| outcome.unwrap_or_else(|_| Err(StoreError::new("connecting to Redis panicked"))));
        Ok(Attempt { begun, is_primary: false, outcome: outcome.boxed().shared() })
    }
}

impl Attempt {
    pub(crate) async fn connection(&self) -> Result<Connection, Failure> {
        let outcome = self.outcome.clone().await;
        outcome.map_err(|error| Failure { error, remedy: Remedy::Reconnect })
    }

    fn is(&self, other: &Self) -> bool {
        self.outcome.ptr_eq(&other.outcome)
    }
}

/// The runtime of the caller.
pub(crate) fn runtime() -> Result<Handle, StoreError> {
    Handle::try_current().map_err(|error| StoreError::new("Redis needs a tokio runtime").with_source(error))
}

#[expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the runtime's clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// How long an answer about the role counts.
const ROLE_EVERY: Duration = Duration::from_millis(100);
/// The shortest time between two attempts.
const ATTEMPT_EVERY: Duration = Duration::from_millis(100);
/// The shortest time between two replacements of a connection that was not lost.
const REPLACE_EVERY: Duration = Duration::from_secs(1);
