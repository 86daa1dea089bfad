//! A store in the memory of the process.
//!
//! 1. It is bounded, in entries and in bytes. A put that would exceed a limit fails. A put whose value is no longer than the
//!    one that it replaces never fails.
//! 2. Nothing is forgotten before its time, even when the store is full: otherwise a flood of logins could make it
//!    forget that a person has opted out, or that a login has ended.
//! 3. Each put forgets a few expired entries, those that expired first, and as many more as it needs for its own room.
//!    There is no task. Reading forgets nothing.
//! 4. Time is the clock's. If that jumps back, entries are kept for longer.
//!
//! A get is one look-up in a hash map. A put is also a few steps in a tree that is sorted by expiry, so its time grows
//! with the logarithm of the number of entries.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use euid_core::clock::{Clock, SystemClock, UnixMillis};

use super::{Put, Store, StoreError, StoreKey, Stored, When};

/// A [`Store`] in the memory of this process: for tests, for a site that runs in one process, and as the model of the
/// contract.
///
/// A restart forgets everything, so all visitors are logged out then. Two nodes with one such store each break the
/// contract. It has two limits, [`max_entries`](Self::max_entries) and [`max_bytes`](Self::max_bytes). **At a limit it
/// refuses new visitors and evicts no old ones**: a login then fails with a [`StoreError`], but a value that says that a
/// person has opted out stays until its time.
///
/// It is not `Clone`. Share it in an `Arc`, which is a [`Store`], too:
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use std::sync::Arc;
/// use std::time::Duration;
/// use bytes::Bytes;
/// use tower_euid::clock::{ManualClock, UnixMillis};
/// use tower_euid::store::{MemoryStore, Store, StoreKey, Stored, When};
///
/// let clock = ManualClock::at(UnixMillis::from_millis(0));
/// let nodes = [(); 2].map({
///     let store = Arc::new(MemoryStore::new().clock(clock.clone()));
///     move |()| Arc::clone(&store)
/// });
/// let (key, value) = (StoreKey::new([7; 32]), Stored { version: [1; 16], bytes: Bytes::from_static(b"sealed") });
/// nodes[0].put(&key, When::Absent, &value, Duration::from_secs(60)).await?;
///
/// assert_eq!(nodes[1].get(&key).await?, Some(value));
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(nodes[1].get(&key).await?, None);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    max_entries: usize,
    max_bytes: usize,
    entries: Mutex<Entries>,
}

impl MemoryStore {
    /// The number of entries that a store holds unless set otherwise: 100,000.
    pub const DEFAULT_MAX_ENTRIES: usize = 100_000;
    /// The number of bytes that a store holds unless set otherwise: 128 MiB.
    pub const DEFAULT_MAX_BYTES: usize = 128 << 20;

    /// An empty store with the system's clock and the default limits.
    ///
    /// ```
    /// use tower_euid::store::MemoryStore;
    ///
    /// let store = MemoryStore::new();
    /// assert!(format!("{store:?}").contains("entries: 0"));
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            max_entries: Self::DEFAULT_MAX_ENTRIES,
            max_bytes: Self::DEFAULT_MAX_BYTES,
            entries: Mutex::default(),
        }
    }

    /// Sets the clock by which values expire. Default: [`SystemClock`].
    ///
    /// ```
    /// use tower_euid::clock::{ManualClock, UnixMillis};
    /// use tower_euid::store::MemoryStore;
    ///
    /// let store = MemoryStore::new().clock(ManualClock::at(UnixMillis::from_millis(0)));
    /// ```
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Sets how many entries the store holds at most: about one for each visitor. Default:
    /// [`DEFAULT_MAX_ENTRIES`](Self::DEFAULT_MAX_ENTRIES).
    ///
    /// ```
    /// use tower_euid::store::MemoryStore;
    ///
    /// let store = MemoryStore::new().max_entries(1000);
    /// ```
    #[must_use]
    pub fn max_entries(self, entries: usize) -> Self {
        Self { max_entries: entries, ..self }
    }

    /// Sets how many bytes the store holds at most: the values, and about 250 bytes for each entry. Default:
    /// [`DEFAULT_MAX_BYTES`](Self::DEFAULT_MAX_BYTES).
    ///
    /// ```
    /// use tower_euid::store::MemoryStore;
    ///
    /// let store = MemoryStore::new().max_bytes(1 << 20);
    /// ```
    #[must_use]
    pub fn max_bytes(self, bytes: usize) -> Self {
        Self { max_bytes: bytes, ..self }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, key: &StoreKey) -> Option<Stored> {
        let now = self.clock.now();
        self.entries().by_key.get(key).filter(|entry| entry.is_there(now)).map(|entry| entry.stored.clone())
    }

    fn write(&self, key: &StoreKey, when: When, stored: &Stored, keep: Duration) -> Result<Put, StoreError> {
        let now = self.clock.now();
        let mut entries = self.entries();
        if entries.by_key.get(key).is_some_and(|entry| !entry.is_there(now)) {
            entries.forget(key);
        }
        for _ in 0..FORGOTTEN_AT_ONCE {
            if !entries.forget_expired(now) {
                break;
            }
        }
        let there = entries.by_key.get(key);
        let holds = match when {
            When::Always => true,
            When::Absent => there.is_none(),
            When::Is(version) => there.is_some_and(|entry| entry.stored.version == version),
        };
        if !holds {
            return Ok(Put::Refused);
        }
        let (new, old) = (weight(stored), there.map(Entry::weight));
        if old.is_none_or(|old| old < new) {
            let more_entries = usize::from(old.is_none());
            let more_bytes = new - old.unwrap_or(0);
            while entries.by_key.len() + more_entries > self.max_entries || entries.bytes + more_bytes > self.max_bytes
            {
                if !entries.forget_expired(now) {
                    return Err(StoreError::new("the store in memory is full"));
                }
            }
        }
        entries.insert(key, stored, now.saturating_add(keep));
        Ok(Put::Done)
    }
}

