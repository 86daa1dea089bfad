//! The hooks: the application's answers about a request (consent, the signed-in user) or a response (a logout).

use std::sync::Arc;

use euid_core::{Consent, Scope, tcf};
use http::{request, response};

use super::EuidLayer;

/// The hooks of the application.
impl EuidLayer {
    /// Sets the hook that returns the visitor's consent. The hook runs for each request, before the layer reads the
    /// visitor's state. The hook reads consent from where the application keeps it; for the TC string of a consent banner, use
    /// [`consent_from_tcf_cookie`](Self::consent_from_tcf_cookie). Handlers find the answer in the request's
    /// extensions, as [`Consent`]. Default: granted, and no `Consent` in the extensions.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, refresh_fn};
    /// # use tower_euid::error::{ErrorKind, EuidError};
    /// use tower_euid::Consent;
    ///
    /// # #[derive(Clone, Copy)] struct Choice { advertising: bool }
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "")) });
    /// // A layer further out has read the visitor's choice:
    /// let layer = EuidLayer::new(keys, client).consent(|request| match request.extensions.get::<Choice>() {
    ///     Some(Choice { advertising: true }) => Consent::Granted,
    ///     Some(Choice { advertising: false }) => Consent::Withdrawn,
    ///     None => Consent::Withheld,
    /// });
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    ///
    /// The hook is not async. If the choice is kept in an async session (`tower_sessions`), let a middleware
    /// put it into the request's extensions, as [`subject`](Self::subject) shows for the user's id. With
    /// `axum_login`, the hook can read the user from `AuthSession` directly.
    pub fn consent(self, consent: impl Fn(&request::Parts) -> Consent + Send + Sync + 'static) -> Self {
        self.set(|config| {
            config.consent = Some(Arc::new(consent));
            config.obeys_tcf_cookie = false;
        })
    }

    /// Sets a [`consent`](Self::consent) hook that reads consent from the TCF v2 string in the cookie `euconsent-v2`,
    /// where consent banners keep it. It replaces a hook that was set before. A string that allows enough grants
    /// consent; a string that allows too little withdraws it. Consent is withheld if there is no string, if none can be
    /// read, or if two differ. The module [`tcf`](crate::tcf) has a table of all cases, and the parts for a hook of
    /// your own.
    ///
    /// The TCF is for visitors in Europe. In the scope UID2 consent is granted whatever the string says: a hook of your own
    /// can read what applies there, such as a GPP string. If the hook of [`scope`](Self::scope) chooses no scope, the rule of
    /// the scope that the layer was made with applies.
    ///
    /// ```
    /// # #[cfg(feature = "client")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use http::{Request, header::COOKIE};
    /// # use tower::{Layer, service_fn};
    /// # use euid_sandbox::{Sandbox, VisitorState};
    /// # let page = service_fn(async |request: Request<()>| Ok::<_, std::convert::Infallible>(
    /// #     http::Response::new(request.extensions().get().map_or("", tower_euid::Euid::state))));
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// let layer = layer.consent_from_tcf_cookie();
    /// let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?; // has a fresh identity
    /// let app = layer.layer(page);
    /// for (choice, state) in [
    ///     ("theme=dark", "withheld"), // no choice yet
    ///     ("euconsent-v2=CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA", "active"),
    /// ] {
    ///     let request = Request::builder().header(COOKIE, choice).body(())?;
    ///     assert_eq!(visitor.send(&app, request).await?.into_body(), state);
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn consent_from_tcf_cookie(self) -> Self {
        let own = self.config.coordinator.scope();
        let layer = self.consent(move |request| match request.extensions.get::<Scope>().unwrap_or(&own) {
            Scope::Euid => tcf::consent(&request.headers),
            Scope::Uid2 => Consent::Granted,
        });
        layer.set(|config| config.obeys_tcf_cookie = true)
    }

    /// Sets the hook that returns the id of the signed-in user, in any form that the application uses. A login can
    /// [bind](crate::EuidUpdate::subject) its identity, or the opt-out that it reports, to a user (the *subject*). Then
    /// pages use it only while that user is signed in. If another user is signed in, the layer removes it. While no user
    /// is signed in, the layer keeps it, and pages see `Absent`. The sealed value holds a keyed digest of the id, not the
    /// id. Default: no identity is bound to a user.
    ///
    /// The hook sees the extensions that layers further out have put into the request, so the session layer must be
    /// outside. In axum, the layer that is added later is outside: `.layer(euid).layer(session)`. In the opposite order
    /// the hook never finds a user, and bound identities are always `Absent`; an event warns of this once, after 20
    /// requests with one. See also [the order of layers](crate::docs::layers). `examples/site.rs` is a complete site.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, refresh_fn};
    /// # use tower_euid::error::{ErrorKind, EuidError};
    /// # #[derive(Clone)] struct UserId(u64);
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "")) });
    /// // A layer further out has put the user's id into the request:
    /// let layer = EuidLayer::new(keys, client)
    ///     .subject(|request| request.extensions.get::<UserId>().map(|user| user.0.to_string()));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    ///
    /// # With tower-sessions
    ///
    /// The hook is not async, but a session is: `tower_sessions::Session::get` may have to load it first. So read it in
    /// a middleware between the session layer and this one, and put the id into the request's extensions:
    ///
    /// ```
    /// # #[cfg(all(feature = "client", feature = "axum"))]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use euid_sandbox::{Sandbox, VisitorState};
    /// # /// Has the shape of `tower_sessions::Session`.
    /// # #[derive(Clone)]
    /// # struct Session;
    /// # impl Session {
    /// #     async fn get<T: From<u32>>(&self, key: &str) -> Result<Option<T>, ()> { Ok((key == "user_id").then(|| 17.into())) }
    /// # }
    /// # impl<S: Sync> axum::extract::FromRequestParts<S> for Session {
    /// #     type Rejection = axum::http::StatusCode;
    /// #     async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, Self::Rejection> {
    /// #         parts.extensions.get().cloned().ok_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR)
    /// #     }
    /// # }
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// # let layer = layer.subject(|request| request.extensions.get::<UserId>().map(|user| user.0.to_string()));
    /// # let session_layer = axum::Extension(Session);
    /// # let mut visitor = sandbox.bound_visitor(&layer, VisitorState::Fresh, "17")?;
    /// use axum::{Router, extract::Request, middleware::{Next, from_fn}, response::Response, routing::get};
    /// # use tower_euid::Euid;
    ///
    /// #[derive(Clone)]
    /// struct UserId(i64);
    ///
    /// async fn signed_in(session: Session, mut request: Request, next: Next) -> Response {
    ///     if let Ok(Some(id)) = session.get("user_id").await {
    ///         request.extensions_mut().insert(UserId(id));
    ///     }
    ///     next.run(request).await
    /// }
    ///
    /// let app = Router::new()
    ///     .route("/", get(|euid: Euid| async move { euid.state() }))
    ///     .layer(layer)
    ///     .layer(from_fn(signed_in))
    ///     .layer(session_layer); // tower_sessions::SessionManagerLayer
    /// # let response = visitor.send(&app, Request::new(axum::body::Body::empty())).await?;
    /// # assert_eq!(axum::body::to_bytes(response.into_body(), 99).await?, "active");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # With axum-login
    ///
    /// The layer of axum-login loads the user before it calls the inner service, so you need no middleware. The
    /// repository has a whole site, `examples/wiring/examples/axum_login.rs`. `Backend` is your `AuthnBackend`:
    ///
    /// ```text
    /// .subject(|request| Some(request.extensions.get::<AuthSession<Backend>>()?.user.as_ref()?.id().to_string()))
    /// ```
    pub fn subject<S: AsRef<[u8]>>(
        self,
        signed_in: impl Fn(&request::Parts) -> Option<S> + Send + Sync + 'static,
    ) -> Self {
        let signed_in = move |parts: &request::Parts| signed_in(parts).map(|id| id.as_ref().into());
        self.set(|config| config.subject = Some(Arc::new(signed_in)))
    }

    /// Sets a hook that decides which responses are logouts, in addition to those with
    /// [`EuidUpdate::logout`](crate::EuidUpdate::logout). A response with `Clear-Site-Data: "cookies"` (or `"*"`) is
    /// always a logout.
    ///
    /// ```
    /// # use tower_euid::{CookieKey, EuidLayer, KeyRing, refresh_fn};
    /// # use tower_euid::error::{ErrorKind, EuidError};
    /// # let keys = KeyRing::from(CookieKey::generate()?);
    /// # let client = refresh_fn(|_| async { Err(EuidError::new(ErrorKind::Transient, "")) });
    /// let layer = EuidLayer::new(keys, client)
    ///     .logout_when(|response| response.headers.contains_key("x-session-ended"));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    pub fn logout_when(self, logout: impl Fn(&response::Parts) -> bool + Send + Sync + 'static) -> Self {
        self.set(|config| config.logout_when = Some(Arc::new(logout)))
    }
}
