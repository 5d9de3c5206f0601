//! A worker at the end of a socket of the test's, of which every system call is noted from the moment on that its cage
//! is closed.

use std::{
    collections::BTreeSet,
    os::{fd::BorrowedFd, unix::net::UnixStream},
    process::Child,
    sync::mpsc::{Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use nursery_shared::{
    frame::{self, MAX_FROM_WORKER, MAX_TO_WORKER},
    message::{FromWorker, ToWorker},
};

use crate::bare_worker::{self, MediaEnd};

/// A worker that is being watched.
pub struct Traced {
    /// Reaped by whoever traces it.
    _child: Child,
    socket: UnixStream,
    watcher: JoinHandle<(Option<i32>, BTreeSet<i64>)>,
}

impl Traced {
    /// Starts `nursery-worker ROLE` and says the first thing to it.
    pub fn start(role: &str, configure: &ToWorker) -> Self {
        let (child, ours) = bare_worker::spawn(role);
        let pid = Pid::from_raw(child.id() as i32);
        let (ready, seized) = channel();
        // It waits for its configuration meanwhile.
        let watcher = std::thread::spawn(move || watch(pid, &ready));
        seized.recv().expect("the watcher").expect("ptrace");
        ours.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        let mut traced = Self { _child: child, socket: ours, watcher };
        traced.send(configure);
        traced.wait_for(|m| matches!(m, FromWorker::Ready).then_some(()));
        traced
    }

    /// Says something.
    pub fn send(&mut self, message: &ToWorker) {
        frame::write_frame(&mut self.socket, message, MAX_TO_WORKER).expect("a worker that listens");
    }

    /// Says something, with a descriptor.
    pub fn send_with(&mut self, message: &ToWorker, descriptor: BorrowedFd<'_>) {
        bare_worker::send_with(&self.socket, message, descriptor);
    }

    /// What it says next.
    pub fn receive(&mut self) -> FromWorker {
        self.wait_for(Some)
    }

    /// Asks for its media, as the viewers' process would.
    pub fn connect(&mut self) -> MediaEnd {
        bare_worker::connect(&self.socket)
    }

    /// Reads on until `wanted` gives something.
    pub fn wait_for<T>(&mut self, mut wanted: impl FnMut(FromWorker) -> Option<T>) -> T {
        loop {
            let message = frame::read_frame(&mut self.socket, MAX_FROM_WORKER).expect("a frame");
            if let Some(found) = wanted(message.expect("the worker ended early")) {
                return found;
            }
        }
    }

    /// Has it drained; its exit status (`None`: by a signal), and the numbers of its calls.
    pub fn drain(mut self) -> (Option<i32>, BTreeSet<i64>) {
        self.send(&ToWorker::Drain);
        while let Ok(Some(_)) = frame::read_frame::<FromWorker>(&mut self.socket, MAX_FROM_WORKER) {}
        self.watcher.join().expect("the watcher")
    }
}

/// Whoever traces must be one thread from beginning to end.
fn watch(pid: Pid, ready: &Sender<nix::Result<()>>) -> (Option<i32>, BTreeSet<i64>) {
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    let seized = ptrace::seize(pid, options).and_then(|()| ptrace::interrupt(pid));
    let failed = seized.is_err();
    let _ = ready.send(seized);
    let (mut status_of_all, mut calls) = (None, BTreeSet::new());
    // Not the children of other threads, which belong to other tests.
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
        if failed {
            break;
        }
        match status {
            WaitStatus::PtraceSyscall(thread) => {
                if let Ok(registers) = ptrace::getregs(thread) {
                    let call = number(&registers);
                    if call == libc::SYS_seccomp {
                        // What came before was free.
                        calls.clear();
                    } else {
                        calls.insert(call);
                    }
                }
                let _ = ptrace::syscall(thread, None);
            }
            WaitStatus::PtraceEvent(thread, ..) => {
                let _ = ptrace::syscall(thread, None);
            }
            WaitStatus::Stopped(thread, signal) => {
                let _ = ptrace::syscall(thread, (signal != Signal::SIGTRAP).then_some(signal));
            }
            WaitStatus::Exited(thread, code) if thread == pid => status_of_all = Some(code),
            _ => {}
        }
    }
    (status_of_all, calls)
}

#[cfg(target_arch = "x86_64")]
fn number(registers: &libc::user_regs_struct) -> i64 {
    registers.orig_rax as i64
}

#[cfg(target_arch = "aarch64")]
fn number(registers: &libc::user_regs_struct) -> i64 {
    registers.regs[8] as i64
}
