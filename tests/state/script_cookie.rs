//! The script cookie, `__euid_advertising_token` or `__uid2_advertising_token`: scripts may read it, and it follows the identity.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::time::Duration;

use http::{Method, Response, StatusCode};
use tower_euid::error::ErrorKind;
use tower_euid::{Consent, CookieConfig, Euid, EuidUpdate, Identity, RefreshMode, Refreshed};

use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, IDENTITY_EXPIRES, Jar, LOGIN_REMOVED, LOGIN_WRITTEN, NOTHING, Operator,
    REFRESH_EXPIRES, SCRIPT_TOKEN, Site, Visit, expect, failure, identity, identity_until, new_pair, outcome,
    set_cookies,
};

const ALL_CLEARED: &str = "identity cleared, anchor cleared, token cleared";

/// Returns a site with script cookies.
fn exposing(operator: Operator) -> Site {
    Site::new(operator).configured(|layer| layer.cookie(CookieConfig::default().expose_token_to_scripts()))
}

/// Returns a site with script cookies, whose visitor is logged in and has lost theirs.
async fn without_script_cookie(millis: i64) -> Site {
    let site = exposing(Operator::never()).logged_in(millis).await;
    Site { jar: site.jar.clone().without(SCRIPT_TOKEN), ..site }
}

/// Returns the value that scripts can read.
fn script_token(site: &Site) -> Option<&str> {
    site.jar.value(SCRIPT_TOKEN)
}

/// Returns the `Set-Cookie` line of the script cookie.
fn line(visit: &Visit) -> Option<&str> {
    let mut lines = set_cookies(visit.response.headers()).into_iter().map(|line| line.to_str().unwrap());
    lines.find(|line| line.starts_with(&*SCRIPT_TOKEN))
}

/// A handler whose page has not changed.
fn not_modified(_: &Euid, response: &mut Response<()>) {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
}

#[tokio::test]
async fn script_cookie_is_set_by_a_login_and_expires_with_its_token() {
    let mut site = exposing(Operator::never());
    let login = site.login("old").await;
    assert_eq!(outcome(&login), expect("absent", "identity set, anchor set, token set"));
    assert_eq!(script_token(&site), Some("old"));
    let expected = format!("{SCRIPT_TOKEN}=old; SameSite=Lax; Secure; Path=/; Max-Age=3600");
    assert_eq!(line(&login), Some(&*expected));
}

