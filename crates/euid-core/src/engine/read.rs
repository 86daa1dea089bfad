//! Finds the state of a request and opens it.
//!
//! 1. The *identity* slot of a login holds the sealed identity; a refresh rewrites it.
//! 2. The *anchor* holds, in the clear, the lineage of the login that counts. Only a login, a logout, a withdrawal or a
//!    stated opt-out writes it; a refresh never does. An identity is usable only if the anchor names its lineage, so a
//!    late response may bring back an old identity, but not the anchor that it needs.
//! 3. An opt-out is *recorded* in a slot of its own, sealed, of the same login.
//! 4. The names of both carry the login's tag, so a late response of one login replaces and removes nothing of another.
//! 5. Without any anchor, what was migrated from the JS SDK's cookie counts, if the site migrates.
//! 6. If this node can't judge state of the login that counts, the request has no usable state, and the response
//!    removes nothing: a node with more keys, or a newer one, may be able to.

use arrayvec::ArrayVec;
use http::HeaderValue;
use http::header::GetAll;

use super::{Engine, RejectReason};
use crate::sealed::aead::{Head, OpenError, Purpose};
use crate::sealed::keys::Keys;
use crate::sealed::login::{self, Anchor, LineageText, Login};
use crate::sealed::payload::{OptOut, Payload};
use crate::transport::cookie::{AtMostOne, Hits, Tagged};
use crate::transport::slots::{Brought, Slot, Tag};

/// The state in a request.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) outcome: ReadOutcome<T>,
    pub(super) anchor: FoundAnchor,
    pub(super) brought: Brought,
}

/// The outcome for the sealed values of a request. Of several identities, the first usable one counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadOutcome<T> {
    /// The request brought none.
    None,
    /// No value can be used.
    Rejected(RejectReason),
    /// An identity or a record of the login that counts opened: the value that the caller's closure returned.
    Judged(T),
}

/// The anchor of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundAnchor {
    None,
    /// A value as long as the name of a login, which may be one.
    Login(LineageText),
    /// The anchor names no login.
    Ended,
    /// A garbled value, or two values that differ.
    Unreadable,
}

/// The content of a sealed value of the login that counts.
#[derive(Debug)]
pub(super) enum Opened<'a> {
    Identity {
        payload: &'a Payload<'a>,
        /// Under a key that is not the newest any more.
        old_key: bool,
    },
    OptOut(&'a OptOut),
}

/// The login that counts, as the request names it.
#[derive(Clone, Copy)]
enum Counting {
    /// The anchor's.
    Lineage(LineageText),
    /// The migrated one.
    Migrated,
}

