//! Client and layer over an HTTP service of the application.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use euid_core::clock::Clock;
use euid_core::error::ConfigError;
use euid_core::{CookieKey, Operator};
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::Service;

use crate::client::{EuidClient, EuidClientBuilder};
use crate::layer::EuidLayer;

/// Returns a client and a layer for the tests of a site: over an HTTP service instead of a socket, on one clock, with a
/// cookie key of their own and without jitter, so that tests know the exact millisecond at which a refresh is due. The
/// [guide](crate::docs::testing) has a whole test file.
///
/// To make a layer with the site's own keys, write `EuidLayer::new(keys, client.clone()).clock(clock)`. For production
/// with an HTTP client of your own, see [`EuidClientBuilder::http_service`].
///
/// ```
/// # #[cfg(feature = "axum")]
/// # {
/// use axum::{Router, routing::get};
/// use euid_sandbox::Sandbox;
/// use tower_euid::{Euid, EuidClient, EuidLayer};
///
/// /// The site; in production with those of `tower_euid::from_env()?`.
/// fn app(client: EuidClient, layer: EuidLayer) -> Router {
///     Router::new().route("/", get(|euid: Euid| async move { euid.state() })).layer(layer).with_state(client)
/// }
/// let sandbox = Sandbox::builder().build()?;
/// let (client, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
/// let app = app(client, layer);
/// # }
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
///
/// # Errors
///
/// If the operating system gives no random bytes.
pub fn from_service<S, B>(
    operator: Operator,
    service: S,
    clock: impl Clock + Clone,
) -> Result<(EuidClient, EuidLayer), ConfigError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let client = EuidClientBuilder::from_operator(operator).http_service(service).clock(clock.clone()).build()?;
    let layer = EuidLayer::new(CookieKey::generate()?.into(), client.clone());
    Ok((client, layer.clock(clock).refresh_jitter(Duration::ZERO)))
}
