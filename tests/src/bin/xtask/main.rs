//! `cargo xtask`: what developers do with this repository, in one place.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bench;
mod capture_cost;
mod chaos;
mod deb;
mod figures;
mod latency;
mod mttr;
mod screenshots;
mod simulate;
mod viewers;

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What developers do with nursery's repository.")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Format, lints and, where cargo-deny is installed, the dependency tree
    Check,
    /// Every test, as README.md says; arguments go to `cargo test`
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Everything that must pass before a change goes in (`.ci/run`)
    Ci,
    /// What many cameras cost, miss and delay, nursery beside what people would run instead
    Bench(Box<bench::Args>),
    /// Time from a baby's first cry at the camera to the webhook's arrival
    Latency(latency::Args),
    /// Time from SIGKILL of a worker to the first progress of its replacement
    Mttr(mttr::Args),
    /// What many viewers of one camera cost, and how evenly they get their pictures
    Viewers(viewers::Args),
    /// What a capture process costs beside ffmpeg on the same stream: processor, proportional memory
    CaptureCost(capture_cost::Args),
    /// Pictures of the page at the size of a phone and of a desk, in a real browser
    Screenshots(screenshots::Args),
    /// Runs seeds of the simulator: years of faults under a virtual clock
    Simulate(simulate::Args),
    /// Violence: hurts everything of a running service for --minutes N and holds what was played against what was told
    Chaos(chaos::Args),
    /// Builds the Debian package into target/debian; needs cargo-deb (`cargo install cargo-deb`) and binutils
    Deb,
    /// Feeds everything that reads foreign bytes with mutated inputs: [TARGET] [--minutes M] [--seed S], see --help
    #[command(disable_help_flag = true)]
    Fuzz {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let task = Cli::parse().task;
    let done = match task {
        Task::Check => check(),
        Task::Test { arguments } => {
            let mut all = vec!["test", "--release", "--workspace"];
            all.extend(arguments.iter().map(String::as_str));
            cargo(&all)
        }
        Task::Ci => run(&mut Command::new(Path::new(ROOT).join(".ci/run"))),
        Task::Bench(args) => build() && bench::run(&args),
        Task::Viewers(args) => build() && viewers::run(&args),
        Task::CaptureCost(args) => build() && capture_cost::run(&args),
        Task::Latency(args) => {
            build() && {
                latency::run(&args);
                true
            }
        }
        Task::Mttr(args) => {
            build() && {
                mttr::run(&args);
                true
            }
        }
        Task::Screenshots(args) => build() && screenshots::run(&args),
        Task::Simulate(args) => simulate::run(&args),
        Task::Chaos(args) => build() && chaos::run(&args),
        Task::Deb => build() && deb::run(),
        Task::Fuzz { arguments } => build() && fuzz(&arguments),
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn check() -> bool {
    cargo(&["fmt", "--all", "--check"])
        && cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])
        && deny()
}

fn deny() -> bool {
    let installed = Command::new("cargo-deny").arg("--version").output().is_ok_and(|o| o.status.success());
    if !installed {
        eprintln!("cargo-deny is not installed; deny.toml was not checked");
        return true;
    }
    // Advisories need the network: `cargo deny check advisories`, and `.ci/run` where it can.
    cargo(&["deny", "check", "bans", "licenses", "sources"])
}

/// The binaries that are measured. The whole workspace, since features of dependencies (and so what is built
/// anew) depend on what is built together.
fn build() -> bool {
    cargo(&["build", "--release", "--workspace"])
}

/// The program with the targets, beside this one.
fn fuzz(arguments: &[String]) -> bool {
    match std::env::current_exe() {
        Ok(this) => run(Command::new(this.with_file_name("nursery-fuzz")).args(arguments)),
        Err(e) => {
            eprintln!("nursery-fuzz cannot be found: {e}");
            false
        }
    }
}

fn cargo(arguments: &[&str]) -> bool {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What cargo tells those that it runs: build scripts that look at it would take it for a change, and run again.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
            command.env_remove(name);
        }
    }
    run(command.args(arguments))
}

fn run(command: &mut Command) -> bool {
    match command.current_dir(ROOT).status() {
        Ok(status) => status.success(),
        Err(e) => {
            eprintln!("{}: {e}", command.get_program().display());
            false
        }
    }
}
