//! Readiness: the layer calls the inner service only after that very instance has been ready.
//!
//! [`Strict`] is an inner service that fails the test if it is called unready. Its clones start unready, as those of a
//! semaphore or a buffer do. A request that waits for a refresh keeps the readiness of its instance; all other requests
//! use the service in place.

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

/// A service that panics if it was not ready since its last call. It counts its clones.
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

/// A service with this readiness, whose calls fail.
#[derive(Clone, Debug)]
struct Failing(Poll<Result<(), &'static str>>);

impl Service<Request<()>> for Failing {
    type Response = Response<()>;
    type Error = &'static str;
    type Future = Ready<Result<Response<()>, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        self.0
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Err("the error of the service"))
    }
}

/// The paths of a request through the layer.
const PATHS: [&str; 6] = ["no cookie", "fresh", "due", "expired", "clear", "nested"];

/// Returns a site and a request that takes this path.
async fn request_on(path: &str) -> (Site, Request<()>) {
    let millis = match path {
        "due" => DUE,
        "expired" => EXPIRED,
        "clear" => REFRESH_EXPIRES,
        _ => 0,
    };
    let mut site = Site::new(Operator::answering(new_pair("new"))).logged_in(millis).await;
    if path == "no cookie" {
        site.jar = site.jar.without(IDENTITY).without(ANCHOR);
    }
    let mut request = site.jar.request();
    if path == "nested" {
        request.extensions_mut().insert(Euid::Absent);
    }
    (site, request)
}

/// Sends three requests, one after the other, through one service.
async fn send_three<S>(mut service: S, request: &Request<()>)
where
    S: Service<Request<()>, Response = Response<()>, Error = BoxError>,
{
    for _ in 0..3 {
        service.ready().await.unwrap().call(request.clone()).await.unwrap();
    }
}

#[tokio::test]
async fn inner_service_is_never_called_unready() {
    for path in PATHS {
        let (site, request) = request_on(path).await;
        send_three(site.layer.layer(Strict::default()), &request).await;
    }
}

#[tokio::test]
async fn concurrency_limit_inside_is_never_called_unready() {
    for path in PATHS {
        let (site, request) = request_on(path).await;
        send_three(site.layer.layer(ConcurrencyLimit::new(Strict::default(), 1)), &request).await;
    }
}

#[tokio::test]
async fn concurrency_limit_outside_passes_requests() {
    for path in PATHS {
        let (site, request) = request_on(path).await;
        send_three(ConcurrencyLimit::new(site.layer.layer(Strict::default()), 1), &request).await;
    }
}

#[tokio::test]
async fn buffer_inside_is_never_called_unready() {
    for path in PATHS {
        let (site, request) = request_on(path).await;
        send_three(site.layer.layer(Buffer::new(Strict::default(), 1)), &request).await;
    }
}

#[tokio::test]
async fn buffer_outside_passes_requests() {
    for path in PATHS {
        let (site, request) = request_on(path).await;
        send_three(Buffer::new(site.layer.layer(Strict::default()), 1), &request).await;
    }
}

#[tokio::test]
async fn clones_of_the_service_await_readiness_of_their_own() {
    for path in PATHS {
        let (site, request) = request_on(path).await;
        let service = site.layer.layer(Strict::default());
        for _ in 0..2 {
            send_three(service.clone(), &request).await;
        }
    }
}

#[tokio::test]
async fn request_without_a_refresh_does_not_clone_the_service() {
    for path in ["no cookie", "fresh", "clear", "nested"] {
        let (site, request) = request_on(path).await;
        let strict = Strict::default();
        let clones = Arc::clone(&strict.clones);
        send_three(site.layer.layer(strict), &request).await;
        assert_eq!(clones.load(Ordering::SeqCst), 0, "{path}");
    }
}

/// Returns whether the service is ready at once.
async fn is_ready<S: Service<Request<()>>>(service: &mut S) -> bool {
    poll_fn(|cx| Poll::Ready(service.poll_ready(cx).is_ready())).await
}

#[tokio::test(start_paused = true)]
async fn waiting_request_keeps_the_readiness_of_its_instance() {
    let slow = Operator::answering(new_pair("new")).after(Duration::from_millis(100));
    let site = Site::new(slow).logged_in(DUE).await;
    let mut service = site.layer.layer(ConcurrencyLimit::new(Strict::default(), 1));
    let waiting = service.ready().await.unwrap().call(site.jar.request());
    assert!(!is_ready(&mut service).await, "the waiting request has the only permit");
    waiting.await.unwrap();
    assert!(is_ready(&mut service).await, "the request has ended and returned the permit");
}

#[tokio::test(start_paused = true)]
async fn waiting_request_that_is_dropped_returns_its_readiness() {
    let site = Site::unanswered().logged_in(DUE).await;
    let mut service = site.layer.layer(ConcurrencyLimit::new(Strict::default(), 1));
    drop(service.ready().await.unwrap().call(site.jar.request()));
    assert!(is_ready(&mut service).await);
}

#[tokio::test]
async fn readiness_of_the_inner_service_passes_through_unchanged() {
    let site = Site::offline();
    for readiness in [Poll::Pending, Poll::Ready(Ok(())), Poll::Ready(Err("not today"))] {
        let mut service = site.layer.layer(Failing(readiness));
        let got = poll_fn(|cx| Poll::Ready(service.poll_ready(cx))).await;
        assert_eq!(got, readiness);
    }
}

#[tokio::test]
async fn error_of_the_inner_service_passes_through_unchanged_and_unboxed() {
    for path in PATHS {
        let (site, request) = request_on(path).await;
        let outcome: Result<_, &'static str> = site.layer.layer(Failing(Poll::Ready(Ok(())))).oneshot(request).await;
        assert_eq!(outcome.unwrap_err(), "the error of the service", "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_request_does_not_block_others() {
    let site = Site::unanswered().logged_in(DUE).await;
    let page = service_fn(|_: Request<()>| ready(Ok::<_, BoxError>(Response::new(()))));
    let mut service = site.layer.layer(page);
    let waiting = service.ready().await.unwrap().call(site.jar.request());
    // Shorter than `max_wait`: otherwise tokio's paused time would jump to its end.
    let other = service.ready().await.unwrap().call(Request::new(()));
    let other = tokio::time::timeout(Duration::from_millis(1), other).await;
    assert!(other.is_ok());
    drop(waiting);
}
