//! The operator's base URL, checked.
//!
//! 1. https only; plain http is for loopback addresses, or on explicit request.
//! 2. A base URL: no endpoint, query, fragment or credentials in it.

use std::net::{IpAddr, Ipv4Addr};

use http::Uri;
use http::uri::Authority;

use crate::error::ConfigError;

/// The operator's base URL: scheme, host and the path of a gateway, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseUrl(Uri);

impl BaseUrl {
    /// The base URL in `text`, or its fault.
    pub(super) fn parse(text: &str, insecure_http: bool) -> Result<Self, ConfigError> {
        let refused = |why| Err(ConfigError::new(why));
        let not_one = |why: &str| ConfigError::new(format!("the operator's URL is not one: {why}"));
        if text.contains('#') {
            return refused(QUERY_OR_FRAGMENT);
        }
        if !text.is_ascii() {
            return Err(not_one("it has characters outside of ASCII (give the host in its form with xn--)"));
        }
        let uri: Uri = text.parse().map_err(|error: http::uri::InvalidUri| not_one(&error.to_string()))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(not_one("it has no scheme or no host"));
        };
        if !matches!(scheme, "https" | "http") {
            return refused("the operator's URL starts with https://");
        }
        if authority.as_str().contains('@') {
            return refused("the operator's URL has a user name or password in it; use `credentials`");
        }
        if !is_host_and_port(authority) {
            return Err(not_one("its host or port can't be one"));
        }
        if !is_plain_path(uri.path()) {
            return Err(not_one("its path has a backslash, or a segment `.` or `..`"));
        }
        if uri.query().is_some() {
            return refused(QUERY_OR_FRAGMENT);
        }
        if has_endpoint(uri.path()) {
            return refused(
                "the operator's URL has an endpoint in it (/v2, which each call adds by itself); give what is before",
            );
        }
        if scheme == "http" && !is_loopback(authority) && !insecure_http {
            return refused(
                "the operator's URL is plain http to another machine: use https, or `EuidClientBuilder::insecure_http`",
            );
        }
        let base = format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'));
        base.parse().map(Self).map_err(|error: http::uri::InvalidUri| not_one(&error.to_string()))
    }

    /// The address of one call, such as `/v2/token/refresh`.
    pub(super) fn join(&self, call: &'static str) -> Uri {
        let mut parts = self.0.clone().into_parts();
        let path = format!("{}{call}", self.0.path().trim_end_matches('/'));
        parts.path_and_query = path.parse().ok();
        // A URL's path followed by a path of this crate is a path again.
        Uri::from_parts(parts).unwrap_or_else(|_| Uri::from_static(call))
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }
}

const QUERY_OR_FRAGMENT: &str = "the operator's URL has a query or fragment; give the base URL only";

/// Whether a path holds a call of the operator, or the beginning of one: it ends in `v2`, or has a version
/// before `token` or `identity`, or `token` before a call. Any other path may be a gateway's.
fn has_endpoint(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let is_version = |segment: &str| segment.strip_prefix('v').is_some_and(|digits| digits.parse::<u8>().is_ok());
    let is_call = |segment: &str| matches!(segment, "generate" | "refresh" | "validate");
    segments.last() == Some(&"v2")
        || segments.iter().zip(segments.iter().skip(1)).any(|(segment, next)| {
            (is_version(segment) && matches!(*next, "token" | "identity")) || (*segment == "token" && is_call(next))
        })
}

/// Whether the host is a name or an address in brackets, and the port, if there is one, a number. `Uri` takes more: `%`,
/// `_`, an empty port.
fn is_host_and_port(authority: &Authority) -> bool {
    let (host, port) = (authority.host(), authority.as_str().strip_prefix(authority.host()));
    let is_name =
        |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    let is_address = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inner.is_some_and(|address| matches!(address.parse(), Ok(IpAddr::V6(_))))
    };
    let is_port = match port {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix(':')
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()),
        None => false,
    };
    // Software that reads URLs as browsers do takes a name whose last part is a number for an address.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let ends_in_number = digits(last) || last.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"));
    let is_host = if ends_in_number { host.parse::<Ipv4Addr>().is_ok() } else { is_name(host) || is_address(host) };
    !host.is_empty() && is_host && is_port
}

/// Whether HTTP clients send a path unchanged: some turn `\` into a slash, and all drop `.` and `..`.
fn is_plain_path(path: &str) -> bool {
    let dots = |segment: &str| matches!(&*segment.to_ascii_lowercase().replace("%2e", "."), "." | "..");
    !path.contains('\\') && !path.split('/').any(dots)
}

