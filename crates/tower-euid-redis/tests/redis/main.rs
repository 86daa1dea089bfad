//! The store on a real server: Debian's `redis-server`, started by each test on a loopback port of its own.
//!
//! Without that program the tests pass and print "skipped", except where the variable `CI` is set. The variable
//! `REDIS_SERVER` names another program, such as `valkey-server`.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod cluster;
mod conformance;
mod dump;
mod failures;
mod reads;
mod revival;
mod server;
mod site;
#[cfg(feature = "tls")]
mod tls;

use std::time::{Duration, Instant};

use bytes::Bytes;
use tower_euid::store::{Store, StoreError, StoreKey, Stored, When};

/// Longer than a test.
const HOUR: Duration = Duration::from_secs(3600);
/// A time that no test needs: a slow machine must not fail those that are not about time.
const PATIENT: Duration = Duration::from_secs(20);

/// Far more than a call with a timeout of 40 ms may take, even on a slow machine, and far less than without one.
const SOON: Duration = Duration::from_millis(400);

#[expect(clippy::disallowed_methods, reason = "how long a call takes is measured from outside")]
fn now() -> Instant {
    Instant::now()
}

fn key(number: u8) -> StoreKey {
    StoreKey::new([number; 32])
}

fn value(version: u8) -> Stored {
    Stored { version: [version; 16], bytes: Bytes::from(vec![version; 600]) }
}

async fn put(store: &impl Store, version: u8) -> Result<(), StoreError> {
    store.put(&key(1), When::Always, &value(version), HOUR).await.map(drop)
}

/// Returns the version that is there.
async fn read(store: &impl Store) -> Result<Option<u8>, StoreError> {
    Ok(store.get(&key(1)).await?.map(|stored| stored.version[0]))
}

/// Repeats a call until it succeeds. Each takes its own time, at most the timeout of the store.
async fn until(mut call: impl AsyncFnMut() -> bool) {
    let repeating = async {
        while !call().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENT, repeating).await.unwrap();
}
