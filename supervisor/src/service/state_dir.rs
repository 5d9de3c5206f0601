//! The state directory as several users share it: the supervisor's own files (lock, post-mortems) are safe from the
//! sink, which writes beside them as another user. The directory stays root's, belongs to the sink's group and is
//! sticky, so that nobody removes or replaces what is not his.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use nix::libc;
use nursery_shared::postmortem;

use super::{identity::Identity, private_dir};

/// Where workers stand: empty, and nobody may write to it.
const EMPTY: &str = "empty";
/// What the sink keeps. What else it may have left behind (a damaged store that was moved aside) begins with it.
const STORE: &str = "nursery.sqlite";
const QUARANTINE: &str = "quarantine";
/// More than the quarantine holds.
const MAX_ENTRIES: usize = 10_000;

/// Makes the directories that the supervisor keeps in the state directory, and hands the rest over to the sink's
/// user. Returns the directory in which workers stand.
///
/// # Errors
/// One line that names the directory and the remedy.
pub fn prepare(state_dir: &Path, sink: Option<&Identity>) -> Result<PathBuf, String> {
    let at = |path: &Path| {
        let place = path.display().to_string();
        move |e: io::Error| format!("{place}: {e}")
    };
    // Before the sink may write here, so that it cannot put anything in their place.
    for name in [postmortem::DIRECTORY, EMPTY] {
        let path = state_dir.join(name);
        let mode = if name == EMPTY { 0o555 } else { 0o700 };
        private_dir(&path, mode).map_err(at(&path))?;
        let found = fs::symlink_metadata(&path).map_err(at(&path))?;
        if !found.is_dir() || (sink.is_some() && found.uid() != 0) {
            return Err(format!("{}: is not a directory of root: remove it", path.display()));
        }
        // A strict umask took its bits off the mode above.
        if found.mode() & 0o7777 != mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(at(&path))?;
        }
    }
    if let Some(sink) = sink {
        check_way(state_dir, sink)?;
        hand_over(state_dir, sink).map_err(at(state_dir))?;
    }
    Ok(state_dir.join(EMPTY))
}

/// Refuses a directory that belongs to others too, such as `/tmp` or `/etc`, since its rights are about to change.
///
/// # Errors
/// One line with the remedy.
pub fn check_own(state_dir: &Path) -> Result<(), String> {
    let fail = |e: io::Error| e.to_string();
    let found = fs::metadata(state_dir).map_err(fail)?;
    let names: Vec<_> =
        fs::read_dir(state_dir).map_err(fail)?.take(MAX_ENTRIES).flatten().map(|e| e.file_name()).collect();
    let ours = names.is_empty() || names.iter().any(|name| name == "lock");
    if found.uid() != 0 || !ours {
        return Err("belongs to somebody else, or holds other things: give an empty --state-dir".into());
    }
    Ok(())
}

