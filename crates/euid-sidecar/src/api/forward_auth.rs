//! Forward-auth: `/v1/page`, told in the headers of an empty response, for a proxy that asks before each page.
//!
//! 1. The status is always 200, so that no page fails. A request that can't be answered gets no headers, and the log says
//!    why.
//! 2. `Euid-State` is the visitor's state, `Euid-Token` their token, if there is one. All other headers are those of the
//!    layer, for the response to the visitor.
//! 3. At most one `Set-Cookie`, because nginx passes on no more. The layer writes again what is still to be written: a
//!    removal, or the cookie for scripts, comes with a later page. Only a cookie of the JavaScript SDK that was migrated
//!    stays until a login or a logout, unused.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use tower_euid::AdvertisingToken;

use super::answer::Seen;
use super::next_page::{pair, sets};
use super::{Api, NOT_ALLOWED};

pub(super) async fn forward_auth(State(api): State<Arc<Api>>, mut request: Request) -> Response {
    if request.uri().path() != "/auth" {
        // The query is the page's own.
        *request.uri_mut() = Uri::from_static("/auth");
    }
    let asked = if api.is_allowed(request.headers()) { api.asked(&request) } else { Err(NOT_ALLOWED.into()) };
    let asked = match asked {
        Ok(asked) => asked,
        Err(refusal) => {
            tracing::warn!(error = %refusal, "forward-auth gives no token");
            return ().into_response();
        }
    };
    let (Seen { euid, .. }, mut headers) = api.page(asked, request).await;
    keep_one_cookie(&mut headers);
    headers.insert(STATE, HeaderValue::from_static(euid.state()));
    if let Some(Ok(token)) = euid.advertising_token().map(AdvertisingToken::as_str).map(HeaderValue::from_str) {
        headers.insert(TOKEN, token);
    }
    (headers, ()).into_response()
}

/// Keeps the first line that sets a cookie, or the first one.
fn keep_one_cookie(headers: &mut HeaderMap) {
    let sets = |line: &&HeaderValue| sets(pair(line));
    if let Some(line) = headers.get_all(SET_COOKIE).iter().find(sets).or_else(|| headers.get(SET_COOKIE)).cloned() {
        headers.insert(SET_COOKIE, line);
    }
}

