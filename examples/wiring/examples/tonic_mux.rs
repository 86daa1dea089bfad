//! One server for a web site (axum) and for the gRPC calls of an app (tonic), with one layer. Browsers keep their state in
//! cookies, the app in gRPC metadata: tower-euid's guide to apps has the rules of the client. The service `Health` is not
//! behind the layer.
//!
//! ```console
//! $ cargo run --example tonic_mux
//! $ curl -c jar -d email=ann@example.com http://localhost:3007/login
//! $ curl -b jar -c jar http://localhost:3007/
//! ```

use std::error::Error;

use axum::extract::{Form, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Router, serve};
use tonic::Status;
use tower::util::MapRequestLayer;
use tower_euid::{Dii, Euid, EuidClient, EuidLayer, EuidLogoutHandle, EuidUpdate, HeaderConfig};

use self::wire::ads_server::{Ads, AdsServer};
use self::wire::{Empty, Login, Token};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, layer) = euid_wiring::stand_in()?; // in production: `tower_euid::from_env()?`
    let listener = tokio::net::TcpListener::bind("localhost:3007").await?;
    println!("http://localhost:3007/");
    Ok(serve(listener, app(client, layer)).await?)
}

fn app(client: EuidClient, layer: EuidLayer) -> Router {
    let site = Router::new().route("/", get(page)).route("/login", post(login)).route("/logout", post(logout));
    let ads = Router::new().route_service("/tv.Ads/{method}", AdsServer::new(App(client.clone())));
    let (_, health) = tonic_health::server::health_reporter();
    site.merge(ads)
        .layer(layer.headers(HeaderConfig::default()))
        .layer(MapRequestLayer::new(read_as_get))
        // From here on the routes are not behind the layer.
        .route_service("/grpc.health.v1.Health/{method}", health)
        .with_state(client)
}

/// Every gRPC call is a `POST`, and a `POST` does not wait for a refresh. To the layer, a call that only reads is a `GET`:
/// then it waits like a page. tonic does not look at the method.
fn read_as_get(mut request: Request) -> Request {
    if request.uri().path() == "/tv.Ads/Token" {
        *request.method_mut() = Method::GET;
    }
    request
}

// The gRPC service of the app.

struct App(EuidClient);

#[tonic::async_trait]
impl Ads for App {
    async fn token(&self, request: tonic::Request<Empty>) -> Result<tonic::Response<Token>, Status> {
        let euid = request.extensions().get::<Euid>().cloned().unwrap_or_default();
        let token = euid.advertising_token().map(ToString::to_string);
        Ok(tonic::Response::new(Token { state: euid.state().to_owned(), token }))
    }

    async fn login(&self, request: tonic::Request<Login>) -> Result<tonic::Response<Empty>, Status> {
        let update = match Dii::email(&request.get_ref().email) {
            Ok(dii) => self.0.generate(dii).await.map_or_else(|_| EuidUpdate::logout(), EuidUpdate::from),
            Err(_) => {
                // A `Status` carries no update, so the handle ends the previous identity.
                EuidLogoutHandle::of(request.extensions()).inspect(EuidLogoutHandle::logout);
                return Err(Status::invalid_argument("not an address"));
            }
        };
        let mut response = tonic::Response::new(Empty {});
        response.extensions_mut().insert(update);
        Ok(response)
    }

    async fn logout(&self, _: tonic::Request<Empty>) -> Result<tonic::Response<Empty>, Status> {
        let mut response = tonic::Response::new(Empty {});
        response.extensions_mut().insert(EuidUpdate::logout());
        Ok(response)
    }
}

/// The service and its messages. `build.rs` makes the service; with protoc and a `.proto` file, it would make both.
mod wire {
    include!(concat!(env!("OUT_DIR"), "/tv.Ads.rs"));

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Empty {}

