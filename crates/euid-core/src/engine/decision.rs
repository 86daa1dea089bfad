//! The decision on a request: what the handler sees, and what the response writes.

use http::Method;

use super::scripts::Scripts;
use super::{Change, Findings, Pending};
use crate::consent::Consent;
use crate::euid::Euid;
use crate::policy::{self, Credential, Visibility};
use crate::reason::Reason;
use crate::scope::Scope;
use crate::token::{AdvertisingToken, Note};
use crate::transport::route::{Carrier, Route};
use crate::transport::slots::Brought;

/// The decision on a request: what its handler sees, and what its response will write unless the handler asks for
/// something else.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
/// # let step = engine.begin(&http::Method::GET, &request, &all, || at(5_000));
/// # let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
/// use http::{HeaderMap, StatusCode};
///
/// let (euid, pending) = decision.start();
/// assert_eq!(euid.state(), "active"); // the handler runs, and sees it
/// let mut response = HeaderMap::new();
/// engine.finish(pending, None, StatusCode::OK, &mut response, || at(5_000));
/// assert!(response.is_empty()); // nothing was due, and the handler did nothing
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "the handler has to see it, and the response has to write it"]
pub struct Decision {
    pub(super) route: Route,
    pub(super) euid: Euid,
    pub(super) change: Change,
    pub(super) brought: Brought,
    /// The response removes the leftovers among `brought`.
    pub(super) has_leftovers: bool,
    pub(super) consent: Consent,
    /// Whether the response may end a login: the request brought state, or its method is not safe.
    pub(super) may_end: bool,
    pub(super) scripts: Scripts,
    pub(super) findings: Findings,
    pub(super) reason: Reason,
}

impl Decision {
    /// The decision on a request without state.
    #[inline]
    pub(super) fn without_state(scope: Scope, consent: Consent, method: &Method, withheld: bool) -> Self {
        let verdict = policy::without_identity(Credential::Nothing, Reason::NoLogin, false, consent);
        Self {
            route: Route::by_cookies(scope),
            euid: euid(verdict.sees, None),
            change: Change::Keep,
            brought: Brought::NOTHING,
            has_leftovers: false,
            consent,
            may_end: !method.is_safe(),
            scripts: Scripts::new(false, withheld),
            findings: Findings::NONE,
            reason: verdict.why,
        }
    }

