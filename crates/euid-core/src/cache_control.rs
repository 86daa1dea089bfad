//! The cache guard: no cache shows one visitor's response to another visitor.
//!
//! 1. A response that writes one of this crate's cookies becomes `private, no-store`.
//! 2. A response whose handler read the token becomes `private, no-cache` and varies on the header that brought the state: the
//!    browser may store it, but must ask before it shows it again, for another person may have logged in.
//! 3. The guard only makes a response stricter: it drops directives that allow more and keeps the others.
//!    `Expires` may stay, because `no-cache` and `no-store` both overrule it.
//! 4. Some headers overrule `Cache-Control` in one kind of cache. Where such a header is present, it gets
//!    the value that forbids storing (the constant `STEERING` lists them). Its directives on Edge Side Includes
//!    stay, else visitors would see the tags of the includes.
//! 5. If the response has no room for another header, it passes as it is, and [`guard`] returns false.

use http::header::{CACHE_CONTROL, Entry, GetAll, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Why a response must not be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// The handler read the token.
    TokenRead,
    /// The response writes one of this crate's cookies.
    StateWritten,
}

/// Makes the caching of a response strict enough for `exposure`, and makes it vary on a header. Returns false if there was
/// no room for the headers.
#[must_use]
pub(crate) fn guard(exposure: Exposure, varies_on: Option<HeaderValue>, headers: &mut HeaderMap) -> bool {
    if headers.keys().any(|name| forbidding(name.as_str()).is_some()) {
        forbid_steering(headers);
    }
    let varies_on = varies_on.filter(|header| !headers.get_all(VARY).iter().any(|vary| covers(vary, header)));
    let restricted = match headers.try_entry(CACHE_CONTROL) {
        Ok(Entry::Vacant(entry)) => entry.try_insert(exposure.requires().1).is_ok(),
        // Or the map is full; it may still have the header.
        _ => restricted(exposure, headers).is_none_or(|value| replace(headers, CACHE_CONTROL, value)),
    };
    let varies = varies_on.is_none_or(|header| headers.try_append(VARY, header).is_ok());
    restricted && varies
}

/// Gives each header that steers caches the value that forbids storing.
#[cold]
fn forbid_steering(headers: &mut HeaderMap) {
    let steering = |name: &HeaderName| Some((name.clone(), forbidding(name.as_str())?));
    let steering: Vec<(HeaderName, &str)> = headers.keys().filter_map(steering).collect();
    for (name, forbidding) in steering {
        let value = with_includes(forbidding, headers.get_all(&name));
        replace(headers, name, value);
    }
}

impl Exposure {
    /// The directives that a response must have, and the value where it has no other.
    fn requires(self) -> (&'static [&'static str], HeaderValue) {
        match self {
            Self::TokenRead => (&["private", "no-cache"], HeaderValue::from_static("private, no-cache")),
            Self::StateWritten => (&["private", "no-store"], HeaderValue::from_static("private, no-store")),
        }
    }
}

/// The value that forbids storing, if `name` is a header that steers caches.
fn forbidding(name: &str) -> Option<&'static str> {
    let (_, value) = STEERING.iter().find(|(steering, _)| match steering {
        Steering::Named(steering) => name == *steering,
        Steering::EndingIn(end) => name.ends_with(end),
    })?;
    Some(value)
}

/// `forbidding`, and the directives of the present values by which a cache puts a page together.
fn with_includes(forbidding: &'static str, present: GetAll<'_, HeaderValue>) -> HeaderValue {
    let is_about_includes = |directive: &&str| {
        let name = directive.split_once('=').map(|(name, _)| name.trim());
        name.is_some_and(|name| INCLUDES.iter().any(|other| name.eq_ignore_ascii_case(other)))
    };
    let present = present.iter().filter_map(|value| value.to_str().ok()).flat_map(directives);
    let directives: Vec<&str> = std::iter::once(forbidding).chain(present.filter(is_about_includes)).collect();
    HeaderValue::try_from(directives.join(", ")).unwrap_or(HeaderValue::from_static(forbidding))
}

/// The new `Cache-Control`, if the present one is not strict enough.
fn restricted(exposure: Exposure, headers: &HeaderMap) -> Option<HeaderValue> {
    let (required, alone) = exposure.requires();
    let mut kept: Vec<&str> = Vec::new();
    let mut missing = required.to_vec();
    let mut strict = true;
    for value in headers.get_all(CACHE_CONTROL) {
        let Ok(value) = value.to_str() else {
            // Caches may read such bytes in different ways.
            strict = false;
            continue;
        };
        for directive in directives(value) {
            if required.iter().any(|required| directive.eq_ignore_ascii_case(required)) {
                missing.retain(|required| !directive.eq_ignore_ascii_case(required));
            } else if loosens(exposure, directive) {
                strict = false;
            } else {
                kept.push(directive);
            }
        }
    }
    if strict && missing.is_empty() {
        return None;
    }
    let directives: Vec<&str> = required.iter().copied().chain(kept).collect();
    // The directives came out of header values, so they fit into one.
    Some(HeaderValue::try_from(directives.join(", ")).unwrap_or(alone))
}

