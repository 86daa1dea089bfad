//! A layer inside another layer.
//!
//! 1. A clone of the layer outside lets the request pass.
//! 2. A different layer asks its own hooks. What they say counts where it is stricter than what the layer
//!    outside has shown: without consent the handler sees `Withheld`; if the identity is bound to another
//!    user than the one signed in, or nobody is, it sees `Absent`; `logout_when` is obeyed.
//! 3. The layer outside writes all cookies. Withdrawn consent is a logout for it. Withheld consent keeps
//!    the token from scripts.
//! 4. Its other settings have no effect. It warns of that once.

use std::sync::Arc;

use http::header::COOKIE;
use http::{Extensions, HeaderMap, Request, Response};

use crate::cookie::{FoundIdentity, Sealed};
use crate::extension::{Euid, EuidLogout};
use crate::gate::{self, SignedIn, Visitor};
use crate::identity::{AdvertisingToken, Note};
use crate::layer::Shared;
use crate::observe;
use crate::plan::{Consent, Subject, Wish};
use crate::sight;
use crate::update::EuidUpdate;

/// The layer whose hooks were asked last, in the extensions of a request.
#[derive(Clone, Copy)]
pub(crate) struct AskedBy(pub(crate) usize);

/// What a layer further in adds to a response.
#[derive(Default)]
pub(crate) struct Inner(Option<Stricter>);

struct Stricter {
    shared: Arc<Shared>,
    consent: Consent,
    note: Option<Note>,
}

/// Makes what the layer outside has shown as strict as the hooks of this one say.
pub(crate) fn enter<B>(shared: &Arc<Shared>, request: Request<B>) -> (Request<B>, Inner) {
    match layer_outside(request.extensions()) {
        Some(layer) if layer == shared.id() => return (request, Inner::default()),
        Some(_) => shared.mistakes.inside_another(),
        // A layer with hooks would have left its mark.
        None if gate::has_hooks(shared) => shared.mistakes.inside_another(),
        None => {}
    }
    let note = EuidLogout::of(request.extensions()).and_then(EuidLogout::into_note);
    let (mut request, mut consent) = (request, Consent::Granted);
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

/// The layer that has shown this request to the handler, or whose hooks were asked last; `None` if it left
/// no mark, as it has no hooks and the request brings no cookie of ours.
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

/// Takes back what the handler must not see.
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

/// Whether the identity is bound, and not to the signed-in user. One that this layer can't open may be.
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
        // A stated opt-out is of whoever uses this browser.
        _ => !matches!(shown, Euid::OptedOut),
    }
}

impl Inner {
    /// Adds what the hooks say to the response, for the layer outside.
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
            // Layers between may put another response in place of this one.
            note.log_out();
        }
        if is_logout || is_unwanted {
            EuidUpdate::logout().attach(&mut response);
        }
        response
    }
}
