//! The state directory as several users share it: it belongs to the supervisor, with the lock and the post-mortems; the
//! sink, which is another user, has a directory of its own in it, and the others an empty one to stand in.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::libc;
use nursery_shared::{control::STORE_DIRECTORY, postmortem};

use super::{identity::Identity, private_dir};

/// Where workers stand: empty, and nobody may write to it.
const EMPTY: &str = "empty";
/// What the sink keeps. What else it may have left behind (a damaged store that was moved aside) begins with it.
const STORE: &str = "nursery.sqlite";
const QUARANTINE: &str = "quarantine";
/// More than the sink keeps.
const MAX_ENTRIES: usize = 10_000;

/// Directories in the state directory.
#[derive(Debug)]
pub struct Places {
    /// In which workers stand.
    pub empty: PathBuf,
    /// In which the sink keeps everything.
    pub store: PathBuf,
}

/// Makes the directories, and hands the store over to the sink's user.
///
/// # Errors
/// One line that names the directory and the remedy.
pub fn prepare(state_dir: &Path, sink: Option<&Identity>) -> Result<Places, String> {
    let at = |path: &Path| {
        let place = path.display().to_string();
        move |e: io::Error| format!("{place}: {e}")
    };
    let owner = |path: &Path| fs::symlink_metadata(path).map(|m| (m.is_dir(), m.uid()));
    let trusted = nix::unistd::geteuid().as_raw();
    if sink.is_some() && owner(state_dir).map_err(at(state_dir))?.1 != trusted {
        // Who owns it could put anything in the place of what is made here.
        return Err("belongs to another user: give another --state-dir, or let it belong to root".into());
    }
    let make = |name: &str, mode: u32, other: Option<u32>| {
        let path = state_dir.join(name);
        private_dir(&path, mode).map_err(at(&path))?;
        let (is_dir, uid) = owner(&path).map_err(at(&path))?;
        if !is_dir || (sink.is_some() && uid != trusted && Some(uid) != other) {
            return Err(format!("{}: is not a directory of the service: remove it", path.display()));
        }
        // A strict umask took its bits off the mode above; what is handed over already is for its user to change.
        if uid == trusted && fs::symlink_metadata(&path).map_err(at(&path))?.mode() & 0o7777 != mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(at(&path))?;
        }
        Ok(path)
    };
    make(postmortem::DIRECTORY, 0o700, None)?;
    let empty = make(EMPTY, 0o555, None)?;
    // Given to another user before, it may be given to one more.
    let store = state_dir.join(STORE_DIRECTORY);
    let former = owner(&store).ok().map(|(_, uid)| uid);
    let store = make(STORE_DIRECTORY, 0o700, former)?;
    move_in(state_dir, &store)?;
    match sink {
        Some(sink) => hand_over(&store, sink).map_err(at(&store))?,
        None => {
            let (_, uid) = owner(&store).map_err(at(&store))?;
            if uid != trusted {
                return Err(format!(
                    "{}: belongs to user {uid}, who stored there before, and this process may not give it to another: chown -R it, or give another --state-dir",
                    store.display()
                ));
            }
        }
    }
    Ok(Places { empty, store })
}

/// Before there was a directory for it, the store was in the state directory itself.
fn move_in(state_dir: &Path, store: &Path) -> Result<(), String> {
    if store.join(STORE).exists() || !state_dir.join(STORE).exists() {
        return Ok(());
    }
    let at = |e: io::Error| format!("{}: {e}", state_dir.display());
    for entry in fs::read_dir(state_dir).map_err(at)?.take(MAX_ENTRIES).flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(STORE) || name == QUARANTINE {
            fs::rename(entry.path(), store.join(name)).map_err(at)?;
        }
    }
    Ok(())
}

