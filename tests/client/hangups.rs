//! Tests of visitors that disconnect during their refresh, over real sockets.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use euid_sandbox::{Fault, SandboxServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_euid::{Euid, EuidUpdate, Identity};

use crate::support::server::{LOOPBACK, PATIENCE, client, generate, sandbox_at_start, serve, user};
use crate::support::{ANCHOR, DUE, IDENTITY, Jar, Site, ring};

/// The delay of the operator's answer. The visitor disconnects within it.
const DELAY: Duration = Duration::from_millis(300);

/// A site on a port, and the cookies of a visitor whose refresh is due.
struct SiteServer {
    address: SocketAddr,
    jar: Jar,
    /// The number of calls of the page's handler.
    page_calls: Arc<AtomicUsize>,
    _serving: JoinSet<std::io::Result<()>>,
}

impl SiteServer {
    async fn start(operator: &SandboxServer, identity: Identity) -> Self {
        let clock = operator.sandbox().clock();
        let client = client(operator);
        let mut site =
            Site::with_keys(ring(), client).configured(|layer| layer.clock(clock.clone()).max_wait(PATIENCE));
        site.clock = clock;
        site.update(EuidUpdate::login(identity)).await;
        site.wait_until(DUE);

        let page_calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&page_calls);
        let page = async move |Extension(euid): Extension<Euid>| {
            counter.fetch_add(1, Ordering::SeqCst);
            euid.advertising_token().map_or_else(|| euid.state().to_owned(), |token| token.as_str().to_owned())
        };
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(page)).layer(site.layer);
        let mut serving = JoinSet::new();
        serving.spawn(async { axum::serve(listener, router).await });
        Self { address, jar: site.jar, page_calls, _serving: serving }
    }

    /// Sends a request. Returns its connection.
    async fn send(&self) -> TcpStream {
        let cookies = format!("{}; {}", self.jar.pair(IDENTITY), self.jar.pair(ANCHOR));
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: site\r\ncookie: {cookies}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Visits the page. Returns head and body of the response.
    async fn visit(&self) -> (String, String) {
        let mut response = String::new();
        let mut stream = self.send().await;
        timeout(PATIENCE, stream.read_to_string(&mut response)).await.unwrap().unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

/// The end of the visitor's connection.
#[derive(Clone, Copy, Debug)]
enum Disconnect {
    Close,
    Reset,
}

#[tokio::test]
async fn refresh_of_a_disconnected_visitor_goes_on_and_serves_the_next_request() {
    for disconnect in [Disconnect::Close, Disconnect::Reset] {
        let operator = serve(sandbox_at_start()).await;
        let identity = generate(&client(&operator), user()).await.unwrap();
        let old = identity.advertising_token().to_owned();
        let site = SiteServer::start(&operator, identity).await;

        operator.fault(Fault::Delay(DELAY));
        let visitor = site.send().await;
        until(|| operator.sandbox().refresh_calls() == 1).await;
        if let Disconnect::Reset = disconnect {
            visitor.set_zero_linger().unwrap();
        }
        drop(visitor);
        // A second call would fail, so the next token is from the first call.
        operator.fault(Fault::Status(503));

        let (head, new) = site.visit().await;
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.contains(&format!("set-cookie: {IDENTITY}")),
            "{disconnect:?}: {head}"
        );
        assert_eq!(new.len(), old.len(), "{disconnect:?}: the page shows a token");
        assert_ne!(new, old, "{disconnect:?}");
        assert_eq!(
            site.page_calls.load(Ordering::SeqCst),
            1,
            "{disconnect:?}: the handler does not run for the disconnected visitor"
        );

        let (_, later) = site.visit().await;
        assert_eq!(later, new, "{disconnect:?}: the old cookie gives the new token again");
        assert_eq!(operator.sandbox().refresh_calls(), 1, "{disconnect:?}");
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    let reached = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap();
}
