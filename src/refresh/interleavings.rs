//! Many orders in which a leader, its waiters, a waiter that leaves and the end of the memory can meet,
//! chosen by a model checker, and every order of the smallest such game:
//!
//! ```console
//! $ RUSTFLAGS="--cfg shuttle" cargo test --no-default-features --lib --target-dir target/shuttle interleavings
//! ```
//!
//! The table and the flight are the real ones, on the checker's mutex. The leader's task is played by a
//! thread that does what [`coordinator`](super::coordinator) does, completes in the table, then wakes; the coordinator itself,
//! with its permits and timers, is tokio's and is not explored here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use euid_core::Refreshed;
use euid_core::clock::UnixMillis;
use euid_core::error::{ErrorKind, EuidError};
use shuttle::future::block_on;
use shuttle::thread;

use super::flight::{Flight, Outcome};
use super::memo::{MemoLimit, RefreshKey};
use super::sync::{Mutex, lock};
use super::table::{CallProgress, RefreshTable, Step};

const KEY: RefreshKey = RefreshKey { token: [7; 16], lineage: Some([1; 16]) };
const LIMIT: MemoLimit = MemoLimit { entries: 8, bytes: 1 << 20 };
/// Longer than any schedule takes in real time: here no call is overdue.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// What the players share.
#[derive(Clone)]
struct Table {
    table: Arc<Mutex<RefreshTable>>,
    calls: Arc<AtomicUsize>,
    /// Whether calls end in a panic.
    panics: bool,
}

/// Lands whatever happens, as the leader's guard does.
struct Leader {
    table: Table,
    flight: Arc<Flight>,
    now: UnixMillis,
    outcome: Option<Outcome>,
}

impl Drop for Leader {
    fn drop(&mut self) {
        let broke_down = || Arc::new(Err(EuidError::new(ErrorKind::Transient, "the refresh broke down")));
        let outcome = self.outcome.take().unwrap_or_else(broke_down);
        lock(&self.table.table).complete(&KEY, &outcome, CallProgress::OnTime, self.now, 0);
        self.flight.complete(outcome);
    }
}

impl Table {
    fn new(panics: bool) -> Self {
        Self {
            table: Arc::new(Mutex::new(RefreshTable::new(LIMIT, MAX_WAIT, MAX_WAIT, 64))),
            calls: Arc::default(),
            panics,
        }
    }

    /// A page asks at `seconds`; what it gets in the end.
    fn ask(&self, seconds: i64, leaves: bool) -> Option<Outcome> {
        let now = UnixMillis::from_millis(seconds * 1000);
        let next = lock(&self.table).next(&KEY, now, crate::deadline::steady_now());
        let flight = match next {
            Step::Known(outcome) => return Some(outcome),
            Step::Join(flight) => flight,
            Step::Lead { flight, .. } => {
                self.calls.fetch_add(1, Ordering::SeqCst);
                let outcome: Option<Outcome> = (!self.panics).then(|| Arc::new(Ok(Refreshed::OptedOut)));
                let leader = Leader { table: self.clone(), flight: Arc::clone(&flight), now, outcome };
                thread::spawn(move || drop(leader));
                flight
            }
            other => panic!("{other:?}"),
        };
        let mut waiter = flight.wait();
        if leaves {
            let _ = std::pin::Pin::new(&mut waiter).poll(&mut Context::from_waker(Waker::noop()));
            return None;
        }
        // The checker fails a schedule in which this is never woken.
        Some(block_on(waiter))
    }
}

/// Plays `game` on 5 000 random schedules, or `SCHEDULES`, and on as many that need few switches.
fn explore(game: fn()) {
    let schedules = std::env::var("SCHEDULES").ok().and_then(|count| count.parse().ok()).unwrap_or(5_000);
    shuttle::check_random(game, schedules);
    shuttle::check_pct(game, schedules, 4);
}

fn players(table: &Table, seconds: &'static [i64], leaver: bool) -> Vec<Option<Outcome>> {
    let players: Vec<_> = seconds
        .iter()
        .enumerate()
        .map(|(number, &seconds)| {
            let table = table.clone();
            thread::spawn(move || table.ask(seconds, leaver && number == 0))
        })
        .collect();
    players.into_iter().map(|player| player.join().unwrap()).collect()
}

#[test]
fn all_who_ask_at_once_get_the_one_outcome_of_one_call() {
    explore(|| {
        let table = Table::new(false);
        let outcomes: Vec<Outcome> = players(&table, &[0, 0, 0], false).into_iter().flatten().collect();
        assert_eq!(table.calls.load(Ordering::SeqCst), 1);
        assert!(outcomes.len() == 3 && outcomes.iter().all(|outcome| Arc::ptr_eq(outcome, &outcomes[0])));
    });
}

#[test]
fn who_leaves_takes_nobody_along() {
    explore(|| {
        let table = Table::new(false);
        let outcomes = players(&table, &[0, 0, 0], true);
        assert_eq!(table.calls.load(Ordering::SeqCst), 1);
        assert!(outcomes[0].is_none_or_opted_out() && outcomes[1..].iter().all(Option::is_some));
    });
}

#[test]
fn leader_that_panics_strands_no_waiter() {
    explore(|| {
        let table = Table::new(true);
        for outcome in players(&table, &[0, 0, 0], false).into_iter().flatten() {
            assert_eq!(outcome.as_ref().as_ref().unwrap_err().kind(), ErrorKind::Transient);
        }
        assert_eq!(table.calls.load(Ordering::SeqCst), 1, "the token backs off");
    });
}

#[test]
fn when_the_memory_ends_somebody_asks_again_and_all_are_answered() {
    explore(|| {
        let table = Table::new(false);
        let outcomes = players(&table, &[0, 0, 60], false);
        assert!(outcomes.iter().all(Option::is_some));
        let calls = table.calls.load(Ordering::SeqCst);
        // One for each memory; a request that comes last and is the earliest sees a clock that was set back, and one more
        // call is made.
        assert!((1..=3).contains(&calls), "{calls}");
    });
}

/// Every schedule there is of one leader, one who waits and one who leaves.
#[test]
fn the_smallest_game_in_every_order() {
    let played = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&played);
    let game = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let flight = Arc::new(Flight::default());
        let state = Arc::clone(&flight);
        let leaving = Arc::clone(&flight);
        let leader = thread::spawn(move || state.complete(Arc::new(Ok(Refreshed::OptedOut))));
        let leaver = thread::spawn(move || {
            let mut waiter = leaving.wait();
            let polled = std::pin::Pin::new(&mut waiter).poll(&mut Context::from_waker(Waker::noop()));
            matches!(polled, Poll::Ready(_) | Poll::Pending)
        });
        assert!(block_on(flight.wait()).is_ok());
        assert!(leader.join().is_ok() && leaver.join().unwrap());
    };
    shuttle::check_dfs(game, None);
    println!("{} schedules", played.load(Ordering::Relaxed));
}

trait NoneOrOptedOut {
    fn is_none_or_opted_out(&self) -> bool;
}

impl NoneOrOptedOut for Option<Outcome> {
    /// One who leaves may have come after the state, and then knows.
    fn is_none_or_opted_out(&self) -> bool {
        self.as_ref().is_none_or(|outcome| matches!(**outcome, Ok(Refreshed::OptedOut)))
    }
}
