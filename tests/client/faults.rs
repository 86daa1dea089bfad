//! Tests of pages while the operator fails, with the real client over real sockets. Each failure gives its row of the
//! policy table, both for a valid and for an expired token.
//!
//! 1. The layer, the client and the sandbox share a [`ManualClock`]. Only the sockets need real time.
//! 2. A slow machine must not change an outcome: a page waits [`MAX_WAIT`] for an operator that stalls, and up to
//!    [`PATIENCE`] for one that answers.
//! 3. A page must not take longer than its wait plus [`SLACK`], which is for the scheduler of a busy machine.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::time::{Duration, Instant};

use axum::Router;
use bytes::Bytes;
use euid_sandbox::{Fault, Lifetimes, Sandbox};
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower_euid::clock::ManualClock;
use tower_euid::error::ErrorKind;
use tower_euid::{Environment, EuidClient, EuidUpdate, Identity};

use crate::support::faulty::{FaultyOperator, Mode};
use crate::support::server::{
    LOOPBACK, PATIENCE, client, client_builder, client_builder_at, email, generate, sandbox_at_start, serve, user,
};
use crate::support::{DUE, EXPIRED, START, Site, ring, scope};

const MAX_WAIT: Duration = Duration::from_millis(60);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_millis(150);
const SLACK: Duration = Duration::from_secs(1);
/// Longer than the back-off after a first failure.
const BACK_OFF: Duration = Duration::from_secs(6);

