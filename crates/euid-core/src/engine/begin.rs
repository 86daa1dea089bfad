//! Before the handler: turns a request's state into facts for the policy, and the policy's verdict into a decision.

use std::sync::Arc;
use std::time::Duration;

use http::header::GetAll;
use http::{HeaderMap, HeaderValue, Method};

use super::decision::{Decision, Scripts, euid};
use super::navigation::{is_conditional, is_navigation_or_fetch};
use super::read::{FoundAnchor, Opened, ReadOutcome};
use super::routes::Served;
use super::source::Source;
use super::{Change, Engine, Findings, RefreshCandidate, RejectReason, Renewal, RequestContext, SignedIn, UserCheck};
use crate::clock::UnixMillis;
use crate::consent::Consent;
use crate::euid::Euid;
use crate::identity::{Identity, IdentityTimes};
use crate::policy::{self, Credential, Evaluation, SubjectMatch, Verdict, Visibility};
use crate::sealed::login::Login;
use crate::sealed::payload::{OptOut, Payload};
use crate::token::AdvertisingToken;
use crate::transport::Transport;
use crate::transport::cookies::Cookies;
use crate::transport::headers::Headers;
use crate::transport::js_sdk::{JsSdk, ScriptCookie};
use crate::transport::route::{Carrier, Route};
use crate::transport::slots::{Brought, Hits, Idle};

/// The next step of a host.
///
/// Exhaustive: a host must handle every variant.
///
/// ```
/// # use euid_core as tower_euid;
/// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
/// # let at = tower_euid::clock::UnixMillis::from_millis;
/// # let all = tower_euid::engine::RequestContext::UNRESTRICTED;
/// # let step = engine.begin(&http::Method::GET, &request, &all, || at(15_000));
/// use tower_euid::engine::{Decision, Step};
/// use tower_euid::error::EuidError;
/// use tower_euid::{Identity, Refreshed};
///
/// /// The decision on a request, with a call to the operator if one is due.
/// fn decide(step: Step, call: impl FnOnce(&Identity) -> Result<Refreshed, EuidError>) -> Decision {
///     match step {
///         Step::Ready(decision) => decision,
///         Step::Refresh(candidate) => candidate.settle(&call(candidate.identity()), candidate.arrived()),
///     }
/// }
/// # let decision = decide(step, |_| Ok(Refreshed::OptedOut));
/// # assert_eq!(decision.euid().state(), "opted_out");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub enum Step {
    /// The handler can be called.
    Ready(Decision),
    /// A refresh is due. The host calls the operator, or not, and [settles](RefreshCandidate::settle) the outcome.
    Refresh(Box<RefreshCandidate>),
}

/// A request that may have brought state.
struct Exchange<'a, T> {
    engine: &'a Engine,
    /// That of the scope that serves the request; if none does, that of the engine's first scope.
    transport: &'a T,
    /// The scopes that do not serve it, if the engine serves both.
    idle: Option<&'a Idle>,
    method: &'a Method,
    headers: &'a HeaderMap,
    context: &'a RequestContext<'a>,
    now: &'a dyn Fn() -> UnixMillis,
}

impl Engine {
    /// Begins a request that may have brought state.
    pub(super) fn begin_exchange(
        &self,
        method: &Method,
        headers: &HeaderMap,
        cookies: GetAll<'_, HeaderValue>,
        context: &RequestContext<'_>,
        now: &dyn Fn() -> UnixMillis,
    ) -> Step {
        if self.extras.is_some() {
            return self.begin_on_route(method, headers, context, now);
        }
        let transport = &self.cookies;
        Exchange { engine: self, transport, idle: None, method, headers, context, now }.begin(cookies)
    }

    /// Begins a request of an engine with both scopes or with headers.
    #[cold]
    fn begin_on_route(
        &self,
        method: &Method,
        headers: &HeaderMap,
        context: &RequestContext<'_>,
        now: &dyn Fn() -> UnixMillis,
    ) -> Step {
        match self.carrier(headers) {
            Carrier::Cookies => self.begin_in_scope::<Cookies>(method, headers, context, now),
            Carrier::Headers => self.begin_in_scope::<Headers>(method, headers, context, now),
        }
    }

