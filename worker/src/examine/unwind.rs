//! From the registers of a thread that stands still to the addresses of its callers, by the unwind tables of each
//! module (they are in every binary, since panics unwind), where there are none by frame pointers.

use framehop::Unwinder;
use nursery_shared::postmortem::MAX_FRAMES;

use super::{memory::Memory, modules::Modules, registers::Registers};

#[cfg(target_arch = "aarch64")]
use framehop::aarch64::{CacheAarch64 as Cache, UnwinderAarch64 as NativeUnwinder};
#[cfg(target_arch = "x86_64")]
use framehop::x86_64::{CacheX86_64 as Cache, UnwinderX86_64 as NativeUnwinder};

/// Walks stacks of one process.
pub struct Stacks {
    unwinder: NativeUnwinder<Vec<u8>>,
    memory: Memory,
}

impl Stacks {
    /// Of this process, with these modules in it.
    pub fn new(pid: i32, modules: &Modules) -> Self {
        let mut unwinder = NativeUnwinder::new();
        for module in modules.unwind_modules() {
            unwinder.add_module(module);
        }
        Self { unwinder, memory: Memory::of(pid) }
    }

    /// Addresses of code, innermost first, each within its call; and why there are no more of them, if the last one
    /// is not where the thread began.
    pub fn walk(&self, registers: Registers) -> (Vec<u64>, Option<String>) {
        let mut cache = Cache::<_>::new();
        let mut read = |address: u64| self.memory.word(address).ok_or(());
        let mut frames = self.unwinder.iter_frames(registers.pc, native(registers), &mut cache, &mut read);
        let mut addresses = Vec::new();
        loop {
            match frames.next() {
                Ok(Some(frame)) => addresses.push(frame.address_for_lookup()),
                Ok(None) => return (addresses, None),
                Err(e) => return (addresses, Some(format!("its callers cannot be found: {e}"))),
            }
            if addresses.len() >= MAX_FRAMES {
                return (addresses, Some(format!("only the innermost {MAX_FRAMES} functions are shown")));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn native(r: Registers) -> framehop::x86_64::UnwindRegsX86_64 {
    framehop::x86_64::UnwindRegsX86_64::new(r.pc, r.sp, r.fp)
}

#[cfg(target_arch = "aarch64")]
fn native(r: Registers) -> framehop::aarch64::UnwindRegsAarch64 {
    // Code signed with pointer authentication has bits above the 48 of an address.
    let mask = framehop::aarch64::PtrAuthMask((1 << 48) - 1);
    framehop::aarch64::UnwindRegsAarch64::new_with_ptr_auth_mask(mask, r.lr, r.sp, r.fp)
}
