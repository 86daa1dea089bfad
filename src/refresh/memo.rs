//! The memory of refresh tokens: the state of each. Bounded in entries and in bytes.
//!
//! 1. A hash of its whole text identifies a token. The last token of a login is also found by the login's lineage. This
//!    does not hold for a request that brings the pair of that token's answer: if this pair is due, the answer is of no use.
//! 2. [`token_state`](super::token_state) decides how long an answer or a failure is remembered.
//! 3. At the limit the oldest memory is forgotten, which costs at most another call. Calls under way are never
//!    forgotten.
//! 4. Failures of migrated identities, which any script can forge, hold at most a quarter of the entries.
//!
//! Pure; `now` is an argument.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use euid_core::Refreshed;
use euid_core::clock::UnixMillis;
use euid_core::error::EuidError;
use euid_core::identity::Identity;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::backoff::Span;
use super::flight::{Flight, Outcome};
use super::token_state::{MEMO_FOR, TokenState};

/// The key of a memory: a refresh token, and the login that it belongs to, if it has one yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefreshKey {
    pub(super) token: TokenHash,
    pub(super) lineage: Option<Lineage>,
}

/// The first half of the SHA-256 of a refresh token.
pub(super) type TokenHash = [u8; 16];

/// The first half of that. It is all that each of many calls under way has room for; if two are equal, the operator is
/// asked once more.
type ShortHash = [u8; 8];

/// The bytes of a login's lineage; the type itself belongs to the engine, which this folder must not import.
pub(super) type Lineage = [u8; 16];

/// The limits of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoLimit {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Memo {
    limit: MemoLimit,
    entries: HashMap<TokenHash, Entry>,
    /// The last token of each login; its entry exists.
    last_of: HashMap<Lineage, TokenHash>,
    /// The places of memories, oldest first. A place is stale, and skipped, if its entry has another generation by now.
    queue: VecDeque<Place>,
    /// How many entries are memories, not calls under way, and their weight.
    remembered: usize,
    bytes: usize,
    /// How many entries are failures of migrated identities.
    migrated_failures: usize,
    generations: u64,
}

#[derive(Debug)]
struct Entry {
    generation: u64,
    lineage: Option<Lineage>,
    state: TokenState,
    /// The refresh token of the pair in its answer; zeros without one.
    successor: ShortHash,
    /// Failures in a row.
    failures: u32,
    /// A failure of a migrated identity.
    is_migrated_failure: bool,
}

/// The place of an entry in the queue.
#[derive(Clone, Copy, Debug)]
struct Place {
    token: TokenHash,
    generation: u64,
    written: UnixMillis,
}

impl RefreshKey {
    pub(crate) fn new(identity: &Identity, lineage: Option<Lineage>) -> Self {
        Self { token: hash_of(identity), lineage }
    }
}

impl Memo {
    pub(super) fn new(limit: MemoLimit) -> Self {
        Self {
            limit,
            entries: HashMap::new(),
            last_of: HashMap::new(),
            queue: VecDeque::new(),
            remembered: 0,
            bytes: 0,
            migrated_failures: 0,
            generations: 0,
        }
    }

    /// The state of this token.
    pub(super) fn of_token(&self, key: &RefreshKey) -> Option<&TokenState> {
        self.entries.get(&key.token).map(|entry| &entry.state)
    }

    /// The state of the last token of the same login. `None` if this token is its successor.
    pub(super) fn of_lineage(&self, key: &RefreshKey) -> Option<&TokenState> {
        if self.predecessor(key).is_some() {
            return None;
        }
        self.last_entry(key.lineage?).map(|entry| &entry.state)
    }

    /// The last token of the same login, if the pair in its answer has this token.
    fn predecessor(&self, key: &RefreshKey) -> Option<TokenHash> {
        let last = *self.last_of.get(&key.lineage?)?;
        (self.entries.get(&last)?.successor == short(key.token)).then_some(last)
    }

    /// How often the token, or the last one of its login, has failed in a row.
    pub(super) fn failures(&self, key: &RefreshKey) -> u32 {
        let of_token = self.entries.get(&key.token);
        let of_lineage = key.lineage.and_then(|lineage| self.last_entry(lineage));
        of_token.into_iter().chain(of_lineage).map(|entry| entry.failures).max().unwrap_or(0)
    }

