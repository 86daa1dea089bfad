//! A layer inside another layer.
//!
//! 1. A clone of the layer outside lets the request pass.
//! 2. A different layer calls its own hooks. Their answers count if they are stricter than those of the layer outside:
//!    without consent the handler sees `Withheld`; if the identity is bound to a user and that user is not the one
//!    signed in, it sees `Absent`; `logout_when` is obeyed.
//! 3. The layer outside writes all state. It treats consent that is withdrawn inside as a logout, and gives
//!    scripts no token while consent is withheld inside.
//! 4. The other settings of a layer inside have no effect. It warns of that once.

use std::sync::Arc;

use euid_core::engine::{Change, RequestContext, UserCheck};
use euid_core::{AdvertisingToken, Consent, Euid, EuidLogoutHandle, Reason, Scope};
use http::{Extensions, Request, Response};

use crate::config::Config;
use crate::explain::Explanation;
use crate::hooks::{self, HookAnswers, HooksOf};
use crate::request::report_rejected;
use crate::telemetry;
use crate::update::EuidUpdate;

/// The additions of a layer inside another to a response: nothing, if it is known to be a clone.
#[derive(Default)]
pub(crate) struct Inner(Option<Stricter>);

/// A layer inside another that is not, or may not be, its clone.
struct Stricter {
    config: Arc<Config>,
    consent: Consent,
    logout: Option<EuidLogoutHandle>,
    /// Of a state that this layer has restricted, if the layer outside explains states.
    explanation: Option<Explanation>,
}

/// Restricts the state that the layer outside has shown to what the hooks of this layer allow.
pub(crate) fn enter<B>(config: &Arc<Config>, mut request: Request<B>) -> (Request<B>, Inner) {
    match layer_outside(request.extensions()) {
        Some(layer) if layer == config.layer_id() => return (request, Inner::default()),
        Some(_) => config.mistakes.inside_another(),
        // A layer with hooks would have left a mark.
        None if config.has_request_hooks => config.mistakes.inside_another(),
        None => {}
    }
    let logout = EuidLogoutHandle::of(request.extensions());
    let (mut consent, mut explanation) = (Consent::Granted, None);
    if config.has_request_hooks {
        let outside = request.extensions().get::<Consent>().copied();
        let answers;
        (request, answers) = hooks::answers(config, request);
        consent = answers.consent;
        if let Some(outside) = outside {
            request.extensions_mut().insert(stricter(outside, consent));
        }
        explanation = restrict(config, &mut request, &answers, logout.as_ref());
    }
    (request, Inner(Some(Stricter { config: Arc::clone(config), consent, logout, explanation })))
}

/// Returns the layer whose hooks were called last, or else the one that reads and writes the state. `None` if that one
/// left no mark: it has no hooks, and the request has a safe method and brings no state of the layer.
fn layer_outside(extensions: &Extensions) -> Option<usize> {
    let with_hooks = extensions.get::<HooksOf>().map(|HooksOf(layer)| *layer);
    with_hooks.or_else(|| EuidLogoutHandle::of(extensions)?.host_id())
}

fn stricter(one: Consent, other: Consent) -> Consent {
    match (one, other) {
        (Consent::Withdrawn, _) | (_, Consent::Withdrawn) => Consent::Withdrawn,
        (Consent::Withheld, _) | (_, Consent::Withheld) => Consent::Withheld,
        (Consent::Granted, Consent::Granted) => Consent::Granted,
    }
}

