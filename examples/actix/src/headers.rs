//! Headers between actix-web, which uses http 0.2, and euid-core, which uses http 1. Both have the same rules for what a
//! name and a value may hold, so nothing is lost.

use actix_web::http::{Method as ActixMethod, header as actix};
use euid_core::engine::Engine;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// Converts the method. A method that http 1 can't read counts as unsafe: its request does not wait.
pub(crate) fn method(method: &ActixMethod) -> Method {
    Method::from_bytes(method.as_str().as_bytes()).unwrap_or(Method::POST)
}

pub(crate) fn status(status: actix_web::http::StatusCode) -> StatusCode {
    StatusCode::from_u16(status.as_u16()).unwrap_or(StatusCode::OK)
}

/// The headers of a request that the engine reads.
pub(crate) fn of_request(engine: &Engine, headers: &actix::HeaderMap) -> HeaderMap {
    let mut copied = HeaderMap::new();
    for (name, value) in headers {
        let Ok(name) = HeaderName::from_bytes(name.as_str().as_bytes()) else { continue };
        if engine.reads(&name) {
            append(&mut copied, name, value);
        }
    }
    copied
}

/// All headers of a response. The engine knows which of them control caches.
pub(crate) fn of_response(headers: &actix::HeaderMap) -> HeaderMap {
    let mut copied = HeaderMap::new();
    for (name, value) in headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_str().as_bytes()) {
            append(&mut copied, name, value);
        }
    }
    copied
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: &actix::HeaderValue) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        // If the map is full, the engine does not see this header.
        _ = headers.try_append(name, value);
    }
}

/// Puts headers back into the response that they were copied from.
pub(crate) fn put_back(headers: &HeaderMap, response: &mut actix::HeaderMap) {
    for name in headers.keys() {
        let values =
            headers.get_all(name).iter().filter_map(|value| actix::HeaderValue::from_bytes(value.as_bytes()).ok());
        let Ok(name) = actix::HeaderName::from_bytes(name.as_str().as_bytes()) else { continue };
        drop(response.remove(&name));
        values.for_each(|value| response.append(name.clone(), value));
    }
}
