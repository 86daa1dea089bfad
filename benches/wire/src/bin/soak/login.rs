//! A visitor's login, and how long its identity must live.
//!
//! A cookie's Max-Age says how long the identity in it lives. An identity in a store has no cookie: it lives at least as long
//! as the operator's lifetimes allow, from the login or from the last token that a page showed.

use std::collections::HashMap;
use std::time::Duration;

use tower_euid::Dii;
use tower_euid::clock::UnixMillis;

use crate::cookies::{Outcome, removes, set};
use crate::operator::{LIFETIMES, Operator};
use crate::rules::{Page, Token};

pub(crate) struct Login {
    pub(crate) person: Dii,
    pub(crate) opted_out_at: Option<UnixMillis>,
    /// Whether a page has shown the opt-out.
    pub(crate) told: bool,
    /// A time at which the identity has not expired yet.
    pub(crate) lives_until: UnixMillis,
    /// When each token was first seen, by its hash.
    pub(crate) seen: HashMap<u64, UnixMillis>,
    /// The time of the request that logged in.
    since: UnixMillis,
    /// The name of the identity cookie.
    cookie: String,
    /// Whether the site keeps identities in a store. While the store fails, they are in cookies.
    has_store: bool,
    /// When a token was last shown that the store had; at first the time of the login.
    stored_at: UnixMillis,
    /// Whether the operator's refusal or, in a store, a logout may have ended the identity.
    may_have_ended: bool,
}

impl Login {
    /// Returns the login of a request at this time, if its response began one.
    pub(crate) fn begun(
        outcome: Outcome,
        person: Dii,
        asked_at: UnixMillis,
        has_store: bool,
    ) -> Result<Option<Self>, String> {
        let Outcome::Identity(cookie, sealed) = outcome else { return Ok(None) };
        let lives = sealed.or(has_store.then_some(LIFETIMES.refresh_expires));
        let lives = lives.ok_or("a login without an identity cookie")?;
        Ok(Some(Self {
            person,
            opted_out_at: None,
            told: false,
            lives_until: lives_until(asked_at, lives),
            seen: HashMap::new(),
            since: asked_at,
            cookie,
            has_store,
            stored_at: asked_at,
            may_have_ended: false,
        }))
    }

    /// Notes that a logout or another login was sent. A store ends the identity before the visitor has the answer.
    pub(crate) fn is_about_to_end(&mut self) {
        self.may_have_ended |= self.has_store;
    }

    /// Notes the new expiry if a page has set the identity cookie.
    pub(crate) fn follow(&mut self, page: &Page<'_>) {
        if let Some(identity) = set(page.headers, &self.cookie) {
            self.lives_until = lives_until(page.asked_at, identity.max_age);
        }
    }

    /// Notes the token of a page of this login, if it is from the store: then no cookie is left. Returns whether the
    /// identity has moved there just now.
    pub(crate) fn follow_store(&mut self, page: &Page<'_>, has_cookie: impl Fn(&str) -> bool) -> bool {
        let Some(Token { shown_at, .. }) = page.token else { return false };
        if !self.has_store || has_cookie(&self.cookie) {
            return false;
        }
        let rest = LIFETIMES.refresh_expires.saturating_sub(LIFETIMES.identity_expires);
        self.lives_until = self.lives_until.max(lives_until(shown_at, rest));
        self.stored_at = self.stored_at.max(shown_at);
        removes(page.headers, &self.cookie)
    }

    /// Returns whether a page of this login is `absent` without a reason.
    pub(crate) fn is_lost(&mut self, page: &Page<'_>, operator: &Operator) -> bool {
        let is_absent = page.state == "absent";
        let refused_since = if removes(page.headers, &self.cookie) {
            Some(self.since)
        } else {
            let shown = self.stored_at.min(page.asked_at);
            (is_absent && self.has_store).then(|| shown.saturating_sub(END_IS_STORED_WITHIN))
        };
        self.may_have_ended |= refused_since.is_some_and(|time| operator.has_refused_since(time));
        let lives = page.lives_until.is_some_and(|until| page.came_at < until);
        is_absent && lives && !self.may_have_ended && self.opted_out_at.is_none()
    }
}

/// Returns a time at which an identity with this life, from a request on, has not expired yet. It is a second early, so that
/// the operator cannot find the identity expired before.
fn lives_until(asked_at: UnixMillis, lives: Duration) -> UnixMillis {
    asked_at.saturating_add(lives.saturating_sub(Duration::from_secs(1)))
}

/// How long nodes may show a token after its refusal: until the end is in the store, which may be failing.
const END_IS_STORED_WITHIN: Duration = Duration::from_secs(10);
