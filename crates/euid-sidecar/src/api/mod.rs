//! The API: a site's own server describes its request, and gets the visitor's state as JSON.
//!
//! ```text
//! caller ──► token ──► query ──► EuidLayer ──► handler: page, login, logout
//!    ◄── JSON ◄── answer ◄── Set-Cookie, Cache-Control ◄── EuidUpdate
//! ```
//!
//! 1. The request itself is the described one: the visitor's `Cookie`, `Sec-…` and `Euid-…` headers came with it, so
//!    the layer reads them as in a site that is behind it.
//! 2. If a page names a `subject`, or an empty one because no user is signed in, the layer compares it with the user of
//!    the login. Without the field it does not.
//! 3. A login that fails is a logout: a new person was logging in, so the previous identity must not stand for them.
//! 4. No error repeats a value of the request.
//! 5. The answer to a login or a logout has the state that the visitor's next page shows: the API asks itself for that
//!    page. A store by user, for example, may have refused the login.

mod answer;
pub(crate) mod form;
mod forward_auth;
mod next_page;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Router};
use tower::ServiceExt;
use tower_euid::error::ErrorKind;
use tower_euid::{AdvertisingToken, Consent, Euid, EuidError, EuidUpdate, GenerateRequest, Reason, Scope};

use self::answer::{Description, Seen, Shown, answered, refused};
use self::form::{Form, LOGIN, Refusal};
use self::forward_auth::forward_auth;
use self::next_page::next_page;
use crate::config::{Site, Token};

/// What the query says about a request, in whose extensions it is.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) scope: Scope,
    /// The signed-in user; empty if no user is signed in. If it is `None`, users are not compared.
    subject: Option<String>,
}

struct Api {
    site: Site,
    token: Option<Token>,
    /// The handlers behind the layer that compares the user, and behind the one that does not.
    checked: Router,
    unchecked: Router,
}

/// Returns the API of a site. A caller must bring the token, if there is one.
pub(crate) fn router(site: Site, token: Option<Token>) -> Router {
    let signed_in = |request: &Parts| request.extensions.get::<Asked>()?.subject.clone().filter(|id| !id.is_empty());
    let handlers = Router::new()
        .route("/v1/page", any(page))
        .route("/v1/login", post(login))
        .route("/v1/logout", post(logout))
        .with_state(site.clone());
    let unchecked = handlers.clone();
    let checked = handlers.layer(site.layer.clone().subject(signed_in));
    // A store by user has nothing for a request without one.
    let by_user = site.layer.sessions().is_some();
    let unchecked = if by_user { checked.clone() } else { unchecked.layer(site.layer.clone()) };
    let api = Arc::new(Api { site, token, checked, unchecked });
    let forward_auth = Router::new()
        .route("/auth", get(forward_auth))
        // Envoy appends the path of the page, and has its method.
        .route("/auth/", any(forward_auth))
        .route("/auth/{*page}", any(forward_auth))
        .with_state(Arc::clone(&api));
    Router::new()
        .route("/v1/page", get(ask))
        .route("/v1/login", post(ask))
        .route("/v1/logout", post(ask))
        .with_state(Arc::clone(&api))
        .route_layer(from_fn_with_state(api, authorize))
        .merge(forward_auth)
        .route("/openapi.json", get(async || ([(CONTENT_TYPE, "application/json")], OPENAPI)))
        .fallback(async || refused(StatusCode::NOT_FOUND, "no such path; /openapi.json lists all"))
        .method_not_allowed_fallback(async || {
            refused(StatusCode::METHOD_NOT_ALLOWED, "this path has another method; /openapi.json lists all")
        })
}

