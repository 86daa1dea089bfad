//! The policy, row by row: what the handler sees, and which cookies the response writes.
//!
//! In each row a visitor logs in at the start and visits a page later. The layer has made no call before. Unless the row
//! says otherwise, the login's token is valid for an hour, and its refresh token for a day.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

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
    ANCHOR, DUE, EXPIRED, IDENTITY, IDENTITY_EXPIRES, Jar, LOGIN_REMOVED, NOTHING, Operator, REFRESH_EXPIRES,
    REFRESH_FROM, START, Site, Visit, at, expect, failure, identity_until, new_pair, outcome, ring, set_cookies,
};

/// The end of an opt-out at the start, in milliseconds.
const OPT_OUT_EXPIRES: i64 = 72 * 3_600_000;
/// The failures that do not end an identity.
const TEMPORARY: [ErrorKind; 6] = [
    ErrorKind::Unauthorized,
    ErrorKind::ClockDrift,
    ErrorKind::Undecryptable,
    ErrorKind::Transient,
    ErrorKind::Malformed,
    ErrorKind::UnknownStatus,
];

/// Returns the outcome of a page `millis` after a login.
async fn row(millis: i64, operator: &Operator) -> (String, String) {
    let mut site = Site::new(operator.clone()).logged_in(millis).await;
    outcome(&site.look().await)
}

/// Returns the outcome of a page `millis` after a login, whose refresh has this answer.
async fn answered(millis: i64, answer: Result<Refreshed, EuidError>) -> (String, String) {
    row(millis, &Operator::answering(answer)).await
}

/// Returns a browser whose visitor has opted out after a login, and which still has this login's identity.
async fn with_identity_and_opt_out() -> Site {
    let mut site = Site::offline().logged_in(0).await;
    let before = site.jar.clone();
    site.update(EuidUpdate::opt_out()).await;
    site.jar.put(IDENTITY, before.value(IDENTITY).unwrap());
    site
}

#[tokio::test]
async fn request_without_cookies_is_absent() {
    let visit = Site::offline().look().await;
    assert_eq!(outcome(&visit), expect("absent", ""));
}

#[tokio::test]
async fn anchor_without_an_identity_is_absent_and_kept() {
    let mut site = Site::offline().logged_in(0).await;
    site.jar = site.jar.without(IDENTITY);
    let visit = site.look().await;
    assert_eq!(outcome(&visit), expect("absent", ""));
}

#[tokio::test]
async fn anchor_with_an_opt_out_is_opted_out_for_72_hours_to_the_millisecond() {
    let mut site = Site::offline();
    site.update(EuidUpdate::opt_out()).await;
    for (millis, saw) in [(0, "opted_out"), (OPT_OUT_EXPIRES - 1, "opted_out"), (OPT_OUT_EXPIRES, "absent")] {
        site.wait_until(millis);
        let visit = site.look().await;
        assert_eq!(outcome(&visit), expect(saw, ""), "{millis}");
    }
}

#[tokio::test]
async fn identity_with_an_opt_out_in_its_anchor_is_opted_out_and_cleared() {
    let mut site = with_identity_and_opt_out().await;
    let visit = site.look().await;
    assert_eq!(outcome(&visit), expect("opted_out", "identity cleared"));
}

