//! Many seeds, one after the other or on every core, and their figures.

use std::time::{Duration, Instant};

use super::{Counts, Fault, Options, Outcome, Violation, compare, run};
use crate::temp_dir::TempDir;

/// Every this many seeds the sink keeps its memory in a real SQLite store instead of the model of it.
const REAL_STORE: u64 = 50;
/// Every this many seeds are two runs that are compared, see [`compare`].
const COMPARED: u64 = 10;

/// The figures of many runs.
#[derive(Default)]
pub struct Summary {
    pub seeds: u64,
    pub real_stores: u64,
    pub compared: u64,
    pub steps: u64,
    pub windows: u64,
    pub alerts: u64,
    pub deliveries: u64,
    pub faults: Counts,
    pub violations: Vec<Violation>,
    pub took: Duration,
}

/// Runs one seed the way its number says: most with the model of the store, some with the real one, some compared.
pub fn one(seed: u64, options: &Options) -> Outcome {
    match kind(seed) {
        Kind::RealStore => {
            let dir = TempDir::in_memory();
            run(seed, &Options { store: Some(dir.path().to_owned()), ..options.clone() })
        }
        Kind::Compared => compare(seed, options),
        Kind::Plain => run(seed, options),
    }
}

#[derive(PartialEq)]
enum Kind {
    Plain,
    RealStore,
    Compared,
}

fn kind(seed: u64) -> Kind {
    match seed {
        s if s % REAL_STORE == REAL_STORE - 1 => Kind::RealStore,
        s if s % COMPARED == COMPARED - 2 => Kind::Compared,
        _ => Kind::Plain,
    }
}

impl Summary {
    /// Runs seeds until `enough`.
    pub fn of(seeds: impl Iterator<Item = u64>, mut enough: impl FnMut(&Self) -> bool) -> Self {
        let start = Instant::now();
        let mut summary = Self::default();
        for seed in seeds {
            let outcome = one(seed, &Options::default());
            summary.add(seed, outcome);
            summary.took = start.elapsed();
            if enough(&summary) {
                break;
            }
        }
        summary
    }

    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        match kind(seed) {
            Kind::RealStore => self.real_stores += 1,
            Kind::Compared => self.compared += 1,
            Kind::Plain => {}
        }
        self.steps += outcome.steps;
        self.windows += outcome.windows;
        self.alerts += outcome.alerts;
        self.deliveries += outcome.deliveries;
        self.faults.add_all(&outcome.faults);
        self.violations.extend(outcome.violation);
    }

    /// Faults per second of real time.
    pub fn rate(&self) -> f64 {
        self.faults.total() as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} seeds ({} with a real SQLite store, {} run twice and compared) in {:.1} s",
            self.seeds,
            self.real_stores,
            self.compared,
            self.took.as_secs_f64()
        )?;
        writeln!(
            f,
            "{} events, {} windows, {} alerts stored, {} deliveries",
            self.steps, self.windows, self.alerts, self.deliveries
        )?;
        writeln!(f, "{} faults, {:.0} per second:", self.faults.total(), self.rate())?;
        for fault in Fault::ALL {
            writeln!(f, "  {:>10}  {}", self.faults.of(fault), fault.name())?;
        }
        write!(f, "{} violations", self.violations.len())
    }
}
