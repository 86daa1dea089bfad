//! Tests of random histories of a browser and a site: an ended login must never be seen again, in any order of events.
//!
//! 1. A history has logins, logouts, refreshes, opt-outs, changes of user and consent, key rotations, evictions and
//!    waits. A response may reach the browser at any later time, or never. The layer is the real one; the browser,
//!    the operator and the clock are models, in `histories`.
//! 2. Two set-ups must hold: with bound identities, and with an update for every change of user.
//! 3. Two set-ups must fail, which shows that the model finds such failures: without the comparison of anchor and
//!    identity, and with pages that generate again without [`subject`](tower_euid::EuidLayer::subject).
//! 4. `jar.rs` tests that the browser's cookie jar keeps the rules of RFC 6265bis.
//!
//! `PROPTEST_CASES=100000 cargo test --release --test model -- --nocapture` plays that many histories of each set-up
//! that must hold, and prints the counts of events. `PROPTEST_RNG_SEED` selects others.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a model that breaks down fails its test"
)]

#[path = "../support/mod.rs"]
mod support;

mod histories;
mod jar;

use std::cell::RefCell;

use histories::{Model, Setup, Step, Tally, steps};
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};

/// Plays random histories, the same ones at each run unless the environment sets a seed. Returns the counts of
/// events, or the first failing history, minimized, with its failure.
fn play(setup: Setup) -> Result<Tally, (Vec<Step>, String)> {
    let mut config = Config { failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    if config.rng_seed == RngSeed::Random || !setup.must_hold() {
        config.rng_seed = RngSeed::Fixed(6265);
    }
    if !setup.must_hold() {
        config.cases = 10_000;
    }
    let tally = RefCell::default();
    match TestRunner::new(config).run(&steps(), |steps| Model::play(&steps, setup, &tally)) {
        Ok(()) => Ok(tally.into_inner()),
        Err(TestError::Fail(_, steps)) => Err(Model::minimize(steps, setup)),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// Asserts that all histories of a set-up pass, and that they reach every situation in [`REACHED`].
#[track_caller]
fn assert_holds(setup: Setup) {
    let tally = play(setup).unwrap_or_else(|(steps, failure)| panic!("{failure}\n{steps:#?}"));
    println!("{setup:?}\n{tally}");
    let missed: Vec<_> = REACHED.iter().filter(|event| tally.of(event) == 0).collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
}

/// The situations that a run must reach. Without them, it would prove little.
const REACHED: [&str; 22] = [
    "applied late: sent before the current state began",
    "applied: change of user",
    "applied: Clear-Site-Data",
    "applied: login",
    "applied: login by generating again",
    "applied: logout",
    "applied: opt-out found by a refresh",
    "applied: opt-out stated at a login",
    "applied: withdrawal",
    "evictions",
    "lost pair, by a late refresh",
    "lost pair: recovered by generating again",
    "requests whose identity the node can't open",
    "requests with two anchors",
    "seen: absent",
    "seen: absent, for a pair lost to a late response",
    "seen: active",
    "seen: opted out",
    "seen: unavailable",
    "seen: withheld",
    "steps of a key rotation, by deploy",
    "steps of a key rotation, by reload",
];

#[test]
fn ended_login_is_never_seen_if_identities_are_bound() {
    assert_holds(Setup::Bound);
}

#[test]
fn ended_login_is_never_seen_if_every_change_updates_the_layer() {
    assert_holds(Setup::Unbound);
}

#[test]
fn ended_login_returns_with_a_late_response_if_anchors_are_not_compared() {
    let (steps, failure) = play(Setup::MatchingAnchor).unwrap_err();
    println!("{failure}\n{steps:#?}");
    assert!(failure.contains("is seen while"), "{failure}");
    assert!(steps.len() <= 6, "{steps:#?}");
}

#[test]
fn login_of_the_previous_user_is_seen_if_unbound_pages_generate_again() {
    let (steps, failure) = play(Setup::UnboundGenerating).unwrap_err();
    println!("{failure}\n{steps:#?}");
    assert!(failure.contains("is seen while"), "{failure}");
    assert!(steps.len() <= 6, "{steps:#?}");
}
