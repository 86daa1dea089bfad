//! The site with an in-process sandbox, and its visitors.

use actix_web::body::{MessageBody, to_bytes};
use actix_web::dev::{Service, ServiceResponse};
use actix_web::error::ErrorInternalServerError;
use actix_web::middleware::from_fn;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, Error, HttpResponse, web};
use euid_actix_site::client::Client;
use euid_actix_site::middleware::{Host, euid};
use euid_actix_site::site;
use euid_core::engine::Engine;
use euid_core::{CookieKey, EuidLogoutHandle};
use euid_sandbox::{Sandbox, Visitor};
use http::HeaderMap;
use http_body_util::BodyExt;
use tower_service::Service as _;

pub type Tested<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Returns a sandbox, and a host that calls it without a socket.
pub fn host() -> Tested<(Sandbox, Host)> {
    let sandbox = Sandbox::builder().build()?;
    let operator = sandbox.clone();
    let client = Client::new(sandbox.operator(), sandbox.clock(), move |request| {
        let mut operator = operator.clone();
        async move {
            let Ok(response) = operator.call(request.map(http_body_util::Full::new)).await;
            let (parts, body) = response.into_parts();
            let Ok(body) = body.collect().await;
            Ok(http::Response::from_parts(parts, body.to_bytes()))
        }
    });
    Ok((sandbox, with_client(client)?))
}

pub fn with_client(client: Client) -> Tested<Host> {
    Ok(Host::new(Engine::new(CookieKey::generate()?.into()), client))
}

/// Returns the site with its pages and three more.
pub async fn app(
    host: &Host,
) -> impl Service<actix_http::Request, Response = ServiceResponse<impl MessageBody>, Error = Error> {
    let app = App::new().app_data(web::Data::new(host.clone())).wrap(from_fn(euid)).configure(site::routes);
    let app = app
        .route("/plain", web::get().to(async || "the same for all"))
        .route(
            "/theme",
            web::get().to(async || HttpResponse::Ok().append_header(("set-cookie", "theme=dark")).finish()),
        )
        .route(
            "/close-account",
            web::post().to(async |logout: web::ReqData<EuidLogoutHandle>| {
                logout.logout();
                Err::<HttpResponse, _>(ErrorInternalServerError("the database is down"))
            }),
        );
    init_service(app).await
}

/// A response with the parts that the tests read.
pub struct Seen {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the names of the cookies that the response sets or removes, without the tag of a login.
    pub fn cookies(&self) -> Vec<&str> {
        let lines = self.headers.get_all("set-cookie").iter().filter_map(|line| line.to_str().ok());
        let names = lines.filter_map(|line| line.split('=').next());
        names.filter_map(|name| name.split_inclusive('.').next()).collect()
    }
}

/// Sends a request with the visitor's cookies and keeps those of the response.
pub async fn send<B: MessageBody>(
    app: &impl Service<actix_http::Request, Response = ServiceResponse<B>, Error = Error>,
    visitor: &mut Visitor,
    request: TestRequest,
) -> Tested<Seen> {
    let cookies = visitor.cookie_header();
    let request = if cookies.is_empty() { request } else { request.insert_header(("cookie", cookies)) };
    let response = app.call(request.to_request()).await?;
    let mut headers = HeaderMap::new();
    for (name, value) in response.headers() {
        headers.append(http::HeaderName::from_bytes(name.as_str().as_bytes())?, value.as_bytes().try_into()?);
    }
    visitor.keep_cookies(&headers);
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body()).await.map_err(|_| "the body broke off")?;
    Ok(Seen { status, headers, text: String::from_utf8(body.into())? })
}

pub fn get(path: &str) -> TestRequest {
    TestRequest::get().uri(path)
}

pub fn post(path: &str) -> TestRequest {
    TestRequest::post().uri(path)
}

pub fn login(email: &str) -> TestRequest {
    post("/login").set_form([("email", email)])
}