/// Whether a directive allows more than `exposure` does.
fn loosens(exposure: Exposure, directive: &str) -> bool {
    let (name, argument) = match directive.split_once('=') {
        Some((name, argument)) => (name.trim(), Some(argument.trim())),
        None => (directive, None),
    };
    let is = |names: &[&str]| names.iter().any(|other| name.eq_ignore_ascii_case(other));
    if is(&["max-age"]) {
        return exposure == Exposure::StateWritten || argument != Some("0");
    }
    // `private="x"` and `no-cache="x"` are about the header field x only.
    argument.is_some() && is(&["private", "no-cache", "no-store"])
        // `must-understand` lets a cache ignore `no-store`.
        || is(&["public", "s-maxage", "must-understand", "immutable", "stale-while-revalidate", "stale-if-error"])
}

/// The directives of a value; a comma inside quotes does not separate.
fn directives(value: &str) -> Vec<&str> {
    let mut quoted = false;
    let separates = |character| {
        quoted ^= character == '"';
        character == ',' && !quoted
    };
    value.split(separates).map(str::trim).filter(|directive| !directive.is_empty()).collect()
}

/// Whether `Vary` keeps the response from a request with other cookies.
fn covers(vary: &HeaderValue, header: &HeaderValue) -> bool {
    let mut names = vary.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    names.any(|name| name == b"*" || name.eq_ignore_ascii_case(header.as_bytes()))
}

/// Replaces a header that is present. A full map refuses even that, so the old one goes first.
fn replace(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) -> bool {
    headers.remove(&name);
    headers.try_insert(name, value).is_ok()
}

