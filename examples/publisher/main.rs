//! A publisher's site: visitors log in, and every page has their current advertising token. Visitors in the EU have an EUID,
//! those in the US a UID2.
//!
//! ```console
//! $ cargo run --example publisher
//! ```
//!
//! This starts two embedded sandbox operators, one for each scope, and the site, and prints the addresses. You need nothing
//! else. The front page shows the visitor's state, and has buttons to control the region, the time and the operator.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `PORT` | the site's port; 3000 if not set, 0 for any |
//! | `SITE_NAME` | another host name that the site answers to; by default only `localhost` and loopback addresses |
//! | `EUID_OPERATOR_URL`, `EUID_API_KEY`, `EUID_CLIENT_SECRET` | all three: the site uses that operator of EUID and starts no sandbox |
//! | `UID2_OPERATOR_URL`, `UID2_API_KEY`, `UID2_CLIENT_SECRET` | the same for UID2; with both operators the site has two regions, with one of them it serves that scope everywhere |
//! | `SCOPE` | `euid` or `uid2`: a sandbox of that scope only; both if not set |
//! | `EUID_SANDBOX_PORT`, `UID2_SANDBOX_PORT` | the ports of the embedded sandboxes; any if not set |
//! | `EUID_STORE_URL` | `redis://…` or `memory:`: the identities are in that store, and browsers have a handle; all state is in cookies if not set |
//! | `EUID_STORE_SECRET` | 32 bytes in base64: the store has one identity for each user, and browsers have nothing |
//! | `EUID_COOKIE_KEYS` | cookie keys, newest first; a fresh one if not set; for a site of UID2 alone `UID2_COOKIE_KEYS` |
//! | `RUST_LOG` | the filter of the log on stderr, such as `tower_euid=debug`; `info` if not set |
//! | `COOKIES_FOR_SCRIPTS` | if set, the site hands the token to Prebid and takes over logins from the JavaScript SDK, with two regions only while a visitor is logged in |
//!
//! With curl and a cookie jar (`-b jar -c jar`):
//!
//! | arguments | effect |
//! | --- | --- |
//! | `-d email=user@example.com …/login` | log in; for a phone number use `--data-urlencode phone=+442345678901`, because a bare `+` is a space |
//! | `-H 'X-Region: us' …` | send any of these requests from the US |
//! | `-d region=us …/region` | the same for all later requests without the header |
//! | `…/api/identity` | show the state and the token that a page sees |
//! | `-d seconds=600 …/sandbox/advance` | advance the clock |
//! | `-d operator=down …/sandbox/operator` | make the region's operator `up`, `slow` or `down` |
//! | `-X POST …/sandbox/opt-out` | opt the logged-in person out of the region's scope |
//! | `-X POST …/logout` | log out |
//!
//! An app sends its state in headers, as `docs::apps` says: `-H 'Euid-Login;'` makes curl send the header that is empty at
//! first. With `Accept: application/json`, login and logout answer 204 in place of a redirect. With two regions, or with
//! `EUID_STORE_SECRET`, the site also needs the app's session, which is a cookie here: keep the jar. Without that secret, and
//! with `SCOPE` set, an app needs no session.
//!
//! curl 7 writes some removed cookies back into its jar. After a logout in both regions one of the logins is among them: it
//! counts again if the same visitor logs in in the other region. A browser removes all of them.

mod host;
mod login;
mod page;
mod region;
mod requests;
mod sandbox;
mod session;

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_euid::clock::{Clock, ManualClock};
use tower_euid::error::ConfigError;
use tower_euid::identity::IdentityTimes;
use tower_euid::openrtb::Eids;
use tower_euid::{AdvertisingToken, CookieConfig, CookieKey, Euid, EuidLayer, HeaderConfig, KeyRing, Scope};
use tower_http::csrf::CsrfLayer;
use tower_http::trace::TraceLayer;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::region::Regions;
use crate::session::{Sessions, Visitor};

#[derive(Clone)]
struct Site {
    regions: Arc<Regions>,
    clock: ManualClock,
    /// A host name that the site answers to, in addition to `localhost`.
    name: Option<String>,
    notes: Arc<Mutex<Notes>>,
}

/// The site's memory. All visitors share it except for the sessions, because the demo is for one person.
#[derive(Default)]
struct Notes {
    sessions: Sessions,
    of: HashMap<Scope, ScopeNotes>,
    requests: requests::Requests,
}

