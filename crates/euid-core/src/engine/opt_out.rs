//! How long an opt-out is remembered. After that, a handler may generate an identity again.

use std::time::Duration;

use crate::clock::UnixMillis;

/// The time for which an opt-out is remembered.
pub(super) const OPT_OUT_REMEMBERED: Duration = Duration::from_secs(72 * 3600);

/// Returns the time at which an opt-out of `now` expires.
pub(super) fn opted_out_until(now: UnixMillis) -> UnixMillis {
    now.saturating_add(OPT_OUT_REMEMBERED)
}
