//! The idle connections of one worker to the site.
//!
//! 1. A connection is used again for 4 s at most: most servers close theirs after 5 s.
//! 2. The one that was used last is the first to be used again, so that those which are not needed grow old.
//! 3. One whose last request is still being sent is not ready, and stays.
//! 4. They are in the order in which they became idle, so that a request looks at few.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use super::body::RequestBody;
use crate::access::now;

/// Clones share the connections.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<VecDeque<Idle>>>);

struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// A connection in use.
pub(super) struct Lease {
    sender: SendRequest<RequestBody>,
    pool: Pool,
}

impl Pool {
    /// Takes out a connection that is ready.
    pub(super) fn take(&self) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        while idle.front().is_some_and(|first| now.saturating_duration_since(first.since) >= LONGEST_IDLE) {
            idle.pop_front();
        }
        let mut busy = Vec::new();
        let ready = loop {
            match idle.pop_back() {
                Some(last) if last.sender.is_closed() => {}
                Some(last) if !last.sender.is_ready() => busy.push(last),
                last => break last,
            }
        };
        idle.extend(busy.into_iter().rev());
        ready.map(|idle| idle.sender)
    }

    pub(super) fn lease(&self, sender: SendRequest<RequestBody>) -> Lease {
        Lease { sender, pool: self.clone() }
    }
}

impl Lease {
    pub(super) fn give_back(self) {
        if !self.sender.is_closed() {
            let idle = Idle { sender: self.sender, since: now() };
            self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(idle);
        }
    }
}

const LONGEST_IDLE: Duration = Duration::from_secs(4);
