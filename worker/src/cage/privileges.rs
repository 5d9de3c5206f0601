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
pub const DESCRIPTORS: rlim_t = 256;

/// Heaps that threads share. With more than one the C library reads a file when a part of one of them is given back for the
/// first time, and with as many as there are processors another one to count those: both long after files are out of reach.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 1;

/// Gives everything away and notes what was.
pub fn give_away(cage: &mut Cage, supervisor: Option<u32>, descriptors: rlim_t) {
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
    // What counts is what is left in the end, see [`open_no_more`].
    let _ = keep_at_most(OPENERS);
    cage.note(Guard::Limits, limit(descriptors));
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

/// Gives the last capabilities away, those of opening files wherever they are; to be called when all are open.
pub fn open_no_more(cage: &mut Cage) {
    cage.note(Guard::NoCapabilities, drop_capabilities());
}

/// Without a cage to note it in.
///
/// # Errors
/// One line: something is left.
pub fn drop_capabilities() -> Result<(), String> {
    // The bounding set stays full for an ordinary user, and gives nothing to one who can win no privileges; the ambient
    // set holds nothing that is not permitted.
    match keep_at_most(0)? {
        [[0, 0, 0], [0, 0, 0]] => Ok(()),
        left => Err(format!("some are left: {left:x?}")),
    }
}

/// CAP_DAC_READ_SEARCH and CAP_DAC_OVERRIDE, which the supervisor leaves a worker as far as it has them.
const OPENERS: u32 = 1 << 2 | 1 << 1;

/// Two words each of what is effective, permitted and inheritable.
type Capabilities = [[u32; 3]; 2];

/// Drops all capabilities but some of these, which no program inherits; what is left.
fn keep_at_most(mask: u32) -> Result<Capabilities, String> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let look = || {
        let mut sets = Capabilities::default();
        // SAFETY: fills a structure of ours of the right size.
        let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
        if result == -1 { Err(format!("capget: {}", Errno::last())) } else { Ok(sets) }
    };
    // An ordinary user has none, and root that may not become another user keeps none: its files are its own.
    let kept = if geteuid().is_root() { 0 } else { look()?[0][1] & mask };
    let sets: Capabilities = [[kept, kept, 0], [0; 3]];
    // SAFETY: system calls on integers, and one that reads a structure of ours of the right size.
    unsafe {
        // An error is none where there are no ambient capabilities, or no more bounds to drop; what counts is what is
        // left.
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        for capability in 0..64 {
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == -1 {
                break;
            }
        }
        if libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) == -1 {
            return Err(format!("capset: {}", Errno::last()));
        }
    }
    look()
}

/// Only the interface of a host with itself is there, and that is not up.
pub fn has_no_network() -> Result<(), String> {
    let devices =
        std::fs::read_to_string("/proc/self/net/dev").map_err(|e| format!("/proc/self/net/dev: {e}"))?;
    let mut names = devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let routes = std::fs::read_to_string("/proc/self/net/fib_trie").unwrap_or_default();
    if names.all(|name| name == "lo") && !routes.contains("127.0.0.0") {
        return Ok(());
    }
    Err("only root with CAP_SYS_ADMIN can take it away; there is no system call to use it with".into())
}

fn limit(descriptors: rlim_t) -> Result<(), String> {
    let at_most = |resource, most: rlim_t| {
        let (_, hard) = getrlimit(resource)?;
        setrlimit(resource, most.min(hard), most.min(hard))
    };
    let all = || {
        at_most(Resource::RLIMIT_CORE, 0)?;
        // The number of processes is limited by the supervisor, which knows whether a user is this worker's alone.
        at_most(Resource::RLIMIT_NOFILE, descriptors)
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
