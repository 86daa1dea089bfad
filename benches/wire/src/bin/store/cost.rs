//! What the store adds to a page: its time, next to that of one `GET`, and requests a second, next to sessions in Redis.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::get;
use euid_sandbox::{Sandbox, Visitor, VisitorState};
use http::{Method, Request};
use redis::AsyncCommands;
use redis::aio::ConnectionManager;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tower::ServiceExt;
use tower_euid::clock::SystemClock;
use tower_euid::store::{Store, StoreKey};
use tower_euid::{Euid, EuidUpdate};
use tower_euid_redis::{RedisStore, RedisStoreBuilder};
use tower_euid_wire::pair::TokenPair;
use tower_euid_wire::{
    Cookies, Load, PAGE, PATIENT, Redis, Spawned, ended_with_parent, median, now, on_cpu, pin, threads,
};
use tower_sessions_14::{Session, SessionManagerLayer};
use tower_sessions_redis_store::RedisStore as SessionStore;
use tower_sessions_redis_store::fred::prelude::{ClientLike, Config, Pool};

use crate::bound;
use crate::node::{self, Kind};
use crate::pages::quantile;

pub(crate) fn measure() -> bool {
    // Not `all`, which stops at the first bound that is missed.
    let latencies = [1, 2].map(|threads| crate::runtime(threads).block_on(latency(threads)));
    let throughput = throughput();
    latencies.into_iter().chain([throughput]).fold(true, |all, is_met| all & is_met)
}

/// Compares the time that the layer adds to a page with that of one `GET`, in turn.
async fn latency(threads: usize) -> bool {
    let redis = Redis::start();
    let bare = Router::new().route("/", get(async || PAGE.to_owned()));
    let Site { router: layered, visitors, .. } = layered(Kind::EachPageReads, &redis.url(), 1).await;
    let mut manager = ConnectionManager::new(redis::Client::open(redis.url()).unwrap()).await.unwrap();
    let key: String = redis.command("RANDOMKEY").await;
    let (store, name) = (RedisStore::builder(redis.url()).timeout(PATIENT).build().unwrap(), store_key(&key));
    let cookies = visitors[0].as_str();
    let page = async |router: &Router| {
        let request = Request::get("/").header("cookie", cookies).body(Body::empty()).unwrap();
        let sent = now();
        let response = router.clone().oneshot(request).await.unwrap();
        let took = sent.elapsed();
        assert_eq!(response.status(), 200);
        took
    };
    let mut ratios = Vec::new();
    let mut medians = [const { Vec::new() }; 5];
    for _ in 0..ROUNDS {
        let mut times = [const { Vec::new() }; 5];
        for _ in 0..PAGES {
            times[0].push(page(&bare).await);
            times[1].push(page(&layered).await);
            let sent = now();
            let value: Vec<u8> = manager.get(&key).await.unwrap();
            times[2].push(sent.elapsed());
            assert!(!value.is_empty());
            let sent = now();
            assert!(store.get(&name).await.unwrap().is_some());
            times[3].push(sent.elapsed());
            let sent = now();
            let (value, _): (Vec<u8>, redis::Value) =
                redis::pipe().get(&key).cmd("ROLE").query_async(&mut manager).await.unwrap();
            times[4].push(sent.elapsed());
            assert!(!value.is_empty());
        }
        let [bare, layered, get, store, role] = times.map(|mut times| quantile(&mut times, 0.5).as_secs_f64() * 1e6);
        ratios.push((layered - bare) / get);
        for (all, one) in medians.iter_mut().zip([bare, layered, get, store, role]) {
            all.push(one);
        }
    }
    ratios.sort_by(f64::total_cmp);
    let [bare, layered, get, store, role] = medians.map(median);
    let middle = median(ratios.clone());
    println!(
        "| threads | bare page, µs | page with the layer | one GET | GET and ROLE | the store | added : GET | middle half |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    println!(
        "| {threads} | {bare:.1} | {layered:.1} | {get:.1} | {role:.1} | {store:.1} | {middle:.2} | {:.2} to {:.2} |\n",
        ratios[ROUNDS / 4],
        ratios[ROUNDS - 1 - ROUNDS / 4],
    );
    bound(&format!("{threads} threads: a page adds at most {MOST_ADDED} GETs"), middle <= MOST_ADDED)
}

/// The key that Redis knows by this name.
fn store_key(name: &str) -> StoreKey {
    let digits = name.strip_prefix(RedisStoreBuilder::DEFAULT_PREFIX).unwrap();
    StoreKey::new(std::array::from_fn(|byte| u8::from_str_radix(&digits[2 * byte..][..2], 16).unwrap()))
}

