//! Bodies as they come: events, tunnels, trailers, uploads, HTTP/2.

use axum::body::Body;
use axum::http::{Request, Version};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use super::*;

/// Starts a proxy in front of a site of one connection, which a test plays itself.
async fn with_played_site() -> (Running, mpsc::Receiver<BufReader<TcpStream>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            sender.send(BufReader::new(stream)).await.unwrap();
        }
    });
    (Running::before(Site::start(|_| ok("")).await, &upstream, false, |layer| layer).await, receiver)
}

/// Reads until the text ends so.
async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        text.push(char::from(stream.read_u8().await.unwrap()));
    }
    text
}

#[tokio::test]
async fn event_arrives_before_the_next_one_is_sent() {
    let (running, mut connections) = with_played_site().await;
    let mut visitor = running.connect().await;
    visitor.write_all(b"GET /events HTTP/1.1\r\nHost: site\r\n\r\n").await.unwrap();
    let mut site = connections.recv().await.unwrap();
    receive(&mut site, 0).await.unwrap();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    site.write_all(head.as_bytes()).await.unwrap();
    assert!(read_until(&mut visitor, "\r\n\r\n").await.contains("text/event-stream"));
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        site.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await.unwrap();
        assert!(read_until(&mut visitor, event).await.ends_with(event));
    }
}

