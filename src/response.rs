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

use euid_core::engine::{Change, Engine, Finish, Pending, Watch};
use http::{HeaderMap, Response, StatusCode};

use crate::config::Config;
use crate::hooks;
use crate::telemetry;
use crate::update::EuidUpdate;

/// Returns whether [`finish`] has nothing to do for the response of a hot future, which is the usual case.
pub(crate) fn is_untouched<R>(config: &Config, response: &Response<R>, watch: &Watch) -> bool {
    config.logout_when.is_none()
        && watch.is_blank()
        && response.extensions().get::<EuidUpdate>().is_none()
        && !Engine::may_be_logout(response.headers())
}

/// Takes the handler's update out of its response, writes the state, and sets the headers that restrict caches.
#[inline]
pub(crate) fn finish<R>(config: &Config, mut response: Response<R>, pending: Pending) -> Response<R> {
    let mut is_logout = false;
    if let Some(hook) = &config.logout_when {
        (response, is_logout) = hooks::is_logout(&**hook, response);
    }
    let update = EuidUpdate::take_from(response.extensions_mut());
    let status = response.status();
    finish_headers(config, update, is_logout, pending, status, response.headers_mut());
    response
}

/// Lets the engine write the headers, and passes on its report.
fn finish_headers(
    config: &Config,
    update: Option<EuidUpdate>,
    is_logout: bool,
    mut pending: Pending,
    status: StatusCode,
    headers: &mut HeaderMap,
) {
    if update.as_ref().is_some_and(EuidUpdate::is_withheld) {
        pending.withhold_token();
    }
    let requested = if is_logout { Some(&Change::EndLogin) } else { update.as_ref().map(EuidUpdate::change) };
    let finish = config.engine.finish(pending, requested, status, headers, || config.now());
    if let Some(renewal) = &finish.renewed {
        // The browser has this pair now, so the coordinator need not keep it until it is due.
        let scope = finish.scope.unwrap_or_default();
        config.coordinator(scope).delivered(*renewal.login.lineage().as_bytes(), &renewal.identity);
    }
    report(config, &finish);
}

/// Logs and counts what a response wrote.
#[inline]
fn report(config: &Config, finish: &Finish) {
    if finish.login_without_consent {
        telemetry::login_without_consent();
    }
    if finish.login_without_subject && config.subject.is_some() {
        telemetry::login_without_subject();
    }
    finish.identity_bytes.into_iter().for_each(|bytes| telemetry::cookie_written(finish.scope, bytes));
    if let Some(reason) = finish.unwritten {
        telemetry::cookie_not_written(finish.scope, reason);
    }
    if finish.unguarded {
        telemetry::cache_not_guarded();
    }
}
