//! `EuidService`: passes any body, needs no `Send`, and has a name without type parameters.

use std::convert::Infallible;
use std::rc::Rc;

use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::EuidLayer;

use crate::support::{DUE, Operator, REFRESH_EXPIRES, Site, new_pair};

/// A body that is none of `Send`, `Sync`, `Clone`, `Default` and `Body`.
#[derive(Debug)]
struct Plain(Rc<str>);

/// Asserts that a request `millis` after the login passes its body to the handler and back. Neither the inner service
/// nor its future is `Send`.
async fn assert_body_passes(millis: i64) {
    let site = Site::new(Operator::answering(new_pair("new"))).logged_in(millis).await;
    let body: Rc<str> = "a body".into();
    let expected = Rc::clone(&body);
    let page = service_fn(move |request: Request<Plain>| {
        let expected = Rc::clone(&expected);
        async move {
            tokio::task::yield_now().await;
            assert_eq!(expected, request.body().0);
            Ok::<_, Infallible>(Response::new(request.into_body()))
        }
    });
    let request = site.jar.request().map(|()| Plain(Rc::clone(&body)));
    let Ok(response) = site.layer.layer(page).oneshot(request).await;
    assert!(Rc::ptr_eq(&response.body().0, &body), "the response has the same body");
}

#[tokio::test]
async fn body_of_any_type_passes_without_a_refresh() {
    assert_body_passes(0).await;
}

#[tokio::test]
async fn body_of_any_type_passes_while_a_refresh_is_awaited() {
    assert_body_passes(DUE).await;
}

#[tokio::test]
async fn body_of_any_type_passes_when_a_cookie_is_cleared() {
    assert_body_passes(REFRESH_EXPIRES).await;
}

#[tokio::test]
async fn layer_is_named_without_type_parameters() {
    struct State {
        layer: EuidLayer,
    }
    let state = State { layer: Site::new(Operator::answering(new_pair("new"))).layer };
    let page = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new("page")));
    let Ok(response) = state.layer.layer(page).oneshot(Request::new(())).await;
    assert_eq!(*response.body(), "page");
}
