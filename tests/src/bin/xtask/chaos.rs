//! Hours of violence by command; see `nursery_tests::chaos`.

use std::{path::PathBuf, time::Duration};

use nursery_tests::chaos::{self, Options};

#[derive(clap::Args)]
pub struct Args {
    /// How long there are faults; the run takes a minute or two more
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    cameras: u32,
    /// Repeats a run, as far as the machine does
    #[arg(long)]
    seed: Option<u64>,
    /// Stop the supervisor for so many seconds once, in the middle
    #[arg(long, value_name = "SECONDS")]
    standstill: Option<f64>,
    /// Reload so many times meanwhile, with random changes
    #[arg(long, default_value_t = 0)]
    reloads: u32,
    /// Write the report, with every fault, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// False where a promise was broken.
pub fn run(args: &Args) -> bool {
    let seconds = |s: f64| Duration::from_secs_f64(s.clamp(0.0, 1e7));
    let options = Options {
        lasting: seconds(args.minutes * 60.0),
        cameras: args.cameras as usize,
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000)),
        disaster_every: Duration::from_secs(40),
        standstill: args.standstill.map(seconds),
        reloads: args.reloads,
        worker_memory_mb: 1024,
    };
    println!("seed {}", options.seed);
    let report = chaos::run(&options);
    println!("{report}");
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report).expect("JSON");
        if let Err(e) = std::fs::write(path, json) {
            eprintln!("{}: {e}", path.display());
            return false;
        }
    }
    report.violations.is_empty()
}
