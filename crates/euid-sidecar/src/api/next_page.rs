//! The visitor's next page, as a client requests it after a login or a logout.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Returns the request for it, of a client that `brought` these headers and has stored those that were `written`. It
/// causes no refresh.
pub(super) fn next_page(brought: HeaderMap, written: &HeaderMap) -> Request {
    let cookies = cookies(&brought, written);
    let mut request = Request::new(Body::empty());
    *request.headers_mut() = brought;
    let headers = request.headers_mut();
    headers.remove(COOKIE);
    if let Ok(cookies) = HeaderValue::from_bytes(&cookies) {
        headers.insert(COOKIE, cookies);
    }
    for (name, value) in written.iter().filter(|(name, _)| *name != SET_COOKIE) {
        // An app sends its headers as they came, and none for an empty one. The layer reads no others of these.
        if value.is_empty() {
            headers.remove(name);
        } else {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(HeaderName::from_static("sec-purpose"), HeaderValue::from_static("prefetch"));
    request
}

/// Returns the value of `Cookie`.
fn cookies(brought: &HeaderMap, written: &HeaderMap) -> Vec<u8> {
    let mut new: Vec<&[u8]> = Vec::new();
    for line in written.get_all(SET_COOKIE) {
        let pair = pair(line);
        new.retain(|other| name(other) != name(pair));
        new.push(pair);
    }
    let old = brought.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b';'));
    let kept = old.map(<[u8]>::trim_ascii).filter(|pair| !new.iter().any(|other| name(other) == name(pair)));
    let set = new.iter().copied().filter(|pair| sets(pair));
    kept.chain(set).collect::<Vec<_>>().join(&b"; "[..])
}

/// Returns the name and the value in a line of `Set-Cookie`.
pub(super) fn pair(line: &HeaderValue) -> &[u8] {
    line.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default()
}

/// Whether a line with this pair sets the cookie, and does not remove it.
pub(super) fn sets(pair: &[u8]) -> bool {
    !pair.ends_with(b"=")
}

fn name(pair: &[u8]) -> &[u8] {
    pair.split(|&byte| byte == b'=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_keeps_other_cookies_and_takes_the_last_line_of_each_name() {
        let mut brought = HeaderMap::new();
        brought.append(COOKIE, HeaderValue::from_static("a=1; b=2"));
        brought.append(COOKIE, HeaderValue::from_static("c=3;d=4"));
        brought.insert("euid-login", HeaderValue::from_static("x"));
        let mut written = HeaderMap::new();
        for line in ["b=; Max-Age=0", "c=; Max-Age=0", "c=5; Path=/", "e=6; Path=/", "e=; Max-Age=0"] {
            written.append(SET_COOKIE, HeaderValue::from_static(line));
        }
        written.insert("euid-login", HeaderValue::from_static(""));
        let next = next_page(brought, &written);
        assert_eq!(next.headers()[COOKIE], "a=1; d=4; c=5");
        assert!(!next.headers().contains_key("euid-login"));
    }
}
