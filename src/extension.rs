//! What handlers find in the request's extensions: [`Euid`], and [`EuidLogout`] for what can't wait for
//! the response.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Extensions;

use crate::identity::AdvertisingToken;

/// What is known of the visitor's EUID. The layer puts one into every request's extensions, so its
/// absence means that the layer is missing.
///
/// Where there is a token to use, the [`AdvertisingToken`] is in the extensions by itself too.
///
/// ```
/// use tower_euid::Euid;
///
/// fn bid_request(euid: &Euid) -> serde_json::Value {
///     serde_json::json!({ "imp": [], "user": euid.eids() }) // nothing usable: no eid at all
/// }
/// assert_eq!(bid_request(&Euid::Absent).to_string(), r#"{"imp":[],"user":{}}"#);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Euid {
    /// No identity. If the visitor is signed in, a login may be generated again: the hook
    /// [`EuidLayer::consent`](crate::EuidLayer::consent), where there is one, says that they allow it.
    #[default]
    Absent,
    /// The current advertising token.
    Active(AdvertisingToken),
    /// The person opted out of EUID; do not ask for them again soon.
    OptedOut,
    /// There is an identity, but no usable token now: the operator did not give one in time. It may
    /// be back with the next request.
    Unavailable,
    /// There is no consent: an identity, if there is one, is not to be used, and none to be generated.
    Withheld,
}

impl Euid {
    /// The token for the bid request, if there is one to use.
    ///
    /// ```
    /// # use tower_euid::{AdvertisingToken, Euid, Identity, IdentityTimes};
    /// # let at = tower_euid::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// let euid = Euid::Active(AdvertisingToken::from(&identity));
    /// assert_eq!(euid.advertising_token().map(AdvertisingToken::as_str), Some("E4AAAABl"));
    /// assert!(Euid::Unavailable.advertising_token().is_none());
    /// # Ok::<_, tower_euid::InvalidIdentity>(())
    /// ```
    #[must_use]
    pub fn advertising_token(&self) -> Option<&AdvertisingToken> {
        match self {
            Self::Active(token) => Some(token),
            Self::Absent | Self::OptedOut | Self::Unavailable | Self::Withheld => None,
        }
    }

    /// The state in one word: `absent`, `active`, `opted_out`, `unavailable` or `withheld`.
    ///
    /// ```
    /// # use tower_euid::Euid;
    /// assert_eq!(Euid::OptedOut.state(), "opted_out");
    /// ```
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Active(_) => "active",
            Self::OptedOut => "opted_out",
            Self::Unavailable => "unavailable",
            Self::Withheld => "withheld",
        }
    }
}

/// Ends the visitor's login, whatever becomes of the response.
///
/// A handler says [`EuidUpdate::logout`](crate::EuidUpdate::logout) in its response, and that is the way
/// to log out. This is for a handler that can fail half-way, or whose response another layer may put
/// another one in place of (a timeout, a panic handler): said first, it reaches the browser with
/// whatever response passes the layer in the end.
///
/// ```
/// # #[cfg(feature = "axum")]
/// # fn doc() {
/// use axum::response::Redirect;
/// use tower_euid::EuidLogout;
///
/// # struct Failed; impl axum::response::IntoResponse for Failed { fn into_response(self) -> axum::response::Response { "".into_response() } }
/// # async fn end_session() -> Result<(), Failed> { Ok(()) }
/// async fn logout(euid: EuidLogout) -> Result<Redirect, Failed> {
///     euid.now();
///     end_session().await?; // whether or not this works
///     Ok(Redirect::to("/"))
/// }
/// # let _: axum::Router = axum::Router::new().route("/logout", axum::routing::post(logout));
/// # }
/// ```
///
/// Nothing can be written where there is no response: if the inner service returns its `Error`, or once
/// the head of the response has passed. A `GET` (or other safe request) that brings none of our cookies has
/// nothing to end, and there it does nothing.
#[derive(Clone, Debug)]
#[must_use = "nobody is logged out until `now` is called"]
pub struct EuidLogout(Switch);

/// Where it is noted; written once, never taken back.
#[derive(Clone, Debug)]
enum Switch {
    /// In the allocation that the token has anyway.
    Token(AdvertisingToken),
    Own(Arc<AtomicBool>),
    /// There is nothing to end.
    Nothing,
}

impl EuidLogout {
    /// From the extensions of a request; `None` if the [`EuidLayer`](crate::EuidLayer) is missing.
    ///
    /// ```
    /// use tower_euid::EuidLogout;
    ///
    /// # fn handler(request: &http::Request<()>) {
    /// if let Some(logout) = EuidLogout::of(request.extensions()) {
    ///     logout.now();
    /// }
    /// # }
    /// # assert!(EuidLogout::of(&http::Extensions::new()).is_none());
    /// ```
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let euid = extensions.get::<Euid>()?;
        let own = || extensions.get::<Self>().cloned().unwrap_or(Self(Switch::Nothing));
        Some(euid.advertising_token().map_or_else(own, |token| Self(Switch::Token(token.clone()))))
    }

    /// From now on the response is a logout, whatever else it is: as
    /// [`EuidUpdate::logout`](crate::EuidUpdate::logout), it beats a login.
    ///
    /// ```
    /// # #[cfg(feature = "sandbox")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use http::{Request, Response, StatusCode};
    /// # use tower::{Layer, service_fn};
    /// # use tower_euid::EuidLogout;
    /// # use tower_euid::sandbox::{Sandbox, VisitorState};
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = sandbox.client_and_layer()?;
    /// async fn logout(request: Request<()>) -> Result<Response<()>, std::convert::Infallible> {
    ///     if let Some(logout) = EuidLogout::of(request.extensions()) {
    ///         logout.now();
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
    pub fn now(&self) {
        if let Some(switch) = self.switch() {
            switch.store(true, Ordering::Relaxed);
        }
    }

    /// With a note of its own, where there is no token to hold it.
    pub(crate) fn own() -> Self {
        Self(Switch::Own(Arc::default()))
    }

    pub(crate) fn of_token(token: Option<AdvertisingToken>) -> Self {
        Self(token.map_or(Switch::Nothing, Switch::Token))
    }

    pub(crate) fn was_called(&self) -> bool {
        self.switch().is_some_and(|switch| switch.load(Ordering::Relaxed))
    }

    pub(crate) fn token(&self) -> Option<&AdvertisingToken> {
        match &self.0 {
            Switch::Token(token) => Some(token),
            Switch::Own(_) | Switch::Nothing => None,
        }
    }

    /// Whether its note is neither in a token nor needless, so that it has to be kept itself.
    pub(crate) fn has_own_note(&self) -> bool {
        matches!(self.0, Switch::Own(_))
    }

    /// The token; a note of its own is lost.
    pub(crate) fn into_token(self) -> Option<AdvertisingToken> {
        match self.0 {
            Switch::Token(token) => Some(token),
            Switch::Own(_) | Switch::Nothing => None,
        }
    }

    fn switch(&self) -> Option<&AtomicBool> {
        match &self.0 {
            Switch::Token(token) => Some(token.logged_out()),
            Switch::Own(own) => Some(own),
            Switch::Nothing => None,
        }
    }
}
