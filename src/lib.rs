//! wip

mod cache;
#[cfg(feature = "client")]
mod client;
mod clock;
mod cookie;
mod error;
mod extension;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod identity;
mod layer;
mod plan;
mod random;
mod refresh;
mod service;
mod update;

#[cfg(feature = "client")]
pub use client::dii::{Dii, InvalidDii};
#[cfg(feature = "client")]
pub use client::{Environment, EuidClient, EuidClientBuilder, GenerateRequest, Generated};
pub use clock::{Clock, ManualClock, SystemClock, UnixMillis};
pub use cookie::{CookieConfig, CookieKey, KeyRing};
pub use error::{ConfigError, ErrorKind, EuidError, InvalidIdentity};
pub use extension::Euid;
#[cfg(feature = "axum")]
pub use extract::EuidLayerMissing;
pub use future::ResponseFuture;
pub use identity::{AdvertisingToken, Identity, IdentityTimes, RefreshToken, ResponseKey};
pub use layer::{EuidLayer, RefreshMode};
pub use refresh::{Refresh, RefreshFn, Refreshed, refresh_fn};
pub use service::EuidService;
pub use update::EuidUpdate;
