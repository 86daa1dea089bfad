//! The rules for every request:
//!
//! 1. What its handler may see: only the current login of the signed-in user, within its times and the consent.
//! 2. What its handler must see: a usable token, a known opt-out, missing consent.
//! 3. What its response may write: without an update of its page no anchor, and no removal of a useful cookie.
//!
//! Set-ups that must fail break rule 1, so only rule 1 is checked for them.

use proptest::prelude::*;
use tower_euid::Consent;
use tower_euid::clock::{Clock, UnixMillis};

use super::operator::{Login, Mode, Outcome};
use super::{Current, Exchange, IdentityOrigin, Model, OPT_OUT_REMEMBERED, Page, Setup};

impl Model {
    /// Checks the rules for an exchange.
    pub(super) fn check(&self, exchange: &Exchange) -> Result<(), TestCaseError> {
        if self.setup.must_hold() {
            self.must_see(exchange)?;
            self.may_write(exchange)?;
        }
        self.may_see(exchange)
    }

    /// Returns the current login, if it is the signed-in user's.
    pub(super) fn login(&self) -> Option<Login> {
        let Current::Login(login) = self.current else { return None };
        let is_signed_in = Some(self.operator().login(login).user) == self.signed_in;
        is_signed_in.then_some(login)
    }

    /// Checks rule 1.
    fn may_see(&self, exchange: &Exchange) -> Result<(), TestCaseError> {
        let (now, saw) = (self.clock.now(), exchange.saw.as_str());
        let (login, pair) = (self.login(), self.pair_in(saw).map(|pair| self.operator().pair(pair)));
        let may = match (saw, pair, &self.current) {
            ("absent", ..) => self.consent == Consent::Granted,
            ("withheld", ..) => self.consent != Consent::Granted,
            _ if self.consent == Consent::Withdrawn => false,
            ("opted_out", _, Current::OptedOut { until, .. }) => now < *until,
            ("opted_out", ..) => login.is_some_and(|login| {
                let found_at = self.operator().login(login).opt_out_found_at;
                found_at.is_some_and(|found_at| now < found_at.saturating_add(OPT_OUT_REMEMBERED))
            }),
            _ if self.consent == Consent::Withheld => false,
            ("unavailable", ..) => login.is_some(),
            (_, Some(pair), _) => {
                // If the record is lost, or the node can't open it, the next refresh finds the opt-out again.
                let opted_out = self.opted_out == Some(pair.login)
                    && exchange
                        .cookies
                        .record
                        .as_ref()
                        .is_some_and(|record| self.nodes[exchange.node].opens(record.key));
                login == Some(pair.login) && pair.times.is_usable(now) && !opted_out
            }
            _ => false,
        };
        let Self { current, signed_in, consent, .. } = self;
        prop_assert!(may, "{saw} is seen while {current:?} counts, {signed_in:?} is signed in, consent {consent:?}");
        Ok(())
    }

    /// Checks rule 2.
    fn must_see(&self, exchange: &Exchange) -> Result<(), TestCaseError> {
        let (now, saw) = (self.clock.now(), exchange.saw.as_str());
        if exchange.page == Page::TwoAnchors {
            let without_login = if self.consent == Consent::Granted { "absent" } else { "withheld" };
            prop_assert_eq!(saw, without_login, "two anchors name no login");
        }
        let identity = self.current_identity(exchange);
        let known_opt_out = match &self.current {
            Current::OptedOut { until, anchor } if exchange.cookies.anchor.as_ref() == Some(anchor) => Some(*until),
            _ => self.recorded_opt_out(exchange),
        };
        if known_opt_out.is_some_and(|until| now < until) && exchange.page != Page::TwoAnchors {
            let expected = if self.consent == Consent::Withdrawn { "withheld" } else { "opted_out" };
            prop_assert_eq!(saw, expected, "the opt-out is known");
        }
        let Some(IdentityOrigin { pair, .. }) = identity.filter(|_| known_opt_out.is_none()) else { return Ok(()) };
        let times = self.operator().pair(*pair).times;
        let answer = self.operator().last_answer(self.nodes[exchange.node].process, *pair);
        let renewed = answer.is_some_and(|answer| answer.at == now && matches!(answer.outcome, Outcome::NewPair(_)));
        let ended = answer.is_some_and(|answer| matches!(answer.outcome, Outcome::OptedOut | Outcome::Ended));
        match self.consent {
            Consent::Withheld | Consent::Withdrawn => prop_assert_eq!(saw, "withheld"),
            // A slow answer arrives after the page, so the page can't show its pair.
            Consent::Granted if times.is_usable(now) && !ended || renewed && self.operator().mode != Mode::Slow => {
                prop_assert!(
                    self.pair_in(saw).is_some(),
                    "{saw} is seen for pair {pair} while {:?} counts",
                    self.current
                );
            }
            Consent::Granted => {}
        }
        Ok(())
    }

