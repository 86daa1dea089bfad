//! What the layer does not ask for: nothing of bodies, no `Send` of services that are not.
//!
//! And what it promises for it: `Send` where the inner ones are, a name without type parameters, a
//! future that is two words larger than the inner one.

use std::convert::Infallible;
use std::future::Future;
use std::mem::size_of;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_euid::{EuidLayer, EuidService, ResponseFuture};

use crate::support::{DUE, Operator, REFRESH_EXPIRES, Site, new_pair};

/// A body that is nothing of `Send`, `Sync`, `Clone`, `Default` and `Body`.
#[derive(Debug)]
struct Plain(Rc<str>);

/// The inner service gives its body back; neither it nor its future is `Send`.
async fn body_comes_back(millis: i64) {
    let mut site = Site::new(Operator::answering(new_pair("new")));
    site.login("old").await;
    site.wait_until(millis);
    let kept: Rc<str> = "a body".into();
    let services = Rc::clone(&kept);
    let page = service_fn(move |request: Request<Plain>| {
        let services = Rc::clone(&services);
        async move {
            tokio::task::yield_now().await;
            assert_eq!(services, request.body().0);
            Ok::<_, Infallible>(Response::new(request.into_body()))
        }
    });
    let request = site.jar.request().map(|()| Plain(Rc::clone(&kept)));
    let Ok(response) = site.layer.layer(page).oneshot(request).await;
    assert!(Rc::ptr_eq(&response.body().0, &kept), "the very body");
}

#[tokio::test]
async fn any_body_passes_a_page_that_asks_nobody() {
    body_comes_back(0).await;
}

#[tokio::test]
async fn any_body_passes_a_page_that_waits_for_a_refresh() {
    body_comes_back(DUE).await;
}

#[tokio::test]
async fn any_body_passes_a_page_that_clears_a_cookie() {
    body_comes_back(REFRESH_EXPIRES).await;
}

#[tokio::test]
async fn the_layer_is_named_without_type_parameters() {
    struct State {
        layer: EuidLayer,
    }
    let state = State { layer: Site::new(Operator::answering(new_pair("new"))).layer };
    let page = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new("page")));
    let Ok(response) = state.layer.layer(page).oneshot(Request::new(())).await;
    assert_eq!(*response.body(), "page");
}

/// A service whose future is `WORDS` words large.
#[derive(Clone, Debug)]
struct Sized<const WORDS: usize>;

#[derive(Debug)]
struct SizedFuture<const WORDS: usize>([u64; WORDS]);

impl<B, const WORDS: usize> Service<Request<B>> for Sized<WORDS> {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = SizedFuture<WORDS>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        SizedFuture([0; WORDS])
    }
}

impl<const WORDS: usize> Future for SizedFuture<WORDS> {
    type Output = Result<Response<()>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let words = u64::try_from(self.0.len());
        assert_eq!(words, Ok(self.0.iter().map(|word| word + 1).sum()));
        Poll::Ready(Ok(Response::new(())))
    }
}

fn assert_send<T: Send + 'static>() {}

fn assert_sync<T: Send + Sync + 'static>() {}

#[test]
fn service_and_future_are_send_when_the_inner_ones_are() {
    assert_sync::<EuidLayer>();
    assert_sync::<EuidService<Sized<1>>>();
    assert_send::<ResponseFuture<Sized<1>, Vec<u8>>>();
}

/// How much larger the layer's future is than the inner one.
fn more<const WORDS: usize>() -> usize {
    let (inner, outer) = (size_of::<SizedFuture<WORDS>>(), size_of::<ResponseFuture<Sized<WORDS>, [u8; 1000]>>());
    println!("inner future {inner} bytes, with the layer {outer}");
    outer - inner
}

#[test]
fn the_future_is_at_most_16_bytes_larger_than_the_inner_one() {
    let more = [more::<0>(), more::<1>(), more::<8>(), more::<25>(), more::<125>()];
    assert!(more.iter().all(|more| *more <= 16), "{more:?}");
}
