//! An identity that is due for a refresh, until the refresh has an outcome.

use std::sync::Arc;
use std::time::Duration;

use super::Findings;
use super::source::Source;
use super::stored_refresh::StoredRefresh;
use crate::clock::UnixMillis;
use crate::identity::{Identity, IdentityTimes};
use crate::scope::Scope;
use crate::sealed::login::Lineage;
use crate::transport::js_sdk::ScriptCookie;
use crate::transport::route::Route;
use crate::transport::slots::Brought;

/// An identity that is due for a refresh, with the facts of its request that a later decision needs.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (candidate, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use tower_euid::clock::UnixMillis;
/// use tower_euid::engine::{Decision, RefreshCandidate};
/// use tower_euid::{EuidError, Identity, Refreshed};
///
/// /// Calls the operator, unless the request must not.
/// fn decide(
///     candidate: &RefreshCandidate,
///     call: impl Fn(&Identity) -> Result<Refreshed, EuidError>,
///     now: impl Fn() -> UnixMillis,
/// ) -> Decision {
///     if !candidate.may_refresh() || !candidate.may_wait() {
///         return candidate.postpone(now());
///     }
///     let outcome = call(candidate.identity()).and_then(|new| Ok(new.received(now())?.0));
///     candidate.settle(&outcome, now())
/// }
/// # assert_eq!(decide(&candidate, |_| Ok(Refreshed::OptedOut), || at(15_000)).euid().state(), "opted_out");
/// # assert!(decide(&candidate, |identity| Ok(Refreshed::Identity(identity.clone())), || at(15_000)).stores_identity());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "the handler has to see its outcome: `settle`"]
pub struct RefreshCandidate {
    pub(super) source: Source,
    pub(super) route: Route,
    pub(super) brought: Brought,
    pub(super) has_leftovers: bool,
    pub(super) identity: Arc<Identity>,
    /// With margin and jitter.
    pub(super) times: IdentityTimes,
    pub(super) arrived: UnixMillis,
    pub(super) expiry_margin: Millis,
    pub(super) refresh_ahead: Millis,
    pub(super) may_write: bool,
    pub(super) may_wait: bool,
    pub(super) is_conditional: bool,
    pub(super) script_cookie: ScriptCookie,
    pub(super) findings: Findings,
    /// With a store: the identity is there, or moves there.
    pub(super) stored: Option<Box<StoredRefresh>>,
}

