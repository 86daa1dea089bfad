//! `EuidLogoutHandle`: a handler logs the visitor out before its response exists. The logout counts for any response
//! that reaches the layer.
//!
//! A `map_response` between the handler and the layer replaces the handler's response, as a timeout or a panic handler
//! does. `axum.rs` has the real ones.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::convert::Infallible;
use std::future::{Future, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_euid::{AdvertisingToken, Consent, Euid, EuidLayer, EuidLogoutHandle, EuidUpdate, RefreshMode, Refreshed};

use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, Jar, LOGIN_REMOVED, LOGIN_REPLACED, Operator, REFRESH_EXPIRES, Site, expect,
    identity, new_pair, outcome, with_method, writes,
};

fn logout_of(request: &Request<()>) -> EuidLogoutHandle {
    EuidLogoutHandle::of(request.extensions()).unwrap()
}

fn post(request: Request<()>) -> Request<()> {
    with_method(request, Method::POST)
}

/// A handler that logs out.
fn logging_out()
-> impl Service<Request<()>, Response = Response<()>, Error = Infallible, Future: Send> + Clone + Send + 'static {
    service_fn(|request: Request<()>| {
        logout_of(&request).logout();
        ready(Ok(Response::new(())))
    })
}

/// Returns the cookies written by `layer` if the handler logs out and a layer between replaces its response.
async fn written_without_the_response(layer: &EuidLayer, request: Request<()>) -> String {
    let handler = logging_out().map_response(|mut response| {
        EuidUpdate::login(identity("of-the-handler")).attach(&mut response);
        response
    });
    let replaced = handler.map_response(|_| Response::new(()));
    let Ok(response) = layer.layer(replaced).oneshot(request).await;
    writes(response.headers())
}

/// Returns a site with a browser in each possible state, and what a logout removes there: the anchor, and what came.
async fn every_state() -> Vec<(&'static str, Site, &'static str)> {
    let mut opted_out_by_refresh = Site::new(Operator::answering(Ok(Refreshed::OptedOut))).logged_in(DUE).await;
    opted_out_by_refresh.look().await;
    let mut opted_out_by_site = Site::offline();
    opted_out_by_site.update(EuidUpdate::opt_out()).await;
    let active = Site::offline().logged_in(0).await;
    let foreign = Site { jar: active.jar.clone(), ..Site::offline() };
    let orphan = Site { jar: active.jar.clone().without(ANCHOR), ..active.clone() };
    let anchor_only = Site { jar: active.jar.clone().without(IDENTITY), ..active.clone() };
    let garbage = Site { jar: Jar::default().with(format!("{IDENTITY}abcd"), "garbage"), ..Site::offline() };
    let with_consent = |consent: Consent| active.clone().configured(|layer| layer.consent(move |_| consent));
    vec![
        ("withheld", with_consent(Consent::Withheld), LOGIN_REMOVED),
        ("withdrawn", with_consent(Consent::Withdrawn), LOGIN_REMOVED),
        ("active", active, LOGIN_REMOVED),
        ("due", Site::unanswered().logged_in(DUE).await, LOGIN_REMOVED),
        ("refreshed", Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await, LOGIN_REMOVED),
        ("expired", Site::unanswered().logged_in(EXPIRED).await, LOGIN_REMOVED),
        ("refresh token expired", Site::offline().logged_in(REFRESH_EXPIRES).await, LOGIN_REMOVED),
        ("opt-out found by a refresh", opted_out_by_refresh, "anchor cleared, opt-out cleared"),
        ("opt-out by the site", opted_out_by_site, "anchor cleared, opt-out cleared"),
        ("unknown key", foreign, LOGIN_REMOVED),
        ("identity without anchor", orphan, LOGIN_REMOVED),
        ("anchor without identity", anchor_only, "anchor cleared"),
        ("garbage", garbage, LOGIN_REMOVED),
    ]
}

#[tokio::test(start_paused = true)]
async fn logout_handle_clears_in_every_state_though_the_response_is_replaced() {
    for (state, site, expected) in every_state().await {
        for request in [site.jar.request(), post(site.jar.request())] {
            assert_eq!(written_without_the_response(&site.layer, request).await, expected, "{state}");
        }
    }
}

#[tokio::test]
async fn logout_handle_without_cookies_clears_on_post_and_not_on_get() {
    let site = Site::offline();
    assert_eq!(written_without_the_response(&site.layer, post(Request::new(()))).await, "anchor cleared");
    for method in [Method::GET, Method::HEAD] {
        let request = with_method(Request::new(()), method);
        assert_eq!(written_without_the_response(&site.layer, request).await, "");
    }
}

#[tokio::test]
async fn logout_handle_clears_on_an_error_response_that_is_not_stored() {
    let site = Site::offline().logged_in(0).await;
    let failing = logging_out().map_response(|mut response| {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    });
    let Ok(response) = site.layer.layer(failing).oneshot(site.jar.request()).await;
    assert_eq!((response.status().as_u16(), writes(response.headers())), (500, LOGIN_REMOVED.to_owned()));
    assert_eq!(response.headers()["cache-control"], "private, no-store");
}

#[tokio::test]
async fn logout_handle_leaves_an_error_of_the_service_unchanged() {
    let site = Site::offline().logged_in(0).await;
    let failing = service_fn(|request: Request<()>| {
        logout_of(&request).logout();
        ready(Err::<Response<()>, _>("the error of the service"))
    });
    let error = site.layer.layer(failing).oneshot(site.jar.request()).await.unwrap_err();
    assert_eq!(error, "the error of the service");
}

