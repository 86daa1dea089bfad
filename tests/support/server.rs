//! Sandboxes for the tests of the client, on their ports and in memory, and clients that call them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use euid_sandbox::{Sandbox, SandboxServer};
use tower_euid::clock::ManualClock;
use tower_euid::error::EuidError;
use tower_euid::identity::Identity;
use tower_euid::{Dii, Environment, EuidClient, EuidClientBuilder, Generated};

use super::{START, scope};

/// A free port of this machine.
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// A timeout that no test reaches, however slow the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Returns a sandbox with all defaults. Its clock runs.
pub(crate) fn sandbox() -> Sandbox {
    Sandbox::builder().scope(scope()).build().unwrap()
}

/// Returns a sandbox whose clock stands still at [`START`].
pub(crate) fn sandbox_at_start() -> Sandbox {
    Sandbox::builder().scope(scope()).clock(ManualClock::at(START)).build().unwrap()
}

/// Serves a sandbox on a port of its own.
pub(crate) async fn serve(sandbox: Sandbox) -> SandboxServer {
    sandbox.serve(LOOPBACK).await.unwrap()
}

/// Configures a client with the sandbox's URL, credentials and clock.
pub(crate) fn client_builder(server: &SandboxServer) -> EuidClientBuilder {
    EuidClientBuilder::from_operator(server.operator()).clock(server.sandbox().clock())
}

/// Configures a client with the sandbox's credentials and clock, but another URL.
pub(crate) fn client_builder_at(base_url: String, sandbox: &Sandbox) -> EuidClientBuilder {
    EuidClient::builder(Environment::Url(base_url))
        .credentials(sandbox.api_key(), sandbox.client_secret())
        .clock(sandbox.clock())
}

/// Returns a client of the sandbox on its port.
pub(crate) fn client(server: &SandboxServer) -> EuidClient {
    client_builder(server).build().unwrap()
}

/// Returns the person who logs in where the test does not care.
pub(crate) fn user() -> Dii {
    email("user@example.com")
}

pub(crate) fn email(address: &str) -> Dii {
    Dii::email(address).unwrap()
}

/// Generates an identity. Fails the test if the operator answers with anything else, such as an opt-out.
#[expect(clippy::panic, reason = "a helper that fails fails its test")]
pub(crate) async fn generate(client: &EuidClient, person: Dii) -> Result<Identity, EuidError> {
    match client.generate(person).await? {
        Generated::Identity(identity) => Ok(identity),
        other => panic!("{other:?}"),
    }
}
