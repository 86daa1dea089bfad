//! Tower middleware for publishers who use [EUID](https://euid.eu) (European Unified ID). It keeps the
//! visitor's token pair in encrypted first-party cookies, refreshes it when a page is requested, and
//! gives every handler the current advertising token. It serves [UID2](https://unifiedid.com) (Unified ID 2.0) as well,
//! alone or beside EUID: these two are the *scopes*, and [`docs::scopes`] shows a site with both.
//!
//! The *operator* of EUID or UID2 issues an [`Identity`] for a person who logs in with an email address or a phone
//! number. It consists of two tokens, a key and three times. The *advertising token* goes into bid
//! requests. The *refresh token* is exchanged for the next pair of tokens, which the operator encrypts
//! under the key. The times say when a refresh is due, and when each token expires. [`docs::glossary`] explains all
//! words, and [`docs`] lists all guides.
//!
//! ![A browser or app sends sealed cookies or headers to EuidLayer, which gives the handler an Euid and an
//! AdvertisingToken for the bid request, and refreshes the identity at the operator.][front]
//!
//! ```
//! # #[cfg(all(feature = "client", feature = "axum"))]
//! # fn doc() -> Result<axum::Router, tower_euid::ConfigError> {
//! use axum::{Router, extract::State, http::StatusCode, routing::{get, post}};
//! use tower_euid::{Dii, Euid, EuidClient, EuidUpdate};
//!
//! let (client, layer) = tower_euid::from_env()?;
//! let app = Router::new()
//!     .route("/", get(|euid: Euid| async move { euid.state() }))
//!     .route("/login", post(login))
//!     .route("/logout", post(|| async { EuidUpdate::logout() }))
//!     .layer(layer)
//!     .with_state(client);
//!
//! /// First check who the visitor is, and that they consent.
//! async fn login(State(client): State<EuidClient>, email: String) -> Result<EuidUpdate, (EuidUpdate, StatusCode)> {
//!     // A new person is logging in: end the previous identity even though there is no new one.
//!     let failed = |status| (EuidUpdate::logout(), status);
//!     let dii = Dii::email(&email).map_err(|_| failed(StatusCode::BAD_REQUEST))?;
//!     let generated = client.generate(dii).await.map_err(|_| failed(StatusCode::SERVICE_UNAVAILABLE))?;
//!     Ok(EuidUpdate::from(generated))
//! }
//! # Ok(app)
//! # }
//! ```
//!
//! [`Dii`] (directly identifying information) is the hash of the address or phone number. [`from_env`] lists its
//! environment variables; [`EuidClient::builder`] and [`EuidLayer::new`] lead to all other settings.
//!
//! Without axum, a handler reads `request.extensions().get::<AdvertisingToken>()`
//! and calls `EuidUpdate::logout().attach(&mut response)`. Without tower, use [euid-core](euid_core) in an edge program
//! or another web framework: it makes the same decisions, and does no I/O. Without Rust, run
//! [euid-sidecar](https://docs.rs/crate/euid-sidecar) beside the site: it has this layer behind a local API and in a
//! reverse proxy. For tests, [euid-sandbox](https://docs.rs/euid-sandbox) is a stand-in operator that also makes visitors:
//! [`docs::testing`].
//!
//! # How a request flows
//!
//! ![A request passes hooks, cookies and policy, if it is due a refresh, then extensions and the handler; its response
//! passes updates, cookies and cache guard.][request]
//!
//! 1. The layer finds its cookies among all others, and decrypts the identity. It uses the identity only if
//!    the *anchor* cookie beside it names the login that the identity belongs to. The cookies of each login have names
//!    of their own, so a response that arrives late changes nothing of another login.
//! 2. The handler finds an [`Euid`] in the request's extensions and, if there is a valid token, the
//!    [`AdvertisingToken`] itself. No other part of the identity gets there.
//! 3. If a refresh is due, the layer calls the operator before the handler. It makes one call, in a task of
//!    its own, for all requests that bring the cookie. The page waits at most [`max_wait`](EuidLayer::max_wait),
//!    and then continues with the old token while that is valid. The next request gets an answer that arrives later.
//! 4. A handler returns [`EuidUpdate::login`], [`logout`](EuidUpdate::logout) or
//!    [`opt_out`](EuidUpdate::opt_out) as a part of its response. The layer takes it out and writes the
//!    cookies. Logout takes precedence over login.
//! 5. A response that sets a cookie of the layer is `private, no-store`. A response whose handler read the
//!    token is at least `private, no-cache`, and varies on `Cookie`.
//!
//! An app or a TV set can have the same state in headers, in place of cookies: [`docs::apps`].
//!
//! [`docs::request_flow`] has these steps in detail, and the purpose of each cookie.
//!
//! # States
//!
//! | [`Euid`] | meaning | what to do |
//! | --- | --- | --- |
//! | `Absent` | There is no identity. | If the visitor is signed in and consents, generate one. |
//! | `Active` | There is a valid token. | Put it into the bid request: [`openrtb`]. |
//! | `OptedOut` | The person opted out. | Send no token, and do not generate again soon. |
//! | `Unavailable` | There is an identity, but no valid token now. | Send no token. The next request may have one. |
//! | `Withheld` | The hook [`EuidLayer::consent`] found no consent. | Send no token, and do not generate one. |
//!
//! # Features
//!
//! | feature | default | packages | adds |
//! | --- | --- | --- | --- |
//! | none | | 62 | the layer, cookies, [`openrtb`], [`tcf`] |
//! | `client` | yes | 131 | [`EuidClient`], on reqwest and rustls (needs a C compiler) |
//! | `axum` | yes | 68 | extractors and response parts for axum 0.8 |
//! | `conformance` | no | 62 | the checks that every [`store`] must pass, for the tests of one |
//! | `metrics` | no | 64 | counters, histograms and a gauge through the `metrics` facade: [`docs::metrics`] |
//!
//! The column "packages" counts the packages that cargo builds for the feature alone, on x86-64 Linux.
//! Features only add items. Without `client`, give the layer your own [`Refresh`]. The types that need no tower
//! are those of [euid-core](euid_core), so code for one crate fits the other.
//!
//! # Running
//!
//! A refresh needs a tokio runtime with its timer (`enable_all`, which `#[tokio::main]` does). Without a
//! runtime the layer still reads cookies and hands out valid tokens, but refreshes nothing. The same holds
//! for a runtime without its timer. There, each page whose refresh is due also causes a panic in tokio and its
//! message. The layer catches the panic; with `panic = "abort"` it ends the process.
//!
#![doc = include_str!("docs/pictures/for_rustdoc/front.md")]
#![doc = include_str!("docs/pictures/for_rustdoc/request.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "client")]
mod client;
mod config;
mod deadline;
#[cfg(feature = "client")]
mod env;
mod explain;
#[cfg(feature = "axum")]
mod extract;
#[cfg(feature = "client")]
mod from_service;
mod future;
mod hooks;
mod layer;
mod mistakes;
mod nested;
mod records;
mod refresh;
mod request;
mod response;
mod service;
mod sessions;
mod step;
pub mod store;
mod telemetry;
mod types;
mod update;

