//! A site with sessions of its own and a consent of its own: identities are bound to who is signed in, and
//! generated with consent only.
//!
//! ```console
//! $ cargo run --example sandbox_operator --features sandbox    # prints three variables; set them here too
//! $ export $(cargo run -q --example keygen)                    # EUID_COOKIE_KEYS
//! $ cargo run --example site
//! $ curl -b jar -c jar -d choice=yes http://127.0.0.1:3002/consent
//! $ curl -b jar -c jar -d email=user@example.com http://127.0.0.1:3002/login
//! $ curl -b jar -c jar http://127.0.0.1:3002/
//! user@example.com: active
//! $ curl -b jar -c jar http://127.0.0.1:3002/bid
//! {"imp":[{"id":"1"}],"user":{"eids":[{"source":"euid.eu",…}]}}
//! ```
//!
//! Put `tower_http::csrf` around it too: another site must not log a visitor in or out, or consent for them.
//! The order of the two layers matters: the EUID layer's hooks see what the session layer, further out, has
//! put into the request.

use std::collections::HashMap;
use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Form, Request, State};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode, request};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use tower_euid::openrtb::{Eids, MatchMethod};
use tower_euid::{Consent, Dii, Euid, EuidClient, EuidLayer, EuidUpdate};

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
    let (client, layer) = tower_euid::from_env()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3002").await?;
    println!("http://{}/", listener.local_addr()?);
    Ok(axum::serve(listener, app(client, layer)).await?)
}

fn app(client: EuidClient, layer: EuidLayer) -> Router {
    let site = Site { client, sessions: Arc::default() };
    let layer = layer.consent(consent).bind(|request| request.extensions.get::<User>().map(|user| user.0.clone()));
    Router::new()
        .route("/", get(page))
        .route("/bid", get(bid))
        .route("/consent", post(choose))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .layer(layer)
        .layer(from_fn_with_state(site.clone(), session))
        .with_state(site)
}

#[derive(Clone)]
struct Site {
    client: EuidClient,
    sessions: Arc<Mutex<HashMap<String, User>>>,
}

/// Who is signed in, by their address.
#[derive(Clone)]
struct User(String);

impl Site {
    fn sessions(&self) -> MutexGuard<'_, HashMap<String, User>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Generates for who is signed in, bound to them. What the handler says if there is nothing to say.
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
    let user = cookie(request.headers(), "sid").and_then(|sid| site.sessions().get(sid).cloned());
    if let Some(user) = user {
        request.extensions_mut().insert(user);
    }
    next.run(request).await
}

fn consent(request: &request::Parts) -> Consent {
    match cookie(&request.headers, "consent") {
        Some("yes") => Consent::Granted,
        Some(_) => Consent::Withdrawn,
        None => Consent::Withheld,
    }
}

/// Signed in, consenting and without an identity: they get one here, and not on each page.
async fn page(State(site): State<Site>, euid: Euid, user: Option<Extension<User>>) -> Response {
    let Some(Extension(user)) = user else { return format!("nobody: {}\n", euid.state()).into_response() };
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

/// A real site checks here who they are: this one takes their word for it.
async fn login(State(site): State<Site>, headers: HeaderMap, Form(Login { email }): Form<Login>) -> Response {
    if Dii::email(&email).is_err() {
        return (StatusCode::BAD_REQUEST, "please check the address\n").into_response();
    }
    let (user, mut random) = (User(email), [0; 16]);
    if getrandom::fill(&mut random).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let sid = format!("{:032x}", u128::from_ne_bytes(random));
    let consents = cookie(&headers, "consent") == Some("yes");
    let update = if consents { site.generate(&user).await } else { None };
    // Nobody goes on in the session of whoever was here before.
    let mut sessions = site.sessions();
    cookie(&headers, "sid").map(|old| sessions.remove(old));
    sessions.insert(sid.clone(), user);
    drop(sessions);
    // Whoever was here before must not stand for them.
    let update = update.unwrap_or_else(EuidUpdate::logout);
    (update, [(SET_COOKIE, format!("sid={sid}; Secure; HttpOnly; SameSite=Lax; Path=/"))], Redirect::to("/"))
        .into_response()
}

async fn logout(State(site): State<Site>, headers: HeaderMap) -> impl IntoResponse {
    if let Some(sid) = cookie(&headers, "sid") {
        site.sessions().remove(sid);
    }
    (EuidUpdate::logout(), [(SET_COOKIE, "sid=; Max-Age=0; Secure; HttpOnly; SameSite=Lax; Path=/")], Redirect::to("/"))
}

#[derive(serde::Deserialize)]
struct Choice {
    choice: String,
}

async fn choose(Form(Choice { choice }): Form<Choice>) -> Response {
    let consents = choice == "yes";
    let choice = if consents { "yes" } else { "no" };
    let cookie = format!("consent={choice}; Max-Age=15552000; Secure; HttpOnly; SameSite=Lax; Path=/");
    let response = ([(SET_COOKIE, cookie)], Redirect::to("/"));
    // Withdrawn, the identity ends with this very answer.
    if consents { response.into_response() } else { (EuidUpdate::logout(), response).into_response() }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|all| all.split("; "));
    pairs.filter_map(|pair| pair.split_once('=')).find(|(other, _)| *other == name).map(|(_, value)| value)
}

#[cfg(all(test, feature = "sandbox"))]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::header::CONTENT_TYPE;
    use tower_euid::sandbox::{Sandbox, Visitor, VisitorState};

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
            let (client, layer) = sandbox.client_and_layer()?;
            let visitor = sandbox.visitor(&layer, VisitorState::Absent)?;
            Ok(Self { app: app(client, layer), sandbox, visitor })
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

        fn generated(&self) -> u64 {
            self.sandbox.calls().generate
        }
    }

    #[tokio::test]
    async fn nobody_is_generated_for_without_consent() -> Tested {
        let mut browser = Browser::new()?;
        browser.submit("/login", "email=ann@example.com").await?;
        assert_eq!(browser.look().await?, "ann@example.com: withheld");
        browser.submit("/consent", "choice=no").await?;
        assert_eq!(browser.look().await?, "ann@example.com: withheld");
        assert_eq!(browser.generated(), 0);
        browser.submit("/consent", "choice=yes").await?;
        browser.look().await?;
        assert_eq!((browser.look().await?, browser.generated()), ("ann@example.com: active".to_owned(), 1));
        Ok(())
    }

    #[tokio::test]
    async fn consent_withdrawn_ends_the_identity() -> Tested {
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
    async fn the_next_user_of_the_browser_gets_an_identity_of_their_own() -> Tested {
        let mut browser = Browser::new()?;
        browser.submit("/consent", "choice=yes").await?;
        browser.submit("/login", "email=ann@example.com").await?;
        browser.submit("/logout", "").await?;
        assert_eq!(browser.look().await?, "nobody: absent");
        browser.submit("/login", "email=bob@example.com").await?;
        assert_eq!((browser.look().await?, browser.generated()), ("bob@example.com: active".to_owned(), 2));
        Ok(())
    }
}
