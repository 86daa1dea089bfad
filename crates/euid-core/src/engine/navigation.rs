//! Decides which requests may cause a refresh, and which responses may write changes that the next page can write as
//! well.
//!
//! 1. A prefetch or an upgrade shows no page, and a page loads many images and scripts. Such a request causes no call
//!    to the operator, and its response writes no state, unless a handler states a change or consent is withdrawn. Its
//!    handler sees a token that is still valid.
//! 2. A conditional request causes no call while its token is valid: its response is often a 304, which
//!    can't bring the new pair.

use http::header::{CONNECTION, IF_MODIFIED_SINCE, IF_NONE_MATCH, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Whether the response to a request is a page, or the answer to a script's own request.
#[inline]
pub(super) fn is_navigation_or_fetch(method: &Method, headers: &HeaderMap) -> bool {
    // One pass over all headers costs less than one search per name.
    // `reads` has each of these names, too.
    let no_page = |(name, value): (&HeaderName, &HeaderValue)| match name.as_str() {
        "sec-fetch-dest" => ASSETS.iter().any(|asset| value == asset),
        // From browsers, from older browsers, and from scripts, which may set neither of those.
        "sec-purpose" | "purpose" | "x-sec-purpose" | "x-purpose" | "x-moz" => is_speculative(value),
        // Next.js sends these with its prefetches only, of the app router and of the pages router.
        "next-router-prefetch" | "x-middleware-prefetch" => true,
        "upgrade" => is_websocket(headers),
        _ => false,
    };
    !matches!(*method, Method::OPTIONS | Method::CONNECT) && !headers.iter().any(no_page)
}

/// Whether the request has a condition that a 304 may answer.
pub(super) fn is_conditional(method: &Method, headers: &HeaderMap) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    reads && [IF_NONE_MATCH, IF_MODIFIED_SINCE].iter().any(|name| headers.contains_key(name))
}

/// Whether a request header with this name decides here.
pub(super) fn reads(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "upgrade"
            | "if-none-match"
            | "if-modified-since"
            | "sec-fetch-dest"
            | "sec-purpose"
            | "purpose"
            | "x-purpose"
            | "x-sec-purpose"
            | "x-moz"
            | "next-router-prefetch"
            | "x-middleware-prefetch"
    )
}

/// Whether the connection is to become a WebSocket. An offer of HTTP/2 (`Upgrade: h2c`), which curl and
/// Java's client make with each request, is not an upgrade.
fn is_websocket(headers: &HeaderMap) -> bool {
    let lists = |name: HeaderName, token: &str| {
        let mut tokens = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
        // A protocol may name its version after a slash.
        tokens.any(|listed| {
            let name = listed.split(|&byte| byte == b'/').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(token.as_bytes())
        })
    };
    lists(UPGRADE, "websocket") && lists(CONNECTION, "upgrade")
}

/// Whether the browser may never show the response: a prefetch or a prerender.
fn is_speculative(purpose: &HeaderValue) -> bool {
    let purpose = purpose.as_bytes().to_ascii_lowercase();
    let words: [&[u8]; 3] = [b"prefetch", b"prerender", b"preview"];
    words.iter().any(|word| memchr::memmem::find(&purpose, word).is_some())
}

/// Destinations of a page's subresources, except frames: images, scripts, styles, media.
const ASSETS: [&str; 17] = [
    "audio",
    "audioworklet",
    "font",
    "image",
    "json",
    "manifest",
    "paintworklet",
    "report",
    "script",
    "serviceworker",
    "sharedworker",
    "speculationrules",
    "style",
    "track",
    "video",
    "worker",
    "xslt",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn may_refresh(method: Method, headers: &[(&'static str, &'static str)]) -> bool {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        headers.iter().map(header).for_each(|(name, value)| _ = map.append(name, value));
        is_navigation_or_fetch(&method, &map)
    }

    #[test]
    fn documents_and_script_calls_may_refresh() {
        for dest in ["document", "iframe", "frame", "embed", "object", "fencedframe", "empty", "Image"] {
            assert!(may_refresh(Method::GET, &[("sec-fetch-dest", dest)]), "{dest}");
        }
        assert!(may_refresh(Method::GET, &[]) && may_refresh(Method::HEAD, &[]) && may_refresh(Method::POST, &[]));
    }

    #[test]
    fn prefetches_and_subresources_may_not_refresh() {
        for header in [
            ("sec-purpose", "prefetch"),
            ("sec-purpose", "prefetch;prerender"),
            ("sec-purpose", "prefetch;anonymous-client-ip"),
            ("purpose", "Prefetch"),
            ("x-purpose", "preview"),
            ("x-sec-purpose", "prefetch"),
            ("x-moz", "prefetch"),
            ("next-router-prefetch", "1"),
            ("next-router-prefetch", "2"),
            ("x-middleware-prefetch", "1"),
            ("sec-fetch-dest", "image"),
            ("sec-fetch-dest", "script"),
            ("sec-fetch-dest", "style"),
            ("sec-fetch-dest", "font"),
            ("sec-fetch-dest", "audio"),
            ("sec-fetch-dest", "video"),
            ("sec-fetch-dest", "track"),
            ("sec-fetch-dest", "manifest"),
            ("sec-fetch-dest", "serviceworker"),
        ] {
            assert!(!may_refresh(Method::GET, &[header]), "{header:?}");
        }
        assert!(!may_refresh(Method::OPTIONS, &[]));
    }

    #[test]
    fn websocket_upgrade_and_tunnel_may_not_refresh_but_an_http_2_offer_may() {
        for headers in [
            &[("upgrade", "websocket"), ("connection", "Upgrade")][..],
            &[("upgrade", "h2c, WebSocket"), ("connection", "keep-alive, upgrade")],
            &[("upgrade", "h2c"), ("upgrade", "websocket/13"), ("connection", "close"), ("connection", "UPGRADE")],
        ] {
            assert!(!may_refresh(Method::GET, headers), "{headers:?}");
        }
        for headers in [
            &[("upgrade", "h2c"), ("connection", "Upgrade, HTTP2-Settings"), ("http2-settings", "AAMAAABk")][..],
            &[("upgrade", "TLS/1.0"), ("connection", "Upgrade")],
            &[("upgrade", "websocket")],
            &[("upgrade", "websocket"), ("connection", "keep-alive")],
            &[("upgrade", "websockets"), ("connection", "upgrade")],
        ] {
            assert!(may_refresh(Method::GET, headers), "{headers:?}");
        }
        assert!(!may_refresh(Method::CONNECT, &[]), "including the extended CONNECT of HTTP/2");
    }

    #[test]
    fn request_is_conditional_if_a_304_may_answer_it() {
        let is_conditional = |method: Method, name: Option<HeaderName>| {
            let mut headers = HeaderMap::new();
            name.map(|name| headers.insert(name, HeaderValue::from_static("x")));
            super::is_conditional(&method, &headers)
        };
        for method in [Method::GET, Method::HEAD] {
            for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE] {
                assert!(is_conditional(method.clone(), Some(name)));
            }
            assert!(!is_conditional(method.clone(), None));
            assert!(!is_conditional(method, Some(http::header::IF_MATCH)));
        }
        assert!(!is_conditional(Method::POST, Some(IF_NONE_MATCH)));
    }
}
