//! Extractors and response parts of axum, through a real router.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Response, StatusCode};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use tower::ServiceExt;
use tower_euid::{AdvertisingToken, Consent, Euid, EuidLogoutHandle, EuidUpdate, Refreshed};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use crate::support::{ANCHOR, DUE, LOGIN_REMOVED, LOGIN_WRITTEN, Operator, Site, identity, new_pair, text, writes};

async fn state(euid: Euid) -> &'static str {
    euid.state()
}

async fn token(token: Option<AdvertisingToken>) -> String {
    token.map_or("no token".to_owned(), |token| token.to_string())
}

/// An application's own error.
struct AppError;

impl IntoResponse for AppError {
    fn into_response(self) -> Response<Body> {
        StatusCode::UNPROCESSABLE_ENTITY.into_response()
    }
}

/// Returns the pages, without the layer.
fn pages() -> Router {
    Router::new()
        .route("/state", get(state))
        .route("/token", get(token))
        .route("/consent", get(async |consent: Option<Consent>| format!("{consent:?}")))
        .route("/login", post(async || (EuidUpdate::login(identity("one")), Redirect::to("/"))))
        .route("/logout", post(async || (EuidUpdate::logout(), Redirect::to("/"))))
        .route("/update", post(async || EuidUpdate::logout()))
        .route("/handle", post(async |handle: EuidLogoutHandle| handle.logout()))
        .route("/ok", post(async || Ok::<_, AppError>((EuidUpdate::logout(), "done"))))
        .route("/err", post(async || Err::<(), _>((EuidUpdate::logout(), AppError))))
        .route("/twice", post(async || (EuidUpdate::logout(), EuidUpdate::login(identity("one")), "done")))
}

/// Sends a request with the cookies of the site's jar to `router`.
async fn send_to(router: Router, site: &Site, method: Method, path: &str) -> Response<Body> {
    let mut request = site.jar.request().map(|()| Body::empty());
    (*request.method_mut(), *request.uri_mut()) = (method, path.parse().unwrap());
    router.oneshot(request).await.unwrap()
}

/// Sends a request to the pages behind the layer, as a browser that keeps the cookies of the response.
async fn send(site: &mut Site, method: Method, path: &str) -> Response<Body> {
    let response = send_to(pages().layer(site.layer.clone()), site, method, path).await;
    site.jar.apply(response.headers());
    response
}

#[tokio::test]
async fn login_handler_sets_both_cookies_and_keeps_its_own_response() {
    let response = send(&mut Site::offline(), Method::POST, "/login").await;
    assert_eq!((response.status(), writes(response.headers())), (StatusCode::SEE_OTHER, LOGIN_WRITTEN.into()));
}

#[tokio::test]
async fn euid_extractor_returns_the_state() {
    let mut site = Site::offline().logged_in(0).await;
    assert_eq!(text(send(&mut site, Method::GET, "/state").await).await, "active");
    assert_eq!(text(send(&mut Site::offline(), Method::GET, "/state").await).await, "absent");
}

#[tokio::test]
async fn token_extractor_returns_the_token_or_none() {
    let mut site = Site::offline().logged_in(0).await;
    assert_eq!(text(send(&mut site, Method::GET, "/token").await).await, "old");
    assert_eq!(text(send(&mut Site::offline(), Method::GET, "/token").await).await, "no token");
}

#[tokio::test]
async fn token_extractor_returns_the_refreshed_token() {
    let mut site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    assert_eq!(text(send(&mut site, Method::GET, "/token").await).await, "new");
}

#[tokio::test]
async fn token_extractor_returns_none_after_an_opt_out() {
    let mut site = Site::new(Operator::answering(Ok(Refreshed::OptedOut))).logged_in(DUE).await;
    assert_eq!(text(send(&mut site, Method::GET, "/token").await).await, "no token");
}

#[tokio::test]
async fn response_of_a_handler_that_extracted_and_read_the_token_is_private() {
    let mut site = Site::offline().logged_in(0).await;
    let response = send(&mut site, Method::GET, "/token").await;
    assert_eq!(response.headers()["cache-control"], "private, no-cache");
}

