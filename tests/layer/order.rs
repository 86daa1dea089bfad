//! The order of layers: well-known layers outside and inside the EUID layer, as in `src/docs/layers.md`.
//!
//! Each test puts one layer on both sides and asserts the effects that a visitor would notice.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::{Route, get, post};
use http_body_util::BodyExt;
use tokio::time::timeout;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_euid::{AdvertisingToken, Euid, EuidLayer, EuidLogoutHandle, EuidUpdate, RefreshMode};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::csrf::CsrfLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

use crate::support::{DUE, LOGIN_REMOVED, LOGIN_WRITTEN, Operator, Site, User, identity, new_pair, text, writes};

/// A time within which a page still waits for its refresh.
const WITHIN_MAX_WAIT: Duration = EuidLayer::DEFAULT_MAX_WAIT.saturating_sub(Duration::from_millis(1));

/// The side of the EUID layer on which the other layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Outside,
    Inside,
}

use Side::{Inside, Outside};

/// Returns the pages behind the EUID layer, with `other` on one side of it.
fn stack<L>(side: Side, euid: &EuidLayer, other: L) -> Router
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request, Error: Into<Infallible>, Response: IntoResponse, Future: Send>,
    L::Service: Clone + Send + Sync + 'static,
{
    let pages = Router::new()
        .route("/token", get(token))
        .route("/state", get(state))
        .route("/panic", get(panicking))
        .route("/login", post(async || EuidUpdate::login(identity("one"))))
        .route("/logout", post(async || EuidUpdate::logout()))
        .route("/logout-and-panic", post(logout_and_panic))
        .route("/upload", post(async |_: Bytes| ()));
    match side {
        Outside => pages.layer(euid.clone()).layer(other),
        Inside => pages.layer(other).layer(euid.clone()),
    }
}

/// Returns a text that is long enough for `CompressionLayer` to compress it.
async fn token(token: Option<AdvertisingToken>) -> String {
    format!("{:100}", token.map_or("no token".to_owned(), |token| token.to_string()))
}

async fn state(euid: Euid) -> &'static str {
    euid.state()
}

#[expect(clippy::panic, reason = "the handler must panic")]
async fn panicking() {
    panic!("the test wants it")
}

async fn logout_and_panic(logout: EuidLogoutHandle) {
    logout.logout();
    panicking().await;
}

/// Sends a request as the site's browser, which keeps the cookies of the response.
async fn send(site: &mut Site, app: &Router, method: Method, path: &str) -> Response<Body> {
    send_with(site, app, method, path, &[]).await
}

