//! An operator whose new pairs have times relative to the call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tower_euid::clock::{Clock, ManualClock};
use tower_euid::{Refreshed, refresh_fn};

use super::{DUE, START, Site, identity_until};

/// An operator that answers each call with a new pair: `pair-1`, `pair-2` and so on.
#[derive(Clone, Debug)]
pub(crate) struct Issuer {
    clock: ManualClock,
    calls: Arc<AtomicUsize>,
    times: [i64; 3],
}

impl Issuer {
    /// Returns an operator whose new pairs have their three times so many milliseconds after the call.
    pub(crate) fn new(times: [i64; 3]) -> Self {
        Self { clock: ManualClock::at(START), calls: Arc::default(), times }
    }

    /// Returns a site on the issuer's clock, with a visitor whose refresh is due.
    pub(crate) async fn due_site(&self) -> Site {
        let (clock, calls, times) = (self.clock.clone(), Arc::clone(&self.calls), self.times);
        let operator = refresh_fn(move |_| {
            let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
            let now = clock.now().as_millis() - START.as_millis();
            let pair = identity_until(&format!("pair-{call}"), times.map(|millis| now + millis));
            async move { Ok(Refreshed::Identity(pair)) }
        });
        let site = Site { clock: self.clock.clone(), ..Site::new(operator) };
        site.configured(|layer| layer.clock(self.clock.clone())).logged_in(DUE).await
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}