#[tokio::test]
async fn consent_extractor_returns_the_consent_of_the_hook_or_none() {
    let site = Site::offline().logged_in(0).await;
    for (hook, expected) in
        [(None, "None"), (Some(Consent::Granted), "Some(Granted)"), (Some(Consent::Withheld), "Some(Withheld)")]
    {
        let mut site = site.clone();
        if let Some(consent) = hook {
            site = site.configured(|layer| layer.consent(move |_| consent));
        }
        assert_eq!(text(send(&mut site, Method::GET, "/consent").await).await, expected);
    }
}

#[tokio::test]
async fn extractors_without_the_layer_reject_with_500_and_name_the_layer() {
    for (method, path) in
        [(Method::GET, "/state"), (Method::GET, "/token"), (Method::GET, "/consent"), (Method::POST, "/handle")]
    {
        let response = send_to(pages(), &Site::offline(), method, path).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(text(response).await.contains("EuidLayer"), "{path}");
    }
}

#[tokio::test]
async fn logout_handler_clears_both_cookies() {
    for path in ["/logout", "/update", "/ok", "/handle"] {
        let mut site = Site::offline().logged_in(0).await;
        let response = send(&mut site, Method::POST, path).await;
        assert_eq!(writes(response.headers()), LOGIN_REMOVED, "{path}");
    }
}

#[tokio::test]
async fn update_in_an_err_response_counts() {
    let mut site = Site::offline().logged_in(0).await;
    let response = send(&mut site, Method::POST, "/err").await;
    let expected = (StatusCode::UNPROCESSABLE_ENTITY, LOGIN_REMOVED.to_owned());
    assert_eq!((response.status(), writes(response.headers())), expected);
}

#[tokio::test]
async fn logout_part_overrides_a_login_part() {
    let mut site = Site::offline();
    send(&mut site, Method::POST, "/twice").await;
    assert_eq!(site.jar.value(ANCHOR), None);
}

#[tokio::test]
async fn not_found_response_carries_the_refreshed_cookie() {
    let mut site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    let response = send(&mut site, Method::GET, "/nowhere").await;
    assert_eq!((response.status(), writes(response.headers())), (StatusCode::NOT_FOUND, "identity set".into()));
}

#[tokio::test]
async fn route_layer_inside_a_router_layer_passes_requests_through() {
    let operator = Operator::answering(new_pair("new"));
    let site = Site::new(operator.clone()).logged_in(DUE).await;
    let router = pages().route_layer(site.layer.clone()).layer(site.layer.clone());
    let response = send_to(router, &site, Method::GET, "/token").await;
    assert_eq!((writes(response.headers()), operator.calls()), ("identity set".into(), 1));
    assert_eq!(text(response).await, "new");
}

/// Returns handlers that log out and then fail to respond, each behind the layer that responds in its place.
fn failing_pages() -> Router {
    let slow = async |handle: EuidLogoutHandle| {
        handle.logout();
        pending::<()>().await;
    };
    let panicking = async |handle: EuidLogoutHandle| {
        handle.logout();
        panics();
    };
    let failing = async |handle: EuidLogoutHandle| {
        handle.logout();
        Err::<(), _>(AppError)
    };
    let timeout = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_secs(1));
    Router::new()
        .route("/slow", post(slow).layer(timeout))
        .route("/panicking", post(panicking).layer(CatchPanicLayer::new()))
        .route("/failing", post(failing))
}

#[expect(clippy::panic, reason = "the handler must panic")]
fn panics() {
    panic!("the test wants it")
}

#[tokio::test(start_paused = true)]
async fn logout_handle_survives_timeout_panic_and_error() {
    for (path, status) in [("/slow", 408), ("/panicking", 500), ("/failing", 422)] {
        let site = Site::offline().logged_in(0).await;
        let response = send_to(failing_pages().layer(site.layer.clone()), &site, Method::POST, path).await;
        let got = (response.status().as_u16(), writes(response.headers()));
        assert_eq!(got, (status, LOGIN_REMOVED.to_owned()), "{path}");
    }
}
