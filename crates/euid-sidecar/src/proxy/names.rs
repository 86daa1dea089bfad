//! The names that only the sidecar may use on the way to the site.
//!
//! Servers fold names: in the environment of PHP and WSGI, `Euid-Token`, `Euid_Token` and `Euid.Token` may all be
//! `HTTP_EUID_TOKEN`. So a visitor's header is dropped if its name begins with `euid` or `uid2`, unless a letter or a digit
//! follows. An app's state is in such headers, too.

use axum::http::header::{COOKIE, TRAILER};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tower_euid::Scope;
use tower_euid::engine::Engine;

/// The advertising token, if there is one to use.
pub(super) const TOKEN: HeaderName = HeaderName::from_static("euid-token");
/// The visitor's state, one of five words.
pub(super) const STATE: HeaderName = HeaderName::from_static("euid-state");
/// What a login in the response must repeat.
pub(super) const NONCE: HeaderName = HeaderName::from_static("euid-nonce");
/// In a response: what the site asks for.
pub(super) const COMMAND: HeaderName = HeaderName::from_static("euid-command");

/// Drops the headers that only the sidecar may use, also from the list of the names in the trailers.
pub(super) fn drop_reserved(headers: &mut HeaderMap) {
    let reserved: Vec<HeaderName> = headers.keys().filter(|name| is_reserved(name.as_str())).cloned().collect();
    for name in &reserved {
        headers.remove(name);
    }
    let announces = |value: &HeaderValue| value.as_bytes().split(|&byte| byte == b',').any(is_reserved_in_list);
    if headers.get_all(TRAILER).iter().any(announces) {
        let lines = headers.get_all(TRAILER).iter();
        let names = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
        let kept: Vec<&[u8]> = names.filter(|name| !is_reserved_in_list(name)).map(<[u8]>::trim_ascii).collect();
        let kept = HeaderValue::from_bytes(&kept.join(&b", "[..])).ok().filter(|kept| !kept.is_empty());
        headers.remove(TRAILER);
        kept.map(|kept| headers.insert(TRAILER, kept));
    }
}

/// Takes the cookies of the sidecar out, and joins what is left to one header, as HTTP/1.1 wants.
pub(super) fn take_cookies(engine: &Engine, headers: &mut HeaderMap) {
    let mut lines = headers.get_all(COOKIE).iter();
    let Some(first) = lines.next() else { return };
    if lines.next().is_none() && pairs(first).all(|pair| !is_own(engine, pair)) {
        return;
    }
    let kept: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(pairs)
        .filter(|pair| !pair.is_empty() && !is_own(engine, pair))
        .collect();
    // Parts of values are a value.
    let kept = HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok().filter(|kept| !kept.is_empty());
    headers.remove(COOKIE);
    if let Some(mut kept) = kept {
        kept.set_sensitive(true);
        headers.insert(COOKIE, kept);
    }
}

/// Returns the cookies of a line, as they came.
fn pairs(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|&byte| byte == b';').map(<[u8]>::trim_ascii)
}

fn is_own(engine: &Engine, pair: &[u8]) -> bool {
    let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
    engine.owns_cookie(name.trim_ascii_end())
}

fn is_reserved_in_list(name: &[u8]) -> bool {
    str::from_utf8(name.trim_ascii()).is_ok_and(is_reserved)
}

