//! The values for a handler in the extensions of a request: [`Euid`], and [`EuidLogoutHandle`] for a logout that can't
//! wait for the response.

use http::Extensions;

use crate::token::{AdvertisingToken, Note};

/// The state of the visitor's EUID. Each request that has passed tower-euid's `EuidLayer` holds one in its
/// extensions: if there is none, the layer is missing.
///
/// Where there is a token to use, the extensions also hold the [`AdvertisingToken`] by itself.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::Euid;
///
/// fn bid_request(euid: &Euid) -> serde_json::Value {
///     serde_json::json!({ "imp": [], "user": euid.eids() }) // nothing usable: no eid at all
/// }
/// assert_eq!(bid_request(&Euid::Absent).to_string(), r#"{"imp":[],"user":{}}"#);
/// ```
///
/// Only one state allows to generate an identity: `Absent`. A `match` that excludes `Withheld` and generates
/// in all other cases is wrong, because without consent a visitor can be `OptedOut` too. The extensions
/// also hold the visitor's [`Consent`](crate::Consent), if the site looks it up (with the hook
/// `EuidLayer::consent`):
///
/// ```
/// # use euid_core as tower_euid;
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
    /// No identity. If the visitor is signed in, an identity may be generated again: the consent, if the
    /// site looks it up, is granted.
    #[default]
    Absent,
    /// The current advertising token.
    Active(AdvertisingToken),
    /// The person opted out of EUID: generate no identity for them. A visitor without consent is shown this
    /// too, so it says nothing of consent; the request's [`Consent`](crate::Consent) does.
    OptedOut,
    /// There is an identity, but no valid token now: the operator did not issue one in time. The next
    /// request may have one.
    Unavailable,
    /// There is no consent: use no identity, if there is one, and generate none. Other states do not mean
    /// that there is consent, because [`OptedOut`](Self::OptedOut) takes precedence; the request's
    /// [`Consent`](crate::Consent) tells `Withheld` from `Withdrawn`.
    Withheld,
}

impl Euid {
    /// The token for the bid request, if there is one to use.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{AdvertisingToken, Euid, Identity};
    /// # use tower_euid::identity::IdentityTimes;
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// let euid = Euid::Active(AdvertisingToken::from(&identity));
    /// assert_eq!(euid.advertising_token().map(AdvertisingToken::as_str), Some("E4AAAABl"));
    /// assert!(Euid::Unavailable.advertising_token().is_none());
    /// # Ok::<_, tower_euid::error::InvalidIdentity>(())
    /// ```
    #[inline]
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
    /// # use euid_core as tower_euid;
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

/// A handle that ends the visitor's login with any response, even one that replaces the handler's.
///
/// The usual way to log out is an `EuidUpdate::logout` in the response. This type is for a handler that can
/// fail half-way, and for one whose response another layer may replace (a timeout, a panic handler): the
/// logout reaches the browser with any response that passes the `EuidLayer`.
///
/// ```
/// # use euid_core as tower_euid;
/// # #[cfg(feature = "axum")]
/// # fn doc() {
/// use axum::response::Redirect;
/// use tower_euid::EuidLogoutHandle;
///
/// # struct Failed; impl axum::response::IntoResponse for Failed { fn into_response(self) -> axum::response::Response { "".into_response() } }
/// # async fn end_session() -> Result<(), Failed> { Ok(()) }
/// async fn logout(handle: EuidLogoutHandle) -> Result<Redirect, Failed> {
///     handle.logout();
///     end_session().await?; // whether or not this works
///     Ok(Redirect::to("/"))
/// }
/// # let _: axum::Router = axum::Router::new().route("/logout", axum::routing::post(logout));
/// # }
/// ```
///
/// A logout needs a response to be written into. There is none if the inner service returns its `Error`,
/// and none once the head of the response has been sent. A `GET` (or another safe request) without any
/// of the layer's cookies has nothing to end: there it does nothing.
#[derive(Clone, Debug)]
#[must_use = "the login goes on until `logout` is called"]
pub struct EuidLogoutHandle(Option<Note>);

impl EuidLogoutHandle {
    /// Finds the handle in the extensions of a request; `None` if the `EuidLayer` is missing.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::EuidLogoutHandle;
    ///
    /// # fn handler(request: &http::Request<()>) {
    /// if let Some(logout) = EuidLogoutHandle::of(request.extensions()) {
    ///     logout.logout();
    /// }
    /// # }
    /// # assert!(EuidLogoutHandle::of(&http::Extensions::new()).is_none());
    /// ```
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let euid = extensions.get::<Euid>()?;
        let own = || extensions.get::<Self>().cloned().unwrap_or(Self(None));
        Some(euid.advertising_token().map_or_else(own, |token| Self(Some(token.note()))))
    }

    /// Makes the response a logout, whatever its content. As with `EuidUpdate::logout`, the logout takes precedence
    /// over a login.
    ///
    /// The logout is written into the response that passes the `EuidLayer`. So a layer that replaces the
    /// response must be *inside* of it. If such a layer is outside, it drops what the `EuidLayer` has
    /// written, and the visitor stays logged in.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::EuidLogoutHandle;
    ///
    /// fn delete_account(logout: &EuidLogoutHandle) -> std::io::Result<()> {
    ///     logout.logout();
    ///     std::fs::remove_dir_all("accounts/7") // whether or not this works
    /// }
    /// ```
    pub fn logout(&self) {
        if let Some(note) = &self.0 {
            note.log_out();
        }
    }

    /// Keeps the token from scripts in the browser: the response removes the cookie of
    /// [`expose_token_to_scripts`](crate::CookieConfig::expose_token_to_scripts). For a host inside another, whose own consent
    /// is stricter.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let engine = engine.with_cookie(tower_euid::CookieConfig::default().expose_token_to_scripts());
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(5_000));
    /// # let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
    /// use http::{HeaderMap, StatusCode};
    /// use tower_euid::CookieConfig;
    ///
    /// let (_, pending) = decision.start();
    /// pending.logout().unwrap().withhold_token();
    /// let mut response = HeaderMap::new();
    /// let report = engine.finish(pending, None, StatusCode::OK, &mut response, || at(5_000)).report();
    /// assert!(response["set-cookie"].as_bytes().starts_with(b"__euid_advertising_token=;")); // empty
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn withhold_token(&self) {
        if let Some(note) = &self.0 {
            note.withhold();
        }
    }

    /// The number that the host set with [`Pending::set_host_id`](crate::engine::Pending::set_host_id); `None` if there
    /// is nothing to end.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(5_000));
    /// # let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
    /// let (_, pending) = decision.start();
    /// let logout = pending.logout().unwrap();
    /// assert_eq!(logout.host_id(), Some(0));
    /// pending.set_host_id(7);
    /// assert_eq!(logout.host_id(), Some(7));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn host_id(&self) -> Option<usize> {
        self.0.as_ref().map(Note::host_id)
    }

    pub(crate) fn note(&self) -> Option<&Note> {
        self.0.as_ref()
    }

    #[inline]
    pub(crate) fn of_note(note: Note) -> Self {
        Self(Some(note))
    }
}
