//! Events and metrics of each flow, under the names in `src/docs/metrics.md`.
//!
//! [`Recording`] records those of this thread. The refreshes run on it, too.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod refreshes;
mod traces;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::ready;
use std::sync::OnceLock;

use http::{Request, Response};
use metrics::{Key, LocalRecorderGuard};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::error::ErrorKind;
use tower_euid::store::MemoryStore;
use tower_euid::{Consent, CookieKey, EuidLayer, EuidUpdate, HeaderConfig, KeyRing, Refreshed, Scope};
use tracing::subscriber::DefaultGuard;

use crate::support::keeper::Keeper;
use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, Log, NOTHING, Operator, SCOPE, Site, failure, identity, identity_until, new_pair,
    scope,
};

/// Records the events and metrics of this thread until it is dropped.
struct Recording {
    log: Log,
    snapshotter: Snapshotter,
    _guards: (DefaultGuard, LocalRecorderGuard<'static>),
}

impl Recording {
    fn start() -> Self {
        // Now, as it makes layers, which log.
        from_the_start();
        let log = Log::default();
        let recorder: &'static DebuggingRecorder = Box::leak(Box::default());
        let guards = (log.start(), metrics::set_default_local_recorder(recorder));
        Self { log, snapshotter: recorder.snapshotter(), _guards: guards }
    }

    /// Returns the events since the last call.
    fn events(&self) -> Vec<String> {
        self.log.take()
    }

    /// Returns the metrics since the last call, one per line: counts, recorded values and the levels of gauges. All of them
    /// must be there from the start, with a description and a unit.
    fn metrics(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            assert!(from_the_start().contains(&series(key.key())), "{key:?}");
            let value = match value {
                DebugValue::Counter(0) => continue,
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(level) => level.to_string(),
                DebugValue::Histogram(values) if values.is_empty() => continue,
                DebugValue::Histogram(values) => {
                    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
                }
            };
            lines.push(format!("{} {value}", series(key.key())));
        }
        lines.sort();
        lines
    }

    /// Returns the metrics since the last call, without gauges.
    fn counts(&self) -> Vec<String> {
        let mut lines = self.metrics();
        lines.retain(|line| !line.starts_with("euid_breaker_state"));
        lines
    }

    /// Returns the lines of one metric since the last call.
    fn metric(&self, name: &str) -> Vec<String> {
        let mut lines = self.metrics();
        lines.retain(|line| line.split('{').next() == Some(name));
        lines
    }
}

/// Returns the name of a metric with its labels.
fn series(key: &Key) -> String {
    let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
    format!("{}{{{}}}", key.name(), labels.join(","))
}

/// Returns the series that are there before the first request: of a layer with both scopes, headers and a store, of one
/// with the scope of the tests alone, and of its client. All have a description and a unit, and nothing is counted.
fn from_the_start() -> &'static BTreeSet<String> {
    static SERIES: OnceLock<BTreeSet<String>> = OnceLock::new();
    SERIES.get_or_init(|| {
        let recorder = DebuggingRecorder::new();
        metrics::with_local_recorder(&recorder, || {
            let layer =
                |scope| EuidLayer::new(CookieKey::generate().unwrap().into(), Operator::never().of_scope(scope));
            drop(layer(scope()).layer(()));
            let both = layer(Scope::Euid).scope(Operator::never().of_scope(Scope::Uid2), |_| None).unwrap();
            drop(both.headers(HeaderConfig::default()).store(MemoryStore::new()).layer(()));
            #[cfg(feature = "client")]
            drop(euid_sandbox::Sandbox::builder().scope(scope()).build().map(|sandbox| {
                tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap()
            }));
        });
        let all = recorder.snapshotter().snapshot().into_vec();
        let checked = all.into_iter().map(|(key, unit, description, value)| {
            assert!(unit.is_some() && description.is_some_and(|text| !text.is_empty()), "{key:?}");
            let is_zero = match &value {
                DebugValue::Counter(count) => *count == 0,
                DebugValue::Gauge(level) => level.into_inner() == 0.0,
                DebugValue::Histogram(values) => values.is_empty(),
            };
            assert!(is_zero, "{key:?} {value:?}");
            series(key.key())
        });
        checked.collect()
    })
}

