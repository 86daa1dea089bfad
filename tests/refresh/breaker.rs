//! The breaker: it opens while the operator fails or hangs, and then lets a single probe pass every five seconds.

#![expect(clippy::disallowed_methods, reason = "measures tokio's paused time")]

use std::future::pending;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime;
use tokio::task::{JoinSet, LocalSet, spawn_local, yield_now};
use tokio::time::{Instant, sleep};
use tower_euid::error::ErrorKind;
use tower_euid::{EuidLayer, refresh_fn};

use crate::support::{DUE, Log, Operator, Site, expect, failure, new_pair, outcome};

const SECOND: i64 = 1000;
/// How long an open breaker refuses calls.
const COOLDOWN: Duration = Duration::from_secs(5);

/// Visits a page for each visitor in turn. Returns how many of these pages had to wait.
async fn waiting_pages(visitors: Vec<Site>) -> usize {
    let mut waiting = 0;
    for mut visitor in visitors {
        let start = Instant::now();
        visitor.look().await;
        waiting += usize::from(!start.elapsed().is_zero());
    }
    waiting
}

/// Returns a site whose operator is down until the switch is turned, the switch, and the number of calls.
fn site_of_an_operator_that_is_down() -> (Site, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let is_down = Arc::new(AtomicBool::new(true));
    let calls = Arc::new(AtomicUsize::new(0));
    let (down, counter) = (Arc::clone(&is_down), Arc::clone(&calls));
    let refresh = refresh_fn(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        let down = down.load(Ordering::SeqCst);
        async move { if down { failure(ErrorKind::Transient) } else { new_pair("new") } }
    });
    (Site::new(refresh), is_down, calls)
}

#[tokio::test]
async fn breaker_opens_after_five_failures_and_closes_after_a_successful_probe() {
    let (site, is_down, calls) = site_of_an_operator_that_is_down();
    let mut visitors = site.due_visitors(30).await.into_iter();
    let mut calls_for = async |count: usize| {
        let before = calls.load(Ordering::SeqCst);
        for _ in 0..count {
            visitors.next().unwrap().look().await;
        }
        calls.load(Ordering::SeqCst) - before
    };
    assert_eq!(calls_for(10).await, 5, "five failures open the breaker");
    site.clock.advance(COOLDOWN);
    assert_eq!(calls_for(5).await, 1, "one probe, which fails");
    is_down.store(false, Ordering::SeqCst);
    assert_eq!(calls_for(2).await, 0, "the breaker is open again");
    site.clock.advance(COOLDOWN);
    assert_eq!(calls_for(5).await, 5, "the probe succeeds and closes the breaker");
}

#[tokio::test(start_paused = true)]
async fn breaker_opens_after_five_pages_waited_for_a_hanging_operator() {
    let operator = Operator::never();
    let visitors = Site::new(operator.clone()).due_visitors(100).await;
    let start = Instant::now();
    let waiting = waiting_pages(visitors).await;
    // The fifth call counts as slow at the moment that its page ends, so a sixth call may start before that.
    assert!(waiting == 5 || waiting == 6, "{waiting}");
    assert_eq!(operator.calls(), waiting);
    assert!(start.elapsed() <= 6 * EuidLayer::DEFAULT_MAX_WAIT);
}

#[tokio::test(start_paused = true)]
async fn breaker_opens_for_a_hanging_operator_with_one_permit_or_few() {
    for permits in [1, 2, 4] {
        let site = Site::new(Operator::never()).configured(|layer| layer.max_concurrent_refreshes(permits));
        let waiting = waiting_pages(site.due_visitors(50).await).await;
        // The last call counts as slow at the moment that its page ends, so one more may start before that.
        assert!(waiting <= permits + 1, "{waiting} pages waited with {permits} permits");
    }
}

#[tokio::test(start_paused = true)]
async fn breaker_stays_closed_for_a_quick_operator_and_pages_that_do_not_wait() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(20));
    let site = Site::new(operator.clone()).configured(|layer| layer.max_wait(Duration::ZERO));
    let visitors = site.due_visitors(50).await;
    for visitor in &visitors {
        assert!(visitor.look_once().await.saw().starts_with("active(visitor"));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(operator.calls(), 50);
    for visitor in &visitors {
        assert_eq!(outcome(&visitor.look_once().await), expect("active(new)", "identity set"));
    }
}

