//! wip

#[cfg(feature = "client")]
mod client;
mod clock;
mod error;
mod identity;
mod random;
mod refresh;
#[cfg(feature = "sandbox")]
pub mod sandbox;

#[cfg(feature = "client")]
pub use client::dii::{Dii, InvalidDii};
#[cfg(feature = "client")]
pub use client::{Environment, EuidClient, EuidClientBuilder, GenerateRequest, Generated};
pub use clock::{Clock, ManualClock, SystemClock, UnixMillis};
pub use error::{ConfigError, ErrorKind, EuidError, InvalidIdentity};
pub use identity::{AdvertisingToken, Identity, IdentityTimes, RefreshToken, ResponseKey};
pub use refresh::{Refresh, RefreshFn, Refreshed, refresh_fn};
