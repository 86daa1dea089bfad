//! The cookies' part of the fuzz targets' door.

#![expect(missing_docs, reason = "for the fuzz targets alone")]

use http::HeaderMap;
use http::header::COOKIE;

use super::cookies::{Cookies, Sealed, Writing};
use crate::clock::UnixMillis;
use crate::identity::{Identity, IdentityTimes};
use crate::sealed::aead::{self, Purpose};
use crate::sealed::login::Login;
use crate::sealed::payload::{self, OptOut, Payload};
use crate::sealed::{CookieKey, KeyRing};
use crate::token::AdvertisingToken;
use crate::transport::CookieConfig;
use crate::transport::cookie::{AtMostOne, Hits};

/// The cookies of one configuration, under the key of `tests/vectors/cookie-format.json`.
#[derive(Debug)]
pub struct Site {
    cookies: Cookies,
    keys: KeyRing,
}

/// The values that the headers hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan<'a> {
    pub identities: Vec<&'a [u8]>,
    pub opt_outs: Vec<&'a [u8]>,
    pub anchor: Option<&'a [u8]>,
    /// There are two anchors that differ.
    pub conflict: bool,
}

/// What an identity cookie holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    Identity { identity: Identity, bound: bool },
    OptOut(UnixMillis),
}

/// What to write.
#[derive(Clone, Copy, Debug)]
pub enum Write<'a> {
    Login(&'a Identity, Option<&'a [u8]>),
    Refreshed(&'a Identity),
    ClearIdentity,
    ClearBoth,
    OptOut,
    RecordOptOut,
    HandOver(Option<&'a Identity>),
}

impl Site {
    #[must_use]
    pub fn new(config: CookieConfig) -> Self {
        Self { cookies: Cookies::new(config), keys: CookieKey::of(KEY).into() }
    }

    /// Where the headers name our cookies.
    #[must_use]
    pub fn scan<'a>(&self, headers: &'a HeaderMap) -> Scan<'a> {
        let mut hits = Hits::default();
        self.cookies.names.find(headers.get_all(COOKIE), &mut hits);
        let (anchor, conflict) = match hits.anchor {
            AtMostOne::None => (None, false),
            AtMostOne::One(value) => (Some(value), false),
            AtMostOne::Conflict => (None, true),
        };
        let [identities, opt_outs] = [hits.identities, hits.opt_outs].map(|hits| hits.to_vec());
        Scan { identities, opt_outs, anchor, conflict }
    }

    /// Reads the cookies; what can be used, and all that is said of them.
    #[must_use]
    pub fn read(&self, headers: &HeaderMap) -> (Option<Opened>, String) {
        let mut opened = None;
        let found = self.cookies.read(headers.get_all(COOKIE), &self.keys, |sealed| {
            opened = Some(match sealed {
                Sealed::Identity { payload, .. } => {
                    Opened::Identity { identity: payload.identity()?, bound: payload.login.is_bound() }
                }
                Sealed::OptOut { record, .. } => Opened::OptOut(record.until),
            });
            Some(())
        });
        (opened, format!("{found:?}"))
    }

    /// All that is said of the cookies of scripts, where `token` is to be handed over.
    #[must_use]
    pub fn read_scripts(&self, headers: &HeaderMap, token: &str) -> String {
        let zero = UnixMillis::from_millis(0);
        let times = IdentityTimes { refresh_from: zero, identity_expires: zero, refresh_expires: zero };
        let token = AdvertisingToken::new(token, times);
        let put_right = [None, Some(&token)].map(|token| self.cookies.handed_over_other_than(token, headers));
        format!("{:?} {put_right:?}", self.cookies.read_js_sdk(headers))
    }

    /// Seals any plaintext at all, as an identity or as the record of an opt-out.
    #[must_use]
    pub fn seal(&self, opt_out: bool, nonce: [u8; 24], plain: &[u8]) -> Option<String> {
        let names = &self.cookies.names;
        let (purpose, name) =
            if opt_out { (Purpose::OptOut, names.opt_out) } else { (Purpose::Identity, names.identity) };
        aead::seal(&self.keys.keys(), purpose, name, nonce, plain)
    }

    /// Writes the cookies, or nothing.
    #[must_use]
    pub fn write(&self, write: Write<'_>, now: UnixMillis, headers: &mut HeaderMap) -> bool {
        let login = Login { lineage: [7; 16], subject: None };
        let writing = match write {
            Write::Login(identity, subject) => Writing::Login(identity, subject),
            Write::Refreshed(identity) => Writing::Store(&login, identity),
            Write::ClearIdentity => Writing::ClearIdentity,
            Write::ClearBoth => Writing::ClearBoth,
            Write::OptOut => Writing::OptOut,
            Write::RecordOptOut => Writing::RecordOptOut(&login),
            Write::HandOver(identity) => {
                Writing::HandOver(identity.map(|identity| (identity.advertising_token(), identity.times())))
            }
        };
        self.cookies.write(writing, true, &self.keys, now, headers).is_ok()
    }
}

/// The lineage in a plaintext and what we would write for what it says; `None` if it says nothing.
#[must_use]
pub fn rewrite(opt_out: bool, plain: &[u8]) -> Option<([u8; 16], Vec<u8>)> {
    if opt_out {
        let record = OptOut::parse(plain)?;
        return Some((record.login.lineage, record.write()));
    }
    let payload = Payload::parse(plain)?;
    let written = payload::write(&payload.login, &payload.identity()?)?;
    Some((payload.login.lineage, written.to_vec()))
}

const KEY: [u8; 32] = *b"\x40\x31\x09\x00\x53\x0e\x8e\x29\x69\xe2\x88\x76\x85\x8c\xb2\xd5\
    \x65\x90\x25\xdb\xc1\x12\x7f\x35\x59\xc6\x9a\xdf\x60\xd3\xad\xb6";
