//! The state in the cookies: how it is written, read, rejected and ended.

#[path = "../support/mod.rs"]
mod support;

mod attributes;
mod cookies;
mod js_sdk;
mod keys;
mod opt_out;
mod policy;
mod script_cookie;
mod secrets;
mod tampering;