const STATE: HeaderName = HeaderName::from_static("euid-state");
const TOKEN: HeaderName = HeaderName::from_static("euid-token");

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
    use axum::http::{Method, StatusCode};
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use tower::ServiceExt;
    use tower_euid::clock::Clock;
    use tower_euid::{CookieConfig, EuidLayer, RefreshMode};

    use super::*;
    use crate::api::tests::{Caller, ENOUGH, TOO_LITTLE, stored};

    /// 32 bytes in base64.
    const SECRET: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

    /// Sends a request to `/auth` as a proxy, and keeps its cookie as a browser.
    async fn ask(caller: &mut Caller, method: Method, uri: &str) -> HeaderMap {
        let request = caller.request(method, uri).body(Body::from("email=user%40example.com")).unwrap();
        let (parts, body) = caller.api.clone().oneshot(request).await.unwrap().into_parts();
        assert_eq!(parts.status, StatusCode::OK);
        assert!(to_bytes(body, 1).await.unwrap().is_empty());
        let mut lines = parts.headers.get_all(SET_COOKIE).iter();
        if let Some(line) = lines.next() {
            caller.keep(line.to_str().unwrap());
        }
        assert_eq!(lines.next(), None, "more than one cookie");
        parts.headers
    }

    async fn auth(caller: &mut Caller) -> HeaderMap {
        ask(caller, Method::GET, "/auth").await
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Returns the states of pages until one writes no cookie.
    async fn states(caller: &mut Caller) -> Vec<String> {
        let mut states = Vec::new();
        for _ in 0..8 {
            let headers = auth(caller).await;
            states.push(text(&headers, "euid-state").unwrap().to_owned());
            if !headers.contains_key(SET_COOKIE) {
                return states;
            }
        }
        panic!("each page writes a cookie: {:?}", caller.cookies);
    }

    #[tokio::test]
    async fn headers_are_those_of_a_page() {
        let mut caller = Caller::new();
        let headers = auth(&mut caller).await;
        assert_eq!(text(&headers, "euid-state"), Some("absent"));
        assert!(!headers.contains_key(TOKEN) && !headers.contains_key(CACHE_CONTROL));
        let login = caller.login("email=user%40example.com").await;
        for (method, uri) in [(Method::GET, "/auth"), (Method::POST, "/auth/"), (Method::POST, "/auth/a/b?subject=c")] {
            let headers = ask(&mut caller, method, uri).await;
            let shown =
                ["euid-state", "euid-token", "cache-control", "vary", "set-cookie"].map(|name| text(&headers, name));
            assert_eq!(
                shown,
                [Some("active"), login.token(), Some("private, no-cache"), Some("Cookie"), None],
                "{uri}"
            );
        }
        assert_eq!(caller.sandbox.calls().generate, 1);
    }

    #[tokio::test]
    async fn refresh_writes_one_cookie_or_with_a_store_none() {
        for (url, cookies) in [(None, 1), (Some("memory:"), 0)] {
            let mut caller = Caller::configured(|layer| {
                let layer = layer.refresh_mode(RefreshMode::Blocking);
                url.map_or(layer.clone(), |url| stored(layer, url, None))
            });
            let login = caller.login("email=user%40example.com").await;
            caller.sandbox.advance(Duration::from_secs(900));
            let headers = auth(&mut caller).await;
            assert_eq!(headers.get_all(SET_COOKIE).iter().count(), cookies);
            assert_eq!(text(&headers, "euid-state"), Some("active"));
            let token = text(&headers, "euid-token");
            assert_ne!(token, login.token());
            assert_eq!(text(&auth(&mut caller).await, "euid-token"), token);
            assert_eq!(caller.sandbox.refresh_calls(), 1);
        }
    }

    #[tokio::test]
    async fn cookie_for_scripts_follows_with_the_next_page() {
        let mut caller = Caller::configured(|layer| {
            layer.refresh_mode(RefreshMode::Blocking).cookie(CookieConfig::default().expose_token_to_scripts())
        });
        caller.login("email=user%40example.com").await;
        caller.sandbox.advance(Duration::from_secs(900));
        assert_eq!(states(&mut caller).await, ["active"; 3]);
        let headers = auth(&mut caller).await;
        let token = text(&headers, "euid-token").unwrap();
        assert!(caller.cookies.iter().any(|(_, value)| value == token), "{:?}", caller.cookies);
        assert_eq!(caller.sandbox.refresh_calls(), 1);
    }

    #[tokio::test]
    async fn cookie_of_the_javascript_sdk_stays_until_the_logout() {
        let mut caller =
            Caller::configured(|layer| layer.cookie(CookieConfig::default().migrate_js_sdk_cookie(None).unwrap()));
        let now = caller.sandbox.clock().now().as_millis();
        let identity = serde_json::json!({
            "advertising_token": "token", "refresh_token": "refresh", "refresh_response_key": SECRET,
            "refresh_from": now + 60_000, "identity_expires": now + 120_000, "refresh_expires": now + 240_000,
        });
        let value = percent_encode(identity.to_string().as_bytes(), NON_ALPHANUMERIC).to_string();
        caller.cookies.push(("__euid".to_owned(), value));
        assert_eq!(states(&mut caller).await, ["active"; 2]);
        assert_eq!(caller.cookies.len(), 2, "{:?}", caller.cookies);
        caller.post("/v1/logout", "").await;
        assert!(!caller.cookies.iter().any(|(name, _)| name == "__euid"), "{:?}", caller.cookies);
        assert_eq!(states(&mut caller).await, ["absent"]);
    }

    #[tokio::test]
    async fn opt_out_is_noted_first_and_the_removals_follow() {
        let mut caller = Caller::configured(|layer| layer.refresh_mode(RefreshMode::Blocking));
        caller.login("email=refresh-optout%40example.com").await;
        caller.sandbox.advance(Duration::from_secs(900));
        assert_eq!(states(&mut caller).await, ["opted_out"; 3]);
        assert_eq!(caller.cookies.len(), 2, "the login and the opt-out");
        assert_eq!(caller.page().await.state(), "opted_out");
    }

    #[tokio::test]
    async fn withdrawn_consent_ends_the_login_within_a_few_pages() {
        let mut caller = Caller::configured(EuidLayer::consent_from_tcf_cookie);
        caller.cookies.push(("euconsent-v2".to_owned(), ENOUGH.to_owned()));
        assert_eq!(caller.login("email=user%40example.com").await.state(), "active");
        caller.keep(&format!("euconsent-v2={TOO_LITTLE}"));
        assert_eq!(states(&mut caller).await, ["withheld"; 3]);
        assert_eq!(caller.cookies.len(), 1, "{:?}", caller.cookies);
    }

    #[tokio::test]
    async fn request_that_is_wrong_or_not_allowed_gets_no_headers_and_no_page_fails() {
        let mut caller = Caller::new();
        for query in ["?scope=uid2", "?user=1", "?subject=1&subject=1"] {
            assert!(!ask(&mut caller, Method::GET, &format!("/auth{query}")).await.contains_key(STATE), "{query}");
        }
        caller.require_token("0123456789abcdef");
        assert!(!auth(&mut caller).await.contains_key(STATE));
        let allowed = caller.request(Method::GET, "/auth").header(AUTHORIZATION, "Bearer 0123456789abcdef");
        let allowed = caller.api.clone().oneshot(allowed.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(text(allowed.headers(), "euid-state"), Some("absent"));
    }
}
