//! A site with axum-login: its session layer, its login, consent, and an identity that is bound to the signed-in user.
//!
//! ```console
//! $ cargo run --example axum_login
//! $ tcf='cookie: euconsent-v2=CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA' # as a consent banner writes it
//! $ curl -H "$tcf" -c jar -d 'email=ann@example.com&password=secret&agrees=on' http://localhost:3004/login
//! $ curl -H "$tcf" -b jar -c jar http://localhost:3004/
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, request};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Router, serve};
use axum_login::{AuthManagerLayerBuilder, AuthSession, AuthUser, AuthnBackend};
use tower_euid::{Consent, Dii, Euid, EuidClient, EuidLayer, EuidUpdate, tcf};
use tower_sessions::{MemoryStore, SessionManagerLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, layer) = euid_wiring::stand_in()?; // in production: `tower_euid::from_env()?`
    let listener = tokio::net::TcpListener::bind("localhost:3004").await?;
    println!("http://localhost:3004/");
    Ok(serve(listener, app(client, layer)).await?)
}

/// Each layer is outside those above it. `sign_in` contains the session layer. It is outside the EUID layer, because the
/// hooks read the user that it has put into the request.
fn app(client: EuidClient, layer: EuidLayer) -> Router {
    let sessions = SessionManagerLayer::new(MemoryStore::default());
    let sign_in = AuthManagerLayerBuilder::new(Users::default(), sessions).build();
    Router::new()
        .route("/", get(page))
        .route("/login", get(form).post(login))
        .route("/logout", post(logout))
        .layer(layer.subject(signed_in).consent(consent))
        .layer(sign_in)
        .with_state(client)
}

fn user(request: &request::Parts) -> Option<&User> {
    request.extensions.get::<AuthSession<Users>>()?.user.as_ref()
}

fn signed_in(request: &request::Parts) -> Option<String> {
    Some(user(request)?.id().to_string())
}

/// The banner's string does not say that the visitor agreed to an EUID: the user's own answer does.
fn consent(request: &request::Parts) -> Consent {
    match user(request) {
        // Not `Withdrawn`: under that the layer writes no login, and the user may agree in this very request.
        Some(user) if !user.agrees => Consent::Withheld,
        _ => tcf::consent(&request.headers),
    }
}

async fn page(euid: Euid) -> String {
    euid.advertising_token().map_or(euid.state().to_owned(), ToString::to_string)
}

async fn form() -> Html<&'static str> {
    Html(
        r#"<form method=post>
            <input name=email type=email> <input name=password type=password>
            <label><input name=agrees type=checkbox> You may make an EUID from my address, for advertising.</label>
            <button>Sign in</button>
        </form>"#,
    )
}

async fn login(
    State(client): State<EuidClient>,
    mut session: AuthSession<Users>,
    headers: HeaderMap,
    Form(credentials): Form<Credentials>,
) -> Result<Response, StatusCode> {
    let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
    // With a wrong password the previous user stays signed in, and the identity stays.
    let user = session.authenticate(credentials).await.map_err(failed)?.ok_or(StatusCode::UNAUTHORIZED)?;
    session.login(&user).await.map_err(failed)?;
    let update = euid_of(&user, &headers, &client).await.unwrap_or_else(EuidUpdate::logout);
    // The same id as in `signed_in`.
    Ok((update.subject(user.id().to_string()), Redirect::to("/")).into_response())
}

/// Returns the update for a login; `None` without consent, or if `generate` fails. It reads the user's answer in this login,
/// which the hook does not see yet.
///
/// For `None` the site ends the previous identity, because it may be another person's. "A failed login" in `failures.md` says
/// when you may leave that out. If `generate` failed, a later page can generate again: "Signed in and `Absent`", in the same
/// file.
///
/// `generate` waits up to 5 s for an operator that hangs: see the README.
async fn euid_of(user: &User, headers: &HeaderMap, client: &EuidClient) -> Option<EuidUpdate> {
    if !user.agrees || tcf::consent(headers) != Consent::Granted {
        return None;
    }
    let dii = Dii::email(user.email).ok()?;
    Some(client.generate(dii).await.ok()?.into())
}

/// Ends both. If the session store fails, the identity ends all the same.
async fn logout(mut session: AuthSession<Users>) -> Response {
    match session.logout().await {
        Ok(_) => (EuidUpdate::logout(), Redirect::to("/")).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, EuidUpdate::logout()).into_response(),
    }
}

// What the site has already: its users.

#[derive(Clone, Debug)]
struct User {
    id: i64,
    email: &'static str,
    password: &'static str,
    /// The answer at the last login. A real site also keeps its time and the text.
    agrees: bool,
}

