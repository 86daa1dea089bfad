//! The response half: takes the handler's wish out, writes the cookies, guards the cache.

use http::header::HeaderName;
use http::{HeaderMap, Response, StatusCode};

use crate::layer::Shared;
use crate::observe;
use crate::refresh::Waiter;
use crate::sight::{self, Due, Held, Origin, Settled};
use crate::update::EuidUpdate;
use euid_core::cache_control::{self, Touch};
use euid_core::engine::cookies::Writing;
use euid_core::policy::{self, Action, Consent, Wish};
use euid_core::token::Note;

/// What the response is to do, as planned before the handler ran.
pub(crate) struct Planned {
    pub(crate) action: Action,
    /// What the action stores, where it stores anything.
    pub(crate) held: Option<Box<Held>>,
    pub(crate) consent: Consent,
    /// Notes what the handler does with the token or the login, if there is one.
    pub(crate) note: Option<Note>,
    /// Whether the request's cookie for scripts differs from the token that the handler saw.
    pub(crate) put_right: bool,
    /// A refresh that runs while the handler does.
    pub(crate) beside: Option<Box<Beside>>,
}

/// A refresh beside the handler.
pub(crate) struct Beside {
    pub(crate) waiter: Waiter,
    pub(crate) due: Due,
}

impl Planned {
    /// Nothing is planned, so only the handler's own actions count. [`is_hot`](Self::is_hot) says for which
    /// requests the consent may be left out here.
    pub(crate) fn hot(note: Option<Note>) -> Self {
        Self { action: Action::Keep, held: None, consent: Consent::Granted, note, put_right: false, beside: None }
    }

    /// Whether [`hot`](Self::hot) does the same.
    pub(crate) fn is_hot(&self, shared: &Shared) -> bool {
        let as_if_granted = match self.consent {
            Consent::Granted => true,
            // It only keeps the token from scripts.
            Consent::Withheld => !shared.cookies.hands_over(),
            Consent::Withdrawn => false,
        };
        as_if_granted && self.action == Action::Keep && !self.put_right && self.beside.is_none()
    }

    /// Takes the answer of the refresh beside the handler, if it is there.
    pub(crate) fn look_beside(&mut self, shared: &Shared) {
        let Some(Beside { waiter, due }) = self.beside.take().map(|beside| *beside) else { return };
        if let Some(outcome) = waiter.outcome() {
            // The handler has run already; only the cookies follow the outcome.
            let Settled { action, held, .. } = sight::settle(shared, &due, shared.clock.now(), &outcome);
            (self.action, self.held) = (action, held);
        }
    }
}

/// Whether [`finish`] has nothing to do for the response of a hot future, which is the usual case.
pub(crate) fn is_untouched<R>(shared: &Shared, response: &Response<R>, note: Option<&Note>) -> bool {
    shared.logout_when.is_none()
        && note.is_none_or(Note::is_blank)
        && response.extensions().get::<EuidUpdate>().is_none()
        && !response.headers().contains_key(CLEAR_SITE_DATA)
}

/// Takes the handler's wish out of its response, writes the cookies, guards the cache.
pub(crate) fn finish<R>(shared: &Shared, response: Response<R>, planned: &Planned) -> Response<R> {
    let (mut response, logged_out) = shared.recognise_logout(response);
    let note = planned.note.as_ref();
    let logged_out = logged_out || note.is_some_and(Note::was_logged_out) || clears_cookies(response.headers());
    let update = EuidUpdate::take_from(response.extensions_mut());
    let wish = update.as_ref().map(EuidUpdate::wish).max(logged_out.then_some(Wish::Logout));
    let action = policy::resolve(planned.action, wish, planned.consent);
    if planned.consent == Consent::Withdrawn && wish == Some(Wish::Login) {
        observe::login_without_consent();
    }

    let not_modified = response.status() == StatusCode::NOT_MODIFIED;
    let withheld = note.is_some_and(Note::was_withheld) || update.as_ref().is_some_and(EuidUpdate::is_withheld);
    let writing = writing(action, planned, update.as_ref(), withheld && shared.cookies.hands_over());
    // A 304 would change the headers of a page that is stored elsewhere; the next response brings the new token.
    let writing = writing.filter(|writing| !(not_modified && wish.is_none() && writing.brings_a_token()));
    // A login is kept while consent is withheld, and scripts do not get its token.
    let to_scripts = planned.consent == Consent::Granted && !withheld;
    let wrote = writing.is_some_and(|writing| write(shared, writing, to_scripts, response.headers_mut()));
    let touch = if wrote { Some(Touch::Wrote) } else { note.is_some_and(Note::was_read).then_some(Touch::Read) };
    if touch.is_some_and(|touch| !cache_control::guard(touch, response.headers_mut())) {
        observe::cache_not_guarded();
    }
    response
}

