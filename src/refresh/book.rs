//! What is known of each refresh token: under way, answered, or resting after a failure.
//!
//! 1. A token is known by the SHA-256 of its whole text.
//! 2. An answer is remembered for [`MEMO_FOR`]: requests that still carry the old cookie get it
//!    without a call. A failure is remembered as the moment before which nobody asks again.
//! 3. Bounded in entries and in bytes: the oldest memory goes first, and at worst a call is made
//!    again. Calls under way are never forgotten; where they alone fill the book, no more begin.
//!
//! Pure; `now` and randomness are arguments.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use reliakit_circuit::State as CircuitState;

use super::Refreshed;
use super::backoff::{self, Admission, Breaker};
use super::flight::{Flight, Outcome};
use crate::clock::UnixMillis;
use crate::error::ErrorKind;

/// SHA-256 of a refresh token.
pub(super) type Key = [u8; 32];

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoLimit {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Book {
    limit: MemoLimit,
    entries: HashMap<Key, Entry>,
    /// Memories, oldest first, by the number of their entry; what has changed since is skipped.
    oldest: VecDeque<(Key, u64)>,
    remembered: usize,
    bytes: usize,
    written: u64,
    breaker: Breaker,
    /// When a call that pages found too slow succeeded last.
    slow_success: Option<UnixMillis>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    state: State,
    /// Failures in a row.
    failures: u32,
}

#[derive(Debug)]
enum State {
    /// `overdue`: for longer than a page waits.
    UnderWay {
        flight: Arc<Flight>,
        overdue: bool,
    },
    Answered {
        outcome: Outcome,
        until: UnixMillis,
    },
    Resting {
        outcome: Outcome,
        until: UnixMillis,
    },
}

/// How far a call got, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// It never left our queue, or ended with its runtime.
    NotAtAll,
    InTime,
    /// It took longer than pages wait, and [`slow`](Book::slow) was told.
    Slowly,
}

/// What there is to do about a token that is due.
#[derive(Debug)]
pub(super) enum Next {
    /// The outcome is known, or nobody asks now: then it is the failure that the rest is for.
    Known(Outcome),
    /// Somebody asks already.
    Join(Arc<Flight>),
    /// Ask, and [`land`](Book::land) what comes of it.
    Lead { flight: Arc<Flight>, probe: bool },
    /// Somebody asks already, and has waited too long for it: whoever comes next need not.
    Overdue,
    /// Nobody asks now: the operator is down.
    BreakerOpen,
    /// Nobody asks now: too many calls are under way.
    Full,
}

impl Book {
    pub(super) fn new(limit: MemoLimit) -> Self {
        Self {
            limit,
            entries: HashMap::new(),
            oldest: VecDeque::new(),
            remembered: 0,
            bytes: 0,
            written: 0,
            breaker: Breaker::default(),
            slow_success: None,
        }
    }

    /// What is known, without beginning anything.
    pub(super) fn known(&self, key: &Key, now: UnixMillis) -> Option<Outcome> {
        match &self.entries.get(key)?.state {
            State::Answered { outcome, until } | State::Resting { outcome, until } if now < *until => {
                Some(Arc::clone(outcome))
            }
            _ => None,
        }
    }

    /// What there is to do.
    pub(super) fn next(&mut self, key: &Key, now: UnixMillis) -> Next {
        if let Some(outcome) = self.known(key, now) {
            return Next::Known(outcome);
        }
        if let Some(Entry { state: State::UnderWay { flight, overdue }, .. }) = self.entries.get(key) {
            return if *overdue { Next::Overdue } else { Next::Join(Arc::clone(flight)) };
        }
        let under_way = self.entries.len() - self.remembered;
        if under_way >= self.limit.entries {
            return Next::Full;
        }
        let probe = match self.breaker.admit(now) {
            Admission::Call => false,
            Admission::Probe => true,
            Admission::Refused => return Next::BreakerOpen,
        };
        let failures = self.forget(key).map_or(0, |entry| entry.failures);
        let flight = Arc::new(Flight::default());
        self.write(*key, State::UnderWay { flight: Arc::clone(&flight), overdue: false }, failures);
        self.make_room(now);
        Next::Lead { flight, probe }
    }

