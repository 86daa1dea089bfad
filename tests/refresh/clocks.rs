//! Refreshes where clocks differ, where processes are frozen, and where one login floods the operator.
//!
//! Real time never passes: either tokio's time is paused, or nothing waits.

#![expect(clippy::disallowed_methods, reason = "measures tokio's paused time")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::task::{JoinSet, yield_now};
use tower_euid::clock::{Clock, ManualClock};
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::{EuidUpdate, Refreshed, refresh_fn};

use crate::support::{DUE, Jar, Log, Operator, Site, Visit, failure, identity_until, new_pair};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;

/// Answers with a new pair on each call, whose three clocks are so far from now.
#[derive(Clone)]
struct Issuer {
    clock: ManualClock,
    calls: Arc<AtomicUsize>,
    clocks: [i64; 3],
}

impl Issuer {
    fn new(clocks: [i64; 3]) -> Self {
        Self { clock: ManualClock::at(crate::support::START), calls: Arc::default(), clocks }
    }

    /// A site that runs on the issuer's clock, with a visitor who is logged in and due.
    async fn site(&self) -> Site {
        let (clock, calls, clocks) = (self.clock.clone(), Arc::clone(&self.calls), self.clocks);
        let operator = refresh_fn(move |_| {
            let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
            let now = clock.now().as_millis() - crate::support::START.as_millis();
            let pair = identity_until(&format!("pair-{call}"), clocks.map(|millis| now + millis));
            async move { Ok(Refreshed::Identity(pair)) }
        });
        let mut site = Site { clock: self.clock.clone(), ..Site::new(operator) };
        site = site.configured(|layer| layer.clock(self.clock.clone()));
        site.login("old").await;
        site.wait_until(DUE);
        site
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

async fn look_once(site: &Site) -> Visit {
    site.send(site.jar.request(), |_, _| ()).await
}

#[tokio::test]
async fn refreshed_pair_that_is_due_as_it_arrives_is_refreshed_once_a_minute_and_warned_of_once() {
    let log = Log::default();
    let _guard = log.start();
    let issuer = Issuer::new([-5 * MINUTE, 40 * MINUTE, 60 * MINUTE]);
    let mut site = issuer.site().await;
    log.take();
    for (seconds, calls) in [(0, 1), (1, 1), (59, 1), (60, 2), (61, 2), (119, 2), (120, 3)] {
        site.wait_until(DUE + seconds * SECOND);
        assert!(site.look().await.saw().starts_with("active(pair"));
        assert_eq!(issuer.calls(), calls, "{seconds}");
    }
    let warnings: Vec<String> = log.take().into_iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("clock is ahead") && warnings[0].contains("due_by_seconds=300"), "{warnings:?}");
}

#[tokio::test]
async fn pair_of_a_login_that_is_due_as_it_arrives_is_refreshed_at_once() {
    let operator = Operator::answering(new_pair("new"));
    let mut site = Site::new(operator.clone());
    site.update(EuidUpdate::login(identity_until("due", [-MINUTE, 60 * MINUTE, 90 * MINUTE]))).await;
    assert_eq!(site.look().await.saw(), "active(new)");
    site.look().await;
    assert_eq!(operator.calls(), 1);
}

#[tokio::test]
async fn refreshed_pair_that_lives_shorter_than_an_answer_is_remembered_is_refreshed_when_it_has_ended() {
    let issuer = Issuer::new([15 * SECOND, 20 * SECOND, 90 * MINUTE]);
    let site = issuer.site().await;
    for (seconds, saw) in [(0, "active(pair-1)"), (1, "active(pair-1)"), (16, "active(pair-2)"), (40, "active(pair-3)")]
    {
        site.wait_until(DUE + seconds * SECOND);
        // The browser keeps the old cookie.
        assert_eq!(look_once(&site).await.saw(), saw, "{seconds}");
    }
}

#[tokio::test]
async fn pair_that_no_response_could_carry_stays_known_until_its_refresh_from() {
    let operator = Operator::answering(new_pair("new"));
    let mut site = Site::new(operator.clone());
    site.login("old").await;
    for minutes in [0, 1, 30, 59] {
        site.wait_until(DUE + minutes * MINUTE);
        let visit = site.visit(|_, response| *response.status_mut() = StatusCode::NOT_MODIFIED).await;
        assert_eq!((visit.saw(), visit.writes()), ("active(new)".to_owned(), String::new()));
    }
    let visit = site.look().await;
    assert_eq!((visit.saw(), visit.writes()), ("active(new)".to_owned(), "identity set".to_owned()));
    assert_eq!(operator.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn login_that_brings_all_its_old_cookies_at_once_makes_one_call() {
    let issuer = Issuer::new([15 * MINUTE, 60 * MINUTE, 24 * 60 * MINUTE]);
    let mut site = issuer.site().await;
    let mut jars: Vec<Jar> = Vec::new();
    for visit in 1..=30 {
        jars.push(site.jar.clone());
        site.look().await;
        site.wait_until(DUE + visit * 20 * MINUTE);
    }
    assert_eq!(issuer.calls(), 30);
    let mut visits = JoinSet::new();
    for jar in jars {
        let browser = Site { jar, ..site.clone() };
        visits.spawn(async move { look_once(&browser).await.saw() });
    }
    visits.join_all().await;
    assert_eq!(issuer.calls(), 31);
}

#[tokio::test]
async fn token_waits_as_long_as_the_retry_after_of_a_failure() {
    let error = EuidError::new(ErrorKind::Transient, "busy").with_retry_after(Duration::from_secs(60));
    let operator = Operator::answering(Err(error));
    let mut site = Site::new(operator.clone());
    site.login("old").await;
    for (seconds, calls) in [(0, 1), (5, 1), (59, 1), (60, 2)] {
        site.wait_until(DUE + seconds * SECOND);
        site.look().await;
        assert_eq!(operator.calls(), calls, "{seconds}");
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_operator_is_noticed_with_a_single_permit() {
    for permits in [1, 2, 4] {
        let operator = Operator::never();
        let site = Site::new(operator.clone()).configured(|layer| layer.max_concurrent_refreshes(permits));
        let mut waited = 0;
        for visitor in 0..50 {
            let mut visitor_site = site.clone();
            visitor_site.login(&format!("visitor-{visitor}")).await;
            visitor_site.wait_until(DUE);
            let start = tokio::time::Instant::now();
            visitor_site.look().await;
            waited += usize::from(!start.elapsed().is_zero());
        }
        // The last call is found slow at the moment that its page leaves, so one more may slip in.
        assert!(waited <= permits + 1, "{waited} pages waited with {permits} permits");
    }
}

#[tokio::test(start_paused = true)]
async fn answer_that_arrived_while_the_process_was_frozen_is_used() {
    for frozen in [Duration::from_secs(7), Duration::from_secs(70)] {
        let (answer, answered) = tokio::sync::watch::channel(false);
        let operator = refresh_fn(move |_| {
            let mut answered = answered.clone();
            async move {
                answered.wait_for(|&answered| answered).await.unwrap();
                new_pair("new")
            }
        });
        let mut site = Site::new(operator);
        site.login("old").await;
        site.wait_until(DUE);
        let page = tokio::spawn(async move { site.look().await.saw() });
        for _ in 0..3 {
            yield_now().await;
        }
        // Nothing runs while the clock goes on; after that the timers are the first to fire.
        tokio::time::advance(frozen).await;
        for _ in 0..5 {
            yield_now().await;
        }
        answer.send(true).unwrap();
        assert_eq!(page.await.unwrap(), "active(new)", "{frozen:?}");
    }
}

/// A log that panics once, at the line that says that the breaker is half open.
#[derive(Clone, Default)]
struct BrokenLog(Arc<AtomicBool>);

impl io::Write for BrokenLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_it = String::from_utf8_lossy(bytes).contains("HalfOpen");
        assert!(!is_it || self.0.swap(true, Ordering::SeqCst), "the test wants a panic");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn log_that_panics_as_a_probe_begins_leaves_no_probe_under_way() {
    Log::default().start(); // whether events matter is decided once for all threads
    let log = BrokenLog::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let operator = Operator::answering(failure(ErrorKind::Transient));
    let site = Site::new(operator.clone());
    let look = async |visitor: usize| {
        let mut site = site.clone();
        site.login(&format!("visitor-{visitor}")).await;
        site.wait_until(DUE);
        tokio::task::spawn_local(async move { site.look().await.saw() }).await
    };
    tokio::task::LocalSet::new()
        .run_until(async {
            for visitor in 0..5 {
                look(visitor).await.unwrap();
            }
            site.clock.advance(Duration::from_secs(5));
            assert!(look(5).await.is_err(), "the page that begins the probe meets the panic");
            assert!(log.0.load(Ordering::SeqCst) && operator.calls() == 5);
            site.clock.advance(Duration::from_secs(5));
            look(6).await.unwrap();
            assert_eq!(operator.calls(), 6, "the next probe");
        })
        .await;
}
