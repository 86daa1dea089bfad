//! Requests: which of them cause a refresh, which wait for one, and which responses write its outcome.

#![expect(clippy::disallowed_methods, reason = "measures tokio's paused time")]

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;
use tower_euid::error::ErrorKind;
use tower_euid::{Consent, EuidUpdate, Refreshed};

use crate::support::{
    DUE, EXPIRED, IDENTITY, LOGIN_REMOVED, LOGIN_REPLACED, NOTHING, Operator, REFRESH_EXPIRES, Site, Visit, expect,
    failure, identity_until, new_pair, outcome,
};

const IMAGE: [(&str, &str); 1] = [("sec-fetch-dest", "image")];
const CONDITIONAL: [(&str, &str); 1] = [("if-none-match", "x")];

/// Returns an update that logs another person in.
fn login_of_another() -> EuidUpdate {
    EuidUpdate::login(identity_until("another", [EXPIRED, REFRESH_EXPIRES, REFRESH_EXPIRES]))
}

#[tokio::test]
async fn requests_that_show_no_page_cause_no_refresh() {
    let operator = Operator::answering(new_pair("new"));
    let site = Site::new(operator.clone()).logged_in(DUE).await;
    for headers in [
        &[("connection", "Upgrade"), ("upgrade", "websocket")][..],
        &[("sec-purpose", "prefetch;prerender")],
        &[("purpose", "prefetch")],
        &[("x-sec-purpose", "prefetch")],
        &[("x-moz", "prefetch")],
        &[("next-router-prefetch", "1")],
        &[("sec-fetch-dest", "image")],
        &[("sec-fetch-dest", "video")],
    ] {
        let visit = site.send(site.jar.request_with(headers), NOTHING).await;
        assert_eq!(outcome(&visit), expect("active(old)", ""), "{headers:?}");
    }
    for method in [Method::OPTIONS, Method::CONNECT] {
        let visit = site.send(site.jar.request_of(method.clone()), NOTHING).await;
        assert_eq!(outcome(&visit), expect("active(old)", ""), "{method}");
    }
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn upgrade_headers_other_than_a_websocket_handshake_do_not_prevent_a_refresh() {
    for headers in [
        &[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")][..],
        &[("upgrade", "websocket")],
    ] {
        let site = Site::new(Operator::answering(new_pair("new"))).logged_in(EXPIRED).await;
        let visit = site.send(site.jar.request_with(headers), NOTHING).await;
        assert_eq!(outcome(&visit), expect("active(new)", "identity set"), "{headers:?}");
    }
}

#[tokio::test]
async fn requests_that_show_no_page_see_the_refresh_of_another_request_and_do_not_write_it() {
    for (answer, saw) in [
        (new_pair("new"), "active(new)"),
        (Ok(Refreshed::OptedOut), "opted_out"),
        (failure(ErrorKind::RejectedToken), "absent"),
    ] {
        let operator = Operator::answering(answer);
        let site = Site::new(operator.clone()).logged_in(DUE).await;
        site.look_once().await;
        for header in [
            ("sec-fetch-dest", "image"),
            ("sec-fetch-dest", "audio"),
            ("sec-fetch-dest", "script"),
            ("purpose", "prefetch"),
        ] {
            let visit = site.send(site.jar.request_with(&[header]), NOTHING).await;
            assert_eq!(outcome(&visit), expect(saw, ""), "{header:?}");
            assert!(visit.response.headers().is_empty(), "{header:?}");
        }
        assert_eq!(operator.calls(), 1);
    }
}

#[tokio::test]
async fn refresh_when_excludes_requests_from_refreshing() {
    let site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    let site = site.configured(|layer| layer.refresh_when(|request| request.uri.path() != "/beacon"));
    let mut beacon = site.jar.request();
    *beacon.uri_mut() = "/beacon".parse().unwrap();
    assert_eq!(site.send(beacon, NOTHING).await.saw(), "active(old)");
    assert_eq!(site.look_once().await.saw(), "active(new)");
}

#[tokio::test]
async fn refresh_when_excludes_requests_from_writing_the_refresh_of_another_request() {
    let site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    let site = site.configured(|layer| layer.refresh_when(|request| request.method == Method::GET));
    site.look_once().await;
    let visit = site.send(site.jar.request_of(Method::HEAD), NOTHING).await;
    assert_eq!(outcome(&visit), expect("active(new)", ""));
}

#[tokio::test]
async fn image_request_does_not_clear_an_identity_that_is_not_accepted() {
    let mut site = Site::offline().logged_in(0).await;
    let value = site.jar.value(IDENTITY).unwrap().to_owned();
    site.jar.put(IDENTITY, &value.replace(&value[60..64], "AAAA"));
    let image = site.send(site.jar.request_with(&IMAGE), NOTHING).await;
    assert_eq!(outcome(&image), expect("absent", ""));
    assert_eq!(outcome(&site.look_once().await), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn image_request_writes_the_update_of_its_handler_and_a_withdrawn_consent() {
    let site = Site::offline().logged_in(0).await;
    for (update, writes) in [(EuidUpdate::logout(), LOGIN_REMOVED), (login_of_another(), LOGIN_REPLACED)] {
        let image = site.jar.request_with(&IMAGE);
        let visit = site.send(image, move |_, response| update.clone().attach(response)).await;
        assert_eq!(visit.writes(), writes);
    }
    let withdrawn = site.configured(|layer| layer.consent(|_| Consent::Withdrawn));
    assert_eq!(withdrawn.send(withdrawn.jar.request_with(&IMAGE), NOTHING).await.writes(), LOGIN_REMOVED);
}

#[tokio::test]
async fn conditional_request_causes_no_refresh_while_its_token_is_valid() {
    for name in ["if-none-match", "if-modified-since"] {
        for method in [Method::GET, Method::HEAD] {
            let operator = Operator::answering(new_pair("new"));
            let site = Site::new(operator.clone()).logged_in(DUE).await;
            let mut request = site.jar.request_with(&[(name, "x")]);
            *request.method_mut() = method;
            let visit = site.send(request, NOTHING).await;
            assert_eq!((outcome(&visit), operator.calls()), (expect("active(old)", ""), 0), "{name}");
        }
    }
}

#[tokio::test]
async fn conditional_request_refreshes_an_expired_token() {
    let operator = Operator::answering(new_pair("new"));
    let site = Site::new(operator.clone()).logged_in(EXPIRED).await;
    let visit = site.send(site.jar.request_with(&CONDITIONAL), NOTHING).await;
    assert_eq!((outcome(&visit), operator.calls()), (expect("active(new)", "identity set"), 1));
}

#[tokio::test]
async fn conditional_request_writes_the_refresh_of_another_request_unless_not_modified() {
    let site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    site.look_once().await;
    let conditional = || site.jar.request_with(&CONDITIONAL);
    let modified = site.send(conditional(), NOTHING).await;
    assert_eq!(outcome(&modified), expect("active(new)", "identity set"));
    let not_modified = site.send(conditional(), |_, response| *response.status_mut() = StatusCode::NOT_MODIFIED).await;
    assert_eq!(outcome(&not_modified), expect("active(new)", ""));
}

/// Sends a request to a handler that takes 300 ms while the operator takes 200 ms. Returns how long the request took.
async fn slow_request(method: Method, millis: i64, update: Option<fn() -> EuidUpdate>) -> (Visit, Duration) {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(200));
    let site = Site::new(operator).logged_in(millis).await;
    let handler = move |_: &_, response: &mut _| {
        if let Some(update) = update {
            update().attach(response);
        }
    };
    let start = Instant::now();
    let visit = site.send_slowly(site.jar.request_of(method), Duration::from_millis(300), handler).await;
    (visit, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn unsafe_request_does_not_wait_for_its_refresh_and_its_response_writes_the_outcome() {
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        for (millis, saw) in [(DUE, "active(old)"), (EXPIRED, "unavailable")] {
            let (visit, took) = slow_request(method.clone(), millis, None).await;
            let expected = (expect(saw, "identity set"), Duration::from_millis(300));
            assert_eq!((outcome(&visit), took), expected, "{method}");
        }
    }
    let (visit, took) = slow_request(Method::GET, DUE, None).await;
    assert_eq!((outcome(&visit), took), (expect("active(new)", "identity set"), Duration::from_millis(500)));
}

#[tokio::test(start_paused = true)]
async fn login_and_logout_of_an_unsafe_request_have_precedence_over_its_refresh() {
    for (update, writes) in [(EuidUpdate::logout as fn() -> _, LOGIN_REMOVED), (login_of_another, LOGIN_REPLACED)] {
        for (millis, saw) in [(DUE, "active(old)"), (EXPIRED, "unavailable")] {
            let (visit, took) = slow_request(Method::POST, millis, Some(update)).await;
            assert_eq!((outcome(&visit), took), (expect(saw, writes), Duration::from_millis(300)));
        }
    }
}

#[tokio::test]
#[should_panic(expected = "a site that must make no call has made 1")]
async fn site_that_must_make_no_call_fails_its_test_even_if_no_response_waits_for_the_call() {
    let site = Site::offline().logged_in(DUE).await;
    site.send(site.jar.request_of(Method::POST), NOTHING).await;
}
