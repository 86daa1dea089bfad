//! axum: extractors and response parts, through a real router.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_euid::{AdvertisingToken, Consent, Euid, EuidLogoutHandle, EuidUpdate, Refreshed};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use crate::support::{ANCHOR, BOTH_CLEARED, DUE, Operator, Site, identity, new_pair, writes};

async fn state(euid: Euid) -> &'static str {
    euid.state()
}

async fn token(token: Option<AdvertisingToken>) -> String {
    token.map_or("nobody".to_owned(), |token| token.to_string())
}

/// An application's own error.
struct AppError;

impl IntoResponse for AppError {
    fn into_response(self) -> Response<Body> {
        StatusCode::UNPROCESSABLE_ENTITY.into_response()
    }
}

/// The pages, without the layer.
fn pages() -> Router {
    Router::new()
        .route("/state", get(state))
        .route("/token", get(token))
        .route("/consent", get(async |consent: Option<Consent>| format!("{consent:?}")))
        .route("/login", post(async || (EuidUpdate::login(identity("one")), Redirect::to("/"))))
        .route("/logout", post(async || (EuidUpdate::logout(), Redirect::to("/"))))
        .route("/update", post(async || EuidUpdate::logout()))
        .route("/now", post(async |handle: EuidLogoutHandle| handle.logout()))
        .route("/ok", post(async || Ok::<_, AppError>((EuidUpdate::logout(), "done"))))
        .route("/err", post(async || Err::<(), _>((EuidUpdate::logout(), AppError))))
        .route("/twice", post(async || (EuidUpdate::logout(), EuidUpdate::login(identity("one")), "done")))
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A request with the cookies of the site's jar, which takes what the response says.
async fn ask(site: &mut Site, method: &str, path: &str) -> Response<Body> {
    let (mut parts, ()) = site.jar.request().into_parts();
    parts.method = method.parse().unwrap();
    parts.uri = path.parse().unwrap();
    let router = pages().layer(site.layer.clone());
    let response = router.oneshot(Request::from_parts(parts, Body::empty())).await.unwrap();
    site.jar.apply(response.headers());
    response
}

async fn logged_in(operator: Operator) -> Site {
    let mut site = Site::new(operator);
    ask(&mut site, "POST", "/login").await;
    site
}

#[tokio::test]
async fn a_login_handler_sets_both_cookies_and_answers_as_it_does() {
    let mut site = Site::offline();
    let response = ask(&mut site, "POST", "/login").await;
    assert_eq!(
        (response.status(), writes(response.headers())),
        (StatusCode::SEE_OTHER, "identity set, anchor set".into())
    );
}

#[tokio::test]
async fn the_euid_extractor_tells_the_state() {
    let mut site = logged_in(Operator::never()).await;
    assert_eq!(text(ask(&mut site, "GET", "/state").await).await, "active");
    let mut nobody = Site::offline();
    assert_eq!(text(ask(&mut nobody, "GET", "/state").await).await, "absent");
}

#[tokio::test]
async fn the_token_extractor_gives_the_token_or_none() {
    let mut site = logged_in(Operator::never()).await;
    assert_eq!(text(ask(&mut site, "GET", "/token").await).await, "one");
    let mut nobody = Site::offline();
    assert_eq!(text(ask(&mut nobody, "GET", "/token").await).await, "nobody");
}

#[tokio::test]
async fn the_token_extractor_gives_the_refreshed_token() {
    let mut site = logged_in(Operator::answering(new_pair("new"))).await;
    site.wait_until(DUE);
    assert_eq!(text(ask(&mut site, "GET", "/token").await).await, "new");
}

#[tokio::test]
async fn the_token_extractor_gives_none_after_an_opt_out() {
    let mut site = logged_in(Operator::answering(Ok(Refreshed::OptedOut))).await;
    site.wait_until(DUE);
    assert_eq!(text(ask(&mut site, "GET", "/token").await).await, "nobody");
}

#[tokio::test]
async fn a_page_that_extracted_the_token_is_private() {
    let mut site = logged_in(Operator::never()).await;
    let response = ask(&mut site, "GET", "/token").await;
    assert_eq!(response.headers()["cache-control"], "private, no-cache");
}

#[tokio::test]
async fn consent_extractor_gives_the_answer_of_the_hook_or_none() {
    let site = logged_in(Operator::never()).await;
    for (hook, expected) in
        [(None, "None"), (Some(Consent::Granted), "Some(Granted)"), (Some(Consent::Withheld), "Some(Withheld)")]
    {
        let mut site = site.clone();
        if let Some(consent) = hook {
            site = site.configured(|layer| layer.consent(move |_| consent));
        }
        assert_eq!(text(ask(&mut site, "GET", "/consent").await).await, expected);
    }
}

#[tokio::test]
async fn without_the_layer_the_extractors_answer_500() {
    for (method, path) in [("GET", "/state"), ("GET", "/token"), ("GET", "/consent"), ("POST", "/now")] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = pages().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(text(response).await.contains("EuidLayer"), "it says what is missing");
    }
}

