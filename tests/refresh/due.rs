//! When a refresh is due: jitter spreads visitors over time, and a pair that is already due on arrival causes few calls.

use std::time::Duration;

use tower_euid::store::MemoryStore;
use tower_euid::{EuidLayer, EuidUpdate};

use crate::support::issuer::Issuer;
use crate::support::{DUE, Jar, Log, Operator, REFRESH_FROM, Site, identity_until, new_pair};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;

#[tokio::test]
async fn refresh_jitter_spreads_visitors_over_its_bound_and_not_beyond() {
    let operator = Operator::answering(new_pair("new"));
    let site = Site::new(operator.clone()).configured(|layer| layer.refresh_jitter(Duration::from_secs(100)));
    let mut jars: Vec<Jar> = Vec::new();
    for number in 0..200 {
        let mut visitor = site.clone();
        visitor.login(&format!("visitor-{number}")).await;
        jars.push(visitor.jar);
    }
    let calls_until = async |millis: i64| {
        site.wait_until(millis);
        for jar in &jars {
            site.send(jar.request(), |_, _| ()).await;
        }
        operator.calls()
    };
    assert_eq!(calls_until(REFRESH_FROM - 1).await, 0);
    let half = calls_until(REFRESH_FROM + 50 * SECOND).await;
    assert!((50..150).contains(&half), "{half} of 200");
    // These browsers keep the old cookie, and the memo has forgotten the first answers after 45 s.
    assert_eq!(calls_until(REFRESH_FROM + 100 * SECOND).await - half, 200);
}

#[tokio::test]
async fn pair_of_a_login_that_is_due_on_arrival_is_refreshed_at_once() {
    let operator = Operator::answering(new_pair("new"));
    let mut site = Site::new(operator.clone());
    site.update(EuidUpdate::login(identity_until("due", [-MINUTE, 60 * MINUTE, 90 * MINUTE]))).await;
    assert_eq!(site.look().await.saw(), "active(new)");
    site.look().await;
    assert_eq!(operator.calls(), 1);
}

#[tokio::test]
async fn refreshed_pair_that_is_due_on_arrival_is_refreshed_once_a_minute_with_one_warning() {
    let in_store: fn(EuidLayer) -> EuidLayer = |layer| layer.store(MemoryStore::new());
    for keep in [|layer| layer, in_store] {
        let log = Log::default();
        let _guard = log.start();
        let issuer = Issuer::new([-5 * MINUTE, 40 * MINUTE, 60 * MINUTE]);
        let mut site = issuer.due_site().await.configured(keep);
        log.take();
        for (seconds, calls) in [(0, 1), (1, 1), (59, 1), (60, 2), (61, 2), (119, 2), (120, 3)] {
            site.wait_until(DUE + seconds * SECOND);
            assert!(site.look().await.saw().starts_with("active(pair"));
            assert_eq!(issuer.calls(), calls, "{seconds} s");
        }
        let warnings: Vec<String> = log.take().into_iter().filter(|line| line.starts_with("WARN")).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("clock is ahead") && warnings[0].contains("due_by_seconds=300"), "{warnings:?}");
    }
}

#[tokio::test]
async fn refresh_ahead_makes_a_refresh_due_earlier_by_this_time() {
    let operator = Operator::answering(new_pair("new"));
    let ahead = Duration::from_secs(10 * 60);
    let mut site = Site::new(operator.clone()).configured(|layer| layer.refresh_ahead(ahead)).logged_in(0).await;
    for (millis, calls) in [(0, 0), (REFRESH_FROM - 10 * MINUTE - 1, 0), (REFRESH_FROM - 10 * MINUTE, 1)] {
        site.wait_until(millis);
        site.look().await;
        assert_eq!(operator.calls(), calls, "{millis}");
    }
}

/// Returns the number of calls for a page a minute, 100 times, with pairs like those of EUID's operator. The same with a
/// store as with cookies.
async fn calls_of_100_pages(ahead: Duration) -> usize {
    let in_cookies = calls_with(ahead, |layer| layer).await;
    assert_eq!(calls_with(ahead, |layer| layer.store(MemoryStore::new())).await, in_cookies);
    in_cookies
}

async fn calls_with(ahead: Duration, keep: fn(EuidLayer) -> EuidLayer) -> usize {
    let issuer = Issuer::new([15 * MINUTE, 60 * MINUTE, 90 * MINUTE]);
    let mut site = issuer.due_site().await.configured(|layer| keep(layer.refresh_ahead(ahead)));
    for minute in 0..100 {
        site.wait_until(DUE + minute * MINUTE);
        assert!(site.look().await.saw().starts_with("active(pair"));
    }
    issuer.calls()
}

#[tokio::test]
async fn refresh_that_is_absurdly_far_ahead_causes_no_call_on_every_page() {
    assert_eq!(calls_of_100_pages(Duration::ZERO).await, 7, "one in 15 minutes");
    assert_eq!(calls_of_100_pages(Duration::from_secs(5 * 60)).await, 10, "one in 10 minutes");
    // A pair that would be due ahead within a minute of its arrival is due in its own time.
    for seconds in [15 * 60 - 59, 15 * 60 - 1, 15 * 60, 60 * 60, 1 << 40, u64::MAX] {
        assert_eq!(calls_of_100_pages(Duration::from_secs(seconds)).await, 7, "{seconds}");
    }
}

#[tokio::test]
async fn pair_of_a_login_that_is_due_ahead_is_refreshed_once() {
    let operator = Operator::answering(new_pair("new"));
    let site = Site::new(operator.clone()).configured(|layer| layer.refresh_ahead(Duration::MAX));
    let mut site = site.logged_in(0).await;
    for _ in 0..100 {
        assert_eq!(site.look().await.saw(), "active(new)");
    }
    assert_eq!(operator.calls(), 1);
}