#[test]
fn breaker_allows_another_probe_after_the_runtime_of_a_probe_ended() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let operator = refresh_fn(move |_| {
        let hangs = counter.fetch_add(1, Ordering::SeqCst) >= 5;
        async move { if hangs { pending().await } else { failure(ErrorKind::Transient) } }
    });
    let site = Site::new(operator).configured(|layer| layer.max_wait(Duration::ZERO));
    // Each visitor's call has started, or has ended, when their page is done.
    let visit_on_a_new_runtime = |visitors: Range<usize>, millis| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for visitor in visitors {
                let mut site = site.clone();
                site.login(&format!("visitor-{visitor}")).await;
                site.wait_until(millis);
                site.look().await;
                yield_now().await;
            }
        });
    };
    visit_on_a_new_runtime(0..5, DUE);
    assert_eq!(calls.load(Ordering::SeqCst), 5);
    visit_on_a_new_runtime(5..7, DUE + 5 * SECOND);
    assert_eq!(calls.load(Ordering::SeqCst), 6, "one probe, whose runtime ends");
    visit_on_a_new_runtime(7..9, DUE + 10 * SECOND);
    assert_eq!(calls.load(Ordering::SeqCst), 7, "another probe");
}

/// Visits a page for each visitor, all at once. Fails unless each sees its own token.
async fn visit_at_once(visitors: Vec<Site>) {
    let mut visits = JoinSet::new();
    for mut visitor in visitors {
        visits.spawn(async move { visitor.look().await.saw() });
    }
    let saw = visits.join_all().await;
    assert!(saw.iter().all(|saw| saw.starts_with("active(")), "{saw:?}");
}

#[tokio::test(start_paused = true)]
async fn breaker_stays_closed_for_a_hundred_forged_sdk_cookies_that_fail_or_hang() {
    for operator in [
        Operator::answering(failure(ErrorKind::Transient)),
        Operator::answering(failure(ErrorKind::Malformed)).after(Duration::from_millis(20)),
        Operator::answering(failure(ErrorKind::Transient)).after(Duration::from_secs(2)),
        Operator::never(),
    ] {
        let site = Site::new(operator.clone()).migrating();
        let mut own = site.due_visitors(1).await;
        visit_at_once(site.due_sdk_visitors(100)).await;
        sleep(Duration::from_secs(20)).await;
        let before = operator.calls();
        assert!(before >= 16, "{before} calls, of {operator:?}");
        own[0].look().await;
        assert_eq!(operator.calls() - before, 1, "{operator:?}");
    }
}

#[tokio::test]
async fn breaker_that_own_identities_opened_stops_migrated_ones_until_an_own_probe_succeeds() {
    let (site, is_down, calls) = site_of_an_operator_that_is_down();
    let site = site.migrating();
    let mut own = site.due_visitors(6).await;
    let mut migrated = site.due_sdk_visitors(3).into_iter();
    let mut migrated_sees = async || migrated.next().unwrap().look_once().await.saw();
    for visitor in &mut own[..5] {
        visitor.look().await;
    }
    assert_eq!((migrated_sees().await.as_str(), calls.load(Ordering::SeqCst)), ("active(forged-0)", 5));
    is_down.store(false, Ordering::SeqCst);
    site.clock.advance(COOLDOWN);
    assert_eq!((migrated_sees().await.as_str(), calls.load(Ordering::SeqCst)), ("active(forged-1)", 5), "no probe");
    own[5].look().await;
    assert_eq!((migrated_sees().await.as_str(), calls.load(Ordering::SeqCst)), ("active(new)", 7));
}

/// A log that panics once, at the event of a half-open breaker.
#[derive(Clone, Debug, Default)]
struct PanickingLog {
    has_panicked: Arc<AtomicBool>,
}

impl io::Write for PanickingLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_half_open = String::from_utf8_lossy(bytes).contains("HalfOpen");
        assert!(!is_half_open || self.has_panicked.swap(true, Ordering::SeqCst), "the test wants a panic");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn breaker_allows_another_probe_after_a_log_panicked_at_the_start_of_one() {
    // Installs the global subscriber before this test's own one.
    Log::default().start();
    let log = PanickingLog::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());

    let operator = Operator::answering(failure(ErrorKind::Transient));
    let site = Site::new(operator.clone());
    let look = async |visitor: usize| {
        let mut site = site.clone();
        site.login(&format!("visitor-{visitor}")).await;
        site.wait_until(DUE);
        spawn_local(async move { site.look().await.saw() }).await
    };
    let visits = async {
        for visitor in 0..5 {
            look(visitor).await.unwrap();
        }
        site.clock.advance(COOLDOWN);
        assert!(look(5).await.is_err(), "the page that starts the probe panics");
        assert!(log.has_panicked.load(Ordering::SeqCst) && operator.calls() == 5);
        site.clock.advance(COOLDOWN);
        look(6).await.unwrap();
        assert_eq!(operator.calls(), 6, "the next probe");
    };
    LocalSet::new().run_until(visits).await;
}
