//! The sandbox operator as a program, for any client in any language.
//!
//! ```console
//! $ cargo run --example sandbox_operator
//! sandbox_operator: an operator of EUID; set these variables for its clients
//! EUID_OPERATOR_URL=http://127.0.0.1:8080
//! EUID_API_KEY=…
//! EUID_CLIENT_SECRET=…
//! ```
//!
//! The first line goes to the standard error, the variables to the standard output. For UID2 they are `UID2_OPERATOR_URL`,
//! `UID2_API_KEY` and `UID2_CLIENT_SECRET`.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `EUID_SANDBOX_SCOPE` | `euid` or `uid2`: the scope to play; `euid` if not set |
//! | `PORT` | the port; 8080 if not set, 0 for any |
//! | `EUID_SANDBOX_REFRESH_FROM` | seconds until a refresh is due; 900 if not set |
//! | `EUID_SANDBOX_IDENTITY_EXPIRES` | seconds until the advertising token expires; 3600 if not set |
//! | `EUID_SANDBOX_REFRESH_EXPIRES` | seconds until the refresh token expires; 86400 if not set |
//!
//! To get identities that are due or expired, set short times: `EUID_SANDBOX_REFRESH_FROM=2`. The test identities
//! (`optout@example.com`, `refresh-optout@example.com`) opt out. The operator's keys are constants, so its tokens stay
//! valid after a restart.

use std::env;
use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use euid_sandbox::{Lifetimes, Sandbox};
use tower_euid::Scope;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sandbox_operator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let scope = match env::var("EUID_SANDBOX_SCOPE") {
        Ok(word) => word.parse().map_err(|error| format!("EUID_SANDBOX_SCOPE is {error}"))?,
        Err(_) => Scope::default(),
    };
    let defaults = Lifetimes::default();
    let lifetimes = Lifetimes {
        refresh_from: seconds("EUID_SANDBOX_REFRESH_FROM", defaults.refresh_from)?,
        identity_expires: seconds("EUID_SANDBOX_IDENTITY_EXPIRES", defaults.identity_expires)?,
        refresh_expires: seconds("EUID_SANDBOX_REFRESH_EXPIRES", defaults.refresh_expires)?,
    };
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| "PORT is not a port number")?,
        Err(_) => 8080,
    };
    let sandbox = Sandbox::builder().scope(scope).lifetimes(lifetimes).build();
    let sandbox = sandbox.map_err(|error| format!("EUID_SANDBOX_…, {lifetimes:?}: {error}"))?;
    let sandbox = sandbox.serve((Ipv4Addr::LOCALHOST, port).into()).await;
    let sandbox = sandbox.map_err(|error| format!("PORT {port}: {error}"))?;
    eprintln!("sandbox_operator: an operator of {scope}; set these variables for its clients");
    let prefix = scope.env_prefix();
    println!("{prefix}OPERATOR_URL={}", sandbox.base_url());
    println!("{prefix}API_KEY={}", sandbox.sandbox().api_key());
    println!("{prefix}CLIENT_SECRET={}", sandbox.sandbox().client_secret());
    tokio::signal::ctrl_c().await?;
    Ok(())
}

fn seconds(name: &str, default: Duration) -> Result<Duration, String> {
    match env::var(name) {
        Ok(value) => value.parse().map(Duration::from_secs).map_err(|_| format!("{name} is not a number of seconds")),
        Err(_) => Ok(default),
    }
}
