//! The command line: what may be typed, and which exit status comes of it (0 done, 1 failed, 2 wrong usage or
//! configuration).

mod client;
mod demo;
mod postmortem;
mod screen;
mod table;
mod watch;
mod worker_binary;

use std::{
    ffi::OsString,
    io::{self, Write},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use nursery_shared::{
    cage::{Kernel, LANDLOCK_PORTS, LANDLOCK_SIGNALS},
    config::{self, DetectionConfig},
    control::{PoolSize, Reply, Request, STORE_DIRECTORY, default_socket, default_state_dir},
    message::Role,
    status::Status,
};

use crate::service::{self, Options, ServiceError};
use client::Client;

#[derive(Parser)]
#[command(
    name = "nursery",
    version,
    about = "Listens to many IP cameras at once and tells somebody when a baby cries.",
    propagate_version = true
)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Show everything at work on three synthetic cameras; needs no configuration, root or network
    Demo(demo::Args),
    /// Run the service
    Run(RunArgs),
    /// Validate a configuration file
    Check {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[command(flatten)]
        worker: WorkerArg,
    },
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Show cameras, workers, inference and alerts
    Status {
        #[command(flatten)]
        show: ShowArgs,
        /// Show it anew every second, until Ctrl-C
        #[arg(long, conflicts_with = "json")]
        watch: bool,
    },
    /// Show the cameras
    Cameras(ShowArgs),
    /// Show the worker processes
    Workers(ShowArgs),
    /// Resize the inference pool of the running service
    Scale {
        /// A number of processes, or `auto`
        #[arg(value_name = "N|auto")]
        workers: PoolSize,
        #[command(flatten)]
        socket: SocketArg,
    },
    /// Restart a worker, a camera's capture process, a role (`capture`, `infer`, `sink`) or `all`, while others go on
    Restart {
        name: String,
        #[command(flatten)]
        socket: SocketArg,
    },
    /// Take up the changed configuration file, and a model file that was replaced
    Reload(ShowArgs),
    /// Stop the service
    Stop(SocketArg),
    /// Print kept log lines, of one worker or camera or of all
    Logs {
        name: Option<String>,
        /// Go on with new lines, until Ctrl-C
        #[arg(long, short)]
        follow: bool,
        #[command(flatten)]
        socket: SocketArg,
    },
    /// Print stored events
    Events(EventsArgs),
    /// Write events, scores, outages or feedback as a table, for other programs
    Export(ExportArgs),
    /// List the windows that were set aside because inference processes died of them
    Quarantine(QuarantineArgs),
    /// List what is known of workers that died or hung, or show one of them
    Postmortem(postmortem::Args),
    /// Play a camera's live audio on this machine, or write it as WAV (see `nursery listen --help`)
    #[command(disable_help_flag = true)]
    Listen {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
    /// Run the detector over recordings; needs no service (see `nursery detect --help`)
    #[command(disable_help_flag = true)]
    Detect {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
}

#[derive(Args)]
struct SocketArg {
    /// Control socket of the service [default: /run/nursery/control.sock as root]
    #[arg(long, value_name = "PATH")]
    control_socket: Option<PathBuf>,
}

#[derive(Args)]
struct WorkerArg {
    /// The worker binary [default: nursery-worker beside this program, or in ../libexec/nursery]
    #[arg(long, value_name = "PATH")]
    worker_binary: Option<PathBuf>,
}

#[derive(Args)]
struct ShowArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: SocketArg,
}

#[derive(Args)]
struct RunArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Size of the inference pool; goes before the configuration
    #[arg(long, value_name = "N|auto")]
    inference_workers: Option<PoolSize>,
    /// Where events are stored [default: /var/lib/nursery as root]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// A model file instead of the embedded model
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    #[command(flatten)]
    socket: SocketArg,
    #[command(flatten)]
    worker: WorkerArg,
}

#[derive(Args)]
struct EventsArgs {
    /// One event per line as JSON
    #[arg(long)]
    json: bool,
    /// Only events of this camera
    #[arg(long, value_name = "NAME")]
    camera: Option<String>,
    /// Only events since a time (2026-01-31T02:03:04Z) or an age (10m, 2h)
    #[arg(long, value_name = "T")]
    since: Option<String>,
    /// Read the store there, instead of asking the running service where it is
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    socket: SocketArg,
    #[command(flatten)]
    worker: WorkerArg,
}

