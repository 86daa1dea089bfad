//! Tests of the proxy between a visitor and a site, both of which write bytes to sockets.

mod commands;
mod protocol;
mod refusals;
mod streams;
mod timeouts;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use euid_sandbox::{Sandbox, Visitor, VisitorState};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower_euid::{EuidClient, EuidLayer, RefreshMode};

use super::{Proxy, Upstream, workers};
use crate::listen::Listening;

/// A proxy in front of a site.
struct Running {
    address: SocketAddr,
    site: Site,
    sandbox: Sandbox,
    layer: EuidLayer,
    stop: watch::Sender<bool>,
}

impl Running {
    /// A proxy in front of a site that answers each request with this text, and closes the connection if it is empty.
    async fn start(answer: impl Fn(&Received) -> String + Send + Sync + 'static) -> Self {
        Self::configured(answer, |layer| layer).await
    }

    /// With the layer of `serve`, and what `configure` changes.
    async fn configured(
        answer: impl Fn(&Received) -> String + Send + Sync + 'static,
        configure: impl FnOnce(EuidLayer) -> EuidLayer,
    ) -> Self {
        let site = Site::start(answer).await;
        let upstream = site.address.to_string();
        Self::before(site, &upstream, false, configure).await
    }

    async fn before(site: Site, upstream: &str, h2c: bool, configure: impl FnOnce(EuidLayer) -> EuidLayer) -> Self {
        let sandbox = Sandbox::builder().build().unwrap();
        let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap();
        let layer = configure(layer.refresh_mode(RefreshMode::Concurrent).max_wait(Duration::from_millis(30)));
        let (stop, stopped) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let front = proxy(&layer, client, upstream, h2c).front();
        tokio::spawn(workers::run(front, Listening::Tcp(listener), stopped));
        Self { address, site, sandbox, layer, stop }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes, and returns all that comes back until the connection is closed.
    async fn exchange(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        let mut response = Vec::new();
        // A connection that is reset has closed, too.
        drop(stream.read_to_end(&mut response).await);
        String::from_utf8_lossy(&response).into_owned()
    }

    /// Requests a page with these further header lines.
    async fn get(&self, headers: &str) -> String {
        self.exchange(format!("GET /page?a=1 HTTP/1.1\r\nHost: site\r\nConnection: close\r\n{headers}\r\n")).await
    }

    fn visitor(&self, state: VisitorState) -> Visitor {
        self.sandbox.visitor(&self.layer, state).unwrap()
    }

    /// The header line with the cookies of a visitor.
    fn cookies(&self, state: VisitorState) -> String {
        format!("Cookie: {}\r\n", self.visitor(state).cookie_header())
    }
}

fn proxy(layer: &EuidLayer, client: EuidClient, upstream: &str, h2c: bool) -> Proxy {
    Proxy::new(layer.clone(), client, upstream.parse::<Upstream>().unwrap(), h2c)
}

/// A server that answers each request with the same function of it.
#[derive(Clone)]
struct Site {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

/// A request that a site has received.
#[derive(Clone, Debug)]
struct Received {
    /// The number of its connection, from 0.
    connection: usize,
    head: String,
    /// As it was received, with its framing.
    body: String,
}

impl Received {
    fn values(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// The value of a header that came once.
    fn value(&self, name: &str) -> Option<&str> {
        match &self.values(name)[..] {
            [] => None,
            [value] => Some(value),
            more => panic!("{name}: {more:?}"),
        }
    }
}

impl Site {
    async fn start(answer: impl Fn(&Received) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Self { address: listener.local_addr().unwrap(), received: Arc::default() };
        let (received, answer) = (Arc::clone(&site.received), Arc::new(answer));
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, connection, Arc::clone(&received), Arc::clone(&answer)));
            }
        });
        site
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    fn last(&self) -> Received {
        self.received().pop().expect("the site has received a request")
    }
}

async fn serve(
    stream: TcpStream,
    connection: usize,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<impl Fn(&Received) -> String>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = receive(&mut stream, connection).await {
        received.lock().unwrap().push(request.clone());
        let response = answer(&request);
        if response.is_empty() || stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Reads a request; `None` if none comes.
async fn receive(stream: &mut BufReader<TcpStream>, connection: usize) -> Option<Received> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let mut request = Received { connection, head, body: String::new() };
    if let Some(length) = request.value("content-length") {
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.ok()?;
        request.body = String::from_utf8(body).unwrap();
    } else if request.value("transfer-encoding").is_some() {
        let is_last = |body: &str| body == "0\r\n" || body.ends_with("\r\n0\r\n");
        while !is_last(&request.body) {
            if stream.read_line(&mut request.body).await.ok()? == 0 {
                return None;
            }
        }
        // Trailers, up to an empty line.
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            request.body.push_str(&line);
            if line == "\r\n" {
                break;
            }
        }
    }
    Some(request)
}

/// A response with this body.
fn ok(body: &str) -> String {
    with("", body)
}

/// A response with these header lines.
fn with(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or_default()
}

/// Whether a response has this header line.
fn has(response: &str, line: &str) -> bool {
    let head = response.split("\r\n\r\n").next().unwrap_or_default();
    head.lines().any(|other| other.eq_ignore_ascii_case(line))
}
