//! A site with its own sessions and its own consent dialog. It binds each identity to the signed-in user, and generates
//! identities only with consent.
//!
//! ```console
//! $ cargo run -p euid-sidecar -- sandbox   # prints three variables; set them for this example too
//! $ export $(cargo run -qp euid-sidecar -- keygen)   # EUID_COOKIE_KEYS
//! $ cargo run --example site
//! $ curl -b jar -c jar -d choice=yes http://127.0.0.1:3002/consent
//! $ curl -b jar -c jar -d email=user@example.com http://127.0.0.1:3002/login
//! $ curl -b jar -c jar http://127.0.0.1:3002/
//! user@example.com: active
//! $ curl -b jar -c jar http://127.0.0.1:3002/bid
//! {"imp":[{"id":"1"}],"user":{"eids":[{"source":"euid.eu",…}]}}
//! ```
//!
//! The order of the layers matters. The session layer is outside the EUID layer, so that the EUID layer's hooks see the user
//! that it has put into the request. The outermost layer protects against requests that other sites make the browser send:
//! they must not log a visitor in or out, or consent for them.
//!
//! The site reads cookies as bytes. Otherwise a third-party cookie that is not ASCII could hide the session from a logout.

use std::collections::HashMap;
use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Form, Request, State};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode, request};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use tower_euid::clock::{Clock, SystemClock, UnixMillis};
use tower_euid::openrtb::{Eids, MatchMethod};
use tower_euid::{Consent, Dii, Euid, EuidClient, EuidLayer, EuidUpdate};
use tower_http::csrf::CsrfLayer;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("site: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let (client, layer) = tower_euid::from_env()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3002").await?;
    println!("http://{}/", listener.local_addr()?);
    Ok(axum::serve(listener, app(client, layer, SystemClock)).await?)
}

fn app(client: EuidClient, layer: EuidLayer, clock: impl Clock) -> Router {
    let site = Site { client, clock: Arc::new(clock), sessions: Arc::default() };
    let layer = layer.consent(consent).subject(|request| request.extensions.get::<User>().map(|user| user.0.clone()));
    Router::new()
        .route("/", get(page))
        .route("/bid", get(bid))
        .route("/consent", post(choose))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .layer(layer)
        .layer(from_fn_with_state(site.clone(), session))
        .layer(CsrfLayer::new())
        .with_state(site)
}

#[derive(Clone)]
struct Site {
    client: EuidClient,
    clock: Arc<dyn Clock>,
    /// The sessions, by the value of the session cookie.
    sessions: Arc<Mutex<HashMap<Vec<u8>, Session>>>,
}

struct Session {
    user: User,
    ends: UnixMillis,
}

/// The signed-in user, by their address.
#[derive(Clone)]
struct User(String);

impl Site {
    fn sessions(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signed_in(&self, headers: &HeaderMap) -> Option<User> {
        let (sessions, now) = (self.sessions(), self.clock.now());
        let session = cookies(headers, SESSION).find_map(|id| sessions.get(id))?;
        (now < session.ends).then(|| session.user.clone())
    }

    /// Begins a session and returns its cookie. Removes the sessions that have ended.
    fn begin_session(&self, user: User) -> Result<String, getrandom::Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let id = format!("{:032x}", u128::from_ne_bytes(random));
        let (mut sessions, now) = (self.sessions(), self.clock.now());
        sessions.retain(|_, session| now < session.ends);
        sessions.insert(id.clone().into(), Session { user, ends: now.saturating_add(SESSION_LASTS) });
        Ok(set_cookie(SESSION, &id, SESSION_LASTS))
    }

    fn end_session(&self, headers: &HeaderMap) {
        let mut sessions = self.sessions();
        cookies(headers, SESSION).for_each(|id| drop(sessions.remove(id)));
    }

    /// Generates an identity for the signed-in user and binds it to them. `None` if there is no identity to write.
    async fn generate(&self, User(address): &User) -> Option<EuidUpdate> {
        match self.client.generate(Dii::email(address).ok()?).await {
            Ok(generated) => Some(EuidUpdate::from(generated).subject(address)),
            Err(error) => {
                eprintln!("no EUID: {:?}: {error}", error.kind());
                None
            }
        }
    }
}

async fn session(State(site): State<Site>, mut request: Request, next: Next) -> Response {
    if let Some(user) = site.signed_in(request.headers()) {
        request.extensions_mut().insert(user);
    }
    next.run(request).await
}

