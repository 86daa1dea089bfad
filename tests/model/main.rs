//! What browsers make of our cookies: whatever happens in whatever order, nobody sees a login that is
//! over.
//!
//! 1. A model plays logins, logouts, refreshes, opt-outs, changes of user and of consent, nodes whose
//!    keys rotate, evictions and time against the real layer, and lets every answer reach the browser
//!    at any later moment, or never.
//! 2. With the comparison of anchor and identity made useless, the same model fails; so it does for
//!    pages that generate again without [`subject`](tower_euid::EuidLayer::subject).
//! 3. The jar itself keeps the rules of RFC 6265bis.
//!
//! `PROPTEST_CASES=100000 cargo test --release --test model -- --nocapture` plays that many cases of either
//! setup that must hold, and prints what happened in them; `PROPTEST_RNG_SEED` picks others.

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

/// Plays cases, the same every time unless told otherwise: what happened in them, or the first that
/// failed, made as short as it gets, and how it fails.
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
        Err(TestError::Fail(_, steps)) => Err(Model::shortest(steps, setup)),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[track_caller]
fn holds(setup: Setup) {
    let tally = play(setup).unwrap_or_else(|(steps, why)| panic!("{why}\n{steps:#?}"));
    println!("{setup:?}\n{tally}");
    let missed: Vec<_> = MET.iter().filter(|what| tally.of(what) == 0).collect();
    assert!(missed.is_empty(), "never met: {missed:?}");
}

/// What a run is worth nothing without.
const MET: [&str; 22] = [
    "applied late: asked before what counts was told",
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
    "lost pair: healed by generating again",
    "requests whose identity the node can't open",
    "requests with two anchors",
    "seen: absent",
    "seen: absent, for a pair lost to a late answer",
    "seen: active",
    "seen: opted out",
    "seen: unavailable",
    "seen: withheld",
    "steps of a key rotation, by deploy",
    "steps of a key rotation, by reload",
];

#[test]
fn nobody_sees_what_is_over_where_identities_are_bound() {
    holds(Setup::Bound);
}

#[test]
fn nobody_sees_what_is_over_where_every_change_is_told() {
    holds(Setup::Unbound);
}

#[test]
fn with_the_comparison_made_useless_a_late_answer_brings_an_ended_login_back() {
    let (steps, why) = play(Setup::Uncompared).unwrap_err();
    println!("{why}\n{steps:#?}");
    assert!(why.contains("is seen while"), "{why}");
    assert!(steps.len() <= 6, "{steps:#?}");
}

#[test]
fn a_page_that_generates_again_unbound_can_give_the_next_user_the_last_ones_login() {
    let (steps, why) = play(Setup::Careless).unwrap_err();
    println!("{why}\n{steps:#?}");
    assert!(why.contains("is seen while"), "{why}");
    assert!(steps.len() <= 6, "{steps:#?}");
}
