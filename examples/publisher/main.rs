//! A publisher's site: visitors log in, and every page has their current advertising token.
//!
//! ```console
//! $ cargo run --example publisher
//! ```
//!
//! This starts an embedded sandbox operator and the site, and prints the address. You need nothing else. The front page
//! shows the visitor's state, and has buttons to control the time and the operator.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `PORT` | the site's port; 3000 if not set, 0 for any |
//! | `SITE_NAME` | another host name that the site answers to; by default only `localhost` and loopback addresses |
//! | `OPERATOR_PORT` | the port of the embedded sandbox; any if not set |
//! | `EUID_OPERATOR_URL`, `EUID_API_KEY`, `EUID_CLIENT_SECRET` | all three: the site uses that operator and starts no sandbox |
//! | `EUID_COOKIE_KEYS` | cookie keys, newest first; a fresh one if not set |
//! | `RUST_LOG` | the filter of the log on stderr, such as `tower_euid=debug`; `info` if not set |
//! | `COOKIES_FOR_SCRIPTS` | if set, the site hands the token to Prebid and takes over logins from EUID's JavaScript SDK |
//!
//! With curl and a cookie jar (`-b jar -c jar`):
//!
//! | arguments | effect |
//! | --- | --- |
//! | `-d email=user@example.com …/login` | log in; for a phone number use `--data-urlencode phone=+442345678901`, because a bare `+` is a space |
//! | `…/api/identity` | show the state and the token that a page sees |
//! | `-d seconds=600 …/sandbox/advance` | advance the clock |
//! | `-d operator=down …/sandbox/operator` | make the operator `up`, `slow` or `down` |
//! | `-X POST …/sandbox/opt-out` | opt the logged-in person out |
//! | `-X POST …/logout` | log out |
//!
//! curl 7 writes some removed cookies back into its jar. They have no effect.

mod host;
mod page;
mod requests;
mod sandbox;

use std::env;
use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use euid_sandbox::{Sandbox, SandboxServer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_euid::clock::{Clock, ManualClock};
use tower_euid::error::{ConfigError, ErrorKind, EuidError, InvalidDii};
use tower_euid::identity::IdentityTimes;
use tower_euid::{
    AdvertisingToken, CookieConfig, CookieKey, Dii, Euid, EuidClient, EuidClientBuilder, EuidLayer, EuidUpdate, KeyRing,
};
use tower_http::csrf::CsrfLayer;
use tower_http::trace::TraceLayer;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Clone)]
struct Site {
    client: EuidClient,
    clock: ManualClock,
    /// A host name that the site answers to, in addition to `localhost`.
    name: Option<String>,
    /// `None` with an external operator.
    sandbox: Option<Arc<SandboxServer>>,
    notes: Arc<Mutex<Notes>>,
}

/// The other contents of the front page. All visitors share them, because the demo is for one person.
#[derive(Default)]
struct Notes {
    /// The logged-in visitor. A real site keeps this in its own session.
    visitor: Option<Visitor>,
    /// The times of the last token that a page saw.
    times: Option<IdentityTimes>,
    operator: sandbox::Operator,
    requests: requests::Requests,
}

#[derive(Clone)]
struct Visitor {
    address: String,
    dii: Dii,
    /// Whether the visitor pressed the sandbox's button.
    opted_out: bool,
}

