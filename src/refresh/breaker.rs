//! A circuit breaker for the operator, or for a store. It decides whether a call may be made at all.
//!
//! A closed breaker opens after [`FAILURES_TO_OPEN`] failures in a row. An open one refuses calls for its cooldown,
//! then lets one call pass, the probe. While the probe is under way the breaker is half open and refuses all other
//! calls; the outcome of the probe closes it or opens it again. A probe that reports nothing for [`PROBE_LOST_AFTER`]
//! is on a runtime that does not run, and another one takes its place.
//!
//! Pure; `now` is an argument.

use std::time::Duration;

use euid_core::clock::UnixMillis;

use super::backoff::{self, Span};

/// A circuit breaker, for an application that makes calls of its own to an operator on the path of a page, such as
/// [`EuidClient::generate`](crate::EuidClient::generate). The layer's own calls have theirs.
///
/// After five failures in a row it refuses calls for its cooldown. Then it lets one call pass, the probe, whose outcome
/// decides.
///
/// ```
/// use std::time::Duration;
/// use tower_euid::clock::UnixMillis;
/// use tower_euid::{Admission, Breaker};
///
/// let (mut breaker, at) = (Breaker::new(Duration::from_secs(5)), UnixMillis::from_millis);
/// for _ in 0..5 {
///     assert_eq!(breaker.admit(at(0)), Admission::Call);
///     breaker.failure(at(0), None);
/// }
/// assert_eq!(breaker.admit(at(4_999)), Admission::Refused);
/// assert_eq!(breaker.admit(at(5_000)), Admission::Probe);
/// assert_eq!(breaker.admit(at(5_001)), Admission::Refused); // the probe is under way
/// breaker.success();
/// assert_eq!(breaker.admit(at(5_002)), Admission::Call);
/// ```
#[derive(Debug)]
pub struct Breaker {
    position: Position,
    cooldown: Duration,
}

#[derive(Debug)]
enum Position {
    Closed {
        /// Failures in a row.
        failures: u32,
    },
    Open {
        cooldown: Span,
    },
    HalfOpen {
        probe: Span,
    },
}

/// The state of a breaker, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BreakerState {
    Closed,
    HalfOpen,
    Open,
}

impl BreakerState {
    /// Returns the name of the state in logs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Closed => "Closed",
            Self::HalfOpen => "HalfOpen",
            Self::Open => "Open",
        }
    }

    /// Returns the number of the state in the gauge.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// Whether a [`Breaker`] lets a call pass. Exhaustive: a breaker has these three answers.
///
/// ```
/// use tower_euid::Admission;
///
/// fn is_refused(admission: Admission) -> bool {
///     match admission {
///         Admission::Call | Admission::Probe => false,
///         Admission::Refused => true,
///     }
/// }
/// # assert!(is_refused(Admission::Refused) && !is_refused(Admission::Call));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may be made.
    Call,
    /// It may be made, and is the one call that tests whether the operator is back.
    Probe,
    /// It must not be made.
    Refused,
}

impl Breaker {
    /// A closed breaker that refuses calls for `cooldown` once it has opened.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_euid::clock::UnixMillis;
    /// use tower_euid::{Admission, Breaker};
    ///
    /// let mut breaker = Breaker::new(Duration::from_secs(5));
    /// assert_eq!(breaker.admit(UnixMillis::from_millis(0)), Admission::Call);
    /// ```
    #[must_use]
    pub fn new(cooldown: Duration) -> Self {
        Self { position: Position::Closed { failures: 0 }, cooldown }
    }

    /// Decides whether a call may be made. The outcome of a probe must be reported: until then all other calls are
    /// refused, at most for a minute.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_euid::clock::UnixMillis;
    /// # use tower_euid::{Admission, Breaker};
    /// # let (mut breaker, now) = (Breaker::new(Duration::from_secs(5)), UnixMillis::from_millis(0));
    /// if breaker.admit(now) != Admission::Refused {
    ///     // Call the operator, then:
    ///     breaker.success();
    /// }
    /// ```
    pub fn admit(&mut self, now: UnixMillis) -> Admission {
        match &self.position {
            Position::Closed { .. } => Admission::Call,
            Position::Open { cooldown: wait } | Position::HalfOpen { probe: wait } if wait.contains(now) => {
                Admission::Refused
            }
            Position::Open { .. } | Position::HalfOpen { .. } => {
                self.position = Position::HalfOpen { probe: Span::new(now, PROBE_LOST_AFTER) };
                Admission::Probe
            }
        }
    }

    /// Notes the success of a call. It also closes an open breaker, if the call was slow and began before the breaker
    /// opened.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_euid::clock::UnixMillis;
    /// # use tower_euid::{Admission, Breaker};
    /// # let (mut breaker, now) = (Breaker::new(Duration::from_secs(5)), UnixMillis::from_millis(0));
    /// (0..4).for_each(|_| breaker.failure(now, None));
    /// breaker.success(); // the next failure is the first again
    /// breaker.failure(now, None);
    /// assert_eq!(breaker.admit(now), Admission::Call);
    /// ```
    pub fn success(&mut self) {
        self.position = Position::Closed { failures: 0 };
    }

