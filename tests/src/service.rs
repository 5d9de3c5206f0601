//! A running `nursery`: started on a configuration of its own in a directory of its own, watched over its control
//! socket, and always cleaned up.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nursery_shared::{
    control::{MAX_REPLY, Reply, Request},
    status::{CameraState, CameraStatus, Status, WorkerState, WorkerStatus},
};
use serde_json::{Value, json};

use crate::{
    processes::{Process, all_gone},
    slot::Slot,
    temp_dir::TempDir,
    wait::{self, PATIENCE},
};

/// Path of one of the workspace's binaries, beside the running test.
pub fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("path of this test");
    // target/release/deps/TEST, or target/release/xtask
    let dir =
        exe.ancestors().skip(1).find(|d| d.file_name() != Some(OsStr::new("deps"))).expect("a directory");
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "{} is not there: build it first (`cargo build --release --workspace`)",
        path.display()
    );
    path
}

/// `nursery` with these arguments, ready to be started.
pub fn nursery<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(binary("nursery"));
    command.args(arguments).env_remove("RUST_LOG").env_remove("NO_COLOR");
    command
}

/// A configuration for the tests: these cameras, these alerts, one inference process, events that end soon.
pub fn config(cameras: impl IntoIterator<Item = Value>, alerts: impl IntoIterator<Item = Value>) -> Value {
    json!({
        "cameras": cameras.into_iter().collect::<Vec<_>>(),
        "alerts": alerts.into_iter().collect::<Vec<_>>(),
        "inference": {"workers": 1},
        "detection": {"end_after_s": 2},
    })
}

/// One camera of a configuration.
pub fn camera(name: &str, source: impl Into<String>) -> Value {
    json!({"name": name, "source": source.into()})
}

/// A service that runs; stopped and checked for leftovers when dropped.
pub struct Service {
    dir: Arc<TempDir>,
    child: Child,
    process: Process,
    log: Arc<Mutex<Vec<String>>>,
    environment: Vec<(String, String)>,
    worker: Option<PathBuf>,
    uid: Option<u32>,
    _slot: Option<Slot>,
}

/// How a service ended.
pub struct Stopped {
    pub status: ExitStatus,
    pub took: Duration,
    /// Every process that it had just before.
    pub workers: Vec<Process>,
}

impl Service {
    /// Starts `nursery run` on a configuration and waits until it answers.
    pub fn start(config: &Value) -> Self {
        Self::start_with(config, [])
    }

    /// The same for a caller who has waited for the right to run one, and keeps it for as long as this runs.
    pub fn start_in_slot(config: &Value, _slot: &Slot) -> Self {
        Self::launch_at_once(TempDir::new(), config, Vec::new(), None, None, None)
    }

    /// The same with additional variables in its environment.
    pub fn start_with(config: &Value, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::launch(config, environment.into_iter().collect(), None, None)
    }

    /// The same with another worker binary.
    pub fn start_with_worker(config: &Value, worker: &Path) -> Self {
        Self::launch(config, Vec::new(), Some(worker.to_owned()), None)
    }

    /// The same in a directory that is there already, with what the caller has put in it.
    pub fn start_in(dir: TempDir, config: &Value, worker: &Path) -> Self {
        Self::launch_in(dir, config, Vec::new(), Some(worker.to_owned()), None)
    }

    /// The same as another user, for tests that run as root.
    pub fn start_as(config: &Value, uid: u32) -> Self {
        Self::launch(config, Vec::new(), None, Some(uid))
    }

    /// The same with another worker binary as another user.
    pub fn start_worker_as(config: &Value, worker: &Path, uid: Option<u32>) -> Self {
        Self::launch(config, Vec::new(), Some(worker.to_owned()), uid)
    }

    fn launch(
        config: &Value,
        environment: Vec<(String, String)>,
        worker: Option<PathBuf>,
        uid: Option<u32>,
    ) -> Self {
        Self::launch_in(TempDir::new(), config, environment, worker, uid)
    }

    fn launch_in(
        dir: TempDir,
        config: &Value,
        environment: Vec<(String, String)>,
        worker: Option<PathBuf>,
        uid: Option<u32>,
    ) -> Self {
        Self::launch_at_once(dir, config, environment, worker, uid, Some(Slot::take()))
    }

    fn launch_at_once(
        dir: TempDir,
        config: &Value,
        environment: Vec<(String, String)>,
        worker: Option<PathBuf>,
        uid: Option<u32>,
        slot: Option<Slot>,
    ) -> Self {
        let dir = Arc::new(dir);
        std::os::unix::fs::chown(dir.path(), uid, uid).expect("hand the directory over");
        write_config(&dir, config);
        let (child, log) = spawn(&dir, &environment, worker.as_deref(), uid);
        let process = Process::of(child.id()).expect("the process just started");
        let mut service = Self { dir, child, process, log, environment, worker, uid, _slot: slot };
        service.wait_until_it_answers();
        service
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.dir)
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("cameras.json")
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The supervisor.
    pub fn process(&self) -> Process {
        self.process
    }

