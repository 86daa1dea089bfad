//! The rules for every request:
//!
//! 1. What its handler may see: only the current login of the signed-in user, within its times and the consent.
//! 2. What its handler must see: the pair and the opt-out that the browser must have, and missing consent. No late
//!    response of another login costs the visitor their pair, and none forgets an opt-out.
//! 3. What its response may write: without an update of its page only cookies of the login that its anchor names,
//!    neither an anchor nor the removal of a useful cookie. It removes all cookies of other logins that the request
//!    brought, unless the node can't judge them. On a site that migrates, a login or logout also removes the SDK's
//!    cookie, and a logout leaves the anchor `none`.

use std::time::Duration;

use proptest::prelude::*;
use tower_euid::Consent;
use tower_euid::clock::Clock;

use super::browser::IdentityOrigin;
use super::operator::{Login, Mode, Outcome, Pair, Process};
use super::{Current, Exchange, Held, MIGRATED_LOGIN, Model, OPT_OUT_REMEMBERED, Page, Setup};
use crate::support::{IDENTITY, OPT_OUT};

impl Model {
    /// Checks the rules for an exchange.
    pub(super) fn check(&self, exchange: &Exchange) -> Result<(), TestCaseError> {
        if self.setup.must_see() {
            self.must_see(exchange)?;
        }
        if self.setup.must_hold() {
            self.may_write(exchange)?;
        }
        self.may_see(exchange)
    }

    /// Returns the current login, if it is the signed-in user's.
    pub(super) fn login(&self) -> Option<Login> {
        let Current::Login(login) = self.current() else { return None };
        let user = if self.counts_migrated() {
            // The SDK's cookie names no user. It counts for the signed-in one.
            let record = self.migrated.record.filter(|_| self.has_record()).map(|record| record.user);
            record.or(self.migrated.identity.map(|identity| identity.user)).or(self.signed_in)
        } else {
            Some(self.operator().login(login).user)
        };
        (user.is_some() && user == self.signed_in).then_some(login)
    }

    /// Returns the state that counts. On a site that migrates, the migrated identity counts without an anchor.
    pub(super) fn current(&self) -> Current {
        if self.counts_migrated() { Current::Login(MIGRATED_LOGIN) } else { self.current }
    }

    fn counts_migrated(&self) -> bool {
        self.setup.migrates() && !self.has_anchor()
    }

    /// Returns what the browser must have of the login that counts.
    pub(super) fn held(&self) -> &Held {
        if self.counts_migrated() { &self.migrated } else { &self.held }
    }

    /// Checks rule 1.
    fn may_see(&self, exchange: &Exchange) -> Result<(), TestCaseError> {
        let (now, saw) = (self.clock.now(), exchange.saw.as_str());
        let (login, pair) = (self.login(), self.pair_in(saw).map(|pair| self.operator().pair(pair)));
        let may = match (saw, pair) {
            ("absent", _) => self.consent == Consent::Granted,
            ("withheld", _) => self.consent != Consent::Granted,
            _ if self.consent == Consent::Withdrawn => false,
            ("opted_out", _) => login.is_some_and(|login| {
                let found_at = self.operator().login(login).opt_out_found_at;
                found_at.is_some_and(|found_at| now < found_at.saturating_add(OPT_OUT_REMEMBERED))
            }),
            _ if self.consent == Consent::Withheld || self.has_record() => false,
            ("unavailable", _) => login.is_some(),
            (_, Some(pair)) => login == Some(pair.login) && pair.times.is_usable(now),
            _ => false,
        };
        let Self { signed_in, consent, .. } = self;
        let (current, held) = (self.current(), self.held());
        prop_assert!(may, "{saw} is seen while {current:?} counts, {signed_in:?} is signed in, {consent:?}, {held:?}");
        Ok(())
    }

    /// Checks rule 2.
    fn must_see(&self, exchange: &Exchange) -> Result<(), TestCaseError> {
        let Exchange { page, node, saw, .. } = exchange;
        let (now, node) = (self.clock.now(), &self.nodes[*node]);
        let without_login = if self.consent == Consent::Granted { "absent" } else { "withheld" };
        if *page == Page::TwoAnchors {
            // Without an anchor in the browser, the request's only one is foreign.
            prop_assert_eq!(saw, without_login, "no anchor names the login");
        }
        let Some(login) = self.login().filter(|_| *page != Page::TwoAnchors && self.names_login()) else {
            return Ok(());
        };
        if let Some(record) = self.held().record.filter(|_| self.has_record()) {
            let expected = if self.consent == Consent::Withdrawn {
                "withheld"
            } else if node.opens(record.key) && now < record.until {
                "opted_out"
            } else {
                without_login
            };
            prop_assert_eq!(saw, expected, "forgotten opt-out of {:?}, {:?}", self.current(), record);
            return Ok(());
        }
        let held = self.held().identity.or_else(|| self.in_sdk_cookie(exchange));
        let Some(IdentityOrigin { pair, key, .. }) = held else { return Ok(()) };
        if self.consent != Consent::Granted || !node.opens(key) {
            prop_assert_eq!(saw, without_login, "nothing may be seen of pair {}", pair);
            return Ok(());
        }
        let times = self.operator().pair(pair).times;
        let answer = self.operator().last_answer(node.process, pair);
        let renewed = answer.is_some_and(|answer| answer.at == now && matches!(answer.outcome, Outcome::NewPair(_)));
        let ended = self.has_ended(node.process, login, pair);
        let is_active = self.pair_in(saw).is_some();
        // A slow answer arrives after the page, so the page can't show its pair.
        if times.is_usable(now) && !ended || renewed && self.operator().mode != Mode::Slow {
            prop_assert!(is_active, "lost pair {pair}: {saw} is seen, and {:?} counts", self.current());
        } else if times.is_refreshable(now) && self.operator().outcomes(node.process, login).all(Outcome::goes_on) {
            let is_there = is_active || saw == "unavailable";
            prop_assert!(is_there, "lost pair {pair}: {saw} is seen, and {:?} counts", self.current());
        }
        Ok(())
    }

