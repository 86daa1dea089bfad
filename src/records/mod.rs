//! The records of visitors in the site's store: what the engine asks of it, with a limit of time and a breaker.
//!
//! 1. A call takes at most the store's timeout. After five failures in a row no call is made for a second, so that a store
//!    that is down costs pages nothing. Reads and writes are counted apart.
//! 2. [`loads`]: requests of one login that come together share one read, and a record is remembered for a short time.
//! 3. [`refresh`] makes the calls of one refresh, [`saves`] those of one response.
//! 4. [`owed`]: the end of a login that the store did not confirm is tried again until it does. Until then this node shows
//!    nothing of that login.

mod loads;
mod owed;
mod refresh;
mod saves;

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use euid_core::clock::{Clock, UnixMillis};
use euid_core::engine::{Loaded, StoreWrite, Unavailable};
use euid_core::store::{Put, StoreKey};
use tokio::runtime::Handle;
use tokio::time::Instant;

use self::loads::LoadTable;
pub(crate) use self::loads::Loading;
use self::owed::Owed;
pub(crate) use self::refresh::RefreshByStore;
pub(crate) use self::saves::Saving;
use crate::deadline::{self, before};
use crate::refresh::{Admission, Breaker, BreakerState, LogLimit, Mutex, lock};
use crate::store::{ErasedStore, StoreError};
use crate::telemetry;

/// The settings of [`Records`].
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) store: Arc<dyn ErasedStore>,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long a call may take.
    pub(crate) timeout: Duration,
    /// How long a record is remembered.
    pub(crate) remember_for: Duration,
}

/// The site's store, as all requests share it.
pub(crate) struct Records {
    settings: Settings,
    reads: Mutex<Breaker>,
    writes: Mutex<Breaker>,
    loads: Mutex<LoadTable>,
    owed: Mutex<Owed>,
    failures: Mutex<Failures>,
    openings: Mutex<LogLimit>,
}

impl Records {
    pub(crate) fn new(settings: Settings) -> Self {
        let [reads, writes] = [(); 2].map(|()| Mutex::new(Breaker::new(COOLDOWN)));
        Self {
            settings,
            reads,
            writes,
            loads: Mutex::default(),
            owed: Mutex::default(),
            failures: Mutex::default(),
            openings: Mutex::default(),
        }
    }

    /// The same store with changed settings. Nothing is remembered yet.
    pub(crate) fn with(&self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings.clone();
        change(&mut settings);
        Self::new(settings)
    }

    fn now(&self) -> UnixMillis {
        self.settings.clock.now()
    }

    /// Reads a record, past what is remembered.
    async fn get(&self, key: &StoreKey) -> Loaded {
        if lock(&self.owed).hides_all(key) {
            return Ok(None);
        }
        let loaded = self.guarded("get", Arc::clone(&self.settings.store).get(key.clone())).await;
        let owed = lock(&self.owed);
        // What has ended is not shown, though the store does not know it yet.
        loaded.map(|stored| stored.filter(|stored| !owed.hides(key, stored)))
    }

    /// Writes a record. The end of a login that is not confirmed is owed from then on.
    async fn put(self: &Arc<Self>, write: StoreWrite) -> Result<Put, Unavailable> {
        lock(&self.loads).forget(&write.key);
        let what = if write.ends_login { "end" } else { "put" };
        let StoreWrite { key, when, stored, keep, .. } = write.clone();
        let outcome = self.guarded(what, Arc::clone(&self.settings.store).put(key, when, stored, keep)).await;
        let key = write.key.clone();
        if write.ends_login && outcome.is_err() {
            owed::owe(self, write);
        }
        // Once more: a read may have begun before the write.
        lock(&self.loads).forget(&key);
        outcome
    }

    /// Makes a call, if the breaker lets it pass.
    async fn guarded<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Unavailable> {
        let now = self.now();
        let admission = lock(self.breaker(what).1).admit(now);
        if admission == Admission::Refused {
            telemetry::store::refused(what);
            return Err(Unavailable);
        }
        let begun = deadline::steady_now();
        let mut underway = Underway { records: self, what, begun, is_over: false };
        let outcome = self.timed(what, begun, call).await;
        underway.is_over = true;
        let failed_at = outcome.is_err().then(|| self.now());
        self.note(what, outcome.as_ref().err(), |breaker| match failed_at {
            None => breaker.success(),
            Some(now) => breaker.failure(now, None),
        });
        outcome.map_err(|_| Unavailable)
    }

