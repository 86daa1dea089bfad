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

mod answer;
pub(crate) mod form;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use tower::ServiceExt;
use tower_euid::error::ErrorKind;
use tower_euid::{AdvertisingToken, Consent, Euid, EuidError, EuidUpdate, Scope};

use self::answer::{Description, Shown, answered, refused};
use self::form::{Form, LOGIN, Refusal};
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
    /// The handlers behind the layer that compares the user, and behind the one that does not.
    checked: Router,
    unchecked: Router,
}

/// Returns the API of a site. A caller must bring the token, if there is one.
pub(crate) fn router(site: Site, token: Option<Token>) -> Router {
    let signed_in = |request: &Parts| request.extensions.get::<Asked>()?.subject.clone().filter(|id| !id.is_empty());
    let handlers = Router::new()
        .route("/v1/page", get(page))
        .route("/v1/login", post(login))
        .route("/v1/logout", post(logout))
        .with_state(site.clone());
    let unchecked = handlers.clone().layer(site.layer.clone());
    let checked = handlers.layer(site.layer.clone().subject(signed_in));
    Router::new()
        .route("/v1/page", get(ask))
        .route("/v1/login", post(ask))
        .route("/v1/logout", post(ask))
        .with_state(Arc::new(Api { site, checked, unchecked }))
        .route_layer(from_fn_with_state(token, authorize))
        .route("/openapi.json", get(async || ([(CONTENT_TYPE, "application/json")], OPENAPI)))
        .fallback(async || refused(StatusCode::NOT_FOUND, "no such path; /openapi.json lists all"))
        .method_not_allowed_fallback(async || {
            refused(StatusCode::METHOD_NOT_ALLOWED, "this path has another method; /openapi.json lists all")
        })
}

/// Refuses a request without the token.
async fn authorize(State(token): State<Option<Token>>, request: Request, next: Next) -> Response {
    let Some(token) = token else { return next.run(request).await };
    let mut brought = request.headers().get_all(AUTHORIZATION).iter();
    let brought =
        brought.next().filter(|_| brought.next().is_none()).and_then(|value| value.as_bytes().split_at_checked(7));
    match brought {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case(b"bearer ") && token.is(secret) => {
            next.run(request).await
        }
        _ => {
            let mut response =
                refused(StatusCode::UNAUTHORIZED, "Authorization: not `Bearer` and the token of this API");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    }
}

/// Sends a described request through the layer, and returns the answer.
async fn ask(State(api): State<Arc<Api>>, mut request: Request) -> Response {
    let asked = match api.asked(&request) {
        Ok(asked) => asked,
        Err(refusal) => return refused(StatusCode::BAD_REQUEST, &refusal),
    };
    let scope = asked.scope;
    let routes = if asked.subject.is_some() { &api.checked } else { &api.unchecked };
    request.extensions_mut().insert(asked);
    let response = match routes.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    answered(&api.site.layer, scope, response)
}

impl Api {
    fn asked(&self, request: &Request) -> Result<Asked, Refusal> {
        let names: &[&str] = if request.uri().path() == "/v1/page" { &["scope", "subject"] } else { &["scope"] };
        let mut query = Form::parse(request.uri().query().unwrap_or_default().as_bytes(), names, &["subject"])?;
        let served: Vec<Scope> = self.site.clients.iter().map(|(scope, _)| *scope).collect();
        Ok(Asked { scope: query.take_scope(&served)?, subject: query.take("subject").map(Cow::into_owned) })
    }
}

async fn page(euid: Euid) -> Response {
    // The answer is written outside of the layer. Only a read in here makes the page private.
    euid.advertising_token().map(AdvertisingToken::as_str);
    Extension(Description { shown: Shown::AsRead(euid), error: None }).into_response()
}

async fn login(
    State(site): State<Site>,
    Extension(asked): Extension<Asked>,
    consent: Option<Consent>,
    request: Request,
) -> Response {
    let consent = consent.unwrap_or(Consent::Granted);
    let (status, update, subject, error) = match log_in(&site, asked.scope, consent, request).await {
        Ok((update, subject)) => (StatusCode::OK, update, subject, None),
        Err((status, refusal)) => (status, EuidUpdate::logout(), None, Some(refusal)),
    };
    let shown = Shown::AfterUpdate { consent, subject };
    (status, update, Extension(Description { shown, error })).into_response()
}

/// Returns the update of a login, and the user that it is bound to.
async fn log_in(
    site: &Site,
    scope: Scope,
    consent: Consent,
    request: Request,
) -> Result<(EuidUpdate, Option<String>), Failure> {
    let body = body(request).await?;
    let mut form = Form::parse(&body, &LOGIN, &[]).map_err(bad_request)?;
    let (person, subject) = (form.take_person().map_err(bad_request)?, form.take("subject").map(Cow::into_owned));
    let client = site.clients.iter().find(|(served, _)| *served == scope);
    let Some((_, client)) = client.filter(|_| consent == Consent::Granted) else {
        // Without consent no identity may be made, and the previous one was another login's.
        return Ok((EuidUpdate::logout(), None));
    };
    let update = EuidUpdate::from(client.generate(person).await.map_err(|error| operator_failed(&error))?);
    Ok((subject.iter().fold(update, |update, id| update.subject(id)), subject))
}

async fn logout(consent: Option<Consent>, request: Request) -> Response {
    let form = body(request).await.and_then(|body| Form::parse(&body, &[], &[]).map(drop).map_err(bad_request));
    let (status, error) = form.map_or_else(|(status, refusal)| (status, Some(refusal)), |()| (StatusCode::OK, None));
    let shown = Shown::AfterUpdate { consent: consent.unwrap_or(Consent::Granted), subject: None };
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

const OPENAPI: &str = include_str!("openapi.json");

const LARGEST_FORM: usize = 64 * 1024;

const BODY_DEADLINE: Duration = Duration::from_secs(5);