enum Steering {
    Named(&'static str),
    EndingIn(&'static str),
}

/// Headers that overrule `Cache-Control` in one kind of cache, each with the value that forbids storing.
const STEERING: &[(Steering, &str)] = &[
    // nginx
    (Steering::Named("x-accel-expires"), "0"),
    // Akamai
    (Steering::Named("edge-control"), "no-store"),
    // Fastly, Varnish, Squid (W3C Edge Architecture)
    (Steering::Named("surrogate-control"), "no-store"),
    // Varnish and Symfony's cache: conventions of their configurations
    (Steering::Named("x-varnish-ttl"), "0"),
    (Steering::Named("x-reverse-proxy-ttl"), "0"),
    // LiteSpeed
    (Steering::Named("x-litespeed-cache-control"), "no-cache, no-store"),
    // RFC 9213 (`CDN-Cache-Control` and one of each CDN), and `X-Cache-Control`, `X-Proxy-Cache-Control`
    (Steering::EndingIn("-cache-control"), "no-store"),
];
/// Directives that switch Edge Side Includes on, of `Surrogate-Control`, `Edge-Control` and LiteSpeed.
const INCLUDES: [&str; 3] = ["content", "dca", "esi"];

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: HeaderValue = HeaderValue::from_static("Cookie");

    fn guarded(exposure: Exposure, values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CACHE_CONTROL, HeaderValue::from_str(value).unwrap());
        }
        assert!(guard(exposure, Some(COOKIE), &mut headers));
        all(&headers, CACHE_CONTROL)
    }

    fn all(headers: &HeaderMap, name: HeaderName) -> String {
        let values: Vec<_> = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        values.join(" | ")
    }

    #[test]
    fn response_that_writes_a_cookie_is_private_and_not_stored() {
        for (before, after) in [
            (&[][..], "private, no-store"),
            (&["public, max-age=600"], "private, no-store"),
            (&["no-cache"], "private, no-store, no-cache"),
            (&["private, no-store"], "private, no-store"),
            (&["private, private"], "private, no-store"),
            (&["no-store, must-understand"], "private, no-store"),
            (&["max-age=0", "no-transform, Public"], "private, no-store, no-transform"),
            (&["s-maxage=60, stale-while-revalidate=9, immutable"], "private, no-store"),
            (&["private=\"set-cookie, x\", no-store"], "private, no-store"),
        ] {
            assert_eq!(guarded(Exposure::StateWritten, before), after, "{before:?}");
        }
    }

    #[test]
    fn response_whose_token_was_read_is_private_and_revalidated() {
        for (before, after) in [
            (&[][..], "private, no-cache"),
            (&["public, max-age=600"], "private, no-cache"),
            (&["no-store"], "private, no-cache, no-store"),
            (&["private, max-age=5"], "private, no-cache"),
            (&["private, max-age=0, no-cache"], "private, max-age=0, no-cache"),
            (&["max-age = 0, must-revalidate"], "private, no-cache, max-age = 0, must-revalidate"),
            (&["PRIVATE, No-Cache"], "PRIVATE, No-Cache"),
            (&["private=\"x-user\", no-cache=\"x\", max-age=\"0\""], "private, no-cache"),
            (&["private, s-maxage=60"], "private, no-cache"),
            (&["private, max-age=600, immutable", "stale-while-revalidate=9, stale-if-error=9"], "private, no-cache"),
            (&["x=\"a, public\""], "private, no-cache, x=\"a, public\""),
        ] {
            assert_eq!(guarded(Exposure::TokenRead, before), after, "{before:?}");
        }
    }

    #[test]
    fn response_whose_token_was_read_varies_on_the_cookie_once() {
        for (before, after) in [
            (&[][..], "Cookie"),
            (&["Accept-Encoding"], "Accept-Encoding | Cookie"),
            (&["accept-encoding, cookie"], "accept-encoding, cookie"),
            (&["Origin", "COOKIE"], "Origin | COOKIE"),
            (&["*"], "*"),
            (&["x-cookie"], "x-cookie | Cookie"),
        ] {
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append(VARY, HeaderValue::from_static(value));
            }
            for _ in 0..2 {
                assert!(guard(Exposure::TokenRead, Some(COOKIE), &mut headers));
                assert_eq!(all(&headers, VARY), after, "{before:?}");
            }
        }
    }

    #[test]
    fn cache_control_value_that_is_not_text_is_removed() {
        let mut headers = HeaderMap::new();
        headers.append(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        headers.append(CACHE_CONTROL, HeaderValue::from_bytes(b"public, x=\xe9").unwrap());
        assert!(guard(Exposure::StateWritten, None, &mut headers));
        assert_eq!(all(&headers, CACHE_CONTROL), "private, no-store");
    }

    #[test]
    fn cache_steering_headers_forbid_storing_where_present() {
        for (name, before, after) in [
            ("x-accel-expires", "600", "0"),
            ("x-varnish-ttl", "24h", "0"),
            ("x-reverse-proxy-ttl", "3600", "0"),
            ("edge-control", "!no-store, max-age=1d", "no-store"),
            ("surrogate-control", "max-age=600", "no-store"),
            ("x-litespeed-cache-control", "public, max-age=3600", "no-cache, no-store"),
            ("x-cache-control", "public", "no-store"),
            ("x-proxy-cache-control", "s-maxage=60", "no-store"),
            ("cdn-cache-control", "max-age=600", "no-store"),
            ("cloudflare-cdn-cache-control", "max-age=600", "no-store"),
            ("netlify-cdn-cache-control", "public, durable", "no-store"),
            ("akamai-cache-control", "max-age=600", "no-store"),
        ] {
            let name = HeaderName::from_static(name);
            for exposure in [Exposure::TokenRead, Exposure::StateWritten] {
                let mut headers = HeaderMap::new();
                headers.append(name.clone(), HeaderValue::from_static(before));
                headers.append(name.clone(), HeaderValue::from_static("x"));
                assert!(guard(exposure, Some(COOKIE), &mut headers));
                assert_eq!(all(&headers, name.clone()), after, "{name}");
            }
        }
        let mut headers = HeaderMap::new();
        assert!(guard(Exposure::StateWritten, None, &mut headers));
        assert_eq!(headers.len(), 1, "no steering header is added");
    }

    #[test]
    fn cache_steering_header_keeps_its_esi_directive() {
        for (name, before, after) in [
            ("surrogate-control", "max-age=600, content=\"ESI/1.0\"", "no-store, content=\"ESI/1.0\""),
            ("edge-control", "DCA=esi, cache-maxage=1d", "no-store, DCA=esi"),
            ("x-litespeed-cache-control", "public,max-age=120,esi=on", "no-cache, no-store, esi=on"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(before));
            assert!(guard(Exposure::TokenRead, Some(COOKIE), &mut headers));
            assert_eq!(headers[name], after);
        }
    }

    #[test]
    fn full_header_map_never_panics_and_tightens_a_present_cache_control() {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=600"));
        headers.insert("x-accel-expires", HeaderValue::from_static("600"));
        for number in 0.. {
            let name = HeaderName::try_from(format!("x-{number}")).unwrap();
            if headers.try_append(name, HeaderValue::from_static("x")).is_err() {
                break;
            }
        }
        let names = headers.keys_len();
        assert!(!guard(Exposure::TokenRead, Some(COOKIE), &mut headers));
        assert_eq!((all(&headers, CACHE_CONTROL), headers.keys_len()), ("private, no-cache".to_owned(), names));
        assert_eq!(headers["x-accel-expires"], "0");
        headers.remove("x-accel-expires");
        headers.insert("x-another", HeaderValue::from_static("x"));
        headers.remove(CACHE_CONTROL);
        headers.insert("x-yet-another", HeaderValue::from_static("x"));
        assert!(!guard(Exposure::StateWritten, None, &mut headers));
        assert_eq!((headers.contains_key(CACHE_CONTROL), headers.keys_len()), (false, names));
    }
}
