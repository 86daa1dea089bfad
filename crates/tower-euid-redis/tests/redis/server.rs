//! A server of one test.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue};

use crate::PATIENT;
use tower_euid_redis::{RedisStore, RedisStoreBuilder};

/// Arguments for a user who may use what the docs of the crate list, but for what depends on the kind of server.
pub(crate) const USER: [&str; 11] =
    ["--user", "site", "on", ">hunter2", "~euid:*", "+get", "+evalsha", "+eval", "+exists", "+getrange", "+set"];
/// What the URL of this user begins with; the port follows.
pub(crate) const USER_URL: &str = "redis://site:hunter2@127.0.0.1:";

pub(crate) struct Server {
    port: u16,
    folder: PathBuf,
    process: Child,
}

impl Server {
    /// Starts a server with more arguments, in which `PORT` is its port; `None` if the machine has no such program.
    pub(crate) fn start(arguments: &[&str]) -> Option<Self> {
        Self::start_on(None, arguments)
    }

    /// Starts a server on this port, which was another one's before.
    pub(crate) fn start_again(port: u16) -> Option<Self> {
        Self::start_on(Some(port), &[])
    }

    pub(crate) fn start_on(port: Option<u16>, arguments: &[&str]) -> Option<Self> {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let program = program()?;
        for _ in 0..20 {
            let port = port.unwrap_or_else(free_port);
            let number = STARTED.fetch_add(1, Ordering::Relaxed);
            let folder = env::temp_dir().join(format!("tower-euid-redis-{}-{number}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            let mut process = Command::new(&program)
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
                .args(["--daemonize", "no", "--loglevel", "notice", "--dir"])
                .arg(&folder)
                .args(arguments.iter().map(|argument| argument.replace("PORT", &port.to_string())))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
            let is_ready = lines.any(|line| line.contains("Ready to accept connections"));
            // The pipe must not fill up.
            thread::spawn(move || lines.for_each(drop));
            let server = Self { port, folder, process };
            if is_ready {
                return Some(server);
            }
            // Another process has taken the port meanwhile: the server has ended.
        }
        panic!("{} does not start", Path::new(&program).display());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A store on this server that waits long for it.
    pub(crate) fn store(&self) -> RedisStore {
        self.builder().build().unwrap()
    }

    pub(crate) fn builder(&self) -> RedisStoreBuilder {
        RedisStore::builder(self.url()).timeout(PATIENT)
    }

    /// A connection of the test's own.
    pub(crate) async fn connect(&self) -> MultiplexedConnection {
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let client = Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    /// Runs a command, whose words are separated by blanks.
    pub(crate) async fn command<T: FromRedisValue>(&self, command: &str) -> T {
        words(command).query_async(&mut self.connect().await).await.unwrap()
    }

    /// How many connections the server has accepted so far, without this one.
    pub(crate) async fn accepted(&self) -> usize {
        let stats: String = self.command("INFO stats").await;
        let line = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
        line.parse::<usize>().unwrap() - 1
    }

    /// Ends the process at once. Its port and its data stay known.
    pub(crate) fn kill(&self) {
        signal("-KILL", self.process.id());
    }

    /// Stops the process, so that its connections hang. It goes on when the returned value is dropped.
    pub(crate) fn hang(&self) -> Hanging {
        signal("-STOP", self.process.id());
        Hanging(self.process.id())
    }
}

/// A command, whose words are separated by blanks.
pub(crate) fn words(command: &str) -> redis::Cmd {
    let mut cmd = redis::Cmd::new();
    cmd.arg(command.split(' ').collect::<Vec<_>>());
    cmd
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A process that has been stopped.
pub(crate) struct Hanging(u32);

impl Drop for Hanging {
    fn drop(&mut self) {
        signal("-CONT", self.0);
    }
}

fn signal(signal: &str, process: u32) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

fn program() -> Option<OsString> {
    let program = env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
    let version = Command::new(&program).arg("--version").stdout(Stdio::null()).status();
    if version.is_ok_and(|status| status.success()) {
        return Some(program);
    }
    assert!(env::var_os("CI").is_none(), "{} does not run", Path::new(&program).display());
    println!("skipped: {} does not run", Path::new(&program).display());
    None
}

/// A port that is free now. Another process may take it before the server does.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
