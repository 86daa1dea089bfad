//! axum: [`EuidUpdate`] as a part of a response. The extractors are in `euid_core`, beside the types.

use std::convert::Infallible;

use axum_core::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};

use crate::update::EuidUpdate;

/// ```
/// use axum::response::Redirect;
/// use tower_euid::EuidUpdate;
///
/// async fn logout() -> (EuidUpdate, Redirect) {
///     (EuidUpdate::logout(), Redirect::to("/"))
/// }
/// # let _: axum::Router = axum::Router::new().route("/logout", axum::routing::post(logout));
/// ```
impl IntoResponseParts for EuidUpdate {
    type Error = Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Self::Error> {
        self.merge_into(response.extensions_mut());
        Ok(response)
    }
}

impl IntoResponse for EuidUpdate {
    fn into_response(self) -> Response {
        (self, ()).into_response()
    }
}
