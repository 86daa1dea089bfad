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
    ///
    /// A host that shares no calls asks the operator itself if the request [may refresh](Self::may_refresh) and
    /// [may wait](Self::may_wait), and gives each outcome to [`Refreshed::received`] first: a clock that is ahead of the
    /// operator's would else refresh on every page.
    ///
    /// ```
    /// use euid_core::clock::UnixMillis;
    /// use euid_core::engine::{Decision, RefreshCandidate};
    /// use euid_core::error::{ErrorKind, EuidError};
    /// use euid_core::Operator;
    ///
    /// /// The decision once the host has the operator's response, or has none.
    /// fn decide(
    ///     operator: &Operator,
    ///     candidate: &RefreshCandidate,
    ///     response: Option<http::Response<Vec<u8>>>,
    ///     now: UnixMillis,
    /// ) -> Decision {
    ///     let outcome = match response {
    ///         Some(response) => operator.refreshed(candidate.identity(), &response, now).and_then(|new| new.received(now)),
    ///         None => Err(EuidError::new(ErrorKind::Transient, "the operator did not answer")),
    ///     };
    ///     let mut decision = candidate.settle(&outcome.map(|(refreshed, _)| refreshed), now);
    ///     if !candidate.may_write() {
    ///         decision.defer();
    ///     }
    ///     decision
    /// }
    /// ```
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
