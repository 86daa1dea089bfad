//! A site under load while its operator hangs and recovers: the effect on pages.
//!
//! ```console
//! $ cargo run --release --example outage
//! ```
//!
//! A thousand visitors, each with their own cookies, load a page four times a second. Their tokens are due for a refresh
//! every few seconds. The sandbox operator answers, then accepts calls without answering, then answers again. A page does
//! nothing, so its time is the layer's.
//!
//! Everything runs in one process over loopback, for about 16 seconds. The output shows:
//!
//! 1. During the outage, p50 does not change: once the breaker is open, pages do not wait for the operator. Slow are only
//!    the pages before the breaker opens, and one page for each probe. No page takes longer than [`MAX_WAIT`] plus the
//!    delay of the scheduler.
//! 2. During the outage, the calls stop almost at once.
//! 3. After the outage, the first successful probe closes the breaker. It comes after about five seconds at most.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::future::ready;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use euid_sandbox::{Fault, Lifetimes, Sandbox};
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_euid::clock::ManualClock;
use tower_euid::{CookieKey, Dii, Euid, EuidClient, EuidClientBuilder, EuidLayer, EuidUpdate, Generated};

const VISITORS: u64 = 1000;
/// The pause between two pages of one visitor.
const PAUSE: Duration = Duration::from_millis(250);
const MAX_WAIT: Duration = Duration::from_millis(100);
/// A page that takes longer has waited for the operator.
const SLOW: Duration = Duration::from_millis(50);
const LIFETIMES: Lifetimes = Lifetimes {
    refresh_from: Duration::from_secs(2),
    identity_expires: Duration::from_secs(60),
    refresh_expires: Duration::from_secs(3600),
};
const PHASES: [(&str, Duration, Option<Fault>); 3] = [
    ("before", Duration::from_secs(4), None),
    ("outage", Duration::from_secs(6), Some(Fault::Delay(Duration::from_secs(3600)))),
    ("after", Duration::from_secs(6), None),
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // On stderr, the layer logs when the breaker opens, probes and closes.
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    // One clock for all three. It runs at the speed of the machine's clock.
    let clock = ManualClock::running();
    let sandbox = Sandbox::builder().lifetimes(LIFETIMES).clock(clock.clone()).build()?;
    let sandbox = sandbox.serve((Ipv4Addr::LOCALHOST, 0).into()).await?;
    let client = EuidClientBuilder::from_operator(sandbox.operator()).clock(sandbox.sandbox().clock()).build()?;
    let layer = EuidLayer::new(CookieKey::generate()?.into(), client.clone()).clock(clock).max_wait(MAX_WAIT);

    let mut logins = JoinSet::new();
    for number in 0..VISITORS {
        logins.spawn(log_in(layer.clone(), client.clone(), number));
    }
    let mut visitors = Vec::new();
    while let Some(visitor) = logins.join_next().await {
        visitors.push(visitor??);
    }

    let begun = now();
    let mut browsing = JoinSet::new();
    for visitor in visitors {
        browsing.spawn(visitor.browse(begun));
    }
    let mut calls = Vec::new();
    for (_, lasts, fault) in PHASES {
        let before = sandbox.sandbox().refresh_calls();
        sandbox.fault(fault);
        sleep(lasts).await;
        calls.push(sandbox.sandbox().refresh_calls() - before);
    }
    let pages: Vec<Page> = browsing.join_all().await.into_iter().flatten().collect();

    println!("{VISITORS} visitors, a page each {PAUSE:?}, max_wait {MAX_WAIT:?}; slow is more than {SLOW:?}");
    println!("phase    pages  with token  renewed     p50 ms     p99 ms     max ms  slow  operator calls");
    let mut phase_begins = Duration::ZERO;
    for ((name, lasts, _), calls) in PHASES.into_iter().zip(calls) {
        let phase = phase_begins..phase_begins + lasts;
        let pages: Vec<&Page> = pages.iter().filter(|page| phase.contains(&page.at)).collect();
        report(name, &pages, calls);
        phase_begins += lasts;
    }
    let back = PHASES.iter().take(2).map(|(_, lasts, _)| *lasts).sum::<Duration>();
    match pages.iter().filter(|page| page.renewed && page.at >= back).map(|page| page.at).min() {
        Some(first) => println!("the layer called the operator again {:.1?} after it was back", first - back),
        None => println!("the layer did not call the operator again"),
    }
    Ok(())
}

