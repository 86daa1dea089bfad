//! The timeouts of a visitor's connection, on the runtime's paused clock.

use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::access::now;

/// A connection in memory to a proxy whose site is never reached, as no clock must pause a socket.
fn connect() -> DuplexStream {
    let sandbox = Sandbox::builder().build().unwrap();
    let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap();
    let front = proxy(&layer, client, "unix:/nowhere/site.sock", false).front();
    let (visitor, io) = duplex(1 << 16);
    let (stop, stopped) = watch::channel(false);
    let (alive, ended) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        front.serve(io, None, stopped, alive).await;
        drop((stop, ended));
    });
    visitor
}

/// Returns after how many seconds the connection is closed.
async fn seconds_until_closed(visitor: &mut DuplexStream) -> u64 {
    let began = now();
    visitor.read_to_end(&mut Vec::new()).await.unwrap();
    (now() - began).as_secs()
}

async fn exchange(visitor: &mut DuplexStream) {
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n").await.unwrap();
    let mut response = Vec::new();
    while !response.ends_with(b"the site does not answer\n") {
        response.push(visitor.read_u8().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connection_is_closed_after_75_s_also_between_requests() {
    let mut visitor = connect();
    assert_eq!(seconds_until_closed(&mut visitor).await, 75);
    let mut visitor = connect();
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(70)).await;
        exchange(&mut visitor).await;
    }
    assert_eq!(seconds_until_closed(&mut visitor).await, 75);
}

#[tokio::test(start_paused = true)]
async fn head_must_be_complete_after_10_s_also_of_a_later_request() {
    let mut visitor = connect();
    visitor.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(seconds_until_closed(&mut visitor).await, 10);
    let mut visitor = connect();
    exchange(&mut visitor).await;
    visitor.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(seconds_until_closed(&mut visitor).await, 10);
}

#[tokio::test(start_paused = true)]
async fn head_that_drips_is_not_waited_for_longer() {
    let mut visitor = connect();
    let began = now();
    for byte in b"GET / HTTP/1.1\r\nHost: site\r\nX: ".iter().cycle() {
        if visitor.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!((10..=12).contains(&(now() - began).as_secs()));
}

#[tokio::test(start_paused = true)]
async fn http_2_is_not_taken_unless_set() {
    let mut visitor = connect();
    visitor.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    visitor.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"");
}