pub mod docs {
    //! Guides.
    //!
    //! | topic | page |
    //! | --- | --- |
    //! | The words of these pages | [`glossary`] |
    //! | Frequent questions | [`faq`] |
    //! | Which framework, language or client it works with | [`frameworks`] |
    //! | The steps of a request | [`request_flow`] |
    //! | The order of layers | [`layers`] |
    //! | Tokens in advertising: bid requests, Prebid, Google Secure Signals, ad breaks | [`advertising`] |
    //! | EUID and UID2 on one site | [`scopes`] |
    //! | Apps and TV sets: state in headers | [`apps`] |
    //! | State in a store, on the site's side | [`stores`] |
    //! | How to test a site | [`testing`] |
    //! | How to migrate from another solution | [`migrating`] |
    //! | Generating for many persons | [`generating`] |
    //! | A rollout to a share of the users | [`rollout`] |
    //! | Troubleshooting: wrong states and their causes | [`troubleshooting`] |
    //! | Failures: what a page sees, and remedies | [`failures`] |
    //! | Operations: keys, deploys, proxies, alerts | [`operations`] |
    //! | CDNs and caches | [`cdn`] |
    //! | AWS Lambda and other processes that are frozen | [`serverless`] |
    //! | Events, traces and metrics | [`metrics`] |
    //! | The cookies, for a privacy policy | [`privacy`] |
    //! | The threat model: protection against each attacker, and its limits | [`threat_model`] |
    //! | Performance, compared with other solutions | [`performance`] |
    //! | The cookies, byte by byte | [`cookie_format`] |