/// A browser with its cookies.
struct Visitor {
    layer: EuidLayer,
    number: u64,
    jar: HashMap<String, String>,
}

/// The measurements of one page.
struct Page {
    /// The time since the beginning.
    at: Duration,
    took: Duration,
    has_token: bool,
    /// Whether it brought a refreshed cookie.
    renewed: bool,
}

async fn log_in(layer: EuidLayer, client: EuidClient, number: u64) -> Result<Visitor, Box<dyn Error + Send + Sync>> {
    let person = Dii::email(&format!("visitor{number}@example.com"))?;
    let Generated::Identity(identity) = client.generate(person).await? else {
        return Err("the sandbox gave no identity".into());
    };
    let mut visitor = Visitor { layer, number, jar: HashMap::new() };
    visitor.visit(Some(EuidUpdate::login(identity))).await;
    Ok(visitor)
}

impl Visitor {
    /// Loads pages until all phases have ended.
    async fn browse(mut self, begun: Instant) -> Vec<Page> {
        let end: Duration = PHASES.iter().map(|(_, lasts, _)| *lasts).sum();
        // The visitors start one after the other.
        sleep(PAUSE * u32::try_from(self.number).unwrap_or(0) / u32::try_from(VISITORS).unwrap_or(1)).await;
        let mut pauses = interval(PAUSE);
        pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pages = Vec::new();
        loop {
            pauses.tick().await;
            let came = now();
            let at = came - begun;
            if at >= end {
                return pages;
            }
            let (has_token, renewed) = self.visit(None).await;
            pages.push(Page { at, took: came.elapsed(), has_token, renewed });
        }
    }

    /// Loads one page. Returns whether it had a token, and whether it brought cookies.
    async fn visit(&mut self, update: Option<EuidUpdate>) -> (bool, bool) {
        let mut request = Request::new(());
        let cookies: Vec<String> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if let Ok(cookies) = cookies.join("; ").try_into() {
            request.headers_mut().insert(COOKIE, cookies);
        }
        let Ok(response) = self.layer.layer(page(update)).oneshot(request).await;
        let mut renewed = false;
        for line in response.headers().get_all(SET_COOKIE) {
            let Some((name, rest)) = line.to_str().unwrap_or_default().split_once('=') else { continue };
            let value = rest.split(';').next().unwrap_or_default();
            renewed |= !value.is_empty();
            self.jar.insert(name.to_owned(), value.to_owned());
        }
        (*response.body(), renewed)
    }
}

/// A page that returns whether there is a token, and attaches `update` if there is one.
fn page(
    update: Option<EuidUpdate>,
) -> impl Service<Request<()>, Response = Response<bool>, Error = Infallible, Future: Send> + Clone + Send {
    service_fn(move |request: Request<()>| {
        let euid = request.extensions().get::<Euid>();
        let mut response = Response::new(euid.is_some_and(|euid| euid.advertising_token().is_some()));
        if let Some(update) = &update {
            update.clone().attach(&mut response);
        }
        ready(Ok(response))
    })
}

fn report(phase: &str, pages: &[&Page], calls: u64) {
    let mut times: Vec<Duration> = pages.iter().map(|page| page.took).collect();
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let [p50, p99, max] = [50, 99, 100].map(|percent| at(percent).map_or(0.0, |took| took.as_secs_f64() * 1e3));
    let with_token = pages.iter().filter(|page| page.has_token).count();
    let renewed = pages.iter().filter(|page| page.renewed).count();
    let slow = times.iter().filter(|took| **took > SLOW).count();
    println!(
        "{phase:<6} {:>7}  {with_token:>10}  {renewed:>7} {p50:>10.3} {p99:>10.3} {max:>10.3} {slow:>5}  {calls:>14}",
        pages.len()
    );
}

#[expect(clippy::disallowed_methods, reason = "measures how long pages really take")]
fn now() -> Instant {
    Instant::now()
}
