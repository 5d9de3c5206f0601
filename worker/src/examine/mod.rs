//! `nursery-worker examine PID`: what every thread of a process is doing, one [`Finding`] per line, the cheapest
//! first, so that whoever loses patience has something. It changes nothing: threads are stopped for some
//! milliseconds while their stacks are read, and names are looked up after that.

mod memory;
mod modules;
mod procfs;
mod registers;
mod symbols;
pub mod system_calls;
mod threads;
mod unwind;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use nursery_shared::postmortem::{Finding, Frame, MAX_FRAMES};

use modules::Modules;
use symbols::Symbols;
use threads::Stopped;
use unwind::Stacks;

/// Stacks that are told as bare addresses first.
const BARE: usize = 8;

/// Arguments of `examine`.
#[derive(clap::Args)]
pub struct Args {
    /// The process
    pid: i32,
}

/// Writes what there is to be found; fails where there is no such process, or nobody reads.
pub fn run(args: Args) -> ExitCode {
    match examine(args.pid) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("nursery: process {}: {e}", args.pid);
            ExitCode::FAILURE
        }
    }
}

fn say(finding: Finding) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &finding)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn examine(pid: i32) -> io::Result<()> {
    say(Finding::Resources(procfs::resources(pid)))?;
    // Before anybody is stopped, which would show in these.
    let mut threads = procfs::threads(pid)?;
    // Whoever runs is more likely to be the one that hangs than whoever sleeps; then the first thread.
    threads.sort_by_key(|t| (t.state != "R", t.tid));
    for thread in &threads {
        say(Finding::Thread(thread.clone()))?;
    }
    let modules = match Modules::of(pid) {
        Ok(modules) => modules,
        Err(e) => return say(Finding::Note(format!("no stacks: the memory map cannot be read: {e}"))),
    };
    let stacks = Stacks::new(pid, &modules);
    let tids: Vec<i32> = threads.iter().map(|t| t.tid).collect();
    // Stop all, read all, let all go; names take longer and need nobody to wait.
    let mut found = Vec::new();
    for (tid, stopped) in threads::stop_all(&tids) {
        let stack = match stopped {
            Ok(stopped) => read_stack(&stacks, &stopped),
            Err(why) => (Vec::new(), Some(why)),
        };
        found.push((tid, stack));
    }
    let mut symbols = Symbols::new(&modules);
    // First as bare addresses, which is better than nothing for whoever does not wait for the names.
    for (tid, (addresses, stack_ends)) in found.iter().take(BARE) {
        let stack = addresses.iter().map(|address| symbols.bare(*address)).collect();
        say(Finding::Stack { tid: *tid, stack, stack_ends: stack_ends.clone() })?;
    }
    for tid in tids {
        let Some((_, (addresses, mut stack_ends))) = found.iter().find(|(t, _)| *t == tid).cloned() else {
            continue;
        };
        let mut stack: Vec<Frame> = Vec::new();
        for address in addresses {
            stack.extend(symbols.frames(address));
            if stack.len() >= MAX_FRAMES {
                stack.truncate(MAX_FRAMES);
                stack_ends = Some(format!("only the innermost {MAX_FRAMES} functions are shown"));
                break;
            }
        }
        say(Finding::Stack { tid, stack, stack_ends })?;
    }
    Ok(())
}

fn read_stack(stacks: &Stacks, stopped: &Stopped) -> (Vec<u64>, Option<String>) {
    match stopped.registers() {
        Ok(registers) => stacks.walk(registers),
        Err(e) => (Vec::new(), Some(format!("its registers cannot be read: {e}"))),
    }
}
