//! Events and metrics of the calls to a store. A call is "get", "put", or "end" for the end of a login.

use std::time::Duration;

use self::meter::{count, record, set, set_of};
use super::{CLOSED, TARGET, not_zero};
use crate::store::StoreError;

/// A call to the store has ended.
pub(crate) fn called(what: &'static str, took: Duration) {
    count_call(what, "ok", took);
}

/// A call to the store has failed, or was given up. A line a minute is a warning: with `left_out`, the number of those that were
/// not since the last one.
pub(crate) fn failed(what: &'static str, error: &StoreError, left_out: Option<u64>, took: Duration) {
    match left_out {
        Some(left_out) => {
            tracing::warn!(target: TARGET, call = what, %error, left_out = not_zero(left_out), "a call to the store failed");
        }
        None => tracing::debug!(target: TARGET, call = what, %error, "a call to the store failed"),
    }
    count_call(what, "failed", took);
}

fn count_call(what: &'static str, outcome: &'static str, took: Duration) {
    count("euid_store_calls_total", what, outcome);
    record("euid_store_duration_seconds", what, took.as_secs_f64());
}

/// No call was made to the store, because its breaker is open.
pub(crate) fn refused(what: &'static str) {
    count("euid_store_calls_total", what, "breaker_open");
}

/// The breaker for the store changed its state; `error` is the failure that opened it. A store that fails now and then opens it
/// often: only with `left_out` this is a warning.
pub(crate) fn breaker_moved(
    calls: &'static str,
    from: &'static str,
    to: &'static str,
    error: Option<&StoreError>,
    left_out: Option<u64>,
) {
    let error = error.map(tracing::field::display);
    match (left_out, to) {
        (Some(left_out), _) => {
            let left_out = not_zero(left_out);
            tracing::warn!(target: TARGET, %calls, %from, %to, error, left_out, "the store's breaker changed state");
        }
        (_, CLOSED) => tracing::info!(target: TARGET, %calls, %from, %to, error, "the store's breaker changed state"),
        _ => tracing::debug!(target: TARGET, %calls, %from, %to, error, "the store's breaker changed state"),
    }
}

/// The breaker for the store's reads or writes is in the state of this number. Called without a change too.
pub(crate) fn breaker_is(calls: &'static str, number: u8) {
    set_of("euid_store_breaker_state", calls, number.into());
}

/// This number of logins has ended without the store's knowledge; this node tries to tell it.
pub(crate) fn owes(number: usize) {
    set("euid_store_owed_ends", u32::try_from(number).unwrap_or(u32::MAX).into());
}

/// A login has ended without the store's knowledge, and this node can't keep any more such ends. `left_out` is the number
/// of lines like this that were left out before it, if it may be logged.
pub(crate) fn end_lost(left_out: Option<u64>) {
    if let Some(left_out) = left_out {
        tracing::warn!(
            target: TARGET,
            left_out,
            "the store did not confirm that a login has ended, and too many such ends are kept already: until its time, \
             the record can be used with a copy of the visitor's cookies"
        );
    }
    count("euid_store_calls_total", "end", "lost");
}

#[cfg(feature = "metrics")]
mod meter {
    pub(super) fn count(name: &'static str, call: &'static str, outcome: &'static str) {
        metrics::counter!(name, "call" => call, "outcome" => outcome).increment(1);
    }

    pub(super) fn record(name: &'static str, call: &'static str, value: f64) {
        metrics::histogram!(name, "call" => call).record(value);
    }

    pub(super) fn set_of(name: &'static str, calls: &'static str, value: f64) {
        metrics::gauge!(name, "calls" => calls).set(value);
    }

    pub(super) fn set(name: &'static str, value: f64) {
        metrics::gauge!(name).set(value);
    }
}

/// Counts nothing.
#[cfg(not(feature = "metrics"))]
mod meter {
    pub(super) fn count(_: &'static str, _: &'static str, _: &'static str) {}

    pub(super) fn record(_: &'static str, _: &'static str, _: f64) {}

    pub(super) fn set_of(_: &'static str, _: &'static str, _: f64) {}

    pub(super) fn set(_: &'static str, _: f64) {}
}
