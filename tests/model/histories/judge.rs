//! What must hold of every request: what its handler may see, what it must see, what its answer may
//! write. And what is counted of it.

use proptest::prelude::*;
use tower_euid::Consent;
use tower_euid::clock::{Clock, UnixMillis};

use super::operator::{Login, Mode, What};
use super::{Current, Exchange, Minted, Model, OPT_OUT_REMEMBERED, Page, Setup};

impl Model {
    /// Holds an exchange against what must hold; against less where the setup can't keep it all.
    pub(super) fn judge(&self, exchange: &Exchange) -> Result<(), TestCaseError> {
        if self.setup.must_hold() {
            self.must_see(exchange)?;
            self.may_write(exchange)?;
        }
        self.may_see(exchange)
    }

    /// Whose login counts, if one does for who is signed in.
    pub(super) fn login(&self) -> Option<Login> {
        let Current::Login(login) = self.current else { return None };
        let theirs = Some(self.operator().login(login).user) == self.signed_in;
        theirs.then_some(login)
    }

    /// Nothing is seen but what counts.
    fn may_see(&self, exchange: &Exchange) -> Result<(), TestCaseError> {
        let (now, saw) = (self.clock.now(), exchange.saw.as_str());
        let (login, pair) = (self.login(), self.pair_in(saw).map(|pair| self.operator().pair(pair)));
        let may = match (saw, pair, &self.current) {
            ("absent", ..) => self.consent == Consent::Granted,
            ("withheld", ..) => self.consent != Consent::Granted,
            _ if self.consent == Consent::Withdrawn => false,
            ("opted_out", _, Current::OptedOut { until, .. }) => now < *until,
            ("opted_out", ..) => login.is_some_and(|login| {
                let found = self.operator().login(login).found_opted_out;
                found.is_some_and(|found| now < found.saturating_add(OPT_OUT_REMEMBERED))
            }),
            _ if self.consent == Consent::Withheld => false,
            ("unavailable", ..) => login.is_some(),
            (_, Some(pair), _) => {
                // Of a record that was lost, or that the node can't open, nobody knows; another refresh finds out.
                let opted_out = self.opted_out == Some(pair.login)
                    && exchange
                        .brought
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

    /// What is there is seen: a token that is good, an opt-out that is known.
    fn must_see(&self, exchange: &Exchange) -> Result<(), TestCaseError> {
        let (now, saw) = (self.clock.now(), exchange.saw.as_str());
        if exchange.page == Page::TwoAnchors {
            let nothing = if self.consent == Consent::Granted { "absent" } else { "withheld" };
            prop_assert_eq!(saw, nothing, "two anchors name nothing");
        }
        let sound = self.sound(exchange);
        let known_opt_out = match &self.current {
            Current::OptedOut { until, anchor } if exchange.brought.anchor.as_ref() == Some(anchor) => Some(*until),
            _ => self.recorded_opt_out(exchange),
        };
        if known_opt_out.is_some_and(|until| now < until) && exchange.page != Page::TwoAnchors {
            let known = if self.consent == Consent::Withdrawn { "withheld" } else { "opted_out" };
            prop_assert_eq!(saw, known, "the opt-out is known");
        }
        let Some(Minted { pair, .. }) = sound.filter(|_| known_opt_out.is_none()) else { return Ok(()) };
        let times = self.operator().pair(*pair).times;
        let said = self.operator().said(self.nodes[exchange.node].process, *pair);
        let renewed = said.is_some_and(|said| said.at == now && matches!(said.what, What::Pair(_)));
        let ended = said.is_some_and(|said| matches!(said.what, What::OptedOut | What::Ended));
        match self.consent {
            Consent::Withheld | Consent::Withdrawn => prop_assert_eq!(saw, "withheld"),
            // A slow answer that comes after the page is no answer for it.
            Consent::Granted if times.is_usable(now) && !ended || renewed && self.operator().mode != Mode::Slow => {
                prop_assert!(self.pair_in(saw).is_some(), "{saw} is seen of {pair} while {:?} counts", self.current);
            }
            Consent::Granted => {}
        }
        Ok(())
    }

    /// The identity that came, if it opens and is that of the current login and of who is signed in.
    fn sound<'a>(&self, exchange: &'a Exchange) -> Option<&'a Minted> {
        let Exchange { page, node, brought, .. } = exchange;
        let identity = brought.identity.as_ref().filter(|_| *page != Page::TwoAnchors)?;
        let counts = self.login() == Some(identity.login) && brought.names == Some(identity.login);
        (counts && self.nodes[*node].opens(identity.key)).then_some(identity)
    }

    /// Until when the record that came says so, if it opens and is of the current login and of who is
    /// signed in.
    fn recorded_opt_out(&self, exchange: &Exchange) -> Option<UnixMillis> {
        let Exchange { node, brought, .. } = exchange;
        let record = brought.record.as_ref()?;
        let counts = self.login() == Some(record.login) && brought.names == Some(record.login);
        (counts && self.nodes[*node].opens(record.key)).then_some(record.until)
    }

    /// A page that says nothing writes no anchor, and removes nothing that may be of use.
    fn may_write(&self, exchange: &Exchange) -> Result<(), TestCaseError> {
        let Exchange { page, node, brought, told, saw, writes, .. } = exchange;
        if told.current.is_some() {
            return Ok(());
        }
        prop_assert!(!writes.contains("anchor"), "{writes} by a page that says nothing");
        let Some(identity) = brought.identity.as_ref().filter(|_| *page != Page::TwoAnchors) else { return Ok(()) };
        let remembers_opt_out = brought.anchor.as_deref().is_some_and(|anchor| anchor.starts_with("out."));
        if !self.nodes[*node].opens(identity.key) && !remembers_opt_out && brought.record.is_none() {
            prop_assert_eq!(writes, "", "what does not open is another's to judge");
        }
        if self.setup == Setup::Bound && self.signed_in.is_none() && brought.names == Some(identity.login) {
            prop_assert_eq!(writes, "", "nobody is signed in, so nothing is known of whose it is");
        }
        if self.sound(exchange).is_none() || self.recorded_opt_out(exchange).is_some() {
            return Ok(());
        }
        let now = self.clock.now();
        let times = self.operator().pair(identity.pair).times;
        let said = self.operator().said(self.nodes[*node].process, identity.pair).map(|said| said.what);
        let ended = matches!(said, Some(What::OptedOut | What::Ended))
            || matches!(said, Some(What::Refused)) && !times.is_usable(now)
            || !times.is_refreshable(now);
        prop_assert!(ended || matches!(writes.as_str(), "" | "identity set"), "{saw}: {writes}, though {said:?}");
        Ok(())
    }

    pub(super) fn count(&mut self, exchange: &Exchange) {
        let Exchange { page, node, brought, told, saw, .. } = exchange;
        let sees = match saw.as_str() {
            "absent" => "seen: absent",
            "opted_out" => "seen: opted out",
            "unavailable" => "seen: unavailable",
            "withheld" => "seen: withheld",
            _ => "seen: active",
        };
        self.tally.note("requests");
        self.tally.note(sees);
        if self.consent == Consent::Withdrawn {
            self.tally.note("requests with consent withdrawn");
        }
        let unopened = brought.identity.as_ref().is_some_and(|identity| !self.nodes[*node].opens(identity.key));
        if unopened {
            self.tally.note("requests whose identity the node can't open");
        }
        match page {
            Page::Logout if unopened => self.tally.note("requests for logout on a node that can't open the identity"),
            Page::TwoAnchors => self.tally.note("requests with two anchors"),
            Page::GenerateAgain if told.current.is_some() => self.tally.note("requests that generate again"),
            _ => {}
        }
        if self.lost && self.signed_in.is_some() && saw == "absent" {
            self.tally.note("seen: absent, for a pair lost to a late answer");
        }
    }
}
