//! The series of all metrics, from the start: a description, a unit, and 0 for each value of the labels.
//!
//! A scraper that sees a counter for the first time at 1 sees no increase, so an alert would miss the first failure. A layer
//! adds its series when it is applied to a service for the first time, a client when it is built. No request does.

use std::sync::atomic::{AtomicBool, Ordering};

use euid_core::Scope;

/// Whether a layer has added its series. A clone with other settings adds its own.
#[derive(Default)]
pub(crate) struct Added(AtomicBool);

impl Added {
    /// Calls `add` the first time.
    pub(crate) fn once(&self, add: impl FnOnce()) {
        if cfg!(feature = "metrics") && !self.0.swap(true, Ordering::Relaxed) {
            add();
        }
    }
}

impl Clone for Added {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Adds the series of a layer with these scopes; those of headers only if it takes headers.
pub(crate) fn add_layer(scopes: &[Scope], has_headers: bool) {
    meter::describe(&LAYER);
    let transports: &[_] = if has_headers { &["cookies", "headers"] } else { &["cookies"] };
    for scope in scopes.iter().map(|scope| scope.as_str()) {
        requests(scope, transports);
        counters(super::REFRESHES, scope, "outcome", &REFRESH_OUTCOMES);
        counters(super::REJECTED_COOKIES, scope, "reason", &REASONS);
        meter::counter("euid_refresh_coalesced_total", &[("scope", scope)]);
        meter::counter("euid_cookie_old_key_total", &[("scope", scope)]);
        meter::histogram("euid_refresh_duration_seconds", &[("scope", scope)]);
        meter::histogram("euid_cookie_bytes", &[("scope", scope)]);
        meter::gauge("euid_breaker_state", &[("scope", scope)]);
    }
    if scopes.len() > 1 {
        // Requests for which the hook chooses no scope.
        requests(super::word(None), transports);
    }
}

/// Adds the series of a layer's store.
pub(crate) fn add_store() {
    meter::describe(&STORE);
    for call in ["get", "put", "end"] {
        for outcome in ["ok", "failed", "breaker_open"] {
            meter::counter("euid_store_calls_total", &[("call", call), ("outcome", outcome)]);
        }
        meter::histogram("euid_store_duration_seconds", &[("call", call)]);
    }
    meter::counter("euid_store_calls_total", &[("call", "end"), ("outcome", "lost")]);
    for calls in ["reads", "writes"] {
        meter::gauge("euid_store_breaker_state", &[("calls", calls)]);
    }
    meter::gauge("euid_store_owed_ends", &[]);
}

/// Adds the series of a client that can generate identities.
#[cfg(feature = "client")]
pub(crate) fn add_client(scope: Option<Scope>) {
    let scope = super::word(scope);
    meter::describe(&CLIENT);
    counters("euid_generate_total", scope, "outcome", &GENERATE_OUTCOMES);
    meter::histogram("euid_generate_duration_seconds", &[("scope", scope)]);
}

fn requests(scope: &'static str, transports: &[&'static str]) {
    for transport in transports {
        for state in STATES {
            meter::counter(super::REQUESTS, &[("scope", scope), ("state", state), ("transport", transport)]);
        }
    }
}

fn counters(name: &'static str, scope: &'static str, label: &'static str, values: &[&'static str]) {
    for value in values {
        meter::counter(name, &[("scope", scope), (label, value)]);
    }
}

/// A metric: its name, its unit and its description.
type Metric = (&'static str, Unit, &'static str);

#[derive(Clone, Copy)]
enum Unit {
    /// Of events, in a counter.
    Count,
    /// In a histogram.
    Seconds,
    /// In a histogram.
    Bytes,
    /// A number, in a gauge.
    Level,
}

