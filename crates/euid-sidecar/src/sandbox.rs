//! `sandbox`: the sandbox operator, for clients in any language.
//!
//! The variables of its clients go to the standard output. The operator's keys are constants, so its tokens stay valid
//! after a restart. The test identities (`optout@example.com`, `refresh-optout@example.com`) opt out.

use std::net::Ipv4Addr;
use std::time::Duration;

use clap::Args;
use euid_sandbox::{Lifetimes, Sandbox, SandboxServer};
use tower_euid::Scope;

/// Which operator, where, and how long its tokens live. For identities that are due or expired, set short times.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The scope to play: euid or uid2
    #[arg(long, env = "EUID_SANDBOX_SCOPE", default_value_t, hide_default_value = true)]
    pub(crate) scope: Scope,
    /// The port on the loopback address; 0 for any
    #[arg(long, env = "PORT", default_value_t = Self::default().port)]
    pub(crate) port: u16,
    /// Seconds until a refresh is due; a layer adds up to a tenth of the time from then until the token expires
    #[arg(long, value_name = "SECONDS", default_value_t = Self::default().refresh_from)]
    #[arg(env = "EUID_SANDBOX_REFRESH_FROM")]
    pub(crate) refresh_from: u64,
    /// Seconds until the advertising token expires
    #[arg(long, value_name = "SECONDS", default_value_t = Self::default().identity_expires)]
    #[arg(env = "EUID_SANDBOX_IDENTITY_EXPIRES")]
    pub(crate) identity_expires: u64,
    /// Seconds until the refresh token expires
    #[arg(long, value_name = "SECONDS", default_value_t = Self::default().refresh_expires)]
    #[arg(env = "EUID_SANDBOX_REFRESH_EXPIRES")]
    pub(crate) refresh_expires: u64,
}

impl Default for Options {
    fn default() -> Self {
        let lives = Lifetimes::default();
        Self {
            scope: Scope::default(),
            port: 8080,
            refresh_from: lives.refresh_from.as_secs(),
            identity_expires: lives.identity_expires.as_secs(),
            refresh_expires: lives.refresh_expires.as_secs(),
        }
    }
}

/// Serves until the process is interrupted.
pub(crate) async fn sandbox(options: Options) -> Result<(), String> {
    let sandbox = start(&options).await?;
    eprintln!("euid-sidecar: an operator of {}; set these variables for its clients", options.scope);
    for (name, value) in variables(&sandbox) {
        println!("{name}={value}");
    }
    tokio::signal::ctrl_c().await.map_err(|error| error.to_string())
}

/// Returns the operator on a loopback port.
pub(crate) async fn start(options: &Options) -> Result<SandboxServer, String> {
    let lifetimes = Lifetimes {
        refresh_from: Duration::from_secs(options.refresh_from),
        identity_expires: Duration::from_secs(options.identity_expires),
        refresh_expires: Duration::from_secs(options.refresh_expires),
    };
    let sandbox = Sandbox::builder().scope(options.scope).lifetimes(lifetimes).build();
    let sandbox = sandbox.map_err(|error| error.to_string())?;
    let address = (Ipv4Addr::LOCALHOST, options.port).into();
    sandbox.serve(address).await.map_err(|error| format!("port {}: {error}", options.port))
}

/// Returns the variables of the operator's clients.
pub(crate) fn variables(sandbox: &SandboxServer) -> [(String, String); 3] {
    let prefix = sandbox.sandbox().scope().env_prefix();
    [
        (format!("{prefix}OPERATOR_URL"), sandbox.base_url()),
        (format!("{prefix}API_KEY"), sandbox.sandbox().api_key().to_owned()),
        (format!("{prefix}CLIENT_SECRET"), sandbox.sandbox().client_secret().to_owned()),
    ]
}
