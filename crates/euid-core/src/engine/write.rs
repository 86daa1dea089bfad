//! Writes a change into a response's headers, as cookies or as headers of an app. A value that no browser would keep
//! whole is not sent at all.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::opt_out::{OPT_OUT_REMEMBERED, opted_out_until};
use super::routes::Served;
use super::save::Saved;
use super::{Change, Engine, WriteError};
use crate::clock::UnixMillis;
use crate::identity::Identity;
use crate::random;
use crate::sealed::aead::{self, Purpose, SealNonce};
use crate::sealed::login::{self, Login};
use crate::sealed::payload::{self, OptOut};
use crate::transport::Transport;
use crate::transport::cookie::{ANCHOR_MAX_AGE, IDENTITY_MAX_AGE, MAX_NAME_AND_VALUE};
use crate::transport::cookies::Cookies;
use crate::transport::headers::Headers;
use crate::transport::route::{Carrier, Route};
use crate::transport::slots::{Brought, Migration, Slot, Tag};

/// The change of the cookie for scripts, on a site that uses one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScriptWrite<'a> {
    /// The response leaves the cookie as it is.
    Keep,
    /// The response sets the cookie to this token, which expires at this time.
    Token(&'a str, UnixMillis),
    /// The response removes the cookie.
    Remove,
}

/// The values of a request, for the response that removes some of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Removals<'a> {
    pub(super) route: Route,
    pub(super) brought: &'a Brought,
    /// The response removes the values of other logins.
    pub(super) leftovers: bool,
}

/// What a response writes.
#[derive(Clone, Copy)]
pub(super) struct Writing<'a> {
    pub(super) change: &'a Change,
    pub(super) removals: Removals<'a>,
    pub(super) scripts: ScriptWrite<'a>,
    /// What became of it in the store, if it was to be saved there.
    pub(super) saved: Option<&'a Saved>,
}

/// Writes the state of one scope.
struct Writer<'a, T> {
    engine: &'a Engine,
    transport: &'a T,
    /// A removal does not call it.
    now: &'a dyn Fn() -> UnixMillis,
}

impl Engine {
    /// Appends the lines of a change; returns the size of the identity's name and value, if one was written. On an error
    /// nothing was written. A logout ends the login of every scope.
    #[inline]
    pub(super) fn write(
        &self,
        writing: Writing<'_>,
        now: &dyn Fn() -> UnixMillis,
        headers: &mut HeaderMap,
    ) -> Result<Option<usize>, WriteError> {
        if headers.keys_len() > MANY_HEADERS {
            return Err(WriteError::HeadersFull);
        }
        match writing.removals.route.carrier() {
            Carrier::Cookies => self.write_by::<Cookies>(writing, now, headers),
            Carrier::Headers => self.write_by::<Headers>(writing, now, headers),
        }
    }

    #[inline]
    fn write_by<T: Served>(
        &self,
        writing: Writing<'_>,
        now: &dyn Fn() -> UnixMillis,
        headers: &mut HeaderMap,
    ) -> Result<Option<usize>, WriteError> {
        if writing.removals.brought.idle().is_empty() {
            return self.write_serving::<T>(writing, now, headers);
        }
        self.write_all::<T>(writing, now, headers)
    }

    /// Writes a change for the scope that serves the request.
    #[inline]
    fn write_serving<T: Served>(
        &self,
        writing: Writing<'_>,
        now: &dyn Fn() -> UnixMillis,
        headers: &mut HeaderMap,
    ) -> Result<Option<usize>, WriteError> {
        match (writing.removals.route.scope().and_then(|scope| T::of(self, scope)), writing.change) {
            (Some(transport), _) => Writer { engine: self, transport, now }.write(writing, headers),
            (None, Change::Keep | Change::EndLogin) => Ok(None),
            (None, _) => Err(WriteError::NoScope),
        }
    }

