//! The cookies that a response sets and removes.
//!
//! The value of the login cookie names the login. The names of its identity cookie and of its opt-out cookie end with the
//! first four characters of that value.

use std::time::Duration;

use http::HeaderMap;
use http::header::SET_COOKIE;

pub(crate) struct SetCookie<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: &'a str,
    pub(crate) max_age: Duration,
}

impl SetCookie<'_> {
    pub(crate) fn is_removal(&self) -> bool {
        self.max_age.is_zero()
    }
}

/// The outcome of a login, by the cookies of its response.
pub(crate) enum Outcome {
    /// The name of the identity cookie; and how long the identity lives, if the response sets that cookie.
    Identity(String, Option<Duration>),
    OptedOut,
    Failed,
}

impl Outcome {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let Some(tag) = set(headers, LOGIN).and_then(|login| login.value.get(..4)) else { return Self::Failed };
        if set(headers, &format!("__Host-euid-optout.{tag}")).is_some() {
            return Self::OptedOut;
        }
        let name = format!("__Host-euid.{tag}");
        let lives = set(headers, &name).map(|identity| identity.max_age);
        Self::Identity(name, lives)
    }
}

/// Returns the cookies of a response.
pub(crate) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = SetCookie<'_>> {
    headers.get_all(SET_COOKIE).iter().filter_map(|line| parse(line.to_str().ok()?))
}

/// Returns the cookie of this name, if the response sets it.
pub(crate) fn set<'a>(headers: &'a HeaderMap, name: &str) -> Option<SetCookie<'a>> {
    cookies(headers).find(|cookie| cookie.name == name && !cookie.is_removal())
}

/// Returns whether the response removes the cookie of this name.
pub(crate) fn removes(headers: &HeaderMap, name: &str) -> bool {
    cookies(headers).any(|cookie| cookie.name == name && cookie.is_removal())
}

/// Parses a line. All cookies here have a Max-Age.
fn parse(line: &str) -> Option<SetCookie<'_>> {
    let (name, rest) = line.split_once('=')?;
    let (value, attributes) = rest.split_once(';')?;
    let seconds = attributes.split_once("Max-Age=")?.1.split(';').next()?.parse().ok()?;
    Some(SetCookie { name, value, max_age: Duration::from_secs(seconds) })
}

const LOGIN: &str = "__Host-euid-login";
