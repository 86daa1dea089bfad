//! A site on Leptos, rendered on the server by leptos_axum. It needs no cargo-leptos; a site with scripts is built by it as
//! before.
//!
//! ```console
//! $ cargo run --example leptos_site
//! $ curl -c jar -d email=ann@example.com http://localhost:3008/login
//! $ curl -b jar -c jar http://localhost:3008/
//! ```
//!
//! 1. A component reads the token in its body. That is before the head of the response is sent, so the layer can still make
//!    the response private. In a streamed page, a resource may read it too late.
//! 2. The login is a route of axum. A server function can't do it, because leptos_axum passes on only status and headers, not
//!    an `EuidUpdate`.
//! 3. A server function can log out, with `EuidLogoutHandle`.

use std::error::Error;

use axum::extract::Form;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::post;
use axum::{Extension, Router, serve};
use leptos::prelude::*;
use leptos_axum::{LeptosRoutes, extract, generate_route_list};
use leptos_router::components::{Route, Router as Pages, Routes};
use leptos_router::path;
use tower_euid::{Dii, Euid, EuidClient, EuidLayer, EuidLogoutHandle, EuidUpdate};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, layer) = euid_wiring::stand_in()?; // in production: `tower_euid::from_env()?`
    let listener = tokio::net::TcpListener::bind("localhost:3008").await?;
    println!("http://localhost:3008/");
    Ok(serve(listener, app(client, layer)).await?)
}

fn app(client: EuidClient, layer: EuidLayer) -> Router {
    let options = LeptosOptions::builder().output_name("site").build();
    Router::new()
        .leptos_routes(&options, generate_route_list(Site), Site)
        .route("/login", post(login))
        .layer(layer)
        .layer(Extension(client))
        .with_state(options)
}

#[component]
fn Site() -> impl IntoView {
    view! {
        <Pages>
            <Routes fallback=|| "not found">
                <Route path=path!("/") view=Front />
            </Routes>
        </Pages>
    }
}

#[component]
fn Front() -> impl IntoView {
    let request = use_context::<Parts>();
    let euid = request.and_then(|request| request.extensions.get::<Euid>().cloned()).unwrap_or_default();
    let text = euid.advertising_token().map_or(euid.state().to_owned(), ToString::to_string);
    view! { <p>{text}</p> }
}

#[server(prefix = "", endpoint = "logout")]
async fn logout() -> Result<(), ServerFnError> {
    extract::<EuidLogoutHandle>().await?.logout();
    leptos_axum::redirect("/");
    Ok(())
}

#[derive(serde::Deserialize)]
struct Login {
    email: String,
}

/// A real site first authenticates the person and checks their consent.
async fn login(Extension(client): Extension<EuidClient>, Form(form): Form<Login>) -> Response {
    // The previous identity ends even if there is no new one.
    let Ok(dii) = Dii::email(&form.email) else {
        return (StatusCode::BAD_REQUEST, EuidUpdate::logout()).into_response();
    };
    let generated = client.generate(dii).await;
    (generated.map_or_else(|_| EuidUpdate::logout(), EuidUpdate::from), Redirect::to("/")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use axum::http::header::CACHE_CONTROL;
    use euid_wiring::{ANN, Browser, Tested, visit};

    use super::*;

    #[tokio::test]
    async fn each_person_sees_their_own_token_from_login_to_logout() -> Tested {
        visit(Browser::new(app)?).await
    }

    #[tokio::test]
    async fn response_is_private_if_the_body_of_a_component_reads_the_token() -> Tested {
        let mut browser = Browser::new(app)?;
        browser.login(ANN).await?;
        let response = browser.visitor.send(&browser.app, Request::get("/").body(String::new())?).await?;
        assert_eq!(response.headers()[CACHE_CONTROL], "private, no-cache");
        Ok(())
    }
}
