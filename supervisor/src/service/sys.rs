//! The few system calls that neither the standard library nor nix offers.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

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
/// find its socket at `target`. Only async-signal-safe calls.
pub fn prepare_worker(socket: &impl AsRawFd, target: RawFd, parent: u32) -> io::Result<()> {
    let check = |result: libc::c_long| match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    let socket = socket.as_raw_fd();
    // SAFETY: plain system calls on integers; they touch no memory, take no lock and allocate nothing.
    unsafe {
        check(libc::setsid() as libc::c_long)?;
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
        // Whatever else this process inherited from whoever started it stays here. Kernels before 5.11 do not
        // know the call; all descriptors of our own are close-on-exec anyway.
        libc::syscall(libc::SYS_close_range, target + 1, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
    Ok(())
}
