//! Events and metrics of the calls to an operator: refreshes, logins, and the breaker that stops calls.

use std::time::Duration;

#[cfg(feature = "client")]
use euid_core::Generated;
use euid_core::error::{ErrorKind, EuidError};
use euid_core::{Refreshed, Scope};

use super::meter::{count, count_by, record, set};
use super::{CLOSED, REFRESHES, TARGET};

/// How a call to the operator ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Answered,
    /// Without a call: another node makes it, or the store was not there.
    NotMade,
    /// At its deadline.
    Deadline,
    Panicked,
    /// With its runtime, which shut down.
    Dropped,
}

/// A call to the operator has completed. `took` is the time since a page started it.
pub(crate) fn refresh_ended(scope: Scope, ending: Ending, outcome: &Result<Refreshed, EuidError>, took: Duration) {
    let scope = scope.as_str();
    let word = match (ending, outcome) {
        (Ending::Answered, _) | (_, Ok(_)) => word_of_refresh(outcome),
        (_, Err(error)) => word_of_failure(ending, error),
    };
    match (ending, outcome) {
        (Ending::Panicked, _) => tracing::error!(target: TARGET, scope, outcome = word, "a refresh panicked"),
        (Ending::NotMade, Err(error)) => {
            tracing::debug!(target: TARGET, scope, outcome = word, %error, "this node did not ask the operator");
        }
        (Ending::Dropped, _) => {
            tracing::debug!(target: TARGET, scope, outcome = word, "a refresh ended with its runtime, which is shutting down");
        }
        (_, Ok(Refreshed::Identity(_))) => {
            tracing::debug!(target: TARGET, scope, outcome = word, "an identity was refreshed");
        }
        (_, Ok(Refreshed::OptedOut)) => {
            tracing::debug!(target: TARGET, scope, outcome = word, "a refresh found the person opted out");
        }
        (_, Err(error)) if error.kind() == ErrorKind::RejectedToken => {
            tracing::info!(target: TARGET, scope, outcome = word, %error, "the operator rejected a refresh token");
        }
        (_, Err(error)) if error.kind() == ErrorKind::LoginEnded => {
            tracing::debug!(target: TARGET, scope, outcome = word, "a login had ended before its refresh, as the store says");
        }
        // `refresh_failed` has all others.
        (_, Err(_)) => {}
    }
    count_refresh(scope, word, took);
}

/// A call has failed. During an outage all do, so only some are logged: with `left_out`, the number of those of its kind that
/// were not since the last one that was.
pub(crate) fn refresh_failed(scope: Scope, ending: Ending, error: &EuidError, left_out: Option<u64>, took: Duration) {
    let scope = scope.as_str();
    let word = word_of_failure(ending, error);
    if let Some(left_out) = left_out {
        let (kind, left_out) = (error.kind(), not_zero(left_out));
        tracing::warn!(target: TARGET, scope, outcome = word, ?kind, %error, left_out, "an identity could not be refreshed");
    }
    count_refresh(scope, word, took);
}

/// The value of the field `left_out`, which a line has only if others were left out.
pub(super) fn not_zero(left_out: u64) -> Option<u64> {
    (left_out > 0).then_some(left_out)
}

/// A call for a migrated identity has failed. Any script can cause that, so only some are logged: with `left_out`, the
/// number of those that were not since the last one that was.
pub(crate) fn migrated_refresh_failed(
    scope: Scope,
    ending: Ending,
    error: &EuidError,
    left_out: Option<u64>,
    took: Duration,
) {
    let scope = scope.as_str();
    let word = word_of_failure(ending, error);
    if let Some(left_out) = left_out {
        let kind = error.kind();
        match (ending, kind) {
            (Ending::Panicked, _) => {
                tracing::error!(target: TARGET, scope, outcome = word, left_out, "a refresh of a migrated identity panicked");
            }
            (Ending::Dropped, _) => tracing::debug!(
                target: TARGET,
                scope,
                outcome = word,
                left_out,
                "a refresh of a migrated identity ended with its runtime, which is shutting down"
            ),
            (_, ErrorKind::RejectedToken | ErrorKind::RejectedInput) => tracing::info!(
                target: TARGET, scope, outcome = word, ?kind, %error, left_out, "the operator rejected a migrated identity"
            ),
            _ => tracing::warn!(
                target: TARGET, scope, outcome = word, ?kind, %error, left_out, "a migrated identity could not be refreshed"
            ),
        }
    }
    count_refresh(scope, word, took);
}

pub(crate) fn word_of_refresh(outcome: &Result<Refreshed, EuidError>) -> &'static str {
    match outcome {
        Ok(Refreshed::Identity(_)) => "refreshed",
        Ok(Refreshed::OptedOut) => "optout",
        Err(error) => word_of_failure(Ending::Answered, error),
    }
}

