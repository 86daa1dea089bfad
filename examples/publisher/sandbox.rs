//! The buttons that control the sandbox of the request's region: its time, its operator, its opt-outs. The regions share the
//! time.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use euid_sandbox::Fault;
use serde::Deserialize;
use tower_euid::Scope;

use crate::{Site, page};

#[derive(Deserialize)]
pub(crate) struct Advance {
    seconds: u64,
}

pub(crate) async fn advance(State(site): State<Site>, Form(form): Form<Advance>) -> Response {
    if form.seconds > FARTHEST {
        return refused(StatusCode::BAD_REQUEST, "That is too far: the limit is ten years at once.");
    }
    site.clock.advance(Duration::from_secs(form.seconds));
    Redirect::to("/").into_response()
}

#[derive(Deserialize)]
pub(crate) struct Mood {
    operator: Operator,
}

/// The operator's state.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operator {
    #[default]
    Up,
    /// It answers after the page has stopped waiting.
    Slow,
    /// It answers as a load balancer without a server behind it does.
    Down,
}

pub(crate) async fn operator(
    State(site): State<Site>,
    Extension(scope): Extension<Scope>,
    Form(form): Form<Mood>,
) -> Redirect {
    if let Some(sandbox) = &site.regions.of(scope).sandbox {
        sandbox.fault(match form.operator {
            Operator::Up => None,
            Operator::Slow => Some(Fault::Delay(SLOW)),
            Operator::Down => Some(Fault::Status(503)),
        });
        site.notes().of.entry(scope).or_default().operator = form.operator;
    }
    Redirect::to("/")
}

/// A person opts out on the scope's own site; this site learns of it at the next refresh or login.
pub(crate) async fn opt_out(
    State(site): State<Site>,
    Extension(scope): Extension<Scope>,
    headers: HeaderMap,
) -> Response {
    match (&site.regions.of(scope).sandbox, site.notes().sessions.visitor(&headers)) {
        (Some(sandbox), Some(visitor)) => {
            sandbox.opt_out(visitor.dii);
            visitor.opted_out.push(scope);
            Redirect::to("/").into_response()
        }
        _ => refused(StatusCode::CONFLICT, "No visitor is logged in."),
    }
}

fn refused(status: StatusCode, text: &str) -> Response {
    (status, Html(page::error("That did not work", text))).into_response()
}

/// Ten years. At the end of the clock's range no login would be possible.
const FARTHEST: u64 = 10 * 365 * 86_400;
/// Four times as long as a page waits.
const SLOW: Duration = Duration::from_secs(2);
