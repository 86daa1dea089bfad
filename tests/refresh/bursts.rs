//! Refresh under load and under failure: one call per token, remembered answers, rests, the breaker,
//! the handler beside the refresh, and requests that do not refresh.
//!
//! Real time never passes: either tokio's time is paused, or nothing waits.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(clippy::disallowed_methods, reason = "measures tokio's paused time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response};
use tokio::task::JoinSet;
use tower_euid::clock::Clock;
use tower_euid::error::ErrorKind;
use tower_euid::identity::{Identity, IdentityTimes};
use tower_euid::{Euid, EuidUpdate, RefreshMode, Refreshed, refresh_fn};

use crate::support::{DUE, EXPIRED, Jar, Operator, Site, Visit, at, failure, identity, new_pair};

const SECOND: i64 = 1000;

async fn due(operator: &Operator) -> Site {
    let mut site = Site::new(operator.clone());
    site.login("old").await;
    site.wait_until(DUE);
    site
}

/// `count` requests with the same cookies at once; what their handlers saw, each different answer
/// once.
async fn burst(site: &Site, count: usize) -> Vec<String> {
    let mut visits = JoinSet::new();
    for _ in 0..count {
        let site = site.clone();
        visits.spawn(async move { site.send(site.jar.request(), |_, _| ()).await });
    }
    let mut seen: Vec<String> =
        visits.join_all().await.iter().map(|visit| format!("{}, {}", visit.saw(), visit.writes())).collect();
    seen.sort();
    seen.dedup();
    seen
}

