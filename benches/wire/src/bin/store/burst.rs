//! One due identity on four processes: how often the operator is asked, and what pages see meanwhile.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use euid_sandbox::{Fault, Sandbox};
use http::{Method, Response};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower_euid_wire::{Redis, now};

use crate::node::{self, Kind};
use crate::pages::{Http, Jar, quantile};
use crate::{bound, proxy};

/// Measures the layer with its store, the layer without one, and the program at `proxy`.
pub(crate) async fn measure(proxy: Option<&str>) -> bool {
    println!("| site | operator takes | calls | old token | new token | no token | p50, ms | p99, ms | last, ms |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut are_met = Vec::new();
    for takes in [1, 3].map(Duration::from_secs) {
        let with_store = of_layer(Kind::Store, takes).await;
        with_store.print("tower-euid, store on Redis", takes);
        of_layer(Kind::Sealed, takes).await.print("tower-euid, no store", takes);
        if let Some(proxy) = proxy {
            proxy::burst(proxy, takes).await.print("oauth2-proxy, sessions in Redis", takes);
        }
        let Seen { calls, old, new, none, .. } = with_store;
        are_met.push((takes, calls == 1 && none == 0 && old + new == REQUESTS && new > 0));
    }
    are_met
        .into_iter()
        .all(|(takes, is_met)| bound(&format!("one call and no page without a token, {takes:?}"), is_met))
}

async fn of_layer(kind: Kind, takes: Duration) -> Seen {
    let redis = Redis::start();
    let sandbox = Sandbox::builder().build().unwrap().serve((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    sandbox.fault(Fault::Delay(takes));
    let nodes = node::start(NODES, kind, &redis.url(), &sandbox.base_url());
    let urls: Vec<String> = nodes.iter().map(|node| format!("http://{}/", node.says)).collect();
    let (http, mut jar) = (Http::new(), Jar::default());
    let login = http.send(Method::POST, &format!("{}login?due=true", urls[0]), "", String::new()).await.unwrap();
    jar.keep(login.headers());
    let token = |response: &Response<Bytes>| {
        let body = String::from_utf8_lossy(response.body());
        body.strip_prefix("active ").map(str::to_owned)
    };
    let mut seen = burst(&urls, &jar.header(), &String::from_utf8_lossy(login.body()), token).await;
    seen.calls = sandbox.sandbox().refresh_calls();
    seen
}

/// What the pages of a burst saw, and how often the operator was asked.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) calls: u64,
    old: usize,
    new: usize,
    none: usize,
    times: Vec<Duration>,
}

impl Seen {
    fn print(&self, site: &str, takes: Duration) {
        let Self { calls, old, new, none, times } = self;
        let [p50, p99, last] = [0.5, 0.99, 1.0].map(|share| quantile(&mut times.clone(), share).as_secs_f64() * 1e3);
        println!("| {site} | {takes:?} | {calls} | {old} | {new} | {none} | {p50:.1} | {p99:.0} | {last:.0} |");
    }
}

/// Sends the requests, with the same cookies, to the sites in turn. `token` takes the token out of an answer.
pub(crate) async fn burst(
    urls: &[String],
    cookies: &str,
    old: &str,
    token: impl Fn(&Response<Bytes>) -> Option<String> + Copy + Send + Sync + 'static,
) -> Seen {
    let (http, next, begun) = (Http::new(), Arc::new(AtomicUsize::new(0)), now());
    let mut browsers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (http, next, urls, cookies) = (http.clone(), Arc::clone(&next), urls.to_vec(), cookies.to_owned());
        browsers.spawn(async move {
            let mut answers = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= REQUESTS {
                    return answers;
                }
                sleep(EVERY.saturating_mul(number as u32).saturating_sub(begun.elapsed())).await;
                let sent = now();
                let answer = http.send(Method::GET, &urls[number % urls.len()], &cookies, String::new()).await;
                answers.push((sent.elapsed(), answer.ok().as_ref().and_then(token)));
            }
        });
    }
    let mut seen = Seen::default();
    for (took, token) in browsers.join_all().await.into_iter().flatten() {
        seen.times.push(took);
        match token {
            None => seen.none += 1,
            Some(token) if token == old => seen.old += 1,
            Some(_) => seen.new += 1,
        }
    }
    seen
}

pub(crate) const NODES: usize = 4;
const REQUESTS: usize = 10_000;
/// More requests are never under way, as with a browser that waits for its page.
const AT_ONCE: usize = 256;
/// The time between two requests: a burst takes four seconds, so pages come before, during and after the refresh.
const EVERY: Duration = Duration::from_micros(400);
