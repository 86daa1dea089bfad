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
//!    With a store, no cookie shows the last two, and a logout holds before its response arrives. So there the rule
//!    ends with the shortest life that the operator's lifetimes allow, with any refusal since shortly before the last
//!    token, or when a logout or another login is sent. A loss after that goes unnoticed.
//! 6. A response that sets a cookie is `no-store`; one that shows a token is `private`.

use std::hash::{DefaultHasher, Hash, Hasher};

use http::HeaderMap;
use http::header::{CACHE_CONTROL, SET_COOKIE};
use tower_euid::EuidClient;
use tower_euid::clock::UnixMillis;

use crate::login::Login;
use crate::operator::LIFETIMES;

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
