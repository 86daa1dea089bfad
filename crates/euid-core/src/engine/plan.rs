//! Turns a verdict into a decision or a candidate: what the handler sees, and what the response writes.

use std::sync::Arc;

use super::decision::{Decision, euid};
use super::exchange::Exchange;
use super::navigation::{is_conditional, is_navigation_or_fetch};
use super::routes::Served;
use super::scripts::Scripts;
use super::source::Source;
use super::{Change, Findings, RefreshCandidate, Step};
use crate::clock::UnixMillis;
use crate::consent::Consent;
use crate::identity::{Identity, IdentityTimes};
use crate::policy::Verdict;
use crate::token::AdvertisingToken;
use crate::transport::js_sdk::ScriptCookie;
use crate::transport::route::Route;
use crate::transport::slots::Brought;

impl<T: Served> Exchange<'_, T> {
    pub(super) fn candidate(
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
        let has_leftovers = self.has_leftovers(brought) && may_write;
        let mut brought = brought.clone();
        self.note_others(&mut brought);
        Step::Refresh(Box::new(RefreshCandidate {
            source,
            route: self.route(),
            has_leftovers,
            brought,
            identity,
            times,
            arrived: now,
            expiry_margin: self.engine.expiry_margin.into(),
            refresh_ahead: self.engine.refresh_ahead.into(),
            may_write,
            may_wait: self.method.is_safe(),
            is_conditional: is_conditional(self.method, self.headers),
            script_cookie,
            findings,
            stored: None,
        }))
    }

    pub(super) fn without_token(&self, verdict: Verdict, may_end: bool, brought: &Brought, findings: Findings) -> Step {
        Step::Ready(self.decide(verdict, None, verdict.action.into(), may_end, brought, findings))
    }

    /// The decision without a refresh, with the token of `verdict` if that shows one, and a change that may differ from that
    /// of the verdict. The response to an image obeys only withdrawn consent; the next page does the rest.
    // Out of line it costs each request with cookies some 30 instructions more.
    #[inline(always)]
    pub(super) fn decide(
        &self,
        verdict: Verdict,
        token: Option<AdvertisingToken>,
        change: Change,
        may_end: bool,
        brought: &Brought,
        findings: Findings,
    ) -> Decision {
        let consent = self.context.consent;
        let exposes_token = self.exposes_token();
        let mut decision = Decision {
            route: self.route(),
            euid: euid(verdict.sees, token),
            change,
            has_leftovers: self.has_leftovers(brought),
            brought: brought.clone(),
            consent,
            // An engine with one scope and cookies needs no note of the route.
            may_end: may_end || self.engine.extras.is_some() || !self.method.is_safe(),
            scripts: Scripts::new(false, exposes_token && consent != Consent::Granted),
            findings,
            reason: verdict.why,
        };
        self.note_others(&mut decision.brought);
        if exposes_token || decision.has_leftovers || !matches!(decision.change, Change::Keep) {
            self.plan_writes(&mut decision, exposes_token);
        }
        decision
    }

    #[inline]
    fn note_others(&self, brought: &mut Brought) {
        if !self.idle.is_empty() || self.held.is_some() {
            brought.note_others(self.idle, self.held);
        }
    }

    /// Whether the response removes what is left over: values of other logins, or a token that scripts of a page in
    /// another scope got.
    #[inline]
    fn has_leftovers(&self, brought: &Brought) -> bool {
        brought.ends_leftovers || self.idle.iter().any(|scope| scope.has_script_cookie)
    }

    /// Leaves to the next page what this response must not write. Of a response that may write, decides whether it
    /// corrects the cookie for scripts.
    fn plan_writes(&self, decision: &mut Decision, exposes_token: bool) {
        if !is_navigation_or_fetch(self.method, self.headers) {
            decision.defer();
        } else if exposes_token {
            let token = decision.euid.advertising_token().map(AdvertisingToken::peek);
            let differs = self.script_cookie(true, token).differs(token.is_some());
            decision.scripts = decision.scripts.with_sync(differs);
        }
    }

    /// The cookie for scripts in the request, if the site uses one and the response may write it.
    fn script_cookie(&self, may_write: bool, token: Option<&str>) -> ScriptCookie {
        let exposing = self.transport.cookies().filter(|cookies| may_write && cookies.config().exposes_token());
        exposing.map(|cookies| cookies.scripts().find(self.headers, token)).unwrap_or_default()
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
