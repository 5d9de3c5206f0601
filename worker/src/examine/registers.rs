//! The few registers that a stack is walked with, on each processor that nursery runs on.

use nix::{libc::user_regs_struct, unistd::Pid};

/// Where a thread is.
#[derive(Debug, Clone, Copy)]
pub struct Registers {
    pub pc: u64,
    pub sp: u64,
    pub fp: u64,
    /// Link register.
    #[cfg(target_arch = "aarch64")]
    pub lr: u64,
}

/// Of a thread that was stopped by this process.
pub fn read(tid: Pid) -> nix::Result<Registers> {
    nix::sys::ptrace::getregs(tid).map(|r: user_regs_struct| convert(&r))
}

#[cfg(target_arch = "x86_64")]
fn convert(r: &user_regs_struct) -> Registers {
    Registers { pc: r.rip, sp: r.rsp, fp: r.rbp }
}

#[cfg(target_arch = "aarch64")]
fn convert(r: &user_regs_struct) -> Registers {
    Registers { pc: r.pc, sp: r.sp, fp: r.regs[29], lr: r.regs[30] }
}
