//! Writes a change into a response's headers. A value that no browser would keep whole is not sent at all.

use std::time::Duration;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};

use super::opt_out::{OPT_OUT_REMEMBERED, opted_out_until};
use super::{Change, Engine, WriteError};
use crate::clock::UnixMillis;
use crate::identity::Identity;
use crate::random;
use crate::sealed::aead::{self, Purpose, SealNonce};
use crate::sealed::login::{Login, opted_out_anchor};
use crate::sealed::payload::{self, OptOut};
use crate::transport::cookie::{ANCHOR_MAX_AGE, IDENTITY_MAX_AGE, MAX_NAME_AND_VALUE};
use crate::transport::js_sdk;
use crate::transport::slots::Slot;

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

impl Engine {
    /// Appends the `Set-Cookie` headers; returns the size of the identity's name and value, if one was written. On an error
    /// nothing was written.
    pub(super) fn write(
        &self,
        change: &Change,
        scripts: ScriptWrite<'_>,
        now: UnixMillis,
        headers: &mut HeaderMap,
    ) -> Result<Option<usize>, WriteError> {
        if headers.keys_len() > MANY_HEADERS {
            return Err(WriteError::HeadersFull);
        }
        let remove = |slot| self.cookies.remove(slot);
        let set = |slot, value: &str, age| self.cookies.set(slot, value, age).ok_or(WriteError::TooLarge);
        let (mut opt_out, mut size) = (None, None);
        let mut sized = |(cookie, bytes)| {
            size = Some(bytes);
            cookie
        };
        let (identity, anchor) = match change {
            Change::Keep => (None, None),
            Change::ForgetIdentity => (Some(remove(Slot::Identity)), None),
            Change::EndLogin => (Some(remove(Slot::Identity)), Some(remove(Slot::Anchor))),
            Change::OptOut => {
                let anchor = set(Slot::Anchor, &opted_out_anchor(opted_out_until(now)), OPT_OUT_REMEMBERED)?;
                (Some(remove(Slot::Identity)), Some(anchor))
            }
            Change::RecordOptOut(login) => {
                let plain = OptOut { login: **login, until: opted_out_until(now) }.write();
                // It outlives the opt-out, so that it still ends an identity that a late answer brings.
                let (cookie, _) = self.seal(Purpose::OptOut, Slot::OptOut, &plain, IDENTITY_MAX_AGE)?;
                opt_out = Some(cookie);
                (Some(remove(Slot::Identity)), None)
            }
            Change::Renew(record) => (Some(sized(self.seal_identity(&record.login, &record.identity, now)?)), None),
            Change::Begin(new) => {
                let login = Login::new(new.subject.as_deref()).map_err(|_| WriteError::NoRandomness)?;
                let lineage = login.lineage_text();
                let lineage = std::str::from_utf8(&lineage).unwrap_or_default();
                let anchor = set(Slot::Anchor, lineage, ANCHOR_MAX_AGE)?;
                (Some(sized(self.seal_identity(&login, &new.identity, now)?)), Some(anchor))
            }
        };
        let config = self.cookies.config();
        let scripts = match scripts {
            ScriptWrite::Keep => None,
            ScriptWrite::Token(token, ends) => Some(js_sdk::expose_token(config, Some((token, ends)), now)),
            ScriptWrite::Remove => Some(js_sdk::expose_token(config, None, now)),
        };
        let scripts = scripts.map(|cookie| cookie.ok_or(WriteError::TooLarge)).transpose()?;
        // Writing or removing the anchor ends the previous login, and with it the record of its opt-out.
        let writes_anchor = anchor.is_some();
        if writes_anchor {
            opt_out = Some(remove(Slot::OptOut));
        }
        let mut append = |cookie| _ = headers.try_append(SET_COOKIE, cookie);
        // The anchor's removal comes last: curl's jar file forgets all removals but the last.
        let (first, last) = if matches!(change, Change::EndLogin) { (None, anchor) } else { (anchor, None) };
        [identity, first, opt_out, scripts].into_iter().flatten().for_each(&mut append);
        if let Some(sdk) = config.js_sdk_cookie()
            && writes_anchor
        {
            js_sdk::delete_js_sdk(config, sdk).for_each(&mut append);
        }
        last.into_iter().for_each(append);
        Ok(size)
    }

    /// The cookie of an identity, and the size of its name and value.
    fn seal_identity(
        &self,
        login: &Login,
        identity: &Identity,
        now: UnixMillis,
    ) -> Result<(HeaderValue, usize), WriteError> {
        let rest = identity.times().refresh_expires.saturating_since(now);
        if rest < Duration::from_secs(1) {
            // A Max-Age of zero would remove the cookie.
            return Err(WriteError::Expired);
        }
        let plain = payload::write(login, identity).ok_or(WriteError::TooLarge)?;
        self.seal(Purpose::Identity, Slot::Identity, &plain, rest.min(IDENTITY_MAX_AGE))
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
        let name = self.cookies.name(slot);
        let value = aead::seal(&self.keys.keys(), purpose, name, nonce, plain).ok_or(WriteError::TooLarge)?;
        let size = name.len() + value.len();
        if size > MAX_NAME_AND_VALUE {
            return Err(WriteError::TooLarge);
        }
        Ok((self.cookies.set(slot, &value, max_age).ok_or(WriteError::TooLarge)?, size))
    }
}

/// A [`HeaderMap`] of this many names has room for more, however their hashes collide. One with more may
/// refuse any cookie, and half a logout would be none.
const MANY_HEADERS: usize = 6_000;
