//! The slots for a visitor's state: what a request brought in them, in whatever transport.
//!
//! 1. The anchor has one name. The name of an identity, or of the record of an opt-out, ends with the *tag* of its
//!    login. So a late response of one login never overwrites the value of another.
//! 2. A name whose tag is not valid is not one of this crate: it is neither read nor removed.

use std::fmt::Write;
use std::sync::Arc;

use arrayvec::{ArrayString, ArrayVec};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;

use super::cookie::MAX_SCANNED;
use crate::scope::Scope;
use crate::store::StoreKey;

/// The purpose of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The name of the login that counts.
    Anchor,
    /// The sealed identity of a login.
    Identity(Tag),
    /// The record of a login's opt-out.
    OptOut(Tag),
}

/// The end of a name, which says to which login the value belongs: 24 bits of the lineage. They are held as the first
/// four characters of the lineage's text, as cookies write them; headers write six hexadecimal digits. Two logins of a
/// browser have the same tag once in 2^24; the second then overwrites what is left of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag([u8; 4]);

/// The layer's values in a request, as they came.
#[derive(Debug, Default)]
pub(crate) struct Hits<'a> {
    pub anchor: AtMostOne<'a>,
    /// The first ones that have a tag, in order; a name may occur twice.
    pub tagged: ArrayVec<Tagged<'a>, MAX_TAGGED>,
    /// The request brought more of these than were kept.
    pub overflow: bool,
    /// The bytes of the request's `Cookie` headers, up to the first one that was not searched; 0 for an app's headers.
    pub length: usize,
}

/// A value whose name has a tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tagged<'a> {
    pub slot: Slot,
    pub value: &'a [u8],
}

/// A value of which a request should hold at most one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AtMostOne<'a> {
    #[default]
    None,
    /// Its value; it may have come more than once.
    One(&'a [u8]),
    /// Two values that differ.
    Conflict,
}

/// The tagged values of a request, by their names. The response removes those that it ends.
#[derive(Clone, Debug)]
pub(crate) struct Brought {
    /// The tag of the login that counts, or [`Tag::NONE`].
    pub tag: Tag,
    /// The request brought an identity with this tag.
    pub identity: bool,
    /// The request brought a record with this tag.
    pub opt_out: bool,
    /// The values of other logins and other scopes, if there are any.
    pub others: Option<Arc<Others>>,
    /// Any page removes the leftovers; if not, only a login or a logout does.
    pub ends_leftovers: bool,
    /// What the request says of migration.
    pub migration: Migration,
}

/// The values of a request that are not of the login that counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Others {
    /// Those of other logins.
    pub leftovers: Leftovers,
    /// Those of scopes that do not serve the request, if the engine serves both.
    pub idle: Idle,
    /// The place of the login that counts in a store, if the engine uses one.
    pub held: Option<Held>,
}

/// The place of a login in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub key: StoreKey,
    /// The key of the login that this one replaced, which has not ended yet.
    pub previous: Option<StoreKey>,
    /// What the store had, if it has been read.
    pub read: Option<HeldRecord>,
}

impl Held {
    pub(crate) fn of(key: StoreKey) -> Self {
        Self { key, previous: None, read: None }
    }
}

/// What a store had for a login or a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldRecord {
    Nothing,
    /// A login, by its lineage.
    Login {
        version: [u8; 16],
        lineage: [u8; 16],
    },
    Ended {
        version: [u8; 16],
    },
    OptedOut {
        version: [u8; 16],
    },
    /// By handle: it has something, or the client has the identity itself, which may be on its way to the store.
    Known,
}

/// The state of the scopes that do not serve a request: one scope, or both.
pub(crate) type Idle = ArrayVec<IdleScope, 2>;

