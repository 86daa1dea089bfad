//! Events and metrics: one function per event, which logs it and, with the feature `metrics`, counts it.
//!
//! [`docs::metrics`](crate::docs::metrics) lists the names and their meanings. [`calls`] has what concerns calls to the operator,
//! [`store`] calls to a store. [`series`] adds the metrics before the first request, and [`spans`] is for traces.
//!
//! 1. No function here takes a token, a key, a cookie's value or an address, so none can log one.
//! 2. Labels are words of this crate, so their number is known.
//! 3. Without the feature a metric is an empty function: the hot path pays nothing.

mod calls;
pub(crate) mod series;
pub(crate) mod spans;
pub(crate) mod store;

use euid_core::engine::{RejectReason, WriteError};
use euid_core::{Euid, Reason, Scope};

pub(crate) use self::calls::*;
use self::meter::{count, count_by, count_request, record};

/// The handler of a request is called with this state. `transport` carried the request's state.
#[inline]
pub(crate) fn request(scope: Option<Scope>, transport: &'static str, euid: &Euid) {
    count_request(word(scope), euid.state(), transport);
}

/// A due page continues without a refresh, and none begins.
pub(crate) fn refresh_refused(why: Reason) {
    tracing::trace!(target: TARGET, why = why.as_str(), "a refresh is due but was not started");
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
            "the visitor's identity can't be used"
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
    let word = word_of_write_error(reason);
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
            "a login was not kept: the store did not confirm it, or its user has opted out"
        ),
        WriteError::NoSubject => tracing::warn!(
            target: TARGET,
            scope,
            reason = word,
            "a login or an opt-out was not kept: the store is by user, and it names none"
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

pub(crate) fn word_of_write_error(reason: WriteError) -> &'static str {
    match reason {
        WriteError::TooLarge => "too_large",
        WriteError::Expired => "expired",
        WriteError::NoRandomness => "no_randomness",
        WriteError::HeadersFull => "headers_full",
        WriteError::WrongScope => "wrong_scope",
        WriteError::NoScope => "no_scope",
        WriteError::NotStored => "not_stored",
        WriteError::NoSubject => "no_subject",
        _ => "other",
    }
}

/// A handler asks for a logout, the store is by user, and no user is signed in.
pub(crate) fn logout_without_user() {
    tracing::debug!(target: TARGET, "a logout found no signed-in user, so no login ended in the store");
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

/// An identity cookie opened under a key that is not the first.
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

/// A layer with a store by user and without the hook `subject` is applied.
pub(crate) fn store_without_subject() {
    tracing::warn!(
        target: TARGET,
        "the store is by user, and the hook `subject` is not set: the layer finds no user, so all visitors are absent"
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
const REQUESTS: &str = "euid_requests_total";
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

    pub(super) fn count_request(scope: &'static str, state: &'static str, transport: &'static str) {
        metrics::counter!(super::REQUESTS, "scope" => scope, "state" => state, "transport" => transport).increment(1);
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

    pub(super) fn count_request(_: &'static str, _: &'static str, _: &'static str) {}

    pub(super) fn record(_: &'static str, _: &'static str, _: f64) {}

    pub(super) fn set(_: &'static str, _: &'static str, _: f64) {}
}
