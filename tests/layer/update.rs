//! `EuidUpdate`: a handler logs a visitor in or out, or notes an opt-out.
//!
//! 1. A login replaces any previous identity; a logout ends it, even one that this node can't read. Both remove all
//!    cookies of the layer that came, and no others but the anchor.
//! 2. Precedence in one response: logout > opt-out > login > refresh.
//! 3. A refresh that ends after a logout, an opt-out or another login makes no token active, and costs the other login
//!    nothing.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::{Euid, EuidUpdate, Refreshed};

use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, Jar, LOGIN_REMOVED, LOGIN_REPLACED, LOGIN_WRITTEN, Log, OPT_OUT, OPTED_OUT,
    Operator, Site, expect, failure, identity, identity_until, new_pair, outcome,
};

#[tokio::test]
async fn login_sets_both_cookies() {
    assert_eq!(Site::offline().login("old").await.writes(), LOGIN_WRITTEN);
}

#[tokio::test]
async fn login_makes_its_token_active_for_the_next_request() {
    assert_eq!(Site::offline().logged_in(0).await.look().await.saw(), "active(old)");
}

#[tokio::test]
async fn login_of_another_person_replaces_the_first() {
    let mut site = Site::offline().logged_in(0).await;
    let visit = site.login("another").await;
    assert_eq!(outcome(&visit), expect("active(old)", LOGIN_REPLACED));
    assert_eq!(site.look().await.saw(), "active(another)");
}

#[tokio::test]
async fn login_overrides_a_refresh_of_the_same_request() {
    let mut site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    let visit = site.update(EuidUpdate::login(identity_until("another", [DUE + 1, EXPIRED, EXPIRED]))).await;
    assert_eq!(outcome(&visit), expect("active(new)", LOGIN_REPLACED));
    assert_eq!(site.look().await.saw(), "active(another)");
}

#[tokio::test]
async fn logout_clears_the_anchor_and_all_that_came_in_every_state() {
    let site = Site::offline().logged_in(0).await;
    let foreign = Site::offline().logged_in(0).await.jar;
    let readable = site.jar.clone();
    let mut opted_out = Site::offline();
    opted_out.update(EuidUpdate::opt_out()).await;
    let jars = [
        ("nothing", Jar::default(), "anchor cleared"),
        ("readable", readable.clone(), LOGIN_REMOVED),
        ("identity only", readable.clone().without(ANCHOR), LOGIN_REMOVED),
        ("anchor only", readable.clone().without(IDENTITY), "anchor cleared"),
        ("garbage", Jar::default().with(format!("{IDENTITY}abcd"), "x").with(ANCHOR, "x"), LOGIN_REMOVED),
        (
            "opt-out of another login",
            readable.with_from(&opted_out.jar, OPT_OUT),
            "identity cleared, anchor cleared, opt-out cleared",
        ),
        ("opt-out", opted_out.jar, "anchor cleared, opt-out cleared"),
        ("unknown key", foreign, LOGIN_REMOVED),
    ];
    for (state, jar, expected) in jars {
        let mut site = Site { jar, ..site.clone() };
        assert_eq!(site.update(EuidUpdate::logout()).await.writes(), expected, "{state}");
        assert_eq!(site.jar, Jar::default(), "{state}");
    }
}

#[tokio::test]
async fn logout_overrides_a_refresh_of_the_same_request() {
    for answer in [new_pair("new"), Ok(Refreshed::OptedOut)] {
        let mut site = Site::new(Operator::answering(answer)).logged_in(DUE).await;
        assert_eq!(site.update(EuidUpdate::logout()).await.writes(), LOGIN_REMOVED);
    }
}

#[tokio::test]
async fn opt_out_clears_the_identity_and_is_remembered() {
    let mut site = Site::offline().logged_in(0).await;
    assert_eq!(site.update(EuidUpdate::opt_out()).await.writes(), OPTED_OUT);
    assert_eq!(site.look().await.saw(), "opted_out");
}

#[tokio::test]
async fn login_ends_a_remembered_opt_out() {
    let mut site = Site::offline();
    site.update(EuidUpdate::opt_out()).await;
    assert_eq!(site.login("new").await.writes(), "identity set, anchor set, opt-out cleared");
    assert_eq!(site.look().await.saw(), "active(new)");
}

#[tokio::test]
async fn logout_ends_a_remembered_opt_out() {
    let mut site = Site::offline();
    site.update(EuidUpdate::opt_out()).await;
    assert_eq!(site.update(EuidUpdate::logout()).await.writes(), "anchor cleared, opt-out cleared");
    assert_eq!(site.look().await.saw(), "absent");
}

#[cfg(feature = "client")]
#[tokio::test]
async fn update_from_any_generated_answer_ends_the_previous_identity() {
    use tower_euid::Generated;

    for (generated, writes, next) in [
        (Generated::Identity(identity("another")), LOGIN_REPLACED, "active(another)"),
        (Generated::OptedOut, OPTED_OUT, "opted_out"),
        (Generated::InsufficientConsent, LOGIN_REMOVED, "absent"),
    ] {
        let mut site = Site::offline().logged_in(0).await;
        assert_eq!(site.update(generated.into()).await.writes(), writes);
        assert_eq!(site.look().await.saw(), next);
    }
}

