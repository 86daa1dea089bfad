//! The core's types, as this crate exports them. This file holds the part of their docs that concerns the layer, the
//! client and the sandbox: rustdoc shows it before the core's own docs. The examples run from here. A text that does
//! not end in an example must end in an empty line; otherwise the core's text would continue the same paragraph.

/// The token for the bid request. An [`EuidLayer`](crate::EuidLayer) puts it into the extensions of each
/// request whose visitor has one.
///
/// Reading it makes the response private:
///
/// ```
/// # #[cfg(feature = "client")]
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # use http::{Request, Response};
/// # use tower::{Layer, service_fn};
/// # use tower_euid::AdvertisingToken;
/// # use euid_sandbox::{Sandbox, VisitorState};
/// # let sandbox = Sandbox::builder().build()?;
/// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
/// # let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
/// let page = service_fn(async |request: Request<()>| {
///     let token = request.extensions().get::<AdvertisingToken>();
///     Ok::<_, std::convert::Infallible>(Response::new(token.map(|token| token.as_str().to_owned())))
/// });
/// let response = visitor.send(&layer.layer(page), Request::new(())).await?;
/// assert!(response.body().is_some());
/// assert_eq!(response.headers()["cache-control"], "private, no-cache"); // the token has been read
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub use euid_core::AdvertisingToken;

/// The visitor's consent: the answer of the hook [`EuidLayer::consent`](crate::EuidLayer::consent), or of
/// [`consent_from_tcf_cookie`](crate::EuidLayer::consent_from_tcf_cookie).
///
/// With such a hook, its answer is in the extensions of each request, and in axum `Option<Consent>` extracts it.
/// Without a hook the extensions have no `Consent`.
///
/// ```
/// # #[cfg(feature = "client")]
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # use http::{Request, Response};
/// # use tower::{Layer, service_fn};
/// # use tower_euid::{Consent, Euid};
/// # use euid_sandbox::{Sandbox, VisitorState};
/// # let page = service_fn(async |request: http::Request<()>| Ok::<_, std::convert::Infallible>(
/// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
/// # let sandbox = Sandbox::builder().build()?;
/// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
/// # let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
/// for (consent, state, has_cookies) in [
///     (Consent::Granted, "active", true),
///     (Consent::Withheld, "withheld", true), // as if not asked yet
///     (Consent::Withdrawn, "withheld", false),
/// ] {
///     let app = layer.clone().consent(move |_| consent).layer(page);
///     assert_eq!(visitor.send(&app, Request::new(())).await?.into_body(), state);
///     assert_eq!(!visitor.cookie_header().is_empty(), has_cookies);
/// }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub use euid_core::Consent;

/// Names and attributes of the cookies, for [`EuidLayer::cookie`](crate::EuidLayer::cookie).
///
/// [`migrate_js_sdk_cookie`](CookieConfig::migrate_js_sdk_cookie) migrates logins of the JavaScript SDK, which name no
/// user: with [`EuidLayer::subject`](crate::EuidLayer::subject) they belong to the first user who is signed in.
/// [`expose_token_to_scripts`](CookieConfig::expose_token_to_scripts) adds a cookie for Prebid:
///
/// ```
/// # #[cfg(feature = "client")] {
/// # use tower_euid::CookieConfig;
/// # use euid_sandbox::{Sandbox, VisitorState};
/// # let sandbox = Sandbox::builder().build()?;
/// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
/// let layer = layer.cookie(CookieConfig::default().expose_token_to_scripts());
/// let visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
/// assert!(visitor.cookie_header().contains("__euid_advertising_token="));
/// # }
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
pub use euid_core::CookieConfig;

/// The state of a visitor, which an [`EuidLayer`](crate::EuidLayer) puts into the extensions of each request.
///
/// If the hook [`EuidLayer::consent`](crate::EuidLayer::consent) finds no consent, `Absent` becomes `Withheld`.
///
pub use euid_core::Euid;

/// An extractor found no [`Euid`] in the request: the route is not behind an [`EuidLayer`](crate::EuidLayer).
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
#[cfg(feature = "axum")]
pub use euid_core::EuidLayerMissing;

