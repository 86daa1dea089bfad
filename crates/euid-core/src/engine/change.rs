//! Changes of a visitor's state, which the policy plans or a handler asks for.

use std::fmt;
use std::sync::Arc;

use super::ChangeKind;
use crate::identity::Identity;
use crate::outcome::Generated;
use crate::policy::Action;
use crate::sealed::login::Login;
use crate::sealed::payload::OptOut;

/// A change of the visitor's state, with all data that it needs. A handler asks for `Begin`, `EndLogin` or
/// `OptOut`; an [`Engine`](super::Engine) plans the others.
///
/// Exhaustive: code that writes the state elsewhere must handle every variant.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, identity, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use http::{HeaderMap, StatusCode};
/// use tower_euid::engine::{Change, Pending};
///
/// for (asked, cookie) in [
///     (Change::login(identity), "__Host-euid-login="),
///     (Change::opt_out(), "__Host-euid-login="),
///     (Change::EndLogin, "__Host-euid-login=;"), // removed
/// ] {
///     let mut response = HeaderMap::new();
///     engine.finish(Pending::default(), Some(&asked), StatusCode::OK, &mut response, || at(0));
///     assert!(response.get_all("set-cookie").iter().any(|set| set.as_bytes().starts_with(cookie.as_bytes())));
/// }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub enum Change {
    /// Nothing is written.
    Keep,
    /// The identity is removed; its login goes on.
    ForgetIdentity,
    /// The login ends, with its identity and all its other state.
    EndLogin,
    /// The person has opted out, as the operator said at a login: a new login without an identity, which remembers the
    /// opt-out and ends the previous login.
    OptOut(Arc<NewOptOut>),
    /// A refresh found the person opted out: the identity is removed, and the opt-out is remembered for its login.
    RecordOptOut(Box<OptOut>),
    /// An identity of the same login: refreshed, or sealed under a newer key.
    Renew(Box<Renewal>),
    /// A new login, which ends the previous one.
    Begin(Arc<NewLogin>),
}

/// An identity, and the login that it belongs to. `Debug` shows neither tokens nor the login.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (candidate, new_pair) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use tower_euid::Refreshed;
/// use tower_euid::engine::Change;
///
/// let decision = candidate.settle(&Ok(Refreshed::Identity(new_pair.clone())), at(15_000));
/// let Change::Renew(record) = decision.change() else { panic!("{decision:?}") };
/// assert_eq!(record.identity.refresh_token(), new_pair.refresh_token());
/// assert!(record.login.is_bound());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Renewal {
    /// The login.
    pub login: Login,
    /// The identity.
    pub identity: Arc<Identity>,
}

/// A login to write. `Debug` shows neither tokens nor the user.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, identity, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use std::sync::Arc;
/// use http::{HeaderMap, StatusCode};
/// use tower_euid::engine::{Change, NewLogin, Pending};
///
/// let login = NewLogin { identity: Arc::new(identity), subject: Some(b"17"[..].into()) };
/// let (asked, mut response) = (Change::Begin(Arc::new(login)), HeaderMap::new());
/// let report = engine.finish(Pending::default(), Some(&asked), StatusCode::OK, &mut response, || at(0)).report();
/// assert!(report.identity_bytes.is_some() && !report.login_without_subject);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct NewLogin {
    /// The identity that the operator generated.
    pub identity: Arc<Identity>,
    /// The id of the user that it is bound to, if any.
    pub subject: Option<Box<[u8]>>,
}

/// The opt-out of a person who logs in: a login without an identity. `Debug` does not show the user.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, _, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// use std::sync::Arc;
/// use http::{HeaderMap, StatusCode};
/// use tower_euid::engine::{Change, NewOptOut, Pending};
///
/// let opt_out = NewOptOut { subject: Some(b"17"[..].into()) };
/// let (asked, mut response) = (Change::OptOut(Arc::new(opt_out)), HeaderMap::new());
/// let report = engine.finish(Pending::default(), Some(&asked), StatusCode::OK, &mut response, || at(0)).report();
/// assert!(report.unwritten.is_none() && !report.login_without_subject);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct NewOptOut {
    /// The id of the user that it is bound to, if any.
    pub subject: Option<Box<[u8]>>,
}

