//! A store that fails as a test wants it, and counts its calls.

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use std::sync::Mutex;
use tower_euid::clock::ManualClock;
use tower_euid::store::{MemoryStore, Put, Store, StoreError, StoreKey, Stored, When};

/// What a store does with a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// It refuses the connection.
    Down,
    /// It does what it is asked, and its answer is lost.
    AnswerLost,
    /// It never answers.
    Hangs,
    Panics,
    /// It reads, but fails to write.
    ReadOnly,
    /// It fails, from then on with each call for the same key: a part of it is down.
    LosesKey,
}

/// A store in memory; clones share it.
#[derive(Clone)]
pub(crate) struct TestStore(Arc<Inner>);

struct Inner {
    memory: MemoryStore,
    fault: Mutex<Fault>,
    delay: Mutex<Duration>,
    lost: Mutex<HashSet<StoreKey>>,
    gets: AtomicUsize,
    puts: AtomicUsize,
    /// How long each value that was written is kept.
    kept: Mutex<Vec<Duration>>,
}

impl TestStore {
    pub(crate) fn new(clock: &ManualClock) -> Self {
        Self(Arc::new(Inner {
            memory: MemoryStore::new().clock(clock.clone()),
            fault: Mutex::default(),
            delay: Mutex::default(),
            lost: Mutex::default(),
            gets: AtomicUsize::new(0),
            puts: AtomicUsize::new(0),
            kept: Mutex::default(),
        }))
    }

    pub(crate) fn fault(&self, fault: Fault) {
        *self.0.fault.lock().unwrap() = fault;
    }

    /// Delays each answer, by tokio's time.
    pub(crate) fn delay(&self, delay: Duration) {
        *self.0.delay.lock().unwrap() = delay;
    }

    /// Returns how many gets and puts there were.
    pub(crate) fn calls(&self) -> (usize, usize) {
        (self.0.gets.load(Ordering::SeqCst), self.0.puts.load(Ordering::SeqCst))
    }

    /// Returns how long each value that was written is kept.
    pub(crate) fn kept(&self) -> Vec<Duration> {
        self.0.kept.lock().unwrap().clone()
    }

    /// Makes a call as the fault says.
    async fn call<T>(
        &self,
        writes: bool,
        key: &StoreKey,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (fault, delay) = (*self.0.fault.lock().unwrap(), *self.0.delay.lock().unwrap());
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if fault == Fault::LosesKey {
            self.0.lost.lock().unwrap().insert(key.clone());
        }
        match fault {
            _ if self.0.lost.lock().unwrap().contains(key) => Err(StoreError::new("lost, as the test wants it")),
            Fault::None => call.await,
            Fault::ReadOnly if !writes => call.await,
            Fault::Down | Fault::ReadOnly | Fault::LosesKey => Err(StoreError::new("down, as the test wants it")),
            Fault::AnswerLost => {
                call.await?;
                Err(StoreError::new("no answer, as the test wants it"))
            }
            Fault::Hangs => pending().await,
            Fault::Panics => panic_in_a_store(),
        }
    }
}

#[expect(clippy::panic, reason = "a test wants it")]
fn panic_in_a_store() -> ! {
    panic!("as the test wants it")
}

impl Store for TestStore {
    async fn get(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        self.0.gets.fetch_add(1, Ordering::SeqCst);
        self.call(false, key, self.0.memory.get(key)).await
    }

    async fn put(&self, key: &StoreKey, when: When, stored: &Stored, keep: Duration) -> Result<Put, StoreError> {
        self.0.puts.fetch_add(1, Ordering::SeqCst);
        let put = async {
            let put = self.0.memory.put(key, when, stored, keep).await?;
            if put == Put::Done {
                self.0.kept.lock().unwrap().push(keep);
            }
            Ok(put)
        };
        self.call(true, key, put).await
    }
}
