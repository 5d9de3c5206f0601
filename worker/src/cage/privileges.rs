//! Gives away what a process may do beyond any other: capabilities, the right to win new ones, readable memory,
//! unlimited descriptors. The user is changed by the supervisor already, which alone may do so.

use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl,
        resource::{Resource, getrlimit, rlim_t, setrlimit},
    },
    unistd::{AccessFlags, access, geteuid},
};
use nursery_shared::cage::{Cage, Guard};

/// Descriptors: sockets, the store, pipes of programs. A worker needs some dozens.
const DESCRIPTORS: rlim_t = 256;
/// Processes and threads of a worker's own user, programs that it starts included.
const PROCESSES: rlim_t = 512;

/// Parts of the heap that threads have to themselves. With as many as there are processors the C library would count
/// those by reading a file, long after files are out of reach.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 16;

/// Gives everything away and notes what was.
pub fn give_away(cage: &mut Cage, supervisor: Option<u32>) {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number inside the C library, while there is one thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
    }
    let uid = geteuid().as_raw();
    cage.uid = uid;
    let own = supervisor.is_some_and(|other| other != uid);
    cage.note(
        Guard::OwnUser,
        match uid {
            _ if own => Ok(()),
            0 => Err("it runs as root: the service may not change users".into()),
            _ => Err("the service does not run as root: all workers are of its user".into()),
        },
    );
    cage.note(Guard::NoNewPrivileges, prctl::set_no_new_privs().map_err(|e| e.to_string()));
    cage.note(Guard::NoCapabilities, drop_capabilities());
    cage.note(Guard::Limits, limit(own));
    cage.note(Guard::EmptyDirectory, stand_in_empty_directory());
    cage.note(
        Guard::NotDumpable,
        if own {
            prctl::set_dumpable(false).map_err(|e| e.to_string())
        } else {
            Err("the service runs as the same user, and could not look into a worker that hangs".into())
        },
    );
}

fn drop_capabilities() -> Result<(), String> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`: two sets of three words.
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [[0_u32; 3]; 2];
    // SAFETY: system calls on integers, and one that reads two structures of ours that outlive it.
    unsafe {
        // An error is none where there are no ambient capabilities, or no more bounds to drop; what counts is looked
        // at below.
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        for capability in 0..64 {
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == -1 {
                break;
            }
        }
        if libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) == -1 {
            return Err(format!("capset: {}", Errno::last()));
        }
    }
    let status =
        std::fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    // The bounding set stays full for an ordinary user, and gives nothing to one who can win no privileges.
    match ["CapInh", "CapPrm", "CapEff", "CapAmb"].into_iter().find(|set| !is_empty(&status, set)) {
        Some(set) => Err(format!("{set} is not empty")),
        None => Ok(()),
    }
}

fn is_empty(status: &str, set: &str) -> bool {
    let value = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':'));
    // Kernels before 4.3 have no ambient set to show.
    value.is_none_or(|v| v.trim().chars().all(|c| c == '0'))
}

fn limit(own_user: bool) -> Result<(), String> {
    let at_most = |resource, most: rlim_t| {
        let (_, hard) = getrlimit(resource)?;
        setrlimit(resource, most.min(hard), most.min(hard))
    };
    let all = || {
        at_most(Resource::RLIMIT_CORE, 0)?;
        at_most(Resource::RLIMIT_NOFILE, DESCRIPTORS)?;
        // Counts everything of a user: not this worker's business unless the user is its own.
        if own_user { at_most(Resource::RLIMIT_NPROC, PROCESSES) } else { Ok(()) }
    };
    all().map_err(|e: Errno| e.to_string())
}

/// The supervisor has put it there; where somebody else started it, it stands where he stood.
fn stand_in_empty_directory() -> Result<(), String> {
    if access(".", AccessFlags::W_OK).is_ok() {
        return Err("the current directory may be written to".into());
    }
    match std::fs::read_dir(".").map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err("the current directory is not empty".into()),
        Err(e) => Err(format!("the current directory: {e}")),
    }
}
