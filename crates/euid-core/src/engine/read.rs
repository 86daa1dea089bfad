//! Finds the state of a request and opens it.
//!
//! 1. The *identity* slot of a login holds the sealed identity; a refresh rewrites it.
//! 2. The *anchor* holds, in the clear, the lineage of the login that counts. Only a login, a logout, a withdrawal or a
//!    stated opt-out writes it; a refresh never does. An identity is usable only if the anchor names its lineage, so a
//!    late response may bring back an old identity, but not the anchor that it needs.
//! 3. An opt-out is *recorded* in a slot of its own, sealed, of the same login.
//! 4. The names of an identity and of a record carry the login's tag, so a late response of one login replaces and
//!    removes nothing of another.
//! 5. Without any anchor, what was migrated from the JS SDK's cookie counts, if the site migrates.
//! 6. If this node can't judge the state of the login that counts, the request has no usable state, and the response
//!    removes nothing: a node with more keys, or a newer one, may be able to.

use arrayvec::ArrayVec;

use super::{Engine, RejectReason};
use crate::sealed::aead::{Head, Name, OpenError, Purpose};
use crate::sealed::keys::Keys;
use crate::sealed::login::{self, Anchor, LineageText, Login};
use crate::sealed::payload::{OptOut, Payload};
use crate::transport::Transport;
use crate::transport::slots::{AtMostOne, Brought, Hits, MAX_TAGGED, Migration, Slot, Tag, Tagged};

/// The state in a request.
#[derive(Debug)]
pub(super) struct Found<'a, T> {
    pub(super) outcome: ReadOutcome<T>,
    pub(super) anchor: FoundAnchor<'a>,
    pub(super) brought: Brought,
}

/// The outcome for the sealed values of a request. Of several identities, the first usable one counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadOutcome<T> {
    /// No value has been judged, or none came.
    None,
    /// No value can be used.
    Rejected(RejectReason),
    /// An identity or a record of the login that counts opened: the value that the caller's closure returned.
    Judged(T),
}

/// The anchor of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundAnchor<'a> {
    None,
    /// A value as long as the name of a login, which may be one.
    Login(&'a LineageText),
    /// The anchor names no login.
    Ended,
    /// A garbled value, two values that differ, or none in the part of the cookies that was searched.
    Unreadable,
}

/// The content of a sealed value of the login that counts.
#[derive(Debug)]
pub(super) enum Opened<'a> {
    Identity {
        payload: &'a Payload<'a>,
        /// Under a key that is not the first any more.
        old_key: bool,
    },
    OptOut(&'a OptOut),
}

/// The login that counts, as the request names it.
#[derive(Clone, Copy)]
enum Counting<'a> {
    /// The anchor's.
    Lineage(&'a LineageText),
    /// The migrated one.
    Migrated,
}

