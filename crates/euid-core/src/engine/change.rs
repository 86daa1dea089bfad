//! What becomes of a visitor's state: planned by the policy, or asked for by a handler.

use std::fmt;
use std::sync::Arc;

use crate::identity::Identity;
use crate::outcome::Generated;
use crate::policy::Action;
use crate::sealed::login::Login;

/// A change of the visitor's state, with all that it needs.
///
/// Exhaustive: whoever writes state elsewhere has to handle each.
#[derive(Clone, Debug)]
pub enum Change {
    /// Nothing is written.
    Keep,
    /// The identity is removed; its login goes on.
    ForgetIdentity,
    /// The login ends, with its identity and all else.
    EndLogin,
    /// The person has opted out, as a handler or the JS SDK's cookie says: the login ends, and the opt-out is remembered.
    StateOptOut,
    /// A refresh found the person opted out: the identity is removed, and the opt-out is remembered for its login.
    RecordOptOut(Box<Login>),
    /// An identity of the same login: refreshed, or sealed under a newer key.
    Renew(Box<Record>),
    /// A new login; it ends what was there.
    Begin(Arc<NewLogin>),
}

/// An identity, and the login that it belongs to.
#[derive(Clone)]
pub struct Record {
    /// The login.
    pub login: Login,
    /// The identity.
    pub identity: Arc<Identity>,
}

/// A login to be.
#[derive(Clone)]
pub struct NewLogin {
    /// The identity that the operator generated.
    pub identity: Arc<Identity>,
    /// The id of the user that it is bound to, if any.
    pub subject: Option<Box<[u8]>>,
}

impl Change {
    /// A login, bound to no user.
    #[must_use]
    pub fn login(identity: Identity) -> Self {
        Self::Begin(Arc::new(NewLogin { identity: Arc::new(identity), subject: None }))
    }

    /// Whether this change wins over `other` in one response: logout over opt-out over login over all else.
    #[must_use]
    pub fn outranks(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Keep => 0,
            Self::ForgetIdentity | Self::RecordOptOut(_) | Self::Renew(_) => 1,
            Self::Begin(_) => 2,
            Self::StateOptOut => 3,
            Self::EndLogin => 4,
        }
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
            Self::Keep | Self::ForgetIdentity | Self::EndLogin | Self::StateOptOut | Self::RecordOptOut(_) => None,
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

/// Whatever the outcome, it ends the login that was there: another person may have logged in.
impl From<Generated> for Change {
    fn from(generated: Generated) -> Self {
        match generated {
            Generated::Identity(identity) => Self::login(identity),
            Generated::OptedOut => Self::StateOptOut,
            Generated::InsufficientConsent => Self::EndLogin,
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("identity", &self.identity).finish_non_exhaustive()
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
    fn logout_outranks_opt_out_which_outranks_login_which_outranks_what_was_planned() {
        let at = UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
        let identity = Identity::new("a", "r".to_owned().into(), [5; 32].into(), times).unwrap();
        let login = Login { lineage: Lineage::from_bytes([7; 16]), subject: None };
        let renewed = Record { login, identity: Arc::new(identity.clone()) };
        for planned in [Change::ForgetIdentity, Change::RecordOptOut(Box::new(login)), Change::Renew(Box::new(renewed))]
        {
            let ascending =
                [Change::Keep, planned, Change::login(identity.clone()), Change::StateOptOut, Change::EndLogin];
            for (weaker, stronger) in ascending.iter().zip(ascending.iter().skip(1)) {
                assert!(stronger.outranks(weaker) && !weaker.outranks(stronger), "{stronger:?} {weaker:?}");
                assert!(!weaker.outranks(weaker));
            }
        }
    }

    #[test]
    fn debug_shows_no_token() {
        let at = UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
        let identity = Identity::new("secret", "secret".to_owned().into(), [5; 32].into(), times).unwrap();
        let login = Login { lineage: Lineage::from_bytes([7; 16]), subject: None };
        let renewed = Change::Renew(Box::new(Record { login, identity: Arc::new(identity.clone()) }));
        assert!(!format!("{renewed:?} {:?}", Change::login(identity)).contains("secret"));
    }
}
