//! `ResponseFuture`: a request waits for its refresh and then for its handler; either may end early.
//!
//! 1. A refresh goes on if the request that started it is dropped or has waited long enough.
//! 2. A refresh that breaks or takes too long never costs a request its valid token.
//!
//! Time is tokio's paused time. `runtime.rs` has the tests without a usual runtime.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Method, Request, Response};
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_euid::{EuidError, EuidLayer, EuidUpdate, Identity, Refresh, Refreshed, ResponseFuture, refresh_fn};

use crate::support::{
    DUE, EXPIRED, IDENTITY, Jar, NOTHING, Operator, Seen, Site, Visit, expect, new_pair, outcome, page, with_method,
};

/// Starts a request to a page. The future is ready to be polled.
pub(crate) fn start(site: &Site) -> impl Future<Output = Visit> + Send + use<> {
    let seen = Seen::default();
    let mut service = site.layer.layer(page(Arc::clone(&seen), NOTHING));
    assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
    let response = service.call(site.jar.request());
    async move {
        let response = response.await.unwrap();
        Visit::of(&seen, response)
    }
}

async fn is_ready<F: Future>(mut future: Pin<&mut F>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

/// A service whose future is `WORDS` words large.
#[derive(Clone, Debug)]
struct Sized<const WORDS: usize>;

#[derive(Debug)]
struct SizedFuture<const WORDS: usize> {
    _words: [u64; WORDS],
}

impl<B, const WORDS: usize> Service<Request<B>> for Sized<WORDS> {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = SizedFuture<WORDS>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        SizedFuture { _words: [0; WORDS] }
    }
}

impl<const WORDS: usize> Future for SizedFuture<WORDS> {
    type Output = Result<Response<()>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(Response::new(())))
    }
}

/// Returns by how many bytes the layer's future is larger than the inner one.
fn added_bytes<const WORDS: usize>() -> usize {
    size_of::<ResponseFuture<Sized<WORDS>, [u8; 1000]>>() - size_of::<SizedFuture<WORDS>>()
}

#[test]
fn future_is_at_most_16_bytes_larger_than_the_inner_one() {
    let added = [added_bytes::<0>(), added_bytes::<1>(), added_bytes::<8>(), added_bytes::<25>(), added_bytes::<125>()];
    assert!(added.iter().all(|bytes| *bytes <= 16), "{added:?}");
}

#[tokio::test]
async fn future_needs_no_box_if_no_change_of_the_cookies_is_planned() {
    let site = Site::offline().logged_in(0).await;
    let mut opted_out = site.clone();
    opted_out.update(EuidUpdate::opt_out()).await;
    let mut found = Site::new(Operator::answering(Ok(Refreshed::OptedOut))).logged_in(DUE).await;
    found.look().await;
    let cookieless = Site { jar: Jar::default(), ..site.clone() };
    let anchor_alone = Site { jar: site.jar.clone().without(IDENTITY), ..site.clone() };
    let unknown_key = Site { jar: site.jar.clone(), ..Site::offline() };
    for (state, site) in [
        ("no cookie", cookieless),
        ("fresh", site),
        ("anchor alone", anchor_alone),
        ("opt-out by the site", opted_out),
        ("opt-out found by a refresh", found),
        ("unknown key", unknown_key),
    ] {
        for method in [Method::GET, Method::POST, Method::PUT] {
            let page = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
            let request = with_method(site.jar.request(), method.clone());
            let mut future = Box::pin(site.layer.layer(page).call(request));
            assert_eq!(format!("{future:?}"), "ResponseFuture(\"Hot\")", "{state} {method}");
            assert!(is_ready(future.as_mut()).await);
        }
    }
}

#[tokio::test]
async fn debug_of_the_future_shows_its_state_alone() {
    let site = Site::unanswered().logged_in(DUE).await;
    let page = site.layer.layer(service_fn(async |_: Request<()>| Ok::<_, &str>(Response::new(()))));
    let refreshing = page.clone().call(site.jar.request());
    let hot = page.clone().call(Request::new(()));
    let shown = format!("{refreshing:?} {hot:?}");
    assert_eq!(shown, "ResponseFuture(\"Refreshing\") ResponseFuture(\"Hot\")");
    assert!(page.ready_oneshot().await.is_ok());
}

/// Returns an operator that answers after 100 ms, and a site whose refresh is due.
async fn slow_refresh() -> (Operator, Site) {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(100));
    let site = Site::new(operator.clone()).logged_in(DUE).await;
    (operator, site)
}