    fn begin_in_scope<T: Served>(
        &self,
        method: &Method,
        headers: &HeaderMap,
        context: &RequestContext<'_>,
        now: &dyn Fn() -> UnixMillis,
    ) -> Step {
        let own = self.cookies.scope();
        let scope = self.serving(context);
        let idle = self.serves_both().then(|| self.find_idle::<T>(headers, scope));
        let transport = T::of(self, scope.unwrap_or(own));
        let exchange = transport.map(|transport| Exchange {
            engine: self,
            transport,
            idle: idle.as_ref(),
            method,
            headers,
            context,
            now,
        });
        match exchange {
            Some(exchange) if scope.is_some() => exchange.begin(T::values(headers)),
            Some(exchange) => exchange.unserved(),
            // Never: an engine with a carrier has it in every scope.
            None => Step::Ready(Decision::without_state(own, context.consent, method, false)),
        }
    }

    /// Compares the user that a request's state is bound to with the signed-in user, and checks nothing else. For a
    /// host inside another host that does the rest.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # let (engine, _, request, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// use tower_euid::engine::{RejectReason, RequestContext, SignedIn, UserCheck};
    ///
    /// let check = |user| engine.check_user(&request, &RequestContext { user, ..RequestContext::UNRESTRICTED });
    /// assert_eq!(check(SignedIn::User(b"17")), UserCheck::Same);
    /// assert_eq!(check(SignedIn::User(b"18")), UserCheck::Rejected(RejectReason::OtherUser));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn check_user(&self, headers: &HeaderMap, context: &RequestContext<'_>) -> UserCheck {
        match self.carrier(headers) {
            Carrier::Cookies => self.check_user_in::<Cookies>(headers, context),
            Carrier::Headers => self.check_user_in::<Headers>(headers, context),
        }
    }

    fn check_user_in<T: Served>(&self, headers: &HeaderMap, context: &RequestContext<'_>) -> UserCheck {
        let Some(transport) = self.serving(context).and_then(|scope| T::of(self, scope)) else {
            return UserCheck::NoState;
        };
        let values = T::values(headers);
        let mut hits = Hits::default();
        transport.find(&values, &mut hits);
        // The other host may migrate, even if this one does not.
        let found = self.read(transport, &values, &hits, true, |opened, _| {
            let login = match opened {
                Opened::Identity { payload, .. } => &payload.login,
                Opened::OptOut(record) => &record.login,
            };
            Some(match compare_user(context, login) {
                (_, Some(rejected)) => UserCheck::Rejected(rejected),
                (_, None) => UserCheck::Same,
            })
        });
        match found.outcome {
            ReadOutcome::Judged(check) => check,
            ReadOutcome::None => UserCheck::NoState,
            ReadOutcome::Rejected(_) => UserCheck::Unreadable,
        }
    }
}

