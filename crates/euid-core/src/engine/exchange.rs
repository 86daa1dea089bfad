//! One request: finds its state, opens it, and judges it by the policy. [`plan`](super::plan) makes the decision of the
//! verdict.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::decision::Decision;
use super::read::{FoundAnchor, Opened, ReadOutcome};
use super::routes::Served;
use super::scripts::Scripts;
use super::source::Source;
use super::{Change, Engine, Findings, Loaded, RejectReason, Renewal, RequestContext, SignedIn, Step};
use crate::clock::UnixMillis;
use crate::identity::IdentityTimes;
use crate::policy::{self, Action, Credential, Evaluation, SubjectMatch, Verdict, Visibility};
use crate::reason::Reason;
use crate::sealed::login::Login;
use crate::sealed::payload::{OptOut, Payload};
use crate::token::AdvertisingToken;
use crate::transport::cookies::Cookies;
use crate::transport::js_sdk::JsSdk;
use crate::transport::route::{Carrier, Route};
use crate::transport::slots::{Brought, Held, HeldRecord, Hits, IdleScope};

/// A request that may have brought state.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a, T> {
    pub(super) engine: &'a Engine,
    /// That of the scope that serves the request; if none does, that of the engine's first scope.
    pub(super) transport: &'a T,
    /// The scopes that do not serve it.
    pub(super) idle: &'a [IdleScope],
    /// The place of its login in a store.
    pub(super) held: Option<&'a Held>,
    /// The store's answer for the record of its login, if it has been asked.
    pub(super) loaded: Option<&'a Loaded>,
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) context: &'a RequestContext<'a>,
    pub(super) now: &'a dyn Fn() -> UnixMillis,
}

