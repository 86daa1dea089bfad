//! The memo: a refresh answer is remembered for a while, so that requests with the old cookie need no further call.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use tower_euid::error::ErrorKind;
use tower_euid::{EuidUpdate, Refreshed, refresh_fn};

use crate::support::issuer::Issuer;
use crate::support::{DUE, Operator, Site, expect, failure, new_pair, outcome, ring};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;

#[tokio::test]
async fn memo_answers_requests_with_the_old_cookie_for_45_seconds() {
    let operator = Operator::answering(new_pair("new"));
    let site = Site::new(operator.clone()).logged_in(DUE).await;
    for (seconds, calls) in [(0, 1), (1, 1), (44, 1), (45, 2)] {
        site.wait_until(DUE + seconds * SECOND);
        assert_eq!(outcome(&site.look_once().await), expect("active(new)", "identity set"), "{seconds} s");
        assert_eq!(operator.calls(), calls, "{seconds} s");
    }
}

#[tokio::test]
async fn memo_holds_an_opt_out_and_a_rejection() {
    for (answer, saw, writes) in [
        (Ok(Refreshed::OptedOut), "opted_out", "identity cleared, opt-out set"),
        (failure(ErrorKind::RejectedToken), "absent", "identity cleared"),
    ] {
        let operator = Operator::answering(answer);
        let site = Site::new(operator.clone()).logged_in(DUE).await;
        for _ in 0..3 {
            assert_eq!(outcome(&site.look_once().await), expect(saw, writes));
        }
        assert_eq!(operator.calls(), 1);
    }
}

#[tokio::test]
async fn memo_forgets_the_oldest_answer_at_its_limit() {
    let operator = Operator::answering(new_pair("new"));
    let site = Site::new(operator.clone()).configured(|layer| layer.memo_entries(2).memo_bytes(1 << 20));
    let visitors = site.due_visitors(3).await;
    for visitor in &visitors {
        assert_eq!(outcome(&visitor.look_once().await), expect("active(new)", "identity set"));
    }
    assert_eq!(operator.calls(), 3);
    visitors[2].look_once().await;
    assert_eq!(operator.calls(), 3, "the newest answer is remembered");
    visitors[0].look_once().await;
    assert_eq!(operator.calls(), 4, "the oldest answer is forgotten");
}

#[tokio::test]
async fn memo_is_shared_by_clones_of_a_layer_and_not_by_another_layer() {
    let operator = Operator::answering(new_pair("new"));
    let keys = ring();
    let site = Site::with_keys(keys.clone(), operator.clone()).logged_in(DUE).await;
    site.look_once().await;
    site.clone().look_once().await;
    assert_eq!(operator.calls(), 1);
    let other_layer = Site { jar: site.jar.clone(), ..Site::with_keys(keys, operator.clone()) };
    other_layer.wait_until(DUE);
    other_layer.look_once().await;
    assert_eq!(operator.calls(), 2);
}

#[tokio::test]
async fn memo_answers_a_second_login_with_the_same_refresh_token_in_its_own_lineage() {
    let operator = Operator::answering(new_pair("new"));
    let mut site = Site::new(operator.clone());
    site.login("old").await;
    let first = site.jar.clone();
    let site = site.logged_in(DUE).await;
    for jar in [first, site.jar.clone()] {
        let mut browser = Site { jar, ..site.clone() };
        browser.look().await;
        assert_eq!(browser.look().await.saw(), "active(new)");
    }
    assert_eq!(operator.calls(), 1);
}

#[tokio::test]
async fn memo_does_not_undo_a_logout() {
    let mut site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    let old = site.jar.clone();
    site.update(EuidUpdate::logout()).await;
    // A slow tab sends the old cookie once more.
    let late = site.send(old.request(), |_, _| ()).await;
    site.jar.apply(late.response.headers());
    assert_eq!(site.look().await.saw(), "absent");
}

#[tokio::test]
async fn memo_of_a_pair_that_expires_within_45_seconds_ends_early() {
    let issuer = Issuer::new([15 * SECOND, 20 * SECOND, 90 * MINUTE]);
    let site = issuer.due_site().await;
    for (seconds, saw) in [(0, "active(pair-1)"), (1, "active(pair-1)"), (16, "active(pair-2)"), (40, "active(pair-3)")]
    {
        site.wait_until(DUE + seconds * SECOND);
        // The browser keeps the old cookie.
        assert_eq!(site.look_once().await.saw(), saw, "{seconds} s");
    }
}

#[tokio::test]
async fn memo_keeps_a_pair_that_no_response_has_written_until_its_refresh_from() {
    let operator = Operator::answering(new_pair("new"));
    let mut site = Site::new(operator.clone()).logged_in(DUE).await;
    for minutes in [0, 1, 30, 59] {
        site.wait_until(DUE + minutes * MINUTE);
        let visit = site.visit(|_, response| *response.status_mut() = StatusCode::NOT_MODIFIED).await;
        assert_eq!(outcome(&visit), expect("active(new)", ""), "{minutes} min");
    }
    assert_eq!(outcome(&site.look().await), expect("active(new)", "identity set"));
    assert_eq!(operator.calls(), 1);
}

#[tokio::test]
async fn memo_of_logins_survives_any_number_of_forged_sdk_cookies() {
    let own_calls = Arc::new(AtomicUsize::new(0));
    let calls = Arc::clone(&own_calls);
    let refresh = refresh_fn(move |identity| {
        let is_forged = identity.advertising_token().starts_with("forged");
        calls.fetch_add(usize::from(!is_forged), Ordering::Relaxed);
        ready(if is_forged { failure(ErrorKind::RejectedToken) } else { new_pair("new") })
    });
    let site = Site::new(refresh).configured(|layer| layer.memo_entries(8).memo_bytes(1 << 20)).migrating();
    let visitor = site.clone().logged_in(DUE).await;
    assert_eq!(visitor.look_once().await.saw(), "active(new)");
    for forged in site.due_sdk_visitors(20) {
        assert_eq!(forged.look_once().await.saw(), "absent");
    }
    visitor.look_once().await;
    assert_eq!(own_calls.load(Ordering::Relaxed), 1);
}
