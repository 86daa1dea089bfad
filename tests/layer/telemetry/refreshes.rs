//! Events and metrics of refreshes and of the breaker.

use std::future::{pending, ready};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tower_euid::clock::ManualClock;
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::{Refreshed, refresh_fn};

use super::Recording;
use crate::support::{DUE, Operator, SCOPE, START, Site, failure, new_pair};

/// Returns another visitor of the site, whose refresh is due.
async fn due(site: &Site, name: &str) -> Site {
    let mut site = site.clone();
    site.login(name).await;
    site.wait_until(DUE);
    site
}

fn panics() -> Result<Refreshed, EuidError> {
    panic!("the test wants it")
}

#[tokio::test]
async fn refresh_has_one_event_and_one_count_by_its_outcome() {
    for (answer, outcome, event) in [
        (
            new_pair("new"),
            "refreshed",
            format!("DEBUG tower_euid: an identity was refreshed scope=\"{SCOPE}\" outcome=\"refreshed\""),
        ),
        (
            Ok(Refreshed::OptedOut),
            "optout",
            format!("DEBUG tower_euid: a refresh found the person opted out scope=\"{SCOPE}\" outcome=\"optout\""),
        ),
        (
            failure(ErrorKind::RejectedToken),
            "rejected",
            format!(
                "INFO tower_euid: the operator rejected a refresh token scope=\"{SCOPE}\" outcome=\"rejected\" error=as the test wants it"
            ),
        ),
        (
            failure(ErrorKind::LoginEnded),
            "ended",
            format!(
                "DEBUG tower_euid: a login had ended before its refresh, as the store says scope=\"{SCOPE}\" outcome=\"ended\""
            ),
        ),
        (
            failure(ErrorKind::RejectedInput),
            "failed",
            format!(
                "WARN tower_euid: an identity could not be refreshed scope=\"{SCOPE}\" outcome=\"failed\" kind=RejectedInput \
             error=as the test wants it"
            ),
        ),
        (
            failure(ErrorKind::Transient),
            "failed",
            format!(
                "WARN tower_euid: an identity could not be refreshed scope=\"{SCOPE}\" outcome=\"failed\" kind=Transient \
             error=as the test wants it"
            ),
        ),
    ] {
        let mut site = Site::new(Operator::answering(answer)).logged_in(DUE).await;
        let recording = Recording::start();
        site.look().await;
        assert_eq!(recording.events(), [event]);
        assert_eq!(
            recording.metric("euid_refresh_total"),
            [format!("euid_refresh_total{{scope={SCOPE},outcome={outcome}}} 1")]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn refresh_that_exceeds_its_deadline_is_a_timeout() {
    let site = Site::unanswered().configured(|layer| layer.refresh_deadline(Duration::from_millis(100)));
    let mut site = site.logged_in(DUE).await;
    let recording = Recording::start();
    site.look().await;
    let event = format!(
        "WARN tower_euid: an identity could not be refreshed scope=\"{SCOPE}\" outcome=\"timeout\" kind=Transient \
                 error=no answer within the deadline"
    );
    assert_eq!(recording.events(), [event]);
    assert_eq!(
        recording.metric("euid_refresh_total"),
        [format!("euid_refresh_total{{scope={SCOPE},outcome=timeout}} 1")]
    );
}

#[tokio::test]
async fn refresh_that_panics_is_a_failure_and_an_error() {
    let mut site = Site::new(refresh_fn(|_| async { panics() })).logged_in(DUE).await;
    let recording = Recording::start();
    site.look().await;
    let event = format!("ERROR tower_euid: a refresh panicked scope=\"{SCOPE}\" outcome=\"failed\"");
    assert_eq!(recording.events(), [event]);
    assert_eq!(
        recording.metric("euid_refresh_total"),
        [format!("euid_refresh_total{{scope={SCOPE},outcome=failed}} 1")]
    );
}

#[tokio::test]
async fn refreshes_that_panic_open_the_breaker() {
    let site = Site::new(refresh_fn(|_| async { panics() }));
    let recording = Recording::start();
    for name in ["a", "b", "c", "d", "e"] {
        due(&site, name).await.look().await;
    }
    assert_eq!(recording.metric("euid_breaker_state"), [format!("euid_breaker_state{{scope={SCOPE}}} 2")]);
}

#[test]
fn refreshes_that_end_with_their_runtime_do_not_open_the_breaker() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let recording = Recording::start();
    runtime.block_on(async {
        let site = Site::unanswered().configured(|layer| layer.max_wait(Duration::ZERO));
        for name in ["a", "b", "c", "d", "e", "f"] {
            due(&site, name).await.look().await;
        }
    });
    drop(recording.events());
    drop(runtime);
    let event = format!(
        "DEBUG tower_euid: a refresh ended with its runtime, which is shutting down scope=\"{SCOPE}\" outcome=\"failed\""
    );
    assert_eq!(recording.events(), vec![event; 6]);
    assert_eq!(
        recording.metric("euid_refresh_total"),
        [format!("euid_refresh_total{{scope={SCOPE},outcome=failed}} 6")]
    );
}

#[tokio::test]
async fn refresh_duration_is_that_of_the_clock_of_the_layer() {
    let clock = ManualClock::at(START);
    let during_the_call = clock.clone();
    let operator = refresh_fn(move |_| {
        during_the_call.advance(Duration::from_millis(250));
        ready(new_pair("new"))
    });
    let site = Site { clock: clock.clone(), ..Site::new(operator).configured(|layer| layer.clock(clock)) };
    let mut site = site.logged_in(DUE).await;
    let recording = Recording::start();
    site.look().await;
    assert_eq!(
        recording.metric("euid_refresh_duration_seconds"),
        [format!("euid_refresh_duration_seconds{{scope={SCOPE}}} 0.25")]
    );
}

#[tokio::test(start_paused = true)]
async fn requests_that_join_a_refresh_are_counted_and_have_no_event() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(20));
    let site = Site::new(operator).logged_in(DUE).await;
    let recording = Recording::start();
    let mut visits = JoinSet::new();
    for _ in 0..10 {
        let site = site.clone();
        visits.spawn(async move { site.look_once().await.saw() });
    }
    visits.join_all().await;
    assert_eq!(recording.events().len(), 1);
    let mut counted = recording.metrics();
    counted.retain(|line| !line.starts_with("euid_cookie_bytes"));
    assert_eq!(
        counted,
        [
            format!("euid_breaker_state{{scope={SCOPE}}} 0"),
            format!("euid_refresh_coalesced_total{{scope={SCOPE}}} 9"),
            format!("euid_refresh_duration_seconds{{scope={SCOPE}}} 0"),
            format!("euid_refresh_total{{scope={SCOPE},outcome=refreshed}} 1"),
            format!("euid_requests_total{{scope={SCOPE},state=active,transport=cookies}} 10"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn breaker_reports_its_state_and_the_calls_that_it_refuses() {
    let answer = Arc::new(Mutex::new(failure(ErrorKind::Transient)));
    let current = Arc::clone(&answer);
    let site = Site::new(refresh_fn(move |_| {
        let answer = current.lock().unwrap().clone();
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
    let [failing @ .., refused, probing] = &mut *visitors else { panic!("seven visitors") };
    site.wait_until(DUE);
    let recording = Recording::start();
    let assert_breaker = |counted: &[String], events: &[String]| {
        let mut lines = recording.metrics();
        lines.retain(|line| line.starts_with("euid_breaker_state") || line.contains("outcome=breaker_open"));
        assert_eq!(lines, counted);
        let mut lines = recording.events();
        lines.retain(|line| line.contains("breaker"));
        assert_eq!(lines, events);
    };

    for visitor in failing {
        visitor.look().await;
    }
    assert_breaker(
        &[format!("euid_breaker_state{{scope={SCOPE}}} 2")],
        &[format!(
            "WARN tower_euid: the operator's breaker changed state scope=\"{SCOPE}\" from=Closed to=Open error=as the test wants it"
        )],
    );
    refused.look().await;
    assert_breaker(
        &[
            format!("euid_breaker_state{{scope={SCOPE}}} 2"),
            format!("euid_refresh_total{{scope={SCOPE},outcome=breaker_open}} 1"),
        ],
        &[],
    );

    site.wait_until(DUE + 5_000);
    *answer.lock().unwrap() = new_pair("new");
    let probe = async {
        probing.look().await;
    };
    let half_open = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        refused.look().await;
        assert_breaker(
            &[
                format!("euid_breaker_state{{scope={SCOPE}}} 1"),
                format!("euid_refresh_total{{scope={SCOPE},outcome=breaker_open}} 1"),
            ],
            &[format!(
                "DEBUG tower_euid: the operator's breaker changed state scope=\"{SCOPE}\" from=Open to=HalfOpen"
            )],
        );
    };
    tokio::join!(probe, half_open);
    refused.look().await;
    assert_breaker(
        &[format!("euid_breaker_state{{scope={SCOPE}}} 0")],
        &[format!("INFO tower_euid: the operator's breaker changed state scope=\"{SCOPE}\" from=HalfOpen to=Closed")],
    );
}

#[tokio::test(start_paused = true)]
async fn operator_that_hangs_has_two_warnings_then_one_a_minute_and_an_info_when_it_answers_again() {
    let hangs = Arc::new(AtomicBool::new(true));
    let now_hangs = Arc::clone(&hangs);
    let site = Site::new(refresh_fn(move |_| {
        let hangs = now_hangs.load(Ordering::Relaxed);
        async move { if hangs { pending().await } else { new_pair("new") } }
    }));
    let mut visitors = Vec::new();
    for number in 0..500 {
        let mut visitor = site.clone();
        visitor.login(&format!("visitor-{number}")).await;
        visitors.push(visitor);
    }
    let mut visitors = visitors.into_iter();
    let recording = Recording::start();
    let mut lines = Vec::new();
    let mut second = 0;
    while second < 200 {
        site.wait_until(DUE + second * 1000);
        let mut visits = JoinSet::new();
        for visitor in visitors.by_ref().take(if second < 10 { 30 } else { 1 }) {
            visits.spawn(async move { visitor.look_once().await.saw() });
        }
        visits.join_all().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if second == 180 {
            // Until the last call that hangs has ended.
            tokio::time::sleep(Duration::from_secs(15)).await;
            lines = recording.events();
            hangs.store(false, Ordering::Relaxed);
        }
        second += 1;
    }
    lines.retain(|line| !line.starts_with("DEBUG") && !line.starts_with("TRACE"));
    let breaker = format!("tower_euid: the operator's breaker changed state scope=\"{SCOPE}\"");
    let opened = format!("WARN {breaker} from=Closed to=Open error=a call takes longer than a page waits");
    let failed = format!(
        "WARN tower_euid: an identity could not be refreshed scope=\"{SCOPE}\" outcome=\"timeout\" kind=Transient error=no answer within the deadline"
    );
    assert_eq!(lines[..2], [opened, failed.clone()]);
    let later = &lines[2..];
    assert!(
        later.len() == 2 && later.iter().all(|line| line.starts_with(&format!("{failed} left_out="))),
        "{lines:#?}"
    );
    let mut lines = recording.events();
    lines.retain(|line| !line.starts_with("DEBUG") && !line.starts_with("TRACE"));
    assert_eq!(lines, [format!("INFO {breaker} from=HalfOpen to=Closed")]);
}

#[tokio::test(start_paused = true)]
async fn request_beyond_the_limit_of_calls_under_way_counts_as_no_refresh() {
    let site = Site::unanswered().configured(|layer| layer.memo_entries(1).memo_bytes(1 << 20));
    let (mut first, mut second) = (due(&site, "first").await, due(&site, "second").await);
    let recording = Recording::start();
    tokio::join!(first.look(), second.look());
    assert!(recording.metric("euid_refresh_total").is_empty());
}

#[tokio::test(start_paused = true)]
async fn failed_refreshes_of_sdk_identities_are_all_counted_and_logged_once_a_minute() {
    let answering = |kind| Site::new(Operator::answering(failure(kind)));
    let rejected = |kind, outcome| {
        let event = format!(
            "INFO tower_euid: the operator rejected a migrated identity scope=\"{SCOPE}\" outcome=\"{outcome}\" kind={kind:?}"
        );
        (answering(kind), outcome, format!("{event} error=as the test wants it"))
    };
    let not_refreshed = |site: Site, outcome, kind, error| {
        let event = "WARN tower_euid: a migrated identity could not be refreshed";
        (site, outcome, format!("{event} scope=\"{SCOPE}\" outcome=\"{outcome}\" kind={kind:?} error={error}"))
    };
    let failed = |kind| not_refreshed(answering(kind), "failed", kind, "as the test wants it");
    let unanswered = Site::unanswered().configured(|layer| layer.refresh_deadline(Duration::from_millis(100)));
    for (site, outcome, event) in [
        rejected(ErrorKind::RejectedToken, "rejected"),
        rejected(ErrorKind::RejectedInput, "failed"),
        failed(ErrorKind::Unauthorized),
        failed(ErrorKind::ClockDrift),
        failed(ErrorKind::Undecryptable),
        failed(ErrorKind::WrongScope),
        failed(ErrorKind::Transient),
        failed(ErrorKind::Malformed),
        failed(ErrorKind::UnknownStatus),
        not_refreshed(unanswered, "timeout", ErrorKind::Transient, "no answer within the deadline"),
        (
            Site::new(refresh_fn(|_| async { panics() })),
            "failed",
            format!("ERROR tower_euid: a refresh of a migrated identity panicked scope=\"{SCOPE}\" outcome=\"failed\""),
        ),
    ] {
        let site = site.migrating();
        let mut visitors = site.due_sdk_visitors(24).into_iter();
        let recording = Recording::start();
        for (seconds, count, left_out) in [(0, 10, Some(0)), (59, 10, None), (60, 3, Some(19)), (180, 1, Some(2))] {
            site.wait_until(DUE + seconds * 1000);
            for visitor in visitors.by_ref().take(count) {
                visitor.look_once().await;
            }
            let event = left_out.map(|left_out| format!("{event} left_out={left_out}"));
            assert_eq!(recording.events(), Vec::from_iter(event), "{seconds}");
            let counted = format!("euid_refresh_total{{scope={SCOPE},outcome={outcome}}} {count}");
            assert_eq!(recording.metric("euid_refresh_total"), [counted]);
        }
    }
}

#[test]
fn refreshes_of_sdk_identities_that_end_with_their_runtime_are_all_counted_and_logged_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let recording = Recording::start();
    runtime.block_on(async {
        let site = Site::unanswered().migrating().configured(|layer| layer.max_wait(Duration::ZERO));
        for visitor in site.due_sdk_visitors(6) {
            visitor.look_once().await;
        }
    });
    drop(recording.events());
    drop(runtime);
    let event = format!(
        "DEBUG tower_euid: a refresh of a migrated identity ended with its runtime, which is shutting down scope=\"{SCOPE}\" \
                 outcome=\"failed\" left_out=0"
    );
    assert_eq!(recording.events(), [event]);
    assert_eq!(
        recording.metric("euid_refresh_total"),
        [format!("euid_refresh_total{{scope={SCOPE},outcome=failed}} 6")]
    );
}

#[tokio::test]
async fn failed_refreshes_of_sdk_identities_share_one_line_a_minute() {
    let kinds = Mutex::new([ErrorKind::RejectedToken, ErrorKind::Transient, ErrorKind::Malformed].into_iter().cycle());
    let operator = refresh_fn(move |_| ready(failure(kinds.lock().unwrap().next().unwrap())));
    let recording = Recording::start();
    for visitor in Site::new(operator).migrating().due_sdk_visitors(12) {
        visitor.look_once().await;
    }
    let events = recording.events();
    assert_eq!(events.len(), 1, "{events:?}");
}

#[tokio::test]
async fn failed_refresh_of_a_login_is_logged_beside_those_of_sdk_identities() {
    for (kind, event) in [
        (
            ErrorKind::RejectedToken,
            format!(
                "INFO tower_euid: the operator rejected a refresh token scope=\"{SCOPE}\" outcome=\"rejected\" error=as the test wants it"
            ),
        ),
        (
            ErrorKind::Transient,
            format!(
                "WARN tower_euid: an identity could not be refreshed scope=\"{SCOPE}\" outcome=\"failed\" kind=Transient \
             error=as the test wants it"
            ),
        ),
    ] {
        let site = Site::new(Operator::answering(failure(kind))).migrating();
        let own = due(&site, "own").await;
        let recording = Recording::start();
        for visitor in site.due_sdk_visitors(2) {
            visitor.look_once().await;
        }
        own.look_once().await;
        let events = recording.events();
        assert_eq!(events.len(), 2);
        assert_eq!(events[1], event);
    }
}

#[tokio::test]
async fn refreshes_of_sdk_identities_that_succeed_or_find_an_opt_out_are_each_logged() {
    for (answer, event) in [
        (
            new_pair("new"),
            format!("DEBUG tower_euid: an identity was refreshed scope=\"{SCOPE}\" outcome=\"refreshed\""),
        ),
        (
            Ok(Refreshed::OptedOut),
            format!("DEBUG tower_euid: a refresh found the person opted out scope=\"{SCOPE}\" outcome=\"optout\""),
        ),
    ] {
        let site = Site::new(Operator::answering(answer)).migrating();
        let recording = Recording::start();
        for visitor in site.due_sdk_visitors(3) {
            visitor.look_once().await;
        }
        assert_eq!(recording.events(), vec![event; 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn sdk_identities_beyond_their_permits_are_counted() {
    let site = Site::unanswered().migrating().configured(|layer| layer.max_wait(Duration::ZERO));
    let recording = Recording::start();
    for visitor in site.due_sdk_visitors(20) {
        visitor.look_once().await;
    }
    assert_eq!(
        recording.metric("euid_refresh_total"),
        [format!("euid_refresh_total{{scope={SCOPE},outcome=migration_limit}} 4")]
    );
}
