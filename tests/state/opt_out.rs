//! The record of an opt-out that a refresh has found: no late answer brings the identity back, and it
//! says nothing of anybody else's.

use std::time::Duration;

use tower_euid::clock::UnixMillis;
use tower_euid::{EuidUpdate, Refreshed};

use crate::support::{
    ANCHOR, BOTH_CLEARED, BOTH_SET, DUE, EXPIRED, IDENTITY, Jar, OPT_OUT, Operator, Site, expect, identity_until,
    outcome, set_cookies,
};

/// For how long it is told.
const REMEMBERED: i64 = 72 * 3_600_000;

async fn due(operator: Operator) -> Site {
    let mut site = Site::new(operator);
    site.login("old").await;
    site.wait_until(DUE);
    site
}

/// A browser whose refresh has found the opt-out.
async fn opted_out() -> Site {
    let mut site = due(Operator::answering(Ok(Refreshed::OptedOut))).await;
    site.look().await;
    site
}

#[tokio::test]
async fn it_has_a_cookie_of_its_own_and_leaves_the_anchor_alone() {
    let mut site = due(Operator::answering(Ok(Refreshed::OptedOut))).await;
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
async fn it_is_told_for_72_hours_and_then_not() {
    let site = opted_out().await;
    for (millis, saw) in [(DUE + REMEMBERED - 1, "opted_out"), (DUE + REMEMBERED, "absent")] {
        site.wait_until(millis);
        assert_eq!(outcome(&site.clone().look().await), expect(saw, ""), "{millis}");
    }
}

#[tokio::test]
async fn an_identity_that_comes_back_beside_it_is_cleared_before_and_after_its_end() {
    let mut site = due(Operator::answering(Ok(Refreshed::OptedOut))).await;
    let before = site.jar.clone();
    site.look().await;
    // As by a refresh of another node, asked before the opt-out and answered after it.
    site.jar.put(IDENTITY, before.value(IDENTITY).unwrap());
    for (millis, saw) in [(DUE, "opted_out"), (DUE + REMEMBERED - 1, "opted_out"), (DUE + REMEMBERED, "absent")] {
        site.wait_until(millis);
        assert_eq!(outcome(&site.clone().look().await), expect(saw, "identity cleared"), "{millis}");
    }
}

#[tokio::test(start_paused = true)]
async fn late_after_anothers_login_it_costs_that_login_its_pair_and_is_told_to_nobody() {
    let slow = Operator::answering(Ok(Refreshed::OptedOut)).after(Duration::from_millis(200));
    let mut site = due(slow).await;
    let another = EuidUpdate::login(identity_until("another", [EXPIRED, 2 * EXPIRED, 3 * EXPIRED]));
    let from_elsewhere = site.jar.clone().without(IDENTITY);
    let (late, login) = tokio::join!(
        site.send(site.jar.request(), |_, _| ()),
        site.send(from_elsewhere.request(), move |_, response| another.clone().attach(response)),
    );
    assert_eq!((late.writes().as_str(), login.writes().as_str()), ("identity cleared, opt-out recorded", BOTH_SET));
    let mut in_time = site.clone();
    for answer in [&late, &login] {
        in_time.jar.apply(answer.response.headers());
    }
    assert_eq!(outcome(&in_time.look().await), expect("active(another)", ""));
    for answer in [&login, &late] {
        site.jar.apply(answer.response.headers());
    }
    assert_eq!(outcome(&site.look().await), expect("absent", ""));
}

#[tokio::test(start_paused = true)]
async fn late_after_a_logout_it_is_told_to_nobody() {
    let mut site = due(Operator::answering(Ok(Refreshed::OptedOut)).after(Duration::from_millis(200))).await;
    let late = site.send(site.jar.request(), |_, _| ()).await;
    site.jar = site.jar.without(IDENTITY);
    assert_eq!(site.update(EuidUpdate::logout()).await.writes(), BOTH_CLEARED);
    site.jar.apply(late.response.headers());
    assert_eq!(outcome(&site.look().await), expect("absent", ""));
}

#[tokio::test]
async fn put_beside_another_login_by_hand_it_is_told_to_nobody() {
    let record = opted_out().await;
    let mut other = record.clone();
    let later = identity_until("other", [EXPIRED, 2 * EXPIRED, 3 * EXPIRED]);
    other.update(EuidUpdate::login(later)).await;
    let value = record.jar.value(OPT_OUT).unwrap();
    for (jar, saw) in [
        (other.jar.clone().with(OPT_OUT, value), "active(other)"),
        (record.jar.clone().without(ANCHOR), "absent"),
        (Jar::default().with(OPT_OUT, value), "absent"),
    ] {
        let visit = record.send(jar.request(), |_, _| ()).await;
        assert_eq!(outcome(&visit), expect(saw, ""));
    }
}

#[tokio::test]
async fn login_and_logout_end_it() {
    let mut site = opted_out().await;
    let again = EuidUpdate::login(identity_until("again", [EXPIRED, 2 * EXPIRED, 3 * EXPIRED]));
    site.update(again).await;
    assert_eq!(site.look().await.saw(), "active(again)");
    let mut site = opted_out().await;
    assert_eq!(site.update(EuidUpdate::logout()).await.writes(), BOTH_CLEARED);
    assert_eq!(site.look().await.saw(), "absent");
}

#[tokio::test]
async fn an_operator_is_asked_once_however_often_the_page_is_seen() {
    let operator = Operator::answering(Ok(Refreshed::OptedOut));
    let mut site = due(operator.clone()).await;
    let due = site.jar.clone();
    site.look().await;
    site.wait_until(EXPIRED);
    site.look().await;
    assert_eq!(operator.calls(), 1);
    // A tab that still has the identity hears of it too, and comes to a record of its own.
    let tab = Site { jar: due, ..site };
    assert_eq!(tab.clone().look().await.writes(), "identity cleared, opt-out recorded");
}

#[tokio::test]
async fn what_a_handler_states_is_told_until_its_moment_and_not_after() {
    let mut site = Site::offline();
    site.update(EuidUpdate::opt_out()).await;
    let until = UnixMillis::from_millis(crate::support::START.as_millis() + REMEMBERED);
    assert_eq!(site.jar.value(ANCHOR), Some(&*format!("out.{}", until.as_millis() / 1000)));
    for (millis, saw) in [(REMEMBERED - 1, "opted_out"), (REMEMBERED, "absent")] {
        site.wait_until(millis);
        assert_eq!(outcome(&site.look().await), expect(saw, ""));
    }
}
