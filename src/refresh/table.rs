//! Decides what a due request does: it uses a known outcome, joins a call, leads a new one, or does none of these.
//!
//! 1. At most one call at a time per refresh token, and per login, whichever of its tokens arrives.
//! 2. After an answer or a failure, no call for a while: [`memo`](super::memo) remembers the outcome.
//! 3. While the operator is down, no call: [`breaker`](super::breaker).
//! 4. Any script can forge a migrated identity. Calls for such identities hold at most a quarter of the permits. The
//!    breaker stops them, but never counts their outcome. Their failures hold at most a quarter of the memory.
//!
//! Pure; times and randomness are arguments.

use std::sync::Arc;
use std::time::Duration;

use euid_core::clock::UnixMillis;
use euid_core::error::ErrorKind;
use euid_core::identity::Identity;
use tokio::time::Instant;

use super::backoff::{self, Span};
use super::breaker::{Admission, Breaker, BreakerState};
use super::flight::{Flight, Outcome};
use super::memo::{Lineage, Memo, MemoLimit, RefreshKey};
use super::token_state::TokenState;

/// The origin of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A login on this site.
    Login,
    /// The cookie of the JS SDK, which any script can write.
    Migrated,
}

#[derive(Debug)]
pub(super) struct RefreshTable {
    memo: Memo,
    breaker: Breaker,
    /// How long a page waits.
    max_wait: Duration,
    /// How long a call may take.
    call_deadline: Duration,
    /// How many calls may be under way at once.
    max_concurrent: usize,
    /// How many calls under way are slow. Those for migrated identities are not counted.
    slow_calls: usize,
    /// How many calls for migrated identities are under way or queue.
    migrated_calls: usize,
    /// In this span slowness is no failure, as a slow call has succeeded shortly before.
    slow_is_normal: Option<Span>,
}

/// How far a call got, and how fast. It decides whether the breaker counts the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallProgress {
    /// The operator was not asked: the call never left this node's queue, the store had its outcome, or its runtime shut
    /// down.
    NotSent,
    /// The same, of a call that took longer than pages wait.
    SlowNotSent,
    /// The same, of a probe.
    ProbeNotSent,
    /// The call is for a migrated identity: the breaker never counts it, at any speed.
    Migrated,
    OnTime,
    /// The call took longer than pages wait. `counted`: the breaker has already counted that as a failure.
    Slow {
        counted: bool,
    },
}

/// The next step for a due request.
#[derive(Debug)]
pub(super) enum NextStep {
    /// The outcome is known. While a token backs off, the outcome is its failure.
    Known(Outcome),
    /// A call is under way.
    Join(Arc<Flight>),
    /// The request leads a new call, which must end in [`complete`](RefreshTable::complete).
    Lead { flight: Arc<Flight>, probe: bool },
    /// A call is under way, for longer than a page waits.
    Overdue,
    /// Another token of the same login is being refreshed, backs off, or was rejected just now.
    LoginBusy,
    /// The operator is down.
    BreakerOpen,
    /// Too many calls are under way.
    Full,
    /// Too many calls for migrated identities are under way.
    MigrationFull,
}

impl CallProgress {
    /// Returns the progress of the same call, if its outcome must not count for or against the operator.
    pub(super) fn undone(self, probe: bool) -> Self {
        match self {
            Self::OnTime if probe => Self::ProbeNotSent,
            Self::OnTime => Self::NotSent,
            // The breaker has opened again when the probe became slow.
            Self::Slow { .. } => Self::SlowNotSent,
            Self::Migrated | Self::NotSent | Self::SlowNotSent | Self::ProbeNotSent => self,
        }
    }
}

impl RefreshTable {
    pub(super) fn new(limit: MemoLimit, max_wait: Duration, call_deadline: Duration, max_concurrent: usize) -> Self {
        Self {
            memo: Memo::new(limit),
            breaker: Breaker::new(COOLDOWN),
            max_wait,
            call_deadline,
            max_concurrent,
            slow_calls: 0,
            migrated_calls: 0,
            slow_is_normal: None,
        }
    }

    /// Returns the outcome that is known without a call. An opt-out or a new pair applies to every token of its login;
    /// a failure or a rejection only to its own token.
    pub(super) fn known(&mut self, key: &RefreshKey, now: UnixMillis) -> Option<Outcome> {
        self.memo.sweep(now);
        let of_token = self.memo.of_token(key).and_then(|state| state.known(now));
        let of_lineage = || self.memo.of_lineage(key)?.known(now).filter(|outcome| outcome.is_ok());
        of_token.or_else(of_lineage).cloned()
    }

