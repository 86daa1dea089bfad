//! Visitors who hang up while their identity is refreshed, over real sockets.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use euid_sandbox::{Fault, Sandbox, SandboxServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_euid::clock::ManualClock;
use tower_euid::{Dii, Euid, EuidUpdate, Generated, Identity};

use crate::support::server::client_builder;
use crate::support::{ANCHOR, DUE, IDENTITY, Jar, START, Site, ring};

/// How long the operator thinks: long enough to hang up meanwhile.
const THINKS: Duration = Duration::from_millis(300);
/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(10);

async fn operator() -> SandboxServer {
    let sandbox = Sandbox::builder().clock(ManualClock::at(START)).build().unwrap();
    sandbox.serve((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap()
}

async fn generate(operator: &SandboxServer) -> Identity {
    match client_builder(operator).build().unwrap().generate(Dii::email("user@example.com").unwrap()).await.unwrap() {
        Generated::Identity(identity) => identity,
        other => panic!("{other:?}"),
    }
}

/// A site on a port, and the cookies of a visitor whose refresh is due.
struct Server {
    address: SocketAddr,
    jar: Jar,
    pages: Arc<AtomicUsize>,
    _serving: JoinSet<std::io::Result<()>>,
}

impl Server {
    async fn start(operator: &SandboxServer, identity: Identity) -> Self {
        let clock = operator.sandbox().clock();
        let client = client_builder(operator).build().unwrap();
        let mut site =
            Site::with_keys(ring(), client).configured(|layer| layer.clock(clock.clone()).max_wait(PATIENCE));
        site.clock = clock;
        site.update(EuidUpdate::login(identity)).await;
        site.wait_until(DUE);

        let pages = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&pages);
        let page = async move |Extension(euid): Extension<Euid>| {
            counted.fetch_add(1, Ordering::SeqCst);
            euid.advertising_token().map_or_else(|| euid.state().to_owned(), |token| token.as_str().to_owned())
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(page)).layer(site.layer);
        let mut serving = JoinSet::new();
        serving.spawn(async { axum::serve(listener, router).await });
        Self { address, jar: site.jar, pages, _serving: serving }
    }

    /// Sends a request and hands back the connection.
    async fn ask(&self) -> TcpStream {
        let cookies = format!("{}; {}", self.jar.pair(IDENTITY), self.jar.pair(ANCHOR));
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: site\r\ncookie: {cookies}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Head and body of a whole response.
    async fn visit(&self) -> (String, String) {
        let mut response = String::new();
        let mut stream = self.ask().await;
        timeout(PATIENCE, stream.read_to_string(&mut response)).await.unwrap().unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

/// How a visitor leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    Politely,
    WithAReset,
}

#[tokio::test]
async fn a_refresh_whose_visitor_hung_up_is_made_once_and_serves_the_next_request() {
    for how in [Leaves::Politely, Leaves::WithAReset] {
        let operator = operator().await;
        let identity = generate(&operator).await;
        let old = identity.advertising_token().to_owned();
        let site = Server::start(&operator, identity).await;

        operator.fault(Fault::Delay(THINKS));
        let visitor = site.ask().await;
        until(|| operator.sandbox().refresh_calls() == 1).await;
        if let Leaves::WithAReset = how {
            visitor.set_zero_linger().unwrap();
        }
        drop(visitor);
        // Any other call would fail, so what comes now is of the first.
        operator.fault(Fault::Status(503));

        let (head, new) = site.visit().await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("set-cookie: __Host-euid="), "{how:?}: {head}");
        assert_eq!(new.len(), old.len(), "{how:?}: a token");
        assert_ne!(new, old, "{how:?}");
        assert_eq!(site.pages.load(Ordering::SeqCst), 1, "{how:?}: the page of who hung up was not made");

        let (_, later) = site.visit().await;
        assert_eq!(later, new, "{how:?}: the old cookie again");
        assert_eq!(operator.sandbox().refresh_calls(), 1, "{how:?}");
    }
}

async fn until(mut so: impl FnMut() -> bool) {
    let reached = async {
        while !so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap();
}
