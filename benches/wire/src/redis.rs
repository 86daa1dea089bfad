//! A Redis server for a benchmark, with faults on demand.

#[allow(dead_code, reason = "the tests of the store use all of it")]
#[path = "../../../crates/tower-euid-redis/tests/redis/server.rs"]
mod server;

use std::fs;
use std::path::PathBuf;

use redis::FromRedisValue;

use self::server::{Hanging, Server, free_port};

/// A `redis-server`, which ends when this is dropped. It keeps its data when it is killed, if it is durable.
pub struct Redis {
    server: Option<Server>,
    hanging: Option<Hanging>,
    /// The folder of the data, if it is durable.
    folder: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisFault {
    Killed,
    Stopped,
    Replica,
    TooFewReplicas,
    NoMemory,
}

impl Redis {
    /// Starts one that keeps its data in memory alone.
    #[must_use]
    pub fn start() -> Self {
        Self::in_folder(None)
    }

    #[must_use]
    pub fn durable() -> Self {
        let folder = std::env::temp_dir().join(format!("tower-euid-durable-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self::in_folder(Some(folder))
    }

    fn in_folder(folder: Option<PathBuf>) -> Self {
        let mut redis = Self { server: None, hanging: None, folder };
        redis.serve(None);
        redis
    }

    fn serve(&mut self, port: Option<u16>) {
        // With `no`, Redis writes its file before each reply. With `everysec`, it delays that while the disk is busy.
        let always = ["--appendonly", "yes", "--appendfsync", "no", "--dir"];
        let folder = self.folder.as_ref().map(|folder| folder.to_str().unwrap());
        let arguments: Vec<&str> = folder.iter().flat_map(|folder| always.iter().chain([folder])).copied().collect();
        self.server = Some(Server::start_on(port, &arguments).expect("redis-server is installed"));
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    #[must_use]
    pub fn url(&self) -> String {
        self.server().url()
    }

    /// Runs a command, whose words are separated by blanks.
    pub async fn command<T: FromRedisValue>(&self, command: &str) -> T {
        self.server().command(command).await
    }

    pub async fn begin(&mut self, fault: RedisFault) {
        match fault {
            RedisFault::Killed => self.server().kill(),
            RedisFault::Stopped => self.hanging = Some(self.server().hang()),
            RedisFault::Replica => self.command(&format!("REPLICAOF 127.0.0.1 {}", free_port())).await,
            RedisFault::TooFewReplicas => self.command("CONFIG SET min-replicas-to-write 1").await,
            RedisFault::NoMemory => self.command("CONFIG SET maxmemory 1mb").await,
        }
    }

    pub async fn end(&mut self, fault: RedisFault) {
        match fault {
            RedisFault::Killed => self.serve(Some(self.server().port())),
            RedisFault::Stopped => self.hanging = None,
            RedisFault::Replica => self.command("REPLICAOF NO ONE").await,
            RedisFault::TooFewReplicas => self.command("CONFIG SET min-replicas-to-write 0").await,
            RedisFault::NoMemory => self.command("CONFIG SET maxmemory 0").await,
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.hanging = None;
        self.server = None;
        self.folder.iter().for_each(|folder| _ = fs::remove_dir_all(folder));
    }
}

impl RedisFault {
    pub const ALL: [Self; 5] = [Self::Killed, Self::Stopped, Self::Replica, Self::TooFewReplicas, Self::NoMemory];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Stopped => "stopped (SIGSTOP)",
            Self::Replica => "replica of a dead primary",
            Self::TooFewReplicas => "read only (`min-replicas-to-write`)",
            Self::NoMemory => "out of memory (`maxmemory`)",
        }
    }

    /// Whether Redis still answers reads.
    #[must_use]
    pub fn reads(self) -> bool {
        matches!(self, Self::TooFewReplicas | Self::NoMemory)
    }
}
