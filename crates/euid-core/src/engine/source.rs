//! The source of an identity, which decides the change that keeps, renews or ends the identity.

use std::fmt;
use std::sync::Arc;

use super::opt_out::opted_out_until;
use super::{Change, Renewal};
use crate::clock::UnixMillis;
use crate::identity::Identity;
use crate::policy::{self, MigrationAction, Verdict};
use crate::sealed::login::Login;
use crate::sealed::payload::OptOut;

/// The source of an identity.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// The engine's own state, of this login.
    OwnState(Login),
    /// The store, which has it for this login. The refresh itself writes the outcome there.
    Stored(Login),
    /// The JS SDK's cookie. The identity will be sealed for this login.
    JsSdkCookie(Login),
}

impl Source {
    pub(super) fn login(self) -> Login {
        match self {
            Self::OwnState(login) | Self::Stored(login) | Self::JsSdkCookie(login) => login,
        }
    }

    /// The change for a verdict on the identity as it is, without a new pair.
    pub(super) fn apply(self, verdict: Verdict, identity: Arc<Identity>) -> Change {
        match self {
            Self::OwnState(_) => verdict.action.into(),
            Self::Stored(_) => Change::Keep,
            Self::JsSdkCookie(login) => match policy::as_migration(verdict) {
                MigrationAction::Keep => Change::Keep,
                MigrationAction::Seal => Change::Renew(Box::new(Renewal { login, identity })),
                MigrationAction::Forget => Change::ForgetIdentity,
                MigrationAction::EndLogin => Change::EndLogin,
            },
        }
    }

    /// The change for its successor.
    pub(super) fn renew(self, identity: Arc<Identity>) -> Change {
        match self {
            Self::OwnState(login) | Self::JsSdkCookie(login) => Change::Renew(Box::new(Renewal { login, identity })),
            Self::Stored(_) => Change::Keep,
        }
    }

    /// The change if the person opted out, as noted at this time.
    pub(super) fn opt_out(self, noted_at: UnixMillis) -> Change {
        Change::RecordOptOut(Box::new(OptOut { login: self.login(), until: opted_out_until(noted_at) }))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnState(_) => "OwnState(..)",
            Self::Stored(_) => "Stored(..)",
            Self::JsSdkCookie(_) => "JsSdkCookie(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityTimes;
    use crate::policy::{Action, Visibility};
    use crate::reason::Reason;
    use crate::sealed::login::Lineage;

    const LOGIN: Login = Login { lineage: Lineage::from_bytes([7; 16]), subject: Some([8; 16]), migrated: false };
    const MIGRATED: Login = Login { migrated: true, ..LOGIN };
    const ALL: [Visibility; 5] =
        [Visibility::Absent, Visibility::Active, Visibility::OptedOut, Visibility::Unavailable, Visibility::Withheld];

    fn identity() -> Arc<Identity> {
        let at = UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
        Arc::new(Identity::new("a", "r".to_owned().into(), [5; 32].into(), times).unwrap())
    }

    fn seals(change: &Change, login: Login) -> bool {
        matches!(change, Change::Renew(renewal) if renewal.login == login && renewal.identity == identity())
    }

    #[test]
    fn own_state_follows_the_verdict() {
        for sees in ALL {
            let apply =
                |action| Source::OwnState(LOGIN).apply(Verdict { sees, action, why: Reason::Fresh }, identity());
            assert!(matches!(apply(Action::Keep), Change::Keep));
            assert!(matches!(apply(Action::ForgetIdentity), Change::ForgetIdentity));
            assert!(matches!(apply(Action::EndLogin), Change::EndLogin));
        }
    }

    #[test]
    fn migrated_identity_is_sealed_or_waits_or_ends_by_the_verdict() {
        for sees in ALL {
            let apply =
                |action| Source::JsSdkCookie(MIGRATED).apply(Verdict { sees, action, why: Reason::Fresh }, identity());
            let kept = apply(Action::Keep);
            if matches!(sees, Visibility::Active | Visibility::Unavailable) {
                assert!(seals(&kept, MIGRATED), "{sees:?}");
            } else {
                assert!(matches!(kept, Change::Keep), "{sees:?}");
            }
            assert!(matches!(apply(Action::ForgetIdentity), Change::ForgetIdentity), "{sees:?}");
            assert!(matches!(apply(Action::EndLogin), Change::EndLogin), "{sees:?}");
        }
    }

    #[test]
    fn new_pair_and_opt_out_belong_to_the_login_of_the_source() {
        for (source, login) in [(Source::OwnState(LOGIN), LOGIN), (Source::JsSdkCookie(MIGRATED), MIGRATED)] {
            assert!(seals(&source.renew(identity()), login));
            assert!(
                matches!(source.opt_out(UnixMillis::from_millis(1)), Change::RecordOptOut(of) if of.login == login)
            );
        }
    }
}