impl Change {
    /// A login, bound to no user.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (_, identity, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::engine::Change;
    ///
    /// assert!(matches!(Change::login(identity), Change::Begin(login) if login.subject.is_none()));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn login(identity: Identity) -> Self {
        Self::Begin(Arc::new(NewLogin { identity: Arc::new(identity), subject: None }))
    }

    /// The opt-out of a person who logs in, bound to no user.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::Generated;
    /// use tower_euid::engine::Change;
    ///
    /// assert!(matches!(Change::opt_out(), Change::OptOut(opt_out) if opt_out.subject.is_none()));
    /// assert!(matches!(Change::from(Generated::OptedOut), Change::OptOut(_)));
    /// ```
    #[must_use]
    pub fn opt_out() -> Self {
        Self::OptOut(Arc::default())
    }

    /// Binds a login, or an opt-out at a login, to the user with this id in the application. Returns any other change as it is.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (_, identity, _, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::engine::Change;
    ///
    /// let bound = Change::login(identity).subject("17");
    /// assert!(matches!(bound, Change::Begin(login) if login.subject.as_deref() == Some(b"17")));
    /// assert!(matches!(Change::EndLogin.subject("17"), Change::EndLogin));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn subject(self, id: impl AsRef<[u8]>) -> Self {
        let subject = Some(id.as_ref().into());
        match self {
            Self::Begin(login) => Self::Begin(Arc::new(NewLogin { identity: Arc::clone(&login.identity), subject })),
            Self::OptOut(_) => Self::OptOut(Arc::new(NewOptOut { subject })),
            other => other,
        }
    }

    /// Whether this change wins over `other` in one response: logout over opt-out over login over all else.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::engine::Change;
    /// assert!(Change::EndLogin.outranks(&Change::opt_out()));
    /// assert!(!Change::EndLogin.outranks(&Change::EndLogin));
    /// ```
    #[must_use]
    pub fn outranks(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }

    /// Its kind; `None` if nothing is written.
    pub(crate) fn kind(&self) -> Option<ChangeKind> {
        Some(match self {
            Self::Keep => return None,
            Self::ForgetIdentity => ChangeKind::Removal,
            Self::EndLogin => ChangeKind::Logout,
            Self::OptOut(_) | Self::RecordOptOut(_) => ChangeKind::OptOut,
            Self::Renew(_) => ChangeKind::Renewal,
            Self::Begin(_) => ChangeKind::Login,
        })
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Keep => 0,
            Self::ForgetIdentity | Self::RecordOptOut(_) | Self::Renew(_) => 1,
            Self::Begin(_) => 2,
            Self::OptOut(_) => 3,
            Self::EndLogin => 4,
        }
    }

    /// Whether it ends the login that counts.
    pub(crate) fn ends_login(&self) -> bool {
        matches!(self, Self::EndLogin | Self::OptOut(_) | Self::Begin(_))
    }

    /// Whether it stores an identity.
    pub(crate) fn stores(&self) -> bool {
        matches!(self, Self::Renew(_) | Self::Begin(_))
    }

    /// The identity that it stores, if any.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Renew(record) => Some(&record.identity),
            Self::Begin(login) => Some(&login.identity),
            Self::Keep | Self::ForgetIdentity | Self::EndLogin | Self::OptOut(_) | Self::RecordOptOut(_) => None,
        }
    }
}

impl From<Action> for Change {
    fn from(action: Action) -> Self {
        match action {
            Action::Keep => Self::Keep,
            Action::ForgetIdentity => Self::ForgetIdentity,
            Action::EndLogin => Self::EndLogin,
        }
    }
}

/// Every outcome ends the previous login: another person may have logged in.
impl From<Generated> for Change {
    fn from(generated: Generated) -> Self {
        match generated {
            Generated::Identity(identity) => Self::login(identity),
            Generated::OptedOut => Self::opt_out(),
            Generated::InsufficientConsent => Self::EndLogin,
        }
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl fmt::Debug for NewOptOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewOptOut").finish_non_exhaustive()
    }
}

impl fmt::Debug for NewLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewLogin").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::identity::IdentityTimes;
    use crate::sealed::login::Lineage;

    #[test]
    fn change_precedence_is_logout_opt_out_login_plan() {
        let at = UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
        let identity = Identity::new("a", "r".to_owned().into(), [5; 32].into(), times).unwrap();
        let login = Login { lineage: Lineage::from_bytes([7; 16]), subject: None, migrated: false };
        let renewed = Renewal { login, identity: Arc::new(identity.clone()) };
        let opt_out = OptOut { login, until: at(3) };
        for planned in
            [Change::ForgetIdentity, Change::RecordOptOut(Box::new(opt_out)), Change::Renew(Box::new(renewed))]
        {
            let ascending =
                [Change::Keep, planned, Change::login(identity.clone()), Change::opt_out(), Change::EndLogin];
            for (weaker, stronger) in ascending.iter().zip(ascending.iter().skip(1)) {
                assert!(stronger.outranks(weaker) && !weaker.outranks(stronger), "{stronger:?} {weaker:?}");
                assert!(!weaker.outranks(weaker));
            }
        }
    }

    #[test]
    fn debug_of_a_change_shows_no_token() {
        let at = UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
        let identity = Identity::new("secret", "secret".to_owned().into(), [5; 32].into(), times).unwrap();
        let login = Login { lineage: Lineage::from_bytes([7; 16]), subject: None, migrated: false };
        let renewed = Change::Renew(Box::new(Renewal { login, identity: Arc::new(identity.clone()) }));
        assert!(!format!("{renewed:?} {:?}", Change::login(identity)).contains("secret"));
    }
}
