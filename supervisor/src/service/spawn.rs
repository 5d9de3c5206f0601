//! Starts a worker process: exec of `nursery-worker ROLE`, its socket on a fixed descriptor, its output on a
//! pipe, a small environment, a session of its own.

use std::{
    ffi::OsString,
    io::{self, PipeReader},
    os::{
        fd::{OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
};
use nursery_shared::message::{Role, WORKER_FD};

use super::{identity::Identity, programs::Programs, sys};

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

/// Of these, what is only true of our own user.
const PERSONAL: &[&str] = &["HOME", "USER", "XDG_RUNTIME_DIR"];

/// The environment of a worker that runs as `identity`, or as our own user.
pub fn environment(identity: Option<&Identity>) -> impl Iterator<Item = (&'static str, OsString)> {
    let another = identity.is_some();
    KEPT.iter()
        .filter(move |name| !(another && PERSONAL.contains(name)))
        .filter_map(|name| Some((*name, std::env::var_os(name)?)))
        .chain(another.then(|| ("HOME", OsString::from("/"))))
}

/// As whom, and where, a worker is started.
#[derive(Debug, Clone)]
pub struct Conditions<'a> {
    /// `None`: our own user.
    pub identity: Option<&'a Identity>,
    pub directory: &'a Path,
    /// Bytes that it may have of its own.
    pub memory: u64,
    /// Nobody else is this user.
    pub alone: bool,
    /// Of its control group.
    pub entrances: Vec<RawFd>,
}

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

/// Starts the program of a role. To be called from the main thread: the worker dies with the thread that calls this.
pub fn spawn(programs: &Programs, role: Role, conditions: Conditions<'_>) -> io::Result<Spawned> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let (output, write_end) = io::pipe()?;
    let mut command = Command::new(programs.of(role));
    command
        // Whatever file it comes from, it is known by the same command line.
        .arg0(programs.worker())
        .arg(role.as_str())
        .env_clear()
        .envs(environment(conditions.identity))
        .current_dir(conditions.directory)
        .stdin(Stdio::null())
        .stdout(write_end.try_clone()?)
        .stderr(write_end);
    let parent = std::process::id();
    let terms = sys::Terms {
        parent,
        memory: conditions.memory,
        identity: conditions.identity.cloned(),
        alone: conditions.alone,
        entrances: conditions.entrances,
        // What scores windows has nobody to talk to but us.
        network: role != Role::Infer,
    };
    let prepare = move || sys::prepare_worker(&theirs, WORKER_FD, &terms);
    // SAFETY: the closure makes only async-signal-safe system calls, see there.
    unsafe { command.pre_exec(prepare) };
    let mut child = command.spawn().map_err(|e| explain(e, conditions.identity))?;
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

/// A program that root may execute need not be another user's to execute.
pub fn explain(error: io::Error, identity: Option<&Identity>) -> io::Error {
    match identity {
        Some(identity) if error.kind() == io::ErrorKind::PermissionDenied => io::Error::other(format!(
            "may not be executed by user {}: install it where everybody may execute it ({error})",
            identity.uid
        )),
        _ => error,
    }
}
