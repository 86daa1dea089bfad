//! Tower middleware for publishers who use [EUID](https://euid.eu) (European Unified ID): the
//! visitor's token pair lives in one encrypted first-party cookie, is refreshed on the way through,
//! and every handler knows the current advertising token.
//!
//! EUID's *operator* issues an [`Identity`] for whoever logs in with an email address or phone number:
//! an *advertising token* for bid requests, a *refresh token* for the next such pair, the key under
//! which that comes encrypted, and the times at which a refresh is due and either token ends.
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
//! /// After you have checked who they are and that they consent.
//! async fn login(State(client): State<EuidClient>, email: String) -> Result<EuidUpdate, (EuidUpdate, StatusCode)> {
//!     // Whoever was here before must not stand for them.
//!     let failed = |status| (EuidUpdate::logout(), status);
//!     let dii = Dii::email(&email).map_err(|_| failed(StatusCode::BAD_REQUEST))?;
//!     let generated = client.generate(dii).await.map_err(|_| failed(StatusCode::SERVICE_UNAVAILABLE))?;
//!     Ok(EuidUpdate::from(generated))
//! }
//! # Ok(app)
//! # }
//! ```
//!
//! [`from_env`] lists its environment variables; [`EuidClient::builder`] and [`EuidLayer::new`] are there
//! for everything else. Without axum a handler reads `request.extensions().get::<AdvertisingToken>()`
//! and says `EuidUpdate::logout().attach(&mut response)`.
//!
//! # How a request flows
//!
//! ```text
//!  request ──► cookies ──► policy ──┬─ fresh, or nothing ────────────┐
//!              find, open           │                                ├──► extensions ──► handler
//!                                   └─ due ──► operator ──► policy ──┘                     │
//!                                              (own task, at most `max_wait`)              ▼
//!  response ◄── cache guard ◄── Set-Cookie ◄── policy ◄─────────── EuidUpdate in the response
//! ```
//!
//! 1. The layer finds its two cookies among all others and opens the identity, if the other cookie,
//!    the anchor, names its login.
//! 2. The handler finds an [`Euid`] in the request's extensions and, where there is a token to use,
//!    the [`AdvertisingToken`] itself. Nothing else of the identity gets there.
//! 3. If a refresh is due, the operator is asked first, in a task of its own, once however many
//!    requests bring the cookie; the page waits at most [`max_wait`](EuidLayer::max_wait) and goes on
//!    with a token that is still valid. An answer that comes later is there for the next request.
//! 4. A handler says [`EuidUpdate::login`], [`logout`](EuidUpdate::logout) or
//!    [`opt_out`](EuidUpdate::opt_out) in its response; the layer takes it out and writes the
//!    cookies. Logout beats login.
//! 5. A response that writes a cookie is `no-store`; one whose handler read the token is `private, no-cache`
//!    and varies on `Cookie`.
//!
//! More of it, and why there are two cookies: [`docs::request_flow`]. What a page sees when the
//! operator is down, and what to do: [`docs::failures`]. Running it: [`docs::operations`]. What it
//! protects against: [`docs::threat_model`]. Coming from something else: [`docs::migrating`]. What it
//! costs: [`docs::performance`].
//!
//! # States
//!
//! | [`Euid`] | meaning | what to do |
//! | --- | --- | --- |
//! | `Absent` | no identity | if the visitor is signed in and consents, generate one |
//! | `Active` | here is the token | put it into the bid request: [`openrtb`] |
//! | `OptedOut` | the person opted out | do not ask again soon |
//! | `Unavailable` | an identity, but no usable token now | send no token; the next request may have one |
//! | `Withheld` | no consent, says the hook [`EuidLayer::consent`] | send no token, generate none |
//!
//! # Features
//!
//! | feature | default | packages | adds |
//! | --- | --- | --- | --- |
//! | none | | 64 | the layer, cookies, [`openrtb`] |
//! | `client` | yes | 133 | [`EuidClient`], on reqwest and rustls (needs a C compiler) |
//! | `axum` | yes | 70 | extractors and response parts for axum 0.8 |
//! | `metrics` | no | 66 | counters, histograms and a gauge through the `metrics` facade: [`docs::metrics`] |
//! | `sandbox` | no | 151 | module `sandbox`, a stand-in operator for demos and for tests of your site |
//!
//! The packages are those that cargo builds for the feature alone, on x86-64 Linux.
//! Features only add items. Without `client`, give the layer a [`Refresh`] of your own.
//!
//! # Running
//!
//! A refresh needs a tokio runtime with its timer (`enable_all`, which `#[tokio::main]` does).
//! Outside one the layer still reads cookies and hands out tokens that are valid; it just refreshes
//! nothing. On a runtime without its timer the same holds, but each due page costs a caught panic
//! and the message that goes with it (and with `panic = "abort"` the process).

