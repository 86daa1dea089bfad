//! A layer inside another layer.
//!
//! 1. A clone of the layer outside lets the request pass.
//! 2. A different layer calls its own hooks. They count where they are stricter than what the layer outside
//!    has shown: without consent the handler sees `Withheld`; if the identity is bound to a user and that user
//!    is not the one signed in, it sees `Absent`; `logout_when` is obeyed.
//! 3. The layer outside writes all cookies. It treats consent that is withdrawn inside as a logout, and gives
//!    scripts no token while consent is withheld inside.
//! 4. The other settings of a layer inside have no effect. It warns of that once.

use std::sync::Arc;

use http::header::COOKIE;
use http::{Extensions, HeaderMap, Request, Response};

use crate::gate::{self, SignedIn, Visitor};
use crate::layer::Shared;
use crate::observe;
use crate::sight;
use crate::update::EuidUpdate;
use euid_core::engine::cookies::FoundIdentity;
use euid_core::engine::cookies::Sealed;
use euid_core::euid::{Euid, EuidLogout};
use euid_core::policy::{Consent, Subject, Wish};
use euid_core::token::{AdvertisingToken, Note};

/// The layer whose hooks were called last, in the extensions of a request.
#[derive(Clone, Copy)]
pub(crate) struct AskedBy(pub(crate) usize);

/// What a layer inside another adds to a response: nothing, if it is a clone.
#[derive(Default)]
pub(crate) struct Inner(Option<Stricter>);

/// A layer inside another that is not its clone.
struct Stricter {
    shared: Arc<Shared>,
    consent: Consent,
    note: Option<Note>,
}

/// Restricts what the layer outside has shown to what the hooks of this layer allow.
pub(crate) fn enter<B>(shared: &Arc<Shared>, mut request: Request<B>) -> (Request<B>, Inner) {
    match layer_outside(request.extensions()) {
        Some(layer) if layer == shared.id() => return (request, Inner::default()),
        Some(_) => shared.mistakes.inside_another(),
        // A layer with hooks would have left its mark.
        None if gate::has_hooks(shared) => shared.mistakes.inside_another(),
        None => {}
    }
    let note = EuidLogout::of(request.extensions()).and_then(EuidLogout::into_note);
    let mut consent = Consent::Granted;
    if gate::has_hooks(shared) {
        let outside = request.extensions().get::<Consent>().copied();
        let visitor;
        (request, visitor) = gate::visitor(shared, request);
        consent = visitor.consent;
        if let Some(outside) = outside {
            request.extensions_mut().insert(stricter(outside, consent));
        }
        restrict(shared, &mut request, &visitor, note.as_ref());
    }
    (request, Inner(Some(Stricter { shared: Arc::clone(shared), consent, note })))
}

/// The layer whose hooks were called last, or else the one that reads and writes the cookies. `None` if that
/// one left no mark: it has no hooks, and the request has a safe method and brings no cookie of the layer.
fn layer_outside(extensions: &Extensions) -> Option<usize> {
    let asked = extensions.get::<AskedBy>().map(|AskedBy(layer)| *layer);
    asked.or_else(|| Some(EuidLogout::of(extensions)?.into_note()?.layer()))
}

fn stricter(one: Consent, other: Consent) -> Consent {
    match (one, other) {
        (Consent::Withdrawn, _) | (_, Consent::Withdrawn) => Consent::Withdrawn,
        (Consent::Withheld, _) | (_, Consent::Withheld) => Consent::Withheld,
        (Consent::Granted, Consent::Granted) => Consent::Granted,
    }
}

/// Removes from the request what the handler must not see.
fn restrict<B>(shared: &Shared, request: &mut Request<B>, visitor: &Visitor, note: Option<&Note>) {
    if let (Consent::Withdrawn, Some(note)) = (visitor.consent, note) {
        note.log_out();
    }
    let Some(shown) = request.extensions().get::<Euid>() else { return };
    let is_barred = is_of_another(shared, request.headers(), visitor, shown);
    let euid = match (visitor.consent, shown) {
        (Consent::Withheld, Euid::OptedOut) if !is_barred => return,
        (Consent::Withheld | Consent::Withdrawn, _) => Euid::Withheld,
        (Consent::Granted, Euid::Withheld) => return,
        (Consent::Granted, _) if is_barred => Euid::Absent,
        (Consent::Granted, _) => return,
    };
    let extensions = request.extensions_mut();
    extensions.insert(euid);
    extensions.remove::<AdvertisingToken>();
    if let Some(note) = note {
        note.withhold();
        extensions.insert(EuidLogout::of_note(note.clone()));
    }
}

/// Whether the identity is bound to a user who is not signed in. One that this layer can't open counts as such.
fn is_of_another(shared: &Shared, headers: &HeaderMap, visitor: &Visitor, shown: &Euid) -> bool {
    if matches!(visitor.signed_in, SignedIn::NotAsked) || matches!(shown, Euid::Absent | Euid::Withheld) {
        return false;
    }
    let found = shared.cookies.read(headers.get_all(COOKIE), &shared.keys, |sealed| {
        let login = match sealed {
            Sealed::Identity { payload, .. } => &payload.login,
            Sealed::OptOut { record, .. } => &record.login,
        };
        Some(sight::subject(shared, visitor, login))
    });
    match found.identity {
        FoundIdentity::Usable(subject) => subject != Subject::Same,
        // An opt-out that a handler stated is bound to no user.
        _ => !matches!(shown, Euid::OptedOut),
    }
}

impl Inner {
    /// Adds what the hooks decided to the response, for the layer outside.
    pub(crate) fn leave<R>(&self, response: Response<R>) -> Response<R> {
        let Some(Stricter { shared, consent, note }) = &self.0 else { return response };
        let (mut response, is_logout) = shared.recognise_logout(response);
        let wish = response.extensions().get::<EuidUpdate>().map(|update| {
            if *consent == Consent::Withheld {
                update.withhold();
            }
            update.wish()
        });
        let is_unwanted = *consent == Consent::Withdrawn && wish.is_some();
        if is_unwanted && wish == Some(Wish::Login) {
            observe::login_without_consent();
        }
        if let (true, Some(note)) = (is_logout, note) {
            // A layer between the two may replace this response; the note stays.
            note.log_out();
        }
        if is_logout || is_unwanted {
            EuidUpdate::logout().attach(&mut response);
        }
        response
    }
}