    /// Writes a change for every scope.
    #[cold]
    fn write_all<T: Served>(
        &self,
        writing: Writing<'_>,
        now: &dyn Fn() -> UnixMillis,
        headers: &mut HeaderMap,
    ) -> Result<Option<usize>, WriteError> {
        let mut serving = HeaderMap::new();
        let size = self.write_serving::<T>(writing, now, &mut serving)?;
        // The idle scopes come first: curl's jar file keeps the last removal only, and that must be of the login that
        // counts now.
        self.write_idle::<T>(writing, now, headers)?;
        let mut last = None;
        for (name, value) in serving {
            // An iterator of headers names each only once.
            last = name.or(last);
            if let Some(name) = &last {
                T::append(T::line(name, value), headers);
            }
        }
        Ok(size)
    }

    /// Writes what a change means for the scopes that do not serve the request.
    fn write_idle<T: Served>(
        &self,
        Writing { change, removals, .. }: Writing<'_>,
        now: &dyn Fn() -> UnixMillis,
        headers: &mut HeaderMap,
    ) -> Result<(), WriteError> {
        for idle in removals.brought.idle() {
            let Some(transport) = T::of(self, idle.scope) else { continue };
            let migrates = transport.cookies().is_some_and(|cookies| cookies.config().js_sdk_cookie().is_some());
            let counts_migrated = !idle.has_anchor && (migrates || idle.brought.migration != Migration::Unseen);
            let ends = matches!(change, Change::EndLogin) || (change.ends_login() && counts_migrated);
            let change = if ends { &Change::EndLogin } else { &Change::Keep };
            let exposes_token = transport.cookies().is_some_and(|cookies| cookies.config().exposes_token());
            let takes_back = exposes_token && (ends || (removals.leftovers && idle.has_script_cookie));
            let scripts = if takes_back { ScriptWrite::Remove } else { ScriptWrite::Keep };
            let route = Route::new(Some(idle.scope), T::CARRIER);
            let removals = Removals { route, brought: &idle.brought, leftovers: ends };
            Writer { engine: self, transport, now }
                .write(Writing { change, removals, scripts, saved: None }, headers)?;
        }
        Ok(())
    }
}