#[tokio::test]
async fn identity_with_an_opt_out_in_its_anchor_is_absent_and_cleared_after_72_hours() {
    let mut site = with_identity_and_opt_out().await;
    site.wait_until(OPT_OUT_EXPIRES);
    let visit = site.look().await;
    assert_eq!(outcome(&visit), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn identity_under_an_unknown_key_is_absent_and_kept() {
    let other_keys = Site::offline().logged_in(0).await;
    let site = Site { jar: other_keys.jar, ..Site::offline() };
    let visit = site.look_once().await;
    assert_eq!(outcome(&visit), expect("absent", ""));
    assert!(set_cookies(visit.response.headers()).is_empty());
}

#[tokio::test]
async fn identity_under_an_unknown_key_with_an_opt_out_in_the_anchor_is_opted_out_and_cleared() {
    let other_keys = Site::offline().logged_in(0).await;
    let mut site = Site::offline();
    site.update(EuidUpdate::opt_out()).await;
    site.jar.put(IDENTITY, other_keys.jar.value(IDENTITY).unwrap());
    let visit = site.look().await;
    assert_eq!(outcome(&visit), expect("opted_out", "identity cleared"));
}

#[tokio::test]
async fn identity_that_does_not_open_is_absent_and_cleared() {
    let mut site = Site::offline().logged_in(0).await;
    let value = site.jar.value(IDENTITY).unwrap();
    let forged = format!("{}AAAA", &value[..value.len() - 4]);
    site.jar.put(IDENTITY, &forged);
    let visit = site.look().await;
    assert_eq!(outcome(&visit), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn identity_of_another_login_than_the_anchor_is_absent_and_cleared() {
    let mut site = Site::offline();
    site.login("first").await;
    let first = site.jar.clone();
    site.login("second").await;
    site.jar.put(IDENTITY, first.value(IDENTITY).unwrap());
    let visit = site.look().await;
    assert_eq!(outcome(&visit), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn identity_without_an_anchor_is_absent_and_cleared() {
    let mut site = Site::offline().logged_in(0).await;
    site.jar = site.jar.without(ANCHOR);
    let visit = site.look().await;
    assert_eq!(outcome(&visit), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn identity_that_is_fresh_is_active_without_a_call() {
    let operator = Operator::answering(new_pair("new"));
    assert_eq!(row(0, &operator).await, expect("active(old)", ""));
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn refresh_is_due_from_refresh_from_to_the_millisecond() {
    let operator = Operator::answering(new_pair("new"));
    assert_eq!(row(REFRESH_FROM - 1, &operator).await, expect("active(old)", ""));
    assert_eq!(operator.calls(), 0);
    assert_eq!(row(REFRESH_FROM, &operator).await, expect("active(new)", "identity set"));
    assert_eq!(operator.calls(), 1);
}

#[tokio::test]
async fn identity_whose_refresh_token_has_expired_is_absent_without_a_call_or_a_removal() {
    let operator = Operator::answering(new_pair("new"));
    assert_eq!(row(REFRESH_EXPIRES, &operator).await, expect("absent", ""));
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn identity_is_not_removed_by_a_node_whose_clock_is_ahead() {
    let mut site = Site::offline().logged_in(0).await;
    let ahead = site.clone().configured(|layer| layer.clock(ManualClock::at(at(REFRESH_EXPIRES))));
    let visit = ahead.look_once().await;
    assert_eq!(outcome(&visit), expect("absent", ""));
    assert_eq!(site.look().await.saw(), "active(old)");
}

#[tokio::test]
async fn new_pair_is_active_and_written_until_refresh_expires_to_the_millisecond() {
    for millis in [DUE, IDENTITY_EXPIRES - 1, IDENTITY_EXPIRES, EXPIRED, REFRESH_EXPIRES - 1] {
        let got = answered(millis, new_pair("new")).await;
        assert_eq!(got, expect("active(new)", "identity set"), "{millis}");
    }
}

#[tokio::test]
async fn new_pair_is_active_on_the_next_page_without_another_call() {
    let operator = Operator::answering(new_pair("new"));
    let mut site = Site::new(operator.clone()).logged_in(DUE).await;
    site.look().await;
    let visit = site.look().await;
    assert_eq!((outcome(&visit), operator.calls()), (expect("active(new)", ""), 1));
}

#[tokio::test]
async fn opt_out_clears_the_identity_and_is_recorded() {
    for millis in [DUE, EXPIRED] {
        let got = answered(millis, Ok(Refreshed::OptedOut)).await;
        assert_eq!(got, expect("opted_out", "identity cleared, opt-out recorded"), "{millis}");
    }
}

#[tokio::test]
async fn rejected_token_clears_the_identity() {
    for millis in [DUE, EXPIRED] {
        let got = answered(millis, failure(ErrorKind::RejectedToken)).await;
        assert_eq!(got, expect("absent", "identity cleared"), "{millis}");
    }
}

#[tokio::test]
async fn rejected_input_keeps_a_valid_token_and_clears_an_expired_one() {
    for (millis, saw, writes) in [
        (DUE, "active(old)", ""),
        (IDENTITY_EXPIRES - 1, "active(old)", ""),
        (IDENTITY_EXPIRES, "absent", "identity cleared"),
        (EXPIRED, "absent", "identity cleared"),
    ] {
        let got = answered(millis, failure(ErrorKind::RejectedInput)).await;
        assert_eq!(got, expect(saw, writes), "{millis}");
    }
}

#[tokio::test]
async fn temporary_failure_keeps_the_identity_whose_token_is_active_until_it_expires() {
    for kind in TEMPORARY {
        for (millis, saw) in [
            (DUE, "active(old)"),
            (IDENTITY_EXPIRES - 1, "active(old)"),
            (IDENTITY_EXPIRES, "unavailable"),
            (REFRESH_EXPIRES - 1, "unavailable"),
        ] {
            assert_eq!(answered(millis, failure(kind)).await, expect(saw, ""), "{kind:?} {millis}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn max_wait_keeps_the_identity_whose_token_is_active_until_it_expires() {
    for (millis, saw) in [
        (DUE, "active(old)"),
        (IDENTITY_EXPIRES - 1, "active(old)"),
        (IDENTITY_EXPIRES, "unavailable"),
        (REFRESH_EXPIRES - 1, "unavailable"),
    ] {
        assert_eq!(row(millis, &Operator::never()).await, expect(saw, ""), "{millis}");
    }
}

#[tokio::test]
async fn new_pair_that_has_already_expired_is_a_temporary_failure() {
    for (millis, saw) in [(DUE, "active(old)"), (EXPIRED, "unavailable")] {
        for past in [[0, millis, millis], [0, millis, REFRESH_EXPIRES], [0, 1, 2]] {
            let pair = Ok(Refreshed::Identity(identity_until("past", past)));
            assert_eq!(answered(millis, pair).await, expect(saw, ""), "{millis} {past:?}");
        }
    }
}

#[tokio::test]
async fn new_pair_that_expires_in_one_millisecond_is_active() {
    let pair = Ok(Refreshed::Identity(identity_until("new", [0, DUE + 1, REFRESH_EXPIRES])));
    assert_eq!(answered(DUE, pair).await, expect("active(new)", "identity set"));
}

/// Returns the outcome of a page at [`DUE`] whose refresh fails at `millis`.
async fn failing_at(millis: i64) -> (String, String) {
    let clock = ManualClock::at(START);
    let shared_clock = clock.clone();
    let operator = refresh_fn(move |_| {
        let now = shared_clock.now();
        shared_clock.advance(at(millis).saturating_since(now));
        ready(failure(ErrorKind::Transient))
    });
    let site = Site::new(operator).configured(|layer| layer.clock(clock.clone()));
    let mut site = Site { clock, ..site }.logged_in(DUE).await;
    outcome(&site.look().await)
}

#[tokio::test]
async fn token_that_expires_while_the_page_waits_is_unavailable() {
    assert_eq!(failing_at(IDENTITY_EXPIRES - 1).await, expect("active(old)", ""));
    assert_eq!(failing_at(IDENTITY_EXPIRES).await, expect("unavailable", ""));
}

#[tokio::test]
async fn identity_whose_refresh_token_expires_while_the_page_waits_is_absent() {
    assert_eq!(failing_at(REFRESH_EXPIRES).await, expect("absent", ""));
}

#[tokio::test]
async fn expiry_margin_makes_a_token_unavailable_early() {
    let margin = Duration::from_secs(1);
    for (millis, saw) in [(IDENTITY_EXPIRES - 1001, "active(old)"), (IDENTITY_EXPIRES - 1000, "unavailable")] {
        let operator = Operator::answering(failure(ErrorKind::Transient));
        let site = Site::new(operator).configured(|layer| layer.expiry_margin(margin)).logged_in(millis).await;
        assert_eq!(site.look_once().await.saw(), saw, "{millis}");
    }
}

/// A clock that stands at `millis` after [`START`] and counts how often it is read.
#[derive(Clone, Debug)]
struct CountingClock {
    millis: i64,
    reads: Arc<AtomicUsize>,
}

impl Clock for CountingClock {
    fn now(&self) -> UnixMillis {
        self.reads.fetch_add(1, Ordering::SeqCst);
        at(self.millis)
    }
}

/// Returns how often a page `millis` after the login reads the clock.
async fn clock_reads(millis: i64, jar: &Jar, keys: &KeyRing) -> usize {
    let clock = CountingClock { millis, reads: Arc::default() };
    let reads = Arc::clone(&clock.reads);
    let site = Site::with_keys(keys.clone(), Operator::answering(new_pair("new")));
    site.configured(|layer| layer.clock(clock)).send(jar.request(), NOTHING).await;
    reads.load(Ordering::SeqCst)
}

#[tokio::test]
async fn clock_is_read_at_most_three_times_per_request_once_per_call_and_never_without_cookies() {
    let keys = ring();
    let site = Site::with_keys(keys.clone(), Operator::never()).logged_in(0).await;
    assert_eq!(clock_reads(0, &Jar::default(), &keys).await, 0);
    assert_eq!(clock_reads(0, &site.jar, &keys).await, 1);
    assert_eq!(clock_reads(DUE, &site.jar, &keys).await, 3 + 1);
}

/// Visits a page at [`DUE`] whose response has `status`.
async fn look_with_status(status: StatusCode, answer: Result<Refreshed, EuidError>) -> Visit {
    let mut site = Site::new(Operator::answering(answer)).logged_in(DUE).await;
    let visit = site.visit(move |_, response| *response.status_mut() = status).await;
    assert_eq!(visit.response.status(), status);
    visit
}

#[tokio::test]
async fn not_modified_postpones_a_renewal() {
    let visit = look_with_status(StatusCode::NOT_MODIFIED, new_pair("new")).await;
    assert_eq!(outcome(&visit), expect("active(new)", ""));
}

#[tokio::test]
async fn not_modified_does_not_postpone_a_removal() {
    let visit = look_with_status(StatusCode::NOT_MODIFIED, failure(ErrorKind::RejectedToken)).await;
    assert_eq!(outcome(&visit), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn not_modified_does_not_postpone_an_opt_out() {
    let visit = look_with_status(StatusCode::NOT_MODIFIED, Ok(Refreshed::OptedOut)).await;
    assert_eq!(visit.writes(), "identity cleared, opt-out recorded");
}

#[tokio::test]
async fn not_modified_does_not_postpone_a_logout() {
    let mut site = Site::offline().logged_in(0).await;
    let visit = site
        .visit(|_, response| {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            EuidUpdate::logout().attach(response);
        })
        .await;
    assert_eq!(visit.writes(), LOGIN_REMOVED);
}

#[tokio::test]
async fn error_response_writes_the_renewed_identity() {
    let visit = look_with_status(StatusCode::INTERNAL_SERVER_ERROR, new_pair("new")).await;
    assert_eq!(outcome(&visit), expect("active(new)", "identity set"));
}

#[tokio::test]
async fn error_of_the_inner_service_passes_for_every_planned_change() {
    for (millis, answer) in
        [(0, new_pair("new")), (DUE, new_pair("new")), (DUE, Ok(Refreshed::OptedOut)), (REFRESH_EXPIRES, new_pair("x"))]
    {
        let site = Site::new(Operator::answering(answer)).logged_in(millis).await;
        let broken = service_fn(|_: Request<()>| ready(Err::<Response<()>, _>("broken")));
        let result = site.layer.layer(broken).oneshot(site.jar.request()).await;
        assert_eq!(result.unwrap_err(), "broken", "{millis}");
    }
}

#[tokio::test]
async fn refresh_keeps_the_status_body_and_headers_of_the_page() {
    let site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    let page = service_fn(|_: Request<()>| {
        let response = Response::builder().status(StatusCode::IM_A_TEAPOT).header("x-page", "mine");
        ready(Ok::<_, Infallible>(response.body("the body").unwrap()))
    });
    let response = site.layer.layer(page).oneshot(site.jar.request()).await.unwrap();
    assert_eq!((response.status(), *response.body()), (StatusCode::IM_A_TEAPOT, "the body"));
    assert_eq!(response.headers()["x-page"], "mine");
}
