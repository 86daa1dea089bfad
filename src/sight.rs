//! Turns a request's cookies into facts for [`plan`](crate::plan), and its decisions into what the handler
//! sees and what the response will write.

use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderMap, Request};

use crate::gate::{SignedIn, Visitor};
use crate::layer::Shared;
use crate::observe;
use crate::refresh::RefreshKey;
use crate::response::{Beside, Planned};
use euid_core::Refreshed;
use euid_core::clock::UnixMillis;
use euid_core::engine::cookies::Anchor;
use euid_core::engine::cookies::FoundIdentity;
use euid_core::engine::cookies::Sealed;
use euid_core::error::EuidError;
use euid_core::euid::{Euid, EuidLogout};
use euid_core::identity::{Identity, IdentityTimes};
use euid_core::policy::{self, Action, AnchorSays, Answer, Consent, Plan, Presented, Sees, Subject, Verdict};
use euid_core::sealed::login::Login;
use euid_core::sealed::payload::OptOut;
use euid_core::sealed::payload::Payload;
use euid_core::token::{AdvertisingToken, Note};
use euid_core::transport::js_sdk::JsSdk;

/// The outcome of [`look`].
pub(crate) enum Sight {
    /// The handler can be called.
    Shown(Settled),
    /// A refresh is due.
    Due(Box<Due>),
}

/// What the handler will see and the response will do.
pub(crate) struct Settled {
    pub(crate) euid: Euid,
    pub(crate) action: Action,
    /// What the action stores, where it stores anything.
    pub(crate) held: Option<Box<Held>>,
    pub(crate) consent: Consent,
    /// Whether the request brought one of the layer's cookies, or a cookie that it takes over.
    pub(crate) came: bool,
}

/// An identity to be refreshed.
pub(crate) struct Due {
    pub(crate) held: Held,
    /// The identity's times, less the margin and plus the jitter.
    pub(crate) times: IdentityTimes,
    /// When the request arrived.
    pub(crate) now: UnixMillis,
}

/// An identity, and the login that it belongs to.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) origin: Origin,
    pub(crate) identity: Arc<Identity>,
}

#[derive(Clone)]
pub(crate) enum Origin {
    /// The layer's own cookies, of this login.
    Cookies(Login),
    /// Another kind of cookie. The identity has no login yet; its login will be bound to this user, if any.
    Elsewhere(Option<Box<[u8]>>),
}

impl Held {
    pub(crate) fn refresh_key(&self) -> RefreshKey {
        let lineage = match &self.origin {
            Origin::Cookies(login) => Some(login.lineage),
            Origin::Elsewhere(_) => None,
        };
        RefreshKey::new(&self.identity, lineage)
    }
}

/// Reads the cookies and applies [`plan`](crate::plan).
pub(crate) fn look(shared: &Shared, headers: &HeaderMap, visitor: &Visitor) -> Sight {
    let cookies = headers.get_all(COOKIE);
    if cookies.iter().next().is_none() {
        let verdict = policy::without_identity(Presented::Nothing, AnchorSays::Nothing, visitor.consent);
        return shown(verdict, visitor.consent, false);
    }
    let found = shared.cookies.read(cookies, &shared.keys, |sealed| match sealed {
        Sealed::Identity { payload, old_key } => sight_of(shared, visitor, payload, *old_key),
        Sealed::OptOut { record, identity_came } => Some(sight_of_opt_out(shared, visitor, record, *identity_came)),
    });
    let presented = match found.identity {
        FoundIdentity::Usable(sight) => return sight,
        FoundIdentity::None => Presented::Nothing,
        FoundIdentity::UnknownKey => {
            observe::cookie_unknown();
            Presented::UnknownKey
        }
        FoundIdentity::Unusable(reason) => {
            observe::cookie_unusable(reason);
            Presented::Unusable
        }
    };
    let came = presented != Presented::Nothing || found.anchor != Anchor::None;
    let elsewhere = if came { None } else { sight_from_elsewhere(shared, headers, visitor) };
    elsewhere.unwrap_or_else(|| {
        let anchor = match found.anchor {
            Anchor::None => AnchorSays::Nothing,
            Anchor::OptedOut { until } if shared.clock.now() < until => AnchorSays::OptedOut,
            Anchor::OptedOut { .. } | Anchor::Login(_) | Anchor::Unusable => AnchorSays::Something,
        };
        shown(policy::without_identity(presented, anchor, visitor.consent), visitor.consent, came)
    })
}

