//! Handles one exchange with a visitor, without I/O: reads the state in a request, decides what the handler may see,
//! and writes the state into the response.
//!
//! A *host* (a middleware, an edge program, a sidecar) owns sockets and clocks and drives the engine:
//!
//! ```text
//!  begin(request) ──┬─ Ready(decision) ─────────────────────────────────┐
//!                   ├─ Refresh(candidate) ─► the operator ─► settle ────┴─► decision
//!                   └─ Load ─► the store ─► resume ─► one of the two above
//!  decision.start() ──► Euid for the handler, Pending for the response
//!  finish(pending, what the handler asks for, response headers) ──┬─ Done(report for logs and metrics)
//!                                                                 └─ Save ─► the store ─► saved ─► report
//! ```
//!
//! 1. [`Engine::begin`] reads the request's headers; nothing reads them again later.
//! 2. [`RefreshCandidate::settle`] takes the outcome of the operator's call, or a failure if the page waits no longer.
//! 3. [`Decision::start`] splits what the handler sees from what the response does. A host may [defer](Decision::defer)
//!    what can wait for the next page.
//! 4. [`Engine::finish`] writes `Set-Cookie`, or the headers of an app, and restricts how caches may store the response.
//! 5. Time is an argument: a closure where it is rarely needed. Randomness comes from the operating system.
//! 6. The engine logs nothing. [`Findings`] and [`Report`] hold the facts for a host's logs and metrics.
//! 7. `Load` and `Save` are for an engine [with a store](Engine::with_store) only.

mod begin;
mod by_user;
mod candidate;
mod change;
mod context;
mod decision;
mod exchange;
mod finish;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod idle;
mod load;
mod logout;
mod navigation;
mod opt_out;
mod pending;
mod plan;
mod read;
mod report;
#[cfg(test)]
mod round_trips;
mod routes;
mod save;
mod scripts;
mod settle;
mod source;
mod store_calls;
mod stored;
mod stored_refresh;
mod write;

use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, Method};

pub use self::begin::Step;
pub use self::candidate::RefreshCandidate;
pub use self::change::{Change, NewLogin, NewOptOut, Renewal};
pub use self::context::{RequestContext, SignedIn, Site};
pub use self::decision::Decision;
pub use self::finish::{Finish, Report};
pub use self::load::Load;
pub use self::pending::{Pending, Watch};
pub use self::report::{ChangeKind, Findings, RejectReason, UserCheck, WriteError};
use self::routes::Extras;
pub use self::save::Save;
pub use self::store_calls::{Loaded, StoreAnswer, StoreCall, StoreWrite, Unavailable};
pub use self::stored_refresh::StoredRefresh;
use crate::clock::UnixMillis;
use crate::consent::Consent;
#[cfg(doc)]
use crate::outcome::Refreshed;
use crate::scope::Scope;
use crate::sealed::KeyRing;
use crate::sealed::StoreSecret;
pub use crate::sealed::login::{Lineage, Login};
pub use crate::sealed::payload::OptOut;
use crate::store::StoreMode;
use crate::transport::cookies::Cookies;
use crate::transport::{CookieConfig, HeaderConfig, Transport};

/// The engine of one site: it reads and writes the state of the site's visitors. Cheap to clone; clones share the keys.
///
/// It is its own builder; every setting has a default.
///
/// ```
/// # use euid_core as tower_euid;
/// use std::time::Duration;
/// use tower_euid::engine::Engine;
/// use tower_euid::{CookieConfig, CookieKey};
///
/// let engine = Engine::new(CookieKey::generate()?.into())
///     .with_cookie(CookieConfig::default().domain("example.com")?)
///     .with_expiry_margin(Duration::from_secs(5));
/// assert_eq!(engine.expiry_margin(), Duration::from_secs(5));
/// # Ok::<_, tower_euid::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Engine {
    keys: KeyRing,
    cookies: Cookies,
    /// What few engines have.
    extras: Option<Box<Extras>>,
    expiry_margin: Duration,
    refresh_jitter: Duration,
    refresh_ahead: Duration,
    reseal: bool,
}

