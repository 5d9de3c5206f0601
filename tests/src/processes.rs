//! Looks at processes through /proc: who is whose child, who is still there, what they show to others.

use std::{fs, path::PathBuf, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait;

/// A process, told apart from a later one with the same id by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    pub pid: u32,
    start: u64,
}

struct Stat {
    parent: u32,
    state: char,
    start: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so the fields are counted from the last parenthesis.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("read /proc");
    entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect()
}

impl Process {
    /// The process that has this id now; `None` where there is none, or only its remains.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = stat(pid)?;
        (stat.state != 'Z' && stat.state != 'X').then_some(Self { pid, start: stat.start })
    }

    /// True until it is dead (a process that only waits to be reaped is dead).
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal to this very process; false where it is no longer there.
    pub fn signal(self, signal: Signal) -> bool {
        self.is_alive() && kill(Pid::from_raw(self.pid as i32), signal).is_ok()
    }

    /// All living processes below this one.
    pub fn descendants(self) -> Vec<Self> {
        let parents: Vec<(u32, u32)> =
            all().into_iter().filter_map(|pid| Some((pid, stat(pid)?.parent))).collect();
        let mut found = vec![self.pid];
        let mut next = 0;
        while next < found.len() {
            let parent = found[next];
            found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        found[1..].iter().filter_map(|&pid| Self::of(pid)).collect()
    }

    /// Its arguments, as everybody on the machine can read them.
    pub fn arguments(self) -> Vec<u8> {
        fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default()
    }

    /// Its environment as it was at its start.
    pub fn environment(self) -> Vec<u8> {
        fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default()
    }

    /// The program that it runs.
    pub fn program(self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/exe", self.pid)).ok()
    }

    /// Its remains that wait to be reaped: children of this process that are dead.
    pub fn zombies(self) -> Vec<u32> {
        let is_one = |pid: &u32| stat(*pid).is_some_and(|s| s.parent == self.pid && s.state == 'Z');
        all().into_iter().filter(is_one).collect()
    }

    /// Its open descriptors.
    pub fn descriptors(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }

    /// A figure of `/proc/PID/status`, such as `Threads` or `VmData` (kilobytes).
    pub fn figure(self, name: &str) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.split_whitespace().next()?.parse().ok()
    }

    /// Memory that it holds now, in bytes.
    pub fn resident(self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/statm", self.pid)).unwrap_or_default();
        let pages: u64 = text.split(' ').nth(1).and_then(|f| f.parse().ok()).unwrap_or(0);
        pages * 4096
    }
}

/// Waits until every one of them is dead; otherwise says which are not.
pub fn all_gone(processes: &[Process], within: Duration) -> Result<(), String> {
    let left = || processes.iter().filter(|p| p.is_alive()).copied().collect::<Vec<_>>();
    match wait::poll(within, || left().is_empty().then_some(())) {
        Some(()) => Ok(()),
        None => Err(left()
            .iter()
            .map(|p| format!("{} ({})", p.pid, String::from_utf8_lossy(&p.arguments()).replace('\0', " ")))
            .collect::<Vec<_>>()
            .join(", ")),
    }
}