#[tokio::test]
async fn script_cookie_is_set_by_a_refresh_and_expires_with_its_token() {
    let mut site = exposing(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    let visit = site.look().await;
    assert!(line(&visit).unwrap().ends_with(&format!("; Max-Age={}", 2 * 86_400 - DUE / 1000)), "{:?}", line(&visit));
}

#[tokio::test]
async fn script_cookie_that_is_correct_is_not_set_again_and_does_not_change_caching() {
    let mut site = exposing(Operator::never()).logged_in(0).await;
    let visit = site.look().await;
    assert!(visit.response.headers().is_empty());
    assert_eq!(visit.saw(), "active(old)");
    let visit = site.visit(|euid, _| drop(euid.advertising_token().unwrap().to_string())).await;
    assert_eq!((visit.header("cache-control"), visit.writes().as_str()), (Some("private, no-cache"), ""));
    let without_cookies = exposing(Operator::never());
    assert!(without_cookies.look_once().await.response.headers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn script_cookie_follows_the_outcome_of_a_refresh() {
    let opted_out = "identity cleared, opt-out set, token cleared";
    for (millis, answer, saw, writes, script) in [
        (DUE, new_pair("new"), "active(new)", "identity set, token set", Some("new")),
        (DUE, failure(ErrorKind::Transient), "active(old)", "", Some("old")),
        (DUE, failure(ErrorKind::RejectedToken), "absent", "identity cleared, token cleared", None),
        (DUE, Ok(Refreshed::OptedOut), "opted_out", opted_out, None),
        (EXPIRED, new_pair("new"), "active(new)", "identity set, token set", Some("new")),
        (EXPIRED, failure(ErrorKind::Transient), "unavailable", "token cleared", None),
        (EXPIRED, Ok(Refreshed::OptedOut), "opted_out", opted_out, None),
        (REFRESH_EXPIRES, new_pair("new"), "absent", "token cleared", None),
    ] {
        let mut site = exposing(Operator::answering(answer)).logged_in(millis).await;
        let visit = site.look().await;
        assert_eq!((outcome(&visit), script_token(&site)), (expect(saw, writes), script), "{millis}");
        assert_eq!(site.look().await.writes(), "", "the next page has nothing to write: {millis} {saw}");
    }
}

#[tokio::test(start_paused = true)]
async fn script_cookie_of_a_concurrent_refresh_is_the_token_of_the_next_page() {
    let mut site = exposing(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    site = site.configured(|layer| layer.refresh_mode(RefreshMode::Concurrent));
    let slow = site.send_slowly(site.jar.request(), Duration::from_millis(100), NOTHING).await;
    site.jar.apply(slow.response.headers());
    let next = site.look().await;
    assert_eq!((outcome(&next), script_token(&site)), (expect("active(new)", ""), Some("new")));
}

#[tokio::test]
async fn script_cookie_is_cleared_by_logout_and_opt_out_even_if_the_request_has_none() {
    for (update, writes) in [
        (EuidUpdate::logout(), "anchor cleared, token cleared"),
        (EuidUpdate::opt_out(), "anchor set, opt-out set, token cleared"),
    ] {
        let mut site = exposing(Operator::never()).logged_in(0).await;
        assert_eq!(site.update(update.clone()).await.writes(), format!("identity cleared, {writes}"));
        assert_eq!(script_token(&site), None);
        assert_eq!(exposing(Operator::never()).update(update).await.writes(), writes);
    }
}

#[tokio::test]
async fn script_cookie_is_cleared_by_a_login_that_is_too_large() {
    let mut site = exposing(Operator::never()).logged_in(0).await;
    let visit = site.login(&"!".repeat(4000)).await;
    assert_eq!(visit.writes(), ALL_CLEARED);
}

#[tokio::test]
async fn script_cookie_needs_consent() {
    let logged_in = exposing(Operator::never()).logged_in(0).await;
    for (consent, writes, login) in [
        (Consent::Withheld, "token cleared", format!("{LOGIN_WRITTEN}, token cleared")),
        (Consent::Withdrawn, ALL_CLEARED, "anchor cleared, token cleared".to_owned()),
    ] {
        let mut site = logged_in.clone().configured(|layer| layer.consent(move |_| consent));
        let visit = site.look().await;
        assert_eq!((outcome(&visit), script_token(&site)), (expect("withheld", writes), None));
        assert_eq!(site.look().await.writes(), "");
        site.jar = Jar::default();
        assert_eq!(site.login("new").await.writes(), login, "{consent:?}");
        assert_eq!(script_token(&site), None);
    }
}

#[tokio::test]
async fn script_cookie_that_is_wrong_or_missing_is_corrected_once() {
    let logged_in = exposing(Operator::never()).logged_in(600_000).await;
    let jar = &logged_in.jar;
    for wrong in
        [jar.clone().without(SCRIPT_TOKEN), jar.clone().with(SCRIPT_TOKEN, "x"), jar.clone().with(SCRIPT_TOKEN, "")]
    {
        let mut site = Site { jar: wrong, ..logged_in.clone() };
        let visit = site.look().await;
        assert_eq!((outcome(&visit), script_token(&site)), (expect("active(old)", "token set"), Some("old")));
        assert!(line(&visit).unwrap().ends_with("; Max-Age=3000"), "the remaining time of the token");
        assert_eq!(visit.header("cache-control"), Some("private, no-store"));
        assert_eq!(site.look().await.writes(), "");
    }
}

#[tokio::test]
async fn script_cookie_without_an_active_identity_is_cleared() {
    let active = exposing(Operator::never()).logged_in(0).await;
    let mut opted_out = active.clone();
    opted_out.update(EuidUpdate::opt_out()).await;
    let jar = &active.jar;
    for (jar, saw, writes) in [
        (Jar::default(), "absent", "token cleared"),
        (jar.clone().without(IDENTITY), "absent", "token cleared"),
        (jar.clone().without(ANCHOR), "absent", "identity cleared, token cleared"),
        (opted_out.jar, "opted_out", "token cleared"),
    ] {
        let mut site = Site { jar: jar.with(SCRIPT_TOKEN, "old"), ..active.clone() };
        let visit = site.look().await;
        assert_eq!((outcome(&visit), script_token(&site)), (expect(saw, writes), None));
        assert_eq!(site.look().await.writes(), "");
    }
}

#[tokio::test]
async fn script_cookie_of_another_subject_is_cleared() {
    let mut site = exposing(Operator::never()).with_subject();
    site.update(EuidUpdate::login(identity("anns")).subject("ann")).await;
    for (user, writes) in [(None, "token cleared"), (Some("bob"), "identity cleared, token cleared")] {
        assert_eq!(site.clone().look_as(user).await.writes(), writes);
    }
}

#[tokio::test]
async fn script_cookie_is_cleared_but_not_set_by_a_response_that_is_not_modified() {
    let mut missing = without_script_cookie(0).await;
    let visit = missing.visit(not_modified).await;
    assert!(set_cookies(visit.response.headers()).is_empty() && visit.header("cache-control").is_none());
    let mut without_identity = Site { jar: Jar::default().with(SCRIPT_TOKEN, "old"), ..missing };
    assert_eq!(without_identity.visit(not_modified).await.writes(), "token cleared");
}

#[tokio::test]
async fn script_cookie_is_corrected_only_by_requests_that_show_a_page() {
    let mut site = without_script_cookie(0).await;
    for request in [
        site.jar.request_with(&[("sec-fetch-dest", "image")]),
        site.jar.request_with(&[("sec-purpose", "prefetch")]),
        site.jar.request_with(&[("connection", "Upgrade"), ("upgrade", "websocket")]),
        site.jar.request_of(Method::OPTIONS),
    ] {
        let case = format!("{} {:?}", request.method(), request.headers());
        assert_eq!(site.send(request, NOTHING).await.writes(), "", "{case}");
    }
    assert_eq!(site.look().await.writes(), "token set");
}

#[tokio::test]
async fn script_cookie_holds_the_longest_token_that_can_be_sealed() {
    // The identity cookie stores a token decoded.
    let login = |token: &str| {
        let (refresh, times) = ("r".to_owned(), identity("x").times());
        EuidUpdate::login(Identity::new(token, refresh.into(), [7; 32].into(), times).unwrap())
    };
    let longest = "x".repeat(3912);
    let mut site = exposing(Operator::never());
    assert_eq!(site.update(login(&longest)).await.writes(), format!("{LOGIN_WRITTEN}, token set"));
    assert_eq!(script_token(&site), Some(&*longest));
    let longer = site.update(login(&format!("{longest}xxxx"))).await;
    assert_eq!(longer.writes(), ALL_CLEARED);
}

#[tokio::test]
async fn script_cookie_is_not_set_in_the_last_second_of_its_token() {
    for (left, writes, script) in [(1_000, "token set", Some("old")), (999, "token cleared", None)] {
        let site = without_script_cookie(IDENTITY_EXPIRES - left).await;
        let mut site = site.configured(|layer| layer.max_wait(Duration::ZERO));
        let visit = site.look().await;
        assert_eq!((outcome(&visit), script_token(&site)), (expect("active(old)", writes), script), "{left} ms");
    }
}

#[tokio::test]
async fn script_cookie_is_cleared_by_a_login_whose_token_has_expired() {
    let mut site = exposing(Operator::never());
    let login = EuidUpdate::login(identity_until("expired", [-2, -1, REFRESH_EXPIRES]));
    assert_eq!(site.update(login).await.writes(), format!("{LOGIN_WRITTEN}, token cleared"));
}

#[tokio::test]
async fn script_cookie_of_the_application_is_left_alone_by_default() {
    let mut site = Site::offline().logged_in(0).await;
    site.jar.put(SCRIPT_TOKEN, "of the application");
    assert_eq!(site.look().await.writes(), "");
    assert_eq!(site.update(EuidUpdate::logout()).await.writes(), LOGIN_REMOVED);
}