#[derive(Args)]
struct ExportArgs {
    /// From a time (2026-01-31T02:03:04Z) or an age (10m, 2h) on
    #[arg(long, value_name = "T")]
    since: String,
    /// Until a time or an age [default: now]
    #[arg(long, value_name = "T")]
    until: Option<String>,
    /// Only of this camera
    #[arg(long, value_name = "NAME")]
    camera: Option<String>,
    /// How it is written: with commas, or an object per line
    #[arg(long, value_parser = ["csv", "jsonl"], default_value = "csv")]
    format: String,
    /// What is written; `feedback` are labels for training
    #[arg(long, value_parser = ["events", "scores", "outages", "feedback"], default_value = "events")]
    what: String,
    /// Read the store there, instead of asking the running service where it is
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    socket: SocketArg,
    #[command(flatten)]
    worker: WorkerArg,
}

#[derive(Args)]
struct QuarantineArgs {
    /// One window per line as JSON
    #[arg(long)]
    json: bool,
    /// Look there, instead of asking the running service where it is
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    socket: SocketArg,
    #[command(flatten)]
    worker: WorkerArg,
}

/// A message for standard error and an exit status.
pub struct Failure {
    message: String,
    exit: u8,
}

impl Failure {
    /// Failed: exit 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit: 1 }
    }

    /// Wrong usage or configuration: exit 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit: 2 }
    }
}

impl From<ServiceError> for Failure {
    fn from(e: ServiceError) -> Self {
        Self { message: e.message, exit: e.exit }
    }
}

impl SocketArg {
    fn path(self) -> PathBuf {
        self.control_socket.unwrap_or_else(default_socket)
    }
}

impl WorkerArg {
    fn find(self) -> Result<PathBuf, Failure> {
        worker_binary::find(self.worker_binary)
    }
}

/// What may be typed, for manual pages and completions. Of `detect` it knows the name alone: its options are the
/// worker's.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line, does what it says and reports.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Cmd::Demo(args) => demo::run(args),
        Cmd::Run(args) => run(args),
        Cmd::Check { config, worker } => check(&config, worker),
        Cmd::Schema => print(&pretty(&config::schema())),
        Cmd::Status { show, watch: true } => watch::run(&show.socket.path()),
        Cmd::Status { show, .. } => show_status(show, pretty, table::status),
        Cmd::Cameras(show) => show_status(show, |s| pretty(&s.cameras), table::cameras),
        Cmd::Workers(show) => show_status(show, |s| pretty(&s.workers), table::workers),
        Cmd::Scale { workers, socket } => ask(socket, &Request::Scale { workers }),
        Cmd::Restart { name, socket } => ask(socket, &Request::Restart { name }),
        Cmd::Reload(show) => reload(show),
        Cmd::Stop(socket) => stop(socket),
        Cmd::Logs { name, follow, socket } => logs(socket, name, follow),
        Cmd::Events(args) => events(args),
        Cmd::Export(args) => export(args),
        Cmd::Quarantine(args) => quarantine(args),
        Cmd::Postmortem(args) => postmortem::run(args),
        Cmd::Listen { args } => pass_on("listen", args),
        Cmd::Detect { args } => pass_on("detect", args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody reads standard error: the exit status still tells.
            let _ = writeln!(io::stderr(), "nursery: {}", failure.message);
            ExitCode::from(failure.exit)
        }
    }
}

fn run(args: RunArgs) -> Result<(), Failure> {
    let config = config::from_file(&args.config).map_err(|e| Failure::usage(e.to_string()))?;
    let model = args.model.map(|path| {
        let absolute =
            path.canonicalize().map_err(|e| Failure::usage(format!("--model {}: {e}", path.display())))?;
        absolute
            .into_os_string()
            .into_string()
            .map_err(|p| Failure::usage(format!("--model {}: not valid UTF-8", PathBuf::from(p).display())))
    });
    // Clients in other directories are told these paths.
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).map_err(|e| Failure::usage(format!("{:?}: {e}", path.display())))
    };
    service::run(Options {
        config_path: Some(absolute(args.config)?),
        config,
        inference_workers: args.inference_workers,
        model: model.transpose()?,
        state_dir: absolute(args.state_dir.unwrap_or_else(default_state_dir))?,
        // Not made absolute: the shorter path has more room in a socket's address.
        control_socket: args.socket.path(),
        worker_binary: args.worker.find()?,
        log_to_stderr: true,
        events: None,
    })?;
    Ok(())
}

