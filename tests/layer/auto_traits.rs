//! Every public type can be sent to another thread, shared between threads and moved; a generic type can if its
//! parameters can.
//!
//! The recorded public API does not list these traits, so this file asserts them: it does not compile if a type loses
//! one. The tests of the core assert those of the core's types.

use http::Request;
use tower::Service;
use tower_euid::store::{MemoryStore, Store, StoreError, StoreKey};
use tower_euid::{EuidLayer, EuidService, EuidUpdate, Identity, Refresh, RefreshFn, RefreshMode, ResponseFuture};

const fn value<T: Send + Sync + Unpin + 'static>() {}
const fn send<T: Send>() {}
const fn sync<T: Sync>() {}
const fn unpin<T: Unpin>() {}

const _: () = {
    value::<EuidLayer>();
    value::<EuidService<()>>();
    value::<EuidUpdate>();
    value::<MemoryStore>();
    value::<RefreshFn<fn()>>();
    value::<RefreshMode>();
    value::<StoreError>();
};

#[cfg(feature = "client")]
const _: () = {
    value::<tower_euid::Environment>();
    value::<tower_euid::EuidClient>();
    value::<tower_euid::EuidClientBuilder>();
};

#[cfg(feature = "conformance")]
const _: () = {
    value::<tower_euid::store::conformance::Rule>();
    value::<tower_euid::store::conformance::Violation>();
};

/// `EuidService` has each trait if the inner service has that one.
#[expect(dead_code, reason = "this only has to compile")]
const fn service<Sent: Send, Shared: Sync, Moved: Unpin>() {
    send::<EuidService<Sent>>();
    sync::<EuidService<Shared>>();
    unpin::<EuidService<Moved>>();
}

/// `ResponseFuture` is `Send` if the inner service, its future, its response and the body are: it holds the response while
/// a login is written to a store. It promises no `Unpin`.
#[expect(dead_code, reason = "this only has to compile")]
const fn future<S, B>()
where
    S: Service<Request<B>, Response: Send, Future: Send> + Send,
    B: Send,
{
    send::<ResponseFuture<S, B>>();
}

/// A refresh may run on any thread of the runtime.
#[expect(dead_code, reason = "this only has to compile")]
fn refresh<R: Refresh>(refresh: &R, identity: &Identity) -> impl Send {
    refresh.refresh(identity)
}

/// A store may be called on any thread of the runtime.
#[expect(dead_code, reason = "this only has to compile")]
fn store<S: Store>(store: &S, key: &StoreKey) -> impl Send {
    store.get(key)
}