#[tokio::test]
async fn stronger_of_two_updates_wins_in_either_order() {
    let (login, opt_out, logout) = (EuidUpdate::login(identity("new")), EuidUpdate::opt_out(), EuidUpdate::logout());
    for (weaker, stronger, expected) in
        [(&login, &logout, LOGIN_REMOVED), (&opt_out, &logout, LOGIN_REMOVED), (&login, &opt_out, OPTED_OUT)]
    {
        for updates in [[weaker.clone(), stronger.clone()], [stronger.clone(), weaker.clone()]] {
            let handler = move |_: &Euid, response: &mut Response<()>| {
                updates.iter().cloned().for_each(|update| update.attach(response));
            };
            assert_eq!(Site::offline().logged_in(0).await.visit(handler).await.writes(), expected);
        }
    }
}

#[tokio::test]
async fn later_of_two_logins_in_one_response_counts() {
    let mut site = Site::offline();
    site.visit(|_, response| {
        EuidUpdate::login(identity("first")).attach(response);
        EuidUpdate::login(identity("second")).attach(response);
    })
    .await;
    assert_eq!(site.look().await.saw(), "active(second)");
}

/// Returns an update that logs another person in, who needs no refresh for a while.
fn login_of_another() -> EuidUpdate {
    EuidUpdate::login(identity_until("another", [EXPIRED, 2 * EXPIRED, 3 * EXPIRED]))
}

/// Returns a site whose browser got the response with `update` first, and then that of a slow refresh of the old login.
async fn late_refresh(update: EuidUpdate) -> Site {
    late_response(new_pair("late"), expect("active(late)", "identity set"), update).await
}

/// The same, with the operator's answer to the slow refresh and the outcome of its request.
async fn late_response(answer: Result<Refreshed, EuidError>, expected: (String, String), update: EuidUpdate) -> Site {
    let slow = Operator::answering(answer).after(Duration::from_millis(200));
    let mut site = Site::new(slow).logged_in(DUE).await;
    // The other request has no identity to refresh, so its response is there first.
    let anchor_only = site.jar.clone().without(IDENTITY);
    let (late, update) = tokio::join!(
        site.look_once(),
        site.send(anchor_only.request(), move |_, response| update.clone().attach(response)),
    );
    assert_eq!(outcome(&late), expected);
    site.jar.apply(update.response.headers());
    site.jar.apply(late.response.headers());
    site
}

#[tokio::test(start_paused = true)]
async fn refresh_that_ends_after_a_logout_restores_no_identity() {
    let mut site = late_refresh(EuidUpdate::logout()).await;
    assert!(site.jar.value(IDENTITY).is_some(), "the browser has stored the late identity");
    let visit = site.look().await;
    assert_eq!(outcome(&visit), expect("absent", "identity cleared"));
}

#[tokio::test(start_paused = true)]
async fn refresh_that_ends_after_an_opt_out_restores_no_identity() {
    let mut site = late_refresh(EuidUpdate::opt_out()).await;
    let visit = site.look().await;
    assert_eq!(outcome(&visit), expect("opted_out", "identity cleared"));
}

