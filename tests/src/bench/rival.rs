//! What people run instead: `tests/rivals/NAME/main.py`. What they are told and what they tell is the same for all of them,
//! see [`Line`].

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde::Deserialize;

use super::system::{Counters, Setup, System, Which};
use crate::{processes::Process, temp_dir::TempDir, wait};

/// A line on a rival's standard output.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    /// The first window of a camera was scored.
    Live { camera: String },
    /// Totals since the start, every other second and at the end.
    Stats { windows: u64, dropped: u64, late: u64, scored_s: f64 },
}

/// For the end after SIGTERM.
const GOODBYE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Told {
    live: HashSet<String>,
    counters: Option<Counters>,
}

/// A running rival.
pub struct Rival {
    child: Child,
    process: Process,
    told: Arc<Mutex<Told>>,
    errors: PathBuf,
    _dir: TempDir,
}

impl Rival {
    /// Starts one.
    pub fn start(which: Which, setup: &Setup<'_>) -> Result<Self, String> {
        let ours = || Path::new(env!("CARGO_MANIFEST_DIR")).join("rivals");
        let folder = setup.rivals.folder.clone().unwrap_or_else(ours);
        let main = folder.join(which.as_str()).join("main.py");
        if !main.is_file() {
            return Err(format!("{} is not there", main.display()));
        }
        let need = |what: &Option<PathBuf>, option: &str| {
            what.clone().ok_or_else(|| format!("{} needs {option}", which.as_str()))
        };
        let (python, onnx) = (need(&setup.rivals.python, "--python")?, need(&setup.rivals.onnx, "--onnx")?);
        let dir = TempDir::new();
        let (list, errors) = (dir.join("cameras.json"), dir.join("errors.log"));
        let text = serde_json::to_string(setup.cameras).expect("JSON");
        std::fs::write(&list, text).map_err(|e| format!("{}: {e}", list.display()))?;
        let stderr = File::create(&errors).map_err(|e| format!("{}: {e}", errors.display()))?;
        let mut command = Command::new(&python);
        command.arg(&main).arg("--cameras").arg(&list).arg("--model").arg(&onnx);
        command.args(["--webhook", &setup.receiver.url()]);
        if let Some(threshold) = setup.rivals.threshold {
            command.args(["--threshold", &threshold.to_string()]);
        }
        let mut child = command
            .current_dir(dir.path())
            .env("TMPDIR", dir.path())
            // Its own, so that whatever it leaves behind is found.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|e| format!("{}: {e}", python.display()))?;
        let process = Process::of(child.id()).ok_or("the rival ended at once")?;
        let told = Arc::new(Mutex::new(Told::default()));
        let (tell, stdout) = (Arc::clone(&told), child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut told = tell.lock().unwrap();
                match serde_json::from_str(&line) {
                    Ok(Line::Live { camera }) => drop(told.live.insert(camera)),
                    Ok(Line::Stats { windows, dropped, late, scored_s }) => {
                        let late = Some(late);
                        told.counters = Some(Counters { windows, dropped, late, scored_s, restarts: 0 });
                    }
                    // What it has to say to people.
                    Err(_) => eprintln!("  {line}"),
                }
            }
        });
        Ok(Self { child, process, told, errors, _dir: dir })
    }
}

impl System for Rival {
    fn root(&self) -> Process {
        self.process
    }

    fn live(&self) -> usize {
        self.told.lock().unwrap().live.len()
    }

    fn failed(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let errors = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let last = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
        Some(format!("it ended with {status}: {last}"))
    }

    fn counters(&self) -> Option<Counters> {
        self.told.lock().unwrap().counters
    }

    fn roles(&self) -> HashMap<u32, String> {
        HashMap::new()
    }

    fn stop(mut self: Box<Self>) {
        let left = self.process.descendants();
        self.process.signal(Signal::SIGTERM);
        if wait::for_exit(&mut self.child, GOODBYE).is_none() {
            eprintln!("  it did not end within {GOODBYE:?} of SIGTERM");
        }
        drop(self);
        for process in left {
            if process.signal(Signal::SIGKILL) {
                eprintln!(
                    "  left behind: {}",
                    String::from_utf8_lossy(&process.arguments()).replace('\0', " ")
                );
            }
        }
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        for process in self.process.descendants() {
            process.signal(Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