fn word_of_failure(ending: Ending, error: &EuidError) -> &'static str {
    match ending {
        Ending::Deadline => "timeout",
        Ending::NotMade => "not_made",
        Ending::Answered if error.kind() == ErrorKind::RejectedToken => "rejected",
        Ending::Answered if error.kind() == ErrorKind::LoginEnded => "ended",
        Ending::Answered | Ending::Panicked | Ending::Dropped => "failed",
    }
}

fn count_refresh(scope: &'static str, outcome: &'static str, took: Duration) {
    count_by(REFRESHES, scope, "outcome", outcome);
    record("euid_refresh_duration_seconds", scope, took.as_secs_f64());
}

/// A login has asked the operator for an identity. `took` is the time until the answer, or until the client gave up. A failure
/// is logged only with `left_out`, as that of a refresh.
#[cfg(feature = "client")]
pub(crate) fn generated(
    scope: Option<Scope>,
    outcome: &Result<Generated, EuidError>,
    left_out: Option<u64>,
    took: Duration,
) {
    let scope = super::word(scope);
    let word = word_of_generate(outcome);
    match outcome {
        Ok(_) => tracing::debug!(target: TARGET, scope, outcome = word, "the operator answered to a login"),
        // The visitor's mistake.
        Err(error) if error.kind() == ErrorKind::RejectedInput => {
            tracing::info!(target: TARGET, scope, outcome = word, %error, "the operator rejected the data of a login");
        }
        Err(error) => {
            if let Some(left_out) = left_out {
                let (kind, left_out) = (error.kind(), not_zero(left_out));
                tracing::warn!(
                    target: TARGET, scope, outcome = word, ?kind, %error, left_out, "no identity could be generated for a login"
                );
            }
        }
    }
    count_by("euid_generate_total", scope, "outcome", word);
    record("euid_generate_duration_seconds", scope, took.as_secs_f64());
}

#[cfg(feature = "client")]
pub(crate) fn word_of_generate(outcome: &Result<Generated, EuidError>) -> &'static str {
    match outcome {
        Ok(Generated::Identity(_)) => "generated",
        Ok(Generated::OptedOut) => "optout",
        Ok(Generated::InsufficientConsent) => "insufficient_consent",
        Ok(_) => "other",
        Err(error) => match error.kind() {
            ErrorKind::RejectedInput => "rejected_input",
            ErrorKind::Unauthorized => "unauthorized",
            _ => "failed",
        },
    }
}

#[cfg(feature = "client")]
pub(crate) fn word_of_validate(outcome: &Result<bool, EuidError>) -> &'static str {
    match outcome {
        Ok(true) => "valid",
        Ok(false) => "not_valid",
        Err(_) => "failed",
    }
}

/// A due page made no call to the operator, because the breaker is open.
pub(crate) fn breaker_refused(scope: Scope) {
    count_by(REFRESHES, scope.as_str(), "outcome", "breaker_open");
}

/// A due page with a migrated identity made no call to the operator, because too many such calls are under way.
pub(crate) fn migration_refused(scope: Scope) {
    count_by(REFRESHES, scope.as_str(), "outcome", "migration_limit");
}

/// A new pair had been due for a refresh for `due_by` when it arrived. Called once per layer.
pub(crate) fn refreshed_pair_is_due(scope: Scope, due_by: Duration) {
    let scope = scope.as_str();
    let due_by_seconds = due_by.as_secs();
    tracing::warn!(
        target: TARGET,
        scope,
        due_by_seconds,
        "a new pair is already due when it arrives: this machine's clock is ahead of the operator's, by that much or more"
    );
}

/// A due page joined a call that was under way.
pub(crate) fn refresh_joined(scope: Scope) {
    count("euid_refresh_coalesced_total", scope.as_str());
}

/// The breaker for the operator changed its state. `error` is the failure that caused it. Only the beginning of an outage is a
/// warning: while it lasts, each probe moves the breaker twice.
pub(crate) fn breaker_moved(scope: Scope, from: &'static str, to: &'static str, error: Option<&EuidError>) {
    let (scope, error) = (scope.as_str(), error.map(tracing::field::display));
    match (from, to) {
        (CLOSED, _) => tracing::warn!(target: TARGET, scope, %from, %to, error, "the operator's breaker changed state"),
        (_, CLOSED) => tracing::info!(target: TARGET, scope, %from, %to, error, "the operator's breaker changed state"),
        _ => tracing::debug!(target: TARGET, scope, %from, %to, error, "the operator's breaker changed state"),
    }
}

/// The breaker is in the state of this number. Called without a change too, so that the gauge exists before the first
/// failure.
pub(crate) fn breaker_is(scope: Scope, number: u8) {
    set("euid_breaker_state", scope.as_str(), number.into());
}

/// A client's clock differs from the operator's by `seconds`; it is `ahead` or `behind`.
#[cfg(feature = "client")]
pub(crate) fn clock_skewed(seconds: u64, direction: &'static str) {
    tracing::warn!(target: TARGET, seconds, direction, "this machine's clock differs from the operator's");
}
