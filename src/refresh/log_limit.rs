//! A limit for a log line that visitors or an outage can cause: at most one a minute.
//!
//! Pure; `now` is an argument.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use euid_core::clock::UnixMillis;
use euid_core::error::ErrorKind;

use super::backoff::Span;

/// The limit of one kind of line.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    /// The minute after the last line.
    quiet: Option<Span>,
    left_out: u64,
}

impl LogLimit {
    /// Counts a line. If it may be logged, returns how many were left out since the last one that was.
    pub(crate) fn admit(&mut self, now: UnixMillis) -> Option<u64> {
        if self.quiet.is_some_and(|quiet| quiet.contains(now)) {
            self.left_out += 1;
            return None;
        }
        self.quiet = Some(Span::new(now, LOGGED_EVERY));
        Some(mem::take(&mut self.left_out))
    }
}

/// A limit for the failures of each kind, so that those of one kind hide no others.
#[derive(Debug, Default)]
pub(crate) struct LogLimits(HashMap<ErrorKind, LogLimit>);

impl LogLimits {
    /// As [`LogLimit::admit`].
    pub(crate) fn admit(&mut self, kind: ErrorKind, now: UnixMillis) -> Option<u64> {
        self.0.entry(kind).or_default().admit(now)
    }
}

const LOGGED_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::fixtures::at;
    use super::*;

    #[test]
    fn log_limit_admits_a_line_a_minute_with_the_number_of_those_left_out() {
        let mut limit = LogLimit::default();
        for (seconds, admitted) in
            [(0, Some(0)), (0, None), (59, None), (60, Some(2)), (119, None), (120, Some(1)), (500, Some(0))]
        {
            assert_eq!(limit.admit(at(seconds)), admitted, "{seconds}");
        }
    }

    #[test]
    fn log_limit_admits_a_line_after_the_clock_was_set_back() {
        let mut limit = LogLimit::default();
        assert_eq!([limit.admit(at(7200)), limit.admit(at(7200)), limit.admit(at(0))], [Some(0), None, Some(1)]);
    }
}
