//! Which program a worker is: `nursery-worker`, and for cameras, of which there are many, the smaller `nursery-capture`.

use std::{
    io,
    path::{Path, PathBuf},
};

use nursery_shared::message::Role;

/// The program of every role.
const WORKER: &str = "nursery-worker";
/// The role `capture` alone. What a program sets up at its start for code that it never runs is memory of every process.
const CAPTURE: &str = "nursery-capture";

/// Programs of workers, where they are.
#[derive(Debug, Clone)]
pub struct Programs {
    worker: PathBuf,
    capture: Option<PathBuf>,
}

impl Programs {
    /// `worker`: an existing program; one of its usual name may have its companion beside it.
    ///
    /// # Errors
    /// It is not to be found.
    pub fn find(worker: &Path) -> io::Result<Self> {
        // Workers run in another directory.
        let worker = worker.canonicalize()?;
        let usual = worker.file_name().is_some_and(|name| name == WORKER);
        let capture = Some(worker.with_file_name(CAPTURE)).filter(|path| usual && path.is_file());
        Ok(Self { worker, capture })
    }

    /// What does everything.
    pub fn worker(&self) -> &Path {
        &self.worker
    }

    /// What is started for a role.
    pub fn of(&self, role: Role) -> &Path {
        match (&self.capture, role) {
            (Some(capture), Role::Capture) => capture,
            _ => &self.worker,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn cameras_have_the_smaller_program_where_it_lies_beside_the_usual_one() {
        let dir = std::env::temp_dir().join(format!("nursery-programs-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let dir = dir.canonicalize().unwrap();
        let (worker, other, capture) = (dir.join(WORKER), dir.join("another"), dir.join(CAPTURE));
        assert!(Programs::find(&worker).is_err());
        fs::write(&worker, "").unwrap();
        fs::write(&other, "").unwrap();
        assert_eq!(Programs::find(&worker).unwrap().of(Role::Capture), worker);
        fs::write(&capture, "").unwrap();
        let programs = Programs::find(&worker).unwrap();
        assert_eq!((programs.of(Role::Capture), programs.of(Role::Infer)), (&*capture, &*worker));
        assert_eq!(Programs::find(&other).unwrap().of(Role::Capture), other);
        fs::remove_dir_all(dir).unwrap();
    }
}