impl Engine {
    /// The default expiry margin, 1 s: the engine hands out no token within this time before the token expires.
    pub const DEFAULT_EXPIRY_MARGIN: Duration = Duration::from_secs(1);
    /// The default of the longest random delay of a refresh: 10 min.
    pub const DEFAULT_REFRESH_JITTER: Duration = Duration::from_secs(600);

    /// An engine that seals under `keys`, with defaults for everything else.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::engine::Engine;
    /// use tower_euid::CookieKey;
    ///
    /// let engine = Engine::new(CookieKey::generate()?.into());
    /// assert_eq!(engine.expiry_margin(), Engine::DEFAULT_EXPIRY_MARGIN);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn new(keys: KeyRing) -> Self {
        Self {
            keys,
            cookies: Cookies::new(CookieConfig::default(), Scope::default()),
            extras: None,
            expiry_margin: Self::DEFAULT_EXPIRY_MARGIN,
            refresh_jitter: Self::DEFAULT_REFRESH_JITTER,
            refresh_ahead: Duration::ZERO,
            reseal: false,
        }
    }

    /// Names and attributes of the cookies. Default: [`CookieConfig::default`].
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use http::{HeaderMap, StatusCode};
    /// use tower_euid::CookieConfig;
    /// use tower_euid::engine::{Change, Pending};
    ///
    /// let engine = engine.with_cookie(CookieConfig::insecure()); // for http://localhost
    /// let mut headers = HeaderMap::new();
    /// engine.finish(Pending::default(), Some(&Change::opt_out()), StatusCode::OK, &mut headers, || at(0));
    /// let cookies = headers.get_all("set-cookie");
    /// for (cookie, name) in cookies.iter().zip(["euid-login=", "euid-optout."]) {
    ///     assert!(cookie.as_bytes().starts_with(name.as_bytes()));
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_cookie(self, config: CookieConfig) -> Self {
        self.set_up(|setup| setup.cookies = config)
    }

    /// Serves visitors of this scope only. Default: [`Scope::Euid`].
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::engine::Engine;
    /// use tower_euid::{CookieKey, Scope};
    ///
    /// let engine = Engine::new(CookieKey::generate()?.into()).with_scope(Scope::Uid2);
    /// assert_eq!(engine.scope(), Some(Scope::Uid2));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn with_scope(self, scope: Scope) -> Self {
        self.set_up(|setup| (setup.scope, setup.both_scopes) = (scope, false))
    }

    /// Serves visitors of both scopes: [`RequestContext::scope`] chooses one for each request. The state of the other
    /// scope stays as it is, except that a logout and withdrawn consent end it too. So a visitor who travels from one
    /// region to another and back has each identity again.
    ///
    /// Bind logins to users with [`RequestContext::user`]: a login in one scope does not end that of another person in the
    /// other scope.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use http::Method;
    /// use tower_euid::engine::{Engine, RequestContext, Step};
    /// use tower_euid::{CookieKey, Scope};
    ///
    /// let engine = Engine::new(CookieKey::generate()?.into()).with_both_scopes();
    /// let context = RequestContext { scope: Some(Scope::Uid2), ..RequestContext::UNRESTRICTED };
    /// # let (request, at) = (http::HeaderMap::new(), tower_euid::clock::UnixMillis::from_millis);
    /// let Step::Ready(decision) = engine.begin(&Method::GET, &request, &context, || at(5_000)) else { unreachable!() };
    /// assert_eq!(decision.scope(), Some(Scope::Uid2));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn with_both_scopes(self) -> Self {
        self.set_up(|setup| setup.both_scopes = true)
    }

    /// Takes state in headers too, from apps and TV sets: see [`HeaderConfig`]. Default: cookies alone.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, identity, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use http::{HeaderMap, HeaderValue, Method, StatusCode};
    /// use tower_euid::HeaderConfig;
    /// use tower_euid::engine::{Change, RequestContext, Step};
    ///
    /// let engine = engine.with_headers(HeaderConfig::default());
    /// // An app without state says that it wants headers.
    /// let request = HeaderMap::from_iter([("euid-login".parse()?, HeaderValue::from_static(""))]);
    /// let step = engine.begin(&Method::POST, &request, &RequestContext::UNRESTRICTED, || at(0));
    /// let Step::Ready(decision) = step else { panic!("{step:?}") };
    /// let (_, pending) = decision.start();
    /// let (login, mut response) = (Change::login(identity), HeaderMap::new());
    /// engine.finish(pending, Some(&login), StatusCode::OK, &mut response, || at(0));
    /// assert_eq!(response["euid-login"].len(), 22);
    /// assert!(!response.contains_key("set-cookie"));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_headers(self, config: HeaderConfig) -> Self {
        self.set_up(|setup| setup.headers = Some(config))
    }

    /// Keeps the identity of each login in the host's store: the client has only the login slot, whose value is the
    /// handle. [`Step::Load`] asks the host for a record, [`Finish::Save`] has it write some, and
    /// [`RefreshCandidate::stored`] guides a refresh. Default: no store.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, identity, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use http::{HeaderMap, StatusCode};
    /// use tower_euid::engine::{Change, Finish, Pending, StoreAnswer, StoreCall};
    /// use tower_euid::store::{Put, StoreMode, When};
    ///
    /// let engine = engine.with_store(StoreMode::ReadWrite);
    /// let (login, mut response) = (Change::login(identity), HeaderMap::new());
    /// let finish = engine.finish(Pending::default(), Some(&login), StatusCode::OK, &mut response, || at(0));
    /// let Finish::Save(mut save) = finish else { panic!("a login is saved") };
    /// let Some(StoreCall::Put(write)) = save.call() else { panic!("the identity is put") };
    /// assert_eq!(write.when, When::Absent);
    /// save.answer(StoreAnswer::Put(Ok(Put::Done)));
    /// engine.saved(save, &mut response, || at(0));
    /// let cookies: Vec<_> = response.get_all("set-cookie").iter().collect();
    /// assert_eq!(cookies.len(), 1); // the handle
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_store(self, mode: StoreMode) -> Self {
        self.set_up(|setup| (setup.store, setup.user_store) = (Some(mode), None))
    }

    /// Keeps one identity for each user of the application in the host's store, for all their devices. A client has nothing
    /// but an opt-out. Each login needs a [subject](Change::subject), and each request its [user](RequestContext::user).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieKey, engine::Engine};
    /// use http::{HeaderMap, Method};
    /// use tower_euid::engine::{RequestContext, SignedIn, Step};
    /// use tower_euid::StoreSecret;
    ///
    /// let engine = Engine::new(CookieKey::generate()?.into()).with_user_store(StoreSecret::generate()?);
    /// let context = RequestContext { user: SignedIn::User(b"17"), ..RequestContext::UNRESTRICTED };
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// let step = engine.begin(&Method::GET, &HeaderMap::new(), &context, || at(0));
    /// assert!(matches!(step, Step::Load(_))); // the record of the user 17
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn with_user_store(self, secret: StoreSecret) -> Self {
        self.set_up(|setup| (setup.store, setup.user_store) = (None, Some(secret)))
    }

    /// The scope that the engine serves; `None` if it serves both.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieKey, Scope, engine::Engine};
    /// # let keys = CookieKey::generate()?;
    /// assert_eq!(Engine::new(keys.into()).scope(), Some(Scope::Euid));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn scope(&self) -> Option<Scope> {
        (!self.serves_both()).then_some(self.cookies.scope())
    }

    /// Sets the expiry margin: the engine hands out no token within this time before the token expires. Default:
    /// [`Self::DEFAULT_EXPIRY_MARGIN`].
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use std::time::Duration;
    /// use http::Method;
    /// use tower_euid::engine::{RequestContext, Step};
    ///
    /// let engine = engine.with_expiry_margin(Duration::from_secs(3));
    /// let step = engine.begin(&Method::GET, &request, &RequestContext::UNRESTRICTED, || at(17_500));
    /// assert!(matches!(step, Step::Refresh(candidate) if !candidate.is_usable())); // its token expires at 20 s
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_expiry_margin(self, margin: Duration) -> Self {
        Self { expiry_margin: margin, ..self }
    }

    /// Sets the longest random delay of a refresh, which spreads the refreshes of identities that were issued together.
    /// A login's delay never changes, and is at most a tenth of the time between `refresh_from` and `identity_expires`.
    /// Default: [`Self::DEFAULT_REFRESH_JITTER`].
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use std::time::Duration;
    /// use http::Method;
    /// use tower_euid::engine::{RequestContext, Step};
    ///
    /// let engine = engine.with_refresh_jitter(Duration::ZERO);
    /// let step = engine.begin(&Method::GET, &request, &RequestContext::UNRESTRICTED, || at(10_000));
    /// assert!(matches!(step, Step::Refresh(_))); // its `refresh_from` is 10 s
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_refresh_jitter(self, most: Duration) -> Self {
        Self { refresh_jitter: most, ..self }
    }

    /// Refreshes an identity this long before its refresh is due. Default: zero. It is for a TV programme or a game that
    /// asks for tokens before an ad break, in which no page can wait for a refresh. Such refreshes have no
    /// [jitter](Self::with_refresh_jitter). A refresh is never further ahead than the token is usable after the refresh
    /// is due.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use std::time::Duration;
    /// use http::Method;
    /// use tower_euid::engine::{RequestContext, Step};
    ///
    /// let engine = engine.with_refresh_ahead(Duration::from_secs(4));
    /// // A refresh is due since the tenth second, and made since the sixth.
    /// let begin = |now| engine.begin(&Method::GET, &request, &RequestContext::UNRESTRICTED, || at(now));
    /// assert!(matches!(begin(5_000), Step::Ready(_)));
    /// assert!(matches!(begin(6_000), Step::Refresh(_)));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_refresh_ahead(self, ahead: Duration) -> Self {
        Self { refresh_ahead: ahead, ..self }
    }

    /// Sets whether the engine reseals an identity under the first key at once. If not, the identity's next refresh
    /// does so. Default: no.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (_, _, request, old_key) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use http::Method;
    /// use tower_euid::engine::{Change, Engine, RequestContext, Step};
    /// use tower_euid::{CookieKey, KeyRing};
    ///
    /// let keys = KeyRing::new([CookieKey::generate()?, old_key])?;
    /// let engine = Engine::new(keys).with_reseal(true);
    /// let step = engine.begin(&Method::GET, &request, &RequestContext::UNRESTRICTED, || at(5_000));
    /// assert!(matches!(step, Step::Ready(decision) if matches!(decision.change(), Change::Renew(_))));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_reseal(self, at_once: bool) -> Self {
        Self { reseal: at_once, ..self }
    }

    /// The key ring, which a host can [reload](KeyRing::reload): clones of a ring share its keys.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use http::Method;
    /// use tower_euid::CookieKey;
    /// use tower_euid::engine::{RejectReason, RequestContext, Step};
    ///
    /// let clone = engine.clone();
    /// engine.keys().reload(CookieKey::generate()?.into()); // and forget the old key
    /// let step = clone.begin(&Method::GET, &request, &RequestContext::UNRESTRICTED, || at(5_000));
    /// assert!(matches!(step, Step::Ready(decision) if decision.findings().rejected == Some(RejectReason::UnknownKey)));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// The expiry margin: the engine hands out no token within this time before the token expires.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::engine::Engine;
    /// let engine = Engine::new(tower_euid::CookieKey::generate()?.into());
    /// assert_eq!(engine.expiry_margin(), std::time::Duration::from_secs(1));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn expiry_margin(&self) -> Duration {
        self.expiry_margin
    }

    /// Reads the state in a request, and decides what the handler may see or that a refresh is due. `headers` must hold
    /// at least [the headers that the engine reads](Self::reads).
    ///
    /// It never fails: state that it can't use counts as none, and [`Findings`] give the reason. It calls `now` at most
    /// a few times, only where the state depends on the time, and never for a request without state of this engine.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use http::Method;
    /// use tower_euid::engine::{RequestContext, Step};
    ///
    /// let begin = |now| engine.begin(&Method::GET, &request, &RequestContext::UNRESTRICTED, || at(now));
    /// assert!(matches!(begin(5_000), Step::Ready(decision) if decision.euid().state() == "active"));
    /// assert!(matches!(begin(15_000), Step::Refresh(_))); // due since the tenth second
    /// assert!(matches!(begin(30_000), Step::Ready(decision) if decision.euid().state() == "absent"));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    // Out of line it costs each request some 45 instructions more.
    #[inline(always)]
    #[must_use]
    pub fn begin(
        &self,
        method: &Method,
        headers: &HeaderMap,
        context: &RequestContext<'_>,
        now: impl Fn() -> UnixMillis,
    ) -> Step {
        let cookies = headers.get_all(COOKIE);
        if cookies.iter().next().is_none() && self.extras.is_none() {
            let scope = self.cookies.scope();
            let withheld = self.withholds(context.consent);
            return Step::Ready(Decision::without_state(scope, context.consent, method, withheld));
        }
        self.begin_exchange(method, headers, cookies, context, &now)
    }

    /// Whether [`begin`](Self::begin) reads request headers with this name. A host with other header types copies these.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieKey, HeaderConfig, engine::Engine};
    /// use http::{HeaderMap, HeaderName};
    ///
    /// /// The headers that the engine needs, of a request in a host's own types.
    /// fn copy<'a>(engine: &Engine, request: impl Iterator<Item = (&'a str, &'a [u8])>) -> HeaderMap {
    ///     let mut headers = HeaderMap::new();
    ///     for (name, value) in request {
    ///         let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.try_into()) else { continue };
    ///         if engine.reads(&name) {
    ///             headers.append(name, value);
    ///         }
    ///     }
    ///     headers
    /// }
    /// # let engine = Engine::new(CookieKey::generate()?.into());
    /// # let request = [("Cookie", &b"a=b"[..]), ("Accept", b"*/*"), ("Euid-Login", b""), ("Euid-Identity-0123ab", b"x")];
    /// # assert_eq!(copy(&engine, request.into_iter()).len(), 1);
    /// # assert_eq!(copy(&engine.with_headers(HeaderConfig::default()), request.into_iter()).len(), 3);
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn reads(&self, name: &HeaderName) -> bool {
        *name == COOKIE || navigation::reads(name) || self.reads_as_transport(name)
    }

    /// Whether a request's cookie with this name is one that the engine reads or writes, in any scope that it serves. A
    /// host that passes requests on to another server takes these out.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::{CookieConfig, CookieKey, engine::Engine};
    /// let engine = Engine::new(CookieKey::generate()?.into());
    /// assert!(engine.owns_cookie(b"__Host-euid-login") && engine.owns_cookie(b"__Host-euid.0aB-"));
    /// assert!(!engine.owns_cookie(b"session") && !engine.owns_cookie(b"__euid_advertising_token"));
    /// let engine = engine.with_cookie(CookieConfig::default().expose_token_to_scripts());
    /// assert!(engine.owns_cookie(b"__euid_advertising_token"));
    /// assert!(!engine.owns_cookie(b"__Host-uid2-login") && engine.with_both_scopes().owns_cookie(b"__Host-uid2-login"));
    /// # Ok::<_, tower_euid::ConfigError>(())
    /// ```
    #[must_use]
    pub fn owns_cookie(&self, name: &[u8]) -> bool {
        self.cookies.own(name) || self.other_cookies().is_some_and(|cookies| cookies.own(name))
    }

    /// Whether scripts must not get the token of a visitor with this consent, on a site that hands tokens to scripts.
    #[inline]
    fn withholds(&self, consent: Consent) -> bool {
        consent != Consent::Granted && self.cookies.config().exposes_token()
    }
}
