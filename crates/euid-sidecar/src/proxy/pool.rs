//! The idle connections of one worker to the site.
//!
//! 1. A connection is used again within 4 s, and closed then: most servers close theirs after 5 s.
//! 2. The one that was used last is the first to be used again, so that those which are not needed grow old.
//! 3. One whose last request is still being sent is not ready, and stays.
//! 4. They are in the order in which they became idle, so that a request looks at few.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use super::body::RequestBody;
use crate::access::now;

/// Clones share the connections.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    idle: VecDeque<Idle>,
    /// A task closes those that are too old.
    is_swept: bool,
}

struct Idle {
    sender: SendRequest<RequestBody>,
    until: Instant,
}

/// A connection in use.
pub(super) struct Lease {
    sender: SendRequest<RequestBody>,
    pool: Pool,
}

impl Pool {
    /// Takes out a connection that is ready.
    pub(super) fn take(&self) -> Option<SendRequest<RequestBody>> {
        let idle = &mut self.lock().idle;
        close_old(idle);
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

    /// Closes connections that are too old, until there are none.
    async fn sweep(self) {
        loop {
            let next = {
                let mut state = self.lock();
                close_old(&mut state.idle);
                let next = state.idle.front().map(|first| first.until);
                state.is_swept = next.is_some();
                next
            };
            let Some(next) = next else { return };
            sleep_until(next).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    pub(super) fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut state = self.pool.lock();
        state.idle.push_back(Idle { sender: self.sender, until: now() + LONGEST_IDLE });
        let is_swept = std::mem::replace(&mut state.is_swept, true);
        drop(state);
        // A runtime that ends drops responses, and closes all connections itself.
        if let (false, Ok(runtime)) = (is_swept, Handle::try_current()) {
            runtime.spawn(self.pool.sweep());
        }
    }
}

fn close_old(idle: &mut VecDeque<Idle>) {
    let now = now();
    while idle.front().is_some_and(|first| first.until <= now) {
        idle.pop_front();
    }
}

const LONGEST_IDLE: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    /// Returns a connection, and the site's end of it.
    async fn connect() -> (SendRequest<RequestBody>, DuplexStream) {
        let (io, site) = duplex(1000);
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        sender.ready().await.unwrap();
        (sender, site)
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connection_is_used_again_within_4_s_and_closed_then() {
        let pool = Pool::default();
        let (sender, mut site) = connect().await;
        pool.lease(sender).give_back();
        tokio::time::advance(Duration::from_millis(3_900)).await;
        let sender = pool.take().unwrap();
        assert!(pool.take().is_none());
        pool.lease(sender).give_back();
        let began = now();
        assert_eq!(site.read(&mut [0]).await.unwrap(), 0);
        assert_eq!((now() - began).as_secs(), 4);
        assert!(pool.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn connection_that_was_used_last_is_taken_first_and_a_closed_one_never() {
        let pool = Pool::default();
        let mut sites = Vec::new();
        for _ in 0..3 {
            let (sender, site) = connect().await;
            pool.lease(sender).give_back();
            sites.push(site);
        }
        // The site closes the last one.
        sites.pop();
        tokio::time::advance(Duration::from_secs(1)).await;
        let began = now();
        while let Some(mut site) = sites.pop() {
            drop(pool.take().unwrap());
            assert_eq!((site.read(&mut [0]).await.unwrap(), now()), (0, began));
        }
        assert!(pool.take().is_none());
    }
}
