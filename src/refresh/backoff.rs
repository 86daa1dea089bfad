//! How long a token waits after a failure.
//!
//! Pure; `now` and randomness are arguments.

use std::time::Duration;

use euid_core::clock::UnixMillis;

/// A span of the wall clock, which can be set back while the span lasts.
///
/// A span that begins in the future was made before the clock was set back, and has ended. Otherwise a clock that was
/// set back by two hours would make a wait of five seconds last two hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    from: UnixMillis,
    until: UnixMillis,
}

impl Span {
    pub(super) fn new(from: UnixMillis, length: Duration) -> Self {
        Self { from, until: from.saturating_add(length) }
    }

    pub(super) fn contains(&self, now: UnixMillis) -> bool {
        self.from <= now.saturating_add(CLOCK_STEP) && now < self.until
    }

    /// Returns the same span with a later end.
    pub(super) fn extended(self, by: Duration) -> Self {
        Self { until: self.until.saturating_add(by), ..self }
    }
}

/// Returns how long one token waits after its `failures`-th failure in a row (from 1): 5 s, doubling to 5 min, half of
/// it random. At least as long as the operator's `Retry-After` says, but not above 5 min.
pub(super) fn backoff(failures: u32, retry_after: Option<Duration>, chance: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(MOST_DOUBLINGS);
    let longest = (FIRST_BACKOFF * (1 << doublings)).min(LONGEST_BACKOFF);
    let half = longest / 2;
    // This is `chance` / 2^32 of the other half.
    let random = Duration::from_nanos(((half.as_nanos() * u128::from(chance)) >> u32::BITS) as u64);
    (half + random).max(heeded(retry_after))
}

/// Returns the part of a `Retry-After` that counts.
pub(super) fn heeded(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or_default().min(LONGEST_BACKOFF)
}

const FIRST_BACKOFF: Duration = Duration::from_secs(5);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// 5 s doubled six times is above the longest.
const MOST_DOUBLINGS: u32 = 6;
/// Threads read the clock in one order and take the lock in another, and clocks are adjusted by small steps: a step
/// back of this size ends no span.
const CLOCK_STEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_is_five_seconds_then_doubles_up_to_five_minutes() {
        let longest: Vec<u64> =
            (1..=9).map(|failures| backoff(failures, None, u32::MAX).as_secs_f64().round() as u64).collect();
        assert_eq!(longest, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        for failures in [1, 2, 3, 40, u32::MAX] {
            let (shortest, longest) = (backoff(failures, None, 0), backoff(failures, None, u32::MAX));
            assert!(shortest >= longest / 2 && shortest < longest, "{failures}: {shortest:?} {longest:?}");
        }
    }

    #[test]
    fn backoff_obeys_retry_after_up_to_five_minutes_and_is_never_shortened_by_it() {
        let seconds = |retry_after| backoff(1, Some(Duration::from_secs(retry_after)), 0).as_millis();
        assert_eq!([0, 1, 60, 300, 301, u64::MAX].map(seconds), [2_500, 2_500, 60_000, 300_000, 300_000, 300_000]);
    }

    #[test]
    fn span_ends_after_its_length_and_when_the_clock_is_set_back_too_far_before_it() {
        let at = |seconds: i64| UnixMillis::from_millis(seconds * 1000);
        let span = Span::new(at(7200), Duration::from_secs(10));
        for (now, contained) in [(7200, true), (7209, true), (7210, false), (7195, true), (7194, false), (0, false)] {
            assert_eq!(span.contains(at(now)), contained, "{now}");
        }
        assert!(span.extended(Duration::from_secs(1)).contains(at(7210)));
    }
}