    #[doc = include_str!("docs/advertising.md")]
    pub mod advertising {}
    #[doc = include_str!("docs/apps.md")]
    pub mod apps {}
    #[doc = include_str!("docs/cdn.md")]
    pub mod cdn {}
    #[doc = include_str!("docs/cookie_format.md")]
    pub mod cookie_format {}
    #[doc = include_str!("docs/explain.md")]
    pub mod explain {}
    #[doc = include_str!("docs/failures.md")]
    pub mod failures {}
    #[doc = include_str!("docs/faq.md")]
    pub mod faq {}
    #[doc = include_str!("docs/frameworks.md")]
    pub mod frameworks {}
    #[doc = include_str!("docs/generating.md")]
    pub mod generating {}
    #[doc = include_str!("docs/glossary.md")]
    pub mod glossary {}
    #[doc = include_str!("docs/pictures/for_rustdoc/layers.md")]
    #[doc = include_str!("docs/layers.md")]
    pub mod layers {}
    #[doc = include_str!("docs/metrics.md")]
    pub mod metrics {}
    #[doc = include_str!("docs/migrating.md")]
    pub mod migrating {}
    #[doc = include_str!("docs/pictures/for_rustdoc/keys.md")]
    #[doc = include_str!("docs/pictures/for_rustdoc/refresh.md")]
    #[doc = include_str!("docs/operations.md")]
    #[doc = concat!("\n## Alert rules\n\n```yaml\n", include_str!("../monitoring/alerts.yml"), "```\n")]
    pub mod operations {}
    #[doc = include_str!("docs/plots/for_rustdoc.md")]
    #[doc = include_str!("docs/performance.md")]
    pub mod performance {}
    #[doc = include_str!("docs/privacy.md")]
    pub mod privacy {}
    #[doc = include_str!("docs/pictures/for_rustdoc/request.md")]
    #[doc = include_str!("docs/pictures/for_rustdoc/times.md")]
    #[doc = include_str!("docs/request_flow.md")]
    pub mod request_flow {}
    #[doc = include_str!("docs/rollout.md")]
    pub mod rollout {}
    #[doc = include_str!("docs/scopes.md")]
    pub mod scopes {}
    #[doc = include_str!("docs/serverless.md")]
    pub mod serverless {}
    #[doc = include_str!("docs/pictures/for_rustdoc/states.md")]
    #[doc = include_str!("docs/stores.md")]
    pub mod stores {}
    #[doc = include_str!("docs/testing.md")]
    #[cfg_attr(all(feature = "client", feature = "axum"), doc = concat!("```no_run\n", include_str!("../tests/site.rs"), "```"))]
    #[cfg_attr(not(all(feature = "client", feature = "axum")), doc = concat!("```ignore\n", include_str!("../tests/site.rs"), "```"))]
    pub mod testing {}
    #[doc = include_str!("docs/pictures/for_rustdoc/logout.md")]
    #[doc = include_str!("docs/threat_model.md")]
    pub mod threat_model {}
    #[doc = include_str!("docs/troubleshooting.md")]
    pub mod troubleshooting {}
}

#[cfg(feature = "client")]
pub use client::{EuidClient, EuidClientBuilder, EuidClients};
pub use config::RefreshMode;
#[cfg(feature = "client")]
pub use env::{both_from_env, both_from_variables, from_env, from_variables};
#[cfg(feature = "client")]
pub use from_service::from_service;
pub use future::ResponseFuture;
pub use layer::EuidLayer;
pub use refresh::{Admission, Breaker, Refresh, RefreshFn, refresh_fn};
pub use service::EuidService;
pub use sessions::EuidSessions;
#[cfg(feature = "axum")]
pub use types::EuidLayerMissing;
pub use types::{
    AdvertisingToken, ConfigError, Consent, CookieConfig, CookieKey, Dii, Environment, Euid, EuidError,
    EuidLogoutHandle, GenerateRequest, Generated, HeaderConfig, Identity, KeyRing, Operator, Reason, Refreshed,
    SameSite, Scope, StoreSecret, Uid2Region, clock, dii, engine, error, identity, openrtb, operator, tcf,
};
pub use update::EuidUpdate;

/// Compiles the README's code unchanged.
#[cfg(all(doctest, feature = "client", feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;
