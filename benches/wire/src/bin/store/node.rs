//! A node of the site, in a process of its own.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::{get, post};
use euid_sandbox::Sandbox;
use serde::Deserialize;
use tokio::net::TcpListener;
use tower_euid::clock::{Clock, ManualClock, SystemClock};
use tower_euid::{CookieKey, Dii, Environment, Euid, EuidClient, EuidLayer, EuidUpdate, Generated, Identity, Scope};
use tower_euid_redis::RedisStore;
use tower_euid_wire::{Spawned, ended_with_parent};

/// How a node keeps identities.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In Redis, with the defaults of the layer.
    Store,
    /// In Redis, and each page reads it.
    EachPageReads,
    /// Sealed at the client, without a store.
    Sealed,
}

impl Kind {
    const NAMES: [(Self, &str); 3] =
        [(Self::Store, "store"), (Self::EachPageReads, "each page reads"), (Self::Sealed, "sealed")];

    fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }

    pub(crate) fn named(name: &str) -> Self {
        Self::NAMES.iter().find(|(_, known)| *known == name).expect("a kind of node").0
    }

    /// Adds the store to a layer.
    pub(crate) fn of(self, layer: EuidLayer, redis: &str, timeout: Duration) -> EuidLayer {
        let store = || RedisStore::builder(redis).timeout(timeout).build().unwrap();
        match self {
            Self::Store => layer.store(store()).store_timeout(timeout),
            Self::EachPageReads => layer.store(store()).store_timeout(timeout).remember_for(Duration::ZERO),
            Self::Sealed => layer,
        }
    }
}

/// Starts nodes of one site. Each says its address.
pub(crate) fn start(count: usize, kind: Kind, redis: &str, operator: &str) -> Vec<Spawned> {
    let key: String = (0..43).map(|_| fastrand::alphanumeric()).chain(['=']).collect();
    // The last character must not hold bits beyond the 32 bytes.
    let key = format!("{}A=", &key[..42]);
    (0..count).map(|_| Spawned::start(&["node", kind.name(), &key, redis, operator])).collect()
}

/// Serves a node and prints its address.
pub(crate) fn serve(kind: &str, key: &str, redis: &str, operator: &str) -> ExitCode {
    ended_with_parent();
    crate::runtime(1).block_on(async {
        let client = EuidClient::builder(Environment::Url(operator.to_owned()))
            .credentials(Sandbox::default_api_key(Scope::Euid), Sandbox::DEFAULT_CLIENT_SECRET);
        let layer = EuidLayer::new(CookieKey::from_base64(key).unwrap().into(), client.build().unwrap());
        let layer = Kind::named(kind).of(layer.refresh_jitter(Duration::ZERO), redis, EuidLayer::DEFAULT_STORE_TIMEOUT);
        let app = Router::new()
            .route("/", get(page))
            .route("/login", post(login))
            .route("/logout", post(async || (EuidUpdate::logout(), "bye")))
            .layer(layer)
            .with_state(Issuers::new());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        axum::serve(listener, app).await.unwrap();
    });
    ExitCode::SUCCESS
}

/// Answers with the state, and the token.
async fn page(euid: Euid) -> String {
    format!("{} {}", euid.state(), euid.advertising_token().map(|token| token.to_string()).unwrap_or_default())
}

#[derive(Deserialize)]
struct Wanted {
    due: bool,
}

/// Logs a new person in, and answers with their token.
async fn login(State(issuers): State<Issuers>, Query(wanted): Query<Wanted>) -> (EuidUpdate, String) {
    let identity = issue(if wanted.due { &issuers.half_an_hour_ago } else { &issuers.now }).await;
    let token = identity.advertising_token().to_string();
    (EuidUpdate::login(identity), token)
}

/// The clients of operators in this process, of which one lives in the past: its identities are due, and their tokens are
/// valid for half an hour.
#[derive(Clone)]
struct Issuers {
    now: EuidClient,
    half_an_hour_ago: EuidClient,
}

impl Issuers {
    fn new() -> Self {
        let then = SystemClock.now().saturating_sub(Duration::from_secs(1800));
        let [now, half_an_hour_ago] = [ManualClock::running(), ManualClock::at(then)].map(|clock| {
            let sandbox = Sandbox::builder().clock(clock).build().unwrap();
            tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap().0
        });
        Self { now, half_an_hour_ago }
    }
}

/// Returns the identity of a new person.
pub(crate) async fn issue(client: &EuidClient) -> Identity {
    let person = Dii::email(&format!("{}@example.com", fastrand::u64(..))).unwrap();
    let Generated::Identity(identity) = client.generate(person).await.unwrap() else { panic!("no identity") };
    identity
}