    /// Everything it has written to standard error so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Replaces the configuration file; `reload` is the test's.
    pub fn write_config(&self, config: &Value) {
        write_config(&self.dir, config);
    }

    /// Runs `nursery check` on its configuration file.
    pub fn check(&self) -> Output {
        wait::output(nursery(["check", "--config"]).arg(self.config_path()), Duration::from_secs(30))
    }

    /// Runs `nursery COMMAND` against this service.
    pub fn cli<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        wait::output(nursery(arguments).arg("--control-socket").arg(self.socket()), Duration::from_secs(30))
    }

    /// Runs `nursery COMMAND` against this service and panics unless it exits with 0; what it printed.
    pub fn must<A: AsRef<OsStr> + std::fmt::Debug>(
        &self,
        arguments: impl IntoIterator<Item = A> + Clone,
    ) -> String {
        let out = self.cli(arguments.clone());
        let shown: Vec<_> = arguments.into_iter().collect();
        assert!(
            out.status.success(),
            "nursery {shown:?}: {}: {}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).expect("UTF-8")
    }

    /// Asks over the control socket without starting a process; an error where no answer came in time.
    pub fn ask(&self, request: &Request) -> Result<Reply, String> {
        ask(&self.socket(), request)
    }

    /// Its status, read over the control socket.
    pub fn status(&self) -> Status {
        self.try_status().unwrap_or_else(|e| panic!("status: {e}\n{}", self.recent_log()))
    }

    fn try_status(&self) -> Result<Status, String> {
        match self.ask(&Request::Status {})? {
            Reply::Status { status } => Ok(*status),
            other => Err(format!("{other:?}")),
        }
    }

    /// One camera's part of the status.
    pub fn camera(&self, name: &str) -> CameraStatus {
        find_camera(&self.status(), name).clone()
    }

    /// One worker's part of the status.
    pub fn worker(&self, name: &str) -> WorkerStatus {
        find_worker(&self.status(), name).clone()
    }

    /// Looks at the status until `look` finds something in it; panics with the last status and the log.
    pub fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&Status) -> Option<T>) -> T {
        let mut last = None;
        let found = wait::poll(PATIENCE, || {
            let status = self.status();
            let found = look(&status);
            last = Some(status);
            found
        });
        found.unwrap_or_else(|| {
            let last = last.map(|s| serde_json::to_string_pretty(&s).expect("JSON")).unwrap_or_default();
            panic!("{what}: not within {PATIENCE:?}\nlast status: {last}\nlog:\n{}", self.recent_log())
        })
    }

    /// Waits until all these cameras are live and their windows arrive.
    pub fn wait_live(&self, cameras: &[&str]) {
        self.wait_for(&format!("cameras {cameras:?} live"), |status| {
            let live =
                |c: &CameraStatus| c.state == CameraState::Live && c.windows > 0 && c.last_error.is_none();
            cameras.iter().all(|name| live(find_camera(status, name))).then_some(())
        });
    }

    /// Waits until the camera has an error that holds all these words, in any case; returns it.
    pub fn wait_error(&self, name: &str, words: &[&str]) -> String {
        self.wait_for(&format!("{name}'s last_error with {words:?}"), |status| {
            let error = find_camera(status, name).last_error.clone()?;
            let lower = error.to_lowercase();
            words.iter().all(|w| lower.contains(&w.to_lowercase())).then_some(error)
        })
    }

    /// Waits until this many more windows of a camera have come.
    pub fn wait_windows(&self, name: &str, more: u64) {
        let before = self.camera(name).windows;
        self.wait_for(&format!("{more} more windows of {name} after {before}"), |status| {
            (find_camera(status, name).windows >= before + more).then_some(())
        });
    }

    /// The running process of a worker.
    pub fn process_of(&self, worker: &str) -> Process {
        self.wait_for(&format!("a process of {worker}"), |status| {
            let found = find_worker(status, worker);
            let pid = found.pid.filter(|_| found.state == WorkerState::Running)?;
            let process = Process::of(pid)?;
            assert!(self.process.descendants().contains(&process), "{pid} is no child of this service");
            Some(process)
        })
    }

    /// Waits until another process than `old` runs as this worker and has made progress.
    pub fn wait_replaced(&self, worker: &str, old: Process) -> Process {
        self.wait_for(&format!("a replacement of {worker}, {}", old.pid), |status| {
            let found = find_worker(status, worker);
            let pid = found.pid.filter(|pid| *pid != old.pid && found.state == WorkerState::Running)?;
            has_progressed(found).then(|| Process::of(pid)).flatten()
        })
    }

    /// Sends the supervisor a signal.
    pub fn signal(&self, signal: Signal) {
        assert!(self.process.signal(signal), "the supervisor is not there\n{}", self.recent_log());
    }

    /// Ends it with SIGTERM and waits for the end of it and of its workers.
    pub fn stop(&mut self) -> Stopped {
        let workers = self.process.descendants();
        let start = Instant::now();
        self.signal(Signal::SIGTERM);
        let status = wait::for_exit(&mut self.child, PATIENCE)
            .unwrap_or_else(|| panic!("still there {PATIENCE:?} after SIGTERM\n{}", self.recent_log()));
        Stopped { status, took: start.elapsed(), workers }
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self) -> ExitStatus {
        wait::for_exit(&mut self.child, PATIENCE)
            .unwrap_or_else(|| panic!("still there after {PATIENCE:?}\n{}", self.recent_log()))
    }

    /// Kills the supervisor with SIGKILL and waits until its workers are gone too.
    pub fn kill(&mut self) {
        let workers = self.process.descendants();
        assert!(self.process.signal(Signal::SIGKILL));
        self.wait_exit();
        if let Err(left) = all_gone(&workers, Duration::from_secs(15)) {
            panic!("workers outlived their supervisor: {left}");
        }
    }

    /// Starts it again in the same directories after it has ended.
    pub fn start_again(&mut self) {
        let (child, log) = spawn(&self.dir, &self.environment, self.worker.as_deref(), self.uid);
        self.process = Process::of(child.id()).expect("the process just started");
        (self.child, self.log) = (child, log);
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&mut self) {
        let answered = wait::poll(PATIENCE, || {
            if let Some(status) = self.child.try_wait().expect("wait for nursery") {
                panic!("nursery run ended with {status}\n{}", self.recent_log());
            }
            self.try_status().ok()
        });
        assert!(answered.is_some(), "nursery run does not answer\n{}", self.recent_log());
    }

    fn recent_log(&self) -> String {
        let log = self.log();
        log[log.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let workers = self.process.descendants();
        self.process.signal(Signal::SIGTERM);
        if wait::for_exit(&mut self.child, Duration::from_secs(15)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if all_gone(&workers, Duration::from_secs(5)).is_err() {
            for worker in workers {
                worker.signal(Signal::SIGKILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("log of the service:\n{}", self.recent_log());
        }
    }
}

/// The camera of this name in a status.
pub fn find_camera<'a>(status: &'a Status, name: &str) -> &'a CameraStatus {
    status.cameras.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no camera {name} in {status:?}"))
}

/// The worker of this name in a status.
pub fn find_worker<'a>(status: &'a Status, name: &str) -> &'a WorkerStatus {
    status.workers.iter().find(|w| w.name == name).unwrap_or_else(|| panic!("no worker {name} in {status:?}"))
}