impl Engine {
    /// Opens the state among the values that were found. Calls `judge` with the first record of an opt-out that opens
    /// and belongs to the login that counts, then with each such identity, until it returns a value. `judge` returns
    /// `None` for a value that breaks the rules of an identity. Without an anchor, migrated state counts if `migrates`.
    pub(super) fn read<'a, V: Transport, T>(
        &self,
        transport: &V,
        values: &V::Values<'a>,
        hits: &Hits<'a>,
        migrates: bool,
        mut judge: impl FnMut(&Opened<'_>, &Brought) -> Option<T>,
    ) -> Found<'a, T> {
        let anchor = FoundAnchor::of(hits);
        if hits.tagged.is_empty() {
            let brought = Brought { migration: anchor.migration(), ..Brought::NOTHING };
            return Found { outcome: ReadOutcome::None, anchor, brought };
        }
        // The usual request brings the identity that its anchor names, and nothing else.
        if let ([hit], FoundAnchor::Login(lineage)) = (&hits.tagged[..], anchor) {
            let counting = Counting::Lineage(lineage);
            let tag = counting.tag();
            if hit.slot == Slot::Identity(tag) {
                let brought = Brought { tag, identity: true, ..Brought::NOTHING };
                let outcome = open(transport, &self.keys.keys(), hit, counting, |opened| judge(opened, &brought));
                return Found { outcome, anchor, brought }.unless_garbled();
            }
        }
        self.read_tagged(transport, values, hits, anchor, migrates, judge)
    }

    fn read_tagged<'a, V: Transport, T>(
        &self,
        transport: &V,
        values: &V::Values<'a>,
        hits: &Hits<'a>,
        anchor: FoundAnchor<'a>,
        migrates: bool,
        mut judge: impl FnMut(&Opened<'_>, &Brought) -> Option<T>,
    ) -> Found<'a, T> {
        let counting = anchor.counting(migrates);
        let mut brought = Brought { tag: anchor.tag(migrates), ..Brought::NOTHING };
        let mut own = ArrayVec::<_, MAX_TAGGED>::new();
        let note = |hit: Tagged<'a>| {
            // Another name is not one of this crate.
            if !hit.slot.has_valid_tag() {
                return;
            }
            brought.note(hit.slot);
            if hit.slot.tag() == Some(brought.tag) {
                let _ = own.try_push(hit);
            }
        };
        // Those of the login that counts may stand behind the first eight.
        transport.for_each_tagged(values, hits, note);
        if brought.migration == Migration::Unseen {
            brought.migration = anchor.migration();
        } else if anchor == FoundAnchor::None && counting.is_none() {
            brought.migration = Migration::Kept;
        }
        brought.ends_leftovers = anchor.is_readable() && brought.leftovers(false).next().is_some();
        let outcome = match counting {
            Some(counting) if brought.identity || brought.opt_out => {
                self.open_own(transport, &own, counting, |opened| judge(opened, &brought))
            }
            // Their tags are invalid.
            _ if !brought.any() => ReadOutcome::None,
            _ => match anchor {
                FoundAnchor::Unreadable => ReadOutcome::Rejected(RejectReason::UnreadableAnchor),
                _ => ReadOutcome::Rejected(RejectReason::LoginEnded),
            },
        };
        if matches!(outcome, ReadOutcome::Rejected(RejectReason::UnknownKey)) {
            brought.ends_leftovers = false;
        }
        Found { outcome, anchor, brought }.unless_garbled()
    }

    /// Opens what belongs to the login that counts: its record first.
    fn open_own<T>(
        &self,
        transport: &impl Transport,
        tagged: &[Tagged<'_>],
        counting: Counting<'_>,
        mut judge: impl FnMut(&Opened<'_>) -> Option<T>,
    ) -> ReadOutcome<T> {
        let keys = self.keys.keys();
        let tag = counting.tag();
        let mut outcome = ReadOutcome::None;
        for slot in [Slot::OptOut(tag), Slot::Identity(tag)] {
            for hit in tagged.iter().filter(|hit| hit.slot == slot) {
                let found = open(transport, &keys, hit, counting, &mut judge);
                if matches!(found, ReadOutcome::Judged(_)) {
                    return found;
                }
                outcome = outcome.or(found);
            }
            // A record that this node can't judge may be of an opt-out: the identity is not opened.
            if matches!(outcome, ReadOutcome::Rejected(RejectReason::UnknownKey)) {
                return outcome;
            }
        }
        outcome
    }
}

impl Engine {
    /// Opens the record of an opt-out, of whatever login.
    pub(super) fn open_opt_out(&self, transport: &impl Transport, hit: &Tagged<'_>) -> Option<OptOut> {
        let Slot::OptOut(_) = hit.slot else { return None };
        let keys = self.keys.keys();
        let head = Head::read(&keys, hit.value)?;
        let open = |name: Name<'_>| head.open(Purpose::OptOut, name, hit.value, OptOut::parse);
        transport.with_name(&hit.slot, open).ok().flatten()
    }
}

/// Opens a record or an identity of the login that counts.
#[inline]
fn open<T>(
    transport: &impl Transport,
    keys: &Keys,
    Tagged { slot, value }: &Tagged<'_>,
    counting: Counting<'_>,
    judge: impl FnOnce(&Opened<'_>) -> Option<T>,
) -> ReadOutcome<T> {
    let Some(head) = Head::read(keys, value) else { return ReadOutcome::Rejected(RejectReason::UnknownKey) };
    let opened = transport.with_name(slot, |name| {
        if let Slot::OptOut(_) = slot {
            return head.open(Purpose::OptOut, name, value, |plain| {
                let mut record = OptOut::parse(plain).ok_or(RejectReason::Undecodable)?;
                counting.check(&mut record.login)?;
                judge(&Opened::OptOut(&record)).ok_or(RejectReason::Undecodable)
            });
        }
        let old_key = keys.is_old(head.key_id());
        head.open(Purpose::Identity, name, value, |plain| {
            let mut payload = Payload::parse(plain).ok_or(RejectReason::Undecodable)?;
            counting.check(&mut payload.login)?;
            judge(&Opened::Identity { payload: &payload, old_key }).ok_or(RejectReason::Undecodable)
        })
    });
    ReadOutcome::of(opened)
}

impl<T> Found<'_, T> {
    /// Corrects the findings for an anchor that has the length of a lineage and is none. An accepted value shows that it
    /// is one.
    #[inline]
    fn unless_garbled(mut self) -> Self {
        if !matches!(self.outcome, ReadOutcome::Judged(_)) {
            self.correct_garbled_anchor();
        }
        self
    }

    #[cold]
    fn correct_garbled_anchor(&mut self) {
        if !self.anchor.is_readable() {
            self.outcome = ReadOutcome::Rejected(RejectReason::UnreadableAnchor);
            self.anchor = FoundAnchor::Unreadable;
            if !self.brought.tag.is_valid() {
                // A name that ends with it is not one of this crate.
                (self.brought.identity, self.brought.opt_out) = (false, false);
            }
        }
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

impl Counting<'_> {
    #[inline]
    fn tag(self) -> Tag {
        match self {
            Self::Lineage(lineage) => Tag::of_lineage(lineage),
            Self::Migrated => Tag::SDK,
        }
    }

    /// Refuses an opened value of another login. Notes in the login how the request named it.
    #[inline]
    fn check(self, login: &mut Login) -> Result<(), RejectReason> {
        match self {
            Self::Lineage(lineage) if login.lineage_text() != *lineage => return Err(RejectReason::LoginEnded),
            Self::Lineage(_) => {}
            Self::Migrated => login.migrated = true,
        }
        Ok(())
    }
}

impl<'a> FoundAnchor<'a> {
    // Out of line it costs each request with cookies some 20 instructions more.
    #[inline(always)]
    pub(super) fn of(hits: &Hits<'a>) -> Self {
        match hits.anchor {
            // It may be in the part that was not searched.
            AtMostOne::None if hits.is_cut() => Self::Unreadable,
            AtMostOne::None => Self::None,
            AtMostOne::Conflict => Self::Unreadable,
            AtMostOne::One(value) => match login::parse_anchor(value) {
                Some(Anchor::Login(lineage)) => Self::Login(lineage),
                Some(Anchor::Ended) => Self::Ended,
                None => Self::Unreadable,
            },
        }
    }

    /// The login that counts, on a site that migrates or not.
    fn counting(self, migrates: bool) -> Option<Counting<'a>> {
        match self {
            Self::Login(lineage) => Some(Counting::Lineage(lineage)),
            Self::None if migrates => Some(Counting::Migrated),
            Self::None | Self::Ended | Self::Unreadable => None,
        }
    }

    /// The tag of the login that counts.
    pub(super) fn tag(self, migrates: bool) -> Tag {
        self.counting(migrates).map_or(Tag::NONE, Counting::tag)
    }

    pub(super) fn migration(&self) -> Migration {
        if *self == Self::Ended { Migration::Seen } else { Migration::Unseen }
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
