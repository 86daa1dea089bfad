//! The part before the handler: puts the result of a decision into the request's extensions.

use euid_core::engine::{Decision, Findings, Pending, RejectReason};
use http::Extensions;

use crate::config::Config;
use crate::telemetry;

/// Puts the visitor's state into the request for the handler. Returns the data that the response half needs.
pub(crate) fn insert_extensions(config: &Config, extensions: &mut Extensions, decision: Decision) -> Pending {
    let (euid, pending) = decision.start();
    telemetry::request(&euid);
    pending.set_host_id(config.id());
    if let Some(token) = euid.advertising_token() {
        extensions.insert(token.clone());
    } else if let Some(logout) = pending.logout() {
        extensions.insert(logout);
    }
    extensions.insert(euid);
    pending
}

/// Logs and counts whether and how the state of a request was used.
pub(crate) fn report(config: &Config, findings: Findings) {
    if findings.old_key {
        telemetry::cookie_of_old_key();
    }
    if let Some(reason) = findings.rejected {
        report_rejected(config, reason);
    }
}

/// Logs and counts why state was not used.
#[inline]
pub(crate) fn report_rejected(config: &Config, reason: RejectReason) {
    telemetry::cookie_rejected(reason);
    if reason == RejectReason::NoUser {
        config.mistakes.found_no_user();
    }
}