/// The sink must be able to get there.
fn check_way(state_dir: &Path, sink: &Identity) -> Result<(), String> {
    for dir in state_dir.ancestors().skip(1) {
        let found = fs::metadata(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let mode = found.mode();
        let may_enter = match () {
            () if found.uid() == sink.uid => mode & 0o100 != 0,
            () if found.gid() == sink.gid || sink.groups.contains(&found.gid()) => mode & 0o010 != 0,
            () => mode & 0o001 != 0,
        };
        if !may_enter {
            return Err(format!(
                "{} may not be entered by user {}, which stores the events: chmod o+x it, or give another --state-dir",
                dir.display(),
                sink.uid
            ));
        }
    }
    Ok(())
}

fn hand_over(state_dir: &Path, sink: &Identity) -> io::Result<()> {
    for entry in fs::read_dir(state_dir)?.take(MAX_ENTRIES).flatten() {
        if entry.file_name().to_string_lossy().starts_with(STORE) {
            give(&entry.path(), sink)?;
        }
    }
    let quarantine = state_dir.join(QUARANTINE);
    if fs::symlink_metadata(&quarantine).is_ok_and(|m| m.is_dir()) {
        for entry in fs::read_dir(&quarantine)?.take(MAX_ENTRIES).flatten() {
            give(&entry.path(), sink)?;
        }
        give(&quarantine, sink)?;
    }
    chown(state_dir, Some(0), Some(sink.gid))?;
    fs::set_permissions(state_dir, fs::Permissions::from_mode(0o1770))
}

/// Changes the owner of a file that has one name, or of a directory: never of what a link points to, and never of a
/// file that is also somewhere else, since whoever wrote here before may have put it there.
fn give(path: &Path, sink: &Identity) -> io::Result<()> {
    let file: File =
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
    let found = file.metadata()?;
    let single = found.is_file() && found.nlink() == 1;
    if found.uid() == sink.uid && found.gid() == sink.gid || !(single || found.is_dir()) {
        return Ok(());
    }
    nix::unistd::fchownat(
        &file,
        c"",
        Some(sink.uid.into()),
        Some(sink.gid.into()),
        nix::fcntl::AtFlags::AT_EMPTY_PATH,
    )
    .map_err(|e| io::Error::other(format!("{}: {e} (descriptor {})", path.display(), file.as_raw_fd())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt};

    use super::*;

    fn dir(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("nursery-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn workers_stand_in_an_empty_directory_that_is_not_theirs_to_write() {
        let state = dir("empty");
        // As it is made under a strict umask, which workers could not look into.
        DirBuilder::new().mode(0o500).create(state.join(EMPTY)).unwrap();
        let empty = prepare(&state, None).unwrap();
        assert_eq!(fs::metadata(&empty).unwrap().mode() & 0o777, 0o555);
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
        assert_eq!(fs::metadata(&empty).unwrap().mode() & 0o222, 0);
        assert_eq!(fs::metadata(state.join(postmortem::DIRECTORY)).unwrap().mode() & 0o777, 0o700);
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn the_store_is_handed_over_and_links_and_files_of_two_names_are_not() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can hand files over");
            return;
        }
        let state = dir("given");
        let elsewhere = dir("elsewhere");
        fs::write(elsewhere.join("shadow"), "secret").unwrap();
        fs::write(elsewhere.join("linked"), "secret").unwrap();
        fs::write(state.join("lock"), "").unwrap();
        fs::write(state.join(STORE), "").unwrap();
        fs::hard_link(elsewhere.join("shadow"), state.join("nursery.sqlite-wal")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("linked"), state.join("nursery.sqlite-shm")).unwrap();
        check_own(&state).unwrap();
        let sink = Identity { uid: 440_000, gid: 440_000, groups: Vec::new() };
        prepare(&state, Some(&sink)).unwrap();
        let owner = |path: &Path| fs::metadata(path).unwrap().uid();
        assert_eq!(owner(&state.join(STORE)), 440_000);
        for path in ["shadow", "linked"] {
            assert_eq!(owner(&elsewhere.join(path)), 0, "{path}");
        }
        for name in ["", "lock", "postmortems", "empty"] {
            assert_eq!(owner(&state.join(name)), 0, "{name}");
        }
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o7777, 0o1770);
        for path in [state, elsewhere] {
            fs::remove_dir_all(path).unwrap();
        }
    }

    #[test]
    fn a_directory_of_others_is_refused_and_a_way_that_is_closed_is_named() {
        let state = dir("others");
        fs::write(state.join("something"), "").unwrap();
        assert!(check_own(&state).unwrap_err().contains("empty --state-dir"));
        let inner = state.join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        let sink = Identity { uid: 440_000, gid: 440_000, groups: Vec::new() };
        let error = check_way(&inner, &sink).unwrap_err();
        assert!(error.contains("nursery-state-others") && error.contains("chmod o+x"), "{error}");
        fs::remove_dir_all(state).unwrap();
    }
}
