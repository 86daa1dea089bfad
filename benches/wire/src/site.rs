//! The sites to compare: one page, behind different layers.
//!
//! 1. Each page answers with the 219 characters of a token, or with a constant text of that length. The peers take the
//!    token out of a [`TokenPair`] as JSON, in one encrypted cookie or a store.
//! 2. All sites get requests of the same kind; the bare sites get the cookies of the layer's visitors.
//! 3. A page that does not find its token is a 404, which the load generator counts.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum_extra::extract::PrivateCookieJar;
use axum_extra::extract::cookie::{Cookie, Key};
use euid_sandbox::{Lifetimes, Sandbox, VisitorState};
use tower_euid::{
    CookieKey, Dii, Environment, Euid, EuidClient, EuidError, EuidLayer, Generated, Identity, Refresh, RefreshMode,
    Refreshed, Scope, refresh_fn,
};
use tower_sessions::{MemoryStore, Session, SessionManagerLayer};

use crate::pair::TokenPair;

/// A site, and the `Cookie` headers of its visitors.
pub struct Site {
    pub router: Router,
    pub fresh: Vec<String>,
    /// Each of these visitors has a refresh token of their own.
    pub due: Vec<String>,
}

impl Site {
    /// Returns the site of this name. `operator` is the operator's address, for the sites whose name ends in `over a
    /// socket`.
    pub async fn named(name: &str, operator: &str) -> Self {
        let (before, beside) = (RefreshMode::Blocking, RefreshMode::Concurrent);
        match name {
            "bare" => without_layer(bare()).await,
            "bare, each 20th page waits" => without_layer(each_20th_waits()).await,
            "a layer that does nothing" => without_layer(bare().layer(tower::layer::util::Identity::new())).await,
            "layer, token not read" => layered(bare(), before, silent_operator()).await,
            "layer, Blocking" => layered(token(), before, in_20_ms().await).await,
            "layer, Concurrent" => layered(token(), beside, in_20_ms().await).await,
            "layer, Blocking, over a socket" => layered(token(), before, over_a_socket(operator)).await,
            "layer, Concurrent, over a socket" => layered(token(), beside, over_a_socket(operator)).await,
            "layer, operator hangs" => layered(token(), before, silent_operator()).await,
            "PrivateCookieJar" => private_cookie_jar(),
            "MemoryStore" => memory_store().await,
            other => panic!("no site is called {other}"),
        }
    }
}

fn bare() -> Router {
    Router::new().route("/", get(async || PAGE.to_owned()))
}

/// As [`bare`], but 5 % of the pages wait for as long as a call to the operator takes: the share of due visitors.
fn each_20th_waits() -> Router {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    async fn page() -> String {
        if ASKED.fetch_add(1, Ordering::Relaxed).is_multiple_of(20) {
            tokio::time::sleep(OPERATOR_TAKES).await;
        }
        PAGE.to_owned()
    }
    Router::new().route("/", get(page))
}

/// Returns a router whose page reads the token.
fn token() -> Router {
    async fn page(euid: Euid) -> Result<String, StatusCode> {
        euid.advertising_token().map(|token| token.as_str().to_owned()).ok_or(StatusCode::NOT_FOUND)
    }
    Router::new().route("/", get(page))
}

/// Returns a site that gets the cookies of the layer's visitors and does not read them.
async fn without_layer(router: Router) -> Site {
    Site { router, ..layered(bare(), RefreshMode::Blocking, silent_operator()).await }
}

/// Returns a site behind the layer. The tokens of its visitors have the operator's lengths and lifetimes.
async fn layered(page: Router, mode: RefreshMode, refresh: impl Refresh) -> Site {
    let calls = Arc::new(AtomicU64::new(0));
    let sandbox = sandbox();
    let layer = EuidLayer::new(CookieKey::generate().unwrap().into(), Counted { refresh, calls: calls.clone() });
    // The operator must not limit the measurement.
    let layer = layer.clock(sandbox.clock()).refresh_mode(mode).max_concurrent_refreshes(1024);
    let visitors =
        |state, count| (0..count).map(|_| sandbox.visitor(&layer, state).unwrap().cookie_header().to_owned()).collect();
    let (fresh, due) = (visitors(VisitorState::Fresh, FRESH), visitors(VisitorState::Due, DUE));
    let router = page.layer(layer);
    let router = router.route("/calls", get(async move || calls.load(Ordering::Relaxed).to_string()));
    Site { router, fresh, due }
}

