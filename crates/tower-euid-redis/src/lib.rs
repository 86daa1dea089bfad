//! A [`Store`](tower_euid::store::Store) on Redis or Valkey, for [tower-euid](tower_euid): the states of visitors on the
//! side of the site, shared by all its nodes.
//!
//! ```
//! use tower_euid_redis::RedisStore;
//!
//! let store = RedisStore::new("redis://:password@redis.internal:6379/0")?;
//! # Ok::<_, tower_euid::ConfigError>(())
//! ```
//!
//! # What the server needs
//!
//! * Redis 6 to 8 or Valkey, as one server or as a cluster. With Sentinel or a managed service, give the address that
//!   leads to the primary.
//! * `maxmemory-policy noeviction`. An evicted value can bring back a login that had ended, or forget an opt-out. A server
//!   without memory then refuses to write, and each write is an error.
//! * The commands `GET`, `EVALSHA`, `EVAL`, and in the script `EXISTS`, `GETRANGE`, `SET`; for one server also `ROLE`, if
//!   the user may use it. As an access control list: `~euid:* +get +evalsha +eval +exists +getrange +set +role`, and for a
//!   cluster `+cluster|slots`.
//! * About 900 bytes of memory for each visitor who is logged in.
//!
//! # What it does
//!
//! 1. A key is a [prefix](RedisStoreBuilder::prefix) and 64 hexadecimal digits. Its value is one string: 16 bytes of
//!    version, then the sealed state. It expires by itself (`PX`).
//! 2. A `get` is a `GET` to the primary. On one server, those that begin together share one round trip: a read waits for the
//!    tasks of the runtime that are ready before it, and takes the reads of these along. It never waits for the answer to another
//!    read. If the tasks have taken longer than 4 ms, each read of the next second is sent alone. So is each one in a cluster.
//! 3. One server that has become a replica is read for at most 100 ms more: the store asks for its role together with the first
//!    value on a connection, and again once the answer is that old.
//! 4. A `put` is one script, which compares and writes in one step.
//! 5. A call takes at most the [`timeout`](RedisStoreBuilder::timeout), 40 ms by default, whatever the server does. It repeats
//!    itself once, within that time, if its connection is lost. The script knows a `put` that has been done before by its
//!    version, so the second attempt does not refuse what the first one has written. If the process itself was frozen
//!    meanwhile, a call has up to 250 ms more, once, for an answer that arrived in that time; so has a read that the runtime was
//!    too busy to send.
//! 6. A connection is made in a task of its own, so a call that waits too long for it does not end it. The store connects
//!    at the first call, and again after a connection is lost. It also replaces a connection at most once a second if the
//!    server does not answer, or says that it is a replica: after a failover the address may lead to another server.
//! 7. Errors hold a fixed text and the code of the server's error. They never hold the URL, an address, a key or a value.
//!
//! # What a failover can lose
//!
//! Redis replicates after it has answered. A replica that becomes the primary may lack the last writes, and the command
//! `WAIT` does not prevent it. So a failover can lose a login: the visitor is logged out. It can also lose the end of a login:
//! then a copied cookie of that login works again until the login expires.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod commands;
mod env;
mod failure;
mod link;
mod reads;
mod store;

pub use self::builder::RedisStoreBuilder;
pub use self::env::{from_env, from_variables};
pub use self::store::RedisStore;

/// Compiles the README's code unchanged.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
