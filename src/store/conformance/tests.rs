//! The suite passes a store that keeps the contract, and finds what is wrong with one that breaks a rule.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use euid_core::clock::{Clock, ManualClock, UnixMillis};

use super::*;
use crate::store::{MemoryStore, Put, StoreKey, Stored, When};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    ReadsLagBehind,
    AlwaysNeedsNoValue,
    AlwaysNeedsAValue,
    AbsentOverwrites,
    AbsentComparesBytes,
    IsNeedsNoValue,
    IsComparesFifteenBytes,
    RefusedPutWrites,
    RefusedPutSetsKeep,
    ExpiredIsRead,
    ExpiredIsThereToAbsent,
    ExpiredIsThereToIs,
    KeepIsOfTheFirstPut,
    KeepIsAtMostASecond,
    /// The condition is checked in one step, and the value written in another.
    AbsentIsNotAtomic,
    IsIsNotAtomic,
    KeyIsTruncated,
    KeyIsText,
    EvictsBeyond200,
    ValueIsText,
    ValueIsTruncated,
    ValueIsALine,
    EmptyIsAbsent,
    VersionIsText,
    Fails,
}

/// The fault that the check of each rule must find.
const FAULTS: [(Fault, Rule); 25] = [
    (Fault::ReadsLagBehind, Rule::PutIsSeen),
    (Fault::Fails, Rule::PutIsSeen),
    (Fault::AlwaysNeedsNoValue, Rule::AlwaysWrites),
    (Fault::AlwaysNeedsAValue, Rule::AlwaysWrites),
    (Fault::AbsentOverwrites, Rule::AbsentWritesOnce),
    (Fault::AbsentComparesBytes, Rule::AbsentWritesOnce),
    (Fault::IsNeedsNoValue, Rule::IsComparesVersions),
    (Fault::IsComparesFifteenBytes, Rule::IsComparesVersions),
    (Fault::RefusedPutWrites, Rule::RefusedChangesNothing),
    (Fault::RefusedPutSetsKeep, Rule::RefusedChangesNothing),
    (Fault::ExpiredIsRead, Rule::ExpiredIsAbsent),
    (Fault::ExpiredIsThereToAbsent, Rule::ExpiredIsAbsent),
    (Fault::ExpiredIsThereToIs, Rule::ExpiredIsAbsent),
    (Fault::KeepIsOfTheFirstPut, Rule::KeepIsOfTheLastPut),
    (Fault::KeepIsAtMostASecond, Rule::KeepIsOfTheLastPut),
    (Fault::AbsentIsNotAtomic, Rule::OneAbsentWins),
    (Fault::IsIsNotAtomic, Rule::OneIsWins),
    (Fault::KeyIsTruncated, Rule::KeysAreWhole),
    (Fault::KeyIsText, Rule::KeysAreWhole),
    (Fault::EvictsBeyond200, Rule::KeysAreWhole),
    (Fault::ValueIsText, Rule::ValuesAreWhole),
    (Fault::ValueIsTruncated, Rule::ValuesAreWhole),
    (Fault::ValueIsALine, Rule::ValuesAreWhole),
    (Fault::EmptyIsAbsent, Rule::ValuesAreWhole),
    (Fault::VersionIsText, Rule::ValuesAreWhole),
];

struct Faulty {
    fault: Fault,
    clock: ManualClock,
    entries: Mutex<HashMap<Vec<u8>, Entry>>,
}

struct Entry {
    stored: Stored,
    before: Option<Stored>,
    expires: UnixMillis,
    number: usize,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { fault, clock: ManualClock::at(UnixMillis::from_millis(0)), entries: Mutex::default() }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn key(&self, key: &StoreKey) -> Vec<u8> {
        let key = key.as_bytes();
        match self.fault {
            Fault::KeyIsTruncated => key[..31].to_vec(),
            Fault::KeyIsText => String::from_utf8_lossy(key).into_owned().into_bytes(),
            _ => key.to_vec(),
        }
    }