fn private_cookie_jar() -> Site {
    async fn page(jar: PrivateCookieJar) -> Result<String, StatusCode> {
        let pair = jar.get(NAME).and_then(|cookie| TokenPair::from_json(cookie.value()));
        pair.and_then(TokenPair::usable_token).ok_or(StatusCode::NOT_FOUND)
    }
    let key = Key::generate();
    let cookie = || {
        let response = PrivateCookieJar::<Key>::new(key.clone())
            .add(Cookie::new(NAME, TokenPair::fresh().to_json()))
            .into_response();
        response.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned()
    };
    let fresh = (0..FRESH).map(|_| cookie()).collect();
    Site { router: Router::new().route("/", get(page)).with_state(key), fresh, due: Vec::new() }
}

async fn memory_store() -> Site {
    async fn page(session: Session) -> Result<String, StatusCode> {
        let pair: Option<TokenPair> = session.get(NAME).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        pair.and_then(TokenPair::usable_token).ok_or(StatusCode::NOT_FOUND)
    }
    let store = MemoryStore::default();
    let mut fresh = Vec::new();
    for _ in 0..FRESH {
        let session = Session::new(None, Arc::new(store.clone()), None);
        session.insert(NAME, TokenPair::fresh()).await.unwrap();
        session.save().await.unwrap();
        fresh.push(format!("id={}", session.id().unwrap()));
    }
    let router = Router::new().route("/", get(page)).layer(SessionManagerLayer::new(store));
    Site { router, fresh, due: Vec::new() }
}

/// Returns an operator that never answers.
fn silent_operator() -> impl Refresh {
    refresh_fn(|_| pending())
}

/// Returns an operator that answers in 20 ms and uses no processor time.
async fn in_20_ms() -> impl Refresh {
    let sandbox = sandbox();
    let (client, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap();
    let Generated::Identity(answer) = client.generate(Dii::email("somebody@example.com").unwrap()).await.unwrap()
    else {
        panic!("the sandbox gave no identity");
    };
    refresh_fn(move |_| {
        let answer = answer.clone();
        async {
            tokio::time::sleep(OPERATOR_TAKES).await;
            Ok(Refreshed::Identity(answer))
        }
    })
}

fn over_a_socket(operator: &str) -> impl Refresh {
    let client = EuidClient::builder(Environment::Url(operator.to_owned()));
    client.credentials(Sandbox::default_api_key(Scope::Euid), Sandbox::DEFAULT_CLIENT_SECRET).build().unwrap()
}

struct Counted<R> {
    refresh: R,
    calls: Arc<AtomicU64>,
}

impl<R: Refresh> Refresh for Counted<R> {
    async fn refresh(&self, identity: &Identity) -> Result<Refreshed, EuidError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.refresh.refresh(identity).await
    }
}

/// Returns a sandbox with the lifetimes of EUID's production.
fn sandbox() -> Sandbox {
    let hour = Duration::from_secs(3600);
    let lifetimes = Lifetimes { refresh_from: hour, identity_expires: 72 * hour, refresh_expires: 720 * hour };
    Sandbox::builder().lifetimes(lifetimes).build().unwrap()
}

/// A text as long as a token.
pub const PAGE: &str = "Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_\
    Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_Ab3_\
    Ab3_Ab3_Ab3_Ab3_Abc";
const NAME: &str = "identity";
const OPERATOR_TAKES: Duration = Duration::from_millis(20);
/// The number of visitors of each kind. There are more due visitors than the layer remembers, so that each is forgotten
/// before its next turn.
const FRESH: usize = 1000;
const DUE: usize = 20_000;