impl Site {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("publisher: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    // The important events by default; more with RUST_LOG.
    let wanted = variable("RUST_LOG").map_or(Ok(Targets::new().with_default(Level::INFO)), |text| text.parse());
    let wanted: Targets = wanted.map_err(|error| format!("RUST_LOG: {error}"))?;
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(log).with(wanted).init();
    // The sandbox and the site share a clock, so "10 minutes later" moves both.
    let clock = ManualClock::running();
    let (client, sandbox) = if OPERATOR.iter().any(|name| variable(name).is_some()) {
        let client = EuidClientBuilder::from_env().map_err(|error| format!("{error} (set all of them, or none)"))?;
        println!("operator: {}", variable("EUID_OPERATOR_URL").unwrap_or_default());
        (client.clock(clock.clone()).build()?, None)
    } else {
        let port = port("OPERATOR_PORT", 0)?;
        let sandbox = Sandbox::builder().clock(clock.clone()).build()?;
        let sandbox = sandbox.serve((Ipv4Addr::LOCALHOST, port).into()).await;
        let sandbox = sandbox.map_err(|error| format!("OPERATOR_PORT {port}: {error}"))?;
        println!("operator: {} (an embedded sandbox)", sandbox.base_url());
        (
            EuidClientBuilder::from_operator(sandbox.operator()).clock(sandbox.sandbox().clock()).build()?,
            Some(Arc::new(sandbox)),
        )
    };
    // No jitter, so that a refresh is due at the time that the page shows.
    let layer = EuidLayer::new(cookie_keys()?, client.clone()).clock(clock.clone()).refresh_jitter(Duration::ZERO);
    let layer = layer.cookie(cookies()?);
    let name = variable("SITE_NAME");
    let app = app(Site { client, clock, name, sandbox, notes: Arc::default() }, layer);

    let port = port("PORT", 3000)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let listener = listener.map_err(|error| format!("PORT {port}: {error}"))?;
    println!("site:     http://{}/", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

fn app(site: Site, layer: EuidLayer) -> Router {
    let mut app = Router::new()
        .route("/", get(home))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/api/identity", get(identity))
        .layer(layer)
        .layer(middleware::from_fn_with_state(site.clone(), requests::note));
    if site.sandbox.is_some() {
        app = app
            .route("/sandbox/advance", post(sandbox::advance))
            .route("/sandbox/operator", post(sandbox::operator))
            .route("/sandbox/opt-out", post(sandbox::opt_out));
    }
    app
        // A page of another site must not log a visitor in or out.
        .layer(CsrfLayer::new())
        .route("/page.css", get(([(CONTENT_TYPE, "text/css")], include_str!("page.css"))))
        .route("/page.js", get(([(CONTENT_TYPE, "text/javascript")], include_str!("page.js"))))
        .route("/health", get(async || "ok"))
        .layer(middleware::from_fn_with_state(site.clone(), host::check))
        .layer(TraceLayer::new_for_http())
        .with_state(site)
}

/// The front page, without the effect of this request on the cookies: [`requests::note`] adds that.
async fn home(State(site): State<Site>, euid: Euid) -> (Extension<page::Home>, Html<()>) {
    let mut notes = site.notes();
    match &euid {
        Euid::Active(token) => notes.times = Some(token.times()),
        Euid::Unavailable => {}
        _ => notes.times = None,
    }
    let home = page::Home {
        now: site.clock.now(),
        times: notes.times,
        visitor: notes.visitor.clone(),
        operator: site.sandbox.is_some().then_some(notes.operator),
        bid_request: format!("{:#}", bid_request(&euid)),
        euid,
    };
    (Extension(home), Html(()))
}

/// The part of the bid request that describes the visitor.
fn bid_request(euid: &Euid) -> Value {
    json!({ "user": euid.eids() })
}

/// An endpoint for the site's scripts, or for the ad server.
async fn identity(euid: Euid) -> Json<IdentityJson> {
    Json(IdentityJson { state: euid.state(), advertising_token: euid.advertising_token().cloned() })
}

#[derive(Serialize)]
struct IdentityJson {
    state: &'static str,
    advertising_token: Option<AdvertisingToken>,
}

#[derive(Deserialize)]
struct Login {
    email: Option<String>,
    phone: Option<String>,
}

async fn login(State(site): State<Site>, Form(form): Form<Login>) -> Result<(EuidUpdate, Redirect), LoginError> {
    // A new person is logging in: the previous visitor is gone, even if this login fails.
    site.notes().visitor = None;
    let given = |field: Option<String>| field.filter(|text| !text.trim().is_empty());
    let (dii, address) = match (given(form.email), given(form.phone)) {
        (Some(email), None) => (Dii::email(&email)?, email),
        (None, Some(phone)) => (Dii::phone(&phone)?, phone),
        _ => return Err(LoginError::Address("give an email address or a phone number".to_owned())),
    };
    let generated = site.client.generate(dii).await?;
    site.notes().visitor = Some(Visitor { address, dii, opted_out: false });
    Ok((EuidUpdate::from(generated), Redirect::to("/")))
}

/// Ends the login at this site. The operator takes no part in it.
async fn logout(State(site): State<Site>) -> (EuidUpdate, Redirect) {
    site.notes().visitor = None;
    (EuidUpdate::logout(), Redirect::to("/"))
}

enum LoginError {
    /// The visitor can correct it.
    Address(String),
    /// The visitor can't correct it.
    Operator(EuidError),
}

impl From<InvalidDii> for LoginError {
    fn from(error: InvalidDii) -> Self {
        Self::Address(error.to_string())
    }
}

impl From<EuidError> for LoginError {
    fn from(error: EuidError) -> Self {
        match error.kind() {
            ErrorKind::RejectedInput => Self::Address(error.to_string()),
            _ => Self::Operator(error),
        }
    }
}

impl IntoResponse for LoginError {
    fn into_response(self) -> Response {
        let (status, page) = match self {
            Self::Address(rule) => (StatusCode::BAD_REQUEST, page::error("That did not work", &rule)),
            Self::Operator(error) => {
                tracing::error!(kind = ?error.kind(), %error, "no identity at login");
                let page = page::error("Please try again later", "The identity service does not answer.");
                (StatusCode::SERVICE_UNAVAILABLE, page)
            }
        };
        // This response ends the identity of the previous visitor.
        (status, EuidUpdate::logout(), Html(page)).into_response()
    }
}

/// The variables of [`EuidClientBuilder::from_env`]. If none is set, the site starts a sandbox.
const OPERATOR: [&str; 3] = ["EUID_OPERATOR_URL", "EUID_API_KEY", "EUID_CLIENT_SECRET"];

fn cookie_keys() -> Result<KeyRing, Box<dyn Error>> {
    if variable("EUID_COOKIE_KEYS").is_some() {
        return Ok(KeyRing::from_env("EUID_COOKIE_KEYS")?);
    }
    println!("cookies:  under a fresh key, so a restart forgets every login; set EUID_COOKIE_KEYS to keep them");
    Ok(CookieKey::generate()?.into())
}

fn cookies() -> Result<CookieConfig, ConfigError> {
    let config = CookieConfig::default();
    match variable("COOKIES_FOR_SCRIPTS") {
        Some(_) => config.expose_token_to_scripts().migrate_js_sdk_cookie(None),
        None => Ok(config),
    }
}

fn port(name: &str, default: u16) -> Result<u16, String> {
    variable(name).map_or(Ok(default), |port| port.parse().map_err(|_| format!("{name} is not a port number")))
}

/// The value of an environment variable. An empty one counts as not set.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use axum::http::header::HOST;
    use euid_sandbox::{Visitor, VisitorState};

    use super::*;
    use crate::requests::Cookies;

    pub(crate) type Tested<T = ()> = Result<T, Box<dyn Error>>;

    /// The site without the buttons for the sandbox.
    pub(crate) fn app(name: &str) -> Tested<Router> {
        let (site, layer) = site(&Sandbox::builder().build()?)?;
        Ok(super::app(Site { name: Some(name.to_owned()), ..site }, layer))
    }

    fn site(sandbox: &Sandbox) -> Tested<(Site, EuidLayer)> {
        let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
        Ok((Site { client, clock: sandbox.clock(), name: None, sandbox: None, notes: Arc::default() }, layer))
    }

    async fn send(
        visitor: &mut Visitor,
        app: &Router,
        request: axum::http::request::Builder,
        body: &'static str,
    ) -> Tested<Response> {
        Ok(visitor.send(app, request.header(HOST, "localhost").body(Body::from(body))?).await?)
    }

    #[tokio::test]
    async fn request_log_shows_the_cookies_of_the_visitor() -> Tested {
        let sandbox = Sandbox::builder().build()?;
        for (state, expected) in [
            (VisitorState::Absent, Cookies::None),
            (VisitorState::Fresh, Cookies::Kept),
            (VisitorState::Due, Cookies::Refreshed),
            (VisitorState::OptedOut, Cookies::Kept),
        ] {
            let (site, layer) = site(&sandbox)?;
            let mut visitor = sandbox.visitor(&layer, state)?;
            let app = super::app(site.clone(), layer);
            // A cookie of a third-party script, which is not valid text.
            let request = Request::get("/").header("cookie", axum::http::HeaderValue::from_bytes(b"other=\xff")?);
            send(&mut visitor, &app, request, "").await?;
            let notes = site.notes();
            let seen: Vec<_> = notes.requests.newest_first().map(|request| request.cookies).collect();
            assert_eq!(seen, [expected], "{state:?}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn failed_login_ends_the_previous_identity() -> Tested {
        for form in ["email=not-an-address", "phone=12345", "", "email=other%40example.com"] {
            let sandbox = Sandbox::builder().build()?;
            let (site, layer) = site(&sandbox)?;
            let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
            let app = super::app(site, layer);
            sandbox.fault(euid_sandbox::Fault::Status(503));
            let request = Request::post("/login").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            let response = send(&mut visitor, &app, request, form).await?;
            assert!(response.status().is_client_error() || response.status().is_server_error(), "{form}");
            assert_eq!(visitor.cookie_header(), "", "{form}");
        }
        Ok(())
    }
}
