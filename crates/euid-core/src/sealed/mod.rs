//! The content of values: an identity or the record of an opt-out, sealed under a key of the ring, and the login that
//! it belongs to. It knows nothing of the transport of a value. [`record`] is the form in a store.

pub(crate) mod aead;
mod cookie_key;
pub(crate) mod keys;
pub(crate) mod login;
pub(crate) mod payload;
pub(crate) mod record;
mod store_secret;
mod text;
#[cfg(test)]
mod vectors;
mod weak;

pub use self::cookie_key::CookieKey;
pub use self::keys::KeyRing;
pub use self::store_secret::StoreSecret;
