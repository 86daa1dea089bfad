//! The backend of an app for TV sets and phones. State is in headers, and all devices of a user share one identity in a store.
//!
//! ```console
//! $ cargo run --example tv     # on an embedded sandbox operator
//! $ app() { curl -sS -H 'Euid-Login;' -H "Authorization: Bearer $1" "${@:3}" "http://127.0.0.1:3003$2"; }
//! $ tv=$(app '' /login -d user@example.com)       # log in on two devices: the answer is the session
//! $ phone=$(app '' /login -d user@example.com)
//! $ app "$tv" /token; app "$phone" /token         # the same token, and another one after 10 s
//! {"state":"active","user":{"eids":[{"source":"euid.eu",…}]}}
//! {"state":"active","user":{"eids":[{"source":"euid.eu",…}]}}
//! $ app "$tv" /logout -X POST
//! $ app "$phone" /token                           # the logout has ended both
//! {"state":"absent","user":{}}
//! ```
//!
//! An app keeps headers as `docs::apps` says, because an opt-out comes in one.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use euid_sandbox::{Lifetimes, Sandbox};
use serde_json::{Value, json};
use tower_euid::store::MemoryStore;
use tower_euid::{ConfigError, Dii, Euid, EuidClient, EuidLayer, EuidUpdate, HeaderConfig, StoreSecret};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let lifetimes = Lifetimes { refresh_from: Duration::from_secs(10), ..Lifetimes::default() };
    let sandbox = Sandbox::builder().lifetimes(lifetimes).build()?;
    // In production: `tower_euid::from_env()?`.
    let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3003").await?;
    println!("http://{}/", listener.local_addr()?);
    Ok(axum::serve(listener, app(client, layer)?).await?)
}

fn app(client: EuidClient, layer: EuidLayer) -> Result<Router, ConfigError> {
    let site = Site { client, sessions: Arc::default() };
    let signed_in = site.clone();
    let layer = layer
        .headers(HeaderConfig::default())
        .subject(move |request| signed_in.sessions().get(bearer(&request.headers)?).cloned())
        // In production: `tower_euid_redis::from_env(layer)?`, with `EUID_STORE_URL` and `EUID_STORE_SECRET`.
        .store_by_subject(MemoryStore::new(), StoreSecret::generate()?);
    let routes = Router::new().route("/token", get(token)).route("/login", post(login)).route("/logout", post(logout));
    Ok(routes.layer(layer).with_state(site))
}

#[derive(Clone)]
struct Site {
    client: EuidClient,
    /// The users, by the session of each device. A user's id is their address here.
    sessions: Arc<Mutex<HashMap<String, String>>>,
}

impl Site {
    fn sessions(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

async fn token(euid: Euid) -> Json<Value> {
    Json(json!({ "state": euid.state(), "user": euid.eids() }))
}

/// A real site first authenticates the user and checks their consent. A failed login is no EUID logout: that would end the
/// identity of a user who is still signed in, on all their devices.
async fn login(State(site): State<Site>, email: String) -> Response {
    let Ok(dii) = Dii::email(&email) else { return StatusCode::BAD_REQUEST.into_response() };
    let mut random = [0; 16];
    if getrandom::fill(&mut random).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let session = format!("{:032x}", u128::from_ne_bytes(random));
    site.sessions().insert(session.clone(), email.clone());
    match site.client.generate(dii).await {
        Ok(generated) => (EuidUpdate::from(generated).subject(email), session).into_response(),
        // Signed in without an EUID. Or with that of another device.
        Err(_) => session.into_response(),
    }
}

/// The session ends on this device, the identity on all.
async fn logout(State(site): State<Site>, headers: HeaderMap) -> (EuidUpdate, StatusCode) {
    bearer(&headers).map(|session| site.sessions().remove(session));
    (EuidUpdate::logout(), StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use euid_sandbox::Fault;
    use tower::ServiceExt;

    use super::*;

    type Tested<T = ()> = Result<T, Box<dyn Error>>;

    struct Backend {
        sandbox: Sandbox,
        app: Router,
    }

    impl Backend {
        fn new() -> Tested<Self> {
            let sandbox = Sandbox::builder().build()?;
            let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
            Ok(Self { app: app(client, layer)?, sandbox })
        }

        /// Sends a request of an app with this session. Returns the status and the text.
        async fn send(&self, session: &str, path: &str, body: &'static str) -> Tested<(StatusCode, String)> {
            let request = if path == "/token" { Request::get(path) } else { Request::post(path) };
            let request = request.header("euid-login", "").header(AUTHORIZATION, format!("Bearer {session}"));
            let response = self.app.clone().oneshot(request.body(Body::from(body))?).await?;
            let is_state = |name: &str| name == "set-cookie" || name.starts_with("euid-");
            assert!(!response.headers().keys().any(|name| is_state(name.as_str())), "the app keeps nothing");
            let status = response.status();
            Ok((status, String::from_utf8(to_bytes(response.into_body(), 4096).await?.into())?))
        }

        async fn login(&self) -> Tested<String> {
            Ok(self.send("", "/login", "user@example.com").await?.1)
        }

        /// The state, and the id of the first `eid`.
        async fn look(&self, session: &str) -> Tested<(String, Value)> {
            let page: Value = serde_json::from_str(&self.send(session, "/token", "").await?.1)?;
            let id = page["user"]["eids"][0]["uids"][0]["id"].clone();
            Ok((page["state"].as_str().ok_or("no state")?.to_owned(), id))
        }
    }

    #[tokio::test]
    async fn devices_of_a_user_share_one_token_until_one_of_them_logs_out() -> Tested {
        let backend = Backend::new()?;
        let (tv, phone) = (backend.login().await?, backend.login().await?);
        let first = backend.look(&tv).await?;
        assert_eq!((first.0.as_str(), first.1.is_string()), ("active", true));
        assert_eq!(backend.look(&phone).await?, first);
        assert_eq!(backend.look("").await?, ("absent".to_owned(), Value::Null));

        backend.sandbox.advance(Lifetimes::default().refresh_from);
        let second = backend.look(&phone).await?;
        assert_eq!((second.0.as_str(), second.1 == first.1), ("active", false));
        assert_eq!(backend.look(&tv).await?, second);
        assert_eq!(backend.sandbox.calls().refresh, 1);

        assert_eq!(backend.send(&tv, "/logout", "").await?.0, StatusCode::NO_CONTENT);
        assert_eq!(backend.look(&phone).await?, ("absent".to_owned(), Value::Null));
        let again = backend.login().await?;
        assert_eq!((backend.look(&phone).await?.0, backend.look(&tv).await?.0), ("active".into(), "absent".into()));
        assert_eq!(backend.look(&again).await?, backend.look(&phone).await?);
        Ok(())
    }

    #[tokio::test]
    async fn failed_login_ends_nothing_on_the_users_devices() -> Tested {
        let backend = Backend::new()?;
        let (tv, phone) = (backend.login().await?, backend.login().await?);
        let before = backend.look(&phone).await?;
        assert_eq!(backend.send(&tv, "/login", "mistyped").await?.0, StatusCode::BAD_REQUEST);
        backend.sandbox.fault(Fault::Status(503));
        let (status, session) = backend.send(&tv, "/login", "user@example.com").await?;
        assert_eq!((status, backend.look(&session).await?), (StatusCode::OK, before.clone()));
        assert_eq!(backend.look(&phone).await?, before);
        Ok(())
    }
}
