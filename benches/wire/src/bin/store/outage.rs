//! Pages under load while Redis fails. The visitors look at pages, log in and log out on two nodes, whose pages all read
//! the store.
//!
//! 1. Every answer has the status 200.
//! 2. A page shows no token after a logout, and one that is logged in is never `absent`: nothing is cleared because Redis
//!    fails. A page removes an identity only if it shows a token, as the identity has moved into the store.
//! 3. Pages take at most the timeout of the store longer while the breaker closes, and nothing once it is open.
//! 4. All pages show their tokens again within [`BACK_WITHIN`] after the end of the fault.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use euid_sandbox::Sandbox;
use http::Method;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower_euid_wire::{Redis, RedisFault, now};

use crate::bound;
use crate::node::{self, Kind};
use crate::pages::{Http, Jar, quantile};

pub(crate) async fn measure() -> bool {
    let sandbox = Sandbox::builder().build().unwrap().serve((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let mut redis = Redis::durable();
    let nodes = node::start(2, Kind::EachPageReads, &redis.url(), &sandbox.base_url());
    let nodes = nodes.iter().map(|node| format!("http://{}", node.says)).zip(&nodes).collect::<Vec<_>>();
    let urls: Arc<[String]> = nodes.iter().map(|(url, _)| url.clone()).collect();
    let (http, log) = (Http::new(), Arc::new(Log::default()));
    let mut browsing = JoinSet::new();
    for _ in 0..VISITORS {
        browsing.spawn(Visitor::new(&http, &urls, &log).browse());
    }
    sleep(HEALTHY).await;
    log.pages.lock().unwrap().clear();

    println!("| Redis | pages | failed | no token | p99 before, ms | added at first | added later | back after, ms |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut is_met = true;
    for fault in RedisFault::ALL {
        sleep(HEALTHY).await;
        let begun = now();
        redis.begin(fault).await;
        sleep(FAULTY).await;
        redis.end(fault).await;
        let ended = now();
        sleep(WATCHED).await;
        let pages = std::mem::take(&mut *log.pages.lock().unwrap());
        is_met &= Found::of(&pages, begun, ended).report(fault);
    }
    browsing.shutdown().await;
    let broken = log.broken.lock().unwrap();
    for broken in broken.iter().take(10) {
        println!("{broken}");
    }
    bound("all statuses are 200, and nothing is cleared or shown wrongly", broken.is_empty()) & is_met
}

/// A page of a visitor who is logged in.
struct Page {
    came: Instant,
    took: Duration,
    has_failed: bool,
    has_token: bool,
}

#[derive(Default)]
struct Log {
    pages: Mutex<Vec<Page>>,
    /// Answers that break a rule.
    broken: Mutex<Vec<String>>,
}

/// What happened around one fault.
struct Found {
    pages: usize,
    failed: usize,
    without_token: usize,
    before: Duration,
    at_first: Duration,
    later: Duration,
    back_after: Duration,
}

impl Found {
    fn of(pages: &[Page], begun: Instant, ended: Instant) -> Self {
        let p99 = |from: Option<Instant>, until: Instant| {
            let pages = pages.iter().filter(|page| from.is_none_or(|from| page.came >= from) && page.came < until);
            quantile(&mut pages.map(|page| page.took).collect::<Vec<_>>(), 0.99)
        };
        let since = |pages: &mut dyn Iterator<Item = &Page>| -> Duration {
            pages.map(|page| page.came.saturating_duration_since(ended)).max().unwrap_or_default()
        };
        Self {
            pages: pages.len(),
            failed: pages.iter().filter(|page| page.has_failed).count(),
            without_token: pages.iter().filter(|page| !page.has_token).count(),
            before: p99(None, begun),
            at_first: p99(Some(begun), begun + FIRST),
            later: p99(Some(begun + FIRST), ended),
            back_after: since(&mut pages.iter().filter(|page| !page.has_token)),
        }
    }

    fn report(&self, fault: RedisFault) -> bool {
        let Self { pages, failed, without_token, before, at_first, later, back_after } = self;
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let (first, later) = (millis(*at_first) - millis(*before), millis(*later) - millis(*before));
        let is_met = *failed == 0
            && first <= MOST_AT_FIRST_MILLIS
            && later <= MOST_LATER_MILLIS
            && *back_after <= BACK_WITHIN
            // Else the fault was none.
            && (*without_token > 0) != fault.reads();
        println!(
            "| {} | {pages} | {failed} | {without_token} | {:.1} | {first:.1} | {later:.1} | {:.0} | {}",
            fault.name(),
            millis(*before),
            millis(*back_after),
            if is_met { "met" } else { "MISSED" },
        );
        is_met
    }
}

/// A browser and what it knows.
struct Visitor {
    http: Http,
    nodes: Arc<[String]>,
    log: Arc<Log>,
    jar: Jar,
    is_logged_in: bool,
}

impl Visitor {
    fn new(http: &Http, nodes: &Arc<[String]>, log: &Arc<Log>) -> Self {
        let (http, nodes, log) = (http.clone(), Arc::clone(nodes), Arc::clone(log));
        Self { http, nodes, log, jar: Jar::default(), is_logged_in: false }
    }

    async fn browse(mut self) {
        loop {
            sleep(PAUSE.mul_f64(fastrand::f64() * 2.0)).await;
            let step = match fastrand::u32(..50) {
                0 => self.log_out().await,
                // Every second identity is due for a refresh.
                1 => self.log_in(fastrand::bool()).await,
                _ if !self.is_logged_in => self.log_in(fastrand::bool()).await,
                _ => self.look().await,
            };
            if let Err(rule) = step {
                self.log.broken.lock().unwrap().push(rule);
                // The next rule that it breaks is another one.
                (self.jar, self.is_logged_in) = (Jar::default(), false);
            }
        }
    }

    async fn send(&mut self, method: Method, path: &str) -> Result<(String, Vec<String>), String> {
        let url = format!("{}{path}", self.nodes[fastrand::usize(..self.nodes.len())]);
        let response = self.http.send(method, &url, &self.jar.header(), String::new()).await;
        let response = response.map_err(|error| format!("no answer to {path}: {error}"))?;
        if response.status() != 200 {
            return Err(format!("{} as the answer to {path}", response.status()));
        }
        let removed = self.jar.keep(response.headers());
        Ok((String::from_utf8_lossy(response.body()).into_owned(), removed))
    }

    async fn log_in(&mut self, due: bool) -> Result<(), String> {
        self.send(Method::POST, &format!("/login?due={due}")).await?;
        self.is_logged_in = true;
        if self.jar.header().is_empty() { Err("a login without a cookie".to_owned()) } else { Ok(()) }
    }

    async fn log_out(&mut self) -> Result<(), String> {
        self.send(Method::POST, "/logout").await?;
        self.is_logged_in = false;
        if !self.jar.header().is_empty() {
            return Err(format!("a logout that left {}", self.jar.header()));
        }
        match self.send(Method::GET, "/").await? {
            (body, removed) if body.trim() == "absent" && removed.is_empty() => Ok(()),
            (body, removed) => Err(format!("`{body:.12}`, {removed:?} after a logout")),
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        let sent = now();
        let answer = self.send(Method::GET, "/").await;
        let (came, took) = (now(), sent.elapsed());
        let has_token = answer.as_ref().is_ok_and(|(body, _)| body.starts_with("active "));
        self.log.pages.lock().unwrap().push(Page { came, took, has_failed: answer.is_err(), has_token });
        let (body, removed) = answer?;
        let moved = |name: &String| has_token && name.starts_with("__Host-euid.");
        let is_known = has_token || body.trim() == "unavailable";
        if is_known && removed.iter().all(moved) {
            return Ok(());
        }
        Err(format!("`{body:.12}`, {removed:?} for a visitor who is logged in"))
    }
}

const VISITORS: usize = 200;
/// The mean time between two requests of a visitor, so there are 500 requests a second.
const PAUSE: Duration = Duration::from_millis(400);
const HEALTHY: Duration = Duration::from_secs(4);
const FAULTY: Duration = Duration::from_secs(6);
/// How long the end of a fault is watched.
const WATCHED: Duration = Duration::from_secs(6);
/// The time in which the breaker opens, and no more.
const FIRST: Duration = Duration::from_secs(1);
const MOST_AT_FIRST_MILLIS: f64 = 50.0;
/// What a p99 of this load differs by, in milliseconds.
const MOST_LATER_MILLIS: f64 = 5.0;
const BACK_WITHIN: Duration = Duration::from_secs(5);
