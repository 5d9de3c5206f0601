//! What a tree of processes costs: seconds of processor and proportional memory, by role, from the kernel's accounts.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
};

use crate::processes::Process;

/// The role of what has ended and was waited for.
pub const ENDED: &str = "ended children";

/// One process at a moment.
#[derive(Debug, Clone)]
struct Account {
    role: String,
    /// Its own, and of its children that have ended: seconds of processor.
    own: f64,
    ended: f64,
}

/// A tree of processes at a moment.
#[derive(Debug, Clone)]
pub struct Accounts(HashMap<Process, Account>);

impl Accounts {
    /// Of a process and all below it. `role` names a process.
    pub fn of(root: Process, role: impl Fn(Process) -> String) -> Self {
        let tree = [root].into_iter().chain(root.descendants());
        Self(
            tree.filter_map(|process| {
                let (own, ended) = seconds(process)?;
                Some((process, Account { role: role(process), own, ended }))
            })
            .collect(),
        )
    }

    /// Seconds of processor by role between `earlier` and this moment. What a process took that ended meanwhile, or began
    /// and ended, is found in its parent's account of ended children: nothing is lost or counted twice as long as parents
    /// wait for their children.
    pub fn since(&self, earlier: &Self) -> BTreeMap<String, f64> {
        let mut by_role: BTreeMap<String, f64> = BTreeMap::new();
        let mut add = |role: &str, s: f64| *by_role.entry(role.to_owned()).or_default() += s;
        for (process, now) in &self.0 {
            let before = earlier.0.get(process);
            add(&now.role, now.own - before.map_or(0.0, |b| b.own));
            add(ENDED, now.ended - before.map_or(0.0, |b| b.ended));
        }
        for (process, before) in &earlier.0 {
            if !self.0.contains_key(process) {
                add(ENDED, -(before.own + before.ended));
            }
        }
        by_role.retain(|role, s| role != ENDED || *s != 0.0);
        by_role
    }

    /// Seconds of processor of all of them since they began.
    pub fn total_s(&self) -> f64 {
        self.0.values().map(|account| account.own + account.ended).sum()
    }

    /// Seconds of processor of one process without its children.
    pub fn alone(process: Process) -> f64 {
        seconds(process).map_or(0.0, |(own, _)| own)
    }

    /// How many processes there are, by role.
    pub fn processes(&self) -> BTreeMap<String, usize> {
        let mut by_role = BTreeMap::new();
        for account in self.0.values() {
            *by_role.entry(account.role.clone()).or_default() += 1;
        }
        by_role
    }

    /// Bytes of memory by role, each page shared among those who have it (proportional set size).
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for (process, account) in &self.0 {
            match proportional(*process) {
                Some(bytes) => *memory.by_role.entry(account.role.clone()).or_default() += bytes,
                None if process.is_alive() => memory.closed += 1,
                None => {}
            }
        }
        memory
    }
}

/// Memory of a tree of processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub by_role: BTreeMap<String, u64>,
    /// Processes that cannot be looked into: other than root may not look into caged ones.
    pub closed: usize,
}

/// Seconds of processor of a process: its own, and its ended children's.
fn seconds(process: Process) -> Option<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{}/stat", process.pid)).ok()?;
    // The name in parentheses may hold anything. After it comes the third field.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    let ticks = |n: usize| fields.get(n - 3)?.parse::<f64>().ok();
    let second = per_second();
    let own = (ticks(14)? + ticks(15)?) / second;
    // Whole ticks are left out of what is begun; threads that have ended are missing where nanoseconds are counted.
    Some((own.max(of_threads(process)), (ticks(16)? + ticks(17)?) / second))
}

/// Seconds of processor of a process's threads, to the nanosecond.
fn of_threads(process: Process) -> f64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", process.pid)) else { return 0.0 };
    let of_one = |text: String| text.split(' ').next()?.parse::<f64>().ok();
    let all = threads.flatten().filter_map(|t| of_one(fs::read_to_string(t.path().join("schedstat")).ok()?));
    all.sum::<f64>() / 1e9
}

/// Ticks in a second, in which the kernel tells times of processes.
fn per_second() -> f64 {
    // SAFETY: takes a number, and gives one.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

/// `None` where it is not shown.
fn proportional(process: Process) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;
    use crate::wait;

    #[test]
    fn children_count_whether_they_live_or_have_ended() {
        // A parent that waits for one child that works, while another one, that worked, lives on. Both begin when they are
        // told to, after what was used before is known.
        let work = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let script = format!("exec 3<&0; read go; sh -c '{work}; read x <&3' & sh -c '{work}'; read x");
        let mut child = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        let root = Process::of(child.id()).unwrap();
        let start = Accounts::of(root, |_| "shell".into());
        child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        let found = wait::until("work of both", wait::PATIENCE, || {
            let by_role = Accounts::of(root, |_| "shell".into()).since(&start);
            let (living, ended) = (by_role.get("shell")?, by_role.get(ENDED)?);
            (*living > 0.05 && *ended > 0.05).then(|| by_role.clone())
        });
        assert!(found.values().all(|s| *s < 60.0), "{found:?}");
        let memory = Accounts::of(root, |_| "shell".into()).memory();
        assert!(memory.by_role["shell"] > 100_000 && memory.closed == 0, "{memory:?}");
        drop(child.stdin.take());
        wait::for_exit(&mut child, wait::PATIENCE);
    }
}
