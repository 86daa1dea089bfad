//! Deadlines that count only time in which this process ran.
//!
//! A process can be frozen: a function between two invocations, a virtual machine that is moved, a stopped debugger.
//! When it runs again, an answer may have arrived meanwhile and the deadline has passed. The answer must win, but it
//! needs a few steps of other tasks (socket, TLS, HTTP) before it is visible. So a deadline that fires late, because
//! nothing ran, is moved to [`GRACE`] from now. It is moved at most once: otherwise the wait would never end on a
//! runtime that is always late.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::pin_project;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// A future that completes at a moment of the runtime's clock.
#[pin_project(project = DeadlineProj)]
#[derive(Debug)]
pub(crate) struct Deadline {
    #[pin]
    sleep: Sleep,
    /// Whether the deadline has fired late and been moved.
    moved: bool,
}

impl Deadline {
    /// # Panics
    ///
    /// Outside a tokio runtime with its timer.
    pub(crate) fn after(duration: Duration) -> Self {
        Self::of(sleep(duration))
    }

    fn of(sleep: Sleep) -> Self {
        Self { sleep, moved: false }
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let DeadlineProj { mut sleep, moved } = self.project();
        loop {
            ready!(sleep.as_mut().poll(cx));
            let now = steady_now();
            if *moved || now.saturating_duration_since(sleep.deadline()) < LATE {
                return Poll::Ready(());
            }
            *moved = true;
            sleep.as_mut().reset(now + GRACE);
        }
    }
}

/// Returns the moment after `duration`, at most 30 years ahead.
///
/// # Panics
///
/// Outside a tokio runtime with its timer.
pub(crate) fn moment_after(duration: Duration) -> Instant {
    sleep(duration).deadline()
}

/// Returns the output of `step`, or `None` if it is not ready before `moment`. Polls the step first.
pub(crate) async fn before<T>(moment: Instant, mut step: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Option<T> {
    let mut deadline = pin!(Deadline::of(sleep_until(moment)));
    poll_fn(|cx| match step.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => deadline.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Returns the time of the runtime's clock, which is never set back. It measures the waits of requests, never the times
/// of an identity.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the runtime's clock")]
pub(crate) fn steady_now() -> Instant {
    Instant::now()
}

/// A timer that fires this late shows that nothing ran meanwhile.
const LATE: Duration = Duration::from_millis(100);
/// The extra time for an answer that arrived while nothing ran.
const GRACE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn deadline_fires_in_time_while_the_process_runs() {
        let start = steady_now();
        let never = pin!(std::future::pending::<()>());
        assert!(before(moment_after(SECOND), never).await.is_none());
        assert!(start.elapsed() < SECOND + Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn late_deadline_gives_an_answer_the_grace_to_arrive_and_then_ends_the_wait() {
        for answers in [true, false] {
            let (answer, answered) = oneshot::channel();
            let waiting = tokio::spawn(async move { before(moment_after(SECOND), pin!(answered)).await });
            yield_now().await;
            // The process is frozen: its clock continues and no task runs. Afterwards the timer wakes first.
            tokio::time::advance(7 * SECOND).await;
            let resumed = steady_now();
            let kept = if answers {
                // Other tasks run a few steps first.
                for _ in 0..10 {
                    yield_now().await;
                }
                answer.send("answer").unwrap();
                None
            } else {
                Some(answer)
            };
            assert_eq!(waiting.await.unwrap(), answers.then_some(Ok("answer")));
            assert!(resumed.elapsed() < if answers { GRACE } else { GRACE + Duration::from_millis(2) });
            drop(kept);
        }
    }

    /// A runtime that is busy for longer than [`LATE`] at every turn looks like a process that is frozen again and
    /// again.
    #[tokio::test(start_paused = true)]
    async fn deadline_that_fires_late_is_moved_only_once() {
        let waiting = tokio::spawn(async { before(moment_after(SECOND), pin!(std::future::pending::<()>())).await });
        yield_now().await;
        // The first delay is the smallest that counts as late.
        for late in [LATE, 7 * SECOND] {
            assert!(!waiting.is_finished());
            tokio::time::advance(SECOND + late).await;
            yield_now().await;
        }
        assert!(waiting.is_finished());
    }
}
