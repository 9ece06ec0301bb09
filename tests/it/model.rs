//! Properties: whatever is done in whatever order, what was promised holds.
//!
//! The cases are the same in every run, so that a red build is red again. Others, and more of them, with proptest's own
//! variables:
//!
//! ```text
//! PROPTEST_CASES=500 PROPTEST_RNG_SEED=7 cargo test --test it model::
//! ```
//!
//! A failure prints the seed and the shortest sequence that was found to show it.

mod fates;
mod knowledge;
mod memory;
mod replicas;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseResult, TestError, TestRunner, contextualize_config};

/// Runs a property for a number of cases, unless the environment says otherwise.
fn holds<S: Strategy>(cases: u32, strategy: &S, property: impl Fn(S::Value) -> TestCaseResult) {
    holds_shrinking(5000, cases, strategy, property);
}

/// The same where a case is real processes: trying so many shorter ones takes as many seconds.
fn holds_slowly<S: Strategy>(cases: u32, strategy: &S, property: impl Fn(S::Value) -> TestCaseResult) {
    holds_shrinking(50, cases, strategy, property);
}

fn holds_shrinking<S: Strategy>(
    max_shrink_iters: u32,
    cases: u32,
    strategy: &S,
    property: impl Fn(S::Value) -> TestCaseResult,
) {
    let rng_seed = RngSeed::Fixed(1);
    let config = contextualize_config(Config {
        cases,
        rng_seed,
        failure_persistence: None,
        max_shrink_iters,
        max_shrink_time: 60_000,
        ..Config::default()
    });
    let (cases, seed) = (config.cases, config.rng_seed);
    match TestRunner::new(config).run(strategy, property) {
        Ok(()) => {}
        Err(TestError::Abort(why)) => panic!("{why}"),
        Err(TestError::Fail(why, case)) => panic!(
            "{why}
{case:?}
in one of {cases} cases from {seed:?}"
        ),
    }
}
