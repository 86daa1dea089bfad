//! "Why is there no token?": the reason for the visitor's state, for developers, if [`EuidLayer::explain`] is on.
//!
//! 1. The reason is that of the engine's decision. This module only shows it: in the extensions of the request, and in the
//!    header `Server-Timing` of the response.
//! 2. A text is made of fixed words. None comes from the request.
//! 3. The response becomes private, because the header says something of the visitor.
//!
//! [`EuidLayer::explain`]: crate::EuidLayer::explain

use std::fmt::Write;

use euid_core::engine::{Decision, Report};
use euid_core::{Euid, Reason, Scope, tcf};
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use crate::config::Config;
use crate::telemetry;

/// Why a handler sees a state.
#[derive(Clone, Copy)]
pub(crate) struct Explanation {
    scope: Option<Scope>,
    state: &'static str,
    reason: Reason,
}

impl Explanation {
    /// Returns the explanation of a decision on this request.
    pub(crate) fn of<B>(config: &Config, request: &Request<B>, decision: &Decision) -> Self {
        let reason = of_consent_string(config, decision.reason(), request.headers());
        Self { scope: decision.scope(), state: decision.euid().state(), reason }
    }

    /// Returns the explanation of what a layer inside another shows; `None` if the layer outside does not explain.
    pub(crate) fn inside<B>(
        config: &Config,
        request: &Request<B>,
        scope: Option<Scope>,
        euid: &Euid,
        reason: Reason,
    ) -> Option<Self> {
        request.extensions().get::<Reason>()?;
        let reason = of_consent_string(config, reason, request.headers());
        Some(Self { scope, state: euid.state(), reason })
    }

    /// Puts the reason into the extensions of the request.
    pub(crate) fn show<B>(&self, request: &mut Request<B>) {
        request.extensions_mut().insert(self.reason);
    }

    /// Adds the explanation of this layer to a response, with what the response has written.
    #[cold]
    pub(crate) fn write(&self, written: &Report, headers: &mut HeaderMap) {
        let mut text = self.begin();
        // Writing to a `String` can't fail.
        let _ = match (written.change, written.unwritten) {
            _ if written.login_without_consent => write!(text, "; login not written: consent withdrawn"),
            _ if written.logout_without_user => write!(text, "; logout without a user"),
            (Some(change), None) => write!(text, "; {change}"),
            (Some(change), Some(why)) => {
                write!(text, "; {change} not written: {}", telemetry::word_of_write_error(why))
            }
            (None, _) => Ok(()),
        };
        append(text, headers);
    }

    /// Adds the explanation of a layer inside another to a response.
    pub(crate) fn write_inside(&self, headers: &mut HeaderMap) {
        append(self.begin() + "; inner layer", headers);
    }

    /// Returns the value of the header without its closing quote.
    fn begin(&self) -> String {
        let Self { scope, state, reason } = self;
        // Without a scope it has the name of the default one.
        format!("{};desc=\"{state}; {reason}", scope.unwrap_or_default().as_str())
    }
}

/// Refines the reason for a state without consent: by the consent string, if the layer obeys that.
fn of_consent_string(config: &Config, reason: Reason, headers: &HeaderMap) -> Reason {
    match reason {
        Reason::ConsentWithheld | Reason::ConsentWithdrawn if config.obeys_tcf_cookie => {
            tcf::reason(headers).unwrap_or(reason)
        }
        _ => reason,
    }
}

fn append(mut text: String, headers: &mut HeaderMap) {
    text.push('"');
    if let Ok(value) = HeaderValue::try_from(text) {
        // A response with so many headers that there is no room goes without.
        let _ = headers.try_append(SERVER_TIMING, value);
    }
}

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
