//! The task that makes one call. It always completes the flight: with an answer, at its deadline, after a panic, or
//! when its runtime shuts down.

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use euid_core::clock::UnixMillis;
use euid_core::error::{ErrorKind, EuidError};
use euid_core::identity::Identity;
use euid_core::{Refreshed, Scope};
use tokio::time::Instant;

use super::breaker::BreakerState;
use super::coordinator::{Coordinator, Settings};
use super::flight::Flight;
use super::memo::RefreshKey;
use super::sync::lock;
use super::table::{CallProgress, Origin, RefreshTable};
use super::{Called, ErasedRefresh, transient};
use crate::deadline;
use crate::telemetry::{self, Ending};

/// The guard of a call, from the moment at which the table begins it.
pub(super) struct Leader {
    coordinator: Arc<Coordinator>,
    key: RefreshKey,
    flight: Arc<Flight>,
    begun: UnixMillis,
    progress: CallProgress,
    probe: bool,
    completed: bool,
}

/// The moments at which a call under way becomes slow and ends.
struct Timers {
    /// When the call counts as slow; `None` while it queues, and once it has been counted.
    slow: Option<Instant>,
    /// When the leader gives up the call.
    end: Instant,
}

impl Leader {
    pub(super) fn new(
        coordinator: Arc<Coordinator>,
        key: RefreshKey,
        flight: Arc<Flight>,
        origin: Origin,
        probe: bool,
        begun: UnixMillis,
    ) -> Self {
        let progress = match origin {
            Origin::Migrated => CallProgress::Migrated,
            // A probe does not queue, and its outcome always counts.
            Origin::Login if probe => CallProgress::OnTime,
            Origin::Login => CallProgress::NotSent,
        };
        Self { coordinator, key, flight, begun, progress, probe, completed: false }
    }

    #[expect(clippy::manual_async_fn, reason = "an `async fn` would hold its arguments twice")]
    pub(super) fn lead(
        mut self,
        identity: Arc<Identity>,
        by: Option<Arc<dyn ErasedRefresh>>,
    ) -> impl Future<Output = ()> {
        async move {
            let (ending, outcome) = match self.queue_and_call(identity, by).await {
                Some(Called::Answered(outcome)) => (Ending::Answered, outcome),
                Some(Called::Known(outcome)) => {
                    self.progress = self.progress.undone(self.probe);
                    (Ending::Answered, outcome)
                }
                Some(Called::NotMade(why)) => {
                    self.progress = self.progress.undone(self.probe);
                    (Ending::NotMade, transient(why))
                }
                None => (Ending::Deadline, transient("no answer within the deadline")),
            };
            let now = self.coordinator.settings().clock.now();
            self.complete(ending, outcome, now);
        }
    }

    /// Waits for a permit and makes the call. Returns `None` at the deadline.
    async fn queue_and_call(&mut self, identity: Arc<Identity>, by: Option<Arc<dyn ErasedRefresh>>) -> Option<Called> {
        let coordinator = Arc::clone(&self.coordinator);
        let Settings { refresh, max_wait, call_deadline, .. } = coordinator.settings();
        let mut timers = Timers { slow: None, end: deadline::moment_after(*call_deadline) };
        // A probe takes no permit: the calls that hold the permits may all hang.
        let _permit =
            if self.probe { None } else { self.watch(&mut timers, pin!(coordinator.permits.acquire())).await?.ok() };
        if !self.probe && lock(&coordinator.table).breaker() != BreakerState::Closed {
            // The breaker opened while this call queued.
            return Some(Called::Answered(transient("the operator is down")));
        }
        if self.progress != CallProgress::Migrated {
            self.progress = CallProgress::OnTime;
            timers.slow = Some(deadline::moment_after((*max_wait).max(SLOW_AT_LEAST)));
        }
        let by = by.unwrap_or_else(|| Arc::clone(refresh));
        self.watch(&mut timers, by.call(identity).as_mut()).await
    }

