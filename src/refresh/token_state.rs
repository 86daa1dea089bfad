//! The state of one refresh token: its call is under way, was answered or has failed.
//!
//! 1. An answer is remembered for [`MEMO_FOR`], or a tenth of the time that the new pair has left, so that requests
//!    which still carry the old cookie get it without a call. A new pair that was not written into any response stays
//!    known until its own `refresh_from`, as the browser has no other, or until a request that brings it starts a call.
//! 2. A failure is remembered while its token backs off, and [`FAILURES_REMEMBERED`] longer, so that the next wait is
//!    longer.
//! 3. Only the kind of an error is kept, as its text and source can be of any size.
//!
//! Pure; `now` is an argument.

use std::sync::Arc;
use std::time::Duration;

use euid_core::Refreshed;
use euid_core::clock::UnixMillis;
use euid_core::error::{ErrorKind, EuidError};
use euid_core::identity::{Identity, IdentityTimes};
use tokio::time::Instant;

use super::backoff::Span;
use super::flight::{Flight, Outcome};

/// The state of a refresh token.
#[derive(Debug)]
pub(super) enum TokenState {
    UnderWay {
        flight: Arc<Flight>,
        /// On the runtime's clock.
        begun: Instant,
    },
    Answered {
        outcome: Outcome,
        memo: Span,
        /// Whether a response has written it.
        delivered: bool,
    },
    BackingOff {
        outcome: Outcome,
        wait: Span,
    },
}

impl TokenState {
    /// Returns the state after the answer of a call.
    pub(super) fn answered(outcome: &Outcome, now: UnixMillis) -> Self {
        let (length, outcome) = match &**outcome {
            Ok(Refreshed::Identity(identity)) => (answer_memo(&identity.times(), now), Arc::clone(outcome)),
            Ok(Refreshed::OptedOut) => (MEMO_FOR, Arc::clone(outcome)),
            Err(error) => (MEMO_FOR, without_text(error)),
        };
        Self::Answered { outcome, memo: Span::new(now, length), delivered: false }
    }

    /// Returns the state after the failure of a call.
    pub(super) fn backing_off(error: &EuidError, wait: Duration, now: UnixMillis) -> Self {
        Self::BackingOff { outcome: without_text(error), wait: Span::new(now, wait) }
    }

    /// Notes that a response has written `pair`. Has an effect only if that is the answer.
    pub(super) fn deliver(&mut self, pair: &Identity) {
        if let Self::Answered { outcome, delivered, .. } = self {
            *delivered |= matches!(&**outcome, Ok(Refreshed::Identity(last)) if last == pair);
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self, Self::UnderWay { .. })
    }

    /// Returns the outcome that a request gets without a call.
    pub(super) fn known(&self, now: UnixMillis) -> Option<&Outcome> {
        match self {
            Self::UnderWay { .. } => None,
            Self::Answered { outcome, memo, delivered } => {
                (memo.contains(now) || (!delivered && is_not_due(outcome, now))).then_some(outcome)
            }
            Self::BackingOff { outcome, wait } => wait.contains(now).then_some(outcome),
        }
    }

    /// Returns the outcome that a memory holds, expired or not; `None` for a call under way, which is no memory.
    pub(super) fn remembered(&self) -> Option<&Outcome> {
        match self {
            Self::UnderWay { .. } => None,
            Self::Answered { outcome, .. } | Self::BackingOff { outcome, .. } => Some(outcome),
        }
    }

    /// Returns whether a memory has expired.
    pub(super) fn has_expired(&self, now: UnixMillis) -> bool {
        match self {
            Self::UnderWay { .. } => false,
            Self::Answered { .. } => self.known(now).is_none(),
            Self::BackingOff { wait, .. } => !wait.extended(FAILURES_REMEMBERED).contains(now),
        }
    }
}

/// The shortest time that a new pair is remembered, for requests that still bring the old one.
fn answer_memo(times: &IdentityTimes, now: UnixMillis) -> Duration {
    MEMO_FOR.min(times.identity_expires.saturating_since(now) / 10)
}

fn is_not_due(outcome: &Outcome, now: UnixMillis) -> bool {
    matches!(&**outcome, Ok(Refreshed::Identity(identity)) if !identity.times().is_due(now))
}

fn without_text(error: &EuidError) -> Outcome {
    let what = match error.kind() {
        ErrorKind::RejectedToken => "the operator has rejected this refresh token",
        ErrorKind::LoginEnded => "the login has ended, as the store says",
        _ => "the last refresh failed, and the token backs off",
    };
    Arc::new(Err(EuidError::new(error.kind(), what)))
}

/// Longer than a browser needs until its parallel requests carry the new cookie.
pub(super) const MEMO_FOR: Duration = Duration::from_secs(45);
/// How long after the last wait the number of failures is remembered.
const FAILURES_REMEMBERED: Duration = Duration::from_secs(300);
