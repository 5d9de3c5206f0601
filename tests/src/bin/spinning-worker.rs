//! A capture process that begins well and then computes for ever, on its first thread, while another thread of it
//! reads from a socket on which nothing comes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    hint::black_box,
    io::Read,
    os::{fd::FromRawFd, unix::net::UnixStream},
};

use nursery_shared::{
    VERSION,
    frame::{MAX_FROM_WORKER, MAX_TO_WORKER, read_frame, write_frame},
    message::{FromWorker, PROTOCOL, Role, ToWorker, WORKER_FD},
};

fn main() {
    // SAFETY: the supervisor put the socket there for this process, and nothing else in it uses the descriptor.
    let mut socket = unsafe { UnixStream::from_raw_fd(WORKER_FD) };
    let hello = FromWorker::Hello { protocol: PROTOCOL, version: VERSION.into(), role: Role::Capture };
    write_frame(&mut socket, &hello, MAX_FROM_WORKER).unwrap();
    let _configuration: Option<ToWorker> = read_frame(&mut socket, MAX_TO_WORKER).unwrap();
    for message in [FromWorker::Ready, FromWorker::Progress { done: 16_000 }] {
        write_frame(&mut socket, &message, MAX_FROM_WORKER).unwrap();
    }
    eprintln!("INFO the last words before the loop");
    std::thread::Builder::new().name("patient".into()).spawn(wait_for_ever).unwrap();
    spin_for_ever(black_box(1));
}

#[inline(never)]
fn spin_for_ever(step: u64) {
    let mut n: u64 = 0;
    loop {
        n = black_box(n.wrapping_add(step));
    }
}

fn wait_for_ever() {
    let (mut ours, _theirs) = UnixStream::pair().unwrap();
    let _ = ours.read(&mut [0]);
}
