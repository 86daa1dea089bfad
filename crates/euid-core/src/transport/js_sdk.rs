//! The two cookies that scripts know, each only if the application enables it.
//!
//! 1. `__euid` (in UID2 `__uid_2`), in which the JavaScript SDK keeps a whole identity: read once, then deleted.
//! 2. `__euid_advertising_token` (in UID2 `__uid2_advertising_token`), from which Prebid takes the bare token: it follows
//!    the identity.

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
use crate::scope::Scope;

/// The names of both cookies in one scope, and how to find them.
#[derive(Clone, Debug)]
pub(crate) struct ScriptNames {
    js_sdk: &'static str,
    token: &'static str,
    js_sdk_finder: Finder<'static>,
    token_finder: Finder<'static>,
}

/// The content of the SDK's cookie.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum JsSdk {
    Identity(Identity),
    /// The person opted out, and the SDK remembers it until then.
    OptedOut {
        until: UnixMillis,
    },
}

impl JsSdk {
    /// Whether it can be of this scope: its tokens do not tell the other one.
    pub(crate) fn can_be_of(&self, scope: Scope) -> bool {
        match self {
            Self::Identity(identity) => identity.scope().is_none_or(|other| other == scope),
            Self::OptedOut { .. } => true,
        }
    }
}

/// The object that the SDK writes in place of an identity once the person has opted out.
#[derive(Deserialize)]
struct OptOutMarker {
    status: String,
    refresh_expires: i64,
}

impl ScriptNames {
    pub(crate) fn new(scope: Scope) -> Self {
        let (js_sdk, token) = (scope.literals().js_sdk_cookie, scope.literals().token_cookie);
        Self { js_sdk, token, js_sdk_finder: Finder::new(js_sdk), token_finder: Finder::new(token) }
    }

    /// Whether this is the name of a cookie that the application has enabled.
    pub(crate) fn contain(&self, name: &[u8], config: &CookieConfig) -> bool {
        (config.exposes_token() && name == self.token.as_bytes())
            || (config.js_sdk_cookie().is_some() && name == self.js_sdk.as_bytes())
    }

    /// The content of the first SDK cookie. Others don't count, whether it can be read or not, so a request costs one
    /// parse at most.
    pub(crate) fn read_js_sdk(&self, headers: &HeaderMap) -> Option<JsSdk> {
        let mut first = None;
        for_each(&self.js_sdk_finder, headers.get_all(COOKIE), |rest_of_name, value| {
            if rest_of_name.is_empty() && first.is_none() {
                first = Some(value);
            }
        });
        let value = first.filter(|value| value.len() <= MAX_VALUE)?;
        let json: Vec<u8> = percent_decode(value).collect();
        parse_js_sdk(&json)
    }

    /// The `Set-Cookie`s that delete the SDK's cookie, wherever its `cookieDomain` has put it.
    pub(crate) fn delete_js_sdk(&self, config: &CookieConfig, sdk: &JsSdkCookie) -> impl Iterator<Item = HeaderValue> {
        let domains = [None].into_iter().chain(sdk.domain.clone().map(Some));
        domains.filter_map(|domain| {
            set_cookie(&config.as_scripts_set_it(domain), Readers::Scripts, self.js_sdk, "", Duration::ZERO)
        })
    }

    /// Finds the cookie for scripts, which should hold `token`.
    pub(crate) fn find(&self, headers: &HeaderMap, token: Option<&str>) -> ScriptCookie {
        let token = token.filter(|token| self.fits_into_cookie(token));
        let (mut came, mut agrees) = (false, false);
        for_each(&self.token_finder, headers.get_all(COOKIE), |rest_of_name, value| {
            if rest_of_name.is_empty() {
                came = true;
                agrees |= token.is_some_and(|token| token.as_bytes() == value);
            }
        });
        // A token that no cookie can hold counts as none.
        ScriptCookie { came, lacks_token: if token.is_some() { !agrees } else { came } }
    }

    /// The `Set-Cookie` that hands `token` over until it ends, or takes back what was handed over.
    pub(crate) fn expose_token(
        &self,
        config: &CookieConfig,
        token: Option<(&str, UnixMillis)>,
        now: &dyn Fn() -> UnixMillis,
    ) -> Option<HeaderValue> {
        let (token, rest) = match token {
            Some((token, expires)) if self.fits_into_cookie(token) => {
                (token, expires.saturating_since(now()).min(IDENTITY_MAX_AGE))
            }
            _ => ("", Duration::ZERO),
        };
        // In the last second there is nothing to hand over: a Max-Age of zero removes the cookie.
        let token = if rest < Duration::from_secs(1) { "" } else { token };
        set_cookie(config, Readers::Scripts, self.token, token, rest)
    }

    /// Whether a token fits into a cookie: it holds only cookie-octets (RFC 6265), and browsers keep a cookie of its size.
    fn fits_into_cookie(&self, token: &str) -> bool {
        let fits = self.token.len() + token.len() <= MAX_NAME_AND_VALUE;
        fits && token.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\'))
    }
}

fn parse_js_sdk(json: &[u8]) -> Option<JsSdk> {
    if let Ok(identity) = serde_json::from_slice(json) {
        return has_tokens_of_an_operator(&identity).then_some(JsSdk::Identity(identity));
    }
    let Object::<OptOutMarker>(marker) = serde_json::from_slice(json).ok()?;
    let until = UnixMillis::from_millis(marker.refresh_expires);
    (marker.status == "optout").then_some(JsSdk::OptedOut { until })
}

