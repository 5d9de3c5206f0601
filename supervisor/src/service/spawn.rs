//! Starts a worker process: exec of `nursery-worker ROLE`, its socket on a fixed descriptor, its output on a
//! pipe, a small environment, a session of its own.

use std::{
    io::{self, PipeReader},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
};
use nursery_shared::message::{Role, WORKER_FD};

use super::sys;

/// Environment variables that a worker gets; everything else, secrets above all, stays here.
pub const KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "PULSE_SERVER",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NURSERY_LOG",
    "RUST_BACKTRACE",
];

/// A process that was just started.
pub struct Spawned {
    pub child: Child,
    /// Readable when the process exits.
    pub pidfd: OwnedFd,
    /// Our end of its socket, non-blocking.
    pub socket: OwnedFd,
    /// What it writes to its standard output and error, non-blocking.
    pub output: PipeReader,
}

/// Starts `binary ROLE`, which may have `memory` bytes of its own. To be called from the main thread: the worker dies
/// with the thread that calls this.
pub fn spawn(binary: &Path, role: Role, memory: u64) -> io::Result<Spawned> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let (output, write_end) = io::pipe()?;
    let mut command = Command::new(binary);
    command
        .arg(role.as_str())
        .env_clear()
        .envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(write_end.try_clone()?)
        .stderr(write_end);
    let parent = std::process::id();
    // SAFETY: the closure makes only async-signal-safe system calls, see there.
    unsafe { command.pre_exec(move || sys::prepare_worker(&theirs, WORKER_FD, parent, memory)) };
    let mut child = command.spawn()?;
    let rest = || {
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        sys::pidfd_open(child.id())
    };
    match rest() {
        Ok(pidfd) => Ok(Spawned { child, pidfd, socket: ours, output }),
        Err(e) => {
            // Nobody would watch it: it must not stay.
            let _ = child.kill();
            let _ = child.wait();
            Err(e)
        }
    }
}
