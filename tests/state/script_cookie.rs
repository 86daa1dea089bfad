//! The token that scripts may read, `__euid_advertising_token`: it follows the identity.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::time::Duration;

use http::{Method, Request, StatusCode};
use tower_euid::error::ErrorKind;
use tower_euid::{Consent, CookieConfig, EuidUpdate, Identity, RefreshMode, Refreshed};

use crate::support::{
    ANCHOR, BOTH_CLEARED, BOTH_SET, DUE, EXPIRED, IDENTITY, IDENTITY_EXPIRES, Jar, Operator, REFRESH_EXPIRES,
    SCRIPT_TOKEN, Site, Visit, failure, identity, identity_until, new_pair, set_cookies,
};

fn handing_over(operator: Operator) -> Site {
    Site::new(operator).configured(|layer| layer.cookie(CookieConfig::default().expose_token_to_scripts()))
}

/// A browser that has logged in, `millis` later.
async fn logged_in(operator: Operator, millis: i64) -> Site {
    let mut site = handing_over(operator);
    site.login("old").await;
    site.wait_until(millis);
    site
}

/// What the handler saw, what the browser was told, and what scripts can read now.
fn outcome(site: &Site, visit: &Visit) -> (String, String, Option<String>) {
    (visit.saw(), visit.writes(), site.jar.value(SCRIPT_TOKEN).map(str::to_owned))
}

fn expect(saw: &str, writes: &str, scripts: Option<&str>) -> (String, String, Option<String>) {
    (saw.to_owned(), writes.to_owned(), scripts.map(str::to_owned))
}

/// The `Set-Cookie` line of the cookie for scripts.
fn line(visit: &Visit) -> Option<&str> {
    let mut lines = set_cookies(visit.response.headers()).into_iter().map(|line| line.to_str().unwrap());
    lines.find(|line| line.starts_with(SCRIPT_TOKEN))
}

#[tokio::test]
async fn a_login_hands_its_token_over_until_it_ends() {
    let mut site = handing_over(Operator::never());
    let login = site.login("old").await;
    assert_eq!(outcome(&site, &login), expect("absent", "identity set, anchor set, token set", Some("old")));
    let expected = "__euid_advertising_token=old; SameSite=Lax; Secure; Path=/; Max-Age=3600";
    assert_eq!(line(&login), Some(expected));
}

