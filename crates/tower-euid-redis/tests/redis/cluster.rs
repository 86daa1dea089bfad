//! A cluster of one node.

use tower_euid_redis::RedisStore;

use crate::server::{Server, USER, USER_URL};
use crate::{PATIENT, SOON, conformance, now, put, read, until};

const CLUSTER: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"];

fn start() -> Option<Server> {
    Server::start(&CLUSTER)
}

fn store(server: &Server) -> RedisStore {
    server.builder().cluster().build().unwrap()
}

/// Makes the node own all slots, and waits until it says that the cluster works.
async fn add_slots(server: &Server) {
    // Redis 6 has no command for a range of them.
    let slots: Vec<String> = (0..16_384).map(|slot| slot.to_string()).collect();
    let () = server.command(&format!("CLUSTER ADDSLOTS {}", slots.join(" "))).await;
    until(async || server.command::<String>("CLUSTER INFO").await.contains("cluster_state:ok")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_keeps_the_contract() {
    let Some(server) = start() else { return };
    add_slots(&server).await;
    conformance::check(&server, [store(&server), store(&server)]).await;
}

#[tokio::test]
async fn cluster_that_is_down_is_an_error_until_it_is_up() {
    let Some(server) = start() else { return };
    let store = store(&server);
    assert!(put(&store, 1).await.is_err());
    add_slots(&server).await;
    until(async || put(&store, 2).await.is_ok()).await;
    assert_eq!(read(&store).await.unwrap(), Some(2));
}

#[tokio::test]
async fn node_that_is_down_is_passed_over() {
    let (Some(server), Some(other)) = (start(), start()) else { return };
    add_slots(&server).await;
    let down = other.url();
    drop(other);
    let store = RedisStore::builder(down).node(server.url()).timeout(PATIENT).build().unwrap();
    put(&store, 1).await.unwrap();
    assert_eq!(read(&store).await.unwrap(), Some(1));
}

#[tokio::test]
async fn cluster_that_hangs_fails_soon_and_works_once_it_goes_on() {
    let Some(server) = start() else { return };
    add_slots(&server).await;
    let store = RedisStore::builder(server.url()).cluster().build().unwrap();
    until(async || put(&store, 1).await.is_ok()).await;
    let hanging = server.hang();
    for _ in 0..3 {
        let began = now();
        assert!(read(&store).await.is_err() && put(&store, 2).await.is_err());
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
    drop(hanging);
    until(async || put(&store, 3).await.is_ok()).await;
    assert_eq!(read(&store).await.unwrap(), Some(3));
}

#[tokio::test]
async fn cluster_without_a_node_fails_soon() {
    let Some(server) = start() else { return };
    let store = RedisStore::builder(server.url()).cluster().build().unwrap();
    drop(server);
    for _ in 0..3 {
        let began = now();
        assert!(read(&store).await.is_err());
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn user_who_may_only_use_what_the_store_needs_is_enough() {
    let Some(server) = Server::start(&[&CLUSTER[..], &USER, &["+cluster|slots"]].concat()) else { return };
    add_slots(&server).await;
    let url = format!("{USER_URL}{}", server.port());
    let store = RedisStore::builder(url).cluster().timeout(PATIENT).build().unwrap();
    put(&store, 1).await.unwrap();
    assert_eq!(read(&store).await.unwrap(), Some(1));
}