    #[derive(Clone, PartialEq, serde::Deserialize, prost::Message)]
    pub(crate) struct Login {
        #[prost(string, tag = "1")]
        pub(crate) email: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Token {
        #[prost(string, tag = "1")]
        pub(crate) state: String,
        #[prost(string, optional, tag = "2")]
        pub(crate) token: Option<String>,
    }
}

// The web site.

async fn page(euid: Euid) -> String {
    euid.advertising_token().map_or(euid.state().to_owned(), ToString::to_string)
}

/// A real site first authenticates the person and checks their consent.
async fn login(State(client): State<EuidClient>, Form(form): Form<Login>) -> Response {
    let Ok(dii) = Dii::email(&form.email) else {
        return (StatusCode::BAD_REQUEST, EuidUpdate::logout()).into_response();
    };
    let generated = client.generate(dii).await;
    (generated.map_or_else(|_| EuidUpdate::logout(), EuidUpdate::from), Redirect::to("/")).into_response()
}

async fn logout() -> (EuidUpdate, Redirect) {
    (EuidUpdate::logout(), Redirect::to("/"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use euid_wiring::{ANN, BOB, Browser, Tested, visit};
    use http::HeaderMap;
    use tonic::Code;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use super::wire::ads_client::AdsClient;
    use super::*;

    /// An app: it keeps the headers of responses and sends them with each call.
    struct Tv {
        ads: AdsClient<Router>,
        kept: HeaderMap,
    }

    impl Tv {
        /// An app without state: it says that it wants headers.
        fn new(site: Router) -> Self {
            Self {
                ads: AdsClient::new(site),
                kept: HeaderMap::from_iter([(ANCHOR.parse().unwrap(), "".parse().unwrap())]),
            }
        }

        fn request<T>(&self, message: T) -> tonic::Request<T> {
            let mut request = tonic::Request::new(message);
            *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(self.kept.clone());
            request
        }

        fn keep(&mut self, response: &tonic::metadata::MetadataMap) {
            for (name, value) in &response.clone().into_headers() {
                if name.as_str().starts_with("euid-") {
                    self.kept.remove(name);
                    if !value.is_empty() || name == ANCHOR {
                        self.kept.insert(name, value.clone());
                    }
                }
            }
        }

        async fn token(&mut self) -> Tested<Token> {
            let response = self.ads.token(self.request(Empty {})).await?;
            self.keep(response.metadata());
            Ok(response.into_inner())
        }

        async fn login(&mut self, email: &str) -> Result<(), Code> {
            let answer = self.ads.login(self.request(Login { email: email.to_owned() })).await;
            self.keep(answer.as_ref().map_or_else(Status::metadata, tonic::Response::metadata));
            answer.map_or_else(|status| Err(status.code()), |_| Ok(()))
        }

        async fn logout(&mut self) -> Tested {
            let response = self.ads.logout(self.request(Empty {})).await?;
            self.keep(response.metadata());
            Ok(())
        }
    }

    const ANCHOR: &str = "euid-login";

    #[tokio::test]
    async fn each_person_sees_their_own_token_from_login_to_logout() -> Tested {
        visit(Browser::new(app)?).await
    }

    #[tokio::test]
    async fn app_has_a_token_from_login_to_logout() -> Tested {
        let site = Browser::new(app)?;
        let mut tv = Tv::new(site.app.clone());
        assert_eq!(tv.token().await?, Token { state: "absent".into(), token: None });
        assert_eq!(tv.login(ANN).await, Ok(()));
        let token = tv.token().await?.token.unwrap();
        assert!(site.is_token_of(&token, ANN).await?);
        tv.logout().await?;
        assert_eq!(tv.token().await?.state, "absent");
        assert_eq!(tv.login(BOB).await, Ok(()));
        let token = tv.token().await?.token.unwrap();
        assert!(site.is_token_of(&token, BOB).await? && !site.is_token_of(&token, ANN).await?);
        Ok(())
    }

    #[tokio::test]
    async fn call_that_reads_waits_for_the_refresh_of_an_expired_token() -> Tested {
        let site = Browser::new(app)?;
        let mut tv = Tv::new(site.app.clone());
        assert_eq!(tv.login(ANN).await, Ok(()));
        let first = tv.token().await?;
        site.sandbox.advance(Duration::from_secs(2 * 3600));
        let refreshed = tv.token().await?;
        assert_eq!((refreshed.state.as_str(), site.sandbox.refresh_calls()), ("active", 1));
        assert_ne!(refreshed, first);
        assert_eq!((tv.token().await?, site.sandbox.refresh_calls()), (refreshed, 1));
        Ok(())
    }

    #[tokio::test]
    async fn login_that_fails_with_a_status_ends_the_previous_identity() -> Tested {
        let mut tv = Tv::new(Browser::new(app)?.app);
        assert_eq!(tv.login(ANN).await, Ok(()));
        assert_eq!(tv.login("bob.example.com").await, Err(Code::InvalidArgument));
        assert_eq!(tv.token().await?.state, "absent");
        Ok(())
    }

    #[tokio::test]
    async fn health_service_is_not_behind_the_layer() -> Tested {
        let site = Browser::new(app)?;
        let mut tv = Tv::new(site.app.clone());
        assert_eq!(tv.login(ANN).await, Ok(()));
        site.sandbox.advance(Duration::from_secs(2 * 3600));
        let request = tv.request(HealthCheckRequest { service: String::new() });
        let response = HealthClient::new(site.app.clone()).check(request).await?;
        assert_eq!((response.get_ref().status, site.sandbox.refresh_calls()), (1, 0));
        assert!(response.metadata().get("cache-control").is_none());
        Ok(())
    }
}
