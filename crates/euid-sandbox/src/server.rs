//! The sandbox on a port.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use euid_core::{Dii, Operator};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::builder::caller;
use super::{Fault, Sandbox};

impl Sandbox {
    /// Serves this sandbox, HTTP/1 without TLS, on a loopback address; port 0 is any free port. It
    /// shares clock, opt-outs, fault and counters with the original.
    ///
    /// ```
    /// # use euid_sandbox::Sandbox;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let sandbox = Sandbox::builder().build()?;
    /// let server = sandbox.clone().serve(([127, 0, 0, 1], 0).into()).await?;
    /// println!("export EUID_OPERATOR_URL={}", server.base_url());
    /// assert!(sandbox.serve(([192, 0, 2, 1], 0).into()).await.is_err()); // not this machine alone
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the address is not a loopback address;
    /// otherwise the error of the operating system, as when the port is taken.
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
    /// ```
    /// # use euid_sandbox::Sandbox;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // In a container, whose neighbours are to reach it:
    /// let server = Sandbox::builder().build()?.serve_insecure(([0, 0, 0, 0], 0).into()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the port is taken, or the address is not one of this machine.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub async fn serve_insecure(self, address: SocketAddr) -> io::Result<SandboxServer> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let base_url = base_url(address);
        let operator = caller(self.scope(), base_url.clone(), self.api_key(), self.client_secret());
        let operator = operator.insecure_http().build().map_err(io::Error::other)?;
        let task = tokio::spawn(accept(listener, self.clone()));
        Ok(SandboxServer { sandbox: self, base_url, operator, task })
    }
}

/// A [`Sandbox`] on a port; stops when dropped, with all its connections.
///
/// ```
/// use tower_euid::Dii;
/// use tower_euid::error::ErrorKind;
/// use euid_sandbox::Sandbox;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
/// let client = tower_euid::EuidClientBuilder::from_operator(server.operator()).clock(server.sandbox().clock()).build()?;
/// drop(server);
/// let error = client.generate(Dii::email("user@example.com")?).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Transient);
/// # Ok(())
/// # }
/// ```
#[must_use = "the server stops when this is dropped"]
pub struct SandboxServer {
    sandbox: Sandbox,
    base_url: String,
    operator: Operator,
    task: JoinHandle<()>,
}

impl SandboxServer {
    /// Its base URL, such as `http://127.0.0.1:8080`. For a server on all addresses it is one of loopback.
    ///
    /// ```
    /// # use euid_sandbox::Sandbox;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
    /// assert!(server.base_url().starts_with("http://127.0.0.1:")); // whichever port was free
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn base_url(&self) -> String {
        self.base_url.clone()
    }

    /// This server, as a publisher calls it: its URL and credentials. Plain http is allowed.
    ///
    /// ```
    /// # use tower_euid::{Dii, Generated};
    /// # use euid_sandbox::Sandbox;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
    /// let client = tower_euid::EuidClientBuilder::from_operator(server.operator()).clock(server.sandbox().clock()).build()?;
    /// assert!(matches!(client.generate(Dii::email("user@example.com")?).await?, Generated::Identity(_)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator.clone()
    }

    /// The sandbox that is served.
    ///
    /// ```
    /// # use euid_sandbox::Sandbox;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
    /// assert_eq!(server.sandbox().refresh_calls(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// As [`Sandbox::advance`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_euid::Dii;
    /// # use euid_sandbox::Sandbox;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
    /// # let client = tower_euid::EuidClientBuilder::from_operator(server.operator()).clock(server.sandbox().clock()).build()?;
    /// server.advance(Duration::from_secs(3600)); // the client's clock too, or it would be refused
    /// assert!(client.generate(Dii::email("user@example.com")?).await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn advance(&self, duration: Duration) {
        self.sandbox.advance(duration);
    }

    /// As [`Sandbox::opt_out`].
    ///
    /// ```
    /// # use tower_euid::{Dii, Generated};
    /// # use euid_sandbox::Sandbox;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
    /// # let client = tower_euid::EuidClientBuilder::from_operator(server.operator()).clock(server.sandbox().clock()).build()?;
    /// server.opt_out(Dii::phone("+442345678901")?);
    /// assert_eq!(client.generate(Dii::phone("+442345678901")?).await?, Generated::OptedOut);
    /// # Ok(())
    /// # }
    /// ```
    pub fn opt_out(&self, person: Dii) {
        self.sandbox.opt_out(person);
    }

    /// As [`Sandbox::fault`].
    ///
    /// ```
    /// # use tower_euid::Dii;
    /// # use tower_euid::error::ErrorKind;
    /// # use euid_sandbox::{Fault, Sandbox};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
    /// # let client = tower_euid::EuidClientBuilder::from_operator(server.operator()).clock(server.sandbox().clock()).build()?;
    /// server.fault(Fault::Redirect);
    /// let error = client.generate(Dii::email("user@example.com")?).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Malformed); // it was not followed
    /// # Ok(())
    /// # }
    /// ```
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

/// The base URL of a server at `address`, as seen from this machine.
fn base_url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
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
