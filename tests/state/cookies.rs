//! The cookies in a request header: where the layer finds its own, and which of several counts.
//!
//! Values that were changed on the way are in `tampering`, attributes in `attributes`.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderValue, Request};
use tower_euid::EuidUpdate;

use crate::support::{ANCHOR, DUE, IDENTITY, NOTHING, Operator, Site, Visit, expect, new_pair, outcome, set_cookies};

/// Visits a page with these `Cookie` headers.
async fn look_with(site: &Site, headers: &[&[u8]]) -> Visit {
    let mut request = Request::new(());
    for header in headers {
        request.headers_mut().append(COOKIE, HeaderValue::from_bytes(header).unwrap());
    }
    site.send(request, NOTHING).await
}

/// Returns the pairs of identity and anchor, as one header.
fn own_cookies(site: &Site) -> String {
    format!("{}; {}", site.jar.pair(IDENTITY), site.jar.pair(ANCHOR))
}

#[tokio::test]
async fn default_cookies_are_host_only_secure_http_only_and_lax() {
    let visit = Site::offline().login("old").await;
    for (line, name) in set_cookies(visit.response.headers()).into_iter().zip([IDENTITY, ANCHOR]) {
        let line = line.to_str().unwrap();
        assert!(line.starts_with(&format!("{name}=")), "{line}");
        for attribute in ["; HttpOnly", "; Secure", "; SameSite=Lax", "; Path=/", "; Max-Age="] {
            assert!(line.contains(attribute), "{attribute}: {line}");
        }
        assert!(!line.contains("Domain"), "{line}");
    }
}

#[tokio::test]
async fn set_cookie_headers_of_the_layer_are_marked_sensitive() {
    let mut site = Site::new(Operator::answering(new_pair("new")));
    let login = site.login("old").await;
    site.wait_until(DUE);
    let refresh = site.look().await;
    let logout = site.update(EuidUpdate::logout()).await;
    for visit in [login, refresh, logout] {
        let lines = set_cookies(visit.response.headers());
        assert!(!lines.is_empty() && lines.iter().all(|line| line.is_sensitive()), "{lines:?}");
    }
}

#[tokio::test]
async fn set_cookie_headers_of_the_application_are_kept() {
    let mut site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    let visit = site
        .visit(|_, response| {
            response.headers_mut().append(SET_COOKIE, HeaderValue::from_static("session=1; Path=/"));
            response.headers_mut().append(SET_COOKIE, HeaderValue::from_static("theme=dark"));
        })
        .await;
    let lines = set_cookies(visit.response.headers());
    assert_eq!(
        (lines[0], lines[1], lines.len()),
        (&"session=1; Path=/".parse().unwrap(), &"theme=dark".parse().unwrap(), 3)
    );
}

#[tokio::test]
async fn identity_and_anchor_are_found_in_separate_headers() {
    let site = Site::offline().logged_in(0).await;
    let (identity, anchor) = (site.jar.pair(IDENTITY), site.jar.pair(ANCHOR));
    for headers in [[&identity, &anchor], [&anchor, &identity]] {
        let visit = look_with(&site, &headers.map(|header| header.as_bytes())).await;
        assert_eq!(visit.saw(), "active(old)");
    }
}

#[tokio::test]
async fn identity_and_anchor_are_found_between_blanks() {
    let site = Site::offline().logged_in(0).await;
    let (identity, anchor) = (site.jar.pair(IDENTITY), site.jar.pair(ANCHOR));
    for header in [format!("{identity};{anchor}"), format!("a=b ;\t{identity} ;  {anchor}\t")] {
        assert_eq!(look_with(&site, &[header.as_bytes()]).await.saw(), "active(old)", "{header}");
    }
}

#[tokio::test]
async fn identity_and_anchor_are_found_between_cookies_that_are_not_ascii() {
    let site = Site::offline().logged_in(0).await;
    let own = own_cookies(&site);
    let header = [b"caf\xe9=\xff\xfe; n\xc3\xa4me=\"=;", b" ".as_slice(), own.as_bytes(), b"; \x80"].concat();
    assert_eq!(look_with(&site, &[b"\xff=\xff", &header]).await.saw(), "active(old)");
}

#[tokio::test]
async fn identity_and_anchor_are_found_before_twenty_thousand_other_cookies() {
    let site = Site::offline().logged_in(0).await;
    let others = "x=y; ".repeat(20_000);
    assert_eq!(look_with(&site, &[own_cookies(&site).as_bytes(), others.as_bytes()]).await.saw(), "active(old)");
}

#[tokio::test]
async fn identity_and_anchor_after_twenty_thousand_other_cookies_are_ignored() {
    let site = Site::offline().logged_in(0).await;
    let others = "x=y; ".repeat(20_000);
    let visit = look_with(&site, &[others.as_bytes(), own_cookies(&site).as_bytes()]).await;
    assert_eq!(outcome(&visit), expect("absent", ""));
}

#[tokio::test]
async fn cookies_with_a_longer_name_are_no_identity_and_no_anchor() {
    let site = Site::offline().logged_in(0).await;
    let own = own_cookies(&site);
    let header = format!("x{own}; {IDENTITY}x=1; {IDENTITY}-loginx=2; a={IDENTITY}=3; {ANCHOR}");
    assert_eq!(look_with(&site, &[header.as_bytes()]).await.saw(), "absent");
    let header = format!("{IDENTITY}x=1; {IDENTITY}-loginx=2; a={IDENTITY}=3; {own}");
    assert_eq!(look_with(&site, &[header.as_bytes()]).await.saw(), "active(old)");
}

#[tokio::test]
async fn identity_named_by_the_anchor_counts_among_two() {
    let mut site = Site::offline().logged_in(0).await;
    let first = site.jar.clone();
    site.login("second").await;
    for identities in [[&first, &site.jar], [&site.jar, &first]] {
        let [one, other] = identities.map(|jar| jar.pair(IDENTITY));
        let header = format!("{one}; {other}; {}", site.jar.pair(ANCHOR));
        let visit = look_with(&site, &[header.as_bytes()]).await;
        assert_eq!(outcome(&visit), expect("active(second)", ""));
    }
}

#[tokio::test]
async fn anchors_that_differ_make_each_identity_absent() {
    let mut site = Site::offline().logged_in(0).await;
    let first = site.jar.clone();
    site.login("second").await;
    for jar in [&first, &site.jar] {
        let header = format!("{}; {}; {}", jar.pair(IDENTITY), first.pair(ANCHOR), site.jar.pair(ANCHOR));
        assert_eq!(look_with(&site, &[header.as_bytes()]).await.saw(), "absent");
    }
}

#[tokio::test]
async fn anchor_that_is_repeated_counts_once() {
    let site = Site::offline().logged_in(0).await;
    let anchor = site.jar.pair(ANCHOR);
    let header = format!("{anchor}; {}; {anchor}", site.jar.pair(IDENTITY));
    assert_eq!(look_with(&site, &[header.as_bytes()]).await.saw(), "active(old)");
}