fn new() -> Vec<String> {
    vec!["active(new), identity set".to_owned()]
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_requests_with_one_cookie_make_one_call() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(20));
    let site = due(&operator).await;
    assert_eq!(burst(&site, 10_000).await, new());
    assert_eq!((operator.calls(), operator.answered()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_different_cookies_make_as_many_calls_and_never_more_at_once_than_allowed() {
    let (now, most, calls) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&calls));
    let operator = refresh_fn(move |_| {
        let (now, most, calls) = counts.clone();
        async move {
            calls.fetch_add(1, Ordering::SeqCst);
            most.fetch_max(1 + now.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            new_pair("new")
        }
    });
    let site =
        Site::new(operator).configured(|layer| layer.max_concurrent_refreshes(100).max_wait(Duration::from_secs(9)));
    let mut visits = JoinSet::new();
    for visitor in 0..10_000 {
        let mut site = site.clone();
        visits.spawn(async move {
            site.login(&format!("visitor-{visitor}")).await;
            site
        });
    }
    let visitors = visits.join_all().await;
    site.wait_until(DUE);
    let mut visits = JoinSet::new();
    for mut visitor in visitors {
        visits.spawn(async move { visitor.look().await.saw() });
    }
    assert!(visits.join_all().await.iter().all(|saw| saw == "active(new)"));
    assert_eq!((calls.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (10_000, 100));
}

#[tokio::test(start_paused = true)]
async fn pages_that_queue_for_a_call_end_at_max_wait_all_the_same() {
    let operator = Operator::never();
    let site = Site::new(operator.clone()).configured(|layer| layer.max_concurrent_refreshes(1));
    let (mut first, mut second) = (site.clone(), site.clone());
    first.login("first").await;
    second.login("second").await;
    site.wait_until(DUE);
    let start = tokio::time::Instant::now();
    let (one, two) = tokio::join!(first.look(), second.look());
    assert_eq!((one.saw(), two.saw()), ("active(first)".to_owned(), "active(second)".to_owned()));
    assert_eq!(start.elapsed(), tower_euid::EuidLayer::DEFAULT_MAX_WAIT);
    assert_eq!(operator.calls(), 1);
}

#[tokio::test]
async fn a_request_that_still_brings_the_old_cookie_gets_the_known_answer_for_45_seconds() {
    let operator = Operator::answering(new_pair("new"));
    let site = due(&operator).await;
    for later in [0, 1, 44] {
        site.wait_until(DUE + later * SECOND);
        assert_eq!(burst(&site, 1).await, new());
    }
    assert_eq!(operator.calls(), 1);
    site.wait_until(DUE + 45 * SECOND);
    assert_eq!(burst(&site, 1).await, new());
    assert_eq!(operator.calls(), 2);
}

#[tokio::test]
async fn an_opt_out_and_a_rejection_are_remembered_too() {
    for (answer, seen) in [
        (Ok(Refreshed::OptedOut), "opted_out, identity cleared, opt-out recorded"),
        (failure(ErrorKind::RejectedToken), "absent, identity cleared"),
    ] {
        let operator = Operator::answering(answer);
        let site = due(&operator).await;
        for _ in 0..3 {
            assert_eq!(burst(&site, 1).await, [seen]);
        }
        assert_eq!(operator.calls(), 1);
    }
}

#[tokio::test]
async fn the_memory_is_bounded_and_the_oldest_is_asked_again() {
    let operator = Operator::answering(new_pair("new"));
    let site = Site::new(operator.clone()).configured(|layer| layer.memo_entries(2).memo_bytes(1 << 20));
    let mut visitors = Vec::new();
    for name in ["a", "b", "c"] {
        let mut visitor = site.clone();
        visitor.login(name).await;
        visitors.push(visitor);
    }
    site.wait_until(DUE);
    for visitor in &visitors {
        assert_eq!(burst(visitor, 1).await, new());
    }
    assert_eq!(operator.calls(), 3);
    burst(visitors.last().unwrap(), 1).await;
    assert_eq!(operator.calls(), 3);
    burst(visitors.first().unwrap(), 1).await;
    assert_eq!(operator.calls(), 4);
}

#[tokio::test]
async fn two_layers_do_not_share_what_they_know_and_clones_do() {
    let operator = Operator::answering(new_pair("new"));
    let keys = crate::support::ring();
    let mut site = Site::with_keys(keys.clone(), operator.clone());
    site.login("old").await;
    site.wait_until(DUE);
    burst(&site, 1).await;
    burst(&site.clone(), 1).await;
    assert_eq!(operator.calls(), 1);
    let other = Site { jar: site.jar.clone(), ..Site::with_keys(keys, operator.clone()) };
    other.wait_until(DUE);
    burst(&other, 1).await;
    assert_eq!(operator.calls(), 2);
}

#[tokio::test]
async fn after_a_failure_the_token_rests_and_pages_go_on_without_a_call() {
    for (kind, when, seen) in [
        (ErrorKind::Transient, DUE, "active(old), "),
        (ErrorKind::RejectedInput, DUE, "active(old), "),
        (ErrorKind::Transient, EXPIRED, "unavailable, "),
    ] {
        let operator = Operator::answering(failure(kind));
        let mut site = Site::new(operator.clone());
        site.login("old").await;
        site.wait_until(when);
        for later in [0, 1, 2] {
            site.wait_until(when + later * SECOND);
            assert_eq!(burst(&site, 1).await, [seen], "{kind:?}");
        }
        assert_eq!(operator.calls(), 1);
        // At most 5 s, then at least 5 s.
        site.wait_until(when + 5 * SECOND);
        burst(&site, 1).await;
        site.wait_until(when + 10 * SECOND - 1);
        burst(&site, 1).await;
        assert_eq!(operator.calls(), 2);
        site.wait_until(when + 15 * SECOND);
        burst(&site, 1).await;
        assert_eq!(operator.calls(), 3);
    }
}

/// Visitors on one site, all due.
async fn crowd(site: &Site, count: usize) -> Vec<Site> {
    let mut visitors = Vec::new();
    for number in 0..count {
        let mut visitor = site.clone();
        visitor.login(&format!("visitor-{number}")).await;
        visitors.push(visitor);
    }
    site.wait_until(DUE);
    visitors
}

#[tokio::test]
async fn an_operator_that_fails_is_left_alone_and_found_again_by_one_probe() {
    let down = Arc::new(AtomicUsize::new(1));
    let calls = Arc::new(AtomicUsize::new(0));
    let (is_down, counted) = (Arc::clone(&down), Arc::clone(&calls));
    let site = Site::new(refresh_fn(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        let down = is_down.load(Ordering::SeqCst) == 1;
        async move { if down { failure(ErrorKind::Transient) } else { new_pair("new") } }
    }));
    let mut visitors = crowd(&site, 30).await.into_iter();
    let mut asked_by = async |count: usize| {
        let before = calls.load(Ordering::SeqCst);
        for _ in 0..count {
            visitors.next().unwrap().look().await;
        }
        calls.load(Ordering::SeqCst) - before
    };
    assert_eq!(asked_by(10).await, 5, "five failures open it");
    site.clock.advance(Duration::from_secs(5));
    assert_eq!(asked_by(5).await, 1, "one probe, which fails");
    down.store(0, Ordering::SeqCst);
    assert_eq!(asked_by(2).await, 0, "open again");
    site.clock.advance(Duration::from_secs(5));
    assert_eq!(asked_by(5).await, 5, "the probe succeeds and closes it");
}

#[tokio::test(start_paused = true)]
async fn while_the_operator_hangs_only_the_first_pages_wait() {
    let operator = Operator::never();
    let site = Site::new(operator.clone());
    let start = tokio::time::Instant::now();
    let mut slow = 0;
    for mut visitor in crowd(&site, 100).await {
        let before = tokio::time::Instant::now();
        visitor.look().await;
        slow += usize::from(before.elapsed() > Duration::ZERO);
    }
    // The fifth call is found slow at the moment that its page leaves, so a sixth may slip in.
    assert!(slow == 5 || slow == 6, "{slow}");
    assert_eq!(operator.calls(), slow);
    assert!(start.elapsed() <= 6 * tower_euid::EuidLayer::DEFAULT_MAX_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_visitor_waits_once_for_a_call_that_hangs_and_its_late_answer_is_not_lost() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(800));
    let mut site = due(&operator).await;
    let mut waits = Vec::new();
    for _ in 0..10 {
        let before = tokio::time::Instant::now();
        assert_eq!(site.look().await.saw(), "active(old)");
        waits.push(before.elapsed());
        // The page and the call are at their limit at the same moment.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(waits.remove(0), tower_euid::EuidLayer::DEFAULT_MAX_WAIT);
    assert!(waits.iter().all(Duration::is_zero), "{waits:?}");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(site.look().await.saw(), "active(new)");
    assert_eq!(operator.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_visitor_waits_once_for_a_call_that_queues() {
    let operator = Operator::never();
    let mut other = due(&operator).await.configured(|layer| layer.max_concurrent_refreshes(1));
    other.look().await;
    let mut site = Site { jar: Jar::default(), ..other.clone() };
    site.login("also-old").await;
    let mut slow = 0;
    for _ in 0..10 {
        let before = tokio::time::Instant::now();
        assert_eq!(site.look().await.saw(), "active(also-old)");
        slow += usize::from(before.elapsed() > Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(slow, 1);
    assert_eq!(operator.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresher_that_panics_strands_nobody() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let mut site = Site::new(refresh_fn(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(std::hint::black_box(0), 1, "the test wants a panic");
            new_pair("new")
        }
    }));
    site.login("old").await;
    site.wait_until(DUE);
    let start = tokio::time::Instant::now();
    assert_eq!(burst(&site, 100).await, ["active(old), "]);
    assert_eq!((calls.load(Ordering::SeqCst), start.elapsed()), (1, Duration::from_millis(20)));
}

#[tokio::test(start_paused = true)]
async fn who_begins_a_refresh_and_leaves_does_not_take_it_along() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(20));
    let site = due(&operator).await;
    let first = site.clone();
    let first = tokio::spawn(async move { first.look_once().await });
    tokio::time::sleep(Duration::from_millis(5)).await;
    first.abort();
    assert_eq!(burst(&site, 10).await, new());
    assert_eq!((operator.calls(), operator.given_up()), (1, 0));
}

/// A page that takes `long` of tokio's time, in [`RefreshMode::Concurrent`].
async fn beside(operator: &Operator, when: i64, long: Duration) -> (Site, String, Duration) {
    let mut site = Site::new(operator.clone()).configured(|layer| layer.refresh_mode(RefreshMode::Concurrent));
    site.login("old").await;
    site.wait_until(when);
    let start = tokio::time::Instant::now();
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let noted = Arc::clone(&seen);
    let page = tower::service_fn(move |request: Request<()>| {
        let euid = request.extensions().get::<Euid>().unwrap();
        *noted.lock().unwrap() =
            euid.advertising_token().map_or(euid.state().to_owned(), |token| format!("active({token})"));
        async move {
            tokio::time::sleep(long).await;
            Ok::<_, std::convert::Infallible>(Response::new(()))
        }
    });
    let response =
        tower::ServiceExt::oneshot(tower::Layer::layer(&site.layer, page), site.jar.request()).await.unwrap();
    let saw = format!("{}, {}", seen.lock().unwrap(), crate::support::writes(response.headers()));
    (site, saw, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn beside_a_handler_that_takes_longer_the_answer_is_stored() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(20));
    let (_, saw, took) = beside(&operator, DUE, Duration::from_millis(30)).await;
    assert_eq!((&*saw, took), ("active(old), identity set", Duration::from_millis(30)));
}

#[tokio::test(start_paused = true)]
async fn beside_a_handler_that_is_faster_the_next_request_gets_the_answer() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(20));
    let (site, saw, took) = beside(&operator, DUE, Duration::from_millis(10)).await;
    assert_eq!((&*saw, took), ("active(old), ", Duration::from_millis(10)));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(burst(&site, 1).await, new());
    assert_eq!(operator.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn beside_an_opt_out_ends_the_identity_though_the_handler_saw_it() {
    let operator = Operator::answering(Ok(Refreshed::OptedOut));
    let (_, saw, _) = beside(&operator, DUE, Duration::from_millis(10)).await;
    assert_eq!(saw, "active(old), identity cleared, opt-out recorded");
}

#[tokio::test(start_paused = true)]
async fn beside_an_expired_token_is_waited_for() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(20));
    let (_, saw, took) = beside(&operator, EXPIRED, Duration::ZERO).await;
    assert_eq!((&*saw, took), ("active(new), identity set", Duration::from_millis(20)));
}

#[tokio::test]
async fn requests_that_no_page_is_shown_for_do_not_refresh() {
    let operator = Operator::answering(new_pair("new"));
    let site = due(&operator).await;
    let with = |name: &'static str, value: &'static str| {
        let mut request = site.jar.request();
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        request
    };
    let mut options = site.jar.request();
    *options.method_mut() = Method::OPTIONS;
    for request in [
        with("sec-purpose", "prefetch;prerender"),
        with("purpose", "prefetch"),
        with("sec-fetch-dest", "image"),
        options,
    ] {
        let visit = site.send(request, |_, _| ()).await;
        assert_eq!((visit.saw(), visit.writes()), ("active(old)".to_owned(), String::new()));
    }
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn a_request_that_may_not_refresh_still_sees_what_another_has_found_out() {
    for (answer, saw) in [
        (Ok(Refreshed::OptedOut), "opted_out"),
        (failure(ErrorKind::RejectedToken), "absent"),
        (new_pair("new"), "active(new)"),
    ] {
        let operator = Operator::answering(answer);
        let site = due(&operator).await;
        burst(&site, 1).await;
        let mut script = site.jar.request();
        script.headers_mut().insert("sec-fetch-dest", HeaderValue::from_static("script"));
        assert_eq!(site.send(script, |_, _| ()).await.saw(), saw);
        assert_eq!(operator.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_queued_while_the_operator_went_down_are_not_made() {
    let operator = Operator::answering(failure(ErrorKind::Transient)).after(Duration::from_millis(100));
    let site = Site::new(operator.clone()).configured(|layer| layer.max_concurrent_refreshes(5));
    let mut visits = JoinSet::new();
    for mut visitor in crowd(&site, 50).await {
        visits.spawn(async move { visitor.look().await.saw() });
    }
    assert!(visits.join_all().await.iter().all(|saw| saw.starts_with("active(visitor")));
    assert_eq!(operator.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn pages_that_wait_for_nothing_do_not_make_a_quick_operator_look_slow() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(20));
    let site = Site::new(operator.clone()).configured(|layer| layer.max_wait(Duration::ZERO));
    let visitors = crowd(&site, 50).await;
    for visitor in &visitors {
        assert!(burst(visitor, 1).await.iter().all(|seen| seen.starts_with("active(visitor")));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(operator.calls(), 50);
    for visitor in &visitors {
        assert_eq!(burst(visitor, 1).await, new());
    }
}

#[tokio::test]
async fn the_applications_rule_says_which_others_do_not() {
    let operator = Operator::answering(new_pair("new"));
    let site = due(&operator).await;
    let site = site.configured(|layer| layer.refresh_when(|request| request.uri.path() != "/beacon"));
    let mut beacon = site.jar.request();
    *beacon.uri_mut() = "/beacon".parse().unwrap();
    assert_eq!(site.send(beacon, |_, _| ()).await.saw(), "active(old)");
    assert_eq!(site.look_once().await.saw(), "active(new)");
}

#[tokio::test]
async fn a_cohort_does_not_refresh_at_one_moment_and_all_do_within_the_bound() {
    let operator = Operator::answering(new_pair("new"));
    let most = Duration::from_secs(100);
    let site = Site::new(operator.clone()).configured(|layer| layer.refresh_jitter(most));
    let mut jars: Vec<Jar> = Vec::new();
    for number in 0..200 {
        let mut visitor = site.clone();
        visitor.login(&format!("visitor-{number}")).await;
        jars.push(visitor.jar);
    }
    let asked_at = async |millis: i64| {
        site.wait_until(millis);
        for jar in &jars {
            site.send(jar.request(), |_, _| ()).await;
        }
        operator.calls()
    };
    assert_eq!(asked_at(crate::support::REFRESH_FROM - 1).await, 0);
    let half = asked_at(crate::support::REFRESH_FROM + 50 * SECOND).await;
    assert!((50..150).contains(&half), "{half} of 200");
    // What was asked for above is asked for again 45 s later, as these browsers keep the old cookie.
    let before = operator.calls();
    assert_eq!(asked_at(crate::support::REFRESH_FROM + 100 * SECOND).await - before, 200);
}

#[tokio::test]
async fn a_logout_wins_over_an_answer_that_is_remembered() {
    let operator = Operator::answering(new_pair("new"));
    let mut site = due(&operator).await;
    let old = site.jar.clone();
    site.update(EuidUpdate::logout()).await;
    // The old cookie comes once more, from a tab that was slow.
    let late = site.send(old.request(), |_, _| ()).await;
    site.jar.apply(late.response.headers());
    assert_eq!(site.look().await.saw(), "absent");
}

#[tokio::test]
async fn who_logs_in_anew_with_the_same_refresh_token_gets_the_answer_in_their_own_lineage() {
    let operator = Operator::answering(new_pair("new"));
    let mut site = Site::new(operator.clone());
    site.login("old").await;
    let first = site.jar.clone();
    site.login("old").await;
    site.wait_until(DUE);
    for jar in [first, site.jar.clone()] {
        let mut browser = Site { jar, ..site.clone() };
        browser.look().await;
        assert_eq!(browser.look().await.saw(), "active(new)");
    }
    assert_eq!(operator.calls(), 1);
}

#[tokio::test]
async fn a_pair_that_is_past_on_our_clock_is_not_asked_for_on_every_page() {
    let past = identity("past").times();
    let times = IdentityTimes { refresh_from: at(0), identity_expires: at(1), refresh_expires: past.refresh_expires };
    let past = Identity::new("past", "r".to_owned().into(), [0; 32].into(), times).unwrap();
    let operator = Operator::answering(Ok(Refreshed::Identity(past)));
    let site = due(&operator).await;
    for _ in 0..3 {
        assert_eq!(burst(&site, 1).await, ["active(old), "]);
    }
    assert_eq!(operator.calls(), 1);
    assert!(site.clock.now() > at(1));
}

#[test]
fn a_probe_that_ends_with_its_runtime_is_followed_by_another() {
    let asked = Arc::new(AtomicUsize::new(0));
    let operator = {
        let asked = Arc::clone(&asked);
        refresh_fn(move |_| {
            let hangs = asked.fetch_add(1, Ordering::SeqCst) >= 5;
            async move { if hangs { std::future::pending().await } else { failure(ErrorKind::Transient) } }
        })
    };
    let site = Site::new(operator).configured(|layer| layer.max_wait(Duration::ZERO));
    // A visitor each; what is asked for them is under way, or over, when their page is through.
    let pages = |visitors: std::ops::Range<usize>, millis| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for visitor in visitors {
                let mut site = site.clone();
                site.login(&format!("visitor-{visitor}")).await;
                site.wait_until(millis);
                site.look().await;
                tokio::task::yield_now().await;
            }
        });
    };
    pages(0..5, DUE);
    assert_eq!(asked.load(Ordering::SeqCst), 5);
    pages(5..7, DUE + 5 * SECOND);
    assert_eq!(asked.load(Ordering::SeqCst), 6, "one probe, and its runtime has ended");
    pages(7..9, DUE + 10 * SECOND);
    assert_eq!(asked.load(Ordering::SeqCst), 7, "another probe");
}
