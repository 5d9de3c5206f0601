//! The few system calls that neither the standard library nor nix offers.

use std::{
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::process::ExitStatusExt,
    },
    process::ExitStatus,
};

use super::identity::Identity;

/// A descriptor that becomes readable when the process exits.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The supplementary groups of who is at the other end of a Unix socket, as they were when it connected.
///
/// # Errors
/// Kernels before 4.13 do not tell.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // Most people are in fewer; then there is room for all that the kernel allows.
    for room in [64, 65_536] {
        let mut groups = vec![0_u32; room];
        let mut bytes = (groups.len() * 4) as libc::socklen_t;
        // SAFETY: the kernel fills at most as many bytes as it is told there are, and says how many those were.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        if result == 0 {
            groups.truncate(bytes as usize / 4);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::ERANGE))
}

/// On which terms a worker is started.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Our own process.
    pub parent: u32,
    /// Bytes that it may have of its own.
    pub memory: libc::rlim_t,
    /// Whom it becomes, for good.
    pub identity: Option<Identity>,
    /// Of its control group: open files that it writes "0" to.
    pub entrances: Vec<RawFd>,
    /// Without, as root, it gets a network namespace of its own, with nothing in it.
    pub network: bool,
}

/// What a worker does between fork and exec: enter its control group, begin a session of its own (Ctrl-C is meant for
/// the supervisor, and whatever the worker starts can be found by the session), die with its parent, keep only its own
/// descriptors, find its socket at `target`, have and be what the terms say. Only async-signal-safe calls.
pub fn prepare_worker(socket: &impl AsRawFd, target: RawFd, terms: &Terms) -> io::Result<()> {
    let Terms { parent, memory, identity, entrances, network } = terms;
    let (parent, memory) = (*parent, *memory);
    let check = |result: libc::c_long| match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    let socket = socket.as_raw_fd();
    // SAFETY: writes a byte of ours, and asks for a namespace. Neither is missed so much that a camera should go unheard:
    // the supervisor looks whether the process is where it should be, the worker whether there is a network.
    unsafe {
        for entrance in entrances {
            libc::write(*entrance, c"0".as_ptr().cast(), 1);
        }
        if !network && identity.is_some() {
            libc::unshare(libc::CLONE_NEWNET);
        }
    }
    if let Some(identity) = identity {
        become_user(identity)?;
    }
    // SAFETY: plain system calls on integers and on one variable of this function; they take no lock and allocate
    // nothing.
    unsafe {
        check(libc::setsid() as libc::c_long)?;
        // After the change of user, which undoes it.
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) as libc::c_long)?;
        // The parent may have died before the line above.
        if libc::getppid() as u32 != parent {
            libc::_exit(1);
        }
        if socket == target {
            check(libc::fcntl(socket, libc::F_SETFD, 0) as libc::c_long)?;
        } else {
            check(libc::dup2(socket, target) as libc::c_long)?;
        }
        // Where the kernel lets only ancestors look into a process (Yama), its parent's helper may too. Kernels
        // without Yama do not know the call, and do not need it.
        libc::prctl(libc::PR_SET_PTRACER, libc::c_ulong::from(parent), 0, 0, 0);
        // Whatever else this process inherited from whoever started it stays here. Kernels before 5.11 do not
        // know the call; all descriptors of our own are close-on-exec anyway.
        libc::syscall(libc::SYS_close_range, target + 1, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // Not the address space: program, libraries and what threads only reserve count in that, and debug
        // information alone may be a hundred megabytes. The hard limit stays: the programs of `exec:` sources get it.
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        check(libc::getrlimit(libc::RLIMIT_DATA, &mut limit) as libc::c_long)?;
        limit.rlim_cur = limit.rlim_cur.min(memory);
        check(libc::setrlimit(libc::RLIMIT_DATA, &limit) as libc::c_long)?;
    }
    Ok(())
}

/// What a worker keeps for its first moments, of these what this process has: CAP_DAC_READ_SEARCH lets a file be opened
/// wherever it is, CAP_DAC_OVERRIDE, which is all that many containers have, also a program be started that only root
/// may start.
const OPENERS: [u32; 2] = [2, 1];

/// Takes on a user and its groups, and can take on no other ever after: what is set aside here, capabilities and the
/// right to win some by starting a program, does not come back. What goes through to the program, which is to drop it, is
/// the right to open the files that the configuration names, which belong to root like the configuration itself.
/// Only async-signal-safe calls.
pub fn become_user(identity: &Identity) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`: two words each of what is effective, permitted and inheritable.
    const VERSION_3: u32 = 0x2008_0522;
    let check = |result: libc::c_long| match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    let (uid, gid) = (identity.uid, identity.gid);
    let header = Header { version: VERSION_3, pid: 0 };
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: plain system calls on integers, and some that read or fill structures of ours of the right sizes; they
    // take no lock and allocate nothing. The raw calls concern this thread alone, which is the only one after a fork:
    // the C library's functions would ask its (forked) list of threads.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, identity.groups.len(), identity.groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()))?;
        let mask = OPENERS.into_iter().fold(0, |mask, bit| mask | sets[0][1] & (1 << bit));
        // Before the bounds are gone: what may be inherited must be within them.
        sets[0][2] = mask;
        sets[1][2] = 0;
        check(libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()))?;
        // While there is the capability to do so; until the kernel knows no more of them.
        for capability in 0..64 {
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == -1 {
                break;
            }
        }
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) as libc::c_long)?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        let kept = [[mask; 3], [0; 3]];
        check(libc::syscall(libc::SYS_capset, &raw const header, kept.as_ptr()))?;
        for bit in OPENERS.into_iter().filter(|bit| mask & (1 << bit) != 0) {
            // Kernels before 4.3 have none: files must be readable for the user then.
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, bit, 0, 0);
        }
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0) as libc::c_long)?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) as libc::c_long)?;
    }
    Ok(())
}

/// What a helper that says everything on its standard output does between fork and exec: die with its parent, keep
/// none of its descriptors. Only async-signal-safe calls.
pub fn prepare_helper(parent: u32) -> io::Result<()> {
    // SAFETY: plain system calls on integers; they touch no memory, take no lock and allocate nothing.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have died before the line above.
        if libc::getppid() as u32 != parent {
            libc::_exit(1);
        }
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
    Ok(())
}

/// What a process had used when it ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Used {
    pub peak_rss_bytes: u64,
    pub cpu_s: f64,
}

/// Reaps a child if it has exited; after that its number may be another's.
pub fn reap(pid: u32) -> io::Result<Option<(ExitStatus, Used)>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to memory of ours of the right types, which outlives the call.
    let found = unsafe { libc::wait4(pid as libc::pid_t, &mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    match found {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        _ => {
            // SAFETY: all-zero bytes are a valid rusage, and the kernel has filled it in.
            let usage = unsafe { usage.assume_init() };
            let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
            let used = Used {
                // Kilobytes, whatever the manual of other systems says.
                peak_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
                cpu_s: ((seconds(usage.ru_utime) + seconds(usage.ru_stime)) * 1000.0).round() / 1000.0,
            };
            Ok(Some((ExitStatus::from_raw(status), used)))
        }
    }
}
