//! The layer around a service: what handlers find, what responses carry, what other layers do beside it.

#[path = "../support/mod.rs"]
mod support;

mod auto_traits;
#[cfg(feature = "axum")]
mod axum;
mod cache_control;
mod consent;
mod documents;
mod future;
mod logout_handle;
mod nested;
#[cfg(feature = "axum")]
mod order;
mod readiness;
mod service;
mod subject;
#[cfg(feature = "metrics")]
mod telemetry;
mod update;
