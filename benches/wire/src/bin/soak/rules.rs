//! The rules that every answer must obey.
//!
//! 1. A page has the status and body that its handler made.
//! 2. A token belongs to the login of the request's cookies; without a login there is none.
//! 3. No token is expired: neither by the expiry that the handler saw, nor by a token's lifetime since it was first
//!    seen, whatever the layer believes.
//! 4. After a page has shown a visitor the opt-out, they see no token. Between the opt-out and that page they see none
//!    that was issued since.
//! 5. While a login counts, its pages are not `absent`: no late response of another request may remove its token
//!    pair. The rule ends with an opt-out, with the expiry of the refresh token, or when the operator refuses it.
//! 6. A response that sets a cookie is `no-store`; one that shows a token is `private`.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use http::HeaderMap;
use http::header::{CACHE_CONTROL, SET_COOKIE};
use tower_euid::clock::UnixMillis;
use tower_euid::{Dii, EuidClient};

use crate::operator::LIFETIMES;

/// A visitor's login and its history.
pub(crate) struct Login {
    pub(crate) person: Dii,
    pub(crate) opted_out_at: Option<UnixMillis>,
    /// Whether a page has shown the opt-out.
    pub(crate) told: bool,
    /// The time of the request that logged in.
    pub(crate) since: UnixMillis,
    /// The identity cookie in the visitor's jar.
    pub(crate) cookie: IdentityCookie,
    /// Whether a page has removed the identity because the operator refused its refresh token.
    pub(crate) refused: bool,
    /// When each token was first seen, by its hash.
    seen: HashMap<u64, UnixMillis>,
}

/// The name of an identity cookie, and a time at which it has not expired yet.
pub(crate) struct IdentityCookie {
    pub(crate) name: String,
    pub(crate) lives_until: UnixMillis,
}

/// The content of a page.
pub(crate) struct Page<'a> {
    pub(crate) asked_at: UnixMillis,
    pub(crate) came_at: UnixMillis,
    /// Whether a page had shown the opt-out before the request.
    pub(crate) asked_told: bool,
    /// A time at which the identity in the request's cookies has not expired yet; `None` without a login.
    pub(crate) lives_until: Option<UnixMillis>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) state: &'a str,
    pub(crate) token: Option<Token<'a>>,
}

pub(crate) struct Token<'a> {
    pub(crate) shown_at: UnixMillis,
    pub(crate) ends: UnixMillis,
    pub(crate) text: &'a str,
}

impl Login {
    pub(crate) fn new(person: Dii, since: UnixMillis, cookie: IdentityCookie) -> Self {
        Self { person, opted_out_at: None, told: false, since, cookie, refused: false, seen: HashMap::new() }
    }

    /// Returns whether the page is `absent` without a reason. Its request was sent with the cookies of this login.
    pub(crate) fn is_lost(&self, page: &Page<'_>) -> bool {
        let lives = page.lives_until.is_some_and(|until| page.came_at < until);
        page.state == "absent" && lives && !self.refused && self.opted_out_at.is_none()
    }
}

/// Checks a page against the rules. `login` is the login of the request's cookies.
pub(crate) async fn judge(page: &Page<'_>, login: Option<&mut Login>, judge: &EuidClient) -> Result<(), String> {
    caching(page.headers, page.token.is_some())?;
    if (page.state == "active") != page.token.is_some() {
        return Err(format!("`{}`, but token: {}", page.state, page.token.is_some()));
    }
    let Some(login) = login else {
        return if page.token.is_some() { Err("a token of nobody's: logged out".to_owned()) } else { Ok(()) };
    };
    login.told |= page.state == "opted_out";
    let Some(token) = &page.token else { return Ok(()) };
    if page.asked_told {
        return Err("a token after the visitor was told that they opted out".to_owned());
    }
    if token.shown_at >= token.ends {
        return Err("a token past its end".to_owned());
    }
    if login.opted_out_at.is_some_and(|since| page.asked_at >= since.saturating_add(LIFETIMES.identity_expires)) {
        return Err("a token that was issued after the opt-out".to_owned());
    }
    let hash = hash_of(token.text);
    let first_seen = match login.seen.get(&hash) {
        Some(first) => *first,
        None => {
            // This sandbox has no faults, and all sandboxes can validate the token.
            let own = judge.validate(token.text, login.person).await.map_err(|error| format!("no token: {error}"))?;
            if !own {
                return Err("a token of another person's, or another login's".to_owned());
            }
            login.seen.insert(hash, page.came_at);
            page.came_at
        }
    };
    if page.asked_at > first_seen.saturating_add(LIFETIMES.identity_expires) {
        return Err("a token that was first seen longer ago than it lives".to_owned());
    }
    Ok(())
}

pub(crate) fn caching(headers: &HeaderMap, has_token: bool) -> Result<(), String> {
    let said = headers.get(CACHE_CONTROL).map_or("", |value| value.to_str().unwrap_or_default());
    if headers.contains_key(SET_COOKIE) && !(said.contains("private") && said.contains("no-store")) {
        return Err(format!("sets a cookie, and may be stored: `{said}`"));
    }
    if has_token && !said.contains("private") {
        return Err(format!("shows a token, and may be shared: `{said}`"));
    }
    Ok(())
}

fn hash_of(token: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    token.hash(&mut hasher);
    hasher.finish()
}
