//! `nursery-capture`: the role `capture` of `nursery-worker` as a program of its own. There is a process of it for each
//! camera, and what a program has to set up for code that it never runs is memory that each of them has to itself.

use std::process::ExitCode;

use nursery_worker::{capture, logging};

fn main() -> ExitCode {
    if !std::env::args().skip(1).eq(["capture"]) {
        eprintln!("Listens to one camera; started by `nursery`, which lies beside it.");
        return ExitCode::from(2);
    }
    logging::run_role(capture::run)
}
