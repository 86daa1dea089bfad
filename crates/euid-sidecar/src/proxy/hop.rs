//! The headers that concern one connection only, and so are not passed on.
//!
//! 1. A visitor's `Connection` can name further ones, but none that routes or frames the message, and none by which a
//!    proxy in front says where the request came from.
//! 2. `Upgrade` is kept for a WebSocket alone.
//! 3. `TE: trailers` says that the other side may send trailers, so it is said again to the site.
//! 4. `Expect: 100-continue` is answered here: the body then comes without a pause.

use axum::http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Strips a request.
pub(super) fn strip_request(headers: &mut HeaderMap) {
    let (is_websocket, takes_trailers) = (is_upgrade(headers), has_token(headers, &TE, "trailers"));
    let upgrade = headers.remove(UPGRADE).filter(|_| is_websocket);
    strip(headers);
    if headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        headers.remove(EXPECT);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Strips a response; that of an upgrade keeps what makes it one.
pub(super) fn strip_response(headers: &mut HeaderMap, is_upgrade: bool) {
    let upgrade = headers.remove(UPGRADE).filter(|_| is_upgrade);
    strip(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Whether the headers ask for another protocol, whichever it is.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && has_token(headers, &CONNECTION, "upgrade")
}

fn strip(headers: &mut HeaderMap) {
    let listed = |value: &HeaderValue| -> Vec<HeaderName> {
        let names = value.as_bytes().split(|&byte| byte == b',');
        names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
    };
    let named: Vec<HeaderName> = headers.get_all(CONNECTION).iter().flat_map(listed).collect();
    for name in named.iter().filter(|name| !is_kept(name)).chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Whether a header is passed on although `Connection` names it.
fn is_kept(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, FORWARDED].contains(name) || name.as_str().starts_with("x-forwarded-")
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut tokens = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    tokens.any(|listed| listed.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

const HOP_BY_HOP: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(headers: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_request(&mut map);
        let mut left: Vec<String> =
            map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        left
    }

    #[test]
    fn headers_of_one_connection_and_those_that_connection_names_are_stripped() {
        let headers = [
            ("connection", "keep-alive, X-Own"),
            ("connection", "x-second"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("x-own", "1"),
            ("x-second", "1"),
            ("accept", "*/*"),
        ];
        assert_eq!(stripped(&headers), ["accept: */*"]);
    }

    #[test]
    fn connection_can_not_name_what_frames_or_routes_a_request() {
        let headers = [
            ("connection", "host, content-length, x-forwarded-proto, forwarded, cookie"),
            ("host", "a"),
            ("content-length", "1"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "proto=https"),
            ("cookie", "a=1"),
        ];
        let left = ["content-length: 1", "forwarded: proto=https", "host: a", "x-forwarded-proto: https"];
        assert_eq!(stripped(&headers), left);
    }

    #[test]
    fn upgrade_is_kept_if_connection_names_it_and_trailers_are_asked_for_again() {
        let websocket = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        assert_eq!(stripped(&websocket), ["connection: upgrade", "upgrade: websocket"]);
        assert_eq!(stripped(&websocket[1..]), [""; 0]);
        assert_eq!(stripped(&[("te", "gzip, trailers")]), ["connection: te", "te: trailers"]);
        assert_eq!(stripped(&[("expect", "100-Continue")]), [""; 0]);
        assert_eq!(stripped(&[("expect", "other")]), ["expect: other"]);
    }
}