impl<T: Served> Exchange<'_, T> {
    #[inline]
    pub(super) fn begin(&self, values: T::Values<'_>) -> Step {
        let transport = self.transport;
        let mut hits = Hits::default();
        transport.find(&values, &mut hits);
        let config = transport.cookies().map(Cookies::config);
        // In headers, even a request without state goes on: the response must know that headers carry it.
        if config.is_some_and(|config| !config.knows_script_cookies())
            && hits.is_empty()
            && !self.engine.has_state_elsewhere()
        {
            return Step::Ready(Decision::without_state(transport.scope(), self.context.consent, self.method, false));
        }
        let migrates = config.is_some_and(|config| config.js_sdk_cookie().is_some());
        let found = self.engine.read(transport, &values, &hits, migrates, |opened, brought| match opened {
            Opened::Identity { payload, old_key } => self.with_identity(payload, *old_key, brought),
            Opened::OptOut(record) => Some(self.with_opt_out(record, brought)),
        });
        if let Some(held) = self.held
            && let Some(step) = self.with_handle(held, &found)
        {
            return step;
        }
        let (credential, mut why, mut findings) = match found.outcome {
            ReadOutcome::Judged(step) => return step,
            ReadOutcome::None => (Credential::Nothing, without_identity::<T>(found.anchor), Findings::NONE),
            ReadOutcome::Rejected(reason) => {
                let credential = match reason {
                    RejectReason::UnknownKey | RejectReason::UnreadableAnchor => Credential::Unreadable,
                    _ if found.brought.identity => Credential::Unusable,
                    _ => Credential::Nothing,
                };
                (credential, reason.into(), Findings::rejected(reason))
            }
        };
        let nothing_counts = found.anchor == FoundAnchor::None && credential == Credential::Nothing;
        let may_migrate = nothing_counts && migrates;
        let sdk_cookie = transport.cookies().filter(|_| may_migrate);
        if let Some(sdk) = sdk_cookie.and_then(|cookies| cookies.scripts().read_js_sdk(self.headers)) {
            if sdk.can_be_of(transport.scope()) {
                if let Some(step) = self.with_js_sdk_cookie(sdk, &found.brought) {
                    return step;
                }
            } else {
                (why, findings) = (Reason::WrongScope, Findings::rejected(RejectReason::WrongScope));
            }
        }
        let has_state = found.brought.any() || found.anchor.is_state() || self.has_idle_state();
        let verdict = policy::without_identity(credential, why, has_state, self.context.consent);
        let may_end = has_state || found.anchor == FoundAnchor::Ended;
        self.without_token(verdict, may_end, &found.brought, findings)
    }

    /// The decision on a request that no scope serves.
    pub(super) fn unserved(&self) -> Step {
        let (why, consent) = (Reason::NoScope, self.context.consent);
        let verdict = policy::without_identity(Credential::Nothing, why, self.has_idle_state(), consent);
        let mut step = self.without_token(verdict, true, &Brought::NOTHING, Findings::NONE);
        if let Step::Ready(decision) = &mut step {
            decision.route = Route::new(None, T::CARRIER);
            // No cookie for scripts but those that are taken back.
            decision.scripts = Scripts::default();
        }
        step
    }

    fn has_idle_state(&self) -> bool {
        self.idle.iter().any(|scope| scope.has_state)
    }

    /// Judges an identity that opened; `None` if it is not a valid [`Identity`](crate::Identity).
    fn with_identity(&self, payload: &Payload<'_>, old_key: bool, brought: &Brought) -> Option<Step> {
        if let Some(held) = self.held
            && held.read.is_none()
        {
            return self.knowing(held, HeldRecord::Known, |knowing| knowing.with_identity(payload, old_key, brought));
        }
        let (subject, rejected) = self.context.compare_user(&payload.login);
        let findings = Findings { old_key, rejected };
        let (evaluation, times, now) = self.evaluate(subject, &payload.times, payload.login.lineage.chance());
        let identity = || payload.identity().map(Arc::new);
        let Evaluation::Proceed(verdict) = evaluation else {
            return Some(self.candidate(Source::OwnState(payload.login), brought, identity()?, times, now, findings));
        };
        let token = (verdict.sees == Visibility::Active).then(|| payload.advertising_token(self.transport.scope()));
        let keeps = verdict.action == Action::Keep;
        let change = if keeps && !T::EXPIRES && policy::has_outlived(payload.times.refresh_expires, now) {
            Change::ForgetIdentity
        } else if self.engine.reseal && old_key && token.is_some() {
            Change::Renew(Box::new(Renewal { login: payload.login, identity: identity()? }))
        } else {
            verdict.action.into()
        };
        Some(Step::Ready(self.decide(verdict, token, change, true, brought, findings)))
    }

    fn with_opt_out(&self, record: &OptOut, brought: &Brought) -> Step {
        let (subject, rejected) = self.context.compare_user(&record.login);
        let now = (self.now)();
        let verdict = policy::opted_out(record.until, brought.identity, subject, self.context.consent, now);
        let findings = Findings { rejected, ..Findings::NONE };
        if !T::EXPIRES && policy::has_outlived(record.until, now) {
            return self.without_token(verdict, true, &brought.clone().without_record(), findings);
        }
        self.without_token(verdict, true, brought, findings)
    }

    /// Judges the content of the JS SDK's cookie, if the site migrates it. Called only if the request brought no anchor,
    /// and nothing that was migrated before.
    fn with_js_sdk_cookie(&self, found: JsSdk, brought: &Brought) -> Option<Step> {
        let (subject, user) = match self.context.user {
            SignedIn::Unchecked => (SubjectMatch::Same, None),
            SignedIn::NoUser => (SubjectMatch::NoUser, None),
            SignedIn::User(id) => (SubjectMatch::Same, Some(id)),
        };
        let identity = match found {
            JsSdk::Identity(identity) => Arc::new(identity),
            JsSdk::OptedOut { until } => {
                let verdict = policy::opted_out(until, false, subject, self.context.consent, (self.now)());
                return Some(self.without_token(verdict, true, brought, Findings::NONE));
            }
        };
        // Without randomness nothing can be sealed; a later page migrates.
        let login = Login { migrated: true, ..Login::new(user).ok()? };
        let source = Source::JsSdkCookie(login);
        // It is not sealed yet: no jitter.
        let (evaluation, times, now) = self.evaluate(subject, &identity.times(), 0);
        Some(match evaluation {
            Evaluation::Refresh => self.candidate(source, brought, identity, times, now, Findings::NONE),
            Evaluation::Proceed(verdict) => {
                let token = (verdict.sees == Visibility::Active)
                    .then(|| AdvertisingToken::of(&identity, self.transport.scope()));
                let change = source.apply(verdict, identity);
                let why = if verdict.why == Reason::Fresh { Reason::Migrated } else { verdict.why };
                Step::Ready(self.decide(Verdict { why, ..verdict }, token, change, true, brought, Findings::NONE))
            }
        })
    }

    /// Applies [`policy::evaluate`] to an identity. Also returns its times with margin and jitter, and the time
    /// that they were compared with.
    pub(super) fn evaluate(
        &self,
        subject: SubjectMatch,
        times: &IdentityTimes,
        chance: u32,
    ) -> (Evaluation, IdentityTimes, UnixMillis) {
        let now = (self.now)();
        let engine = self.engine;
        let mut with_margin = policy::with_margin(*times, engine.expiry_margin);
        if !engine.refresh_ahead.is_zero() {
            with_margin.refresh_from = policy::refresh_ahead(&with_margin, engine.refresh_ahead);
        } else if times.is_due(now) {
            // An identity that is not due needs no delay.
            let jitter = policy::jitter(times, chance, engine.refresh_jitter);
            with_margin.refresh_from = times.refresh_from.saturating_add(jitter);
        }
        (policy::evaluate(&with_margin, subject, self.context.consent, now), with_margin, now)
    }
}

/// Why a request has no identity of the login that its anchor names.
#[cold]
fn without_identity<T: Served>(anchor: FoundAnchor<'_>) -> Reason {
    match anchor {
        FoundAnchor::None if T::CARRIER == Carrier::Headers => Reason::NoLoginHeader,
        FoundAnchor::None => Reason::NoLogin,
        FoundAnchor::Login(_) => Reason::NoIdentity,
        FoundAnchor::Ended => Reason::LoggedOut,
        FoundAnchor::Unreadable => Reason::UnreadableLogin,
    }
}
