//! Permits: `max_concurrent_refreshes` bounds the calls that run at once; further calls queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tower_euid::error::ErrorKind;
use tower_euid::refresh_fn;

use crate::support::{Operator, Site, failure, new_pair};

#[derive(Debug, Default)]
struct Calls {
    running: AtomicUsize,
    /// The highest value of `running`.
    peak: AtomicUsize,
    total: AtomicUsize,
}

#[tokio::test(start_paused = true)]
async fn permits_bound_the_concurrent_calls_of_ten_thousand_visitors() {
    let calls = Arc::new(Calls::default());
    let counter = Arc::clone(&calls);
    let operator = refresh_fn(move |_| {
        let calls = Arc::clone(&counter);
        async move {
            calls.total.fetch_add(1, Ordering::SeqCst);
            let running = 1 + calls.running.fetch_add(1, Ordering::SeqCst);
            calls.peak.fetch_max(running, Ordering::SeqCst);
            sleep(Duration::from_millis(20)).await;
            calls.running.fetch_sub(1, Ordering::SeqCst);
            new_pair("new")
        }
    });
    let site =
        Site::new(operator).configured(|layer| layer.max_concurrent_refreshes(100).max_wait(Duration::from_secs(9)));
    let mut visits = JoinSet::new();
    for mut visitor in site.due_visitors(10_000).await {
        visits.spawn(async move { visitor.look().await.saw() });
    }
    assert!(visits.join_all().await.iter().all(|saw| saw == "active(new)"));
    assert_eq!((calls.total.load(Ordering::SeqCst), calls.peak.load(Ordering::SeqCst)), (10_000, 100));
}

#[tokio::test(start_paused = true)]
async fn permits_start_no_queued_call_after_the_breaker_opened() {
    let operator = Operator::answering(failure(ErrorKind::Transient)).after(Duration::from_millis(100));
    let site = Site::new(operator.clone()).configured(|layer| layer.max_concurrent_refreshes(5));
    let mut visits = JoinSet::new();
    for mut visitor in site.due_visitors(50).await {
        visits.spawn(async move { visitor.look().await.saw() });
    }
    assert!(visits.join_all().await.iter().all(|saw| saw.starts_with("active(visitor")));
    assert_eq!(operator.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn permits_are_for_at_most_a_quarter_of_a_hundred_forged_sdk_cookies() {
    for (permits, quarter) in [(64, 16), (8, 2), (3, 1)] {
        let operator = Operator::never();
        let site = Site::new(operator.clone()).migrating().configured(|layer| layer.max_concurrent_refreshes(permits));
        let own = site.due_visitors(permits - quarter).await;
        let mut visits = JoinSet::new();
        for visitor in site.due_sdk_visitors(100) {
            visits.spawn(async move { visitor.look_once().await.saw() });
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(operator.calls(), quarter);
        // Those that make no call do not wait either.
        let mut done = 0;
        while let Some(saw) = visits.try_join_next() {
            assert!(saw.unwrap().starts_with("active(forged-"));
            done += 1;
        }
        assert_eq!(done, 100 - quarter);
        for visitor in own {
            visits.spawn(async move { visitor.look_once().await.saw() });
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(operator.calls(), permits, "own identities get all the others");
        visits.join_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn permits_of_forged_sdk_cookies_are_free_again_after_their_calls() {
    for answer in [failure(ErrorKind::RejectedToken), failure(ErrorKind::Transient), new_pair("new")] {
        let operator = Operator::answering(answer);
        let site = Site::new(operator.clone()).migrating().configured(|layer| layer.max_concurrent_refreshes(1));
        for visitor in site.due_sdk_visitors(20) {
            visitor.look_once().await;
        }
        assert_eq!(operator.calls(), 20);
    }
}