/// The state of a scope that does not serve the request. Pages leave it alone; a logout and withdrawn consent end it
/// too.
#[derive(Clone, Debug)]
pub(crate) struct IdleScope {
    pub scope: Scope,
    pub brought: Brought,
    /// The request brought an anchor of this scope, of whatever value. Without one, what was migrated from the JS SDK's
    /// cookie counts.
    pub has_anchor: bool,
    /// The request brought an anchor of this scope that may name a login, a tagged value, or a cookie of the JS SDK that
    /// a page of this scope would take over.
    pub has_state: bool,
    /// The request brought the cookie in which scripts find this scope's token.
    pub has_script_cookie: bool,
}

/// What a request says of migration from the JS SDK's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Migration {
    /// Nothing.
    Unseen,
    /// Migrated state came, or an anchor that names no login: the site migrates, even if this node does not.
    Seen,
    /// Migrated state came, which pages keep: no anchor came, this node does not migrate, and another node may.
    Kept,
}

/// The slots of leftovers, each once.
pub(crate) type Leftovers = ArrayVec<Slot, MAX_TAGGED>;

impl Hits<'_> {
    /// Whether the request brought no value of this crate, for certain.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.anchor == AtMostOne::None && self.tagged.is_empty() && !self.is_cut()
    }

    /// Whether the request brought more bytes than were searched.
    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        self.length > MAX_SCANNED
    }
}

impl<'a> AtMostOne<'a> {
    pub(crate) fn push(&mut self, value: &'a [u8]) {
        *self = match *self {
            Self::None => Self::One(value),
            Self::One(other) if other == value => Self::One(value),
            Self::One(_) | Self::Conflict => Self::Conflict,
        };
    }
}

impl Tag {
    /// The tag of what was migrated from the JS SDK's cookie, which no anchor names. It is shorter than any other.
    pub(crate) const SDK: Self = Self(*b"sdk\0");
    /// No login's tag.
    pub(crate) const NONE: Self = Self([0; 4]);

    /// The tag of the login with this lineage.
    #[inline]
    pub(crate) fn of_lineage(&[a, b, c, d, ..]: &[u8; 22]) -> Self {
        Self([a, b, c, d])
    }

    /// Takes any four bytes, or `sdk`; [`is_valid`](Self::is_valid) checks them.
    #[inline]
    pub(crate) fn parse(end: &[u8]) -> Option<Self> {
        match *end {
            [a, b, c, d] => Some(Self([a, b, c, d])),
            [b's', b'd', b'k'] => Some(Self::SDK),
            _ => None,
        }
    }

    /// Whether it is four characters of base64url, or `sdk`.
    pub(crate) fn is_valid(self) -> bool {
        let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        self == Self::SDK || self.0.iter().all(is_base64url)
    }

    /// Reads six hexadecimal digits, in lower case.
    pub(crate) fn from_hex(digits: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_tag = digits.len() == 6 && digits.bytes().all(is_digit);
        let bits = is_tag.then(|| u32::from_str_radix(digits, 16).ok()).flatten()?;
        let mut text = [0; 4];
        let [_, bytes @ ..] = bits.to_be_bytes();
        BASE64URL.encode_slice(bytes, &mut text).ok()?;
        Some(Self(text))
    }

    /// The tag as six hexadecimal digits; `None` for the tag of no login.
    pub(crate) fn to_hex(self) -> Option<ArrayString<6>> {
        let mut bytes = [0; 4];
        BASE64URL.decode_slice(self.0, bytes.get_mut(1..)?).ok()?;
        let mut digits = ArrayString::new();
        write!(digits, "{:06x}", u32::from_be_bytes(bytes)).ok()?;
        Some(digits)
    }

    /// Its four characters; `None` for the shorter tag of migrated state.
    #[inline]
    pub(super) fn four(self) -> Option<[u8; 4]> {
        let [.., last] = self.0;
        (last != 0).then_some(self.0)
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            [rest @ .., 0] => rest,
            all => all,
        }
    }
}

