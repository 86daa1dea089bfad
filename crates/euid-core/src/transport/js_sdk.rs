//! The two cookies that scripts know, each only if the application enables it.
//!
//! 1. `__euid`, in which EUID's JavaScript SDK keeps a whole identity: read once, then deleted.
//! 2. `__euid_advertising_token`, from which Prebid takes the bare token: it follows the identity.

use std::sync::LazyLock;
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use memchr::memmem::Finder;
use percent_encoding::percent_decode;
use serde::Deserialize;

use super::config::{CookieConfig, JsSdkCookie};
use super::cookie::{IDENTITY_MAX_AGE, MAX_NAME_AND_VALUE, Readers, for_each, set_cookie};
use crate::clock::UnixMillis;
use crate::identity::{Identity, Object};

/// The content of the SDK's cookie.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum JsSdk {
    Identity(Identity),
    /// The person opted out, and the SDK remembers it until then.
    OptedOut {
        until: UnixMillis,
    },
}

/// The object that the SDK writes in place of an identity once the person has opted out.
#[derive(Deserialize)]
struct OptOutMarker {
    status: String,
    refresh_expires: i64,
}

/// The first SDK cookie that can be read.
pub(crate) fn read(headers: &HeaderMap) -> Option<JsSdk> {
    let mut found = None;
    for_each(&FINDER, headers.get_all(COOKIE), |rest_of_name, value| {
        if rest_of_name.is_empty() && found.is_none() {
            let json: Vec<u8> = percent_decode(value).collect();
            found = parse_js_sdk(&json);
        }
    });
    found
}

fn parse_js_sdk(json: &[u8]) -> Option<JsSdk> {
    if let Ok(identity) = serde_json::from_slice(json) {
        return Some(JsSdk::Identity(identity));
    }
    let Object::<OptOutMarker>(marker) = serde_json::from_slice(json).ok()?;
    let until = UnixMillis::from_millis(marker.refresh_expires);
    (marker.status == "optout").then_some(JsSdk::OptedOut { until })
}

/// The `Set-Cookie`s that delete the SDK's cookie: as one of this host, and as one of the SDK's `cookieDomain`.
pub(crate) fn delete_js_sdk(config: &CookieConfig, sdk: &JsSdkCookie) -> impl Iterator<Item = HeaderValue> {
    let domains = [None].into_iter().chain(sdk.domain.clone().map(Some));
    domains.filter_map(|domain| {
        set_cookie(&config.as_scripts_set_it(domain), Readers::Scripts, JS_SDK, "", Duration::ZERO)
    })
}

/// The cookie for scripts in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScriptCookie {
    /// The request brought one.
    came: bool,
    /// There is a token that such a cookie can hold, and none holds it.
    lacks_token: bool,
}

impl ScriptCookie {
    /// Finds the cookie, which should hold `token`.
    pub(crate) fn find(headers: &HeaderMap, token: Option<&str>) -> Self {
        let token = token.filter(|token| fits_into_cookie(token));
        let (mut came, mut agrees) = (false, false);
        for_each(&FINDER, headers.get_all(COOKIE), |rest_of_name, value| {
            if rest_of_name == AFTER_JS_SDK {
                came = true;
                agrees |= token.is_some_and(|token| token.as_bytes() == value);
            }
        });
        // A token that no cookie can hold counts as none.
        Self { came, lacks_token: if token.is_some() { !agrees } else { came } }
    }

    /// Whether the response must set or remove the cookie.
    pub(crate) fn differs(self, has_token: bool) -> bool {
        if has_token { self.lacks_token } else { self.came }
    }
}

/// The `Set-Cookie` that hands `token` over until it ends, or takes back what was handed over.
pub(crate) fn expose_token(
    config: &CookieConfig,
    token: Option<(&str, UnixMillis)>,
    now: UnixMillis,
) -> Option<HeaderValue> {
    let (token, rest) = match token {
        Some((token, expires)) if fits_into_cookie(token) => {
            (token, expires.saturating_since(now).min(IDENTITY_MAX_AGE))
        }
        _ => ("", Duration::ZERO),
    };
    // In the last second there is nothing to hand over: a Max-Age of zero removes the cookie.
    let token = if rest < Duration::from_secs(1) { "" } else { token };
    set_cookie(config, Readers::Scripts, TOKEN_COOKIE, token, rest)
}

/// Whether a token fits into a cookie: it holds only cookie-octets (RFC 6265), and browsers keep a cookie of its size.
pub(crate) fn fits_into_cookie(token: &str) -> bool {
    let fits = TOKEN_COOKIE.len() + token.len() <= MAX_NAME_AND_VALUE;
    fits && token.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\'))
}

const JS_SDK: &str = "__euid";
const TOKEN_COOKIE: &str = "__euid_advertising_token";
/// The rest of the second name, after the first.
const AFTER_JS_SDK: &[u8] = b"_advertising_token";
/// Finds both, as the second name begins with the first.
static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(JS_SDK));
