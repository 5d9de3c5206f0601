//! Everything is hurt at once while babies cry, and nothing of what could be heard is lost. Hours of it:
//! `cargo xtask chaos --minutes 60`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use nursery_tests::chaos::{self, Options};

#[test]
fn under_violence_every_cry_that_could_be_heard_is_announced_and_the_supervisor_does_not_grow() {
    let report = chaos::run(&Options {
        lasting: Duration::from_secs(80),
        cameras: 4,
        // `VIOLENCE_SEED=N` repeats another run.
        seed: std::env::var("VIOLENCE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1),
        disaster_every: Duration::from_secs(14),
        standstill: None,
        worker_memory_mb: 256,
    });
    println!("{report}");
    for note in &report.notes {
        nursery_tests::say_skipped("a part of the violence", note);
    }
    assert!(report.violations.is_empty(), "{report}");
    // It was violent, and there was something to be lost.
    assert!(report.faults.len() >= 15, "{report}");
    assert!(
        report.ledger.owed >= 6 && report.ledger.alerts_received == report.ledger.alerts_expected,
        "{report}"
    );
    assert!(!report.supervisors.is_empty(), "{report}");
}
