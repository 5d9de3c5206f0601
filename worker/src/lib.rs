//! The worker processes of nursery and its offline detector. The library is there for `nursery-worker` itself and for
//! the simulator, which drives the judgement of the [`sink`] under a virtual clock.

mod capture;
mod detect;
mod infer;
mod info;
mod link;
mod logging;
mod media;
pub mod sink;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "nursery-worker", version, about = "Worker processes of nursery; started by `nursery`.")]
struct Cli {
    #[command(subcommand)]
    role: RoleCommand,
}

#[derive(Subcommand)]
enum RoleCommand {
    /// Listens to one camera (started by the supervisor)
    Capture,
    /// Scores windows (started by the supervisor)
    Infer,
    /// Stores events and delivers alerts (started by the supervisor)
    Sink,
    /// Runs the detector over recordings
    Detect(detect::Args),
    /// Prints stored events
    Events(sink::query::Args),
    /// Prints version and model as JSON
    Info(info::Args),
}

/// Runs the role or command that the command line names; what `nursery-worker` is.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.role {
        RoleCommand::Capture => logging::run_role(capture::run),
        RoleCommand::Infer => logging::run_role(infer::run),
        RoleCommand::Sink => logging::run_role(sink::run),
        RoleCommand::Detect(args) => detect::run(args),
        RoleCommand::Events(args) => sink::query::run(args),
        RoleCommand::Info(args) => info::run(args),
    }
}
