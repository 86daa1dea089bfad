//! The slots for state in cookies: found in a request, set and removed in a response.

use std::time::Duration;

use http::HeaderValue;
use http::header::GetAll;

use super::config::CookieConfig;
use super::cookie::{Hits, Names, Readers, set_cookie};

/// The cookies of one configuration.
#[derive(Clone, Debug)]
pub(crate) struct Cookies {
    names: Names,
    config: CookieConfig,
    removed_identity: HeaderValue,
    removed_anchor: HeaderValue,
    removed_opt_out: HeaderValue,
}

/// The purpose of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The sealed identity.
    Identity,
    /// The name of the login that counts.
    Anchor,
    /// The record of an opt-out.
    OptOut,
}

impl Cookies {
    pub(crate) fn new(config: CookieConfig) -> Self {
        let names = Names::new(&config);
        // Rendered once: a forged cookie must not cost more than a good one. This crate's names and attributes fit into
        // a header.
        let removed = |name| {
            let cookie = set_cookie(&config, Readers::ServerOnly, name, "", Duration::ZERO);
            cookie.unwrap_or(HeaderValue::from_static(""))
        };
        let (removed_identity, removed_anchor) = (removed(names.identity), removed(names.anchor));
        let removed_opt_out = removed(names.opt_out);
        Self { names, config, removed_identity, removed_anchor, removed_opt_out }
    }

    pub(crate) fn config(&self) -> &CookieConfig {
        &self.config
    }

    pub(crate) fn name(&self, slot: Slot) -> &'static str {
        match slot {
            Slot::Identity => self.names.identity,
            Slot::Anchor => self.names.anchor,
            Slot::OptOut => self.names.opt_out,
        }
    }

    /// Adds the values in a request's `Cookie` headers.
    #[inline]
    pub(crate) fn find<'a>(&self, headers: GetAll<'a, HeaderValue>, hits: &mut Hits<'a>) {
        self.names.find(headers, hits);
    }

    /// The `Set-Cookie` that puts `value` into a slot; `None` for a value that no header takes; this crate's values all
    /// fit.
    pub(crate) fn set(&self, slot: Slot, value: &str, max_age: Duration) -> Option<HeaderValue> {
        set_cookie(&self.config, Readers::ServerOnly, self.name(slot), value, max_age)
    }

    /// The `Set-Cookie` that empties a slot, with the attributes of [`set`](Self::set).
    #[inline]
    pub(crate) fn remove(&self, slot: Slot) -> HeaderValue {
        let removed = match slot {
            Slot::Identity => &self.removed_identity,
            Slot::Anchor => &self.removed_anchor,
            Slot::OptOut => &self.removed_opt_out,
        };
        removed.clone()
    }
}