/// Whether the host is `localhost` or a literal loopback address; it is not resolved.
fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, insecure_http: bool) -> Result<BaseUrl, String> {
        BaseUrl::parse(url, insecure_http).map_err(|error| error.to_string())
    }

    #[test]
    fn base_url_keeps_its_path_and_ignores_trailing_slashes() {
        for (base, call) in [
            ("http://localhost:1", "http://localhost:1/v2/token/refresh"),
            ("http://localhost:1/", "http://localhost:1/v2/token/refresh"),
            ("http://localhost:1/euid", "http://localhost:1/euid/v2/token/refresh"),
            ("http://localhost:1/euid//", "http://localhost:1/euid/v2/token/refresh"),
            ("https://[2001:db8::1]:8443/", "https://[2001:db8::1]:8443/v2/token/refresh"),
        ] {
            assert_eq!(BaseUrl::parse(base, false).unwrap().join("/v2/token/refresh"), call);
        }
    }

    #[test]
    fn plain_http_needs_loopback_or_the_insecure_setting() {
        for loopback in ["http://127.0.0.1:8080", "http://127.9.9.9", "http://[::1]:1", "http://localhost:3000"] {
            assert!(check(loopback, false).is_ok(), "{loopback}");
        }
        for other in [
            "http://10.0.0.1",
            "http://localhost.example.com",
            "http://localhost.",
            "http://127.0.0.1.nip.io",
            "http://prod.euid.eu",
            "http://0.0.0.0",
        ] {
            let error = check(other, false).unwrap_err();
            assert!(error.contains("plain http"), "{other}: {error}");
            assert!(check(other, true).is_ok(), "{other}");
        }
    }

    #[test]
    fn invalid_operator_url_is_refused_and_not_repeated() {
        for (url, complaint) in [
            ("prod.euid.eu", "not one"),
            ("", "not one"),
            ("ftp://prod.euid.eu", "starts with https"),
            ("https://key:hunter2@prod.euid.eu", "user name or password"),
            ("https://prod.euid.eu/?key=hunter2", "query"),
            ("https://prod.euid.eu/#hunter2", "query or fragment"),
            ("https://bücher.example", "xn--"),
            (" https://prod.euid.eu", "not one"),
            ("https://prod.euid.eu/a b", "not one"),
            ("https:\\\\prod.euid.eu", "not one"),
            ("https://prod%2eeuid.eu", "not one"),
            ("https://prod.euid.eu:", "host or port"),
            ("https://prod.euid.eu:70000", "host or port"),
            ("https://prod.euid.eu:+443", "host or port"),
            ("https://prod.euid.eu/a\\b", "its path has"),
            ("https://prod.euid.eu/v2/..", "its path has"),
            ("https://prod.euid.eu/euid/./", "its path has"),
            ("https://prod.euid.eu/euid/%2E%2e/x", "its path has"),
            ("https://[::1", "not one"),
            ("https://[127.0.0.1]", "not one"),
            ("https://", "not one"),
            ("/v2", "no scheme"),
        ] {
            let error = check(url, false).unwrap_err();
            assert!(error.contains(complaint) && !error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn operator_host_is_a_name_or_an_address_with_an_optional_port() {
        for wrong in [
            "http://[::1]x",
            "http://[::1]1",
            "https://[::1].evil.example",
            "http://[::1]x:80",
            "https://256.1.1.1",
            "https://1.2.3.4.5",
            "https://a.0x",
            "https://a.1",
            "https://0x100000000",
            "http://127.1",
        ] {
            assert!(check(wrong, true).is_err(), "{wrong}");
        }
        for right in ["http://[::1]", "http://[::1]:80", "https://1.2.3.4", "https://a1.b2", "https://1a.example:443"] {
            assert!(check(right, true).is_ok(), "{right}");
        }
    }

    #[test]
    fn base_url_may_have_a_gateway_path_but_no_endpoint() {
        for path in [
            "/v2",
            "/v2/",
            "/V2",
            "/euid/v2//",
            "/v2/token",
            "/v1/token",
            "/v2/token/generate",
            "/v2/token/refresh/",
            "//v2//token//validate",
            "/euid/v2/token/generate",
            "/v2/token/generate/v2/token/generate",
            "/token/generate",
            "/v2/token/client-generate",
            "/v2/identity/map",
            "/v3/identity/map",
        ] {
            let error = check(&format!("https://hunter2.example{path}"), false).unwrap_err();
            assert!(error.contains("has an endpoint in it (/v2") && !error.contains("hunter2"), "{path}: {error}");
        }
        for path in ["", "/", "/euid", "/euid/", "/v2/euid", "/v3", "/gateway/v1/", "/token", "/tokens/v2x", "/a/b/c"] {
            assert!(check(&format!("https://operator.example{path}"), false).is_ok(), "{path}");
        }
    }
}
