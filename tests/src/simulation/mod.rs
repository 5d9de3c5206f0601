//! The simulator: the supervisor's policy, its routing and the sink's judgement, the real code of each, under a
//! virtual clock, in a world of workers, receivers, disks, hosts and operators that do everything they should not. One
//! seed is one run, always the same. After every event the [`truth`] is asked whether all promises still hold.
//!
//! `cargo xtask simulate` runs it without limit, `tests/tests/simulation.rs` a fixed budget.

mod agenda;
mod alerts;
mod capture;
mod disk;
mod faults;
mod host;
mod infer;
mod isolation;
mod law;
mod models;
mod outside;
mod planted;
mod process;
pub mod report;
mod run;
mod sink;
mod truth;
mod world;

pub use faults::{Counts, Fault};
pub use isolation::compare;
pub use planted::Planted;
pub use run::{Outcome, Violation, run};
pub use world::Options;
