//! Where pages ask for a refresh: one call per token however many ask, made in a task of its own.
//!
//! The task has its own deadline, so a visitor who hangs up neither stops the call nor loses its
//! outcome for others; a call that panics or is cancelled lands as a failure. [`book`](super::book)
//! says what is to be done, [`flight`](super::flight) tells those who wait.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use reliakit_circuit::State;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep, timeout_at};

use super::book::{Book, Key, Made, MemoLimit, Next};
use super::flight::{Flight, Outcome, Waiter};
use super::sync::{Mutex, lock};
use super::{ErasedRefresh, Refreshed, failed};
use crate::clock::{Clock, UnixMillis};
use crate::error::EuidError;
use crate::identity::Identity;
use crate::observe::{self, Ending};
use crate::random;

/// How refreshes are made.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) refresh: Arc<dyn ErasedRefresh>,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long a page waits.
    pub(crate) max_wait: Duration,
    /// How long a call may take.
    pub(crate) deadline: Duration,
    /// How many calls may be under way at once; others queue.
    pub(crate) max_concurrent: usize,
    pub(crate) memo_limit: MemoLimit,
}

pub(crate) struct Desk {
    settings: Settings,
    book: Mutex<Book>,
    permits: Semaphore,
}

/// What a page is told that asks for a refresh.
#[derive(Debug)]
pub(crate) enum Asked {
    /// It is known already.
    Known(Outcome),
    /// The operator is being asked; the sleep ends the page's patience.
    Waiting(Waiter, Sleep),
    /// Nobody is asked now.
    Refused(&'static str),
}

impl Desk {
    pub(crate) fn new(settings: Settings) -> Self {
        let book = Mutex::new(Book::new(settings.memo_limit));
        let permits = Semaphore::new(settings.max_concurrent.clamp(1, Semaphore::MAX_PERMITS));
        Self { settings, book, permits }
    }

    /// A desk with other settings that remembers nothing yet.
    pub(crate) fn with(&self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings.clone();
        change(&mut settings);
        Self::new(settings)
    }

    /// What is known already of the successor of `identity`; nobody is asked.
    pub(crate) fn recall(&self, identity: &Identity, now: UnixMillis) -> Asked {
        match lock(&self.book).known(&key_of(identity), now) {
            Some(outcome) => Asked::Known(outcome),
            None => Asked::Refused("this request may not refresh"),
        }
    }

    /// Asks for the successor of `identity`, which then is the one that all hold who wait for it. Never
    /// waits.
    pub(crate) fn ask(self: &Arc<Self>, identity: &mut Arc<Identity>, now: UnixMillis) -> Asked {
        let key = key_of(identity);
        if let Some(outcome) = lock(&self.book).known(&key, now) {
            return Asked::Known(outcome);
        }
        let Ok(runtime) = Handle::try_current() else {
            return Asked::Refused("there is no tokio runtime to refresh on");
        };
        // That a runtime was built without its timer, tokio tells by a panic only.
        let max_wait = self.settings.max_wait;
        let Ok(patience) = catch_unwind(|| sleep(max_wait)) else {
            return Asked::Refused("the tokio runtime has no timer");
        };
        let (next, moved) = self.with_book(|book| book.next(&key, now));
        moved.report();
        match next {
            Next::Known(outcome) => Asked::Known(outcome),
            Next::Join(flight) => {
                observe::refresh_joined();
                *identity = flight.share(identity);
                Asked::Waiting(flight.wait(), patience)
            }
            Next::BreakerOpen => {
                observe::breaker_refused();
                Asked::Refused("the operator is down")
            }
            Next::Full => Asked::Refused("too many refreshes are under way"),
            Next::Overdue => Asked::Refused("the refresh that is under way takes long"),
            Next::Lead { flight, probe } => {
                let leader = Leader {
                    desk: Arc::clone(self),
                    key,
                    flight: Arc::clone(&flight),
                    begun: now,
                    // A probe does not queue, and whatever becomes of it is its outcome.
                    made: if probe { Made::InTime } else { Made::NotAtAll },
                    probe,
                    landed: false,
                };
                *identity = flight.share(identity);
                runtime.spawn(leader.lead(Arc::clone(identity)));
                Asked::Waiting(flight.wait(), patience)
            }
        }
    }

