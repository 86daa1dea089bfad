//! A site on poem. poem's own adapter for layers (`TowerLayerCompatExt`) does not fit: its services take poem's `Request` in
//! place of `http::Request`, and they are not `Clone`, which the layer needs to let a page wait. `euid` below stands in.
//!
//! ```console
//! $ cargo run --example poem
//! $ curl -c jar -d email=ann@example.com http://localhost:3006/login
//! $ curl -b jar -c jar http://localhost:3006/
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::mem::take;
use std::sync::Arc;

use poem::http::StatusCode;
use poem::listener::TcpListener;
use poem::web::{Data, Form, Redirect};
use poem::{Endpoint, EndpointExt, IntoResponse, Request, Response, Route, Server, get, handler, post};
use tower::{Layer, ServiceExt, service_fn};
use tower_euid::{Dii, Euid, EuidClient, EuidLayer, EuidUpdate};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, layer) = euid_wiring::stand_in()?; // in production: `tower_euid::from_env()?`
    println!("http://localhost:3006/");
    Ok(Server::new(TcpListener::bind("localhost:3006")).run(app(client, layer)).await?)
}

fn app(client: EuidClient, layer: EuidLayer) -> impl Endpoint<Output = Response> {
    Route::new()
        .at("/", get(page))
        .at("/login", post(login))
        .at("/logout", post(logout))
        .data(client)
        .around(move |endpoint, request| euid(layer.clone(), endpoint, request))
}

/// The layer around an endpoint. The layer reads method, path, headers and extensions. The rest of poem's request passes
/// through it as the body, so nothing of it is lost.
async fn euid<E: Endpoint + 'static>(
    layer: EuidLayer,
    endpoint: Arc<E>,
    mut request: Request,
) -> poem::Result<Response> {
    let mut outer = http::Request::new(());
    *outer.method_mut() = request.method().clone();
    *outer.uri_mut() = request.uri().clone();
    *outer.headers_mut() = take(request.headers_mut());
    *outer.extensions_mut() = take(request.extensions_mut());
    let service = layer.layer(service_fn(move |inner: http::Request<Request>| {
        let (parts, mut request) = inner.into_parts();
        *request.headers_mut() = parts.headers;
        *request.extensions_mut() = parts.extensions;
        let endpoint = Arc::clone(&endpoint);
        // An error becomes its response here, so that this response, too, can write cookies.
        async move { Ok::<http::Response<_>, Infallible>(endpoint.get_response(request).await.into()) }
    }));
    let Ok(response) = service.oneshot(outer.map(|()| request)).await;
    Ok(response.into())
}

#[handler]
fn page(euid: Data<&Euid>) -> String {
    euid.advertising_token().map_or(euid.state().to_owned(), ToString::to_string)
}

#[derive(serde::Deserialize)]
struct Login {
    email: String,
}

/// A real site first authenticates the person and checks their consent.
#[handler]
async fn login(client: Data<&EuidClient>, Form(Login { email }): Form<Login>) -> Response {
    // The previous identity ends even if there is no new one.
    let Ok(dii) = Dii::email(&email) else { return with(EuidUpdate::logout(), StatusCode::BAD_REQUEST) };
    let generated = client.generate(dii).await;
    with(generated.map_or_else(|_| EuidUpdate::logout(), EuidUpdate::from), Redirect::see_other("/"))
}

#[handler]
fn logout() -> Response {
    with(EuidUpdate::logout(), Redirect::see_other("/"))
}

fn with(update: EuidUpdate, response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response.extensions_mut().insert(update);
    response
}

#[cfg(test)]
mod tests {
    use euid_wiring::{ANN, Browser, Tested, visit};

    use super::*;

    /// Returns the site as a tower service.
    fn service(
        client: EuidClient,
        layer: EuidLayer,
    ) -> impl tower::Service<
        http::Request<String>,
        Response = http::Response<impl http_body::Body<Error = std::io::Error>>,
        Error = Infallible,
    > + Clone {
        let site = Arc::new(app(client, layer));
        service_fn(move |request: http::Request<String>| {
            let site = Arc::clone(&site);
            let (parts, body) = request.into_parts();
            async move {
                let mut request = Request::builder().method(parts.method).uri(parts.uri).body(body);
                *request.headers_mut() = parts.headers;
                Ok(http::Response::from(site.get_response(request).await))
            }
        })
    }

    #[tokio::test]
    async fn each_person_sees_their_own_token_from_login_to_logout() -> Tested {
        visit(Browser::new(service)?).await
    }

    #[tokio::test]
    async fn invalid_address_is_a_bad_request_and_ends_the_identity() -> Tested {
        let mut browser = Browser::new(service)?;
        browser.login(ANN).await?;
        assert_eq!(browser.login("ann.example.com").await?, 400);
        assert_eq!(browser.look().await?, "absent");
        Ok(())
    }
}
