//! Futures that do not run to their end, operators that break, runtimes that lack something.
//!
//! Whatever happens to the refresh, the page comes, with the old token while that is good; whatever
//! happens to the page, a refresh that has begun goes on. Time is tokio's paused one, but where the
//! point is that there is none.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use http::{Method, Request, Response};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_euid::{EuidError, EuidLayer, EuidUpdate, Identity, Refresh, Refreshed, refresh_fn};

use crate::support::{DUE, EXPIRED, IDENTITY, Jar, Operator, Seen, Site, new_pair, page, ring, writes};

/// A site where the refresh of `operator` is due, `millis` after the start.
async fn site(operator: impl Refresh, millis: i64) -> Site {
    let mut site = Site::new(operator);
    site.login("old").await;
    site.wait_until(millis);
    site
}

/// The request of a page, ready to be polled.
fn request(site: &Site, seen: &Seen) -> impl Future<Output = Response<()>> + Send + use<> {
    let mut service = site.layer.layer(page(Arc::clone(seen), |_, _| ()));
    assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
    let page = service.call(site.jar.request());
    async { page.await.unwrap() }
}

fn saw(seen: &Seen) -> String {
    let (euid, token) = seen.lock().unwrap().clone();
    match token {
        Some(token) => format!("{}({token})", euid.unwrap().state()),
        None => euid.unwrap().state().to_owned(),
    }
}

/// Polls once; a future that is done then does not need its waker.
fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

#[test]
fn the_future_is_at_most_two_words_larger_than_the_inner_one() {
    fn size<S: Service<Request<()>>>(_: &S) -> usize {
        size_of::<S::Future>()
    }
    let layer = EuidLayer::new(ring(), Operator::never());
    let inner = service_fn(|request: Request<()>| async move {
        sleep(Duration::from_secs(1)).await;
        drop(request);
        Ok::<_, Infallible>(Response::new(()))
    });
    assert!(size(&layer.layer(inner)) <= size(&inner) + 16);
}