    /// Notes the failure of a call. `retry_after` is the operator's `Retry-After`, if it sent one: the breaker then stays
    /// open as long, but at most 5 min.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_euid::clock::UnixMillis;
    /// # use tower_euid::{Admission, Breaker};
    /// # let (mut breaker, at) = (Breaker::new(Duration::from_secs(5)), UnixMillis::from_millis);
    /// (0..5).for_each(|_| breaker.failure(at(0), Some(Duration::from_secs(60))));
    /// assert_eq!(breaker.admit(at(59_999)), Admission::Refused);
    /// ```
    pub fn failure(&mut self, now: UnixMillis, retry_after: Option<Duration>) {
        match &mut self.position {
            Position::Closed { failures } => {
                *failures += 1;
                if *failures >= FAILURES_TO_OPEN {
                    self.open(now, retry_after);
                }
            }
            Position::HalfOpen { .. } => self.open(now, retry_after),
            // A call that began before the breaker opened does not prolong the cooldown.
            Position::Open { .. } => {}
        }
    }

    /// Notes that a call was dropped. If it was the probe, the next call is: nothing was learnt.
    pub(crate) fn dropped(&mut self, now: UnixMillis) {
        if let Position::HalfOpen { .. } = self.position {
            self.position = Position::Open { cooldown: Span::new(now, Duration::ZERO) };
        }
    }

    /// Opens the breaker at once, without counting failures.
    pub(super) fn open(&mut self, now: UnixMillis, retry_after: Option<Duration>) {
        let length = self.cooldown.max(backoff::heeded(retry_after));
        self.position = Position::Open { cooldown: Span::new(now, length) };
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.position {
            Position::Closed { .. } => BreakerState::Closed,
            Position::HalfOpen { .. } => BreakerState::HalfOpen,
            Position::Open { .. } => BreakerState::Open,
        }
    }
}

const FAILURES_TO_OPEN: u32 = 5;
/// Far longer than a runtime that runs needs to find a probe slow.
const PROBE_LOST_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> UnixMillis {
        UnixMillis::from_millis(millis)
    }

    fn opened(now: i64, retry_after: Option<Duration>) -> Breaker {
        let mut breaker = Breaker::new(Duration::from_secs(5));
        (0..5).for_each(|_| breaker.failure(at(now), retry_after));
        breaker
    }

    #[test]
    fn breaker_opens_after_five_failures_in_a_row_and_not_before() {
        let mut breaker = Breaker::new(Duration::from_secs(5));
        for _ in 0..4 {
            breaker.failure(at(0), None);
        }
        breaker.success();
        for _ in 0..4 {
            breaker.failure(at(0), None);
            assert_eq!(breaker.admit(at(0)), Admission::Call);
        }
        breaker.failure(at(0), None);
        assert_eq!(breaker.admit(at(0)), Admission::Refused);
        assert_eq!(breaker.admit(at(4_999)), Admission::Refused);
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn half_open_breaker_lets_one_probe_pass_and_its_outcome_decides() {
        let mut breaker = opened(0, None);
        assert_eq!(breaker.admit(at(5_000)), Admission::Probe);
        assert_eq!(breaker.admit(at(5_000)), Admission::Refused);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.failure(at(6_000), None);
        assert_eq!(breaker.admit(at(10_999)), Admission::Refused);
        assert_eq!(breaker.admit(at(11_000)), Admission::Probe);
        breaker.success();
        assert_eq!(breaker.admit(at(11_000)), Admission::Call);
        assert_eq!(breaker.admit(at(11_000)), Admission::Call);
    }

    #[test]
    fn probe_without_an_outcome_is_followed_by_another_after_a_minute() {
        let mut breaker = opened(0, None);
        for probed in [5_000, 65_000, 125_000] {
            assert_eq!(breaker.admit(at(probed)), Admission::Probe);
            assert_eq!(breaker.admit(at(probed + 59_999)), Admission::Refused);
        }
    }

    #[test]
    fn open_breaker_closes_on_the_success_of_a_slow_call_and_ignores_its_failure() {
        let mut breaker = opened(0, None);
        breaker.failure(at(4_000), None);
        assert_eq!(breaker.admit(at(5_000)), Admission::Probe);
        let mut breaker = opened(0, None);
        breaker.success();
        assert_eq!(breaker.admit(at(0)), Admission::Call);
    }

    #[test]
    fn breaker_stays_open_for_the_last_retry_after_up_to_five_minutes() {
        let mut breaker = opened(0, Some(Duration::from_secs(60)));
        assert_eq!(breaker.admit(at(59_999)), Admission::Refused);
        assert_eq!(breaker.admit(at(60_000)), Admission::Probe);
        breaker.failure(at(60_000), Some(Duration::from_secs(3600)));
        assert_eq!(breaker.admit(at(359_999)), Admission::Refused);
        assert_eq!(breaker.admit(at(360_000)), Admission::Probe);
    }

    #[test]
    fn open_breaker_probes_at_once_after_the_clock_was_set_back() {
        let mut breaker = opened(7_200_000, None);
        assert_eq!(breaker.admit(at(0)), Admission::Probe);
    }
}
