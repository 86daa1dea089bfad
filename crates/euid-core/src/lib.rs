//! The core of [EUID](https://euid.eu) (European Unified ID) for publishers, without I/O: it reads the state
//! of a visitor's identity from a request, decides what the page may see, and writes the new state into
//! the response. It opens no socket, starts no task and has no clock.
//!
//! The same holds for [UID2](https://unifiedid.com) (Unified ID 2.0). The two are the *scopes*: an [`engine`] serves one
//! [`Scope`], or both, one for each request.
//!
//! EUID's *operator* issues an [`Identity`] for a person who logs in and consents. The site puts the identity's
//! *advertising token* into bid requests, and exchanges its *refresh token* for a new pair of tokens when that is due.
//!
//! Use this crate where tower does not run: in an edge program, in another web framework, or in a host written in
//! another language. With tower (axum, tonic, hyper), use [tower-euid](https://docs.rs/tower-euid): it drives this
//! crate, calls the operator once for many requests, and exports these types, so code for one crate fits the other.
//!
//! # One exchange
//!
//! A *host* is the program that has the sockets. It drives the [`engine`] through one request and its response:
//!
//! ```text
//!  request ──► begin ──┬─ Ready ──────────────────────────┐
//!                      └─ Refresh ──► operator ──► settle ─┤   (the host makes the call)
//!                                                          ▼
//!                                                       decision
//!                                                          │ start
//!                                                          ├──► Euid ──► handler ──► Change
//!                                                          ▼                            │
//!  response ◄── Set-Cookie, Cache-Control ◄── finish ◄── pending ◄──────────────────────┘
//! ```
//!
//! 1. **begin** reads the headers of the request. It returns a decision or, if a refresh is due, a *candidate*.
//!    Its argument `context` holds the site's facts about the request: the visitor's [`Consent`], the signed-in user
//!    and, for an engine with both scopes, the scope that serves the request.
//! 2. **refresh**: the host calls the operator. [`operator`] makes the HTTP request and reads the response. The
//!    host chooses the HTTP client and the deadline, and may share one call among many requests.
//! 3. **settle** turns the candidate and the outcome of the refresh into a decision. Without an outcome,
//!    **postpone** does.
//! 4. **start** splits the decision: the host shows an [`Euid`] to the handler, and keeps the rest (*pending*).
//! 5. The handler makes the response. It may ask for a change: a login, a logout, an opt-out.
//! 6. **finish** writes into the headers of the response: cookies (or, for an app, headers of its own), and a
//!    `Cache-Control` that keeps caches from showing one visitor's page to another.
//!
//! ```
//! use euid_core::clock::UnixMillis;
//! use euid_core::engine::{Change, Engine, RequestContext, Step};
//! use euid_core::{Euid, EuidError, Identity, Refreshed};
//! use http::{Request, Response};
//!
//! /// Answers a request. `refresh` calls the operator, `handler` makes the page and may ask for a change.
//! fn serve<B>(
//!     engine: &Engine,
//!     request: &Request<()>,
//!     now: impl Fn() -> UnixMillis,
//!     refresh: impl FnOnce(&Identity) -> Result<Refreshed, EuidError>,
//!     handler: impl FnOnce(&Euid) -> (Response<B>, Option<Change>),
//! ) -> Response<B> {
//!     let (method, headers) = (request.method(), request.headers());
//!     let decision = match engine.begin(method, headers, &RequestContext::UNRESTRICTED, &now) {
//!         Step::Ready(decision) => decision,
//!         Step::Refresh(candidate) if candidate.may_refresh() && candidate.may_wait() => {
//!             candidate.settle(&refresh(candidate.identity()), now())
//!         }
//!         Step::Refresh(candidate) => candidate.postpone(now()),
//!         Step::Load(_) => unreachable!("only with a store"),
//!     };
//!     let (euid, pending) = decision.start();
//!     let (mut response, change) = handler(&euid);
//!     let status = response.status();
//!     engine.finish(pending, change.as_ref(), status, response.headers_mut(), now);
//!     response
//! }
//! # let (engine, new_pair, headers, _) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/visitor.rs"));
//! # let at = UnixMillis::from_millis;
//! # let mut request = Request::new(());
//! # *request.headers_mut() = headers;
//! # let call = |_: &Identity| Ok(Refreshed::Identity(new_pair));
//!
//! // A visitor comes back when a refresh is due. The page gets the new token, the browser the new pair.
//! let page = |euid: &Euid| (Response::new(euid.eids()), None);
//! let response = serve(&engine, &request, || at(15_000), call, page);
//! assert!(response.headers()["set-cookie"].as_bytes().starts_with(b"__Host-euid."));
//! # assert_eq!(response.headers()["cache-control"], "private, no-store");
//! # let response = serve(&engine, &request, || at(5_000), |_| panic!("nothing is due"), |_| (Response::new(()), Some(Change::EndLogin)));
//! # assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! For `refresh`, [`Operator::refresh`] makes the request and [`Operator::refreshed`] reads the response. If there is no
//! response, the outcome is an error of the host's own: `EuidError::new(ErrorKind::Transient, "no response in time")`.
//! A login is a change that a handler asks for, after another call:
//!
//! ```
//! use bytes::Bytes;
//! use euid_core::clock::UnixMillis;
//! use euid_core::engine::Change;
//! use euid_core::{Dii, EuidError, Operator};
//! use http::{Request, Response};
//!
//! /// Returns the change that the handler of a login asks for. First authenticate the visitor and check their consent.
//! /// `send` is the host's HTTP client. On an error, ask for `Change::EndLogin`: the previous identity may be another
//! /// person's.
//! fn login(
//!     operator: &Operator,
//!     email: &str,
//!     now: UnixMillis,
//!     send: impl FnOnce(Request<Bytes>) -> Result<Response<Bytes>, EuidError>,
//! ) -> Result<Change, Box<dyn std::error::Error>> {
//!     let call = operator.generate(Dii::email(email)?, now)?;
//!     let response = send(call.request())?;
//!     Ok(operator.generated(&call, &response, now)?.into())
//! }
//! # let secret = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";
//! # let operator = Operator::builder(euid_core::Environment::Integration(euid_core::Scope::Euid)).credentials("EUID-C-T-124-example", secret).build()?;
//! # let now = UnixMillis::from_millis(1_795_371_587_000);
//! # let down = |_| Ok(Response::builder().status(503).body(Bytes::new()).unwrap());
//! # assert!(login(&operator, "user@example.com", now, down).is_err());
//! # #[cfg(feature = "operator")] {
//! # use euid_core::protocol::{open_request_text, parse_client_secret, seal_response};
//! # let key = parse_client_secret(secret)?;
//! # let opted_out = |request: Request<Bytes>| {
//! #     let nonce = open_request_text(&key, now, request.body()).unwrap().nonce;
//! #     let answer = seal_response(&key, [7; 12], now, nonce, br#"{"status":"optout"}"#);
//! #     Ok(Response::builder().header("content-type", "application/octet-stream").body(answer.into()).unwrap())
//! # };
//! # assert!(matches!(login(&operator, "user@example.com", now, opted_out)?, Change::OptOut(_)));
//! # }
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Time and randomness
//!
//! Time is an argument, `now`, of type [`clock::UnixMillis`]. A function that needs the time only sometimes takes a
//! closure instead. [`clock::Clock`] is a trait for hosts that want one. Randomness, for keys and nonces, comes from
//! the operating system.
//!
//! # Modules
//!
//! | module | holds |
//! | --- | --- |
//! | [`engine`] | the exchange above: from a request's headers to a response's |
//! | [`operator`] | the three calls to an operator of EUID or UID2, as HTTP requests and their answers |
//! | [`identity`] | the identity that the operator issues, and its parts |
//! | [`dii`] | the email address or phone number that an identity is made from |
//! | [`openrtb`] | the visitor's EUID as a part of an OpenRTB bid request |
//! | [`tcf`] | consent from the TC string of a consent banner |
//! | [`clock`] | moments and clocks |
//! | [`error`] | all errors |
//! | [`store`] | what a store of visitors' states holds: keys, values, conditions of a write |
//! | `protocol` | with the feature `operator`: the operator's side of the wire format |
//!
//! [`Scope`] in the root says which of the two an item is for, and holds what only a scope decides, such as the `source` of its
//! tokens in bid requests. The types that most programs need are also in the root. Most examples import from `tower_euid`, which exports
//! these items under the same paths. Without tower-euid, write `euid_core` instead.
//!
//! # Tests
//!
//! The crate [euid-sandbox](https://docs.rs/euid-sandbox) is a stand-in operator, of either scope, that needs no tower-euid. It runs on a
//! loopback port or in the test's own process. It also makes visitors (browsers with cookies) for every host that
//! implements [`engine::Site`].
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `axum` | no | extractors of this crate's types for axum 0.8 |
//! | `operator` | no | the operator's side of the protocol, for a stand-in operator |
//! | `wasm_js` | no | randomness on `wasm32-unknown-unknown`, from JavaScript's `crypto` |
//!
//! Features only add items.
//!
//! # Targets
//!
//! The crate runs wherever the crate `http` does. CI checks x86-64, aarch64, 32-bit x86, 64-bit RISC-V,
//! `wasm32-wasip1` and `wasm32-unknown-unknown`. The last target has neither a clock nor randomness of its own:
//! pass the time as an argument, and turn on `wasm_js` or give the crate `getrandom` a backend of your own.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "axum")]
mod axum;
mod cache_control;
pub mod clock;
mod consent;
pub mod dii;
pub mod engine;
pub mod error;
mod euid;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod hex;
pub mod identity;
pub mod openrtb;
pub mod operator;
mod outcome;
mod policy;
#[cfg(feature = "operator")]
#[cfg_attr(docsrs, doc(cfg(feature = "operator")))]
pub mod protocol;
#[cfg(not(feature = "operator"))]
mod protocol;
mod random;
mod reason;
mod scope;
mod sealed;
mod secret;
pub mod store;
pub mod tcf;
mod token;
mod transport;

#[cfg(feature = "axum")]
pub use axum::EuidLayerMissing;
pub use consent::Consent;
pub use dii::Dii;
pub use error::{ConfigError, EuidError};
pub use euid::{Euid, EuidLogoutHandle};
pub use identity::Identity;
pub use operator::{Environment, Operator, OperatorBuilder, Uid2Region};
pub use outcome::{GenerateRequest, Generated, Refreshed};
pub use reason::Reason;
pub use scope::Scope;
pub use sealed::{CookieKey, KeyRing, StoreSecret};
pub use token::AdvertisingToken;
pub use transport::{CookieConfig, HeaderConfig, SameSite};