    /// Changes the book. What the breaker made of it is to be reported by whoever asks, not under the
    /// lock: that runs code of the application's.
    fn with_book<T>(&self, change: impl FnOnce(&mut Book) -> T) -> (T, BreakerMoved) {
        let mut book = lock(&self.book);
        let from = book.breaker();
        let result = change(&mut book);
        (result, BreakerMoved { from, to: book.breaker() })
    }
}

/// The breaker's state before and after a change.
#[must_use = "a move of the breaker is to be reported"]
struct BreakerMoved {
    from: State,
    to: State,
}

impl BreakerMoved {
    fn report(&self) {
        if self.from != self.to {
            observe::breaker_moved(self.from, self.to);
        }
        observe::breaker_is(self.to);
    }
}

/// A moment of tokio's time, in which all waiting is, 30 years ahead at the most.
fn after(duration: Duration) -> Instant {
    sleep(duration).deadline()
}

fn key_of(identity: &Identity) -> Key {
    Sha256::digest(identity.refresh_token().expose_secret()).into()
}

/// The task that makes the call; whatever becomes of it, the flight lands.
struct Leader {
    desk: Arc<Desk>,
    key: Key,
    flight: Arc<Flight>,
    begun: UnixMillis,
    made: Made,
    probe: bool,
    landed: bool,
}

/// What is still to be noted of a refresh under way, and when.
struct Marks {
    /// It takes longer than a page waits. From then on no other page waits for it: one visitor's pages
    /// would each wait for the same silence.
    overdue: Option<Instant>,
    /// The call itself takes so long that it is held against the operator.
    slow: Option<Instant>,
    /// It ends here.
    deadline: Instant,
}

#[derive(Clone, Copy)]
enum Mark {
    Overdue,
    Slow,
    Deadline,
}

impl Leader {
    #[expect(clippy::manual_async_fn, reason = "an `async fn` would hold its arguments twice")]
    fn lead(mut self, identity: Arc<Identity>) -> impl Future<Output = ()> {
        async move {
            match self.queue_and_call(identity).await {
                Some(outcome) => self.land(Ending::Answered, outcome),
                None => self.land(Ending::Deadline, failed("no answer within the deadline")),
            }
        }
    }

    /// `None` at the deadline.
    async fn queue_and_call(&mut self, identity: Arc<Identity>) -> Option<Result<Refreshed, EuidError>> {
        let desk = Arc::clone(&self.desk);
        let Settings { refresh, max_wait, deadline, .. } = &desk.settings;
        let mut marks = Marks { overdue: Some(after(*max_wait)), slow: None, deadline: after(*deadline) };
        // A probe finds out whether the calls that hold the permits hang for nothing.
        let _permit = if self.probe { None } else { self.watch(&mut marks, pin!(desk.permits.acquire())).await?.ok() };
        if !self.probe && lock(&desk.book).breaker() != State::Closed {
            // It went down while this one queued.
            return Some(failed("the operator is down"));
        }
        self.made = Made::InTime;
        marks.slow = Some(after((*max_wait).max(SLOW_AT_LEAST)));
        self.watch(&mut marks, Arc::clone(refresh).call(identity).as_mut()).await
    }

    /// What `step` comes to, `None` at the deadline; what takes long is noted on the way. One timer at a
    /// time, as they are the largest part of the task.
    async fn watch<T>(
        &mut self,
        marks: &mut Marks,
        mut step: Pin<&mut (impl Future<Output = T> + ?Sized)>,
    ) -> Option<T> {
        loop {
            let (at, mark) = marks.next();
            if let Ok(done) = timeout_at(at, step.as_mut()).await {
                return Some(done);
            }
            match mark {
                Mark::Overdue => {
                    marks.overdue = None;
                    lock(&self.desk.book).overdue(&self.key);
                }
                Mark::Slow => {
                    marks.slow = None;
                    self.made = Made::Slowly;
                    let now = self.desk.settings.clock.now();
                    self.desk.with_book(|book| book.slow(now)).1.report();
                }
                Mark::Deadline => return None,
            }
        }
    }

    fn land(&mut self, ending: Ending, outcome: Result<Refreshed, EuidError>) {
        let outcome = Arc::new(outcome);
        let chance = random::bytes().map_or(0, u32::from_ne_bytes);
        let now = self.desk.settings.clock.now();
        let land = |book: &mut Book| book.land(&self.key, &outcome, self.made, now, chance);
        let ((), moved) = self.desk.with_book(land);
        self.flight.land(Arc::clone(&outcome));
        self.landed = true;
        // Last, as it runs code of the application's: should that panic, the flight has landed.
        moved.report();
        observe::refresh_ended(ending, &outcome, now.saturating_since(self.begun));
    }
}

impl Marks {
    /// The next one; of several at one moment, the end last.
    fn next(&self) -> (Instant, Mark) {
        let end = (self.deadline, Mark::Deadline);
        let notes = [(self.overdue, Mark::Overdue), (self.slow, Mark::Slow)];
        let ahead = notes.into_iter().filter_map(|(at, mark)| Some((at?, mark))).chain([end]);
        ahead.min_by_key(|(at, _)| *at).unwrap_or(end)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        let ending = if thread::panicking() { Ending::Panicked } else { Ending::Dropped };
        if ending == Ending::Dropped && !self.probe {
            // The runtime is shutting down, which says nothing of the operator.
            self.made = Made::NotAtAll;
        }
        // Of the application's code that this runs, some may be what has panicked.
        let _ = catch_unwind(AssertUnwindSafe(|| self.land(ending, failed("the refresh broke down"))));
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("max_wait", &self.settings.max_wait)
            .field("deadline", &self.settings.deadline)
            .field("max_concurrent", &self.settings.max_concurrent)
            .field("memo_limit", &self.settings.memo_limit)
            .finish_non_exhaustive()
    }
}

/// However short pages wait, a call is not held against the operator before it takes this long.
const SLOW_AT_LEAST: Duration = Duration::from_millis(250);