#[tokio::test(start_paused = true)]
async fn refresh_that_ends_after_another_login_costs_that_login_nothing() {
    let mut site = late_refresh(login_of_another()).await;
    assert_eq!(site.jar.names().len(), 3, "two identities and the anchor");
    assert_eq!(outcome(&site.look().await), expect("active(another)", "identity cleared"));
    assert_eq!(outcome(&site.look().await), expect("active(another)", ""));
    assert_eq!(site.jar.names().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn opt_out_or_rejection_that_a_refresh_finds_after_another_login_costs_that_login_nothing() {
    for (answer, outcome_of_late, removed) in [
        (Ok(Refreshed::OptedOut), expect("opted_out", "identity cleared, opt-out set"), "opt-out cleared"),
        (failure(ErrorKind::RejectedToken), expect("absent", "identity cleared"), ""),
    ] {
        let mut site = late_response(answer, outcome_of_late, login_of_another()).await;
        assert_eq!(outcome(&site.look().await), expect("active(another)", removed));
        assert_eq!(outcome(&site.look().await), expect("active(another)", ""));
    }
}

#[tokio::test]
async fn identity_from_before_a_logout_is_not_accepted() {
    let mut site = Site::offline().logged_in(0).await;
    let before = site.jar.clone();
    site.update(EuidUpdate::logout()).await;
    site.jar = site.jar.with_from(&before, IDENTITY);
    assert_eq!(outcome(&site.look().await), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn identity_from_before_a_logout_is_not_accepted_after_the_next_login() {
    let mut site = Site::offline().logged_in(0).await;
    let before = site.jar.clone();
    site.update(EuidUpdate::logout()).await;
    site.login("new").await;
    let mut beside = Site { jar: site.jar.clone().with_from(&before, IDENTITY), ..site.clone() };
    assert_eq!(outcome(&beside.look().await), expect("active(new)", "identity cleared"));
    assert_eq!(outcome(&beside.look().await), expect("active(new)", ""), "the old one is removed, not the new one");
    // Under the name of the new login's identity.
    site.jar.put(IDENTITY, before.value(IDENTITY).unwrap());
    assert_eq!(outcome(&site.look().await), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn clear_site_data_for_cookies_is_a_logout() {
    for (value, expected) in [
        ("\"cookies\"", LOGIN_REMOVED),
        ("\"*\"", LOGIN_REMOVED),
        ("\"cache\", \"cookies\"", LOGIN_REMOVED),
        ("\"cache\",\"cookies\",\"storage\"", LOGIN_REMOVED),
        ("\"storage\"", ""),
        ("\"cache\"", ""),
        ("cookies", ""),
    ] {
        let mut site = Site::offline().logged_in(0).await;
        let header = HeaderValue::from_static(value);
        let visit = site
            .visit(move |_, response| {
                response.headers_mut().insert("clear-site-data", header.clone());
            })
            .await;
        assert_eq!(visit.writes(), expected, "{value}");
    }
}

#[tokio::test]
async fn clear_site_data_overrides_a_login() {
    let mut site = Site::offline();
    let visit = site.visit(|_, response| {
        response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cookies\""));
        EuidUpdate::login(identity("new")).attach(response);
    });
    assert_eq!(visit.await.writes(), "anchor cleared");
}

#[tokio::test]
async fn logout_when_turns_a_response_into_a_logout() {
    for (ended, expected) in [(true, LOGIN_REMOVED), (false, "")] {
        let mut site = Site::offline()
            .logged_in(0)
            .await
            .configured(|layer| layer.logout_when(|response| response.headers.contains_key("x-session-ended")));
        let visit = site.visit(move |_, response| {
            if ended {
                response.headers_mut().insert("x-session-ended", HeaderValue::from_static("1"));
            }
        });
        assert_eq!(visit.await.writes(), expected);
    }
}

#[tokio::test]
async fn login_too_large_for_a_cookie_ends_the_previous_identity() {
    let mut site = Site::offline().logged_in(0).await;
    assert_eq!(site.login(&"!".repeat(4000)).await.writes(), LOGIN_REMOVED);
}

#[tokio::test]
async fn login_that_has_expired_ends_the_previous_identity() {
    let mut site = Site::offline().logged_in(0).await;
    let expired = EuidUpdate::login(identity_until("expired", [-3, -2, -1]));
    assert_eq!(site.update(expired).await.writes(), LOGIN_REMOVED);
}

#[tokio::test]
async fn refreshed_pair_too_large_for_a_cookie_is_active_and_keeps_the_old_cookie() {
    let large = "!".repeat(4000);
    let mut site = Site::new(Operator::answering(new_pair(&large))).logged_in(DUE).await;
    let visit = site.look().await;
    assert_eq!(outcome(&visit), expect(&format!("active({large})"), ""));
}

#[tokio::test]
async fn update_is_removed_from_the_response() {
    let mut site = Site::offline();
    for update in [EuidUpdate::login(identity("new")), EuidUpdate::opt_out(), EuidUpdate::logout()] {
        assert!(site.update(update).await.response.extensions().is_empty());
    }
}

#[tokio::test]
async fn update_that_reaches_no_layer_is_warned_about_and_no_other_is() {
    let log = Log::default();
    let _logging = log.start();
    let response_with = |updates: &[fn() -> EuidUpdate]| {
        let mut response = Response::new(());
        updates.iter().for_each(|update| update().attach(&mut response));
        response
    };
    drop(response_with(&[EuidUpdate::logout, EuidUpdate::opt_out]));
    assert_eq!(log.take(), ["WARN tower_euid: an EuidUpdate was lost: its response did not reach an EuidLayer"]);

    drop(EuidUpdate::logout());
    let mut site = Site::offline();
    site.visit(move |_, response| *response = response_with(&[EuidUpdate::logout])).await;
    site.visit(move |_, response| {
        *response = response_with(&[EuidUpdate::opt_out, EuidUpdate::logout, EuidUpdate::opt_out]);
    })
    .await;
    site.login("x").await;
    assert_eq!(log.take(), [""; 0]);
}

#[tokio::test]
async fn response_without_cookies_and_updates_gets_no_header() {
    let visit = Site::offline().look().await;
    assert!(visit.response.headers().is_empty());
}

#[tokio::test]
async fn handler_is_called_once_with_and_without_a_refresh() {
    for millis in [0, DUE, EXPIRED] {
        let site = Site::new(Operator::answering(new_pair("new"))).logged_in(millis).await;
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let page = service_fn(move |_: Request<()>| {
            counter.fetch_add(1, Ordering::SeqCst);
            ready(Ok::<_, Infallible>(Response::new(())))
        });
        let Ok(_) = site.layer.layer(page).oneshot(site.jar.request()).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{millis}");
    }
}