    /// Notes what came of a call.
    pub(super) fn land(&mut self, key: &Key, outcome: &Outcome, call: Made, now: UnixMillis, chance: u32) {
        match call {
            // Time spent in our own queue says nothing of the operator.
            Made::NotAtAll => {}
            Made::InTime | Made::Slowly if !is_failure_of_the_operator(outcome) => {
                if call == Made::Slowly {
                    self.slow_success = Some(now);
                }
                self.breaker.success();
            }
            Made::InTime => self.breaker.failure(now),
            // It has been counted when it was found slow.
            Made::Slowly => {}
        }
        let failures = self.forget(key).map_or(0, |entry| entry.failures);
        let outcome = Arc::clone(outcome);
        if settles_the_token(&outcome) {
            self.write(*key, State::Answered { outcome, until: now.saturating_add(MEMO_FOR) }, 0);
        } else {
            let failures = failures.saturating_add(1);
            let until = now.saturating_add(backoff::rest(failures, chance));
            self.write(*key, State::Resting { outcome, until }, failures);
        }
        self.make_room(now);
    }

    /// A call takes longer than a page waits: as good as a failure to the pages, and so to the
    /// breaker, which otherwise would learn of a hanging operator too late. Unless slow calls have
    /// succeeded of late: then it is its way to be slow.
    pub(super) fn slow(&mut self, now: UnixMillis) {
        let is_its_way = self.slow_success.is_some_and(|last| now < last.saturating_add(SLOW_IS_ITS_WAY));
        // Of a probe it counts in any case: nothing else would end it.
        if !is_its_way || self.breaker() != CircuitState::Closed {
            self.breaker.failure(now);
        }
    }

    /// Whether the operator is believed to be there.
    pub(super) fn breaker(&self) -> CircuitState {
        self.breaker.state()
    }

    /// A call about this token has been under way, queued or made, for as long as a page waits.
    pub(super) fn overdue(&mut self, key: &Key) {
        if let Some(Entry { state: State::UnderWay { overdue, .. }, .. }) = self.entries.get_mut(key) {
            *overdue = true;
        }
    }

    fn write(&mut self, key: Key, state: State, failures: u32) {
        self.written += 1;
        let entry = Entry { number: self.written, state, failures };
        if let Some(bytes) = entry.state.remembered_bytes() {
            self.remembered += 1;
            self.bytes += bytes;
            self.oldest.push_back((key, entry.number));
        }
        self.entries.insert(key, entry);
    }

    fn forget(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        if let Some(bytes) = entry.state.remembered_bytes() {
            self.remembered -= 1;
            self.bytes -= bytes;
        }
        Some(entry)
    }

    /// Whether the queue is worth a sweep: a token that is written often leaves its old places behind.
    fn is_littered(&self) -> bool {
        self.oldest.len() > 2 * self.remembered + QUEUE_SLACK
    }

    /// Forgets what is over, and the oldest of the rest until the bounds are kept.
    fn make_room(&mut self, now: UnixMillis) {
        if self.is_littered() {
            let entries = &self.entries;
            self.oldest.retain(|(key, number)| entries.get(key).is_some_and(|entry| entry.number == *number));
        }
        while let Some((key, number)) = self.oldest.front().copied() {
            let goes = match self.entries.get(&key) {
                Some(entry) if entry.number == number => {
                    let full = self.entries.len() > self.limit.entries || self.bytes > self.limit.bytes;
                    full || entry.state.is_over(now)
                }
                // Written anew since, or gone.
                _ => {
                    self.oldest.pop_front();
                    continue;
                }
            };
            if !goes {
                return;
            }
            self.oldest.pop_front();
            self.forget(&key);
        }
    }
}

impl State {
    /// What a memory weighs; `None` for a call under way, which is none.
    fn remembered_bytes(&self) -> Option<usize> {
        match self {
            Self::UnderWay { .. } => None,
            Self::Answered { outcome, .. } | Self::Resting { outcome, .. } => Some(weight(outcome)),
        }
    }