/// Compares requests a second of sites, in turn. The site has one core; Redis and the load generator have another.
fn throughput() -> bool {
    // Also for its children.
    pin(std::process::id(), 1);
    let redis = crate::runtime(1).block_on(async { Redis::start() });
    let folder = std::env::temp_dir().join(format!("tower-euid-store-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let sites = SITES.map(|kind| {
        let cookies = folder.join(kind);
        let site = Spawned::start(&["site", kind, &redis.url(), cookies.to_str().unwrap()]);
        pin(site.id(), 0);
        (site, cookies)
    });
    for site in &sites {
        load(site);
    }
    let mut found = SITES.map(|_| [Vec::new(), Vec::new()]);
    for round in 0..LOADS {
        // In turn, each the first one in some round.
        let mut turn: Vec<usize> = (0..SITES.len()).collect();
        turn.rotate_left(round % SITES.len());
        for number in turn {
            for (all, one) in found[number].iter_mut().zip(load(&sites[number])) {
                all.push(one);
            }
        }
    }
    let _ = fs::remove_dir_all(folder);
    let sessions = found[SESSIONS].clone();
    let mut ratio = 0.0;
    println!("| site | of sessions in Redis, by requests/s | middle half | by processor time |");
    println!("| --- | ---: | ---: | ---: |");
    for (kind, [rates, cpu]) in SITES.iter().zip(found) {
        let mut ratios: Vec<f64> = rates.iter().zip(&sessions[0]).map(|(one, other)| one / other).collect();
        ratios.sort_by(f64::total_cmp);
        let by_cpu = median(cpu.iter().zip(&sessions[1]).map(|(one, other)| one / other).collect());
        let (low, high) = (ratios[LOADS / 4], ratios[LOADS - 1 - LOADS / 4]);
        let middle = median(ratios);
        println!("| {kind} | {middle:.2} | {low:.2} to {high:.2} | {by_cpu:.2} |");
        // Only this site does the same work as the peer: one that remembers records reads less often.
        if *kind == "each page reads" {
            ratio = middle;
        }
    }
    bound(&format!("at least {LEAST_RATIO} times the requests of sessions in Redis"), ratio >= LEAST_RATIO)
}

/// Returns requests a second, and those a second of processor time of the site.
fn load((site, cookies): &(Spawned, PathBuf)) -> [f64; 2] {
    let on_cpu = || threads(site.id()).into_iter().map(on_cpu).sum::<Duration>();
    let before = on_cpu();
    let cookies = Cookies { fresh: cookies, due: cookies, share: 0.0, due_seen: 0 };
    let load = Load::run(&site.says, &cookies, CONNECTIONS, LASTS);
    assert_eq!(load.errors, 0, "each request is answered with a page");
    [load.per_second(), load.requests / (on_cpu() - before).as_secs_f64()]
}

/// Serves a site and prints its address. Writes the cookies of its visitors to a file.
pub(crate) fn serve(kind: &str, redis: &str, cookies: &str) -> ExitCode {
    ended_with_parent();
    // That of `#[tokio::main]`, which most sites have. It has one worker, as the site has one core.
    Runtime::new().unwrap().block_on(async {
        let site = match kind {
            // As the documentation of its store shows it.
            "sessions" => sessions(redis, 6).await,
            // Faster, as fewer commands have a system call of their own.
            "sessions, one connection" => sessions(redis, 1).await,
            kind => layered(Kind::named(kind), redis, VISITORS).await,
        };
        fs::write(Path::new(cookies), site.visitors.join("\n")).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        axum::serve(listener, site.router).await.unwrap();
    });
    ExitCode::SUCCESS
}

struct Site {
    router: Router,
    /// Their `Cookie` headers.
    visitors: Vec<String>,
}

/// A page behind the layer, which reads the token.
async fn layered(kind: Kind, redis: &str, visitors: usize) -> Site {
    async fn page(euid: Euid) -> Result<String, StatusCode> {
        euid.advertising_token().map(|token| token.as_str().to_owned()).ok_or(StatusCode::NOT_FOUND)
    }
    let sandbox = Sandbox::builder().build().unwrap();
    let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), SystemClock).unwrap();
    // A busy machine must not make a page fail.
    let layer = kind.of(layer, redis, PATIENT);
    let login = async move || EuidUpdate::login(node::issue(&client).await);
    let router = Router::new().route("/", get(page).post(login)).layer(layer.clone());
    let mut cookies = Vec::new();
    for _ in 0..visitors {
        let mut visitor: Visitor = sandbox.visitor(&layer, VisitorState::Absent).unwrap();
        let request = Request::builder().method(Method::POST).uri("/").body(Body::empty()).unwrap();
        assert_eq!(visitor.send(&router, request).await.unwrap().status(), 200);
        cookies.push(visitor.cookie_header());
    }
    Site { router, visitors: cookies }
}

/// A page that takes the token out of a session in Redis.
async fn sessions(redis: &str, connections: usize) -> Site {
    async fn page(session: Session) -> Result<String, StatusCode> {
        let pair: Option<TokenPair> = session.get(NAME).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        pair.and_then(TokenPair::usable_token).ok_or(StatusCode::NOT_FOUND)
    }
    let pool = Pool::new(Config::from_url(redis).unwrap(), None, None, None, connections).unwrap();
    pool.connect();
    pool.wait_for_connect().await.unwrap();
    let store = SessionStore::new(pool);
    let mut visitors = Vec::new();
    for _ in 0..VISITORS {
        let session = Session::new(None, std::sync::Arc::new(store.clone()), None);
        session.insert(NAME, TokenPair::fresh()).await.unwrap();
        session.save().await.unwrap();
        visitors.push(format!("id={}", session.id().unwrap()));
    }
    Site { router: Router::new().route("/", get(page)).layer(SessionManagerLayer::new(store)), visitors }
}

const SITES: [&str; 5] = ["each page reads", "sessions", "sessions, one connection", "store", "sealed"];
const SESSIONS: usize = 1;
const NAME: &str = "identity";
const MOST_ADDED: f64 = 1.3;
const LEAST_RATIO: f64 = 1.2;
const ROUNDS: usize = 8;
/// Pages of a round.
const PAGES: usize = 5_000;
const VISITORS: usize = 1_000;
const CONNECTIONS: u32 = 64;
/// Many short loads: the speed of a machine that others use, too, changes within seconds.
const LOADS: usize = 20;
const LASTS: Duration = Duration::from_secs(1);
