//! Ends of logins that the store did not confirm. They are tried again every second, past the breaker, until it does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use euid_core::engine::{StoreWrite, Unavailable};
use euid_core::store::{Put, StoreKey, Stored};
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::Records;
use crate::refresh::lock;
use crate::telemetry;

/// The ends that this node owes.
#[derive(Default)]
pub(super) struct Owed {
    ends: HashMap<StoreKey, StoreWrite>,
    /// A task tries them.
    is_tried: bool,
}

impl Owed {
    /// Adds an end. An opt-out stays: a later end of the user's login must not replace it.
    fn insert(&mut self, end: StoreWrite) {
        let outlives = |present: &StoreWrite| present.keep > end.keep;
        if !self.ends.get(&end.key).is_some_and(outlives) {
            self.ends.insert(end.key.clone(), end);
        }
    }

    /// Removes an end, unless another one has taken its place meanwhile.
    fn settle(&mut self, end: &StoreWrite) {
        if self.ends.get(&end.key).is_some_and(|present| present.stored.version == end.stored.version) {
            self.ends.remove(&end.key);
        }
    }

    /// Whether an end of this hides whatever the store has.
    pub(super) fn hides_all(&self, key: &StoreKey) -> bool {
        self.ends.get(key).is_some_and(|end| !end.must_read())
    }

    /// Whether an end of this says that what the store has must not be shown.
    pub(super) fn hides(&self, key: &StoreKey, stored: &Stored) -> bool {
        self.ends.get(key).is_some_and(|end| end.hides(stored))
    }
}

/// Notes an end, and begins to try it again.
pub(super) fn owe(records: &Arc<Records>, end: StoreWrite) {
    let (number, begins) = {
        let mut owed = lock(&records.owed);
        if owed.ends.len() >= MOST_OWED && !owed.ends.contains_key(&end.key) {
            drop(owed);
            telemetry::store_end_lost();
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
    telemetry::store_owes(number);
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
        let ends: Vec<StoreWrite> = lock(&records.owed).ends.values().cloned().collect();
        let mut failures = 0;
        for end in ends {
            match records.end_again(end.clone()).await {
                // Something else was written in between: the next attempt reads that.
                Ok(Put::Refused) if end.must_read() => {}
                // What it was to end is there no more.
                Ok(Put::Done | Put::Refused) => {
                    lock(&records.loads).forget(&end.key);
                    lock(&records.owed).settle(&end);
                }
                // One of them may fail always. If several do, the others would wait for their timeouts, too.
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
        telemetry::store_owes(number);
        if number == 0 {
            return;
        }
    }
}

impl Records {
    /// Ends a login on behalf of no request. If the store does not confirm it, it is owed.
    pub(crate) async fn end(self: &Arc<Self>, end: StoreWrite) -> Result<Put, Unavailable> {
        let mut outcome = Err(Unavailable);
        for _ in 0..TRIES {
            outcome = self.end_again(end.clone()).await;
            if outcome != Ok(Put::Refused) {
                break;
            }
        }
        if outcome != Ok(Put::Done) {
            owe(self, end);
        }
        outcome
    }

    /// Tries an end, past the breaker. Done, if there is nothing to end any more.
    async fn end_again(&self, end: StoreWrite) -> Result<Put, Unavailable> {
        let store = || Arc::clone(&self.settings.store);
        let there = if end.must_read() { self.timed("get", store().get(end.key.clone())).await? } else { None };
        let Some(StoreWrite { key, when, stored, keep, .. }) = end.again(there.as_ref()) else { return Ok(Put::Done) };
        self.timed("end", store().put(key, when, stored, keep)).await
    }
}

/// After so many failures the store counts as down, for this attempt.
const MOST_FAILURES: u32 = 3;
/// How often an end is tried that other writes come before.
const TRIES: usize = 3;
const EVERY: Duration = Duration::from_secs(1);
/// More are not kept, so that a store that is down for long does not take all memory: some 2 MiB.
const MOST_OWED: usize = 10_000;
