//! Refreshes: which requests cause one, and what requests share while the operator answers, fails or hangs.

#[path = "../support/mod.rs"]
mod support;

mod bursts;
mod clocks;
mod requests;
