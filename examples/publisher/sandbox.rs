//! The buttons that move the sandbox: its time, its mood, its opt-outs.

use std::time::Duration;

use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use euid_sandbox::Fault;
use serde::Deserialize;

use crate::{Site, page};

#[derive(Deserialize)]
pub(crate) struct Advance {
    seconds: u64,
}

pub(crate) async fn advance(State(site): State<Site>, Form(form): Form<Advance>) -> Response {
    if form.seconds > FARTHEST {
        return refused(StatusCode::BAD_REQUEST, "That is too far: at most ten years at once.");
    }
    site.clock.advance(Duration::from_secs(form.seconds));
    Redirect::to("/").into_response()
}

#[derive(Deserialize)]
pub(crate) struct Mood {
    operator: Operator,
}

/// How the operator is doing.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operator {
    #[default]
    Up,
    /// It answers, but later than a page waits.
    Slow,
    /// What a load balancer answers when no server is behind it.
    Down,
}

pub(crate) async fn operator(State(site): State<Site>, Form(form): Form<Mood>) -> Redirect {
    if let Some(sandbox) = &site.sandbox {
        sandbox.fault(match form.operator {
            Operator::Up => None,
            Operator::Slow => Some(Fault::Delay(SLOW)),
            Operator::Down => Some(Fault::Status(503)),
        });
        site.notes().operator = form.operator;
    }
    Redirect::to("/")
}

/// The person does so on EUID's own site; this one hears of it with the next refresh or login.
pub(crate) async fn opt_out(State(site): State<Site>) -> Response {
    match (&site.sandbox, &mut site.notes().visitor) {
        (Some(sandbox), Some(visitor)) => {
            sandbox.opt_out(visitor.dii);
            visitor.opted_out = true;
            Redirect::to("/").into_response()
        }
        _ => refused(StatusCode::CONFLICT, "Nobody has logged in who could opt out."),
    }
}

fn refused(status: StatusCode, text: &str) -> Response {
    (status, Html(page::error("That did not work", text))).into_response()
}

/// Ten years; the end of time is a place without logins.
const FARTHEST: u64 = 10 * 365 * 86_400;
/// Four times what a page waits.
const SLOW: Duration = Duration::from_secs(2);
