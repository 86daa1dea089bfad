//! The part after the handler: takes out its update, and lets the engine write the response's state.
//!
//! A logout arrives by four routes. Two are read here and become the requested [`Change`]:
//!
//! 1. the [`EuidUpdate`] in the response, from the handler or from a layer further in ([`nested`](crate::nested));
//! 2. the hook `logout_when`.
//!
//! [`Engine::finish`] reads the other two, so that every host obeys them:
//!
//! 3. the `EuidLogoutHandle`, through the note that [`Pending`] keeps;
//! 4. the header `Clear-Site-Data`.
//!
//! Any of them takes precedence over a login.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use euid_core::engine::{Change, Engine, Finish, Pending, Report, Save, Watch};
use http::{HeaderMap, Response, StatusCode};

use crate::config::Config;
use crate::explain::Explanation;
use crate::hooks;
use crate::records;
use crate::telemetry;
use crate::update::EuidUpdate;

/// Returns whether [`finish`] has nothing to do for the response of a hot future, which is the usual case.
pub(crate) fn is_untouched<R>(config: &Config, response: &Response<R>, watch: &Watch) -> bool {
    config.logout_when.is_none()
        && watch.is_blank()
        && response.extensions().get::<EuidUpdate>().is_none()
        && !Engine::may_be_logout(response.headers())
}

/// A response that waits for the store.
pub(crate) struct Saving<R> {
    config: Arc<Config>,
    /// Taken out once the store has answered.
    response: Option<R>,
    save: records::Saving,
    explanation: Option<Box<Explanation>>,
}

/// Takes the handler's update out of its response, writes the state, and sets the headers that restrict caches. Or returns
/// what goes to the store first.
#[inline]
pub(crate) fn finish<R>(
    config: &Config,
    response: &mut Response<R>,
    pending: Pending,
    explanation: Option<&Explanation>,
) -> Result<(), records::Saving> {
    let is_logout = config.logout_when.as_ref().is_some_and(|hook| hooks::is_logout(&**hook, response));
    let update = EuidUpdate::take_from(response.extensions_mut());
    let status = response.status();
    finish_headers(config, update, is_logout, pending, explanation, status, response.headers_mut())
}

/// Lets the engine write the headers, and passes on its report. Or begins to tell the store first.
fn finish_headers(
    config: &Config,
    update: Option<EuidUpdate>,
    is_logout: bool,
    mut pending: Pending,
    explanation: Option<&Explanation>,
    status: StatusCode,
    headers: &mut HeaderMap,
) -> Result<(), records::Saving> {
    if update.as_ref().is_some_and(EuidUpdate::is_withheld) {
        pending.withhold_token();
    }
    let requested = if is_logout { Some(&Change::EndLogin) } else { update.as_ref().map(EuidUpdate::change) };
    match config.engine.finish(pending, requested, status, headers, || config.now()) {
        Finish::Done(written) => report(config, &written, explanation, headers),
        Finish::Save(save) => match &config.records {
            Some(records) => match records.save(save) {
                Ok(saving) => return Err(saving),
                Err(save) => finish_saved(config, save, explanation, headers),
            },
            // Never: the layer has a store if the engine has one.
            None => finish_saved(config, save, explanation, headers),
        },
    }
    Ok(())
}

/// Lets the engine write the headers after the store's answers.
fn finish_saved(config: &Config, save: Box<Save>, explanation: Option<&Explanation>, headers: &mut HeaderMap) {
    let written = config.engine.saved(save, headers, || config.now());
    report(config, &written, explanation, headers);
}

impl<R> Saving<Response<R>> {
    pub(crate) fn new(
        config: &Arc<Config>,
        response: Response<R>,
        save: records::Saving,
        explanation: Option<Box<Explanation>>,
    ) -> Self {
        Self { config: Arc::clone(config), response: Some(response), save, explanation }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<R>> {
        let saved = ready!(Pin::new(&mut self.save).poll(cx));
        let Some(mut response) = self.response.take() else {
            // This is unreachable: the response is returned at once.
            return Poll::Pending;
        };
        if let Some(saved) = saved {
            finish_saved(&self.config, saved, self.explanation.as_deref(), response.headers_mut());
        }
        Poll::Ready(response)
    }
}

/// Logs and counts what a response wrote, and explains it.
#[inline]
fn report(config: &Config, written: &Report, explanation: Option<&Explanation>, headers: &mut HeaderMap) {
    if let Some(explanation) = explanation {
        explanation.write(written, headers);
    }
    if let Some(renewal) = &written.renewed {
        // The browser has this pair now, so the coordinator need not keep it until it is due.
        let scope = written.scope.unwrap_or_default();
        config.coordinator(scope).delivered(*renewal.login.lineage().as_bytes(), &renewal.identity);
    }
    if written.logout_without_user {
        telemetry::logout_without_user();
    }
    if written.login_without_consent {
        telemetry::login_without_consent();
    }
    if written.login_without_subject && config.subject.is_some() {
        telemetry::login_without_subject();
    }
    written.identity_bytes.into_iter().for_each(|bytes| telemetry::cookie_written(written.scope, bytes));
    if let Some(reason) = written.unwritten {
        telemetry::cookie_not_written(written.scope, reason);
    }
    if written.unguarded {
        telemetry::cache_not_guarded();
    }
}
