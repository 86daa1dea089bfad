//! Nothing of one visitor's is kept for another: the `Cache-Control` of a response that we touched.
//!
//! 1. A response that writes our cookie becomes `private, no-store`.
//! 2. One whose handler read the token becomes at least `private`.
//! 3. What the application set is only ever made stricter: directives that allow more go, others
//!    stay.
//! 4. Headers aimed at a CDN alone (`CDN-Cache-Control` of RFC 9213 and its relatives,
//!    `Surrogate-Control`) beat `Cache-Control` there, so where they stand they say `no-store`.

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue};

/// What we had to do with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// The handler read the token.
    Read,
    /// It writes one of our cookies.
    Wrote,
}

/// Makes the response's caching strict enough for `touch`.
pub(crate) fn guard(touch: Touch, headers: &mut HeaderMap) {
    if let Some(value) = restricted(touch, headers) {
        headers.insert(CACHE_CONTROL, value);
    }
    let for_a_cdn: Vec<HeaderName> = headers.keys().filter(|name| is_for_a_cdn(name)).cloned().collect();
    for name in for_a_cdn {
        headers.insert(name, NO_STORE);
    }
}

/// The new `Cache-Control`, if the present one is not strict enough.
fn restricted(touch: Touch, headers: &HeaderMap) -> Option<HeaderValue> {
    let (required, alone): (&[&str], _) = match touch {
        Touch::Read => (&["private"], PRIVATE),
        Touch::Wrote => (&["private", "no-store"], PRIVATE_NO_STORE),
    };
    if !headers.contains_key(CACHE_CONTROL) {
        return Some(alone);
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut missing = required.to_vec();
    let mut strict = true;
    for value in headers.get_all(CACHE_CONTROL) {
        let Ok(value) = value.to_str() else {
            // Who knows what a cache makes of it.
            strict = false;
            continue;
        };
        for directive in directives(value) {
            if required.iter().any(|required| directive.eq_ignore_ascii_case(required)) {
                missing.retain(|required| !directive.eq_ignore_ascii_case(required));
            } else if loosens(touch, directive) {
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
    // Text that came out of header values goes into one again.
    Some(HeaderValue::try_from(directives.join(", ")).unwrap_or(PRIVATE_NO_STORE))
}

/// Whether a directive allows more than `touch` does.
fn loosens(touch: Touch, directive: &str) -> bool {
    let name = directive.split('=').next().unwrap_or_default().trim();
    let is = |names: &[&str]| names.iter().any(|other| name.eq_ignore_ascii_case(other));
    // `private="x"` speaks of the header field x only; `must-understand` lets a cache pass over `no-store`.
    is(&["public", "s-maxage", "private", "must-understand"])
        || (touch == Touch::Wrote
            && is(&["max-age", "immutable", "no-store", "stale-while-revalidate", "stale-if-error"]))
}

fn is_for_a_cdn(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == "surrogate-control" || (name.ends_with("-cache-control") && !name.starts_with("x-"))
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

const PRIVATE: HeaderValue = HeaderValue::from_static("private");
const PRIVATE_NO_STORE: HeaderValue = HeaderValue::from_static("private, no-store");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded(touch: Touch, values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CACHE_CONTROL, HeaderValue::from_str(value).unwrap());
        }
        guard(touch, &mut headers);
        let values: Vec<_> = headers.get_all(CACHE_CONTROL).iter().map(|value| value.to_str().unwrap()).collect();
        values.join(" | ")
    }

    #[test]
    fn a_response_that_writes_our_cookie_is_private_and_not_stored() {
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
            assert_eq!(guarded(Touch::Wrote, before), after, "{before:?}");
        }
    }

    #[test]
    fn a_response_whose_token_was_read_is_at_least_private() {
        for (before, after) in [
            (&[][..], "private"),
            (&["public, max-age=600"], "private, max-age=600"),
            (&["no-store"], "private, no-store"),
            (&["private, max-age=5"], "private, max-age=5"),
            (&["PRIVATE"], "PRIVATE"),
            (&["private=\"x-user\", max-age=5"], "private, max-age=5"),
            (&["private, s-maxage=60"], "private"),
            (&["x=\"a, public\""], "private, x=\"a, public\""),
        ] {
            assert_eq!(guarded(Touch::Read, before), after, "{before:?}");
        }
    }

    #[test]
    fn a_value_that_is_no_text_does_not_stay() {
        let mut headers = HeaderMap::new();
        headers.append(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        headers.append(CACHE_CONTROL, HeaderValue::from_bytes(b"public, x=\xe9").unwrap());
        guard(Touch::Wrote, &mut headers);
        assert_eq!(headers.get_all(CACHE_CONTROL).iter().collect::<Vec<_>>(), ["private, no-store"]);
    }

    #[test]
    fn headers_for_a_cdn_are_not_left_more_open() {
        for name in ["cdn-cache-control", "surrogate-control", "cloudflare-cdn-cache-control", "akamai-cache-control"] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("max-age=600"));
            guard(Touch::Read, &mut headers);
            assert_eq!(headers[name], "no-store");
        }
    }
}
