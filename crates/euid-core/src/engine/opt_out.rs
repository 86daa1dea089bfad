//! How long an opt-out is remembered. After that, a handler may generate an identity again.

use std::time::Duration;

use crate::clock::UnixMillis;
use crate::sealed::payload::OptOut;

/// The time for which an opt-out is remembered.
pub(super) const OPT_OUT_REMEMBERED: Duration = Duration::from_secs(72 * 3600);

impl OptOut {
    /// When the opt-out was noted.
    pub(super) fn noted_at(&self) -> UnixMillis {
        self.until.saturating_sub(OPT_OUT_REMEMBERED)
    }
}

/// Returns the time at which an opt-out of `now` expires.
pub(super) fn opted_out_until(now: UnixMillis) -> UnixMillis {
    now.saturating_add(OPT_OUT_REMEMBERED)
}
