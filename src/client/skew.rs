//! Warns, once per client, of a clock that differs from the operator's.
//!
//! The operator's authenticated time in an answer only serves this warning: nothing is refused for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::telemetry;
use euid_core::clock::UnixMillis;

/// The check of one client.
#[derive(Default)]
pub(super) struct SkewCheck {
    has_warned: AtomicBool,
}

impl SkewCheck {
    /// Compares the operator's time in an answer with this machine's times of the request and the answer.
    pub(super) fn compare(&self, sent: UnixMillis, operator: UnixMillis, received: UnixMillis) {
        let (ahead, behind) = (sent.saturating_since(operator), operator.saturating_since(received));
        let (skew, direction) = if ahead > behind { (ahead, "ahead") } else { (behind, "behind") };
        if skew > TOLERATED && !self.has_warned.swap(true, Ordering::Relaxed) {
            telemetry::clock_skewed(skew.as_secs(), direction);
        }
    }
}

/// Below the two minutes from which the operator refuses requests.
const TOLERATED: Duration = Duration::from_secs(30);
