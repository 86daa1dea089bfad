//! Writes a change into a response's headers. A value that no browser would keep whole is not sent at all.

use std::time::Duration;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};

use super::opt_out::{OPT_OUT_REMEMBERED, opted_out_until};
use super::{Change, Engine, WriteError};
use crate::clock::UnixMillis;
use crate::identity::Identity;
use crate::random;
use crate::scope::Scope;
use crate::sealed::aead::{self, Purpose, SealNonce};
use crate::sealed::login::{self, Login};
use crate::sealed::payload::{self, OptOut};
use crate::transport::cookie::{ANCHOR_MAX_AGE, IDENTITY_MAX_AGE, MAX_NAME_AND_VALUE};
use crate::transport::slots::{Brought, Cookies, Migration, Slot, Tag};

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

/// The cookies of a request, for the response that removes some of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Removals<'a> {
    /// The scope that serves the request.
    pub(super) scope: Option<Scope>,
    pub(super) brought: &'a Brought,
    /// The response removes the cookies of other logins.
    pub(super) leftovers: bool,
}

/// Writes the cookies of one scope.
struct Writer<'a> {
    engine: &'a Engine,
    cookies: &'a Cookies,
    now: UnixMillis,
}

impl Engine {
    /// Appends the `Set-Cookie` headers; returns the size of the identity's name and value, if one was written. On an error
    /// nothing was written. A logout ends the login of every scope.
    #[inline]
    pub(super) fn write(
        &self,
        change: &Change,
        removals: Removals<'_>,
        scripts: ScriptWrite<'_>,
        now: UnixMillis,
        headers: &mut HeaderMap,
    ) -> Result<Option<usize>, WriteError> {
        if headers.keys_len() > MANY_HEADERS {
            return Err(WriteError::HeadersFull);
        }
        if removals.brought.idle().is_empty() {
            return self.write_serving(change, removals, scripts, now, headers);
        }
        self.write_all(change, removals, scripts, now, headers)
    }

    /// Writes a change for the scope that serves the request.
    #[inline]
    fn write_serving(
        &self,
        change: &Change,
        removals: Removals<'_>,
        scripts: ScriptWrite<'_>,
        now: UnixMillis,
        headers: &mut HeaderMap,
    ) -> Result<Option<usize>, WriteError> {
        match (removals.scope.and_then(|scope| self.cookies_of(scope)), change) {
            (Some(cookies), _) => Writer { engine: self, cookies, now }.write(change, removals, scripts, headers),
            (None, Change::Keep | Change::EndLogin) => Ok(None),
            (None, _) => Err(WriteError::NoScope),
        }
    }

    /// Writes a change for every scope.
    #[cold]
    fn write_all(
        &self,
        change: &Change,
        removals: Removals<'_>,
        scripts: ScriptWrite<'_>,
        now: UnixMillis,
        headers: &mut HeaderMap,
    ) -> Result<Option<usize>, WriteError> {
        let mut serving = HeaderMap::new();
        let size = self.write_serving(change, removals, scripts, now, &mut serving)?;
        // First, because curl's jar file keeps the last removal only, and a login that counts now must end.
        self.write_idle(change, removals, now, headers)?;
        serving.into_iter().for_each(|(_, cookie)| _ = headers.try_append(SET_COOKIE, cookie));
        Ok(size)
    }

    /// Writes what a change means for the scopes that do not serve the request.
    fn write_idle(
        &self,
        change: &Change,
        removals: Removals<'_>,
        now: UnixMillis,
        headers: &mut HeaderMap,
    ) -> Result<(), WriteError> {
        let ends = matches!(change, Change::EndLogin);
        let change = if ends { &Change::EndLogin } else { &Change::Keep };
        for idle in removals.brought.idle() {
            let Some(cookies) = self.cookies_of(idle.scope) else { continue };
            let exposes_token = cookies.config().exposes_token();
            let takes_back = exposes_token && (ends || (removals.leftovers && idle.has_script_cookie));
            let scripts = if takes_back { ScriptWrite::Remove } else { ScriptWrite::Keep };
            let removals = Removals { scope: Some(idle.scope), brought: &idle.brought, leftovers: ends };
            Writer { engine: self, cookies, now }.write(change, removals, scripts, headers)?;
        }
        Ok(())
    }
}

