//! Requests a second over loopback with keep-alive, of the layer and of its alternatives.
//!
//! ```console
//! $ cargo run --release --manifest-path benches/wire/Cargo.toml --bin wire             # 12 minutes
//! ```
//!
//! Each [`Site`] is a process with one thread, loaded by `wrk` with one thread. A shared machine is faster in one
//! second than in another, so each site is measured between two measurements of the bare one, [`LASTS`] each, and
//! compared with the geometric mean of these two; a ratio is the median of [`ROUNDS`] such comparisons, with the middle
//! half of them beside it. "cpu" is the time that a site's thread was on a processor, which excludes the machine's
//! other work. `--record` keeps the results for the plot.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, thread};

use euid_sandbox::{Fault, Sandbox};
use tokio::net::TcpListener;
use tower_euid_wire::{Cookies, Load, Site, Spawned, ended_with_parent, median, on_cpu, recorded};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", name, operator, cookies] => serve(name, operator, cookies.into()),
        ["operator"] => operate(),
        ["--record"] => measure(true),
        [] => measure(false),
        _ => panic!("usage: wire [--record]"),
    }
}

/// One site and the share of its requests that bring a due cookie, in percent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Case {
    site: &'static str,
    due: u32,
}

const fn case(site: &'static str, due: u32) -> Case {
    Case { site, due }
}

const BARE: Case = case("bare", 0);
const FRESH: Case = case("layer, Blocking", 0);
const JAR: Case = case("PrivateCookieJar", 0);
const STORE: Case = case("MemoryStore", 0);
const BEFORE: Case = case("layer, Blocking", 5);
const BESIDE: Case = case("layer, Concurrent", 5);
const HANGS: Case = case("layer, operator hangs", 5);
/// The cases to compare with the bare site. The bare site itself is one, which shows the effect of chance.
const CASES: [Case; 21] = [
    BARE,
    case("a layer that does nothing", 0),
    case("layer, token not read", 0),
    FRESH,
    JAR,
    STORE,
    case("bare, each 20th page waits", 0),
    BEFORE,
    BESIDE,
    case("layer, Blocking, over a socket", 5),
    case("layer, Concurrent, over a socket", 5),
    HANGS,
    case("layer, Concurrent", 0),
    case("layer, Blocking", 1),
    case("layer, Concurrent", 1),
    case("layer, Blocking", 2),
    case("layer, Concurrent", 2),
    case("layer, Blocking", 10),
    case("layer, Concurrent", 10),
    case("layer, Blocking", 20),
    case("layer, Concurrent", 20),
];
/// The targets for requests a second, as a ratio of two sites.
const TARGETS: [(Case, Case, f64); 6] = [
    (FRESH, BARE, 0.86),
    (FRESH, JAR, 1.7),
    (FRESH, STORE, 1.3),
    (BEFORE, BARE, 0.82),
    (BESIDE, BARE, 0.82),
    (HANGS, BARE, 0.82),
];
/// The maximum ratio to the bare site's p99, for a fresh cookie.
const P99_TARGET: f64 = 1.25;

/// The results of one measurement.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    /// Microseconds.
    p50: f64,
    p99: f64,
    cpu: f64,
    calls_per_1000: f64,
    errors: u64,
}

/// A measurement and those of the bare site before and after it.
struct Compared {
    bare: [Figures; 2],
    site: Figures,
}

impl Compared {
    /// Returns one of the figures as a ratio to the bare site's.
    fn of_bare(&self, what: fn(&Figures) -> f64) -> f64 {
        let [before, after] = &self.bare;
        what(&self.site) / (what(before) * what(after)).sqrt()
    }
}

type Found = HashMap<Case, Vec<Compared>>;