/// Whether the tokens look like those of an operator, which are base64, and fit into an identity cookie. Any script can
/// write this cookie, so the check is stricter than that of [`Identity::new`].
fn has_tokens_of_an_operator(identity: &Identity) -> bool {
    let (advertising_token, refresh_token) = (identity.advertising_token(), identity.refresh_token().expose_secret());
    let fits = advertising_token.len() + refresh_token.len() <= MAX_TOKENS;
    fits && is_base64(advertising_token) && is_base64(refresh_token)
}

/// Whether `text` is in one of the two base64 alphabets, perhaps with padding, and not empty. Its length is not checked.
fn is_base64(text: &str) -> bool {
    let (text, padding) = text.split_at(text.trim_end_matches('=').len());
    let is_in = |last_two: &[u8; 2]| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || last_two.contains(&byte));
    !text.is_empty() && (is_in(b"+/") || is_in(b"-_")) && padding.len() <= 2
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
    /// Whether the request brought one.
    pub(crate) fn came(self) -> bool {
        self.came
    }

    /// Whether the response must set or remove the cookie.
    pub(crate) fn differs(self, has_token: bool) -> bool {
        if has_token { self.lacks_token } else { self.came }
    }
}

/// The longest tokens of a migrated identity, together. Sealed as text, they fit into a cookie; those of an operator have
/// some 610 characters.
const MAX_TOKENS: usize = 2800;
/// The largest value that is read, in bytes. Browsers keep no larger one.
const MAX_VALUE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn json(advertising_token: &str, refresh_token: &str) -> String {
        format!(
            r#"{{"advertising_token":"{advertising_token}","refresh_token":"{refresh_token}","refresh_response_key":"{KEY}","refresh_from":1,"identity_expires":2,"refresh_expires":3}}"#
        )
    }

    /// Returns the advertising token that is read from the `Cookie` headers.
    fn token(cookies: &[String]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, cookie.parse().unwrap());
        }
        match ScriptNames::new(Scope::Euid).read_js_sdk(&headers)? {
            JsSdk::Identity(identity) => Some(identity.advertising_token().to_owned()),
            JsSdk::OptedOut { .. } => Some("opted out".to_owned()),
        }
    }

    fn cookie(value: &str) -> String {
        format!("__euid={}", value.replace('"', "%22").replace(',', "%2C"))
    }

    #[test]
    fn first_js_sdk_cookie_counts_even_if_it_is_not_readable() {
        let [good, other] = ["good", "other"].map(|token| cookie(&json(token, "r")));
        let garbled = cookie("garbled");
        let opt_out = cookie(r#"{"refresh_expires":9,"status":"optout"}"#);
        for (first, read) in [(&good, Some("good")), (&garbled, None), (&opt_out, Some("opted out"))] {
            for cookies in [vec![first.clone(), other.clone()], vec![format!("a=b; {first}; {other}")]] {
                assert_eq!(token(&cookies).as_deref(), read, "{cookies:?}");
            }
        }
    }

    #[test]
    fn js_sdk_cookie_is_read_up_to_4096_bytes() {
        let of_size = |size: usize| {
            let padded = |length| json("good", "r").replace('}', &format!(r#","more":"{}"}}"#, "x".repeat(length)));
            let rest = cookie(&padded(0)).len() - "__euid=".len();
            cookie(&padded(size - rest))
        };
        assert_eq!(of_size(4096).len(), "__euid=".len() + 4096);
        assert_eq!(token(&[of_size(4096)]).as_deref(), Some("good"));
        assert_eq!(token(&[of_size(4097)]), None);
        assert_eq!(token(&[of_size(4097), cookie(&json("other", "r"))]), None);
    }

    #[test]
    fn js_sdk_cookie_needs_tokens_that_fit_into_an_identity_cookie() {
        let of_length = |length| token(&[cookie(&json(&"a".repeat(length - 1), "r"))]).is_some();
        assert!(of_length(MAX_TOKENS) && !of_length(MAX_TOKENS + 1));
    }

    #[test]
    fn js_sdk_cookie_needs_tokens_in_base64() {
        for (advertising_token, refresh_token) in
            [("the-SDKs", "ref/re+sh=="), ("the_SDKs", "ref-re_sh="), ("09azAZ", "09azAZ"), ("a", "-_"), ("a", "+/")]
        {
            assert!(token(&[cookie(&json(advertising_token, refresh_token))]).is_some(), "{refresh_token}");
        }
        for (advertising_token, refresh_token) in [
            ("a+b-c", "r"),
            ("a===", "r"),
            ("a.b", "r"),
            ("a:b", "r"),
            ("a", "r."),
            ("a", "r==="),
            ("a", "r=r"),
            ("a", "="),
            ("a", "r+/-_"),
            ("a", "r!"),
        ] {
            assert!(serde_json::from_str::<Identity>(&json(advertising_token, refresh_token)).is_ok());
            let read = token(&[cookie(&json(advertising_token, refresh_token))]);
            assert_eq!(read, None, "{advertising_token} {refresh_token}");
        }
    }
}
