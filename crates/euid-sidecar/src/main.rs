//! The sidecar of EUID and UID2, for sites in any language. The [README](../README.md) shows how to use it.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`settings`], [`config`] | settings as text, and what they mean |
//! | [`mod@serve`], [`listen`], [`admin`], [`access`], [`exporter`] | the running process: sockets, signals, metrics, log |
//! | [`api`] | the API and forward-auth, around the layer of tower-euid |
//! | [`proxy`] | the reverse proxy, with the same layer in front of a site |
//! | [`mod@demo`] | `serve --demo` |
//! | [`sandbox`], [`check`], [`keygen`], [`mod@health`] | the other commands |

#[cfg(not(unix))]
compile_error!("the sidecar needs unix sockets and signals");

mod access;
mod address;
mod admin;
mod api;
mod check;
mod config;
mod demo;
mod exporter;
mod health;
mod keygen;
mod listen;
mod proxy;
mod sandbox;
mod serve;
mod settings;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use tower_euid::Scope;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::address::Address;
use crate::config::Config;
use crate::listen::Activated;
use crate::settings::Settings;

/// A request makes many small allocations, most of them in hyper.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// EUID and UID2 for sites in any language
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the sidecar. Its settings are environment variables and a TOML file
    Serve {
        /// The TOML file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Checks the settings, prints all that is wrong, and ends
        #[arg(long)]
        check: bool,
        /// Also runs an operator to test against, and a small site in Python: needs `python3`, and no settings
        #[arg(long, conflicts_with_all = ["config", "check"])]
        demo: bool,
    },
    /// Runs an operator to test against, with public keys: never for production
    Sandbox(sandbox::Options),
    /// Checks an operator: reachable, credentials, clock, test identities
    Check(check::Options),
    /// Prints a new cookie key
    Keygen {
        /// The scope whose variable is printed: euid or uid2
        #[arg(default_value_t, hide_default_value = true)]
        scope: Scope,
    },
    /// Asks a running sidecar whether it lives, for the health check of a container
    Health {
        /// The TOML file of the sidecar
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve { demo: true, .. } => demo().await,
        Command::Serve { config, check, .. } => serve(config, check).await,
        Command::Sandbox(options) => sandbox::sandbox(options).await,
        Command::Check(options) => check::check(options).await,
        Command::Keygen { scope } => keygen::keygen(scope).map_err(|error| error.to_string()),
        Command::Health { config } => health(config.as_deref()).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            for problem in problems.lines() {
                eprintln!("euid-sidecar: {problem}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(file: Option<PathBuf>, check: bool) -> Result<(), String> {
    let mut problems = Vec::new();
    let settings = Settings::load(file.as_deref(), &mut problems);
    // Before the layer and the clients, which add their series when they are made.
    let metrics = exporter::install()?;
    let config = Config::of(&settings, problems).map_err(|problems| problems.join("\n"))?;
    if check {
        let problems = serve::problems(&config).await;
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        println!("the settings are good: {}", config.summary());
        return Ok(());
    }
    let read_keys = move || {
        let mut problems = Vec::new();
        let settings = Settings::load(file.as_deref(), &mut problems);
        match problems.is_empty() {
            true => config::keys(&settings).map_err(|error| error.to_string()),
            false => Err(problems.join("; ")),
        }
    };
    log(config.log);
    serve::serve(config, metrics, Activated::take()?, Box::new(read_keys)).await
}

async fn demo() -> Result<(), String> {
    let mut demo = demo::start().await?;
    let metrics = exporter::install()?;
    let config = Config::of(&demo.settings, Vec::new()).map_err(|problems| problems.join("\n"))?;
    log(config.log);
    let activated = Activated { proxy: demo.proxy.take(), ..Activated::default() };
    serve::serve(config, metrics, activated, Box::new(|| Err("the demo has one key".to_owned()))).await
}

fn log(level: LevelFilter) {
    let levels = Targets::new().with_targets([(env!("CARGO_CRATE_NAME"), level), ("tower_euid", level)]);
    // One level of keys: an event says what it is about without its spans.
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
    let lines = lines.with_current_span(false).with_span_list(false).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines).with(levels).init();
}

async fn health(file: Option<&Path>) -> Result<(), String> {
    let settings = Settings::load(file, &mut Vec::new());
    let admin = settings.sidecar("admin").map_or_else(|| Ok(config::default_admin()), str::parse::<Address>);
    health::health(admin.map_err(|error| format!("{}: {error}", settings::sidecar("admin")))?).await
}
