//! The settings of a store.

use std::fmt;
use std::time::Duration;

use redis::cluster::ClusterClientBuilder;
use redis::{Client, RedisError};
use tower_euid::ConfigError;

use crate::link::{Link, Server};
use crate::store::RedisStore;

/// The settings of a [`RedisStore`]: [`RedisStore::builder`] begins, [`build`](Self::build) ends.
///
/// ```
/// use std::time::Duration;
/// use tower_euid_redis::RedisStore;
///
/// let store = RedisStore::builder("redis://:password@node-1.internal")
///     .node("redis://:password@node-2.internal")
///     .prefix("shop:")
///     .timeout(Duration::from_millis(30))
///     .build()?;
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct RedisStoreBuilder {
    /// They may have passwords in them.
    urls: Vec<String>,
    is_cluster: bool,
    prefix: String,
    timeout: Duration,
    connect_timeout: Duration,
    #[cfg(feature = "tls")]
    root_certificates: Option<Vec<u8>>,
}

impl RedisStoreBuilder {
    /// How long a call takes at most, unless set otherwise: 40 ms.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(40);
    /// How long a connection may take to open, unless set otherwise: 1 s.
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
    /// What each key begins with, unless set otherwise.
    pub const DEFAULT_PREFIX: &'static str = "euid:";

    pub(crate) fn new(url: String) -> Self {
        Self {
            urls: vec![url],
            is_cluster: false,
            prefix: Self::DEFAULT_PREFIX.to_owned(),
            timeout: Self::DEFAULT_TIMEOUT,
            connect_timeout: Self::DEFAULT_CONNECT_TIMEOUT,
            #[cfg(feature = "tls")]
            root_certificates: None,
        }
    }

    /// The server is a node of a cluster. The store finds the other nodes through it.
    ///
    /// ```
    /// use tower_euid_redis::RedisStore;
    ///
    /// // The address of a managed service that leads to any node.
    /// let store = RedisStore::builder("redis://cluster.internal").cluster().build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn cluster(self) -> Self {
        Self { is_cluster: true, ..self }
    }

    /// The server is a node of a cluster, and this is another node, in case the first one is down. All have the same
    /// user and password.
    ///
    /// ```
    /// use tower_euid_redis::RedisStore;
    ///
    /// let store = RedisStore::builder("redis://node-1.internal").node("redis://node-2.internal").build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn node(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self.cluster()
    }

    /// Sets what each key begins with. Default: [`DEFAULT_PREFIX`](Self::DEFAULT_PREFIX). Sites that share a server need
    /// no prefixes of their own, because their keys differ. All nodes of a site have the same prefix; with another one,
    /// all visitors are logged out.
    ///
    /// ```
    /// use tower_euid_redis::RedisStore;
    ///
    /// let store = RedisStore::builder("redis://redis.internal").prefix("shop:").build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// Sets how long a call takes at most, with all its attempts. A page waits that long if the server hangs. The layer has
    /// a limit, too, [`EuidLayer::store_timeout`](tower_euid::EuidLayer::store_timeout): the shorter of the two counts.
    /// Default: [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_euid_redis::RedisStore;
    ///
    /// // The server is in the same rack.
    /// let store = RedisStore::builder("redis://redis.internal").timeout(Duration::from_millis(10)).build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets how long a connection may take to open, with TLS and the login. No page waits that long: a connection is made in
    /// a task of its own, and the calls that wait for it end after their [`timeout`](Self::timeout). Default:
    /// [`DEFAULT_CONNECT_TIMEOUT`](Self::DEFAULT_CONNECT_TIMEOUT).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_euid_redis::RedisStore;
    ///
    /// let store = RedisStore::builder("redis://redis.internal").connect_timeout(Duration::from_secs(3)).build()?;
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// Sets the certificates, in PEM, that sign the server's, in place of those of the system.
    ///
    /// ```no_run
    /// use tower_euid_redis::RedisStore;
    ///
    /// let ca = std::fs::read("/etc/ssl/redis-ca.pem")?;
    /// let store = RedisStore::builder("rediss://redis.internal").root_certificates(ca).build()?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn root_certificates(self, pem: impl Into<Vec<u8>>) -> Self {
        Self { root_certificates: Some(pem.into()), ..self }
    }

    /// Builds the store. It does not connect: the first call does.
    ///
    /// ```
    /// use tower_euid_redis::RedisStore;
    ///
    /// let error = RedisStore::builder("http://redis.internal").build().unwrap_err();
    /// assert_eq!(error.to_string(), "the URL of Redis begins with neither redis:// nor rediss:// nor unix://");
    /// ```
    ///
    /// # Errors
    ///
    /// If a URL is malformed, if it has TLS without the feature `tls`, if nodes of a cluster have different users or
    /// passwords, if a certificate cannot be read, or if a time is zero. The text never holds a URL.
    pub fn build(self) -> Result<RedisStore, ConfigError> {
        if self.timeout.is_zero() || self.connect_timeout.is_zero() {
            return Err(ConfigError::new("a timeout of Redis is zero"));
        }
        for url in &self.urls {
            check_scheme(url)?;
        }
        let server = if self.is_cluster { self.cluster_nodes()? } else { self.one_server()? };
        Ok(RedisStore::with(Link::new(server, self.connect_timeout), self.prefix, self.timeout))
    }

    fn one_server(&self) -> Result<Server, ConfigError> {
        let url = self.urls.first().map_or("", String::as_str);
        #[cfg(feature = "tls")]
        if let Some(root) = &self.root_certificates {
            return Client::build_with_tls(url, certificates(root)).map(Server::one).map_err(refused);
        }
        Client::open(url).map(Server::one).map_err(refused)
    }

    fn cluster_nodes(&self) -> Result<Server, ConfigError> {
        let builder = ClusterClientBuilder::new(self.urls.iter().map(String::as_str))
            .connection_timeout(self.connect_timeout)
            .response_timeout(self.timeout)
            .overall_response_timeout(Some(self.timeout))
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(CLUSTER_RETRY_WAIT_MILLIS)
            .max_retry_wait(2 * CLUSTER_RETRY_WAIT_MILLIS);
        #[cfg(feature = "tls")]
        let builder = match &self.root_certificates {
            Some(root) => builder.certs(certificates(root)),
            None => builder,
        };
        builder.build().map(Server::cluster).map_err(refused)
    }
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("urls", &self.urls.len())
            .field("is_cluster", &self.is_cluster)
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