    /// Returns the next step. `steady` is the time of the runtime's clock, which measures the wait of pages.
    pub(super) fn next(&mut self, key: &RefreshKey, origin: Origin, now: UnixMillis, steady: Instant) -> NextStep {
        if let Some(outcome) = self.known(key, now) {
            return NextStep::Known(outcome);
        }
        // The age is compared here, not by a timer: on a blocked runtime the timer would be late too.
        let age = |begun: &Instant| steady.saturating_duration_since(*begun);
        // A lost call counts as none.
        let is_not_lost = |state: &&TokenState| match state {
            TokenState::UnderWay { begun, .. } => age(begun) < self.call_deadline.saturating_add(LOST_AFTER),
            TokenState::Answered { .. } | TokenState::BackingOff { .. } => true,
        };
        let of_token = self.memo.of_token(key).filter(is_not_lost);
        // The same entry as that of the token, if the token is the last one of its login.
        let of_login = self.memo.of_lineage(key).filter(is_not_lost);
        match (of_token, of_login) {
            (Some(TokenState::UnderWay { begun, .. }), _) if age(begun) >= self.max_wait => return NextStep::Overdue,
            (Some(TokenState::UnderWay { flight, .. }), _) => return NextStep::Join(Arc::clone(flight)),
            (_, Some(state)) if state.is_under_way() || state.known(now).is_some() => return NextStep::LoginBusy,
            _ => {}
        }
        if self.memo.is_full_of_calls() {
            return NextStep::Full;
        }
        let probe = match origin {
            Origin::Login => match self.breaker.admit(now) {
                Admission::Call => false,
                Admission::Probe => true,
                Admission::Refused => return NextStep::BreakerOpen,
            },
            // Not `admit`: a forged identity must not become the probe.
            Origin::Migrated if self.breaker() != BreakerState::Closed => return NextStep::BreakerOpen,
            Origin::Migrated if self.migrated_calls >= self.max_migrated() => return NextStep::MigrationFull,
            Origin::Migrated => {
                self.migrated_calls += 1;
                false
            }
        };
        let flight = Arc::new(Flight::default());
        self.memo.begin(*key, Arc::clone(&flight), steady, now);
        NextStep::Lead { flight, probe }
    }

    /// Completes a call: remembers its outcome and lets the breaker count it.
    pub(super) fn complete(
        &mut self,
        key: &RefreshKey,
        outcome: &Outcome,
        call: CallProgress,
        now: UnixMillis,
        chance: u32,
    ) {
        match call {
            CallProgress::Slow { .. } | CallProgress::SlowNotSent => {
                self.slow_calls = self.slow_calls.saturating_sub(1);
            }
            CallProgress::Migrated => self.migrated_calls = self.migrated_calls.saturating_sub(1),
            CallProgress::NotSent | CallProgress::ProbeNotSent | CallProgress::OnTime => {}
        }
        let retry_after = outcome.as_ref().as_ref().err().and_then(crate::EuidError::retry_after);
        match call {
            // Time in this node's queue, or what the store says, says nothing about the operator.
            CallProgress::NotSent | CallProgress::SlowNotSent => {}
            CallProgress::ProbeNotSent => self.breaker.dropped(now),
            // A forged identity says nothing about it either.
            CallProgress::Migrated => {}
            _ if !is_failure_of_the_operator(outcome) => {
                if let CallProgress::Slow { .. } = call {
                    self.slow_is_normal = Some(Span::new(now, SLOW_IS_NORMAL_FOR));
                }
                self.breaker.success();
            }
            CallProgress::Slow { counted: true } => {}
            CallProgress::OnTime | CallProgress::Slow { counted: false } => self.breaker.failure(now, retry_after),
        }
        match &**outcome {
            Err(error) if !matches!(error.kind(), ErrorKind::RejectedToken | ErrorKind::LoginEnded) => {
                let failures = self.memo.failures(key).saturating_add(1);
                let wait = backoff::backoff(failures, retry_after, chance);
                self.memo.failed(*key, error, wait, failures, now);
            }
            _ => self.memo.answered(*key, outcome, now),
        }
        if call == CallProgress::Migrated && outcome.is_err() {
            self.memo.limit_migrated_failure(key);
        }
    }

