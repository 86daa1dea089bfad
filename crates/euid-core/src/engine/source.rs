//! The source of an identity, which decides the change that keeps, renews or ends the identity.

use std::fmt;
use std::sync::Arc;

use super::{Change, NewLogin, Renewal};
use crate::identity::Identity;
use crate::policy::{self, Migration, Verdict};
use crate::sealed::login::Login;

/// The source of an identity.
#[derive(Clone)]
pub(super) enum Source {
    /// The engine's own state, of this login.
    OwnState(Login),
    /// The JS SDK's cookie. The identity has no login yet; its login will be bound to this user, if any.
    JsSdkCookie(Option<Box<[u8]>>),
}

impl Source {
    /// The change for a verdict on the identity as it is, without a new pair.
    pub(super) fn apply(self, verdict: Verdict, identity: Arc<Identity>) -> Change {
        match self {
            Self::OwnState(_) => verdict.action.into(),
            Self::JsSdkCookie(subject) => match policy::as_migration(verdict) {
                Migration::Keep => Change::Keep,
                Migration::Begin => Change::Begin(Arc::new(NewLogin { identity, subject })),
                Migration::End => Change::EndLogin,
            },
        }
    }

    /// The change for its successor.
    pub(super) fn renew(self, identity: Arc<Identity>) -> Change {
        match self {
            Self::OwnState(login) => Change::Renew(Box::new(Renewal { login, identity })),
            Self::JsSdkCookie(subject) => Change::Begin(Arc::new(NewLogin { identity, subject })),
        }
    }

    /// The change if the person opted out.
    pub(super) fn opt_out(self) -> Change {
        match self {
            Self::OwnState(login) => Change::RecordOptOut(Box::new(login)),
            Self::JsSdkCookie(_) => Change::OptOut,
        }
    }
}

/// Shows neither the login nor the user.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnState(_) => "OwnState(..)",
            Self::JsSdkCookie(_) => "JsSdkCookie(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::identity::IdentityTimes;
    use crate::policy::{Action, Visibility};
    use crate::sealed::login::Lineage;

    const LOGIN: Login = Login { lineage: Lineage::from_bytes([7; 16]), subject: Some([8; 16]) };
    const ALL: [Visibility; 5] =
        [Visibility::Absent, Visibility::Active, Visibility::OptedOut, Visibility::Unavailable, Visibility::Withheld];

    fn identity() -> Arc<Identity> {
        let at = UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
        Arc::new(Identity::new("a", "r".to_owned().into(), [5; 32].into(), times).unwrap())
    }

    fn migrated() -> Source {
        Source::JsSdkCookie(Some(b"17"[..].into()))
    }

    fn begins(change: &Change, identity: &Identity) -> bool {
        matches!(change, Change::Begin(new) if *new.identity == *identity && new.subject.as_deref() == Some(b"17"))
    }

    #[test]
    fn own_state_follows_the_verdict() {
        for sees in ALL {
            let keep = |action| Source::OwnState(LOGIN).apply(Verdict { sees, action }, identity());
            assert!(matches!(keep(Action::Keep), Change::Keep));
            assert!(matches!(keep(Action::ForgetIdentity), Change::ForgetIdentity));
            assert!(matches!(keep(Action::EndLogin), Change::EndLogin));
        }
    }

    #[test]
    fn migrated_identity_begins_a_login_waits_or_ends_by_the_verdict() {
        for sees in ALL {
            let keep = |action| migrated().apply(Verdict { sees, action }, identity());
            let kept = keep(Action::Keep);
            if matches!(sees, Visibility::Active | Visibility::Unavailable) {
                assert!(begins(&kept, &identity()), "{sees:?}");
            } else {
                assert!(matches!(kept, Change::Keep), "{sees:?}");
            }
            for action in [Action::ForgetIdentity, Action::EndLogin] {
                assert!(matches!(keep(action), Change::EndLogin), "{sees:?}");
            }
        }
    }

    #[test]
    fn new_pair_keeps_its_login_or_begins_one() {
        let Change::Renew(record) = Source::OwnState(LOGIN).renew(identity()) else { panic!("no renewal") };
        assert_eq!((record.login, &record.identity), (LOGIN, &identity()));
        assert!(begins(&migrated().renew(identity()), &identity()));
    }

    #[test]
    fn opt_out_is_recorded_for_a_login_and_stated_without_one() {
        let change = Source::OwnState(LOGIN).opt_out();
        assert!(matches!(change, Change::RecordOptOut(login) if *login == LOGIN));
        assert!(matches!(migrated().opt_out(), Change::OptOut));
    }
}
