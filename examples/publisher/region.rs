//! The regions that the site serves. The region of a request chooses its scope: EUID for `eu`, UID2 for `us`.
//!
//! 1. The header `X-Region` names the region. A CDN sets it, and must replace one that a visitor sends.
//! 2. Without the header, the region is the one that the visitor has chosen on the page.
//! 3. Without a choice it is `eu`.
//! 4. A site with the operator of one scope has one region, whatever the request says.

use std::error::Error;
use std::net::Ipv4Addr;

use axum::extract::{Form, Request, State};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Redirect, Response};
use cookie::{Cookie, SameSite};
use euid_sandbox::{Sandbox, SandboxServer};
use serde::Deserialize;
use tower_euid::clock::ManualClock;
use tower_euid::{EuidClient, EuidClientBuilder, Scope};

use crate::{Site, page, port, variable};

/// One region, or both.
pub(crate) struct Regions {
    pub(crate) first: Region,
    pub(crate) second: Option<Region>,
}

/// A region and its operator.
pub(crate) struct Region {
    pub(crate) scope: Scope,
    pub(crate) client: EuidClient,
    /// `None` with an external operator.
    pub(crate) sandbox: Option<SandboxServer>,
}

impl Regions {
    /// Those whose operators the environment names. If it names none: those on embedded sandboxes.
    pub(crate) async fn from_env(clock: &ManualClock) -> Result<Self, Box<dyn Error>> {
        let named: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| names_operator(*scope)).collect();
        let (first, second) = match named[..] {
            [first, second] => (first, Some(second)),
            [only] => (only, None),
            _ => match variable("SCOPE") {
                Some(word) => (word.parse().map_err(|error| format!("SCOPE is {error}"))?, None),
                None => (Scope::Euid, Some(Scope::Uid2)),
            },
        };
        let first = Region::from_env(first, clock).await?;
        let second = match second {
            Some(scope) => Some(Region::from_env(scope, clock).await?),
            None => None,
        };
        Ok(Self { first, second })
    }

    /// The region with this scope.
    pub(crate) fn of(&self, scope: Scope) -> &Region {
        match &self.second {
            Some(second) if second.scope == scope => second,
            _ => &self.first,
        }
    }

    fn scope(&self, request: &HeaderMap) -> Scope {
        let named = || request.get("x-region").and_then(|name| scope_of(name.to_str().ok()?));
        match &self.second {
            None => self.first.scope,
            Some(_) => named().or_else(|| chosen(request)).unwrap_or(Scope::Euid),
        }
    }
}

impl Region {
    async fn from_env(scope: Scope, clock: &ManualClock) -> Result<Self, Box<dyn Error>> {
        if names_operator(scope) { Self::external(scope, clock) } else { Self::embedded(scope, clock).await }
    }

    fn external(scope: Scope, clock: &ManualClock) -> Result<Self, Box<dyn Error>> {
        let client = EuidClientBuilder::from_env_of(scope);
        let client = client.map_err(|error| format!("{error} (set all of them, or none)"))?;
        println!("operator: {} ({scope})", variable(&setting(scope, "OPERATOR_URL")).unwrap_or_default());
        Ok(Self { scope, client: client.clock(clock.clone()).build()?, sandbox: None })
    }

    pub(crate) async fn embedded(scope: Scope, clock: &ManualClock) -> Result<Self, Box<dyn Error>> {
        let name = setting(scope, "SANDBOX_PORT");
        let port = port(&name, 0)?;
        let sandbox = Sandbox::builder().scope(scope).clock(clock.clone()).build()?;
        let sandbox = sandbox.serve((Ipv4Addr::LOCALHOST, port).into()).await;
        let sandbox = sandbox.map_err(|error| format!("{name} {port}: {error}"))?;
        println!("operator: {} ({scope}, an embedded sandbox)", sandbox.base_url());
        let client = EuidClientBuilder::from_operator(sandbox.operator()).clock(clock.clone()).build()?;
        Ok(Self { scope, client, sandbox: Some(sandbox) })
    }
}

/// The name of the region that has this scope.
pub(crate) fn name(scope: Scope) -> &'static str {
    match scope {
        Scope::Euid => "eu",
        Scope::Uid2 => "us",
    }
}

/// A middleware around the layer: its hooks, the handlers and the sandbox's buttons find the scope in the request's
/// extensions.
pub(crate) async fn choose(State(site): State<Site>, mut request: Request, next: Next) -> Response {
    let scope = site.regions.scope(request.headers());
    request.extensions_mut().insert(scope);
    next.run(request).await
}

#[derive(Deserialize)]
pub(crate) struct Choice {
    region: String,
}

/// Keeps the choice that the visitor made on the page.
pub(crate) async fn switch(Form(form): Form<Choice>) -> Response {
    let Some(scope) = scope_of(&form.region) else {
        return (StatusCode::BAD_REQUEST, Html(page::error("That did not work", "There are two regions: eu and us.")))
            .into_response();
    };
    let cookie = Cookie::build((CHOICE, name(scope))).path("/").http_only(true).same_site(SameSite::Lax);
    ([(SET_COOKIE, cookie.to_string())], Redirect::to("/")).into_response()
}

fn chosen(request: &HeaderMap) -> Option<Scope> {
    cookies(request).find(|cookie| cookie.name() == CHOICE).and_then(|cookie| scope_of(cookie.value()))
}

/// The cookies of a request. Those of third-party scripts may hold any bytes.
pub(crate) fn cookies(request: &HeaderMap) -> impl Iterator<Item = Cookie<'static>> {
    let texts = request.get_all(COOKIE).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    texts.flat_map(Cookie::split_parse).flatten()
}

fn scope_of(region: &str) -> Option<Scope> {
    Scope::ALL.into_iter().find(|scope| name(*scope) == region)
}

/// Whether any of the variables of [`EuidClientBuilder::from_env_of`] is set.
fn names_operator(scope: Scope) -> bool {
    ["OPERATOR_URL", "API_KEY", "CLIENT_SECRET"].iter().any(|name| variable(&setting(scope, name)).is_some())
}

/// The name of a scope's environment variable.
pub(crate) fn setting(scope: Scope, name: &str) -> String {
    format!("{}{name}", scope.env_prefix())
}

const CHOICE: &str = "demo-region";
