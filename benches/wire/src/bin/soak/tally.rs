//! The count of events, and the first violation of a rule.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::site::MAX_WAIT;

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) pages: Counter,
    pub(crate) hung_up: Counter,
    pub(crate) active: Counter,
    pub(crate) unavailable: Counter,
    pub(crate) absent: Counter,
    pub(crate) opted_out: Counter,
    /// Pages that set a cookie, which is mostly a refreshed one.
    pub(crate) renewed: Counter,
    pub(crate) logins: Counter,
    pub(crate) failed_logins: Counter,
    pub(crate) refused_logins: Counter,
    pub(crate) logouts: Counter,
    pub(crate) raced: Counter,
    /// Responses that reached the visitor only in a later step.
    pub(crate) late: Counter,
    pub(crate) opt_outs: Counter,
    pub(crate) faults: Counter,
    /// The next three happen only with a store.
    pub(crate) store_faults: Counter,
    pub(crate) sealed_logins: Counter,
    pub(crate) moved: Counter,
    has_store: bool,
    /// Logins that counted while a page was `absent` without a reason.
    pub(crate) lost: Counter,
    /// Pages that took far longer than a page may wait. A few of them are due to the machine.
    pub(crate) slow: Counter,
    slowest: Mutex<Duration>,
    broken: OnceLock<String>,
}

#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn one_more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    pub(crate) fn new(has_store: bool) -> Self {
        Self { has_store, ..Self::default() }
    }

    /// Counts a page.
    pub(crate) fn page(&self, state: &str, renewed: bool, took: Duration) {
        self.pages.one_more();
        match state {
            "active" => self.active.one_more(),
            "unavailable" => self.unavailable.one_more(),
            "opted_out" => self.opted_out.one_more(),
            _ => self.absent.one_more(),
        }
        if renewed {
            self.renewed.one_more();
        }
        if took > MAX_WAIT + SLACK {
            self.slow.one_more();
        }
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = took.max(*slowest);
    }

    /// Records a violation of a rule. Only the first one counts.
    pub(crate) fn breaks(&self, what: String) {
        let _ = self.broken.set(what);
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get().is_some()
    }

    pub(crate) fn report(&self, refresh_calls: u64) -> String {
        let mut lines: Vec<String> =
            self.counters().map(|(name, counter)| format!("{:>9} {name}", counter.count())).collect();
        lines.push(format!("{:>9} lost token pairs", self.lost.count()));
        lines.push(format!("{refresh_calls:>9} calls for a refresh"));
        lines.push(format!(
            "{:>9} pages later than {:?}; the latest after {:?}",
            self.slow.count(),
            MAX_WAIT + SLACK,
            self.slowest.lock().unwrap()
        ));
        lines.join("\n")
    }

    /// Returns the violation of a rule, or else the events that never happened.
    pub(crate) fn complaints(&self) -> Vec<String> {
        if let Some(broken) = self.broken.get() {
            return vec![broken.clone()];
        }
        let never = self.counters().filter(|(_, counter)| counter.count() == 0);
        never.map(|(name, _)| format!("never happened: {}", name.trim())).collect()
    }

    fn counters(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        let with_store = [
            ("faults of the store", &self.store_faults),
            ("logins that the store did not take", &self.sealed_logins),
            ("identities that moved into the store", &self.moved),
        ];
        let always = [
            ("pages", &self.pages),
            ("    active", &self.active),
            ("    unavailable", &self.unavailable),
            ("    absent", &self.absent),
            ("    opted out", &self.opted_out),
            ("    brought a cookie", &self.renewed),
            ("pages that a visitor did not wait for", &self.hung_up),
            ("logins with an identity", &self.logins),
            ("logins while the operator fails", &self.failed_logins),
            ("logins of people who have opted out", &self.refused_logins),
            ("logouts", &self.logouts),
            ("logins and logouts with pages under way", &self.raced),
            ("responses that arrived late", &self.late),
            ("opt-outs", &self.opt_outs),
            ("faults of the operator", &self.faults),
        ];
        always.into_iter().chain(with_store.into_iter().filter(|_| self.has_store))
    }
}

/// The tolerance for a busy machine.
const SLACK: Duration = Duration::from_secs(1);
