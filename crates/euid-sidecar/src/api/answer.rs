//! The JSON answers. All but those of refused callers have the same members.
//!
//! `Set-Cookie` lines go to `set_cookie`, all other headers of the layer to `headers`.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};
use tower_euid::{Euid, Reason};

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
    AsRead(Seen),
    /// The state that the update in the response makes, for a visitor who brought these headers, and this user.
    AfterUpdate { brought: HeaderMap, subject: Option<String> },
}

/// A state, and its reason if the layer explains it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) euid: Euid,
    pub(crate) reason: Option<Reason>,
}

/// Returns the JSON of this state, and of what the layer wrote into a response.
pub(crate) fn answered(
    Seen { euid, reason }: &Seen,
    error: Option<Refusal>,
    response: &Response<Body>,
) -> Response<Body> {
    let headers = response.headers();
    let mut answer = json!({
        "state": euid.state(),
        "reason": reason.map(Reason::as_str),
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
