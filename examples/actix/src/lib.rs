//! A site on [actix-web](https://actix.rs) whose visitors have EUID tokens, without tower.
//!
//! [`middleware`] drives the engine of euid-core through each request, [`client`] calls the operator, and [`site`]
//! has the pages. `main.rs` runs them on a stand-in operator; the README says how.

#![warn(missing_docs)]

pub mod client;
mod flight;
mod headers;
pub mod middleware;
pub mod site;
