//! Tests of the refresh table under a model checker. It chooses many orders of a leader, its waiters, a dropped waiter
//! and the end of a memory, and it tries every order of the smallest scenario:
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

use super::fixtures::at;
use super::flight::{Flight, Outcome};
use super::memo::{MemoLimit, RefreshKey};
use super::sync::{Mutex, lock};
use super::table::{CallProgress, NextStep, Origin, RefreshTable};

const KEY: RefreshKey = RefreshKey { token: [7; 16], lineage: Some([1; 16]) };
const LIMIT: MemoLimit = MemoLimit { entries: 8, bytes: 1 << 20 };
/// Longer than any schedule takes in real time, so that no call is overdue here.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// The state that all threads share.
#[derive(Clone)]
struct Table {
    table: Arc<Mutex<RefreshTable>>,
    calls: Arc<AtomicUsize>,
    /// Whether calls end in a panic.
    panics: bool,
}

/// Completes the call when dropped, as the guard of the real leader does.
struct Leader {
    table: Table,
    flight: Arc<Flight>,
    now: UnixMillis,
    outcome: Option<Outcome>,
}

impl Drop for Leader {
    fn drop(&mut self) {
        let panicked = || Arc::new(Err(EuidError::new(ErrorKind::Transient, "the refresh panicked")));
        let outcome = self.outcome.take().unwrap_or_else(panicked);
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

    /// Refreshes as a request does at `seconds`. Returns the outcome, or `None` if the request is dropped.
    fn refresh(&self, seconds: i64, is_dropped: bool) -> Option<Outcome> {
        let now = at(seconds);
        let next = lock(&self.table).next(&KEY, Origin::Login, now, crate::deadline::steady_now());
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
        if is_dropped {
            let _ = std::pin::Pin::new(&mut waiter).poll(&mut Context::from_waker(Waker::noop()));
            return None;
        }
        // The checker fails a schedule in which this waiter is never woken.
        Some(block_on(waiter))
    }
}

/// Runs `scenario` on 5 000 random schedules, or `SCHEDULES`, and on as many with few switches of threads.
fn explore(scenario: fn()) {
    let schedules = std::env::var("SCHEDULES").ok().and_then(|count| count.parse().ok()).unwrap_or(5_000);
    shuttle::check_random(scenario, schedules);
    shuttle::check_pct(scenario, schedules, 4);
}

/// Runs a request per element of `seconds`, each on a thread. Returns their outcomes.
fn outcomes(table: &Table, seconds: &'static [i64], drops_first: bool) -> Vec<Option<Outcome>> {
    let threads: Vec<_> = seconds
        .iter()
        .enumerate()
        .map(|(number, &seconds)| {
            let table = table.clone();
            thread::spawn(move || table.refresh(seconds, drops_first && number == 0))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn parallel_requests_share_the_outcome_of_one_call() {
    explore(|| {
        let table = Table::new(false);
        let outcomes: Vec<Outcome> = outcomes(&table, &[0, 0, 0], false).into_iter().flatten().collect();
        assert_eq!(table.calls.load(Ordering::SeqCst), 1);
        assert!(outcomes.len() == 3 && outcomes.iter().all(|outcome| Arc::ptr_eq(outcome, &outcomes[0])));
    });
}

#[test]
fn dropped_waiter_does_not_affect_others() {
    explore(|| {
        let table = Table::new(false);
        let outcomes = outcomes(&table, &[0, 0, 0], true);
        assert_eq!(table.calls.load(Ordering::SeqCst), 1);
        assert!(outcomes[0].is_none_or_opted_out() && outcomes[1..].iter().all(Option::is_some));
    });
}

#[test]
fn leader_that_panics_still_wakes_every_waiter() {
    explore(|| {
        let table = Table::new(true);
        for outcome in outcomes(&table, &[0, 0, 0], false).into_iter().flatten() {
            assert_eq!(outcome.as_ref().as_ref().unwrap_err().kind(), ErrorKind::Transient);
        }
        assert_eq!(table.calls.load(Ordering::SeqCst), 1, "the token backs off");
    });
}

#[test]
fn expired_memory_leads_to_another_call_and_every_request_gets_an_outcome() {
    explore(|| {
        let table = Table::new(false);
        let outcomes = outcomes(&table, &[0, 0, 60], false);
        assert!(outcomes.iter().all(Option::is_some));
        let calls = table.calls.load(Ordering::SeqCst);
        // One call for each memory. A request that arrives last with the earliest time sees a clock that was set back,
        // which costs one more call.
        assert!((1..=3).contains(&calls), "{calls}");
    });
}

/// The scenario has one leader, one waiter that waits and one that is dropped.
#[test]
fn smallest_scenario_ends_in_every_order() {
    let explored = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&explored);
    let scenario = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let flight = Arc::new(Flight::default());
        let state = Arc::clone(&flight);
        let dropping = Arc::clone(&flight);
        let leader = thread::spawn(move || state.complete(Arc::new(Ok(Refreshed::OptedOut))));
        let dropped = thread::spawn(move || {
            let mut waiter = dropping.wait();
            let polled = std::pin::Pin::new(&mut waiter).poll(&mut Context::from_waker(Waker::noop()));
            matches!(polled, Poll::Ready(_) | Poll::Pending)
        });
        assert!(block_on(flight.wait()).is_ok());
        assert!(leader.join().is_ok() && dropped.join().unwrap());
    };
    shuttle::check_dfs(scenario, None);
    println!("{} schedules", explored.load(Ordering::Relaxed));
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
