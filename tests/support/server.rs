//! Clients that call a sandbox on its port.

use euid_sandbox::SandboxServer;
use tower_euid::EuidClientBuilder;

/// Configures a client with the sandbox's URL, credentials and clock.
pub(crate) fn client_builder(server: &SandboxServer) -> EuidClientBuilder {
    EuidClientBuilder::from_operator(server.operator()).clock(server.sandbox().clock())
}
