//! What the worker's tests share: a directory that goes away, recordings of their own, and a supervisor's end of a
//! worker's socket.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nursery_shared::{
    config::CameraConfig,
    frame::{self, MAX_FROM_WORKER, MAX_TO_WORKER},
    message::{FromWorker, ModelShape, ToWorker, WORKER_FD},
};

pub const WORKER: &str = env!("CARGO_BIN_EXE_nursery-worker");

/// A directory that is removed with everything in it.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let path =
            std::env::temp_dir().join(format!("nursery-{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and returns its path.
    pub fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.into_os_string().into_string().unwrap()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A mono WAV file.
pub fn wav(rate: u32, samples: &[i16]) -> Vec<u8> {
    let data = samples.len() as u32 * 2;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"RIFF");
    bytes.extend_from_slice(&(36 + data).to_le_bytes());
    bytes.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend_from_slice(&rate.to_le_bytes());
    bytes.extend_from_slice(&(rate * 2).to_le_bytes());
    bytes.extend_from_slice(b"\x02\0\x10\0data");
    bytes.extend_from_slice(&data.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
    bytes
}

/// A steady tone.
pub fn tone(rate: u32, hz: f64, seconds: f64) -> Vec<i16> {
    (0..(f64::from(rate) * seconds) as u32)
        .map(|i| ((std::f64::consts::TAU * hz * f64::from(i) / f64::from(rate)).sin() * 8_000.0) as i16)
        .collect()
}

/// A camera as the configuration would give it.
pub fn camera(json: &str) -> CameraConfig {
    serde_json::from_str(json).unwrap()
}

/// A quarter of a second, as models of ours have it.
pub fn shape() -> ModelShape {
    ModelShape {
        id: "test".into(),
        window: 4_000,
        hop: 4_000,
        lookahead: 4_000,
        frame_step: 800,
        state_bytes: 25_000,
    }
}

/// A worker process and the supervisor's end of its socket.
pub struct Worker {
    child: Option<Child>,
    socket: UnixStream,
}

impl Worker {
    /// Starts `nursery-worker capture` for a camera.
    pub fn capture(camera: &str, shape: ModelShape) -> Self {
        Self::start(
            "capture",
            &ToWorker::ConfigureCapture { camera: self::camera(camera), model: shape, remember_s: 0 },
        )
    }

    /// Starts `nursery-worker ROLE` and says the first thing to it.
    pub fn start(role: &str, configure: &ToWorker) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs = OwnedFd::from(theirs);
        let descriptor = theirs.as_raw_fd();
        let mut command = Command::new(WORKER);
        command.arg(role).stdin(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec only a system call is made; the descriptor is open until then.
        unsafe {
            command.pre_exec(move || {
                let socket = BorrowedFd::borrow_raw(descriptor);
                let mut target = OwnedFd::from_raw_fd(WORKER_FD);
                let outcome = nix::unistd::dup2(socket, &mut target);
                // The descriptor is for the worker.
                let _ = target.into_raw_fd();
                Ok(outcome?)
            });
        }
        let child = command.spawn().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut worker = Self { child: Some(child), socket: ours };
        worker.send(configure);
        worker
    }

    /// SIGKILL; whatever it had said before can still be read.
    pub fn kill(mut self) -> Vec<FromWorker> {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let mut last_words = Vec::new();
        while let Ok(Some(message)) = frame::read_frame(&mut self.socket, MAX_FROM_WORKER) {
            last_words.push(message);
        }
        last_words
    }

    pub fn send(&mut self, message: &ToWorker) {
        frame::write_frame(&mut self.socket, message, MAX_TO_WORKER).unwrap();
    }

    /// The next message; `None` at the end. Fails after 20 s of nothing.
    pub fn recv(&mut self) -> Option<FromWorker> {
        frame::read_frame(&mut self.socket, MAX_FROM_WORKER).expect("a message within 20 s")
    }

    /// Reads on until `wanted` gives something.
    pub fn wait_for<T>(&mut self, mut wanted: impl FnMut(FromWorker) -> Option<T>) -> T {
        loop {
            let message = self.recv().expect("the worker ended early");
            if let Some(found) = wanted(message) {
                return found;
            }
        }
    }

    /// Reads to the end of the socket, then the exit status.
    pub fn finish(mut self) -> (Vec<FromWorker>, std::process::ExitStatus) {
        let mut messages = Vec::new();
        while let Some(message) = self.recv() {
            messages.push(message);
        }
        let status = self.child.take().unwrap().wait().unwrap();
        (messages, status)
    }

    /// Closes the socket without a word.
    pub fn hang_up(mut self) -> Child {
        self.child.take().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
