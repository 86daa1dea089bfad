//! What the handler sees, and what the response will do.

use http::Method;

use super::{Change, Findings};
use crate::euid::{Euid, EuidLogout};
use crate::policy::{self, Consent, Credential, LoginMarker, Visibility};
use crate::token::{AdvertisingToken, Note};

/// What a request's handler sees and what its response will write, unless the handler asks for something else.
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
    pub(super) euid: Euid,
    pub(super) change: Change,
    pub(super) consent: Consent,
    /// Whether the response may end a login: state came, or the method is not safe.
    pub(super) may_end: bool,
    pub(super) scripts: Scripts,
    pub(super) findings: Findings,
}

/// What the response does with the cookie for scripts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scripts {
    /// It differs from the token that the handler sees, and is put right.
    pub(super) sync: bool,
    /// It must not hold a token.
    pub(super) withheld: bool,
}

/// What the response of a request under way will do.
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
/// let token = euid.advertising_token().map(|token| token.as_str()); // the handler reads the token
/// assert_eq!(token, Some("E4AAAABl"));
/// let mut response = HeaderMap::new();
/// engine.finish(pending, None, StatusCode::OK, &mut response, || at(5_000));
/// assert_eq!(response["cache-control"], "private, no-cache");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "the response has to write it: `Engine::finish`"]
pub struct Pending {
    pub(super) change: Change,
    /// Notes what the handler does with the token or the login, if there is one.
    pub(super) note: Option<Note>,
    pub(super) consent: Consent,
    pub(super) scripts: Scripts,
}

/// A [`Pending`] with nothing planned, in one word: only what the handler does counts. So a host can keep the state of a
/// usual request small.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
/// # let step = engine.begin(&http::Method::GET, &request, &all, || at(5_000));
/// # let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
/// use std::mem::size_of;
/// use tower_euid::engine::Watch;
///
/// assert_eq!(size_of::<Watch>(), size_of::<usize>());
/// let (euid, pending) = decision.start();
/// let watch = pending.into_watch().unwrap();
/// assert!(watch.is_blank());
/// euid.advertising_token().unwrap().as_str();
/// assert!(!watch.is_blank()); // the response must be kept from caches
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Watch(Option<Note>);

impl Decision {
    /// For a request that brought no state.
    #[inline]
    pub(super) fn without_state(consent: Consent, method: &Method, withheld: bool) -> Self {
        let verdict = policy::without_identity(Credential::Nothing, LoginMarker::Nothing, consent);
        Self {
            euid: euid(verdict.sees, None),
            change: Change::Keep,
            consent,
            may_end: !method.is_safe(),
            scripts: Scripts { sync: false, withheld },
            findings: Findings::NONE,
        }
    }

    /// What the handler will see.
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

    /// What the response will write, unless the handler asks for something else.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(15_000));
    /// # let tower_euid::engine::Step::Refresh(candidate) = step else { panic!("{step:?}") };
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

    /// What became of the state that the request brought, for logs and metrics.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # engine.keys().reload(tower_euid::CookieKey::generate()?.into());
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(5_000));
    /// # let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
    /// use tower_euid::engine::Rejected;
    ///
    /// // The key was lost, and with it all logins.
    /// assert_eq!(decision.findings().rejected, Some(Rejected::UnknownKey));
    /// assert_eq!(decision.euid().state(), "absent");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn findings(&self) -> Findings {
        self.findings
    }

    /// Whether the response will write an identity that another page could write as well. A host that wants to write
    /// nothing for this request then calls [`defer`](Self::defer).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, identity, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(15_000));
    /// # let tower_euid::engine::Step::Refresh(candidate) = step else { panic!("{step:?}") };
    /// use tower_euid::Refreshed;
    ///
    /// let wants_to_write = false; // as the host says of this request
    /// let mut decision = candidate.settle(&Ok(Refreshed::Identity(identity)), at(15_000));
    /// assert!(decision.is_deferrable());
    /// if decision.is_deferrable() && !wants_to_write {
    ///     decision.defer();
    /// }
    /// assert!(!decision.is_deferrable());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn is_deferrable(&self) -> bool {
        self.change.stores()
    }

    /// Leaves to the next page what it can write as well. Withdrawn consent ends a login in any case.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, identity, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(15_000));
    /// # let tower_euid::engine::Step::Refresh(candidate) = step else { panic!("{step:?}") };
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
        self.scripts.sync = false;
    }

    /// Splits what the handler sees from what the response does.
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
        let note = match &self.euid {
            Euid::Active(token) => Some(token.note()),
            _ if self.may_end => Some(Note::without_token()),
            _ => None,
        };
        let Self { euid, change, consent, scripts, .. } = self;
        (euid, Pending { change, note, consent, scripts })
    }
}