    /// Returns whether a process knows from the operator that a pair can't be used any more. It remembers the opt-out
    /// of a login for all its pairs.
    fn has_ended(&self, process: Process, login: Login, pair: Pair) -> bool {
        let operator = self.operator();
        operator.last_answer(process, pair).is_some_and(|answer| answer.outcome == Outcome::Ended)
            || operator.outcomes(process, login).any(|outcome| outcome == Outcome::OptedOut)
    }

    /// Returns whether the browser must have the anchor of the current login.
    fn has_anchor(&self) -> bool {
        self.held.anchor_until.is_some_and(|until| self.clock.now() < until)
    }

    /// Returns whether the browser names the current login: with its anchor or, for the migrated identity, with none.
    fn names_login(&self) -> bool {
        self.has_anchor() || self.counts_migrated()
    }

    /// Returns whether the browser must have the record of the current login's opt-out.
    pub(super) fn has_record(&self) -> bool {
        self.names_login() && self.held().record_until.is_some_and(|until| self.clock.now() < until)
    }

    /// Checks rule 3.
    fn may_write(&self, exchange: &Exchange) -> Result<(), TestCaseError> {
        let Exchange { page, node, cookies, effect, saw, writes, written, .. } = exchange;
        prop_assert!(cookies.tagged().count() <= MOST_TAGGED, "more cookies than a response removes");
        if effect.current.is_some() {
            let kept = cookies.tagged().map(|(name, _)| name).find(|name| !writes.removes(Some(name)));
            prop_assert_eq!(kept, None, "{} keeps a cookie of an ended login", written);
            if self.setup.migrates() {
                let is_logout = effect.current == Some(Current::NoLogin);
                prop_assert_eq!(written.contains("anchor ended"), is_logout, "{}", written);
                prop_assert!(written.contains("sdk cleared"), "{written} keeps the SDK's cookie");
            }
            return Ok(());
        }
        prop_assert!(!written.contains("anchor"), "{written} by a page without an update");
        if *page == Page::TwoAnchors && cookies.anchor.is_some() {
            prop_assert_eq!(written, "", "two anchors name no login");
            return Ok(());
        }
        let opens = |key| self.nodes[*node].opens(key);
        let (identity, record) = (cookies.identity(), cookies.record());
        if record.map(|record| record.key).or(identity.map(|identity| identity.key)).is_some_and(|key| !opens(key)) {
            prop_assert_eq!(written, "", "another node may be able to open the state");
            return Ok(());
        }
        let own = [IDENTITY, OPT_OUT].map(|kind| cookies.own_name(kind));
        let is_own = |name: &&String| own.iter().any(|own| own.as_ref() == Some(*name));
        let foreign = writes.set.iter().find(|name| !is_own(name));
        prop_assert_eq!(foreign, None, "{} of another login", written);
        let mut removed: Vec<_> = writes.removed.iter().filter(|name| !is_own(name)).map(String::as_str).collect();
        let mut leftovers: Vec<_> = cookies.leftovers().collect();
        removed.sort_unstable();
        leftovers.sort_unstable();
        prop_assert_eq!(removed, leftovers, "the cookies of other logins, and no others, are removed");

        let now = self.clock.now();
        // An app does not delete what has ended. Its record stands in for the identity.
        let ends = identity.map(|identity| self.operator().pair(identity.pair).times.refresh_expires);
        let ends = record.map(|record| record.until).or(ends).filter(|_| self.setup == Setup::App);
        if ends.is_some_and(|ends| now.saturating_since(ends) > LINGERS) {
            let kept = cookies.tagged().map(|(name, _)| name).find(|name| !writes.removes(Some(name)));
            prop_assert_eq!(kept, None, "{} keeps what ended more than a day ago", written);
            prop_assert!(writes.set.is_empty(), "{written}");
            return Ok(());
        }
        let changes_own = !writes.set.is_empty() || writes.removed.iter().any(|name| is_own(&name));
        if self.setup.is_bound() && self.signed_in.is_none() {
            prop_assert!(!changes_own, "{written}: without a signed-in user the state is kept");
        }
        let in_sdk_cookie = self.in_sdk_cookie(exchange);
        let identity = identity.or(in_sdk_cookie.as_ref()).filter(|_| record.is_none());
        let Some(identity) = identity.filter(|it| self.login() == Some(it.login)) else {
            return Ok(());
        };
        let times = self.operator().pair(identity.pair).times;
        let answer = self.operator().last_answer(self.nodes[*node].process, identity.pair).map(|answer| answer.outcome);
        let ended = self.has_ended(self.nodes[*node].process, identity.login, identity.pair)
            || matches!(answer, Some(Outcome::Refused)) && !times.is_usable(now)
            || !times.is_refreshable(now);
        let removes_sdk = written.contains("sdk cleared") && writes.identity.is_none();
        let removes = writes.removed.iter().any(|name| is_own(&name)) || writes.record.is_some() || removes_sdk;
        prop_assert!(ended || !removes, "{saw}: {written}, after the answer {answer:?}");
        Ok(())
    }