/// A logout for a handler that may fail. The usual way to log out is
/// [`EuidUpdate::logout`](crate::EuidUpdate::logout) in the response.
///
/// The logout is written into the response that passes the [`EuidLayer`](crate::EuidLayer):
///
/// ```
/// # #[cfg(feature = "client")]
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # use http::{Request, Response, StatusCode};
/// # use tower::{Layer, service_fn};
/// # use tower_euid::EuidLogoutHandle;
/// # use euid_sandbox::{Sandbox, VisitorState};
/// # let sandbox = Sandbox::builder().build()?;
/// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
/// async fn logout(request: Request<()>) -> Result<Response<()>, std::convert::Infallible> {
///     if let Some(logout) = EuidLogoutHandle::of(request.extensions()) {
///         logout.logout();
///     }
///     let mut response = Response::new(()); // some way on, something fails
///     *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
///     Ok(response)
/// }
/// # let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
/// visitor.send(&layer.layer(service_fn(logout)), Request::new(())).await?;
/// assert_eq!(visitor.cookie_header(), ""); // logged out all the same
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// A layer that makes a response of its own (`CatchPanicLayer`, `TimeoutLayer`) must be *inside* of the `EuidLayer`.
/// Outside, it drops the cookies that the `EuidLayer` has written, and the visitor stays logged in. In axum the layer
/// that is added first is the innermost:
///
/// ```
/// # #[cfg(feature = "axum")]
/// # fn doc(logout: axum::routing::MethodRouter, euid: tower_euid::EuidLayer) {
/// use std::time::Duration;
/// use axum::{Router, http::StatusCode};
/// use tower_http::{catch_panic::CatchPanicLayer, timeout::TimeoutLayer};
///
/// let app = Router::new()
///     .route("/logout", logout)
///     .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_secs(10)))
///     .layer(CatchPanicLayer::new())
///     .layer(euid); // last: around the others
/// # let _: Router = app;
/// # }
/// ```
pub use euid_core::EuidLogoutHandle;

/// The input of [`EuidClient::generate`](crate::EuidClient::generate), which also takes a [`Dii`](crate::Dii)
/// alone.
///
/// ```
/// # #[cfg(feature = "client")]
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # use tower_euid::{Dii, GenerateRequest, Generated};
/// # use euid_sandbox::Sandbox;
/// # let sandbox = Sandbox::builder().build()?;
/// # let (client, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
/// let too_little = "CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA";
/// let request = GenerateRequest::from(Dii::email("user@example.com")?).tcf_consent_string(too_little);
/// assert_eq!(client.generate(request).await?, Generated::InsufficientConsent);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub use euid_core::GenerateRequest;

/// The outcome of [`EuidClient::generate`](crate::EuidClient::generate). Each variant converts into an
/// [`EuidUpdate`](crate::EuidUpdate):
///
/// ```
/// use tower_euid::{EuidUpdate, Generated};
///
/// // The response to a login, for the two outcomes without an identity:
/// assert_eq!(format!("{:?}", EuidUpdate::from(Generated::OptedOut)), "EuidUpdate(OptOut)");
/// assert_eq!(format!("{:?}", EuidUpdate::from(Generated::InsufficientConsent)), "EuidUpdate(Logout)");
/// ```
pub use euid_core::Generated;

/// The ring of cookie keys that [`EuidLayer::new`](crate::EuidLayer::new) takes.
///
/// During a [change of keys](KeyRing#changing-keys), the counter `euid_cookie_old_key_total` of [the
/// metrics](crate::docs::metrics) counts the requests that still bring an identity under an old key. With
/// [`EuidLayer::reseal`](crate::EuidLayer::reseal) each returning visitor moves to the new key at once.
///
pub use euid_core::KeyRing;

/// The operator, as this publisher calls it, without I/O. An [`EuidClient`](crate::EuidClient) makes one for itself; give
/// one to [`from_service`](crate::from_service) or
/// [`EuidClientBuilder::from_operator`](crate::EuidClientBuilder::from_operator).
///
pub use euid_core::Operator;

/// Why a visitor is in their state. A layer with [`EuidLayer::explain`](crate::EuidLayer::explain) puts it into the
/// extensions of each request, and into a header of each response; in axum `Option<Reason>` extracts it.
/// [The guide](crate::docs::explain) says what to do about each.
///
pub use euid_core::Reason;

/// The outcome of a refresh that the operator answered. A [`Refresh`](crate::Refresh) returns it.
///
pub use euid_core::Refreshed;

/// Moments and clocks, for [`EuidLayer::clock`](crate::EuidLayer::clock) and the clock of the client.
///
pub use euid_core::clock;

/// The errors. A [`Refresh`](crate::Refresh) of your own makes an [`EuidError`](crate::EuidError) of an
/// [`ErrorKind`](error::ErrorKind).
///
pub use euid_core::error;

/// Consent from a TCF v2 string, judged as EUID's operator judges it.
///
/// [`EuidLayer::consent_from_tcf_cookie`](crate::EuidLayer::consent_from_tcf_cookie) makes the layer obey the
/// cookie of a consent banner. For a hook of your own, the module has the parts:
///
/// ```
/// use tower_euid::{Consent, EuidLayer, tcf};
///
/// # #[derive(Clone)] struct AgreedToEuid;
/// # let keys = tower_euid::CookieKey::generate()?.into();
/// # let client = tower_euid::refresh_fn(async |identity| Ok(tower_euid::Refreshed::Identity(identity)));
/// // A layer further out has looked up what the visitor answered at login.
/// let layer = EuidLayer::new(keys, client).consent(|request| match request.extensions.get::<AgreedToEuid>() {
///     Some(AgreedToEuid) => tcf::consent(&request.headers),
///     None => Consent::Withheld,
/// });
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
pub use euid_core::tcf;

pub use euid_core::{
    ConfigError, CookieKey, Dii, Environment, EuidError, HeaderConfig, Identity, SameSite, Scope, StoreSecret,
    Uid2Region, dii, engine, identity, openrtb, operator,
};