const LAYER: [Metric; 8] = [
    (super::REQUESTS, Unit::Count, "Requests whose handler was called, by the state that it saw and its transport"),
    (super::REFRESHES, Unit::Count, "Finished refreshes by outcome, and due pages whose refresh was refused"),
    (
        "euid_refresh_duration_seconds",
        Unit::Seconds,
        "Time from the page that starts a refresh to the end of the refresh",
    ),
    ("euid_refresh_coalesced_total", Unit::Count, "Due pages that joined a refresh that was under way"),
    (super::REJECTED_COOKIES, Unit::Count, "Identity cookies that could not be used or could not be written"),
    ("euid_cookie_old_key_total", Unit::Count, "Identity cookies that opened under a key other than the first"),
    ("euid_cookie_bytes", Unit::Bytes, "Size of name and value of each identity cookie that was written"),
    ("euid_breaker_state", Unit::Level, "The breaker for the operator: 0 closed, 1 half-open, 2 open"),
];
const STORE: [Metric; 4] = [
    ("euid_store_calls_total", Unit::Count, "Calls to the store, and those that were not made"),
    ("euid_store_duration_seconds", Unit::Seconds, "Time of a call to the store"),
    ("euid_store_breaker_state", Unit::Level, "A breaker for the store: 0 closed, 1 half-open, 2 open"),
    ("euid_store_owed_ends", Unit::Level, "Logins that have ended, which the store does not know yet"),
];
#[cfg(feature = "client")]
const CLIENT: [Metric; 2] = [
    ("euid_generate_total", Unit::Count, "Calls of EuidClient::generate, by outcome"),
    ("euid_generate_duration_seconds", Unit::Seconds, "Time of a call of EuidClient::generate"),
];

const STATES: [&str; 5] = ["absent", "active", "opted_out", "unavailable", "withheld"];
const REFRESH_OUTCOMES: [&str; 9] =
    ["refreshed", "optout", "rejected", "ended", "timeout", "failed", "not_made", "breaker_open", "migration_limit"];
#[cfg(feature = "client")]
const GENERATE_OUTCOMES: [&str; 6] =
    ["generated", "optout", "insufficient_consent", "rejected_input", "unauthorized", "failed"];
const REASONS: [&str; 9] = [
    "unknown_key",
    "undecodable",
    "forged",
    "anchor",
    "unreadable_anchor",
    "subject",
    "no_user",
    "wrong_scope",
    "too_large",
];

#[cfg(feature = "metrics")]
mod meter {
    use metrics::Label;

    use super::{Metric, Unit};

    pub(super) fn describe(all: &[Metric]) {
        for (name, unit, text) in all {
            match unit {
                Unit::Count => metrics::describe_counter!(*name, metrics::Unit::Count, *text),
                Unit::Seconds => metrics::describe_histogram!(*name, metrics::Unit::Seconds, *text),
                Unit::Bytes => metrics::describe_histogram!(*name, metrics::Unit::Bytes, *text),
                Unit::Level => metrics::describe_gauge!(*name, metrics::Unit::Count, *text),
            }
        }
    }

    pub(super) fn counter(name: &'static str, labels: &[(&'static str, &'static str)]) {
        drop(metrics::counter!(name, of(labels)));
    }

    pub(super) fn histogram(name: &'static str, labels: &[(&'static str, &'static str)]) {
        drop(metrics::histogram!(name, of(labels)));
    }

    pub(super) fn gauge(name: &'static str, labels: &[(&'static str, &'static str)]) {
        drop(metrics::gauge!(name, of(labels)));
    }

    fn of(labels: &[(&'static str, &'static str)]) -> Vec<Label> {
        labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect()
    }
}

/// Adds nothing.
#[cfg(not(feature = "metrics"))]
mod meter {
    use super::Metric;

    pub(super) fn describe(_: &[Metric]) {}

    pub(super) fn counter(_: &'static str, _: &[(&'static str, &'static str)]) {}

    pub(super) fn histogram(_: &'static str, _: &[(&'static str, &'static str)]) {}

    pub(super) fn gauge(_: &'static str, _: &[(&'static str, &'static str)]) {}
}
