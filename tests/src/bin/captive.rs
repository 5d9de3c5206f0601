//! A capture process in somebody else's hands: it is caged like a real one, by the same code, and then tries what it
//! must not: `captive MODE [ARGUMENT]`. What it says on its log is what came of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    hint::black_box,
    net::TcpStream,
    time::{Duration, Instant},
};

use nursery_shared::message::{FromWorker, Role, ToWorker};
use nursery_worker::{
    cage::{Cage, roles::Plan},
    capture, link,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mode, argument) = (arguments[0].as_str(), arguments.get(1).map_or("", String::as_str));
    capture::limit_memory();
    let link = link::open(Role::Capture).unwrap();
    let mut cage = Cage::enter(link.supervisor());
    let Some(ToWorker::ConfigureCapture { camera, .. }) = link.configuration().unwrap() else { return };
    let source = camera.source.parse().unwrap();
    let plan = Plan::capture(&camera, &source);
    let supervisor = std::os::unix::process::parent_id() as libc::pid_t;
    cage.confine(&plan);
    let (_inbox, outbox) = link.start().unwrap();
    outbox.send(&cage.close(&plan).unwrap()).unwrap();
    outbox.send(&FromWorker::Ready).unwrap();
    outbox.send(&FromWorker::Progress { done: 1 }).unwrap();
    outbox.flush();
    eprintln!("INFO captive: tries {mode}");
    let came_of_it = match mode {
        "read" => fs::read(argument).map(|bytes| format!("{} bytes", bytes.len())).map_err(|e| e.to_string()),
        "write" => fs::write(argument, "x").map(|()| "written".to_owned()).map_err(|e| e.to_string()),
        "connect" => TcpStream::connect(argument).map(|_| "connected".to_owned()).map_err(|e| e.to_string()),
        "exec" | "ptrace" | "signal" | "fork" => outcome(attack(mode, supervisor)),
        "mapping" => outcome(shared_memory()),
        "program" => outcome(own_program()),
        "threads" => threads(),
        "memory" => memory(),
        "flood" => flood(&outbox),
        other => panic!("no such mode: {other}"),
    };
    match came_of_it {
        Ok(what) => eprintln!("ERROR captive: SUCCEEDED with {mode}: {what}"),
        Err(why) => eprintln!("WARN captive: refused {mode}: {why}"),
    }
    // Alive and well, for all that the supervisor knows, so that it has no other reason to end this.
    loop {
        outbox.send(&FromWorker::Progress { done: 2 }).unwrap();
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn attack(mode: &str, supervisor: libc::pid_t) -> i64 {
    let nothing = [std::ptr::null()];
    // SAFETY: calls that are to be refused; one that is not harms nobody but this test.
    unsafe {
        match mode {
            "exec" => i64::from(libc::execve(c"/bin/sh".as_ptr(), nothing.as_ptr(), nothing.as_ptr())),
            "ptrace" => libc::ptrace(libc::PTRACE_SEIZE, supervisor, 0, 0),
            "signal" => i64::from(libc::kill(supervisor, libc::SIGTERM)),
            _ => i64::from(libc::fork()),
        }
    }
}

fn outcome(result: i64) -> Result<String, String> {
    match result {
        -1 => Err(std::io::Error::last_os_error().to_string()),
        n => Ok(n.to_string()),
    }
}

/// Four gibibytes that no limit of a process counts.
fn shared_memory() -> i64 {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: new memory at a place of the kernel's choice.
    unsafe {
        libc::mmap(std::ptr::null_mut(), 4 << 30, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) as i64
    }
}

/// Bytes of its own as a program.
fn own_program() -> i64 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: new memory at a place of the kernel's choice, of which only the rights are changed.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        i64::from(libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC))
    }
}

fn threads() -> Result<String, String> {
    for n in 0..5_000 {
        let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(|| {
            loop {
                std::thread::park();
            }
        });
        if let Err(e) = thread {
            return Err(format!("{e} (after {n} threads)"));
        }
    }
    Ok("5000 threads".into())
}

fn memory() -> Result<String, String> {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    while eaten.len() < 64 {
        eaten.push(black_box(vec![1; 64 << 20]));
    }
    Ok("4 GiB".into())
}

fn flood(outbox: &link::Outbox) -> Result<String, String> {
    let end = Instant::now() + Duration::from_secs(4);
    let mut sent = 0_u64;
    while Instant::now() < end {
        outbox.send(&FromWorker::Progress { done: sent })?;
        sent += 1;
    }
    Err(format!("{sent} messages were taken in their turn"))
}
