//! The JSON answers. All but those of refused callers have the same members.
//!
//! 1. A request is answered by its [`Description`]: the visitor's state, and what the layer wrote into the headers.
//! 2. The state is the one *after* the request. For a page it is the one that the layer shows to the handler. After a
//!    login or a logout it is what the engine reads in the headers that the layer has just written, as the visitor's
//!    next request will bring them.
//! 3. `Set-Cookie` lines go to `set_cookie`, all other headers of the layer to `headers`.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::{Map, Value, json};
use tower_euid::engine::{RequestContext, SignedIn, Site, Step};
use tower_euid::{Consent, Euid, EuidLayer, Scope};

use crate::api::form::Refusal;

/// What a handler found out, in the extensions of its response.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) shown: Shown,
    /// Why the request can't be answered as asked.
    pub(crate) error: Option<Refusal>,
}

/// The visitor's state after the request.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// The state that the layer has shown to the handler.
    AsRead(Euid),
    /// The state that the update in the response makes.
    AfterUpdate { consent: Consent, subject: Option<String> },
}

/// Returns the JSON of a response that has passed the layer.
pub(crate) fn answered(layer: &EuidLayer, scope: Scope, response: Response<Body>) -> Response<Body> {
    let Some(Description { shown, error }) = response.extensions().get::<Description>().cloned() else {
        return response;
    };
    let headers = response.headers();
    let euid = match shown {
        Shown::AsRead(euid) => euid,
        Shown::AfterUpdate { consent, subject } => {
            let user = subject.as_ref().map_or(SignedIn::Unchecked, |subject| SignedIn::User(subject.as_bytes()));
            read_back(layer, headers, &RequestContext { consent, user, scope: Some(scope) })
        }
    };
    let mut answer = json!({
        "state": euid.state(),
        "advertising_token": euid.advertising_token(),
        "eids": euid.eid().into_iter().collect::<Vec<_>>(),
        "set_cookie": texts(headers.get_all(SET_COOKIE)),
        "headers": headers_of(headers),
    });
    if let Some(error) = error {
        insert(&mut answer, "error", error.into_owned());
    }
    json_response(response.status(), &answer)
}

/// Returns a refusal that concerns no visitor.
pub(crate) fn refused(status: StatusCode, error: &str) -> Response<Body> {
    json_response(status, &json!({ "error": error }))
}

/// Returns the state that a client which has stored these response headers shows with its next request.
fn read_back(layer: &EuidLayer, written: &HeaderMap, context: &RequestContext<'_>) -> Euid {
    let mut request = HeaderMap::new();
    for (name, value) in written {
        if name != SET_COOKIE {
            // An app sends its headers as they came; the engine reads no others of these.
            request.append(name, value.clone());
        } else if let Some(pair) = value.as_bytes().split(|&byte| byte == b';').next()
            && !pair.ends_with(b"=")
            && let Ok(pair) = HeaderValue::from_bytes(pair)
        {
            request.append(COOKIE, pair);
        }
    }
    let now = || layer.now();
    match layer.engine().begin(&Method::GET, &request, context, now) {
        Step::Ready(decision) => decision.euid().clone(),
        Step::Refresh(candidate) => candidate.postpone(now()).euid().clone(),
        // The sidecar has no store.
        Step::Load(load) => load.unavailable().euid().clone(),
    }
}

fn texts<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Vec<&'a str> {
    values.into_iter().filter_map(|value| value.to_str().ok()).collect()
}

fn headers_of(headers: &HeaderMap) -> Map<String, Value> {
    // axum adds the length of the empty body.
    let names = headers.keys().filter(|name| ![SET_COOKIE, CONTENT_LENGTH].contains(name));
    names.map(|name| (name.to_string(), texts(headers.get_all(name)).join(", ").into())).collect()
}

fn insert(answer: &mut Value, member: &str, text: String) {
    if let Some(members) = answer.as_object_mut() {
        members.insert(member.to_owned(), text.into());
    }
}

fn json_response(status: StatusCode, answer: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(answer.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
