//! Events and metrics: one function per event, which logs it and, with the feature `metrics`, counts it.
//!
//! [`docs::metrics`](crate::docs::metrics) lists the names and their meanings.
//!
//! 1. No function here takes a token, a key, a cookie's value or an address, so none can log one.
//! 2. Labels are words of this crate, so their number is known.
//! 3. Without the feature a metric is an empty function: the hot path pays nothing.

pub(crate) mod series;
pub(crate) mod spans;
pub(crate) mod store;

use std::time::Duration;

use euid_core::Euid;
#[cfg(feature = "client")]
use euid_core::Generated;
use euid_core::Refreshed;
use euid_core::Scope;
use euid_core::engine::{RejectReason, WriteError};
use euid_core::error::{ErrorKind, EuidError};

use self::meter::{count, count_by, record, set};

/// The handler of a request is called with this state.
#[inline]
pub(crate) fn request(scope: Option<Scope>, euid: &Euid) {
    count_by("euid_requests_total", word(scope), "state", euid.state());
}

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
fn not_zero(left_out: u64) -> Option<u64> {
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
    let scope = self::word(scope);
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

/// A due page continues without a refresh, and none begins.
pub(crate) fn refresh_refused(why: &'static str) {
    tracing::trace!(target: TARGET, why, "a refresh is due but was not started");
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

/// An identity cookie was not used.
pub(crate) fn cookie_rejected(scope: Option<Scope>, reason: RejectReason) {
    count_by(REJECTED_COOKIES, word(scope), "reason", word_of_rejection(reason));
    // Signed-out visitors are normal on a site that binds identities, so they are not logged.
    if reason != RejectReason::NoUser {
        tracing::debug!(
            target: TARGET,
            scope = word(scope),
            reason = word_of_rejection(reason),
            "the identity cookie can't be used"
        );
    }
}

fn word_of_rejection(reason: RejectReason) -> &'static str {
    match reason {
        RejectReason::UnknownKey => "unknown_key",
        RejectReason::Undecodable => "undecodable",
        RejectReason::Forged => "forged",
        RejectReason::LoginEnded => "anchor",
        RejectReason::UnreadableAnchor => "unreadable_anchor",
        RejectReason::OtherUser => "subject",
        RejectReason::NoUser => "no_user",
        RejectReason::WrongScope => "wrong_scope",
        _ => "other",
    }
}

/// An identity was written; `bytes` is the size of name and value.
pub(crate) fn cookie_written(scope: Option<Scope>, bytes: usize) {
    // No cookie is larger than 4096 bytes.
    record("euid_cookie_bytes", word(scope), u32::try_from(bytes).unwrap_or(u32::MAX).into());
}

/// A response could not write its cookies.
pub(crate) fn cookie_not_written(scope: Option<Scope>, reason: WriteError) {
    let word = match reason {
        WriteError::TooLarge => "too_large",
        WriteError::Expired => "expired",
        WriteError::NoRandomness => "no_randomness",
        WriteError::HeadersFull => "headers_full",
        WriteError::WrongScope => "wrong_scope",
        WriteError::NoScope => "no_scope",
        WriteError::NotStored => "not_stored",
        _ => "other",
    };
    let scope = self::word(scope);
    match reason {
        WriteError::WrongScope => tracing::error!(
            target: TARGET,
            scope,
            reason = word,
            "a login was not written: its tokens are of the other scope; check the operator's URL, key and scope"
        ),
        WriteError::NotStored => tracing::warn!(
            target: TARGET,
            scope,
            reason = word,
            "a login was not kept: the store did not confirm it, it has no subject, or its user has opted out"
        ),
        WriteError::NoScope => tracing::warn!(
            target: TARGET,
            scope,
            reason = word,
            "a login was not written: the hook of `EuidLayer::scope` chose no scope for its request"
        ),
        _ => tracing::warn!(target: TARGET, scope, reason = word, "a response could not write its cookies"),
    }
    if reason == WriteError::TooLarge {
        count_by(REJECTED_COOKIES, scope, "reason", word);
    }
}

/// A response has a login for a visitor who has withdrawn consent.
pub(crate) fn login_without_consent() {
    tracing::warn!(target: TARGET, "a login was not written: the visitor has withdrawn consent");
}

/// A response has a login without a subject, although the hook `subject` is set.
pub(crate) fn login_without_subject() {
    tracing::warn!(target: TARGET, "a login has no subject, so it is bound to no user");
}

/// A response with an update reached no layer.
pub(crate) fn update_lost() {
    tracing::warn!(target: TARGET, "an EuidUpdate was lost: its response did not reach an EuidLayer");
}

/// A client's clock differs from the operator's by `seconds`; it is `ahead` or `behind`.
#[cfg(feature = "client")]
pub(crate) fn clock_skewed(seconds: u64, direction: &'static str) {
    tracing::warn!(target: TARGET, seconds, direction, "this machine's clock differs from the operator's");
}

/// An identity cookie opened under a key that is not the newest.
pub(crate) fn cookie_of_old_key(scope: Option<Scope>) {
    count("euid_cookie_old_key_total", word(scope));
}

/// A response with an update passed a layer, as an earlier one with the same update did.
pub(crate) fn update_replayed() {
    tracing::warn!(
        target: TARGET,
        "an EuidUpdate arrived a second time: a cache inside the EuidLayer replays responses, or a handler attaches \
         clones of one update"
    );
}

/// The response has no room for the headers that keep caches from storing it.
pub(crate) fn cache_not_guarded() {
    tracing::warn!(target: TARGET, "a response has too many headers: caches may store it");
}

/// A request met a layer inside another layer, which is not its clone.
pub(crate) fn layer_inside_another() {
    tracing::warn!(
        target: TARGET,
        "an EuidLayer is inside another one that is not its clone: only its hooks count, and only where they are \
         stricter"
    );
}

/// A layer without the hook `subject` is applied, and its cookies have a `Domain`.
pub(crate) fn domain_without_subject() {
    tracing::warn!(
        target: TARGET,
        "the cookies are for a domain and its sub-domains, and the hook `subject` is not set: any of these hosts can \
         replace a visitor's cookies by those of another visitor"
    );
}

/// The hook `subject` has found no user for any identity so far.
pub(crate) fn bind_without_user(identities: u32) {
    tracing::warn!(
        target: TARGET,
        identities,
        "the hook `subject` has never found a signed-in user: the session layer must be outside of the EuidLayer"
    );
}

/// A layer with both scopes and without the hook `subject` is applied.
pub(crate) fn both_scopes_without_subject() {
    tracing::warn!(
        target: TARGET,
        "the layer serves both scopes, and the hook `subject` is not set: a login in one scope does not end another \
         person's login in the other scope"
    );
}

/// A request with an identity of UID2 brings a consent string of the TCF, which is for visitors in Europe.
pub(crate) fn uid2_with_tcf_string() {
    tracing::warn!(
        target: TARGET,
        "a visitor with an identity of UID2 brings a TCF consent string, as visitors in Europe do: is the scope right?"
    );
}

#[inline]
fn word(scope: Option<Scope>) -> &'static str {
    scope.map_or("none", Scope::as_str)
}

