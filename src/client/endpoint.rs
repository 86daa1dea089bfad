//! The operator's base URL, checked.
//!
//! 1. https only; plain http is for loopback addresses, or on explicit request.
//! 2. A base URL: no endpoint, query, fragment or credentials in it.
//! 3. Never a host of UID2, which this version does not speak to.

use std::net::IpAddr;

use reqwest::Url;

use crate::error::ConfigError;

/// The base URL in `text`, or what is wrong with it.
pub(super) fn operator_url(text: &str, insecure_http: bool) -> Result<Url, ConfigError> {
    let refused = |why| Err(ConfigError::new(why));
    let url = Url::parse(text).map_err(|error| ConfigError::new(format!("the operator's URL is not one: {error}")))?;
    if !matches!(url.scheme(), "https" | "http") {
        return refused("the operator's URL starts with https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused("the operator's URL has a user name or password in it; use `credentials`");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refused("the operator's URL has a query or fragment; give the base URL only");
    }
    if has_endpoint(url.path()) {
        return refused(
            "the operator's URL has an endpoint in it (/v2, which each call adds by itself); give what is before",
        );
    }
    if is_uid2(&url) {
        return refused("the operator's URL belongs to UID2 (uidapi.com): this version speaks to EUID operators");
    }
    if url.scheme() == "http" && !is_loopback(&url) && !insecure_http {
        return refused(
            "the operator's URL is plain http to another machine: use https, or `EuidClientBuilder::insecure_http`",
        );
    }
    Ok(url)
}

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

fn is_uid2(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    host == "uidapi.com" || host.ends_with(".uidapi.com")
}

/// By the parsed host, not by resolving it: `localhost` and literal loopback addresses.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, insecure_http: bool) -> Result<Url, String> {
        operator_url(url, insecure_http).map_err(|error| error.to_string())
    }

    #[test]
    fn plain_http_is_for_this_machine_or_on_request() {
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
    fn a_url_that_can_not_work_is_refused_without_being_repeated() {
        for (url, complaint) in [
            ("prod.euid.eu", "not one"),
            ("", "not one"),
            ("ftp://prod.euid.eu", "starts with https"),
            ("https://key:hunter2@prod.euid.eu", "user name or password"),
            ("https://prod.euid.eu/?key=hunter2", "query"),
        ] {
            let error = check(url, false).unwrap_err();
            assert!(error.contains(complaint) && !error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn an_endpoint_is_refused_and_a_gateways_path_is_not() {
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

    #[test]
    fn an_operator_of_uid2_is_refused() {
        for host in
            ["prod.uidapi.com", "operator-integ.uidapi.com", "uidapi.com", "PROD.UIDAPI.COM.", "uidapi.com:8443"]
        {
            let error = check(&format!("https://{host}/"), false).unwrap_err();
            assert!(error.contains("UID2") && error.contains("this version speaks to EUID operators"), "{error}");
        }
        for host in ["uidapi.com.example", "notuidapi.com", "prod.euid.eu"] {
            assert!(check(&format!("https://{host}/"), false).is_ok(), "{host}");
        }
    }
}
