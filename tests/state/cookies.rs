//! The cookies in a request header: where the layer finds its own, and which of several counts.
//!
//! Values that were changed on the way are in `tampering`, attributes in `attributes`.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderValue, Request};
use tower_euid::{CookieConfig, EuidUpdate, Refreshed};

use crate::support::{
    ANCHOR, DUE, IDENTITY, NOTHING, OPT_OUT, Operator, SCRIPT_TOKEN, SDK, Site, Visit, expect, new_pair, outcome,
    set_cookies,
};

/// Visits a page with these `Cookie` headers.
async fn look_with(site: &Site, headers: &[&[u8]]) -> Visit {
    let mut request = Request::new(());
    for header in headers {
        request.headers_mut().append(COOKIE, HeaderValue::from_bytes(header).unwrap());
    }
    site.send(request, NOTHING).await
}

/// Returns identity and anchor, as one header.
fn own_cookies(site: &Site) -> String {
    format!("{}; {}", site.jar.pair(IDENTITY), site.jar.pair(ANCHOR))
}

#[tokio::test]
async fn default_cookies_are_host_only_secure_http_only_and_lax() {
    let mut site = Site::offline();
    let visit = site.login("old").await;
    let lines = set_cookies(visit.response.headers());
    assert_eq!(lines.len(), 2);
    for (line, name) in lines.into_iter().zip([ANCHOR, IDENTITY]) {
        let line = line.to_str().unwrap();
        assert!(line.starts_with(&site.jar.pair(name)), "{line}");
        for attribute in ["; HttpOnly", "; Secure", "; SameSite=Lax", "; Path=/", "; Max-Age="] {
            assert!(line.contains(attribute), "{attribute}: {line}");
        }
        assert!(!line.contains("Domain"), "{line}");
    }
}

/// Returns the cookies that a response sets, and with a minus those that it removes, in the order of its headers.
fn in_order(visit: &Visit) -> Vec<String> {
    let lines = set_cookies(visit.response.headers()).into_iter().map(|line| line.to_str().unwrap());
    let cookies = lines.map(|line| {
        let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
        format!("{}{}", if value.is_empty() { "-" } else { "" }, name.rsplit_once('.').map_or(name, |(kind, _)| kind))
    });
    cookies.collect()
}

#[tokio::test]
async fn anchor_is_set_first_and_removed_last() {
    let kinds = [&*ANCHOR, IDENTITY.trim_end_matches('.'), OPT_OUT.trim_end_matches('.'), &*SCRIPT_TOKEN, &*SDK];
    let [anchor, identity, record, token, _] = kinds;
    let [no_anchor, no_identity, no_record, no_token, no_sdk] = kinds.map(|kind| format!("-{kind}"));
    let config = CookieConfig::default().expose_token_to_scripts();
    let mut site = Site::new(Operator::answering(Ok(Refreshed::OptedOut))).configured(|layer| layer.cookie(config));
    assert_eq!(in_order(&site.login("old").await), [anchor, identity, token]);
    assert_eq!(in_order(&site.login("old").await), [anchor, identity, &no_identity, token]);
    let logged_in = site.clone();
    assert_eq!(in_order(&site.update(EuidUpdate::opt_out()).await), [anchor, record, &no_identity, &no_token]);
    assert_eq!(in_order(&site.update(EuidUpdate::logout()).await), [&*no_anchor, &no_record, &no_token, &no_anchor]);
    let mut site = logged_in;
    assert_eq!(in_order(&site.clone().update(EuidUpdate::logout()).await), [&*no_identity, &no_token, &no_anchor]);
    site.wait_until(DUE);
    assert_eq!(in_order(&site.look().await), [record, &no_identity, &no_token]);

    let mut migrating = Site::offline().migrating().with_sdk_token("sdk");
    assert_eq!(in_order(&migrating.look().await), [identity, &no_sdk]);
    assert_eq!(in_order(&migrating.update(EuidUpdate::logout()).await), [anchor, &no_identity, &no_sdk]);
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
    let name = site.jar.name(IDENTITY);
    let header = format!("x{own}; {name}x=1; {ANCHOR}x=2; a={name}=3; {ANCHOR}");
    assert_eq!(outcome(&look_with(&site, &[header.as_bytes()]).await), expect("absent", ""));
    let header = format!("{name}x=1; {ANCHOR}x=2; a={name}=3; {own}");
    assert_eq!(outcome(&look_with(&site, &[header.as_bytes()]).await), expect("active(old)", ""));
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
        assert_eq!(outcome(&visit), expect("active(second)", "identity cleared"));
        let [line] = set_cookies(visit.response.headers())[..] else { panic!("one cookie") };
        assert!(line.to_str().unwrap().starts_with(&format!("{}=;", first.name(IDENTITY))), "{line:?}");
    }
}

#[tokio::test]
async fn first_identity_that_opens_counts_among_several_of_the_same_name() {
    let site = Site::offline().logged_in(0).await;
    let (name, own) = (site.jar.name(IDENTITY), own_cookies(&site));
    let garbled = format!("{}AAAA", site.jar.pair(IDENTITY));
    for header in [format!("{name}=garbled; {own}"), format!("{own}; {name}="), format!("{garbled}; {own}; {garbled}")]
    {
        let visit = look_with(&site, &[header.as_bytes()]).await;
        assert_eq!(outcome(&visit), expect("active(old)", ""), "{header}");
    }
}

#[tokio::test]
async fn identity_named_by_the_anchor_counts_behind_a_hundred_of_other_logins() {
    let site = Site::offline().logged_in(0).await;
    let others: String =
        (0..100).map(|number| format!("{IDENTITY}a{number:03}=x; {OPT_OUT}a{number:03}=x; ")).collect();
    let mut header = format!("{others}{}", own_cookies(&site));
    let mut kept = 200;
    // A response removes some of them, and the next ones remove the others.
    for page in 1.. {
        let visit = look_with(&site, &[header.as_bytes()]).await;
        assert_eq!(visit.saw(), "active(old)");
        let lines = set_cookies(visit.response.headers());
        if lines.is_empty() {
            assert_eq!(page, 26, "eight at a time");
            break;
        }
        assert!(lines.len() <= 8, "{lines:?}");
        for line in lines {
            let (name, _) = line.to_str().unwrap().split_once('=').unwrap();
            header = header.replace(&format!("{name}=x; "), "");
            kept -= 1;
        }
    }
    assert_eq!((kept, header), (0, own_cookies(&site)));
}

#[tokio::test]
async fn anchors_that_differ_make_each_identity_absent() {
    let mut site = Site::offline().logged_in(0).await;
    let first = site.jar.clone();
    site.login("second").await;
    for jar in [&first, &site.jar] {
        let header = format!("{}; {}; {}", jar.pair(IDENTITY), first.pair(ANCHOR), site.jar.pair(ANCHOR));
        assert_eq!(outcome(&look_with(&site, &[header.as_bytes()]).await), expect("absent", ""));
    }
}

#[tokio::test]
async fn anchor_that_is_repeated_counts_once() {
    let site = Site::offline().logged_in(0).await;
    let anchor = site.jar.pair(ANCHOR);
    let header = format!("{anchor}; {}; {anchor}", site.jar.pair(IDENTITY));
    assert_eq!(look_with(&site, &[header.as_bytes()]).await.saw(), "active(old)");
}
