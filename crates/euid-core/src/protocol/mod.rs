//! The EUID v2 wire, without I/O: the operator's half, for programs that stand in for an operator.
//!
//! A publisher needs none of it: [`Operator`](crate::Operator) is the client's half. Here a request is opened as the
//! operator opens it, and a response sealed as it seals.
//!
//! ```
//! # #[cfg(feature = "operator")] {
//! use euid_core::protocol::{open_request_text, parse_client_secret, seal_response};
//! use euid_core::{Dii, Environment, Generated, Operator, Scope};
//! use euid_core::clock::UnixMillis;
//!
//! let secret = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";
//! let operator = Operator::builder(Environment::Integration(Scope::Euid)).credentials("EUID-C-T-124-example", secret).build()?;
//! let now = UnixMillis::from_millis(1_795_371_587_000);
//! let call = operator.generate(Dii::email("optout@example.com")?, now)?;
//!
//! let key = parse_client_secret(secret)?;
//! let request = open_request_text(&key, now, call.request().body()).unwrap();
//! assert!(request.payload.unwrap().contains_key("email_hash"));
//! let answer = seal_response(&key, [7; 12], now, request.nonce, br#"{"status":"optout"}"#);
//! let response = http::Response::builder().header("content-type", "application/octet-stream").body(answer)?;
//! assert_eq!(operator.generated(&call, &response, now)?, Generated::OptedOut);
//! # }
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

#![allow(unreachable_pub, reason = "the feature `operator` reaches more")]

// `envelope` seals and opens, `answer` turns a response into an outcome or the error that it stands for. Neither knows
// a socket, a clock or a random generator.
pub(crate) mod answer;
pub(crate) mod envelope;
#[cfg(any(feature = "operator", test, fuzzing))]
mod json;
#[cfg(any(feature = "operator", test, fuzzing))]
pub(crate) mod operator;
#[cfg(test)]
mod vectors;

use http::HeaderName;

#[cfg(feature = "operator")]
pub use self::envelope::{Iv, Key, RequestNonce, seal_request};
#[cfg(feature = "operator")]
pub use self::operator::{
    OpenedRequest, RequestError, api_key_prefix, decode_base64, decode_base64_url, documents, open, open_request,
    open_request_text, parse_client_secret, seal, seal_response, token_bits,
};

/// The path of the call for an identity, below the operator's base URL.
///
/// ```
/// # #[cfg(feature = "operator")] {
/// assert_eq!(euid_core::protocol::GENERATE, "/v2/token/generate");
/// # }
/// ```
pub const GENERATE: &str = "/v2/token/generate";
/// The path of the call for an identity's successor.
///
/// ```
/// # #[cfg(feature = "operator")] {
/// assert_eq!(euid_core::protocol::REFRESH, "/v2/token/refresh");
/// # }
/// ```
pub const REFRESH: &str = "/v2/token/refresh";
/// The path of the call that compares a token with a person.
///
/// ```
/// # #[cfg(feature = "operator")] {
/// assert_eq!(euid_core::protocol::VALIDATE, "/v2/token/validate");
/// # }
/// ```
pub const VALIDATE: &str = "/v2/token/validate";
/// The header that names the calling program. The name keeps its `UID2` for EUID too.
///
/// ```
/// # #[cfg(feature = "operator")] {
/// assert_eq!(euid_core::protocol::CLIENT_VERSION, "x-uid2-client-version");
/// # }
/// ```
pub const CLIENT_VERSION: HeaderName = HeaderName::from_static("x-uid2-client-version");
/// The end of the public API key of the crate euid-sandbox, the same in both scopes.
// It is here because the client refuses this key for a real operator, and does not depend on the sandbox.
#[doc(hidden)]
pub const SANDBOX_API_KEY: &str = "C-T-124-Sandbx.TheSandboxOperatorOfTowerEuidTakesThis";
