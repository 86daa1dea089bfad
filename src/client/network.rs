//! The default HTTP client, on reqwest.
//!
//! 1. HTTP/1.1 and rustls only, whatever else the application enables in reqwest.
//! 2. No redirects, and a deadline for connecting.
//! 3. A call that meets a closed connection is repeated once, see [`Network::send`].
//! 4. Plain http uses no proxy: it would see the API key unencrypted.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use euid_core::error::ConfigError;
use http::{Request, Response};
use reqwest::{Client, ClientBuilder, redirect, retry};
use tower::util::MapRequestLayer;

use super::failure::{Failure, causes};
use super::reuse;
use super::tls::Tls;
use super::transport::BoundedBody;

pub(super) struct Network {
    http: Client,
    /// The client for the second attempt of a call. It keeps no connection.
    unpooled: Client,
}

/// The settings that concern the connection.
pub(super) struct Settings {
    /// Whether the operator is called over TLS.
    pub(super) https: bool,
    pub(super) base_url: String,
    pub(super) connect_timeout: Duration,
    pub(super) tls: Tls,
}

impl Network {
    pub(super) fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let client = |kept: usize| {
            let http = settings.http()?.pool_max_idle_per_host(kept);
            http.build().map_err(|error| ConfigError::new(why_unbuilt(&error, &settings.tls)))
        };
        // This finds a host that the client can't call, such as one in broken punycode, at the start.
        reqwest::Url::parse(&settings.base_url)
            .map_err(|error| ConfigError::new(format!("the operator's URL is not one: {error}")))?;
        Ok(Self { http: client(usize::MAX)?, unpooled: client(0)? })
    }

    /// Sends a request, without a timeout of its own. Repeats the call once, over a new connection, if it failed on a
    /// connection from an earlier call before the whole head of an answer had arrived: the peer has closed the idle
    /// connection, and all calls may be repeated.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Failure> {
        let send = async |http: &Client| http.execute(request.clone().try_into()?).await;
        let mut response = match reuse::observed(send(&self.http)).await {
            (Err(error), true) if is_closed_connection(&error) => send(&self.unpooled).await,
            (outcome, _) => outcome,
        }
        .map_err(Failure::of_network)?;
        let mut received = BoundedBody::default();
        while received.wants_more()
            && let Some(chunk) = response.chunk().await.map_err(Failure::of_network)?
        {
            received.push(chunk);
        }
        let mut answer = Response::new(received.into());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}

impl Settings {
    /// Returns the configuration of both clients.
    fn http(&self) -> Result<ClientBuilder, ConfigError> {
        let http = Client::builder()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .http1_only()
            .tls_backend_rustls()
            .user_agent(USER_AGENT)
            .connector_layer(MapRequestLayer::new(reuse::note))
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT);
        if !self.https {
            // The client will not use TLS, so it needs no certificate authorities.
            Ok(http.no_proxy().tls_certs_only([]))
        } else {
            self.tls.apply(http.https_only(true))
        }
    }
}

/// Returns whether the peer closed the connection instead of answering.
fn is_closed_connection(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            error.is_incomplete_message() || error.is_canceled() || error.is_closed()
        } else if let Some(error) = cause.downcast_ref::<io::Error>() {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
            matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
        } else {
            false
        }
    })
}

/// Returns the text of the builder's error with its causes: the outermost text is only "builder error".
fn why_unbuilt(error: &reqwest::Error, tls: &Tls) -> String {
    let hint = if tls.roots.is_some() || tls.client_certificate.is_some() {
        "are the given certificates valid?"
    } else {
        "are the system's CA certificates installed?"
    };
    let what = format!("no HTTPS client can be made ({hint})");
    causes(error).fold(what, |what, cause| format!("{what}: {cause}"))
}

const USER_AGENT: &str = concat!("tower-euid/", env!("CARGO_PKG_VERSION"));
/// Below the minute for which load balancers usually keep a connection.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);