    /// Returns the request's identity, if the node can open it and it belongs to the signed-in user's current login.
    fn current_identity<'a>(&self, exchange: &'a Exchange) -> Option<&'a IdentityOrigin> {
        let Exchange { page, node, cookies, .. } = exchange;
        let identity = cookies.identity.as_ref().filter(|_| *page != Page::TwoAnchors)?;
        let counts = self.login() == Some(identity.login) && cookies.anchored_login == Some(identity.login);
        (counts && self.nodes[*node].opens(identity.key)).then_some(identity)
    }

    /// Returns the end of the recorded opt-out, if the node can open the record and it belongs to the signed-in user's
    /// current login.
    fn recorded_opt_out(&self, exchange: &Exchange) -> Option<UnixMillis> {
        let Exchange { node, cookies, .. } = exchange;
        let record = cookies.record.as_ref()?;
        let counts = self.login() == Some(record.login) && cookies.anchored_login == Some(record.login);
        (counts && self.nodes[*node].opens(record.key)).then_some(record.until)
    }

    /// Checks rule 3.
    fn may_write(&self, exchange: &Exchange) -> Result<(), TestCaseError> {
        let Exchange { page, node, cookies, effect, saw, writes, .. } = exchange;
        if effect.current.is_some() {
            return Ok(());
        }
        prop_assert!(!writes.contains("anchor"), "{writes} by a page without an update");
        let Some(identity) = cookies.identity.as_ref().filter(|_| *page != Page::TwoAnchors) else { return Ok(()) };
        let notes_opt_out = cookies.anchor.as_deref().is_some_and(|anchor| anchor.starts_with("out."));
        if !self.nodes[*node].opens(identity.key) && !notes_opt_out && cookies.record.is_none() {
            prop_assert_eq!(writes, "", "another node may be able to open the identity");
        }
        if self.setup == Setup::Bound && self.signed_in.is_none() && cookies.anchored_login == Some(identity.login) {
            prop_assert_eq!(writes, "", "without a signed-in user the identity is kept");
        }
        if self.current_identity(exchange).is_none() || self.recorded_opt_out(exchange).is_some() {
            return Ok(());
        }
        let now = self.clock.now();
        let times = self.operator().pair(identity.pair).times;
        let answer = self.operator().last_answer(self.nodes[*node].process, identity.pair).map(|answer| answer.outcome);
        let ended = matches!(answer, Some(Outcome::OptedOut | Outcome::Ended))
            || matches!(answer, Some(Outcome::Refused)) && !times.is_usable(now)
            || !times.is_refreshable(now);
        prop_assert!(
            ended || matches!(writes.as_str(), "" | "identity set"),
            "{saw}: {writes}, after the answer {answer:?}"
        );
        Ok(())
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
        if self.consent == Consent::Withdrawn {
            self.tally.note("requests with consent withdrawn");
        }
        let unopened = cookies.identity.as_ref().is_some_and(|identity| !self.nodes[*node].opens(identity.key));
        if unopened {
            self.tally.note("requests whose identity the node can't open");
        }
        match page {
            Page::Logout if unopened => self.tally.note("requests for logout on a node that can't open the identity"),
            Page::TwoAnchors => self.tally.note("requests with two anchors"),
            Page::GenerateAgain if effect.current.is_some() => self.tally.note("requests that generate again"),
            _ => {}
        }
        if self.pair_lost && self.signed_in.is_some() && saw == "absent" {
            self.tally.note("seen: absent, for a pair lost to a late response");
        }
    }
}
