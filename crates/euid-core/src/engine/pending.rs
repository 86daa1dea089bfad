//! The plan for the response of a request under way, and the note of what the handler does meanwhile.

use super::Change;
use super::decision::Decision;
use super::scripts::Scripts;
use crate::consent::Consent;
use crate::euid::EuidLogoutHandle;
use crate::token::Note;

/// The plan for the response of a request under way.
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
#[derive(Clone, Debug)]
#[must_use = "the response has to write it: `Engine::finish`"]
pub struct Pending {
    pub(super) change: Change,
    /// The response removes the values of other logins.
    pub(super) has_leftovers: bool,
    /// Notes what the handler does with the token or the login, if there is one.
    pub(super) note: Option<Note>,
    pub(super) consent: Consent,
    pub(super) scripts: Scripts,
    /// Caches must not share the response, whether or not the handler reads the token.
    pub(super) is_private: bool,
}

/// A [`Pending`] in one machine word: it plans nothing, or only to remove the identity, and watches what the handler does.
/// It keeps a host's state of a usual request small.
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

impl Pending {
    /// The handle with which a handler ends the login at once. `None` if there is nothing to end: the request has a
    /// safe method, such as `GET`, and brought no state.
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
    /// pending.logout().unwrap().logout(); // in the handler, which then fails
    /// let mut response = HeaderMap::new();
    /// engine.finish(pending, None, StatusCode::INTERNAL_SERVER_ERROR, &mut response, || at(5_000));
    /// assert_eq!(response.get_all("set-cookie").iter().filter(|cookie| cookie.as_bytes().ends_with(b"Max-Age=0")).count(), 2);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn logout(&self) -> Option<EuidLogoutHandle> {
        self.note.clone().map(EuidLogoutHandle::of_note)
    }

    /// Stores a number of the host's choice with the token or the logout handle, if there is one.
    /// [`EuidLogoutHandle::host_id`] reads it. Zero until set.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
    /// # let step = engine.begin(&http::Method::GET, &request, &all, || at(5_000));
    /// # let tower_euid::engine::Step::Ready(decision) = step else { panic!("{step:?}") };
    /// let (_, pending) = decision.start();
    /// pending.set_host_id(7); // who handled this request
    /// assert_eq!(pending.logout().and_then(|logout| logout.host_id()), Some(7));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn set_host_id(&self, number: usize) {
        if let Some(note) = &self.note {
            note.set_host_id(number);
        }
    }

    /// Takes over the change of a later decision, for a refresh that ended after the handler was called.
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
    /// let report = engine.finish(pending, None, StatusCode::OK, &mut HeaderMap::new(), || at(15_100)).report();
    /// assert!(report.renewed.is_some());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn adopt(&mut self, decision: Decision) {
        self.change = decision.change;
        self.has_leftovers = decision.has_leftovers;
    }

    /// Keeps the token from scripts in the browser, including the token of a login: the response removes the cookie of
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
        self.scripts = Scripts::new(true, true);
    }

    /// Keeps shared caches from storing the response, as if the handler had read the token. For a host that writes into the
    /// response what it knows of the visitor, such as the [reason](Decision::reason) for their state.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use http::{HeaderMap, StatusCode};
    /// use tower_euid::engine::Pending;
    ///
    /// let mut pending = Pending::default();
    /// pending.make_private();
    /// let mut response = HeaderMap::new();
    /// engine.finish(pending, None, StatusCode::OK, &mut response, || at(0));
    /// assert_eq!(response["cache-control"], "private, no-cache");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn make_private(&mut self) {
        self.is_private = true;
    }

    /// Converts this into a [`Watch`], one machine word, if nothing is planned, or only the removal of an identity.
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
    /// Returns the unchanged `Pending` if more is planned.
    #[inline]
    pub fn into_watch(self) -> Result<Watch, Self> {
        let plans = self.is_private
            || self.scripts != Scripts::default()
            || self.has_leftovers
            || self.consent == Consent::Withdrawn;
        match (&self.change, &self.note) {
            _ if plans => return Err(self),
            (Change::Keep, _) => {}
            (Change::ForgetIdentity, Some(note)) => note.forget_identity(),
            _ => return Err(self),
        }
        Ok(Watch(self.note))
    }
}

impl Default for Pending {
    fn default() -> Self {
        Watch::default().into()
    }
}

impl From<Watch> for Pending {
    fn from(Watch(note): Watch) -> Self {
        let forgets = note.as_ref().is_some_and(Note::forgets_identity);
        // After the handler only withdrawn consent matters, and that is never without a plan.
        Self {
            change: if forgets { Change::ForgetIdentity } else { Change::Keep },
            has_leftovers: false,
            note,
            consent: Consent::Granted,
            scripts: Scripts::default(),
            is_private: false,
        }
    }
}

impl Watch {
    /// Whether the response has nothing to do: no identity is removed, and the handler neither read the token nor logged
    /// the visitor out.
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
    /// logout.logout();
    /// assert!(!watch.is_blank());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.0.as_ref().is_none_or(Note::is_blank)
    }
}
