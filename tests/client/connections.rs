//! What the client makes of connections that it keeps: a closed one costs a call a second attempt, and
//! nothing else does.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use euid_sandbox::Sandbox;
use tokio::task::{JoinSet, yield_now};
use tower_euid::clock::{ManualClock, UnixMillis};
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::identity::{Identity, IdentityTimes};
use tower_euid::{Dii, Environment, EuidClient, EuidClientBuilder, Generated, Refreshed};

use crate::support::peer::{Does, Peer};

/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of calls that are to end by it.
const TIMEOUT: Duration = Duration::from_millis(200);

/// At Sun, 22 Nov 2026 18:19:47 GMT.
fn sandbox() -> Sandbox {
    Sandbox::builder().clock(ManualClock::at(UnixMillis::from_millis(1_795_371_587_000))).build().unwrap()
}

fn client_of(peer: &Peer, sandbox: &Sandbox) -> EuidClientBuilder {
    EuidClient::builder(Environment::Url(peer.base_url()))
        .credentials(sandbox.api_key(), sandbox.client_secret())
        .clock(sandbox.clock())
        .timeout(PATIENCE)
}

async fn login(client: &EuidClient) -> Result<Identity, EuidError> {
    match client.generate(Dii::email("user@example.com").unwrap()).await? {
        Generated::Identity(identity) => Ok(identity),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_login_succeeds_though_connections_are_closed_after_their_first_answer() {
    let sandbox = sandbox();
    for ends in [Does::Closes, Does::Resets] {
        let peer = Peer::start(&sandbox, move |_, request| if request == 0 { Does::Answers } else { ends }).await;
        let client = client_of(&peer, &sandbox).build().unwrap();
        for number in 0..300 {
            login(&client).await.unwrap_or_else(|error| panic!("{ends:?}, login {number}: {error:?}"));
        }
        assert!(peer.requests() > 400, "{ends:?}: connections were used again: {}", peer.requests());
    }
    let peer = Peer::start(&sandbox, |_, _| Does::AnswersAndCloses).await;
    let client = client_of(&peer, &sandbox).build().unwrap();
    for number in 0..100 {
        login(&client).await.unwrap_or_else(|error| panic!("login {number}: {error:?}"));
    }
}

#[tokio::test]
async fn the_second_attempt_opens_a_connection_of_its_own() {
    let sandbox = sandbox();
    let peer = Peer::start(&sandbox, |_, request| if request == 0 { Does::Answers } else { Does::Closes }).await;
    let client = client_of(&peer, &sandbox).build().unwrap();
    // As many connections are kept, each of which fails the next call.
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
async fn refresh_and_validate_are_repeated_too() {
    let sandbox = sandbox();
    let peer = Peer::start(&sandbox, |_, request| if request == 0 { Does::Answers } else { Does::Closes }).await;
    let client = client_of(&peer, &sandbox).build().unwrap();
    let identity = login(&client).await.unwrap();
    assert!(matches!(client.refresh(&identity).await.unwrap(), Refreshed::Identity(_)));
    login(&client).await.unwrap();
    let user = Dii::email("user@example.com").unwrap();
    assert!(client.validate(identity.advertising_token(), user).await.unwrap());
    let heads = peer.heads();
    let calls: Vec<&str> = heads.iter().map(|head| head.split(['/', ' ']).nth(4).unwrap()).collect();
    assert_eq!(calls, ["generate", "refresh", "refresh", "generate", "validate", "validate"]);
}

#[tokio::test]
async fn a_call_is_repeated_once_at_most() {
    let sandbox = sandbox();
    let fails_later = |connection, request| if (connection, request) == (0, 0) { Does::Answers } else { Does::Closes };
    let peer = Peer::start(&sandbox, fails_later).await;
    let client = client_of(&peer, &sandbox).build().unwrap();
    login(&client).await.unwrap();
    let error = login(&client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert_eq!(error.to_string(), "the connection to the operator broke");
    assert_eq!(peer.requests(), 1 + 2);
}

#[tokio::test]
async fn a_call_over_a_new_connection_is_not_repeated() {
    let sandbox = sandbox();
    for ends in [Does::Closes, Does::Resets, Does::AnswersHalf, Does::Says("220 mail.example ESMTP\r\n")] {
        let peer = Peer::start(&sandbox, move |_, _| ends).await;
        let error = login(&client_of(&peer, &sandbox).build().unwrap()).await.unwrap_err();
        assert_eq!((error.kind(), peer.requests()), (ErrorKind::Transient, 1), "{ends:?}");
    }
}

#[tokio::test]
async fn a_call_that_was_answered_in_part_is_not_repeated() {
    let sandbox = sandbox();
    let no_http = Does::Says("220 mail.example ESMTP\r\n");
    for ends in [Does::AnswersHalf, no_http, Does::Says("HTTP/1.1 503 \r\ncontent-length: 0\r\n\r\n")] {
        let peer = Peer::start(&sandbox, move |_, request| if request == 0 { Does::Answers } else { ends }).await;
        let client = client_of(&peer, &sandbox).build().unwrap();
        login(&client).await.unwrap();
        let error = login(&client).await.unwrap_err();
        assert_eq!((error.kind(), peer.requests()), (ErrorKind::Transient, 2), "{ends:?}");
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "measures how long a call really takes")]
async fn both_attempts_share_one_timeout() {
    let sandbox = sandbox();
    for (second, requests) in [(Does::Closes, 3), (Does::Stalls, 2)] {
        let does = move |connection, request| match (connection, request) {
            (0, 0) => Does::Answers,
            (0, _) => second,
            _ => Does::Stalls,
        };
        let peer = Peer::start(&sandbox, does).await;
        let client = client_of(&peer, &sandbox).timeout(TIMEOUT).build().unwrap();
        login(&client).await.unwrap();
        let begun = std::time::Instant::now();
        let error = login(&client).await.unwrap_err();
        assert_eq!(error.to_string(), "the operator did not answer in time");
        assert!(begun.elapsed() >= TIMEOUT);
        assert_eq!(peer.requests(), requests);
    }
}

#[tokio::test]
async fn requests_name_this_crate_as_their_user_agent() {
    let sandbox = sandbox();
    let peer = Peer::start(&sandbox, |_, _| Does::Answers).await;
    login(&client_of(&peer, &sandbox).build().unwrap()).await.unwrap();
    let heads = peer.heads();
    let user_agent = concat!("user-agent: tower-euid/", env!("CARGO_PKG_VERSION"));
    assert_eq!(heads[0].lines().filter(|line| *line == user_agent).count(), 1, "{heads:?}");
    assert!(heads[0].starts_with("POST /v2/token/generate HTTP/1.1\r\n"), "{heads:?}");
}

#[tokio::test]
async fn retry_after_reaches_the_error_relative_to_the_clients_clock() {
    let sandbox = sandbox();
    let seconds = "HTTP/1.1 429 \r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    let date = "HTTP/1.1 503 \r\nRetry-After: Sun, 22 Nov 2026 18:20:47 GMT\r\ncontent-length: 0\r\n\r\n";
    let garbled = "HTTP/1.1 503 \r\nretry-after: soon\r\ncontent-length: 0\r\n\r\n";
    for (answer, expected) in [(seconds, Some(7)), (date, Some(60)), (garbled, None)] {
        let peer = Peer::start(&sandbox, move |_, _| Does::Says(answer)).await;
        let error = login(&client_of(&peer, &sandbox).build().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient);
        assert_eq!(error.retry_after(), expected.map(Duration::from_secs), "{answer}");
    }
}

/// Without the runtime of the connections that it kept, a client opens others.
#[test]
fn a_client_goes_on_after_its_runtime_has_ended() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (sandbox, peers) = (sandbox(), runtime());
    let peer = peers.block_on(Peer::start(&sandbox, |_, _| Does::Answers));
    let peers = std::thread::spawn(move || peers.block_on(async { tokio::time::sleep(PATIENCE).await }));
    let client = client_of(&peer, &sandbox).timeout(TIMEOUT).build().unwrap();
    let first = runtime();
    first.block_on(login(&client)).unwrap();
    let error = runtime().block_on(login(&client)).unwrap_err();
    assert_eq!(error.to_string(), "the operator did not answer in time", "nothing polls the first runtime");
    drop(first);
    runtime().block_on(login(&client)).unwrap();
    drop(peers);
}

#[tokio::test(start_paused = true)]
async fn answer_that_arrived_while_the_process_was_frozen_is_taken() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let operator = Environment::Url(format!("http://{}", listener.local_addr().unwrap()));
    let ((has_asked, asked), (answer, may_answer)) = (mpsc::channel(), mpsc::channel());
    let (has_answered, answered) = mpsc::channel();
    let peer = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
        has_asked.send(()).unwrap();
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
    while asked.try_recv().is_err() {
        yield_now().await;
    }
    // From here on no task runs until the answer has arrived and the timeout has passed.
    answer.send(()).unwrap();
    answered.recv().unwrap();
    tokio::time::advance(Duration::from_secs(7)).await;
    let error = call.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
    peer.join().unwrap();
}