/// What the action writes. `take_back`: scripts must lose the token, because a layer further in keeps it from
/// the handler.
fn writing<'a>(
    action: Action,
    planned: &'a Planned,
    update: Option<&'a EuidUpdate>,
    take_back: bool,
) -> Option<Writing<'a>> {
    let held = planned.held.as_deref();
    match (action, update.and_then(EuidUpdate::as_login), held) {
        (Action::ClearIdentity, ..) => Some(Writing::ClearIdentity),
        (Action::ClearBoth, ..) => Some(Writing::ClearBoth),
        (Action::OptOut, ..) => Some(Writing::OptOut),
        (Action::Login, Some((identity, subject)), _) => Some(Writing::Login(identity, subject)),
        (Action::Login, None, Some(Held { origin: Origin::Elsewhere(subject), identity })) => {
            Some(Writing::Login(identity, subject.as_deref()))
        }
        (Action::Store, _, Some(Held { origin: Origin::Cookies(login), identity })) => {
            Some(Writing::Store(login, identity))
        }
        (Action::RecordOptOut, _, Some(Held { origin: Origin::Cookies(login), .. })) => {
            Some(Writing::RecordOptOut(login))
        }
        (Action::Keep, ..) if take_back => Some(Writing::HandOver(None)),
        (Action::Keep, ..) if planned.put_right => Some(Writing::HandOver(planned.note.as_ref().and_then(Note::token))),
        // The other three are planned only together with what they store.
        (Action::Keep | Action::Login | Action::Store | Action::RecordOptOut, ..) => None,
    }
}

/// Writes the cookies; false if it wrote none. `to_scripts` says whether scripts may have the token.
fn write(shared: &Shared, writing: Writing<'_>, to_scripts: bool, headers: &mut HeaderMap) -> bool {
    let now = shared.clock.now();
    if shared.bind.is_some() && matches!(writing, Writing::Login(_, None)) {
        observe::login_without_subject();
    }
    let reason = match shared.cookies.write(writing, to_scripts, &shared.keys, now, headers) {
        Ok(size) => {
            size.into_iter().for_each(observe::cookie_written);
            if let Writing::Store(login, identity) = writing {
                shared.desk.delivered(login.lineage, identity);
            }
            return true;
        }
        Err(reason) => reason,
    };
    observe::cookie_not_written(reason);
    let instead = match writing {
        // Another person may have logged in: the old identity must not stand for them.
        Writing::Login(..) => Writing::ClearBoth,
        // The identity ends even if the opt-out can't be recorded.
        Writing::RecordOptOut(_) => Writing::ClearIdentity,
        _ => return false,
    };
    shared.cookies.write(instead, to_scripts, &shared.keys, now, headers).is_ok()
}

impl Shared {
    /// Calls the hook `logout_when`: whether the response is a logout.
    pub(crate) fn recognise_logout<R>(&self, response: Response<R>) -> (Response<R>, bool) {
        let Some(logout_when) = &self.logout_when else { return (response, false) };
        let (parts, body) = response.into_parts();
        let is_logout = logout_when(&parts);
        (Response::from_parts(parts, body), is_logout)
    }
}

/// Whether `Clear-Site-Data` tells the browser to drop all cookies.
fn clears_cookies(headers: &HeaderMap) -> bool {
    headers.get_all(CLEAR_SITE_DATA).iter().any(|value| {
        let mut types = value.as_bytes().split(|&byte| byte == b',');
        types.any(|kind| matches!(kind.trim_ascii(), b"\"cookies\"" | b"\"*\""))
    })
}

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
