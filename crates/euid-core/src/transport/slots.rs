//! The slots for state in cookies: found in a request, set and removed in a response.
//!
//! 1. The anchor has one name. The name of an identity, or of the record of an opt-out, ends with the *tag* of its
//!    login. So a late response of one login never overwrites a cookie of another.
//! 2. A name whose tag is not four characters of base64url, or `sdk`, is not one of this crate: it is neither read nor
//!    removed.

use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use bytes::Bytes;
use http::HeaderValue;

use super::config::CookieConfig;
use super::cookie::{Hits, MAX_TAGGED, Names, Readers, Tagged, set_cookie};
use super::js_sdk::ScriptNames;
use crate::scope::Scope;

/// The cookies of one configuration in one scope.
#[derive(Clone, Debug)]
pub(crate) struct Cookies {
    scope: Scope,
    names: Names,
    scripts: ScriptNames,
    config: CookieConfig,
    removed_anchor: HeaderValue,
    /// All of a removal but the name.
    removal: Box<str>,
}

/// The purpose of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The name of the login that counts.
    Anchor,
    /// The sealed identity of a login.
    Identity(Tag),
    /// The record of a login's opt-out.
    OptOut(Tag),
}

/// The end of a cookie's name, which says to which login the cookie belongs: the first four characters of the lineage's
/// text. Two logins of a browser have the same tag once in 2^24; the second then overwrites what is left of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag([u8; 4]);

/// The tagged cookies of a request, by their names. The response removes those that it ends.
#[derive(Clone, Debug)]
pub(crate) struct Brought {
    /// The tag of the login that counts, or [`Tag::NONE`].
    pub tag: Tag,
    /// The request brought an identity with this tag.
    pub identity: bool,
    /// The request brought a record with this tag.
    pub opt_out: bool,
    /// The cookies of other logins and other scopes, if there are any.
    pub others: Option<Arc<Others>>,
    /// Any page removes the leftovers; if not, only a login or a logout does.
    pub ends_leftovers: bool,
    /// What the request says of migration.
    pub migration: Migration,
}

/// The cookies of a request that are not of the login that counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Others {
    /// Those of other logins.
    pub leftovers: Leftovers,
    /// Those of scopes that do not serve the request, if the engine serves both.
    pub idle: Idle,
}

/// The cookies of the scopes that do not serve a request: one scope, or both.
pub(crate) type Idle = ArrayVec<IdleScope, 2>;

/// The cookies of a scope that does not serve the request. Pages leave its state alone; a logout and withdrawn consent
/// end it too.
#[derive(Clone, Debug)]
pub(crate) struct IdleScope {
    pub scope: Scope,
    pub brought: Brought,
    /// The request brought an anchor of this scope that may name a login, a tagged cookie, or a cookie of the JS SDK that
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

    #[inline]
    fn as_bytes(&self) -> &[u8] {
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

    /// Notes a cookie, whose tag is valid.
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

    /// Whether the request brought any tagged cookie.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.identity || self.opt_out || self.others.as_ref().is_some_and(|others| !others.leftovers.is_empty())
    }

    /// Adds the scopes that do not serve the request.
    #[cold]
    pub(crate) fn with_idle(mut self, idle: &Idle) -> Self {
        Arc::make_mut(self.others.get_or_insert_default()).idle = idle.clone();
        self
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

impl Cookies {
    pub(crate) fn new(config: CookieConfig, scope: Scope) -> Self {
        let names = Names::new(&config, scope);
        // Rendered once: a forged cookie must not cost more than a good one. This crate's names and attributes fit into
        // a header.
        let removed = set_cookie(&config, Readers::ServerOnly, &names.anchor, "", Duration::ZERO);
        let removed_anchor = removed.unwrap_or(HeaderValue::from_static(""));
        let removal = removed_anchor.to_str().ok().and_then(|text| text.strip_prefix(&*names.anchor));
        let removal = removal.unwrap_or_default().into();
        Self { scope, names, scripts: ScriptNames::new(scope), config, removed_anchor, removal }
    }

    #[inline]
    pub(crate) fn scope(&self) -> Scope {
        self.scope
    }

    /// The cookies that scripts know.
    pub(crate) fn scripts(&self) -> &ScriptNames {
        &self.scripts
    }

    pub(crate) fn config(&self) -> &CookieConfig {
        &self.config
    }

    /// The name of a slot, in two parts.
    #[inline]
    pub(crate) fn name<'a>(&'a self, slot: &'a Slot) -> [&'a [u8]; 2] {
        match slot {
            Slot::Anchor => [self.names.anchor.as_bytes(), &[]],
            Slot::Identity(tag) => [self.names.identity.as_bytes(), tag.as_bytes()],
            Slot::OptOut(tag) => [self.names.opt_out.as_bytes(), tag.as_bytes()],
        }
    }

    /// Adds the cookies in a request's `Cookie` headers.
    #[inline]
    pub(crate) fn find<'a>(&self, headers: impl IntoIterator<Item = &'a HeaderValue>, hits: &mut Hits<'a>) {
        self.names.find(headers, hits);
    }

