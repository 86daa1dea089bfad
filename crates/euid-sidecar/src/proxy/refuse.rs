//! Requests that are refused before the layer or the site sees them. hyper passes them.
//!
//! | request | status |
//! | --- | --- |
//! | `CONNECT` | 405 |
//! | a coding other than `chunked` | 501 |
//! | an upgrade other than `websocket`, or one with a body | 400 |
//! | a target that is neither a path, an http URL nor `*` of `OPTIONS` | 400 |
//! | no `Host`, two, a malformed one, or another one than in the URL | 400 |

use axum::http::header::{HOST, TRANSFER_ENCODING, UPGRADE};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use hyper::body::Body;

use super::hop::is_upgrade;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: &'static str,
}

const fn refused(status: StatusCode, text: &'static str) -> Refusal {
    Refusal { status, text }
}

/// Checks a request, and gives it the form in which it goes to the site: a path as its target, and a `Host`.
pub(super) fn check<B: Body>(request: &mut Request<B>) -> Result<(), Refusal> {
    if request.method() == Method::CONNECT {
        return Err(refused(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served\n"));
    }
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some_and(|coding| !is_chunked(coding)) || codings.next().is_some() {
        return Err(refused(StatusCode::NOT_IMPLEMENTED, "no coding but chunked is served\n"));
    }
    if is_upgrade(request.headers()) && !is_websocket(request) {
        return Err(refused(StatusCode::BAD_REQUEST, "no upgrade but websocket is served\n"));
    }
    check_target(request)?;
    check_host(request)?;
    // Only the path is left of a URL.
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    Ok(())
}

fn is_websocket<B: Body>(request: &Request<B>) -> bool {
    let mut upgrades = request.headers().get_all(UPGRADE).iter();
    let is_websocket = upgrades.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let is_bodiless_get = request.method() == Method::GET && request.body().is_end_stream();
    is_websocket && upgrades.next().is_none() && is_bodiless_get && request.version() == Version::HTTP_11
}

fn check_target<B>(request: &Request<B>) -> Result<(), Refusal> {
    let uri = request.uri();
    let is_good = match (uri.scheme_str(), uri.authority()) {
        (None, None) => uri.path().starts_with('/') || (uri.path() == "*" && request.method() == Method::OPTIONS),
        (Some("http" | "https"), Some(_)) => true,
        _ => false,
    };
    if is_good {
        Ok(())
    } else {
        Err(refused(StatusCode::BAD_REQUEST, "the target is neither a path nor an http URL\n"))
    }
}

fn check_host<B>(request: &mut Request<B>) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let authority = request.uri().authority().map(|authority| authority.as_str());
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(refused(StatusCode::BAD_REQUEST, "there are two Host headers\n")),
        (Some(host), None) if !is_host(host.as_bytes()) => {
            Err(refused(StatusCode::BAD_REQUEST, "the Host header is malformed\n"))
        }
        (Some(host), None)
            if authority.is_some_and(|other| !host.as_bytes().eq_ignore_ascii_case(other.as_bytes())) =>
        {
            Err(refused(StatusCode::BAD_REQUEST, "the Host header is not the host of the URL\n"))
        }
        (Some(_), None) => Ok(()),
        // HTTP/2 has the host in the URL alone.
        (None, _) => match authority.filter(|_| request.version() == Version::HTTP_2).map(HeaderValue::from_str) {
            Some(Ok(host)) if is_host(host.as_bytes()) => {
                request.headers_mut().insert(HOST, host);
                Ok(())
            }
            _ => Err(refused(StatusCode::BAD_REQUEST, "there is no Host header\n")),
        },
    }
}

