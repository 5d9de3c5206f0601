//! A farm in a process of its own (`camera-farm`), started, read and ended by whoever measures or tests.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{Kind, ledger::Entry};
use crate::{processes::Process, service::binary, temp_dir::TempDir, wait};

/// Encoding AAC for the first time takes some seconds.
const READY: Duration = Duration::from_secs(120);

/// A running farm; gone when dropped.
pub struct CameraFarm {
    child: Child,
    process: Process,
    port: u16,
    nice: i32,
    ledger: Mutex<Reading>,
    _dir: TempDir,
}

/// The ledger, and how far it was read.
struct Reading {
    path: PathBuf,
    at: u64,
    entries: Vec<Entry>,
}

impl CameraFarm {
    /// Starts a farm with cameras of these kinds. AAC is encoded by ffmpeg, once; what was encoded stays beside the
    /// binary.
    pub fn start(kinds: &[Kind]) -> Self {
        let dir = TempDir::new();
        let path = dir.join("ledger.jsonl");
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let child = Command::new(binary("camera-farm"))
            .args(["--kinds", &kinds.join(","), "--until-input-ends", "--ledger"])
            .arg(&path)
            // Ends with this process at the latest.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("start a farm of cameras");
        let process = Process::of(child.id()).expect("the process just started");
        let mut farm = Self {
            child,
            process,
            port: 0,
            nice: 0,
            ledger: Mutex::new(Reading { path, at: 0, entries: Vec::new() }),
            _dir: dir,
        };
        let (port, nice) = wait::until("a farm of cameras", READY, || {
            let ended = farm.child.try_wait().expect("wait for the farm");
            assert!(ended.is_none(), "the farm ended: {}", ended.unwrap_or_default());
            farm.ledger().iter().find_map(|entry| match entry {
                Entry::Ready { port, nice, .. } => Some((*port, *nice)),
                _ => None,
            })
        });
        (farm.port, farm.nice) = (port, nice);
        farm
    }

    /// The URL of a camera.
    pub fn url(&self, kind: Kind, camera: u32) -> String {
        format!("rtsp://127.0.0.1:{}/{}/{camera:03}", self.port, kind.as_str())
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its niceness.
    pub fn nice(&self) -> i32 {
        self.nice
    }

    /// Its process.
    pub fn process(&self) -> Process {
        self.process
    }

    /// All that it has written down so far.
    pub fn ledger(&self) -> Vec<Entry> {
        let mut reading = self.ledger.lock().unwrap();
        reading.read_on();
        reading.entries.clone()
    }

    /// The newest totals; `None` before the first.
    pub fn totals(&self) -> Option<Entry> {
        let mut reading = self.ledger.lock().unwrap();
        reading.read_on();
        reading.entries.iter().rev().find(|entry| matches!(entry, Entry::Totals { .. })).cloned()
    }

    /// Ends it, and gives all that it has written down.
    pub fn finish(mut self) -> Vec<Entry> {
        self.process.signal(Signal::SIGTERM);
        let ended = wait::for_exit(&mut self.child, Duration::from_secs(10));
        assert!(ended.is_some_and(|status| status.success()), "the farm ended badly: {ended:?}");
        self.ledger()
    }
}

impl Reading {
    fn read_on(&mut self) {
        let Ok(mut file) = File::open(&self.path) else { return };
        let mut text = String::new();
        if file.seek(SeekFrom::Start(self.at)).and_then(|_| file.read_to_string(&mut text)).is_err() {
            return;
        }
        // The last line may still be written.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.at += whole as u64;
        for line in text[..whole].lines() {
            self.entries.push(serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}")));
        }
    }
}

impl Drop for CameraFarm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let path = &self.ledger.lock().unwrap().path;
        let _ = fs::remove_file(path);
    }
}
