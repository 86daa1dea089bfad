//! The cookie of EUID's JavaScript SDK, `__euid`: its identity is taken over.
//!
//! The layer reads it if the request has no cookie of the layer, seals its identity as a login, and deletes it.

use std::convert::Infallible;

use http::{Request, Response, StatusCode};
use tokio::task::yield_now;
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::error::ErrorKind;
use tower_euid::{Consent, EuidLogoutHandle, EuidUpdate, Refresh, RefreshMode, Refreshed, refresh_fn};

use crate::support::sdk::{encoded, sdk_json};
use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, Jar, LOGIN_REMOVED, NOTHING, Operator, REFRESH_EXPIRES, SCRIPT_TOKEN, SDK, Site,
    at, expect, failure, identity, new_pair, outcome, writes,
};

/// The changes of a login in place of the SDK's cookie.
const TAKEN_OVER: &str = "identity set, anchor set, sdk cleared";
const ALL_CLEARED: &str = "identity cleared, anchor cleared, sdk cleared";
const OPTED_OUT: &str = "identity cleared, anchor opted out, sdk cleared";

/// Returns the SDK's identity with the token `sdk`, as JSON.
fn json() -> String {
    json_of("sdk")
}

/// Returns an SDK's identity, as JSON.
fn json_of(token: &str) -> String {
    sdk_json(token, "ref/re+sh==")
}