    /// Awaits `step`; returns `None` at the deadline. Reports to the table when the call becomes slow. Runs one timer
    /// at a time, as timers are the largest part of the task.
    async fn watch<T>(
        &mut self,
        timers: &mut Timers,
        mut step: Pin<&mut (impl Future<Output = T> + ?Sized)>,
    ) -> Option<T> {
        loop {
            let slow = timers.slow.take_if(|slow| *slow < timers.end);
            let moment = slow.unwrap_or(timers.end);
            if let Some(done) = deadline::before(moment, step.as_mut()).await {
                return Some(done);
            }
            // If there was no slow timer, the deadline has fired.
            slow?;
            let now = self.coordinator.settings().clock.now();
            let (progress, moved) = self.coordinator.with_table(|table| table.slow(now));
            self.progress = progress;
            moved.report(transient("a call takes longer than a page waits").as_ref().err());
        }
    }

    /// Ends the call: the table remembers its outcome, and the flight hands it to the waiters.
    fn complete(&mut self, ending: Ending, outcome: Result<Refreshed, EuidError>, now: UnixMillis) {
        let scope = self.coordinator.scope();
        let checked = outcome.and_then(|outcome| in_scope(outcome, scope)?.received(now));
        let (outcome, due_by) = match checked {
            Ok((outcome, due_by)) => (Ok(outcome), due_by),
            Err(error) => (Err(error), None),
        };
        let outcome = Arc::new(outcome);
        let chance = RandomState::new().hash_one(self.key.token) as u32;
        let remember = |table: &mut RefreshTable| table.complete(&self.key, &outcome, self.progress, now, chance);
        let ((), moved) = self.coordinator.with_table(remember);
        self.flight.complete(Arc::clone(&outcome));
        self.completed = true;
        // This comes last, as it runs the application's code: if that panics, the flight has already completed.
        moved.report(outcome.as_ref().as_ref().err());
        if let Some(due_by) = due_by
            && !self.coordinator.warned_of_skew.swap(true, Ordering::Relaxed)
        {
            telemetry::refreshed_pair_is_due(scope, due_by);
        }
        let took = now.saturating_since(self.begun);
        match &*outcome {
            Err(error) if self.progress == CallProgress::Migrated => {
                let left_out = lock(&self.coordinator.migrated_failures).admit(now);
                telemetry::migrated_refresh_failed(scope, ending, error, left_out, took);
            }
            Err(error) if is_failure(ending, error) => {
                let left_out = lock(&self.coordinator.failures).admit(error.kind(), now);
                telemetry::refresh_failed(scope, ending, error, left_out, took);
            }
            _ => telemetry::refresh_ended(scope, ending, &outcome, took),
        }
    }
}

/// Whether a call has failed for a reason that lies neither in its identity nor in this process.
fn is_failure(ending: Ending, error: &EuidError) -> bool {
    let is_ended = matches!(error.kind(), ErrorKind::RejectedToken | ErrorKind::LoginEnded);
    matches!(ending, Ending::Answered | Ending::Deadline) && !is_ended
}

/// Refuses a pair of the other scope. A client of an operator does so itself; other implementations of `Refresh` may not.
fn in_scope(outcome: Refreshed, scope: Scope) -> Result<Refreshed, EuidError> {
    match &outcome {
        Refreshed::Identity(pair) if pair.scope().is_some_and(|other| other != scope) => {
            Err(EuidError::new(ErrorKind::WrongScope, "the new pair is not of the scope in which it was refreshed"))
        }
        _ => Ok(outcome),
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.completed {
            return;
        }
        let ending = if thread::panicking() { Ending::Panicked } else { Ending::Dropped };
        if ending == Ending::Dropped && !self.probe {
            // The runtime is shutting down, which says nothing about the operator.
            self.progress = self.progress.undone(false);
        }
        // The panic may come from the application's code that runs here (its clock, its log).
        let clock = &self.coordinator.settings().clock;
        let now = catch_unwind(AssertUnwindSafe(|| clock.now())).unwrap_or(self.begun);
        let _ = catch_unwind(AssertUnwindSafe(|| self.complete(ending, transient("the refresh broke down"), now)));
    }
}

/// A call that is faster than this is never slow, however short pages wait.
const SLOW_AT_LEAST: Duration = Duration::from_millis(250);