    /// The state that the handler will see.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(5_000));
    /// # let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
    /// assert_eq!(decision.euid().state(), "active");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn euid(&self) -> &Euid {
        &self.euid
    }

    /// Why the handler will see that state.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (candidate, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::Reason;
    /// use tower_euid::error::{ErrorKind, EuidError};
    ///
    /// let no_answer = Err(EuidError::new(ErrorKind::Transient, "no answer"));
    /// for (now, state) in [(15_000, "active"), (25_000, "unavailable")] {
    ///     let decision = candidate.settle(&no_answer, at(now));
    ///     assert_eq!(decision.euid().state(), state);
    ///     assert_eq!(decision.reason(), Reason::RefreshFailed(ErrorKind::Transient));
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The change that the response will write, unless the handler asks for another.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (candidate, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::Refreshed;
    /// use tower_euid::engine::Change;
    ///
    /// let decision = candidate.settle(&Ok(Refreshed::OptedOut), at(15_000));
    /// assert!(matches!(decision.change(), Change::RecordOptOut(_)));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn change(&self) -> &Change {
        &self.change
    }

    /// The scope that serves the request. `None` if the engine serves both scopes, and the host chose neither for this
    /// request.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(5_000));
    /// # let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
    /// assert_eq!(decision.scope(), Some(tower_euid::Scope::Euid));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn scope(&self) -> Option<Scope> {
        self.route.scope()
    }

    /// What carried the request's state, as a word for logs and metrics: `headers` if the engine
    /// [takes state in headers](super::Engine::with_headers) and an app's request came with one of these, else `cookies`.
    /// A browser's request has its state in cookies, unless the engine serves
    /// [web views](crate::HeaderConfig::web_views).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, browser, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// use http::{HeaderMap, HeaderValue, Method};
    /// use tower_euid::{HeaderConfig, engine::Step};
    ///
    /// let engine = engine.with_headers(HeaderConfig::default());
    /// let app = HeaderMap::from_iter([("euid-login".parse()?, HeaderValue::from_static(""))]);
    /// let mut script = app.clone();
    /// script.insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
    /// for (request, transport) in [(browser, "cookies"), (app, "headers"), (script, "cookies")] {
    ///     let step = engine.begin(&Method::GET, &request, &all, || at(5_000));
    ///     let Step::Ready(decision) = step else { panic!("{step:?}") };
    ///     assert_eq!(decision.transport(), transport);
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn transport(&self) -> &'static str {
        match self.route.carrier() {
            Carrier::Cookies => "cookies",
            Carrier::Headers => "headers",
        }
    }

    /// The findings about the request's state, for logs and metrics. Empty after
    /// [`settle`](super::RefreshCandidate::settle): [the candidate](super::RefreshCandidate::findings) has them.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # engine.keys().reload(tower_euid::CookieKey::generate()?.into());
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(5_000));
    /// # let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
    /// use tower_euid::engine::RejectReason;
    ///
    /// // The key was lost, and with it all logins.
    /// assert_eq!(decision.findings().rejected, Some(RejectReason::UnknownKey));
    /// assert_eq!(decision.euid().state(), "absent");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn findings(&self) -> Findings {
        self.findings
    }

    /// Whether the response will write an identity that another page could write as well. A host that wants to write
    /// none for this request then calls [`defer`](Self::defer), which leaves all else to another page too.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (candidate, identity) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::Refreshed;
    ///
    /// let wants_to_write = false; // as the host says of this request
    /// let mut decision = candidate.settle(&Ok(Refreshed::Identity(identity)), at(15_000));
    /// assert!(decision.stores_identity());
    /// if decision.stores_identity() && !wants_to_write {
    ///     decision.defer();
    /// }
    /// assert!(!decision.stores_identity());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn stores_identity(&self) -> bool {
        self.change.stores()
    }

    /// Leaves to the next page all changes that it can write as well. Withdrawn consent ends a login in any case.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (candidate, identity) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::Refreshed;
    /// use tower_euid::engine::Change;
    ///
    /// let mut decision = candidate.settle(&Ok(Refreshed::Identity(identity)), at(15_000));
    /// decision.defer();
    /// assert!(matches!(decision.change(), Change::Keep));
    /// assert_eq!(decision.euid().state(), "active"); // the handler sees the new token all the same
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn defer(&mut self) {
        if self.consent != Consent::Withdrawn {
            self.change = Change::Keep;
        }
        self.has_leftovers = false;
        self.scripts = self.scripts.with_sync(false);
    }

    /// Splits the decision into the [`Euid`] for the handler and the [`Pending`] for the response.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(5_000));
    /// # let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
    /// use tower_euid::AdvertisingToken;
    ///
    /// let (euid, pending) = decision.start();
    /// assert_eq!(euid.advertising_token().map(AdvertisingToken::as_str), Some("E4AAAABl"));
    /// # let _ = pending;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn start(self) -> (Euid, Pending) {
        let Self { route, mut euid, change, brought, has_leftovers, consent, may_end, scripts, .. } = self;
        let note = match &mut euid {
            Euid::Active(token) => {
                token.set_brought(brought, route);
                Some(token.note())
            }
            _ if may_end => Some(Note::without_token(brought, route)),
            _ => None,
        };
        (euid, Pending { change, has_leftovers, note, consent, scripts, is_private: false })
    }
}

/// The state that the handler sees.
#[inline]
pub(super) fn euid(sees: Visibility, token: Option<AdvertisingToken>) -> Euid {
    match (sees, token) {
        (Visibility::Active, Some(token)) => Euid::Active(token),
        (Visibility::Absent, _) => Euid::Absent,
        (Visibility::OptedOut, _) => Euid::OptedOut,
        (Visibility::Withheld, _) => Euid::Withheld,
        (Visibility::Unavailable | Visibility::Active, _) => Euid::Unavailable,
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use super::*;

    /// Each request moves one a few times.
    #[test]
    fn decision_takes_seven_words_with_its_reason() {
        assert_eq!((size_of::<Decision>(), size_of::<Reason>()), (56, 1));
    }
}
