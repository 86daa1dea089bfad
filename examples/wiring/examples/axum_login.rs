//! A site with axum-login: its session layer, its login, and an identity that is bound to the signed-in user.
//!
//! ```console
//! $ cargo run --example axum_login
//! $ curl -c jar -d 'email=ann@example.com&password=secret' http://localhost:3004/login
//! $ curl -b jar -c jar http://localhost:3004/
//! ```

use std::convert::Infallible;
use std::error::Error;

use axum::extract::{Form, State};
use axum::http::{StatusCode, request};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Router, serve};
use axum_login::{AuthManagerLayerBuilder, AuthSession, AuthUser, AuthnBackend};
use tower_euid::{Dii, Euid, EuidClient, EuidLayer, EuidUpdate};
use tower_sessions::{MemoryStore, SessionManagerLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, layer) = euid_wiring::stand_in()?; // in production: `tower_euid::from_env()?`
    let listener = tokio::net::TcpListener::bind("localhost:3004").await?;
    println!("http://localhost:3004/");
    Ok(serve(listener, app(client, layer)).await?)
}

/// Each layer is outside those above it. `sign_in` contains the session layer. It is outside the EUID layer, because the
/// hook `signed_in` reads the user that it has put into the request.
fn app(client: EuidClient, layer: EuidLayer) -> Router {
    let sessions = SessionManagerLayer::new(MemoryStore::default());
    let sign_in = AuthManagerLayerBuilder::new(Users, sessions).build();
    Router::new()
        .route("/", get(page))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .layer(layer.subject(signed_in))
        .layer(sign_in)
        .with_state(client)
}

fn signed_in(request: &request::Parts) -> Option<String> {
    let user = request.extensions.get::<AuthSession<Users>>()?.user.as_ref()?;
    Some(user.id().to_string())
}

async fn page(euid: Euid) -> String {
    euid.advertising_token().map_or(euid.state().to_owned(), ToString::to_string)
}

/// A real site asks for consent before it generates.
async fn login(
    State(client): State<EuidClient>,
    mut session: AuthSession<Users>,
    Form(credentials): Form<Credentials>,
) -> Result<Response, StatusCode> {
    let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
    // With a wrong password the previous user stays signed in, and the identity stays.
    let user = session.authenticate(credentials).await.map_err(failed)?.ok_or(StatusCode::UNAUTHORIZED)?;
    session.login(&user).await.map_err(failed)?;
    // `generate` waits up to 5 s for an operator that hangs: see the README.
    // The previous identity ends even if there is no new one, because it may be another person's: the hook `signed_in`
    // ran before this login. The same user gets a new one on a later page: "Signed in and `Absent`" in `failures.md`.
    let update = match Dii::email(user.email) {
        Ok(dii) => client.generate(dii).await.map_or_else(|_| EuidUpdate::logout(), EuidUpdate::from),
        Err(_) => EuidUpdate::logout(),
    };
    // The same id as in `signed_in`.
    Ok((update.subject(user.id().to_string()), Redirect::to("/")).into_response())
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
}

#[derive(Clone)]
struct Users;

impl AuthnBackend for Users {
    type User = User;
    type Credentials = Credentials;
    type Error = Infallible;

    async fn authenticate(&self, Credentials { email, password }: Credentials) -> Result<Option<User>, Infallible> {
        Ok(USERS.iter().find(|user| user.email == email && user.password == password).cloned())
    }

    async fn get_user(&self, id: &i64) -> Result<Option<User>, Infallible> {
        Ok(USERS.iter().find(|user| user.id == *id).cloned())
    }
}

static USERS: [User; 2] = [
    User { id: 1, email: "ann@example.com", password: "secret" },
    User { id: 2, email: "bob@example.com", password: "secret" },
];

#[cfg(test)]
mod tests {
    use euid_wiring::{ANN, BOB, Browser, Tested, visit};

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
            let request = http::Request::get("/").header("cookie", format!("{session}; {identity_of_ann}"));
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
        assert_eq!(browser.submit("/login", "email=bob@example.com&password=guess").await?, 401);
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
}
