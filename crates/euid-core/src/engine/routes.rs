//! Which scope serves a request, and what carries its state.
//!
//! 1. An engine serves one scope, or both: then the host chooses one for each request.
//! 2. State is in cookies. If the engine takes headers too, a request that brings one of these has its state in headers
//!    alone: the two never mix.
//! 3. A request with `Sec-Fetch-Site` is one from a browser, whose scripts must not get sealed values to keep. Its state is
//!    in cookies, unless the site says that its pages are in web views.

use http::{HeaderMap, HeaderName};

use super::{Engine, RequestContext};
use crate::scope::Scope;
use crate::sealed::StoreSecret;
use crate::store::StoreMode;
use crate::transport::cookies::Cookies;
use crate::transport::headers::Headers;
use crate::transport::route::Carrier;
use crate::transport::{CookieConfig, HeaderConfig, Transport};

/// What few engines have: another scope, headers, and a store.
#[derive(Clone, Debug)]
pub(super) struct Extras {
    other_cookies: Option<Cookies>,
    headers: Option<HeaderSide>,
    /// A store by handle.
    store: Option<StoreMode>,
    /// A store by user.
    user_store: Option<StoreSecret>,
}

/// The settings of an engine that depend on each other.
pub(super) struct Setup {
    pub(super) cookies: CookieConfig,
    /// The first scope, or the only one.
    pub(super) scope: Scope,
    pub(super) both_scopes: bool,
    pub(super) headers: Option<HeaderConfig>,
    pub(super) store: Option<StoreMode>,
    pub(super) user_store: Option<StoreSecret>,
}

/// The headers of an engine that takes them.
#[derive(Clone, Debug)]
struct HeaderSide {
    config: HeaderConfig,
    own: Headers,
    other: Option<Headers>,
}

/// A transport of an engine, found by scope.
pub(super) trait Served: Transport + Sized {
    const CARRIER: Carrier;

    /// The transport for a scope that the engine serves.
    fn of(engine: &Engine, scope: Scope) -> Option<&Self>;
}

impl Served for Cookies {
    const CARRIER: Carrier = Carrier::Cookies;

    #[inline]
    fn of(engine: &Engine, scope: Scope) -> Option<&Self> {
        if engine.cookies.scope() == scope {
            return Some(&engine.cookies);
        }
        engine.other_cookies().filter(|other| other.scope() == scope)
    }
}

impl Served for Headers {
    const CARRIER: Carrier = Carrier::Headers;

    fn of(engine: &Engine, scope: Scope) -> Option<&Self> {
        engine.header_side()?.all().find(|headers| headers.scope() == scope)
    }
}

impl HeaderSide {
    fn all(&self) -> impl Iterator<Item = &Headers> {
        std::iter::once(&self.own).chain(&self.other)
    }
}

impl Engine {
    /// The engine with other settings of those that depend on each other.
    pub(super) fn set_up(self, change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup {
            cookies: self.cookies.config().clone(),
            scope: self.cookies.scope(),
            both_scopes: self.serves_both(),
            headers: self.header_side().map(|side| side.config),
            store: self.store(),
            user_store: self.user_store().cloned(),
        };
        change(&mut setup);
        let Setup { cookies, scope, both_scopes, headers, store, user_store } = setup;
        let other = both_scopes.then(|| scope.other());
        let headers = headers.and_then(|config| {
            Some(HeaderSide { config, own: Headers::new(scope)?, other: other.and_then(Headers::new) })
        });
        let other_cookies = other.map(|other| Cookies::new(cookies.clone(), other));
        let has_extras = headers.is_some() || other_cookies.is_some() || store.is_some() || user_store.is_some();
        let extras = has_extras.then(|| Box::new(Extras { other_cookies, headers, store, user_store }));
        Self { cookies: Cookies::new(cookies, scope), extras, ..self }
    }

    pub(super) fn serves_both(&self) -> bool {
        self.other_cookies().is_some()
    }

    /// How the engine uses a store whose handle is the login slot, if it does.
    pub(super) fn store(&self) -> Option<StoreMode> {
        self.extras.as_ref()?.store
    }

    /// The secret of a store that is keyed by the user, if the engine uses one.
    pub(super) fn user_store(&self) -> Option<&StoreSecret> {
        self.extras.as_ref()?.user_store.as_ref()
    }

    pub(super) fn has_store(&self) -> bool {
        self.store().is_some() || self.user_store().is_some()
    }

    /// Whether a request may have state beside that at the client in the scope that serves it.
    pub(super) fn has_state_elsewhere(&self) -> bool {
        self.serves_both() || self.has_store()
    }

    /// The cookies of the second scope, if the engine serves both.
    pub(super) fn other_cookies(&self) -> Option<&Cookies> {
        self.extras.as_ref()?.other_cookies.as_ref()
    }

    fn header_side(&self) -> Option<&HeaderSide> {
        self.extras.as_ref()?.headers.as_ref()
    }

    /// The scope that serves a request; `None` if the engine serves both, and neither serves this request.
    pub(super) fn serving(&self, context: &RequestContext<'_>) -> Option<Scope> {
        if self.serves_both() { context.scope } else { Some(self.cookies.scope()) }
    }

    /// What carries the state of a request.
    pub(super) fn carrier(&self, request: &HeaderMap) -> Carrier {
        let takes_headers = |side: &HeaderSide| side.config.has_web_views() || !request.contains_key(SEC_FETCH_SITE);
        match self.header_side() {
            Some(side) if takes_headers(side) && side.all().any(|headers| headers.came_in(request)) => Carrier::Headers,
            _ => Carrier::Cookies,
        }
    }

    /// Whether a request header with this name carries state, or decides what carries it.
    pub(super) fn reads_as_transport(&self, name: &HeaderName) -> bool {
        self.header_side().is_some_and(|side| *name == SEC_FETCH_SITE || side.all().any(|headers| headers.reads(name)))
    }
}

/// From browsers only; scripts may not set it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