impl<T: Served> Exchange<'_, T> {
    #[inline]
    fn begin(&self, values: T::Values<'_>) -> Step {
        let transport = self.transport;
        let mut hits = Hits::default();
        transport.find(&values, &mut hits);
        let config = transport.cookies().map(Cookies::config);
        // In headers, even a request without state goes on: the response must know that headers carry it.
        if config.is_some_and(|config| !config.knows_script_cookies()) && hits.is_empty() && self.idle.is_none() {
            return Step::Ready(Decision::without_state(transport.scope(), self.context.consent, self.method, false));
        }
        let migrates = config.is_some_and(|config| config.js_sdk_cookie().is_some());
        let found = self.engine.read(transport, &values, &hits, migrates, |opened, brought| match opened {
            Opened::Identity { payload, old_key } => self.with_identity(payload, *old_key, brought),
            Opened::OptOut(record) => Some(self.with_opt_out(record, brought)),
        });
        let (credential, mut findings) = match found.outcome {
            ReadOutcome::Judged(step) => return step,
            ReadOutcome::None => (Credential::Nothing, Findings::NONE),
            ReadOutcome::Rejected(reason) => {
                let credential = match reason {
                    RejectReason::UnknownKey | RejectReason::UnreadableAnchor => Credential::Unreadable,
                    _ if found.brought.identity => Credential::Unusable,
                    _ => Credential::Nothing,
                };
                (credential, Findings::rejected(reason))
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
                findings = Findings::rejected(RejectReason::WrongScope);
            }
        }
        let has_state = found.brought.any() || found.anchor.is_state() || self.has_idle_state();
        let verdict = policy::without_identity(credential, has_state, self.context.consent);
        let may_end = has_state || found.anchor == FoundAnchor::Ended;
        self.without_token(verdict, may_end, &found.brought, findings)
    }

    /// The decision on a request that no scope serves.
    fn unserved(&self) -> Step {
        let verdict = policy::without_identity(Credential::Nothing, self.has_idle_state(), self.context.consent);
        let mut step = self.without_token(verdict, true, &Brought::NOTHING, Findings::NONE);
        if let Step::Ready(decision) = &mut step {
            decision.route = Route::new(None, T::CARRIER);
            // No cookie for scripts but those that are taken back.
            decision.scripts = Scripts::default();
        }
        step
    }

    fn has_idle_state(&self) -> bool {
        self.idle.is_some_and(|idle| idle.iter().any(|scope| scope.has_state))
    }

    /// Judges an identity that opened; `None` if it is not a valid [`Identity`](crate::Identity).
    fn with_identity(&self, payload: &Payload<'_>, old_key: bool, brought: &Brought) -> Option<Step> {
        let (subject, rejected) = compare_user(self.context, &payload.login);
        let findings = Findings { old_key, rejected };
        // The lineage is random, and the same in all requests of the login.
        let [a, b, c, d, ..] = *payload.login.lineage.as_bytes();
        let chance = u32::from_be_bytes([a, b, c, d]);
        let (evaluation, times, now) = self.evaluate(subject, &payload.times, chance);
        let identity = || payload.identity().map(Arc::new);
        let Evaluation::Proceed(verdict) = evaluation else {
            return Some(self.candidate(Source::OwnState(payload.login), brought, identity()?, times, now, findings));
        };
        let token = (verdict.sees == Visibility::Active).then(|| payload.advertising_token(self.transport.scope()));
        let change = if Self::has_outlived(payload.times.refresh_expires, now) {
            Change::ForgetIdentity
        } else if self.engine.reseal && old_key && token.is_some() {
            Change::Renew(Box::new(Renewal { login: payload.login, identity: identity()? }))
        } else {
            verdict.action.into()
        };
        Some(Step::Ready(self.decide(euid(verdict.sees, token), change, true, brought, findings)))
    }

    fn with_opt_out(&self, record: &OptOut, brought: &Brought) -> Step {
        let (subject, rejected) = compare_user(self.context, &record.login);
        let now = (self.now)();
        let verdict = policy::opted_out(record.until, brought.identity, subject, self.context.consent, now);
        let findings = Findings { rejected, ..Findings::NONE };
        if Self::has_outlived(record.until, now) {
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
                Step::Ready(self.decide(euid(verdict.sees, token), change, true, brought, Findings::NONE))
            }
        })
    }

    /// Applies [`policy::evaluate`] to an identity. Also returns its times with margin and jitter, and the time
    /// that they were compared with.
    fn evaluate(
        &self,
        subject: SubjectMatch,
        times: &IdentityTimes,
        chance: u32,
    ) -> (Evaluation, IdentityTimes, UnixMillis) {
        let now = (self.now)();
        let jitter = policy::jitter(times, chance, self.engine.refresh_jitter);
        let mut times = policy::with_margin(*times, self.engine.expiry_margin);
        times.refresh_from = if self.engine.refresh_ahead.is_zero() {
            times.refresh_from.saturating_add(jitter)
        } else {
            policy::refresh_ahead(&times, self.engine.refresh_ahead)
        };
        (policy::evaluate(&times, subject, self.context.consent, now), times, now)
    }

    fn candidate(
        &self,
        source: Source,
        brought: &Brought,
        identity: Arc<Identity>,
        times: IdentityTimes,
        now: UnixMillis,
        findings: Findings,
    ) -> Step {
        let may_write = is_navigation_or_fetch(self.method, self.headers);
        let script_cookie = self.script_cookie(may_write, Some(identity.advertising_token()));
        Step::Refresh(Box::new(RefreshCandidate {
            source,
            route: self.route(),
            has_leftovers: self.has_leftovers(brought) && may_write,
            brought: self.with_idle(brought),
            identity,
            times,
            arrived: now,
            expiry_margin: self.engine.expiry_margin,
            refresh_ahead: self.engine.refresh_ahead,
            may_write,
            may_wait: self.method.is_safe(),
            is_conditional: is_conditional(self.method, self.headers),
            script_cookie,
            findings,
        }))
    }

    fn without_token(&self, verdict: Verdict, may_end: bool, brought: &Brought, findings: Findings) -> Step {
        Step::Ready(self.decide(euid(verdict.sees, None), verdict.action.into(), may_end, brought, findings))
    }

    /// The decision without a refresh. The response to an image obeys only withdrawn consent; the next page does the rest.
    // Out of line it costs each request with cookies some 30 instructions more.
    #[inline(always)]
    fn decide(&self, euid: Euid, change: Change, may_end: bool, brought: &Brought, findings: Findings) -> Decision {
        let consent = self.context.consent;
        let exposes_token = self.exposes_token();
        let mut decision = Decision {
            route: self.route(),
            euid,
            change,
            has_leftovers: self.has_leftovers(brought),
            brought: self.with_idle(brought),
            consent,
            // An engine with one scope and cookies needs no note of the route.
            may_end: may_end || self.engine.extras.is_some() || !self.method.is_safe(),
            scripts: Scripts { sync: false, withheld: exposes_token && consent != Consent::Granted },
            findings,
        };
        if exposes_token || decision.has_leftovers || !matches!(decision.change, Change::Keep) {
            self.plan_writes(&mut decision, exposes_token);
        }
        decision
    }

    #[inline]
    fn with_idle(&self, brought: &Brought) -> Brought {
        let brought = brought.clone();
        match self.idle {
            Some(idle) => brought.with_idle(idle),
            None => brought,
        }
    }

    /// Whether the response removes what is left over: values of other logins, or a token that scripts of a page in
    /// another scope got.
    #[inline]
    fn has_leftovers(&self, brought: &Brought) -> bool {
        brought.ends_leftovers || self.idle.is_some_and(|idle| idle.iter().any(|scope| scope.has_script_cookie))
    }

    /// Leaves to the next page what this response must not write. Of a response that may write, decides whether it
    /// corrects the cookie for scripts.
    fn plan_writes(&self, decision: &mut Decision, exposes_token: bool) {
        if !is_navigation_or_fetch(self.method, self.headers) {
            decision.defer();
        } else if exposes_token {
            let token = decision.euid.advertising_token().map(AdvertisingToken::peek);
            decision.scripts.sync = self.script_cookie(true, token).differs(token.is_some());
        }
    }

    /// The cookie for scripts in the request, if the site uses one and the response may write it.
    fn script_cookie(&self, may_write: bool, token: Option<&str>) -> ScriptCookie {
        let exposing = self.transport.cookies().filter(|cookies| may_write && cookies.config().exposes_token());
        exposing.map(|cookies| cookies.scripts().find(self.headers, token)).unwrap_or_default()
    }

    /// Whether a page removes a value that ended at `end`, because an app does not.
    #[inline]
    fn has_outlived(end: UnixMillis, now: UnixMillis) -> bool {
        !T::EXPIRES && now.saturating_since(end) > LINGERS
    }

    #[inline]
    fn exposes_token(&self) -> bool {
        self.transport.cookies().is_some_and(|cookies| cookies.config().exposes_token())
    }

    #[inline]
    fn route(&self) -> Route {
        Route::new(Some(self.transport.scope()), T::CARRIER)
    }
}

/// How long after its end a value stays in an app. A node whose clock is ahead must not remove one that is valid.
const LINGERS: Duration = Duration::from_secs(86_400);

/// Compares the user that a login is bound to with the signed-in user.
fn compare_user(context: &RequestContext<'_>, login: &Login) -> (SubjectMatch, Option<RejectReason>) {
    match context.user {
        _ if !login.is_bound() => (SubjectMatch::Same, None),
        SignedIn::Unchecked => (SubjectMatch::Same, None),
        SignedIn::NoUser => (SubjectMatch::NoUser, Some(RejectReason::NoUser)),
        SignedIn::User(id) if login.is_bound_to(id) => (SubjectMatch::Same, None),
        SignedIn::User(_) => (SubjectMatch::Other, Some(RejectReason::OtherUser)),
    }
}
