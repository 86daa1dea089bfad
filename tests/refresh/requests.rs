//! Which requests cause a refresh, which wait for one, and which responses bring its outcome.

#![expect(clippy::disallowed_methods, reason = "tokio's clock is paused here")]

use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::time::{Instant, sleep};
use tower_euid::error::ErrorKind;
use tower_euid::{Consent, CookieConfig, Euid, EuidUpdate, Refreshed};

use crate::support::{
    BOTH_CLEARED, BOTH_SET, DUE, EXPIRED, IDENTITY, NOTHING, Operator, REFRESH_EXPIRES, SCRIPT_TOKEN, Site, expect,
    failure, identity_until, new_pair, outcome,
};

/// A visitor who logged in `millis` ago.
async fn visitor(operator: &Operator, millis: i64) -> Site {
    let mut site = Site::new(operator.clone());
    site.login("old").await;
    site.wait_until(millis);
    site
}

/// A request with the visitor's cookies and these headers.
fn with(site: &Site, headers: &[(&'static str, &'static str)]) -> Request<()> {
    let mut request = site.jar.request();
    for (name, value) in headers {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    request
}

fn of_method(site: &Site, method: Method) -> Request<()> {
    let mut request = site.jar.request();
    *request.method_mut() = method;
    request
}

#[tokio::test]
async fn websockets_and_prefetches_of_scripts_do_not_refresh() {
    let operator = Operator::answering(new_pair("new"));
    let site = visitor(&operator, DUE).await;
    for headers in [
        &[("connection", "Upgrade"), ("upgrade", "websocket")][..],
        &[("x-sec-purpose", "prefetch")],
        &[("x-moz", "prefetch")],
        &[("next-router-prefetch", "1")],
        &[("sec-fetch-dest", "video")],
    ] {
        let visit = site.send(with(&site, headers), NOTHING).await;
        assert_eq!(outcome(&visit), expect("active(old)", ""), "{headers:?}");
    }
    let visit = site.send(of_method(&site, Method::CONNECT), NOTHING).await;
    assert_eq!(outcome(&visit), expect("active(old)", ""));
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn page_that_offers_http_2_refreshes() {
    for headers in [
        &[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")][..],
        &[("upgrade", "websocket")],
    ] {
        let site = visitor(&Operator::answering(new_pair("new")), EXPIRED).await;
        let visit = site.send(with(&site, headers), NOTHING).await;
        assert_eq!(outcome(&visit), expect("active(new)", "identity set"), "{headers:?}");
    }
}

#[tokio::test]
async fn image_writes_nothing_of_a_refresh_that_another_request_made() {
    for (answer, saw) in [
        (new_pair("new"), "active(new)"),
        (Ok(Refreshed::OptedOut), "opted_out"),
        (failure(ErrorKind::RejectedToken), "absent"),
    ] {
        let operator = Operator::answering(answer);
        let site = visitor(&operator, DUE).await;
        site.send(site.jar.request(), NOTHING).await;
        for headers in [("sec-fetch-dest", "image"), ("sec-fetch-dest", "audio"), ("purpose", "prefetch")] {
            let visit = site.send(with(&site, &[headers]), NOTHING).await;
            assert_eq!(outcome(&visit), expect(saw, ""), "{headers:?}");
            assert!(visit.response.headers().is_empty(), "{headers:?}");
        }
        assert_eq!(operator.calls(), 1);
    }
}

#[tokio::test]
async fn request_that_the_application_keeps_from_refreshing_writes_nothing_of_another_refresh() {
    let site = visitor(&Operator::answering(new_pair("new")), DUE).await;
    let site = site.configured(|layer| layer.refresh_when(|request| request.method == Method::GET));
    site.send(site.jar.request(), NOTHING).await;
    let visit = site.send(of_method(&site, Method::HEAD), NOTHING).await;
    assert_eq!(outcome(&visit), expect("active(new)", ""));
}

#[tokio::test]
async fn image_leaves_a_cookie_that_is_of_no_use_to_the_next_page() {
    let mut site = visitor(&Operator::never(), 0).await;
    let value = site.jar.value(IDENTITY).unwrap_or_default().to_owned();
    site.jar.put(IDENTITY, &value.replace(&value[60..64], "AAAA"));
    let image = site.send(with(&site, &[("sec-fetch-dest", "image")]), NOTHING).await;
    assert_eq!(outcome(&image), expect("absent", ""));
    let page = site.send(site.jar.request(), NOTHING).await;
    assert_eq!(outcome(&page), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn image_writes_what_a_handler_says_and_a_withdrawal() {
    let site = visitor(&Operator::never(), 0).await;
    let image = || with(&site, &[("sec-fetch-dest", "image")]);
    let logout = site.send(image(), |_, response| EuidUpdate::logout().attach(response)).await;
    assert_eq!(logout.writes(), BOTH_CLEARED);
    let login = |_: &Euid, response: &mut Response<()>| {
        EuidUpdate::login(identity_until("another", [DUE, EXPIRED, EXPIRED])).attach(response);
    };
    assert_eq!(site.send(image(), login).await.writes(), BOTH_SET);
    let withdrawn = site.clone().configured(|layer| layer.consent(|_| Consent::Withdrawn));
    assert_eq!(withdrawn.send(image(), NOTHING).await.writes(), BOTH_CLEARED);
}

#[tokio::test]
async fn conditional_request_causes_no_refresh_while_its_token_is_usable() {
    for name in ["if-none-match", "if-modified-since"] {
        for method in [Method::GET, Method::HEAD] {
            let operator = Operator::answering(new_pair("new"));
            let site = visitor(&operator, DUE).await;
            let mut request = with(&site, &[(name, "x")]);
            *request.method_mut() = method;
            let visit = site.send(request, NOTHING).await;
            assert_eq!((outcome(&visit), operator.calls()), (expect("active(old)", ""), 0), "{name}");
        }
    }
}

#[tokio::test]
async fn conditional_request_refreshes_a_token_that_is_past() {
    let operator = Operator::answering(new_pair("new"));
    let site = visitor(&operator, EXPIRED).await;
    let visit = site.send(with(&site, &[("if-none-match", "x")]), NOTHING).await;
    assert_eq!((outcome(&visit), operator.calls()), (expect("active(new)", "identity set"), 1));
}

#[tokio::test]
async fn conditional_request_brings_what_another_request_has_found_out() {
    let operator = Operator::answering(new_pair("new"));
    let site = visitor(&operator, DUE).await;
    site.send(site.jar.request(), NOTHING).await;
    let changed = site.send(with(&site, &[("if-none-match", "x")]), NOTHING).await;
    assert_eq!(outcome(&changed), expect("active(new)", "identity set"));
    let not_modified = site
        .send(with(&site, &[("if-none-match", "x")]), |_, response| *response.status_mut() = StatusCode::NOT_MODIFIED);
    assert_eq!(outcome(&not_modified.await), expect("active(new)", ""));
}

/// The outcome of a request of `method` and how long it takes, where the handler takes 300 ms and the operator 200 ms.
async fn slow(method: Method, millis: i64, update: Option<fn() -> EuidUpdate>) -> ((String, String), Duration) {
    use std::sync::{Arc, Mutex};
    use tower::{Layer, ServiceExt, service_fn};

    let site = visitor(&Operator::answering(new_pair("new")).after(Duration::from_millis(200)), millis).await;
    let saw = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&saw);
    let page = service_fn(move |request: Request<()>| {
        let euid = request.extensions().get::<Euid>().cloned().unwrap_or_default();
        if let Ok(mut seen) = seen.lock() {
            *seen = euid.advertising_token().map_or(euid.state().to_owned(), |token| format!("active({token})"));
        }
        async move {
            sleep(Duration::from_millis(300)).await;
            let mut response = Response::new(());
            if let Some(update) = update {
                update().attach(&mut response);
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let start = Instant::now();
    let Ok(response) = site.layer.layer(page).oneshot(of_method(&site, method)).await;
    let saw = saw.lock().map(|saw| saw.clone()).unwrap_or_default();
    ((saw, crate::support::writes(response.headers())), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn unsafe_request_waits_for_no_refresh_and_brings_its_outcome() {
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        for (millis, saw) in [(DUE, "active(old)"), (EXPIRED, "unavailable")] {
            let (outcome, took) = slow(method.clone(), millis, None).await;
            assert_eq!((outcome, took), (expect(saw, "identity set"), Duration::from_millis(300)), "{method}");
        }
    }
    let (outcome, took) = slow(Method::GET, DUE, None).await;
    assert_eq!((outcome, took), (expect("active(new)", "identity set"), Duration::from_millis(500)));
}

#[tokio::test(start_paused = true)]
async fn login_and_logout_beat_the_refresh_that_ran_beside_their_handler() {
    let login: fn() -> EuidUpdate =
        || EuidUpdate::login(identity_until("another", [EXPIRED, REFRESH_EXPIRES, REFRESH_EXPIRES]));
    for (update, writes) in [(EuidUpdate::logout as fn() -> _, BOTH_CLEARED), (login, BOTH_SET)] {
        for (millis, saw) in [(DUE, "active(old)"), (EXPIRED, "unavailable")] {
            let (outcome, took) = slow(Method::POST, millis, Some(update)).await;
            assert_eq!((outcome, took), (expect(saw, writes), Duration::from_millis(300)));
        }
    }
}

#[tokio::test]
async fn token_for_scripts_is_not_put_right_beside_a_websocket() {
    let mut site = Site::offline().configured(|layer| layer.cookie(CookieConfig::default().expose_token_to_scripts()));
    site.login("old").await;
    site.jar = site.jar.without(SCRIPT_TOKEN);
    let websocket = with(&site, &[("connection", "Upgrade"), ("upgrade", "websocket")]);
    assert_eq!(site.send(websocket, NOTHING).await.writes(), "");
    assert_eq!(site.look().await.writes(), "token set");
}
