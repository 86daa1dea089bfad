//! What is counted and what is logged, flow by flow, under the names that
//! `src/docs/metrics.md` promises.
//!
//! Recorder and subscriber are this thread's, where the refreshes run too.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use metrics::LocalRecorderGuard;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};
use tower_euid::clock::ManualClock;
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::{Consent, CookieKey, EuidUpdate, KeyRing, Refreshed, refresh_fn};

use crate::support::{ANCHOR, DUE, EXPIRED, IDENTITY, Log, Operator, START, Site, failure, identity_until, new_pair};

/// Notes what this thread counts.
struct Meter {
    snapshotter: Snapshotter,
    _noting: LocalRecorderGuard<'static>,
}

impl Meter {
    fn start() -> Self {
        let recorder: &'static DebuggingRecorder = Box::leak(Box::default());
        Self { snapshotter: recorder.snapshotter(), _noting: metrics::set_default_local_recorder(recorder) }
    }

    /// What was counted since the last time, a line each; of gauges, where they stand.
    fn take(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let value = match value {
                DebugValue::Counter(0) => continue,
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(level) => level.to_string(),
                DebugValue::Histogram(values) if values.is_empty() => continue,
                DebugValue::Histogram(values) => {
                    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
                }
            };
            let labels: Vec<String> =
                key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            lines.push(format!("{}{{{}}} {value}", key.key().name(), labels.join(",")));
        }
        lines.sort();
        lines
    }

    /// The lines of one metric.
    fn take_of(&self, name: &str) -> Vec<String> {
        let mut lines = self.take();
        lines.retain(|line| line.split('{').next() == Some(name));
        lines
    }
}

/// A visitor whose refresh is due.
async fn due(mut site: Site, name: &str) -> Site {
    site.login(name).await;
    site.wait_until(DUE);
    site
}

fn panics() -> Result<Refreshed, EuidError> {
    panic!("the test wants it")
}

#[tokio::test]
async fn requests_are_counted_by_what_their_handlers_see() {
    for (answer, at, state) in [
        (failure(ErrorKind::Transient), 0, "active"),
        (failure(ErrorKind::Transient), DUE, "active"),
        (failure(ErrorKind::Transient), EXPIRED, "unavailable"),
        (failure(ErrorKind::RejectedToken), DUE, "absent"),
        (Ok(Refreshed::OptedOut), DUE, "opted_out"),
        (new_pair("new"), EXPIRED, "active"),
    ] {
        let meter = Meter::start();
        let mut site = Site::new(Operator::answering(answer));
        site.login("old").await;
        assert_eq!(meter.take_of("euid_requests_total"), ["euid_requests_total{state=absent} 1"]);
        site.wait_until(at);
        site.look().await;
        assert_eq!(meter.take_of("euid_requests_total"), [format!("euid_requests_total{{state={state}}} 1")]);
    }
}

#[tokio::test]
async fn a_fresh_cookie_counts_nothing_but_its_request() {
    let mut site = Site::offline();
    site.login("fresh").await;
    let (meter, log) = (Meter::start(), Log::default());
    let _logging = log.start();
    site.look().await;
    assert_eq!(meter.take(), ["euid_requests_total{state=active} 1"]);
    assert!(log.take().is_empty());
}

#[tokio::test]
async fn a_request_counts_once_where_a_layer_is_inside_another() {
    let mut site = Site::offline();
    site.login("fresh").await;
    let meter = Meter::start();
    let page = tower::service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(()))));
    let nested = site.layer.layer(site.layer.layer(page));
    nested.oneshot(site.jar.request()).await.unwrap();
    assert_eq!(meter.take(), ["euid_requests_total{state=active} 1"]);
}

