//! `nursery-worker ROLE`: every process that nursery starts beside its supervisor, and the offline detector.

fn main() -> std::process::ExitCode {
    nursery_worker::main()
}
