//! A folder of a target's own, removed at its end.

use std::path::{Path, PathBuf};

/// The folder.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Made anew, in memory where the host has such a place.
    ///
    /// # Panics
    /// Where it cannot be made: the target cannot run then.
    pub fn new(name: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = base.join(format!("nursery-fuzz-{name}-{}", std::process::id()));
        if let Err(e) = std::fs::create_dir_all(&folder) {
            panic!("{}: {e}", folder.display());
        }
        Self(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is a few files in the host's temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
