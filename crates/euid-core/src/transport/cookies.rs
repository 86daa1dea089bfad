//! The transport by cookies.
//!
//! 1. The tag of a name is four characters of base64url, or `sdk`.
//! 2. Setting and removing have the same attributes.

use std::time::Duration;

use http::header::{GetAll, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Transport;
use super::config::CookieConfig;
use super::cookie::{Names, Readers, set_cookie};
use super::js_sdk::ScriptNames;
use super::slots::{Hits, Slot, Tagged};
use crate::scope::Scope;

/// The cookies of one configuration in one scope.
#[derive(Clone, Debug)]
pub(crate) struct Cookies {
    scope: Scope,
    names: Names,
    scripts: ScriptNames,
    config: CookieConfig,
    removed_anchor: HeaderValue,
    /// The lines that remove an identity and an opt-out record, with dots in place of a tag of four characters.
    removed_identity: Box<[u8]>,
    removed_opt_out: Box<[u8]>,
}

impl Cookies {
    pub(crate) fn new(config: CookieConfig, scope: Scope) -> Self {
        let names = Names::new(&config, scope);
        // Rendered once: a forged cookie must not cost more than a good one. This crate's names and attributes fit into
        // a header.
        let removed = |name: &str| {
            let removed = set_cookie(&config, Readers::ServerOnly, name, "", Duration::ZERO);
            removed.unwrap_or(HeaderValue::from_static(""))
        };
        let removed_tagged = |prefix: &str| removed(&format!("{prefix}....")).as_bytes().into();
        Self {
            scope,
            removed_anchor: removed(&names.anchor),
            removed_identity: removed_tagged(&names.identity),
            removed_opt_out: removed_tagged(&names.opt_out),
            names,
            scripts: ScriptNames::new(scope),
            config,
        }
    }

    /// The cookies that scripts know.
    pub(crate) fn scripts(&self) -> &ScriptNames {
        &self.scripts
    }

    pub(crate) fn config(&self) -> &CookieConfig {
        &self.config
    }

    /// Whether a cookie with this name is one of this configuration.
    pub(crate) fn own(&self, name: &[u8]) -> bool {
        self.names.contain(name) || self.scripts.contain(name, &self.config)
    }

    #[inline]
    fn name_in_parts<'a>(&'a self, slot: &'a Slot) -> [&'a [u8]; 2] {
        match slot {
            Slot::Anchor => [self.names.anchor.as_bytes(), &[]],
            Slot::Identity(tag) => [self.names.identity.as_bytes(), tag.as_bytes()],
            Slot::OptOut(tag) => [self.names.opt_out.as_bytes(), tag.as_bytes()],
        }
    }
}

impl Transport for Cookies {
    type Values<'a> = GetAll<'a, HeaderValue>;
    type Line = HeaderValue;

    const EXPIRES: bool = true;

    #[inline]
    fn scope(&self) -> Scope {
        self.scope
    }

    #[inline]
    fn values<'a>(headers: &'a HeaderMap) -> Self::Values<'a> {
        headers.get_all(header::COOKIE)
    }

    #[inline]
    fn varies_on(&self) -> HeaderValue {
        HeaderValue::from_static("Cookie")
    }

    #[inline]
    fn find<'a>(&self, values: &Self::Values<'a>, hits: &mut Hits<'a>) {
        self.names.find(values.iter(), hits);
    }

    fn for_each_tagged<'a>(&self, values: &Self::Values<'a>, hits: &Hits<'a>, found: impl FnMut(Tagged<'a>)) {
        if hits.overflow {
            self.names.for_each_tagged(values.iter(), found);
        } else {
            hits.tagged.iter().copied().for_each(found);
        }
    }

    #[inline]
    fn with_name<R>(&self, slot: &Slot, take: impl FnOnce([&[u8]; 2]) -> R) -> R {
        take(self.name_in_parts(slot))
    }

    fn set(&self, slot: Slot, value: &str, max_age: Duration) -> Option<HeaderValue> {
        let name = self.name_in_parts(&slot).concat();
        set_cookie(&self.config, Readers::ServerOnly, std::str::from_utf8(&name).ok()?, value, max_age)
    }

    #[inline]
    fn remove(&self, slot: Slot) -> Option<HeaderValue> {
        let (prepared, prefix, tag) = match slot {
            Slot::Anchor => return Some(self.removed_anchor.clone()),
            Slot::Identity(tag) => (&self.removed_identity, &self.names.identity, tag),
            Slot::OptOut(tag) => (&self.removed_opt_out, &self.names.opt_out, tag),
        };
        let Some(tag) = tag.four() else { return self.set(slot, "", Duration::ZERO) };
        let mut line = prepared.to_vec();
        *line.get_mut(prefix.len()..)?.first_chunk_mut()? = tag;
        let mut header = HeaderValue::try_from(line).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    fn line(_: &HeaderName, value: HeaderValue) -> HeaderValue {
        value
    }

    // Inlined at each of its calls, it costs each cookie some 10 instructions more: the map then gets the name at run time.
    #[inline(never)]
    fn append(line: HeaderValue, headers: &mut HeaderMap) {
        let _ = headers.try_append(SET_COOKIE, line);
    }

    #[inline]
    fn cookies(&self) -> Option<&Cookies> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::transport::slots::{AtMostOne, Tag};

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
            let headers = HeaderMap::from_iter([(header::COOKIE, header)]);
            let mut hits = Hits::default();
            cookies.find(&Cookies::values(&headers), &mut hits);
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
            assert!(slots.iter().all(|slot| cookies.name_in_parts(slot).concat() == name.as_bytes()), "{name}");
        }
    }
}
