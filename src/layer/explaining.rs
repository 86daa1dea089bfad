//! The explanation of states, for developers.

use super::EuidLayer;

impl EuidLayer {
    /// Sets whether the layer explains each visitor's state, for development and staging. Default: no.
    ///
    /// With it, each response has the state and its [`Reason`](crate::Reason) in the header `Server-Timing`, which the
    /// developer tools of browsers show under "Network", "Timing". [The guide](crate::docs::explain) lists the reasons. The
    /// metric is named `euid`, or `uid2` in that scope. If the response changes the state (a login, a logout, a new pair of
    /// tokens), the header has that as well: state and reason are what the handler saw, before the change. Handlers find the
    /// reason in the request's extensions, and in axum `Option<Reason>` extracts it.
    ///
    /// In a [layer inside another](Self#a-layer-inside-another) the setting of the outer one counts. The inner one adds a metric
    /// of its own where it hides more.
    ///
    /// The texts are fixed words. They tell what the layer knows of a visitor (signed in, opted out, without consent), so
    /// each response becomes `private, no-cache`, as one whose handler reads the token. So do not set it in production:
    /// shared caches then store none of the responses behind the layer.
    ///
    /// ```
    /// # #[cfg(feature = "client")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use std::convert::Infallible;
    /// # use http::{Request, Response};
    /// # use tower::{Layer, ServiceExt, service_fn};
    /// # use euid_sandbox::Sandbox;
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// use tower_euid::Reason;
    ///
    /// let page = service_fn(async |request: Request<()>| {
    ///     Ok::<_, Infallible>(Response::new(request.extensions().get::<Reason>().copied()))
    /// });
    /// let response = layer.explain(true).layer(page).oneshot(Request::new(())).await?;
    /// assert_eq!(response.headers()["server-timing"], "euid;desc=\"absent; no login cookie\"");
    /// assert_eq!(response.into_body(), Some(Reason::NoLogin));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn explain(self, explains: bool) -> Self {
        self.set(|config| config.explains = explains)
    }
}
