//! Runs the site on a stand-in operator of its own.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::Duration;

use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use euid_actix_site::client::{Client, over_http};
use euid_actix_site::middleware::{Host, euid};
use euid_actix_site::site;
use euid_core::CookieKey;
use euid_core::engine::Engine;
use euid_sandbox::{Lifetimes, Sandbox};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Tokens are due after ten seconds, so that you can watch a refresh.
    let lifetimes = Lifetimes { refresh_from: Duration::from_secs(10), ..Lifetimes::default() };
    let operator = Sandbox::builder().lifetimes(lifetimes).build()?.serve((Ipv4Addr::LOCALHOST, 0).into()).await?;

    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
    let send = move |request| over_http(http.clone(), request);
    let client = Client::new(operator.operator(), operator.sandbox().clock(), send);
    // A real site keeps its key (`KeyRing::from_env`), so that logins survive a restart, and keeps the default jitter.
    let engine = Engine::new(CookieKey::generate()?.into()).with_refresh_jitter(Duration::ZERO);
    let host = web::Data::new(Host::new(engine, client));

    let app = move || App::new().app_data(host.clone()).wrap(from_fn(euid)).configure(site::routes);
    let server = HttpServer::new(app).workers(2).bind((Ipv4Addr::LOCALHOST, 3003))?;
    println!("http://localhost:3003/");
    server.run().await?;
    Ok(())
}
