//! The few system calls that neither the standard library nor nix offers.

use std::{
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
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

/// What a worker does between fork and exec: begin a session of its own (Ctrl-C is meant for the supervisor, and
/// whatever the worker starts can be found by the session), die with its parent, keep only its own descriptors,
/// find its socket at `target`, have no more than `memory` bytes of its own, become `identity` for good. Only
/// async-signal-safe calls.
pub fn prepare_worker(
    socket: &impl AsRawFd,
    target: RawFd,
    parent: u32,
    memory: libc::rlim_t,
    identity: Option<&Identity>,
) -> io::Result<()> {
    let check = |result: libc::c_long| match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    let socket = socket.as_raw_fd();
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

/// Takes on a user and its groups, and can take on no other ever after: what is set aside here, capabilities and the
/// right to win some by starting a program, does not come back. Only async-signal-safe calls.
pub fn become_user(identity: &Identity) -> io::Result<()> {
    let check = |result: libc::c_long| match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    let (uid, gid) = (identity.uid, identity.gid);
    // SAFETY: plain system calls on integers, and one that reads a list of ours of the length that is given; they take
    // no lock and allocate nothing. The raw calls concern this thread alone, which is the only one after a fork: the C
    // library's functions would ask its (forked) list of threads.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, identity.groups.len(), identity.groups.as_ptr()))?;
        // While there is the capability to do so; until the kernel knows no more of them.
        for capability in 0..64 {
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == -1 {
                break;
            }
        }
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
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
