//! Logins and logouts. A login gets the token from the operator of the region that it comes from.

use axum::Extension;
use axum::extract::{Form, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;
use tower_euid::error::{ErrorKind, EuidError, InvalidDii};
use tower_euid::{Dii, EuidUpdate, Scope};

use crate::session::{SessionCookie, Visitor};
use crate::{Site, page};

#[derive(Deserialize)]
pub(crate) struct Login {
    email: Option<String>,
    phone: Option<String>,
}

pub(crate) async fn login(
    State(site): State<Site>,
    Extension(scope): Extension<Scope>,
    headers: HeaderMap,
    Form(form): Form<Login>,
) -> Result<(EuidUpdate, SessionCookie, Response), (EuidUpdate, SessionCookie, LoginError)> {
    // A new person is logging in: the previous visitor is gone, even if this login fails.
    let ended = site.notes().sessions.end(&headers);
    match begin(&site, scope, form).await {
        Ok((update, session)) => Ok((update, session, done(&headers))),
        Err(error) => Err((EuidUpdate::logout(), ended, error)),
    }
}

/// A real site authenticates the person here. This one trusts the address.
async fn begin(site: &Site, scope: Scope, form: Login) -> Result<(EuidUpdate, SessionCookie), LoginError> {
    let given = |field: Option<String>| field.filter(|text| !text.trim().is_empty());
    let (dii, address) = match (given(form.email), given(form.phone)) {
        (Some(email), None) => (Dii::email(&email)?, email),
        (None, Some(phone)) => (Dii::phone(&phone)?, phone),
        _ => return Err(LoginError::Address("give an email address or a phone number".to_owned())),
    };
    let generated = site.regions.of(scope).client.generate(dii).await?;
    let update = EuidUpdate::from(generated).subject(&address);
    let session = site.notes().sessions.begin(Visitor { address, dii, opted_out: Vec::new() })?;
    Ok((update, session))
}

/// Ends the login at this site, in both regions. The operators take no part in it.
pub(crate) async fn logout(State(site): State<Site>, headers: HeaderMap) -> (EuidUpdate, SessionCookie, Response) {
    let ended = site.notes().sessions.end(&headers);
    (EuidUpdate::logout(), ended, done(&headers))
}

/// Sends a browser to the front page. An app gets no redirect: many HTTP clients follow one and hide its headers.
fn done(request: &HeaderMap) -> Response {
    if request.get(ACCEPT).is_some_and(|accept| accept == "application/json") {
        StatusCode::NO_CONTENT.into_response()
    } else {
        Redirect::to("/").into_response()
    }
}

pub(crate) enum LoginError {
    /// The visitor can correct it.
    Address(String),
    /// The visitor can't correct it.
    Operator(EuidError),
    /// The operating system gave no random bytes for a session.
    Session(getrandom::Error),
}

impl From<InvalidDii> for LoginError {
    fn from(error: InvalidDii) -> Self {
        Self::Address(error.to_string())
    }
}

impl From<EuidError> for LoginError {
    fn from(error: EuidError) -> Self {
        match error.kind() {
            ErrorKind::RejectedInput => Self::Address(error.to_string()),
            _ => Self::Operator(error),
        }
    }
}

impl From<getrandom::Error> for LoginError {
    fn from(error: getrandom::Error) -> Self {
        Self::Session(error)
    }
}

impl IntoResponse for LoginError {
    fn into_response(self) -> Response {
        let (status, page) = match self {
            Self::Address(rule) => (StatusCode::BAD_REQUEST, page::error("That did not work", &rule)),
            Self::Operator(error) => {
                tracing::error!(kind = ?error.kind(), %error, "no identity at login");
                let page = page::error("Please try again later", "The identity service does not answer.");
                (StatusCode::SERVICE_UNAVAILABLE, page)
            }
            Self::Session(error) => {
                tracing::error!(%error, "no session at login");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    page::error("Please try again later", "The site cannot log you in."),
                )
            }
        };
        (status, Html(page)).into_response()
    }
}
