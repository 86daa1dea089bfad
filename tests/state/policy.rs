//! The policy, row by row, as a visitor and a handler notice it.
//!
//! A visitor logs in at the start; later comes the page of the row, on a layer that has asked
//! nobody before. Each row tells what the handler saw and what the browser was told of our cookies.
//! Where nothing else is said, the login's token is good for an hour and refreshable for a day.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::clock::{Clock, ManualClock, UnixMillis};
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::{EuidUpdate, KeyRing, Refreshed, refresh_fn};

use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, IDENTITY_EXPIRES, Jar, Operator, REFRESH_EXPIRES, REFRESH_FROM, Site, failure,
    identity_until, new_pair, ring,
};

/// Failures that say nothing of the identity.
const PASSING: [ErrorKind; 6] = [
    ErrorKind::Unauthorized,
    ErrorKind::ClockDrift,
    ErrorKind::Undecryptable,
    ErrorKind::Transient,
    ErrorKind::Malformed,
    ErrorKind::UnknownStatus,
];

/// A login at the start, then a page `millis` later while the operator is such.
async fn row(millis: i64, operator: &Operator) -> (String, String) {
    let mut site = Site::new(operator.clone());
    site.login("old").await;
    site.wait_until(millis);
    let visit = site.look().await;
    (visit.saw(), visit.writes())
}

async fn answered(millis: i64, answer: Result<Refreshed, EuidError>) -> (String, String) {
    row(millis, &Operator::answering(answer)).await
}

fn expected(saw: &str, writes: &str) -> (String, String) {
    (saw.to_owned(), writes.to_owned())
}

#[tokio::test]
async fn no_cookie_is_absent_and_left_so() {
    let visit = Site::offline().look().await;
    assert_eq!((visit.saw(), visit.writes()), expected("absent", ""));
}

#[tokio::test]
async fn an_anchor_alone_is_absent_and_kept() {
    let mut site = Site::offline();
    site.login("old").await;
    site.jar = site.jar.without(IDENTITY);
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), expected("absent", ""));
}

#[tokio::test]
async fn an_anchor_that_remembers_an_opt_out_is_opted_out_for_72_hours_to_the_millisecond() {
    let mut site = Site::offline();
    site.update(EuidUpdate::opt_out()).await;
    for (millis, saw) in [(0, "opted_out"), (259_199_999, "opted_out"), (259_200_000, "absent")] {
        site.wait_until(millis);
        let visit = site.look().await;
        assert_eq!((visit.saw(), visit.writes()), expected(saw, ""), "{millis}");
    }
}

#[tokio::test]
async fn an_identity_next_to_a_remembered_opt_out_is_opted_out_and_cleared() {
    let mut site = Site::offline();
    site.login("old").await;
    let before = site.jar.clone();
    site.update(EuidUpdate::opt_out()).await;
    site.jar.put(IDENTITY, before.value(IDENTITY).unwrap());
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), expected("opted_out", "identity cleared"));
}

#[tokio::test]
async fn an_identity_next_to_an_opt_out_that_is_over_is_absent_and_cleared() {
    let mut site = Site::offline();
    site.login("old").await;
    let before = site.jar.clone();
    site.update(EuidUpdate::opt_out()).await;
    site.jar.put(IDENTITY, before.value(IDENTITY).unwrap());
    site.wait_until(259_200_000);
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), expected("absent", "identity cleared"));
}

#[tokio::test]
async fn an_identity_of_an_unknown_key_is_absent_and_kept() {
    let mut minting = Site::offline();
    minting.login("old").await;
    let mut site = Site::offline();
    site.jar = minting.jar;
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), expected("absent", ""));
}

#[tokio::test]
async fn an_identity_of_an_unknown_key_next_to_a_remembered_opt_out_is_opted_out_and_cleared() {
    let mut minting = Site::offline();
    minting.login("old").await;
    let mut site = Site::offline();
    site.update(EuidUpdate::opt_out()).await;
    site.jar.put(IDENTITY, minting.jar.value(IDENTITY).unwrap());
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), expected("opted_out", "identity cleared"));
}

#[tokio::test]
async fn an_identity_that_does_not_open_is_absent_and_cleared() {
    let mut site = Site::offline();
    site.login("old").await;
    let value = site.jar.value(IDENTITY).unwrap();
    let forged = format!("{}AAAA", &value[..value.len() - 4]);
    site.jar.put(IDENTITY, &forged);
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), expected("absent", "identity cleared"));
}

