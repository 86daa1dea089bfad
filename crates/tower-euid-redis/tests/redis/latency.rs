//! How long calls take on a server of the same machine:
//! `cargo test --release -p tower-euid-redis latency -- --ignored --nocapture`.

use tower_euid::store::Store;

use crate::server::Server;
use crate::{key, now, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures"]
async fn latency_of_get_and_put() {
    let Some(server) = Server::start(&[]) else { return };
    let store = server.store();
    put(&store, 1).await.unwrap();
    let (mut connection, name) = (server.connect().await, format!("euid:{}", key(1).to_hex()));
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..10_000 {
        let began = now();
        store.get(&key(1)).await.unwrap();
        times[0].push(began.elapsed());
        let began = now();
        put(&store, 1).await.unwrap();
        times[1].push(began.elapsed());
        let began = now();
        let _: Vec<u8> = redis::cmd("GET").arg(&name).query_async(&mut connection).await.unwrap();
        times[2].push(began.elapsed());
    }
    for (name, mut times) in ["get", "put", "GET by the crate redis alone"].into_iter().zip(times) {
        times.sort_unstable();
        println!("{name}: median {:?}, 99 % {:?}", times[5_000], times[9_900]);
    }
}
