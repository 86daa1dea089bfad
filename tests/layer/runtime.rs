//! Unusual runtimes: the layer works without a runtime, without a timer, and on threads outside the runtime.
//!
//! Without a runtime there is no refresh. A valid token stays in use, an expired one is unavailable, and the cookies
//! stay.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::explain::text;
use crate::future::start;
use crate::support::{DUE, EXPIRED, Operator, Site, Visit, expect, new_pair, outcome};

/// Polls once, without a runtime. A future that is ready at once needs no waker.
fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Waits for the future on this thread, without a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

fn without_timer() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap()
}

/// Starts a request inside the runtime. The future may be polled elsewhere.
fn start_inside(runtime: &Runtime, site: &Site) -> impl Future<Output = Visit> + Send + use<> {
    let _inside = runtime.enter();
    start(site)
}

#[test]
fn request_without_a_runtime_makes_no_call() {
    for (millis, saw) in [(DUE, "active(old)"), (EXPIRED, "unavailable")] {
        let operator = Operator::answering(new_pair("new"));
        let site = now_or_never(Site::new(operator.clone()).logged_in(millis)).unwrap();
        let visit = now_or_never(start(&site)).unwrap();
        assert_eq!((outcome(&visit), operator.calls()), (expect(saw, ""), 0));
    }
}

#[test]
fn runtime_without_a_timer_leaves_a_valid_token_in_use() {
    let visit = without_timer().block_on(async {
        let mut site = Site::new(Operator::answering(new_pair("new"))).logged_in(DUE).await;
        site.look().await
    });
    assert_eq!(visit.saw(), "active(old)");
}

#[test]
fn runtime_without_a_timer_lets_no_request_wait() {
    let runtime = without_timer();
    let site = runtime.block_on(Site::unanswered().logged_in(EXPIRED));
    let visit = now_or_never(start_inside(&runtime, &site)).unwrap();
    assert_eq!(visit.saw(), "unavailable");
}

#[test]
fn missing_runtime_and_missing_timer_are_explained() {
    let site = now_or_never(Site::unanswered().logged_in(DUE)).unwrap().configured(|layer| layer.explain(true));
    assert_eq!(text(&now_or_never(start(&site)).unwrap()), "active; no refresh: no runtime");
    let visit = now_or_never(start_inside(&without_timer(), &site)).unwrap();
    assert_eq!(text(&visit), "active; no refresh: no timer");
}

#[test]
fn request_started_in_a_runtime_may_end_on_a_thread_outside() {
    let runtime = multi_thread();
    let site = runtime.block_on(Site::new(Operator::answering(new_pair("new"))).logged_in(DUE));
    let site = site.configured(|layer| layer.max_wait(Duration::from_secs(60)));
    let request = start_inside(&runtime, &site);
    let visit = thread::spawn(move || block_on(request)).join().unwrap();
    assert_eq!(outcome(&visit), expect("active(new)", "identity set"));
}

#[test]
fn request_on_a_thread_outside_its_runtime_waits_for_max_wait_at_most() {
    let runtime = multi_thread();
    let site = runtime.block_on(Site::unanswered().logged_in(DUE)).configured(|layer| layer.max_wait(Duration::ZERO));
    let request = start_inside(&runtime, &site);
    let visit = thread::spawn(move || block_on(request)).join().unwrap();
    assert_eq!(visit.saw(), "active(old)");
}

#[test]
fn request_started_outside_a_runtime_may_end_inside() {
    let site = now_or_never(Site::new(Operator::answering(new_pair("new"))).logged_in(DUE)).unwrap();
    let request = start(&site);
    assert_eq!(multi_thread().block_on(request).saw(), "active(old)");
}

#[test]
fn request_continues_with_its_token_after_its_runtime_has_ended() {
    let runtime = multi_thread();
    let site = runtime.block_on(Site::unanswered().logged_in(DUE));
    let request = start_inside(&runtime, &site);
    drop(runtime);
    assert_eq!(block_on(request).saw(), "active(old)");
}