impl<T: Transport> Writer<'_, T> {
    /// Appends the scope's lines, in this order:
    ///
    /// 1. The anchor comes first: until the browser has it, the state that it ends must stay.
    /// 2. The removals follow. The anchor's own removal comes last: curl's jar file forgets all removals but the last.
    /// 3. A logout that removes a record also begins with the anchor's removal. Otherwise, between two `Set-Cookie`s, an
    ///    identity that another response has brought would count without its record.
    fn write(&self, writing: Writing<'_>, headers: &mut HeaderMap) -> Result<Option<usize>, WriteError> {
        let Writing { change, removals, scripts, saved } = writing;
        let set = |slot, value: &str, age| self.transport.set(slot, value, age).ok_or(WriteError::TooLarge);
        let sdk_cookie =
            self.transport.cookies().and_then(|cookies| Some((cookies, cookies.config().js_sdk_cookie()?)));
        let (mut anchor, mut state, mut size) = (None, None, None);
        let by_user = self.engine.user_store().is_some();
        match change {
            Change::Keep | Change::ForgetIdentity => {}
            Change::EndLogin => {
                // Without an anchor, a migrated identity that a late response brings would count.
                if by_user && !removals.brought.any() {
                    return self.write_scripts(scripts, headers);
                }
                if sdk_cookie.is_some() || removals.brought.migration != Migration::Unseen {
                    anchor = Some(set(Slot::Anchor, login::ENDED, ANCHOR_MAX_AGE)?);
                }
            }
            Change::OptOut(new) if by_user && new.subject.is_none() => return Err(WriteError::NoSubject),
            Change::Begin(new) if by_user && new.subject.is_none() => return Err(WriteError::NoSubject),
            Change::OptOut(new) => {
                let now = (self.now)();
                let opt_out = match saved {
                    // As the store has it: a login may have begun since then.
                    Some(Saved::OptOut(opt_out)) => *opt_out,
                    _ => {
                        let login = Login::new(new.subject.as_deref()).map_err(|_| WriteError::NoRandomness)?;
                        OptOut { login, until: opted_out_until(now) }
                    }
                };
                if !by_user {
                    anchor = Some(self.anchor(&opt_out.login, OPT_OUT_REMEMBERED)?);
                }
                state = Some(self.seal_opt_out(&opt_out, now)?);
            }
            Change::RecordOptOut(opt_out) => state = Some(self.seal_opt_out(opt_out, (self.now)())?),
            Change::Renew(renewal) => {
                let (line, slot, bytes) = self.seal_identity(&renewal.login, &renewal.identity)?;
                (state, size) = (Some((line, slot)), Some(bytes));
            }
            Change::Begin(new) => {
                if new.identity.scope().is_some_and(|scope| scope != self.transport.scope()) {
                    return Err(WriteError::WrongScope);
                }
                if by_user {
                    // The client keeps nothing of it.
                    let is_stored = matches!(saved, Some(Saved::Login { is_stored: true, .. }));
                    return if is_stored { self.write_scripts(scripts, headers) } else { Err(WriteError::NotStored) };
                }
                let (login, is_stored) = match saved {
                    Some(Saved::Login { login, is_stored }) => (*login, *is_stored),
                    _ => (Login::new(new.subject.as_deref()).map_err(|_| WriteError::NoRandomness)?, false),
                };
                anchor = Some(self.anchor(&login, ANCHOR_MAX_AGE)?);
                if !is_stored {
                    let (line, slot, bytes) = self.seal_identity(&login, &new.identity)?;
                    (state, size) = (Some((line, slot)), Some(bytes));
                }
            }
        }
        let scripts = self.script_line(scripts)?;
        let ends_login = change.ends_login();
        let removes_anchor = matches!(change, Change::EndLogin) && anchor.is_none();
        let written = state.as_ref().map(|(_, slot)| *slot);

        let mut append = |line| T::append(line, headers);
        let remove = |slot| self.transport.remove(slot);
        if removes_anchor && removals.brought.opt_out {
            remove(Slot::Anchor).into_iter().for_each(&mut append);
        }
        if let Some(line) = anchor {
            append(line);
        }
        if let Some((line, _)) = state {
            append(line);
        }
        removals.for_each(change, |slot| {
            // A new login may have the tag of the ended one: what was just set must stay.
            if Some(slot) != written
                && let Some(line) = remove(slot)
            {
                append(line);
            }
        });
        let mut append_cookie = |cookie| Cookies::append(cookie, headers);
        scripts.into_iter().for_each(&mut append_cookie);
        if let Some((cookies, sdk)) = sdk_cookie
            && (ends_login || removals.migrates(change))
        {
            cookies.scripts().delete_js_sdk(cookies.config(), sdk).for_each(&mut append_cookie);
        }
        if removes_anchor {
            remove(Slot::Anchor).into_iter().for_each(|line| T::append(line, headers));
        }
        Ok(size)
    }

    /// The line of the cookie for scripts, if it changes.
    fn script_line(&self, scripts: ScriptWrite<'_>) -> Result<Option<HeaderValue>, WriteError> {
        let token = match scripts {
            ScriptWrite::Keep => return Ok(None),
            ScriptWrite::Token(token, ends) => Some((token, ends)),
            ScriptWrite::Remove => None,
        };
        let Some(cookies) = self.transport.cookies() else { return Ok(None) };
        let line = cookies.scripts().expose_token(cookies.config(), token, self.now);
        line.ok_or(WriteError::TooLarge).map(Some)
    }

    /// Writes the cookie for scripts, and nothing else.
    #[cold]
    fn write_scripts(&self, scripts: ScriptWrite<'_>, headers: &mut HeaderMap) -> Result<Option<usize>, WriteError> {
        self.script_line(scripts)?.into_iter().for_each(|line| Cookies::append(line, headers));
        Ok(None)
    }

    /// The anchor that names a login.
    fn anchor(&self, login: &Login, max_age: Duration) -> Result<T::Line, WriteError> {
        let lineage = login.lineage_text();
        let lineage = std::str::from_utf8(&lineage).unwrap_or_default();
        self.transport.set(Slot::Anchor, lineage, max_age).ok_or(WriteError::TooLarge)
    }

    /// The line of a login's opt-out, and its slot.
    fn seal_opt_out(&self, opt_out: &OptOut, now: UnixMillis) -> Result<(T::Line, Slot), WriteError> {
        let slot = Slot::OptOut(tag(&opt_out.login));
        // A Max-Age of zero would remove the cookie.
        let rest = opt_out.until.saturating_since(now).max(Duration::from_secs(1));
        let (line, _) = self.seal(Purpose::OptOut, slot, &opt_out.write(), rest)?;
        Ok((line, slot))
    }

    /// The line of an identity, its slot, and the size of its name and value.
    fn seal_identity(&self, login: &Login, identity: &Identity) -> Result<(T::Line, Slot, usize), WriteError> {
        let rest = identity.times().refresh_expires.saturating_since((self.now)());
        if rest < Duration::from_secs(1) {
            // A Max-Age of zero would remove the cookie.
            return Err(WriteError::Expired);
        }
        let plain = payload::write(login, identity).ok_or(WriteError::TooLarge)?;
        let slot = Slot::Identity(tag(login));
        let (line, bytes) = self.seal(Purpose::Identity, slot, &plain, rest.min(IDENTITY_MAX_AGE))?;
        Ok((line, slot, bytes))
    }

    /// The line of a slot with `plain` sealed in it, and the size of its name and value.
    fn seal(
        &self,
        purpose: Purpose,
        slot: Slot,
        plain: &[u8],
        max_age: Duration,
    ) -> Result<(T::Line, usize), WriteError> {
        let nonce: SealNonce = random::bytes().map_err(|_| WriteError::NoRandomness)?;
        let (value, name_size) = self.transport.with_name(&slot, |name| {
            let value = aead::seal(&self.engine.keys.keys(), purpose, name, nonce, plain);
            (value, name.iter().map(|part| part.len()).sum::<usize>())
        });
        let value = value.ok_or(WriteError::TooLarge)?;
        let size = name_size + value.len();
        if size > MAX_NAME_AND_VALUE {
            return Err(WriteError::TooLarge);
        }
        Ok((self.transport.set(slot, &value, max_age).ok_or(WriteError::TooLarge)?, size))
    }
}

