//! Records the effect of each request, as seen from outside the layer: its `Set-Cookie` headers, and the calls that the
//! sandbox counted meanwhile.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use cookie::Cookie;
use tower_euid::clock::{Clock, SystemClock, UnixMillis};
use tower_euid::{CookieConfig, Scope};

use crate::{Site, page, region};

/// The last few requests, newest first.
#[derive(Default)]
pub(crate) struct Requests(VecDeque<Done>);

/// The effect of one request.
pub(crate) struct Done {
    /// Method and path.
    pub(crate) line: String,
    /// The time of the response, on the site's clock.
    pub(crate) at: UnixMillis,
    pub(crate) status: StatusCode,
    pub(crate) cookies: Cookies,
    /// `None` with an external operator, because only the sandbox counts calls.
    pub(crate) calls: Option<Calls>,
    pub(crate) took: Duration,
}

/// The effect on the layer's cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cookies {
    /// The request brought none, and the response set none.
    None,
    /// The request brought some, and the response set none.
    Kept,
    Refreshed,
    SetAtLogin,
    /// The identity of the JS SDK's cookie is sealed.
    TakenOver,
    Cleared,
    /// The identity is removed, and the opt-out remembered.
    OptedOut,
}

/// Calls to the operator while the request ran, including those for other requests.
#[derive(Clone, Copy, Default)]
pub(crate) struct Calls {
    pub(crate) generate: u64,
    pub(crate) refresh: u64,
}

impl Requests {
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Done> {
        self.0.iter()
    }

    fn push(&mut self, done: Done) {
        self.0.push_front(done);
        self.0.truncate(SHOWN);
    }
}

/// A middleware around the layer: records the request and, if the response is the front page, completes it.
pub(crate) async fn note(
    State(site): State<Site>,
    Extension(scope): Extension<Scope>,
    request: Request,
    next: Next,
) -> Response {
    let line = format!("{} {}", request.method(), request.uri().path());
    let brought = brings_cookies(request.headers());
    let calls_before = calls(&site, scope);
    // Not the site's clock, because another request may move it meanwhile.
    let begun = SystemClock.now();

    let mut response = next.run(request).await;

    let took = SystemClock.now().saturating_since(begun);
    let calls = calls(&site, scope).zip(calls_before).map(|(after, before)| Calls {
        generate: after.generate - before.generate,
        refresh: after.refresh - before.refresh,
    });
    let cookies = Cookies::of(response.headers(), brought);
    let done = Done { line, at: site.clock.now(), status: response.status(), cookies, calls, took };
    let mut notes = site.notes();
    notes.requests.push(done);
    if let Some(home) = response.extensions_mut().remove::<page::Home>() {
        *response.body_mut() = Body::from(home.html(&notes.requests));
    }
    response
}

impl Cookies {
    fn of(response: &HeaderMap, brought: bool) -> Self {
        let effect = |beginnings: Names| written(response, |name| begins_with(name, &beginnings));
        let is_of_sdk = |name: &str| Scope::ALL.iter().any(|scope| name == scope.js_sdk_cookie());
        match [identities(), anchors(), opt_outs()].map(effect) {
            [None, None, None] if brought => Self::Kept,
            [None, None, None] => Self::None,
            // The operator reported it at login, or a refresh found it.
            [_, _, Some(Written::Set)] => Self::OptedOut,
            // With a store the login has a handle alone.
            [Some(Written::Set), Some(_), _] | [_, Some(Written::Set), _] => Self::SetAtLogin,
            [Some(Written::Set), None, _] if written(response, is_of_sdk).is_some() => Self::TakenOver,
            [Some(Written::Set), None, _] => Self::Refreshed,
            _ => Self::Cleared,
        }
    }
}

enum Written {
    Set,
    Cleared,
}

/// The effect on the cookies with these names. A login can set one and clear that of another login.
fn written(response: &HeaderMap, is_one: impl Fn(&str) -> bool) -> Option<Written> {
    let cookies = response.get_all(SET_COOKIE).iter().filter_map(|value| Cookie::parse(value.to_str().ok()?).ok());
    let are_set: Vec<bool> =
        cookies.filter(|cookie| is_one(cookie.name())).map(|cookie| !cookie.value().is_empty()).collect();
    let written = if are_set.contains(&true) { Written::Set } else { Written::Cleared };
    (!are_set.is_empty()).then_some(written)
}

fn brings_cookies(request: &HeaderMap) -> bool {
    region::cookies(request)
        .any(|cookie| [identities(), anchors(), opt_outs()].iter().any(|names| begins_with(cookie.name(), names)))
}

fn begins_with(name: &str, beginnings: &Names) -> bool {
    beginnings.iter().any(|beginning| name.starts_with(beginning))
}

/// What the names of the cookies begin with, in each scope. A logout removes those of both.
type Names = [String; 2];

fn identities() -> Names {
    Scope::ALL.map(|scope| CookieConfig::default().identity_prefix(scope))
}

fn anchors() -> Names {
    Scope::ALL.map(|scope| CookieConfig::default().anchor_name(scope))
}

fn opt_outs() -> Names {
    Scope::ALL.map(|scope| CookieConfig::default().opt_out_prefix(scope))
}

fn calls(site: &Site, scope: Scope) -> Option<Calls> {
    let calls = site.regions.of(scope).sandbox.as_ref()?.sandbox().calls();
    Some(Calls { generate: calls.generate, refresh: calls.refresh })
}

const SHOWN: usize = 5;