#![cfg_attr(docsrs, feature(doc_cfg))]

mod cache;
#[cfg(feature = "client")]
mod client;
mod clock;
mod cookie;
#[cfg(feature = "client")]
mod env;
mod error;
mod extension;
#[cfg(feature = "axum")]
mod extract;
mod future;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod identity;
mod layer;
mod mistakes;
mod nested;
mod observe;
pub mod openrtb;
mod plan;
mod random;
mod refresh;
mod response;
#[cfg(feature = "sandbox")]
pub mod sandbox;
mod service;
mod sight;
mod update;

pub mod docs {
    //! Pages for people.
    //!
    //! | question | page |
    //! | --- | --- |
    //! | what happens to a request, step by step | [`request_flow`] |
    //! | what a page sees when something goes wrong, and what to do | [`failures`] |
    //! | keys, deploys, CDNs, proxies, alerts | [`operations`] |
    //! | what is promised against whom, and what is not | [`threat_model`] |
    //! | how to come here from something else | [`migrating`] |
    //! | what it costs, and what others do | [`performance`] |
    //! | what it logs and counts | [`metrics`] |
    //! | the cookies, byte by byte | [`cookie_format`] |

    #[doc = include_str!("docs/cookie_format.md")]
    pub mod cookie_format {}
    #[doc = include_str!("docs/failures.md")]
    pub mod failures {}
    #[doc = include_str!("docs/metrics.md")]
    pub mod metrics {}
    #[doc = include_str!("docs/migrating.md")]
    pub mod migrating {}
    #[doc = include_str!("docs/operations.md")]
    pub mod operations {}
    #[doc = include_str!("docs/plots/for_rustdoc.md")]
    #[doc = include_str!("docs/performance.md")]
    pub mod performance {}
    #[doc = include_str!("docs/request_flow.md")]
    pub mod request_flow {}
    #[doc = include_str!("docs/threat_model.md")]
    pub mod threat_model {}
}

#[cfg(feature = "client")]
pub use client::dii::{Dii, InvalidDii};
#[cfg(feature = "client")]
pub use client::{Environment, EuidClient, EuidClientBuilder, GenerateRequest, Generated};
pub use clock::{Clock, ManualClock, SystemClock, UnixMillis};
pub use cookie::{CookieConfig, CookieKey, KeyRing, SameSite};
#[cfg(feature = "client")]
pub use env::from_env;
pub use error::{ConfigError, ErrorKind, EuidError, InvalidIdentity};
pub use extension::{Euid, EuidLogout};
#[cfg(feature = "axum")]
pub use extract::EuidLayerMissing;
pub use future::ResponseFuture;
pub use identity::{AdvertisingToken, Identity, IdentityTimes, RefreshToken, ResponseKey};
pub use layer::{EuidLayer, RefreshMode};
pub use plan::Consent;
pub use refresh::{Refresh, RefreshFn, Refreshed, refresh_fn};
pub use service::EuidService;
pub use update::EuidUpdate;

/// The README's code compiles as it stands there.
#[cfg(all(doctest, feature = "client", feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;