impl Engine {
    /// Finds and opens the state. Calls `judge` with the first record of an opt-out that opens and belongs to the login
    /// that counts, then with each such identity, until it returns a value. `judge` returns `None` for a value that
    /// breaks the rules of an identity.
    pub(super) fn read<T>(
        &self,
        cookies: GetAll<'_, HeaderValue>,
        mut judge: impl FnMut(&Opened<'_>, &Brought) -> Option<T>,
    ) -> Found<T> {
        let mut hits = Hits::default();
        self.cookies.find(cookies.iter(), &mut hits);
        let anchor = FoundAnchor::of(hits.anchor);
        if hits.tagged.is_empty() {
            return Found { outcome: ReadOutcome::None, anchor, brought: Brought::NOTHING };
        }
        // The usual request brings the identity that its anchor names, and nothing else.
        if let ([hit], FoundAnchor::Login(lineage)) = (&hits.tagged[..], anchor) {
            let counting = Counting::Lineage(lineage);
            let tag = counting.tag();
            if hit.slot == Slot::Identity(tag) {
                let brought = Brought { tag, identity: true, ..Brought::NOTHING };
                let outcome = self.open_identity(&self.keys.keys(), hit, counting, |opened| judge(opened, &brought));
                return Found { outcome, anchor, brought }.checked();
            }
        }
        self.read_tagged(&cookies, &hits, anchor, judge)
    }

    fn read_tagged<T>(
        &self,
        cookies: &GetAll<'_, HeaderValue>,
        hits: &Hits<'_>,
        anchor: FoundAnchor,
        mut judge: impl FnMut(&Opened<'_>, &Brought) -> Option<T>,
    ) -> Found<T> {
        let counting = match anchor {
            FoundAnchor::Login(lineage) => Some(Counting::Lineage(lineage)),
            FoundAnchor::None if self.cookies.config().js_sdk_cookie().is_some() => Some(Counting::Migrated),
            FoundAnchor::None | FoundAnchor::Ended | FoundAnchor::Unreadable => None,
        };
        let mut brought = Brought::sort(counting.map_or(Tag::NONE, Counting::tag), hits);
        let mut own = ArrayVec::new();
        if hits.overflow && counting.is_some() {
            self.cookies.find_tag(brought.tag, cookies.iter(), &mut own);
            brought.note_own(&own);
        }
        let tagged = if own.is_empty() { &hits.tagged } else { &own };
        brought.keeps_migrated = anchor == FoundAnchor::None && counting.is_none();
        brought.ends_leftovers = anchor.is_readable() && brought.leftovers(false).next().is_some();
        let outcome = match counting {
            Some(counting) if brought.identity || brought.opt_out => {
                self.open_own(tagged, counting, |opened| judge(opened, &brought))
            }
            _ => match anchor {
                FoundAnchor::Unreadable => ReadOutcome::Rejected(RejectReason::UnreadableAnchor),
                _ => ReadOutcome::Rejected(RejectReason::LoginEnded),
            },
        };
        if matches!(outcome, ReadOutcome::Rejected(RejectReason::UnknownKey)) {
            brought.ends_leftovers = false;
        }
        Found { outcome, anchor, brought }.checked()
    }

    /// Opens what belongs to the login that counts: its record first.
    fn open_own<T>(
        &self,
        tagged: &[Tagged<'_>],
        counting: Counting,
        mut judge: impl FnMut(&Opened<'_>) -> Option<T>,
    ) -> ReadOutcome<T> {
        let keys = self.keys.keys();
        let tag = counting.tag();
        let mut outcome = ReadOutcome::None;
        for hit in tagged.iter().filter(|hit| hit.slot == Slot::OptOut(tag)) {
            let found = self.open_record(&keys, hit, counting, &mut judge);
            if matches!(found, ReadOutcome::Judged(_)) {
                return found;
            }
            outcome = outcome.or(found);
        }
        // A record that this node can't judge may be of an opt-out.
        if matches!(outcome, ReadOutcome::Rejected(RejectReason::UnknownKey)) {
            return outcome;
        }
        for hit in tagged.iter().filter(|hit| hit.slot == Slot::Identity(tag)) {
            let found = self.open_identity(&keys, hit, counting, &mut judge);
            if matches!(found, ReadOutcome::Judged(_)) {
                return found;
            }
            outcome = outcome.or(found);
        }
        outcome
    }

    fn open_identity<T>(
        &self,
        keys: &Keys,
        Tagged { slot, value }: &Tagged<'_>,
        counting: Counting,
        judge: impl FnOnce(&Opened<'_>) -> Option<T>,
    ) -> ReadOutcome<T> {
        let Some(head) = Head::read(keys, value) else { return ReadOutcome::Rejected(RejectReason::UnknownKey) };
        let old_key = keys.is_old(head.key_id());
        let opened = head.open(Purpose::Identity, self.cookies.name(slot), value, |plain| {
            let mut payload = Payload::parse(plain).ok_or(RejectReason::Undecodable)?;
            if !counting.claims(&mut payload.login) {
                return Err(RejectReason::LoginEnded);
            }
            judge(&Opened::Identity { payload: &payload, old_key }).ok_or(RejectReason::Undecodable)
        });
        ReadOutcome::of(opened)
    }

    fn open_record<T>(
        &self,
        keys: &Keys,
        Tagged { slot, value }: &Tagged<'_>,
        counting: Counting,
        judge: impl FnOnce(&Opened<'_>) -> Option<T>,
    ) -> ReadOutcome<T> {
        let Some(head) = Head::read(keys, value) else { return ReadOutcome::Rejected(RejectReason::UnknownKey) };
        let opened = head.open(Purpose::OptOut, self.cookies.name(slot), value, |plain| {
            let mut record = OptOut::parse(plain).ok_or(RejectReason::Undecodable)?;
            if !counting.claims(&mut record.login) {
                return Err(RejectReason::LoginEnded);
            }
            judge(&Opened::OptOut(&record)).ok_or(RejectReason::Undecodable)
        });
        ReadOutcome::of(opened)
    }
}

impl<T> Found<T> {
    /// Corrects the findings for an anchor that has the length of a lineage and is none. An accepted value shows that it
    /// is one.
    #[inline]
    fn checked(self) -> Self {
        if matches!(self.outcome, ReadOutcome::Judged(_)) { self } else { self.recheck() }
    }

    #[cold]
    fn recheck(mut self) -> Self {
        if !self.anchor.is_readable() {
            self.outcome = ReadOutcome::Rejected(RejectReason::UnreadableAnchor);
            self.anchor = FoundAnchor::Unreadable;
        }
        self
    }
}

impl<T> ReadOutcome<T> {
    fn of(opened: Result<Result<T, RejectReason>, OpenError>) -> Self {
        match opened {
            Ok(Ok(judged)) => Self::Judged(judged),
            Ok(Err(reason)) => Self::Rejected(reason),
            Err(OpenError::Forged) => Self::Rejected(RejectReason::Forged),
            Err(OpenError::Undecodable) => Self::Rejected(RejectReason::Undecodable),
        }
    }

    /// The outcome of two values. An unknown key takes precedence: nothing of this login is removed then.
    fn or(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::None, _) | (_, Self::Rejected(RejectReason::UnknownKey)) => other,
            _ => self,
        }
    }
}

impl Counting {
    #[inline]
    fn tag(self) -> Tag {
        match self {
            Self::Lineage(lineage) => Tag::of_lineage(&lineage),
            Self::Migrated => Tag::SDK,
        }
    }

    /// Whether an opened value belongs to this login. Notes in the login how the request named it.
    #[inline]
    fn claims(self, login: &mut Login) -> bool {
        match self {
            Self::Lineage(lineage) => login.lineage_text() == lineage,
            Self::Migrated => {
                login.migrated = true;
                true
            }
        }
    }
}

impl FoundAnchor {
    // Out of line it costs each request with cookies some 20 instructions more.
    #[inline(always)]
    fn of(hit: AtMostOne<'_>) -> Self {
        match hit {
            AtMostOne::None => Self::None,
            AtMostOne::Conflict => Self::Unreadable,
            AtMostOne::One(value) => match login::parse_anchor(value) {
                Some(Anchor::Login(lineage)) => Self::Login(lineage),
                Some(Anchor::Ended) => Self::Ended,
                None => Self::Unreadable,
            },
        }
    }

    /// Whether withdrawn consent must remove it.
    pub(super) fn is_state(&self) -> bool {
        matches!(self, Self::Login(_) | Self::Unreadable)
    }

    /// Whether it says for certain which login counts.
    fn is_readable(&self) -> bool {
        match self {
            Self::None | Self::Ended => true,
            Self::Login(lineage) => login::is_lineage(lineage),
            Self::Unreadable => false,
        }
    }
}
