//! Tests of the connections that the client keeps for reuse. Only a kept connection that the operator has closed causes
//! a second attempt of a call.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use euid_sandbox::Sandbox;
use tokio::task::{JoinSet, yield_now};
use tower_euid::clock::UnixMillis;
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::identity::{Identity, IdentityTimes};
use tower_euid::{Environment, EuidClient, EuidClientBuilder, Refreshed};

use crate::support::peer::{Peer, Reaction};
use crate::support::server::{PATIENCE, client_builder_at, generate, sandbox_at_start, user};

/// The client's timeout in tests that reach it.
const TIMEOUT: Duration = Duration::from_millis(200);

fn client_builder(peer: &Peer, sandbox: &Sandbox) -> EuidClientBuilder {
    client_builder_at(peer.base_url(), sandbox).timeout(PATIENCE)
}

async fn login(client: &EuidClient) -> Result<Identity, EuidError> {
    generate(client, user()).await
}

#[tokio::test]
async fn connection_reuse_survives_a_peer_that_closes_after_the_first_answer() {
    let sandbox = sandbox_at_start();
    for reaction in [Reaction::Close, Reaction::Reset] {
        let peer =
            Peer::start(&sandbox, move |_, request| if request == 0 { Reaction::Answer } else { reaction }).await;
        let client = client_builder(&peer, &sandbox).build().unwrap();
        for number in 0..300 {
            login(&client).await.unwrap_or_else(|error| panic!("{reaction:?}, login {number}: {error:?}"));
        }
        assert!(
            peer.requests() > 400,
            "{reaction:?}: only {} requests, so connections were not reused",
            peer.requests()
        );
    }
    let peer = Peer::start(&sandbox, |_, _| Reaction::AnswerAndClose).await;
    let client = client_builder(&peer, &sandbox).build().unwrap();
    for number in 0..100 {
        login(&client).await.unwrap_or_else(|error| panic!("login {number}: {error:?}"));
    }
}

#[tokio::test]
async fn connection_reuse_fails_over_to_a_new_connection() {
    let sandbox = sandbox_at_start();
    let peer = Peer::start(&sandbox, |_, request| if request == 0 { Reaction::Answer } else { Reaction::Close }).await;
    let client = client_builder(&peer, &sandbox).build().unwrap();
    // The client now keeps 20 connections. Each of them is closed when the next call uses it.
    let mut logins = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        logins.spawn(async move { login(&client).await });
    }
    assert!(logins.join_all().await.iter().all(Result::is_ok));
    for number in 0..20 {
        login(&client).await.unwrap_or_else(|error| panic!("login {number}: {error:?}"));
    }
}

#[tokio::test]
async fn refresh_and_validate_are_repeated_after_a_closed_connection() {
    let sandbox = sandbox_at_start();
    let peer = Peer::start(&sandbox, |_, request| if request == 0 { Reaction::Answer } else { Reaction::Close }).await;
    let client = client_builder(&peer, &sandbox).build().unwrap();
    let identity = login(&client).await.unwrap();
    assert!(matches!(client.refresh(&identity).await.unwrap(), Refreshed::Identity(_)));
    login(&client).await.unwrap();
    assert!(client.validate(identity.advertising_token(), user()).await.unwrap());
    let heads = peer.heads();
    let calls: Vec<&str> = heads.iter().map(|head| head.split(['/', ' ']).nth(4).unwrap()).collect();
    assert_eq!(calls, ["generate", "refresh", "refresh", "generate", "validate", "validate"]);
}

