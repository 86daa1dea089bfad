//! The transport by headers of its own, for apps and TV sets, which have no cookies.
//!
//! 1. The client keeps each response header whose name begins with `Euid-` (in the scope UID2 with `Uid2-`) under its name,
//!    deletes it if the value is empty, and sends all of them with every request. That is a cookie jar without expiry.
//! 2. The tag of a name is six hexadecimal digits in lower case, because names of headers ignore case.
//! 3. A client that has no state sends `Euid-Login` with an empty value: it says that it wants headers.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Transport;
use super::slots::{Hits, Slot, Tag, Tagged};
use crate::scope::Scope;

/// The headers of one scope.
#[derive(Clone, Debug)]
pub(crate) struct Headers {
    scope: Scope,
    login: HeaderName,
    /// What the name of an identity begins with; its login's tag follows.
    identity: Box<str>,
    /// What the name of the record of an opt-out begins with.
    opt_out: Box<str>,
}

impl Headers {
    /// The headers of a scope; `None` never happens, as the names of this crate are valid.
    pub(crate) fn new(scope: Scope) -> Option<Self> {
        let stem = scope.literals().stem;
        let login = HeaderName::try_from(format!("{stem}-login")).ok()?;
        let [identity, opt_out] = ["identity", "opt-out"].map(|what| format!("{stem}-{what}-").into());
        Some(Self { scope, login, identity, opt_out })
    }

    /// Whether a request brings a header of this crate in this scope.
    pub(crate) fn came_in(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(&self.login) || headers.keys().any(|name| self.slot(name).is_some())
    }

    /// Whether a request's header with this name is read.
    pub(crate) fn reads(&self, name: &HeaderName) -> bool {
        *name == self.login || self.slot(name).is_some()
    }

    /// The slot with a tag that a header is.
    fn slot(&self, name: &HeaderName) -> Option<Slot> {
        let name = name.as_str();
        let identity = || name.strip_prefix(&*self.identity).and_then(Tag::from_hex).map(Slot::Identity);
        let opt_out = || name.strip_prefix(&*self.opt_out).and_then(Tag::from_hex).map(Slot::OptOut);
        identity().or_else(opt_out)
    }

    /// The values that have a tag. An empty one is what a client would delete.
    fn tagged<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = Tagged<'a>> {
        let filled = headers.iter().filter(|(_, value)| !value.is_empty());
        filled.filter_map(|(name, value)| Some(Tagged { slot: self.slot(name)?, value: value.as_bytes() }))
    }

    fn slot_line(&self, slot: Slot, value: &str) -> Option<(HeaderName, HeaderValue)> {
        let name = match slot {
            Slot::Anchor => self.login.clone(),
            Slot::Identity(_) | Slot::OptOut(_) => {
                self.with_name(&slot, |name| HeaderName::from_bytes(&name.concat())).ok()?
            }
        };
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    }
}

impl Transport for Headers {
    type Values<'a> = &'a HeaderMap;
    type Line = (HeaderName, HeaderValue);

    const EXPIRES: bool = false;

    #[inline]
    fn scope(&self) -> Scope {
        self.scope
    }

    fn values<'a>(headers: &'a HeaderMap) -> Self::Values<'a> {
        headers
    }

    fn varies_on(&self) -> HeaderValue {
        self.login.clone().into()
    }

    fn find<'a>(&self, values: &Self::Values<'a>, hits: &mut Hits<'a>) {
        // An empty value says only that the client wants headers.
        let anchors = values.get_all(&self.login).iter().map(HeaderValue::as_bytes).filter(|value| !value.is_empty());
        anchors.for_each(|anchor| hits.anchor.push(anchor));
        for hit in self.tagged(values) {
            hits.overflow |= hits.tagged.try_push(hit).is_err();
        }
    }

    fn for_each_tagged<'a>(&self, values: &Self::Values<'a>, _: &Hits<'a>, found: impl FnMut(Tagged<'a>)) {
        self.tagged(values).for_each(found);
    }

    fn with_name<R>(&self, slot: &Slot, take: impl FnOnce([&[u8]; 2]) -> R) -> R {
        // Only the tag of a garbled anchor has no digits. The name is then that of no value.
        let digits = slot.tag().and_then(Tag::to_hex).unwrap_or_default();
        match slot {
            Slot::Anchor => take([self.login.as_str().as_bytes(), &[]]),
            Slot::Identity(_) => take([self.identity.as_bytes(), digits.as_bytes()]),
            Slot::OptOut(_) => take([self.opt_out.as_bytes(), digits.as_bytes()]),
        }
    }

    fn set(&self, slot: Slot, value: &str, _: Duration) -> Option<Self::Line> {
        self.slot_line(slot, value)
    }

    fn remove(&self, slot: Slot) -> Option<Self::Line> {
        self.slot_line(slot, "")
    }

    fn line(name: &HeaderName, value: HeaderValue) -> Self::Line {
        (name.clone(), value)
    }

    fn append((name, value): Self::Line, headers: &mut HeaderMap) {
        // A client keeps one value for a name.
        let _ = headers.try_insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> HeaderName {
        HeaderName::try_from(name).unwrap()
    }

    #[test]
    fn header_names_are_those_of_the_scope_and_name_a_slot_in_one_way() {
        for (scope, other, stem) in [(Scope::Euid, Scope::Uid2, "Euid"), (Scope::Uid2, Scope::Euid, "Uid2")] {
            let [own, other] = [scope, other].map(|scope| Headers::new(scope).unwrap());
            let tag = Tag::from_hex("0a1b2c").unwrap();
            for (slot, name) in [
                (Slot::Anchor, format!("{stem}-Login")),
                (Slot::Identity(tag), format!("{stem}-Identity-0a1b2c")),
                (Slot::OptOut(tag), format!("{stem}-Opt-Out-0A1B2C")), // names ignore case
            ] {
                let name = named(&name);
                assert_eq!(own.with_name(&slot, |parts| parts.concat()), name.as_str().as_bytes());
                assert_eq!(own.set(slot, "x", Duration::ZERO), Some((name.clone(), HeaderValue::from_static("x"))));
                assert_eq!(own.remove(slot), Some((name.clone(), HeaderValue::from_static(""))));
                assert_eq!(own.slot(&name), Some(slot).filter(|slot| *slot != Slot::Anchor));
                let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(""))]);
                assert!(own.reads(&name) && own.came_in(&headers), "{name}");
                assert!(!other.reads(&name) && !other.came_in(&headers), "{name}");
            }
        }
    }

    #[test]
    fn other_header_names_are_not_read() {
        let headers = Headers::new(Scope::Euid).unwrap();
        for name in [
            "euid",
            "euid-",
            "euid_login",
            "euid-logins",
            "euid-login-",
            "x-euid-login",
            "euid-identity",
            "euid-identity-",
            "euid-identity-0a1b2",
            "euid-identity-0a1b2c3",
            "euid-identity-0a1b2g",
            "euid-identity-sdk",
            "euid-identity_0a1b2c",
            "euid-identity--a1b2c",
            "euid-identity-+a1b2c",
            "euid-opt-out-",
            "euid-optout-0a1b2c",
            "euid-opt-out-0a1b2c-",
        ] {
            assert!(!headers.reads(&named(name)), "{name}");
        }
    }
}
