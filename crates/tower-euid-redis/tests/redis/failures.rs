//! A server that is down, hangs, is out of memory, or has become a replica.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tower_euid_redis::RedisStore;

use crate::server::{Server, USER, USER_URL};
use crate::{HOUR, PATIENT, SOON, now, put, read, until};

/// A forwarder that leads new connections to a port which the test may change, as a name in the DNS does. Connections that
/// exist stay where they are.
async fn forward(target: Arc<AtomicU16>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let target = target.load(Ordering::Relaxed);
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    port
}

/// A primary, its replica-to-be, and an address that leads to the primary.
pub(crate) async fn failover() -> Option<([Server; 2], Arc<AtomicU16>, RedisStore)> {
    let servers = [Server::start(&[])?, Server::start(&[])?];
    let target = Arc::new(AtomicU16::new(servers[0].port()));
    let port = forward(Arc::clone(&target)).await;
    let store = RedisStore::builder(format!("redis://127.0.0.1:{port}")).timeout(PATIENT).build().unwrap();
    Some((servers, target, store))
}

async fn demote(server: &Server, primary: &Server) {
    let () = server.command(&format!("REPLICAOF 127.0.0.1 {}", primary.port())).await;
}

#[tokio::test]
async fn call_on_a_dead_server_fails_soon_and_works_once_the_server_is_back() {
    let Some(server) = Server::start(&[]) else { return };
    let store = RedisStore::new(server.url()).unwrap();
    let port = server.port();
    drop(server);
    for _ in 0..3 {
        let began = now();
        let error = read(&store).await.unwrap_err();
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert_eq!(error.to_string(), "no connection to Redis");
        assert!(put(&store, 1).await.is_err());
    }
    let Some(_server) = Server::start_again(port) else { return };
    until(async || put(&store, 2).await.is_ok()).await;
    assert_eq!(read(&store).await.unwrap(), Some(2));
}

#[tokio::test]
async fn error_names_a_database_that_the_server_does_not_have() {
    let Some(server) = Server::start(&[]) else { return };
    let store = RedisStore::new(format!("{}/99", server.url())).unwrap();
    assert_eq!(read(&store).await.unwrap_err().to_string(), "Redis refused the database of the URL");
}

#[tokio::test]
async fn call_on_a_server_that_hangs_fails_soon_and_works_once_the_server_goes_on() {
    let Some(server) = Server::start(&[]) else { return };
    let store = RedisStore::new(server.url()).unwrap();
    until(async || put(&store, 1).await.is_ok()).await;
    let hanging = server.hang();
    for _ in 0..3 {
        let began = now();
        assert_eq!(read(&store).await.unwrap_err().to_string(), "Redis did not answer in time");
        assert!(put(&store, 2).await.is_err());
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
    drop(hanging);
    until(async || put(&store, 3).await.is_ok()).await;
    assert_eq!(read(&store).await.unwrap(), Some(3));
}

#[tokio::test]
async fn answer_that_arrives_while_the_process_is_frozen_counts() {
    let Some(server) = Server::start(&[]) else { return };
    // The answer has a few steps to go once the process runs again, as with TLS.
    let port = forward(Arc::new(AtomicU16::new(server.port()))).await;
    let store = RedisStore::builder(format!("redis://127.0.0.1:{port}")).timeout(PATIENT).build().unwrap();
    put(&store, 1).await.unwrap();
    let before = server.accepted().await;
    for _ in 0..5 {
        tokio::time::pause();
        let (sent, reads) = (Arc::new(Notify::new()), store.clone());
        let sending = Arc::clone(&sent);
        let reading = tokio::spawn(async move {
            let mut reading = pin!(read(&reads));
            assert!(poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx).is_pending())).await);
            sending.notify_one();
            reading.await
        });
        sent.notified().await;
        // The clock goes on and no task runs. Afterwards the timeout has passed, long ago.
        tokio::time::advance(HOUR).await;
        tokio::time::resume();
        assert_eq!(reading.await.unwrap().unwrap(), Some(1));
    }
    assert_eq!(server.accepted().await, before + 1, "of the test, which asks how many there are");
}

