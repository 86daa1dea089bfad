//! Tests of many orders in which a leader, its waiters, a waiter that is dropped and the end of the memory can meet,
//! chosen by a model checker, and of every order of the smallest such game:
//!
//! ```console
//! $ RUSTFLAGS="--cfg shuttle" cargo test --no-default-features --lib --target-dir target/shuttle interleavings
//! ```
//!
//! The table and the flight are the real ones, on the checker's mutex. A thread plays the leader's task: like
//! [`leader`](super::leader), it completes the call in the table, then in the flight, which wakes the waiters. The real
//! task, with its permits and timers, needs tokio and is not explored here.

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
use super::table::{CallProgress, NextStep, RefreshTable};

const KEY: RefreshKey = RefreshKey { token: [7; 16], lineage: Some([1; 16]) };
const LIMIT: MemoLimit = MemoLimit { entries: 8, bytes: 1 << 20 };
/// Longer than any schedule takes in real time, so that no call is overdue here.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// The state that the players share.
#[derive(Clone)]
struct Table {
    table: Arc<Mutex<RefreshTable>>,
    calls: Arc<AtomicUsize>,
    /// Whether calls end in a panic.
    panics: bool,
}

/// Completes the call in any case, as the leader's guard does.
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

    /// Requests a refresh as a page does at `seconds`. Returns the outcome that the page gets.
    fn ask(&self, seconds: i64, leaves: bool) -> Option<Outcome> {
        let now = UnixMillis::from_millis(seconds * 1000);
        let next = lock(&self.table).next(&KEY, now, crate::deadline::steady_now());
        let flight = match next {
            NextStep::Known(outcome) => return Some(outcome),
            NextStep::Join(flight) => flight,
            NextStep::Lead { flight, .. } => {
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
        // The checker fails a schedule in which this waiter is never woken.
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
fn waiter_that_leaves_has_no_effect_on_others() {
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
        // One call for each memory. A request that arrives last with the earliest time sees a clock that was set back,
        // which costs one more call.
        assert!((1..=3).contains(&calls), "{calls}");
    });
}

/// Every schedule of one leader, one waiter that stays and one that is dropped.
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
    /// A dropped waiter may have begun after the call completed, and then has the outcome.
    fn is_none_or_opted_out(&self) -> bool {
        self.as_ref().is_none_or(|outcome| matches!(**outcome, Ok(Refreshed::OptedOut)))
    }
}
