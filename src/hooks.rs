//! The hooks `consent`, `subject`, `refresh_when` and `logout_when`: the application's answers about a request or
//! response.
//!
//! Hooks see `Parts`, and a request or response must be moved to get them. Without hooks it is not moved.

use euid_core::Consent;
use euid_core::engine::{RequestContext, SignedIn};
use http::{Request, Response};

use crate::config::{Config, LogoutWhen};

/// The answers of the hooks `consent` and `subject` for a request.
pub(crate) struct Visitor {
    pub(crate) consent: Consent,
    /// `None` without the hook `subject`, `Some(None)` if no user is signed in.
    user: Option<UserId>,
}

/// The signed-in user's id in the application, if a user is signed in.
type UserId = Option<Box<[u8]>>;

/// The layer whose hooks were called last, in the extensions of a request.
#[derive(Clone, Copy)]
pub(crate) struct HooksOf(pub(crate) usize);

impl Visitor {
    pub(crate) fn context(&self) -> RequestContext<'_> {
        let user = match &self.user {
            None => SignedIn::Unchecked,
            Some(None) => SignedIn::NoUser,
            Some(Some(id)) => SignedIn::User(id),
        };
        RequestContext { consent: self.consent, user }
    }
}

/// Returns whether a hook is set that [`visitor`] calls.
pub(crate) fn has_hooks(config: &Config) -> bool {
    config.consent.is_some() || config.subject.is_some()
}

/// Calls the hooks. Handlers find the visitor's consent in the extensions.
pub(crate) fn visitor<B>(config: &Config, request: Request<B>) -> (Request<B>, Visitor) {
    let (mut consent, mut user) = (Consent::Granted, None);
    let (mut parts, body) = request.into_parts();
    if let Some(hook) = &config.subject {
        let id = hook(&parts);
        if id.is_some() {
            config.mistakes.found_user();
        }
        user = Some(id);
    }
    if let Some(hook) = &config.consent {
        consent = hook(&parts);
        parts.extensions.insert(consent);
    }
    parts.extensions.insert(HooksOf(config.layer_id()));
    (Request::from_parts(parts, body), Visitor { consent, user })
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
pub(crate) fn is_logout<R>(hook: &LogoutWhen, response: Response<R>) -> (Response<R>, bool) {
    let (parts, body) = response.into_parts();
    let is_logout = hook(&parts);
    (Response::from_parts(parts, body), is_logout)
}
