//! The short-lived process that looks into a worker that hangs, as the loop sees it. It may take as long as it
//! likes, say anything or nothing: it is killed with the worker, and what it said until then counts.

use std::{
    io::{self, PipeReader, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nursery_shared::postmortem::Finding;

use super::{spawn, sys};
use crate::policy::Key;

/// Bytes of findings that are kept; the rest of a post-mortem has to fit beside them.
const MAX_FINDINGS: usize = 160 << 10;
/// Bytes read before the others have their turn. A pipe holds no more.
const READ_QUOTA: usize = 64 << 10;

/// One that runs, or waits to be reaped.
pub struct Examiner {
    /// The worker that it looks into.
    pub key: Key,
    child: Child,
    pidfd: OwnedFd,
    output: PipeReader,
    pub output_ended: bool,
    bytes: Vec<u8>,
    /// What it says is of no interest any more.
    pub over: bool,
}

impl Examiner {
    /// Starts `binary examine PID`. To be called from the main thread, like [`spawn::spawn`].
    pub fn start(binary: &Path, key: Key, pid: u32) -> io::Result<Self> {
        let (output, write_end) = io::pipe()?;
        let mut command = Command::new(binary);
        command
            .arg("examine")
            .arg(pid.to_string())
            .env_clear()
            .envs(spawn::KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(write_end)
            .stderr(Stdio::null());
        let parent = std::process::id();
        // SAFETY: the closure makes only async-signal-safe system calls, see there.
        unsafe { command.pre_exec(move || sys::prepare_helper(parent)) };
        let mut child = command.spawn()?;
        let rest = || {
            fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            sys::pidfd_open(child.id())
        };
        match rest() {
            Ok(pidfd) => {
                Ok(Self { key, child, pidfd, output, output_ended: false, bytes: Vec::new(), over: false })
            }
            Err(e) => {
                // Nobody would watch it: it must not stay.
                let _ = child.kill();
                let _ = child.wait();
                Err(e)
            }
        }
    }

    /// Its pidfd and its output.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.pidfd.as_fd(), self.output.as_fd()]
    }

    /// Takes in what it wrote, as much as is there.
    pub fn read(&mut self) {
        let mut bytes = [0; 8192];
        let mut quota = READ_QUOTA;
        while quota > 0 && !self.output_ended {
            match self.output.read(&mut bytes) {
                Ok(0) => self.output_ended = true,
                Ok(n) => {
                    quota = quota.saturating_sub(n);
                    let room = MAX_FINDINGS.saturating_sub(self.bytes.len());
                    self.bytes.extend_from_slice(&bytes[..n.min(room)]);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.output_ended = true,
            }
        }
    }

    /// What it has found out, and a note that says so if that is not everything; then its part is over.
    pub fn findings(&mut self, unfinished: Option<&str>) -> Vec<Finding> {
        self.read();
        self.over = true;
        let bytes = std::mem::take(&mut self.bytes);
        let lines = bytes.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n"));
        let mut findings: Vec<Finding> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        if let Some(why) = unfinished {
            findings.push(Finding::Note(format!("what the worker was doing is not known in full: {why}")));
        }
        findings
    }

    /// Kills and reaps one that nobody would watch.
    pub fn abandon(mut self) {
        self.kill();
        let _ = self.child.wait();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        // It fails only for a process that was reaped already.
        let _ = self.child.kill();
    }

    /// Why its words are not all there are, once it has exited: the outer `None` says that it still runs, the inner
    /// one that all is well.
    pub fn reap(&mut self) -> Option<Option<String>> {
        let status = self.child.try_wait().ok().flatten()?;
        Some((!status.success()).then(|| format!("the process that looked ended with {status}")))
    }
}
