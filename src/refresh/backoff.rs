//! When not to ask: after a failure of one token for a while, while the operator is down at all.
//!
//! Pure; `now` and randomness are arguments. The state machines are those of `reliakit-circuit` and
//! `reliakit-backoff`; what is added here is that a half-open breaker lets one probe pass, not all.

use std::mem;
use std::time::Duration;

use reliakit_backoff::{Backoff, equal_jitter};
use reliakit_circuit::{CircuitBreaker, State};

use crate::clock::UnixMillis;

/// How long one token rests after its `failures`-th failure in a row (from 1): 5 s, doubling to
/// 5 min, half of it by chance.
pub(super) fn rest(failures: u32, chance: u32) -> Duration {
    let delays = Backoff::exponential(FIRST_REST, 2).with_max_delay(LONGEST_REST);
    equal_jitter(delays.delay(failures.saturating_sub(1)).unwrap_or(LONGEST_REST), chance)
}

/// Whether the operator is worth asking at all. Opens after [`FAILURES_TO_OPEN`] consecutive
/// failures, lets one probe through after [`COOLDOWN`], closes when it succeeds.
#[derive(Debug)]
pub(super) struct Breaker {
    circuit: CircuitBreaker,
    /// A half-open breaker's probe is under way.
    probing: bool,
}

/// May a call be made?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Call,
    /// The one call that finds out whether the operator is back.
    Probe,
    Refused,
}

impl Breaker {
    pub(super) fn admit(&mut self, now: UnixMillis) -> Admission {
        let allowed = self.circuit.allow(millis(now));
        match self.circuit.state() {
            State::HalfOpen if mem::replace(&mut self.probing, true) => Admission::Refused,
            State::HalfOpen => Admission::Probe,
            State::Closed | State::Open if allowed => Admission::Call,
            State::Closed | State::Open => Admission::Refused,
        }
    }

    /// A success shows that the operator is there, also that of a call which pages found too slow.
    pub(super) fn success(&mut self) {
        self.probing = false;
        match self.circuit.state() {
            State::Open => self.circuit.reset(),
            State::Closed | State::HalfOpen => self.circuit.on_success(),
        }
    }

    pub(super) fn failure(&mut self, now: UnixMillis) {
        self.probing = false;
        self.circuit.on_failure(millis(now));
    }

    pub(super) fn state(&self) -> State {
        self.circuit.state()
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { circuit: CircuitBreaker::new(FAILURES_TO_OPEN, COOLDOWN), probing: false }
    }
}

fn millis(now: UnixMillis) -> u64 {
    now.as_millis().try_into().unwrap_or(0)
}

const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(300);
const FAILURES_TO_OPEN: u32 = 5;
/// In milliseconds.
const COOLDOWN: u64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> UnixMillis {
        UnixMillis::from_millis(millis)
    }

    #[test]
    fn a_token_rests_five_seconds_then_twice_as_long_up_to_five_minutes() {
        let longest: Vec<u64> = (1..=9).map(|failures| rest(failures, u32::MAX).as_secs_f64().round() as u64).collect();
        assert_eq!(longest, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        for failures in [1, 2, 3, 40, u32::MAX] {
            let (shortest, longest) = (rest(failures, 0), rest(failures, u32::MAX));
            assert!(shortest >= longest / 2 && shortest < longest, "{failures}: {shortest:?} {longest:?}");
        }
    }

    #[test]
    fn it_opens_after_five_failures_in_a_row_and_not_before() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker.failure(at(0));
        }
        breaker.success();
        for _ in 0..4 {
            breaker.failure(at(0));
            assert_eq!(breaker.admit(at(0)), Admission::Call);
        }
        breaker.failure(at(0));
        assert_eq!(breaker.admit(at(0)), Admission::Refused);
        assert_eq!(breaker.admit(at(4_999)), Admission::Refused);
    }

    #[test]
    fn half_open_it_lets_one_probe_through_and_its_outcome_decides() {
        let mut breaker = Breaker::default();
        (0..5).for_each(|_| breaker.failure(at(0)));
        assert_eq!(breaker.admit(at(5_000)), Admission::Probe);
        assert_eq!(breaker.admit(at(5_000)), Admission::Refused);
        breaker.failure(at(6_000));
        assert_eq!(breaker.admit(at(10_999)), Admission::Refused);
        assert_eq!(breaker.admit(at(11_000)), Admission::Probe);
        breaker.success();
        assert_eq!(breaker.admit(at(11_000)), Admission::Call);
        assert_eq!(breaker.admit(at(11_000)), Admission::Call);
    }

    #[test]
    fn the_success_of_a_slow_call_closes_it() {
        let mut breaker = Breaker::default();
        (0..5).for_each(|_| breaker.failure(at(0)));
        breaker.success();
        assert_eq!(breaker.admit(at(0)), Admission::Call);
    }
}
