//! The service: the thin shell of real processes, sockets and clocks around the policy. One thread, one
//! readiness loop; nothing in it waits for a worker, a client, a disk or a name.

pub mod cgroups;
pub mod clients;
mod event_loop;
mod examiner;
pub mod identity;
pub mod logs;
mod notify;
mod postmortems;
pub mod probe;
mod process;
mod procfs;
mod programs;
mod reload;
mod spawn;
mod state_dir;
mod sys;

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc::SyncSender,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use nursery_shared::{config::Config, control::PoolSize, message::Role};

use crate::policy::Setup;
use identity::Identities;
use programs::Programs;

/// The user who looks at models: one of the inference processes' kind, and nobody else's.
pub const PROBE_SLOT: u32 = identity::RANGE - 1;

/// What `nursery run` and `nursery demo` start the service with.
pub struct Options {
    /// Where the configuration came from; `reload` reads it again. `None`: there is no file to reload.
    pub config_path: Option<PathBuf>,
    /// The validated configuration.
    pub config: Config,
    /// `--inference-workers`: goes before the configuration, also after a reload.
    pub inference_workers: Option<PoolSize>,
    /// `--model`: goes before the configuration, also after a reload.
    pub model: Option<String>,
    pub state_dir: PathBuf,
    pub control_socket: PathBuf,
    /// An existing `nursery-worker`.
    pub worker_binary: PathBuf,
    /// Log lines go to standard error; without, they are only kept for `nursery logs`.
    pub log_to_stderr: bool,
    /// Receives the JSON body of each stored event, for `demo`. Never waited for: what does not fit is lost.
    pub events: Option<SyncSender<String>>,
}

/// Why the service could not start or go on: one line, and the exit status that belongs to it
/// (2 wrong usage or configuration, 1 anything else).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    pub message: String,
    pub exit: u8,
}

impl ServiceError {
    fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit: 1 }
    }
}

/// Runs the service on the calling thread, which must be the process's main thread (workers are told to die
/// with it), until it is told to stop by SIGTERM, SIGINT or the control socket.
pub fn run(mut options: Options) -> Result<(), ServiceError> {
    if let Some(model) = &options.model {
        options.config.inference.model = Some(model.clone());
    }
    let programs = Programs::find(&options.worker_binary).map_err(|e| {
        ServiceError::failed(format!("{}: {e} (expected nursery-worker)", options.worker_binary.display()))
    })?;
    let state = options.state_dir.display();
    private_dir(&options.state_dir, 0o700).map_err(|e| {
        ServiceError::failed(format!("state directory {state}: {e} (run as root, or give --state-dir)"))
    })?;
    let state_dir = options
        .state_dir
        .canonicalize()
        .map_err(|e| ServiceError::failed(format!("state directory {state}: {e}")))?;
    let wrong = |message| ServiceError { message, exit: 2 };
    let identities = Identities::new(&options.config.supervision).map_err(wrong)?;
    let state_failed = |e: String| ServiceError::failed(format!("state directory {state}: {e}"));
    state_dir::check_own(&state_dir).map_err(state_failed)?;
    let _lock = lock_state(&state_dir)?;
    let mut notifier = notify::Notifier::from_environment();
    notifier.starting();
    let of = |role, slot| identities.as_ref().map(|ids| ids.of(role, slot));
    let model = probe::probe(
        programs.worker(),
        probe::subject(&options.config),
        of(Role::Infer, PROBE_SLOT).as_ref(),
    )?
    .model;
    let places = state_dir::prepare(&state_dir, of(Role::Sink, 0).as_ref()).map_err(state_failed)?;
    let store = places
        .store
        .into_os_string()
        .into_string()
        .map_err(|_| ServiceError::failed(format!("state directory {state}: not valid UTF-8")))?;
    let access = clients::Access::new(&options.config.control).map_err(wrong)?;
    let clients = clients::Clients::bind(&options.control_socket, access)?;
    keep_secrets();
    raise_descriptor_limit();
    let logs = logs::start(options.log_to_stderr).map_err(|e| ServiceError::failed(format!("log: {e}")))?;
    let post_mortems = postmortems::PostMortems::start(&options.state_dir)
        .map_err(|e| ServiceError::failed(format!("post-mortems: {e}")))?;
    let uid = nix::unistd::geteuid();
    if !uid.is_root() {
        tracing::info!("running as uid {uid}, not as root: only what this user may do is done");
    }
    let setup = Setup {
        config: options.config.clone(),
        pool_override: options.inference_workers,
        model,
        state_dir: store,
        cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        seed: fastrand::u64(..),
    };
    let groups = cgroups::Groups::find();
    let quarters = event_loop::Quarters { programs, identities, directory: places.empty, groups };
    let result =
        event_loop::EventLoop::new(options, quarters, setup, clients, logs.clone(), post_mortems, notifier)?
            .run();
    logs.flush();
    result
}

/// This process holds all passwords until workers need them: its memory is not written to a disk when it dies, nor shown
/// to processes of the same user where that is not needed to look into workers.
fn keep_secrets() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard);
    }
    if nix::unistd::geteuid().is_root() {
        let _ = nix::sys::prctl::set_dumpable(false);
    }
}

/// Makes a directory, and those above it, with this mode where it is missing.
pub(crate) fn private_dir(dir: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(dir)
}

/// Two supervisors on one store would both deliver.
fn lock_state(dir: &Path) -> Result<Flock<File>, ServiceError> {
    let path = dir.join("lock");
    let failed = |what: String| ServiceError::failed(format!("state directory {}: {what}", dir.display()));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path)
        .map_err(|e| failed(format!("not writable: {e} (run as root, or give --state-dir)")))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, e)| failed(format!("in use by another nursery ({e})")))
}

/// Three descriptors per worker: take as many as the host allows.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it stays as it was, a spawn that fails for it says so and is tried again.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
