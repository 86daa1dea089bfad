//! The publisher's site: pages, login and logout, on two nodes that share the cookie keys alone.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use euid_sandbox::Sandbox;
use serde::Deserialize;
use tokio::net::TcpListener;
use tower_euid::clock::{Clock, SystemClock};
use tower_euid::{
    CookieKey, Dii, Environment, Euid, EuidClient, EuidLayer, EuidUpdate, Generated, KeyRing, RefreshMode, Scope,
};
use tower_euid_wire::ended_with_parent;

/// How long a page waits for the operator.
pub(crate) const MAX_WAIT: Duration = Duration::from_millis(200);

/// Serves both nodes, in a process of its own, and prints their addresses.
pub(crate) fn serve(operator: &str) -> ExitCode {
    ended_with_parent();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let keys = KeyRing::from(CookieKey::generate().unwrap());
        let mut nodes = Vec::new();
        for mode in [RefreshMode::Blocking, RefreshMode::Concurrent] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            nodes.push(listener.local_addr().unwrap().to_string());
            let app = node(keys.clone(), operator, mode);
            tokio::spawn(async { axum::serve(listener, app).await });
        }
        println!("{}", nodes.join(" "));
        std::future::pending().await
    })
}

fn node(keys: KeyRing, operator: &str, mode: RefreshMode) -> Router {
    let client = EuidClient::builder(Environment::Url(operator.to_owned()))
        .credentials(Sandbox::default_api_key(Scope::Euid), Sandbox::DEFAULT_CLIENT_SECRET)
        .timeout(Duration::from_secs(2));
    let client = client.build().unwrap();
    let layer = EuidLayer::new(keys, client.clone()).refresh_mode(mode).max_wait(MAX_WAIT);
    Router::new()
        .route("/", get(page))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .layer(layer.refresh_deadline(Duration::from_secs(2)))
        .with_state(client)
}

/// The answer that a visitor orders, to check that it arrives unchanged.
#[derive(Deserialize)]
struct Wanted {
    status: u16,
    word: u64,
}

/// Answers with the word on the first line. The second has the state and the time; with a token, also its expiry and
/// the token.
async fn page(Query(wanted): Query<Wanted>, euid: Euid) -> (StatusCode, String) {
    let seen = format!("{}\n{} {}", wanted.word, euid.state(), SystemClock.now().as_millis());
    let token = euid.advertising_token();
    let token = token.map(|token| format!(" {} {token}", token.times().identity_expires.as_millis()));
    (StatusCode::from_u16(wanted.status).unwrap(), seen + &token.unwrap_or_default())
}

/// Logs the address in the body in. The answer is the outcome in words.
async fn login(State(client): State<EuidClient>, address: String) -> (StatusCode, EuidUpdate, &'static str) {
    match client.generate(Dii::email(&address).unwrap()).await {
        Ok(generated) => {
            let what = match &generated {
                Generated::Identity(_) => "identity",
                _ => "opted out",
            };
            (StatusCode::OK, generated.into(), what)
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, EuidUpdate::logout(), "try later"),
    }
}

async fn logout() -> (EuidUpdate, &'static str) {
    (EuidUpdate::logout(), "bye")
}