fn consent(request: &request::Parts) -> Consent {
    match cookies(&request.headers, CONSENT).next() {
        Some(b"yes") => Consent::Granted,
        Some(_) => Consent::Withdrawn,
        None => Consent::Withheld,
    }
}

/// Generates an identity for a user who is signed in, consents and has none.
async fn page(State(site): State<Site>, euid: Euid, user: Option<Extension<User>>) -> Response {
    let Some(Extension(user)) = user else { return format!("signed out: {}\n", euid.state()).into_response() };
    let text = format!("{}: {}\n", user.0, euid.state());
    let update = if matches!(euid, Euid::Absent) { site.generate(&user).await } else { None };
    match update {
        Some(update) => (update, text).into_response(),
        None => text.into_response(),
    }
}

async fn bid(euid: Euid) -> Json<Value> {
    let eid = euid.eid().map(|eid| eid.inserter("site.example").mm(MatchMethod::Authenticated));
    Json(json!({ "imp": [{ "id": "1" }], "user": Eids::from(eid) }))
}

#[derive(serde::Deserialize)]
struct Login {
    email: String,
}

/// A real site authenticates the person here. This one trusts the address.
async fn login(State(site): State<Site>, headers: HeaderMap, Form(Login { email }): Form<Login>) -> Response {
    if Dii::email(&email).is_err() {
        // The previous session goes on, because no other person has logged in.
        return (StatusCode::BAD_REQUEST, "please check the address\n").into_response();
    }
    // A login ends the session and the identity of the previous person.
    site.end_session(&headers);
    let user = User(email);
    let consents = cookies(&headers, CONSENT).next() == Some(b"yes");
    let update = if consents { site.generate(&user).await } else { None };
    let update = update.unwrap_or_else(EuidUpdate::logout);
    match site.begin_session(user) {
        Ok(cookie) => (update, [(SET_COOKIE, cookie)], Redirect::to("/")).into_response(),
        Err(_) => (EuidUpdate::logout(), StatusCode::INTERNAL_SERVER_ERROR).into_response(),
    }
}

async fn logout(State(site): State<Site>, headers: HeaderMap) -> impl IntoResponse {
    site.end_session(&headers);
    (EuidUpdate::logout(), [(SET_COOKIE, set_cookie(SESSION, "", Duration::ZERO))], Redirect::to("/"))
}

#[derive(serde::Deserialize)]
struct Choice {
    choice: String,
}

async fn choose(Form(Choice { choice }): Form<Choice>) -> Response {
    let consents = choice == "yes";
    let cookie = set_cookie(CONSENT, if consents { "yes" } else { "no" }, CONSENT_LASTS);
    let response = ([(SET_COOKIE, cookie)], Redirect::to("/"));
    // If consent is withdrawn, this response ends the identity.
    if consents { response.into_response() } else { (EuidUpdate::logout(), response).into_response() }
}

/// The values of the cookies with this name.
fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// Because of the prefix `__Host-`, other hosts and plain http cannot set the cookie.
fn set_cookie(name: &str, value: &str, lasts: Duration) -> String {
    format!("{name}={value}; Max-Age={}; Secure; HttpOnly; SameSite=Lax; Path=/", lasts.as_secs())
}