/// What the front page shows of a scope.
#[derive(Clone, Copy, Default)]
struct ScopeNotes {
    /// The times of the last token that a page saw.
    times: Option<IdentityTimes>,
    operator: sandbox::Operator,
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
    // The sandboxes and the site share a clock, so "10 minutes later" moves all of them.
    let clock = ManualClock::running();
    let regions = Regions::from_env(&clock).await?;
    let keys = cookie_keys(regions.first.scope)?;
    let site = Site { regions: Arc::new(regions), clock, name: variable("SITE_NAME"), notes: Arc::default() };
    let layer = layer(&site, keys, cookies()?)?;
    let app = app(site, layer);

    let port = port("PORT", 3000)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let listener = listener.map_err(|error| format!("PORT {port}: {error}"))?;
    println!("site:     http://{}/", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

/// The layer of a site with two regions serves both scopes: [`region::choose`] has found that of the request.
fn layer(site: &Site, keys: KeyRing, cookies: CookieConfig) -> Result<EuidLayer, ConfigError> {
    let Regions { first, second } = &*site.regions;
    let layer = EuidLayer::new(keys, first.client.clone()).clock(site.clock.clone()).cookie(cookies);
    // Apps and TV sets have no cookies.
    let layer = layer.headers(HeaderConfig::default());
    // The browser's developer tools show the reason for the visitor's state: "Network", the page, "Timing".
    let layer = layer.explain(true);
    // No jitter, so that a refresh is due at the time that the page shows.
    let layer = layer.refresh_jitter(Duration::ZERO);
    // If the environment names a store, browsers have a handle in place of the identity.
    let layer = tower_euid_redis::from_env(layer)?;
    let keeps_users = layer.sessions().is_some();
    let layer = match second {
        Some(second) => layer.scope(second.client.clone(), |request| request.extensions.get::<Scope>().copied())?,
        None => layer,
    };
    if second.is_none() && !keeps_users {
        return Ok(layer);
    }
    Ok(layer.subject(|request| Some(request.extensions.get::<Visitor>()?.address.clone())))
}

fn app(site: Site, layer: EuidLayer) -> Router {
    let mut app = Router::new()
        .route("/", get(home))
        .route("/login", post(login::login))
        .route("/logout", post(login::logout))
        .route("/api/identity", get(identity))
        .layer(layer)
        .layer(middleware::from_fn_with_state(site.clone(), requests::note));
    if site.regions.first.sandbox.is_some() {
        app = app
            .route("/sandbox/advance", post(sandbox::advance))
            .route("/sandbox/operator", post(sandbox::operator))
            .route("/sandbox/opt-out", post(sandbox::opt_out));
    }
    if site.regions.second.is_some() {
        app = app.route("/region", post(region::switch));
    }
    app.layer(middleware::from_fn_with_state(site.clone(), session::find))
        .layer(middleware::from_fn_with_state(site.clone(), region::choose))
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
async fn home(
    State(site): State<Site>,
    Extension(scope): Extension<Scope>,
    visitor: Option<Extension<Visitor>>,
    euid: Euid,
) -> (Extension<page::Home>, Html<()>) {
    let mut notes = site.notes();
    let notes = notes.of.entry(scope).or_default();
    match &euid {
        Euid::Active(token) => notes.times = Some(token.times()),
        Euid::Unavailable => {}
        _ => notes.times = None,
    }
    let home = page::Home {
        now: site.clock.now(),
        scope,
        is_choice: site.regions.second.is_some(),
        times: notes.times,
        visitor: visitor.map(|Extension(visitor)| visitor),
        operator: site.regions.of(scope).sandbox.is_some().then_some(notes.operator),
        bid_request: format!("{:#}", bid_request(&euid)),
        euid,
    };
    (Extension(home), Html(()))
}

/// The part of the bid request that describes the visitor.
fn bid_request(euid: &Euid) -> Value {
    json!({ "user": euid.eids() })
}

/// An endpoint for the site's scripts, its apps, or the ad server.
async fn identity(euid: Euid) -> Json<IdentityJson> {
    let eids = euid.eids();
    Json(IdentityJson { state: euid.state(), advertising_token: euid.advertising_token().cloned(), eids })
}

#[derive(Serialize)]
struct IdentityJson {
    state: &'static str,
    advertising_token: Option<AdvertisingToken>,
    /// The member `eids` of a bid request, if there is a token.
    #[serde(flatten)]
    eids: Eids,
}

fn cookie_keys(scope: Scope) -> Result<KeyRing, Box<dyn Error>> {
    let name = region::setting(scope, "COOKIE_KEYS");
    if variable(&name).is_some() {
        return Ok(KeyRing::from_env(&name)?);
    }
    println!("cookies:  under a fresh key; set {name} for one that outlives a restart");
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
    use axum::body::{Body, to_bytes};
    use axum::http::header::{ACCEPT, COOKIE, HOST, SET_COOKIE};
    use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
    use axum::response::Response;
    use euid_sandbox::{Sandbox, Visitor, VisitorState};
    use tower::ServiceExt;

    use super::*;
    use crate::region::Region;
    use crate::requests::Cookies;

    pub(crate) type Tested<T = ()> = Result<T, Box<dyn Error>>;

    /// A visitor of the operator with this scope.
    fn visitor(sandboxes: &[Sandbox; 2], layer: &EuidLayer, scope: Scope, state: VisitorState) -> Tested<Visitor> {
        let sandbox = sandboxes.iter().find(|sandbox| sandbox.scope() == scope).ok_or("no sandbox")?;
        Ok(sandbox.visitor(layer, state)?)
    }

    /// The site without the buttons for the sandbox.
    pub(crate) fn app(name: &str) -> Tested<Router> {
        let (site, layer) = site(&sandboxes()?)?;
        Ok(super::app(Site { name: Some(name.to_owned()), ..site }, layer))
    }

    /// The operators of both scopes, with one clock.
    fn sandboxes() -> Tested<[Sandbox; 2]> {
        let clock = ManualClock::running();
        let [euid, uid2] = Scope::ALL.map(|scope| Sandbox::builder().scope(scope).clock(clock.clone()).build());
        Ok([euid?, uid2?])
    }

    /// A site with both regions.
    fn site([euid, uid2]: &[Sandbox; 2]) -> Tested<(Site, EuidLayer)> {
        site_of(Regions { first: region(euid)?, second: Some(region(uid2)?) }, euid.clock())
    }

    fn site_of(regions: Regions, clock: ManualClock) -> Tested<(Site, EuidLayer)> {
        let site = Site { regions: Arc::new(regions), clock, name: None, notes: Arc::default() };
        let layer = layer(&site, CookieKey::generate()?.into(), CookieConfig::default())?;
        Ok((site, layer))
    }

    fn region(sandbox: &Sandbox) -> Tested<Region> {
        let (client, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
        Ok(Region { scope: sandbox.scope(), client, sandbox: None })
    }

    /// Sends a request from the region that has this scope.
    async fn send(visitor: &mut Visitor, app: &Router, scope: Scope, path: &str, form: &str) -> Tested<Response> {
        let method = if form.is_empty() { Method::GET } else { Method::POST };
        let request = Request::builder().method(method).uri(path).header(HOST, "localhost");
        let request = request.header("x-region", region::name(scope)).header(CONTENT_TYPE, FORM);
        Ok(visitor.send(app, request.body(Body::from(form.to_owned()))?).await?)
    }

    /// The scope, if there is one, and the token of a page.
    async fn look(visitor: &mut Visitor, app: &Router, scope: Scope) -> Tested<(String, Value)> {
        let text = async |path| -> Tested<String> {
            let response = send(&mut visitor.clone(), app, scope, path, "").await?;
            Ok(String::from_utf8(to_bytes(response.into_body(), 1 << 16).await?.into())?)
        };
        let page = text("/").await?;
        let sources = Scope::ALL.map(Scope::eid_source).into_iter().filter(|source| page.contains(source));
        let identity: Value = serde_json::from_str(&text("/api/identity").await?)?;
        Ok((sources.collect(), identity["advertising_token"].clone()))
    }

    #[tokio::test]
    async fn request_log_shows_the_cookies_of_the_visitor() -> Tested {
        for scope in Scope::ALL {
            for (state, expected) in [
                (VisitorState::Absent, Cookies::None),
                (VisitorState::Fresh, Cookies::Kept),
                (VisitorState::Due, Cookies::Refreshed),
                (VisitorState::OptedOut, Cookies::Kept),
            ] {
                let sandboxes = sandboxes()?;
                let (site, layer) = site(&sandboxes)?;
                let mut visitor = visitor(&sandboxes, &layer, scope, state)?;
                let app = super::app(site.clone(), layer);
                let request = Request::get("/").header(HOST, "localhost").header("x-region", region::name(scope));
                // A cookie of a third-party script, which is not valid text.
                let request = request.header("cookie", axum::http::HeaderValue::from_bytes(b"other=\xff")?);
                visitor.send(&app, request.body(Body::empty())?).await?;
                let notes = site.notes();
                let seen: Vec<_> = notes.requests.newest_first().map(|request| request.cookies).collect();
                assert_eq!(seen, [expected], "{scope} {state:?}");
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn failed_login_ends_the_previous_identity() -> Tested {
        for scope in Scope::ALL {
            for form in ["email=not-an-address", "phone=12345", "name=", "email=other%40example.com"] {
                let sandboxes = sandboxes()?;
                let (site, layer) = site(&sandboxes)?;
                let mut visitor = visitor(&sandboxes, &layer, scope, VisitorState::Fresh)?;
                let app = super::app(site, layer);
                sandboxes.iter().for_each(|sandbox| sandbox.fault(euid_sandbox::Fault::Status(503)));
                let response = send(&mut visitor, &app, scope, "/login", form).await?;
                assert!(response.status().is_client_error() || response.status().is_server_error(), "{form}");
                assert_eq!(visitor.cookie_header(), "", "{scope} {form}");
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn each_region_has_its_own_identity_until_the_logout() -> Tested {
        for scope in Scope::ALL {
            let (here, there) = (scope.eid_source(), scope.other().eid_source());
            let sandboxes = sandboxes()?;
            let (site, layer) = site(&sandboxes)?;
            let mut visitor = visitor(&sandboxes, &layer, scope, VisitorState::Absent)?;
            let app = super::app(site, layer);

            send(&mut visitor, &app, scope, "/login", "email=ann%40example.com").await?;
            let (source, first) = look(&mut visitor, &app, scope).await?;
            assert_eq!(source, here);
            assert_eq!(look(&mut visitor, &app, scope.other()).await?, (String::new(), Value::Null));

            send(&mut visitor, &app, scope.other(), "/login", "email=ann%40example.com").await?;
            assert_eq!(look(&mut visitor, &app, scope.other()).await?.0, there);
            assert_eq!(look(&mut visitor, &app, scope).await?, (here.to_owned(), first));

            send(&mut visitor, &app, scope, "/logout", "submit=").await?;
            assert_eq!(visitor.cookie_header(), "", "{scope}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn identity_of_one_region_does_not_count_after_another_visitors_login_in_the_other() -> Tested {
        for scope in Scope::ALL {
            let sandboxes = sandboxes()?;
            let (site, layer) = site(&sandboxes)?;
            let mut visitor = visitor(&sandboxes, &layer, scope, VisitorState::Absent)?;
            let app = super::app(site, layer);
            send(&mut visitor, &app, scope, "/login", "email=ann%40example.com").await?;
            send(&mut visitor, &app, scope.other(), "/login", "email=bob%40example.com").await?;
            assert_eq!(look(&mut visitor, &app, scope).await?, (String::new(), Value::Null));
            assert_eq!(look(&mut visitor, &app, scope.other()).await?.0, scope.other().eid_source());
        }
        Ok(())
    }

    #[tokio::test]
    async fn region_is_that_of_the_header_then_of_the_visitors_choice_then_eu() -> Tested {
        let (site, layer) = site(&sandboxes()?)?;
        let app = super::app(site, layer);
        for (header, choice, expected) in [
            ("", "", "EUID in the EU"),
            ("us", "", "UID2 in the US"),
            ("", "us", "UID2 in the US"),
            ("eu", "us", "EUID in the EU"),
            ("us", "eu", "UID2 in the US"),
            ("mars", "us", "UID2 in the US"),
            ("US", "mars", "EUID in the EU"),
        ] {
            let request = Request::get("/").header(HOST, "localhost").header("x-region", header);
            let request = request.header(COOKIE, format!("a=b; demo-region={choice}")).body(Body::empty())?;
            let page = to_bytes(app.clone().oneshot(request).await?.into_body(), 1 << 16).await?;
            assert!(String::from_utf8(page.into())?.contains(expected), "{header:?} {choice:?}");
        }
        for (choice, status, cookie) in
            [("us", 303, Some("demo-region=us; HttpOnly; SameSite=Lax; Path=/")), ("mars", 400, None)]
        {
            let request = Request::post("/region").header(HOST, "localhost").header(CONTENT_TYPE, FORM);
            let response = app.clone().oneshot(request.body(Body::from(format!("region={choice}")))?).await?;
            assert_eq!(response.status(), status, "{choice}");
            assert_eq!(response.headers().get(SET_COOKIE).map(|cookie| cookie.to_str().unwrap()), cookie);
        }
        Ok(())
    }

    #[tokio::test]
    async fn site_with_one_operator_has_its_scope_in_every_region() -> Tested {
        for sandbox in sandboxes()? {
            let scope = sandbox.scope();
            let (site, layer) = site_of(Regions { first: region(&sandbox)?, second: None }, sandbox.clock())?;
            let mut visitor = sandbox.visitor(&layer, VisitorState::Absent)?;
            let app = super::app(site, layer);
            for region in Scope::ALL {
                send(&mut visitor, &app, region, "/login", "email=ann%40example.com").await?;
                assert_eq!(look(&mut visitor, &app, region.other()).await?.0, scope.eid_source());
            }
            assert_eq!(send(&mut visitor, &app, scope, "/region", "region=us").await?.status(), 404);
        }
        Ok(())
    }

    /// Sends a request of an app, which keeps the headers of each response.
    async fn send_from_app(state: &mut HeaderMap, app: &Router, path: &str, form: &str) -> Tested<Value> {
        let method = if form.is_empty() { Method::GET } else { Method::POST };
        let mut request = Request::builder().method(method).uri(path).body(Body::from(form.to_owned()))?;
        *request.headers_mut() = state.clone();
        let site = [(HOST, "localhost"), (CONTENT_TYPE, FORM), (ACCEPT, "application/json")];
        request.headers_mut().extend(site.map(|(name, value)| (name, HeaderValue::from_static(value))));
        let response = app.clone().oneshot(request).await?;
        assert!(response.status().is_success(), "{path}: {}", response.status());
        let beginning = |name: &HeaderName| name.as_str().split('-').next().and_then(|word| word.parse::<Scope>().ok());
        for (name, value) in response.headers().iter().filter(|(name, _)| beginning(name).is_some()) {
            state.insert(name, value.clone());
        }
        let body = to_bytes(response.into_body(), 1 << 16).await?;
        Ok(if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? })
    }

    #[tokio::test]
    async fn app_keeps_its_state_in_headers_and_gets_no_redirect() -> Tested {
        for sandbox in sandboxes()? {
            let scope = sandbox.scope();
            let (site, layer) = site_of(Regions { first: region(&sandbox)?, second: None }, sandbox.clock())?;
            let app = super::app(site, layer);
            let mut state = HeaderMap::new();
            let login = HeaderName::try_from(format!("{scope}-login"))?;
            state.insert(login.clone(), HeaderValue::from_static(""));

            send_from_app(&mut state, &app, "/login", "email=ann%40example.com").await?;
            assert_eq!(state[&login].len(), 22, "{scope}");
            let page = send_from_app(&mut state, &app, "/api/identity", "").await?;
            assert_eq!(page["eids"][0]["uids"][0]["id"], page["advertising_token"]);
            assert_eq!(page["eids"][0]["source"], scope.eid_source());

            send_from_app(&mut state, &app, "/logout", "submit=").await?;
            assert!(state.values().all(HeaderValue::is_empty), "{state:?}");
            assert_eq!(send_from_app(&mut state, &app, "/api/identity", "").await?["state"], "absent");
        }
        Ok(())
    }

    #[tokio::test]
    async fn buttons_control_the_operator_of_the_region() -> Tested {
        for scope in Scope::ALL {
            let clock = ManualClock::running();
            let [euid, uid2] = Scope::ALL.map(|scope| Region::embedded(scope, &clock));
            let (site, layer) = site_of(Regions { first: euid.await?, second: Some(uid2.await?) }, clock)?;
            let mut visitor = visitor(&sandboxes()?, &layer, scope, VisitorState::Absent)?;
            let app = super::app(site, layer);
            send(&mut visitor, &app, scope, "/login", "email=ann%40example.com").await?;
            assert_eq!(send(&mut visitor, &app, scope, "/sandbox/opt-out", "submit=").await?.status(), 303);
            send(&mut visitor, &app, scope, "/sandbox/operator", "operator=down").await?;
            assert_eq!(send(&mut visitor, &app, scope, "/login", "email=ann%40example.com").await?.status(), 503);
            send(&mut visitor, &app, scope, "/sandbox/operator", "operator=up").await?;
            for (region, source) in [(scope, ""), (scope.other(), scope.other().eid_source())] {
                send(&mut visitor, &app, region, "/login", "email=ann%40example.com").await?;
                assert_eq!(look(&mut visitor, &app, region).await?.0, source, "opted out of {scope}");
            }
        }
        Ok(())
    }

    const FORM: &str = "application/x-www-form-urlencoded";
}
