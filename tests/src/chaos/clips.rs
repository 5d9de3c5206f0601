//! The clips of a run: never more than they may be, and each of them can be played, whoever died while it was written.

use std::{
    collections::HashSet,
    fs::{self, File},
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
    /// Files that were finished, and how many of them ffprobe has read; `None` where it is not installed.
    pub files: usize,
    pub read: Option<usize>,
    /// Those of them that are left at the end.
    pub kept: usize,
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

fn is_finished(path: &Path) -> bool {
    path.extension().is_some_and(|e| ["wav", "m4a", "mp4"].iter().any(|known| e == *known))
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

/// Has ffprobe read each clip as soon as it is finished, before it has to give way to newer ones.
pub struct Reader {
    clips: Clips,
    seen: HashSet<PathBuf>,
    unplayable: Vec<String>,
}

impl Reader {
    pub fn new() -> Self {
        let installed = Command::new("ffprobe").arg("-version").output().is_ok_and(|o| o.status.success());
        let clips = Clips { read: installed.then_some(0), ..Clips::default() };
        Self { clips, seen: HashSet::new(), unplayable: Vec::new() }
    }

    /// Reads until it is over.
    pub fn follow(mut self, directory: &Path, over: &AtomicBool) -> Self {
        while !over.load(Ordering::SeqCst) {
            self.read_new(directory);
            sleep(4 * LOOK);
        }
        self
    }

    fn read_new(&mut self, directory: &Path) {
        for (path, _) in files(directory) {
            if !is_finished(&path) || self.seen.contains(&path) {
                continue;
            }
            // Opened first: one that is removed meanwhile is read all the same.
            if let Ok(file) = File::open(&path) {
                self.read(&path, file);
                self.seen.insert(path);
            }
        }
    }

    fn read(&mut self, path: &Path, file: File) {
        self.clips.files += 1;
        let Some(read) = &mut self.clips.read else { return };
        let out = Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-show_entries",
                "format=duration",
                "-of",
                "csv=p=0",
                "file:/proc/self/fd/0",
            ])
            .stdin(file)
            .output()
            .expect("ffprobe");
        let complaints = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        let seconds: f64 = String::from_utf8_lossy(&out.stdout).trim().parse().unwrap_or(0.0);
        if out.status.success() && complaints.is_empty() && seconds > 0.0 {
            *read += 1;
            self.clips.seconds += seconds;
        } else {
            self.unplayable.push(format!("{}: {seconds} s, {complaints}", path.display()));
        }
    }

    /// What there was, once nobody writes any more.
    pub fn finish(mut self, directory: &Path, most_bytes: u64) -> (Clips, Vec<String>) {
        self.read_new(directory);
        let left = files(directory);
        self.clips.kept = left.iter().filter(|(path, _)| is_finished(path)).count();
        self.clips.unfinished = left.len() - self.clips.kept;
        self.clips.most_bytes = most_bytes;
        (self.clips, self.unplayable)
    }
}
