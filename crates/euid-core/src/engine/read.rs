//! Finds the state of a request and opens it.
//!
//! 1. The *identity* slot holds the sealed identity; a refresh rewrites it.
//! 2. The *anchor* (the login slot) holds, in the clear, the lineage of the login that counts. Only a login, a logout,
//!    a withdrawal or a stated opt-out writes it; a refresh never does. An identity is usable only if the anchor names
//!    its lineage, so a late answer may bring back an old identity, but not the anchor that it needs.
//! 3. An opt-out that a refresh has found is *recorded* in a slot of its own, sealed, of the same lineage: it applies
//!    to no other login, and no late answer of this login removes it.

use http::HeaderValue;
use http::header::GetAll;

use super::{Engine, RejectReason};
use crate::clock::UnixMillis;
use crate::sealed::aead::{Head, OpenError, Purpose};
use crate::sealed::keys::Keys;
use crate::sealed::login::{self, Anchor, LineageText};
use crate::sealed::payload::{OptOut, Payload};
use crate::transport::cookie::{AtMostOne, Hits};
use crate::transport::slots::Slot;

/// The state in a request.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) outcome: Outcome<T>,
    pub(super) anchor: FoundAnchor,
}

/// The outcome for the sealed values of a request. Of several identities, the first usable one counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome<T> {
    /// The request brought none.
    None,
    /// No value can be used.
    Rejected(RejectReason),
    /// An identity or a record opened, and the anchor names its lineage: the value that the caller's closure returned.
    Judged(T),
}

/// The anchor of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundAnchor {
    None,
    /// A value as long as the name of a login, which may be one.
    Login(LineageText),
    OptedOut {
        until: UnixMillis,
    },
    /// A garbled value, two values that differ, or no anchor beside the record of an opt-out.
    Unusable,
}

/// The content of a sealed value that belongs to the login that the anchor names.
#[derive(Debug)]
pub(super) enum Opened<'a> {
    Identity {
        payload: &'a Payload<'a>,
        /// Under a key that is not the newest any more.
        old_key: bool,
    },
    OptOut {
        record: &'a OptOut,
        /// Whether the request brought an identity too.
        identity_came: bool,
    },
}

impl Engine {
    /// Finds and opens the state. Calls `judge` with the first record of an opt-out that opens and whose lineage the
    /// anchor names, then with each such identity, until it returns a value. `judge` returns `None` for a value that
    /// breaks the rules of an identity.
    pub(super) fn read<T>(
        &self,
        cookies: GetAll<'_, HeaderValue>,
        mut judge: impl FnMut(&Opened<'_>) -> Option<T>,
    ) -> Found<T> {
        let mut hits = Hits::default();
        self.cookies.find(cookies, &mut hits);
        let anchor = FoundAnchor::of(hits.anchor);
        let mut outcome = Outcome::None;
        let identity_came = !hits.identities.is_empty();
        if !identity_came && hits.opt_outs.is_empty() {
            return Found { outcome, anchor };
        }
        // A record without an anchor is state as well: withdrawn consent removes it.
        let is_orphan = anchor == FoundAnchor::None && !hits.opt_outs.is_empty();
        let anchor = if is_orphan { FoundAnchor::Unusable } else { anchor };
        let keys = self.keys.keys();
        if let FoundAnchor::Login(lineage) = anchor {
            let record = hits.opt_outs.iter().find_map(|value| self.open_record(&keys, value, lineage));
            let judged = record.and_then(|record| judge(&Opened::OptOut { record: &record, identity_came }));
            if let Some(judged) = judged {
                return Found { outcome: Outcome::Judged(judged), anchor };
            }
        }
        for value in &hits.identities {
            let found = match (Head::read(&keys, value), anchor) {
                (None, _) => Outcome::Rejected(RejectReason::UnknownKey),
                // The anchor names no lineage, so none can match: the value need not be opened.
                (Some(_), FoundAnchor::None | FoundAnchor::OptedOut { .. } | FoundAnchor::Unusable) => {
                    Outcome::Rejected(RejectReason::LoginEnded)
                }
                (Some(head), FoundAnchor::Login(lineage)) => {
                    self.open(head, keys.is_old(head.key_id()), value, lineage, &mut judge)
                }
            };
            match (&found, &outcome) {
                (Outcome::Judged(_), _) => return Found { outcome: found, anchor },
                // A reason of an identity under a known key takes precedence over an unknown key.
                (_, Outcome::None | Outcome::Rejected(RejectReason::UnknownKey)) => outcome = found,
                _ => {}
            }
        }
        Found { outcome, anchor }
    }

    fn open<T>(
        &self,
        head: Head<'_>,
        old_key: bool,
        value: &[u8],
        lineage: LineageText,
        judge: impl FnOnce(&Opened<'_>) -> Option<T>,
    ) -> Outcome<T> {
        let opened = head.open(Purpose::Identity, self.cookies.name(Slot::Identity), value, |plain| {
            let payload = Payload::parse(plain).ok_or(RejectReason::Undecodable)?;
            if payload.login.lineage_text() != lineage {
                return Err(RejectReason::LoginEnded);
            }
            judge(&Opened::Identity { payload: &payload, old_key }).ok_or(RejectReason::Undecodable)
        });
        match opened {
            Ok(Ok(judged)) => Outcome::Judged(judged),
            Ok(Err(reason)) => Outcome::Rejected(reason),
            Err(OpenError::Forged) => Outcome::Rejected(RejectReason::Forged),
            Err(OpenError::Undecodable) => Outcome::Rejected(RejectReason::Undecodable),
        }
    }

    /// The record of an opt-out, if it belongs to this login.
    fn open_record(&self, keys: &Keys, value: &[u8], lineage: LineageText) -> Option<OptOut> {
        let head = Head::read(keys, value)?;
        let record = head.open(Purpose::OptOut, self.cookies.name(Slot::OptOut), value, OptOut::parse).ok()??;
        (record.login.lineage_text() == lineage).then_some(record)
    }
}

impl FoundAnchor {
    // Out of line it costs each request with cookies some 20 instructions more.
    #[inline(always)]
    fn of(hit: AtMostOne<'_>) -> Self {
        match hit {
            AtMostOne::None => Self::None,
            AtMostOne::Conflict => Self::Unusable,
            AtMostOne::One(value) => match login::parse_anchor(value) {
                Some(Anchor::Login(lineage)) => Self::Login(lineage),
                Some(Anchor::OptedOut { until }) => Self::OptedOut { until },
                None => Self::Unusable,
            },
        }
    }
}
