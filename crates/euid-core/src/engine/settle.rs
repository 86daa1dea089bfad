//! Decides on a request that is due for a refresh, once the refresh has an outcome or the host goes on without one.

use std::sync::Arc;
use std::time::Duration;

use super::candidate::RefreshCandidate;
use super::decision::{Decision, euid};
use super::scripts::Scripts;
use super::source::Source;
use super::{Change, Findings};
use crate::clock::UnixMillis;
use crate::consent::Consent;
use crate::error::EuidError;
use crate::identity::Identity;
use crate::outcome::Refreshed;
use crate::policy::{self, RefreshOutcome, Settled, Visibility};
use crate::reason::Reason;
use crate::token::AdvertisingToken;

impl RefreshCandidate {
    /// Turns the outcome of a refresh, as it stands at `now`, into a decision. A host may call it again with a later
    /// outcome: see [`Pending::adopt`](super::Pending::adopt).
    ///
    /// The outcome of a refresh that was not made, or has no answer yet, is an error of kind
    /// [`Transient`](crate::error::ErrorKind::Transient). The present token stays usable until it expires; after that
    /// the handler sees [`Unavailable`](crate::Euid::Unavailable). A new pair that is due already becomes due a little
    /// later, as in [`Refreshed::received`]: otherwise a clock ahead of the operator's would refresh on every page.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (candidate, new_pair) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::Refreshed;
    /// use tower_euid::error::{ErrorKind, EuidError};
    ///
    /// let failed = |kind| Err(EuidError::new(kind, "…"));
    /// for (outcome, state) in [
    ///     (Ok(Refreshed::Identity(new_pair)), "active"),
    ///     (Ok(Refreshed::OptedOut), "opted_out"),
    ///     (failed(ErrorKind::Transient), "active"), // the token is still good
    ///     (failed(ErrorKind::RejectedToken), "absent"), // logged out by the operator
    /// ] {
    ///     assert_eq!(candidate.settle(&outcome, at(15_000)).euid().state(), state);
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn settle(&self, outcome: &Result<Refreshed, EuidError>, now: UnixMillis) -> Decision {
        let answer = match RefreshOutcome::of(outcome) {
            RefreshOutcome::NewPair(times, new) => {
                RefreshOutcome::NewPair(policy::with_margin(times, self.expiry_margin.into()), new)
            }
            other => other,
        };
        self.settle_as(answer, now)
    }

    fn settle_as(&self, answer: RefreshOutcome<&Identity>, now: UnixMillis) -> Decision {
        let source = self.source;
        let (sees, why, token, change) = match policy::settle(&self.times, now, answer) {
            Settled::Renewed(new) => {
                let new = not_due_at(now, new, self.refresh_ahead.into());
                let token = AdvertisingToken::of(&new, self.scope());
                (Visibility::Active, Reason::Refreshed, Some(token), source.renew(Arc::new(new)))
            }
            // It is the opt-out of this login, not of one that begins before the response is written.
            Settled::OptedOut => (Visibility::OptedOut, Reason::OptedOut, None, source.opt_out(self.arrived)),
            Settled::Proceed(verdict) => {
                let is_active = verdict.sees == Visibility::Active;
                let token = is_active.then(|| AdvertisingToken::of(&self.identity, self.scope()));
                (verdict.sees, verdict.why, token, source.apply(verdict, Arc::clone(&self.identity)))
            }
        };
        // A pair in the store is new to scripts, too, but no change says so.
        let is_stored = matches!((&source, &change, &token), (Source::Stored(_), Change::Keep, Some(_)));
        let is_new = is_stored && self.script_cookie.came() && matches!(answer, RefreshOutcome::NewPair(..));
        let scripts = Scripts::new(is_new || self.script_cookie.differs(token.is_some()), false);
        let mut decision = Decision {
            route: self.route,
            euid: euid(sees, token),
            change,
            brought: self.brought.clone(),
            has_leftovers: self.has_leftovers,
            // The policy never refreshes an identity without consent.
            consent: Consent::Granted,
            may_end: true,
            scripts,
            findings: Findings::NONE,
            reason: why,
        };
        if !self.may_write {
            decision.defer();
        }
        decision
    }

    /// The decision without a refresh, which a later page makes. For a request that may not
    /// [refresh](Self::may_refresh) or may not [wait](Self::may_wait), in a host that makes no calls beside its
    /// handlers.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use http::Method;
    /// use tower_euid::engine::{Change, RequestContext, Step};
    ///
    /// let step = engine.begin(&Method::POST, &request, &RequestContext::UNRESTRICTED, || at(15_000));
    /// let Step::Refresh(candidate) = step else { panic!("{step:?}") };
    /// assert!(!candidate.may_wait()); // it is a POST
    /// let decision = candidate.postpone(at(15_000));
    /// assert_eq!(decision.euid().state(), "active"); // the token has not expired
    /// assert!(matches!(decision.change(), Change::Keep));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn postpone(&self, now: UnixMillis) -> Decision {
        let why = match (self.may_write, self.may_refresh()) {
            (false, _) => Reason::NotAPage,
            (true, false) => Reason::Conditional,
            (true, true) => Reason::RefreshPostponed,
        };
        self.proceed(why, now)
    }

    /// The decision without the outcome of a refresh, as it stands at `now`: the same as that of
    /// [`settle`](Self::settle) with a [`Transient`](crate::error::ErrorKind::Transient) error, but with `why` as its
    /// [reason](Decision::reason). For a host that made no call, or whose call has no answer yet.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (candidate, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/candidate.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::Reason;
    ///
    /// // The token expires at 20 s.
    /// for (now, state) in [(15_000, "active"), (25_000, "unavailable")] {
    ///     let decision = candidate.proceed(Reason::WaitedTooLong, at(now));
    ///     assert_eq!((decision.euid().state(), decision.reason()), (state, Reason::WaitedTooLong));
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn proceed(&self, why: Reason, now: UnixMillis) -> Decision {
        self.settle_as(RefreshOutcome::Failed(why), now)
    }
}

/// The pair, due a little later if it would be due again at once. A host that has called [`Refreshed::received`] has
/// such a pair, unless it refreshes ahead; another host has not. One that has expired by this node's clock stays as it is:
/// a node whose clock is right refreshes it in time.
pub(super) fn not_due_at(now: UnixMillis, pair: &Identity, ahead: Duration) -> Identity {
    let times = pair.times();
    let pair = pair.clone();
    let is_due = times.is_usable(now) && policy::is_due_at_once(&times, ahead, now);
    if is_due { pair.with_refresh_from(policy::due_later(&times, ahead, now)) } else { pair }
}
