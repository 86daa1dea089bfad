//! Before the handler: turns a request's state into facts for the policy, and the policy's verdict into a decision.

use std::sync::Arc;

use http::header::{COOKIE, GetAll};
use http::{HeaderMap, HeaderValue, Method};

use super::decision::{Decision, Scripts, euid};
use super::navigation::{is_conditional, is_navigation_or_fetch};
use super::read::{FoundAnchor, Opened, ReadOutcome};
use super::source::Source;
use super::{Change, Engine, Findings, RefreshCandidate, RejectReason, Renewal, RequestContext, SignedIn, UserCheck};
use crate::clock::UnixMillis;
use crate::euid::Euid;
use crate::identity::{Identity, IdentityTimes};
use crate::policy::{self, Credential, Evaluation, SubjectMatch, Verdict, Visibility};
use crate::sealed::login::Login;
use crate::sealed::payload::{OptOut, Payload};
use crate::token::AdvertisingToken;
use crate::transport::cookie::Hits;
use crate::transport::js_sdk::{JsSdk, ScriptCookie};
use crate::transport::slots::{Brought, Cookies, Idle};

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

/// A request that brought cookies.
struct Exchange<'a> {
    engine: &'a Engine,
    /// Those of the scope that serves the request.
    cookies: &'a Cookies,
    /// The scopes that do not serve it, if the engine serves both.
    idle: Option<&'a Idle>,
    method: &'a Method,
    headers: &'a HeaderMap,
    context: &'a RequestContext<'a>,
    now: &'a dyn Fn() -> UnixMillis,
}

impl Engine {
    pub(super) fn begin_with_cookies(
        &self,
        method: &Method,
        headers: &HeaderMap,
        cookies: GetAll<'_, HeaderValue>,
        context: &RequestContext<'_>,
        now: &dyn Fn() -> UnixMillis,
    ) -> Step {
        if self.other_cookies.is_some() {
            return self.begin_in_scope(method, headers, cookies, context, now);
        }
        Exchange { engine: self, cookies: &self.cookies, idle: None, method, headers, context, now }.begin(cookies)
    }

