//! Ends of logins that the store did not confirm. They are tried again every second until it does.
//!
//! 1. The breaker stops none of these attempts, and counts their successes only. One part of a store may be down for long,
//!    and pages that use the other parts must not notice.
//! 2. A round of attempts begins after the end that was tried last, so ends that always fail hide no others.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use euid_core::engine::{StoreWrite, Unavailable};
use euid_core::store::{Put, StoreKey, Stored};
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::Records;
use crate::deadline;
use crate::refresh::{Breaker, LogLimit, lock};
use crate::store::StoreError;
use crate::telemetry;

/// The ends that this node owes.
#[derive(Default)]
pub(super) struct Owed {
    ends: BTreeMap<[u8; 32], StoreWrite>,
    /// The key that was tried last.
    last_tried: Option<[u8; 32]>,
    /// A task tries them.
    is_tried: bool,
    /// Limits the log of those that cannot be kept.
    lost: LogLimit,
}

impl Owed {
    /// Adds an end. An opt-out stays: a later end of the user's login must not replace it.
    fn insert(&mut self, end: StoreWrite) {
        let key = *end.key.as_bytes();
        let outlives = |present: &StoreWrite| present.keep > end.keep;
        if !self.ends.get(&key).is_some_and(outlives) {
            self.ends.insert(key, end);
        }
    }

    /// Removes an end, unless another one has taken its place meanwhile.
    fn settle(&mut self, end: &StoreWrite) {
        let key = end.key.as_bytes();
        if self.ends.get(key).is_some_and(|present| present.stored.version == end.stored.version) {
            self.ends.remove(key);
        }
    }

    /// Returns the end after the one that was tried last, and the first one after the last.
    fn next(&mut self) -> Option<StoreWrite> {
        let after = self.last_tried.map_or(Bound::Unbounded, Bound::Excluded);
        let (key, end) = self.ends.range((after, Bound::Unbounded)).next().or_else(|| self.ends.first_key_value())?;
        self.last_tried = Some(*key);
        Some(end.clone())
    }

    /// Whether an end of this hides whatever the store has.
    pub(super) fn hides_all(&self, key: &StoreKey) -> bool {
        self.ends.get(key.as_bytes()).is_some_and(|end| !end.must_read())
    }

    /// Whether an end of this says that what the store has must not be shown.
    pub(super) fn hides(&self, key: &StoreKey, stored: &Stored) -> bool {
        self.ends.get(key.as_bytes()).is_some_and(|end| end.hides(stored))
    }
}

/// An end that the store may not have yet. If it is still there when this is dropped, it is owed: the future that makes its
/// calls may be dropped at any of them.
pub(super) struct OpenEnd {
    records: Arc<Records>,
    pub(super) end: Option<StoreWrite>,
}

impl OpenEnd {
    pub(super) fn new(records: &Arc<Records>, end: Option<StoreWrite>) -> Self {
        Self { records: Arc::clone(records), end }
    }
}

impl Drop for OpenEnd {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            owe(&self.records, end);
        }
    }
}

/// Notes an end, and begins to try it again.
pub(super) fn owe(records: &Arc<Records>, end: StoreWrite) {
    let now = records.now();
    let (number, begins) = {
        let mut owed = lock(&records.owed);
        if owed.ends.len() >= MOST_OWED && !owed.ends.contains_key(end.key.as_bytes()) {
            let left_out = owed.lost.admit(now);
            drop(owed);
            telemetry::store::end_lost(left_out);
            return;
        }
        owed.insert(end);
        let runtime = if owed.is_tried { None } else { Handle::try_current().ok() };
        owed.is_tried |= runtime.is_some();
        (owed.ends.len(), runtime)
    };
    if let Some(runtime) = begins {
        runtime.spawn(try_again(Trying(Arc::clone(records))));
    }
    telemetry::store::owes(number);
}

/// The task that tries. If its runtime shuts down, the next end begins another.
struct Trying(Arc<Records>);

impl Drop for Trying {
    fn drop(&mut self) {
        lock(&self.0.owed).is_tried = false;
    }
}

async fn try_again(trying: Trying) {
    let records = &trying.0;
    loop {
        sleep(EVERY).await;
        let round = lock(&records.owed).ends.len();
        let mut failures = 0;
        for _ in 0..round {
            let Some(end) = lock(&records.owed).next() else { break };
            match records.end_again(&end).await {
                // Something else was written in between: the next attempt reads that.
                Ok(Put::Refused) if end.must_read() => {}
                // What it was to end is there no more.
                Ok(Put::Done | Put::Refused) => {
                    lock(&records.loads).forget(&end.key);
                    lock(&records.owed).settle(&end);
                }
                // The store may be down: all others would wait for their timeouts, too.
                Err(Unavailable) => {
                    failures += 1;
                    if failures >= MOST_FAILURES {
                        break;
                    }
                }
            }
        }
        let number = {
            let mut owed = lock(&records.owed);
            // In the same lock as the last look: an end that comes now begins another task.
            owed.is_tried = !owed.ends.is_empty();
            owed.ends.len()
        };
        telemetry::store::owes(number);
        if number == 0 {
            return;
        }
    }
}

impl Records {
    /// Ends logins on behalf of no request. Those that the store does not confirm are owed, also if this future is
    /// dropped.
    pub(crate) async fn end(self: &Arc<Self>, ends: impl IntoIterator<Item = StoreWrite>) -> Result<(), Unavailable> {
        // All of them first: the store may not answer to the first one.
        let open: Vec<OpenEnd> = ends.into_iter().map(|end| OpenEnd::new(self, Some(end))).collect();
        let mut outcome = Ok(());
        for mut open in open {
            let Some(end) = &open.end else { continue };
            match self.end_now(end).await {
                Ok(Put::Done) => open.end = None,
                _ => outcome = Err(Unavailable),
            }
        }
        outcome
    }

    /// Tries an end, again if other writes come before it.
    async fn end_now(&self, end: &StoreWrite) -> Result<Put, Unavailable> {
        let mut outcome = Err(Unavailable);
        for _ in 0..TRIES {
            outcome = self.end_again(end).await;
            if outcome != Ok(Put::Refused) {
                break;
            }
        }
        outcome
    }

    /// Tries an end once. Done, if there is nothing to end any more.
    async fn end_again(&self, end: &StoreWrite) -> Result<Put, Unavailable> {
        let store = || Arc::clone(&self.settings.store);
        let there = if end.must_read() { self.unguarded("get", store().get(end.key.clone())).await? } else { None };
        let Some(StoreWrite { key, when, stored, keep, .. }) = end.again(there.as_ref()) else { return Ok(Put::Done) };
        self.unguarded("end", store().put(key, when, stored, keep)).await
    }

    /// Makes a call past the breaker. A failure does not count.
    async fn unguarded<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Unavailable> {
        let outcome = self.timed(what, deadline::steady_now(), call).await;
        if outcome.is_ok() {
            self.note(what, None, Breaker::success);
        }
        outcome.map_err(|_| Unavailable)
    }
}

/// After so many failures the store counts as down, for this attempt.
const MOST_FAILURES: u32 = 3;
/// How often an end is tried that other writes come before.
const TRIES: usize = 3;
const EVERY: Duration = Duration::from_secs(1);
/// More are not kept, so that a store that is down for long does not take all memory: some 2 MiB.
const MOST_OWED: usize = 10_000;