impl Store for MemoryStore {
    async fn get(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        Ok(self.read(key))
    }

    async fn put(&self, key: &StoreKey, when: When, stored: &Stored, keep: Duration) -> Result<Put, StoreError> {
        self.write(key, when, stored, keep)
    }

    fn returns_within(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entries, bytes) = {
            let entries = self.entries();
            (entries.by_key.len(), entries.bytes)
        };
        f.debug_struct("MemoryStore")
            .field("entries", &entries)
            .field("max_entries", &self.max_entries)
            .field("bytes", &bytes)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<StoreKey, Entry>,
    /// The keys of all entries, by place.
    by_expiry: BTreeMap<Place, StoreKey>,
    /// The weight of all entries.
    bytes: usize,
    places: u64,
}

struct Entry {
    stored: Stored,
    place: Place,
}

/// When an entry expires, and a number that no other entry has.
type Place = (UnixMillis, u64);

impl Entries {
    fn insert(&mut self, key: &StoreKey, stored: &Stored, expires: UnixMillis) {
        self.forget(key);
        self.places += 1;
        let place = (expires, self.places);
        // A copy: the caller's bytes may be a part of something larger, which they would keep in memory.
        let stored = Stored { version: stored.version, bytes: Bytes::copy_from_slice(&stored.bytes) };
        self.bytes += weight(&stored);
        self.by_expiry.insert(place, key.clone());
        self.by_key.insert(key.clone(), Entry { stored, place });
    }

    fn forget(&mut self, key: &StoreKey) {
        if let Some(entry) = self.by_key.remove(key) {
            self.bytes -= entry.weight();
            self.by_expiry.remove(&entry.place);
        }
    }

    /// Forgets the entry that expired first. Returns false if none has expired.
    fn forget_expired(&mut self, now: UnixMillis) -> bool {
        let Some(first) = self.by_expiry.first_entry().filter(|first| first.key().0 <= now) else { return false };
        let key = first.get().clone();
        self.forget(&key);
        true
    }
}

impl Entry {
    fn is_there(&self, now: UnixMillis) -> bool {
        now < self.place.0
    }

    fn weight(&self) -> usize {
        weight(&self.stored)
    }
}

/// What an entry with this value takes, in bytes.
fn weight(stored: &Stored) -> usize {
    stored.bytes.len() + OVERHEAD
}

