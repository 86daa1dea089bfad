//! The part before the handler: shows the result of a decision to the handler, and reports findings.

use euid_core::engine::{Decision, Findings, Pending, RejectReason};
use euid_core::{Scope, tcf};
use http::Request;

use crate::config::Config;
use crate::explain::Explanation;
use crate::telemetry;

/// Starts a decision: counts the request, and puts the visitor's state into its extensions for the handler. Returns the
/// plan for the response.
pub(crate) fn start_decision<B>(config: &Config, request: &mut Request<B>, decision: Decision) -> Pending {
    let (scope, transport) = (decision.scope(), decision.transport());
    let (euid, pending) = decision.start();
    telemetry::request(scope, transport, &euid);
    // A layer further in reads this from the token or the handle: it lets the request pass if it is a clone.
    pending.set_host_id(config.layer_id());
    if let Some(token) = euid.advertising_token() {
        if token.scope() == Scope::Uid2 {
            // A consent banner of the TCF runs in the browsers of visitors in Europe.
            config.mistakes.found_uid2(|| !matches!(tcf::cookie(request.headers()), Ok(None)));
        }
        request.extensions_mut().insert(token.clone());
    } else if let Some(handle) = pending.logout() {
        // A logout is noted in the token; without one, in this handle.
        request.extensions_mut().insert(handle);
    }
    request.extensions_mut().insert(euid);
    pending
}

/// Starts a decision as [`start_decision`] does, and explains it to the handler if the layer does that. Also returns what
/// the response explains.
pub(crate) fn start_explained<B>(
    config: &Config,
    request: &mut Request<B>,
    decision: Decision,
) -> (Pending, Option<Box<Explanation>>) {
    if !config.explains {
        return (start_decision(config, request, decision), None);
    }
    let explanation = Explanation::of(config, request, &decision);
    let mut pending = start_decision(config, request, decision);
    explanation.show(request);
    pending.make_private();
    (pending, Some(Box::new(explanation)))
}

/// Logs and counts whether and how the state of a request was used.
#[inline]
pub(crate) fn report(config: &Config, scope: Option<Scope>, findings: Findings) {
    if findings.old_key {
        telemetry::cookie_of_old_key(scope);
    }
    if let Some(reason) = findings.rejected {
        report_rejected(config, scope, reason);
    }
}

/// Logs and counts why state was not used.
#[inline]
pub(crate) fn report_rejected(config: &Config, scope: Option<Scope>, reason: RejectReason) {
    telemetry::cookie_rejected(scope, reason);
    if reason == RejectReason::NoUser {
        config.mistakes.found_no_user();
    }
}
