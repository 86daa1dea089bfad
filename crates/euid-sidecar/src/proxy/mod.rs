//! The reverse proxy: the layer in front of a site that knows nothing of it.
//!
//! ```text
//! visitor ─► refuse ─► hop ─► EuidLayer ─► names, forward ─► send ─► site
//!     ◄───────────────── Set-Cookie, Cache-Control ◄─ command ◄───────┘
//! ```
//!
//! 1. [`connection`] serves HTTP/1.1, and HTTP/2 without TLS if that is set. [`activity`] has its timeouts.
//! 2. [`refuse`] refuses what two servers could read in two ways. [`hop`] strips what concerns one connection only.
//! 3. The layer reads the visitor's state and writes it, whatever the path, the method or the browser.
//! 4. [`names`] drops what only the sidecar may say to the site. [`forward`] says it, and does what the site commands
//!    ([`command`], [`login`]).
//! 5. [`send`] sends the request on a connection of the [`pool`], or on a new one to the [`upstream`]. [`body`] passes
//!    bodies on, and [`tunnel`] WebSockets.
//! 6. [`workers`] are the threads, and [`numbers`] the metrics and the log.

mod activity;
mod body;
mod command;
mod connection;
mod forward;
mod hop;
mod login;
mod names;
mod numbers;
mod pool;
mod refuse;
mod send;
#[cfg(test)]
mod tests;
mod tunnel;
mod upstream;
mod workers;

use std::sync::Arc;

use tower::Layer;
use tower_euid::{EuidClient, EuidLayer};

use self::connection::Front;
use self::forward::Forward;
use self::login::Logins;
use self::numbers::Numbers;
use self::pool::Pool;
use self::send::Sender;
pub(crate) use self::upstream::Upstream;
pub(crate) use self::workers::Workers;

/// What all workers share.
#[derive(Clone)]
pub(crate) struct Proxy {
    layer: EuidLayer,
    logins: Logins,
    upstream: Upstream,
    h2c: bool,
}

impl Proxy {
    /// Returns the proxy in front of the site at `upstream`. With `h2c` it takes HTTP/2 without TLS, too.
    pub(crate) fn new(layer: EuidLayer, client: EuidClient, upstream: Upstream, h2c: bool) -> Self {
        Self { logins: Logins::new(client, layer.clone()), layer, upstream, h2c }
    }

    /// Returns what the connections of one worker share.
    fn front(&self) -> Front {
        let numbers = Arc::new(Numbers::new());
        let sender = Sender { upstream: self.upstream.clone(), pool: Pool::default(), numbers: Arc::clone(&numbers) };
        let forward = Forward::new(self.layer.clone(), self.logins.clone(), sender);
        Front { service: self.layer.layer(forward), numbers, h2c: self.h2c }
    }
}

/// Of a request, and of a response of the site. hyper's default is 100.
const MOST_HEADERS: usize = 256;
/// How many bytes of a head, or of a body, a connection reads, or has to write, at a time. hyper's default is 408 KiB.
const MOST_BUFFERED: usize = 128 * 1024;
