//! After the handler: writes the state into the response, and restricts how caches may store it.

use std::mem;

use http::{HeaderMap, HeaderValue, StatusCode};

use super::routes::Served;
use super::save::{SavePlan, Saved};
use super::scripts::Scripts;
use super::write::{Removals, ScriptWrite, Writing};
use super::{Change, ChangeKind, Engine, Pending, Renewal, Save, WriteError, logout};
use crate::cache_control::{self, Exposure};
use crate::clock::UnixMillis;
use crate::consent::Consent;
use crate::policy;
use crate::scope::Scope;
use crate::token::Note;
use crate::transport::Transport;
use crate::transport::headers::Headers;
use crate::transport::route::{Carrier, Route};
use crate::transport::slots::Brought;

/// The end of an exchange.
///
/// Exhaustive: an engine with a store needs both.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::engine::{Engine, Finish, Report, StoreAnswer, StoreCall};
///
/// /// Makes the calls to the store, if there are any.
/// fn end(
///     engine: &Engine,
///     finish: Finish,
///     headers: &mut http::HeaderMap,
///     mut call: impl FnMut(&StoreCall) -> StoreAnswer,
/// ) -> Report {
///     # let now = || tower_euid::clock::UnixMillis::from_millis(0);
///     match finish {
///         Finish::Done(report) => report,
///         Finish::Save(mut save) => {
///             while let Some(next) = save.call() {
///                 let answer = call(next);
///                 save.answer(answer);
///             }
///             engine.saved(save, headers, now)
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub enum Finish {
    /// The headers are written.
    Done(Report),
    /// The headers are not written yet: the host makes these calls, and then calls [`Engine::saved`]. Only for an engine
    /// [with a store](Engine::with_store).
    Save(Box<Save>),
}

impl Finish {
    /// The report of an engine without a store, whose headers are always written. With a store the report of a save is
    /// empty here: match on it instead.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use http::{HeaderMap, StatusCode};
    /// use tower_euid::engine::{Change, Pending};
    ///
    /// let mut headers = HeaderMap::new();
    /// let asked = Some(&Change::EndLogin);
    /// let report = engine.finish(Pending::default(), asked, StatusCode::OK, &mut headers, || at(0)).report();
    /// assert_eq!(report.unwritten, None);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn report(self) -> Report {
        match self {
            Self::Done(report) => report,
            Self::Save(_) => Report::default(),
        }
    }
}

/// A report of what a response wrote, for logs and metrics.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, identity, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use http::{HeaderMap, StatusCode};
/// use tower_euid::engine::{Change, Pending, Report, WriteError};
///
/// /// What a log might say of a response.
/// fn event(report: &Report) -> Option<String> {
///     let written = report.identity_bytes.map(|bytes| format!("wrote {bytes} bytes"));
///     written.or_else(|| report.unwritten.map(|reason| format!("wrote no identity: {reason:?}")))
/// }
///
/// let login = Change::login(identity);
/// # let mut headers = HeaderMap::new();
/// let mut finish = |now| engine.finish(Pending::default(), Some(&login), StatusCode::OK, &mut headers, || at(now)).report();
/// # assert_eq!(event(&finish(0)).map(|text| text.starts_with("wrote 1")), Some(true));
/// assert_eq!(finish(30_000).unwritten, Some(WriteError::Expired));
/// # assert_eq!(event(&finish(30_000)).as_deref(), Some("wrote no identity: Expired"));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The kind of change that the response writes, if any. If [`unwritten`](Self::unwritten) is set, it could not be
    /// written.
    pub change: Option<ChangeKind>,
    /// The scope that served the request, if any.
    pub scope: Option<Scope>,
    /// The size of the identity's name and value in bytes, if one was written.
    pub identity_bytes: Option<usize>,
    /// The pair that was written for a login that goes on.
    pub renewed: Option<Box<Renewal>>,
    /// Why the response did not write the state, if it did not. It then still ends an identity that may no longer be
    /// used.
    pub unwritten: Option<WriteError>,
    /// The handler asked for a login that is bound to no user.
    pub login_without_subject: bool,
    /// The handler asked for a logout, and the store is keyed by the user, but no user is signed in: nothing ended there.
    pub logout_without_user: bool,
    /// The handler asked for a login, which was not written because the visitor has withdrawn consent.
    pub login_without_consent: bool,
    /// The response has no room for the headers that keep caches from storing it.
    pub unguarded: bool,
}

