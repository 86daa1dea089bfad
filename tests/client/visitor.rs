//! Tests of the sandbox's virtual visitors ([`Visitor`]) and of its client without a port.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::Duration;

use euid_sandbox::{Fault, Lifetimes, Sandbox, Visitor, VisitorState};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, Response};
use tower::{Layer, ServiceBuilder, service_fn};
use tower_euid::clock::{ManualClock, UnixMillis};
use tower_euid::error::{ErrorKind, Setting};
use tower_euid::{
    Consent, CookieConfig, CookieKey, Euid, EuidClient, EuidLayer, Generated, KeyRing, Refreshed, from_service,
};

use crate::support::server::{client_builder, generate, sandbox, serve, user};
use crate::support::{SCRIPT_TOKEN, scope};

const LOGGED_IN: [VisitorState; 3] = [VisitorState::Fresh, VisitorState::Due, VisitorState::Expired];

fn layer(sandbox: &Sandbox) -> EuidLayer {
    from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap().1
}

fn client_in_memory(sandbox: &Sandbox) -> EuidClient {
    from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap().0
}

/// Visits a page behind `layer`. Returns the state that the page sees.
async fn look(layer: &EuidLayer, visitor: &mut Visitor) -> &'static str {
    let page = layer.layer(service_fn(page));
    let response = visitor.send(&page, Request::new(())).await.unwrap();
    response.into_body()
}

fn page(request: Request<()>) -> Ready<Result<Response<&'static str>, Infallible>> {
    ready(Ok(Response::new(request.extensions().get::<Euid>().unwrap().state())))
}

/// Returns the state that the first page sees of a new visitor.
async fn first_look(layer: &EuidLayer, sandbox: &Sandbox, state: VisitorState) -> &'static str {
    look(layer, &mut sandbox.visitor(layer, state).unwrap()).await
}

#[tokio::test]
async fn visitor_in_each_state_is_seen_so_and_refreshed_only_if_due() {
    for (state, saw, refreshes) in [
        (VisitorState::Absent, "absent", 0),
        (VisitorState::Fresh, "active", 0),
        (VisitorState::Due, "active", 1),
        (VisitorState::Expired, "active", 1),
        (VisitorState::OptedOut, "opted_out", 0),
    ] {
        let sandbox = sandbox();
        let seen = first_look(&layer(&sandbox), &sandbox, state).await;
        assert_eq!((seen, sandbox.refresh_calls()), (saw, refreshes), "{state:?}");
    }
}

#[tokio::test]
async fn visitor_in_each_state_is_seen_so_during_an_outage() {
    for (state, saw) in [
        (VisitorState::Fresh, "active"),
        (VisitorState::Due, "active"),
        (VisitorState::Expired, "unavailable"),
        (VisitorState::OptedOut, "opted_out"),
    ] {
        let sandbox = sandbox();
        sandbox.fault(Fault::Status(503));
        assert_eq!(first_look(&layer(&sandbox), &sandbox, state).await, saw, "{state:?}");
    }
}

#[tokio::test]
async fn visitor_is_fresh_after_a_refresh() {
    let sandbox = sandbox();
    let layer = layer(&sandbox);
    let mut visitor = sandbox.visitor(&layer, VisitorState::Expired).unwrap();
    for _ in 0..3 {
        assert_eq!(look(&layer, &mut visitor).await, "active");
    }
    assert_eq!(sandbox.refresh_calls(), 1);
}

#[tokio::test]
async fn visitors_are_different_people() {
    let sandbox = sandbox();
    let layer = layer(&sandbox);
    let [mut one, mut other] = [(); 2].map(|()| sandbox.visitor(&layer, VisitorState::Due).unwrap());
    sandbox.opt_out(one.dii());
    assert_eq!(look(&layer, &mut one).await, "opted_out");
    assert_eq!(look(&layer, &mut other).await, "active");
}

#[tokio::test]
async fn opted_out_visitor_is_refused_by_the_operator_too() {
    let sandbox = sandbox();
    let visitor = sandbox.visitor(&layer(&sandbox), VisitorState::OptedOut).unwrap();
    assert_eq!(client_in_memory(&sandbox).generate(visitor.dii()).await.unwrap(), Generated::OptedOut);
}

#[tokio::test]
async fn visitor_has_the_cookies_of_the_layers_configuration() {
    let domain = CookieConfig::default().domain("example.com").unwrap();
    for config in [CookieConfig::insecure(), domain, CookieConfig::default().expose_token_to_scripts()] {
        for state in LOGGED_IN {
            let sandbox = sandbox();
            let layer = layer(&sandbox).cookie(config.clone());
            assert_eq!(first_look(&layer, &sandbox, state).await, "active", "{state:?} {config:?}");
        }
    }
}

