//! Reads that begin together, and share a round trip.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};
use tower_euid::store::{Put, Store, When};
use tower_euid_redis::RedisStore;

use crate::server::Server;
use crate::{HOUR, SOON, key, put, read, until, value};

async fn fill(store: &impl Store, number: u8) {
    assert_eq!(store.put(&key(number), When::Always, &value(number), HOUR).await.unwrap(), Put::Done);
}

async fn round_trips(server: &Server) -> usize {
    let stats: String = server.command("INFO stats").await;
    stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:")).unwrap().parse().unwrap()
}

#[tokio::test]
async fn reads_that_begin_together_share_a_round_trip_and_have_answers_of_their_own() {
    let Some(server) = Server::start(&[]) else { return };
    let store = server.store();
    for number in (0..100).step_by(2) {
        fill(&store, number).await;
    }
    for (command, number) in [("SET {} short", 1), ("RPUSH {} list", 3)] {
        let name = format!("euid:{}", format!("{number:02x}").repeat(32));
        let () = server.command(&command.replace("{}", &name)).await;
    }
    // One round trip asks for the role, too; the next one does not.
    for _ in 0..2 {
        let before = round_trips(&server).await;
        let answers = join_all((0..100).map(async |number| store.get(&key(number)).await)).await;
        let made = round_trips(&server).await - before;
        assert!((2..=4).contains(&made), "{made}, of which one asks how many there are");
        for (number, answer) in (0..100).zip(answers) {
            match number {
                1 => assert!(answer.unwrap_err().to_string().contains("none of this store")),
                3 => assert!(answer.unwrap_err().to_string().contains("WRONGTYPE")),
                _ => assert_eq!(answer.unwrap(), (number % 2 == 0).then(|| value(number)), "{number}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_on_several_threads_have_answers_of_their_own() {
    let Some(server) = Server::start(&[]) else { return };
    let store = server.store();
    for number in 0..100 {
        fill(&store, number).await;
    }
    let visitors = (0..100).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                assert_eq!(store.get(&key(number)).await.unwrap(), Some(value(number)));
            }
        })
    });
    for visitor in join_all(visitors).await {
        visitor.unwrap();
    }
}

/// Returns two runtimes. The second one has put a value, and runs the connection.
fn runtimes(store: &impl Store) -> [Runtime; 2] {
    let [first, second] = [(); 2].map(|()| Builder::new_current_thread().enable_all().build().unwrap());
    second.block_on(until(async || put(store, 1).await.is_ok()));
    [first, second]
}

/// Begins a read on a runtime, which then runs no more.
fn begin_on(runtime: &Runtime, store: &impl Store) {
    runtime.block_on(async {
        let mut reading = pin!(read(store));
        assert!(poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx).is_pending())).await);
    });
}

#[test]
fn reads_do_not_need_the_runtime_of_the_first_one() {
    let Some(server) = Server::start(&[]) else { return };
    for ends in [false, true] {
        let store = RedisStore::new(server.url()).unwrap();
        let [first, running] = runtimes(&store);
        begin_on(&first, &store);
        let _standing = if ends { None } else { Some(first) };
        assert_eq!(running.block_on(read(&store)).unwrap(), Some(1), "{ends}");
    }
}

#[test]
fn reads_that_are_given_up_early_do_not_wait_for_a_runtime_that_stands_still() {
    let Some(server) = Server::start(&[]) else { return };
    let store = server.store();
    let [standing, running] = runtimes(&store);
    begin_on(&standing, &store);
    let read_in_haste = async || tokio::time::timeout(SOON, read(&store)).await.is_ok_and(|found| found.is_ok());
    running.block_on(until(read_in_haste));
}

#[test]
fn read_that_another_runtime_has_sent_does_not_fail_with_it() {
    let Some(server) = Server::start(&[]) else { return };
    let store = server.store();
    let [ending, running] = runtimes(&store);
    begin_on(&ending, &store);
    let mut reading = pin!(read(&store));
    assert!(running.block_on(poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx).is_pending()))));
    // Its task sends both reads. The connection is the other runtime's, so there is no answer yet.
    ending.block_on(tokio::task::yield_now());
    drop(ending);
    assert_eq!(running.block_on(reading).unwrap(), Some(1));
}