#[tokio::test]
async fn an_identity_that_its_anchor_does_not_name_is_absent_and_cleared() {
    let mut site = Site::offline();
    site.login("first").await;
    let first = site.jar.clone();
    site.login("second").await;
    site.jar.put(IDENTITY, first.value(IDENTITY).unwrap());
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), expected("absent", "identity cleared"));
}

#[tokio::test]
async fn an_identity_without_any_anchor_is_absent_and_cleared() {
    let mut site = Site::offline();
    site.login("old").await;
    site.jar = site.jar.without(ANCHOR);
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), expected("absent", "identity cleared"));
}

#[tokio::test]
async fn a_fresh_identity_is_active_and_nobody_is_asked() {
    let operator = Operator::answering(new_pair("new"));
    assert_eq!(row(0, &operator).await, expected("active(old)", ""));
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn a_refresh_is_due_from_refresh_from_to_the_millisecond() {
    let operator = Operator::answering(new_pair("new"));
    assert_eq!(row(REFRESH_FROM - 1, &operator).await, expected("active(old)", ""));
    assert_eq!(operator.calls(), 0);
    assert_eq!(row(REFRESH_FROM, &operator).await, expected("active(new)", "identity set"));
    assert_eq!(operator.calls(), 1);
}

#[tokio::test]
async fn identity_past_refresh_expires_is_absent_and_neither_refreshed_nor_removed() {
    let operator = Operator::answering(new_pair("new"));
    assert_eq!(row(REFRESH_EXPIRES, &operator).await, expected("absent", ""));
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn node_whose_clock_is_ahead_removes_no_identity() {
    let mut site = Site::offline();
    site.login("old").await;
    let ahead = Site { jar: site.jar.clone(), ..site.clone() }.configured(|layer| {
        let clock = tower_euid::clock::ManualClock::at(crate::support::at(REFRESH_EXPIRES));
        layer.clock(clock)
    });
    let visit = ahead.send(site.jar.request(), |_, _| ()).await;
    assert_eq!((visit.saw(), visit.writes()), expected("absent", ""));
    assert_eq!(site.look().await.saw(), "active(old)");
}

#[tokio::test]
async fn a_new_pair_is_active_and_stored_until_refresh_expires_to_the_millisecond() {
    for millis in [DUE, IDENTITY_EXPIRES - 1, IDENTITY_EXPIRES, EXPIRED, REFRESH_EXPIRES - 1] {
        let got = answered(millis, new_pair("new")).await;
        assert_eq!(got, expected("active(new)", "identity set"), "{millis}");
    }
}

#[tokio::test]
async fn what_was_stored_is_active_on_the_next_page_without_asking() {
    let operator = Operator::answering(new_pair("new"));
    let mut site = Site::new(operator.clone());
    site.login("old").await;
    site.wait_until(DUE);
    site.look().await;
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes(), operator.calls()), ("active(new)".into(), String::new(), 1));
}

#[tokio::test]
async fn an_opt_out_ends_the_identity_and_is_remembered() {
    for millis in [DUE, EXPIRED] {
        let got = answered(millis, Ok(Refreshed::OptedOut)).await;
        assert_eq!(got, expected("opted_out", "identity cleared, opt-out recorded"), "{millis}");
    }
}

#[tokio::test]
async fn an_opt_out_found_on_one_page_is_seen_on_the_next() {
    let mut site = Site::new(Operator::answering(Ok(Refreshed::OptedOut)));
    site.login("old").await;
    site.wait_until(DUE);
    site.look().await;
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), expected("opted_out", ""));
}

#[tokio::test]
async fn a_rejected_token_ends_the_identity() {
    for millis in [DUE, EXPIRED] {
        let got = answered(millis, failure(ErrorKind::RejectedToken)).await;
        assert_eq!(got, expected("absent", "identity cleared"), "{millis}");
    }
}

#[tokio::test]
async fn rejected_input_lets_the_token_be_used_up_and_then_ends_it() {
    for (millis, saw, writes) in [
        (DUE, "active(old)", ""),
        (IDENTITY_EXPIRES - 1, "active(old)", ""),
        (IDENTITY_EXPIRES, "absent", "identity cleared"),
        (EXPIRED, "absent", "identity cleared"),
    ] {
        let got = answered(millis, failure(ErrorKind::RejectedInput)).await;
        assert_eq!(got, expected(saw, writes), "{millis}");
    }
}

