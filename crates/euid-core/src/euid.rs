//! What handlers find in the request's extensions: [`Euid`], and [`EuidLogout`] for what can't wait for
//! the response.

use http::Extensions;

use crate::token::{AdvertisingToken, Note};

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
///
/// Only one state allows to generate an identity: `Absent`. A `match` that excludes `Withheld` and generates
/// in all other cases is wrong, because without consent a visitor can be `OptedOut` too. What the hook
/// [`EuidLayer::consent`](crate::EuidLayer::consent) answered is in the extensions as well, as
/// [`Consent`](crate::Consent):
///
/// ```
/// use http::Request;
/// use tower_euid::{Consent, Euid};
///
/// fn may_generate(request: &Request<()>) -> bool {
///     let (euid, consent) = (request.extensions().get::<Euid>(), request.extensions().get::<Consent>());
///     matches!((euid, consent), (Some(Euid::Absent), Some(Consent::Granted)))
/// }
/// # let mut request = Request::new(());
/// # request.extensions_mut().insert(Euid::Absent);
/// # request.extensions_mut().insert(Consent::Granted);
/// # assert!(may_generate(&request));
/// # request.extensions_mut().insert(Euid::OptedOut);
/// # assert!(!may_generate(&request));
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
    /// The person opted out of EUID: generate no identity for them. This is also shown while consent is
    /// withheld, so it says nothing of consent; the request's [`Consent`](crate::Consent) does.
    OptedOut,
    /// There is an identity, but no usable token now: the operator did not give one in time. It may
    /// be back with the next request.
    Unavailable,
    /// There is no consent: use no identity, if there is one, and generate none. The absence of this state
    /// does not mean consent, as [`OptedOut`](Self::OptedOut) comes first; the request's
    /// [`Consent`](crate::Consent) tells `Withheld` from `Withdrawn`.
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
/// to log out. This is for a handler that can fail half-way, or in place of whose response another layer may
/// make its own (a timeout, a panic handler): the logout reaches the browser with whatever response passes
/// the [`EuidLayer`](crate::EuidLayer) in the end. [`now`](Self::now) says where these layers must be.
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
/// the head of the response has passed. A `GET` (or another safe request) that brings none of the layer's
/// cookies has nothing to end, and there it does nothing.
#[derive(Clone, Debug)]
#[must_use = "the login goes on until `now` is called"]
pub struct EuidLogout(Option<Note>);

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
        let own = || extensions.get::<Self>().cloned().unwrap_or(Self(None));
        Some(euid.advertising_token().map_or_else(own, |token| Self(Some(token.note()))))
    }

    /// From now on the response is a logout, whatever else it is: as
    /// [`EuidUpdate::logout`](crate::EuidUpdate::logout), it beats a login.
    ///
    /// The logout is written into the response that passes the [`EuidLayer`](crate::EuidLayer), so a layer
    /// that makes a response of its own must be *inside* of it: `CatchPanicLayer`, `TimeoutLayer`. Outside,
    /// such a layer drops what the `EuidLayer` would have written, and the visitor stays logged in. In axum
    /// the layer that is added first is the innermost:
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
        if let Some(note) = &self.0 {
            note.log_out();
        }
    }

    /// Keeps the token from scripts in the browser and from the response's cookie for them: for a host inside another,
    /// whose own consent is stricter.
    pub fn withhold_token(&self) {
        if let Some(note) = &self.0 {
            note.withhold();
        }
    }

    /// The number that the host left with [`Pending::mark`](crate::engine::Pending::mark); `None` if there is nothing to
    /// end.
    #[must_use]
    pub fn mark(&self) -> Option<usize> {
        self.0.as_ref().map(Note::mark)
    }

    #[inline]
    pub(crate) fn of_note(note: Note) -> Self {
        Self(Some(note))
    }
}
