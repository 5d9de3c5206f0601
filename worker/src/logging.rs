//! A worker's log: plain lines on standard error, which the supervisor tags with time and name; and the exit
//! status of a role.

use std::process::ExitCode;

use tracing_subscriber::{filter::LevelFilter, fmt};

/// Starts logging, runs the role and turns its outcome into an exit status: 0 drained, 1 failed.
pub fn run_role(role: impl FnOnce() -> Result<(), String>) -> ExitCode {
    let level = match std::env::var("NURSERY_LOG").as_deref() {
        Ok("debug") => LevelFilter::DEBUG,
        Ok("trace") => LevelFilter::TRACE,
        Ok("warn") => LevelFilter::WARN,
        _ => LevelFilter::INFO,
    };
    // The supervisor adds the time; the target tells the module only where somebody debugs.
    fmt()
        .without_time()
        .with_ansi(false)
        .with_target(level >= LevelFilter::DEBUG)
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .init();
    match role() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
    }
}
