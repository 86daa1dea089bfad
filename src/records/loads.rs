//! Reads of records: requests of one login that come together share one read, and what it found is remembered for a short
//! time.
//!
//! 1. Absence is never remembered: a login that follows must be seen at once.
//! 2. A write of this node forgets the record, and what a read that has begun before finds is not remembered.
//! 3. The first request makes the read. If that is dropped, or not driven in time, each of the others reads for itself.
//! 4. The table is bounded. What does not fit is read each time.
//! 5. Where nothing is remembered, nothing is shared: each request reads for itself.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use euid_core::clock::UnixMillis;
use euid_core::engine::{Loaded, Unavailable};
use euid_core::store::{StoreKey, Stored};
use tokio::sync::watch;

use super::{Records, has_runtime};
use crate::deadline;
use crate::refresh::lock;

/// The reads under way, and what was found lately.
#[derive(Default)]
pub(super) struct LoadTable {
    entries: HashMap<StoreKey, Entry>,
    /// The number of the last read.
    reads: u64,
    /// When entries past their time were last removed.
    swept_at: Option<UnixMillis>,
}

enum Entry {
    UnderWay { read: u64, outcome: watch::Receiver<Option<Loaded>> },
    Found { stored: Stored, from: UnixMillis },
}

impl LoadTable {
    pub(super) fn forget(&mut self, key: &StoreKey) {
        self.entries.remove(key);
    }

    /// Notes what a read has found, if nothing has happened to the record meanwhile.
    fn complete(&mut self, key: &StoreKey, number: u64, loaded: &Loaded, now: UnixMillis) {
        let is_own = |entry: &Entry| matches!(entry, Entry::UnderWay { read, .. } if *read == number);
        if !self.entries.get(key).is_some_and(is_own) {
            return;
        }
        match loaded {
            Ok(Some(stored)) => {
                self.entries.insert(key.clone(), Entry::Found { stored: stored.clone(), from: now });
            }
            _ => self.forget(key),
        }
    }
}

impl Records {
    /// Whether requests share what is read.
    pub(crate) fn shares_reads(&self) -> bool {
        !self.settings.remember_for.is_zero()
    }

    /// The record, if it is known without a call.
    pub(crate) fn remembered(&self, key: &StoreKey) -> Option<Loaded> {
        let (now, remember_for) = (self.now(), self.settings.remember_for);
        match lock(&self.loads).entries.get(key) {
            // If the clock is set back, the record is read again.
            Some(Entry::Found { stored, from }) if *from <= now && now.saturating_since(*from) < remember_for => {
                Some(Ok(Some(stored.clone())))
            }
            _ => None,
        }
    }

    /// Reads a record for one request alone.
    pub(crate) fn load_alone(self: &Arc<Self>, key: &StoreKey) -> Loading {
        let (records, key) = (Arc::clone(self), key.clone());
        let can_call = has_runtime();
        Loading(Box::pin(async move { if can_call { records.get(&key).await } else { Err(Unavailable) } }))
    }

    /// Begins to read a record, or joins a read of it.
    pub(crate) fn load(self: &Arc<Self>, key: &StoreKey) -> Loading {
        if !has_runtime() {
            return Loading(Box::pin(async { Err(Unavailable) }));
        }
        let (records, key, now) = (Arc::clone(self), key.clone(), self.now());
        let mut loads = lock(&self.loads);
        if let Some(Entry::UnderWay { outcome, .. }) = loads.entries.get(&key)
            // The request that makes it may have been dropped.
            && outcome.has_changed().is_ok()
        {
            let mut outcome = outcome.clone();
            return Loading(Box::pin(async move {
                let end = deadline::moment_after(records.settings.timeout);
                let found = pin!(outcome.wait_for(Option::is_some));
                let loaded = deadline::before(end, found).await.and_then(|found| found.ok()?.clone());
                match loaded {
                    Some(loaded) => loaded,
                    None => records.get(&key).await,
                }
            }));
        }
        let remember_for = self.settings.remember_for;
        let is_due = loads.swept_at.is_none_or(|at| at > now || now.saturating_since(at) > remember_for);
        if loads.entries.len() >= MOST_ENTRIES && is_due {
            loads.swept_at = Some(now);
            loads.entries.retain(|_, entry| match entry {
                Entry::UnderWay { outcome, .. } => outcome.has_changed().is_ok(),
                Entry::Found { from, .. } => *from <= now && now.saturating_since(*from) < remember_for,
            });
        }
        let (sender, outcome) = watch::channel(None);
        loads.reads += 1;
        let read = loads.reads;
        if loads.entries.len() < MOST_ENTRIES {
            loads.entries.insert(key.clone(), Entry::UnderWay { read, outcome });
        }
        drop(loads);
        Loading(Box::pin(async move {
            let loaded = records.get(&key).await;
            let now = records.now();
            lock(&records.loads).complete(&key, read, &loaded, now);
            let _ = sender.send(Some(loaded.clone()));
            loaded
        }))
    }
}

/// A future of a record.
pub(crate) struct Loading(Pin<Box<dyn Future<Output = Loaded> + Send>>);

impl Future for Loading {
    type Output = Loaded;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Loaded> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Loading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loading(..)")
    }
}

/// More records are never remembered at once: some 8 MiB.
const MOST_ENTRIES: usize = 10_000;
