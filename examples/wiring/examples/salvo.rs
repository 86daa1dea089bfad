//! A site on salvo: `compat` makes a hoop of the layer.
//!
//! ```console
//! $ cargo run --example salvo
//! $ curl -c jar -d email=ann@example.com http://localhost:3005/login
//! $ curl -b jar -c jar http://localhost:3005/
//! ```
//!
//! salvo carries the extensions of requests and responses to the layer and back, so handlers read and write them.

use std::error::Error;

use salvo::http::ReqBody;
use salvo::prelude::*; // with `TowerLayerCompat`
use tower_euid::{Dii, Euid, EuidClient, EuidLayer, EuidUpdate};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, layer) = euid_wiring::stand_in()?; // in production: `tower_euid::from_env()?`
    let listener = TcpListener::new("localhost:3005").try_bind().await?;
    println!("http://localhost:3005/");
    Server::new(listener).serve(app(client, layer)).await;
    Ok(())
}

/// Call it inside the tokio runtime, because `compat` starts a task.
fn app(client: EuidClient, layer: EuidLayer) -> Router {
    Router::new()
        .hoop(layer.compat::<ReqBody>())
        .get(page)
        .push(Router::with_path("login").post(Login(client)))
        .push(Router::with_path("logout").post(logout))
}

#[handler]
async fn page(request: &mut Request) -> String {
    let euid = request.extensions().get::<Euid>().cloned().unwrap_or_default();
    euid.advertising_token().map_or(euid.state().to_owned(), ToString::to_string)
}

struct Login(EuidClient);

#[handler]
impl Login {
    /// A real site first authenticates the person and checks their consent.
    async fn handle(&self, request: &mut Request, response: &mut Response) {
        let email: String = request.form("email").await.unwrap_or_default();
        // The previous identity ends even if there is no new one.
        let update = match Dii::email(&email) {
            Ok(dii) => self.0.generate(dii).await.map_or_else(|_| EuidUpdate::logout(), EuidUpdate::from),
            Err(_) => {
                response.status_code(StatusCode::BAD_REQUEST);
                return drop(response.extensions.insert(EuidUpdate::logout()));
            }
        };
        response.extensions.insert(update);
        response.render(Redirect::other("/"));
    }
}

#[handler]
async fn logout(response: &mut Response) {
    response.extensions.insert(EuidUpdate::logout());
    response.render(Redirect::other("/"));
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use euid_wiring::{ANN, Browser, Tested, visit};
    use http::header::{HOST, HeaderValue};
    use hyper::body::Incoming;
    use hyper::client::conn::http1::handshake;
    use hyper_util::rt::TokioIo;
    use salvo::conn::Acceptor;
    use tokio::net::TcpStream;
    use tower::service_fn;

    use super::*;

    type Failure = Box<dyn Error + Send + Sync>;

    /// Serves the site on a free port, and returns a browser there.
    async fn browser() -> Tested<
        Browser<
            impl tower::Service<http::Request<String>, Response = http::Response<Incoming>, Error = Failure> + Clone,
        >,
    > {
        let acceptor = TcpListener::new("127.0.0.1:0").try_bind().await?;
        let address = acceptor.holdings()[0].local_addr.clone().into_std().ok_or("no address")?;
        Browser::new(|client, layer| {
            tokio::spawn(Server::new(acceptor).serve(app(client, layer)));
            service_fn(move |request| send(address, request))
        })
    }

    async fn send(
        address: SocketAddr,
        mut request: http::Request<String>,
    ) -> Result<http::Response<Incoming>, Failure> {
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
        let (mut sender, connection) = handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }

    #[tokio::test]
    async fn each_person_sees_their_own_token_from_login_to_logout() -> Tested {
        visit(browser().await?).await
    }

    #[tokio::test]
    async fn invalid_address_is_a_bad_request_and_ends_the_identity() -> Tested {
        let mut browser = browser().await?;
        browser.login(ANN).await?;
        assert_eq!(browser.login("ann.example.com").await?, 400);
        assert_eq!(browser.look().await?, "absent");
        Ok(())
    }
}
