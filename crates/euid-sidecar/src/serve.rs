//! `serve`: the listeners, the signals and the end.
//!
//! 1. At `SIGTERM` or `SIGINT`, `/readyz` turns 503, and the API and the proxy take no more connections. Requests under
//!    way, tunnels among them, end within [`LONGEST_END`]. The admin listener ends last.
//! 2. `SIGHUP` reads the settings again and takes the cookie keys from them. If these can't be used, the old ones stay.

use std::io;
use std::time::Duration;

use axum::middleware::from_fn;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tower_euid::KeyRing;

use crate::access;
use crate::address::Address;
use crate::admin::{self, Draining};
use crate::api;
use crate::config::{Config, ProxySettings, Site, check_exposure};
use crate::listen::{Activated, Listening};
use crate::proxy::{Proxy, Workers};
use crate::settings::sidecar;

/// Returns the keys of the settings as they are now.
pub(crate) type ReadKeys = Box<dyn Fn() -> Result<KeyRing, String> + Send>;

/// Serves until a signal ends the process.
///
/// # Errors
///
/// If a listener can't be opened, or if the API's is for more than this machine.
pub(crate) async fn serve(
    config: Config,
    metrics: PrometheusHandle,
    activated: Activated,
    read_keys: ReadKeys,
) -> Result<(), String> {
    // First of all: until then, a signal ends the process at once.
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let mut reload = on(SignalKind::hangup())?;
    let keys = config.site.layer.keys();
    let (api_listener, api_address) = open(activated.api, config.api)?;
    let (admin_listener, admin_address) = open(activated.admin, config.admin)?;
    check_exposure(&api_address, config.token.is_some()).map_err(|problem| format!("{api_address}: {problem}"))?;

    let mut workers = match &config.proxy {
        Some(proxy) => {
            let (listener, address) = open(activated.proxy, proxy.listen.clone())?;
            if let Some(problem) = upstream_problem(proxy, &[&address, &api_address, &admin_address]).await {
                return Err(problem);
            }
            Some(start_proxy(&config.site, proxy, &listener, &address)?)
        }
        None => None,
    };
    let draining = Draining::default();
    let (stop_api, api_stopped) = oneshot::channel::<()>();
    let api = api::router(config.site, config.token).layer(from_fn(access::observe));
    let admin = admin::router(draining.clone(), metrics.clone());
    let mut api = tokio::spawn(api_listener.serve(api, async { drop(api_stopped.await) }));
    let mut admin = tokio::spawn(admin_listener.serve(admin, std::future::pending()));
    tracing::info!(api = %api_address, admin = %admin_address, "serving");

    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => match read_keys() {
                Ok(newer) => {
                    keys.reload(newer);
                    tracing::info!("the cookie keys are reloaded");
                }
                Err(error) => tracing::error!(error, "the cookie keys stay as they were"),
            },
            _ = upkeep.tick() => metrics.run_upkeep(),
            _ = &mut api => return Err("the listener of the API has ended".to_owned()),
            _ = &mut admin => return Err("the admin listener has ended".to_owned()),
        }
    }
    draining.begin();
    tracing::info!("draining");
    drop(stop_api);
    let proxy_ended = async {
        if let Some(workers) = &mut workers {
            workers.drain().await;
        }
    };
    let ended = async { tokio::join!(&mut api, proxy_ended) };
    if tokio::time::timeout(LONGEST_END, ended).await.is_err() {
        tracing::warn!("requests under way are cut off");
    }
    admin.abort();
    tracing::info!("ended");
    Ok(())
}

fn start_proxy(site: &Site, proxy: &ProxySettings, listener: &Listening, address: &Address) -> Result<Workers, String> {
    let (_, client) = site.clients.first().ok_or("no operator")?;
    let served = Proxy::new(site.layer.clone(), client.clone(), proxy.upstream.clone(), proxy.h2c);
    let workers = Workers::start(&served, listener, proxy.workers).map_err(|error| format!("{address}: {error}"))?;
    tracing::info!(proxy = %address, upstream = %proxy.upstream, workers = proxy.workers, "serving the site");
    Ok(workers)
}

fn on(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|error| format!("signals: {error}"))
}

/// Returns what is wrong with the addresses of the settings, as far as it can be known without the listeners.
pub(crate) async fn problems(config: &Config) -> Vec<String> {
    let own = [("api", Some(&config.api)), ("admin", Some(&config.admin))];
    let own = own.into_iter().chain([("listen", config.proxy.as_ref().map(|proxy| &proxy.listen))]);
    let own: Vec<(&str, &Address)> = own.filter_map(|(name, address)| Some((name, address?))).collect();
    let mut problems = Vec::new();
    for (number, (name, address)) in own.iter().enumerate() {
        if let Some((other, _)) = own.iter().take(number).find(|(_, other)| other == address && !address.is_any_port())
        {
            problems.push(format!("{}: the address of {} too", sidecar(name), sidecar(other)));
        }
        problems.extend(address.folder_problem().map(|problem| format!("{}: {problem}", sidecar(name))));
    }
    if let Some(proxy) = &config.proxy {
        let own: Vec<&Address> = own.into_iter().map(|(_, address)| address).collect();
        problems.extend(upstream_problem(proxy, &own).await);
    }
    problems
}

async fn upstream_problem(proxy: &ProxySettings, own: &[&Address]) -> Option<String> {
    for listener in own {
        if proxy.upstream.is(listener).await {
            let setting = sidecar("upstream");
            return Some(format!("{setting}: the site can't be at {listener}, where this sidecar listens"));
        }
    }
    None
}

/// Returns a listener and its address: the one that systemd has opened, or a new one.
fn open(opened: Option<Listening>, address: Address) -> Result<(Listening, Address), String> {
    let is_new = opened.is_none();
    if let Some(problem) = address.folder_problem().filter(|_| is_new) {
        return Err(format!("{address}: {problem}"));
    }
    let failed = |error: io::Error| format!("{address}: {error}");
    let listening = opened.map_or_else(|| Listening::bind(&address), Ok).map_err(failed)?;
    let address = match &address {
        // It was bound under another name, which is the one that the socket has.
        Address::Unix(_) if is_new => address,
        _ => listening.address().map_err(failed)?,
    };
    Ok((listening, address))
}

/// Longer than a login takes, whose call to the operator ends after 5 s.
const LONGEST_END: Duration = Duration::from_secs(10);
/// How often the exporter merges the samples of histograms. Otherwise they use memory until `/metrics` is read.
const UPKEEP: Duration = Duration::from_secs(5);
