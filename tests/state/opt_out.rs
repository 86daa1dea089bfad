//! The record of an opt-out: *found* by a refresh, or *stated* by a handler at a login.
//!
//! It is a cookie of its own, so that a late response can't bring the identity back. It counts only for the login that
//! the anchor names. A stated opt-out is a login without an identity.

use std::time::Duration;

use tower_euid::error::ErrorKind;
use tower_euid::{Consent, EuidUpdate, Refreshed};

use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, Jar, LOGIN_WRITTEN, NOTHING, OPT_OUT, OPTED_OUT, Operator, Site, at, expect,
    failure, identity_until, new_pair, outcome, ring, set_cookies,
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
    assert_eq!(outcome(&visit), expect("opted_out", "identity cleared, opt-out set"));
    let [line, _] = set_cookies(visit.response.headers())[..] else { panic!("two cookies") };
    let attributes = "; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=259200";
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
    site.jar = site.jar.with_from(&before, IDENTITY);
    for (millis, saw) in [(DUE, "opted_out"), (DUE + REMEMBERED - 1, "opted_out"), (DUE + REMEMBERED, "absent")] {
        site.wait_until(millis);
        assert_eq!(outcome(&site.look_once().await), expect(saw, "identity cleared"), "{millis}");
    }
}

#[tokio::test(start_paused = true)]
async fn opt_out_record_that_arrives_before_or_after_another_login_is_removed_and_not_shown() {
    let site = Site::new(operator().after(Duration::from_millis(200))).logged_in(DUE).await;
    // With an identity, the login would wait for the refresh too.
    let other_tab = site.jar.clone().without(IDENTITY);
    let another = later_login("another");
    let (late, login) = tokio::join!(
        site.look_once(),
        site.send(other_tab.request(), move |_, response| another.clone().attach(response)),
    );
    assert_eq!((late.writes().as_str(), login.writes().as_str()), ("identity cleared, opt-out set", LOGIN_WRITTEN));
    for responses in [[&late, &login], [&login, &late]] {
        let mut browser = site.clone();
        for visit in responses {
            browser.jar.apply(visit.response.headers());
        }
        assert_eq!(outcome(&browser.look().await), expect("active(another)", "opt-out cleared"));
        assert_eq!(outcome(&browser.look().await), expect("active(another)", ""));
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
    let writes = (late.writes(), logout.writes());
    assert_eq!(writes, ("identity cleared, opt-out set".to_owned(), "anchor cleared".to_owned()));
    for visit in [&logout, &late] {
        site.jar.apply(visit.response.headers());
    }
    assert_eq!(outcome(&site.look().await), expect("absent", "opt-out cleared"));
    assert_eq!(site.jar, Jar::default(), "no cookie remains");
}

#[tokio::test]
async fn opt_out_record_without_the_anchor_of_its_login_is_not_shown() {
    let opted_out = Site::new(operator()).opted_out().await;
    let mut other = opted_out.clone();
    other.update(later_login("other")).await;
    for (jar, saw) in [
        (other.jar.clone().with_from(&opted_out.jar, OPT_OUT), "active(other)"),
        (opted_out.jar.clone().without(ANCHOR), "absent"),
        (Jar::default().with_from(&opted_out.jar, OPT_OUT), "absent"),
    ] {
        let visit = opted_out.send(jar.request(), NOTHING).await;
        assert_eq!(outcome(&visit), expect(saw, "opt-out cleared"));
    }
}

#[tokio::test]
async fn opt_out_record_ends_with_a_login_or_a_logout() {
    let mut site = Site::new(operator()).opted_out().await;
    let login = site.update(later_login("again")).await;
    assert_eq!(outcome(&login), expect("opted_out", "identity set, anchor set, opt-out cleared"));
    assert_eq!(outcome(&site.look().await), expect("active(again)", ""));
    let mut site = Site::new(operator()).opted_out().await;
    assert_eq!(site.update(EuidUpdate::logout()).await.writes(), "anchor cleared, opt-out cleared");
    assert_eq!(outcome(&site.look().await), expect("absent", ""));
    assert_eq!(site.jar, Jar::default(), "no cookie remains");
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
    assert_eq!(tab.look_once().await.writes(), "identity cleared, opt-out set");
}

#[tokio::test]
async fn opt_out_record_expires_after_72_hours_and_the_next_refresh_finds_the_opt_out_again() {
    // The pair of another node's late response. Its refresh token lives longer than the record.
    let keys = ring();
    let mut site = Site::with_keys(keys.clone(), operator());
    site.update(EuidUpdate::login(identity_until("old", [DUE, EXPIRED, 10 * REMEMBERED]))).await;
    let before = site.jar.clone();
    site.wait_until(DUE);
    site.look().await;
    site.jar.wait_until(at(DUE + REMEMBERED));
    assert_eq!(site.jar.names(), [ANCHOR], "the record has expired");
    for (answer, saw, writes) in [
        (Ok(Refreshed::OptedOut), "opted_out", "identity cleared, opt-out set"),
        (failure(ErrorKind::Transient), "unavailable", ""),
    ] {
        let jar = site.jar.clone().with_from(&before, IDENTITY);
        let mut site = Site { jar, ..Site::with_keys(keys.clone(), Operator::answering(answer)) };
        site.wait_until(DUE + REMEMBERED);
        assert_eq!(outcome(&site.look().await), expect(saw, writes));
    }
}

/// Returns a browser whose visitor has opted out at a login.
async fn stated() -> Site {
    let mut site = Site::offline();
    assert_eq!(outcome(&site.update(EuidUpdate::opt_out()).await), expect("absent", "anchor set, opt-out set"));
    site
}

#[tokio::test]
async fn stated_opt_out_is_a_login_with_a_record_in_place_of_an_identity() {
    let mut site = Site::offline();
    let visit = site.update(EuidUpdate::opt_out()).await;
    let [anchor, record] = set_cookies(visit.response.headers())[..] else { panic!("two cookies") };
    let attributes = "; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=259200";
    for (line, name) in [(anchor, ANCHOR), (record, OPT_OUT)] {
        assert_eq!(line.to_str().unwrap(), format!("{}{attributes}", site.jar.pair(name)));
    }
    let lineage = site.jar.value(ANCHOR).unwrap();
    assert_eq!((lineage.len(), site.jar.name(OPT_OUT)), (22, format!("{OPT_OUT}{}", &lineage[..4])));
    for _ in 0..2 {
        assert_eq!(outcome(&site.look().await), expect("opted_out", ""));
    }
}

#[tokio::test]
async fn stated_opt_out_counts_for_72_hours_and_leaves_no_cookie() {
    // `policy` has the test to the millisecond.
    let mut site = stated().await;
    for (millis, saw, cookies) in [(REMEMBERED - 1000, "opted_out", 2), (REMEMBERED, "absent", 0)] {
        site.wait_until(millis);
        site.jar.wait_until(at(millis));
        assert_eq!(outcome(&site.look().await), expect(saw, ""), "{millis}");
        assert_eq!(site.jar.names().len(), cookies, "{millis}");
    }
}

#[tokio::test]
async fn stated_opt_out_ends_the_login_or_opt_out_before_it() {
    let mut site = Site::offline().logged_in(0).await;
    let identity = site.jar.clone();
    assert_eq!(site.update(EuidUpdate::opt_out()).await.writes(), OPTED_OUT);
    let first = site.jar.clone();
    // "opt-out set" and "opt-out cleared" have different tags.
    assert_eq!(site.update(EuidUpdate::opt_out()).await.writes(), "anchor set, opt-out set, opt-out cleared");
    assert_ne!(site.jar.name(OPT_OUT), first.name(OPT_OUT));
    assert_eq!(site.jar.names().len(), 2);
    // Late responses of both come back.
    site.jar = site.jar.with_from(&identity, IDENTITY).with(first.name(OPT_OUT), first.value(OPT_OUT).unwrap());
    assert_eq!(outcome(&site.look().await), expect("opted_out", "identity cleared, opt-out cleared"));
    assert_eq!(outcome(&site.look().await), expect("opted_out", ""));
}

#[tokio::test]
async fn stated_opt_out_ends_with_a_login_or_a_logout() {
    let mut site = stated().await;
    assert_eq!(site.update(later_login("again")).await.writes(), "identity set, anchor set, opt-out cleared");
    assert_eq!(outcome(&site.look().await), expect("active(again)", ""));
    let mut site = stated().await;
    assert_eq!(site.update(EuidUpdate::logout()).await.writes(), "anchor cleared, opt-out cleared");
    assert_eq!(site.jar, Jar::default(), "no cookie remains");
}

#[tokio::test]
async fn stated_opt_out_ends_with_withdrawn_consent() {
    for (consent, saw, writes) in
        [(Consent::Withheld, "opted_out", ""), (Consent::Withdrawn, "withheld", "anchor cleared, opt-out cleared")]
    {
        let mut site = stated().await.configured(|layer| layer.consent(move |_| consent));
        assert_eq!(outcome(&site.look().await), expect(saw, writes), "{consent:?}");
    }
}

#[tokio::test]
async fn stated_opt_out_is_shown_to_its_subject_alone() {
    let mut site = Site::offline().with_subject();
    site.update(EuidUpdate::opt_out().subject("ann")).await;
    let jar = site.jar.clone();
    for (user, saw) in
        [(Some("ann"), "opted_out"), (None, "absent"), (Some("bob"), "absent"), (Some("ann"), "opted_out")]
    {
        assert_eq!(outcome(&site.look_as(user).await), expect(saw, ""), "{user:?}");
    }
    assert_eq!(site.jar, jar);
    let mut unbound = Site::offline().with_subject();
    unbound.update(EuidUpdate::opt_out()).await;
    for user in [Some("ann"), None, Some("bob")] {
        assert_eq!(outcome(&unbound.look_as(user).await), expect("opted_out", ""), "{user:?}");
    }
}

#[tokio::test]
async fn stated_opt_out_of_another_subject_is_ended_by_a_login() {
    let mut site = Site::offline().with_subject();
    site.update(EuidUpdate::opt_out().subject("ann")).await;
    let login = site.update(later_login("bobs").subject("bob")).await;
    assert_eq!(login.writes(), "identity set, anchor set, opt-out cleared");
    assert_eq!(outcome(&site.look_as(Some("bob")).await), expect("active(bobs)", ""));
}

#[tokio::test]
async fn last_applied_of_a_login_and_a_stated_opt_out_counts() {
    let site = Site::offline().logged_in(0).await;
    let login = site.send(site.jar.request(), |_, response| later_login("later").attach(response)).await;
    let stated = site.send(site.jar.request(), |_, response| EuidUpdate::opt_out().attach(response)).await;
    for (responses, saw, leftover) in
        [([&login, &stated], "opted_out", "identity cleared"), ([&stated, &login], "active(later)", "opt-out cleared")]
    {
        let mut browser = site.clone();
        for visit in responses {
            browser.jar.apply(visit.response.headers());
        }
        assert_eq!(outcome(&browser.look().await), expect(saw, leftover));
        assert_eq!(outcome(&browser.look().await), expect(saw, ""));
    }
}

#[tokio::test(start_paused = true)]
async fn late_refresh_of_the_previous_login_does_not_undo_a_stated_opt_out() {
    for (answer, leftover) in [(new_pair("new"), "identity cleared"), (Ok(Refreshed::OptedOut), "opt-out cleared")] {
        let mut site = Site::new(Operator::answering(answer)).logged_in(DUE).await;
        let late = site.look_once().await;
        let other_tab = site.jar.clone().without(IDENTITY);
        let stated = site.send(other_tab.request(), |_, response| EuidUpdate::opt_out().attach(response)).await;
        for visit in [&stated, &late] {
            site.jar.apply(visit.response.headers());
        }
        assert_eq!(outcome(&site.look().await), expect("opted_out", leftover));
        assert_eq!(outcome(&site.look().await), expect("opted_out", ""));
    }
}
