//! `EuidLogoutHandle`: said before the response is made, it reaches the browser with whatever response passes
//! the layer in the end.
//!
//! The layer between is a `map_response` that puts another response in the handler's place, as a
//! timeout or a panic handler does; `tests/layer/axum.rs` has the real ones.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::convert::Infallible;
use std::future::{Future, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_euid::{AdvertisingToken, Consent, Euid, EuidLayer, EuidLogoutHandle, EuidUpdate, RefreshMode, Refreshed};

use crate::support::{
    ANCHOR, BOTH_CLEARED, BOTH_SET, DUE, EXPIRED, IDENTITY, Jar, Operator, REFRESH_EXPIRES, Site, identity, new_pair,
    writes,
};

/// What a handler was given to log out with.
fn logout_of(request: &Request<()>) -> EuidLogoutHandle {
    EuidLogoutHandle::of(request.extensions()).unwrap()
}

/// What the browser is told if the handler logs out, and a layer between throws its response away.
async fn thrown_away(layer: &EuidLayer, request: Request<()>) -> String {
    let handler = service_fn(|request: Request<()>| {
        logout_of(&request).logout();
        let mut response = Response::new(());
        EuidUpdate::login(identity("of-the-handler")).attach(&mut response);
        ready(Ok::<_, Infallible>(response))
    });
    let another = handler.map_response(|_| Response::new(()));
    let Ok(response) = layer.layer(another).oneshot(request).await;
    writes(response.headers())
}

fn posted(mut request: Request<()>) -> Request<()> {
    *request.method_mut() = Method::POST;
    request
}

async fn logged_in(operator: Operator) -> Site {
    let mut site = Site::new(operator);
    site.login("old").await;
    site
}

/// A browser in every state that there is, with its site.
async fn every_state() -> Vec<(&'static str, Site)> {
    let at = |site: Site, millis| {
        site.wait_until(millis);
        site
    };
    let mut recorded = at(logged_in(Operator::answering(Ok(Refreshed::OptedOut))).await, DUE);
    recorded.look().await;
    let mut stated = Site::offline();
    stated.update(EuidUpdate::opt_out()).await;
    let active = logged_in(Operator::never()).await;
    let foreign = Site { jar: active.jar.clone(), ..Site::offline() };
    let orphan = Site { jar: active.jar.clone().without(ANCHOR), ..active.clone() };
    let anchor_only = Site { jar: active.jar.clone().without(IDENTITY), ..active.clone() };
    let garbage = Site { jar: Jar::default().with(IDENTITY, "garbage"), ..Site::offline() };
    let with_consent = |consent: Consent| active.clone().configured(|layer| layer.consent(move |_| consent));
    vec![
        ("withheld", with_consent(Consent::Withheld)),
        ("withdrawn", with_consent(Consent::Withdrawn)),
        ("active", active),
        ("due", at(logged_in(Operator::never()).await, DUE)),
        ("refreshed", at(logged_in(Operator::answering(new_pair("new"))).await, DUE)),
        ("expired", at(logged_in(Operator::never()).await, EXPIRED)),
        ("over", at(logged_in(Operator::never()).await, REFRESH_EXPIRES)),
        ("opted out, found by a refresh", recorded),
        ("opted out, stated", stated),
        ("unknown key", foreign),
        ("identity without anchor", orphan),
        ("anchor without identity", anchor_only),
        ("garbage", garbage),
    ]
}

#[tokio::test(start_paused = true)]
async fn in_every_state_the_browser_is_told_though_the_handlers_response_is_thrown_away() {
    for (state, site) in every_state().await {
        for request in [site.jar.request(), posted(site.jar.request())] {
            assert_eq!(thrown_away(&site.layer, request).await, BOTH_CLEARED, "{state}");
        }
    }
}

#[tokio::test]
async fn without_cookies_a_post_logs_out_and_a_get_has_nothing_to_end() {
    let site = Site::offline();
    assert_eq!(thrown_away(&site.layer, posted(Request::new(()))).await, BOTH_CLEARED);
    for method in [Method::GET, Method::HEAD] {
        let mut request = Request::new(());
        *request.method_mut() = method;
        assert_eq!(thrown_away(&site.layer, request).await, "");
    }
}

#[tokio::test]
async fn an_error_response_of_the_handler_carries_it() {
    let site = logged_in(Operator::never()).await;
    let failing = service_fn(|request: Request<()>| {
        logout_of(&request).logout();
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        ready(Ok::<_, Infallible>(response))
    });
    let Ok(response) = site.layer.layer(failing).oneshot(site.jar.request()).await;
    assert_eq!((response.status().as_u16(), writes(response.headers())), (500, BOTH_CLEARED.to_owned()));
    assert_eq!(response.headers()["cache-control"], "private, no-store");
}

#[tokio::test]
async fn an_error_of_the_service_passes_with_nothing_written() {
    let site = logged_in(Operator::never()).await;
    let failing = service_fn(|request: Request<()>| {
        logout_of(&request).logout();
        ready(Err::<Response<()>, _>("the service's own"))
    });
    assert_eq!(site.layer.layer(failing).oneshot(site.jar.request()).await.unwrap_err(), "the service's own");
}

#[tokio::test]
async fn it_beats_a_login_that_a_layer_between_attaches() {
    for jar in [Jar::default(), logged_in(Operator::never()).await.jar] {
        let site = Site::offline();
        let handler = service_fn(|request: Request<()>| {
            logout_of(&request).logout();
            ready(Ok::<_, Infallible>(Response::new(())))
        });
        let between = handler.map_response(|mut response| {
            EuidUpdate::login(identity("another")).attach(&mut response);
            response
        });
        let Ok(response) = site.layer.layer(between).oneshot(posted(jar.request())).await;
        assert_eq!(writes(response.headers()), BOTH_CLEARED);
    }
}

#[tokio::test]
async fn inside_two_layers_it_reaches_the_outer_one() {
    let outer = logged_in(Operator::answering(new_pair("new"))).await;
    for inner in [&outer.layer, &Site::offline().layer] {
        for millis in [0, DUE] {
            outer.wait_until(millis);
            let handler = service_fn(|request: Request<()>| {
                logout_of(&request).logout();
                ready(Ok::<_, Infallible>(Response::new(())))
            });
            let nested = outer.layer.layer(inner.layer(handler).map_response(|_| Response::new(())));
            let Ok(response) = nested.oneshot(outer.jar.request()).await;
            assert_eq!(writes(response.headers()), BOTH_CLEARED);
        }
    }
}

/// What a page comes to that is called after, or beside, a refresh of 200 ms and takes 300 ms itself.
async fn refreshing(mode: RefreshMode, logout: bool) -> String {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(200));
    let site = logged_in(operator).await.configured(|layer| layer.refresh_mode(mode));
    site.wait_until(DUE);
    let slow = service_fn(move |request: Request<()>| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if logout {
            logout_of(&request).logout();
        }
        Ok::<_, Infallible>(Response::new(()))
    });
    let Ok(response) = site.layer.layer(slow).oneshot(site.jar.request()).await;
    writes(response.headers())
}