#[tokio::test(start_paused = true)]
async fn refresh_goes_on_if_its_request_is_dropped() {
    let (operator, site) = slow_refresh().await;
    let mut request = Box::pin(start(&site));
    assert!(!is_ready(request.as_mut()).await);
    drop(request);
    sleep(Duration::from_millis(200)).await;
    assert_eq!((operator.calls(), operator.answered(), operator.given_up()), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn refresh_goes_on_if_its_request_is_dropped_before_the_first_poll() {
    let (operator, site) = slow_refresh().await;
    drop(start(&site));
    sleep(Duration::from_millis(200)).await;
    assert_eq!((operator.calls(), operator.answered()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn refresh_goes_on_after_its_request_has_waited_for_max_wait() {
    let late = EuidLayer::DEFAULT_MAX_WAIT * 2;
    let operator = Operator::answering(new_pair("new")).after(late);
    let mut site = Site::new(operator.clone()).logged_in(DUE).await;
    site.look().await;
    assert_eq!(operator.answered(), 0);
    sleep(late).await;
    assert_eq!((operator.calls(), operator.answered(), operator.given_up()), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn handler_is_dropped_with_its_request() {
    struct Handler(Arc<AtomicUsize>);
    impl Drop for Handler {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    for millis in [0, DUE] {
        let site = Site::new(Operator::answering(new_pair("new"))).logged_in(millis).await;
        let dropped = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&dropped);
        let slow = service_fn(move |_: Request<()>| {
            let handler = Handler(Arc::clone(&counter));
            async move {
                let _running = handler;
                pending::<Result<Response<()>, &str>>().await
            }
        });
        let request = site.layer.layer(slow).oneshot(site.jar.request());
        assert!(timeout(Duration::from_secs(1), request).await.is_err());
        assert_eq!(dropped.load(Ordering::SeqCst), 1, "{millis}");
    }
}

/// Returns the outcome of a request `millis` after the login, on a site with this refresh.
async fn outcome_with(refresh: impl Refresh, millis: i64) -> (String, String) {
    outcome(&Site::new(refresh).logged_in(millis).await.look().await)
}

/// A refresh that panics before it returns a future.
struct PanicsAtOnce;

impl Refresh for PanicsAtOnce {
    fn refresh(&self, identity: &Identity) -> impl Future<Output = Result<Refreshed, EuidError>> + Send {
        assert!(identity.advertising_token().is_empty(), "as the test wants it");
        async { new_pair("never") }
    }
}

#[tokio::test]
async fn refresh_that_panics_leaves_a_valid_token_in_use() {
    let panics = refresh_fn(async |_| panic!("as the test wants it"));
    assert_eq!(outcome_with(panics, DUE).await, expect("active(old)", ""));
    assert_eq!(outcome_with(PanicsAtOnce, DUE).await, expect("active(old)", ""));
}

#[tokio::test]
async fn refresh_that_panics_clears_no_cookie() {
    let panics = refresh_fn(async |_| panic!("as the test wants it"));
    assert_eq!(outcome_with(panics, EXPIRED).await, expect("unavailable", ""));
    assert_eq!(outcome_with(PanicsAtOnce, EXPIRED).await, expect("unavailable", ""));
}

#[tokio::test(start_paused = true)]
async fn request_waits_for_max_wait_and_no_longer() {
    for (millis, saw) in [(DUE, "active(old)"), (EXPIRED, "unavailable")] {
        let max_wait = Duration::from_millis(300);
        let site = Site::unanswered().logged_in(millis).await.configured(|layer| layer.max_wait(max_wait));
        let mut request = Box::pin(start(&site));
        assert!(
            timeout(max_wait - Duration::from_millis(2), request.as_mut()).await.is_err(),
            "the request waits for the refresh"
        );
        let visit = timeout(Duration::from_millis(4), request).await.unwrap();
        assert_eq!(outcome(&visit), expect(saw, ""));
    }
}

#[tokio::test(start_paused = true)]
async fn request_with_a_max_wait_of_zero_does_not_wait() {
    let site = Site::unanswered().logged_in(DUE).await.configured(|layer| layer.max_wait(Duration::ZERO));
    assert!(timeout(Duration::from_millis(2), start(&site)).await.is_ok());
}

#[tokio::test]
async fn max_wait_and_refresh_deadline_may_be_endless() {
    let site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
    let mut site = site.configured(|layer| layer.max_wait(Duration::MAX).refresh_deadline(Duration::MAX));
    assert_eq!(site.look().await.saw(), "active(new)");
}

#[tokio::test(start_paused = true)]
async fn refresh_deadline_ends_a_call_without_an_answer() {
    let deadline = Duration::from_secs(3);
    let operator = Operator::never();
    let site = Site::new(operator.clone()).logged_in(DUE).await;
    site.configured(|layer| layer.refresh_deadline(deadline)).look().await;
    sleep(deadline - EuidLayer::DEFAULT_MAX_WAIT - Duration::from_millis(5)).await;
    assert_eq!(operator.given_up(), 0, "the call goes on until its deadline");
    sleep(Duration::from_millis(10)).await;
    assert_eq!(operator.given_up(), 1);
}

#[tokio::test(start_paused = true)]
async fn refresh_deadline_before_max_wait_ends_the_wait() {
    let deadline = Duration::from_millis(100);
    let site = Site::unanswered().logged_in(DUE).await.configured(|layer| layer.refresh_deadline(deadline));
    assert!(timeout(Duration::from_millis(105), start(&site)).await.is_ok());
}