impl AuthUser for User {
    type Id = i64;

    fn id(&self) -> i64 {
        self.id
    }

    fn session_auth_hash(&self) -> &[u8] {
        self.password.as_bytes()
    }
}

#[derive(serde::Deserialize)]
struct Credentials {
    email: String,
    password: String,
    /// A browser sends nothing for a checkbox that is not ticked.
    agrees: Option<String>,
}

#[derive(Clone)]
struct Users(Arc<Mutex<[User; 2]>>);

impl AuthnBackend for Users {
    type User = User;
    type Credentials = Credentials;
    type Error = Infallible;

    async fn authenticate(&self, given: Credentials) -> Result<Option<User>, Infallible> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = users.iter_mut().find(|user| user.email == given.email && user.password == given.password);
        Ok(found.map(|user| {
            user.agrees = given.agrees.is_some();
            user.clone()
        }))
    }

    async fn get_user(&self, id: &i64) -> Result<Option<User>, Infallible> {
        let users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(users.iter().find(|user| user.id == *id).cloned())
    }
}

impl Default for Users {
    fn default() -> Self {
        let user = |id, email| User { id, email, password: "secret", agrees: false };
        Self(Arc::new(Mutex::new([user(1, "ann@example.com"), user(2, "bob@example.com")])))
    }
}

#[cfg(test)]
mod tests {
    use euid_wiring::{ANN, BOB, Browser, TC_STRING, Tested, visit};

    use super::*;

    #[tokio::test]
    async fn each_person_sees_their_own_token_from_login_to_logout() -> Tested {
        visit(Browser::new(app)?).await
    }

    /// The value of the session cookie, and all other cookies.
    fn session_and_rest(cookies: &str) -> (String, String) {
        let (session, rest): (Vec<_>, Vec<_>) = cookies.split("; ").partition(|cookie| cookie.starts_with("id="));
        (session.join("; "), rest.join("; "))
    }

    #[tokio::test]
    async fn session_of_another_user_never_shows_the_token() -> Tested {
        let mut browser = Browser::new(app)?;
        let mut browser_of_bob = browser.clone();
        browser_of_bob.login(BOB).await?;
        let (session_of_bob, _) = session_and_rest(&browser_of_bob.visitor.cookie_header());
        browser.login(ANN).await?;

        let (session_of_ann, identity_of_ann) = session_and_rest(&browser.visitor.cookie_header());
        for (session, token_expected) in [(session_of_ann, true), (session_of_bob, false), (String::new(), false)] {
            let request = http::Request::get("/")
                .header("cookie", format!("{session}; {identity_of_ann}; euconsent-v2={TC_STRING}"));
            let response = tower::ServiceExt::oneshot(browser.app.clone(), request.body(String::new())?).await?;
            let text = axum::body::to_bytes(response.into_body(), 4096).await?;
            assert_eq!(text != "absent", token_expected, "{session}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn wrong_password_changes_nothing() -> Tested {
        let mut browser = Browser::new(app)?;
        browser.login(ANN).await?;
        let token = browser.look().await?;
        assert_eq!(browser.submit("/login", "email=bob@example.com&password=guess&agrees=on").await?, 401);
        assert_eq!(browser.look().await?, token);
        Ok(())
    }

    #[tokio::test]
    async fn logout_ends_the_session_and_the_identity() -> Tested {
        let mut browser = Browser::new(app)?;
        browser.login(ANN).await?;
        let before = browser.visitor.clone();
        browser.submit("/logout", "").await?;
        assert_eq!(browser.visitor.cookie_header(), "");
        // The session has ended on the server, too.
        browser.visitor = before;
        assert_eq!(browser.look().await?, "absent");
        Ok(())
    }

    #[tokio::test]
    async fn token_needs_the_banner_and_the_answer_of_the_user() -> Tested {
        let mut browser = Browser::new(app)?;
        let without_answer = format!("email={ANN}&password=secret");
        browser.submit("/login", &without_answer).await?;
        assert_eq!(browser.look().await?, "withheld");

        browser.login(ANN).await?;
        let token = browser.look().await?;
        assert!(browser.is_token_of(&token, ANN).await?);

        browser.submit("/login", &without_answer).await?;
        assert_eq!(browser.look().await?, "withheld");
        assert!(!browser.visitor.cookie_header().contains("euid."));

        browser.tc_string = "CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA"; // purpose 1 refused
        browser.login(ANN).await?;
        assert_eq!(browser.look().await?, "withheld");
        assert_eq!(browser.sandbox.calls().generate, 1);
        Ok(())
    }
}