#[tokio::test]
async fn future_needs_no_box_where_nothing_is_planned_for_the_cookies() {
    let mut site = Site::offline();
    site.login("old").await;
    let mut stated = site.clone();
    stated.update(EuidUpdate::opt_out()).await;
    let mut found = self::site(Operator::answering(Ok(Refreshed::OptedOut)), DUE).await;
    found.look().await;
    let with_method = |site: &Site, method: Method| {
        let mut request = site.jar.request();
        *request.method_mut() = method;
        request
    };
    let cookieless = Site { jar: Jar::default(), ..site.clone() };
    let anchor_alone = Site { jar: site.jar.clone().without(IDENTITY), ..site.clone() };
    let unknown_key = Site { jar: site.jar.clone(), ..Site::offline() };
    for (what, site) in [
        ("no cookie", cookieless),
        ("fresh", site),
        ("anchor alone", anchor_alone),
        ("opted out, stated", stated),
        ("opted out, found", found),
        ("unknown key", unknown_key),
    ] {
        for method in [Method::GET, Method::POST, Method::PUT] {
            let page = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
            let future = site.layer.layer(page).call(with_method(&site, method.clone()));
            assert_eq!(format!("{future:?}"), "ResponseFuture(\"Hot\")", "{what} {method}");
            assert!(now_or_never(future).is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_goes_on_when_its_page_is_dropped() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(100));
    let site = site(operator.clone(), DUE).await;
    let mut page = Box::pin(request(&site, &Seen::default()));
    assert!(!poll_once(page.as_mut()).await);
    drop(page);
    sleep(Duration::from_millis(200)).await;
    assert_eq!((operator.calls(), operator.answered(), operator.given_up()), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_goes_on_when_its_page_is_dropped_without_a_poll() {
    let operator = Operator::answering(new_pair("new")).after(Duration::from_millis(100));
    let site = site(operator.clone(), DUE).await;
    drop(request(&site, &Seen::default()));
    sleep(Duration::from_millis(200)).await;
    assert_eq!((operator.calls(), operator.answered()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_goes_on_when_its_page_has_waited_long_enough() {
    let late = EuidLayer::DEFAULT_MAX_WAIT * 2;
    let operator = Operator::answering(new_pair("new")).after(late);
    let mut site = site(operator.clone(), DUE).await;
    site.look().await;
    assert_eq!(operator.answered(), 0);
    sleep(late).await;
    assert_eq!((operator.calls(), operator.answered(), operator.given_up()), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_page_dropped_while_its_handler_runs_drops_the_handler() {
    struct Handler(Arc<AtomicUsize>);
    impl Drop for Handler {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    for millis in [0, DUE] {
        let site = site(Operator::answering(new_pair("new")), millis).await;
        let dropped = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&dropped);
        let slow = service_fn(move |_: Request<()>| {
            let handler = Handler(Arc::clone(&counts));
            async move {
                let _running = handler;
                pending::<Result<Response<()>, &str>>().await
            }
        });
        let page = site.layer.layer(slow).oneshot(site.jar.request());
        assert!(timeout(Duration::from_secs(1), page).await.is_err());
        assert_eq!(dropped.load(Ordering::SeqCst), 1, "{millis}");
    }
}

/// What a page sees and is told when its refresh breaks so.
async fn breaking(refresh: impl Refresh, millis: i64) -> (String, String) {
    let mut site = site(refresh, millis).await;
    let visit = site.look().await;
    (visit.saw(), visit.writes())
}

/// Panics before there is a future.
struct PanicsAtOnce;

impl Refresh for PanicsAtOnce {
    fn refresh(&self, identity: &Identity) -> impl Future<Output = Result<Refreshed, EuidError>> + Send {
        assert!(identity.advertising_token().is_empty(), "as the test wants it");
        async { new_pair("never") }
    }
}

#[tokio::test]
async fn a_refresher_that_panics_costs_no_page_its_token_while_that_is_good() {
    let panics = refresh_fn(async |_| panic!("as the test wants it"));
    assert_eq!(breaking(panics, DUE).await, ("active(old)".into(), String::new()));
    assert_eq!(breaking(PanicsAtOnce, DUE).await, ("active(old)".into(), String::new()));
}

#[tokio::test]
async fn a_refresher_that_panics_clears_no_cookie() {
    let panics = refresh_fn(async |_| panic!("as the test wants it"));
    assert_eq!(breaking(panics, EXPIRED).await, ("unavailable".into(), String::new()));
    assert_eq!(breaking(PanicsAtOnce, EXPIRED).await, ("unavailable".into(), String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_page_waits_for_max_wait_and_not_longer() {
    for (millis, then) in [(DUE, "active(old)"), (EXPIRED, "unavailable")] {
        let max_wait = Duration::from_millis(300);
        let site = site(Operator::never(), millis).await.configured(|layer| layer.max_wait(max_wait));
        let seen = Seen::default();
        let mut page = Box::pin(request(&site, &seen));
        assert!(timeout(max_wait - Duration::from_millis(2), page.as_mut()).await.is_err(), "it still waits");
        let response = timeout(Duration::from_millis(4), page).await.unwrap();
        assert_eq!((saw(&seen), writes(response.headers())), (then.to_owned(), String::new()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_max_wait_of_zero_waits_for_nothing() {
    let site = site(Operator::never(), DUE).await.configured(|layer| layer.max_wait(Duration::ZERO));
    let page = timeout(Duration::from_millis(2), request(&site, &Seen::default())).await;
    assert!(page.is_ok());
}

#[tokio::test]
async fn waits_without_end_may_be_configured() {
    let site = site(Operator::answering(new_pair("new")), DUE).await;
    let mut site = site.configured(|layer| layer.max_wait(Duration::MAX).refresh_deadline(Duration::MAX));
    assert_eq!(site.look().await.saw(), "active(new)");
}

#[tokio::test(start_paused = true)]
async fn the_refresh_deadline_ends_a_call_that_nobody_answers() {
    let deadline = Duration::from_secs(3);
    let operator = Operator::never();
    let mut site = site(operator.clone(), DUE).await.configured(|layer| layer.refresh_deadline(deadline));
    site.look().await;
    sleep(deadline - EuidLayer::DEFAULT_MAX_WAIT - Duration::from_millis(5)).await;
    assert_eq!(operator.given_up(), 0, "it has its time");
    sleep(Duration::from_millis(10)).await;
    assert_eq!(operator.given_up(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_before_max_wait_ends_the_pages_wait() {
    let deadline = Duration::from_millis(100);
    let site = site(Operator::never(), DUE).await.configured(|layer| layer.refresh_deadline(deadline));
    let page = timeout(Duration::from_millis(105), request(&site, &Seen::default())).await;
    assert!(page.is_ok());
}

/// A site made, and a page served, outside any runtime.
fn without_runtime(millis: i64) -> (String, String, usize) {
    let operator = Operator::answering(new_pair("new"));
    let site = now_or_never(site(operator.clone(), millis)).unwrap();
    let seen = Seen::default();
    let response = now_or_never(request(&site, &seen)).unwrap();
    (saw(&seen), writes(response.headers()), operator.calls())
}

#[test]
fn without_a_runtime_a_good_token_is_shown_and_nobody_is_asked() {
    assert_eq!(without_runtime(DUE), ("active(old)".into(), String::new(), 0));
}

#[test]
fn without_a_runtime_an_expired_token_is_not_shown_and_its_cookie_is_kept() {
    assert_eq!(without_runtime(EXPIRED), ("unavailable".into(), String::new(), 0));
}

#[test]
fn a_runtime_without_a_timer_costs_no_page_its_token() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let got = runtime.block_on(breaking(Operator::answering(new_pair("new")), DUE));
    assert_eq!(got.0, "active(old)");
}

#[test]
fn a_runtime_without_a_timer_lets_no_page_wait() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let site = runtime.block_on(site(Operator::never(), EXPIRED));
    let seen = Seen::default();
    now_or_never(inside(&runtime, &site, &seen)).unwrap();
    assert_eq!(saw(&seen), "unavailable");
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

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap()
}

/// The request of a page, begun inside the runtime, to be polled elsewhere.
fn inside(runtime: &Runtime, site: &Site, seen: &Seen) -> impl Future<Output = Response<()>> + Send + use<> {
    let _inside = runtime.enter();
    request(site, seen)
}

#[test]
fn a_page_begun_in_a_runtime_may_end_on_a_thread_outside_it() {
    let runtime = multi_thread();
    let patient = |layer: EuidLayer| layer.max_wait(Duration::from_secs(60));
    let site = runtime.block_on(site(Operator::answering(new_pair("new")), DUE)).configured(patient);
    let seen = Seen::default();
    let page = inside(&runtime, &site, &seen);
    let response = thread::spawn(move || block_on(page)).join().unwrap();
    assert_eq!((saw(&seen), writes(response.headers())), ("active(new)".into(), "identity set".into()));
}

#[test]
fn a_page_that_waits_outside_its_runtime_has_waited_long_enough_too() {
    let runtime = multi_thread();
    let site = runtime.block_on(site(Operator::never(), DUE)).configured(|layer| layer.max_wait(Duration::ZERO));
    let seen = Seen::default();
    let page = inside(&runtime, &site, &seen);
    thread::spawn(move || block_on(page)).join().unwrap();
    assert_eq!(saw(&seen), "active(old)");
}

#[test]
fn a_page_begun_outside_a_runtime_may_end_in_one() {
    let site = now_or_never(site(Operator::answering(new_pair("new")), DUE)).unwrap();
    let seen = Seen::default();
    let page = request(&site, &seen);
    multi_thread().block_on(page);
    assert_eq!(saw(&seen), "active(old)");
}

#[test]
fn a_page_whose_runtime_has_ended_goes_on_with_its_token() {
    let runtime = multi_thread();
    let site = runtime.block_on(site(Operator::never(), DUE));
    let seen = Seen::default();
    let page = inside(&runtime, &site, &seen);
    drop(runtime);
    block_on(page);
    assert_eq!(saw(&seen), "active(old)");
}

#[tokio::test]
async fn the_future_says_where_it_is_and_no_more() {
    let site = site(Operator::never(), DUE).await;
    let page = site.layer.layer(service_fn(async |_: Request<()>| Ok::<_, &str>(Response::new(()))));
    let waiting = page.clone().call(site.jar.request());
    let hot = page.clone().call(Request::new(()));
    let shown = format!("{waiting:?} {hot:?}");
    assert_eq!(shown, "ResponseFuture(\"Refreshing\") ResponseFuture(\"Hot\")");
    assert!(page.ready_oneshot().await.is_ok());
}
