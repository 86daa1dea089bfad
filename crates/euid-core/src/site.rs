//! A configured middleware, for tools that make visitors for its tests.

use std::time::Duration;

use crate::clock::UnixMillis;
use crate::engine::cookies::Cookies;
use crate::sealed::KeyRing;

/// What a visitor's cookies depend on.
pub trait Site {
    fn keys(&self) -> &KeyRing;
    fn cookies(&self) -> &Cookies;
    fn expiry_margin(&self) -> Duration;
    fn now(&self) -> UnixMillis;
}