/// Judges an identity that opened; `None` if it is no valid [`Identity`].
fn sight_of(shared: &Shared, visitor: &Visitor, payload: &Payload<'_>, old_key: bool) -> Option<Sight> {
    observe::cookie_opened(old_key);
    let [a, b, c, d, ..] = payload.login.lineage;
    let chance = u32::from_be_bytes([a, b, c, d]);
    let (plan, times, now) = judge(shared, visitor, subject(shared, visitor, &payload.login), &payload.times, chance);
    let held = || Some(Held { origin: Origin::Cookies(payload.login), identity: Arc::new(payload.identity()?) });
    let Plan::Proceed(Verdict { sees, action }) = plan else {
        return Some(Sight::Due(Box::new(Due { held: held()?, times, now })));
    };
    let token = (sees == Sees::Active).then(|| payload.advertising_token());
    let (action, held) = if shared.reseal && old_key && token.is_some() {
        (Action::Store, Some(Box::new(held()?)))
    } else {
        (action, None)
    };
    Some(Sight::Shown(Settled { euid: euid(sees, token), action, held, consent: visitor.consent, came: true }))
}

fn sight_of_opt_out(shared: &Shared, visitor: &Visitor, record: &OptOut, identity_came: bool) -> Sight {
    let (subject, now) = (subject(shared, visitor, &record.login), shared.clock.now());
    shown(policy::opted_out(record.until, identity_came, subject, visitor.consent, now), visitor.consent, true)
}

/// Judges the identity of another kind of cookie. Called only if the request brought none of the layer's own.
fn sight_from_elsewhere(shared: &Shared, headers: &HeaderMap, visitor: &Visitor) -> Option<Sight> {
    let (subject, signed_in) = match &visitor.signed_in {
        SignedIn::NotAsked => (Subject::Same, None),
        SignedIn::Nobody => (Subject::Nobody, None),
        SignedIn::As(id) => (Subject::Same, Some(id.clone())),
    };
    let identity = match shared.cookies.read_js_sdk(headers)? {
        JsSdk::Identity(identity) => Arc::new(identity),
        JsSdk::OptedOut { until } => {
            let verdict = policy::opted_out(until, false, subject, visitor.consent, shared.clock.now());
            return Some(shown(policy::taken_over(verdict), visitor.consent, true));
        }
    };
    let (plan, times, now) = judge(shared, visitor, subject, &identity.times(), 0);
    let held = Held { origin: Origin::Elsewhere(signed_in), identity };
    Some(match plan {
        Plan::Refresh => Sight::Due(Box::new(Due { held, times, now })),
        Plan::Proceed(verdict) => Sight::Shown(settled(held, verdict, None, visitor.consent)),
    })
}

/// Applies [`plan`](policy::plan) to an identity. Also returns its times with margin and jitter, and the time
/// that they were compared with.
fn judge(
    shared: &Shared,
    visitor: &Visitor,
    subject: Subject,
    times: &IdentityTimes,
    chance: u32,
) -> (Plan, IdentityTimes, UnixMillis) {
    let now = shared.clock.now();
    let jitter = policy::jitter(times, chance, shared.refresh_jitter);
    let mut times = with_margin(shared, *times);
    times.refresh_from = times.refresh_from.saturating_add(jitter);
    (policy::plan(&times, subject, visitor.consent, now), times, now)
}

/// Compares the user that a login is bound to with the signed-in user; a mismatch is counted.
pub(crate) fn subject(shared: &Shared, visitor: &Visitor, login: &Login) -> Subject {
    match &visitor.signed_in {
        _ if !login.is_bound() => Subject::Same,
        SignedIn::NotAsked => Subject::Same,
        SignedIn::Nobody => {
            shared.mistakes.found_no_user();
            Subject::Nobody
        }
        SignedIn::As(id) if login.is_bound_to(id) => Subject::Same,
        SignedIn::As(_) => {
            observe::cookie_of_another();
            Subject::Other
        }
    }
}

