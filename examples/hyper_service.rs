//! The layer around a plain hyper service: no framework, the token read from the extensions.
//!
//! ```console
//! $ cargo run --example sandbox_operator --features sandbox    # prints three variables; set them here too
//! $ export $(cargo run -q --example keygen)                    # EUID_COOKIE_KEYS
//! $ cargo run --example hyper_service
//! $ curl http://127.0.0.1:3001/
//! absent
//! $ curl -c jar -d user@example.com http://127.0.0.1:3001/login
//! logged in
//! $ curl -b jar -c jar http://127.0.0.1:3001/
//! E4AAAABl…
//! ```
//!
//! The variables are those of [`tower_euid::from_env`], and `PORT` (3001 if not set).

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::net::Ipv4Addr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::{Layer, service_fn};
use tower_euid::{AdvertisingToken, Dii, Euid, EuidClient, EuidUpdate};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, layer) = tower_euid::from_env()?;
    let service = layer.layer(service_fn(move |request| respond(client.clone(), request)));

    let port = env::var("PORT").ok().map_or(Ok(3001), |port| port.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("http://{}/", listener.local_addr()?);
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: some will be free in a moment.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(socket), service).await {
                eprintln!("connection: {error}");
            }
        });
    }
}

async fn respond(client: EuidClient, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |text: String| Response::new(Full::from(text));
    let response = match (request.method().as_str(), request.uri().path()) {
        ("GET", "/") => match request.extensions().get::<AdvertisingToken>() {
            Some(token) => text(format!("{token}\n")),
            None => text(format!("{}\n", request.extensions().get::<Euid>().map_or("no layer", Euid::state))),
        },
        ("POST", "/login") => match generate(&client, request).await {
            Ok(update) => {
                let mut response = text("logged in\n".to_owned());
                update.attach(&mut response);
                response
            }
            Err(error) => status(502, text(format!("{error}\n"))),
        },
        ("POST", "/logout") => {
            let mut response = text("logged out\n".to_owned());
            EuidUpdate::logout().attach(&mut response);
            response
        }
        _ => status(404, text("not here\n".to_owned())),
    };
    Ok(response)
}

/// The body of the request is the email address.
async fn generate(client: &EuidClient, request: Request<Incoming>) -> Result<EuidUpdate, Box<dyn Error + Send + Sync>> {
    let body = Limited::new(request.into_body(), 1024).collect().await?.to_bytes();
    let email = std::str::from_utf8(&body)?;
    Ok(client.generate(Dii::email(email)?).await?.into())
}

fn status<B>(status: u16, mut response: Response<B>) -> Response<B> {
    *response.status_mut() = status.try_into().unwrap_or_default();
    response
}