const SESSION: &str = "__Host-session";
const SESSION_LASTS: Duration = Duration::from_secs(12 * 3600);
const CONSENT: &str = "__Host-consent";
const CONSENT_LASTS: Duration = Duration::from_secs(180 * 86_400);

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::header::CONTENT_TYPE;
    use euid_sandbox::{Sandbox, Visitor, VisitorState};
    use tower::ServiceExt;

    use super::*;

    type Tested<T = ()> = Result<T, Box<dyn Error>>;

    struct Browser {
        sandbox: Sandbox,
        app: Router,
        visitor: Visitor,
    }

    impl Browser {
        fn new() -> Tested<Self> {
            let sandbox = Sandbox::builder().build()?;
            let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
            let visitor = sandbox.visitor(&layer, VisitorState::Absent)?;
            Ok(Self { app: app(client, layer, sandbox.clock()), sandbox, visitor })
        }

        async fn look(&mut self) -> Tested<String> {
            let response = self.visitor.send(&self.app, Request::get("/").body(Body::empty())?).await?;
            Ok(String::from_utf8(to_bytes(response.into_body(), 1024).await?.into())?.trim_end().to_owned())
        }

        async fn submit(&mut self, path: &str, form: &'static str) -> Tested {
            let request = Request::post(path).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            self.visitor.send(&self.app, request.body(Body::from(form))?).await?;
            Ok(())
        }

        fn generate_calls(&self) -> u64 {
            self.sandbox.calls().generate
        }
    }

    #[tokio::test]
    async fn identity_is_generated_only_with_consent() -> Tested {
        let mut browser = Browser::new()?;
        browser.submit("/login", "email=ann@example.com").await?;
        assert_eq!(browser.look().await?, "ann@example.com: withheld");
        browser.submit("/consent", "choice=no").await?;
        assert_eq!(browser.look().await?, "ann@example.com: withheld");
        assert_eq!(browser.generate_calls(), 0);
        browser.submit("/consent", "choice=yes").await?;
        browser.look().await?;
        assert_eq!((browser.look().await?, browser.generate_calls()), ("ann@example.com: active".to_owned(), 1));
        Ok(())
    }

    #[tokio::test]
    async fn withdrawn_consent_ends_the_identity() -> Tested {
        let mut browser = Browser::new()?;
        browser.submit("/consent", "choice=yes").await?;
        browser.submit("/login", "email=ann@example.com").await?;
        assert_eq!(browser.look().await?, "ann@example.com: active");
        browser.submit("/consent", "choice=no").await?;
        browser.look().await?;
        assert!(!browser.visitor.cookie_header().contains("euid"));
        Ok(())
    }

    #[tokio::test]
    async fn next_user_of_the_browser_gets_their_own_identity() -> Tested {
        let mut browser = Browser::new()?;
        browser.submit("/consent", "choice=yes").await?;
        browser.submit("/login", "email=ann@example.com").await?;
        browser.submit("/logout", "").await?;
        assert_eq!(browser.look().await?, "signed out: absent");
        browser.submit("/login", "email=bob@example.com").await?;
        assert_eq!((browser.look().await?, browser.generate_calls()), ("bob@example.com: active".to_owned(), 2));
        Ok(())
    }

    #[tokio::test]
    async fn session_ends_after_twelve_hours_and_the_identity_is_not_used() -> Tested {
        let mut browser = Browser::new()?;
        browser.submit("/consent", "choice=yes").await?;
        browser.submit("/login", "email=ann@example.com").await?;
        browser.sandbox.advance(SESSION_LASTS - Duration::from_secs(60));
        assert_eq!(browser.look().await?, "ann@example.com: active");
        browser.sandbox.advance(Duration::from_secs(60));
        assert_eq!(browser.look().await?, "signed out: absent");
        Ok(())
    }

    #[tokio::test]
    async fn logout_ends_the_session_despite_any_other_cookie() -> Tested {
        let mut browser = Browser::new()?;
        browser.submit("/login", "email=ann@example.com").await?;
        let kept = browser.visitor.clone();
        let cookies = [b"city=K\xf6ln;", browser.visitor.cookie_header().as_bytes()].concat();
        let request = Request::post("/logout").header(COOKIE, cookies).body(Body::empty())?;
        browser.app.clone().oneshot(request).await?;
        browser.visitor = kept;
        assert_eq!(browser.look().await?, "signed out: withheld");
        Ok(())
    }

    #[tokio::test]
    async fn other_sites_can_neither_log_in_nor_log_out_nor_consent() -> Tested {
        let mut browser = Browser::new()?;
        browser.submit("/login", "email=ann@example.com").await?;
        for (path, form) in [("/login", "email=eve@example.com"), ("/logout", ""), ("/consent", "choice=yes")] {
            let request = Request::post(path).header("sec-fetch-site", "cross-site");
            let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(Body::from(form))?;
            let response = browser.visitor.send(&browser.app, request).await?;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
        }
        assert_eq!(browser.look().await?, "ann@example.com: withheld");
        Ok(())
    }

    #[tokio::test]
    async fn cookies_of_the_site_are_host_cookies() -> Tested {
        let mut browser = Browser::new()?;
        browser.submit("/consent", "choice=yes").await?;
        browser.submit("/login", "email=ann@example.com").await?;
        let cookies = browser.visitor.cookie_header();
        assert_eq!(cookies.split("; ").filter(|cookie| cookie.starts_with("__Host-")).count(), 4, "{cookies}");
        assert_eq!(cookies.split("; ").count(), 4, "{cookies}");
        Ok(())
    }
}
