//! Forbids a process, with all its threads and for good, every system call that its role has no use for. One that is
//! made all the same ends it by SIGSYS, after its name was written to standard error, which is the worker's log.

use std::collections::BTreeMap;

use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

use super::policy::{Policy, Rule};
use crate::examine::system_calls;

/// Allows what the policy allows, and nothing else.
///
/// # Errors
/// One line: the kernel does not know how, or the list cannot be used.
pub fn allow_only(policy: &Policy) -> Result<(), String> {
    let failing: Vec<&Rule> = policy.rules.iter().filter(|r| r.fails.is_some()).collect();
    let programs = failing
        .iter()
        // Two filters that disagree: the stricter one counts.
        .map(|rule| compile(&[rule], SeccompAction::Allow, errno(rule)))
        .chain([compile(&policy.rules.iter().collect::<Vec<_>>(), SeccompAction::Trap, SeccompAction::Allow)])
        .collect::<Result<Vec<_>, _>>()?;
    name_the_culprit()?;
    programs.iter().try_for_each(apply)
}

/// Allows everything but what the policy lets fail. For whoever starts programs that are not ours.
///
/// # Errors
/// As [`allow_only`].
pub fn refuse(policy: &Policy) -> Result<(), String> {
    let mut errors: Vec<Option<i32>> = policy.rules.iter().map(|rule| rule.fails).collect();
    errors.sort_unstable();
    errors.dedup();
    // A filter has one error to answer with.
    let programs = errors.iter().map(|error| {
        let rules: Vec<&Rule> = policy.rules.iter().filter(|rule| rule.fails == *error).collect();
        rules.first().map_or(Ok(None), |first| compile(&rules, SeccompAction::Allow, errno(first)).map(Some))
    });
    let programs = programs.collect::<Result<Vec<_>, _>>()?;
    programs.iter().flatten().try_for_each(apply)
}

fn errno(rule: &Rule) -> SeccompAction {
    SeccompAction::Errno(rule.fails.unwrap_or(libc::EPERM).unsigned_abs())
}

fn apply(program: &BpfProgram) -> Result<(), String> {
    apply_filter_all_threads(program).map_err(|e| format!("this kernel takes no seccomp filter: {e}"))
}

fn compile(rules: &[&Rule], mismatch: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, String> {
    let fail = |e: seccompiler::BackendError| format!("seccomp: {e}");
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        let alternatives = calls.entry(rule.number).or_default();
        let conditions = rule
            .conditions
            .iter()
            .map(|c| {
                let op = SeccompCmpOp::MaskedEq(c.mask);
                SeccompCondition::new(c.argument, SeccompCmpArgLen::Dword, op, c.value)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(fail)?;
        if !conditions.is_empty() {
            alternatives.push(SeccompRule::new(conditions).map_err(fail)?);
        }
    }
    // A call with a line that asks for nothing is free, whatever its other lines ask for; for the compiler that is a
    // call without alternatives.
    for rule in rules.iter().filter(|r| r.conditions.is_empty()) {
        calls.insert(rule.number, Vec::new());
    }
    let processor: TargetArch = std::env::consts::ARCH.try_into().map_err(fail)?;
    SeccompFilter::new(calls, mismatch, matched, processor).and_then(TryInto::try_into).map_err(fail)
}

/// Has the name of a forbidden call written before the process ends by it.
fn name_the_culprit() -> Result<(), String> {
    let action = SigAction::new(SigHandler::SigAction(on_violation), SaFlags::SA_ONSTACK, SigSet::empty());
    // A fault ends the process as the kernel ends it. The standard library's handlers, which tell a stack that is too
    // deep from other faults, take calls that nothing else does.
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: no handler of ours is taken away.
        unsafe { sigaction(signal, &default) }.map_err(|e| format!("{signal}: {e}"))?;
    }
    // SAFETY: the handler makes system calls and touches nothing but its own stack and constants.
    unsafe { sigaction(Signal::SIGSYS, &action) }.map(drop).map_err(|e| format!("SIGSYS: {e}"))
}

/// `_sigsys` of the kernel's `siginfo`, which the C library's bindings do not show.
#[repr(C)]
struct Violation {
    signal_errno_code: [libc::c_int; 4],
    address: *const libc::c_void,
    call: libc::c_int,
    processor: libc::c_uint,
}

extern "C" fn on_violation(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands over a siginfo of at least this size, which is of this shape for a SIGSYS of seccomp.
    // One that somebody else sent has other bytes there, of which only the number is shown.
    let call = unsafe { (*info.cast::<Violation>()).call };
    let mut line = Line::default();
    line.push(b"ERROR ");
    line.push(FORBIDDEN.as_bytes());
    line.push(system_calls::name(i64::from(call)).unwrap_or("of no known name").as_bytes());
    line.push(b" (number ");
    line.number(call.unsigned_abs());
    line.push(b"): this process ends\n");
    // SAFETY: writes bytes of ours. Then a call that no list has: while this handler runs SIGSYS is blocked, and the
    // kernel ends a process that cannot be told by that same signal. Nothing is allocated, no lock taken.
    unsafe {
        libc::write(2, line.bytes.as_ptr().cast(), line.length);
        libc::syscall(libc::c_long::from(i16::MAX));
        libc::_exit(1);
    }
}

/// How the last line of a worker that made a forbidden call begins; its name follows.
pub const FORBIDDEN: &str = "forbidden system call ";

/// A line that is put together without memory of the heap.
struct Line {
    bytes: [u8; 128],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 128], length: 0 }
    }
}

impl Line {
    fn push(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
    }

    fn number(&mut self, n: u32) {
        let mut power = 1_000_000_000;
        while power > 0 {
            if n >= power || power == 1 {
                self.push(&[b'0' + (n / power % 10) as u8]);
            }
            power /= 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_the_heap() {
        for n in [0, 7, 10, 4_096, u32::MAX] {
            let mut line = Line::default();
            line.number(n);
            assert_eq!(&line.bytes[..line.length], n.to_string().as_bytes());
        }
        let mut line = Line::default();
        line.push(&[b'x'; 1000]);
        assert_eq!(line.length, 128);
    }
}
