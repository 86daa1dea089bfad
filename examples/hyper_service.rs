//! The layer around an existing hyper service, without a framework. The handler reads the token from the extensions.
//!
//! ```console
//! $ cargo run -p euid-sidecar -- sandbox   # prints three variables; set them for this example too
//! $ export $(cargo run -qp euid-sidecar -- keygen)   # EUID_COOKIE_KEYS
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
use std::process::ExitCode;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::service::{self as hyper_service, Service as HyperService};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::util::ServiceFn;
use tower::{Layer, service_fn};
use tower_euid::{AdvertisingToken, Dii, Euid, EuidClient, EuidLayer, EuidService, EuidUpdate};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hyper_service: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let (client, layer) = tower_euid::from_env()?;
    let service = behind(layer, hyper_service::service_fn(move |request| respond::<Incoming>(client.clone(), request)));

    let port = env::var("PORT").ok().map_or(Ok(3001), |port| port.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("http://{}/", listener.local_addr()?);
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // Most likely no file descriptor is free. Try again in a moment.
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

/// Puts a hyper service behind the layer. One that is not `Clone` goes into an `Arc` first.
fn behind<S, B, R>(layer: EuidLayer, site: S) -> EuidService<ServiceFn<impl Fn(Request<B>) -> S::Future + Clone>>
where
    S: HyperService<Request<B>, Response = Response<R>> + Clone,
{
    layer.layer(service_fn(move |request| site.call(request)))
}

async fn respond<B>(client: EuidClient, request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible>
where
    B: Body<Error: Into<Failure>>,
{
    let (method, path) = (request.method().as_str(), request.uri().path());
    let response = match (method, path) {
        ("GET", "/") => match request.extensions().get::<AdvertisingToken>() {
            Some(token) => text(format!("{token}\n")),
            None => text(format!("{}\n", request.extensions().get::<Euid>().map_or("no layer", Euid::state))),
        },
        ("POST", "/login") => login(&client, request.into_body()).await,
        ("POST", "/logout") => {
            let mut response = text("logged out\n");
            EuidUpdate::logout().attach(&mut response);
            response
        }
        _ => status(StatusCode::NOT_FOUND, text("not here\n")),
    };
    Ok(response)
}

/// The body of the request is the email address.
async fn login<B>(client: &EuidClient, body: B) -> Response<Full<Bytes>>
where
    B: Body<Error: Into<Failure>>,
{
    let generated = match email(body).await {
        Ok(email) => client.generate(email).await.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.into())),
        Err(error) => Err((StatusCode::BAD_REQUEST, error)),
    };
    let (update, mut response) = match generated {
        Ok(generated) => (EuidUpdate::from(generated), text("logged in\n")),
        // A new person is logging in: the previous identity ends even though there is no new one.
        Err((code, error)) => (EuidUpdate::logout(), status(code, text(format!("{error}\n")))),
    };
    update.attach(&mut response);
    response
}

async fn email<B>(body: B) -> Result<Dii, Failure>
where
    B: Body<Error: Into<Failure>>,
{
    let body = Limited::new(body, 1024).collect().await?.to_bytes();
    Ok(Dii::email(std::str::from_utf8(&body)?)?)
}

fn text(text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::new(Full::new(text.into()))
}

fn status<B>(status: StatusCode, mut response: Response<B>) -> Response<B> {
    *response.status_mut() = status;
    response
}

type Failure = Box<dyn Error + Send + Sync>;

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;

    use euid_sandbox::{Fault, Sandbox, Visitor, VisitorState};
    use tower::Service;

    use super::*;

    type Tested<T = ()> = Result<T, Box<dyn Error>>;

    async fn send<S>(visitor: &mut Visitor, app: &S, request: Request<&'static str>) -> Tested<(u16, String)>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible> + Clone,
    {
        let response = visitor.send(app, request.map(Full::from)).await?;
        let status = response.status().as_u16();
        Ok((status, String::from_utf8(response.into_body().collect().await?.to_bytes().into())?))
    }

    /// Makes a second person's login fail with the status `expected`. Returns what the page shows afterwards.
    async fn page_after_failed_login(address: &'static str, fault: Option<Fault>, expected: u16) -> Tested<String> {
        let sandbox = Sandbox::builder().build()?;
        let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
        let mut visitor = sandbox.visitor(&layer, VisitorState::Absent)?;
        let app = behind(layer, hyper_service::service_fn(move |request| respond(client.clone(), request)));
        let login = |address| Request::post("/login").body(address);
        let page = || Request::get("/").body("");

        assert_eq!(send(&mut visitor, &app, login("ann@example.com")?).await?, (200, "logged in\n".to_owned()));
        assert!(send(&mut visitor, &app, page()?).await?.1.starts_with("E4"));
        sandbox.fault(fault);
        let (status, text) = send(&mut visitor, &app, login(address)?).await?;
        assert_eq!(status, expected, "{text}");
        Ok(send(&mut visitor, &app, page()?).await?.1)
    }

    /// A service that is not `Clone`, as a type of the site can be.
    struct Site(EuidClient);

    impl HyperService<Request<Full<Bytes>>> for Site {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

        fn call(&self, request: Request<Full<Bytes>>) -> Self::Future {
            Box::pin(respond(self.0.clone(), request))
        }
    }

    #[tokio::test]
    async fn service_in_an_arc_has_a_token_from_login_to_logout() -> Tested {
        let sandbox = Sandbox::builder().build()?;
        let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
        let mut visitor = sandbox.visitor(&layer, VisitorState::Absent)?;
        let app = behind(layer, Arc::new(Site(client)));
        let page = || Request::get("/").body("");
        send(&mut visitor, &app, Request::post("/login").body("ann@example.com")?).await?;
        assert!(send(&mut visitor, &app, page()?).await?.1.starts_with("E4"));
        send(&mut visitor, &app, Request::post("/logout").body("")?).await?;
        assert_eq!(send(&mut visitor, &app, page()?).await?.1, "absent\n");
        Ok(())
    }

    #[tokio::test]
    async fn failed_login_ends_the_previous_identity() -> Tested {
        assert_eq!(page_after_failed_login("bob@example.com", Some(Fault::Status(503)), 503).await?, "absent\n");
        Ok(())
    }

    #[tokio::test]
    async fn login_with_an_invalid_address_is_a_bad_request() -> Tested {
        for typo in ["bob.example.com", "", "bob@"] {
            assert_eq!(page_after_failed_login(typo, None, 400).await?, "absent\n", "{typo}");
        }
        Ok(())
    }
}
