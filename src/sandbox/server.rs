//! The sandbox on a port.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::{Fault, Sandbox};
use crate::client::dii::Dii;
use crate::client::{Environment, EuidClient, EuidClientBuilder};

impl Sandbox {
    /// Serves this sandbox, HTTP/1 without TLS, on a loopback address; port 0 is any free port. It
    /// shares clock, opt-outs, fault and counters with the original.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the address is not a loopback address;
    /// otherwise what binding says, e.g. that the port is taken.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub async fn serve(self, address: SocketAddr) -> io::Result<SandboxServer> {
        if !address.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the sandbox serves loopback addresses only; for others, call `serve_insecure`",
            ));
        }
        self.serve_insecure(address).await
    }

    /// As [`serve`](Self::serve), on any address: for a container or a closed network. Everything,
    /// the API key included, crosses that network in clear.
    ///
    /// # Errors
    ///
    /// What binding says.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub async fn serve_insecure(self, address: SocketAddr) -> io::Result<SandboxServer> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, self.clone()));
        Ok(SandboxServer { sandbox: self, address, task })
    }
}

/// A [`Sandbox`] on a port; stops when dropped, with all its connections.
#[must_use = "the server stops when this is dropped"]
pub struct SandboxServer {
    sandbox: Sandbox,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl SandboxServer {
    /// Where it is reached, as in `http://127.0.0.1:8080`. A server on all addresses says loopback.
    #[must_use]
    pub fn base_url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("http://{address}")
    }

    /// Starts configuring a client of this server, with its URL, credentials and clock.
    pub fn client_builder(&self) -> EuidClientBuilder {
        let builder = EuidClient::builder(Environment::Url(self.base_url()))
            .credentials(self.sandbox.api_key(), self.sandbox.client_secret())
            .clock(self.sandbox.clock());
        let beyond_loopback = !self.address.ip().is_loopback() && !self.address.ip().is_unspecified();
        if beyond_loopback { builder.insecure_http() } else { builder }
    }

    /// The sandbox that is served.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// [`Sandbox::advance`]
    pub fn advance(&self, duration: Duration) {
        self.sandbox.advance(duration);
    }

    /// [`Sandbox::opt_out`]
    pub fn opt_out(&self, person: Dii) {
        self.sandbox.opt_out(person);
    }

    /// [`Sandbox::fault`]
    pub fn fault(&self, fault: impl Into<Option<Fault>>) {
        self.sandbox.fault(fault);
    }
}

impl Drop for SandboxServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for SandboxServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxServer").field("base_url", &self.base_url()).field("sandbox", &self.sandbox).finish()
    }
}

/// Owns the connections: dropping this future ends them.
async fn accept(listener: TcpListener, sandbox: Sandbox) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // One connection's failure, or there are no file descriptors left for a while.
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let service = TowerToHyperService::new(sandbox.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(async { drop(connection.await) });
    }
}

const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(20);