#[tokio::test(start_paused = true)]
async fn it_beats_the_pair_that_a_refresh_before_or_beside_the_page_has_brought() {
    for mode in [RefreshMode::Blocking, RefreshMode::Concurrent] {
        assert_eq!(refreshing(mode, false).await, "identity set", "{mode:?}");
        assert_eq!(refreshing(mode, true).await, BOTH_CLEARED, "{mode:?}");
    }
}

/// The response to a page that does this with its request.
async fn page<F>(site: &Site, page: impl Fn(Request<()>) -> F + Clone) -> Response<()>
where
    F: Future<Output = ()>,
{
    let service = service_fn(|request| {
        let page = page(request);
        async {
            page.await;
            Ok::<_, Infallible>(Response::new(()))
        }
    });
    let Ok(response) = site.layer.layer(service).oneshot(site.jar.request()).await;
    response
}

#[tokio::test]
async fn a_page_that_may_log_out_and_does_not_is_as_any_other() {
    let site = logged_in(Operator::never()).await;
    let response = page(&site, |request| {
        let _unused = logout_of(&request);
        ready(())
    });
    assert!(response.await.headers().is_empty());
}

#[tokio::test]
async fn a_token_taken_out_and_read_is_still_noticed_beside_it() {
    let site = logged_in(Operator::never()).await;
    let response = page(&site, |mut request: Request<()>| {
        let logout = logout_of(&request);
        let token: AdvertisingToken = request.extensions_mut().remove().unwrap();
        request.extensions_mut().clear();
        drop((request, logout));
        assert_eq!(token.clone().as_str(), "old");
        ready(())
    });
    assert_eq!(response.await.headers()["cache-control"], "private, no-cache");
}

#[tokio::test]
async fn it_can_be_said_from_another_task_and_from_a_layer_that_the_response_passes() {
    let site = logged_in(Operator::never()).await;
    let spawned = page(&site, |request| async move {
        let logout = logout_of(&request);
        tokio::spawn(async move { logout.logout() }).await.unwrap();
    });
    assert_eq!(writes(spawned.await.headers()), BOTH_CLEARED);

    let inner = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(()))));
    let between = service_fn(move |request: Request<()>| async move {
        let logout = logout_of(&request);
        let response = inner.oneshot(request).await;
        logout.logout();
        response
    });
    let Ok(response) = site.layer.layer(between).oneshot(site.jar.request()).await;
    assert_eq!(writes(response.headers()), BOTH_CLEARED);
}

#[tokio::test]
async fn said_too_late_it_ends_no_other_request() {
    let mut site = logged_in(Operator::never()).await;
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    page(&site, move |request| {
        *keep.lock().unwrap() = Some(logout_of(&request));
        ready(())
    })
    .await;
    kept.lock().unwrap().take().unwrap().logout();
    let next = site.look().await;
    assert_eq!((next.saw(), next.writes()), ("active(old)".to_owned(), String::new()));
    assert_eq!(site.login("another").await.writes(), BOTH_SET);
}

#[tokio::test]
async fn without_the_layer_there_is_none() {
    let mut request = Request::new(());
    assert!(EuidLogoutHandle::of(request.extensions()).is_none());
    request.extensions_mut().insert(Euid::Absent);
    EuidLogoutHandle::of(request.extensions()).unwrap().logout();
}

#[tokio::test]
async fn a_service_that_is_used_again_logs_out_the_one_visitor_only() {
    let (one, other) = (logged_in(Operator::never()).await, Site::offline());
    let handler = service_fn(|request: Request<()>| {
        if *request.method() == Method::POST {
            logout_of(&request).logout();
        }
        ready(Ok::<_, Infallible>(Response::new(())))
    });
    let mut service = one.layer.layer(handler);
    for (request, expected) in [
        (posted(one.jar.request()), BOTH_CLEARED),
        (one.jar.request(), ""),
        (posted(other.jar.request()), BOTH_CLEARED),
        (other.jar.request(), ""),
    ] {
        let Ok(response) = service.ready().await.unwrap().call(request).await;
        assert_eq!(writes(response.headers()), expected);
    }
}