/// Turns the outcome of a refresh into what the handler sees and what the response will do.
pub(crate) fn settle(shared: &Shared, due: &Due, now: UnixMillis, answer: &Result<Refreshed, EuidError>) -> Settled {
    let answered = match Answer::of(answer) {
        Answer::NewPair(times) => Answer::NewPair(with_margin(shared, times)),
        other => other,
    };
    let new = if let Ok(Refreshed::Identity(new)) = answer { Some(new) } else { None };
    // `plan` lets no identity be refreshed without consent.
    settled(due.held.clone(), policy::settle(&due.times, now, answered), new, Consent::Granted)
}

/// `held` is the request's identity, `new` its successor, if the operator gave one.
fn settled(held: Held, verdict: Verdict, new: Option<&Identity>, consent: Consent) -> Settled {
    let Verdict { sees, action } = match held.origin {
        Origin::Cookies(_) => verdict,
        Origin::Elsewhere(_) => policy::taken_over(verdict),
    };
    let identity = match (sees, new) {
        (Sees::ActiveNew, Some(new)) => Arc::new(new.clone()),
        _ => held.identity,
    };
    let has_token = matches!(sees, Sees::Active | Sees::ActiveNew);
    let token = has_token.then(|| AdvertisingToken::new(identity.advertising_token(), identity.times()));
    let stores = matches!(action, Action::Store | Action::Login | Action::RecordOptOut);
    let held = stores.then(|| Box::new(Held { origin: held.origin, identity }));
    Settled { euid: euid(sees, token), action, held, consent, came: true }
}

fn shown(Verdict { sees, action }: Verdict, consent: Consent, came: bool) -> Sight {
    Sight::Shown(Settled { euid: euid(sees, None), action, held: None, consent, came })
}

/// Puts what the handler sees into the request; returns what the response half needs.
/// `may_write` says whether the response may write what the next page can write as well; it is called only if needed.
pub(crate) fn show<B>(
    shared: &Shared,
    request: &mut Request<B>,
    settled: Settled,
    beside: Option<Box<Beside>>,
    may_write: impl Fn(&Request<B>) -> bool,
) -> Planned {
    let Settled { euid, action, held, consent, came } = settled;
    observe::request(&euid);
    let token = euid.advertising_token();
    let put_right = shared.cookies.hands_over()
        && may_write(request)
        && shared.cookies.handed_over_other_than(token, request.headers());
    // The response to an image only obeys withdrawn consent; the next page writes the rest.
    let is_written = action == Action::Keep || consent == Consent::Withdrawn || may_write(request);
    let action = if is_written { action } else { Action::Keep };
    let may_end = came || !request.method().is_safe();
    let token = token.cloned();
    let extensions = request.extensions_mut();
    let note = match token {
        Some(token) => {
            let note = token.note();
            extensions.insert(token);
            Some(note)
        }
        None if may_end => {
            let note = Note::without_token();
            extensions.insert(EuidLogout::of_note(note.clone()));
            Some(note)
        }
        None => None,
    };
    if let Some(note) = &note {
        note.set_layer(shared.id());
    }
    extensions.insert(euid);
    Planned { action, held, consent, note, put_right, beside }
}

fn with_margin(shared: &Shared, mut times: IdentityTimes) -> IdentityTimes {
    times.identity_expires = times.identity_expires.saturating_sub(shared.expiry_margin);
    times
}

fn euid(sees: Sees, token: Option<AdvertisingToken>) -> Euid {
    match (sees, token) {
        (Sees::Active | Sees::ActiveNew, Some(token)) => Euid::Active(token),
        (Sees::Absent, _) => Euid::Absent,
        (Sees::OptedOut, _) => Euid::OptedOut,
        (Sees::Withheld, _) => Euid::Withheld,
        (Sees::Unavailable | Sees::Active | Sees::ActiveNew, _) => Euid::Unavailable,
    }
}