#[tokio::test]
async fn upload_arrives_before_it_is_complete_and_may_be_answered_early() {
    let (running, mut connections) = with_played_site().await;
    let mut visitor = running.connect().await;
    visitor.write_all(b"POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 10\r\n\r\nhello").await.unwrap();
    let mut site = connections.recv().await.unwrap();
    assert!(read_until(&mut site, "hello").await.contains("content-length: 10"));
    site.write_all(ok("early").as_bytes()).await.unwrap();
    assert!(read_until(&mut visitor, "early").await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn websocket_passes_bytes_both_ways_and_ends_with_either_side() {
    let (running, mut connections) = with_played_site().await;
    let mut visitor = running.connect().await;
    let request = "GET /chat HTTP/1.1\r\nHost: site\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    // The first frame comes with the request.
    visitor.write_all(format!("{request}early").as_bytes()).await.unwrap();
    let mut site = connections.recv().await.unwrap();
    let received = receive(&mut site, 0).await.unwrap();
    assert_eq!((received.value("upgrade"), received.value("connection")), (Some("websocket"), Some("upgrade")));
    assert_eq!(received.value("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nwelcome";
    site.write_all(answer.as_bytes()).await.unwrap();
    let head = read_until(&mut visitor, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 ") && has(&head, "upgrade: websocket"), "{head}");
    assert!(
        has(&head, "connection: upgrade") && has(&head, "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{head}"
    );
    assert_eq!(read_until(&mut visitor, "welcome").await, "welcome");
    assert_eq!(read_until(&mut site, "early").await, "early");
    for number in 0..100 {
        visitor.write_all(format!("ping{number}.").as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut site, ".").await, format!("ping{number}."));
        site.write_all(format!("pong{number}.").as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut visitor, ".").await, format!("pong{number}."));
    }
    drop(visitor);
    assert_eq!(site.read(&mut [0; 10]).await.unwrap(), 0);
}

#[tokio::test]
async fn websocket_that_the_site_refuses_is_a_usual_response() {
    let running = Running::start(|_| "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_owned()).await;
    let request = "GET / HTTP/1.1\r\nHost: site\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut visitor = running.connect().await;
    visitor.write_all(request.as_bytes()).await.unwrap();
    let head = read_until(&mut visitor, "\r\n\r\n").await;
    assert_eq!((status(&head), &*read_until(&mut visitor, "no").await), ("403", "no"));
}

#[tokio::test]
async fn switch_that_no_one_asked_for_is_a_502() {
    let running =
        Running::start(|_| "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned());
    assert_eq!(status(&running.await.get("").await), "502");
}

#[tokio::test]
async fn trailers_pass_both_ways_without_reserved_names() {
    let answer =
        "HTTP/1.1 200 OK\r\nTrailer: Digest\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\nDigest: a\r\n\r\n";
    let running = Running::start(|_| answer.to_owned()).await;
    let request = "POST / HTTP/1.1\r\nHost: site\r\nConnection: close, TE\r\nTE: trailers\r\n\
                   Trailer: Digest, Euid-Token\r\nTrailer: euid_state, euid.nonce\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\nhi\r\n0\r\nDigest: b\r\nEuid-Token: spoofed\r\nEuid_State: spoofed\r\n\
                   Euid.Nonce: spoofed\r\n\r\n";
    let response = running.exchange(request).await;
    let received = running.site.last();
    assert_eq!((received.value("te"), received.value("trailer")), (Some("trailers"), Some("Digest")));
    assert_eq!(received.body, "2\r\nhi\r\n0\r\ndigest: b\r\n\r\n");
    assert!(response.ends_with("4\r\nfine\r\n0\r\ndigest: a\r\n\r\n"), "{response}");
}

#[tokio::test]
async fn continue_is_said_when_the_site_takes_the_body() {
    let running = Running::start(|received| ok(&received.body)).await;
    let mut visitor = running.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: site\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    visitor.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut visitor, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    visitor.write_all(b"hello").await.unwrap();
    assert!(read_until(&mut visitor, "hello").await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(running.site.last().value("expect"), None);
}

#[tokio::test]
async fn interim_responses_of_the_site_are_dropped() {
    let running = Running::start(|_| {
        format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n{}", ok("fine"))
    })
    .await;
    let response = running.get("").await;
    assert!(response.starts_with("HTTP/1.1 200 OK") && response.ends_with("fine"), "{response}");
}

#[tokio::test]
async fn response_that_breaks_off_breaks_off_for_the_visitor_too() {
    let (running, mut connections) = with_played_site().await;
    let mut visitor = running.connect().await;
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n").await.unwrap();
    let mut site = connections.recv().await.unwrap();
    receive(&mut site, 0).await.unwrap();
    site.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n").await.unwrap();
    drop(site);
    let mut response = String::new();
    drop(visitor.read_to_string(&mut response).await);
    assert!(!response.ends_with("0\r\n\r\n"), "{response}");
}

#[tokio::test]
async fn stop_closes_idle_connections_and_lets_the_others_end() {
    let (running, mut connections) = with_played_site().await;
    let (mut idle, mut busy) = (running.connect().await, running.connect().await);
    busy.write_all(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n").await.unwrap();
    let mut site = connections.recv().await.unwrap();
    receive(&mut site, 0).await.unwrap();
    running.stop.send_replace(true);
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    site.write_all(ok("fine").as_bytes()).await.unwrap();
    let mut response = String::new();
    busy.read_to_string(&mut response).await.unwrap();
    assert!(response.ends_with("fine"), "{response}");
    assert!(TcpStream::connect(running.address).await.is_err());
}

/// A proxy that takes HTTP/2, and a connection to it.
async fn http_2() -> (Running, http2::SendRequest<Body>) {
    let site = Site::start(|_| with("Connection: x-own\r\nX-Own: 1\r\n", "fine")).await;
    let upstream = site.address.to_string();
    let running = Running::before(site, &upstream, true, |layer| layer).await;
    let io = TokioIo::new(running.connect().await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    (running, sender)
}

#[tokio::test]
async fn http_2_is_taken_if_set_and_its_cookies_are_joined() {
    let (running, mut sender) = http_2().await;
    let own = running.visitor(VisitorState::Fresh).cookie_header();
    let request = || {
        let request = Request::builder().version(Version::HTTP_2).uri("http://site:80/a?b").header("te", "trailers");
        own.split("; ").fold(request.header("cookie", "a=1"), |request, pair| request.header("cookie", pair))
    };
    let spoofed = request().header("euid-token", "spoofed").header("euid_state", "spoofed").header("cookie", "b=2");
    let response = sender.send_request(spoofed.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    assert!(!response.headers().contains_key("x-own"));
    assert_eq!(response.headers()["cache-control"], "private, no-cache");
    let received = running.site.last();
    assert!(
        received.head.starts_with("GET /a?b HTTP/1.1\r\n") && !received.head.contains("spoofed"),
        "{}",
        received.head
    );
    assert_eq!((received.value("host"), received.value("cookie")), (Some("site:80"), Some("a=1; b=2")));
    assert_eq!((received.value("euid-state"), received.value("te")), (Some("active"), Some("trailers")));
    let other_host = request().header("host", "other").body(Body::empty()).unwrap();
    assert_eq!(sender.send_request(other_host).await.unwrap().status(), 400);
    // And HTTP/1.1 as before.
    assert_eq!(status(&running.get("").await), "200");
}

#[tokio::test]
async fn head_in_http_2_is_limited_at_64_kib() {
    let (_running, mut sender) = http_2().await;
    for (length, expected) in [(60, 200), (70, 431)] {
        let value = "x".repeat(length * 1024);
        let request = Request::get("http://site/").header("x", value).body(Body::empty()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), expected, "{length} KiB");
    }
}
