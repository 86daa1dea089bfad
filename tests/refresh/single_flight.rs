//! Single flight: concurrent requests with the same refresh token, or of the same login, share one call to the operator.

#![expect(clippy::disallowed_methods, reason = "measures tokio's paused time")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower_euid::refresh_fn;

use crate::support::issuer::Issuer;
use crate::support::{DUE, Jar, Operator, Site, expect, new_pair, outcome};

const MINUTE: i64 = 60_000;

/// Sends `count` requests with the same cookies at once. Returns their outcomes without duplicates.
async fn burst(site: &Site, count: usize) -> Vec<(String, String)> {
    let mut requests = JoinSet::new();
    for _ in 0..count {
        let site = site.clone();
        requests.spawn(async move { outcome(&site.look_once().await) });
    }
    let mut outcomes = requests.join_all().await;
    outcomes.sort();
    outcomes.dedup();
    outcomes
}

#[tokio::test(start_paused = true)]
async fn single_flight_makes_one_call_for_ten_thousand_requests_with_one_cookie() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(20));
    let site = Site::new(operator.clone()).logged_in(DUE).await;
    assert_eq!(burst(&site, 10_000).await, [expect("active(new)", "identity set")]);
    assert_eq!((operator.calls(), operator.answered()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn single_flight_makes_one_call_for_all_old_cookies_of_one_login() {
    let issuer = Issuer::new([15 * MINUTE, 60 * MINUTE, 24 * 60 * MINUTE]);
    let mut site = issuer.due_site().await;
    let mut jars: Vec<Jar> = Vec::new();
    for visit in 1..=30 {
        jars.push(site.jar.clone());
        site.look().await;
        site.wait_until(DUE + visit * 20 * MINUTE);
    }
    assert_eq!(issuer.calls(), 30);
    let mut requests = JoinSet::new();
    for jar in jars {
        let browser = Site { jar, ..site.clone() };
        requests.spawn(async move { browser.look_once().await.saw() });
    }
    requests.join_all().await;
    assert_eq!(issuer.calls(), 31);
}

#[tokio::test(start_paused = true)]
async fn single_flight_ends_for_all_requests_when_its_call_panics() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let operator = refresh_fn(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        async {
            sleep(Duration::from_millis(20)).await;
            assert_eq!(black_box(0), 1, "the test wants a panic");
            new_pair("new")
        }
    });
    let site = Site::new(operator).logged_in(DUE).await;
    let start = Instant::now();
    assert_eq!(burst(&site, 100).await, [expect("active(old)", "")]);
    assert_eq!((calls.load(Ordering::SeqCst), start.elapsed()), (1, Duration::from_millis(20)));
}

#[tokio::test(start_paused = true)]
async fn single_flight_continues_after_its_first_request_is_dropped() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(20));
    let site = Site::new(operator.clone()).logged_in(DUE).await;
    let first = site.clone();
    let first = tokio::spawn(async move { first.look_once().await });
    sleep(Duration::from_millis(5)).await;
    first.abort();
    assert_eq!(burst(&site, 10).await, [expect("active(new)", "identity set")]);
    assert_eq!((operator.calls(), operator.given_up()), (1, 0));
}
