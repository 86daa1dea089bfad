//! axum: [`Euid`], the token, [`Consent`] and [`EuidLogout`] as extractors.

use std::fmt;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::euid::{Euid, EuidLogout};
use crate::policy::Consent;
use crate::token::AdvertisingToken;

/// ```
/// use tower_euid::Euid;
///
/// async fn page(euid: Euid) -> String {
///     format!("you are {}", euid.state())
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(page));
/// ```
impl<S: Sync> FromRequestParts<S> for Euid {
    type Rejection = EuidLayerMissing;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get::<Self>().cloned().ok_or(EuidLayerMissing(()))
    }
}

/// ```
/// use tower_euid::AdvertisingToken;
///
/// async fn page(token: Option<AdvertisingToken>) -> String {
///     token.map_or("no ads for you".into(), |token| format!("the bidders get {token}"))
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(page));
/// ```
impl<S: Sync> OptionalFromRequestParts<S> for AdvertisingToken {
    type Rejection = EuidLayerMissing;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        let euid = parts.extensions.get::<Euid>().ok_or(EuidLayerMissing(()))?;
        Ok(euid.advertising_token().cloned())
    }
}

/// `None` if the layer has no hook [`consent`](crate::EuidLayer::consent), so that nothing is known.
///
/// ```
/// use tower_euid::{Consent, Euid};
///
/// async fn page(euid: Euid, consent: Option<Consent>) -> &'static str {
///     match (euid, consent) {
///         (Euid::Absent, Some(Consent::Granted)) => "here an identity may be generated",
///         _ => "nowhere else",
///     }
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(page));
/// ```
impl<S: Sync> OptionalFromRequestParts<S> for Consent {
    type Rejection = EuidLayerMissing;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        parts.extensions.get::<Euid>().ok_or(EuidLayerMissing(()))?;
        Ok(parts.extensions.get::<Self>().copied())
    }
}

impl<S: Sync> FromRequestParts<S> for EuidLogout {
    type Rejection = EuidLayerMissing;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Self::of(&parts.extensions).ok_or(EuidLayerMissing(()))
    }
}

/// An extractor found no [`Euid`] in the request: the route is not behind an
/// [`EuidLayer`](crate::EuidLayer). Answers 500, as it is a mistake in how the application is put
/// together.
///
/// ```
/// # use axum::{Router, body::Body, http::{Request, StatusCode}, routing::get};
/// # use tower::ServiceExt;
/// # use tower_euid::Euid;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = Router::new().route("/", get(|euid: Euid| async move { euid.state() })); // no `.layer(…)`
/// let response = app.oneshot(Request::get("/").body(Body::empty())?).await?;
/// assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct EuidLayerMissing(());

impl fmt::Display for EuidLayerMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this route is not behind an EuidLayer")
    }
}

impl std::error::Error for EuidLayerMissing {}

impl IntoResponse for EuidLayerMissing {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}