    /// Begins a request of an engine with both scopes.
    #[cold]
    fn begin_in_scope(
        &self,
        method: &Method,
        headers: &HeaderMap,
        cookies: GetAll<'_, HeaderValue>,
        context: &RequestContext<'_>,
        now: &dyn Fn() -> UnixMillis,
    ) -> Step {
        let scope = context.scope;
        let idle = self.find_idle(headers, scope);
        let idle = Some(&idle);
        if let Some(serving) = scope.and_then(|scope| self.cookies_of(scope)) {
            return Exchange { engine: self, cookies: serving, idle, method, headers, context, now }.begin(cookies);
        }
        let exchange = Exchange { engine: self, cookies: &self.cookies, idle, method, headers, context, now };
        let verdict = policy::without_identity(Credential::Nothing, exchange.has_idle_state(), context.consent);
        let mut step = exchange.without_token(verdict, true, &Brought::NOTHING, Findings::NONE);
        if let Step::Ready(decision) = &mut step {
            decision.scope = None;
            // No cookie for scripts but those that are taken back.
            decision.scripts = Scripts::default();
        }
        step
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
        // The other host may migrate, even if this one does not.
        let serving = match self.scope() {
            None => context.scope.and_then(|scope| self.cookies_of(scope)),
            Some(_) => Some(&self.cookies),
        };
        let Some(cookies) = serving else { return UserCheck::NoState };
        let values = headers.get_all(COOKIE);
        let mut hits = Hits::default();
        cookies.find(values.iter(), &mut hits);
        let found = self.read(cookies, &values, &hits, true, |opened, _| {
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

impl Exchange<'_> {
    #[inline]
    fn begin(&self, values: GetAll<'_, HeaderValue>) -> Step {
        let cookies = self.cookies;
        let mut hits = Hits::default();
        cookies.find(values.iter(), &mut hits);
        if !cookies.config().knows_script_cookies() && hits.is_empty() && self.idle.is_none() {
            let scope = Some(cookies.scope());
            return Step::Ready(Decision::without_state(scope, self.context.consent, self.method, false));
        }
        let migrates = cookies.config().js_sdk_cookie().is_some();
        let found = self.engine.read(cookies, &values, &hits, migrates, |opened, brought| match opened {
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
        if let Some(sdk) = may_migrate.then(|| cookies.scripts().read_js_sdk(self.headers)).flatten() {
            if sdk.can_be_of(cookies.scope()) {
                if let Some(step) = self.with_js_sdk_cookie(sdk, &found.brought) {
                    return step;
                }
            } else {
                findings = Findings::rejected(RejectReason::WrongScope);
            }
        }
        let has_state = found.brought.any() || found.anchor.is_state() || self.has_idle_state();
        let verdict = policy::without_identity(credential, has_state, self.context.consent);
        let may_end = has_state || found.anchor == FoundAnchor::Ended || self.idle.is_some();
        self.without_token(verdict, may_end, &found.brought, findings)
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
        let token = (verdict.sees == Visibility::Active).then(|| payload.advertising_token(self.cookies.scope()));
        let change = if self.engine.reseal && old_key && token.is_some() {
            Change::Renew(Box::new(Renewal { login: payload.login, identity: identity()? }))
        } else {
            verdict.action.into()
        };
        Some(Step::Ready(self.decide(euid(verdict.sees, token), change, true, brought, findings)))
    }

    fn with_opt_out(&self, record: &OptOut, brought: &Brought) -> Step {
        let (subject, rejected) = compare_user(self.context, &record.login);
        let verdict = policy::opted_out(record.until, brought.identity, subject, self.context.consent, (self.now)());
        self.without_token(verdict, true, brought, Findings { rejected, ..Findings::NONE })
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
                let token =
                    (verdict.sees == Visibility::Active).then(|| AdvertisingToken::of(&identity, self.cookies.scope()));
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
        times.refresh_from = times.refresh_from.saturating_add(jitter);
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
        let cookie = self.script_cookie(may_write, Some(identity.advertising_token()));
        Step::Refresh(Box::new(RefreshCandidate {
            source,
            scope: self.cookies.scope(),
            has_leftovers: self.has_leftovers(brought) && may_write,
            brought: self.with_idle(brought),
            identity,
            times,
            arrived: now,
            expiry_margin: self.engine.expiry_margin,
            may_write,
            may_wait: self.method.is_safe(),
            is_conditional: is_conditional(self.method, self.headers),
            cookie,
            findings,
        }))
    }

    fn without_token(&self, verdict: Verdict, may_end: bool, brought: &Brought, findings: Findings) -> Step {
        Step::Ready(self.decide(euid(verdict.sees, None), verdict.action.into(), may_end, brought, findings))
    }

    /// The decision without a refresh. Beside an image, only withdrawn consent is obeyed; the next page does the rest.
    // Out of line it costs each request with cookies some 30 instructions more.
    #[inline(always)]
    fn decide(&self, euid: Euid, change: Change, may_end: bool, brought: &Brought, findings: Findings) -> Decision {
        let consent = self.context.consent;
        let exposes_token = self.cookies.config().exposes_token();
        let mut decision = Decision {
            scope: Some(self.cookies.scope()),
            euid,
            change,
            has_leftovers: self.has_leftovers(brought),
            brought: self.with_idle(brought),
            consent,
            may_end: may_end || !self.method.is_safe(),
            scripts: Scripts { sync: false, withheld: self.engine.withholds(consent) },
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

    /// Whether the response removes cookies that are left over: of other logins, or a token that scripts of a page in
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
        if may_write && self.cookies.config().exposes_token() {
            self.cookies.scripts().find(self.headers, token)
        } else {
            ScriptCookie::default()
        }
    }
}

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
