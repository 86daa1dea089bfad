//! Tests of the client and of the sandbox, over real sockets and in memory.

#[path = "../support/mod.rs"]
mod support;

mod clock;
mod connections;
mod environment;
mod faults;
mod hangups;
mod http_service;
mod sandbox;
mod tls;
mod visitor;