#[test]
fn layer_adds_its_series_when_it_is_first_applied_and_only_then() {
    let site = Site::offline();
    for is_first in [true, false] {
        let recording = Recording::start();
        assert_eq!(recording.snapshotter.snapshot().into_vec().len(), 0);
        let service = site.layer.layer(());
        assert_eq!(recording.snapshotter.snapshot().into_vec().len() > 20, is_first, "{service:?}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_the_state_in_their_handlers() {
    for (answer, millis, state) in [
        (failure(ErrorKind::Transient), 0, "active"),
        (failure(ErrorKind::Transient), DUE, "active"),
        (failure(ErrorKind::Transient), EXPIRED, "unavailable"),
        (failure(ErrorKind::RejectedToken), DUE, "absent"),
        (Ok(Refreshed::OptedOut), DUE, "opted_out"),
        (new_pair("new"), EXPIRED, "active"),
    ] {
        let recording = Recording::start();
        let mut site = Site::new(Operator::answering(answer));
        site.login("old").await;
        assert_eq!(
            recording.metric("euid_requests_total"),
            [format!("euid_requests_total{{scope={SCOPE},state=absent,transport=cookies}} 1")]
        );
        site.wait_until(millis);
        site.look().await;
        assert_eq!(
            recording.metric("euid_requests_total"),
            [format!("euid_requests_total{{scope={SCOPE},state={state},transport=cookies}} 1")]
        );
    }
}

#[tokio::test]
async fn requests_of_an_app_count_under_headers_and_those_of_a_browser_under_cookies() {
    let mut site = Site::offline().configured(|layer| layer.headers(HeaderConfig::default()));
    let mut app = Keeper::default();
    let recording = Recording::start();
    let counted = |state, transport| {
        let line = format!("euid_requests_total{{scope={SCOPE},state={state},transport={transport}}} 1");
        assert_eq!(recording.metric("euid_requests_total"), [line]);
    };
    site.login("browser").await;
    counted("absent", "cookies");
    let login = |_: &_, response: &mut _| EuidUpdate::login(identity("app")).attach(response);
    app.apply(site.send(app.request(), login).await.response.headers());
    counted("absent", "headers");
    site.look().await;
    counted("active", "cookies");
    site.send(app.request(), NOTHING).await;
    counted("active", "headers");
}

#[test]
fn series_of_headers_are_added_only_for_a_layer_with_headers() {
    for has_headers in [false, true] {
        let recording = Recording::start();
        let site = Site::offline();
        let layer = if has_headers { site.layer.headers(HeaderConfig::default()) } else { site.layer };
        drop(layer.layer(()));
        let added = recording.snapshotter.snapshot().into_vec();
        let labels = added.iter().flat_map(|(key, ..)| key.key().labels());
        let transports: BTreeSet<_> =
            labels.filter(|label| label.key() == "transport").map(|label| label.value()).collect();
        let expected = if has_headers { &["cookies", "headers"][..] } else { &["cookies"] };
        assert!(transports.iter().eq(expected), "{transports:?}");
    }
}

#[tokio::test]
async fn request_with_a_fresh_cookie_has_one_count_and_no_event() {
    let mut site = Site::offline().logged_in(0).await;
    let recording = Recording::start();
    site.look().await;
    assert_eq!(recording.metrics(), [format!("euid_requests_total{{scope={SCOPE},state=active,transport=cookies}} 1")]);
    assert!(recording.events().is_empty());
}

#[tokio::test]
async fn request_through_nested_layers_counts_once() {
    let site = Site::offline().logged_in(0).await;
    let recording = Recording::start();
    let page = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(()))));
    let nested = site.layer.layer(site.layer.layer(page));
    nested.oneshot(site.jar.request()).await.unwrap();
    assert_eq!(recording.metrics(), [format!("euid_requests_total{{scope={SCOPE},state=active,transport=cookies}} 1")]);
}

