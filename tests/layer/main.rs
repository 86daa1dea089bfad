//! The layer around a service: the state in handlers, the headers of responses, and its place among other layers.

#[path = "../support/mod.rs"]
mod support;

mod auto_traits;
#[cfg(feature = "axum")]
mod axum;
mod cache_control;
mod consent;
mod documents;
mod explain;
mod future;
mod header_limit;
mod headers;
mod leftovers;
mod logout_handle;
mod nested;
#[cfg(feature = "axum")]
mod order;
mod readiness;
mod replay;
mod runtime;
mod scopes;
mod service;
mod stores;
mod subject;
#[cfg(feature = "metrics")]
mod telemetry;
mod update;
mod user_stores;
