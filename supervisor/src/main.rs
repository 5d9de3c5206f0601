//! `nursery`: the supervisor and its command line.

mod cli;
mod policy;
mod service;

fn main() -> std::process::ExitCode {
    cli::main()
}