/// Whether this is a name or an address, and maybe a port.
fn is_host(host: &[u8]) -> bool {
    let is_name = |name: &[u8]| {
        !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(byte))
    };
    let is_port = |port: &[u8]| port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    if let Some(rest) = host.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|&byte| byte == b']') else { return false };
        let (address, port) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default());
        let is_address = str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
        return is_address && (port.is_empty() || port.strip_prefix(b":").is_some_and(is_port));
    }
    let mut parts = host.splitn(2, |&byte| byte == b':');
    parts.next().is_some_and(is_name) && parts.next().is_none_or(is_port)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn checked(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Request<Body>, u16> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        check(&mut request).map(|()| request).map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn host_is_needed_once_well_formed_and_as_in_the_url() {
        let status = |target: &str, hosts: &[&str]| {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            checked("GET", target, &headers).err()
        };
        for host in ["example.com", "EXAMPLE.com:8080", "127.0.0.1", "[::1]", "[::1]:80", "my_app", "a:"] {
            assert_eq!(status("/", &[host]), None, "{host}");
        }
        for host in [
            "", ":80", "a b", "a@b", "a/b", "a,b", "a?b", "a#b", "a\\b", "[::1", "[x]", "[::1]x", "a:b", "a:80:80",
            "a:123456",
        ] {
            assert_eq!(status("/", &[host]), Some(400), "{host}");
        }
        assert_eq!(status("/", &[]), Some(400));
        assert_eq!(status("/", &["a", "a"]), Some(400));
        assert_eq!(status("http://a/", &["A"]), None);
        assert_eq!(status("http://a/", &["b"]), Some(400));
        assert_eq!(status("http://a:80/", &["a"]), Some(400));
        assert_eq!(status("http://a/", &[]), Some(400));
    }

    #[test]
    fn url_becomes_its_path_and_http_2s_authority_the_host() {
        let of_url = checked("GET", "http://a/b//../c?d=%20e", &[("host", "a")]).unwrap();
        assert_eq!(of_url.uri(), "/b//../c?d=%20e");
        assert_eq!(checked("GET", "http://a?b", &[("host", "a")]).unwrap().uri().to_string(), "/?b");
        let mut request = Request::builder().uri("http://a:80/b").version(Version::HTTP_2).body(Body::empty()).unwrap();
        check(&mut request).unwrap();
        assert_eq!(
            (&request.headers()[HOST], request.uri().to_string()),
            (&HeaderValue::from_static("a:80"), "/b".into())
        );
    }

    #[test]
    fn target_is_a_path_an_http_url_or_the_asterisk_of_options() {
        for (method, target, status) in [
            ("OPTIONS", "*", None),
            ("GET", "*", Some(400)),
            ("GET", "a", Some(400)),
            ("GET", "ftp://a/", Some(400)),
            ("CONNECT", "a:443", Some(405)),
            ("CONNECT", "/", Some(405)),
        ] {
            assert_eq!(checked(method, target, &[("host", "a")]).err(), status, "{method} {target}");
        }
    }

    #[test]
    fn codings_but_chunked_and_upgrades_but_websocket_are_refused() {
        let status =
            |method: &str, headers: &[(&str, &str)]| checked(method, "/", &[&[("host", "a")], headers].concat()).err();
        for (codings, refusal) in [
            (&["chunked"][..], None),
            (&["Chunked"], None),
            (&["gzip, chunked"], Some(501)),
            (&["gzip", "chunked"], Some(501)),
            (&["chunked", "chunked"], Some(501)),
            (&["chunked, chunked"], Some(501)),
            (&["xchunked"], Some(501)),
            (&["chunked\t"], Some(501)),
        ] {
            let headers: Vec<_> = codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
            assert_eq!(status("POST", &headers), refusal, "{codings:?}");
        }
        for (upgrades, refusal) in [
            (&["websocket"][..], None),
            (&["WebSocket"], None),
            (&["h2c"], Some(400)),
            (&["websocket, h2c"], Some(400)),
            (&["websocket", "h2c"], Some(400)),
            (&["TLS/1.2"], Some(400)),
            (&[""], Some(400)),
        ] {
            let upgrades: Vec<_> = upgrades.iter().map(|upgrade| ("upgrade", *upgrade)).collect();
            assert_eq!(status("GET", &[&[("connection", "Upgrade")], &upgrades[..]].concat()), refusal, "{upgrades:?}");
            assert_eq!(status("GET", &upgrades), None, "without `Connection` it is no upgrade");
        }
        assert_eq!(status("POST", &[("connection", "upgrade"), ("upgrade", "websocket")]), Some(400));
    }
}
