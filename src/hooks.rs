//! The hooks `scope`, `consent`, `subject`, `refresh_when` and `logout_when`: the application's answers about a request or
//! response.
//!
//! Hooks see `Parts`, and a request or response must be moved to get them. Without hooks it is not moved.

use std::mem;

use euid_core::engine::{RequestContext, SignedIn};
use euid_core::{Consent, Euid, Scope};
use http::{Request, Response};

use crate::config::{Config, LogoutWhen};

/// The answers of the hooks `scope`, `subject` and `consent` for a request.
pub(crate) struct HookAnswers {
    pub(crate) consent: Consent,
    user: UserAnswer,
    /// Which scope serves the request, in a layer with both.
    pub(crate) scope: Option<Scope>,
}

/// The answer of the hook `subject`: [`SignedIn`], with an id of its own.
enum UserAnswer {
    /// The hook is not set.
    Unchecked,
    NoUser,
    /// The user's id in the application.
    SignedIn(Box<[u8]>),
}

/// The layer whose hooks were called last, in the extensions of a request.
#[derive(Clone, Copy)]
pub(crate) struct HooksOf(pub(crate) usize);

impl HookAnswers {
    pub(crate) fn context(&self) -> RequestContext<'_> {
        let user = match &self.user {
            UserAnswer::Unchecked => SignedIn::Unchecked,
            UserAnswer::NoUser => SignedIn::NoUser,
            UserAnswer::SignedIn(id) => SignedIn::User(id),
        };
        RequestContext { consent: self.consent, user, scope: self.scope }
    }
}

/// Calls the hooks `scope`, `subject` and `consent`, in this order, and returns their answers. Later hooks and handlers find
/// the scope in the extensions, and handlers the consent.
pub(crate) fn answers<B>(config: &Config, request: Request<B>) -> (Request<B>, HookAnswers) {
    let (mut consent, mut user) = (Consent::Granted, UserAnswer::Unchecked);
    let (mut parts, body) = request.into_parts();
    let scope = config.other_scope.as_ref().and_then(|other| (other.choose)(&parts));
    // Inside another layer, the scope in the extensions stays that of the page.
    if config.other_scope.is_some() && parts.extensions.get::<Euid>().is_none() {
        // The application may have put a scope there for the hook to read, so `None` removes it.
        match scope {
            Some(scope) => parts.extensions.insert(scope),
            None => parts.extensions.remove(),
        };
    }
    if let Some(hook) = &config.subject {
        user = hook(&parts).map_or(UserAnswer::NoUser, UserAnswer::SignedIn);
        if let UserAnswer::SignedIn(_) = user {
            config.mistakes.found_user();
        }
    }
    if let Some(hook) = &config.consent {
        consent = hook(&parts);
        parts.extensions.insert(consent);
    }
    parts.extensions.insert(HooksOf(config.layer_id()));
    (Request::from_parts(parts, body), HookAnswers { consent, user, scope })
}

/// Calls the hook `refresh_when`. Returns whether the response may write the identity: a new pair, or the same one under
/// a new key. Without that a refresh is of no use, so the hook also decides whether the request may begin one.
pub(crate) fn allows_writes<B>(config: &Config, request: Request<B>) -> (Request<B>, bool) {
    let Some(hook) = &config.refresh_when else { return (request, true) };
    let (parts, body) = request.into_parts();
    let allowed = hook(&parts);
    (Request::from_parts(parts, body), allowed)
}

/// Calls the hook `logout_when`, which decides whether the response is a logout.
pub(crate) fn is_logout<R>(hook: &LogoutWhen, response: &mut Response<R>) -> bool {
    // The body stays where it is.
    let (mut parts, ()) = Response::new(()).into_parts();
    (parts.status, parts.version) = (response.status(), response.version());
    mem::swap(&mut parts.headers, response.headers_mut());
    mem::swap(&mut parts.extensions, response.extensions_mut());
    let is_logout = hook(&parts);
    (*response.headers_mut(), *response.extensions_mut()) = (parts.headers, parts.extensions);
    is_logout
}
