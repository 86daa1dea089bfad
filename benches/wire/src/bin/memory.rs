//! The memory of the layer by purpose, in live bytes that the allocator counts.
//!
//! ```console
//! $ cargo run --release --manifest-path benches/wire/Cargo.toml --bin memory
//! ```
//!
//! Fails if a figure exceeds its bound, and so does CI. The counts include the spare capacity of hash maps.

use std::future::{Future, pending, ready};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use euid_sandbox::{Sandbox, VisitorState};
use http::header::COOKIE;
use http::{HeaderValue, Request, Response};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, service_fn};
use tower_euid::{CookieKey, Dii, EuidError, EuidLayer, Generated, Identity, Refresh, Refreshed};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    let found = [
        ("10 000 fresh visitors have come and gone", "all", fresh_visitors(), 0),
        ("an answer that is remembered", "each", remembered(VISITORS) / VISITORS, 1000),
        ("all that is remembered, at its bound", "all", remembered(2 * VISITORS), 16 << 20),
        ("a refresh under way, its page gone", "each", under_way(), 1950),
        ("a page that waits, its request apart", "each", waiting(), 300),
    ];
    let mut all_kept = true;
    println!("{:<42} {:>10} {:>10}", "", "bytes", "bound");
    for (what, of, bytes, bound) in found {
        let kept = bytes <= bound;
        all_kept &= kept;
        println!("{what:<42} {bytes:>10} {bound:>10}   {of}{}", if kept { "" } else { "   TOO MUCH" });
    }
    if all_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns the growth of live bytes after each of many visitors has seen a page.
fn fresh_visitors() -> usize {
    let site = Site::new(Operator::default());
    let requests = site.requests(VisitorState::Fresh, VISITORS);
    site.visit(site.requests(VisitorState::Fresh, 1));
    grown(|| site.visit(requests.iter().map(copy)))
}

/// Returns the growth of live bytes after many due visitors have got an answer.
fn remembered(visitors: usize) -> usize {
    let site = Site::new(Operator::answering());
    let requests = site.requests(VisitorState::Due, visitors);
    site.visit(site.requests(VisitorState::Due, 1));
    grown(|| site.visit(requests.iter().map(copy)))
}

/// Returns the bytes per token, with many calls to the operator under way.
fn under_way() -> usize {
    let site = Site::new(Operator::default());
    let requests = site.requests(VisitorState::Due, FEW);
    let bytes = grown(|| {
        for request in &requests {
            drop(site.begin(copy(request)));
        }
        site.run_tasks();
    });
    assert_eq!(site.operator.asked.load(Ordering::Relaxed), FEW, "each is asked for");
    bytes / FEW
}

/// Returns the bytes per page, with many pages of one visitor that wait for one call.
fn waiting() -> usize {
    let site = Site::new(Operator::default());
    let [request] = &site.requests(VisitorState::Due, 1)[..] else { unreachable!() };
    let _first = site.begin(copy(request));
    site.run_tasks();
    let (requests, mut pages) = ((0..FEW).map(|_| copy(request)).collect::<Vec<_>>(), Vec::with_capacity(FEW));
    let bytes = grown(|| pages.extend(requests.into_iter().map(|request| site.begin(request))));
    assert_eq!(site.operator.asked.load(Ordering::Relaxed), 1, "one is asked for");
    // The server owns the page's future, whether the page waits or not.
    bytes / FEW - size_of_val(&*pages[0])
}

/// A page behind the layer, and a runtime for its refreshes that runs only on demand.
struct Site {
    operator: Operator,
    sandbox: Sandbox,
    layer: EuidLayer,
    runtime: Runtime,
}

impl Site {
    fn new(operator: Operator) -> Self {
        let sandbox = Sandbox::builder().build().unwrap();
        let layer = EuidLayer::new(CookieKey::generate().unwrap().into(), operator.clone()).clock(sandbox.clock());
        Self { operator, sandbox, layer: layer.max_concurrent_refreshes(VISITORS), runtime: runtime() }
    }

    fn requests(&self, state: VisitorState, count: usize) -> Vec<Request<()>> {
        let visitor = || request(&self.sandbox.visitor(&self.layer, state).unwrap().cookie_header());
        (0..count).map(|_| visitor()).collect()
    }

    /// Runs pages one after the other, each to its end.
    fn visit(&self, requests: impl IntoIterator<Item = Request<()>>) {
        for request in requests {
            let mut service = self.layer.layer(service_fn(page));
            // The call needs the runtime too: without it nothing is refreshed.
            drop(self.runtime.block_on(async { service.call(request).await }));
        }
        self.run_tasks();
    }

    /// Begins a page that must wait.
    fn begin(&self, request: Request<()>) -> Pin<Box<impl Future + use<>>> {
        let _runtime = self.runtime.enter();
        let mut page = Box::pin(self.layer.layer(service_fn(page)).call(request));
        assert!(page.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        page
    }

    fn run_tasks(&self) {
        self.runtime.block_on(async {
            for _ in 0..VISITORS {
                tokio::task::yield_now().await;
            }
        });
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn page(_: Request<()>) -> std::future::Ready<Result<Response<()>, std::convert::Infallible>> {
    ready(Ok(Response::new(())))
}

#[derive(Clone, Default)]
struct Operator {
    /// The answer to each call; without one, calls never end.
    answer: Option<Identity>,
    asked: Arc<AtomicUsize>,
}

impl Operator {
    fn answering() -> Self {
        let sandbox = Sandbox::builder().build().unwrap();
        let (client, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap();
        let generated = client.generate(Dii::email("somebody@example.com").unwrap());
        match runtime().block_on(generated) {
            Ok(Generated::Identity(identity)) => Self { answer: Some(identity), ..Self::default() },
            other => panic!("{other:?}"),
        }
    }
}

impl Refresh for Operator {
    async fn refresh(&self, _: &Identity) -> Result<Refreshed, EuidError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match &self.answer {
            None => pending().await,
            Some(identity) => Ok(Refreshed::Identity(identity.clone())),
        }
    }
}

/// Returns how many more bytes are live after `change`.
fn grown(change: impl FnOnce()) -> usize {
    let live = || {
        let stats = ALLOCATOR.stats();
        stats.bytes_allocated - stats.bytes_deallocated
    };
    let before = live();
    change();
    live().saturating_sub(before)
}

fn request(cookies: &str) -> Request<()> {
    let mut request = Request::new(());
    request.headers_mut().insert(COOKIE, HeaderValue::try_from(cookies).unwrap());
    request
}

fn copy(request: &Request<()>) -> Request<()> {
    self::request(request.headers()[COOKIE].to_str().unwrap())
}

/// As many visitors as the layer remembers.
const VISITORS: usize = EuidLayer::DEFAULT_MEMO_ENTRIES;
const FEW: usize = 1000;