    /// How many tokens are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether calls under way alone meet the limit.
    pub(super) fn is_full_of_calls(&self) -> bool {
        self.entries.len() - self.remembered >= self.limit.entries
    }

    /// Notes that a call begins.
    pub(super) fn begin(&mut self, key: RefreshKey, flight: Arc<Flight>, begun: Instant, now: UnixMillis) {
        let failures = self.failures(&key);
        // The pair of the last answer has arrived, and what this call finds is newer.
        if let Some(predecessor) = self.predecessor(&key) {
            self.forget(&predecessor);
        }
        self.write(key, TokenState::UnderWay { flight, begun }, failures, now);
    }

    /// Remembers the answer of a call.
    pub(super) fn answered(&mut self, key: RefreshKey, outcome: &Outcome, now: UnixMillis) {
        self.write(key, TokenState::answered(outcome, now), 0, now);
    }

    /// Remembers the failure of a call, the `failures`-th in a row.
    pub(super) fn failed(
        &mut self,
        key: RefreshKey,
        error: &EuidError,
        wait: Duration,
        failures: u32,
        now: UnixMillis,
    ) {
        self.write(key, TokenState::backing_off(error, wait, now), failures, now);
    }

    /// Notes that the last outcome of a token is a failure of a migrated identity. Forgets it if there are too many.
    pub(super) fn limit_migrated_failure(&mut self, key: &RefreshKey) {
        if self.migrated_failures >= (self.limit.entries / MIGRATED_SHARE).max(1) {
            self.forget(&key.token);
        } else if let Some(entry) = self.entries.get_mut(&key.token) {
            entry.is_migrated_failure = true;
            self.migrated_failures += 1;
        }
    }

    /// Notes that a response has written `pair`. Has an effect only if that is the last answer of the login.
    pub(super) fn delivered(&mut self, lineage: Lineage, pair: &Identity) {
        let entry = self.last_of.get(&lineage).and_then(|token| self.entries.get_mut(token));
        if let Some(entry) = entry {
            entry.state.deliver(pair);
        }
    }

    fn last_entry(&self, lineage: Lineage) -> Option<&Entry> {
        self.entries.get(self.last_of.get(&lineage)?)
    }

    fn write(&mut self, key: RefreshKey, state: TokenState, failures: u32, now: UnixMillis) {
        self.forget(&key.token);
        self.generations += 1;
        let RefreshKey { token, lineage } = key;
        let generation = self.generations;
        let successor = match state.remembered().map(AsRef::as_ref) {
            Some(Ok(Refreshed::Identity(pair))) => short(hash_of(pair)),
            _ => ShortHash::default(),
        };
        let entry = Entry { generation, lineage, state, successor, failures, is_migrated_failure: false };
        if let Some(bytes) = entry.weight() {
            self.remembered += 1;
            self.bytes += bytes;
            self.queue.push_back(Place { token, generation, written: now });
        }
        if let Some(lineage) = lineage {
            self.last_of.insert(lineage, token);
        }
        self.entries.insert(token, entry);
        self.sweep(now);
    }

    fn forget(&mut self, token: &TokenHash) {
        let Some(entry) = self.entries.remove(token) else { return };
        if let Some(bytes) = entry.weight() {
            self.remembered -= 1;
            self.bytes -= bytes;
        }
        self.migrated_failures -= usize::from(entry.is_migrated_failure);
        if let Some(lineage) = entry.lineage
            && self.last_of.get(&lineage) == Some(token)
        {
            self.last_of.remove(&lineage);
        }
    }

