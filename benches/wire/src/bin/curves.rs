//! Two curves: instructions by foreign cookies, operator calls by nodes.
//!
//! ```console
//! $ cargo run --release --manifest-path benches/wire/Cargo.toml --bin curves
//! ```
//!
//! These are counts, so a busy machine has no effect. Needs `valgrind`. Writes the counts to `recorded/` for the plots.

use std::fmt::Write;
use std::future::{Ready, pending, ready};
use std::hint::black_box;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use std::{convert::Infallible, fs};

use euid_sandbox::{Sandbox, VisitorState};
use http::header::COOKIE;
use http::{HeaderValue, Request, Response};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_euid::{CookieKey, Dii, EuidLayer, Generated, Identity, KeyRing, Refresh, Refreshed, refresh_fn};
use tower_euid_wire::recorded;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["call", what, foreign] => call(what, foreign.parse().unwrap()),
        [] => {
            fs::write(recorded("foreign.csv"), by_foreign_cookies()).unwrap();
            fs::write(recorded("nodes.csv"), by_nodes()).unwrap();
        }
        _ => panic!("usage: curves"),
    }
}

/// Returns the instructions in addition to those of the bare service.
fn by_foreign_cookies() -> String {
    let mut text = "foreign_cookies,instructions_alone,instructions_with_ours\n".to_owned();
    for foreign in (0..=80).step_by(10) {
        let over_bare = |layered, bare| counted(layered, foreign) - counted(bare, foreign);
        let [alone, with_ours] = [over_bare("layered", "bare"), over_bare("ours layered", "ours bare")];
        writeln!(text, "{foreign},{alone},{with_ours}").unwrap();
        println!("{foreign:>3} foreign cookies: {alone:>6} instructions, {with_ours:>6} with ours among them");
    }
    text
}

/// Returns the instructions of one call, counted in a process of its own.
fn counted(what: &str, foreign: usize) -> i64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*curves::measured*"])
        .arg(std::env::current_exe().unwrap())
        .args(["call", what, &foreign.to_string()])
        .output()
        .expect("valgrind is installed");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {log}");
    let count = log.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim().parse());
    count.unwrap_or_else(|| panic!("{what}: {log}")).unwrap()
}

/// Measures one call, after a few others that do the one-time work.
fn call(what: &str, foreign: usize) {
    let sandbox = Sandbox::builder().build().unwrap();
    let layer = layer(CookieKey::generate().unwrap().into(), refresh_fn(|_| pending()), &sandbox);
    let ours = sandbox.visitor(&layer, VisitorState::Fresh).unwrap().cookie_header().to_owned();
    let ours = what.starts_with("ours").then_some(ours);
    let others = (0..foreign).map(|i| format!("_ga_{i:03}=GS1.1.{i}.1795371587.60.0.0"));
    let mut cookies: Vec<String> = others.collect();
    cookies.splice(foreign / 2..foreign / 2, ours);
    for round in 0..4 {
        let request = request(&cookies.join("; "));
        match (what.ends_with("bare"), round) {
            (true, 3) => measured(service_fn(page), request),
            (true, _) => once(service_fn(page), request),
            (false, 3) => measured(layer.layer(service_fn(page)), request),
            (false, _) => once(layer.layer(service_fn(page)), request),
        }
    }
}

#[inline(never)]
fn measured<S: Service<Request<()>>>(service: S, request: Request<()>) {
    once(service, request);
}

fn once<S: Service<Request<()>>>(mut service: S, request: Request<()>) {
    let poll = pin!(service.call(request)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(black_box(poll), Poll::Ready(Ok(_))), "nothing here waits");
}

/// Returns the calls to the operator for a thousand requests at once, all with the same due cookie.
fn by_nodes() -> String {
    let mut text = "nodes,operator_calls\n".to_owned();
    for nodes in [1, 2, 5, 10, 20, 50] {
        let calls = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(burst(nodes));
        writeln!(text, "{nodes},{calls}").unwrap();
        println!("{nodes:>3} nodes: {calls} operator calls for 1000 requests");
    }
    text
}

async fn burst(nodes: usize) -> u64 {
    let (sandbox, calls) = (Sandbox::builder().build().unwrap(), Arc::new(AtomicU64::new(0)));
    let client = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap().0;
    let Ok(Generated::Identity(answer)) = client.generate(Dii::email("somebody@example.com").unwrap()).await else {
        panic!("the sandbox gave no identity");
    };
    let keys = KeyRing::from(CookieKey::generate().unwrap());
    let operator = || {
        let (answer, calls): (Identity, Arc<AtomicU64>) = (answer.clone(), calls.clone());
        refresh_fn(move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
            let answer = answer.clone();
            async {
                sleep(Duration::from_millis(20)).await;
                Ok(Refreshed::Identity(answer))
            }
        })
    };
    let nodes: Vec<EuidLayer> = (0..nodes).map(|_| layer(keys.clone(), operator(), &sandbox)).collect();
    let cookies = sandbox.visitor(&nodes[0], VisitorState::Due).unwrap().cookie_header().to_owned();
    let mut pages = JoinSet::new();
    for number in 0..1000 {
        pages.spawn(nodes[number % nodes.len()].layer(service_fn(page)).oneshot(request(&cookies)));
    }
    pages.join_all().await;
    calls.load(Ordering::Relaxed)
}

fn layer(keys: KeyRing, operator: impl Refresh, sandbox: &Sandbox) -> EuidLayer {
    EuidLayer::new(keys, operator).clock(sandbox.clock())
}

fn page(_: Request<()>) -> Ready<Result<Response<()>, Infallible>> {
    ready(Ok(Response::new(())))
}

fn request(cookies: &str) -> Request<()> {
    let mut request = Request::new(());
    if !cookies.is_empty() {
        request.headers_mut().insert(COOKIE, HeaderValue::try_from(cookies).unwrap());
    }
    request
}
