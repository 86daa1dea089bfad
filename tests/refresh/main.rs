//! Refreshes: which requests cause one, what requests share, and what happens while the operator fails or hangs.
//!
//! Tests never wait in real time: either tokio's time is paused, or nothing sleeps.

#[path = "../support/mod.rs"]
mod support;

mod backoff;
mod breaker;
mod concurrent;
mod due;
mod max_wait;
mod memo;
mod permits;
mod requests;
mod single_flight;
