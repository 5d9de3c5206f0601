//! The simulator's fixed budget, that it is deterministic, and that it finds the bugs that are planted in it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use nursery_tests::simulation::{Options, Planted, report, run};

/// What is run on every change.
const FAULTS: u64 = 1_000_000;
/// Seeds within which each planted bug must show.
const WITHIN: u64 = 10;

#[test]
fn a_million_faults_break_no_promise() {
    let summary = report::Summary::of(0.., |s| s.faults.total() >= FAULTS || !s.violations.is_empty());
    eprintln!("{summary}");
    assert!(summary.violations.is_empty(), "{}", summary.violations[0]);
    let never: Vec<&str> = nursery_tests::simulation::Fault::ALL
        .into_iter()
        .filter(|f| summary.faults.of(*f) == 0)
        .map(|f| f.name())
        .collect();
    assert!(never.is_empty(), "never happened: {never:?}");
    assert!(summary.real_stores > 0 && summary.compared > 0);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 11] {
        let options = Options { trace: true, ..Options::default() };
        let (a, b) = (run(seed, &options), run(seed, &options));
        assert!(a.trace.len() > 50 && a.trace == b.trace, "seed {seed}");
        assert_eq!((a.steps, a.faults, a.alerts, a.deliveries), (b.steps, b.faults, b.alerts, b.deliveries));
    }
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Planted::ALL {
        let options = Options { planted: Some(bug), ..Options::default() };
        let found = (0..WITHIN).find_map(|seed| run(seed, &options).violation);
        let violation = found.unwrap_or_else(|| panic!("{bug:?} is not found within {WITHIN} seeds"));
        eprintln!("{bug:?}: seed {}: {}", violation.seed, violation.what);
        assert!(violation.to_string().contains("cargo xtask simulate --seed"));
        assert!(!violation.last.is_empty(), "what happened last is shown");
    }
}
