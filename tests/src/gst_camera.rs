//! A camera made of GStreamer's RTSP server, where it is installed: one process that serves a WAV file.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{processes::Process, wait};

/// What the camera sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Pcmu8k,
    Pcma8k,
    L16,
    Aac16k,
    Aac48kStereo,
    H264Aac,
    H264Pcmu,
    /// The access units of an ADTS file, given instead of a WAV file.
    AacUnits,
}

impl Stream {
    fn word(self) -> &'static str {
        match self {
            Stream::Pcmu8k => "pcmu-8k",
            Stream::Pcma8k => "pcma-8k",
            Stream::L16 => "l16-16k",
            Stream::Aac16k => "aac-16k",
            Stream::Aac48kStereo => "aac-48k-stereo",
            Stream::H264Aac => "h264-aac",
            Stream::H264Pcmu => "h264-pcmu",
            Stream::AacUnits => "aac-units",
        }
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cameras/gst_rtsp.py")
}

fn python() -> Command {
    // Debian's bindings belong to Debian's Python, which need not be the first in PATH.
    let own = Path::new("/usr/bin/python3");
    let mut command = Command::new(if own.exists() { own } else { Path::new("python3") });
    command.arg(script());
    command
}

/// Why there is no such camera on this machine; `None` where there is one.
pub fn missing() -> Option<String> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    MISSING
        .get_or_init(|| {
            let out = python().arg("--check").output().map_err(|e| e.to_string());
            match out {
                Ok(out) if out.status.success() => None,
                Ok(out) => String::from_utf8_lossy(&out.stderr).lines().last().map(str::to_owned),
                Err(e) => Some(e),
            }
        })
        .clone()
        .map(|why| format!("GStreamer's RTSP server is not installed ({why})"))
}

/// A running camera; gone when dropped.
pub struct GstCamera {
    child: Child,
    port: u16,
}

impl GstCamera {
    /// Serves a WAV file from its start to whoever connects.
    pub fn start(stream: Stream, wav: &Path) -> Self {
        Self::spawn(python().arg("--stream").arg(stream.word()).arg("--wav").arg(wav))
    }

    /// The same, asking for a password by Digest.
    pub fn start_with_password(stream: Stream, wav: &Path, user: &str, password: &str) -> Self {
        let credentials = format!("{user}:{password}");
        Self::spawn(
            python()
                .arg("--stream")
                .arg(stream.word())
                .arg("--wav")
                .arg(wav)
                .arg("--digest")
                .arg(credentials),
        )
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command
            // The script ends when its standard input does, that is with this process at the latest.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start a camera");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("read the camera's port");
        let port = line.trim().strip_prefix("port ").and_then(|p| p.parse().ok());
        let port = port.unwrap_or_else(|| panic!("the camera said {line:?} instead of its port"));
        Self { child, port }
    }

    /// The URL of its stream.
    pub fn url(&self) -> String {
        format!("rtsp://127.0.0.1:{}/live", self.port)
    }

    /// The URL of its stream with this user information.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("rtsp://{user}:{password}@127.0.0.1:{}/live", self.port)
    }

    /// Sends the camera's process a signal: SIGSTOP freezes it, SIGCONT lets it go on.
    pub fn signal(&self, signal: Signal) {
        assert!(Process::of(self.child.id()).is_some_and(|p| p.signal(signal)), "the camera is gone");
    }
}

impl Drop for GstCamera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        wait::for_exit(&mut self.child, Duration::from_secs(5));
    }
}