#[tokio::test]
async fn a_page_that_changes_nothing_writes_nothing_and_is_cached_as_before() {
    let mut site = logged_in(Operator::never(), 0).await;
    let visit = site.look().await;
    assert!(visit.response.headers().is_empty());
    assert_eq!(visit.saw(), "active(old)");
    let visit = site.visit(|euid, _| drop(euid.advertising_token().unwrap().to_string())).await;
    assert_eq!((visit.header("cache-control"), visit.writes().as_str()), (Some("private, no-cache"), ""));
    let mut nobody = handing_over(Operator::never());
    assert!(nobody.look().await.response.headers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_follows_what_a_due_page_comes_to() {
    for (millis, answer, expected) in [
        (DUE, new_pair("new"), expect("active(new)", "identity set, token set", Some("new"))),
        (DUE, failure(ErrorKind::Transient), expect("active(old)", "", Some("old"))),
        (DUE, failure(ErrorKind::RejectedToken), expect("absent", "identity cleared, token cleared", None)),
        (DUE, Ok(Refreshed::OptedOut), expect("opted_out", "identity cleared, opt-out recorded, token cleared", None)),
        (EXPIRED, new_pair("new"), expect("active(new)", "identity set, token set", Some("new"))),
        (EXPIRED, failure(ErrorKind::Transient), expect("unavailable", "token cleared", None)),
        (
            EXPIRED,
            Ok(Refreshed::OptedOut),
            expect("opted_out", "identity cleared, opt-out recorded, token cleared", None),
        ),
        (REFRESH_EXPIRES, new_pair("new"), expect("absent", "token cleared", None)),
    ] {
        let mut site = logged_in(Operator::answering(answer), millis).await;
        let visit = site.look().await;
        assert_eq!(outcome(&site, &visit), expected);
        assert_eq!(site.look().await.writes(), "", "nothing is left to do: {expected:?}");
    }
}

#[tokio::test]
async fn a_refreshed_token_is_handed_over_until_it_ends() {
    let mut site = logged_in(Operator::answering(new_pair("new")), DUE).await;
    let visit = site.look().await;
    assert!(line(&visit).unwrap().ends_with(&format!("; Max-Age={}", 2 * 86_400 - DUE / 1000)), "{:?}", line(&visit));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_beside_the_page_hands_over_what_the_next_page_will_see() {
    let mut site = logged_in(Operator::answering(new_pair("new")), DUE).await;
    site = site.configured(|layer| layer.refresh_mode(RefreshMode::Concurrent));
    let slow = tower::service_fn(|_: Request<()>| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, std::convert::Infallible>(http::Response::new(()))
    });
    let Ok(response) = tower::ServiceExt::oneshot(tower::Layer::layer(&site.layer, slow), site.jar.request()).await;
    site.jar.apply(response.headers());
    let next = site.look().await;
    assert_eq!(outcome(&site, &next), expect("active(new)", "", Some("new")));
}

#[tokio::test]
async fn logout_and_opt_out_take_it_back_also_where_none_came() {
    for (update, writes) in [
        (EuidUpdate::logout(), "identity cleared, anchor cleared, token cleared"),
        (EuidUpdate::opt_out(), "identity cleared, anchor opted out, token cleared"),
    ] {
        let mut site = logged_in(Operator::never(), 0).await;
        assert_eq!(site.update(update.clone()).await.writes(), writes);
        assert_eq!(site.jar.value(SCRIPT_TOKEN), None);
        assert_eq!(handing_over(Operator::never()).update(update).await.writes(), writes);
    }
}

#[tokio::test]
async fn a_login_that_can_not_be_written_takes_it_back() {
    let mut site = logged_in(Operator::never(), 0).await;
    let visit = site.login(&"!".repeat(4000)).await;
    assert_eq!(visit.writes(), format!("{BOTH_CLEARED}, token cleared"));
}

#[tokio::test]
async fn without_consent_it_is_taken_back_and_not_given() {
    let logged_in = logged_in(Operator::never(), 0).await;
    for (consent, writes, login) in [
        (Consent::Withheld, "token cleared", format!("{BOTH_SET}, token cleared")),
        (
            Consent::Withdrawn,
            "identity cleared, anchor cleared, token cleared",
            format!("{BOTH_CLEARED}, token cleared"),
        ),
    ] {
        let mut site = logged_in.clone().configured(|layer| layer.consent(move |_| consent));
        let visit = site.look().await;
        assert_eq!(outcome(&site, &visit), expect("withheld", writes, None));
        assert_eq!(site.look().await.writes(), "");
        site.jar = Jar::default();
        assert_eq!(site.login("new").await.writes(), login, "{consent:?}");
        assert_eq!(site.jar.value(SCRIPT_TOKEN), None);
    }
    let mut granted = logged_in.clone();
    granted.jar = granted.jar.without(SCRIPT_TOKEN);
    let visit = granted.look().await;
    assert_eq!(outcome(&granted, &visit), expect("active(old)", "token set", Some("old")));
}

#[tokio::test]
async fn one_that_does_not_match_is_put_right_with_the_next_page_and_once() {
    let logged_in = logged_in(Operator::never(), 600_000).await;
    let jar = &logged_in.jar;
    for wrong in
        [jar.clone().without(SCRIPT_TOKEN), jar.clone().with(SCRIPT_TOKEN, "x"), jar.clone().with(SCRIPT_TOKEN, "")]
    {
        let mut site = Site { jar: wrong, ..logged_in.clone() };
        let visit = site.look().await;
        assert_eq!(outcome(&site, &visit), expect("active(old)", "token set", Some("old")));
        assert!(line(&visit).unwrap().ends_with("; Max-Age=3000"), "what is left of the token");
        assert_eq!(visit.header("cache-control"), Some("private, no-store"));
        assert_eq!(site.look().await.writes(), "");
    }
}

#[tokio::test]
async fn where_there_is_no_token_one_that_came_is_taken_back() {
    let active = logged_in(Operator::never(), 0).await;
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
        assert_eq!(outcome(&site, &visit), expect(saw, writes, None));
        assert_eq!(site.look().await.writes(), "");
    }
}

#[tokio::test]
async fn of_somebody_elses_identity_nothing_is_handed_over() {
    let mut site = handing_over(Operator::never());
    site =
        site.configured(|layer| layer.subject(|request| request.headers.get("user").map(|id| id.as_bytes().to_vec())));
    site.update(EuidUpdate::login(identity("anns")).subject("ann")).await;
    for (user, writes) in [(None, "token cleared"), (Some("bob"), "identity cleared, token cleared")] {
        let mut request = site.jar.request();
        if let Some(user) = user {
            request.headers_mut().insert("user", user.parse().unwrap());
        }
        assert_eq!(site.send(request, |_, _| ()).await.writes(), writes);
    }
}

#[tokio::test]
async fn a_page_that_has_not_changed_brings_none_and_takes_back_what_ended() {
    let not_modified = |_: &_, response: &mut http::Response<()>| *response.status_mut() = StatusCode::NOT_MODIFIED;
    let mut missing = logged_in(Operator::never(), 0).await;
    missing.jar = missing.jar.without(SCRIPT_TOKEN);
    let visit = missing.visit(not_modified).await;
    assert!(set_cookies(visit.response.headers()).is_empty() && visit.header("cache-control").is_none());
    let mut left = Site { jar: Jar::default().with(SCRIPT_TOKEN, "old"), ..missing };
    assert_eq!(left.visit(not_modified).await.writes(), "token cleared");
}

#[tokio::test]
async fn it_is_not_put_right_beside_what_is_no_page() {
    let mut site = logged_in(Operator::never(), 0).await;
    site.jar = site.jar.without(SCRIPT_TOKEN);
    for (name, value) in [("sec-fetch-dest", "image"), ("sec-purpose", "prefetch")] {
        let mut request = site.jar.request();
        request.headers_mut().insert(name, value.parse().unwrap());
        assert_eq!(site.send(request, |_, _| ()).await.writes(), "", "{value}");
    }
    let mut request = site.jar.request();
    *request.method_mut() = Method::OPTIONS;
    assert_eq!(site.send(request, |_, _| ()).await.writes(), "");
}

#[tokio::test]
async fn the_longest_token_that_can_be_sealed_is_handed_over() {
    // It is stored decoded.
    let login = |token: &str| {
        let (refresh, times) = ("r".to_owned(), identity("x").times());
        EuidUpdate::login(Identity::new(token, refresh.into(), [7; 32].into(), times).unwrap())
    };
    let longest = "x".repeat(3916);
    let mut site = handing_over(Operator::never());
    assert_eq!(site.update(login(&longest)).await.writes(), format!("{BOTH_SET}, token set"));
    assert_eq!(site.jar.value(SCRIPT_TOKEN), Some(&*longest));
    let longer = site.update(login(&format!("{longest}xxxx"))).await;
    assert_eq!(longer.writes(), format!("{BOTH_CLEARED}, token cleared"));
}

#[tokio::test]
async fn it_ends_with_the_token_to_the_second() {
    for (left, writes, scripts) in [(1_000, "token set", Some("old")), (999, "token cleared", None)] {
        let mut site = logged_in(Operator::never(), 0).await;
        site.jar = site.jar.without(SCRIPT_TOKEN);
        site = site.configured(|layer| layer.max_wait(Duration::ZERO));
        site.wait_until(IDENTITY_EXPIRES - left);
        let visit = site.look().await;
        assert_eq!(outcome(&site, &visit), expect("active(old)", writes, scripts), "{left} ms");
    }
}

#[tokio::test]
async fn a_login_whose_token_is_over_already_hands_none_over() {
    let mut site = handing_over(Operator::never());
    let login = EuidUpdate::login(identity_until("over", [-2, -1, REFRESH_EXPIRES]));
    assert_eq!(site.update(login).await.writes(), format!("{BOTH_SET}, token cleared"));
}

#[tokio::test]
async fn where_it_was_not_asked_for_a_cookie_of_that_name_is_nobodys_business() {
    let mut site = Site::offline();
    site.login("old").await;
    site.jar.put(SCRIPT_TOKEN, "of the application");
    assert_eq!(site.look().await.writes(), "");
    assert_eq!(site.update(EuidUpdate::logout()).await.writes(), BOTH_CLEARED);
}