impl Slot {
    pub(crate) fn tag(self) -> Option<Tag> {
        match self {
            Self::Anchor => None,
            Self::Identity(tag) | Self::OptOut(tag) => Some(tag),
        }
    }

    /// Whether its name is one of this crate: the end is a tag.
    pub(crate) fn has_valid_tag(self) -> bool {
        self.tag().is_some_and(Tag::is_valid)
    }
}

impl Brought {
    pub(crate) const NOTHING: Self = Self {
        tag: Tag::NONE,
        identity: false,
        opt_out: false,
        others: None,
        ends_leftovers: false,
        migration: Migration::Unseen,
    };

    /// Notes a value, whose tag is valid.
    pub(crate) fn note(&mut self, slot: Slot) {
        match slot {
            Slot::Identity(tag) if tag == self.tag => self.identity = true,
            Slot::OptOut(tag) if tag == self.tag => self.opt_out = true,
            other => self.push_leftover(other),
        }
        if slot.tag() == Some(Tag::SDK) {
            self.migration = Migration::Seen;
        }
    }

    #[cold]
    fn push_leftover(&mut self, slot: Slot) {
        let leftovers = &mut Arc::make_mut(self.others.get_or_insert_default()).leftovers;
        if !leftovers.contains(&slot) {
            let _ = leftovers.try_push(slot);
        }
    }

    /// Makes a leftover of the record of the login that counts: pages remove it.
    #[cold]
    pub(crate) fn without_record(mut self) -> Self {
        self.opt_out = false;
        self.end_leftover(Slot::OptOut(self.tag));
        self
    }

    /// Makes a leftover of a value: pages remove it.
    #[cold]
    pub(crate) fn end_leftover(&mut self, slot: Slot) {
        self.ends_leftovers = true;
        self.push_leftover(slot);
    }

    /// Whether the request brought any tagged value.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.identity || self.opt_out || self.others.as_ref().is_some_and(|others| !others.leftovers.is_empty())
    }

    /// Adds the scopes that do not serve the request, and the place in a store.
    #[cold]
    pub(crate) fn note_others(&mut self, idle: &[IdleScope], held: Option<&Held>) {
        let others = Arc::make_mut(self.others.get_or_insert_default());
        (others.idle, others.held) = (idle.iter().cloned().collect(), held.cloned());
    }

    /// The place of the login that counts in a store.
    pub(crate) fn held(&self) -> Option<&Held> {
        self.others.as_ref()?.held.as_ref()
    }

    /// The scopes that do not serve the request.
    pub(crate) fn idle(&self) -> &[IdleScope] {
        self.others.as_deref().map_or(&[], |others| &others.idle)
    }

    /// The slots of other logins: all, or those that the response of any page empties.
    pub(crate) fn leftovers(&self, all: bool) -> impl Iterator<Item = Slot> {
        let slots = self.others.as_deref().map_or(&[][..], |others| &others.leftovers).iter().copied();
        slots.filter(move |slot| all || self.migration != Migration::Kept || slot.tag() != Some(Tag::SDK))
    }
}

/// The number of tagged values that are kept of a request. A page removes at most as many leftovers.
pub(crate) const MAX_TAGGED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_in_hexadecimal_has_the_same_bits() {
        for (text, digits) in [(*b"AAAA", "000000"), (*b"____", "ffffff"), (*b"AQID", "010203"), (*b"q80-", "abcd3e")] {
            assert_eq!(Tag(text).to_hex().as_deref(), Some(digits));
            assert_eq!(Tag::from_hex(digits), Some(Tag(text)));
        }
        for wrong in ["", "00000", "0000000", "00000g", "ABCDEF", "+12345", "0x1234"] {
            assert_eq!(Tag::from_hex(wrong), None, "{wrong}");
        }
        for none in [Tag::SDK, Tag::NONE, Tag(*b"ab!d")] {
            assert_eq!(none.to_hex(), None, "{none:?}");
        }
    }
}