    /// Notes that a call takes longer than a page waits. Pages have no use for it, so the breaker counts it as a
    /// failure; otherwise it would open too late when the operator hangs. If slow calls have succeeded shortly before,
    /// this one counts only when it fails. Returns the progress with which the call must be completed.
    pub(super) fn slow(&mut self, now: UnixMillis) -> CallProgress {
        self.slow_calls += 1;
        let is_closed = self.breaker() == BreakerState::Closed;
        // While the breaker is not closed, a slow call always counts: otherwise a slow probe would keep it half-open
        // for long.
        let counted = !is_closed || self.slow_is_normal.is_none_or(|span| !span.contains(now));
        if counted && is_closed && self.slow_calls >= self.max_concurrent {
            // Every permit is held by a call that hangs, so no other call can be made and counted.
            self.breaker.open(now, None);
        } else if counted {
            self.breaker.failure(now, None);
        }
        CallProgress::Slow { counted }
    }

    /// Notes that a response has written this pair of a login.
    pub(super) fn delivered(&mut self, lineage: Lineage, pair: &Identity) {
        self.memo.delivered(lineage, pair);
    }

    pub(super) fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }

    /// Returns how many calls for migrated identities may be under way at once.
    fn max_migrated(&self) -> usize {
        (self.max_concurrent / MIGRATED_SHARE).max(1)
    }
}

/// Any answer that parses, even a refusal, shows that the operator is up.
fn is_failure_of_the_operator(outcome: &Outcome) -> bool {
    matches!(&**outcome, Err(error) if matches!(error.kind(), ErrorKind::Transient | ErrorKind::Malformed))
}

