//! Stops the threads of a process with ptrace, so that their registers can be read, and lets them go again. If this
//! process dies meanwhile, the kernel lets them go.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        ptrace,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::registers::{self, Registers};

/// How long threads may take to stop: one that the kernel does not let go (a dead disk) never does.
const PATIENCE: Duration = Duration::from_millis(150);

/// A thread that stands still while this exists.
pub struct Stopped(Pid);

impl Stopped {
    /// Where it is.
    pub fn registers(&self) -> nix::Result<Registers> {
        registers::read(self.0)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It fails for a thread that was killed meanwhile.
        let _ = ptrace::detach(self.0, None);
    }
}

/// Stops these threads, as many as can be; for each the thread, or why not.
pub fn stop_all(tids: &[i32]) -> Vec<(i32, Result<Stopped, String>)> {
    let mut results = Vec::new();
    let mut awaited = BTreeSet::new();
    for &tid in tids {
        let pid = Pid::from_raw(tid);
        match ptrace::seize(pid, ptrace::Options::empty()).and_then(|()| ptrace::interrupt(pid)) {
            Ok(()) => {
                awaited.insert(tid);
            }
            Err(e) => results.push((tid, Err(refusal(e)))),
        }
    }
    let end = Instant::now() + PATIENCE;
    while !awaited.is_empty() {
        awaited.retain(|&tid| {
            let outcome = match has_stopped(Pid::from_raw(tid)) {
                None => return true,
                Some(outcome) => outcome,
            };
            results.push((tid, outcome));
            false
        });
        if Instant::now() >= end {
            break;
        }
        if !awaited.is_empty() {
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    for tid in awaited {
        results.push((
            tid,
            Err("the kernel does not let it go (a disk or a driver that does not answer)".into()),
        ));
    }
    results
}

fn has_stopped(tid: Pid) -> Option<Result<Stopped, String>> {
    // All threads count here, whoever made them.
    match waitpid(tid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) => None,
        Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => {
            Some(Err("it ended meanwhile".into()))
        }
        Ok(_) => Some(Ok(Stopped(tid))),
        Err(Errno::EINTR) => None,
        Err(e) => Some(Err(format!("it cannot be waited for: {e}"))),
    }
}

/// Why a thread may not be looked into, with the remedy.
fn refusal(e: Errno) -> String {
    if e == Errno::ESRCH {
        return "it ended meanwhile".into();
    }
    if e != Errno::EPERM {
        return format!("ptrace: {e}");
    }
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match scope.trim() {
        "2" => "not permitted: kernel.yama.ptrace_scope is 2, which asks for CAP_SYS_PTRACE".into(),
        "3" => "not permitted: kernel.yama.ptrace_scope is 3, which allows it to nobody".into(),
        _ => "not permitted: it is traced by somebody else (a debugger?), or belongs to another user and \
              CAP_SYS_PTRACE is missing"
            .into(),
    }
}