    /// Forgets expired memories, a few at a time, and the oldest of the rest until the limit is met.
    pub(super) fn sweep(&mut self, now: UnixMillis) {
        if self.is_littered() {
            let entries = &self.entries;
            self.queue.retain(|place| place.find(entries).is_some());
        }
        let (mut moved, mut forgotten) = (0, 0);
        while let Some(&place) = self.queue.front() {
            let is_young = Span::new(place.written, MEMO_FOR).contains(now);
            let is_over_the_limit = self.entries.len() > self.limit.entries || self.bytes > self.limit.bytes;
            if !is_over_the_limit && (is_young || forgotten >= FORGOTTEN_AT_ONCE) {
                return;
            }
            let is_of_use = place.find(&self.entries).map(|entry| !is_over_the_limit && !entry.state.has_expired(now));
            if is_of_use == Some(true) && moved == MOVED_AT_ONCE {
                return;
            }
            self.queue.pop_front();
            match is_of_use {
                Some(true) => {
                    // This memory lives longer than most; at the front it would hide expired ones behind it.
                    self.queue.push_back(place);
                    moved += 1;
                }
                Some(false) => {
                    self.forget(&place.token);
                    forgotten += 1;
                }
                None => {}
            }
        }
    }

    /// Whether the queue has enough stale places for a cleanup: a token that is written often leaves them behind.
    fn is_littered(&self) -> bool {
        self.queue.len() > 2 * self.remembered + QUEUE_SLACK
    }
}

impl Place {
    /// Returns its entry; `None` if that has been rewritten or forgotten since.
    fn find<'a>(&self, entries: &'a HashMap<TokenHash, Entry>) -> Option<&'a Entry> {
        entries.get(&self.token).filter(|entry| entry.generation == self.generation)
    }
}

impl Entry {
    /// Returns the weight of a memory in bytes; `None` for a call under way, which is no memory.
    fn weight(&self) -> Option<usize> {
        self.state.remembered().map(weight)
    }
}

fn short([a, b, c, d, e, f, g, h, ..]: TokenHash) -> ShortHash {
    [a, b, c, d, e, f, g, h]
}

fn hash_of(identity: &Identity) -> TokenHash {
    let hash: [u8; 32] = Sha256::digest(identity.refresh_token().expose_secret()).into();
    let (token, _) = hash.split_first_chunk().unwrap_or((&[0; 16], &[]));
    *token
}

/// Returns the weight of a memory in bytes: key, entry, places in the index and the queue, and the texts of an
/// identity.
fn weight(outcome: &Outcome) -> usize {
    let texts = match &**outcome {
        Ok(Refreshed::Identity(identity)) => {
            identity.advertising_token().len() + identity.refresh_token().expose_secret().len()
        }
        Ok(Refreshed::OptedOut) | Err(_) => 0,
    };
    let places = size_of::<(TokenHash, Entry)>() + size_of::<(Lineage, TokenHash)>() + size_of::<Place>();
    places + size_of::<Result<Refreshed, EuidError>>() + texts
}

