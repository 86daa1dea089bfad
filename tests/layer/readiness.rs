//! Readiness: only an instance whose own `poll_ready` said so is called.
//!
//! [`Strict`] is an inner service that fails the test if it is called unready; its clones begin
//! unready, as those of a semaphore or a buffer do. The hot path is a page that asks nobody, the
//! cold one a page that waits for a refresh, after which the service must be asked again.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::future::{Ready, poll_fn, ready};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tower::buffer::Buffer;
use tower::limit::ConcurrencyLimit;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_euid::Euid;

use crate::support::{ANCHOR, DUE, EXPIRED, IDENTITY, Operator, REFRESH_EXPIRES, Site, new_pair};

/// Panics if called without having been ready since its last call; counts its clones.
#[derive(Debug, Default)]
struct Strict {
    ready: bool,
    clones: Arc<AtomicUsize>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, Ordering::SeqCst);
        Self { ready: false, clones: Arc::clone(&self.clones) }
    }
}

impl Service<Request<()>> for Strict {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Ready<Result<Response<()>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(mem::take(&mut self.ready), "called while not ready");
        ready(Ok(Response::new(())))
    }
}

/// A page's readiness, as it is told.
#[derive(Clone, Debug)]
struct Told(Poll<Result<(), &'static str>>);

impl Service<Request<()>> for Told {
    type Response = Response<()>;
    type Error = &'static str;
    type Future = Ready<Result<Response<()>, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        self.0
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Err("the page's own error"))
    }
}

/// The ways through the layer.
const WAYS: [&str; 6] = ["no cookie", "fresh", "due", "expired", "clear", "nested"];

/// A site and a request that goes this way.
async fn way(name: &str) -> (Site, Request<()>) {
    let mut site = Site::new(Operator::answering(new_pair("new")));
    site.login("old").await;
    site.wait_until(match name {
        "due" => DUE,
        "expired" => EXPIRED,
        "clear" => REFRESH_EXPIRES,
        _ => 0,
    });
    if name == "no cookie" {
        site.jar = site.jar.without(IDENTITY).without(ANCHOR);
    }
    let mut request = site.jar.request();
    if name == "nested" {
        request.extensions_mut().insert(Euid::Absent);
    }
    (site, request)
}

/// Three requests, one after the other, through one service.
async fn three_times<S>(mut service: S, request: &Request<()>)
where
    S: Service<Request<()>, Response = Response<()>, Error = BoxError>,
{
    for _ in 0..3 {
        service.ready().await.unwrap().call(request.clone()).await.unwrap();
    }
}

#[tokio::test]
async fn the_inner_service_is_never_called_unready() {
    for name in WAYS {
        let (site, request) = way(name).await;
        three_times(site.layer.layer(Strict::default()), &request).await;
    }
}

#[tokio::test]
async fn a_concurrency_limit_inside_is_never_called_unready() {
    for name in WAYS {
        let (site, request) = way(name).await;
        three_times(site.layer.layer(ConcurrencyLimit::new(Strict::default(), 1)), &request).await;
    }
}

#[tokio::test]
async fn a_concurrency_limit_outside_is_let_through() {
    for name in WAYS {
        let (site, request) = way(name).await;
        three_times(ConcurrencyLimit::new(site.layer.layer(Strict::default()), 1), &request).await;
    }
}

#[tokio::test]
async fn a_buffer_inside_is_never_called_unready() {
    for name in WAYS {
        let (site, request) = way(name).await;
        three_times(site.layer.layer(Buffer::new(Strict::default(), 1)), &request).await;
    }
}

#[tokio::test]
async fn a_buffer_outside_is_let_through() {
    for name in WAYS {
        let (site, request) = way(name).await;
        three_times(Buffer::new(site.layer.layer(Strict::default()), 1), &request).await;
    }
}

#[tokio::test]
async fn clones_of_the_service_are_asked_for_their_own_readiness() {
    for name in WAYS {
        let (site, request) = way(name).await;
        let service = site.layer.layer(Strict::default());
        for _ in 0..2 {
            three_times(service.clone(), &request).await;
        }
    }
}

#[tokio::test]
async fn a_page_that_asks_nobody_clones_nothing() {
    for name in ["no cookie", "fresh", "clear", "nested"] {
        let (site, request) = way(name).await;
        let strict = Strict::default();
        let clones = Arc::clone(&strict.clones);
        three_times(site.layer.layer(strict), &request).await;
        assert_eq!(clones.load(Ordering::SeqCst), 0, "{name}");
    }
}

/// Whether this service is ready at once.
async fn is_ready<S: Service<Request<()>>>(service: &mut S) -> bool {
    poll_fn(|cx| Poll::Ready(service.poll_ready(cx).is_ready())).await
}

#[tokio::test(start_paused = true)]
async fn a_waiting_page_keeps_the_readiness_that_it_was_given() {
    let slow = Operator::answering(new_pair("new")).after(Duration::from_millis(100));
    let mut site = Site::new(slow);
    site.login("old").await;
    site.wait_until(DUE);
    let mut service = site.layer.layer(ConcurrencyLimit::new(Strict::default(), 1));
    let page = service.ready().await.unwrap().call(site.jar.request());
    assert!(!is_ready(&mut service).await, "the page has the only permit");
    page.await.unwrap();
    assert!(is_ready(&mut service).await, "the page has given it back");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_page_that_is_dropped_gives_its_readiness_back() {
    let mut site = Site::new(Operator::never());
    site.login("old").await;
    site.wait_until(DUE);
    let mut service = site.layer.layer(ConcurrencyLimit::new(Strict::default(), 1));
    drop(service.ready().await.unwrap().call(site.jar.request()));
    assert!(is_ready(&mut service).await);
}

#[tokio::test]
async fn readiness_passes_through_unchanged() {
    let site = Site::offline();
    for told in [Poll::Pending, Poll::Ready(Ok(())), Poll::Ready(Err("not today"))] {
        let mut service = site.layer.layer(Told(told));
        let got = poll_fn(|cx| Poll::Ready(service.poll_ready(cx))).await;
        assert_eq!(got, told);
    }
}

#[tokio::test]
async fn errors_of_the_page_pass_through_unchanged_and_unboxed() {
    for name in WAYS {
        let (site, request) = way(name).await;
        let outcome: Result<_, &'static str> = site.layer.layer(Told(Poll::Ready(Ok(())))).oneshot(request).await;
        assert_eq!(outcome.unwrap_err(), "the page's own error", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn pages_that_wait_do_not_hold_up_others() {
    let mut site = Site::new(Operator::never());
    site.login("old").await;
    site.wait_until(DUE);
    let page = service_fn(|_: Request<()>| ready(Ok::<_, BoxError>(Response::new(()))));
    let mut service = site.layer.layer(page);
    let waiting = service.ready().await.unwrap().call(site.jar.request());
    // Less than any wait: tokio's paused time would jump over the page's patience otherwise.
    let other = service.ready().await.unwrap().call(Request::new(()));
    let other = tokio::time::timeout(Duration::from_millis(1), other).await;
    assert!(other.is_ok());
    drop(waiting);
}
