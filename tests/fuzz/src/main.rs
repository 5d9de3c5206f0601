//! `nursery-fuzz`: feeds nursery's parsers with mutated inputs and holds them to their promises. Run it with
//! `cargo xtask fuzz`.
//!
//! An engine of our own, since on stable Rust the known ones either need a nightly compiler (cargo-fuzz), or replay a
//! corpus and draw random bytes without ever mutating the one into the other (bolero's default engine), and random
//! bytes pass no format's first check. Without the compiler's help to see which lines an input reaches, inputs are
//! told apart by the way they took: what came out of them, or what was said against them.

mod child;
mod corpus;
mod memory;
mod mutate;
mod scratch;
mod target;
mod targets;
mod watch;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

use child::Budget;
use target::Target;
use watch::{Outcome, Plan};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Feeds nursery's parsers with mutated inputs and holds them to their promises.
#[derive(Parser)]
#[command(name = "cargo xtask fuzz", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    run: Run,
    #[command(subcommand)]
    inner: Option<Inner>,
}

#[derive(Args)]
struct Run {
    /// What to fuzz; everything, one after another, unless given
    target: Option<String>,
    /// Minutes for each target
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Inputs of each target, instead of a time
    #[arg(long, conflicts_with = "minutes")]
    executions: Option<u64>,
    /// As many inputs as `cargo test` runs, instead of a time
    #[arg(long, conflicts_with_all = ["minutes", "executions"])]
    short: bool,
    /// Draws the inputs; drawn itself unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Lists the targets
    #[arg(long)]
    list: bool,
    /// Runs the target on this file and says what is wrong
    #[arg(long, value_name = "FILE", requires = "target")]
    replay: Option<PathBuf>,
    /// Where inputs that break a promise are written to
    #[arg(long, value_name = "DIR", default_value = "target/fuzz")]
    findings: PathBuf,
    /// Seconds after which an input hangs
    #[arg(long, hide = true)]
    patience: Option<f64>,
}

#[derive(Subcommand)]
enum Inner {
    /// The process that runs a target (started by this program)
    #[command(hide = true)]
    Child {
        target: String,
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        executions: Option<u64>,
        #[arg(long)]
        seconds: Option<f64>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.inner {
        Some(Inner::Child { target, seed, folder, executions, seconds }) => {
            let time = seconds.map(|s| Duration::from_secs_f64(s.clamp(0.0, 1e9)));
            find(&target)
                .and_then(|t| child::run(t, seed, Budget { executions, time }, &folder))
                .map(|()| true)
        }
        None => run(&cli.run),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn find(name: &str) -> Result<&'static Target, String> {
    let found = targets::ALL.iter().chain(&targets::PLANTED).find(|t| t.name == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = targets::ALL.iter().map(|t| t.name).collect();
        format!("there is no target {name:?}, expected one of: {}", names.join(", "))
    })
}

/// False where an input broke a promise.
fn run(args: &Run) -> Result<bool, String> {
    if args.list {
        targets::ALL.iter().for_each(|t| println!("{:<16} {}", t.name, t.about));
        return Ok(true);
    }
    let chosen = match &args.target {
        Some(name) => vec![find(name)?],
        None => targets::ALL.to_vec(),
    };
    if let (Some(file), Some(target)) = (&args.replay, chosen.first()) {
        let input = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
        return Ok(match child::replay(target, &input) {
            Ok(()) => {
                println!("{}: {} keeps every promise", target.name, file.display());
                true
            }
            Err(what) => {
                println!("{}: {}: {what}", target.name, file.display());
                false
            }
        });
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    println!(
        "{:<16} {:>11} {:>9} {:>6} {:>9} {:>9}  findings",
        "target", "executions", "per s", "kept", "most KiB", "most ms"
    );
    let mut well = true;
    for target in chosen {
        let budget = match (args.short, args.executions) {
            (true, _) => Budget { executions: Some(target.short), time: None },
            (_, Some(n)) => Budget { executions: Some(n), time: None },
            _ => Budget {
                executions: None,
                time: Some(Duration::from_secs_f64((args.minutes * 60.0).clamp(0.0, 1e9))),
            },
        };
        let mut plan = Plan::new(seed, budget, args.findings.clone());
        if let Some(seconds) = args.patience {
            plan.patience = Duration::from_secs_f64(seconds.clamp(0.1, 1e6));
        }
        let outcome = watch::run(target, &plan)?;
        well &= outcome.findings.is_empty();
        print(target, &outcome);
    }
    Ok(well)
}

fn print(target: &Target, outcome: &Outcome) {
    println!(
        "{:<16} {:>11} {:>9.0} {:>6} {:>9} {:>9.1}  {}",
        target.name,
        outcome.executions,
        outcome.executions as f64 / outcome.seconds.max(1e-6),
        outcome.kept,
        outcome.peak >> 10,
        outcome.slowest * 1000.0,
        outcome.findings.len(),
    );
    for finding in &outcome.findings {
        println!("  {}", finding.what);
        println!("  again: cargo xtask fuzz {} --replay {}", target.name, finding.file.display());
    }
}
