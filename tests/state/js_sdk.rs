//! The cookie of the JavaScript SDK, `__euid` or `__uid_2`: its identity is taken over.
//!
//! The layer reads it if the request has no anchor and nothing that was migrated before. It seals the identity in a
//! cookie of its own, without an anchor, and deletes the SDK's. What was migrated counts while no anchor comes: a login
//! sets one, and so does a logout, which leaves an anchor that names nothing.

use std::convert::Infallible;

use http::{Request, Response, StatusCode};
use tokio::task::yield_now;
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::error::ErrorKind;
use tower_euid::{Consent, EuidLogoutHandle, EuidUpdate, Refresh, RefreshMode, Refreshed, refresh_fn};

use crate::support::sdk::{encoded, sdk_json};
use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, Jar, Literal, MIGRATED, MIGRATED_OPT_OUT, NOTHING, OPT_OUT, Operator,
    REFRESH_EXPIRES, SCRIPT_TOKEN, SDK, Site, Visit, at, expect, failure, identity, identity_until, new_pair, outcome,
    ring, set_cookies, writes,
};

/// The changes of a page that takes the SDK's identity over.
const TAKEN_OVER: &str = "migrated set, sdk cleared";
/// The changes of a logout, and of withdrawn consent, while the SDK's cookie is there.
const ENDED: &str = "anchor ended, sdk cleared";
/// The changes of a page that finds an opt-out while the SDK's cookie is there.
const OPTED_OUT: &str = "opt-out set, sdk cleared";
/// The longest lifetime of a cookie: 400 days.
const LONGEST: i64 = 400 * 86_400_000;

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
        assert_eq!(site.jar.names(), [MIGRATED]);
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
        (DUE, failing(ErrorKind::RejectedToken), "absent", "sdk cleared", "absent"),
        (DUE, opted_out(), "opted_out", OPTED_OUT, "opted_out"),
        (EXPIRED, pair(), "active(new)", TAKEN_OVER, "active(new)"),
        (EXPIRED, failing(ErrorKind::Transient), "unavailable", TAKEN_OVER, "unavailable"),
        (EXPIRED, failing(ErrorKind::RejectedInput), "absent", "sdk cleared", "absent"),
        (EXPIRED, opted_out(), "opted_out", OPTED_OUT, "opted_out"),
        (REFRESH_EXPIRES, pair(), "absent", "", "absent"),
    ] {
        let mut site = with_sdk_identity(operator.clone());
        site.wait_until(millis);
        assert_eq!(outcome(&site.look().await), expect(saw, writes), "{millis} {operator:?}");
        assert_eq!(outcome(&site.look().await), expect(then, ""), "{millis} {operator:?}");
        assert_eq!(site.jar.value(ANCHOR), None, "no page sets an anchor: {millis} {operator:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn migrated_identity_follows_the_outcome_of_its_refresh() {
    let failing = |kind| Operator::answering(failure(kind));
    for (millis, operator, saw, writes, then) in [
        (DUE, Operator::answering(new_pair("new")), "active(new)", TAKEN_OVER, "active(new)"),
        (DUE, failing(ErrorKind::Transient), "active(sdk)", "", "active(sdk)"),
        (DUE, failing(ErrorKind::RejectedToken), "absent", "migrated cleared, sdk cleared", "absent"),
        (
            DUE,
            Operator::answering(Ok(Refreshed::OptedOut)),
            "opted_out",
            "migrated cleared, opt-out set, sdk cleared",
            "opted_out",
        ),
        (EXPIRED, failing(ErrorKind::Transient), "unavailable", "", "unavailable"),
        (EXPIRED, failing(ErrorKind::RejectedInput), "absent", "migrated cleared, sdk cleared", "absent"),
    ] {
        let mut site = with_sdk_identity(operator.clone());
        site.look().await;
        site.wait_until(millis);
        assert_eq!(outcome(&site.look().await), expect(saw, writes), "{millis} {operator:?}");
        assert_eq!(outcome(&site.look().await), expect(then, ""), "{millis} {operator:?}");
        assert_eq!(site.jar.value(ANCHOR), None, "no page sets an anchor: {millis} {operator:?}");
    }
}

#[tokio::test]
async fn js_sdk_cookie_is_taken_over_unchanged_during_a_concurrent_refresh() {
    let mut site = with_sdk_identity(Operator::answering(new_pair("new")));
    site = site.configured(|layer| layer.refresh_mode(RefreshMode::Concurrent));
    site.wait_until(DUE);
    assert_eq!(outcome(&site.look().await), expect("active(sdk)", TAKEN_OVER));
    yield_now().await;
    assert_eq!(outcome(&site.look().await), expect("active(new)", TAKEN_OVER));
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
    let cookie = |name: Literal, token: &str| format!("{name}={}", encoded(&json_of(token)));
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
async fn js_sdk_cookie_is_ignored_if_the_request_has_an_anchor() {
    let mut site = with_sdk_identity(Operator::never());
    let sdk = site.jar.clone();
    site.login("own").await;
    let both = site.jar.clone().with(SDK, sdk.value(SDK).unwrap());
    for (jar, saw, writes) in [
        (both.clone(), "active(own)", ""),
        (both.clone().without(IDENTITY), "absent", ""),
        (both.clone().with(ANCHOR, "unreadable"), "absent", ""),
        (both.clone().with(ANCHOR, "none"), "absent", "identity cleared"),
        (both.without(ANCHOR), "active(sdk)", "identity cleared, migrated set, sdk cleared"),
    ] {
        site.jar = jar;
        assert_eq!(outcome(&site.look().await), expect(saw, writes));
    }
}

#[tokio::test]
async fn js_sdk_cookie_is_ignored_beside_what_was_migrated_before() {
    let mut site = with_sdk_identity(Operator::never());
    site.look().await;
    let again = site.with_sdk_token("again").jar;
    site.jar = site.jar.with_from(&again, SDK);
    assert_eq!(outcome(&site.look().await), expect("active(sdk)", ""));
    let mut opted_out = with_sdk_identity(Operator::answering(Ok(Refreshed::OptedOut)));
    opted_out.wait_until(DUE);
    opted_out.look().await;
    opted_out.jar = opted_out.jar.with_from(&again, SDK);
    assert_eq!(outcome(&opted_out.look().await), expect("opted_out", ""));
}

#[tokio::test]
async fn migrated_state_under_an_unknown_key_is_absent_and_kept() {
    let site = with_sdk_identity(Operator::never());
    let again = site.jar.clone();
    let mut other_keys = site;
    other_keys.look().await;
    let site = Site { jar: other_keys.jar.with_from(&again, SDK), ..Site::offline().migrating() };
    assert_eq!(outcome(&site.look_once().await), expect("absent", ""));
}

#[tokio::test]
async fn migrated_identity_is_ended_by_a_login_and_a_stated_opt_out() {
    for (update, set, saw) in [
        (EuidUpdate::login(identity("own")), "identity set, migrated cleared, anchor set", "active(own)"),
        (EuidUpdate::opt_out(), "migrated cleared, anchor set, opt-out set", "opted_out"),
    ] {
        let mut site = with_sdk_identity(Operator::never());
        let before = site.jar.clone();
        site.look().await;
        let migrated = site.jar.clone();
        assert_eq!(site.update(update).await.writes(), format!("{set}, sdk cleared"));
        // A late response of another tab, and the SDK's cookie with a domain that the site does not know.
        site.jar = site.jar.with_from(&migrated, MIGRATED).with_from(&before, SDK);
        assert_eq!(outcome(&site.look().await), expect(saw, "migrated cleared"));
        assert_eq!(outcome(&site.look().await), expect(saw, ""));
    }
}

#[tokio::test]
async fn logout_leaves_an_anchor_that_names_nothing_for_400_days() {
    let mut site = with_sdk_identity(Operator::never());
    site.look().await;
    let visit = site.update(EuidUpdate::logout()).await;
    assert_eq!(visit.writes(), "migrated cleared, anchor ended, sdk cleared");
    let line = set_cookies(visit.response.headers())[0].to_str().unwrap();
    assert_eq!(line, format!("{ANCHOR}=none; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=34560000"));
    assert_eq!(site.jar.names(), [ANCHOR]);
    for _ in 0..2 {
        assert_eq!(outcome(&site.look().await), expect("absent", ""), "no page removes it");
    }
    site.jar.wait_until(at(LONGEST - 1000));
    assert_eq!(site.jar.value(ANCHOR), Some("none"));
    assert_eq!(site.update(EuidUpdate::logout()).await.writes(), ENDED);
}

#[tokio::test]
async fn js_sdk_cookie_of_a_wrong_domain_does_not_undo_a_logout() {
    let mut site = with_sdk_identity(Operator::answering(new_pair("new")));
    let before = site.jar.clone();
    site.look().await;
    let migrated = site.jar.clone();
    site.update(EuidUpdate::logout()).await;
    for millis in [0, DUE, EXPIRED] {
        site.wait_until(millis);
        // No response removes it, and another tab's late response migrates it once more.
        site.jar = site.jar.with_from(&before, SDK).with_from(&migrated, MIGRATED);
        assert_eq!(outcome(&site.look().await), expect("absent", "migrated cleared"), "{millis}");
        assert_eq!(outcome(&site.look().await), expect("absent", ""), "{millis}");
    }
    site.update(later_login()).await;
    assert_eq!(site.look().await.saw(), "active(own)");
    site.update(EuidUpdate::logout()).await;
    site.jar = site.jar.with_from(&before, SDK);
    assert_eq!(outcome(&site.look().await), expect("absent", ""), "after a login, a logout sets it again");
}

/// Returns a login that is fresh for longer than the SDK's identity is valid.
fn later_login() -> EuidUpdate {
    EuidUpdate::login(identity_until("own", [2 * EXPIRED, 3 * EXPIRED, REFRESH_EXPIRES]))
}

/// Applies the responses of two tabs in both orders. Returns the browsers.
fn in_both_orders(site: &Site, one: &Visit, other: &Visit) -> [Site; 2] {
    [[one, other], [other, one]].map(|visits| {
        let mut browser = site.clone();
        visits.iter().for_each(|visit| browser.jar.apply(visit.response.headers()));
        browser
    })
}

#[tokio::test]
async fn login_or_logout_in_one_tab_counts_whenever_the_migration_of_another_arrives() {
    let updates: [(fn() -> EuidUpdate, &str); 3] =
        [(later_login, "active(own)"), (EuidUpdate::opt_out, "opted_out"), (EuidUpdate::logout, "absent")];
    for (update, saw) in updates {
        for (millis, answer, leftover) in [
            (0, new_pair("new"), "migrated cleared"),
            (DUE, new_pair("new"), "migrated cleared"),
            (DUE, Ok(Refreshed::OptedOut), "opt-out cleared"),
        ] {
            let site = with_sdk_identity(Operator::answering(answer));
            site.wait_until(millis);
            let migration = site.look_once().await;
            // A request without the SDK's cookie does not wait for its refresh.
            let tab = site.jar.clone().without(SDK);
            let change = site.send(tab.request(), move |_, response| update().attach(response)).await;
            for mut browser in in_both_orders(&site, &migration, &change) {
                assert_eq!(outcome(&browser.look().await), expect(saw, leftover), "{millis} {saw}");
                assert_eq!(outcome(&browser.look().await), expect(saw, ""), "{millis} {saw}");
            }
        }
    }
}

#[tokio::test]
async fn opt_out_found_in_one_tab_counts_whenever_the_migration_of_another_arrives() {
    let site = with_sdk_identity(Operator::answering(Ok(Refreshed::OptedOut)));
    let migration = site.look_once().await;
    site.wait_until(DUE);
    let found = site.look_once().await;
    assert_eq!((migration.writes().as_str(), found.writes().as_str()), (TAKEN_OVER, OPTED_OUT));
    for mut browser in in_both_orders(&site, &migration, &found) {
        let visit = browser.look().await;
        assert_eq!(outcome(&visit), expect("opted_out", "migrated cleared, sdk cleared"));
        assert_eq!(outcome(&browser.look().await), expect("opted_out", ""));
        assert_eq!(browser.jar.names(), [browser.jar.name(OPT_OUT)]);
        assert_eq!(browser.jar.name(OPT_OUT), MIGRATED_OPT_OUT);
    }
}

#[tokio::test]
async fn node_that_does_not_migrate_keeps_what_was_migrated_until_a_login_or_a_logout() {
    let keys = ring();
    let mut migrating = Site::with_keys(keys.clone(), Operator::never()).migrating().with_sdk_token("sdk");
    assert_eq!(migrating.look().await.writes(), TAKEN_OVER);
    let mut site = Site { jar: migrating.jar.clone(), ..Site::with_keys(keys, Operator::never()) };
    assert_eq!(outcome(&site.look().await), expect("absent", ""));
    assert_eq!(migrating.look().await.saw(), "active(sdk)", "a roll-out of the setting loses nothing");
    let mut other = site.clone();
    // Other nodes migrate: a late migration must not undo the logout, nor a second logout here.
    assert_eq!(site.update(EuidUpdate::logout()).await.writes(), "migrated cleared, anchor ended");
    assert_eq!(site.update(EuidUpdate::logout()).await.writes(), "anchor ended");
    assert_eq!(outcome(&site.look().await), expect("absent", ""));
    assert_eq!(other.login("own").await.writes(), "identity set, migrated cleared, anchor set");
}

#[tokio::test]
async fn logout_or_withdrawal_on_a_node_that_does_not_migrate_counts_whenever_a_migrated_refresh_arrives() {
    let keys = ring();
    let mut migrating = Site::with_keys(keys.clone(), Operator::answering(new_pair("new"))).migrating();
    migrating = migrating.with_sdk_token("sdk");
    migrating.look().await;
    migrating.wait_until(DUE);
    let refresh = migrating.look_once().await;
    let node = Site { jar: migrating.jar.clone(), ..Site::with_keys(keys, Operator::never()) };
    let logout = node.send(node.jar.request(), |_, response| EuidUpdate::logout().attach(response)).await;
    let withdrawn = node.clone().configured(|layer| layer.consent(|_| Consent::Withdrawn)).look_once().await;
    for end in [logout, withdrawn] {
        for mut browser in in_both_orders(&migrating, &refresh, &end) {
            assert_eq!(browser.look().await.saw(), "absent");
        }
    }
}

#[tokio::test]
async fn js_sdk_cookie_is_ignored_by_default() {
    let mut site = Site { jar: with_sdk_identity(Operator::never()).jar, ..Site::offline() };
    assert_eq!(outcome(&site.look().await), expect("absent", ""));
    assert_eq!(site.update(EuidUpdate::logout()).await.writes(), "anchor cleared");
}

#[tokio::test]
async fn js_sdk_cookie_stays_while_consent_is_withheld_and_is_cleared_when_it_is_withdrawn() {
    let operator = Operator::answering(new_pair("new"));
    for (millis, is_opt_out) in [(0, false), (DUE, false), (EXPIRED, false), (0, true)] {
        for (consent, saw, writes) in [(Consent::Withheld, "withheld", ""), (Consent::Withdrawn, "withheld", ENDED)] {
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
        assert_eq!(outcome(&site.look_as(Some("bob")).await), expect("absent", "migrated cleared, sdk cleared"));
    }
}

#[tokio::test]
async fn update_of_a_handler_clears_the_js_sdk_cookie() {
    for millis in [0, DUE, EXPIRED] {
        for (update, expected, then) in [
            (EuidUpdate::logout(), ENDED, "absent"),
            (EuidUpdate::login(identity("another")), "identity set, anchor set, sdk cleared", "another"),
            (EuidUpdate::opt_out(), "anchor set, opt-out set, sdk cleared", "opted_out"),
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
    assert_eq!(writes(response.headers()), ENDED);
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
