//! The part of the fuzz targets' interface that reads and writes cookies.

use std::sync::Arc;

use http::HeaderMap;
use http::header::COOKIE;

use super::opt_out::opted_out_until;
use super::write::{Removals, ScriptWrite, Writing};
use super::{Change, Engine, NewLogin, Renewal};
use crate::clock::UnixMillis;
use crate::identity::Identity;
use crate::sealed::CookieKey;
use crate::sealed::aead::{self, Purpose};
use crate::sealed::login::{Lineage, Login};
use crate::sealed::payload::{self, OptOut, Payload};
use crate::transport::CookieConfig;
use crate::transport::Transport;
use crate::transport::route::Route;
use crate::transport::slots::{AtMostOne, Brought, Hits, Slot, Tag};

/// The engine of one configuration, under the key of `tests/vectors/cookie-format.json`.
#[derive(Debug)]
pub struct Site(Engine);

/// The values that the headers hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan<'a> {
    /// Names and values of the cookies that have a tag.
    pub tagged: Vec<(String, &'a [u8])>,
    pub anchor: Option<&'a [u8]>,
    /// There are two anchors that differ.
    pub conflict: bool,
}

/// The content of an identity cookie.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    Identity { identity: Identity, bound: bool },
    OptOut(UnixMillis),
}

/// A change to write.
#[derive(Clone, Copy, Debug)]
pub enum Write<'a> {
    Login(&'a Identity, Option<&'a [u8]>),
    Refreshed(&'a Identity),
    ClearIdentity,
    ClearBoth,
    OptOut,
    RecordOptOut,
    ExposeToken(Option<&'a Identity>),
}

impl Site {
    #[must_use]
    pub fn new(config: CookieConfig) -> Self {
        Self(Engine::new(CookieKey::of(KEY).into()).with_cookie(config))
    }

    /// Finds the site's cookies in the headers.
    #[must_use]
    pub fn scan<'a>(&self, headers: &'a HeaderMap) -> Scan<'a> {
        let mut hits = Hits::default();
        self.0.cookies.find(&headers.get_all(COOKIE), &mut hits);
        let (anchor, conflict) = match hits.anchor {
            AtMostOne::None => (None, false),
            AtMostOne::One(value) => (Some(value), false),
            AtMostOne::Conflict => (None, true),
        };
        let name = |slot| self.0.cookies.with_name(&slot, |name| String::from_utf8_lossy(&name.concat()).into_owned());
        let tagged = hits.tagged.iter().map(|hit| (name(hit.slot), hit.value)).collect();
        Scan { tagged, anchor, conflict }
    }

    /// Reads the cookies; returns the state that can be used, and all findings as text.
    #[must_use]
    pub fn read(&self, headers: &HeaderMap) -> (Option<Opened>, String) {
        let mut opened = None;
        let migrates = self.0.cookies.config().js_sdk_cookie().is_some();
        let cookies = headers.get_all(COOKIE);
        let mut hits = Hits::default();
        self.0.cookies.find(&cookies, &mut hits);
        let found = self.0.read(&self.0.cookies, &cookies, &hits, migrates, |value, _| {
            opened = Some(match value {
                super::read::Opened::Identity { payload, .. } => {
                    Opened::Identity { identity: payload.identity()?, bound: payload.login.is_bound() }
                }
                super::read::Opened::OptOut(record) => Opened::OptOut(record.until),
            });
            Some(())
        });
        (opened, format!("{found:?}"))
    }

    /// All findings about the cookies of scripts as text, if `token` is the one to hand over.
    #[must_use]
    pub fn read_scripts(&self, headers: &HeaderMap, token: &str) -> String {
        let names = self.0.cookies.scripts();
        let differs = [None, Some(token)].map(|token| names.find(headers, token).differs(token.is_some()));
        let sdk = self.0.cookies.config().js_sdk_cookie().and_then(|_| names.read_js_sdk(headers));
        format!("{sdk:?} {differs:?}")
    }

    /// Seals any plaintext at all, as an identity or as the record of an opt-out.
    #[must_use]
    pub fn seal(&self, opt_out: bool, nonce: [u8; 24], plain: &[u8]) -> Option<String> {
        let tag = Tag::of_lineage(&LOGIN.lineage_text());
        let (purpose, slot) =
            if opt_out { (Purpose::OptOut, Slot::OptOut(tag)) } else { (Purpose::Identity, Slot::Identity(tag)) };
        self.0.cookies.with_name(&slot, |name| aead::seal(&self.0.keys.keys(), purpose, name, nonce, plain))
    }

    /// Writes the cookies, or nothing.
    #[must_use]
    pub fn write(&self, write: Write<'_>, now: UnixMillis, headers: &mut HeaderMap) -> bool {
        let login = LOGIN;
        let shared = |identity: &Identity| Arc::new(identity.clone());
        let token = |identity: &Identity| (identity.advertising_token().to_owned(), identity.times().identity_expires);
        let (change, token) = match write {
            Write::Login(identity, subject) => {
                let login = NewLogin { identity: shared(identity), subject: subject.map(Into::into) };
                (Change::Begin(Arc::new(login)), Some(token(identity)))
            }
            Write::Refreshed(identity) => {
                (Change::Renew(Box::new(Renewal { login, identity: shared(identity) })), Some(token(identity)))
            }
            Write::ClearIdentity => (Change::ForgetIdentity, None),
            Write::ClearBoth => (Change::EndLogin, None),
            Write::OptOut => (Change::opt_out(), None),
            Write::RecordOptOut => {
                (Change::RecordOptOut(Box::new(OptOut { login, until: opted_out_until(now) })), None)
            }
            Write::ExposeToken(identity) => (Change::Keep, identity.map(token)),
        };
        let scripts = match &token {
            _ if !self.0.cookies.config().exposes_token() => ScriptWrite::Keep,
            Some((token, ends)) => ScriptWrite::Token(token, *ends),
            None => ScriptWrite::Remove,
        };
        let removals =
            Removals { route: Route::by_cookies(self.0.cookies.scope()), brought: &Brought::NOTHING, leftovers: false };
        self.0.write(Writing { change: &change, removals, scripts, saved: None }, &|| now, headers).is_ok()
    }
}

/// The lineage in a plaintext, and the plaintext that this crate writes for the same content; `None` if it has none.
#[must_use]
pub fn rewrite(opt_out: bool, plain: &[u8]) -> Option<([u8; 16], Vec<u8>)> {
    if opt_out {
        let record = OptOut::parse(plain)?;
        return Some((*record.login.lineage.as_bytes(), record.write()));
    }
    let payload = Payload::parse(plain)?;
    let written = payload::write(&payload.login, &payload.identity()?)?;
    Some((*payload.login.lineage.as_bytes(), written.to_vec()))
}

const LOGIN: Login = Login { lineage: Lineage::from_bytes([7; 16]), subject: None, migrated: false };
const KEY: [u8; 32] = *b"\x40\x31\x09\x00\x53\x0e\x8e\x29\x69\xe2\x88\x76\x85\x8c\xb2\xd5\
    \x65\x90\x25\xdb\xc1\x12\x7f\x35\x59\xc6\x9a\xdf\x60\xd3\xad\xb6";
