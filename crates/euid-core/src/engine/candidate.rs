//! An identity that is due for a refresh, until the refresh has an outcome.

use std::sync::Arc;
use std::time::Duration;

use super::decision::{Decision, Scripts, euid};
use super::{Change, Findings, NewLogin, Record};
use crate::clock::UnixMillis;
use crate::error::EuidError;
use crate::identity::{Identity, IdentityTimes};
use crate::outcome::Refreshed;
use crate::policy::{self, Answer, Consent, Migration, Settled, Verdict, Visibility};
use crate::sealed::login::{Lineage, Login};
use crate::token::AdvertisingToken;
use crate::transport::js_sdk::ScriptCookie;

/// An identity that is due for a refresh, and all of its request that a later decision needs.
#[derive(Debug)]
#[must_use = "the handler has to see its outcome: `settle`"]
pub struct RefreshCandidate {
    pub(super) source: Source,
    pub(super) identity: Arc<Identity>,
    /// With margin and jitter.
    pub(super) times: IdentityTimes,
    pub(super) arrived: UnixMillis,
    pub(super) expiry_margin: Duration,
    pub(super) may_write: bool,
    pub(super) may_wait: bool,
    pub(super) is_conditional: bool,
    pub(super) cookie: ScriptCookie,
    pub(super) findings: Findings,
}

/// Where an identity came from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// State of ours, of this login.
    OwnState(Login),
    /// The JS SDK's cookie. The identity has no login yet; its login will be bound to this user, if any.
    JsSdkCookie(Option<Box<[u8]>>),
}

impl RefreshCandidate {
    /// The identity to refresh.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The identity, to be replaced by an equal copy that other requests share.
    pub fn identity_mut(&mut self) -> &mut Arc<Identity> {
        &mut self.identity
    }

    /// The login that the identity belongs to; `None` if it has none yet.
    #[must_use]
    pub fn lineage(&self) -> Option<Lineage> {
        match &self.source {
            Source::OwnState(login) => Some(login.lineage),
            Source::JsSdkCookie(_) => None,
        }
    }

    /// When the request arrived.
    #[must_use]
    pub fn arrived(&self) -> UnixMillis {
        self.arrived
    }

    /// Whether the token could still be used when the request arrived, so that no page has to wait.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.times.is_usable(self.arrived)
    }

    /// Whether the response may write the outcome: the request is a page, or a script's own call. If not, the host
    /// [defers](Decision::defer) what [`settle`](Self::settle) returns.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.may_write
    }

    /// Whether this request may cause a call to the operator. A conditional request whose token is usable may not: its
    /// response may be a 304, which can't bring a new pair.
    #[must_use]
    pub fn may_refresh(&self) -> bool {
        self.may_write && !(self.is_conditional && self.is_usable())
    }

    /// Whether the handler may be called after the operator's answer. One with an unsafe method may not wait: it may be the
    /// logout or the login that ends this identity.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        self.may_wait
    }

    /// What became of the state that the request brought, for logs and metrics.
    #[must_use]
    pub fn findings(&self) -> Findings {
        self.findings
    }

    /// Turns the outcome of a refresh at `now` into what the handler sees and what the response will do. An error of kind
    /// [`Transient`](crate::error::ErrorKind::Transient) stands for a refresh that has not been made or has no answer yet.
    pub fn settle(&self, outcome: &Result<Refreshed, EuidError>, now: UnixMillis) -> Decision {
        let answer = match Answer::of(outcome) {
            Answer::NewPair(times, new) => Answer::NewPair(policy::with_margin(times, self.expiry_margin), new),
            other => other,
        };
        let source = self.source.clone();
        let (sees, token, change) = match policy::settle(&self.times, now, answer) {
            Settled::Renewed(new) => {
                let token = AdvertisingToken::from(new);
                (Visibility::Active, Some(token), source.renew(Arc::new(new.clone())))
            }
            Settled::OptedOut => (Visibility::OptedOut, None, source.opt_out()),
            Settled::Proceed(verdict) => {
                let is_active = verdict.sees == Visibility::Active;
                let token = is_active.then(|| AdvertisingToken::from(&*self.identity));
                (verdict.sees, token, source.keep(verdict, Arc::clone(&self.identity)))
            }
        };
        let scripts = Scripts { sync: self.cookie.differs(token.is_some()), withheld: false };
        Decision {
            euid: euid(sees, token),
            change,
            // The policy lets no identity be refreshed without consent.
            consent: Consent::Granted,
            may_end: true,
            scripts,
            findings: Findings::NONE,
        }
    }
}

impl Source {
    /// The change if the identity stays as it is.
    pub(super) fn keep(self, verdict: Verdict, identity: Arc<Identity>) -> Change {
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
    fn renew(self, identity: Arc<Identity>) -> Change {
        match self {
            Self::OwnState(login) => Change::Renew(Box::new(Record { login, identity })),
            Self::JsSdkCookie(subject) => Change::Begin(Arc::new(NewLogin { identity, subject })),
        }
    }

    /// The change if the person opted out.
    fn opt_out(self) -> Change {
        match self {
            Self::OwnState(login) => Change::RecordOptOut(Box::new(login)),
            Self::JsSdkCookie(_) => Change::StateOptOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Action;

    const LOGIN: Login = Login { lineage: Lineage::from_bytes([7; 16]), subject: Some([8; 16]) };
    const ALL: [Visibility; 5] =
        [Visibility::Absent, Visibility::Active, Visibility::OptedOut, Visibility::Unavailable, Visibility::Withheld];

    fn identity() -> Arc<Identity> {
        let at = UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
        Arc::new(Identity::new("a", "r".to_owned().into(), [5; 32].into(), times).unwrap())
    }

    fn foreign() -> Source {
        Source::JsSdkCookie(Some(b"17"[..].into()))
    }

    fn begins(change: &Change, identity: &Identity) -> bool {
        matches!(change, Change::Begin(new) if *new.identity == *identity && new.subject.as_deref() == Some(b"17"))
    }

    #[test]
    fn own_state_that_is_kept_does_what_the_verdict_says() {
        for sees in ALL {
            let keep = |action| Source::OwnState(LOGIN).keep(Verdict { sees, action }, identity());
            assert!(matches!(keep(Action::Keep), Change::Keep));
            assert!(matches!(keep(Action::ForgetIdentity), Change::ForgetIdentity));
            assert!(matches!(keep(Action::EndLogin), Change::EndLogin));
        }
    }

    #[test]
    fn an_identity_taken_over_begins_a_login_if_it_is_of_use_and_ends_if_it_is_not() {
        for sees in ALL {
            let keep = |action| foreign().keep(Verdict { sees, action }, identity());
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
    fn a_new_pair_is_of_the_same_login_or_begins_one() {
        let Change::Renew(record) = Source::OwnState(LOGIN).renew(identity()) else { panic!("no renewal") };
        assert_eq!((record.login, &record.identity), (LOGIN, &identity()));
        assert!(begins(&foreign().renew(identity()), &identity()));
    }

    #[test]
    fn an_opt_out_is_recorded_for_a_login_and_stated_where_there_is_none() {
        let change = Source::OwnState(LOGIN).opt_out();
        assert!(matches!(change, Change::RecordOptOut(login) if *login == LOGIN));
        assert!(matches!(foreign().opt_out(), Change::StateOptOut));
    }
}