    /// Calls `found` with every cookie that has a tag: those in `hits`, and those behind them.
    pub(crate) fn for_each_tagged<'a>(
        &self,
        headers: impl IntoIterator<Item = &'a HeaderValue>,
        hits: &Hits<'a>,
        found: impl FnMut(Tagged<'a>),
    ) {
        if hits.overflow {
            self.names.for_each_tagged(headers, found);
        } else {
            hits.tagged.iter().copied().for_each(found);
        }
    }

    /// The `Set-Cookie` that puts `value` into a slot; `None` for a value that no header takes; this crate's values all
    /// fit.
    pub(crate) fn set(&self, slot: Slot, value: &str, max_age: Duration) -> Option<HeaderValue> {
        let name = self.name(&slot).concat();
        set_cookie(&self.config, Readers::ServerOnly, std::str::from_utf8(&name).ok()?, value, max_age)
    }

    /// The `Set-Cookie` that empties a slot, with the attributes of [`set`](Self::set).
    pub(crate) fn remove(&self, slot: Slot) -> HeaderValue {
        if slot == Slot::Anchor {
            return self.removed_anchor.clone();
        }
        let [prefix, tag] = self.name(&slot);
        // Slices' `concat` costs 60 instructions more.
        let mut line = Vec::with_capacity(prefix.len() + tag.len() + self.removal.len());
        line.extend_from_slice(prefix);
        line.extend_from_slice(tag);
        line.extend_from_slice(self.removal.as_bytes());
        let mut header = HeaderValue::from_maybe_shared(Bytes::from(line)).unwrap_or(HeaderValue::from_static(""));
        header.set_sensitive(true);
        header
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::transport::cookie::AtMostOne;

    /// The independent implementation in `tests/interop` makes the vectors.
    #[test]
    fn cookie_name_vectors_are_slots_or_not_as_recorded() {
        let file: Value = serde_json::from_str(include_str!("../../tests/vectors/cookie-format.json")).unwrap();
        let vectors = file["names"].as_array().unwrap();
        assert_eq!(vectors.len(), 63);
        for vector in vectors {
            let cookies = Cookies::new(
                match vector["prefix"].as_str().unwrap() {
                    "__Host-" => CookieConfig::default(),
                    "__Secure-" => CookieConfig::default().domain("example.com").unwrap(),
                    _ => CookieConfig::insecure(),
                },
                Scope::Euid,
            );
            let name = vector["name"].as_str().unwrap();
            let header = HeaderValue::try_from(format!("{name}=value")).unwrap();
            let mut hits = Hits::default();
            cookies.find([&header], &mut hits);
            let anchor = (hits.anchor == AtMostOne::One(b"value")).then_some(Slot::Anchor);
            let tagged = hits.tagged.iter().map(|hit| hit.slot);
            // No other tag belongs to a login, and no response removes such a cookie.
            let slots: Vec<Slot> = tagged.chain(anchor).filter(|slot| slot.tag().is_none_or(Tag::is_valid)).collect();
            let tag = || Tag::parse(vector["tag"].as_str().unwrap().as_bytes()).unwrap();
            let expected = match vector["kind"].as_str() {
                Some("identity") => vec![Slot::Identity(tag())],
                Some("record") => vec![Slot::OptOut(tag())],
                Some(_) => vec![Slot::Anchor],
                None => Vec::new(),
            };
            assert_eq!(slots, expected, "{name}");
            assert!(slots.iter().all(|slot| cookies.name(slot).concat() == name.as_bytes()), "{name}");
        }
    }
}
