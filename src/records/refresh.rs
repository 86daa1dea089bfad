//! The calls of one refresh: those to the store around that to the operator.

use std::sync::Arc;
use std::time::Duration;

use euid_core::engine::{Engine, StoreAnswer, StoreCall, StoredRefresh};
use euid_core::identity::Identity;
use euid_core::store::Put;
use tokio::time::sleep;

use super::Records;
use super::owed::OpenEnd;
use crate::refresh::{BoxedCall, Called, ErasedRefresh};

/// Refreshes an identity by way of the store.
pub(crate) struct RefreshByStore {
    pub(crate) records: Arc<Records>,
    pub(crate) engine: Engine,
    pub(crate) stored: StoredRefresh,
    /// Asks the operator.
    pub(crate) refresh: Arc<dyn ErasedRefresh>,
    /// How long the operator's answer is awaited.
    pub(crate) call_deadline: Duration,
}

impl ErasedRefresh for RefreshByStore {
    /// The engine names the identity to refresh: what is in the store by then may be newer than the page's own.
    fn call(self: Arc<Self>, _: Arc<Identity>) -> BoxedCall {
        Box::pin(async move { self.run().await })
    }
}

impl RefreshByStore {
    async fn run(&self) -> Called {
        let Self { records, engine, stored, refresh, call_deadline } = self;
        let mut stored = stored.clone();
        let asked_until = records.now().saturating_add(call_deadline.saturating_add(AFTER_DEADLINE));
        let mut next = stored.start(engine, asked_until, records.now());
        // The end that the refresh has found, until the store has it. The deadline may drop this future at any call.
        let mut open = OpenEnd::new(records, None);
        let mut is_asked = false;
        loop {
            let answer = match next {
                Ok(StoreCall::Get(key)) => {
                    let loaded = records.get(&key).await;
                    // The next call puts the end again, or there is nothing to end any more.
                    if loaded.is_ok() {
                        open.end = None;
                    }
                    StoreAnswer::Got(loaded)
                }
                Ok(StoreCall::Put(write)) => {
                    let must_read = write.must_read();
                    open.end = write.ends_login.then(|| write.clone());
                    let put = records.put(write).await;
                    // Otherwise something else was written in between, and the next call reads that. An end that failed
                    // is owed already.
                    if put != Ok(Put::Refused) || !must_read {
                        open.end = None;
                    }
                    StoreAnswer::Put(put)
                }
                Ok(StoreCall::Wait(time)) => {
                    sleep(time).await;
                    StoreAnswer::Waited
                }
                Ok(StoreCall::Refresh(identity)) => match Arc::clone(refresh).call(identity).await {
                    Called::Answered(outcome) => {
                        is_asked = true;
                        StoreAnswer::Refreshed(outcome)
                    }
                    not_asked => return not_asked,
                },
                Err(Some(outcome)) if is_asked => return Called::Answered(outcome),
                Err(Some(outcome)) => return Called::Known(outcome),
                Err(None) => return Called::NotMade("another node refreshes it, or the store does not answer"),
            };
            next = stored.next(engine, answer, records.now());
        }
    }
}

/// The lease is this much longer than the deadline of the call: time to put the new pair.
const AFTER_DEADLINE: Duration = Duration::from_secs(1);