/// Returns what the SDK stores after an opt-out, as JSON.
fn opt_out_marker(until: i64) -> String {
    let until = at(until).as_millis();
    format!(r#"{{"refresh_expires":{until},"identity_expires":{until},"status":"optout"}}"#)
}

/// Returns a browser with this value of the SDK's cookie, on a site that takes it over.
fn with_sdk_cookie(value: &str, operator: impl Refresh) -> Site {
    Site { jar: Jar::default().with(SDK, value), ..Site::new(operator).migrating() }
}

/// Returns a browser with the SDK's identity, on a site that takes it over.
fn with_sdk_identity(operator: impl Refresh) -> Site {
    with_sdk_cookie(&encoded(&json()), operator)
}

#[tokio::test]
async fn js_sdk_cookie_is_used_and_taken_over_with_the_first_page() {
    for value in [encoded(&json()), json().replace(' ', "%20"), json()] {
        let mut site = with_sdk_cookie(&value, Operator::never());
        let first = site.look().await;
        assert_eq!(outcome(&first), expect("active(sdk)", TAKEN_OVER), "{value}");
        assert_eq!(first.header("cache-control"), Some("private, no-store"));
        assert_eq!(site.jar.value(SDK), None);
        assert_eq!(outcome(&site.look().await), expect("active(sdk)", ""));
    }
}

#[tokio::test]
async fn js_sdk_cookie_is_refreshed_with_its_own_refresh_token() {
    let operator = refresh_fn(|identity| async move {
        assert_eq!(identity.refresh_token().expose_secret(), "ref/re+sh==");
        assert_eq!(identity.response_key().expose_secret(), &[7; 32]);
        new_pair("new")
    });
    for millis in [0, DUE] {
        let mut site = with_sdk_identity(operator);
        site.wait_until(millis);
        site.look().await;
        site.wait_until(DUE);
        assert_eq!(site.look().await.saw(), "active(new)", "taken over at {millis}");
    }
}

#[tokio::test(start_paused = true)]
async fn js_sdk_cookie_follows_the_outcome_of_its_refresh() {
    let pair = || Operator::answering(new_pair("new"));
    let failing = |kind| Operator::answering(failure(kind));
    let opted_out = || Operator::answering(Ok(Refreshed::OptedOut));
    for (millis, operator, saw, writes, then) in [
        (DUE, pair(), "active(new)", TAKEN_OVER, "active(new)"),
        (DUE, failing(ErrorKind::Transient), "active(sdk)", TAKEN_OVER, "active(sdk)"),
        (DUE, Operator::never(), "active(sdk)", TAKEN_OVER, "active(sdk)"),
        (DUE, failing(ErrorKind::RejectedToken), "absent", ALL_CLEARED, "absent"),
        (DUE, opted_out(), "opted_out", OPTED_OUT, "opted_out"),
        (EXPIRED, pair(), "active(new)", TAKEN_OVER, "active(new)"),
        (EXPIRED, failing(ErrorKind::Transient), "unavailable", TAKEN_OVER, "unavailable"),
        (EXPIRED, failing(ErrorKind::RejectedInput), "absent", ALL_CLEARED, "absent"),
        (EXPIRED, opted_out(), "opted_out", OPTED_OUT, "opted_out"),
        (REFRESH_EXPIRES, pair(), "absent", "", "absent"),
    ] {
        let mut site = with_sdk_identity(operator.clone());
        site.wait_until(millis);
        assert_eq!(outcome(&site.look().await), expect(saw, writes), "{millis} {operator:?}");
        assert_eq!(outcome(&site.look().await), expect(then, ""), "{millis} {operator:?}");
    }
}

#[tokio::test]
async fn js_sdk_cookie_is_taken_over_unchanged_during_a_concurrent_refresh() {
    let mut site = with_sdk_identity(Operator::answering(new_pair("new")));
    site = site.configured(|layer| layer.refresh_mode(RefreshMode::Concurrent));
    site.wait_until(DUE);
    assert_eq!(outcome(&site.look().await), expect("active(sdk)", TAKEN_OVER));
    yield_now().await;
    assert_eq!(outcome(&site.look().await), expect("active(new)", "identity set"));
}

#[tokio::test]
async fn js_sdk_cookie_with_an_opt_out_counts_until_it_expires() {
    let mut site = with_sdk_cookie(&encoded(&opt_out_marker(DUE)), Operator::never());
    assert_eq!(outcome(&site.look().await), expect("opted_out", ""));
    assert_eq!(outcome(&site.look().await), expect("opted_out", ""));
    site.wait_until(DUE);
    assert_eq!(outcome(&site.look().await), expect("absent", ""));
}

#[tokio::test]
async fn js_sdk_cookie_that_is_malformed_is_absent_until_a_login_removes_it() {
    let cut = &json()[..100];
    let nested = format!("{}1{}", "[".repeat(3000), "]".repeat(3000));
    let hostile = ["</script>", "a;b", "a\u{a0}b"].map(json_of);
    let [script, semicolon, not_ascii] = hostile.map(|json| encoded(&json));
    let out_of_order = json().replace("refresh_from\":1", "refresh_from\":9");
    for value in [
        "",
        "%",
        "%zz%7B",
        "null",
        "{}",
        "[]",
        cut,
        &encoded(cut),
        &nested,
        &encoded(&encoded(&json())),
        &out_of_order,
        &script,
        &semicolon,
        &not_ascii,
        r#"{"status":"optout"}"#,
        r#"{"refresh_expires":9e99,"status":"optout"}"#,
        r#"{"refresh_expires":9999999999999,"status":"success"}"#,
        "%FF%FE",
        &encoded(&json().replace(':', &format!(":{}", " ".repeat(800)))),
        &encoded(&json_of("of/both_alphabets")),
        &encoded(&sdk_json("sdk", "a.b")),
    ] {
        let mut site = with_sdk_cookie(value, Operator::never());
        assert_eq!(outcome(&site.look().await), expect("absent", ""), "{value}");
        site.login("own").await;
        assert_eq!(site.jar.value(SDK), None, "{value}");
        assert_eq!(site.look().await.saw(), "active(own)", "{value}");
    }
}

#[tokio::test]
async fn first_js_sdk_cookie_counts_among_several_even_if_it_is_not_readable() {
    let cookie = |name: &str, token: &str| format!("{name}={}", encoded(&json_of(token)));
    let site = with_sdk_identity(Operator::never());
    for (cookies, saw) in [
        (vec![cookie(SDK, "first"), cookie(SDK, "second")], "active(first)"),
        (vec![format!("{SDK}=garbled"), cookie(SDK, "second")], "absent"),
        (vec![cookie(SCRIPT_TOKEN, "foreign"), cookie(SDK, "second")], "active(second)"),
        (vec![cookie(SCRIPT_TOKEN, "foreign")], "absent"),
    ] {
        let request = Request::builder().header("cookie", cookies.join("; ")).body(()).unwrap();
        assert_eq!(site.send(request, NOTHING).await.saw(), saw, "{cookies:?}");
    }
}

#[tokio::test]
async fn js_sdk_cookie_is_ignored_if_the_request_has_a_cookie_of_the_layer() {
    let mut site = with_sdk_identity(Operator::never());
    let sdk = site.jar.clone();
    site.login("own").await;
    let both = site.jar.clone().with(SDK, sdk.value(SDK).unwrap());
    for (jar, saw, writes) in [
        (both.clone(), "active(own)", ""),
        (both.clone().without(IDENTITY), "absent", ""),
        (both.without(ANCHOR), "absent", "identity cleared"),
    ] {
        site.jar = jar;
        assert_eq!(outcome(&site.look().await), expect(saw, writes));
    }
}

#[tokio::test]
async fn js_sdk_cookie_is_ignored_by_default() {
    let mut site = Site { jar: with_sdk_identity(Operator::never()).jar, ..Site::offline() };
    assert_eq!(outcome(&site.look().await), expect("absent", ""));
    assert_eq!(site.update(EuidUpdate::logout()).await.writes(), LOGIN_REMOVED);
}

#[tokio::test]
async fn js_sdk_cookie_stays_while_consent_is_withheld_and_is_cleared_when_it_is_withdrawn() {
    let operator = Operator::answering(new_pair("new"));
    for (millis, is_opt_out) in [(0, false), (DUE, false), (EXPIRED, false), (0, true)] {
        for (consent, saw, writes) in
            [(Consent::Withheld, "withheld", ""), (Consent::Withdrawn, "withheld", ALL_CLEARED)]
        {
            let value = if is_opt_out { opt_out_marker(EXPIRED) } else { json() };
            let mut site = with_sdk_cookie(&encoded(&value), operator.clone());
            site = site.configured(|layer| layer.consent(move |_| consent));
            site.wait_until(millis);
            let saw = if is_opt_out && consent == Consent::Withheld { "opted_out" } else { saw };
            assert_eq!(outcome(&site.look().await), expect(saw, writes), "{millis} {is_opt_out} {consent:?}");
            if consent == Consent::Withheld {
                assert!(site.jar.value(SDK).is_some());
            }
        }
    }
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn js_sdk_cookie_is_bound_to_the_first_subject() {
    for millis in [0, DUE] {
        let operator = Operator::answering(new_pair("sdk"));
        let mut site = with_sdk_identity(operator.clone()).with_subject();
        site.wait_until(millis);
        assert_eq!(outcome(&site.look_as(None).await), expect("absent", ""));
        assert_eq!(operator.calls(), 0);
        assert_eq!(outcome(&site.look_as(Some("ann")).await), expect("active(sdk)", TAKEN_OVER));
        assert_eq!(outcome(&site.look_as(None).await), expect("absent", ""));
        assert_eq!(outcome(&site.look_as(Some("ann")).await), expect("active(sdk)", ""));
        assert_eq!(outcome(&site.look_as(Some("bob")).await), expect("absent", "identity cleared"));
    }
}

#[tokio::test]
async fn update_of_a_handler_clears_the_js_sdk_cookie() {
    for millis in [0, DUE, EXPIRED] {
        for (update, expected, then) in [
            (EuidUpdate::logout(), ALL_CLEARED, "absent"),
            (EuidUpdate::login(identity("another")), TAKEN_OVER, "another"),
            (EuidUpdate::opt_out(), OPTED_OUT, "opted_out"),
        ] {
            let mut site = with_sdk_identity(Operator::answering(failure(ErrorKind::Transient)));
            site.wait_until(millis);
            assert_eq!(site.update(update).await.writes(), expected, "{millis}");
            assert_eq!(site.jar.value(SDK), None);
            if millis == 0 {
                assert!(site.look().await.saw().contains(then));
            }
        }
    }
}

#[tokio::test]
async fn logout_handle_clears_the_js_sdk_cookie() {
    let site = with_sdk_identity(Operator::never());
    let handler = service_fn(|request: Request<()>| async move {
        EuidLogoutHandle::of(request.extensions()).unwrap().logout();
        Ok::<_, Infallible>(Response::new(()))
    });
    let Ok(response) = site.layer.layer(handler).oneshot(site.jar.request()).await;
    assert_eq!(writes(response.headers()), ALL_CLEARED);
}

#[tokio::test]
async fn js_sdk_cookie_is_not_taken_over_by_a_response_that_is_not_modified() {
    let mut site = with_sdk_identity(Operator::never());
    let visit = site.visit(|_, response| *response.status_mut() = StatusCode::NOT_MODIFIED).await;
    assert_eq!(outcome(&visit), expect("active(sdk)", ""));
    assert_eq!(outcome(&site.look().await), expect("active(sdk)", TAKEN_OVER));
}

#[tokio::test]
async fn js_sdk_cookie_is_not_taken_over_by_an_image_or_a_prefetch() {
    for (name, value) in [("sec-fetch-dest", "image"), ("sec-purpose", "prefetch")] {
        for (millis, saw) in [(0, "active(sdk)"), (DUE, "active(sdk)"), (EXPIRED, "unavailable")] {
            let operator = Operator::answering(new_pair("new"));
            let site = with_sdk_identity(operator.clone());
            site.wait_until(millis);
            let visit = site.send(site.jar.request_with(&[(name, value)]), NOTHING).await;
            assert_eq!(outcome(&visit), expect(saw, ""), "{name} {millis}");
            assert_eq!(operator.calls(), 0);
        }
    }
}

#[tokio::test]
async fn js_sdk_cookie_in_concurrent_requests_becomes_one_login() {
    for millis in [0, DUE] {
        let operator = Operator::answering(new_pair("sdk"));
        let site = with_sdk_identity(operator.clone());
        site.wait_until(millis);
        let (one, other) = tokio::join!(site.look_once(), site.look_once());
        for visits in [[&one, &other], [&other, &one]] {
            let mut browser = site.clone();
            for visit in visits {
                assert_eq!(outcome(visit), expect("active(sdk)", TAKEN_OVER));
                browser.jar.apply(visit.response.headers());
            }
            assert_eq!(outcome(&browser.look().await), expect("active(sdk)", ""));
        }
        assert_eq!(operator.calls(), usize::from(millis == DUE));
    }
}