/// Removes the state that the handler must not see from the request. Returns the explanation of the state that it sees
/// instead, if the layer outside explains states.
fn restrict<B>(
    config: &Config,
    request: &mut Request<B>,
    answers: &HookAnswers,
    logout: Option<&EuidLogoutHandle>,
) -> Option<Explanation> {
    if let (Consent::Withdrawn, Some(logout)) = (answers.consent, logout) {
        logout.logout();
    }
    let shown = request.extensions().get::<Euid>()?;
    let barred = barred(config, request, answers, shown, logout);
    let (euid, why) = match (answers.consent, shown, barred) {
        (Consent::Withheld, Euid::OptedOut, None) => return None,
        (Consent::Withheld, ..) => (Euid::Withheld, Reason::ConsentWithheld),
        (Consent::Withdrawn, ..) => (Euid::Withheld, Reason::ConsentWithdrawn),
        (Consent::Granted, Euid::Withheld, _) | (Consent::Granted, _, None) => return None,
        (Consent::Granted, _, Some(why)) => (Euid::Absent, why),
    };
    let scope = scope_served(request.extensions(), shown).or(config.engine.scope());
    let explanation = Explanation::inside(config, request, scope, &euid, why);
    if let Some(explanation) = &explanation {
        explanation.show(request);
    }
    let extensions = request.extensions_mut();
    extensions.insert(euid);
    extensions.remove::<AdvertisingToken>();
    if let Some(logout) = logout {
        logout.withhold_token();
        extensions.insert(logout.clone());
    }
    explanation
}

/// Returns why the identity, or the opt-out, is not one to show, if it is bound to a user who is not signed in. One that this
/// layer can't open counts as bound to another user. So does one of a scope that this layer does not serve, and one in headers if
/// this layer reads cookies, or the other way round.
fn barred<B>(
    config: &Config,
    request: &Request<B>,
    answers: &HookAnswers,
    shown: &Euid,
    logout: Option<&EuidLogoutHandle>,
) -> Option<Reason> {
    if config.subject.is_none() || matches!(shown, Euid::Absent | Euid::Withheld) {
        return None;
    }
    let (own, served) = (config.engine.scope(), scope_served(request.extensions(), shown).or(answers.scope));
    if own.is_some() && served.is_some() && own != served {
        return Some(Reason::UnreadableInside);
    }
    if logout.is_some_and(|logout| !config.engine.looks_where_state_was(request.headers(), logout)) {
        return Some(Reason::UnreadableInside);
    }
    let context = RequestContext { scope: served, ..answers.context() };
    match config.engine.check_user(request.headers(), &context) {
        UserCheck::Same => None,
        UserCheck::Rejected(reason) => {
            report_rejected(config, own.or(served), reason);
            Some(reason.into())
        }
        // An opt-out in the JS SDK's own cookie is bound to no user.
        UserCheck::NoState if matches!(shown, Euid::OptedOut) => None,
        _ => Some(Reason::UnreadableInside),
    }
}

/// The scope that the layer outside has chosen, whatever the hook of this layer says.
fn scope_served(extensions: &Extensions, shown: &Euid) -> Option<Scope> {
    let of_token = shown.advertising_token().map(AdvertisingToken::scope);
    of_token.or_else(|| extensions.get().copied())
}

impl Inner {
    /// Adds the hooks' decisions to the response, for the layer outside.
    pub(crate) fn leave<R>(&self, mut response: Response<R>) -> Response<R> {
        let Some(Stricter { config, consent, logout, explanation }) = &self.0 else { return response };
        let is_logout = config.logout_when.as_ref().is_some_and(|hook| hooks::is_logout(&**hook, &mut response));
        let update = response.extensions().get::<EuidUpdate>();
        if let (Consent::Withheld, Some(update)) = (*consent, update) {
            update.withhold();
        }
        let unwanted = update.filter(|_| *consent == Consent::Withdrawn);
        let is_unwanted = unwanted.is_some();
        if unwanted.is_some_and(|update| matches!(update.change(), Change::Begin(_))) {
            telemetry::login_without_consent();
        }
        if let (true, Some(logout)) = (is_logout, logout) {
            // A layer between the two may replace this response; the logout in the handle stays.
            logout.logout();
        }
        if is_logout || is_unwanted {
            EuidUpdate::logout().attach(&mut response);
        }
        if let Some(explanation) = explanation {
            explanation.write_inside(response.headers_mut());
        }
        response
    }
}