/// Refuses a request without the token.
async fn authorize(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if api.is_allowed(request.headers()) {
        return next.run(request).await;
    }
    let mut response = refused(StatusCode::UNAUTHORIZED, NOT_ALLOWED);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Sends a described request through the layer, and returns the answer.
async fn ask(State(api): State<Arc<Api>>, request: Request) -> Response {
    let asked = match api.asked(&request) {
        Ok(asked) => asked,
        Err(refusal) => return refused(StatusCode::BAD_REQUEST, &refusal),
    };
    let scope = asked.scope;
    let mut response = api.send(asked, request).await;
    let Some(Description { shown, error }) = response.extensions_mut().remove() else { return response };
    let seen = match shown {
        Shown::AsRead(seen) => seen,
        Shown::AfterUpdate { brought, subject } => {
            let next = next_page(brought, response.headers());
            api.page(Asked { scope, subject }, next).await.0
        }
    };
    answered(&seen, error, &response)
}

impl Api {
    /// Whether the caller has brought the token, if there is one.
    fn is_allowed(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let mut brought = headers.get_all(AUTHORIZATION).iter();
        let brought = brought.next().filter(|_| brought.next().is_none());
        let brought = brought.and_then(|value| value.as_bytes().split_at_checked(7));
        brought.is_some_and(|(scheme, secret)| scheme.eq_ignore_ascii_case(b"bearer ") && token.is(secret))
    }

    fn asked(&self, request: &Request) -> Result<Asked, Refusal> {
        let names: &[&str] = if request.uri().path() == "/v1/login" { &["scope"] } else { &["scope", "subject"] };
        let mut query = Form::parse(request.uri().query().unwrap_or_default().as_bytes(), names, &["subject"])?;
        let served: Vec<Scope> = self.site.clients.iter().map(|(scope, _)| *scope).collect();
        Ok(Asked { scope: query.take_scope(&served)?, subject: query.take("subject").map(Cow::into_owned) })
    }

    async fn send(&self, asked: Asked, mut request: Request) -> Response {
        let routes = if asked.subject.is_some() { &self.checked } else { &self.unchecked };
        request.extensions_mut().insert(asked);
        match routes.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Sends a request as one for a page. Returns what the page sees, and what the layer wrote.
    async fn page(&self, asked: Asked, mut request: Request) -> (Seen, HeaderMap) {
        *request.uri_mut() = Uri::from_static("/v1/page");
        let (mut parts, _) = self.send(asked, request).await.into_parts();
        // axum adds the length of the empty body.
        parts.headers.remove(CONTENT_LENGTH);
        match parts.extensions.remove() {
            Some(Description { shown: Shown::AsRead(seen), .. }) => (seen, parts.headers),
            _ => (Seen { euid: Euid::Unavailable, reason: None }, parts.headers),
        }
    }
}

async fn page(euid: Euid, reason: Option<Reason>) -> Response {
    // The answer is written outside of the layer. Only a read in here makes the page private.
    euid.advertising_token().map(AdvertisingToken::as_str);
    Extension(Description { shown: Shown::AsRead(Seen { euid, reason }), error: None }).into_response()
}

async fn login(
    State(site): State<Site>,
    Extension(asked): Extension<Asked>,
    consent: Option<Consent>,
    request: Request,
) -> Response {
    let brought = request.headers().clone();
    let consent = consent.unwrap_or(Consent::Granted);
    let (outcome, subject) = match body(request).await {
        Ok(body) => log_in(&site, asked.scope, consent, &body).await,
        Err(failure) => (Err(failure), None),
    };
    let (status, update, error) = match outcome {
        Ok(update) => (StatusCode::OK, update, None),
        Err((status, refusal)) => (status, EuidUpdate::logout(), Some(refusal)),
    };
    (status, update, Extension(Description { shown: Shown::AfterUpdate { brought, subject }, error })).into_response()
}

/// Returns the update of a login, and the user that the form names.
async fn log_in(
    site: &Site,
    scope: Scope,
    consent: Consent,
    form: &[u8],
) -> (Result<EuidUpdate, Failure>, Option<String>) {
    let mut form = match Form::parse(form, &LOGIN, &[]) {
        Ok(form) => form,
        Err(refusal) => return (Err(bad_request(refusal)), None),
    };
    let subject = form.take("subject").map(Cow::into_owned);
    let update = match form.take_person() {
        Ok(person) => generated(site, scope, consent, person, subject.as_deref()).await,
        Err(refusal) => Err(bad_request(refusal)),
    };
    (update, subject)
}

async fn generated(
    site: &Site,
    scope: Scope,
    consent: Consent,
    person: GenerateRequest,
    subject: Option<&str>,
) -> Result<EuidUpdate, Failure> {
    let client = site.clients.iter().find(|(served, _)| *served == scope);
    let Some((_, client)) = client.filter(|_| consent == Consent::Granted) else {
        // Without consent no identity may be made, and the previous one was another login's.
        return Ok(EuidUpdate::logout());
    };
    let update = EuidUpdate::from(client.generate(person).await.map_err(|error| operator_failed(&error))?);
    Ok(subject.into_iter().fold(update, EuidUpdate::subject))
}

async fn logout(Extension(asked): Extension<Asked>, request: Request) -> Response {
    let shown = Shown::AfterUpdate { brought: request.headers().clone(), subject: asked.subject };
    let form = body(request).await.and_then(|body| Form::parse(&body, &[], &[]).map(drop).map_err(bad_request));
    let (status, error) = form.map_or_else(|(status, refusal)| (status, Some(refusal)), |()| (StatusCode::OK, None));
    (status, EuidUpdate::logout(), Extension(Description { shown, error })).into_response()
}

type Failure = (StatusCode, Refusal);

fn bad_request(refusal: Refusal) -> Failure {
    (StatusCode::BAD_REQUEST, refusal)
}

fn operator_failed(error: &EuidError) -> Failure {
    let status = match error.kind() {
        ErrorKind::RejectedInput => StatusCode::BAD_REQUEST,
        ErrorKind::Transient => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    };
    (status, format!("the operator issued no identity: {error}").into())
}

/// Reads the form in a request.
async fn body(request: Request) -> Result<Bytes, Failure> {
    let (parts, body) = request.into_parts();
    let is_form = is_form(&parts.headers);
    let body = match tokio::time::timeout(BODY_DEADLINE, to_bytes(Body::new(body), LARGEST_FORM)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "the form is longer than 64 KiB, or was cut off".into()));
        }
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the form took longer than 5 s".into())),
    };
    if !is_form && !body.is_empty() {
        let what = "Content-Type: not application/x-www-form-urlencoded";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, what.into()));
    }
    Ok(body)
}

/// Whether the body is a form. Without a type it is taken as one.
fn is_form(headers: &HeaderMap) -> bool {
    let media_type = |value: &HeaderValue| value.to_str().ok()?.split(';').next().map(str::trim).map(str::to_owned);
    let is_form = |value| media_type(value).is_some_and(|found| found.eq_ignore_ascii_case(FORM));
    headers.get_all(CONTENT_TYPE).iter().all(is_form)
}

const FORM: &str = "application/x-www-form-urlencoded";

const NOT_ALLOWED: &str = "Authorization: not `Bearer` and the token of this API";

const OPENAPI: &str = include_str!("openapi.json");

const LARGEST_FORM: usize = 64 * 1024;

const BODY_DEADLINE: Duration = Duration::from_secs(5);