impl Writer<'_> {
    /// Appends the `Set-Cookie` headers of the scope, in this order:
    ///
    /// 1. The anchor comes first: until the browser has it, the state that it ends must stay.
    /// 2. The removals follow. The anchor's own removal comes last: curl's jar file forgets all removals but the last.
    /// 3. A logout that removes a record also begins with the anchor's removal. Otherwise, between two `Set-Cookie`s, an
    ///    identity that another response has brought would count without its record.
    fn write(
        &self,
        change: &Change,
        removals: Removals<'_>,
        scripts: ScriptWrite<'_>,
        headers: &mut HeaderMap,
    ) -> Result<Option<usize>, WriteError> {
        let now = self.now;
        let set = |slot, value: &str, age| self.cookies.set(slot, value, age).ok_or(WriteError::TooLarge);
        let config = self.cookies.config();
        let (mut anchor, mut state, mut size) = (None, None, None);
        match change {
            Change::Keep | Change::ForgetIdentity => {}
            Change::EndLogin => {
                // Without an anchor, a migrated identity that a late response brings would count.
                if config.js_sdk_cookie().is_some() || removals.brought.migration != Migration::Unseen {
                    anchor = Some(set(Slot::Anchor, login::ENDED, ANCHOR_MAX_AGE)?);
                }
            }
            Change::OptOut(new) => {
                let login = Login::new(new.subject.as_deref()).map_err(|_| WriteError::NoRandomness)?;
                anchor = Some(self.anchor(&login, OPT_OUT_REMEMBERED)?);
                state = Some(self.seal_opt_out(login)?);
            }
            Change::RecordOptOut(login) => state = Some(self.seal_opt_out(**login)?),
            Change::Renew(renewal) => {
                let (cookie, slot, bytes) = self.seal_identity(&renewal.login, &renewal.identity)?;
                (state, size) = (Some((cookie, slot)), Some(bytes));
            }
            Change::Begin(new) => {
                if new.identity.scope().is_some_and(|scope| scope != self.cookies.scope()) {
                    return Err(WriteError::WrongScope);
                }
                let login = Login::new(new.subject.as_deref()).map_err(|_| WriteError::NoRandomness)?;
                anchor = Some(self.anchor(&login, ANCHOR_MAX_AGE)?);
                let (cookie, slot, bytes) = self.seal_identity(&login, &new.identity)?;
                (state, size) = (Some((cookie, slot)), Some(bytes));
            }
        }
        let names = self.cookies.scripts();
        let scripts = match scripts {
            ScriptWrite::Keep => None,
            ScriptWrite::Token(token, ends) => Some(names.expose_token(config, Some((token, ends)), now)),
            ScriptWrite::Remove => Some(names.expose_token(config, None, now)),
        };
        let scripts = scripts.map(|cookie| cookie.ok_or(WriteError::TooLarge)).transpose()?;
        let ends_login = change.ends_login();
        let removes_anchor = matches!(change, Change::EndLogin) && anchor.is_none();
        let written = state.as_ref().map(|(_, slot)| *slot);

        let mut append = |cookie| _ = headers.try_append(SET_COOKIE, cookie);
        if removes_anchor && removals.brought.opt_out {
            append(self.cookies.remove(Slot::Anchor));
        }
        anchor.into_iter().for_each(&mut append);
        state.into_iter().for_each(|(cookie, _)| append(cookie));
        removals.for_each(change, |slot| {
            // A new login may have the tag of the ended one: what was just set must stay.
            if Some(slot) != written {
                append(self.cookies.remove(slot));
            }
        });
        scripts.into_iter().for_each(&mut append);
        if let Some(sdk) = config.js_sdk_cookie()
            && (ends_login || removals.migrates(change))
        {
            names.delete_js_sdk(config, sdk).for_each(&mut append);
        }
        if removes_anchor {
            append(self.cookies.remove(Slot::Anchor));
        }
        Ok(size)
    }

    /// The anchor that names a login.
    fn anchor(&self, login: &Login, max_age: Duration) -> Result<HeaderValue, WriteError> {
        let lineage = login.lineage_text();
        let lineage = std::str::from_utf8(&lineage).unwrap_or_default();
        self.cookies.set(Slot::Anchor, lineage, max_age).ok_or(WriteError::TooLarge)
    }

    /// The cookie of a login's opt-out, and its slot.
    fn seal_opt_out(&self, login: Login) -> Result<(HeaderValue, Slot), WriteError> {
        let plain = OptOut { login, until: opted_out_until(self.now) }.write();
        let slot = Slot::OptOut(tag(&login));
        let (cookie, _) = self.seal(Purpose::OptOut, slot, &plain, OPT_OUT_REMEMBERED)?;
        Ok((cookie, slot))
    }

    /// The cookie of an identity, its slot, and the size of its name and value.
    fn seal_identity(&self, login: &Login, identity: &Identity) -> Result<(HeaderValue, Slot, usize), WriteError> {
        let rest = identity.times().refresh_expires.saturating_since(self.now);
        if rest < Duration::from_secs(1) {
            // A Max-Age of zero would remove the cookie.
            return Err(WriteError::Expired);
        }
        let plain = payload::write(login, identity).ok_or(WriteError::TooLarge)?;
        let slot = Slot::Identity(tag(login));
        let (cookie, bytes) = self.seal(Purpose::Identity, slot, &plain, rest.min(IDENTITY_MAX_AGE))?;
        Ok((cookie, slot, bytes))
    }

    /// The cookie of a slot with `plain` sealed in it, and the size of its name and value.
    fn seal(
        &self,
        purpose: Purpose,
        slot: Slot,
        plain: &[u8],
        max_age: Duration,
    ) -> Result<(HeaderValue, usize), WriteError> {
        let nonce: SealNonce = random::bytes().map_err(|_| WriteError::NoRandomness)?;
        let name = self.cookies.name(&slot);
        let value = aead::seal(&self.engine.keys.keys(), purpose, name, nonce, plain).ok_or(WriteError::TooLarge)?;
        let size = name.iter().map(|part| part.len()).sum::<usize>() + value.len();
        if size > MAX_NAME_AND_VALUE {
            return Err(WriteError::TooLarge);
        }
        Ok((self.cookies.set(slot, &value, max_age).ok_or(WriteError::TooLarge)?, size))
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
            Change::RecordOptOut(login) => login.migrated,
            // Without a tag, the SDK's cookie was all that came.
            Change::ForgetIdentity => matches!(self.brought.tag, Tag::SDK | Tag::NONE),
            Change::Keep | Change::EndLogin | Change::OptOut(_) | Change::Begin(_) => false,
        }
    }
}

/// The tag in the names of a login's cookies.
fn tag(login: &Login) -> Tag {
    if login.migrated { Tag::SDK } else { Tag::of_lineage(&login.lineage_text()) }
}

/// A [`HeaderMap`] of this many names has room for more, however their hashes collide. One with more may
/// refuse any cookie, and half a logout would be none.
const MANY_HEADERS: usize = 6_000;