impl Removals<'_> {
    /// Calls `remove` with each slot that the response empties.
    #[inline]
    fn for_each(&self, change: &Change, mut remove: impl FnMut(Slot)) {
        let brought = self.brought;
        let all = change.ends_login();
        let identity = all || matches!(change, Change::ForgetIdentity | Change::RecordOptOut(_));
        if identity && brought.identity {
            remove(Slot::Identity(brought.tag));
        }
        if all && brought.opt_out {
            remove(Slot::OptOut(brought.tag));
        }
        if all || (self.leftovers && brought.ends_leftovers) {
            brought.leftovers(all).for_each(remove);
        }
    }

    /// Whether the change puts something in the place of the JS SDK's cookie, or ends what the cookie brought.
    fn migrates(&self, change: &Change) -> bool {
        match change {
            Change::Renew(renewal) => renewal.login.migrated,
            Change::RecordOptOut(opt_out) => opt_out.login.migrated,
            // Without a tag, the SDK's cookie was all that came.
            Change::ForgetIdentity => matches!(self.brought.tag, Tag::SDK | Tag::NONE),
            Change::Keep | Change::EndLogin | Change::OptOut(_) | Change::Begin(_) => false,
        }
    }
}

/// The tag in the names of a login's values.
fn tag(login: &Login) -> Tag {
    if login.migrated { Tag::SDK } else { Tag::of_lineage(&login.lineage_text()) }
}

/// A [`HeaderMap`] of this many names has room for more, however their hashes collide. One with more may
/// refuse any cookie, and half a logout would be none.
const MANY_HEADERS: usize = 6_000;