#[tokio::test]
async fn identities_under_an_old_key_are_counted_until_a_refresh_seals_them_again() {
    let [old, new] = [(); 2].map(|()| CookieKey::generate().unwrap());
    let mut site = Site::with_keys(old.clone().into(), Operator::answering(new_pair("new"))).logged_in(0).await;
    let keys = site.layer.keys();
    keys.reload(KeyRing::new([old.clone(), new.clone()]).unwrap());
    let recording = Recording::start();
    site.look().await;
    assert!(recording.metric("euid_cookie_old_key_total").is_empty(), "the old key is still the newest");
    keys.reload(KeyRing::new([new, old]).unwrap());
    for _ in 0..2 {
        site.look().await;
        assert_eq!(
            recording.metric("euid_cookie_old_key_total"),
            [format!("euid_cookie_old_key_total{{scope={SCOPE}}} 1")]
        );
    }
    site.wait_until(DUE);
    site.look().await;
    assert_eq!(
        recording.metric("euid_cookie_old_key_total"),
        [format!("euid_cookie_old_key_total{{scope={SCOPE}}} 1")]
    );
    site.look().await;
    assert!(recording.metric("euid_cookie_old_key_total").is_empty(), "the refresh has used the new key");
}

/// Returns the value with another character at `index`.
fn altered(value: &str, index: usize) -> String {
    let (before, rest) = value.split_at(index);
    let other = if rest.starts_with('A') { "B" } else { "A" };
    format!("{before}{other}{}", rest.get(1..).unwrap())
}

#[tokio::test]
async fn cookie_that_is_not_accepted_is_counted_and_logged_with_its_reason() {
    let site = Site::offline().logged_in(0).await;
    let stranger = Site::offline().logged_in(0).await;
    let value = site.jar.value(IDENTITY).unwrap();
    for (jar, reason) in [
        (stranger.jar, "unknown_key"),
        (site.jar.clone().with(IDENTITY, "nonsense"), "unknown_key"),
        (site.jar.clone().with(IDENTITY, &format!("{value}!")), "undecodable"),
        (site.jar.clone().with(IDENTITY, &altered(value, 100)), "forged"),
        (site.jar.clone().without(ANCHOR), "anchor"),
        (site.jar.clone().with(ANCHOR, "garbage"), "unreadable_anchor"),
        // As long as the name of a login.
        (site.jar.clone().with(ANCHOR, &"!".repeat(22)), "unreadable_anchor"),
    ] {
        let recording = Recording::start();
        Site { jar, ..site.clone() }.look_once().await;
        assert_eq!(
            recording.events(),
            [format!("DEBUG tower_euid: the visitor's identity can't be used scope=\"{SCOPE}\" reason=\"{reason}\"")]
        );
        let rejected = format!("euid_cookie_rejected_total{{scope={SCOPE},reason={reason}}} 1");
        assert_eq!(
            recording.metrics(),
            [rejected, format!("euid_requests_total{{scope={SCOPE},state=absent,transport=cookies}} 1")]
        );
    }
}

#[tokio::test]
async fn cookie_of_another_user_is_counted_and_logged_and_without_a_user_only_counted() {
    let mut site = Site::offline();
    site.update(EuidUpdate::login(identity_until("of-ann", [DUE, EXPIRED, EXPIRED])).subject("ann")).await;
    for (user, state, rejected) in
        [(Some("ann"), "active", None), (Some("bob"), "absent", Some("subject")), (None, "absent", Some("no_user"))]
    {
        let site = site.clone().configured(|layer| layer.subject(move |_| user));
        let recording = Recording::start();
        site.look_once().await;
        let event =
            format!("DEBUG tower_euid: the visitor's identity can't be used scope=\"{SCOPE}\" reason=\"subject\"");
        assert_eq!(recording.events(), Vec::from_iter((rejected == Some("subject")).then_some(event)));
        let counted = rejected.map(|reason| format!("euid_cookie_rejected_total{{scope={SCOPE},reason={reason}}} 1"));
        let counted: Vec<_> = counted
            .into_iter()
            .chain([format!("euid_requests_total{{scope={SCOPE},state={state},transport=cookies}} 1")])
            .collect();
        assert_eq!(recording.counts(), counted);
    }
}