    /// Makes a call, which begins now, within the limit of time.
    async fn timed<T>(
        &self,
        what: &'static str,
        begun: Instant,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let call = without_panic(call);
        let Settings { store, timeout, .. } = &self.settings;
        let outcome = if store.returns_within().is_some_and(|time| time <= *timeout) {
            call.await
        } else {
            let end = deadline::moment_after(*timeout);
            let outcome = before(end, pin!(call)).await;
            outcome.unwrap_or_else(|| Err(StoreError::new("no answer within the timeout of the layer")))
        };
        let took = deadline::steady_now().duration_since(begun);
        match &outcome {
            Ok(_) => telemetry::store::called(what, took),
            Err(error) => {
                // Before the lock, as the clock is the application's code.
                let now = self.now();
                let left_out = lock(&self.failures).admit(error, now);
                telemetry::store::failed(what, error, left_out, took);
            }
        }
        outcome
    }

    /// The breaker of these calls, and what they are called. A store that refuses to write, as one without memory does, is
    /// still read.
    fn breaker(&self, what: &'static str) -> (&'static str, &Mutex<Breaker>) {
        if what == "get" { ("reads", &self.reads) } else { ("writes", &self.writes) }
    }

    /// Changes the breaker, and tells of it.
    fn note(&self, what: &'static str, error: Option<&StoreError>, change: impl FnOnce(&mut Breaker)) {
        let (calls, breaker) = self.breaker(what);
        let (from, to) = {
            let mut breaker = lock(breaker);
            let from = breaker.state();
            change(&mut breaker);
            (from, breaker.state())
        };
        // Last, as it runs the application's code.
        if from != to {
            let now = self.now();
            let left_out = if from == BreakerState::Closed { lock(&self.openings).admit(now) } else { None };
            telemetry::store::breaker_moved(calls, from.word(), to.word(), error, left_out);
        }
        telemetry::store::breaker_is(calls, to.number());
    }
}

/// Limits the log of failed calls to one line a minute for each cause, so that one cause does not hide another.
#[derive(Default)]
struct Failures(HashMap<String, LogLimit>);

impl Failures {
    /// As [`LogLimit::admit`]. A cause is the text of an error. A store may have a new text for each call, so all causes
    /// after the first [`MOST_CAUSES`] share a limit.
    fn admit(&mut self, error: &StoreError, now: UnixMillis) -> Option<u64> {
        let cause = error.to_string();
        let is_known = self.0.len() < MOST_CAUSES || self.0.contains_key(&cause);
        self.0.entry(if is_known { cause } else { String::new() }).or_default().admit(now)
    }
}

/// A call that may be dropped, because its client is gone. That says nothing of the store, unless the call has taken long.
struct Underway<'a> {
    records: &'a Records,
    what: &'static str,
    begun: Instant,
    is_over: bool,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let now = self.records.now();
        let is_slow = deadline::steady_now().duration_since(self.begun) >= self.records.settings.timeout / 2;
        self.records.note(
            self.what,
            None,
            |breaker| {
                if is_slow { breaker.failure(now, None) } else { breaker.dropped(now) }
            },
        );
    }
}

/// Turns a panic of the store into an error: no page fails because of it.
async fn without_panic<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let mut call = pin!(call);
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(StoreError::new("the store panicked"))))
    })
    .await
}

/// Whether calls can be made here: on a tokio runtime with its timer, which tokio reports only by a panic.
fn has_runtime() -> bool {
    Handle::try_current().is_ok() && catch_unwind(|| deadline::moment_after(Duration::ZERO)).is_ok()
}

/// How long no call is made once the store is down.
const COOLDOWN: Duration = Duration::from_secs(1);
/// How many causes of failed calls have a limit of their own in the log.
const MOST_CAUSES: usize = 16;

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("timeout", &self.settings.timeout)
            .field("remember_for", &self.settings.remember_for)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_logged_once_a_minute_for_each_cause_and_the_causes_are_bounded() {
        let mut failures = Failures::default();
        let mut admit = |cause: &str, seconds: i64| {
            failures.admit(&StoreError::new(cause.to_owned()), UnixMillis::from_millis(seconds * 1000))
        };
        assert_eq!([admit("slow", 0), admit("slow", 1), admit("full", 2)], [Some(0), None, Some(0)]);
        assert_eq!([admit("full", 60), admit("slow", 60), admit("full", 62)], [None, Some(1), Some(1)]);
        let logged = (0..1000).filter(|number| admit(&number.to_string(), 63).is_some()).count();
        assert_eq!(logged, MOST_CAUSES - 2 + 1);
        assert_eq!(failures.0.len(), MOST_CAUSES + 1);
    }
}