#[tokio::test]
async fn a_logout_handler_clears_both_cookies() {
    for path in ["/logout", "/update", "/ok", "/now"] {
        let mut site = logged_in(Operator::never()).await;
        let response = ask(&mut site, "POST", path).await;
        assert_eq!(writes(response.headers()), BOTH_CLEARED, "{path}");
    }
}

#[tokio::test]
async fn an_update_in_an_err_response_counts() {
    let mut site = logged_in(Operator::never()).await;
    let response = ask(&mut site, "POST", "/err").await;
    let expected = (StatusCode::UNPROCESSABLE_ENTITY, "identity cleared, anchor cleared".to_owned());
    assert_eq!((response.status(), writes(response.headers())), expected);
}

#[tokio::test]
async fn of_two_update_parts_the_stronger_wins() {
    let mut site = Site::offline();
    ask(&mut site, "POST", "/twice").await;
    assert_eq!(site.jar.value(ANCHOR), None);
}

#[tokio::test]
async fn pages_that_are_not_found_and_errors_carry_the_refreshed_cookie() {
    let mut site = logged_in(Operator::answering(new_pair("new"))).await;
    site.wait_until(DUE);
    let response = ask(&mut site, "GET", "/nowhere").await;
    assert_eq!((response.status(), writes(response.headers())), (StatusCode::NOT_FOUND, "identity set".into()));
}

#[tokio::test]
async fn a_route_layer_inside_a_router_layer_passes_through() {
    let operator = Operator::answering(new_pair("new"));
    let site = logged_in(operator.clone()).await;
    site.wait_until(DUE);
    let (mut parts, ()) = site.jar.request().into_parts();
    parts.uri = "/token".parse().unwrap();
    let router = pages().route_layer(site.layer.clone()).layer(site.layer.clone());
    let response = router.oneshot(Request::from_parts(parts, Body::empty())).await.unwrap();
    assert_eq!((writes(response.headers()), operator.calls()), ("identity set".into(), 1));
    assert_eq!(text(response).await, "new");
}

/// Handlers that log out and do not come to a response of their own, with what makes one for them.
fn disturbed() -> Router {
    let slow = async |handle: EuidLogoutHandle| {
        handle.logout();
        std::future::pending::<()>().await;
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

#[expect(clippy::panic, reason = "the handler is to panic")]
fn panics() {
    panic!("the test wants it")
}

#[tokio::test(start_paused = true)]
async fn a_logout_said_first_survives_timeout_panic_and_error() {
    for (path, status) in [("/slow", 408), ("/panicking", 500), ("/failing", 422)] {
        let site = logged_in(Operator::never()).await;
        let (mut parts, ()) = site.jar.request().into_parts();
        (parts.method, parts.uri) = ("POST".parse().unwrap(), path.parse().unwrap());
        let router = disturbed().layer(site.layer.clone());
        let response = router.oneshot(Request::from_parts(parts, Body::empty())).await.unwrap();
        let got = (response.status().as_u16(), writes(response.headers()));
        assert_eq!(got, (status, BOTH_CLEARED.to_owned()), "{path}");
    }
}
