//! Values for a host's logs and metrics.

use std::fmt;

use crate::reason::Reason;

/// The findings about the state in a request.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (_, _, request, old_key) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use http::Method;
/// use tower_euid::engine::{Engine, RequestContext, Step};
/// use tower_euid::{CookieKey, KeyRing};
///
/// let engine = Engine::new(KeyRing::new([CookieKey::generate()?, old_key])?);
/// let step = engine.begin(&Method::GET, &request, &RequestContext::UNRESTRICTED, || at(5_000));
/// let Step::Ready(decision) = step else { panic!("{step:?}") };
/// assert!(decision.findings().old_key); // do not remove that key yet
/// assert_eq!(decision.findings().rejected, None);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Findings {
    /// An identity opened under a key that is not the first.
    pub old_key: bool,
    /// The reason why state was not used, if there is one.
    pub rejected: Option<RejectReason>,
}

/// Why the state of a request was not used.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// # let identity_cookie = request.get_all("cookie").iter().last().unwrap().to_str()?;
/// use http::{HeaderMap, Method};
/// use tower_euid::engine::{RejectReason, RequestContext, Step};
///
/// let rejected = |cookies: &str| -> Result<_, Box<dyn std::error::Error>> {
///     let headers = HeaderMap::from_iter([(http::header::COOKIE, cookies.parse()?)]);
///     match engine.begin(&Method::GET, &headers, &RequestContext::UNRESTRICTED, || at(5_000)) {
///         Step::Ready(decision) => Ok(decision.findings().rejected),
///         step => panic!("{step:?}"),
///     }
/// };
/// assert_eq!(rejected("theme=dark")?, None);
/// assert_eq!(rejected("__Host-euid.abcd=made-up; __Host-euid-login=made-up")?, Some(RejectReason::UnreadableAnchor));
/// assert_eq!(rejected(identity_cookie)?, Some(RejectReason::LoginEnded)); // without the cookie that names the login
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectReason {
    /// The state has a version or a key that this node does not know.
    UnknownKey,
    /// The value is not the text of a sealed identity.
    Undecodable,
    /// The value does not open under its key.
    Forged,
    /// The login has ended: the anchor does not name it.
    LoginEnded,
    /// The anchor can't be read, or the request brought two anchors that differ.
    UnreadableAnchor,
    /// The state is bound to another user than the signed-in one.
    OtherUser,
    /// The state is bound to a user, and no user is signed in.
    NoUser,
    /// The JavaScript SDK's cookie holds an identity of another scope than the one that serves the request.
    WrongScope,
}

/// The result of a comparison: the user that a request's state is bound to, and the signed-in user.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use tower_euid::engine::{Engine, RequestContext, UserCheck};
/// use tower_euid::CookieKey;
///
/// let other_site = Engine::new(CookieKey::generate()?.into());
/// assert_eq!(engine.check_user(&request, &RequestContext::UNRESTRICTED), UserCheck::Same);
/// assert_eq!(other_site.check_user(&request, &RequestContext::UNRESTRICTED), UserCheck::Unreadable);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserCheck {
    /// The state is bound to the signed-in user, or to no user.
    Same,
    /// The state must not be used for this request.
    Rejected(RejectReason),
    /// The request brought no identity and no record of an opt-out.
    NoState,
    /// The request brought identities or records, and none that this engine can read counts.
    Unreadable,
}

/// The kind of a [`Change`](super::Change), without its data: for logs, and for developers. `Display` is one plain word.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, identity, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use http::{HeaderMap, StatusCode};
/// use tower_euid::engine::{Change, ChangeKind, Pending};
///
/// let (login, mut response) = (Change::login(identity), HeaderMap::new());
/// let report = engine.finish(Pending::default(), Some(&login), StatusCode::OK, &mut response, || at(0)).report();
/// assert_eq!(report.change, Some(ChangeKind::Login));
/// assert_eq!(ChangeKind::Login.to_string(), "login");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// A new login, which ends the previous one.
    Login,
    /// The login ends: a logout, or withdrawn consent.
    Logout,
    /// An opt-out is remembered: of a person who logs in, or one that a refresh has found.
    OptOut,
    /// An identity of the same login is written: refreshed, or sealed under a newer key.
    Renewal,
    /// The identity is removed; its login goes on.
    Removal,
}

/// Why a response could not write its state.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, identity, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use http::{HeaderMap, StatusCode};
/// use tower_euid::engine::{Change, Pending, WriteError};
/// use tower_euid::identity::Identity;
///
/// let long = "x".repeat(4_000); // a browser would drop such a cookie
/// let identity = Identity::new(long, "EAAAAGZ".to_owned().into(), [5; 32].into(), identity.times())?;
/// let (asked, mut response) = (Change::login(identity), HeaderMap::new());
/// let report = engine.finish(Pending::default(), Some(&asked), StatusCode::OK, &mut response, || at(0)).report();
/// assert_eq!(report.unwritten, Some(WriteError::TooLarge));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// Name and value are longer than browsers keep.
    TooLarge,
    /// Its refresh token has expired already.
    Expired,
    /// The operating system gave no random bytes.
    NoRandomness,
    /// The response has so many headers that there may be no room.
    HeadersFull,
    /// The identity is of another scope than the one that serves the request: a client for the wrong operator made it.
    WrongScope,
    /// No scope serves the request, so no login can be written.
    NoScope,
    /// The store is keyed by the user, and did not confirm the login: it was unavailable, or the user has opted out meanwhile.
    NotStored,
    /// The store is keyed by the user, and the login or the opt-out is bound to none.
    NoSubject,
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Login => "login",
            Self::Logout => "logout",
            Self::OptOut => "opt-out",
            Self::Renewal => "renewal",
            Self::Removal => "removal",
        })
    }
}

impl From<RejectReason> for Reason {
    fn from(reason: RejectReason) -> Self {
        match reason {
            RejectReason::UnknownKey => Self::UnknownKey,
            RejectReason::Undecodable => Self::Undecodable,
            RejectReason::Forged => Self::Forged,
            RejectReason::LoginEnded => Self::LoginEnded,
            RejectReason::UnreadableAnchor => Self::UnreadableLogin,
            RejectReason::OtherUser => Self::OtherUser,
            RejectReason::NoUser => Self::NoUser,
            RejectReason::WrongScope => Self::WrongScope,
        }
    }
}

impl Findings {
    pub(super) const NONE: Self = Self { old_key: false, rejected: None };

    pub(super) fn rejected(reason: RejectReason) -> Self {
        Self { rejected: Some(reason), ..Self::NONE }
    }

    /// Whether there is nothing to report.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::engine::Findings;
    /// assert!(Findings::default().is_empty());
    /// ```
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.old_key && self.rejected.is_none()
    }
}
