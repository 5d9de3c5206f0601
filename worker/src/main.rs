//! `nursery-worker ROLE`: every process that nursery starts beside its supervisor, and the offline detector.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nursery_worker::{capture, detect, examine, infer, info, light, listen, logging, sink, web};

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
    /// Serves the page and the API (started by the supervisor)
    Web,
    /// Makes pictures of cameras (started by the supervisor)
    Light,
    /// Plays a camera's live audio, or writes it as WAV
    Listen(listen::Args),
    /// Runs the detector over recordings
    Detect(detect::Args),
    /// Prints stored events
    Events(sink::query::Args),
    /// Writes events, scores, outages or feedback as a table
    Export(sink::export::Args),
    /// Prints the windows that were set aside because inference processes died of them
    Quarantine(sink::quarantine::Args),
    /// Prints version and model as JSON
    Info(info::Args),
    /// Tells what every thread of a process is doing (started by the supervisor)
    #[command(hide = true)]
    Examine(examine::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.role {
        RoleCommand::Capture => logging::run_role(capture::run),
        RoleCommand::Infer => logging::run_role(infer::run),
        RoleCommand::Sink => logging::run_role(sink::run),
        RoleCommand::Web => logging::run_role(web::run),
        RoleCommand::Light => logging::run_role(light::run),
        RoleCommand::Listen(args) => listen::run(args),
        RoleCommand::Detect(args) => detect::run(args),
        RoleCommand::Events(args) => sink::query::run(args),
        RoleCommand::Export(args) => sink::export::run(args),
        RoleCommand::Quarantine(args) => sink::quarantine::run(args),
        RoleCommand::Info(args) => info::run(args),
        RoleCommand::Examine(args) => examine::run(args),
    }
}
