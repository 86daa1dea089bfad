//! A real client meets an operator that fails, over a real socket: each failure, with a token that is
//! still valid and with one that has expired, gives its row of the policy table.
//!
//! Sockets need real time; the layer, the client and the sandbox share a [`ManualClock`] all the
//! same. No outcome hangs on the machine being quick: where nothing comes, the page waits
//! [`MAX_WAIT`], where something comes, up to [`PATIENCE`]. That a page is not slower than it may be
//! is asserted with [`SLACK`] for the scheduler of a busy machine.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use axum::Router;
use bytes::Bytes;
use euid_sandbox::{Fault, Lifetimes, Sandbox, SandboxServer};
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower_euid::clock::ManualClock;
use tower_euid::error::ErrorKind;
use tower_euid::{Dii, Environment, EuidClient, EuidClientBuilder, EuidUpdate, Generated, Identity};

use crate::support::faulty::{FaultyOperator, Mode};
use crate::support::server::client_builder;
use crate::support::{DUE, EXPIRED, START, Site, ring};

const MAX_WAIT: Duration = Duration::from_millis(60);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(1);
/// Longer than a token rests after its first failure.
const REST: Duration = Duration::from_secs(6);

/// A time of the visit, what the handler sees then, and what the browser is told.
type Row = (i64, &'static str);

const REFRESHED: [Row; 2] = [(DUE, "active(new), identity set"), (EXPIRED, "active(new), identity set")];
const ENDED: [Row; 2] = [(DUE, "absent, identity cleared"), (EXPIRED, "absent, identity cleared")];
const USED_UP: [Row; 2] = [(DUE, "active(old), "), (EXPIRED, "absent, identity cleared")];
const FAILED: [Row; 2] = [(DUE, "active(old), "), (EXPIRED, "unavailable, ")];

async fn serve(lifetimes: Lifetimes) -> SandboxServer {
    let sandbox = Sandbox::builder().clock(ManualClock::at(START)).lifetimes(lifetimes).build().unwrap();
    sandbox.serve((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap()
}

async fn generate(server: &SandboxServer, address: &str) -> Identity {
    match client_builder(server).build().unwrap().generate(Dii::email(address).unwrap()).await.unwrap() {
        Generated::Identity(identity) => identity,
        other => panic!("{other:?}"),
    }
}

/// Configures a client of another address than the sandbox's own.
fn client_of(base_url: String, sandbox: &Sandbox) -> EuidClientBuilder {
    EuidClient::builder(Environment::Url(base_url))
        .credentials(sandbox.api_key(), sandbox.client_secret())
        .clock(sandbox.clock())
}

/// A browser that is logged in at a site.
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

    /// Visits a page; what its handler saw and what the browser was told, and how long it took.
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
async fn whatever_a_socket_does_pages_go_on_with_what_is_still_valid() {
    let mut scenes = JoinSet::new();
    for &mode in Mode::ALL {
        for row in FAILED {
            scenes.spawn(on_a_bad_line(mode, row));
        }
    }
    scenes.join_all().await;
}

async fn on_a_bad_line(mode: Mode, (when, row): Row) {
    let server = serve(Lifetimes::default()).await;
    let identity = generate(&server, "user@example.com").await;
    let operator = FaultyOperator::start(mode).await;
    let (connect_timeout, timeout) = if mode.stalls() { (CONNECT_TIMEOUT, TIMEOUT) } else { (PATIENCE, PATIENCE) };
    let client = client_of(operator.base_url(), server.sandbox());
    let client = client.connect_timeout(connect_timeout).timeout(timeout);
    let error = client.clone().build().unwrap().refresh(&identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{mode:?}");
    assert_eq!(error.to_string(), what_the_log_says(mode), "{mode:?}");
    let before = operator.requests();

    // The page's own patience has to end the wait, not the client's.
    let client = client.connect_timeout(PATIENCE).timeout(PATIENCE).build().unwrap();
    let mut browser = Browser::new(server.sandbox().clock(), client, identity, MAX_WAIT).await;
    browser.site.wait_until(when);
    let (seen, took) = browser.look().await;
    assert_eq!(seen, row, "{mode:?} at {when}");
    assert!(took >= MAX_WAIT || !mode.stalls(), "{mode:?} does not stall: {took:?}");
    assert_eq!(browser.look().await.0, row, "{mode:?} at {when}, again");
    assert!(operator.requests() <= before + 1, "{mode:?}: nothing is asked twice");
}

fn what_the_log_says(mode: Mode) -> &'static str {
    match mode {
        Mode::Refuses => "the operator can't be reached",
        mode if mode.stalls() => "the operator did not answer in time",
        _ => "the connection to the operator broke",
    }
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_costs_nobody_their_identity_and_passes() {
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
            let server = serve(Lifetimes::default()).await;
            let identity = generate(&server, "user@example.com").await;
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
            assert_eq!((calls.refresh, calls.other), (before.refresh + 1, 0), "{fault:?}: nothing is asked twice");

            server.fault(None);
            server.advance(REST);
            assert_eq!(browser.look().await.0, "active(new), identity set", "{fault:?} at {when}, after it");
        }
    }
}

#[tokio::test]
async fn an_operator_that_hangs_costs_a_page_its_patience_and_no_more() {
    for (when, row) in FAILED {
        let server = serve(Lifetimes::default()).await;
        let identity = generate(&server, "user@example.com").await;
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
async fn a_refusal_ends_what_it_is_meant_to_end() {
    for (word, rows) in
        [("invalid_token", ENDED), ("expired_token", ENDED), ("client_error", USED_UP), ("a_new_word", FAILED)]
    {
        for (when, row) in rows {
            let server = serve(Lifetimes::default()).await;
            let identity = generate(&server, "user@example.com").await;
            let client = client_builder(&server).build().unwrap();
            let mut browser = Browser::new(server.sandbox().clock(), client, identity, PATIENCE).await;
            browser.site.wait_until(when);
            server.fault(Fault::Refuse(word));
            assert_eq!(browser.look().await.0, row, "{word} at {when}");
        }
    }
}

/// The same without a fault: refresh tokens that the sandbox itself refuses.
#[tokio::test]
async fn only_a_caller_with_an_api_key_learns_that_a_token_has_ended() {
    let minute = Duration::from_secs(60);
    let short = Lifetimes { refresh_from: minute, identity_expires: minute, refresh_expires: minute };
    let (server, short) = (serve(Lifetimes::default()).await, serve(short).await);
    let whole = generate(&server, "user@example.com").await;
    let expired = generate(&short, "user@example.com").await.refresh_token().clone();
    let not_a_token = "not-a-token".to_owned().into();
    let not_readable = "?".repeat(388).into();
    for (token, with_key, anonymously) in
        [(expired, ENDED, FAILED), (not_a_token, ENDED, FAILED), (not_readable, USED_UP, USED_UP)]
    {
        let advertising_token = whole.advertising_token();
        let identity = Identity::new(advertising_token, token, whole.response_key().clone(), whole.times()).unwrap();
        for (has_key, rows) in [(true, with_key), (false, anonymously)] {
            for (when, row) in rows {
                let server = serve(Lifetimes::default()).await;
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

/// An answer to a refresh carries neither nonce nor time; its key is all that binds it.
#[tokio::test]
async fn a_replayed_answer_is_worth_what_its_key_and_its_times_are() {
    let server = serve(Lifetimes::default()).await;
    let ours = generate(&server, "user@example.com").await;
    let theirs = generate(&server, "other@example.com").await;
    let soon_over = [REFRESHED[0], FAILED[1]];
    for (whose, replayed, rows) in
        [("another's", &theirs, FAILED), ("its own, of an hour that is over", &ours, soon_over)]
    {
        let answer = answer_to(server.sandbox(), replayed).await;
        let mut replay = JoinSet::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(move || async { ([(CONTENT_TYPE, "text/plain")], answer) });
        replay.spawn(async { axum::serve(listener, router).await });
        for (when, row) in rows {
            let clock = ManualClock::at(START);
            let client = client_of(base_url.clone(), server.sandbox()).clock(clock.clone()).build().unwrap();
            let mut browser = Browser::new(clock, client, ours.clone(), PATIENCE).await;
            browser.site.wait_until(when);
            assert_eq!(browser.look().await.0, row, "{whose}, at {when}");
        }
    }
}

/// What the sandbox says at [`START`] to a refresh of `identity`, as it travels.
async fn answer_to(sandbox: &Sandbox, identity: &Identity) -> Bytes {
    let token = Full::<Bytes>::from(identity.refresh_token().expose_secret().to_owned());
    let request = Request::post("/v2/token/refresh").body(token).unwrap();
    let answer = sandbox.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.unwrap().to_bytes()
}