/// Failures of migrated identities hold at most one entry in this many.
const MIGRATED_SHARE: usize = 4;
/// How many stale places the queue may have before a cleanup.
const QUEUE_SLACK: usize = 64;
/// How many long-lived memories one sweep passes over.
const MOVED_AT_ONCE: usize = 4;
/// How many expired memories one sweep forgets, as requests wait for it. Each write adds only one.
const FORGOTTEN_AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::fixtures::{LIMIT, at, key, opted_out};
    use super::*;
    use euid_core::error::ErrorKind;
    use euid_core::identity::IdentityTimes;

    /// Returns a pair with these three clocks, in seconds.
    fn pair(advertising: &str, seconds: [i64; 3]) -> Outcome {
        let [refresh_from, identity_expires, refresh_expires] = seconds.map(at);
        let times = IdentityTimes { refresh_from, identity_expires, refresh_expires };
        let identity = Identity::new(advertising, "r".repeat(100).into(), [0; 32].into(), times).unwrap();
        Arc::new(Ok(Refreshed::Identity(identity)))
    }

    fn identity(answer: &Outcome) -> &Identity {
        let Ok(Refreshed::Identity(identity)) = &**answer else { panic!("no pair") };
        identity
    }

    fn knows(memo: &Memo, token: u8, now: i64) -> bool {
        memo.of_token(&key(token)).is_some_and(|state| state.known(at(now)).is_some())
    }

    fn answered(memo: &mut Memo, token: u8, now: i64) {
        memo.answered(key(token), &opted_out(), at(now));
    }

    fn failed(memo: &mut Memo, token: u8, now: i64) {
        let error = EuidError::new(ErrorKind::Undecryptable, "x");
        memo.failed(key(token), &error, Duration::from_secs(5), 1, at(now));
    }

    #[test]
    fn delivered_pair_is_known_for_45_seconds_or_a_tenth_of_its_life() {
        for (life, known_for) in [(86_400, 45), (450, 45), (440, 44), (100, 10), (10, 1)] {
            let mut memo = Memo::new(LIMIT);
            let key = RefreshKey { lineage: Some([1; 16]), ..key(1) };
            let answer = pair("a", [life, life, life]);
            memo.answered(key, &answer, at(0));
            memo.delivered([1; 16], identity(&answer));
            assert!(knows(&memo, 1, known_for - 1) && !knows(&memo, 1, known_for), "{life}");
        }
    }

    #[test]
    fn undelivered_pair_is_known_until_its_own_refresh_from() {
        let mut memo = Memo::new(LIMIT);
        memo.answered(key(1), &pair("a", [900, 3600, 86_400]), at(0));
        assert!(knows(&memo, 1, 899) && !knows(&memo, 1, 900));
        answered(&mut memo, 2, 0);
        assert!(knows(&memo, 2, 44) && !knows(&memo, 2, 45), "an opt-out is known for 45 s");
    }

    #[test]
    fn pair_counts_as_delivered_only_if_a_response_has_written_that_pair() {
        let mut memo = Memo::new(LIMIT);
        let key = RefreshKey { lineage: Some([1; 16]), ..key(1) };
        let [earlier, last] = ["a", "b"].map(|token| pair(token, [900, 3600, 86_400]));
        memo.answered(key, &last, at(0));
        memo.delivered([1; 16], identity(&earlier));
        assert!(knows(&memo, 1, 899));
        memo.delivered([1; 16], identity(&last));
        assert!(!knows(&memo, 1, 45));
    }

    /// A store takes a pair without a response that writes it.
    #[test]
    fn undelivered_pair_is_forgotten_when_its_own_refresh_begins() {
        let lineage = Some([1; 16]);
        let answer = pair("a", [900, 3600, 86_400]);
        for (brought, knows_answer) in [(key(2).token, true), (hash_of(identity(&answer)), false)] {
            let mut memo = Memo::new(LIMIT);
            memo.answered(RefreshKey { lineage, ..key(1) }, &answer, at(0));
            let brought = RefreshKey { token: brought, lineage };
            memo.begin(brought, Arc::default(), crate::deadline::steady_now(), at(600));
            memo.answered(brought, &opted_out(), at(600));
            assert_eq!(knows(&memo, 1, 600), knows_answer);
        }
    }

    #[test]
    fn error_is_remembered_by_its_kind_alone() {
        let mut memo = Memo::new(LIMIT);
        let cause = std::io::Error::other("y".repeat(1 << 20));
        let error = EuidError::new(ErrorKind::RejectedInput, "x".repeat(1 << 20)).with_source(cause);
        memo.failed(key(1), &error, Duration::from_secs(5), 1, at(0));
        let Some(TokenState::BackingOff { outcome, .. }) = memo.of_token(&key(1)) else { panic!() };
        let kept = outcome.as_ref().as_ref().unwrap_err();
        assert_eq!(kept.kind(), ErrorKind::RejectedInput);
        assert!(std::error::Error::source(kept).is_none() && kept.to_string().len() < 100);
    }

    #[test]
    fn oldest_memory_is_forgotten_beyond_the_limit_of_entries() {
        let mut memo = Memo::new(LIMIT);
        (1..=5).for_each(|token| answered(&mut memo, token, 0));
        assert_eq!(memo.entries.len(), 4);
        assert!(!knows(&memo, 1, 0) && (2..=5).all(|token| knows(&memo, token, 0)));
    }

    #[test]
    fn rewritten_memory_is_no_longer_the_oldest() {
        let mut memo = Memo::new(LIMIT);
        [1, 2, 1, 3, 4, 5].into_iter().for_each(|token| answered(&mut memo, token, 0));
        assert!(!knows(&memo, 2, 0) && knows(&memo, 1, 0));
    }

    #[test]
    fn oldest_memory_is_forgotten_beyond_the_limit_of_bytes() {
        let each = weight(&opted_out());
        let mut memo = Memo::new(MemoLimit { entries: 100, bytes: 3 * each });
        (1..=4).for_each(|token| answered(&mut memo, token, 0));
        assert_eq!((memo.entries.len(), memo.bytes), (3, 3 * each));
        assert!(!knows(&memo, 1, 0));
    }

    #[test]
    fn weight_of_a_memory_exceeds_its_parts_by_less_than_64_bytes() {
        for (outcome, texts) in [(opted_out(), 0), (pair(&"a".repeat(1000), [0, 0, 0]), 1100)] {
            // The map, the queue and the index of logins each hold the token.
            let kept = 3 * size_of::<TokenHash>() + size_of::<Lineage>() + size_of::<Entry>();
            let kept = kept + size_of_val(&*outcome) + texts;
            let weight = weight(&outcome);
            assert!((kept..kept + 64).contains(&weight), "{weight} for {kept}");
        }
    }

    #[test]
    fn token_written_often_does_not_fill_the_queue() {
        for writes in 1..100 {
            let mut memo = Memo::new(LIMIT);
            failed(&mut memo, 1, 0);
            answered(&mut memo, 3, 0);
            (0..writes).for_each(|_| answered(&mut memo, 2, 0));
            memo.begin(key(3), Arc::default(), crate::deadline::steady_now(), at(45));
            (0..100).for_each(|_| answered(&mut memo, 2, 45));
            assert!(memo.queue.len() <= 2 * 2 + QUEUE_SLACK, "{} after {writes}", memo.queue.len());
        }
    }

    #[test]
    fn token_written_often_leaves_others_their_place_in_the_queue() {
        let mut memo = Memo::new(LIMIT);
        answered(&mut memo, 1, 0);
        (0..100).for_each(|_| answered(&mut memo, 2, 0));
        (3..=5).for_each(|token| answered(&mut memo, token, 0));
        assert!(!knows(&memo, 1, 0) && (2..=5).all(|token| knows(&memo, token, 0)));
    }

    #[test]
    fn sweep_forgets_expired_memories_behind_others() {
        let mut memo = Memo::new(MemoLimit { entries: 100, ..LIMIT });
        for token in 1..=9 {
            memo.answered(key(token), &pair("a", [900, 3600, 86_400]), at(0));
        }
        answered(&mut memo, 10, 0);
        failed(&mut memo, 11, 0);
        (0..4).for_each(|_| memo.sweep(at(45)));
        assert_eq!(memo.entries.len(), 10, "only the opt-out behind nine pairs has expired");
        (0..4).for_each(|_| memo.sweep(at(305)));
        assert_eq!(memo.entries.len(), 9);
        memo.sweep(at(900));
        assert_eq!((memo.entries.len(), memo.queue.len(), memo.bytes), (0, 0, 0));
    }

    #[test]
    fn sweep_forgets_a_few_memories_at_a_time_and_so_catches_up() {
        let mut memo = Memo::new(MemoLimit { entries: 1000, ..LIMIT });
        for token in 0..1000_u128 {
            let key = RefreshKey { token: token.to_ne_bytes(), lineage: None };
            memo.answered(key, &opted_out(), at(0));
        }
        for left in [984, 968] {
            memo.sweep(at(45));
            assert_eq!(memo.entries.len(), left);
        }
        (0..61).for_each(|_| memo.sweep(at(45)));
        assert_eq!((memo.entries.len(), memo.queue.len(), memo.bytes), (0, 0, 0));
    }

    #[test]
    fn index_of_logins_names_the_last_token_of_each_login_until_it_is_forgotten() {
        let mut memo = Memo::new(LIMIT);
        let [first, second] = [1, 2].map(|token| RefreshKey { lineage: Some([7; 16]), ..key(token) });
        memo.answered(first, &opted_out(), at(0));
        memo.begin(second, Arc::default(), crate::deadline::steady_now(), at(10));
        assert!(matches!(memo.of_lineage(&first), Some(TokenState::UnderWay { .. })));
        memo.sweep(at(45));
        assert!(memo.of_token(&first).is_none() && memo.of_lineage(&first).is_some());
        memo.answered(second, &opted_out(), at(46));
        memo.sweep(at(100));
        assert!(memo.entries.is_empty() && memo.last_of.is_empty());
    }
}