#[tokio::test]
async fn first_call_on_a_server_that_hangs_fails_soon() {
    let Some(server) = Server::start(&[]) else { return };
    let _hanging = server.hang();
    let store = RedisStore::new(server.url()).unwrap();
    let began = now();
    assert!(read(&store).await.is_err());
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn connection_that_the_server_has_closed_costs_no_call() {
    let Some(server) = Server::start(&[]) else { return };
    let store = server.store();
    put(&store, 1).await.unwrap();
    // The last attempt to connect must be some time ago.
    crate::conformance::wait(server.connect().await, Duration::from_millis(150)).await;
    let () = server.command("CLIENT KILL TYPE normal SKIPME yes").await;
    assert_eq!(read(&store).await.unwrap(), Some(1));
}

#[tokio::test]
async fn put_to_a_server_that_has_become_a_replica_goes_to_the_new_primary() {
    let Some(([old, new], target, store)) = failover().await else { return };
    put(&store, 1).await.unwrap();
    target.store(new.port(), Ordering::Relaxed);
    demote(&old, &new).await;
    put(&store, 2).await.unwrap();
    assert_eq!(read(&new.store()).await.unwrap(), Some(2));
}

#[tokio::test]
async fn get_from_a_server_that_has_become_a_replica_goes_to_the_new_primary() {
    let Some(([old, new], target, store)) = failover().await else { return };
    put(&store, 1).await.unwrap();
    put(&new.store(), 2).await.unwrap();
    assert_eq!(read(&store).await.unwrap(), Some(1));
    target.store(new.port(), Ordering::Relaxed);
    demote(&old, &new).await;
    let began = now();
    until(async || read(&store).await.unwrap() == Some(2)).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn connection_to_a_replica_is_replaced_at_most_once_a_second() {
    let Some(server) = Server::start(&[]) else { return };
    let Some(primary) = Server::start(&[]) else { return };
    let store = server.store();
    put(&store, 1).await.unwrap();
    demote(&server, &primary).await;
    let (began, before) = (now(), server.accepted().await);
    for _ in 0..50 {
        assert_eq!(put(&store, 2).await.unwrap_err().to_string(), "Redis is a replica, not the primary (READONLY)");
        assert_eq!(read(&store).await.unwrap_err().to_string(), "Redis is a replica, not the primary");
    }
    // One for the present second, one for each that has begun since; and one of `accepted`.
    let most = 2 + usize::try_from(began.elapsed().as_secs()).unwrap();
    let made = server.accepted().await - before - 1;
    assert!((1..=most).contains(&made), "{made}");
    let () = server.command("REPLICAOF NO ONE").await;
    put(&store, 3).await.unwrap();
}

#[tokio::test]
async fn server_without_memory_refuses_to_write_and_still_reads() {
    let Some(server) = Server::start(&[]) else { return };
    let store = server.store();
    put(&store, 1).await.unwrap();
    let () = server.command("CONFIG SET maxmemory 1").await;
    assert_eq!(put(&store, 2).await.unwrap_err().to_string(), "Redis has no memory left (OOM)");
    assert_eq!(read(&store).await.unwrap(), Some(1));
    let () = server.command("CONFIG SET maxmemory 0").await;
    put(&store, 3).await.unwrap();
}

#[tokio::test]
async fn store_connects_again_after_the_server_has_refused_its_login() {
    let Some(server) = Server::start(&[]) else { return };
    // A database makes the handshake fail.
    let store = RedisStore::builder(format!("{}/1", server.url())).timeout(PATIENT).build().unwrap();
    put(&store, 1).await.unwrap();
    let mut admin = server.connect().await;
    for command in ["CONFIG SET requirepass hunter2", "AUTH hunter2", "CLIENT KILL TYPE normal SKIPME yes"] {
        let () = crate::server::words(command).query_async(&mut admin).await.unwrap();
    }
    until(async || read(&store).await.is_err_and(|error| error.to_string() != "no connection to Redis")).await;
    let mut clear = redis::cmd("CONFIG");
    let () = clear.arg("SET").arg("requirepass").arg("").query_async(&mut admin).await.unwrap();
    until(async || read(&store).await.is_ok()).await;
    assert_eq!(read(&store).await.unwrap(), Some(1));
}

#[tokio::test]
async fn user_who_may_only_use_what_the_store_needs_is_enough() {
    for (role, works) in [("+role", true), ("-role", true), ("-set", false)] {
        let Some(server) = Server::start(&[&USER[..], &[role]].concat()) else { return };
        let url = format!("{USER_URL}{}", server.port());
        let store = RedisStore::builder(url).timeout(PATIENT).build().unwrap();
        assert_eq!(put(&store, 1).await.is_ok(), works, "{role}");
        assert_eq!(read(&store).await.unwrap(), works.then_some(1), "{role}");
    }
}

#[test]
fn call_without_a_runtime_is_an_error() {
    let store = RedisStore::new("redis://127.0.0.1").unwrap();
    let call = std::pin::pin!(read(&store));
    let waker = std::task::Waker::noop();
    let std::task::Poll::Ready(result) = call.poll(&mut std::task::Context::from_waker(waker)) else { panic!() };
    assert!(result.unwrap_err().to_string().contains("tokio runtime"));
}