fn hand_over(store: &Path, sink: &Identity) -> io::Result<()> {
    let entries = |dir: &Path| -> io::Result<Vec<PathBuf>> {
        Ok(fs::read_dir(dir)?.take(MAX_ENTRIES).flatten().map(|entry| entry.path()).collect())
    };
    for path in entries(store)? {
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir());
        if is_dir {
            entries(&path)?.iter().try_for_each(|path| give(path, sink))?;
        }
        give(&path, sink)?;
    }
    // Last, so that nobody changes anything in between.
    give(store, sink)
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

    const SINK: Identity = Identity { uid: 440_000, gid: 440_000, groups: Vec::new() };

    fn is_root() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            eprintln!("SKIPPED: only root can hand files over");
        }
        root
    }

    fn owner(path: &Path) -> u32 {
        fs::metadata(path).unwrap().uid()
    }

    #[test]
    fn workers_stand_in_an_empty_directory_that_is_not_theirs_to_write() {
        let state = dir("empty");
        // As it is made under a strict umask, which workers could not look into.
        DirBuilder::new().mode(0o500).create(state.join(EMPTY)).unwrap();
        let places = prepare(&state, None).unwrap();
        assert_eq!(fs::read_dir(&places.empty).unwrap().count(), 0);
        assert_eq!(fs::metadata(&places.empty).unwrap().mode() & 0o777, 0o555);
        for private in [state.join(postmortem::DIRECTORY), places.store] {
            assert_eq!(fs::metadata(private).unwrap().mode() & 0o777, 0o700);
        }
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn the_store_alone_is_handed_over_and_links_and_files_of_two_names_are_not() {
        if !is_root() {
            return;
        }
        let state = dir("given");
        let elsewhere = dir("elsewhere");
        fs::write(elsewhere.join("shadow"), "secret").unwrap();
        fs::write(elsewhere.join("linked"), "secret").unwrap();
        // Other things may be there too: they stay as they are.
        fs::write(state.join("cameras.json"), "").unwrap();
        let store = state.join(STORE_DIRECTORY);
        fs::create_dir(&store).unwrap();
        fs::write(store.join(STORE), "").unwrap();
        fs::hard_link(elsewhere.join("shadow"), store.join("nursery.sqlite-wal")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("linked"), store.join("nursery.sqlite-shm")).unwrap();
        let before = fs::metadata(&state).unwrap().mode();
        // The second time to another user than the first.
        for sink in [Identity { uid: 440_001, ..SINK }, SINK] {
            prepare(&state, Some(&sink)).unwrap();
        }
        for path in [store.clone(), store.join(STORE)] {
            assert_eq!(owner(&path), SINK.uid, "{}", path.display());
        }
        for path in ["shadow", "linked"] {
            assert_eq!(owner(&elsewhere.join(path)), 0, "{path}");
        }
        for name in ["", "cameras.json", "postmortems", "empty"] {
            assert_eq!(owner(&state.join(name)), 0, "{name}");
        }
        assert_eq!(fs::metadata(&state).unwrap().mode(), before);
        for path in [state, elsewhere] {
            fs::remove_dir_all(path).unwrap();
        }
    }

    #[test]
    fn a_store_of_earlier_days_moves_into_the_directory() {
        let state = dir("moved");
        fs::write(state.join(STORE), "a").unwrap();
        fs::write(state.join("nursery.sqlite-wal"), "b").unwrap();
        fs::create_dir(state.join(QUARANTINE)).unwrap();
        fs::write(state.join(QUARANTINE).join("x.wav"), "c").unwrap();
        for _ in 0..2 {
            let store = prepare(&state, None).unwrap().store;
            assert_eq!(fs::read_to_string(store.join(STORE)).unwrap(), "a");
            assert_eq!(fs::read_to_string(store.join("nursery.sqlite-wal")).unwrap(), "b");
            assert_eq!(fs::read_to_string(store.join("quarantine/x.wav")).unwrap(), "c");
            assert!(!state.join(STORE).exists());
        }
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn a_store_that_was_given_away_is_named_by_who_may_not_take_it_back() {
        if !is_root() {
            return;
        }
        let state = dir("given-away");
        prepare(&state, Some(&SINK)).unwrap();
        let error = prepare(&state, None).unwrap_err();
        assert!(error.contains("belongs to user 440000") && error.contains("chown -R"), "{error}");
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        if !is_root() {
            return;
        }
        let state = dir("others");
        std::os::unix::fs::chown(&state, Some(65_534), None).unwrap();
        assert!(prepare(&state, Some(&SINK)).unwrap_err().contains("another --state-dir"));
        std::os::unix::fs::chown(&state, Some(0), None).unwrap();
        fs::create_dir(state.join(EMPTY)).unwrap();
        std::os::unix::fs::chown(state.join(EMPTY), Some(65_534), None).unwrap();
        assert!(prepare(&state, Some(&SINK)).unwrap_err().contains("remove it"));
        fs::remove_dir_all(state).unwrap();
    }
}
