//! `nursery`: the supervisor and its command line.

fn main() -> std::process::ExitCode {
    nursery_supervisor::main()
}