impl Engine {
    /// Writes the state into the response's headers and restricts how caches may store the response. It appends
    /// `Set-Cookie`, or sets the headers of an app ([`HeaderConfig`](crate::HeaderConfig)). It replaces `Cache-Control` and
    /// other headers that steer caches, if they are not strict enough, and may append `Vary`; all other headers stay. It
    /// never fails: the [`Report`] says what it could not write. With a store, it may write nothing yet: [`Finish::Save`].
    ///
    /// `asked` is the change that the handler asks for, if any. These take precedence over it: withdrawn consent, a
    /// logout that the handler noted with [`EuidLogoutHandle::logout`](crate::EuidLogoutHandle::logout), and the header
    /// `Clear-Site-Data: "cookies"`. A 304 writes no new identity of its own, because it would change a page that is
    /// stored elsewhere. `now` is called only if a value with an expiry is written, or if the store is by user.
    ///
    /// A host with other header types must copy all headers of the response (any of them may steer a cache), call this,
    /// and replace each header with its new values. No header is removed.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(5_000));
    /// # let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
    /// use http::{HeaderMap, StatusCode};
    /// use tower_euid::engine::Change;
    ///
    /// let (_, pending) = decision.start();
    /// let mut response = HeaderMap::new();
    /// engine.finish(pending, Some(&Change::EndLogin), StatusCode::OK, &mut response, || at(5_000));
    /// assert_eq!(response.get_all("set-cookie").iter().count(), 2); // anchor and identity are removed
    /// assert_eq!(response["cache-control"], "private, no-store");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn finish(
        &self,
        mut pending: Pending,
        asked: Option<&Change>,
        status: StatusCode,
        headers: &mut HeaderMap,
        now: impl Fn() -> UnixMillis,
    ) -> Finish {
        let mut report = Report::default();
        match self.finish_with(&mut pending, asked, status, headers, &now, None, &mut report) {
            Ok(()) => Finish::Done(report),
            Err(plan) => Finish::Save(Box::new(Save::new(*plan, pending, asked, status))),
        }
    }

    /// Writes the headers; or returns what has to be saved first, if `saved` does not say what became of that.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are those of `finish`, and what differs between its two halves"
    )]
    pub(super) fn finish_with(
        &self,
        pending: &mut Pending,
        asked: Option<&Change>,
        status: StatusCode,
        headers: &mut HeaderMap,
        now: &dyn Fn() -> UnixMillis,
        saved: Option<&Saved>,
        finish: &mut Report,
    ) -> Result<(), Box<SavePlan>> {
        let taken = pending.note.take();
        let note = taken.as_ref();
        let logged_out = note.is_some_and(Note::was_logged_out) || logout::is_logout(headers);
        let asked = if logged_out { Some(&Change::EndLogin) } else { asked };
        let asked = asked.filter(|change| !matches!(change, Change::Keep));
        finish.login_without_consent = pending.consent == Consent::Withdrawn && matches!(asked, Some(Change::Begin(_)));
        if note.is_some_and(Note::was_withheld) {
            pending.withhold_token();
        }
        let change = policy::resolve(&pending.change, asked, pending.consent, &Change::EndLogin);
        // Without a note, the engine has one scope, and cookies only: see `Decision::start`.
        let route = note.map_or(Route::by_cookies(self.cookies.scope()), Note::route);
        finish.scope = route.scope();
        let scripts = match route.carrier() {
            Carrier::Cookies => {
                let moved = matches!((saved, change), (Some(Saved::Move { .. }), Change::ForgetIdentity));
                let change = if moved { &Change::Keep } else { change };
                let sync = pending.scripts.sync() || moved;
                self.script_write(change, pending.scripts.with_sync(sync), note)
            }
            Carrier::Headers => ScriptWrite::Keep,
        };
        // A 304 would change the headers of a page that is stored elsewhere; the next response brings the new token.
        let brings_token = change.stores() || matches!(scripts, ScriptWrite::Token(..));
        let postponed = status == StatusCode::NOT_MODIFIED && asked.is_none() && brings_token;
        let nothing = matches!((change, scripts), (Change::Keep, ScriptWrite::Keep)) && !pending.has_leftovers;
        let removals =
            Removals { route, brought: note.map_or(&NOTHING, Note::brought), leftovers: pending.has_leftovers };
        if self.extras.is_some() && saved.is_none() && !nothing && !postponed {
            if let Some(plan) = self.plan_save(change, &removals, now) {
                pending.note = taken;
                return Err(Box::new(plan));
            }
            let has_user = removals.brought.held().is_some();
            finish.logout_without_user =
                self.user_store().is_some() && matches!(asked, Some(Change::EndLogin)) && !has_user;
        }
        if !postponed {
            finish.change = change.kind();
        }
        let writing = Writing { change, removals, scripts, saved };
        let wrote = !nothing && !postponed && self.write_or_end(writing, headers, now, finish);
        let guarded = if wrote {
            cache_control::guard(Exposure::StateWritten, None, headers)
        } else if note.is_some_and(Note::was_read) || pending.is_private {
            cache_control::guard(Exposure::TokenRead, Some(self.varies_on(route)), headers)
        } else {
            true
        };
        finish.unguarded = !guarded;
        let wrote_planned = wrote && finish.unwritten.is_none() && asked.is_none();
        if wrote_planned && let Change::Renew(renewal) = mem::replace(&mut pending.change, Change::Keep) {
            finish.renewed = Some(renewal);
        }
        Ok(())
    }

    /// The name of the request header by which responses with a visitor's token differ.
    #[inline]
    fn varies_on(&self, route: Route) -> HeaderValue {
        let scope = route.scope().filter(|_| route.carrier() == Carrier::Headers);
        let headers = scope.and_then(|scope| Headers::of(self, scope));
        headers.map_or_else(|| self.cookies.varies_on(), Headers::varies_on)
    }

    /// Decides what the response does with the cookie for scripts; no other code does. A login is kept while consent is
    /// withheld, but scripts do not get its token.
    fn script_write<'a>(&self, change: &'a Change, scripts: Scripts, note: Option<&'a Note>) -> ScriptWrite<'a> {
        if !self.cookies.config().exposes_token() || (matches!(change, Change::Keep) && !scripts.sync()) {
            return ScriptWrite::Keep;
        }
        let stored = change.identity().map(|identity| (identity.advertising_token(), identity.times()));
        let shown = || note.filter(|_| matches!(change, Change::Keep))?.token();
        match stored.or_else(shown) {
            Some((token, times)) if !scripts.withheld() => ScriptWrite::Token(token, times.identity_expires),
            _ => ScriptWrite::Remove,
        }
    }

    /// Writes a change. If it can't, it still ends an identity that may no longer be used. Returns whether it wrote
    /// anything.
    fn write_or_end(
        &self,
        writing: Writing<'_>,
        headers: &mut HeaderMap,
        now: &dyn Fn() -> UnixMillis,
        finish: &mut Report,
    ) -> bool {
        finish.login_without_subject = match writing.change {
            Change::Begin(login) => login.subject.is_none(),
            Change::OptOut(opt_out) => opt_out.subject.is_none(),
            _ => false,
        };
        match self.write(writing, now, headers) {
            Ok(size) => {
                finish.identity_bytes = size;
                return true;
            }
            Err(reason) => finish.unwritten = Some(reason),
        }
        let instead = match writing.change {
            // Another person may have logged in: the old identity must not stand for them.
            Change::Begin(_) | Change::OptOut(_) => Change::EndLogin,
            // The identity ends even if the opt-out can't be recorded.
            Change::RecordOptOut(_) => Change::ForgetIdentity,
            _ => return false,
        };
        let keeps = writing.scripts == ScriptWrite::Keep;
        let scripts = if keeps { ScriptWrite::Keep } else { ScriptWrite::Remove };
        self.write(Writing { change: &instead, scripts, ..writing }, now, headers).is_ok()
    }
}

/// What a request without state brought.
static NOTHING: Brought = Brought::NOTHING;
