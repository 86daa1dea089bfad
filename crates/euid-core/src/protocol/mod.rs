//! The EUID v2 wire, without I/O: bytes in, typed outcomes out.
//!
//! [`envelope`] seals and opens, [`answer`] turns what came back into an outcome or the error that it
//! stands for. Neither knows a socket, a clock or a random generator.

pub mod answer;
pub mod envelope;
#[cfg(any(feature = "operator", test, fuzzing))]
mod json;
#[cfg(any(feature = "operator", test, fuzzing))]
pub mod operator;
#[cfg(test)]
mod vectors;

use http::HeaderName;

/// Where the calls go, below the operator's base URL.
pub const GENERATE: &str = "/v2/token/generate";
pub const REFRESH: &str = "/v2/token/refresh";
pub const VALIDATE: &str = "/v2/token/validate";
/// The header of every call. The name keeps its `UID2` for EUID too.
pub const CLIENT_VERSION: HeaderName = HeaderName::from_static("x-uid2-client-version");