#[tokio::test]
async fn a_failure_that_passes_keeps_the_cookie_and_shows_the_token_until_it_expires() {
    for kind in PASSING {
        for (millis, saw) in [
            (DUE, "active(old)"),
            (IDENTITY_EXPIRES - 1, "active(old)"),
            (IDENTITY_EXPIRES, "unavailable"),
            (REFRESH_EXPIRES - 1, "unavailable"),
        ] {
            assert_eq!(answered(millis, failure(kind)).await, expected(saw, ""), "{kind:?} {millis}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_answer_in_time_keeps_the_cookie_and_shows_the_token_until_it_expires() {
    for (millis, saw) in [
        (DUE, "active(old)"),
        (IDENTITY_EXPIRES - 1, "active(old)"),
        (IDENTITY_EXPIRES, "unavailable"),
        (REFRESH_EXPIRES - 1, "unavailable"),
    ] {
        assert_eq!(row(millis, &Operator::never()).await, expected(saw, ""), "{millis}");
    }
}

#[tokio::test]
async fn a_new_pair_that_is_past_on_our_clock_is_a_failure_that_passes() {
    for (millis, saw) in [(DUE, "active(old)"), (EXPIRED, "unavailable")] {
        for past in [[0, millis, millis], [0, millis, REFRESH_EXPIRES], [0, 1, 2]] {
            let pair = Ok(Refreshed::Identity(identity_until("past", past)));
            assert_eq!(answered(millis, pair).await, expected(saw, ""), "{millis} {past:?}");
        }
    }
}

#[tokio::test]
async fn a_new_pair_with_one_millisecond_left_is_active() {
    let pair = Ok(Refreshed::Identity(identity_until("new", [0, DUE + 1, REFRESH_EXPIRES])));
    assert_eq!(answered(DUE, pair).await, expected("active(new)", "identity set"));
}

/// A page at [`DUE`] whose refresh fails when it is `millis`.
async fn failing_slowly(millis: i64) -> (String, String) {
    let clock = ManualClock::at(crate::support::START);
    let operators = clock.clone();
    let slow = refresh_fn(move |_| {
        let now = operators.now();
        operators.advance(crate::support::at(millis).saturating_since(now));
        ready(failure(ErrorKind::Transient))
    });
    let mut site = Site::new(slow).configured(|layer| layer.clock(clock.clone()));
    site.clock = clock;
    site.login("old").await;
    site.wait_until(DUE);
    let visit = site.look().await;
    (visit.saw(), visit.writes())
}

#[tokio::test]
async fn a_token_that_expires_while_the_page_waits_is_not_shown() {
    assert_eq!(failing_slowly(IDENTITY_EXPIRES - 1).await, expected("active(old)", ""));
    assert_eq!(failing_slowly(IDENTITY_EXPIRES).await, expected("unavailable", ""));
}

#[tokio::test]
async fn an_identity_that_ends_while_the_page_waits_is_absent() {
    assert_eq!(failing_slowly(REFRESH_EXPIRES).await, expected("absent", ""));
}

#[tokio::test]
async fn the_expiry_margin_takes_a_token_out_of_use_early() {
    let margin = Duration::from_secs(1);
    for (millis, saw) in [(IDENTITY_EXPIRES - 1001, "active(old)"), (IDENTITY_EXPIRES - 1000, "unavailable")] {
        let operator = Operator::answering(failure(ErrorKind::Transient));
        let mut site = Site::new(operator).configured(|layer| layer.expiry_margin(margin));
        site.login("old").await;
        site.wait_until(millis);
        assert_eq!(site.look().await.saw(), saw, "{millis}");
    }
}

/// Tells [`START`](crate::support::START) plus `millis`, and counts how often it was asked.
#[derive(Clone)]
struct Counting {
    millis: i64,
    asked: Arc<AtomicUsize>,
}

impl Clock for Counting {
    fn now(&self) -> UnixMillis {
        self.asked.fetch_add(1, Ordering::SeqCst);
        crate::support::at(self.millis)
    }
}

/// How often a page `millis` after the login asks for the time.
async fn clock_calls(millis: i64, jar: &Jar, keys: &KeyRing) -> usize {
    let counting = Counting { millis, asked: Arc::default() };
    let asked = Arc::clone(&counting.asked);
    let site = Site::with_keys(keys.clone(), Operator::answering(new_pair("new")));
    let site = site.configured(|layer| layer.clock(counting));
    site.send(jar.request(), |_, _| ()).await;
    asked.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_request_asks_for_the_time_at_most_three_times_its_call_once_and_without_a_cookie_nobody_does() {
    let keys = ring();
    let mut site = Site::with_keys(keys.clone(), Operator::never());
    site.login("old").await;
    assert_eq!(clock_calls(0, &Jar::default(), &keys).await, 0);
    assert_eq!(clock_calls(0, &site.jar, &keys).await, 1);
    assert_eq!(clock_calls(DUE, &site.jar, &keys).await, 3 + 1);
}

/// A page at [`DUE`] that answers `status`.
async fn with_status(status: StatusCode, answer: Result<Refreshed, EuidError>) -> (StatusCode, String, String) {
    let mut site = Site::new(Operator::answering(answer));
    site.login("old").await;
    site.wait_until(DUE);
    let visit = site.visit(move |_, response| *response.status_mut() = status).await;
    (visit.response.status(), visit.saw(), visit.writes())
}

#[tokio::test]
async fn not_modified_postpones_a_store() {
    let got = with_status(StatusCode::NOT_MODIFIED, new_pair("new")).await;
    assert_eq!(got, (StatusCode::NOT_MODIFIED, "active(new)".into(), String::new()));
}

#[tokio::test]
async fn not_modified_does_not_postpone_a_clear() {
    let got = with_status(StatusCode::NOT_MODIFIED, failure(ErrorKind::RejectedToken)).await;
    assert_eq!(got, (StatusCode::NOT_MODIFIED, "absent".into(), "identity cleared".into()));
}

#[tokio::test]
async fn not_modified_does_not_postpone_an_opt_out() {
    let got = with_status(StatusCode::NOT_MODIFIED, Ok(Refreshed::OptedOut)).await;
    assert_eq!(got.2, "identity cleared, opt-out recorded");
}

#[tokio::test]
async fn not_modified_does_not_postpone_a_logout() {
    let mut site = Site::offline();
    site.login("old").await;
    let visit = site
        .visit(|_, response| {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            EuidUpdate::logout().attach(response);
        })
        .await;
    assert_eq!(visit.writes(), "identity cleared, anchor cleared");
}

#[tokio::test]
async fn an_error_response_carries_the_refreshed_cookie() {
    let got = with_status(StatusCode::INTERNAL_SERVER_ERROR, new_pair("new")).await;
    assert_eq!(got, (StatusCode::INTERNAL_SERVER_ERROR, "active(new)".into(), "identity set".into()));
}

#[tokio::test]
async fn an_error_of_the_inner_service_passes_whatever_was_planned() {
    let keys = ring();
    for (millis, answer) in
        [(0, new_pair("new")), (DUE, new_pair("new")), (DUE, Ok(Refreshed::OptedOut)), (REFRESH_EXPIRES, new_pair("x"))]
    {
        let mut site = Site::with_keys(keys.clone(), Operator::answering(answer));
        site.login("old").await;
        site.wait_until(millis);
        let broken = service_fn(|_: Request<()>| ready(Err::<Response<()>, _>("broken")));
        let outcome = site.layer.layer(broken).oneshot(site.jar.request()).await;
        assert_eq!(outcome.unwrap_err(), "broken", "{millis}");
    }
}

#[tokio::test]
async fn a_refresh_leaves_status_body_and_headers_of_the_page_alone() {
    let mut site = Site::new(Operator::answering(new_pair("new")));
    site.login("old").await;
    site.wait_until(DUE);
    let page = service_fn(|_: Request<()>| {
        let response = Response::builder().status(StatusCode::IM_A_TEAPOT).header("x-page", "mine");
        ready(Ok::<_, Infallible>(response.body("the body").unwrap()))
    });
    let response = site.layer.layer(page).oneshot(site.jar.request()).await.unwrap();
    assert_eq!((response.status(), *response.body()), (StatusCode::IM_A_TEAPOT, "the body"));
    assert_eq!(response.headers()["x-page"], "mine");
}
