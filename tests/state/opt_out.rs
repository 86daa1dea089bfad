//! The record of an opt-out that a refresh has found.
//!
//! It is a cookie of its own, so that a late response can't bring the identity back. It counts only for the login that
//! the anchor names.

use std::time::Duration;

use tower_euid::{EuidUpdate, Refreshed};

use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, Jar, LOGIN_REMOVED, LOGIN_WRITTEN, NOTHING, OPT_OUT, Operator, Site, at, expect,
    identity_until, outcome, set_cookies,
};

/// How long an opt-out counts, in milliseconds.
const REMEMBERED: i64 = 72 * 3_600_000;

/// Returns an operator that reports an opt-out.
fn operator() -> Operator {
    Operator::answering(Ok(Refreshed::OptedOut))
}

/// Returns a login that is valid for longer than the others.
fn later_login(name: &str) -> EuidUpdate {
    EuidUpdate::login(identity_until(name, [EXPIRED, 2 * EXPIRED, 3 * EXPIRED]))
}

#[tokio::test]
async fn opt_out_record_has_a_cookie_of_its_own_and_leaves_the_anchor_unchanged() {
    let mut site = Site::new(operator()).logged_in(DUE).await;
    let anchor = site.jar.pair(ANCHOR);
    let visit = site.look().await;
    assert_eq!(outcome(&visit), expect("opted_out", "identity cleared, opt-out recorded"));
    let [_, line] = set_cookies(visit.response.headers())[..] else { panic!("two cookies") };
    let attributes = "; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=33696000";
    assert!(line.to_str().unwrap().ends_with(attributes), "{line:?}");
    assert_eq!(site.jar.pair(ANCHOR), anchor);
    assert_eq!(outcome(&site.look().await), expect("opted_out", ""));
}

#[tokio::test]
async fn opt_out_record_counts_for_72_hours() {
    let site = Site::new(operator()).opted_out().await;
    for (millis, saw) in [(DUE + REMEMBERED - 1, "opted_out"), (DUE + REMEMBERED, "absent")] {
        site.wait_until(millis);
        assert_eq!(outcome(&site.look_once().await), expect(saw, ""), "{millis}");
    }
}

#[tokio::test]
async fn opt_out_record_clears_an_identity_of_its_login_before_and_after_72_hours() {
    let mut site = Site::new(operator()).logged_in(DUE).await;
    let before = site.jar.clone();
    site.look().await;
    // Another node's call began before the opt-out, and its response sets the identity again.
    site.jar.put(IDENTITY, before.value(IDENTITY).unwrap());
    for (millis, saw) in [(DUE, "opted_out"), (DUE + REMEMBERED - 1, "opted_out"), (DUE + REMEMBERED, "absent")] {
        site.wait_until(millis);
        assert_eq!(outcome(&site.look_once().await), expect(saw, "identity cleared"), "{millis}");
    }
}

#[tokio::test(start_paused = true)]
async fn opt_out_record_that_arrives_after_another_login_clears_its_identity_but_is_not_shown() {
    let site = Site::new(operator().after(Duration::from_millis(200))).logged_in(DUE).await;
    // With an identity, the login would wait for the refresh too.
    let other_tab = site.jar.clone().without(IDENTITY);
    let another = later_login("another");
    let (late, login) = tokio::join!(
        site.look_once(),
        site.send(other_tab.request(), move |_, response| another.clone().attach(response)),
    );
    assert_eq!(
        (late.writes().as_str(), login.writes().as_str()),
        ("identity cleared, opt-out recorded", LOGIN_WRITTEN)
    );
    for (responses, saw) in [([&late, &login], "active(another)"), ([&login, &late], "absent")] {
        let mut browser = site.clone();
        for visit in responses {
            browser.jar.apply(visit.response.headers());
        }
        assert_eq!(outcome(&browser.look().await), expect(saw, ""));
    }
}

#[tokio::test(start_paused = true)]
async fn opt_out_record_that_arrives_after_a_logout_is_not_shown() {
    let mut site = Site::new(operator().after(Duration::from_millis(200))).logged_in(DUE).await;
    // With an identity, the logout would wait for the refresh too.
    let other_tab = site.jar.clone().without(IDENTITY);
    let (late, logout) = tokio::join!(
        site.look_once(),
        site.send(other_tab.request(), |_, response| EuidUpdate::logout().attach(response)),
    );
    assert_eq!(
        (late.writes().as_str(), logout.writes().as_str()),
        ("identity cleared, opt-out recorded", LOGIN_REMOVED)
    );
    for visit in [&logout, &late] {
        site.jar.apply(visit.response.headers());
    }
    assert_eq!(outcome(&site.look().await), expect("absent", ""));
}

#[tokio::test]
async fn opt_out_record_without_the_anchor_of_its_login_is_not_shown() {
    let opted_out = Site::new(operator()).opted_out().await;
    let mut other = opted_out.clone();
    other.update(later_login("other")).await;
    let record = opted_out.jar.value(OPT_OUT).unwrap();
    for (jar, saw) in [
        (other.jar.clone().with(OPT_OUT, record), "active(other)"),
        (opted_out.jar.clone().without(ANCHOR), "absent"),
        (Jar::default().with(OPT_OUT, record), "absent"),
    ] {
        let visit = opted_out.send(jar.request(), NOTHING).await;
        assert_eq!(outcome(&visit), expect(saw, ""));
    }
}

#[tokio::test]
async fn opt_out_record_ends_with_a_login_or_a_logout() {
    let mut site = Site::new(operator()).opted_out().await;
    site.update(later_login("again")).await;
    assert_eq!(site.look().await.saw(), "active(again)");
    let mut site = Site::new(operator()).opted_out().await;
    assert_eq!(site.update(EuidUpdate::logout()).await.writes(), LOGIN_REMOVED);
    assert_eq!(site.look().await.saw(), "absent");
}

#[tokio::test]
async fn opt_out_record_saves_further_calls() {
    let operator = operator();
    let mut site = Site::new(operator.clone()).logged_in(DUE).await;
    let due = site.jar.clone();
    site.look().await;
    site.wait_until(EXPIRED);
    site.look().await;
    assert_eq!(operator.calls(), 1);
    // A tab that still has the identity finds the opt-out too, and gets a record of its own.
    let tab = Site { jar: due, ..site };
    assert_eq!(tab.look_once().await.writes(), "identity cleared, opt-out recorded");
}

#[tokio::test]
async fn opt_out_of_a_handler_is_noted_in_the_anchor_with_its_end() {
    // `policy` has the test of that end.
    let mut site = Site::offline();
    site.update(EuidUpdate::opt_out()).await;
    let end = at(REMEMBERED).as_millis() / 1000;
    assert_eq!(site.jar.value(ANCHOR), Some(&*format!("out.{end}")));
}