async fn send_with(
    site: &mut Site,
    app: &Router,
    method: Method,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> Response<Body> {
    let response = app.clone().oneshot(request(site, method, path, headers)).await.unwrap();
    site.jar.apply(response.headers());
    response
}

fn request(site: &Site, method: Method, path: &str, headers: &[(&'static str, &'static str)]) -> Request {
    let mut request = site.jar.request().map(|()| Body::empty());
    (*request.method_mut(), *request.uri_mut()) = (method, path.parse().unwrap());
    for &(name, value) in headers {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    request
}

/// Returns the text of a page, without the padding of [`token`].
async fn get_text(site: &mut Site, app: &Router, path: &str) -> String {
    trimmed(send(site, app, Method::GET, path).await).await
}

async fn trimmed(response: Response<Body>) -> String {
    text(response).await.trim_end().to_owned()
}

type Stored = Arc<Mutex<HashMap<String, (HeaderMap, Bytes)>>>;

/// A cache of whole responses. It obeys `Cache-Control`, as a shared cache must.
async fn cache(State(stored): State<Stored>, request: Request, next: Next) -> Response<Body> {
    let key = request.uri().path().to_owned();
    let hit = stored.lock().unwrap().get(&key).cloned();
    if let Some((headers, body)) = hit {
        return (headers, body).into_response();
    }
    let (parts, body) = next.run(request).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let rules = parts.headers.get(CACHE_CONTROL).map_or("", |value| value.to_str().unwrap());
    if !rules.contains("private") && !rules.contains("no-store") {
        stored.lock().unwrap().insert(key, (parts.headers.clone(), body.clone()));
    }
    (parts.headers, body).into_response()
}

#[tokio::test]
async fn cache_outside_stores_no_token_and_cache_inside_shows_it_to_strangers() {
    for (side, stranger_sees) in [(Outside, "no token"), (Inside, "old")] {
        let mut site = Site::offline().logged_in(0).await;
        let app = stack(side, &site.layer, from_fn_with_state(Stored::default(), cache));
        assert_eq!(get_text(&mut site, &app, "/token").await, "old");
        let stranger = app.oneshot(Request::get("/token").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(trimmed(stranger).await, stranger_sees, "{side:?}");
    }
}

#[tokio::test]
async fn cache_control_set_outside_overrides_that_of_the_layer() {
    let public = HeaderValue::from_static("public, max-age=600");
    let overriding = SetResponseHeaderLayer::overriding(CACHE_CONTROL, public.clone());
    let if_absent = SetResponseHeaderLayer::if_not_present(CACHE_CONTROL, public);
    let site = Site::offline();
    for (app, expected) in [
        (stack(Outside, &site.layer, overriding.clone()), "public, max-age=600"),
        (stack(Inside, &site.layer, overriding), "private, no-store"),
        (stack(Outside, &site.layer, if_absent.clone()), "private, no-store"),
        (stack(Inside, &site.layer, if_absent), "private, no-store"),
    ] {
        let response = send(&mut site.clone(), &app, Method::POST, "/login").await;
        assert_eq!(
            (writes(response.headers()).as_str(), &response.headers()[CACHE_CONTROL]),
            (LOGIN_WRITTEN, &HeaderValue::from_static(expected))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_outside_that_is_shorter_than_max_wait_fails_the_request() {
    let short = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, WITHIN_MAX_WAIT);
    for (side, status) in [(Outside, StatusCode::GATEWAY_TIMEOUT), (Inside, StatusCode::OK)] {
        let mut site = Site::unanswered().logged_in(DUE).await;
        let app = stack(side, &site.layer, short);
        assert_eq!(send(&mut site, &app, Method::GET, "/token").await.status(), status, "{side:?}");
    }
}

#[tokio::test]
async fn panic_caught_inside_keeps_the_written_cookies_and_one_caught_outside_loses_them() {
    for (side, refreshed, logged_out) in [(Inside, "identity set", LOGIN_REMOVED), (Outside, "", "")] {
        let operator = Operator::answering(new_pair("new"));
        let mut site = Site::new(operator.clone()).logged_in(DUE).await;
        let app = stack(side, &site.layer, CatchPanicLayer::new());
        let response = send(&mut site, &app, Method::GET, "/panic").await;
        assert_eq!(
            (response.status(), writes(response.headers()).as_str()),
            (StatusCode::INTERNAL_SERVER_ERROR, refreshed)
        );
        // The answer of the operator is remembered: the next request needs no second call.
        assert_eq!(get_text(&mut site, &app, "/token").await, "new", "{side:?}");
        assert_eq!(operator.calls(), 1, "{side:?}");

        let response = send(&mut site, &app, Method::POST, "/logout-and-panic").await;
        assert_eq!(writes(response.headers()), logged_out, "{side:?}");
    }
}

#[tokio::test]
async fn compression_works_on_either_side() {
    for side in [Outside, Inside] {
        let mut site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
        let app = stack(side, &site.layer, CompressionLayer::new());
        let gzip = [(ACCEPT_ENCODING.as_str(), "gzip")];
        let response = send_with(&mut site, &app, Method::GET, "/token", &gzip).await;
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip", "{side:?}");
        assert_eq!(writes(response.headers()), "identity set", "{side:?}");
        assert_eq!(response.headers()[CACHE_CONTROL], "private, no-store", "{side:?}");
    }
}

#[tokio::test]
async fn cors_preflight_starts_no_refresh_on_either_side() {
    for side in [Outside, Inside] {
        let operator = Operator::answering(new_pair("new"));
        let mut site = Site::new(operator.clone()).logged_in(DUE).await;
        let app = stack(side, &site.layer, CorsLayer::permissive());
        let headers = [("origin", "https://other.example"), ("access-control-request-method", "GET")];
        let response = send_with(&mut site, &app, Method::OPTIONS, "/token", &headers).await;
        assert!(response.headers().contains_key("access-control-allow-origin"), "{side:?}");
        assert_eq!((operator.calls(), writes(response.headers()).as_str()), (0, ""), "{side:?}");
    }
}

#[tokio::test]
async fn csrf_check_refuses_a_forged_login_on_either_side() {
    for side in [Outside, Inside] {
        let mut site = Site::offline();
        let app = stack(side, &site.layer, CsrfLayer::new());
        let forged = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")];
        let response = send_with(&mut site, &app, Method::POST, "/login", &forged).await;
        assert_eq!((response.status(), writes(response.headers()).as_str()), (StatusCode::FORBIDDEN, ""), "{side:?}");
    }
}

#[tokio::test]
async fn body_limit_works_on_either_side_and_saves_the_call_outside() {
    for side in [Outside, Inside] {
        let operator = Operator::answering(new_pair("new"));
        let mut site = Site::new(operator.clone()).logged_in(DUE).await;
        let app = stack(side, &site.layer, RequestBodyLimitLayer::new(10));
        let too_large = [("content-length", "11")];
        let response = send_with(&mut site, &app, Method::POST, "/upload", &too_large).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE, "{side:?}");
        // A refresh would run in a task of its own.
        tokio::task::yield_now().await;
        assert_eq!(operator.calls(), usize::from(side == Inside), "{side:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_that_waits_for_a_refresh_holds_a_permit_of_a_limit_outside() {
    use RefreshMode::{Blocking, Concurrent};
    for (side, mode, is_served) in
        [(Outside, Blocking, false), (Outside, Concurrent, true), (Inside, Blocking, true), (Inside, Concurrent, true)]
    {
        let site = Site::unanswered().logged_in(DUE).await.configured(|layer| layer.refresh_mode(mode));
        let app = stack(side, &site.layer, GlobalConcurrencyLimitLayer::new(1));
        let waiting = tokio::spawn(app.clone().oneshot(request(&site, Method::GET, "/token", &[])));
        tokio::task::yield_now().await;
        let stranger = app.oneshot(Request::get("/state").body(Body::empty()).unwrap());
        let stranger = timeout(WITHIN_MAX_WAIT, stranger).await;
        assert_eq!(stranger.is_ok(), is_served, "{side:?} {mode:?}");
        waiting.await.unwrap().unwrap();
    }
}

/// axum's routes are always ready; a plain tower service may not be.
#[tokio::test(start_paused = true)]
async fn request_that_waits_holds_a_permit_of_a_limit_inside_a_plain_tower_stack() {
    let site = Site::unanswered().logged_in(DUE).await;
    let page = service_fn(async |_: axum::http::Request<()>| Ok::<_, Infallible>(Response::new(())));
    let app = site.layer.layer(GlobalConcurrencyLimitLayer::new(1).layer(page));
    let waiting = tokio::spawn(app.clone().oneshot(site.jar.request()));
    tokio::task::yield_now().await;
    let stranger = app.oneshot(axum::http::Request::new(()));
    assert!(timeout(WITHIN_MAX_WAIT, stranger).await.is_err());
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn session_layer_inside_is_too_late_for_the_subject() {
    let session = async |mut request: Request, next: Next| {
        request.extensions_mut().insert(User("ann"));
        next.run(request).await
    };
    for (side, state) in [(Outside, "active"), (Inside, "absent")] {
        let mut site = Site::offline().with_subject();
        site.update(EuidUpdate::login(identity("one")).subject("ann")).await;
        let app = stack(side, &site.layer, from_fn(session));
        assert_eq!(get_text(&mut site, &app, "/state").await, state, "{side:?}");
    }
}