    /// What the store makes of a value.
    fn kept(&self, stored: &Stored) -> Stored {
        let Stored { mut version, mut bytes } = stored.clone();
        match self.fault {
            Fault::ValueIsText => bytes = String::from_utf8_lossy(&bytes).into_owned().into(),
            Fault::ValueIsTruncated => bytes.truncate(Stored::MAX_BYTES - 1),
            Fault::ValueIsALine => bytes = Bytes::copy_from_slice(bytes.split(|byte| *byte == b'\n').next().unwrap()),
            Fault::VersionIsText => version.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' '),
            _ => {}
        }
        Stored { version, bytes }
    }

    fn holds(&self, when: When, there: Option<&Entry>, new: &Stored) -> bool {
        match when {
            When::Always if self.is(Fault::AlwaysNeedsAValue) => there.is_some(),
            When::Always if self.is(Fault::AlwaysNeedsNoValue) => there.is_none(),
            When::Always => true,
            When::Absent if self.is(Fault::AbsentOverwrites) => true,
            When::Absent if self.is(Fault::AbsentComparesBytes) => there.is_none_or(|it| it.stored.bytes == new.bytes),
            When::Absent => there.is_none(),
            When::Is(_) if there.is_none() => self.is(Fault::IsNeedsNoValue),
            When::Is(version) => {
                let compared = if self.is(Fault::IsComparesFifteenBytes) { 15 } else { 16 };
                there.is_some_and(|entry| entry.stored.version[..compared] == version[..compared])
            }
        }
    }

    fn is_atomic(&self, when: When) -> bool {
        match when {
            When::Absent => !self.is(Fault::AbsentIsNotAtomic),
            When::Is(_) => !self.is(Fault::IsIsNotAtomic),
            When::Always => true,
        }
    }

    /// Returns whether the condition holds, and writes if it does or is known to.
    fn step(&self, key: &StoreKey, when: When, stored: &Stored, keep: Duration, known: bool) -> bool {
        let (now, mut entries) = (self.clock.now(), self.entries.lock().unwrap());
        let sees_expired = match when {
            When::Absent => self.is(Fault::ExpiredIsThereToAbsent),
            When::Is(_) => self.is(Fault::ExpiredIsThereToIs),
            When::Always => false,
        };
        let number = entries.len();
        let there = entries.get(&self.key(key)).filter(|entry| sees_expired || now < entry.expires);
        let holds = known || self.holds(when, there, stored);
        let keep = if self.is(Fault::KeepIsAtMostASecond) { keep.min(SECOND) } else { keep };
        let expires = match there {
            Some(first) if self.is(Fault::KeepIsOfTheFirstPut) => first.expires,
            _ => now.saturating_add(keep),
        };
        let before = there.map(|entry| entry.stored.clone());
        if (holds && (known || self.is_atomic(when))) || self.is(Fault::RefusedPutWrites) {
            let stored = self.kept(stored);
            entries.insert(self.key(key), Entry { stored, before, expires, number });
            entries.retain(|_, entry| !self.is(Fault::EvictsBeyond200) || entry.number + 200 >= number);
        } else if let Some(entry) = entries.get_mut(&self.key(key)).filter(|_| self.is(Fault::RefusedPutSetsKeep)) {
            entry.expires = expires;
        }
        holds
    }
}

const SECOND: Duration = Duration::from_secs(1);

impl Store for Faulty {
    async fn get(&self, key: &StoreKey) -> Result<Option<Stored>, StoreError> {
        if self.is(Fault::Fails) {
            return Err(StoreError::new("broken"));
        }
        let (now, entries) = (self.clock.now(), self.entries.lock().unwrap());
        let is_there = |entry: &&Entry| now < entry.expires || self.is(Fault::ExpiredIsRead);
        let Some(entry) = entries.get(&self.key(key)).filter(is_there) else { return Ok(None) };
        let found = if self.is(Fault::ReadsLagBehind) { entry.before.clone() } else { Some(entry.stored.clone()) };
        Ok(found.filter(|found| !self.is(Fault::EmptyIsAbsent) || !found.bytes.is_empty()))
    }

    async fn put(&self, key: &StoreKey, when: When, stored: &Stored, keep: Duration) -> Result<Put, StoreError> {
        let holds = self.step(key, when, stored, keep, false);
        if holds && !self.is_atomic(when) {
            tokio::task::yield_now().await;
            self.step(key, when, stored, keep, true);
        }
        Ok(if holds { Put::Done } else { Put::Refused })
    }
}

async fn check_faulty(fault: Fault, rule: Rule) -> Result<(), Violation> {
    let store = Arc::new(Faulty::new(fault));
    check(rule, &[Arc::clone(&store), Arc::clone(&store)], async |time| store.clock.advance(time)).await
}

#[tokio::test]
async fn store_that_breaks_a_rule_is_found_by_the_check_of_that_rule() {
    for (fault, rule) in FAULTS {
        match check_faulty(fault, rule).await {
            Ok(()) => panic!("{fault:?} passes: {rule}"),
            Err(violation) => assert_eq!(violation.rule(), rule, "{fault:?}"),
        }
    }
}

#[tokio::test]
async fn store_without_a_fault_passes() {
    for rule in Rule::ALL {
        check_faulty(Fault::None, rule).await.unwrap();
    }
}

#[test]
fn check_of_every_rule_can_fail() {
    for rule in Rule::ALL {
        assert!(FAULTS.iter().any(|(_, found)| *found == rule), "{rule}");
    }
}

#[tokio::test]
async fn two_stores_without_a_connection_break_every_rule() {
    let stores = [(); 2].map(|()| Arc::new(MemoryStore::new().clock(ManualClock::at(UnixMillis::from_millis(0)))));
    for rule in Rule::ALL {
        assert!(check(rule, &stores, async |_| ()).await.is_err(), "{rule}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn store_in_memory_passes_with_writers_on_several_threads() {
    let clock = ManualClock::at(UnixMillis::from_millis(0));
    let store = Arc::new(MemoryStore::new().clock(clock.clone()));
    check_all(&[Arc::clone(&store), store], async |time| clock.advance(time)).await.unwrap();
}

#[tokio::test]
async fn violation_names_the_rule_and_the_failure_of_the_store() {
    let violation = check_faulty(Fault::Fails, Rule::PutIsSeen).await.unwrap_err();
    let text =
        "get sees every put that returned, from any connection; but the store failed (broken): before the first put";
    assert_eq!(violation.to_string(), text);
    assert_eq!(violation.source().unwrap().to_string(), "broken");
}
