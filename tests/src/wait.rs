//! Waiting for something to become true, by looking often and giving up at a deadline.

use std::{
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// How long the tests wait for something that is sure to come on a machine that is not overloaded.
pub const PATIENCE: Duration = Duration::from_secs(45);

const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Looks until `look` returns something; `None` when `within` is over.
pub fn poll<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        sleep(LOOK_EVERY);
    }
}

/// Looks until `look` returns something; panics with `what` when `within` is over.
pub fn until<T>(what: &str, within: Duration, look: impl FnMut() -> Option<T>) -> T {
    poll(within, look).unwrap_or_else(|| panic!("{what}: not within {within:?}"))
}

/// Waits for a child, no longer than `within`.
pub fn for_exit(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    poll(within, || child.try_wait().expect("wait for a child"))
}

/// Runs a command to its end and returns what it wrote; kills it and panics when that takes longer than
/// `within`.
pub fn output(command: &mut Command, within: Duration) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("start {command:?}: {e}"));
    let stdout = read_all(child.stdout.take().expect("piped"));
    let stderr = read_all(child.stderr.take().expect("piped"));
    let Some(status) = for_exit(&mut child, within) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!(
            "{command:?}: still running after {within:?}\nstdout: {}\nstderr: {}",
            String::from_utf8_lossy(&stdout.join().expect("reader")),
            String::from_utf8_lossy(&stderr.join().expect("reader")),
        );
    };
    Output { status, stdout: stdout.join().expect("reader"), stderr: stderr.join().expect("reader") }
}

fn read_all(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}