/// A call ends at its deadline. If it has not ended this long after it, its runtime does not run, and another call
/// takes its place.
const LOST_AFTER: Duration = Duration::from_secs(60);
/// How long no call is made once the operator is down.
const COOLDOWN: Duration = Duration::from_secs(5);
/// Calls for migrated identities hold at most one permit in this many.
const MIGRATED_SHARE: usize = 4;
/// How long after the success of a slow call slowness is no failure.
const SLOW_IS_NORMAL_FOR: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::fixtures::{LIMIT, at, key, opted_out};
    use super::*;
    use euid_core::error::EuidError;

    const LARGE: MemoLimit = MemoLimit { entries: 100, bytes: 1 << 20 };
    const MAX_WAIT: Duration = Duration::from_millis(500);
    const CALL_DEADLINE: Duration = Duration::from_secs(10);

    /// A table in a process that started when its wall clock was at 0.
    struct Process {
        table: RefreshTable,
        began: Instant,
    }

    impl Process {
        fn with(limit: MemoLimit, max_concurrent: usize) -> Self {
            Self {
                table: RefreshTable::new(limit, MAX_WAIT, CALL_DEADLINE, max_concurrent),
                began: crate::deadline::steady_now(),
            }
        }

        fn new(limit: MemoLimit) -> Self {
            Self::with(limit, 64)
        }

        fn next_of(&mut self, key: RefreshKey, seconds: i64) -> &'static str {
            self.next_at(key, at(seconds), self.steady(seconds))
        }

        fn next_at(&mut self, key: RefreshKey, now: UnixMillis, steady: Instant) -> &'static str {
            self.step(key, Origin::Login, now, steady)
        }

        /// Returns the step for a migrated identity.
        fn next_migrated(&mut self, token: u8, seconds: i64) -> &'static str {
            self.step(key(token), Origin::Migrated, at(seconds), self.steady(seconds))
        }

        fn steady(&self, seconds: i64) -> Instant {
            self.began + Duration::from_secs(seconds.try_into().unwrap_or_default())
        }

        /// Returns the step that `next` decides, as a word.
        fn step(&mut self, key: RefreshKey, origin: Origin, now: UnixMillis, steady: Instant) -> &'static str {
            match self.table.next(&key, origin, now, steady) {
                NextStep::Known(_) => "known",
                NextStep::Join(_) => "join",
                NextStep::Lead { probe: false, .. } => "lead",
                NextStep::Lead { probe: true, .. } => "probe",
                NextStep::BreakerOpen => "refused",
                NextStep::Full => "full",
                NextStep::MigrationFull => "migration full",
                NextStep::Overdue => "overdue",
                NextStep::LoginBusy => "busy",
            }
        }

        fn next(&mut self, token: u8, seconds: i64) -> &'static str {
            self.next_of(key(token), seconds)
        }

        fn complete(&mut self, token: u8, outcome: &Outcome, seconds: i64) {
            self.complete_with(token, outcome, CallProgress::OnTime, seconds);
        }

        fn complete_with(&mut self, token: u8, outcome: &Outcome, progress: CallProgress, seconds: i64) {
            self.table.complete(&key(token), outcome, progress, at(seconds), u32::MAX);
        }

        fn knows(&mut self, token: u8, seconds: i64) -> bool {
            self.table.known(&key(token), at(seconds)).is_some()
        }
    }

    /// Returns the key of another token of the same login.
    fn of_login(token: u8) -> RefreshKey {
        RefreshKey { lineage: Some([9; 16]), ..key(token) }
    }

    fn failed(kind: ErrorKind) -> Outcome {
        Arc::new(Err(EuidError::new(kind, "x")))
    }

    #[test]
    fn first_request_leads_parallel_ones_join_and_later_ones_know_the_outcome() {
        let mut process = Process::new(LIMIT);
        assert_eq!([1, 1, 2].map(|token| process.next(token, 0)), ["lead", "join", "lead"]);
        process.complete(1, &opted_out(), 0);
        assert_eq!(process.next(1, 44), "known");
        assert_eq!(process.next(1, 45), "lead");
    }

    #[test]
    fn expired_memory_is_forgotten_when_another_token_arrives() {
        let mut process = Process::new(LARGE);
        for token in 1..=9 {
            assert_eq!(process.next(token, 0), "lead");
            process.complete(token, &opted_out(), 0);
        }
        assert!(!process.knows(10, 44) && process.table.memo.len() == 9);
        assert!(!process.knows(10, 45) && process.table.memo.len() == 0, "no write is needed");
    }

    #[test]
    fn overdue_call_is_not_joined_and_its_answer_is_still_known() {
        let mut process = Process::new(LIMIT);
        assert_eq!(process.next(1, 0), "lead");
        let began = process.began;
        for (millis, next) in [(0, "join"), (499, "join"), (500, "overdue"), (7_000, "overdue")] {
            assert_eq!(process.next_at(key(1), at(0), began + Duration::from_millis(millis)), next, "{millis}");
        }
        process.complete(1, &opted_out(), 0);
        assert_eq!(process.next(1, 0), "known");
        assert_eq!([process.next(1, 45), process.next(1, 45)], ["lead", "join"]);
    }

    #[test]
    fn call_on_a_stopped_runtime_is_followed_by_another_a_minute_after_its_deadline() {
        for of_login in [false, true] {
            let lineage = of_login.then_some([9; 16]);
            let (first, other) = (RefreshKey { lineage, ..key(1) }, RefreshKey { lineage, ..key(2) });
            let mut process = Process::new(LIMIT);
            assert_eq!([process.next_of(first, 0), process.next_of(first, 69)], ["lead", "overdue"]);
            let next = if of_login { other } else { first };
            assert_eq!(process.next_of(next, 69), if of_login { "busy" } else { "overdue" });
            assert_eq!([process.next_of(next, 70), process.next_of(next, 70)], ["lead", "join"]);
        }
    }

    #[test]
    fn lost_call_of_a_login_is_followed_by_one_for_a_token_that_has_failed_before() {
        let mut process = Process::new(LARGE);
        let failed = failed(ErrorKind::Undecryptable);
        process.table.complete(&of_login(1), &failed, CallProgress::OnTime, at(0), u32::MAX);
        assert_eq!([process.next_of(of_login(2), 5), process.next_of(of_login(1), 74)], ["lead", "busy"]);
        assert_eq!(process.next_of(of_login(1), 75), "lead");
    }

    #[test]
    fn lost_call_of_a_token_is_not_repeated_beside_that_of_another_token_of_its_login() {
        let mut process = Process::new(LARGE);
        assert_eq!([process.next_of(of_login(1), 0), process.next_of(of_login(2), 70)], ["lead", "lead"]);
        assert_eq!(process.next_of(of_login(1), 70), "busy");
    }

    #[test]
    fn endless_waits_make_no_call_overdue() {
        let mut process = Process::new(LIMIT);
        (process.table.max_wait, process.table.call_deadline) = (Duration::MAX, Duration::MAX);
        assert_eq!([process.next(1, 0), process.next(1, 1_000_000)], ["lead", "join"]);
    }

    #[test]
    fn login_makes_one_call_at_a_time_for_all_its_tokens() {
        let mut process = Process::new(LARGE);
        assert_eq!(process.next_of(of_login(1), 0), "lead");
        for token in 2..50 {
            assert_eq!(process.next_of(of_login(token), 0), "busy");
        }
        assert_eq!(process.next_of(of_login(1), 0), "join");
        assert_eq!(process.next(60, 0), "lead", "another login");
    }

    #[test]
    fn opt_out_counts_for_every_token_of_its_login_and_a_rejection_for_its_own_alone() {
        let mut process = Process::new(LARGE);
        process.table.complete(&of_login(1), &opted_out(), CallProgress::OnTime, at(0), 0);
        assert_eq!([1, 2].map(|token| process.next_of(of_login(token), 44)), ["known", "known"]);
        assert_eq!(process.next_of(of_login(2), 45), "lead");
        for kind in [ErrorKind::RejectedToken, ErrorKind::RejectedInput] {
            let mut process = Process::new(LARGE);
            process.table.complete(&of_login(1), &failed(kind), CallProgress::OnTime, at(0), u32::MAX);
            assert_eq!([1, 2].map(|token| process.next_of(of_login(token), 4)), ["known", "busy"], "{kind:?}");
            assert_eq!(process.next_of(of_login(2), 45), "lead");
        }
    }

    #[test]
    fn login_that_changes_its_tokens_backs_off_as_one() {
        let mut process = Process::new(LARGE);
        let mut now = 0;
        for (token, wait) in [(1, 5), (2, 10), (3, 20)] {
            assert_eq!(process.next_of(of_login(token), now), "lead");
            process.table.complete(
                &of_login(token),
                &failed(ErrorKind::Undecryptable),
                CallProgress::OnTime,
                at(now),
                u32::MAX,
            );
            assert_eq!(process.next_of(of_login(9), now + wait - 1), "busy");
            now += wait;
        }
    }

    #[test]
    fn token_backs_off_after_a_failure_and_longer_after_the_next() {
        let mut process = Process::new(LIMIT);
        let mut now = 0;
        for wait in [5, 10, 20, 40] {
            assert_eq!(process.next(1, now), "lead");
            process.complete(1, &failed(ErrorKind::Undecryptable), now);
            assert_eq!(process.next(1, now + wait - 1), "known");
            now += wait;
        }
        assert_eq!(process.next(1, now), "lead");
        process.complete(1, &opted_out(), now);
        process.complete(1, &failed(ErrorKind::Undecryptable), now);
        assert_eq!(process.next(1, now + 5), "lead", "a success ends the doubling");
    }

    #[test]
    fn back_off_and_memory_end_when_the_clock_is_set_back() {
        let mut process = Process::new(LIMIT);
        process.complete(1, &failed(ErrorKind::Undecryptable), 7200);
        process.complete(2, &opted_out(), 7200);
        assert_eq!([1, 2].map(|token| process.next(token, 0)), ["lead", "lead"]);
    }

    #[test]
    fn rejection_is_remembered_as_an_answer_and_a_refusal_backs_off() {
        let mut process = Process::new(LIMIT);
        process.complete(1, &failed(ErrorKind::RejectedToken), 0);
        process.complete(2, &failed(ErrorKind::RejectedInput), 0);
        assert_eq!(process.next(1, 44), "known");
        assert_eq!(process.next(2, 4), "known");
        assert_eq!(process.next(2, 5), "lead");
    }

    #[test]
    fn retry_after_counts_for_the_token_and_for_the_breaker() {
        let busy = EuidError::new(ErrorKind::Transient, "busy").with_retry_after(Duration::from_secs(60));
        let busy = Arc::new(Err(busy));
        let mut process = Process::new(LARGE);
        process.complete(1, &busy, 0);
        assert_eq!([process.next(1, 59), process.next(1, 60)], ["known", "lead"]);
        (2..=6).for_each(|token| process.complete(token, &busy, 0));
        assert_eq!([process.next(9, 59), process.next(9, 60)], ["refused", "probe"]);
    }

    #[test]
    fn breaker_opens_after_transient_and_malformed_answers_only() {
        for (kind, expected) in [
            (ErrorKind::Transient, "refused"),
            (ErrorKind::Malformed, "refused"),
            (ErrorKind::RejectedInput, "lead"),
            (ErrorKind::RejectedToken, "lead"),
            (ErrorKind::Unauthorized, "lead"),
            (ErrorKind::Undecryptable, "lead"),
            (ErrorKind::WrongScope, "lead"),
            (ErrorKind::UnknownStatus, "lead"),
        ] {
            let mut process = Process::new(LARGE);
            (1..=5).for_each(|token| process.complete(token, &failed(kind), 0));
            assert_eq!(process.next(9, 0), expected, "{kind:?}");
        }
    }

    #[test]
    fn breaker_counts_a_slow_call_once() {
        let mut process = Process::new(LARGE);
        for token in 1..=4 {
            let progress = process.table.slow(at(0));
            assert_eq!(progress, CallProgress::Slow { counted: true });
            process.complete_with(token, &failed(ErrorKind::Transient), progress, 0);
        }
        assert_eq!(process.next(9, 0), "lead");
        process.table.slow(at(0));
        assert_eq!(process.next(10, 0), "refused");
    }

    #[test]
    fn breaker_ignores_calls_that_were_never_sent() {
        let mut process = Process::new(LARGE);
        (1..=20)
            .for_each(|token| process.complete_with(token, &failed(ErrorKind::Transient), CallProgress::NotSent, 0));
        assert_eq!(process.next(90, 0), "lead");
    }

    #[test]
    fn breaker_ignores_outcomes_of_calls_that_did_not_ask_the_operator() {
        let mut process = Process::new(LARGE);
        for token in 1..=4 {
            process.complete(token, &failed(ErrorKind::Transient), 0);
            process.complete_with(10 + token, &opted_out(), CallProgress::OnTime.undone(false), 0);
        }
        let progress = process.table.slow(at(0));
        assert_eq!(process.next(90, 0), "refused", "five in a row");
        process.complete_with(20, &opted_out(), progress.undone(false), 0);
        assert_eq!(process.next(91, 0), "refused");
        let mut process = Process::with(LARGE, 2);
        for _ in 0..10 {
            let progress = process.table.slow(at(0)).undone(false);
            process.complete_with(1, &opted_out(), progress, 0);
            process.table.breaker.success();
        }
        assert_eq!(process.next(90, 0), "lead", "a slow call that has ended holds no permit");
        process.table.slow(at(0));
        process.table.slow(at(0));
        assert_eq!(process.next(91, 0), "refused", "it has not excused other slow calls");
    }

    #[test]
    fn probe_that_did_not_ask_the_operator_is_followed_by_another_at_once() {
        let mut process = Process::new(LARGE);
        (1..=5).for_each(|token| process.complete(token, &failed(ErrorKind::Transient), 0));
        for (token, outcome) in [(11, failed(ErrorKind::Transient)), (12, opted_out())] {
            assert_eq!([process.next(token, 5), process.next(90, 5)], ["probe", "refused"]);
            process.complete_with(token, &outcome, CallProgress::OnTime.undone(true), 5);
        }
        assert_eq!(process.next(13, 5), "probe");
    }

    #[test]
    fn breaker_stays_closed_for_an_operator_whose_slow_calls_succeed() {
        let mut process = Process::new(LARGE);
        let progress = process.table.slow(at(0));
        process.complete_with(1, &opted_out(), progress, 1);
        (0..20).for_each(|_| _ = process.table.slow(at(60)));
        assert_eq!(process.next(90, 60), "lead");
        (0..5).for_each(|_| _ = process.table.slow(at(61)));
        assert_eq!(process.next(91, 61), "refused");
    }

    #[test]
    fn breaker_counts_an_excused_slow_call_when_it_fails() {
        for excuse in [opted_out(), failed(ErrorKind::RejectedToken)] {
            let mut process = Process::new(LARGE);
            let progress = process.table.slow(at(0));
            process.complete_with(1, &excuse, progress, 0);
            for token in 2..=6 {
                assert_eq!(process.next(90 + token, 10), "lead");
                let progress = process.table.slow(at(10));
                assert_eq!(progress, CallProgress::Slow { counted: false });
                process.complete_with(token, &failed(ErrorKind::Transient), progress, 10);
            }
            assert_eq!(process.next(80, 10), "refused");
        }
    }

    #[test]
    fn breaker_opens_when_every_permit_is_held_by_a_slow_call() {
        for permits in [1, 2, 4] {
            let mut process = Process::with(LARGE, permits);
            for slow in 1..=permits {
                assert_eq!(process.next(slow.try_into().unwrap(), 0), "lead");
                process.table.slow(at(0));
            }
            assert_eq!(process.next(90, 0), "refused", "{permits}");
            let mut process = Process::with(LARGE, permits);
            for _ in 0..10 {
                let progress = process.table.slow(at(0));
                process.complete_with(1, &opted_out(), progress, 0);
            }
            assert_eq!(process.next(90, 0), "lead", "a slow call that has ended holds no permit");
        }
    }

    #[test]
    fn probe_that_fails_slowly_is_followed_by_another() {
        let mut process = Process::new(LARGE);
        let progress = process.table.slow(at(0));
        process.complete_with(1, &opted_out(), progress, 0);
        (2..=6).for_each(|token| process.complete(token, &failed(ErrorKind::Transient), 0));
        assert_eq!(process.next(90, 5), "probe");
        let progress = process.table.slow(at(5));
        process.complete_with(90, &failed(ErrorKind::Transient), progress, 6);
        assert_eq!(process.next(91, 9), "refused");
        assert_eq!(process.next(92, 10), "probe", "5 s after the probe became slow, not after it failed");
    }

    #[test]
    fn breaker_counts_no_outcome_of_a_migrated_identity() {
        for outcome in [failed(ErrorKind::Transient), failed(ErrorKind::RejectedToken), opted_out()] {
            let mut process = Process::new(LARGE);
            for token in 1..=4 {
                process.complete(token, &failed(ErrorKind::Transient), 0);
            }
            for token in 11..=20 {
                assert_eq!(process.next_migrated(token, 0), "lead");
                process.complete_with(token, &outcome, CallProgress::Migrated, 0);
            }
            assert_eq!(process.next(91, 0), "lead", "four failures do not open it");
            process.complete(5, &failed(ErrorKind::Transient), 0);
            assert_eq!(process.next(92, 0), "refused", "a success in between would have reset the count");
        }
    }

    #[test]
    fn breaker_that_is_not_closed_stops_migrated_identities_and_none_becomes_its_probe() {
        let mut process = Process::new(LARGE);
        assert_eq!(process.next_migrated(21, 0), "lead");
        (1..=5).for_each(|token| process.complete(token, &failed(ErrorKind::Transient), 0));
        process.complete_with(21, &opted_out(), CallProgress::Migrated, 0);
        assert_eq!([process.next_migrated(22, 0), process.next_migrated(22, 5)], ["refused", "refused"]);
        assert_eq!([process.next(91, 5), process.next_migrated(22, 5)], ["probe", "refused"]);
        process.complete(91, &opted_out(), 5);
        assert_eq!(process.next_migrated(22, 5), "lead");
    }

    #[test]
    fn permits_of_migrated_identities_are_a_quarter_and_at_least_one() {
        for (permits, most) in [(1, 1), (3, 1), (4, 1), (7, 1), (8, 2), (64, 16)] {
            let mut process = Process::with(LARGE, permits);
            for token in 1..=most {
                assert_eq!(process.next_migrated(token, 0), "lead", "{permits}");
            }
            assert_eq!(process.next_migrated(90, 0), "migration full", "{permits}");
            assert_eq!([process.next_migrated(1, 0), process.next(91, 0)], ["join", "lead"], "{permits}");
            process.complete_with(1, &failed(ErrorKind::RejectedToken), CallProgress::Migrated, 0);
            assert_eq!([90, 92].map(|token| process.next_migrated(token, 0)), ["lead", "migration full"]);
        }
    }

    #[test]
    fn token_of_a_migrated_identity_backs_off() {
        let mut process = Process::new(LARGE);
        assert_eq!(process.next_migrated(1, 0), "lead");
        process.complete_with(1, &failed(ErrorKind::Transient), CallProgress::Migrated, 0);
        assert_eq!([4, 5].map(|seconds| process.next_migrated(1, seconds)), ["known", "lead"]);
    }

    #[test]
    fn calls_under_way_are_not_forgotten_and_none_starts_beyond_the_limit() {
        let mut process = Process::new(LIMIT);
        process.complete(9, &opted_out(), 0);
        for token in 1..=4 {
            assert_eq!(process.next(token, 0), "lead");
        }
        assert!(!process.knows(9, 0), "memories make room for calls");
        assert_eq!(process.next(5, 0), "full");
        assert_eq!(process.next(1, 0), "join");
        process.complete(1, &opted_out(), 0);
        assert_eq!(process.next(5, 0), "lead");
    }
}