fn check(path: &std::path::Path, worker: WorkerArg) -> Result<(), Failure> {
    let config = config::from_file(path).map_err(|e| Failure::usage(e.to_string()))?;
    service::clients::Access::new(&config.control)
        .map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    let worker = worker.find()?;
    let identities = service::identity::Identities::new(&config.supervision)
        .map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    let reader = identities.as_ref().map(|ids| ids.of(Role::Infer, service::PROBE_SLOT));
    let service::probe::Answer { model, kernel } =
        service::probe::probe(&worker, service::probe::subject(&config), reader.as_ref())
            .map_err(|e| Failure { message: format!("{}: {}", path.display(), e.message), exit: e.exit })?;
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut lines = vec![format!(
        "{}: ok, {}, {}, model {}",
        path.display(),
        count(config.cameras.len(), "camera"),
        count(config.alerts.len(), "alert"),
        model.id
    )];
    // What a sensitivity comes to, so that nobody has to work it out.
    let usual = DetectionConfig::default();
    for camera in &config.cameras {
        let own = config.detection.for_camera(camera);
        if own.threshold != usual.threshold {
            lines.push(format!("  {}: crying from a probability of {:.3} on", camera.name, own.threshold));
        }
        if own.sustained_s != usual.sustained_s {
            let after = own.sustained_s;
            lines.push(format!("  {}: announced after {after} s of crying within a minute", camera.name));
        }
    }
    lines.extend(offers(kernel, identities.is_some()));
    print(&lines.join("\n"))
}

/// What workers can be caged with here.
fn offers(kernel: Kernel, users: bool) -> Vec<String> {
    let landlock = match kernel.landlock {
        None => "no Landlock (files and ports are free)".to_owned(),
        Some(n) if n < LANDLOCK_PORTS => format!("Landlock {n} (files; ports and signals are free)"),
        Some(n) if n < LANDLOCK_SIGNALS => format!("Landlock {n} (files and ports; signals are free)"),
        Some(n) => format!("Landlock {n} (files, ports, signals)"),
    };
    let seccomp = if kernel.seccomp { "seccomp" } else { "no seccomp (system calls are free)" };
    let users = if users { "a user for each worker" } else { "one user for all (not started as root)" };
    let groups = service::cgroups::offer();
    vec![format!("  cages: {users}, {seccomp}, {landlock}"), format!("  {groups}")]
}

fn show_status(
    show: ShowArgs,
    json: impl FnOnce(&Status) -> String,
    table: impl FnOnce(&Status) -> String,
) -> Result<(), Failure> {
    let status = client::status(&show.socket.path())?;
    print(&if show.json { json(&status) } else { table(&status) })
}

/// A model may have to be looked at first.
const LOOKED_AT: Duration = Duration::from_secs(30);

fn reload(show: ShowArgs) -> Result<(), Failure> {
    let mut client = Client::connect(&show.socket.path())?;
    client.wait_for(LOOKED_AT)?;
    match client.ask(&Request::Reload {})? {
        Reply::Reloaded { changes } if show.json => print(&pretty(&changes)),
        Reply::Reloaded { changes } => print(&changes.to_string()),
        Reply::Done { message } => print(&message),
        other => Err(client::unexpected(&other)),
    }
}

/// Sends a request that is answered by one line, and prints that.
fn ask(socket: SocketArg, request: &Request) -> Result<(), Failure> {
    let mut client = Client::connect(&socket.path())?;
    if matches!(request, Request::Restart { .. }) {
        client.wait_for(LOOKED_AT)?;
    }
    match client.ask(request)? {
        Reply::Done { message } => print(&message),
        other => Err(client::unexpected(&other)),
    }
}

