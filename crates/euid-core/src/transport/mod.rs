//! Where values ride: the cookies of the layer, found and rendered, and the cookies of scripts. Nothing here knows what a
//! value is.

pub(crate) mod config;
pub(crate) mod cookie;
pub(crate) mod js_sdk;
pub(crate) mod slots;

pub use self::config::{CookieConfig, SameSite};