#[tokio::test]
async fn visitor_has_the_script_cookie_until_the_token_expires() {
    let sandbox = sandbox();
    let layer = layer(&sandbox).cookie(CookieConfig::default().expose_token_to_scripts());
    let has_token = |state| {
        let visitor = sandbox.visitor(&layer, state).unwrap();
        visitor.cookie_header().contains(&format!("{SCRIPT_TOKEN}="))
    };
    assert_eq!(LOGGED_IN.map(has_token), [true, true, false], "a browser drops the expired cookie");
}

#[tokio::test]
async fn visitor_token_is_due_and_usable_with_any_jitter_and_margin() {
    let sandbox = sandbox();
    let layer = layer(&sandbox).refresh_jitter(Duration::MAX).expiry_margin(Duration::from_secs(1800));
    for due in 1..20 {
        assert_eq!(first_look(&layer, &sandbox, VisitorState::Due).await, "active");
        assert_eq!(sandbox.refresh_calls(), due);
    }
    sandbox.fault(Fault::Status(503));
    assert_eq!(first_look(&layer, &sandbox, VisitorState::Due).await, "active");
}

#[tokio::test]
async fn bound_visitor_is_active_for_their_user_only() {
    let sandbox = sandbox();
    for (subject, saw) in [("17", "active"), ("18", "absent")] {
        let layer = layer(&sandbox).subject(|_| Some("17"));
        let mut visitor = sandbox.bound_visitor(&layer, VisitorState::Due, subject).unwrap();
        assert_eq!(look(&layer, &mut visitor).await, saw, "{subject}");
    }
}

#[tokio::test]
async fn visitor_can_be_made_behind_a_layer_with_withdrawn_consent() {
    let sandbox = sandbox();
    let layer = layer(&sandbox).consent(|_| Consent::Withdrawn);
    let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh).unwrap();
    assert!(!visitor.cookie_header().is_empty());
    assert_eq!(look(&layer, &mut visitor).await, "withheld");
    assert_eq!(visitor.cookie_header(), "");
}

#[tokio::test]
async fn visitor_works_with_the_sites_own_keys() {
    let sandbox = sandbox();
    let keys = KeyRing::from(CookieKey::generate().unwrap());
    let layer = EuidLayer::new(keys, client_in_memory(&sandbox)).clock(sandbox.clock());
    assert_eq!(first_look(&layer, &sandbox, VisitorState::Due).await, "active");
    assert_eq!(sandbox.refresh_calls(), 1);
}

#[tokio::test]
async fn visitor_works_with_a_sandbox_on_a_port() {
    let server = serve(sandbox()).await;
    let keys = KeyRing::from(CookieKey::generate().unwrap());
    let client = client_builder(&server).build().unwrap();
    let layer = EuidLayer::new(keys, client).clock(server.sandbox().clock()).max_wait(Duration::from_secs(10));
    assert_eq!(first_look(&layer, server.sandbox(), VisitorState::Expired).await, "active");
}

#[test]
fn visitor_is_refused_behind_a_layer_with_another_clock() {
    let sandbox = Sandbox::builder().scope(scope()).clock(ManualClock::at(UnixMillis::from_millis(1_800_000_000_000)));
    let sandbox = sandbox.build().unwrap();
    let keys = KeyRing::from(CookieKey::generate().unwrap());
    let layer = EuidLayer::new(keys, client_in_memory(&sandbox));
    let error = sandbox.visitor(&layer, VisitorState::Fresh).unwrap_err().to_string();
    assert!(error.contains("clock(sandbox.clock())"), "{error}");
}

#[test]
fn visitor_in_any_state_is_refused_behind_a_layer_of_the_other_scope() {
    let [sandbox, other] = [scope(), scope().other()].map(|scope| Sandbox::builder().scope(scope).build().unwrap());
    for state in [VisitorState::Absent, VisitorState::OptedOut].into_iter().chain(LOGGED_IN) {
        let error = sandbox.visitor(&layer(&other), state).unwrap_err().to_string();
        let expected = format!("the layer serves {}, and the sandbox plays {}", other.scope(), sandbox.scope());
        assert_eq!(error, expected, "{state:?}");
    }
}

#[test]
fn visitor_state_is_refused_if_the_lifetimes_have_no_time_for_it() {
    let hour = Duration::from_secs(3600);
    let minted = |times: [Duration; 3]| {
        let [refresh_from, identity_expires, refresh_expires] = times;
        let lifetimes = Lifetimes { refresh_from, identity_expires, refresh_expires };
        let sandbox = Sandbox::builder().scope(scope()).lifetimes(lifetimes).build().unwrap();
        LOGGED_IN.map(|state| sandbox.visitor(&layer(&sandbox), state).is_ok())
    };
    assert_eq!(minted([hour, 2 * hour, 3 * hour]), [true, true, true]);
    assert_eq!(minted([Duration::ZERO, hour, 2 * hour]), [false, true, true]);
    assert_eq!(minted([hour, hour, 2 * hour]), [true, false, true]);
    assert_eq!(minted([hour, 2 * hour, 2 * hour]), [true, true, false]);
}