/// True when the process that runs now has made progress; what an earlier one did does not count.
pub fn has_progressed(worker: &WorkerStatus) -> bool {
    worker.pid.is_some()
        && worker.progress > 0
        && worker.progress_age_s.is_some_and(|age| age < worker.uptime_s)
}

/// One request and its reply over a control socket; an error where none came within some seconds.
pub fn ask(socket: &Path, request: &Request) -> Result<Reply, String> {
    let text = |e: std::io::Error| e.to_string();
    let mut stream = UnixStream::connect(socket).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(text)?;
    stream.set_write_timeout(Some(Duration::from_secs(10))).map_err(text)?;
    let mut line = serde_json::to_string(request).expect("JSON");
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(text)?;
    let mut reply = String::new();
    BufReader::new(stream).take(MAX_REPLY as u64).read_line(&mut reply).map_err(text)?;
    serde_json::from_str(&reply).map_err(|e| format!("{e}: {reply:?}"))
}

fn socket_in(dir: &TempDir) -> PathBuf {
    dir.join("control.sock")
}

fn write_config(dir: &TempDir, config: &Value) {
    put_config(&dir.join("cameras.json"), config);
}

/// Puts a configuration in place, at once. It may hold passwords, and belongs to the user of its directory.
pub fn put_config(path: &Path, config: &Value) {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
    let partial = path.with_extension("partial");
    // The mode is that of a new file.
    let _ = std::fs::remove_file(&partial);
    let mut options = OpenOptions::new();
    let mut file = options.create_new(true).write(true).mode(0o600).open(&partial).expect("open it");
    file.write_all(config.to_string().as_bytes()).expect("write the configuration");
    let owner = std::fs::metadata(path.parent().expect("a directory")).expect("the directory").uid();
    chown(&partial, Some(owner), None).expect("hand it over");
    std::fs::rename(partial, path).expect("put the configuration in place");
}

type Log = Arc<Mutex<Vec<String>>>;

fn spawn(
    dir: &TempDir,
    environment: &[(String, String)],
    worker: Option<&Path>,
    uid: Option<u32>,
) -> (Child, Log) {
    let worker = worker.map(|path| [OsStr::new("--worker-binary"), path.as_os_str()]);
    let mut command = nursery(["run", "--config"]);
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let mut child = command
        .arg(dir.join("cameras.json"))
        .arg("--state-dir")
        .arg(dir.join("state"))
        .arg("--control-socket")
        .arg(socket_in(dir))
        .args(worker.into_iter().flatten())
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start nursery");
    let log = Log::default();
    let (lines, stderr) = (Arc::clone(&log), child.stderr.take().expect("piped"));
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
    (child, log)
}
