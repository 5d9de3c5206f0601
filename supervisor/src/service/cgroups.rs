//! Whether this process has a part of the tree of control groups (version 2) to itself, as systemd's `Delegate=yes`
//! gives it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

/// Where version 2 is, alone or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The directory of this process's group, where groups below it may be made.
///
/// # Errors
/// Why not, in a few words.
pub fn delegated() -> Result<PathBuf, &'static str> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // Version 2 has number 0 and no controllers named.
    let path = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or("this kernel has no version 2 of them")?;
    let place = MOUNTS
        .iter()
        .map(|mount| Path::new(mount).join(path.trim_start_matches('/')))
        .find(|place| place.join("cgroup.procs").exists())
        .ok_or("version 2 of them is not mounted")?;
    if path == "/" {
        return Err("this process is in the root group: run it under systemd, or in a group of its own");
    }
    let writable = [place.clone(), place.join("cgroup.procs"), place.join("cgroup.subtree_control")]
        .iter()
        .all(|file| access(file, AccessFlags::W_OK).is_ok());
    if writable {
        Ok(place)
    } else {
        Err("not delegated to this user (Delegate=yes of a systemd unit does it)")
    }
}