#[tokio::test]
async fn a_refresh_has_one_event_and_one_count_by_its_outcome() {
    for (answer, outcome, event) in [
        (new_pair("new"), "refreshed", "DEBUG tower_euid: an identity was refreshed outcome=\"refreshed\""),
        (
            Ok(Refreshed::OptedOut),
            "optout",
            "DEBUG tower_euid: a refresh found the person opted out outcome=\"optout\"",
        ),
        (
            failure(ErrorKind::RejectedToken),
            "rejected",
            "INFO tower_euid: the operator rejected a refresh token outcome=\"rejected\" error=as the test wants it",
        ),
        (
            failure(ErrorKind::RejectedInput),
            "failed",
            "WARN tower_euid: an identity could not be refreshed outcome=\"failed\" kind=RejectedInput \
             error=as the test wants it",
        ),
        (
            failure(ErrorKind::Transient),
            "failed",
            "WARN tower_euid: an identity could not be refreshed outcome=\"failed\" kind=Transient \
             error=as the test wants it",
        ),
    ] {
        let mut site = due(Site::new(Operator::answering(answer)), "old").await;
        let (meter, log) = (Meter::start(), Log::default());
        let logging = log.start();
        site.look().await;
        drop(logging);
        assert_eq!(log.take(), [event]);
        assert_eq!(meter.take_of("euid_refresh_total"), [format!("euid_refresh_total{{outcome={outcome}}} 1")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_meets_its_deadline_is_a_timeout() {
    let hanging = Site::new(Operator::never()).configured(|layer| layer.refresh_deadline(Duration::from_millis(100)));
    let mut site = due(hanging, "old").await;
    let (meter, log) = (Meter::start(), Log::default());
    let logging = log.start();
    site.look().await;
    drop(logging);
    let event = "WARN tower_euid: an identity could not be refreshed outcome=\"timeout\" kind=Transient \
                 error=no answer within the deadline";
    assert_eq!(log.take(), [event]);
    assert_eq!(meter.take_of("euid_refresh_total"), ["euid_refresh_total{outcome=timeout} 1"]);
}

#[tokio::test]
async fn a_refresh_that_panics_is_a_failure_and_an_error() {
    let mut site = due(Site::new(refresh_fn(|_| async { panics() })), "old").await;
    let (meter, log) = (Meter::start(), Log::default());
    let logging = log.start();
    site.look().await;
    drop(logging);
    let event = "ERROR tower_euid: a refresh panicked outcome=\"failed\"";
    assert_eq!(log.take(), [event]);
    assert_eq!(meter.take_of("euid_refresh_total"), ["euid_refresh_total{outcome=failed} 1"]);
}

#[tokio::test]
async fn refreshes_that_panic_open_the_breaker_as_other_failures_do() {
    let site = Site::new(refresh_fn(|_| async { panics() }));
    let meter = Meter::start();
    for visitor in ["a", "b", "c", "d", "e"] {
        due(site.clone(), visitor).await.look().await;
    }
    assert_eq!(meter.take_of("euid_breaker_state"), ["euid_breaker_state{} 2"]);
}

#[test]
fn refreshes_that_end_with_their_runtime_are_no_failure_of_the_operator() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (meter, log) = (Meter::start(), Log::default());
    runtime.block_on(async {
        let site = Site::new(Operator::never()).configured(|layer| layer.max_wait(Duration::ZERO));
        for visitor in ["a", "b", "c", "d", "e", "f"] {
            due(site.clone(), visitor).await.look().await;
        }
    });
    let logging = log.start();
    drop(runtime);
    drop(logging);
    let event = "DEBUG tower_euid: a refresh ended with its runtime, which is shutting down outcome=\"failed\"";
    assert_eq!(log.take(), [event; 6]);
    assert_eq!(meter.take_of("euid_refresh_total"), ["euid_refresh_total{outcome=failed} 6"]);
}

#[tokio::test]
async fn a_refresh_takes_as_long_as_the_clock_says() {
    let clock = ManualClock::at(START);
    let thinking = clock.clone();
    let operator = refresh_fn(move |_| {
        thinking.advance(Duration::from_millis(250));
        ready(new_pair("new"))
    });
    let site = Site { clock: clock.clone(), ..Site::new(operator).configured(|layer| layer.clock(clock)) };
    let mut site = due(site, "old").await;
    let meter = Meter::start();
    site.look().await;
    assert_eq!(meter.take_of("euid_refresh_duration_seconds"), ["euid_refresh_duration_seconds{} 0.25"]);
}

#[tokio::test(start_paused = true)]
async fn pages_that_join_a_refresh_are_counted_and_have_no_event() {
    let site = due(Site::new(Operator::answering(new_pair("new")).after(Duration::from_millis(20))), "old").await;
    let (meter, log) = (Meter::start(), Log::default());
    let logging = log.start();
    let mut visits = JoinSet::new();
    for _ in 0..10 {
        let site = site.clone();
        visits.spawn(async move { site.send(site.jar.request(), |_, _| ()).await.saw() });
    }
    visits.join_all().await;
    drop(logging);
    assert_eq!(log.take().len(), 1);
    let mut counted = meter.take();
    counted.retain(|line| !line.starts_with("euid_cookie_bytes"));
    assert_eq!(
        counted,
        [
            "euid_breaker_state{} 0",
            "euid_refresh_coalesced_total{} 9",
            "euid_refresh_duration_seconds{} 0",
            "euid_refresh_total{outcome=refreshed} 1",
            "euid_requests_total{state=active} 10",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_breaker_shows_its_state_and_whom_it_turned_away() {
    let answer = Arc::new(Mutex::new(failure(ErrorKind::Transient)));
    let now = Arc::clone(&answer);
    let site = Site::new(refresh_fn(move |_| {
        let answer = now.lock().unwrap().clone();
        async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer
        }
    }));
    let mut visitors = Vec::new();
    for number in 0..7 {
        let mut visitor = site.clone();
        visitor.login(&format!("visitor-{number}")).await;
        visitors.push(visitor);
    }
    let [failing @ .., turned_away, probing] = &mut *visitors else { panic!("there are seven") };
    site.wait_until(DUE);
    let (meter, log) = (Meter::start(), Log::default());
    let _logging = log.start();
    let breaker = |counted: &[&str], events: &[&str]| {
        let mut lines = meter.take();
        lines.retain(|line| line.starts_with("euid_breaker_state") || line.contains("outcome=breaker_open"));
        assert_eq!(lines, counted);
        let mut lines = log.take();
        lines.retain(|line| line.contains("breaker"));
        assert_eq!(lines, events);
    };

    for visitor in failing {
        visitor.look().await;
    }
    breaker(
        &["euid_breaker_state{} 2"],
        &["WARN tower_euid: the operator's breaker changed state from=Closed to=Open"],
    );
    turned_away.look().await;
    breaker(&["euid_breaker_state{} 2", "euid_refresh_total{outcome=breaker_open} 1"], &[]);

    site.wait_until(DUE + 5_000);
    *answer.lock().unwrap() = new_pair("new");
    let probe = async {
        probing.look().await;
    };
    let half_open = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        turned_away.look().await;
        breaker(
            &["euid_breaker_state{} 1", "euid_refresh_total{outcome=breaker_open} 1"],
            &["WARN tower_euid: the operator's breaker changed state from=Open to=HalfOpen"],
        );
    };
    tokio::join!(probe, half_open);
    turned_away.look().await;
    breaker(
        &["euid_breaker_state{} 0"],
        &["WARN tower_euid: the operator's breaker changed state from=HalfOpen to=Closed"],
    );
}

#[tokio::test(start_paused = true)]
async fn a_page_for_which_too_many_refreshes_are_under_way_is_not_the_breakers() {
    let site = Site::new(Operator::never()).configured(|layer| layer.memo_entries(1).memo_bytes(1 << 20));
    let (mut first, mut second) = (due(site.clone(), "first").await, due(site, "second").await);
    let meter = Meter::start();
    tokio::join!(first.look(), second.look());
    assert!(meter.take_of("euid_refresh_total").is_empty());
}

#[tokio::test]
async fn identities_under_an_old_key_are_counted_until_they_are_sealed_anew() {
    let [old, new] = [(); 2].map(|()| CookieKey::generate().unwrap());
    let mut site = Site::with_keys(old.clone().into(), Operator::answering(new_pair("new")));
    site.login("old").await;
    let keys = site.layer.keys();
    keys.reload(KeyRing::new([old.clone(), new.clone()]).unwrap());
    let meter = Meter::start();
    site.look().await;
    assert!(meter.take_of("euid_cookie_old_key_total").is_empty(), "it is still the newest");
    keys.reload(KeyRing::new([new, old]).unwrap());
    for _ in 0..2 {
        site.look().await;
        assert_eq!(meter.take_of("euid_cookie_old_key_total"), ["euid_cookie_old_key_total{} 1"]);
    }
    site.wait_until(DUE);
    site.look().await;
    assert_eq!(meter.take_of("euid_cookie_old_key_total"), ["euid_cookie_old_key_total{} 1"]);
    site.look().await;
    assert!(meter.take_of("euid_cookie_old_key_total").is_empty(), "the refresh has sealed it under the new key");
}

/// The value with its character at `index` changed.
fn altered(value: &str, index: usize) -> String {
    let (before, rest) = value.split_at(index);
    let other = if rest.starts_with('A') { "B" } else { "A" };
    format!("{before}{other}{}", rest.get(1..).unwrap())
}

#[tokio::test]
async fn a_cookie_of_no_use_is_counted_and_logged_with_its_reason() {
    let mut site = Site::offline();
    site.login("mine").await;
    let mut stranger = Site::offline();
    stranger.login("theirs").await;
    let value = site.jar.value(IDENTITY).unwrap();
    for (jar, reason) in [
        (stranger.jar.clone(), "unknown_key"),
        (site.jar.clone().with(IDENTITY, "nonsense"), "unknown_key"),
        (site.jar.clone().with(IDENTITY, &format!("{value}!")), "undecodable"),
        (site.jar.clone().with(IDENTITY, &altered(value, 100)), "forged"),
        (site.jar.clone().without(ANCHOR), "anchor"),
    ] {
        let (meter, log) = (Meter::start(), Log::default());
        let logging = log.start();
        site.send(jar.request(), |_, _| ()).await;
        drop(logging);
        assert_eq!(log.take(), [format!("DEBUG tower_euid: the identity cookie can't be used reason=\"{reason}\"")]);
        let rejected = format!("euid_cookie_rejected_total{{reason={reason}}} 1");
        assert_eq!(meter.take(), [&rejected, "euid_requests_total{state=absent} 1"]);
    }
}

#[tokio::test]
async fn cookie_of_another_user_is_counted_and_logged_and_one_without_a_signed_in_user_is_counted() {
    let mut site = Site::offline();
    site.update(EuidUpdate::login(identity_until("anns", [DUE, EXPIRED, EXPIRED])).subject("ann")).await;
    for (user, state, rejected) in
        [(Some("ann"), "active", None), (Some("bob"), "absent", Some("subject")), (None, "absent", Some("no_user"))]
    {
        let site = site.clone().configured(|layer| layer.subject(move |_| user));
        let (meter, log) = (Meter::start(), Log::default());
        let logging = log.start();
        site.send(site.jar.request(), |_, _| ()).await;
        drop(logging);
        let event = "DEBUG tower_euid: the identity cookie can't be used reason=\"subject\"";
        assert_eq!(log.take(), Vec::from_iter((rejected == Some("subject")).then_some(event)));
        let counted = rejected.map(|reason| format!("euid_cookie_rejected_total{{reason={reason}}} 1"));
        let counted: Vec<_> = counted.into_iter().chain([format!("euid_requests_total{{state={state}}} 1")]).collect();
        assert_eq!(meter.take(), counted);
    }
}

#[tokio::test]
async fn without_consent_a_request_is_counted_as_such() {
    let mut site = Site::offline();
    site.login("old").await;
    for consent in [Consent::Withheld, Consent::Withdrawn] {
        let site = site.clone().configured(|layer| layer.consent(move |_| consent));
        let meter = Meter::start();
        site.send(site.jar.request(), |_, _| ()).await;
        assert_eq!(meter.take(), ["euid_requests_total{state=withheld} 1"]);
    }
}

#[tokio::test]
async fn an_identity_that_is_not_written_is_logged_and_counted_if_too_large() {
    let past = || identity_until("past", [-3, -2, -1].map(|days| days * 86_400_000));
    let large = || identity_until(&"large".repeat(1000), [1, 2, 3].map(|days| days * 86_400_000));
    for (identity, reason, counted) in
        [(large(), "too_large", vec!["euid_cookie_rejected_total{reason=too_large} 1"]), (past(), "expired", vec![])]
    {
        let (meter, log) = (Meter::start(), Log::default());
        let logging = log.start();
        Site::offline().update(EuidUpdate::login(identity)).await;
        drop(logging);
        let event = format!("WARN tower_euid: a response could not write its cookies reason=\"{reason}\"");
        assert_eq!(log.take(), [event]);
        let requests = "euid_requests_total{state=absent} 1";
        assert_eq!(meter.take(), [counted, vec![requests]].concat());
    }
}

#[tokio::test]
async fn the_size_of_a_cookie_is_that_of_its_name_and_value() {
    let mut site = Site::new(Operator::answering(new_pair("a-token-of-another-length")));
    let meter = Meter::start();
    for when in [0, DUE] {
        site.wait_until(when);
        if when == 0 {
            site.login("old").await;
        } else {
            site.look().await;
        }
        let size = site.jar.pair(IDENTITY).len() - "=".len();
        assert_eq!(meter.take_of("euid_cookie_bytes"), [format!("euid_cookie_bytes{{}} {size}")]);
    }
    site.update(EuidUpdate::logout()).await;
    assert!(meter.take_of("euid_cookie_bytes").is_empty());
}