#[tokio::test]
async fn call_is_repeated_at_most_once() {
    let sandbox = sandbox_at_start();
    let closes_later =
        |connection, request| if (connection, request) == (0, 0) { Reaction::Answer } else { Reaction::Close };
    let peer = Peer::start(&sandbox, closes_later).await;
    let client = client_builder(&peer, &sandbox).build().unwrap();
    login(&client).await.unwrap();
    let error = login(&client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert_eq!(error.to_string(), "the connection to the operator broke");
    assert_eq!(peer.requests(), 1 + 2);
}

#[tokio::test]
async fn call_over_a_new_connection_is_not_repeated() {
    let sandbox = sandbox_at_start();
    for reaction in
        [Reaction::Close, Reaction::Reset, Reaction::AnswerHalf, Reaction::Send("220 mail.example ESMTP\r\n")]
    {
        let peer = Peer::start(&sandbox, move |_, _| reaction).await;
        let error = login(&client_builder(&peer, &sandbox).build().unwrap()).await.unwrap_err();
        assert_eq!((error.kind(), peer.requests()), (ErrorKind::Transient, 1), "{reaction:?}");
    }
}

#[tokio::test]
async fn call_with_a_partial_answer_is_not_repeated() {
    let sandbox = sandbox_at_start();
    let not_http = Reaction::Send("220 mail.example ESMTP\r\n");
    for reaction in [Reaction::AnswerHalf, not_http, Reaction::Send("HTTP/1.1 503 \r\ncontent-length: 0\r\n\r\n")] {
        let peer =
            Peer::start(&sandbox, move |_, request| if request == 0 { Reaction::Answer } else { reaction }).await;
        let client = client_builder(&peer, &sandbox).build().unwrap();
        login(&client).await.unwrap();
        let error = login(&client).await.unwrap_err();
        assert_eq!((error.kind(), peer.requests()), (ErrorKind::Transient, 2), "{reaction:?}");
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "measures how long a call really takes")]
async fn timeout_covers_both_attempts_of_a_call() {
    let sandbox = sandbox_at_start();
    for (second, requests) in [(Reaction::Close, 3), (Reaction::Stall, 2)] {
        let reaction = move |connection, request| match (connection, request) {
            (0, 0) => Reaction::Answer,
            (0, _) => second,
            _ => Reaction::Stall,
        };
        let peer = Peer::start(&sandbox, reaction).await;
        let client = client_builder(&peer, &sandbox).timeout(TIMEOUT).build().unwrap();
        login(&client).await.unwrap();
        let begun = std::time::Instant::now();
        let error = login(&client).await.unwrap_err();
        assert_eq!(error.to_string(), "the operator did not answer in time");
        assert!(begun.elapsed() >= TIMEOUT);
        assert_eq!(peer.requests(), requests);
    }
}

#[tokio::test]
async fn user_agent_names_this_crate() {
    let sandbox = sandbox_at_start();
    let peer = Peer::start(&sandbox, |_, _| Reaction::Answer).await;
    login(&client_builder(&peer, &sandbox).build().unwrap()).await.unwrap();
    let heads = peer.heads();
    let user_agent = concat!("user-agent: tower-euid/", env!("CARGO_PKG_VERSION"));
    assert_eq!(heads[0].lines().filter(|line| *line == user_agent).count(), 1, "{heads:?}");
    assert!(heads[0].starts_with("POST /v2/token/generate HTTP/1.1\r\n"), "{heads:?}");
}

#[tokio::test]
async fn retry_after_of_an_error_counts_from_the_clients_clock() {
    let sandbox = sandbox_at_start();
    let seconds = "HTTP/1.1 429 \r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    let date = "HTTP/1.1 503 \r\nRetry-After: Sun, 22 Nov 2026 18:20:47 GMT\r\ncontent-length: 0\r\n\r\n";
    let garbled = "HTTP/1.1 503 \r\nretry-after: soon\r\ncontent-length: 0\r\n\r\n";
    for (answer, expected) in [(seconds, Some(7)), (date, Some(60)), (garbled, None)] {
        let peer = Peer::start(&sandbox, move |_, _| Reaction::Send(answer)).await;
        let error = login(&client_builder(&peer, &sandbox).build().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient);
        assert_eq!(error.retry_after(), expected.map(Duration::from_secs), "{answer}");
    }
}

/// A client whose kept connections belonged to an ended runtime opens new ones.
#[test]
fn connection_reuse_survives_the_end_of_a_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (sandbox, peers) = (sandbox_at_start(), runtime());
    let peer = peers.block_on(Peer::start(&sandbox, |_, _| Reaction::Answer));
    let peers = std::thread::spawn(move || peers.block_on(async { tokio::time::sleep(PATIENCE).await }));
    let client = client_builder(&peer, &sandbox).timeout(TIMEOUT).build().unwrap();
    let first = runtime();
    first.block_on(login(&client)).unwrap();
    let error = runtime().block_on(login(&client)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the operator did not answer in time",
        "nothing polls the connection of the first runtime"
    );
    drop(first);
    runtime().block_on(login(&client)).unwrap();
    drop(peers);
}

#[tokio::test(start_paused = true)]
async fn timeout_does_not_discard_an_answer_that_arrived_while_the_process_was_frozen() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let operator = Environment::Url(format!("http://{}", listener.local_addr().unwrap()));
    let ((has_requested, requested), (answer, may_answer)) = (mpsc::channel(), mpsc::channel());
    let (has_answered, answered) = mpsc::channel();
    let peer = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
        has_requested.send(()).unwrap();
        may_answer.recv().unwrap();
        socket.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").unwrap();
        has_answered.send(()).unwrap();
    });

    let at = UnixMillis::from_millis;
    let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    let identity = Identity::new("advertising", "refresh".to_owned().into(), [5; 32].into(), times).unwrap();
    let client = EuidClient::builder(operator).timeout(Duration::from_secs(5)).build().unwrap();
    let call = tokio::spawn(async move { client.refresh(&identity).await });
    // This loop is never idle, so the paused clock stands still.
    while requested.try_recv().is_err() {
        yield_now().await;
    }
    // No task runs from here until the answer has arrived and the timeout has passed.
    answer.send(()).unwrap();
    answered.recv().unwrap();
    tokio::time::advance(Duration::from_secs(7)).await;
    let error = call.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
    peer.join().unwrap();
}
