//! Runs seeds of the simulator without limit, or one of them with all that happens in it.

use std::{ops::Range, str::FromStr, time::Duration};

use nursery_tests::simulation::{Options, report};

#[derive(clap::Args)]
pub struct Args {
    /// Seeds from A up to, but not including, B
    #[arg(long, value_name = "A..B", conflicts_with_all = ["minutes", "seed"])]
    seeds: Option<Seeds>,
    /// Seeds that no run had before, for so long
    #[arg(long, conflicts_with = "seed")]
    minutes: Option<f64>,
    /// One seed
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: print everything that happens
    #[arg(long, requires = "seed")]
    trace: bool,
}

/// `A..B`.
#[derive(Debug, Clone)]
struct Seeds(Range<u64>);

impl FromStr for Seeds {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |t: &str| t.trim().parse::<u64>().ok();
        let (from, to) = text.split_once("..").ok_or("expected two numbers, as in 0..1000")?;
        match (number(from), number(to)) {
            (Some(from), Some(to)) if from < to => Ok(Self(from..to)),
            _ => Err("expected two numbers, the second one greater, as in 0..1000".into()),
        }
    }
}

/// Violations after which there is enough to look into.
const ENOUGH: usize = 10;
/// How often a long run says how far it is.
const SAY: Duration = Duration::from_secs(10);

/// Runs and prints; false where a promise was broken.
pub fn run(args: &Args) -> bool {
    if let Some(seed) = args.seed {
        let outcome = report::one(seed, &Options { trace: args.trace, ..Options::default() });
        outcome.trace.iter().for_each(|line| println!("{line}"));
        println!(
            "seed {seed}: {} faults, {} events, {} windows, {} alerts, {} deliveries",
            outcome.faults.total(),
            outcome.steps,
            outcome.windows,
            outcome.alerts,
            outcome.deliveries
        );
        return match outcome.violation {
            Some(violation) => {
                println!("{violation}");
                false
            }
            None => true,
        };
    }
    let limit = args.minutes.map(|m| Duration::from_secs_f64(m.clamp(0.0, 1e6) * 60.0));
    let seeds = match (&args.seeds, limit) {
        (Some(seeds), _) => seeds.0.clone(),
        (None, Some(_)) => fastrand::u64(1_000_000_000..u64::MAX / 2)..u64::MAX,
        (None, None) => 0..u64::MAX,
    };
    let mut said = Duration::ZERO;
    let summary = report::Summary::of(seeds, |summary| {
        if summary.took >= said + SAY {
            said = summary.took;
            eprintln!(
                "{} seeds, {} faults, {:.0} per second, {} violations",
                summary.seeds,
                summary.faults.total(),
                summary.rate(),
                summary.violations.len()
            );
        }
        summary.violations.len() >= ENOUGH || limit.is_some_and(|limit| summary.took >= limit)
    });
    summary.violations.iter().for_each(|violation| println!("{violation}\n"));
    println!("{summary}");
    summary.violations.is_empty()
}
