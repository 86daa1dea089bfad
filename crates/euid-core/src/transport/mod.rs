//! The transport of values: finds and renders the layer's cookies and the cookies of scripts. It never interprets a
//! value.

pub(crate) mod config;
pub(crate) mod cookie;
pub(crate) mod js_sdk;
pub(crate) mod slots;

pub use self::config::{CookieConfig, SameSite};
