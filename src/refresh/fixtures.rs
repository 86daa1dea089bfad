//! Times, keys and outcomes for the tests of this module.

use std::sync::Arc;

use euid_core::Refreshed;
use euid_core::clock::UnixMillis;

use super::flight::Outcome;
use super::memo::{MemoLimit, RefreshKey};

/// A limit that tests reach.
pub(super) const LIMIT: MemoLimit = MemoLimit { entries: 4, bytes: 1 << 20 };

pub(super) fn at(seconds: i64) -> UnixMillis {
    UnixMillis::from_millis(seconds * 1000)
}

/// Returns the key of a refresh token without a known login.
pub(super) fn key(token: u8) -> RefreshKey {
    RefreshKey { token: [token; 16], lineage: None }
}

pub(super) fn opted_out() -> Outcome {
    Arc::new(Ok(Refreshed::OptedOut))
}
