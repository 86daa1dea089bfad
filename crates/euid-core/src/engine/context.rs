//! The facts that a host gives the engine: the visitor's user in the application, and the visitor's consent.

use std::fmt;

use super::{Engine, RejectReason};
use crate::clock::UnixMillis;
use crate::consent::Consent;
use crate::policy::SubjectMatch;
use crate::scope::Scope;
use crate::sealed::login::Login;

/// The host's facts about a request's visitor. Borrows the user's id.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use http::Method;
/// use tower_euid::Consent;
/// use tower_euid::engine::{RequestContext, SignedIn, Step};
///
/// /// What the application knows of a request: its user, and whether the visitor has agreed.
/// fn context(user_id: Option<&str>, agreed: bool) -> RequestContext<'_> {
///     RequestContext {
///         consent: if agreed { Consent::Granted } else { Consent::Withheld },
///         user: user_id.map_or(SignedIn::NoUser, |id| SignedIn::User(id.as_bytes())),
///         scope: None, // the engine has one
///     }
/// }
/// # for (user_id, agreed, expected) in [(Some("17"), true, "active"), (Some("17"), false, "withheld"), (None, true, "absent")] {
/// #     let step = engine.begin(&Method::GET, &request, &context(user_id, agreed), || at(5_000));
/// #     assert!(matches!(step, Step::Ready(decision) if decision.euid().state() == expected));
/// # }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    /// The visitor's consent.
    pub consent: Consent,
    /// The user who is signed in to the application.
    pub user: SignedIn<'a>,
    /// The scope that serves the request, for an engine [with both](Engine::with_both_scopes): `None` if neither does. Then
    /// the handler sees no identity, and only a logout and withdrawn consent change state. An engine of one scope ignores
    /// it.
    pub scope: Option<Scope>,
}

/// The user who is signed in to the application.
///
/// Exhaustive: a comparison with a login's user has these three cases.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use http::Method;
/// use tower_euid::engine::{RequestContext, SignedIn, Step};
///
/// // A request with an identity that is bound to the user 17.
/// for (user, state) in [
///     (SignedIn::User(b"17"), "active"),
///     (SignedIn::User(b"18"), "absent"),
///     (SignedIn::NoUser, "absent"),
///     (SignedIn::Unchecked, "active"),
/// ] {
///     let context = RequestContext { user, ..RequestContext::UNRESTRICTED };
///     let step = engine.begin(&Method::GET, &request, &context, || at(5_000));
///     assert!(matches!(step, Step::Ready(decision) if decision.euid().state() == state));
/// }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SignedIn<'a> {
    /// The host does not bind identities to its users.
    Unchecked,
    /// The host binds identities to its users, and no user is signed in.
    NoUser,
    /// The host binds identities to its users, and this is the id of the signed-in user.
    User(&'a [u8]),
}

/// The engine and the clock of a configured middleware. A tool that makes visitors for a site's tests (as the sandbox of
/// `euid-sandbox`) needs both: it logs its visitors in as the site would.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::clock::{Clock, SystemClock, UnixMillis};
/// use tower_euid::engine::{Engine, Site};
///
/// struct Middleware {
///     engine: Engine,
///     clock: SystemClock,
/// }
///
/// impl Site for Middleware {
///     fn engine(&self) -> &Engine {
///         &self.engine
///     }
///
///     fn now(&self) -> UnixMillis {
///         self.clock.now()
///     }
/// }
/// ```
pub trait Site {
    /// The engine.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::engine::Site;
    ///
    /// fn margin(site: &impl Site) -> std::time::Duration {
    ///     site.engine().expiry_margin()
    /// }
    /// ```
    fn engine(&self) -> &Engine;
    /// The present moment on the site's clock.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::clock::Clock;
    /// use tower_euid::engine::Site;
    ///
    /// fn agree(site: &impl Site, clock: &impl Clock) -> bool {
    ///     site.now() == clock.now()
    /// }
    /// ```
    fn now(&self) -> UnixMillis;
}

impl RequestContext<'_> {
    /// Consent is given, identities are not bound to users, and the engine has one scope.
    pub const UNRESTRICTED: Self = Self { consent: Consent::Granted, user: SignedIn::Unchecked, scope: None };
}

impl RequestContext<'_> {
    /// Compares the user that a login is bound to with the signed-in user.
    pub(super) fn compare_user(&self, login: &Login) -> (SubjectMatch, Option<RejectReason>) {
        match self.user {
            _ if !login.is_bound() => (SubjectMatch::Same, None),
            SignedIn::Unchecked => (SubjectMatch::Same, None),
            SignedIn::NoUser => (SubjectMatch::NoUser, Some(RejectReason::NoUser)),
            SignedIn::User(id) if login.is_bound_to(id) => (SubjectMatch::Same, None),
            SignedIn::User(_) => (SubjectMatch::Other, Some(RejectReason::OtherUser)),
        }
    }
}

impl fmt::Debug for SignedIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchecked => "Unchecked",
            Self::NoUser => "NoUser",
            Self::User(_) => "User(..)",
        })
    }
}