/// The time of a visit, and its outcome: what the handler sees and what the response writes.
type Row = (i64, &'static str);

/// The rows of a refresh with a new pair.
const REFRESHED: [Row; 2] = [(DUE, "active(new), identity set"), (EXPIRED, "active(new), identity set")];
/// The rows of a refused refresh token.
const ENDED: [Row; 2] = [(DUE, "absent, identity cleared"), (EXPIRED, "absent, identity cleared")];
/// The rows of `client_error`: the token counts until it expires.
const USED_UP: [Row; 2] = [(DUE, "active(old), "), (EXPIRED, "absent, identity cleared")];
/// The rows of a failed call: the identity stays.
const FAILED: [Row; 2] = [(DUE, "active(old), "), (EXPIRED, "unavailable, ")];

/// A browser that is logged in to a site.
struct Browser {
    site: Site,
    max_wait: Duration,
    old_token: String,
}

impl Browser {
    async fn new(clock: ManualClock, client: EuidClient, identity: Identity, max_wait: Duration) -> Self {
        let old_token = identity.advertising_token().to_owned();
        let mut site =
            Site::with_keys(ring(), client).configured(|layer| layer.clock(clock.clone()).max_wait(max_wait));
        site.clock = clock;
        site.update(EuidUpdate::login(identity)).await;
        Self { site, max_wait, old_token }
    }

    /// Visits a page. Returns the outcome as in a [`Row`], and the time that the page took.
    #[expect(clippy::disallowed_methods, reason = "measures how long a page really takes")]
    async fn look(&mut self) -> (String, Duration) {
        let begun = Instant::now();
        let visit = self.site.look().await;
        let took = begun.elapsed();
        assert!(took < self.max_wait + SLACK, "a page took {took:?}");
        assert_eq!(visit.response.status(), StatusCode::OK);
        let saw = match visit.saw() {
            saw if saw.contains(&self.old_token) => "active(old)".to_owned(),
            saw if saw.starts_with("active(") => "active(new)".to_owned(),
            saw => saw,
        };
        (format!("{saw}, {}", visit.writes()), took)
    }
}

#[tokio::test]
async fn socket_fault_of_any_kind_leaves_a_page_its_valid_token() {
    let mut cases = JoinSet::new();
    for &mode in Mode::ALL {
        for row in FAILED {
            cases.spawn(assert_socket_fault(mode, row));
        }
    }
    cases.join_all().await;
}

async fn assert_socket_fault(mode: Mode, (when, row): Row) {
    let server = serve(sandbox_at_start()).await;
    let identity = generate(&client(&server), user()).await.unwrap();
    let operator = FaultyOperator::start(mode).await;
    let (connect_timeout, timeout) = if mode.stalls() { (CONNECT_TIMEOUT, TIMEOUT) } else { (PATIENCE, PATIENCE) };
    let client = client_builder_at(operator.base_url(), server.sandbox());
    let client = client.connect_timeout(connect_timeout).timeout(timeout);
    let error = client.clone().build().unwrap().refresh(&identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{mode:?}");
    assert_eq!(error.to_string(), expected_error(mode), "{mode:?}");
    let before = operator.requests();

    // `max_wait` of the page must end the wait, not the timeouts of the client.
    let client = client.connect_timeout(PATIENCE).timeout(PATIENCE).build().unwrap();
    let mut browser = Browser::new(server.sandbox().clock(), client, identity, MAX_WAIT).await;
    browser.site.wait_until(when);
    let (seen, took) = browser.look().await;
    assert_eq!(seen, row, "{mode:?} at {when}");
    assert!(took >= MAX_WAIT || !mode.stalls(), "{mode:?} does not stall: {took:?}");
    assert_eq!(browser.look().await.0, row, "{mode:?} at {when}, second page");
    assert!(operator.requests() <= before + 1, "{mode:?}: the second page makes no call");
}

fn expected_error(mode: Mode) -> &'static str {
    match mode {
        Mode::Refuses => "the operator can't be reached: connection refused",
        Mode::NeverAccepts => "the operator can't be reached: no connection in time",
        mode if mode.stalls() => "the operator did not answer in time",
        _ => "the connection to the operator broke",
    }
}

#[tokio::test]
async fn invalid_answer_keeps_the_identity_until_the_operator_recovers() {
    for (fault, kind) in [
        (Fault::Status(500), ErrorKind::Transient),
        (Fault::Status(503), ErrorKind::Transient),
        (Fault::Garbage, ErrorKind::Malformed),
        (Fault::Redirect, ErrorKind::Malformed),
        (Fault::LargeBody(10 << 20), ErrorKind::Malformed),
        (Fault::WrongKey, ErrorKind::Undecryptable),
        (Fault::Refuse("error"), ErrorKind::UnknownStatus),
    ] {
        for (when, row) in FAILED {
            let server = serve(sandbox_at_start()).await;
            let identity = generate(&client(&server), user()).await.unwrap();
            let client = client_builder(&server).build().unwrap();
            server.fault(fault);
            assert_eq!(client.refresh(&identity).await.unwrap_err().kind(), kind, "{fault:?}");
            let before = server.sandbox().calls();

            let mut browser = Browser::new(server.sandbox().clock(), client, identity, PATIENCE).await;
            browser.site.wait_until(when);
            for _ in 0..2 {
                assert_eq!(browser.look().await.0, row, "{fault:?} at {when}");
            }
            let calls = server.sandbox().calls();
            assert_eq!(
                (calls.refresh, calls.other),
                (before.refresh + 1, 0),
                "{fault:?}: the second page makes no call"
            );

            server.fault(None);
            server.advance(BACK_OFF);
            assert_eq!(browser.look().await.0, "active(new), identity set", "{fault:?} at {when}, after the fault");
        }
    }
}

#[tokio::test]
async fn page_waits_for_a_stalled_operator_up_to_max_wait() {
    for (when, row) in FAILED {
        let server = serve(sandbox_at_start()).await;
        let identity = generate(&client(&server), user()).await.unwrap();
        let client = client_builder(&server).timeout(PATIENCE).build().unwrap();
        let mut browser = Browser::new(server.sandbox().clock(), client, identity, MAX_WAIT).await;
        browser.site.wait_until(when);
        server.fault(Fault::Delay(Duration::from_secs(3600)));
        let (seen, took) = browser.look().await;
        assert_eq!(seen, row, "at {when}");
        assert!(took >= MAX_WAIT, "at {when}: {took:?}");
    }
}

#[tokio::test]
async fn refusal_ends_the_identity_by_its_status() {
    for (status, rows) in
        [("invalid_token", ENDED), ("expired_token", ENDED), ("client_error", USED_UP), ("a_new_status", FAILED)]
    {
        for (when, row) in rows {
            let server = serve(sandbox_at_start()).await;
            let identity = generate(&client(&server), user()).await.unwrap();
            let client = client_builder(&server).build().unwrap();
            let mut browser = Browser::new(server.sandbox().clock(), client, identity, PATIENCE).await;
            browser.site.wait_until(when);
            server.fault(Fault::Refuse(status));
            assert_eq!(browser.look().await.0, row, "{status} at {when}");
        }
    }
}

/// The sandbox itself refuses these refresh tokens; no fault is set.
#[tokio::test]
async fn refused_refresh_token_ends_the_identity_only_for_a_client_with_an_api_key() {
    let minute = Duration::from_secs(60);
    let short = Lifetimes { refresh_from: minute, identity_expires: minute, refresh_expires: minute };
    let sandbox_of_short =
        Sandbox::builder().scope(scope()).clock(ManualClock::at(START)).lifetimes(short).build().unwrap();
    let (server, short) = (serve(sandbox_at_start()).await, serve(sandbox_of_short).await);
    let issued = generate(&client(&server), user()).await.unwrap();
    let expired = generate(&client(&short), user()).await.unwrap().refresh_token().clone();
    let not_a_token = "not-a-token".to_owned().into();
    let not_readable = "?".repeat(388).into();
    for (token, with_key, anonymously) in
        [(expired, ENDED, FAILED), (not_a_token, ENDED, FAILED), (not_readable, USED_UP, USED_UP)]
    {
        let advertising_token = issued.advertising_token();
        let identity = Identity::new(advertising_token, token, issued.response_key().clone(), issued.times()).unwrap();
        for (has_key, rows) in [(true, with_key), (false, anonymously)] {
            for (when, row) in rows {
                let server = serve(sandbox_at_start()).await;
                let anonymous = EuidClient::builder(Environment::Url(server.base_url()));
                let client = if has_key { client_builder(&server) } else { anonymous }.build().unwrap();
                let clock = server.sandbox().clock();
                let mut browser = Browser::new(clock, client, identity.clone(), PATIENCE).await;
                browser.site.wait_until(when);
                assert_eq!(browser.look().await.0, row, "with an API key: {has_key}, at {when}");
            }
        }
    }
}

/// The answer to a refresh has no nonce and no time. Only its key binds it to an identity.
#[tokio::test]
async fn replayed_answer_counts_only_under_its_own_key_and_until_it_expires() {
    let server = serve(sandbox_at_start()).await;
    let own = generate(&client(&server), user()).await.unwrap();
    let other = generate(&client(&server), email("other@example.com")).await.unwrap();
    let until_expiry = [REFRESHED[0], FAILED[1]];
    for (case, replayed, rows) in [
        ("the answer for another identity", &other, FAILED),
        ("an earlier answer for this identity", &own, until_expiry),
    ] {
        let answer = answer_to(server.sandbox(), replayed).await;
        let mut replay = JoinSet::new();
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(move || async { ([(CONTENT_TYPE, "text/plain")], answer) });
        replay.spawn(async { axum::serve(listener, router).await });
        for (when, row) in rows {
            let clock = ManualClock::at(START);
            let client = client_builder_at(base_url.clone(), server.sandbox()).clock(clock.clone()).build().unwrap();
            let mut browser = Browser::new(clock, client, own.clone(), PATIENCE).await;
            browser.site.wait_until(when);
            assert_eq!(browser.look().await.0, row, "{case}, at {when}");
        }
    }
}

/// Returns the bytes of the sandbox's answer at [`START`] to a refresh of `identity`.
async fn answer_to(sandbox: &Sandbox, identity: &Identity) -> Bytes {
    let token = Full::<Bytes>::from(identity.refresh_token().expose_secret().to_owned());
    let request = Request::post("/v2/token/refresh").body(token).unwrap();
    let answer = sandbox.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn call_to_a_name_that_cannot_be_resolved_says_that() {
    // A part of a name has at most 63 characters, so the resolver fails without a query.
    let operator = format!("http://{}.invalid", "a".repeat(64));
    let client = client_builder_at(operator, &sandbox_at_start()).insecure_http().build().unwrap();
    let error = generate(&client, user()).await.unwrap_err();
    assert_eq!(error.to_string(), "the operator can't be reached: its name can't be resolved (DNS)");
}
