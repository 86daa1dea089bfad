//! A site whose identities are in Redis: what it asks of the operator, what a page costs, and what a failing Redis does
//! to pages. Each command prints tables, and fails if a bound is missed. They need `redis-server`; `cost` needs `wrk` and `taskset`.
//!
//! ```console
//! $ cargo run --release --manifest-path benches/wire/Cargo.toml --features store --bin store -- burst [OAUTH2_PROXY]
//! ```
//!
//! | command | what it measures |
//! | --- | --- |
//! | [`burst`] | 10 000 requests with one due identity, on four processes; beside it the program `oauth2-proxy`, if given |
//! | [`cost`] | the time that the layer adds to a page, and requests a second |
//! | [`outage`] | pages under load while Redis fails in one way after another |

mod burst;
mod cost;
mod node;
mod outage;
mod pages;
mod proxy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_met = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["node", kind, key, redis, operator] => return node::serve(kind, key, redis, operator),
        ["site", kind, redis, cookies] => return cost::serve(kind, redis, cookies),
        ["burst"] => runtime(2).block_on(burst::measure(None)),
        ["burst", proxy] => runtime(2).block_on(burst::measure(Some(proxy))),
        ["cost"] => cost::measure(),
        ["outage"] => runtime(2).block_on(outage::measure()),
        _ => panic!("usage: store burst [OAUTH2_PROXY] | cost | outage"),
    };
    if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns a runtime; with one thread, all runs on the thread that calls it.
fn runtime(threads: usize) -> tokio::runtime::Runtime {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all().build().unwrap()
}

/// Prints whether a bound is met, and returns it.
fn bound(what: &str, is_met: bool) -> bool {
    println!("{}: {what}", if is_met { "met" } else { "MISSED" });
    is_met
}
