//! What the supervisor itself costs, looked at from outside: memory, descriptors, threads, children that nobody reaps.

use std::time::Duration;

use serde::Serialize;

use crate::{processes::Process, wait};

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Vitals {
    pub rss_bytes: u64,
    pub descriptors: usize,
    pub threads: u64,
    /// Dead children that were still there after a while.
    pub zombies: usize,
}

/// A dead child is reaped as soon as its exit is reported; one that is there for longer is forgotten.
const REAPED_WITHIN: Duration = Duration::from_secs(2);

impl Vitals {
    /// Looks; waits a moment where there are dead children or clients that are on their way.
    pub fn of(supervisor: Process) -> Self {
        let mut zombies = supervisor.zombies();
        if !zombies.is_empty() {
            let _ = wait::poll(REAPED_WITHIN, || {
                let now = supervisor.zombies();
                zombies.retain(|pid| now.contains(pid));
                zombies.is_empty().then_some(())
            });
        }
        // A client of the control socket is a descriptor more for the time of its question: the least of some looks.
        let looks = (0..20).map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            supervisor.descriptors()
        });
        Self {
            rss_bytes: supervisor.resident(),
            descriptors: looks.min().unwrap_or(0),
            threads: supervisor.figure("Threads").unwrap_or(0),
            zombies: zombies.len(),
        }
    }
}

/// One supervisor from its warm-up to its end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Life {
    pub pid: u32,
    /// Seconds between the two looks.
    pub seconds: f64,
    pub start: Vitals,
    pub end: Vitals,
}

/// Memory that a supervisor may come to hold after its warm-up, however long it runs: the log's ring (4 MiB), lines on
/// their way to standard error (1 MiB), post-mortems in memory (20 of up to 256 KiB, mostly of 20 KB), per camera a full
/// queue (6 s of audio, its state with each window in flight: 1 MB), and what the allocator keeps of batches and records
/// that waited while others were dead.
pub fn room_to_grow(cameras: usize) -> u64 {
    (5 << 20) + 20 * (256 << 10) + ((cameras as u64) << 20) + (4 << 20)
}

impl Life {
    /// What has grown although it should not.
    pub fn growth(&self, cameras: usize) -> Vec<String> {
        let mut grown = Vec::new();
        let mut note = |what: &str, start: u64, end: u64, room: u64| {
            if end > start + room {
                grown.push(format!(
                    "supervisor {}: {what} grew from {start} to {end} in {:.0} s",
                    self.pid, self.seconds
                ));
            }
        };
        let (start, end) = (&self.start, &self.end);
        note("memory", start.rss_bytes, end.rss_bytes, room_to_grow(cameras));
        // The same workers run, so the same descriptors are open; one client may just be asking.
        note("descriptors", start.descriptors as u64, end.descriptors as u64, 1);
        note("threads", start.threads, end.threads, 0);
        note("zombies", 0, end.zombies as u64, 0);
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_named() {
        let start = Vitals { rss_bytes: 10 << 20, descriptors: 50, threads: 3, zombies: 0 };
        let end = Vitals { rss_bytes: 12 << 20, ..start };
        let life = Life { pid: 1, seconds: 1.0, start, end };
        assert!(life.growth(4).is_empty());
        let end = Vitals { rss_bytes: 90 << 20, descriptors: 52, threads: 4, zombies: 1 };
        assert_eq!(Life { end, ..life }.growth(4).len(), 4);
    }

    #[test]
    fn a_child_that_nobody_reaps_is_seen() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let this = Process::of(std::process::id()).unwrap();
        let id = child.id();
        wait::until("the end of it", wait::PATIENCE, || this.zombies().contains(&id).then_some(()));
        child.wait().unwrap();
        assert!(!this.zombies().contains(&id));
        assert!(this.descriptors() > 2 && this.figure("Threads").is_some_and(|n| n > 0));
    }
}
