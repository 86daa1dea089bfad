//! The operator: the sandbox on a port of its own, with its failures.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use euid_sandbox::{Fault, Lifetimes, Sandbox, SandboxServer};
use tokio::time::sleep;
use tower_euid::Dii;
use tower_euid::clock::{Clock, SystemClock, UnixMillis};

/// Short lifetimes, so that some token is always due for a refresh.
pub(crate) const LIFETIMES: Lifetimes = Lifetimes {
    refresh_from: Duration::from_secs(3),
    identity_expires: Duration::from_secs(10),
    refresh_expires: Duration::from_secs(40),
};

pub(crate) struct Operator {
    sandbox: Sandbox,
    address: SocketAddr,
    /// `None` while the port is closed.
    server: Mutex<Option<SandboxServer>>,
    refusals: Mutex<Refusals>,
}

/// The periods in which the operator refuses refresh tokens.
#[derive(Default)]
struct Refusals {
    under_way: bool,
    last_end: Option<UnixMillis>,
}

/// A failure of the operator.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    Fault(Fault),
    /// The port is closed, and so are all connections.
    Killed,
}

impl Trouble {
    /// Failures that the breaker does not count are first: a short run should include them before the breaker opens.
    pub(crate) const ALL: [Self; 16] = [
        Self::Fault(Fault::Delay(Duration::from_millis(50))),
        Self::Fault(Fault::WrongNonce),
        Self::Fault(Fault::Refuse("client_error")),
        Self::Fault(Fault::Refuse("error")),
        Self::Fault(Fault::Refuse("invalid_token")),
        Self::Fault(Fault::Refuse("expired_token")),
        Self::Fault(Fault::WrongKey),
        Self::Fault(Fault::Delay(Duration::from_millis(500))),
        Self::Killed,
        Self::Fault(Fault::Status(500)),
        Self::Fault(Fault::Status(429)),
        Self::Fault(Fault::Garbage),
        Self::Fault(Fault::Redirect),
        Self::Fault(Fault::LargeBody(60_000)),
        Self::Fault(Fault::LargeBody(1 << 20)),
        Self::Fault(Fault::Delay(Duration::from_secs(3600))),
    ];

    /// Whether the layer removes an identity for it. It does so for `client_error` if the advertising token has expired.
    fn refuses(self) -> bool {
        matches!(self, Self::Fault(Fault::Refuse("invalid_token" | "expired_token" | "client_error")))
    }
}

impl Operator {
    pub(crate) async fn start() -> Self {
        let sandbox = Sandbox::builder().lifetimes(LIFETIMES).build().unwrap();
        let server = sandbox.clone().serve((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = server.base_url().trim_start_matches("http://").parse().unwrap();
        Self { sandbox, address, server: Mutex::new(Some(server)), refusals: Mutex::default() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    pub(crate) fn opt_out(&self, person: Dii) {
        self.sandbox.opt_out(person);
    }

    /// Returns whether the operator has refused refresh tokens at or after this time.
    pub(crate) fn has_refused_since(&self, time: UnixMillis) -> bool {
        let refusals = self.refusals.lock().unwrap();
        refusals.under_way || refusals.last_end.is_some_and(|end| end >= time)
    }

    pub(crate) fn begin(&self, trouble: Trouble) {
        if trouble.refuses() {
            self.refusals.lock().unwrap().under_way = true;
        }
        match trouble {
            Trouble::Fault(fault) => self.sandbox.fault(fault),
            Trouble::Killed => *self.server.lock().unwrap() = None,
        }
    }

    pub(crate) async fn end(&self, trouble: Trouble) {
        match trouble {
            Trouble::Fault(_) => self.sandbox.fault(None),
            Trouble::Killed => {
                let server = loop {
                    match self.sandbox.clone().serve(self.address).await {
                        Ok(server) => break server,
                        // A connection of another program uses the port as its local end.
                        Err(_) => sleep(Duration::from_millis(50)).await,
                    }
                };
                *self.server.lock().unwrap() = Some(server);
            }
        }
        if trouble.refuses() {
            *self.refusals.lock().unwrap() = Refusals { under_way: false, last_end: Some(SystemClock.now()) };
        }
    }
}
