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
use tower_euid::{Consent, CookieKey, EuidUpdate, KeyRing, Refreshed, refresh_fn};

use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, IDENTITY_EXPIRES, Jar, LOGIN_REMOVED, NOTHING, OPT_OUT, Operator, REFRESH_EXPIRES,
    REFRESH_FROM, START, Site, Visit, at, expect, failure, identity_until, new_pair, outcome, ring, set_cookies,
};

/// The end of an opt-out at the start, in milliseconds.
const OPT_OUT_EXPIRES: i64 = 72 * 3_600_000;
/// The failures that do not end an identity.
const TEMPORARY: [ErrorKind; 7] = [
    ErrorKind::Unauthorized,
    ErrorKind::ClockDrift,
    ErrorKind::Undecryptable,
    ErrorKind::WrongScope,
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

/// Returns a browser with the record of an opt-out that a refresh has found at [`DUE`], beside the identity of its login.
async fn with_identity_and_opt_out() -> Site {
    let mut site = Site::new(Operator::answering(Ok(Refreshed::OptedOut))).logged_in(DUE).await;
    let before = site.jar.clone();
    assert_eq!(site.look().await.saw(), "opted_out");
    site.jar = site.jar.with_from(&before, IDENTITY);
    site
}

/// Returns the same browser, and the rings of two nodes: one knows only the key of the identity, the other only that of
/// the record.
async fn with_keys_of_identity_and_opt_out() -> (Jar, [KeyRing; 2]) {
    let [identity, record] = [(); 2].map(|()| CookieKey::generate().unwrap());
    let before = Site::with_keys(identity.clone().into(), Operator::never()).logged_in(0).await;
    let both = KeyRing::new([record.clone(), identity.clone()]).unwrap();
    let mut site = Site::with_keys(both, Operator::answering(Ok(Refreshed::OptedOut)));
    site.jar = before.jar.clone();
    site.wait_until(DUE);
    assert_eq!(site.look().await.saw(), "opted_out");
    (site.jar.with_from(&before.jar, IDENTITY), [identity, record].map(KeyRing::from))
}

/// Returns a browser with an identity beside that of the login before it.
async fn with_two_identities() -> Site {
    let mut site = Site::offline();
    site.login("first").await;
    let first = site.jar.clone();
    site.login("second").await;
    site.jar = site.jar.with(first.name(IDENTITY), first.value(IDENTITY).unwrap());
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
async fn stated_opt_out_is_opted_out_for_72_hours_to_the_millisecond() {
    let mut site = Site::offline();
    site.update(EuidUpdate::opt_out()).await;
    for (millis, saw) in [(0, "opted_out"), (OPT_OUT_EXPIRES - 1, "opted_out"), (OPT_OUT_EXPIRES, "absent")] {
        site.wait_until(millis);
        let visit = site.look().await;
        assert_eq!(outcome(&visit), expect(saw, ""), "{millis}");
    }
}

#[tokio::test]
async fn identity_with_a_record_of_its_opt_out_is_opted_out_and_cleared() {
    let mut site = with_identity_and_opt_out().await;
    let visit = site.look().await;
    assert_eq!(outcome(&visit), expect("opted_out", "identity cleared"));
}

#[tokio::test]
async fn identity_with_a_record_of_its_opt_out_is_absent_and_cleared_after_72_hours() {
    for (millis, saw) in [(OPT_OUT_EXPIRES - 1, "opted_out"), (OPT_OUT_EXPIRES, "absent")] {
        let mut site = with_identity_and_opt_out().await;
        site.wait_until(DUE + millis);
        let visit = site.look().await;
        assert_eq!(outcome(&visit), expect(saw, "identity cleared"), "{millis}");
    }
}

#[tokio::test]
async fn identity_of_the_previous_login_beside_a_stated_opt_out_is_opted_out_and_cleared() {
    let mut site = Site::offline().logged_in(0).await;
    let before = site.jar.clone();
    site.update(EuidUpdate::opt_out()).await;
    site.jar = site.jar.with_from(&before, IDENTITY);
    for (millis, saw) in [(0, "opted_out"), (OPT_OUT_EXPIRES, "absent")] {
        site.wait_until(millis);
        assert_eq!(outcome(&site.look_once().await), expect(saw, "identity cleared"), "{millis}");
    }
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
async fn identity_of_an_unknown_version_is_absent_and_kept() {
    let site = Site::offline().logged_in(0).await;
    for version in ["A", "B", "_"] {
        let value = site.jar.value(IDENTITY).unwrap().replacen('A', version, 1);
        // The first character has six of the eight bits of the version.
        let saw = if version == "A" { "active(old)" } else { "absent" };
        let visit = site.send(site.jar.clone().with(IDENTITY, &value).request(), NOTHING).await;
        assert_eq!(outcome(&visit), expect(saw, ""), "{version}");
    }
}

#[tokio::test]
async fn identity_under_an_unknown_key_with_a_record_of_its_opt_out_is_opted_out_and_cleared() {
    let (jar, [_, record]) = with_keys_of_identity_and_opt_out().await;
    let site = Site { jar, ..Site::with_keys(record, Operator::never()) };
    site.wait_until(DUE);
    assert_eq!(outcome(&site.look_once().await), expect("opted_out", "identity cleared"));
}

#[tokio::test]
async fn identity_with_a_record_under_an_unknown_key_is_absent_and_kept() {
    let (jar, [identity, _]) = with_keys_of_identity_and_opt_out().await;
    let site = Site { jar, ..Site::with_keys(identity, Operator::answering(new_pair("new"))) };
    for millis in [0, DUE, EXPIRED] {
        site.wait_until(millis);
        let visit = site.look_once().await;
        assert_eq!(outcome(&visit), expect("absent", ""), "{millis}");
        assert!(set_cookies(visit.response.headers()).is_empty());
    }
}

#[tokio::test]
async fn leftover_beside_state_under_an_unknown_key_is_kept() {
    let site = with_two_identities().await;
    let site = Site { jar: site.jar, ..Site::offline() };
    assert_eq!(outcome(&site.look_once().await), expect("absent", ""));
    // Without state of the login that the anchor names, there is nothing to judge.
    let own = site.jar.value(ANCHOR).map(|anchor| format!("{IDENTITY}{}", &anchor[..4])).unwrap();
    let site = Site { jar: site.jar.clone().without(&own), ..site };
    assert_eq!(outcome(&site.look_once().await), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn leftover_is_cleared_unopened_beside_the_login_that_counts() {
    let mut site = with_two_identities().await;
    assert_eq!(outcome(&site.look().await), expect("active(second)", "identity cleared"));
    assert_eq!(outcome(&site.look().await), expect("active(second)", ""));
    for name in [IDENTITY, OPT_OUT] {
        let jar = site.jar.clone().with(format!("{name}zzzz"), "garbled");
        let visit = site.send(jar.request(), NOTHING).await;
        let writes = if name == IDENTITY { "identity cleared" } else { "opt-out cleared" };
        assert_eq!(outcome(&visit), expect("active(second)", writes));
    }
}

#[tokio::test]
async fn leftover_is_kept_by_an_image_and_a_prefetch() {
    let site = with_two_identities().await;
    for header in [("sec-fetch-dest", "image"), ("sec-purpose", "prefetch")] {
        let visit = site.send(site.jar.request_with(&[header]), NOTHING).await;
        assert_eq!(outcome(&visit), expect("active(second)", ""), "{header:?}");
    }
}

#[tokio::test]
async fn leftover_is_cleared_by_a_refreshing_page_whatever_the_outcome() {
    for (answer, saw, writes) in [
        (new_pair("new"), "active(new)", "identity set, identity cleared"),
        (failure(ErrorKind::Transient), "active(old)", "identity cleared"),
        (failure(ErrorKind::RejectedToken), "absent", "identity cleared"),
        (Ok(Refreshed::OptedOut), "opted_out", "identity cleared, opt-out set"),
    ] {
        let mut site = Site::new(Operator::answering(answer)).logged_in(DUE).await;
        site.jar.put(format!("{IDENTITY}zzzz"), "of another login");
        assert_eq!(outcome(&site.look().await), expect(saw, writes));
        assert_eq!(site.jar.value(format!("{IDENTITY}zzzz")), None, "{saw}");
    }
}

#[tokio::test]
async fn state_with_an_anchor_that_cannot_be_read_is_absent_and_kept() {
    let site = with_two_identities().await;
    let long = "A".repeat(23);
    for anchor in ["", "x", "None", "none.", "out.1795371587", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAB", &long]
    {
        let jar = site.jar.clone().with(ANCHOR, anchor);
        let visit = site.send(jar.request(), NOTHING).await;
        assert_eq!(outcome(&visit), expect("absent", ""), "{anchor:?}");
        assert!(set_cookies(visit.response.headers()).is_empty());
    }
}

#[tokio::test]
async fn state_with_an_anchor_that_names_nothing_is_absent_and_cleared() {
    let mut site = with_two_identities().await;
    site.jar.put(ANCHOR, "none");
    assert_eq!(outcome(&site.look().await), expect("absent", "identity cleared"));
    assert_eq!(site.jar.names(), [ANCHOR]);
}

#[tokio::test]
async fn state_is_cleared_by_withdrawn_consent_whatever_it_is() {
    let two = with_two_identities().await;
    let unreadable = two.jar.clone().with(ANCHOR, "unreadable");
    let without_anchor = two.jar.clone().without(ANCHOR);
    for (jar, is_known) in
        [(two.jar.clone(), true), (two.jar.clone(), false), (unreadable, true), (without_anchor, true)]
    {
        let site = if is_known { two.clone() } else { Site::offline() };
        let mut site = Site { jar, ..site }.configured(|layer| layer.consent(|_| Consent::Withdrawn));
        assert_eq!(outcome(&site.look().await), expect("withheld", LOGIN_REMOVED));
        assert_eq!(site.jar, Jar::default(), "no cookie remains");
        assert_eq!(outcome(&site.look().await), expect("withheld", ""));
    }
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
    site.jar = site.jar.without(IDENTITY).with_from(&first, IDENTITY);
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
        assert_eq!(got, expect("opted_out", "identity cleared, opt-out set"), "{millis}");
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
    assert_eq!(visit.writes(), "identity cleared, opt-out set");
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
