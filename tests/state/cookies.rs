//! Cookies on the wire: where ours are found, what else may lie around, who can open them.
//!
//! Whatever a browser sends, the page comes as it is, and the handler sees at worst `absent`.

use std::convert::Infallible;
use std::future::ready;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderValue, Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::{CookieConfig, CookieKey, KeyRing};

use crate::support::{ANCHOR, DUE, IDENTITY, Jar, Operator, Site, Visit, new_pair, ring, set_cookies, writes};

/// A site, and a browser that is logged in to it.
async fn logged_in() -> Site {
    let mut site = Site::offline();
    site.login("old").await;
    site
}

/// The page for these `Cookie` headers.
async fn with_cookies(site: &Site, headers: &[&[u8]]) -> Visit {
    let mut request = Request::new(());
    for header in headers {
        let value = HeaderValue::from_bytes(header);
        request.headers_mut().append(COOKIE, value.unwrap_or(HeaderValue::from_static("unfit")));
    }
    site.send(request, |_, _| ()).await
}

#[tokio::test]
async fn a_login_sets_host_cookies_that_scripts_and_other_sites_do_not_get() {
    let mut site = Site::offline();
    let visit = site.login("old").await;
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
async fn a_cleared_cookie_has_the_attributes_of_a_set_one() {
    let attributes = |visit: &Visit| -> Vec<String> {
        let lines = set_cookies(visit.response.headers()).into_iter().map(|line| line.to_str().unwrap());
        let attributes = lines.map(|line| line.split("; ").skip(1).filter(|part| !part.starts_with("Max-Age")));
        attributes.map(|attributes| attributes.collect::<Vec<_>>().join("; ")).collect()
    };
    let mut site = Site::offline();
    let login = site.login("old").await;
    let logout = site.update(tower_euid::EuidUpdate::logout()).await;
    assert_eq!(attributes(&login), attributes(&logout));
}

#[tokio::test]
async fn insecure_cookies_have_other_names_and_no_secure() {
    let mut site = Site::offline().configured(|layer| layer.cookie(CookieConfig::insecure()));
    let visit = site.login("old").await;
    let lines = set_cookies(visit.response.headers());
    assert!(lines.iter().all(|line| !line.to_str().unwrap().contains("Secure")), "{lines:?}");
    assert!(site.jar.value("euid").is_some() && site.jar.value("euid-login").is_some());
    assert_eq!(site.look().await.saw(), "active(old)");
}

#[tokio::test]
async fn identity_and_anchor_may_come_in_different_headers() {
    let site = logged_in().await;
    let (identity, anchor) = (site.jar.pair(IDENTITY), site.jar.pair(ANCHOR));
    for headers in [[&identity, &anchor], [&anchor, &identity]] {
        let visit = with_cookies(&site, &headers.map(|header| header.as_bytes())).await;
        assert_eq!(visit.saw(), "active(old)");
    }
}

#[tokio::test]
async fn blanks_around_our_cookies_do_not_matter() {
    let site = logged_in().await;
    let (identity, anchor) = (site.jar.pair(IDENTITY), site.jar.pair(ANCHOR));
    for header in [format!("{identity};{anchor}"), format!("a=b ;\t{identity} ;  {anchor}\t")] {
        assert_eq!(with_cookies(&site, &[header.as_bytes()]).await.saw(), "active(old)", "{header}");
    }
}

#[tokio::test]
async fn neighbours_outside_ascii_do_not_hide_ours() {
    let site = logged_in().await;
    let ours = format!("{}; {}", site.jar.pair(IDENTITY), site.jar.pair(ANCHOR));
    let header = [b"caf\xe9=\xff\xfe; n\xc3\xa4me=\"=;", b" ".as_slice(), ours.as_bytes(), b"; \x80"].concat();
    assert_eq!(with_cookies(&site, &[b"\xff=\xff", &header]).await.saw(), "active(old)");
}

#[tokio::test]
async fn cookies_whose_names_contain_ours_are_not_ours() {
    let site = logged_in().await;
    let ours = format!("{}; {}", site.jar.pair(IDENTITY), site.jar.pair(ANCHOR));
    let header = format!("x{ours}; {IDENTITY}x=1; {IDENTITY}-loginx=2; a={IDENTITY}=3; {ANCHOR}");
    assert_eq!(with_cookies(&site, &[header.as_bytes()]).await.saw(), "absent");
    let header = format!("{IDENTITY}x=1; {IDENTITY}-loginx=2; a={IDENTITY}=3; {ours}");
    assert_eq!(with_cookies(&site, &[header.as_bytes()]).await.saw(), "active(old)");
}

#[tokio::test]
async fn a_heap_of_foreign_cookies_after_ours_does_not_hide_them() {
    let site = logged_in().await;
    let ours = format!("{}; {}", site.jar.pair(IDENTITY), site.jar.pair(ANCHOR));
    let heap = "x=y; ".repeat(20_000);
    assert_eq!(with_cookies(&site, &[ours.as_bytes(), heap.as_bytes()]).await.saw(), "active(old)");
}

#[tokio::test]
async fn ours_behind_a_heap_of_foreign_cookies_are_left_alone() {
    let site = logged_in().await;
    let ours = format!("{}; {}", site.jar.pair(IDENTITY), site.jar.pair(ANCHOR));
    let heap = "x=y; ".repeat(20_000);
    let visit = with_cookies(&site, &[heap.as_bytes(), ours.as_bytes()]).await;
    assert_eq!((visit.saw(), visit.writes()), ("absent".into(), String::new()));
}

#[tokio::test]
async fn of_two_identities_the_one_that_the_anchor_names_counts() {
    let mut site = logged_in().await;
    let first = site.jar.clone();
    site.login("second").await;
    for identities in [[&first, &site.jar], [&site.jar, &first]] {
        let [one, other] = identities.map(|jar| jar.pair(IDENTITY));
        let header = format!("{one}; {other}; {}", site.jar.pair(ANCHOR));
        let visit = with_cookies(&site, &[header.as_bytes()]).await;
        assert_eq!((visit.saw(), visit.writes()), ("active(second)".into(), String::new()));
    }
}

#[tokio::test]
async fn two_anchors_that_differ_name_nobody() {
    let mut site = logged_in().await;
    let first = site.jar.clone();
    site.login("second").await;
    for jar in [&first, &site.jar] {
        let header = format!("{}; {}; {}", jar.pair(IDENTITY), first.pair(ANCHOR), site.jar.pair(ANCHOR));
        assert_eq!(with_cookies(&site, &[header.as_bytes()]).await.saw(), "absent");
    }
}

#[tokio::test]
async fn the_same_anchor_twice_is_one() {
    let site = logged_in().await;
    let anchor = site.jar.pair(ANCHOR);
    let header = format!("{anchor}; {}; {anchor}", site.jar.pair(IDENTITY));
    assert_eq!(with_cookies(&site, &[header.as_bytes()]).await.saw(), "active(old)");
}

#[tokio::test]
async fn cookies_of_the_application_are_kept() {
    let mut site = Site::new(Operator::answering(new_pair("new")));
    site.login("old").await;
    site.wait_until(DUE);
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
async fn every_set_cookie_of_ours_is_marked_sensitive() {
    let mut site = Site::new(Operator::answering(new_pair("new")));
    let login = site.login("old").await;
    site.wait_until(DUE);
    let refresh = site.look().await;
    let logout = site.update(tower_euid::EuidUpdate::logout()).await;
    for visit in [login, refresh, logout] {
        let lines = set_cookies(visit.response.headers());
        assert!(!lines.is_empty() && lines.iter().all(|line| line.is_sensitive()), "{lines:?}");
    }
}

/// Asserts that the page comes as it is and that the handler sees nobody.
async fn as_if_absent(site: &Site, jar: &Jar) {
    let page = service_fn(|request: Request<()>| {
        let euid = request.extensions().get::<tower_euid::Euid>().map(tower_euid::Euid::state);
        let response = Response::builder().status(StatusCode::ACCEPTED).body(("the body", euid));
        ready(Ok::<_, Infallible>(response.unwrap_or_default()))
    });
    let Ok(response) = site.layer.layer(page).oneshot(jar.request()).await;
    let got = (response.status(), *response.body(), writes(response.headers()).contains("set"));
    assert_eq!(got, (StatusCode::ACCEPTED, ("the body", Some("absent")), false), "{jar:?}");
}

#[tokio::test]
async fn one_changed_character_anywhere_in_the_identity_makes_it_absent() {
    let site = logged_in().await;
    let value = site.jar.value(IDENTITY).unwrap();
    for position in 0..value.len() {
        let mut changed = value.as_bytes().to_vec();
        // Also in the last character these are two bit patterns of the bytes, not of the padding.
        changed[position] = if changed[position] == b'A' { b'Q' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        as_if_absent(&site, &site.jar.clone().with(IDENTITY, &changed)).await;
    }
}

#[tokio::test]
async fn one_changed_character_anywhere_in_the_anchor_makes_it_absent() {
    let site = logged_in().await;
    let value = site.jar.value(ANCHOR).unwrap();
    for position in 0..value.len() {
        let mut changed = value.as_bytes().to_vec();
        changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        as_if_absent(&site, &site.jar.clone().with(ANCHOR, &changed)).await;
    }
}

#[tokio::test]
async fn an_identity_cut_short_anywhere_is_absent() {
    let site = logged_in().await;
    let value = site.jar.value(IDENTITY).unwrap();
    for length in 0..value.len() {
        as_if_absent(&site, &site.jar.clone().with(IDENTITY, &value[..length])).await;
    }
}

#[tokio::test]
async fn garbage_of_five_kilobytes_is_absent() {
    let site = logged_in().await;
    let value = site.jar.value(IDENTITY).unwrap();
    for garbage in ["A".repeat(5000), "%".repeat(5000), format!("{}{}", &value[..40], "A".repeat(5000))] {
        as_if_absent(&site, &site.jar.clone().with(IDENTITY, &garbage)).await;
        as_if_absent(&site, &site.jar.clone().with(ANCHOR, &garbage)).await;
    }
}

#[tokio::test]
async fn the_value_of_one_cookie_under_the_name_of_the_other_is_absent() {
    let site = logged_in().await;
    let (identity, anchor) = (site.jar.value(IDENTITY).unwrap(), site.jar.value(ANCHOR).unwrap());
    as_if_absent(&site, &site.jar.clone().with(IDENTITY, anchor)).await;
    as_if_absent(&site, &site.jar.clone().with(ANCHOR, identity)).await;
    as_if_absent(&site, &site.jar.clone().with(ANCHOR, identity).with(IDENTITY, anchor)).await;
}

#[tokio::test]
async fn an_identity_sealed_under_another_name_does_not_open() {
    let keys = ring();
    let mut insecure =
        Site::with_keys(keys.clone(), Operator::never()).configured(|layer| layer.cookie(CookieConfig::insecure()));
    insecure.login("old").await;
    let value = |name| insecure.jar.value(name).unwrap();
    let jar = Jar::default().with(IDENTITY, value("euid")).with(ANCHOR, value("euid-login"));
    as_if_absent(&Site::with_keys(keys, Operator::never()), &jar).await;
}

#[tokio::test]
async fn another_node_with_the_same_keys_opens_our_cookies() {
    let keys = ring();
    let mut one = Site::with_keys(keys.clone(), Operator::never());
    one.login("old").await;
    let other = Site::with_keys(keys, Operator::never());
    assert_eq!(other.send(one.jar.request(), |_, _| ()).await.saw(), "active(old)");
}

#[tokio::test]
async fn a_node_with_other_keys_leaves_our_cookies_alone() {
    let one = logged_in().await;
    let other = Site::offline();
    let visit = other.send(one.jar.request(), |_, _| ()).await;
    assert_eq!((visit.saw(), set_cookies(visit.response.headers()).len()), ("absent".into(), 0));
}

#[tokio::test]
async fn a_login_overwrites_cookies_of_unknown_keys() {
    let one = logged_in().await;
    let mut other = Site::offline();
    other.jar = one.jar;
    other.login("mine").await;
    assert_eq!(other.look().await.saw(), "active(mine)");
}

/// A login under one ring, a look at it under another.
async fn carried_over(from: KeyRing, to: KeyRing) -> String {
    let mut minting = Site::with_keys(from, Operator::never());
    minting.login("old").await;
    Site::with_keys(to, Operator::never()).send(minting.jar.request(), |_, _| ()).await.saw()
}

#[tokio::test]
async fn a_ring_opens_under_all_its_keys_and_seals_under_the_newest() {
    let (new, old) = (CookieKey::generate().unwrap(), CookieKey::generate().unwrap());
    let both = KeyRing::new([new.clone(), old.clone()]).unwrap();
    let (new, old) = (KeyRing::from(new), KeyRing::from(old));
    assert_eq!(carried_over(old.clone(), both.clone()).await, "active(old)");
    assert_eq!(carried_over(both.clone(), new).await, "active(old)");
    assert_eq!(carried_over(both, old).await, "absent");
}

#[tokio::test]
async fn a_refresh_moves_an_identity_to_the_newest_key() {
    let (new, old) = (CookieKey::generate().unwrap(), CookieKey::generate().unwrap());
    let mut minting = Site::with_keys(old.clone().into(), Operator::never());
    minting.login("old").await;
    let both = KeyRing::new([new.clone(), old]).unwrap();
    let mut rotated = Site::with_keys(both, Operator::answering(new_pair("new")));
    rotated.jar = minting.jar;
    rotated.wait_until(DUE);
    rotated.look().await;
    let after = Site::with_keys(new.into(), Operator::never());
    assert_eq!(after.send(rotated.jar.request(), |_, _| ()).await.saw(), "active(new)");
}
