//! Reads that begin together share one round trip.
//!
//! 1. The first read starts a task. The task waits until those have run that are ready before it, then sends all reads that have
//!    begun by then. No read waits for the answer to another one.
//! 2. Where that wait is long, because the tasks of the site are, a task sends what there is at once, for the next second.
//! 3. The runtime of a task may be busy, or not run any more. So a read that begins long after the task was started starts
//!    another one, and so does one that has not been sent within its timeout. That has a little more time.
//! 4. A read whose task ends without an answer, because its runtime does, is sent again, alone.

use std::future::poll_fn;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower_euid::store::{StoreError, Stored};

use crate::link::now;

/// What a read has found.
pub(crate) type Answer = Result<Option<Stored>, StoreError>;

/// The reads that wait for a task.
#[derive(Default)]
pub(crate) struct Reads(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: Waiting,
    /// When the first of them began.
    since: Option<Instant>,
    /// When the last task for them was started.
    task_at: Option<Instant>,
    /// How often reads have been taken.
    turns: u64,
    /// When they last waited for longer than [`LONG`].
    slow_at: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct Waiting {
    pub(crate) keys: Vec<String>,
    /// One for each key.
    pub(crate) answers: Vec<oneshot::Sender<Answer>>,
}

/// A read that has begun.
pub(crate) struct Read {
    pub(crate) answer: oneshot::Receiver<Answer>,
    /// The caller must start a task.
    pub(crate) needs_task: bool,
    /// Its turn to be taken.
    pub(crate) turn: u64,
}

impl Reads {
    pub(crate) fn begin(&self, key: String) -> Read {
        let (sender, answer) = oneshot::channel();
        let now = now();
        let mut state = self.state();
        let needs_task = state.needs_task(now);
        state.waiting.keys.push(key);
        state.waiting.answers.push(sender);
        Read { answer, needs_task, turn: state.turns }
    }

    /// Takes the reads that wait: none, if another task has taken them.
    pub(crate) async fn take(&self) -> Waiting {
        // With one thread a new task is the last one already. With several, its thread runs it next.
        if Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread && !self.state().is_slow(now()) {
            last_in_queue().await;
        }
        let now = now();
        self.state().take(now)
    }

    /// Whether no task has taken the reads of this turn yet.
    pub(crate) fn is_waiting(&self, turn: u64) -> bool {
        self.state().turns == turn
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_slow(&self, now: Instant) -> bool {
        self.slow_at.is_some_and(|at| now.saturating_duration_since(at) < SLOW_FOR)
    }

    /// Whether a read that begins now needs a task: it is the first, or the last task has not run for long.
    fn needs_task(&mut self, now: Instant) -> bool {
        self.since.get_or_insert(now);
        let needs = self.task_at.is_none_or(|at| now.saturating_duration_since(at) > LONG);
        if needs {
            self.task_at = Some(now);
        }
        needs
    }

    fn take(&mut self, now: Instant) -> Waiting {
        if self.since.take().is_some_and(|since| now.saturating_duration_since(since) > LONG) {
            self.slow_at = Some(now);
        }
        self.task_at = None;
        self.turns += 1;
        mem::take(&mut self.waiting)
    }
}

/// Puts a task behind those that are ready. `tokio::task::yield_now` would also wait for the next look at I/O and timers.
async fn last_in_queue() {
    let mut is_last = false;
    poll_fn(|cx| {
        if mem::replace(&mut is_last, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A tenth of the default timeout. Some 300 pages that only show a token take less.
const LONG: Duration = Duration::from_millis(4);
const SLOW_FOR: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_do_not_wait_for_long_tasks_twice_within_a_second() {
        let (mut state, begun) = (State::default(), now());
        for (waited, slow) in [(LONG, false), (LONG + Duration::from_nanos(1), true)] {
            state.since = Some(begun);
            state.take(begun + waited);
            assert_eq!(state.is_slow(begun + waited), slow, "{waited:?}");
        }
        let slow_at = begun + LONG;
        assert!(state.is_slow(slow_at + SLOW_FOR));
        assert!(!state.is_slow(slow_at + SLOW_FOR + Duration::from_nanos(1)));
    }

    #[test]
    fn reads_start_another_task_if_the_last_one_does_not_run() {
        let (mut state, begun) = (State::default(), now());
        let later = LONG + Duration::from_nanos(1);
        for (time, needs_task) in [(Duration::ZERO, true), (LONG, false), (later, true), (later + LONG, false)] {
            assert_eq!(state.needs_task(begun + time), needs_task, "{time:?}");
        }
        state.take(begun + later);
        assert!(state.is_slow(begun + later), "counted from the first read");
        assert!(state.needs_task(begun + later));
    }

    #[tokio::test]
    async fn reads_are_taken_once_in_their_order() {
        let reads = Reads::default();
        let [first, second] = ["a", "b"].map(|key| reads.begin(key.to_owned()));
        assert!(first.needs_task && !second.needs_task);
        assert!(reads.is_waiting(first.turn) && reads.is_waiting(second.turn));
        let taken = reads.take().await;
        assert_eq!(taken.keys, ["a", "b"]);
        assert!(reads.take().await.keys.is_empty());
        let third = reads.begin("c".to_owned());
        assert!(third.needs_task && reads.is_waiting(third.turn) && !reads.is_waiting(first.turn));
        for (answer, read) in taken.answers.into_iter().zip([first, second]) {
            answer.send(Ok(None)).unwrap();
            assert_eq!(read.answer.await.unwrap().unwrap(), None);
        }
    }
}
