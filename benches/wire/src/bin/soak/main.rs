//! A long run of a site, its visitors and its operator, with every kind of failure.
//!
//! ```console
//! $ cargo run --release --manifest-path benches/wire/Cargo.toml --bin soak -- 1200
//! ```
//!
//! The argument is the duration in seconds. With `--sidecar PATH` after it, [`proxied`] takes the place of the site, and
//! with `--sidecar PATH --store` the sidecars keep identities in a Redis. All parts talk over loopback, with real sockets
//! and one clock:
//!
//! 1. [`site`]: a publisher's site, two nodes with the same keys. It has a process of its own, so that its memory is
//!    measured separately.
//! 2. [`operator`]: the sandbox, with one fault after another; at times its port is closed. Tokens live for seconds, so
//!    that some are always due for a refresh. The store fails, too: [`weather`].
//! 3. [`visitor`]: [`VISITORS`] browsers that log in, look at pages, in several tabs too, hang up, log out and opt out.
//!    The [`rules`] check each answer.
//!
//! The first answer that breaks a rule ends the run: the report shows it with the visitor's last actions, and the exit
//! status is a failure. The run also fails if memory grows, or if an expected event never happened. `--record` keeps
//! the samples of memory for the plot.

mod answer;
mod cookies;
mod login;
mod operator;
mod proxied;
mod rules;
mod site;
mod tally;
mod visitor;
mod weather;

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tower_euid_wire::{Redis, Spawned, now, plot, recorded, resident};

use self::operator::Operator;
use self::proxied::Proxied;
use self::tally::Tally;
use self::visitor::{Visitor, World};
use self::weather::weather;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (seconds, records, sidecar, has_store) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["site", operator] => return site::serve(operator),
        [seconds] => (seconds, false, None, false),
        [seconds, "--record"] => (seconds, true, None, false),
        [seconds, "--sidecar", path] => (seconds, false, Some(path), false),
        [seconds, "--sidecar", path, "--store"] => (seconds, false, Some(path), true),
        _ => panic!("usage: soak SECONDS [--record | --sidecar PATH [--store]]"),
    };
    let lasts = Duration::from_secs(seconds.parse().expect("a number of seconds"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(soak(lasts, records, sidecar, has_store))
}

/// The site under test.
enum Site {
    Rust(Spawned),
    Proxied(Proxied),
}

impl Site {
    fn start(operator: &str, sidecar: Option<&str>, store: Option<&str>) -> Self {
        match sidecar {
            None => Self::Rust(Spawned::start(&["site", operator])),
            Some(sidecar) => Self::Proxied(Proxied::start(sidecar, operator, store)),
        }
    }

    fn nodes(&self) -> Vec<String> {
        match self {
            Self::Rust(site) => site.says.split(' ').map(str::to_owned).collect(),
            Self::Proxied(proxied) => proxied.nodes.clone(),
        }
    }

    /// Returns the resident memory of what has the layer, in kB.
    fn resident(&self) -> u64 {
        match self {
            Self::Rust(site) => resident(site.id()),
            Self::Proxied(proxied) => proxied.resident(),
        }
    }
}

async fn soak(lasts: Duration, records: bool, sidecar: Option<&str>, has_store: bool) -> ExitCode {
    let operator = Arc::new(Operator::start().await);
    let store = has_store.then(Redis::durable);
    let site = Site::start(&operator.url(), sidecar, store.as_ref().map(Redis::url).as_deref());
    // Python serves fewer.
    let visitors = if sidecar.is_some() { VISITORS / 5 } else { VISITORS };
    let tally = Arc::new(Tally::new(has_store));
    let seed = fastrand::u64(..);
    println!("{visitors} visitors for {lasts:?}, seed {seed}");
    let world = Arc::new(World::new(site.nodes(), Arc::clone(&operator), Arc::clone(&tally), has_store));

    let mut background = JoinSet::new();
    background.spawn(weather(Arc::clone(&operator), Arc::clone(&tally), lasts));
    if let Some(store) = store {
        background.spawn(weather(store, Arc::clone(&tally), lasts));
    }
    let mut browsing = JoinSet::new();
    for number in 0..visitors {
        browsing.spawn(Visitor::new(number, seed, Arc::clone(&world)).browse());
    }

    let begun = now();
    let mut samples = Vec::new();
    let pause = (lasts / SAMPLES).max(Duration::from_millis(250));
    while begun.elapsed() < lasts && !tally.is_broken() {
        sleep(pause).await;
        samples.push(Sample {
            seconds: begun.elapsed().as_secs_f64(),
            site: site.resident(),
            visitors: resident(std::process::id()),
        });
    }
    background.shutdown().await;
    browsing.shutdown().await;

    let mut text = "seconds,site_kb,visitors_kb\n".to_owned();
    text.extend(samples.iter().map(|sample| format!("{:.0},{},{}\n", sample.seconds, sample.site, sample.visitors)));
    let csv = if records { recorded("soak.csv") } else { std::env::temp_dir().join("tower-euid-soak.csv") };
    fs::write(&csv, &text).unwrap();
    fs::write(csv.with_extension("svg"), plot::soak(&text)).unwrap();
    println!("{}", tally.report(operator.sandbox().calls().refresh));
    println!("memory: {}, {}", csv.display(), csv.with_extension("svg").display());
    let complaints: Vec<String> = tally.complaints().into_iter().chain(growth(&samples, lasts)).collect();
    for complaint in &complaints {
        eprintln!("\n{complaint}");
    }
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A sample of resident memory in kB.
struct Sample {
    seconds: f64,
    site: u64,
    visitors: u64,
}

/// Prints the site's peak memory in both halves of the run. Returns a complaint if it has grown from the first to the
/// second.
fn growth(samples: &[Sample], lasts: Duration) -> Option<String> {
    let most = |samples: &[Sample]| samples.iter().map(|sample| sample.site).max().unwrap_or(0);
    // In the first fifth the layer's memory fills.
    let (_, settled) = samples.split_at(samples.len() / 5);
    let (first, second) = settled.split_at(settled.len() / 2);
    println!("the site's memory at most: {} kB in the first half, {} kB in the second", most(first), most(second));
    let grows = lasts >= LONG_ENOUGH && most(second) * 100 > most(first) * (100 + MAY_GROW);
    grows.then(|| format!("the site's memory grows: more than {MAY_GROW} % from one half to the other"))
}

const VISITORS: u64 = 2000;
const SAMPLES: u32 = 120;
/// The duration after which memory has settled: it follows the largest burst, which has happened up to eight minutes
/// after the start and must lie before the second half.
const LONG_ENOUGH: Duration = Duration::from_secs(1200);
/// How much memory may grow, in percent.
const MAY_GROW: u64 = 5;
