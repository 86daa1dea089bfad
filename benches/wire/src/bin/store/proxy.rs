//! The peer `oauth2-proxy`, which keeps OAuth sessions in Redis and refreshes their tokens, and a provider for it.

use std::net::{Ipv4Addr, TcpListener as Port};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Form, Router};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tower_euid::clock::{Clock, SystemClock};
use tower_euid_wire::{PATIENT, Redis, now};

use crate::burst::{NODES, Seen, burst as burst_of};
use crate::pages::{Http, Jar};

/// Logs in at a site of several processes of `program`, waits until the session is due for a refresh, and sends the burst.
pub(crate) async fn burst(program: &str, takes: Duration) -> Seen {
    let redis = Redis::start();
    let provider = Provider::start(takes).await;
    let nodes: Vec<Node> = (0..NODES).map(|_| Node::start(program, &provider, &redis.url())).collect();
    let (http, mut jar) = (Http::new(), Jar::default());
    for node in &nodes {
        let begun = now();
        while get_page(&http, &format!("{}/ping", node.url), "").await.is_err() {
            assert!(begun.elapsed() < PATIENT, "{program} does not start");
            sleep(Duration::from_millis(50)).await;
        }
    }
    let start = get_page(&http, &format!("{}/oauth2/start", nodes[0].url), "").await.unwrap();
    jar.keep(start.headers());
    let location = start.headers()[LOCATION].to_str().unwrap();
    let state = location.split(['?', '&']).find(|part| part.starts_with("state=")).unwrap();
    let url = format!("{}/oauth2/callback?code=code&{state}", nodes[0].url);
    let login = get_page(&http, &url, &jar.header()).await.unwrap();
    assert_eq!(login.status(), 302, "{}", String::from_utf8_lossy(login.body()));
    jar.keep(login.headers());
    sleep(DUE_AFTER + Duration::from_secs(1)).await;
    let urls: Vec<String> = nodes.iter().map(|node| format!("{}/oauth2/auth", node.url)).collect();
    let token = |response: &Response<Bytes>| {
        Some(response.headers().get("x-auth-request-access-token")?.to_str().ok()?.to_owned())
    };
    let mut seen = burst_of(&urls, &jar.header(), OLD, token).await;
    seen.calls = provider.shared.grants.load(Ordering::Relaxed);
    seen
}

async fn get_page(http: &Http, url: &str, cookies: &str) -> Result<Response<Bytes>, String> {
    http.send(Method::GET, url, cookies, String::new()).await
}

/// A process of the peer.
struct Node {
    child: Child,
    url: String,
}

impl Node {
    fn start(program: &str, provider: &Provider, redis: &str) -> Self {
        let port = Port::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let child = Command::new(program)
            .args([
                format!("--http-address=127.0.0.1:{port}"),
                format!("--redirect-url={url}/oauth2/callback"),
                format!("--oidc-issuer-url={}", provider.shared.issuer),
                format!("--redis-connection-url={redis}"),
                format!("--cookie-refresh={}s", DUE_AFTER.as_secs()),
            ])
            .args(["--provider=oidc", "--client-id=site", "--client-secret=secret", "--email-domain=*"])
            .args(["--session-store-type=redis", "--upstream=static://200", "--cookie-secure=false"])
            .args(["--cookie-secret=0123456789abcdef0123456789abcdef", "--cookie-expire=1h"])
            .args(["--set-xauthrequest=true", "--pass-access-token=true"])
            .args(["--request-logging=false", "--auth-logging=false", "--standard-logging=false"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program of the peer starts");
        Self { child, url }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A provider of OpenID Connect, which answers a refresh after some time.
struct Provider {
    shared: Arc<Shared>,
}

struct Shared {
    issuer: String,
    key: EcdsaKeyPair,
    takes: Duration,
    /// How often it was asked for a refresh.
    grants: AtomicU64,
}

impl Provider {
    async fn start(takes: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let shared = Arc::new(Shared { issuer, key, takes, grants: AtomicU64::new(0) });
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(configuration))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .with_state(Arc::clone(&shared));
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { shared }
    }
}

type Json = ([(http::HeaderName, &'static str); 1], String);

fn answer(value: &Value) -> Json {
    ([(CONTENT_TYPE, "application/json")], value.to_string())
}

async fn configuration(State(shared): State<Arc<Shared>>) -> Json {
    let issuer = &shared.issuer;
    answer(&json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "id_token_signing_alg_values_supported": ["ES256"],
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
    }))
}

async fn keys(State(shared): State<Arc<Shared>>) -> Json {
    let (x, y) = shared.key.public_key().as_ref()[1..].split_at(32);
    let [x, y] = [x, y].map(|half| BASE64_URL_SAFE_NO_PAD.encode(half));
    answer(
        &json!({ "keys": [{ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1", "x": x, "y": y }] }),
    )
}

#[derive(Deserialize)]
struct Grant {
    grant_type: String,
}

async fn token(State(shared): State<Arc<Shared>>, Form(grant): Form<Grant>) -> Json {
    let token = if grant.grant_type == "refresh_token" {
        let number = shared.grants.fetch_add(1, Ordering::Relaxed);
        sleep(shared.takes).await;
        format!("new-{number}")
    } else {
        OLD.to_owned()
    };
    answer(&json!({
        "access_token": token,
        "refresh_token": format!("refresh-{token}"),
        "id_token": shared.id_token(),
        "token_type": "Bearer",
        "expires_in": 3600,
    }))
}

impl Shared {
    fn id_token(&self) -> String {
        let now = SystemClock.now().as_millis() / 1000;
        let claims = json!({
            "iss": self.issuer, "aud": "site", "sub": "17", "iat": now, "exp": now + 3600,
            "email": "user@example.com", "email_verified": true,
        });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "alg": "ES256", "kid": "1" })), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

const OLD: &str = "old";
/// The age from which a session is due. It is longer than a burst, so that a session that was refreshed is not due again.
const DUE_AFTER: Duration = Duration::from_secs(15);