    /// Returns the identity in the SDK's cookie of a request that brings neither an anchor nor migrated state.
    fn in_sdk_cookie(&self, Exchange { cookies, node, .. }: &Exchange) -> Option<IdentityOrigin> {
        let is_alone = cookies.sdk && cookies.login == Some(MIGRATED_LOGIN) && !cookies.tagged().any(|(_, own)| own);
        let user = self.signed_in.filter(|_| is_alone)?;
        let pair = self.operator().login(MIGRATED_LOGIN).first?;
        Some(IdentityOrigin { login: MIGRATED_LOGIN, user, pair, key: self.nodes[*node].seals_under() })
    }

    /// Counts what happened in an exchange.
    pub(super) fn count(&mut self, exchange: &Exchange) {
        let Exchange { page, node, cookies, effect, saw, .. } = exchange;
        let seen = match saw.as_str() {
            "absent" => "seen: absent",
            "opted_out" => "seen: opted out",
            "unavailable" => "seen: unavailable",
            "withheld" => "seen: withheld",
            _ => "seen: active",
        };
        self.tally.note("requests");
        self.tally.note(seen);
        if self.setup.migrates() && self.pair_in(saw).is_some() && self.current() == Current::Login(MIGRATED_LOGIN) {
            self.tally.note("seen: migrated identity");
        }
        if self.consent == Consent::Withdrawn {
            self.tally.note("requests with consent withdrawn");
        }
        let opens = |key| self.nodes[*node].opens(key);
        let no_identity = cookies.identity().is_some_and(|identity| !opens(identity.key));
        let no_record = cookies.record().is_some_and(|record| !opens(record.key));
        if no_identity {
            self.tally.note("requests whose identity the node can't open");
        }
        if no_record {
            self.tally.note("requests whose record the node can't open");
        }
        let migrated = cookies.identity().filter(|it| self.setup.migrates() && it.login == MIGRATED_LOGIN);
        if migrated.is_some_and(|it| self.signed_in.is_some_and(|user| user != it.user)) {
            self.tally.note("requests with a migrated identity of another user");
        }
        if cookies.leftovers().next().is_some() {
            self.tally.note("requests with cookies of other logins");
        }
        if cookies.leftovers().any(|name| exchange.writes.removes(Some(name))) {
            self.tally.note("requests whose response removes cookies of other logins");
        }
        match page {
            Page::Logout if no_identity => {
                self.tally.note("requests for logout on a node that can't open the identity");
            }
            Page::TwoAnchors if cookies.anchor.is_some() => self.tally.note("requests with two anchors"),
            Page::GenerateAgain if effect.current.is_some() => self.tally.note("requests that generate again"),
            _ => {}
        }
    }

    /// Counts a response that migrates the SDK's cookie.
    pub(super) fn count_migration(&mut self, exchange: &Exchange) {
        self.tally.note(match self.current() {
            _ if exchange.cookies.identity().is_some() => "applied: migrated identity refreshed or resealed",
            Current::Login(MIGRATED_LOGIN) => "applied: migration",
            Current::Login(_) => "applied late: migration after a login",
            Current::NoLogin => "applied late: migration after a logout",
        });
    }

    /// Counts a response of an older login, which must not change the current state.
    pub(super) fn count_late(&mut self, exchange: &Exchange) {
        let writes = &exchange.writes;
        for (happened, event) in [
            (writes.identity.is_some(), "applied late: pair of an older login"),
            (writes.record.is_some(), "applied late: opt-out found for an older login"),
            (!writes.removed.is_empty(), "applied late: removal for an older login"),
        ] {
            if happened {
                self.tally.note(event);
            }
        }
    }
}

/// How long an app keeps what has ended.
const LINGERS: Duration = Duration::from_secs(86_400);
/// The number of tagged cookies that a response removes at most.
const MOST_TAGGED: usize = 8;