/// What an entry takes beside its value, in bytes: key, version and places, in tables that are half empty.
const OVERHEAD: usize = 256;
/// How many expired entries a put forgets. It adds only one.
const FORGOTTEN_AT_ONCE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use euid_core::clock::ManualClock;

    const HOUR: Duration = Duration::from_secs(3600);

    fn clock() -> ManualClock {
        ManualClock::at(UnixMillis::from_millis(0))
    }

    fn key(number: u8) -> StoreKey {
        StoreKey::new([number; 32])
    }

    /// A value of `length` bytes.
    fn value(version: u8, length: usize) -> Stored {
        Stored { version: [version; 16], bytes: vec![version; length].into() }
    }

    fn put(store: &MemoryStore, number: u8, when: When, stored: &Stored) -> Option<Put> {
        store.write(&key(number), when, stored, HOUR).ok()
    }

    fn login(store: &MemoryStore, number: u8) -> Option<Put> {
        put(store, number, When::Absent, &value(number, 100))
    }

    #[test]
    fn full_store_refuses_new_entries_and_keeps_those_it_has() {
        for store in [MemoryStore::new().max_entries(3), MemoryStore::new().max_bytes(3 * (100 + OVERHEAD))] {
            let store = store.clock(clock());
            assert!((1..=3).all(|number| login(&store, number) == Some(Put::Done)));
            assert_eq!(login(&store, 4), None);
            assert_eq!(put(&store, 4, When::Always, &value(4, 100)), None);
            assert!((1..=3).all(|number| store.read(&key(number)) == Some(value(number, 100))));
        }
    }

    #[test]
    fn full_store_replaces_a_value_by_one_that_is_no_longer() {
        let store = MemoryStore::new().max_bytes(3 * (100 + OVERHEAD)).clock(clock());
        (1..=3).for_each(|number| assert_eq!(login(&store, number), Some(Put::Done)));
        assert_eq!(put(&store, 1, When::Always, &value(11, 100)), Some(Put::Done));
        assert_eq!(put(&store, 2, When::Is([2; 16]), &value(12, 101)), None, "longer");
        assert_eq!(put(&store, 2, When::Is([9; 16]), &value(12, 101)), Some(Put::Refused), "it asks for no room");
        assert_eq!(put(&store, 2, When::Is([2; 16]), &value(12, 10)), Some(Put::Done));
        assert_eq!(put(&store, 3, When::Is([3; 16]), &value(13, 190)), Some(Put::Done), "there is room again");
        assert_eq!(put(&store, 3, When::Is([13; 16]), &value(14, 191)), None);
    }

    #[test]
    fn full_store_has_room_as_soon_as_an_entry_has_expired() {
        let clock = clock();
        let store = MemoryStore::new().max_entries(3).clock(clock.clone());
        for (number, keep) in [(1, 3 * HOUR), (2, HOUR), (3, 2 * HOUR)] {
            assert_eq!(store.write(&key(number), When::Absent, &value(number, 1), keep).ok(), Some(Put::Done));
        }
        clock.advance(HOUR - Duration::from_millis(1));
        assert_eq!(login(&store, 4), None);
        clock.advance(Duration::from_millis(1));
        assert_eq!(login(&store, 4), Some(Put::Done));
        assert_eq!(login(&store, 5), None);
        assert!([1, 3, 4].iter().all(|number| store.read(&key(*number)).is_some()));
    }

    #[test]
    fn value_is_there_until_the_millisecond_in_which_it_expires() {
        let clock = clock();
        let store = MemoryStore::new().clock(clock.clone());
        assert_eq!(login(&store, 1), Some(Put::Done));
        clock.advance(HOUR - Duration::from_millis(1));
        assert!(store.read(&key(1)).is_some());
        assert_eq!(login(&store, 1), Some(Put::Refused));
        clock.advance(Duration::from_millis(1));
        assert!(store.read(&key(1)).is_none());
        assert_eq!(put(&store, 1, When::Is([1; 16]), &value(2, 1)), Some(Put::Refused));
        assert_eq!(login(&store, 1), Some(Put::Done));
    }

    #[test]
    fn puts_forget_what_has_expired() {
        let clock = clock();
        let store = MemoryStore::new().clock(clock.clone());
        (0..100).for_each(|number| assert_eq!(login(&store, number), Some(Put::Done)));
        clock.advance(HOUR);
        (100..125).for_each(|number| assert_eq!(login(&store, number), Some(Put::Done)));
        let entries = store.entries();
        assert_eq!((entries.by_key.len(), entries.by_expiry.len()), (25, 25));
        assert_eq!(entries.bytes, 25 * (100 + OVERHEAD));
    }

    #[test]
    fn value_written_often_has_one_place() {
        let store = MemoryStore::new().clock(clock());
        (0..100).for_each(|version| assert_eq!(put(&store, 1, When::Always, &value(version, 9)), Some(Put::Done)));
        let entries = store.entries();
        assert_eq!((entries.by_key.len(), entries.by_expiry.len(), entries.bytes), (1, 1, 9 + OVERHEAD));
    }

    #[test]
    fn store_does_not_keep_the_rest_of_a_larger_buffer() {
        let buffer = Bytes::from(vec![7; 1 << 20]);
        let store = MemoryStore::new().clock(clock());
        let stored = Stored { version: [1; 16], bytes: buffer.slice(..10) };
        assert_eq!(put(&store, 1, When::Absent, &stored), Some(Put::Done));
        drop(stored);
        assert!(buffer.is_unique());
    }

    #[test]
    fn weight_of_an_entry_covers_its_parts() {
        let parts = size_of::<(StoreKey, Entry)>() + size_of::<(Place, StoreKey)>();
        assert!((parts..3 * parts / 2 + 64).contains(&OVERHEAD), "{parts}");
    }

    #[test]
    fn debug_shows_no_value() {
        let store = MemoryStore::new().clock(clock());
        assert_eq!(login(&store, 1), Some(Put::Done));
        let debug = format!("{store:?}");
        assert!(debug.contains("entries: 1, max_entries: 100000, bytes: 356,") && !debug.contains("[1"), "{debug}");
    }
}
