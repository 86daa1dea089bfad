//! After the handler: what the response writes, and how strict it is with caches.

use std::mem;

use http::header::HeaderName;
use http::{HeaderMap, StatusCode};

use super::decision::Pending;
use super::write::ScriptWrite;
use super::{Change, Engine, Record, Unwritten};
use crate::cache_control::{self, Touch};
use crate::clock::UnixMillis;
use crate::policy::{self, Consent};
use crate::token::Note;

/// What a response wrote, for logs and metrics.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Finish {
    /// The size of the identity's name and value in bytes, if one was written.
    pub identity_bytes: Option<usize>,
    /// The pair that was written for a login that goes on.
    pub renewed: Option<Box<Record>>,
    /// Why the state was not written, if it was not. The identity then ends where it would stand for another person.
    pub unwritten: Option<Unwritten>,
    /// A login was asked for, bound to no user.
    pub login_without_user: bool,
    /// A login was asked for and not written, as the visitor has withdrawn consent.
    pub login_without_consent: bool,
    /// The response has no room for the headers that keep caches from storing it.
    pub unguarded: bool,
}

impl Engine {
    /// Whether a response has headers that [`finish`](Self::finish) obeys although no handler asks for anything.
    #[inline]
    #[must_use]
    pub fn is_steered_by(headers: &HeaderMap) -> bool {
        headers.contains_key(CLEAR_SITE_DATA)
    }

    /// Writes the state into the response's headers and keeps it from caches. `asked` is what the handler asks for;
    /// consent that is withdrawn, a logout that the handler has noted, and `Clear-Site-Data: "cookies"` beat it. `now` is
    /// called only where something is written.
    ///
    /// A host with other header types copies all headers of the response, for any of them may steer a cache; calls this;
    /// and replaces each header by what is here then. No header is removed.
    pub fn finish(
        &self,
        mut pending: Pending,
        asked: Option<&Change>,
        status: StatusCode,
        headers: &mut HeaderMap,
        now: impl Fn() -> UnixMillis,
    ) -> Finish {
        self.finish_with(&mut pending, asked, status, headers, &now)
    }

    fn finish_with(
        &self,
        pending: &mut Pending,
        asked: Option<&Change>,
        status: StatusCode,
        headers: &mut HeaderMap,
        now: &dyn Fn() -> UnixMillis,
    ) -> Finish {
        let mut finish = Finish::default();
        let note = pending.note.as_ref();
        let logged_out =
            note.is_some_and(Note::was_logged_out) || (Self::is_steered_by(headers) && clears_cookies(headers));
        let asked = if logged_out { Some(&Change::EndLogin) } else { asked };
        let asked = asked.filter(|change| !matches!(change, Change::Keep));
        finish.login_without_consent = pending.consent == Consent::Withdrawn && matches!(asked, Some(Change::Begin(_)));
        if note.is_some_and(Note::was_withheld) {
            pending.withhold_token();
        }
        let change = policy::resolve(&pending.change, asked, pending.consent, &Change::EndLogin);
        let scripts = self.script_write(change, pending);
        // A 304 would change the headers of a page that is stored elsewhere; the next response brings the new token.
        let brings_token = change.stores() || matches!(scripts, ScriptWrite::Token(..));
        let waits = status == StatusCode::NOT_MODIFIED && asked.is_none() && brings_token;
        let writes = !matches!((change, scripts), (Change::Keep, ScriptWrite::Keep)) && !waits;
        let wrote = writes && self.write_or_end(change, scripts, headers, now, &mut finish);
        let touch = if wrote {
            Some(Touch::Wrote)
        } else {
            pending.note.as_ref().is_some_and(Note::was_read).then_some(Touch::Read)
        };
        finish.unguarded = touch.is_some_and(|touch| !cache_control::guard(touch, headers));
        let is_planned = wrote && finish.unwritten.is_none() && asked.is_none();
        if is_planned && let Change::Renew(record) = mem::replace(&mut pending.change, Change::Keep) {
            finish.renewed = Some(record);
        }
        finish
    }

    /// What becomes of the cookie for scripts: decided here alone. A login is kept while consent is withheld, and scripts do
    /// not get its token.
    fn script_write<'a>(&self, change: &'a Change, pending: &'a Pending) -> ScriptWrite<'a> {
        let scripts = pending.scripts;
        if !self.cookies.config().hands_over() || (matches!(change, Change::Keep) && !scripts.sync) {
            return ScriptWrite::Keep;
        }
        let stored = change.identity().map(|identity| (identity.advertising_token(), identity.times()));
        let shown = || pending.note.as_ref().filter(|_| matches!(change, Change::Keep))?.token();
        match stored.or_else(shown) {
            Some((token, times)) if !scripts.withheld => ScriptWrite::Token(token, times.identity_expires),
            _ => ScriptWrite::Remove,
        }
    }

    /// Writes a change, or at least the end of what must not stand for another person; whether it wrote anything.
    fn write_or_end(
        &self,
        change: &Change,
        scripts: ScriptWrite<'_>,
        headers: &mut HeaderMap,
        now: &dyn Fn() -> UnixMillis,
        finish: &mut Finish,
    ) -> bool {
        let now = now();
        finish.login_without_user = matches!(change, Change::Begin(login) if login.subject.is_none());
        match self.write(change, scripts, now, headers) {
            Ok(size) => {
                finish.identity_bytes = size;
                return true;
            }
            Err(reason) => finish.unwritten = Some(reason),
        }
        let instead = match change {
            // Another person may have logged in: the old identity must not stand for them.
            Change::Begin(_) => Change::EndLogin,
            // The identity ends even if the opt-out can't be recorded.
            Change::RecordOptOut(_) => Change::ForgetIdentity,
            _ => return false,
        };
        let scripts = if scripts == ScriptWrite::Keep { ScriptWrite::Keep } else { ScriptWrite::Remove };
        self.write(&instead, scripts, now, headers).is_ok()
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
