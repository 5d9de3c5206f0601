//! The supervisor of nursery and its command line. The library is there for `nursery` itself and for the simulator,
//! which drives the [`policy`] under a virtual clock.

mod cli;
pub mod policy;
mod service;

/// Runs the command line; what `nursery` is.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
