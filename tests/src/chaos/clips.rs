//! The clips of a run: never more than they may be, and each of them can be played, whoever died while it was written.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::Duration,
};

use serde::Serialize;

use super::report::Violations;

/// `clips.keep_mb` of these services: few enough that the oldest have to go.
pub const KEEP_MB: u64 = 16;
/// Between two looks at how much there is.
const LOOK: Duration = Duration::from_millis(50);

/// What there was.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Clips {
    /// Bytes on the disk at the most.
    pub most_bytes: u64,
    /// Files at the end, and how many of them ffprobe has read; `None` where it is not installed.
    pub files: usize,
    pub read: Option<usize>,
    /// Files that were being written when the service ended; the next one makes them whole.
    pub unfinished: usize,
    /// Seconds in all.
    pub seconds: f64,
}

/// Where they are in a state directory.
pub fn directory(state: &Path) -> PathBuf {
    state.join("store/clips")
}

fn files(directory: &Path) -> Vec<(PathBuf, u64)> {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.blocks() * 512))).collect()
}

/// Looks at how much there is until it is over.
pub fn watch(directory: &Path, over: &AtomicBool, violations: &Violations) -> u64 {
    let (mut most, mut told) = (0, false);
    while !over.load(Ordering::SeqCst) {
        let bytes = files(directory).iter().map(|(_, bytes)| bytes).sum();
        most = most.max(bytes);
        if bytes > KEEP_MB << 20 && !std::mem::replace(&mut told, true) {
            violations.add(format!("clips take {bytes} bytes, more than {KEEP_MB} MiB"));
        }
        sleep(LOOK);
    }
    most
}

/// Has ffprobe read them all, once nobody writes any more.
pub fn examine(directory: &Path, most_bytes: u64, violations: &mut Vec<String>) -> Clips {
    let mut clips = Clips { most_bytes, ..Clips::default() };
    let installed = Command::new("ffprobe").arg("-version").output().is_ok_and(|o| o.status.success());
    clips.read = installed.then_some(0);
    for (path, _) in files(directory) {
        if path.extension().is_some_and(|e| e.to_string_lossy().starts_with("part")) {
            clips.unfinished += 1;
            continue;
        }
        clips.files += 1;
        let Some(read) = &mut clips.read else { continue };
        let out = Command::new("ffprobe")
            .args(["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"])
            .arg(&path)
            .output()
            .expect("ffprobe");
        let complaints = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        let seconds: f64 = String::from_utf8_lossy(&out.stdout).trim().parse().unwrap_or(0.0);
        if out.status.success() && complaints.is_empty() && seconds > 0.0 {
            *read += 1;
            clips.seconds += seconds;
        } else {
            violations.push(format!("{}: {seconds} s, {complaints}", path.display()));
        }
    }
    clips
}