#[tokio::test]
async fn logout_handle_overrides_a_login_that_a_layer_between_attaches() {
    for (jar, expected) in [(Jar::default(), "anchor cleared"), (Site::offline().logged_in(0).await.jar, LOGIN_REMOVED)]
    {
        let between = logging_out().map_response(|mut response| {
            EuidUpdate::login(identity("another")).attach(&mut response);
            response
        });
        let Ok(response) = Site::offline().layer.layer(between).oneshot(post(jar.request())).await;
        assert_eq!(writes(response.headers()), expected);
    }
}

#[tokio::test]
async fn logout_handle_inside_two_layers_reaches_the_outer_one() {
    let outer = Site::new(Operator::answering(new_pair("new"))).logged_in(0).await;
    for inner in [&outer.layer, &Site::offline().layer] {
        for millis in [0, DUE] {
            outer.wait_until(millis);
            let replaced = inner.layer(logging_out()).map_response(|_| Response::new(()));
            let Ok(response) = outer.layer.layer(replaced).oneshot(outer.jar.request()).await;
            assert_eq!(writes(response.headers()), LOGIN_REMOVED);
        }
    }
}

/// Returns the cookies written for a handler of 300 ms, before or during which a refresh of 200 ms ends.
async fn written_after_a_refresh(mode: RefreshMode, logout: bool) -> String {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(200));
    let site = Site::new(operator).logged_in(DUE).await.configured(|layer| layer.refresh_mode(mode));
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
async fn logout_handle_overrides_the_pair_of_a_blocking_or_concurrent_refresh() {
    for mode in [RefreshMode::Blocking, RefreshMode::Concurrent] {
        assert_eq!(written_after_a_refresh(mode, false).await, "identity set", "{mode:?}");
        assert_eq!(written_after_a_refresh(mode, true).await, LOGIN_REMOVED, "{mode:?}");
    }
}

/// Returns the response to a request that `handler` has used.
async fn response_after<F>(site: &Site, handler: impl Fn(Request<()>) -> F + Clone) -> Response<()>
where
    F: Future<Output = ()>,
{
    let service = service_fn(|request| {
        let used = handler(request);
        async {
            used.await;
            Ok::<_, Infallible>(Response::new(()))
        }
    });
    let Ok(response) = site.layer.layer(service).oneshot(site.jar.request()).await;
    response
}

#[tokio::test]
async fn logout_handle_that_is_not_used_changes_no_header() {
    let site = Site::offline().logged_in(0).await;
    let response = response_after(&site, |request| {
        let _unused = logout_of(&request);
        ready(())
    });
    assert!(response.await.headers().is_empty());
}

#[tokio::test]
async fn token_removed_from_the_extensions_and_read_still_makes_the_response_private() {
    let site = Site::offline().logged_in(0).await;
    let response = response_after(&site, |mut request: Request<()>| {
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
async fn logout_handle_works_in_another_task_and_in_a_layer_between() {
    let site = Site::offline().logged_in(0).await;
    let spawned = response_after(&site, |request| async move {
        let logout = logout_of(&request);
        tokio::spawn(async move { logout.logout() }).await.unwrap();
    });
    assert_eq!(writes(spawned.await.headers()), LOGIN_REMOVED);

    let inner = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(()))));
    let between = service_fn(move |request: Request<()>| async move {
        let logout = logout_of(&request);
        let response = inner.oneshot(request).await;
        logout.logout();
        response
    });
    let Ok(response) = site.layer.layer(between).oneshot(site.jar.request()).await;
    assert_eq!(writes(response.headers()), LOGIN_REMOVED);
}

#[tokio::test]
async fn logout_handle_used_after_its_response_affects_no_later_request() {
    let mut site = Site::offline().logged_in(0).await;
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    response_after(&site, move |request| {
        *keep.lock().unwrap() = Some(logout_of(&request));
        ready(())
    })
    .await;
    kept.lock().unwrap().take().unwrap().logout();
    assert_eq!(outcome(&site.look().await), expect("active(old)", ""));
    assert_eq!(site.login("another").await.writes(), LOGIN_REPLACED);
}

#[test]
fn logout_handle_is_missing_without_the_layer() {
    let mut request = Request::new(());
    assert!(EuidLogoutHandle::of(request.extensions()).is_none());
    request.extensions_mut().insert(Euid::Absent);
    EuidLogoutHandle::of(request.extensions()).unwrap().logout();
}

#[tokio::test]
async fn logout_handle_of_one_request_does_not_affect_others_of_the_same_service() {
    let (visitor, stranger) = (Site::offline().logged_in(0).await, Site::offline());
    let handler = service_fn(|request: Request<()>| {
        if *request.method() == Method::POST {
            logout_of(&request).logout();
        }
        ready(Ok::<_, Infallible>(Response::new(())))
    });
    let mut service = visitor.layer.layer(handler);
    for (request, expected) in [
        (post(visitor.jar.request()), LOGIN_REMOVED),
        (visitor.jar.request(), ""),
        (post(stranger.jar.request()), "anchor cleared"),
        (stranger.jar.request(), ""),
    ] {
        let Ok(response) = service.ready().await.unwrap().call(request).await;
        assert_eq!(writes(response.headers()), expected);
    }
}
