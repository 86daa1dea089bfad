//! What the application says of a request, and which requests may refresh.
//!
//! 1. Consent and the signed-in user are asked for first, where there is a hook to ask.
//! 2. A request whose answer nobody may ever look at, or that is one of many beside a page, is not
//!    worth a call to the operator, nor a cookie on its answer. It sees a token that is still valid.

use http::header::UPGRADE;
use http::{HeaderMap, HeaderName, Method, Request};

use crate::layer::{RefreshWhen, Shared};
use crate::plan::Consent;

/// Whom a request comes from, as far as the application says.
pub(crate) struct Visitor {
    pub(crate) consent: Consent,
    pub(crate) signed_in: SignedIn,
}

impl Visitor {
    /// Where the application says nothing.
    pub(crate) const ANYBODY: Self = Self { consent: Consent::Granted, signed_in: SignedIn::NotAsked };
}

pub(crate) enum SignedIn {
    /// The application binds no identity to anybody.
    NotAsked,
    Nobody,
    /// Their id in the application.
    As(Box<[u8]>),
}

/// Whether there is a hook to ask.
pub(crate) fn has_hooks(shared: &Shared) -> bool {
    shared.consent.is_some() || shared.bind.is_some()
}

/// Asks the hooks.
pub(crate) fn visitor<B>(shared: &Shared, request: Request<B>) -> (Request<B>, Visitor) {
    let Visitor { mut consent, mut signed_in } = Visitor::ANYBODY;
    let (parts, body) = request.into_parts();
    if let Some(hook) = &shared.consent {
        consent = hook(&parts);
    }
    if let Some(hook) = &shared.bind {
        signed_in = hook(&parts).map_or(SignedIn::Nobody, SignedIn::As);
    }
    (Request::from_parts(parts, body), Visitor { consent, signed_in })
}

/// Whether this request may refresh; asked only if a refresh is due.
pub(crate) fn may_refresh<B>(request: Request<B>, refresh_when: Option<&RefreshWhen>) -> (Request<B>, bool) {
    if !is_worth_it(&request) {
        return (request, false);
    }
    match refresh_when {
        None => (request, true),
        Some(refresh_when) => {
            let (parts, body) = request.into_parts();
            let may = refresh_when(&parts);
            (Request::from_parts(parts, body), may)
        }
    }
}

/// Whether the answer to a request is a page, or what a page's script asked for.
pub(crate) fn is_worth_it<B>(request: &Request<B>) -> bool {
    let (method, headers): (&Method, &HeaderMap) = (request.method(), request.headers());
    let is_upgrade = *method == Method::CONNECT || headers.contains_key(UPGRADE);
    let is_speculative = [SEC_PURPOSE, PURPOSE].iter().any(|name| {
        headers.get_all(name).iter().any(|value| {
            let value = value.as_bytes().to_ascii_lowercase();
            memchr::memmem::find(&value, b"prefetch").is_some() || memchr::memmem::find(&value, b"prerender").is_some()
        })
    });
    let is_asset = headers.get_all(SEC_FETCH_DEST).iter().any(|dest| ASSETS.iter().any(|asset| dest == asset));
    *method != Method::OPTIONS && !is_upgrade && !is_speculative && !is_asset
}

const ASSETS: [&str; 4] = ["image", "script", "style", "font"];
const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");
/// What browsers sent before `Sec-Purpose`.
const PURPOSE: HeaderName = HeaderName::from_static("purpose");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

#[cfg(test)]
mod tests {
    use super::*;

    fn may(method: Method, headers: &[(&'static str, &'static str)]) -> bool {
        let mut request = Request::new(());
        *request.method_mut() = method;
        for (name, value) in headers {
            request.headers_mut().append(HeaderName::from_static(name), http::HeaderValue::from_static(value));
        }
        may_refresh(request, None).1
    }

    #[test]
    fn pages_and_calls_of_their_scripts_may() {
        for dest in ["document", "iframe", "empty", "Image"] {
            assert!(may(Method::GET, &[("sec-fetch-dest", dest)]), "{dest}");
        }
        assert!(may(Method::GET, &[]) && may(Method::HEAD, &[]) && may(Method::POST, &[]));
    }

    #[test]
    fn what_nobody_looks_at_and_what_stands_beside_a_page_may_not() {
        for header in [
            ("sec-purpose", "prefetch"),
            ("sec-purpose", "prefetch;prerender"),
            ("sec-purpose", "prefetch;anonymous-client-ip"),
            ("purpose", "Prefetch"),
            ("sec-fetch-dest", "image"),
            ("sec-fetch-dest", "script"),
            ("sec-fetch-dest", "style"),
            ("sec-fetch-dest", "font"),
            ("upgrade", "websocket"),
        ] {
            assert!(!may(Method::GET, &[header]), "{header:?}");
        }
        assert!(!may(Method::OPTIONS, &[]) && !may(Method::CONNECT, &[]));
    }

    #[test]
    fn the_applications_rule_is_asked_last_and_the_request_stays_whole() {
        let mut request = Request::new("body");
        *request.uri_mut() = "/beacon".parse().unwrap();
        let (request, may) = may_refresh(request, Some(&|parts| parts.uri.path() != "/beacon"));
        assert!(!may && request.uri() == "/beacon" && *request.body() == "body");
    }
}