    /// Whether a memory is of no more use. How often a token has failed in a row is of use a while
    /// longer than the rest that came of it.
    fn is_over(&self, now: UnixMillis) -> bool {
        match self {
            Self::UnderWay { .. } => false,
            Self::Answered { until, .. } => now >= *until,
            Self::Resting { until, .. } => now >= until.saturating_add(FAILURES_REMEMBERED),
        }
    }
}

/// Key, entry and queue place, and the texts of an identity.
fn weight(outcome: &Outcome) -> usize {
    let texts = match &**outcome {
        Ok(Refreshed::Identity(identity)) => {
            identity.advertising_token().len() + identity.refresh_token().expose_secret().len()
        }
        Ok(Refreshed::OptedOut) | Err(_) => 0,
    };
    size_of::<(Key, Entry)>() + size_of::<(Key, u64)>() + size_of::<Result<Refreshed, crate::EuidError>>() + texts
}

/// Any answer that parses, a refusal too, shows that the operator is there.
fn is_failure_of_the_operator(outcome: &Outcome) -> bool {
    matches!(&**outcome, Err(error) if matches!(error.kind(), ErrorKind::Transient | ErrorKind::Malformed))
}

/// Whether asking again about this token would be told the same.
fn settles_the_token(outcome: &Outcome) -> bool {
    match &**outcome {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::RejectedToken,
    }
}

