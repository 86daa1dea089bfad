//! Reads that begin together share one round trip.
//!
//! 1. The first read starts a task. The task waits until those have run that are ready before it, then sends all reads that have
//!    begun by then. No read waits for the answer to another one.
//! 2. That wait is bounded: a read that begins more than [`LONG`] later starts a task that sends all at once. The tasks of the
//!    site are long then. Each step of a shared read would wait for them, so for a second each read is sent alone.
//! 3. The runtime of a task may not run any more. So a read that has not been sent within its timeout starts a task, too, and has
//!    a little more time.
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
    rounds: u64,
    /// When reads last waited for longer than [`LONG`].
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
    /// The task that the caller must start, if any.
    pub(crate) task: Option<Task>,
    /// Which reads it is taken with.
    pub(crate) round: u64,
}

/// When a task sends the reads that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Once the tasks that are ready have run.
    Last,
    AtOnce,
}

impl Reads {
    /// Begins a read that others share; `None` if it is to be sent alone.
    pub(crate) fn begin(&self, key: impl FnOnce() -> String) -> Option<Read> {
        let now = now();
        let mut state = self.state();
        if state.is_slow(now) {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        state.waiting.keys.push(key());
        state.waiting.answers.push(sender);
        Some(Read { answer, task: state.needed_task(now), round: state.rounds })
    }

    /// Takes the reads that wait: none, if another task has taken them.
    pub(crate) async fn take(&self, task: Task) -> Waiting {
        // With one thread a new task is the last one already. With several, its thread runs it next.
        if task == Task::Last && Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
            last_in_queue().await;
        }
        let now = now();
        self.state().take(now)
    }

    /// Whether no task has taken the reads of this round yet.
    pub(crate) fn is_waiting(&self, round: u64) -> bool {
        self.state().rounds == round
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_slow(&self, now: Instant) -> bool {
        self.slow_at.is_some_and(|at| now.saturating_duration_since(at) <= SLOW_FOR)
    }

    /// The task that a read needs which begins now: if it is the first, or if the last task has not run for long.
    fn needed_task(&mut self, now: Instant) -> Option<Task> {
        self.since.get_or_insert(now);
        let task = match self.task_at {
            None => Task::Last,
            Some(at) if now.saturating_duration_since(at) > LONG => Task::AtOnce,
            Some(_) => return None,
        };
        self.task_at = Some(now);
        Some(task)
    }

    fn take(&mut self, now: Instant) -> Waiting {
        if self.since.take().is_some_and(|since| now.saturating_duration_since(since) > LONG) {
            self.slow_at = Some(now);
        }
        self.task_at = None;
        self.rounds += 1;
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

    const MORE: Duration = Duration::from_nanos(1);

    #[test]
    fn reads_that_wait_for_long_are_sent_at_once_and_those_of_the_next_second_alone() {
        let (mut state, begun) = (State::default(), now());
        assert_eq!(state.needed_task(begun), Some(Task::Last));
        assert_eq!(state.needed_task(begun + LONG), None);
        assert_eq!(state.needed_task(begun + LONG + MORE), Some(Task::AtOnce));
        assert_eq!(state.needed_task(begun + 2 * LONG + MORE), None);
        let taken = begun + 2 * LONG + MORE;
        assert!(!state.is_slow(taken));
        state.take(taken);
        assert!(state.is_slow(taken + SLOW_FOR));
        assert!(!state.is_slow(taken + SLOW_FOR + MORE));
        assert_eq!(state.needed_task(taken), Some(Task::Last));
    }

    #[tokio::test]
    async fn reads_are_taken_once_in_their_order() {
        let reads = Reads::default();
        let [first, second] = ["a", "b"].map(|key| reads.begin(|| key.to_owned()).unwrap());
        assert_eq!([first.task, second.task], [Some(Task::Last), None]);
        assert!(reads.is_waiting(first.round) && reads.is_waiting(second.round));
        let taken = reads.take(Task::Last).await;
        assert_eq!(taken.keys, ["a", "b"]);
        assert!(reads.take(Task::AtOnce).await.keys.is_empty());
        let third = reads.begin(|| "c".to_owned()).unwrap();
        assert_eq!(third.task, Some(Task::Last));
        assert!(reads.is_waiting(third.round) && !reads.is_waiting(first.round));
        for (answer, read) in taken.answers.into_iter().zip([first, second]) {
            answer.send(Ok(None)).unwrap();
            assert_eq!(read.answer.await.unwrap().unwrap(), None);
        }
    }
}