fn stop(socket: SocketArg) -> Result<(), Failure> {
    let path = socket.path();
    let mut client = Client::connect(&path)?;
    match client.ask(&Request::Stop {})? {
        Reply::Done { .. } => {}
        other => return Err(client::unexpected(&other)),
    }
    // The service removes its socket when everything has stopped; ten seconds are its limit.
    let deadline = Instant::now() + Duration::from_secs(15);
    while Instant::now() < deadline {
        if Client::connect(&path).is_err() {
            return print("stopped");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(Failure::failed(format!("the service at {} still runs after 15 s", path.display())))
}

fn logs(socket: SocketArg, name: Option<String>, follow: bool) -> Result<(), Failure> {
    let mut client = Client::connect(&socket.path())?;
    client.send(&Request::Logs { name, follow })?;
    if follow {
        client.wait_for_ever()?;
    }
    while let Some(reply) = client.receive()? {
        match reply {
            Reply::Logs { lines, lost } => {
                if lost > 0 {
                    print(&format!("({lost} lines lost: this client was too slow)"))?;
                }
                lines.iter().try_for_each(|line| print(line))?;
            }
            other => return Err(client::unexpected(&other)),
        }
    }
    Ok(())
}

/// The state directory that was given, or the running service's.
fn state_dir(given: Option<PathBuf>, socket: SocketArg) -> Result<PathBuf, Failure> {
    match given {
        Some(dir) => Ok(dir),
        None => match Client::connect(&socket.path())?.ask(&Request::Info {})? {
            Reply::Info { state_dir, .. } => Ok(state_dir),
            other => Err(client::unexpected(&other)),
        },
    }
}

/// What a worker without rights has written is read without rights: as the owner of the store, where root asks.
fn as_owner(command: &mut Command, state_dir: &std::path::Path) {
    if let Ok(store) = std::fs::symlink_metadata(state_dir.join(STORE_DIRECTORY))
        && nix::unistd::geteuid().is_root()
        && store.uid() != 0
    {
        service::identity::Identity { uid: store.uid(), gid: store.gid(), groups: Vec::new() }
            .put_on(command);
    }
}

fn quarantine(args: QuarantineArgs) -> Result<(), Failure> {
    let state_dir = state_dir(args.state_dir, args.socket)?;
    let mut command = Command::new(args.worker.find()?);
    as_owner(&mut command, &state_dir);
    command.arg("quarantine").arg("--state-dir").arg(state_dir);
    if args.json {
        command.arg("--json");
    }
    become_worker(command)
}

fn events(args: EventsArgs) -> Result<(), Failure> {
    let state_dir = state_dir(args.state_dir, args.socket)?;
    let mut command = Command::new(args.worker.find()?);
    as_owner(&mut command, &state_dir);
    command.arg("events").arg("--state-dir").arg(state_dir);
    if args.json {
        command.arg("--json");
    }
    for (flag, value) in [("--camera", args.camera), ("--since", args.since)] {
        if let Some(value) = value {
            command.arg(format!("{flag}={value}"));
        }
    }
    become_worker(command)
}

fn export(args: ExportArgs) -> Result<(), Failure> {
    let state_dir = state_dir(args.state_dir, args.socket)?;
    let mut command = Command::new(args.worker.find()?);
    as_owner(&mut command, &state_dir);
    command.arg("export").arg("--state-dir").arg(state_dir);
    let given = [
        ("--since", Some(args.since)),
        ("--until", args.until),
        ("--camera", args.camera),
        ("--format", Some(args.format)),
        ("--what", Some(args.what)),
    ];
    for (flag, value) in given {
        if let Some(value) = value {
            command.arg(format!("{flag}={value}"));
        }
    }
    become_worker(command)
}

/// Has the worker's program do what takes media.
fn pass_on(command: &str, args: Vec<OsString>) -> Result<(), Failure> {
    let name = command;
    let mut command = Command::new(worker_binary::find(None)?);
    command.arg(name).args(args);
    become_worker(command)
}

/// Replaces this process; only comes back when that failed.
fn become_worker(mut command: Command) -> Result<(), Failure> {
    // Its usage messages name the command that was typed.
    let error = command.arg0("nursery").exec();
    Err(Failure::failed(format!("{}: {error}", command.get_program().display())))
}

fn pretty(value: &impl serde::Serialize) -> String {
    // Plain data with string keys, which JSON can always express.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Prints a line; a reader that went away is the end of the work, not a failure.
fn print(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Failure::failed(format!("standard output: {e}"))),
        Ok(()) => Ok(()),
    }
}
