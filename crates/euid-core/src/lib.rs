//! EUID for publishers, without I/O.
#![allow(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "axum")]
pub mod axum;
pub mod cache_control;
pub mod clock;
pub mod dii;
pub mod engine;
pub mod error;
pub mod euid;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
pub mod openrtb;
pub mod operator;
pub mod outcome;
pub mod policy;
pub mod protocol;
pub mod random;
pub mod sealed;
pub mod secret;
pub mod tcf;
pub mod token;
pub mod transport;

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub use clock::SystemClock;
pub use clock::{Clock, ManualClock, UnixMillis};
pub use dii::{Dii, InvalidDii};
pub use error::{ConfigError, ErrorKind, EuidError, InvalidIdentity};
pub use euid::{Euid, EuidLogout};
pub use identity::{Identity, IdentityTimes, RefreshToken, ResponseKey};
pub use outcome::{GenerateRequest, Generated, Refreshed};
pub use policy::Consent;
pub use sealed::{CookieKey, KeyRing};
pub use token::AdvertisingToken;
pub use transport::{CookieConfig, SameSite};