#[tokio::test]
async fn request_without_consent_is_counted_as_withheld() {
    let site = Site::offline().logged_in(0).await;
    for consent in [Consent::Withheld, Consent::Withdrawn] {
        let site = site.clone().configured(|layer| layer.consent(move |_| consent));
        let recording = Recording::start();
        site.look_once().await;
        assert_eq!(
            recording.counts(),
            [format!("euid_requests_total{{scope={SCOPE},state=withheld,transport=cookies}} 1")]
        );
    }
}

#[tokio::test]
async fn identity_that_is_not_written_is_logged_and_one_too_large_is_also_counted() {
    let past = || identity_until("past", [-3, -2, -1].map(|days| days * 86_400_000));
    let large = || identity_until(&"large".repeat(1000), [1, 2, 3].map(|days| days * 86_400_000));
    for (identity, reason, counted) in [
        (large(), "too_large", vec![format!("euid_cookie_rejected_total{{scope={SCOPE},reason=too_large}} 1")]),
        (past(), "expired", vec![]),
    ] {
        let recording = Recording::start();
        Site::offline().update(EuidUpdate::login(identity)).await;
        let event =
            format!("WARN tower_euid: a response could not write its cookies scope=\"{SCOPE}\" reason=\"{reason}\"");
        assert_eq!(recording.events(), [event]);
        let requests = format!("euid_requests_total{{scope={SCOPE},state=absent,transport=cookies}} 1");
        assert_eq!(recording.counts(), [counted, vec![requests]].concat());
    }
}

#[tokio::test]
async fn cookie_size_counts_name_and_value() {
    let mut site = Site::new(Operator::answering(new_pair("a-token-of-another-length")));
    let recording = Recording::start();
    for millis in [0, DUE] {
        site.wait_until(millis);
        if millis == 0 {
            site.login("old").await;
        } else {
            site.look().await;
        }
        let size = site.jar.pair(IDENTITY).len() - "=".len();
        assert_eq!(recording.metric("euid_cookie_bytes"), [format!("euid_cookie_bytes{{scope={SCOPE}}} {size}")]);
    }
    site.update(EuidUpdate::logout()).await;
    assert!(recording.metric("euid_cookie_bytes").is_empty());
}

#[cfg(feature = "client")]
#[tokio::test]
async fn calls_for_logins_are_counted_and_logged_by_their_outcome() {
    use euid_sandbox::{Fault, Sandbox};
    use tower_euid::{Dii, GenerateRequest};

    let sandbox = Sandbox::builder().scope(crate::support::scope()).build().unwrap();
    let (client, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap();
    let person = |address| GenerateRequest::from(Dii::email(address).unwrap());
    let recording = Recording::start();
    let outcomes = [
        ("user@example.com", None, "DEBUG tower_euid: the operator answered to a login", "generated"),
        ("optout@example.com", None, "DEBUG tower_euid: the operator answered to a login", "optout"),
        (
            "user@example.com",
            Some(Fault::Status(503)),
            "WARN tower_euid: no identity could be generated for a login",
            "failed",
        ),
        (
            "user@example.com",
            Some(Fault::Status(401)),
            "WARN tower_euid: no identity could be generated for a login",
            "unauthorized",
        ),
    ];
    for (address, fault, event, outcome) in outcomes {
        let is_error = fault.is_some();
        fault.into_iter().for_each(|fault| sandbox.fault(fault));
        assert_eq!(client.generate(person(address)).await.is_err(), is_error, "{outcome}");
        sandbox.fault(None);
        let events = recording.events();
        let [line] = &events[..] else { panic!("{events:?}") };
        assert!(line.starts_with(&format!("{event} scope=\"{SCOPE}\" outcome=\"{outcome}\"")), "{line}");
        assert!(!line.contains("example.com"), "{line}");
        let metrics = recording.metrics();
        assert_eq!(metrics[0].split_once("} ").unwrap().0, format!("euid_generate_duration_seconds{{scope={SCOPE}"));
        assert_eq!(metrics[1..], [format!("euid_generate_total{{scope={SCOPE},outcome={outcome}}} 1")]);
    }
}
