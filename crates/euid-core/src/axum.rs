//! Extractors for axum: [`Euid`], the token, [`Consent`], [`Reason`] and [`EuidLogoutHandle`]. They are in this crate
//! because the types are; they depend on axum-core alone.

use std::fmt;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::consent::Consent;
use crate::euid::{Euid, EuidLogoutHandle};
use crate::reason::Reason;
use crate::token::AdvertisingToken;

/// ```
/// # use euid_core as tower_euid;
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
/// # use euid_core as tower_euid;
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

/// `None` if the layer has no hook `consent`: then nothing is known.
///
/// ```
/// # use euid_core as tower_euid;
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

/// `None` if the layer does not explain states.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::{Euid, Reason};
///
/// async fn page(euid: Euid, reason: Option<Reason>) -> String {
///     reason.map_or(String::new(), |reason| format!("{}: {reason}", euid.state()))
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(page));
/// ```
impl<S: Sync> OptionalFromRequestParts<S> for Reason {
    type Rejection = EuidLayerMissing;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        parts.extensions.get::<Euid>().ok_or(EuidLayerMissing(()))?;
        Ok(parts.extensions.get::<Self>().copied())
    }
}

/// ```
/// # use euid_core as tower_euid;
/// use axum::response::Redirect;
/// use tower_euid::EuidLogoutHandle;
///
/// async fn logout(handle: EuidLogoutHandle) -> Redirect {
///     handle.logout();
///     Redirect::to("/")
/// }
/// # let _: axum::Router = axum::Router::new().route("/logout", axum::routing::post(logout));
/// ```
impl<S: Sync> FromRequestParts<S> for EuidLogoutHandle {
    type Rejection = EuidLayerMissing;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Self::of(&parts.extensions).ok_or(EuidLayerMissing(()))
    }
}

/// An extractor found no [`Euid`] in the request: the route is not behind an `EuidLayer`. The response
/// is an HTTP 500, because the application is put together wrongly.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::{Euid, EuidLayerMissing};
///
/// /// A handler that is used without the layer, too.
/// async fn page(euid: Result<Euid, EuidLayerMissing>) -> &'static str {
///     euid.map_or("no layer", |euid| euid.state())
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(page));
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
