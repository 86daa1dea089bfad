//! Counts of the events in all histories. They show which situations the histories have reached.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub(super) fn note(&mut self, event: &'static str) {
        *self.0.entry(event).or_default() += 1;
    }

    pub(crate) fn of(&self, event: &str) -> u64 {
        self.0.get(event).copied().unwrap_or(0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(event, count)| writeln!(f, "{count:>9}  {event}"))
    }
}
