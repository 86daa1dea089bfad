//! A browser's cookie jar by RFC 6265bis (§5.6 parsing, §5.7 storage, §5.8.3 retrieval), for one site and its
//! sub-domains.
//!
//! 1. A `Set-Cookie` line is stored or refused as a whole. A stored cookie replaces the one with the same name,
//!    domain and path.
//! 2. A `__Host-` or `__Secure-` cookie that violates its prefix is refused, and so is a line that is too long.
//! 3. `Max-Age` expires a cookie by the jar's own clock. Only [`wait_until`](Jar::wait_until) moves it.
//! 4. `Clear-Site-Data` empties the jar of the whole site.
//!
//! The jar does not have what no test needs: `Expires`, scripts (`HttpOnly`), requests from other sites (`SameSite`)
//! and limits on the number of cookies (tests call [`evict`](Jar::evict)). In place of the public suffix list, every
//! domain without a dot is a public suffix.

use std::time::Duration;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request};
use tower_euid::clock::UnixMillis;

use super::START;

/// The address of a browser's request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) https: bool,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
}

/// The address of the tests' site.
pub(crate) const HOME: Place<'_> = Place { https: true, host: "publisher.example", path: "/" };

/// The reason for refusing a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    ControlCharacter,
    Empty,
    TooLarge,
    ForeignDomain,
    /// The line is `Secure` over plain http, overwrites a secure cookie, or is `SameSite=None` or `Partitioned` without
    /// `Secure`.
    Insecure,
    /// The cookie violates the rules of its prefix.
    Prefix,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Jar {
    now: UnixMillis,
    /// The cookies, oldest first.
    cookies: Vec<Cookie>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Cookie {
    name: String,
    value: String,
    domain: String,
    host_only: bool,
    path: String,
    secure: bool,
    /// `None`: the cookie expires with the session.
    expires: Option<UnixMillis>,
}

impl Default for Jar {
    fn default() -> Self {
        Self { now: START, cookies: Vec::new() }
    }
}

impl Jar {
    /// Stores the cookies of the site's response. Fails if one of them is refused.
    pub(crate) fn apply(&mut self, headers: &HeaderMap) {
        assert_eq!(self.apply_from(HOME, headers), [], "browsers refuse a cookie of the response");
    }

    /// Stores the cookies of a response from `place`. Returns the reasons for the refused ones.
    pub(crate) fn apply_from(&mut self, place: Place<'_>, headers: &HeaderMap) -> Vec<Refused> {
        // Browsers differ in the order of these steps; this order leaves more cookies.
        if place.https && clears_cookies(headers) {
            let site = registrable(place.host);
            self.cookies.retain(|cookie| !domain_matches(&cookie.domain, site));
        }
        let lines = headers.get_all(SET_COOKIE).iter();
        lines.filter_map(|line| self.store(place, line.to_str().unwrap()).err()).collect()
    }

    fn store(&mut self, place: Place<'_>, line: &str) -> Result<(), Refused> {
        let cookie = Cookie::parse(place, line, self.now)?;
        let shadows = |other: &Cookie| {
            let related =
                domain_matches(&other.domain, &cookie.domain) || domain_matches(&cookie.domain, &other.domain);
            other.secure && other.name == cookie.name && related && path_matches(&cookie.path, &other.path)
        };
        if !place.https && (cookie.secure || self.cookies.iter().any(shadows)) {
            return Err(Refused::Insecure);
        }
        match self.cookies.iter_mut().find(|other| cookie.replaces(other)) {
            Some(other) => *other = cookie,
            None => self.cookies.push(cookie),
        }
        self.wait_until(self.now);
        Ok(())
    }

    /// Moves the jar's clock, which never goes back.
    pub(crate) fn wait_until(&mut self, now: UnixMillis) {
        self.now = self.now.max(now);
        self.cookies.retain(|cookie| !cookie.has_expired(now));
    }

    /// Drops a cookie, as browsers do if they have too many.
    pub(crate) fn evict(&mut self, name: impl AsRef<str>) {
        self.cookies.retain(|cookie| !cookie.is_named(name.as_ref()));
    }

    /// Inserts a session cookie of the site directly. A [prefix](Self::name) names the cookie that is there.
    pub(crate) fn put(&mut self, name: impl AsRef<str>, value: &str) {
        let name = name.as_ref();
        let name = if name.ends_with('.') { self.name(name) } else { name.to_owned() };
        self.evict(&name);
        self.cookies.push(Cookie {
            name,
            value: value.to_owned(),
            domain: HOME.host.to_owned(),
            host_only: true,
            path: HOME.path.to_owned(),
            secure: true,
            expires: None,
        });
    }

    pub(crate) fn with(mut self, name: impl AsRef<str>, value: &str) -> Self {
        self.put(name, value);
        self
    }

    pub(crate) fn without(mut self, name: impl AsRef<str>) -> Self {
        self.evict(name);
        self
    }

    pub(crate) fn value(&self, name: impl AsRef<str>) -> Option<&str> {
        self.find(name).map(|cookie| cookie.value.as_str())
    }

    /// Returns `name=value` as a browser sends it.
    pub(crate) fn pair(&self, name: impl AsRef<str>) -> String {
        let cookie = self.find(name).unwrap();
        format!("{}={}", cookie.name, cookie.value)
    }

    /// Returns the whole name of a cookie. A name that ends with a dot is a prefix, which the tag of a login follows.
    pub(crate) fn name(&self, name: impl AsRef<str>) -> String {
        self.find(name).unwrap().name.clone()
    }

    /// Returns all names, in the order of their cookies.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.cookies.iter().map(|cookie| cookie.name.as_str()).collect()
    }

    /// Takes a cookie over from another jar.
    pub(crate) fn with_from(self, other: &Self, name: impl AsRef<str>) -> Self {
        let cookie = other.find(name).unwrap();
        self.with(&cookie.name, &cookie.value)
    }

    /// Finds a cookie by its name, or the only one whose name has this prefix.
    fn find(&self, name: impl AsRef<str>) -> Option<&Cookie> {
        let name = name.as_ref();
        let mut found = self.cookies.iter().filter(|cookie| cookie.is_named(name));
        let first = found.next();
        assert!(!name.ends_with('.') || found.next().is_none(), "several cookies begin with {name}");
        first
    }

    /// Returns a request to the site, with its cookies.
    pub(crate) fn request(&self) -> Request<()> {
        let mut request = Request::new(());
        if let Some(cookies) = self.cookies_for(HOME) {
            request.headers_mut().insert(COOKIE, HeaderValue::try_from(cookies).unwrap());
        }
        request
    }

    /// Returns the value of the `Cookie` header: longer paths first, then older cookies.
    pub(crate) fn cookies_for(&self, place: Place<'_>) -> Option<String> {
        let mut sent: Vec<&Cookie> = self.cookies.iter().filter(|cookie| cookie.goes_to(place, self.now)).collect();
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<String> = sent.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

impl Cookie {
    fn is_named(&self, name: &str) -> bool {
        self.name == name || (name.ends_with('.') && self.name.starts_with(name))
    }

    /// Parses a `Set-Cookie` line from `place`.
    fn parse(place: Place<'_>, line: &str, now: UnixMillis) -> Result<Self, Refused> {
        if line.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(Refused::ControlCharacter);
        }
        let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
        let (name, value) = pair.split_once('=').unwrap_or(("", pair));
        let (name, value) = (name.trim_matches(BLANKS), value.trim_matches(BLANKS));
        if name.is_empty() && value.is_empty() {
            return Err(Refused::Empty);
        }
        if name.len() + value.len() > 4096 {
            return Err(Refused::TooLarge);
        }
        let mut cookie = Self {
            name: name.to_owned(),
            value: value.to_owned(),
            domain: place.host.to_owned(),
            host_only: true,
            path: default_path(place.path).to_owned(),
            secure: false,
            expires: None,
        };
        let (mut path_is_root, mut cross_site) = (false, false);
        for attribute in attributes.split(';') {
            let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            let (key, value) = (key.trim_matches(BLANKS).to_ascii_lowercase(), value.trim_matches(BLANKS));
            if value.len() > 1024 {
                continue;
            }
            match key.as_str() {
                "max-age" => cookie.expires = expiry(value, now).or(cookie.expires),
                "domain" => (cookie.domain, cookie.host_only) = domain(value, place.host)?,
                "path" => {
                    path_is_root = value == "/";
                    cookie.path = if value.starts_with('/') { value } else { default_path(place.path) }.to_owned();
                }
                "secure" => cookie.secure = true,
                "samesite" => cross_site |= value.eq_ignore_ascii_case("none"),
                "partitioned" => cross_site = true,
                _ => {}
            }
        }
        if cross_site && !cookie.secure {
            return Err(Refused::Insecure);
        }
        // A cookie without a name is sent as its value, which must not look like a prefix either.
        let sent = if cookie.name.is_empty() { &cookie.value } else { &cookie.name }.to_ascii_lowercase();
        let (host, secure) = (sent.starts_with("__host-"), sent.starts_with("__secure-"));
        let keeps_prefix = cookie.secure && !cookie.name.is_empty() && (secure || (cookie.host_only && path_is_root));
        if keeps_prefix || !(host || secure) { Ok(cookie) } else { Err(Refused::Prefix) }
    }

    fn replaces(&self, other: &Self) -> bool {
        (&self.name, &self.domain, self.host_only, &self.path)
            == (&other.name, &other.domain, other.host_only, &other.path)
    }

    fn has_expired(&self, now: UnixMillis) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn goes_to(&self, place: Place<'_>, now: UnixMillis) -> bool {
        let host = if self.host_only { self.domain == place.host } else { domain_matches(place.host, &self.domain) };
        host && path_matches(place.path, &self.path) && (place.https || !self.secure) && !self.has_expired(now)
    }
}

/// Returns when a cookie of this `Max-Age` expires; `None` if it is not a number.
fn expiry(max_age: &str, now: UnixMillis) -> Option<UnixMillis> {
    let digits = max_age.strip_prefix('-').unwrap_or(max_age);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = if digits.len() < max_age.len() { 0 } else { digits.parse().unwrap_or(u64::MAX) };
    Some(now.saturating_add(Duration::from_secs(seconds.min(MAX_AGE_CAP))))
}

/// Returns the domain of a cookie, and whether the cookie is only for that host.
fn domain(value: &str, host: &str) -> Result<(String, bool), Refused> {
    let domain = value.strip_prefix('.').unwrap_or(value).to_ascii_lowercase();
    if domain.is_empty() {
        Ok((host.to_owned(), true))
    } else if domain.contains('.') && domain_matches(host, &domain) {
        Ok((domain, false))
    } else {
        Err(Refused::ForeignDomain)
    }
}

fn domain_matches(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn path_matches(path: &str, cookie_path: &str) -> bool {
    path.strip_prefix(cookie_path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || cookie_path.ends_with('/'))
}

fn default_path(path: &str) -> &str {
    match path.rfind('/') {
        Some(last) if last > 0 => &path[..last],
        _ => "/",
    }
}

/// Returns the site that a host belongs to.
fn registrable(host: &str) -> &str {
    let mut dots = host.rmatch_indices('.').map(|(at, _)| at + 1);
    dots.nth(1).map_or(host, |start| &host[start..])
}

fn clears_cookies(headers: &HeaderMap) -> bool {
    let values = headers.get_all("clear-site-data").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|kind| matches!(kind.trim(), "\"cookies\"" | "\"*\""))
}

const BLANKS: [char; 2] = [' ', '\t'];
/// The longest lifetime that browsers grant: 400 days, in seconds.
const MAX_AGE_CAP: u64 = 400 * 86_400;
