//! Where values ride: the cookies of the layer, found and rendered, and the cookies of scripts. Nothing here knows what a
//! value is.

pub mod config;
pub mod cookie;
pub mod js_sdk;
pub mod slots;

pub use self::config::{CookieConfig, SameSite};
