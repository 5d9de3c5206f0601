//! A disk of its own for a state directory, which can be filled and made read-only: a small file system in memory,
//! mounted where only this thread and what it starts can see it, so that nothing is left behind whatever happens.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Room for a store, 200 post-mortems and some quarantined windows.
const MEGABYTES: u32 = 64;

/// A mounted disk; unmounted when dropped.
pub struct Disk {
    at: PathBuf,
}

fn path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(io::Error::other)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn mount(source: &Path, at: &Path, kind: &str, flags: libc::c_ulong, options: &str) -> io::Result<()> {
    let (source, at) = (path(source)?, path(at)?);
    let (kind, options) =
        (CString::new(kind).map_err(io::Error::other)?, CString::new(options).map_err(io::Error::other)?);
    // SAFETY: all four are strings that end with a zero byte and outlive the call.
    check(unsafe { libc::mount(source.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) })
}

fn unmount(at: &Path) -> io::Result<()> {
    let at = path(at)?;
    // Whoever has files open there keeps them.
    // SAFETY: a string that ends with a zero byte and outlives the call.
    check(unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) })
}

impl Disk {
    /// Mounts a new disk at this directory, for the calling thread and the processes and threads that it starts from
    /// now on. Fails where the system does not allow it, mostly for lack of root's rights.
    pub fn mount(at: &Path) -> io::Result<Self> {
        // SAFETY: changes what this thread sees as mounted, and touches no memory.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        // Nothing that is mounted from here on goes to whoever shares these mounts.
        mount(Path::new("none"), Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")?;
        mount(Path::new("tmpfs"), at, "tmpfs", 0, &format!("size={MEGABYTES}m,mode=0700"))?;
        Ok(Self { at: at.to_owned() })
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Not a byte more fits.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("create the filler");
        let mut size = 1 << 20;
        while size > 0 {
            match file.write(&vec![0; size]) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::StorageFull => size /= 2,
                Err(e) => panic!("fill the disk: {e}"),
            }
        }
    }

    /// There is room again.
    pub fn empty(&self) {
        std::fs::remove_file(self.filler()).expect("remove the filler");
    }

    /// From now on files can be opened for reading only. Those that are open for writing still are.
    pub fn freeze(&self) {
        let bind = |flags| mount(&self.at, &self.at, "", flags, "").expect("mount the state directory");
        bind(libc::MS_BIND);
        bind(libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY);
    }

    /// Files can be opened for writing again.
    pub fn thaw(&self) {
        unmount(&self.at).expect("unmount the read-only state directory");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.at);
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;
    use crate::{
        service::{Service, binary, camera, config, find_worker, has_progressed},
        skip,
        temp_dir::TempDir,
    };

    #[test]
    fn a_sink_that_begins_on_a_disk_that_may_only_be_read_stores_when_it_may_be_written_to() {
        let dir = TempDir::new();
        let state = dir.join("state");
        std::fs::create_dir(&state).unwrap();
        let disk = match Disk::mount(&state) {
            Ok(disk) => disk,
            Err(e) => skip!("no disk of its own: {e}"),
        };
        let toy = config([camera("toy", "synthetic:cry")], []);
        let service = Service::start_in(dir, &toy, &binary("nursery-worker"));
        service.wait_live(&["toy"]);
        disk.freeze();
        assert!(service.process_of("sink").signal(Signal::SIGKILL));
        service.wait_for("a sink that sees that it cannot store", |s| {
            (find_worker(s, "sink").restarts >= 2).then_some(())
        });
        assert!(service.log().iter().any(|l| l.contains("mounted read-only")), "{:?}", service.log());
        disk.thaw();
        service.wait_for("a sink that stores", |s| has_progressed(find_worker(s, "sink")).then_some(()));
        drop(service);
        drop(disk);
    }

    #[test]
    fn a_full_disk_takes_nothing_and_a_frozen_one_opens_nothing_for_writing() {
        let dir = TempDir::new();
        let state = dir.join("state");
        std::fs::create_dir(&state).unwrap();
        let disk = match Disk::mount(&state) {
            Ok(disk) => disk,
            Err(e) => skip!("no disk of its own: {e}"),
        };
        let file = state.join("file");
        disk.fill();
        assert_eq!(std::fs::write(&file, "x").unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.empty();
        std::fs::write(&file, "x").unwrap();
        let mut open = File::options().append(true).open(&file).unwrap();
        disk.freeze();
        let error = File::options().append(true).open(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        open.write_all(b"y").unwrap();
        disk.thaw();
        std::fs::write(&file, "z").unwrap();
        drop(open);
        drop(disk);
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0);
    }
}
