//! Going to where the sink keeps things, which may lie where its user could not go by himself.

use std::{
    io,
    path::{Path, PathBuf},
};

use nursery_shared::control::STORE_DIRECTORY;

use crate::cage::privileges;

/// The directory that this process stands in from then on.
pub const HERE: &str = ".";

/// Makes the store's directory the current one; to be called before the last privilege is given away.
///
/// # Errors
/// One line with the directory.
pub fn enter(directory: &Path) -> Result<(), String> {
    std::env::set_current_dir(directory).map_err(|e| format!("{}: {e}", directory.display()))
}

/// For somebody who only reads what a service keeps in `state_dir`: goes there, with no privileges left to lose to what
/// is found. Returns the directory for people.
///
/// # Errors
/// One line with the directory.
pub fn visit(state_dir: &Path) -> Result<PathBuf, String> {
    let directory = state_dir.join(STORE_DIRECTORY);
    match std::env::set_current_dir(&directory) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let place = state_dir.display();
            return Err(format!("no store in {place} (has the service run with this --state-dir?)"));
        }
        Err(e) => return Err(format!("{}: {e}", directory.display())),
    }
    privileges::drop_capabilities()?;
    Ok(directory)
}