impl Pending {
    /// The handle by which a handler ends the login at once. `None` if there is nothing to end: a safe method, such as `GET`,
    /// without any state.
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
    /// let (_, pending) = decision.start();
    /// pending.logout().unwrap().now(); // in the handler, which then fails
    /// let mut response = HeaderMap::new();
    /// engine.finish(pending, None, StatusCode::INTERNAL_SERVER_ERROR, &mut response, || at(5_000));
    /// assert_eq!(response.get_all("set-cookie").iter().filter(|cookie| cookie.as_bytes().ends_with(b"Max-Age=0")).count(), 3);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn logout(&self) -> Option<EuidLogout> {
        self.note.clone().map(EuidLogout::of_note)
    }

    /// Leaves a number of the host's with the token or the logout handle, if there is one.
    /// [`EuidLogout::mark`] reads it. Zero until set.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(5_000));
    /// # let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
    /// let (_, pending) = decision.start();
    /// pending.mark(7); // who handled this request
    /// assert_eq!(pending.logout().and_then(|logout| logout.mark()), Some(7));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn mark(&self, number: usize) {
        if let Some(note) = &self.note {
            note.set_mark(number);
        }
    }

    /// Takes over what a later decision writes, for a refresh that ended after the handler was called.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, identity, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(15_000));
    /// # let tower_euid::engine::Step::Refresh(candidate) = step else { panic!("{step:?}") };
    /// use http::{HeaderMap, StatusCode};
    /// use tower_euid::Refreshed;
    /// use tower_euid::error::{ErrorKind, EuidError};
    ///
    /// // The handler is called beside the refresh, with the token as it is.
    /// let unanswered = Err(EuidError::new(ErrorKind::Transient, "not answered yet"));
    /// let (euid, mut pending) = candidate.settle(&unanswered, at(15_000)).start();
    /// assert_eq!(euid.state(), "active");
    ///
    /// // By the time of its response the operator has answered.
    /// pending.adopt(candidate.settle(&Ok(Refreshed::Identity(identity)), at(15_100)));
    /// let finish = engine.finish(pending, None, StatusCode::OK, &mut HeaderMap::new(), || at(15_100));
    /// assert!(finish.renewed.is_some());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn adopt(&mut self, decision: Decision) {
        self.change = decision.change;
    }

    /// Keeps the token from scripts in the browser, also that of a login: removes the cookie of
    /// [`expose_token_to_scripts`](crate::CookieConfig::expose_token_to_scripts).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, identity, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use http::{HeaderMap, StatusCode};
    /// use tower_euid::CookieConfig;
    /// use tower_euid::engine::{Change, Pending};
    ///
    /// let engine = engine.with_cookie(CookieConfig::default().expose_token_to_scripts());
    /// let mut pending = Pending::default();
    /// pending.withhold_token();
    /// let mut response = HeaderMap::new();
    /// engine.finish(pending, Some(&Change::login(identity)), StatusCode::OK, &mut response, || at(0));
    /// let mut cookies = response.get_all("set-cookie").iter();
    /// assert!(cookies.any(|cookie| cookie.as_bytes().starts_with(b"__euid_advertising_token=;"))); // empty
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn withhold_token(&mut self) {
        self.scripts = Scripts { sync: true, withheld: true };
    }

    /// Itself in one word, if nothing is planned.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(5_000));
    /// # let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(15_000));
    /// # let tower_euid::engine::Step::Refresh(candidate) = step else { panic!("{step:?}") };
    /// use tower_euid::Refreshed;
    ///
    /// let nothing_due = decision.start().1;
    /// assert!(nothing_due.into_watch().is_ok());
    ///
    /// let opted_out = candidate.settle(&Ok(Refreshed::OptedOut), at(15_000)).start().1;
    /// assert!(opted_out.into_watch().is_err());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns it as it was, if something is.
    #[inline]
    pub fn into_watch(self) -> Result<Watch, Self> {
        let plans = self.scripts != Scripts::default() || self.consent == Consent::Withdrawn;
        if plans || !matches!(self.change, Change::Keep) { Err(self) } else { Ok(Watch(self.note)) }
    }
}

impl Default for Pending {
    fn default() -> Self {
        Watch::default().into()
    }
}

impl From<Watch> for Pending {
    fn from(Watch(note): Watch) -> Self {
        Self { change: Change::Keep, note, consent: Consent::Granted, scripts: Scripts::default() }
    }
}

impl Watch {
    /// Whether the handler did nothing that the response must follow: no read of the token, no logout.
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
    /// let watch = pending.into_watch().unwrap();
    /// assert!(watch.is_blank());
    /// logout.now();
    /// assert!(!watch.is_blank());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.0.as_ref().is_none_or(Note::is_blank)
    }
}

/// What the handler sees.
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
