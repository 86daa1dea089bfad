//! `RefreshMode::Concurrent`: the handler runs while the refresh does, as long as the token is still valid.

#![expect(clippy::disallowed_methods, reason = "measures tokio's paused time")]

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_euid::{RefreshMode, Refreshed};

use crate::support::{DUE, EXPIRED, NOTHING, Operator, Site, Visit, expect, new_pair, outcome};

/// Returns an operator that answers after 20 ms.
fn operator() -> Operator {
    Operator::answering(new_pair("new")).after(Duration::from_millis(20))
}

/// Visits a page whose handler takes `handler_millis`. Returns the page and how long it took.
async fn concurrent_page(operator: &Operator, millis: i64, handler_millis: u64) -> (Site, Visit, Duration) {
    let site = Site::new(operator.clone()).configured(|layer| layer.refresh_mode(RefreshMode::Concurrent));
    let site = site.logged_in(millis).await;
    let start = Instant::now();
    let visit = site.send_slowly(site.jar.request(), Duration::from_millis(handler_millis), NOTHING).await;
    (site, visit, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn concurrent_refresh_faster_than_the_handler_is_written_by_the_same_response() {
    let (_, visit, took) = concurrent_page(&operator(), DUE, 30).await;
    assert_eq!((outcome(&visit), took), (expect("active(old)", "identity set"), Duration::from_millis(30)));
}

#[tokio::test(start_paused = true)]
async fn concurrent_refresh_slower_than_the_handler_is_written_by_the_next_response() {
    let operator = operator();
    let (site, visit, took) = concurrent_page(&operator, DUE, 10).await;
    assert_eq!((outcome(&visit), took), (expect("active(old)", ""), Duration::from_millis(10)));
    sleep(Duration::from_millis(20)).await;
    assert_eq!(outcome(&site.look_once().await), expect("active(new)", "identity set"));
    assert_eq!(operator.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn concurrent_refresh_that_finds_an_opt_out_clears_the_identity_that_the_handler_saw() {
    let (_, visit, _) = concurrent_page(&Operator::answering(Ok(Refreshed::OptedOut)), DUE, 10).await;
    assert_eq!(outcome(&visit), expect("active(old)", "identity cleared, opt-out set"));
}

#[tokio::test(start_paused = true)]
async fn concurrent_mode_waits_for_the_refresh_of_an_expired_token() {
    let (_, visit, took) = concurrent_page(&operator(), EXPIRED, 0).await;
    assert_eq!((outcome(&visit), took), (expect("active(new)", "identity set"), Duration::from_millis(20)));
}
