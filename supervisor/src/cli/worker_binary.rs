//! Finds `nursery-worker`: where the user says, else beside this program, else in libexec.

use std::path::PathBuf;

use super::Failure;

/// The path of the worker binary; exit 2 and where it was looked for, if it is nowhere.
pub fn find(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(path) = given {
        return match path.is_file() {
            true => Ok(path),
            false => Err(Failure::usage(format!("--worker-binary {}: no such file", path.display()))),
        };
    }
    let program = std::env::current_exe().map_err(|e| {
        Failure::failed(format!("cannot tell where this program is: {e}; give --worker-binary"))
    })?;
    let dir = program.parent().map(PathBuf::from).unwrap_or_default();
    let places = ["nursery-worker", "../libexec/nursery/nursery-worker", "../libexec/nursery-worker"];
    places.iter().map(|p| dir.join(p)).find(|p| p.is_file()).ok_or_else(|| {
        Failure::usage(format!(
            "nursery-worker is neither beside {} nor in ../libexec/nursery: copy all binaries, or give \
             --worker-binary",
            program.display()
        ))
    })
}