fn is_reserved(name: &str) -> bool {
    Scope::ALL.iter().any(|scope| match name.split_at_checked(scope.as_str().len()) {
        Some((stem, rest)) => {
            stem.eq_ignore_ascii_case(scope.as_str()) && !rest.starts_with(|next: char| next.is_ascii_alphanumeric())
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tower_euid::{CookieConfig, CookieKey};

    use super::*;

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        let mut map = HeaderMap::new();
        headers.iter().map(header).for_each(|(name, value): (_, HeaderValue)| _ = map.append(name, value));
        map
    }

    #[test]
    fn every_character_of_a_token_after_the_stem_is_reserved_but_letters_and_digits() {
        for byte in (0..=127u8).filter(|byte| HeaderName::from_bytes(&[*byte]).is_ok()) {
            let mut headers = map(&[(&format!("eUiD{}token", char::from(byte)), "x"), ("accept", "x")]);
            drop_reserved(&mut headers);
            assert_eq!(headers.len() == 2, byte.is_ascii_alphanumeric(), "{byte}");
        }
        let mut headers = map(&[("euid", "x"), ("euid-", "x"), ("eui", "x"), ("x-euid-token", "x"), ("euids", "x")]);
        headers.insert("uid2-login", HeaderValue::from_static("x"));
        drop_reserved(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["eui", "euids", "x-euid-token"]);
    }

    #[test]
    fn list_of_trailers_loses_reserved_names_and_goes_if_it_is_empty() {
        for (lines, left) in [
            (&["Digest, Euid-Token,X"][..], Some("Digest, X")),
            (&["Digest", "EUID_TOKEN"], Some("Digest")),
            (&["euid.token"], None),
            (&["Digest, X"], Some("Digest, X")),
        ] {
            let mut headers = map(&lines.iter().map(|line| ("trailer", *line)).collect::<Vec<_>>());
            drop_reserved(&mut headers);
            assert_eq!(headers.get(TRAILER).map(|value| value.to_str().unwrap()), left, "{lines:?}");
            assert!(headers.len() <= 1);
        }
    }

    #[test]
    fn own_cookies_are_taken_out_and_the_rest_is_joined_as_it_came() {
        let engine = Engine::new(CookieKey::generate().unwrap().into());
        for (lines, left) in [
            (&["a=1; b=2"][..], Some("a=1; b=2")),
            (&["a=1;b=2 ;  c"], Some("a=1;b=2 ;  c")),
            (&["__Host-euid-login=x; a=1"], Some("a=1")),
            (&["a=1; \t__Host-euid.0aB- = x;b=\"q=1\""], Some("a=1; b=\"q=1\"")),
            (&["__Host-euid.sdk=x; __Host-euid-optout.abcd=x; __Host-euid-login="], None),
            (&["__Host-euid-login; a=1", "b=2"], Some("a=1; b=2")),
            (&["a=1", "b=2"], Some("a=1; b=2")),
            (&["euid=1; __host-euid-login=1; __euid=1"], Some("euid=1; __host-euid-login=1; __euid=1")),
        ] {
            let mut headers = map(&lines.iter().map(|line| ("cookie", *line)).collect::<Vec<_>>());
            take_cookies(&engine, &mut headers);
            assert_eq!(headers.get(COOKIE).map(|value| value.to_str().unwrap()), left, "{lines:?}");
            assert!(headers.len() <= 1, "{lines:?}");
        }
    }

    #[test]
    fn cookies_of_scripts_are_taken_out_where_the_site_uses_them() {
        let cookies = CookieConfig::default().expose_token_to_scripts().migrate_js_sdk_cookie(None).unwrap();
        let engine = Engine::new(CookieKey::generate().unwrap().into()).with_cookie(cookies);
        let mut headers = map(&[("cookie", "__euid=x; a=1; __euid_advertising_token=x")]);
        take_cookies(&engine, &mut headers);
        assert_eq!(headers[COOKIE], "a=1");
    }

    proptest! {
        #[test]
        fn no_cookie_that_the_engine_reads_is_left(lines in vec("(__Host-euid(-login|[.]ab1_)?|[ ;=\t,\"a])*", 1..4)) {
            let engine = Engine::new(CookieKey::generate().unwrap().into());
            let mut headers = HeaderMap::new();
            for line in lines.iter().filter_map(|line| HeaderValue::try_from(line).ok()) {
                headers.append(COOKIE, line);
            }
            take_cookies(&engine, &mut headers);
            let at = || tower_euid::clock::UnixMillis::from_millis(0);
            let all = &tower_euid::engine::RequestContext::UNRESTRICTED;
            let step = engine.begin(&axum::http::Method::GET, &headers, all, at);
            let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
            // A value that came is always one that can't be opened.
            prop_assert!(decision.findings().is_empty(), "{:?}", headers);
        }
    }
}