fn measure(records: bool) {
    let operator = Spawned::start(&["operator"]);
    let folder = env::temp_dir().join(format!("tower-euid-wire-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut sites = HashMap::new();
    for Case { site, .. } in CASES {
        sites.entry(site).or_insert_with(|| Running::start(site, &operator.says, folder.join(site)));
    }
    let mut load = |Case { site, due }| sites.get_mut(site).unwrap().load(due);
    for case in CASES {
        load(case);
    }
    let mut found = Found::new();
    let mut before = load(BARE);
    for round in 0..ROUNDS {
        for turn in 0..CASES.len() {
            let case = CASES[(turn + round) % CASES.len()];
            let (site, after) = (load(case), load(BARE));
            found.entry(case).or_default().push(Compared { bare: [before, after], site });
            before = after;
        }
        eprintln!("round {} of {ROUNDS}", round + 1);
    }
    let _ = fs::remove_dir_all(folder);
    report(&found);
    if records {
        fs::write(recorded("due.csv"), by_share(&found)).unwrap();
    }
}

fn report(found: &Found) {
    let of = |case: Case, what: fn(&Figures) -> f64| median(found[&case].iter().map(|one| what(&one.site)).collect());
    let of_bare = |case: Case, what: fn(&Figures) -> f64| -> Vec<f64> {
        let mut ratios: Vec<f64> = found[&case].iter().map(|one| one.of_bare(what)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    };
    println!(
        "| site | due | requests/s | of bare | middle half | cpu, µs | of bare | p50, ms | p99, ms | of bare | calls/1000 |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for case in CASES {
        let ratios = of_bare(case, PER_SECOND);
        println!(
            "| {} | {} % | {:.0} | {:.2} | {:.2} to {:.2} | {:.1} | {:.2} | {:.1} | {:.1} | {:.2} | {:.1} |",
            case.site,
            case.due,
            of(case, PER_SECOND),
            median(ratios.clone()),
            ratios[ratios.len() / 4],
            ratios[ratios.len() - 1 - ratios.len() / 4],
            of(case, CPU),
            median(of_bare(case, CPU)),
            of(case, |figures| figures.p50 / 1e3),
            of(case, |figures| figures.p99 / 1e3),
            median(of_bare(case, P99)),
            of(case, |figures| figures.calls_per_1000),
        );
    }
    println!();
    let ratio = |case, what| if case == BARE { 1.0 } else { median(of_bare(case, what)) };
    for (case, to, target) in TARGETS {
        let (wall, cpu) = (ratio(case, PER_SECOND) / ratio(to, PER_SECOND), ratio(to, CPU) / ratio(case, CPU));
        let met = if wall >= target { "met" } else { "MISSED" };
        println!(
            "{} ({} % due) : {} = {wall:.2}, by cpu {cpu:.2}; target {target}: {met}",
            case.site, case.due, to.site
        );
    }
    let p99 = ratio(FRESH, P99);
    println!("p99, fresh : bare = {p99:.2}; target {P99_TARGET}: {}", if p99 <= P99_TARGET { "met" } else { "MISSED" });
    let all = found.values().flatten().flat_map(|one| one.bare.into_iter().chain([one.site]));
    assert_eq!(all.map(|figures| figures.errors).sum::<u64>(), 0, "each request is answered with a page");
}

/// Returns requests a second as a ratio to the bare site's, by share of due visitors.
fn by_share(found: &Found) -> String {
    let mut text = "mode,due_percent,of_bare,of_bare_by_cpu\n".to_owned();
    for mode in ["Blocking", "Concurrent"] {
        let mut cases: Vec<&Case> = found.keys().filter(|case| case.site == format!("layer, {mode}")).collect();
        cases.sort_by_key(|case| case.due);
        for case in cases {
            let ratio = |what| median(found[case].iter().map(|one| one.of_bare(what)).collect());
            writeln!(text, "{mode},{},{:.3},{:.3}", case.due, ratio(PER_SECOND), 1.0 / ratio(CPU)).unwrap();
        }
    }
    text
}

/// A site in a process of its own.
struct Running {
    process: Spawned,
    cookies: PathBuf,
    /// How many due visitors have been used; the next request uses the next one.
    due_seen: usize,
}

impl Running {
    fn start(site: &str, operator: &str, cookies: PathBuf) -> Self {
        let process = Spawned::start(&["serve", site, operator, cookies.to_str().unwrap()]);
        Self { process, cookies, due_seen: 0 }
    }

    fn load(&mut self, due: u32) -> Figures {
        thread::sleep(PAUSE);
        let [fresh, of_due] = files(&self.cookies);
        let share = f64::from(due) / 100.0;
        let (cpu, calls) = (on_cpu(self.process.id()), self.calls());
        let cookies = Cookies { fresh: &fresh, due: &of_due, share, due_seen: self.due_seen };
        let load = Load::run(&self.process.says, &cookies, CONNECTIONS, LASTS);
        let cpu = on_cpu(self.process.id()) - cpu;
        self.due_seen += (load.requests * share) as usize;
        Figures {
            per_second: load.per_second(),
            p50: load.p50,
            p99: load.p99,
            cpu: cpu.as_secs_f64() * 1e6 / load.requests,
            calls_per_1000: (self.calls() - calls) / load.requests * 1e3,
            errors: load.errors,
        }
    }

    /// Returns how often the site has called its operator.
    fn calls(&self) -> f64 {
        let mut stream = TcpStream::connect(&self.process.says).unwrap();
        stream.write_all(b"GET /calls HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.rsplit("\r\n").next().unwrap().parse().unwrap_or(0.0)
    }
}

fn files(cookies: &Path) -> [PathBuf; 2] {
    ["fresh", "due"].map(|kind| cookies.with_extension(kind))
}

/// Serves a site, in a process of its own, and prints its address. Writes the cookies to files.
fn serve(name: &str, operator: &str, cookies: PathBuf) {
    ended_with_parent();
    runtime().block_on(async {
        let Site { router, fresh, due } = Site::named(name, operator).await;
        for (file, lines) in files(&cookies).iter().zip([fresh, due]) {
            fs::write(file, lines.join("\n")).unwrap();
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        axum::serve(listener, router).await.unwrap();
    });
}

/// Runs an operator that takes 20 ms, in a process of its own.
fn operate() {
    ended_with_parent();
    runtime().block_on(async {
        let sandbox = Sandbox::builder().build().unwrap().serve((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        sandbox.fault(Fault::Delay(Duration::from_millis(20)));
        println!("{}", sandbox.base_url());
        std::future::pending::<()>().await;
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

const PER_SECOND: fn(&Figures) -> f64 = |figures| figures.per_second;
const CPU: fn(&Figures) -> f64 = |figures| figures.cpu;
const P99: fn(&Figures) -> f64 = |figures| figures.p99;
const ROUNDS: usize = 8;
const LASTS: Duration = Duration::from_secs(2);
/// The time for connections and refreshes of the previous measurement to end.
const PAUSE: Duration = Duration::from_millis(50);
const CONNECTIONS: u32 = 256;