impl RefreshCandidate {
    /// The identity to refresh.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (candidate, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
    /// assert_eq!(candidate.identity().refresh_token().expose_secret(), "EAAAAGZ"); // what the operator is sent
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Replaces the identity with an equal copy that other requests share, to save memory. Ignores a copy that is not
    /// equal.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (mut candidate, identity) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
    /// use std::sync::Arc;
    ///
    /// let under_way = Arc::new(identity); // of a call that another request has begun
    /// assert_eq!(candidate.identity(), &under_way);
    /// candidate.share(Arc::clone(&under_way));
    /// assert!(Arc::ptr_eq(candidate.identity(), &under_way));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn share(&mut self, copy: Arc<Identity>) {
        if copy == self.identity {
            self.identity = copy;
        }
    }

    /// The scope of the identity: which operator to call, if the engine serves both.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (candidate, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
    /// use tower_euid::{Operator, Scope};
    ///
    /// fn choose<'a>(scope: Scope, euid: &'a Operator, uid2: &'a Operator) -> &'a Operator {
    ///     match scope {
    ///         Scope::Euid => euid,
    ///         Scope::Uid2 => uid2,
    ///     }
    /// }
    /// # assert_eq!(candidate.scope(), Scope::Euid);
    /// # let _ = choose;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn scope(&self) -> Scope {
        // Without a scope nothing is due.
        self.route.scope().unwrap_or_default()
    }

    /// The lineage of the identity's login; `None` for an identity without a login, such as one from the JS SDK's
    /// cookie.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (candidate, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// let decision = candidate.settle(&Ok(tower_euid::Refreshed::OptedOut), at(15_000));
    /// let tower_euid::engine::Change::RecordOptOut(opt_out) = decision.change() else { panic!("{decision:?}") };
    /// assert_eq!(candidate.lineage(), Some(opt_out.login.lineage()));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lineage(&self) -> Option<Lineage> {
        match &self.source {
            Source::OwnState(login) | Source::Stored(login) => Some(login.lineage),
            Source::JsSdkCookie(_) => None,
        }
    }

    /// Whether the identity comes from the cookie of the JS SDK, which any script can write. A host should let such
    /// refreshes neither use up its calls nor judge the operator.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, own, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let json = "{\"advertising_token\":\"E4AAAABl\",\"refresh_token\":\"EAAAAGZ\",\
    /// #     \"refresh_response_key\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\",\"refresh_from\":10000,\
    /// #     \"identity_expires\":20000,\"refresh_expires\":30000}";
    /// # let value = json.replace('"', "%22").replace(',', "%2C");
    /// # let mut of_sdk = http::HeaderMap::new();
    /// # of_sdk.insert("cookie", format!("__euid={value}").parse()?);
    /// use http::Method;
    /// use tower_euid::CookieConfig;
    /// use tower_euid::engine::{RequestContext, Step};
    ///
    /// let engine = engine.with_cookie(CookieConfig::default().migrate_js_sdk_cookie(None)?);
    /// for (request, is_migrated) in [(own, false), (of_sdk, true)] {
    ///     let step = engine.begin(&Method::GET, &request, &RequestContext::UNRESTRICTED, || at(15_000));
    ///     assert!(matches!(step, Step::Refresh(candidate) if candidate.is_migrated() == is_migrated));
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_migrated(&self) -> bool {
        self.source.login().migrated
    }

    /// The refresh by way of the host's store; `None` if only the operator is to be called. A host with a store makes the
    /// calls of this in place of that one.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (candidate, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
    /// assert!(candidate.stored().is_none()); // of an engine without a store
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stored(&self) -> Option<&StoredRefresh> {
        self.stored.as_deref()
    }

    /// When the request arrived: what `now` returned to [`begin`](super::Engine::begin).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (candidate, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// assert_eq!(candidate.arrived(), at(15_000));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn arrived(&self) -> UnixMillis {
        self.arrived
    }

    /// Whether the token could still be used when the request arrived, so that no page has to wait.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use http::Method;
    /// use tower_euid::engine::{RequestContext, Step};
    ///
    /// for (now, is_usable) in [(15_000, true), (25_000, false)] {
    ///     let step = engine.begin(&Method::GET, &request, &RequestContext::UNRESTRICTED, || at(now));
    ///     assert!(matches!(step, Step::Refresh(candidate) if candidate.is_usable() == is_usable));
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.times.is_usable(self.arrived)
    }

    /// Whether the response may write the outcome: the request is a page, or a script's own call. If not,
    /// [`settle`](Self::settle) leaves it to the next page.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, mut request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # request.insert("sec-fetch-dest", "image".parse()?);
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(15_000));
    /// # let tower_euid::engine::Step::Refresh(candidate) = step else { panic!("{step:?}") };
    /// assert!(!candidate.may_write() && !candidate.may_refresh()); // the request is for an image of a page
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.may_write
    }

    /// Whether this request may cause a call to the operator. A conditional request whose token is usable may not: its
    /// response may be a 304, which can't bring a new pair.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, mut request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # request.insert("if-none-match", "\"1\"".parse()?);
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(15_000));
    /// # let tower_euid::engine::Step::Refresh(candidate) = step else { panic!("{step:?}") };
    /// assert!(candidate.may_write() && !candidate.may_refresh()); // the request has an `If-None-Match`
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn may_refresh(&self) -> bool {
        self.may_write && !(self.is_conditional && self.is_usable())
    }

    /// Whether the handler may wait for the operator's answer. A request with an unsafe method may not: it may be the
    /// logout or the login that ends this identity.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use http::Method;
    /// use tower_euid::engine::{RequestContext, Step};
    ///
    /// for (method, may_wait) in [(Method::GET, true), (Method::POST, false)] {
    ///     let step = engine.begin(&method, &request, &RequestContext::UNRESTRICTED, || at(15_000));
    ///     assert!(matches!(step, Step::Refresh(candidate) if candidate.may_wait() == may_wait));
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn may_wait(&self) -> bool {
        self.may_wait
    }

    /// The findings about the request's state, for logs and metrics.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (candidate, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
    /// assert!(candidate.findings().is_empty());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn findings(&self) -> Findings {
        self.findings
    }
}

/// A duration in whole milliseconds, as the times are, of at most 49 days. Many candidates wait at once, and a `Duration`
/// has four times its size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Millis(u32);

impl From<Duration> for Millis {
    fn from(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX))
    }
}

impl From<Millis> for Duration {
    fn from(Millis(millis): Millis) -> Self {
        Self::from_millis(millis.into())
    }
}