/// Longer than a browser takes to bring the new cookie with its parallel requests.
pub(super) const MEMO_FOR: Duration = Duration::from_secs(45);
/// After a slow success, slow calls are not held against the operator.
const SLOW_IS_ITS_WAY: Duration = Duration::from_secs(60);
/// Stale places in the queue that are not worth a sweep.
const QUEUE_SLACK: usize = 64;
/// After the rest of the last failure.
const FAILURES_REMEMBERED: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::EuidError;
    use crate::identity::{Identity, IdentityTimes};

    const LIMIT: MemoLimit = MemoLimit { entries: 4, bytes: 1 << 20 };

    fn at(seconds: i64) -> UnixMillis {
        UnixMillis::from_millis(seconds * 1000)
    }

    fn opted_out() -> Outcome {
        Arc::new(Ok(Refreshed::OptedOut))
    }

    fn failed(kind: ErrorKind) -> Outcome {
        Arc::new(Err(EuidError::new(kind, "x")))
    }

    /// What `next` says, in a word.
    fn next(book: &mut Book, key: u8, now: i64) -> &'static str {
        match book.next(&[key; 32], at(now)) {
            Next::Known(_) => "known",
            Next::Join(_) => "join",
            Next::Lead { probe: false, .. } => "lead",
            Next::Lead { probe: true, .. } => "probe",
            Next::BreakerOpen => "refused",
            Next::Full => "full",
            Next::Overdue => "overdue",
        }
    }

    fn land(book: &mut Book, key: u8, outcome: &Outcome, now: i64) {
        book.land(&[key; 32], outcome, Made::InTime, at(now), u32::MAX);
    }

    #[test]
    fn one_leads_others_join_and_later_ones_know() {
        let mut book = Book::new(LIMIT);
        assert_eq!(next(&mut book, 1, 0), "lead");
        assert_eq!(next(&mut book, 1, 0), "join");
        assert_eq!(next(&mut book, 2, 0), "lead");
        land(&mut book, 1, &opted_out(), 0);
        assert_eq!(next(&mut book, 1, 44), "known");
        assert_eq!(next(&mut book, 1, 45), "lead");
    }

    #[test]
    fn nobody_joins_a_call_that_is_overdue_and_its_answer_is_known_all_the_same() {
        let mut book = Book::new(LIMIT);
        assert_eq!(next(&mut book, 1, 0), "lead");
        book.overdue(&[1; 32]);
        assert_eq!(next(&mut book, 1, 0), "overdue");
        land(&mut book, 1, &opted_out(), 0);
        assert_eq!(next(&mut book, 1, 0), "known");
        assert_eq!(next(&mut book, 1, 45), "lead");
        assert_eq!(next(&mut book, 1, 45), "join");
    }

    #[test]
    fn after_a_failure_nobody_asks_for_a_while_and_longer_after_the_next() {
        let mut book = Book::new(LIMIT);
        let mut now = 0;
        for rest in [5, 10, 20, 40] {
            assert_eq!(next(&mut book, 1, now), "lead");
            land(&mut book, 1, &failed(ErrorKind::Undecryptable), now);
            assert_eq!(next(&mut book, 1, now + rest - 1), "known");
            now += rest;
        }
        assert_eq!(next(&mut book, 1, now), "lead");
        land(&mut book, 1, &opted_out(), now);
        land(&mut book, 1, &failed(ErrorKind::Undecryptable), now);
        assert_eq!(next(&mut book, 1, now + 5), "lead", "a success ends the doubling");
    }

    #[test]
    fn a_rejection_is_remembered_as_an_answer_and_a_refusal_rests() {
        let mut book = Book::new(LIMIT);
        land(&mut book, 1, &failed(ErrorKind::RejectedToken), 0);
        land(&mut book, 2, &failed(ErrorKind::RejectedInput), 0);
        assert_eq!(next(&mut book, 1, 44), "known");
        assert_eq!(next(&mut book, 2, 4), "known");
        assert_eq!(next(&mut book, 2, 5), "lead");
    }

    #[test]
    fn only_silence_and_nonsense_open_the_breaker() {
        for (kind, expected) in [
            (ErrorKind::Transient, "refused"),
            (ErrorKind::Malformed, "refused"),
            (ErrorKind::RejectedInput, "lead"),
            (ErrorKind::RejectedToken, "lead"),
            (ErrorKind::Unauthorized, "lead"),
            (ErrorKind::Undecryptable, "lead"),
            (ErrorKind::UnknownStatus, "lead"),
        ] {
            let mut book = Book::new(MemoLimit { entries: 100, ..LIMIT });
            (1..=5).for_each(|key| land(&mut book, key, &failed(kind), 0));
            assert_eq!(next(&mut book, 9, 0), expected, "{kind:?}");
        }
    }

    #[test]
    fn a_slow_call_counts_once() {
        let mut book = Book::new(MemoLimit { entries: 100, ..LIMIT });
        for key in 1..=4 {
            book.slow(at(0));
            book.land(&[key; 32], &failed(ErrorKind::Transient), Made::Slowly, at(0), 0);
        }
        assert_eq!(next(&mut book, 9, 0), "lead");
        book.slow(at(0));
        assert_eq!(next(&mut book, 10, 0), "refused");
    }

    #[test]
    fn what_never_left_our_queue_says_nothing_of_the_operator() {
        let mut book = Book::new(MemoLimit { entries: 100, ..LIMIT });
        for key in 1..=20 {
            book.land(&[key; 32], &failed(ErrorKind::Transient), Made::NotAtAll, at(0), 0);
        }
        assert_eq!(next(&mut book, 90, 0), "lead");
    }

    #[test]
    fn an_operator_whose_slow_calls_succeed_is_not_given_up_for_being_slow() {
        let mut book = Book::new(MemoLimit { entries: 100, ..LIMIT });
        book.slow(at(0));
        book.land(&[1; 32], &opted_out(), Made::Slowly, at(1), 0);
        (0..20).for_each(|_| book.slow(at(60)));
        assert_eq!(next(&mut book, 90, 60), "lead");
        (0..5).for_each(|_| book.slow(at(61)));
        assert_eq!(next(&mut book, 91, 61), "refused");
    }

    #[test]
    fn a_probe_that_fails_slowly_is_followed_by_another() {
        let mut book = Book::new(MemoLimit { entries: 100, ..LIMIT });
        book.land(&[1; 32], &opted_out(), Made::Slowly, at(0), 0);
        (2..=6).for_each(|key| land(&mut book, key, &failed(ErrorKind::Transient), 0));
        assert_eq!(next(&mut book, 90, 5), "probe");
        book.slow(at(5));
        book.land(&[90; 32], &failed(ErrorKind::Transient), Made::Slowly, at(6), 0);
        assert_eq!(next(&mut book, 91, 9), "refused");
        assert_eq!(next(&mut book, 92, 11), "probe");
    }

    #[test]
    fn the_oldest_memory_goes_when_there_are_too_many() {
        let mut book = Book::new(LIMIT);
        (1..=5).for_each(|key| land(&mut book, key, &opted_out(), 0));
        assert_eq!(book.entries.len(), 4);
        assert!(book.known(&[1; 32], at(0)).is_none());
        assert!((2..=5).all(|key| book.known(&[key; 32], at(0)).is_some()));
    }

    #[test]
    fn a_memory_written_anew_is_not_the_oldest_any_more() {
        let mut book = Book::new(LIMIT);
        [1, 2, 1, 3, 4, 5].iter().for_each(|&key| land(&mut book, key, &opted_out(), 0));
        assert!(book.known(&[2; 32], at(0)).is_none());
        assert!(book.known(&[1; 32], at(0)).is_some());
    }

    #[test]
    fn the_oldest_memory_goes_when_it_weighs_too_much() {
        let each = weight(&opted_out());
        let mut book = Book::new(MemoLimit { entries: 100, bytes: 3 * each });
        (1..=4).for_each(|key| land(&mut book, key, &opted_out(), 0));
        assert_eq!((book.entries.len(), book.bytes), (3, 3 * each));
        assert!(book.known(&[1; 32], at(0)).is_none());
    }

    #[test]
    fn a_memory_weighs_what_it_keeps_and_little_more() {
        let times = IdentityTimes { refresh_from: at(0), identity_expires: at(0), refresh_expires: at(0) };
        let identity = Identity::new("a".repeat(1000), "r".repeat(100).into(), [0; 32].into(), times).unwrap();
        for (outcome, texts) in [(opted_out(), 0), (Arc::new(Ok(Refreshed::Identity(identity))), 1100)] {
            // The key stands in the queue and in the map.
            let kept = 2 * size_of::<Key>() + size_of::<Entry>() + size_of_val(&*outcome) + texts;
            let weight = weight(&outcome);
            assert!((kept..kept + 64).contains(&weight), "{weight} for {kept}");
        }
    }

    #[test]
    fn calls_under_way_are_not_forgotten_and_more_than_the_bound_do_not_begin() {
        let mut book = Book::new(LIMIT);
        land(&mut book, 9, &opted_out(), 0);
        for key in 1..=4 {
            assert_eq!(next(&mut book, key, 0), "lead");
        }
        assert!(book.known(&[9; 32], at(0)).is_none(), "memories make room for calls");
        assert_eq!(next(&mut book, 5, 0), "full");
        assert_eq!(next(&mut book, 1, 0), "join");
        land(&mut book, 1, &opted_out(), 0);
        assert_eq!(next(&mut book, 5, 0), "lead");
    }

    #[test]
    fn a_token_written_often_does_not_fill_the_queue_whenever_another_leaves_it() {
        for writes in 1..100 {
            let mut book = Book::new(LIMIT);
            land(&mut book, 1, &failed(ErrorKind::Undecryptable), 0);
            land(&mut book, 3, &opted_out(), 0);
            (0..writes).for_each(|_| land(&mut book, 2, &opted_out(), 0));
            assert_eq!(next(&mut book, 3, 45), "lead");
            (0..100).for_each(|_| land(&mut book, 2, &opted_out(), 45));
            assert!(book.oldest.len() <= 2 * 2 + QUEUE_SLACK, "{} after {writes}", book.oldest.len());
        }
    }

    #[test]
    fn a_token_written_often_costs_no_other_its_place_in_the_queue() {
        let mut book = Book::new(LIMIT);
        land(&mut book, 1, &opted_out(), 0);
        (0..100).for_each(|_| land(&mut book, 2, &opted_out(), 0));
        (3..=5).for_each(|key| land(&mut book, key, &opted_out(), 0));
        assert!(book.known(&[1; 32], at(0)).is_none());
        assert!((2..=5).all(|key| book.known(&[key; 32], at(0)).is_some()));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut book = Book::new(LIMIT);
        land(&mut book, 1, &opted_out(), 0);
        land(&mut book, 2, &failed(ErrorKind::Undecryptable), 0);
        land(&mut book, 3, &opted_out(), 100);
        assert_eq!(book.entries.len(), 2, "the answer is over, the failure is remembered");
        land(&mut book, 3, &opted_out(), 1000);
        assert_eq!((book.entries.len(), book.oldest.len()), (1, 1));
    }
}
