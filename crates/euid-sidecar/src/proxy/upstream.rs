//! Where the site's server is, and connections to it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use metrics::Gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use super::body::RequestBody;
use crate::address::Address;
use crate::listen::reachable;

/// The address of the site's server: a host with a port, whose name is looked up for each connection, or a unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl FromStr for Upstream {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err("a path follows `unix:`") } else { Ok(Self::Unix(path.into())) };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Tcp { host: address.ip().to_string(), port: address.port() });
        }
        let is_name = |host: &str| {
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        match text.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) if is_name(host) => Ok(Self::Tcp { host: host.to_owned(), port }),
            _ => Err("neither a host with a port, without `http://`, nor `unix:` and a path"),
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Upstream {
    /// Whether a connection to it ends at this listener. A name that can't be looked up now is taken for another's.
    pub(crate) async fn is(&self, listener: &Address) -> bool {
        match (self, listener) {
            (Self::Unix(path), Address::Unix(own)) => path == own,
            (Self::Tcp { host, port }, Address::Tcp(own)) if *port == own.port() => {
                let is_own = |ip: IpAddr| {
                    let is_all = own.ip().is_unspecified() && (ip.is_loopback() || ip.is_unspecified());
                    is_all || reachable(SocketAddr::new(ip, *port)).ip() == own.ip()
                };
                lookup_host((&**host, *port)).await.is_ok_and(|mut found| found.any(|found| is_own(found.ip())))
            }
            _ => false,
        }
    }

    /// Opens a connection. `connections` counts it while it is open.
    pub(super) async fn connect(&self, connections: Gauge) -> io::Result<SendRequest<RequestBody>> {
        let opened = async {
            match self {
                Self::Tcp { host, port } => {
                    let stream = TcpStream::connect((&**host, *port)).await?;
                    stream.set_nodelay(true)?;
                    handshake(stream, connections).await
                }
                Self::Unix(path) => handshake(UnixStream::connect(path).await?, connections).await,
            }
        };
        timeout(CONNECT_DEADLINE, opened).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Drives the connection in a task.
async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connections: Gauge,
) -> io::Result<SendRequest<RequestBody>> {
    let (sender, connection) = Builder::new()
        .max_headers(super::MOST_HEADERS)
        .max_buf_size(super::MOST_BUFFERED)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(async move {
        connections.increment(1);
        // A request sees the error, too.
        drop(connection.with_upgrades().await);
        connections.decrement(1);
    });
    Ok(sender)
}

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_is_a_host_with_a_port_or_a_unix_socket() {
        for text in ["127.0.0.1:80", "[::1]:8080", "localhost:3000", "my_app.internal:80", "unix:/run/app.sock"] {
            assert_eq!(text.parse::<Upstream>().unwrap().to_string(), text);
        }
        for text in
            ["", "80", "localhost", ":80", "http://localhost:80", "unix:", "a b:80", "host:65536", "user@host:80"]
        {
            assert!(text.parse::<Upstream>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn upstream_that_is_the_listener_itself_is_found() {
        for (upstream, listener, is_own) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("localhost:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.1:81", "127.0.0.1:80", false),
            ("192.0.2.1:80", "127.0.0.1:80", false),
            ("unix:/run/a", "unix:/run/a", true),
            ("unix:/run/a", "unix:/run/b", false),
            ("127.0.0.1:80", "unix:/run/a", false),
        ] {
            let (upstream, listener): (Upstream, Address) = (upstream.parse().unwrap(), listener.parse().unwrap());
            assert_eq!(upstream.is(&listener).await, is_own, "{upstream} {listener}");
        }
    }
}
