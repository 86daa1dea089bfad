//! Every public type can be sent to another thread, shared between threads and moved; a generic one if its parts
//! can. The text of the public API does not list these traits, so they are asserted here: a type that loses one does
//! not compile. The core's types are asserted in the core.

use http::Request;
use tower::Service;
use tower_euid::{EuidLayer, EuidService, EuidUpdate, Refresh, RefreshFn, RefreshMode, ResponseFuture};

const fn value<T: Send + Sync + Unpin + 'static>() {}
const fn send<T: Send>() {}
const fn sync<T: Sync>() {}
const fn unpin<T: Unpin>() {}

const _: () = {
    value::<EuidLayer>();
    value::<EuidService<()>>();
    value::<EuidUpdate>();
    value::<RefreshFn<fn()>>();
    value::<RefreshMode>();
};

#[cfg(feature = "client")]
const _: () = {
    value::<tower_euid::Environment>();
    value::<tower_euid::EuidClient>();
    value::<tower_euid::EuidClientBuilder>();
};

/// The service asks no more of the inner service than the trait in question.
#[expect(dead_code, reason = "that it compiles is the test")]
const fn service<Sent: Send, Shared: Sync, Moved: Unpin>() {
    send::<EuidService<Sent>>();
    sync::<EuidService<Shared>>();
    unpin::<EuidService<Moved>>();
}

/// Neither does its future. Whether it is `Unpin` is not promised.
#[expect(dead_code, reason = "that it compiles is the test")]
const fn future<S, B>()
where
    S: Service<Request<B>, Future: Send> + Send,
    B: Send,
{
    send::<ResponseFuture<S, B>>();
}

/// A refresh may run on any thread of the runtime.
#[expect(dead_code, reason = "that it compiles is the test")]
fn refresh<R: Refresh>(refresh: &R, identity: &tower_euid::Identity) -> impl Send {
    refresh.refresh(identity)
}
