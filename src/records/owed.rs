//! Ends of logins that the store did not confirm. They are tried again every second, past the breaker, until it does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use euid_core::engine::StoreWrite;
use euid_core::store::StoreKey;
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
    pub(super) fn contains(&self, key: &StoreKey) -> bool {
        self.ends.contains_key(key)
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
        owed.ends.insert(end.key.clone(), end);
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
        for end in ends {
            let StoreWrite { key, when, stored, keep, .. } = end;
            let store = Arc::clone(&records.settings.store);
            // Refused or done: the store has answered, and the login it was for has ended.
            if records.timed("end", store.put(key.clone(), when, stored, keep)).await.is_err() {
                // The others would wait for their timeouts, too.
                break;
            }
            lock(&records.loads).forget(&key);
            lock(&records.owed).ends.remove(&key);
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

const EVERY: Duration = Duration::from_secs(1);
/// More are not kept, so that a store that is down for long does not take all memory: some 2 MiB.
const MOST_OWED: usize = 10_000;