/// The target of all events.
const TARGET: &str = "tower_euid";
/// The state of a breaker that lets all calls pass.
const CLOSED: &str = "Closed";
const REFRESHES: &str = "euid_refresh_total";
const REJECTED_COOKIES: &str = "euid_cookie_rejected_total";

/// The functions of the `metrics` facade, with static text only.
#[cfg(feature = "metrics")]
mod meter {
    pub(super) fn count(name: &'static str, scope: &'static str) {
        metrics::counter!(name, "scope" => scope).increment(1);
    }

    pub(super) fn count_by(name: &'static str, scope: &'static str, label: &'static str, value: &'static str) {
        metrics::counter!(name, "scope" => scope, label => value).increment(1);
    }

    pub(super) fn record(name: &'static str, scope: &'static str, value: f64) {
        metrics::histogram!(name, "scope" => scope).record(value);
    }

    pub(super) fn set(name: &'static str, scope: &'static str, value: f64) {
        metrics::gauge!(name, "scope" => scope).set(value);
    }
}

/// Counts nothing.
#[cfg(not(feature = "metrics"))]
mod meter {
    pub(super) fn count(_: &'static str, _: &'static str) {}

    pub(super) fn count_by(_: &'static str, _: &'static str, _: &'static str, _: &'static str) {}

    pub(super) fn record(_: &'static str, _: &'static str, _: f64) {}

    pub(super) fn set(_: &'static str, _: &'static str, _: f64) {}
}