#[test]
fn visitor_keeps_all_cookies_of_the_site() {
    let sandbox = sandbox();
    let mut visitor = sandbox.visitor(&layer(&sandbox), VisitorState::Absent).unwrap();
    let mut keep = |line: &str| {
        visitor.keep_cookies(&HeaderMap::from_iter([(SET_COOKIE, HeaderValue::try_from(line).unwrap())]));
        visitor.cookie_header()
    };
    assert_eq!(keep("session=a=b; Path=/; HttpOnly"), "session=a=b");
    assert_eq!(keep("theme=dark"), "session=a=b; theme=dark");
    assert_eq!(keep("session=c; Max-Age=60"), "session=c; theme=dark");
    assert_eq!(keep("session=; Path=/; Max-Age=0"), "theme=dark");
}

#[tokio::test]
async fn visitor_keeps_the_cookie_header_of_a_request() {
    let sandbox = sandbox();
    let mut visitor = sandbox.visitor(&layer(&sandbox), VisitorState::Fresh).unwrap();
    let count_headers = service_fn(|request: Request<()>| {
        ready(Ok::<_, Infallible>(Response::new(request.headers().get_all(COOKIE).iter().count())))
    });
    let request = || Request::get("/").header(COOKIE, "session=1").body(()).unwrap();
    assert_eq!(visitor.send(&count_headers, request()).await.unwrap().into_body(), 2);
    let mut without_cookies = sandbox.visitor(&layer(&sandbox), VisitorState::Absent).unwrap();
    assert_eq!(without_cookies.send(&count_headers, request()).await.unwrap().into_body(), 1);
}

#[tokio::test]
async fn visitor_waits_until_the_service_is_ready() {
    let sandbox = sandbox();
    let layer = layer(&sandbox);
    let page = ServiceBuilder::new().concurrency_limit(1).layer(layer.clone()).service_fn(page);
    let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh).unwrap();
    for _ in 0..2 {
        assert_eq!(visitor.send(&page, Request::new(())).await.unwrap().into_body(), "active");
    }
}

#[test]
fn debug_of_a_visitor_shows_no_cookie() {
    let sandbox = sandbox();
    let visitor = sandbox.visitor(&layer(&sandbox), VisitorState::Fresh).unwrap();
    let shown = format!("{visitor:?}");
    let cookies = visitor.cookie_header();
    let values = cookies.split("; ").map(|pair| pair.split_once('=').unwrap().1);
    assert!(values.into_iter().all(|value| !shown.contains(value)), "{shown}");
}

#[tokio::test]
async fn client_in_memory_makes_all_three_calls() {
    let sandbox = sandbox();
    let client = client_in_memory(&sandbox);
    let first = generate(&client, user()).await.unwrap();
    let Refreshed::Identity(second) = client.refresh(&first).await.unwrap() else { panic!("opted out") };
    assert!(client.validate(second.advertising_token(), user()).await.unwrap());
    let calls = sandbox.calls();
    assert_eq!((calls.generate, calls.refresh, calls.validate, calls.other), (1, 1, 1, 0));
}

#[tokio::test]
async fn client_in_memory_gets_the_same_errors_as_one_on_a_port() {
    let sandbox = sandbox();
    let server = serve(sandbox.clone()).await;
    let clients = [client_in_memory(&sandbox), client_builder(&server).build().unwrap()];
    for fault in [
        Fault::Status(503),
        Fault::Status(404),
        Fault::Garbage,
        Fault::Refuse("client_error"),
        Fault::Redirect,
        Fault::LargeBody(64 * 1024),
        Fault::LargeBody(64 * 1024 + 4),
        Fault::WrongNonce,
        Fault::WrongKey,
    ] {
        sandbox.fault(fault);
        let [in_memory, on_a_port] = &clients;
        let in_memory = in_memory.generate(user()).await.unwrap_err();
        let on_a_port = on_a_port.generate(user()).await.unwrap_err();
        assert_eq!((in_memory.kind(), in_memory.to_string()), (on_a_port.kind(), on_a_port.to_string()), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_of_a_client_in_memory_needs_no_real_time() {
    let sandbox = sandbox();
    sandbox.fault(Fault::Delay(Duration::from_secs(3600)));
    let error = client_in_memory(&sandbox).generate(user()).await.unwrap_err();
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Transient, "the operator did not answer in time"));
}

#[test]
fn sandbox_builder_refuses_an_api_key_that_fits_into_no_header() {
    let error =
        Sandbox::builder().scope(scope()).credentials("no\nkey", Sandbox::DEFAULT_CLIENT_SECRET).build().unwrap_err();
    assert!(error.to_string().contains("API key"));
    assert_eq!(error.setting(), Some(Setting::ApiKey));
}
