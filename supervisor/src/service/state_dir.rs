//! The state directory as several users share it: it belongs to the supervisor, with the lock and the post-mortems; the
//! sink, which is another user, has a directory of its own in it, and the others an empty one to stand in.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    libc,
    sys::stat::{Mode, fstat},
};
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

/// A directory, opened without following a link in its place.
fn open_directory(parent: Option<&OwnedFd>, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(match parent {
        Some(parent) => nix::fcntl::openat(parent, name, flags, Mode::empty()),
        None => nix::fcntl::open(name, flags, Mode::empty()),
    }?)
}

/// Names in an open directory.
fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let place = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Ok(fs::read_dir(place)?.take(MAX_ENTRIES).flatten().map(|entry| entry.file_name()).collect())
}

fn hand_over(store: &Path, sink: &Identity) -> io::Result<()> {
    let found = fs::symlink_metadata(store)?;
    if found.is_dir() && (found.uid(), found.gid()) == (sink.uid, sink.gid) {
        // Nobody else has written in there, and root without all of its rights may not look.
        return Ok(());
    }
    let directory = open_directory(None, store)?;
    let status = fstat(&directory)?;
    // Who had it before may be at work still: everything is found from the directory that is open, by names without a
    // path, and nothing that is a link is followed.
    for name in names(&directory)? {
        if let Ok(inner) = open_directory(Some(&directory), Path::new(&name)) {
            for name in names(&inner)? {
                give(&inner, &name, sink)?;
            }
        }
        give(&directory, &name, sink)?;
    }
    if status.st_mode & 0o7777 != 0o700 {
        nix::sys::stat::fchmod(&directory, Mode::S_IRWXU)?;
    }
    nix::unistd::fchown(&directory, Some(sink.uid.into()), Some(sink.gid.into()))?;
    Ok(())
}

/// Changes the owner of a file that has one name, or of a directory: never of what a link points to, and never of a
/// file that is also somewhere else, since whoever wrote here before may have put it there.
fn give(directory: &OwnedFd, name: &OsStr, sink: &Identity) -> io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = match nix::fcntl::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        // Removed meanwhile: nothing to give.
        Err(Errno::ENOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let status = fstat(&file)?;
    let kind = status.st_mode & libc::S_IFMT;
    let single = kind == libc::S_IFREG && status.st_nlink == 1;
    if (status.st_uid, status.st_gid) == (sink.uid, sink.gid) || !(single || kind == libc::S_IFDIR) {
        return Ok(());
    }
    let flags = nix::fcntl::AtFlags::AT_EMPTY_PATH;
    nix::unistd::fchownat(&file, c"", Some(sink.uid.into()), Some(sink.gid.into()), flags)
        .map_err(|e| io::Error::other(format!("{}: {e}", name.display())))
}

/// Refuses a state directory in which somebody else could put things in the place of what root makes there. To be asked
/// before anything is.
///
/// # Errors
/// One line with the remedy.
pub fn check_own(state_dir: &Path) -> Result<(), String> {
    let found = fs::metadata(state_dir).map_err(|e| e.to_string())?;
    let root = nix::unistd::geteuid().is_root();
    if root && found.uid() != 0 {
        return Err("belongs to another user: give another --state-dir, or let it belong to root".into());
    }
    if root && found.mode() & 0o002 != 0 {
        return Err("may be written to by everybody: chmod o-w it, or give another --state-dir".into());
    }
    Ok(())
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
    fn a_link_in_the_place_of_a_directory_gives_nothing_away() {
        if !is_root() {
            return;
        }
        let (state, elsewhere) = (dir("swapped"), dir("swapped-elsewhere"));
        fs::write(elsewhere.join("shadow"), "secret").unwrap();
        let store = prepare(&state, Some(&SINK)).unwrap().store;
        std::os::unix::fs::symlink(&elsewhere, store.join(QUARANTINE)).unwrap();
        // To another user, so that everything is gone through.
        prepare(&state, Some(&Identity { uid: 440_001, ..SINK })).unwrap();
        assert_eq!(owner(&store), 440_001);
        for path in [elsewhere.clone(), elsewhere.join("shadow")] {
            assert_eq!(owner(&path), 0, "{}", path.display());
        }
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
        assert!(check_own(&state).unwrap_err().contains("another --state-dir"));
        std::os::unix::fs::chown(&state, Some(0), None).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(check_own(&state).unwrap_err().contains("chmod o-w"));
        fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
        check_own(&state).unwrap();
        fs::create_dir(state.join(EMPTY)).unwrap();
        std::os::unix::fs::chown(state.join(EMPTY), Some(65_534), None).unwrap();
        assert!(prepare(&state, Some(&SINK)).unwrap_err().contains("remove it"));
        fs::remove_dir_all(state).unwrap();
    }
}
