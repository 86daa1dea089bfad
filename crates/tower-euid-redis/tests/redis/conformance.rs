//! The checks that every store must pass.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};
use tower_euid::store::conformance::check_all;
use tower_euid::store::{Put, Store, When};
use tower_euid_redis::RedisStore;

use crate::server::Server;
use crate::{HOUR, key, put, value};

/// Lets the time of the server pass, by which values expire: it answers when the timeout of the command has passed.
pub(crate) async fn wait(mut connection: MultiplexedConnection, time: Duration) {
    let answer = cmd("BLPOP").arg("no such list").arg(time.as_secs_f64()).query_async(&mut connection).await;
    assert_eq!(answer, Ok(Value::Nil));
}

pub(crate) async fn check(server: &Server, nodes: [RedisStore; 2]) {
    let connection = server.connect().await;
    check_all(&nodes.map(Arc::new), async |time| wait(connection.clone(), time).await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_connections_to_one_server_keep_the_contract() {
    let Some(server) = Server::start(&[]) else { return };
    check(&server, [server.store(), server.store()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_of_a_store_keep_the_contract() {
    let Some(server) = Server::start(&[]) else { return };
    let store = server.builder().prefix("shop:").build().unwrap();
    check(&server, [store.clone(), store]).await;
}

#[tokio::test]
async fn value_is_one_string_that_expires_by_itself() {
    let Some(server) = Server::start(&[]) else { return };
    put(&server.store(), 7).await.unwrap();
    let name = format!("euid:{}", "01".repeat(32));
    assert_eq!(server.command::<String>("RANDOMKEY").await, name);
    assert_eq!(server.command::<Vec<u8>>(&format!("GET {name}")).await, vec![7; 16 + 600]);
    let left: u64 = server.command(&format!("PTTL {name}")).await;
    assert!(left > 3_500_000 && left <= 3_600_000, "{left}");
}

#[tokio::test]
async fn stores_with_different_prefixes_do_not_see_each_other() {
    let Some(server) = Server::start(&[]) else { return };
    let [site, shop] = ["site:", "shop:"].map(|prefix| server.builder().prefix(prefix).build().unwrap());
    put(&site, 1).await.unwrap();
    assert_eq!(shop.get(&key(1)).await.unwrap(), None);
}

#[tokio::test]
async fn put_whose_answer_was_lost_is_done_when_it_is_repeated() {
    let Some(server) = Server::start(&[]) else { return };
    let store = server.store();
    for when in [When::Absent, When::Absent] {
        assert_eq!(store.put(&key(1), when, &value(1), HOUR).await.unwrap(), Put::Done);
    }
    for when in [When::Is([1; 16]), When::Is([1; 16])] {
        assert_eq!(store.put(&key(1), when, &value(2), HOUR).await.unwrap(), Put::Done);
    }
    assert_eq!(store.put(&key(1), When::Absent, &value(1), HOUR).await.unwrap(), Put::Refused);
}

#[tokio::test]
async fn put_finds_its_script_again_after_the_server_has_forgotten_it() {
    let Some(server) = Server::start(&[]) else { return };
    let store = server.store();
    for version in 1..=3 {
        put(&store, version).await.unwrap();
        let () = server.command("SCRIPT FLUSH").await;
    }
    put(&store, 4).await.unwrap();
    put(&store, 5).await.unwrap();
    let calls: String = server.command("INFO commandstats").await;
    let calls_of =
        |name: &str| calls.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:calls="))).map(str::to_owned);
    assert!(calls_of("eval").unwrap().contains("calls=4,"), "{calls}");
    assert!(calls_of("evalsha").unwrap().contains("calls=5,"), "{calls}");
}

#[tokio::test]
async fn longest_and_shortest_keep_are_accepted() {
    let Some(server) = Server::start(&[]) else { return };
    let store = server.store();
    for keep in [Duration::MAX, Duration::ZERO, Duration::from_nanos(1)] {
        assert_eq!(store.put(&key(1), When::Always, &value(1), keep).await.unwrap(), Put::Done);
    }
}

#[tokio::test]
async fn value_that_is_no_value_of_a_store_is_an_error_until_it_is_replaced() {
    let Some(server) = Server::start(&[]) else { return };
    let (store, name) = (server.store(), format!("euid:{}", "01".repeat(32)));
    let () = server.command(&format!("SET {name} short")).await;
    assert!(store.get(&key(1)).await.unwrap_err().to_string().contains("none of this store"));
    put(&store, 1).await.unwrap();
    assert_eq!(store.get(&key(1)).await.unwrap(), Some(value(1)));
    let () = server.command(&format!("DEL {name}")).await;
    let () = server.command(&format!("RPUSH {name} list")).await;
    assert!(store.get(&key(1)).await.unwrap_err().to_string().contains("WRONGTYPE"));
}