fn check_scheme(url: &str) -> Result<(), ConfigError> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme {
        "rediss" | "valkeys" if cfg!(not(feature = "tls")) => {
            Err(ConfigError::new("the URL of Redis has TLS: that needs the feature `tls` of tower-euid-redis"))
        }
        "redis" | "valkey" | "rediss" | "valkeys" | "unix" | "redis+unix" | "valkey+unix" => Ok(()),
        _ => Err(ConfigError::new("the URL of Redis begins with neither redis:// nor rediss:// nor unix://")),
    }
}

/// The crate `redis` describes what is wrong with a setting by fixed texts; what else it knows may be from a URL.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn refused(error: RedisError) -> ConfigError {
    match error.detail() {
        None => ConfigError::new(format!("the settings of Redis are wrong: {error}")),
        Some(_) => ConfigError::new("the settings of Redis are wrong"),
    }
}

#[cfg(feature = "tls")]
fn certificates(root: &[u8]) -> redis::TlsCertificates {
    redis::TlsCertificates { client_tls: None, root_cert: Some(root.to_vec()) }
}

/// How often the client of a cluster repeats a command: it may be redirected twice while a slot moves.
const CLUSTER_RETRIES: u32 = 2;
/// How long it waits at least before it repeats one, in milliseconds, where it does not repeat it at once.
const CLUSTER_RETRY_WAIT_MILLIS: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn build(url: &str) -> Result<RedisStore, ConfigError> {
        RedisStoreBuilder::new(url.to_owned()).build()
    }

    #[test]
    fn settings_that_cannot_work_are_refused_without_the_url() {
        for url in [
            "",
            "hunter2",
            "http://:hunter2@localhost",
            "redis://:hunter2@localhost:port",
            "redis://:hunter2@",
            "redis://:hunter2@localhost/hunter2",
            "redis://:hunter2@localhost/?protocol=hunter2",
            "redis://hunter2%ff:hunter2@localhost",
        ] {
            let error = build(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        assert_eq!(build("rediss://localhost").is_ok(), cfg!(feature = "tls"));
        assert!(RedisStoreBuilder::new("redis://localhost".to_owned()).timeout(Duration::ZERO).build().is_err());
    }

    #[test]
    fn nodes_of_a_cluster_with_different_passwords_are_refused_without_them() {
        let builder = RedisStoreBuilder::new("redis://:hunter2@a".to_owned()).node("redis://:hunter3@b");
        let error = builder.build().unwrap_err();
        assert!(error.to_string().contains("different password") && !error.to_string().contains("hunter"), "{error}");
    }

    #[test]
    fn debug_shows_no_password() {
        let builder = RedisStoreBuilder::new("redis://me:hunter2@localhost/7".to_owned());
        let texts = format!("{builder:?} {:?}", builder.clone().build().unwrap());
        let cluster = format!("{texts} {:?}", builder.cluster().build());
        assert!(!cluster.contains("hunter2") && !cluster.contains("localhost"), "{cluster}");
    }
}
