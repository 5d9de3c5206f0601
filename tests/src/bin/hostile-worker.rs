//! A worker that begins well and then does what no worker should: `hostile-worker MODE ROLE`. An inference process
//! waits until it has work in its hands, for a while.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    hint::black_box,
    io::Write,
    net::Shutdown,
    os::{fd::FromRawFd, unix::net::UnixStream},
    process::exit,
    time::Duration,
};

use nursery_shared::{
    VERSION,
    frame::{MAX_FROM_WORKER, MAX_TO_WORKER, read_frame, write_frame},
    message::{FromWorker, PROTOCOL, Role, ToWorker, WORKER_FD},
};

/// Memory that one takes which nobody limits.
const ENOUGH: usize = 3 << 30;
/// How long an inference process waits for work.
const PATIENCE: Duration = Duration::from_secs(2);
/// Exit status of that one.
const NOT_LIMITED: i32 = 77;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, role] = arguments.as_slice() else { panic!("expected MODE ROLE") };
    let role = [Role::Capture, Role::Infer, Role::Sink, Role::Web, Role::Light]
        .into_iter()
        .find(|r| r.as_str() == role)
        .unwrap();
    // SAFETY: the supervisor put the socket there for this process, and nothing else in it uses the descriptor.
    let mut socket = unsafe { UnixStream::from_raw_fd(WORKER_FD) };
    let hello = FromWorker::Hello { protocol: PROTOCOL, version: VERSION.into(), role };
    write_frame(&mut socket, &hello, MAX_FROM_WORKER).unwrap();
    let _configuration: Option<ToWorker> = read_frame(&mut socket, MAX_TO_WORKER).unwrap();
    write_frame(&mut socket, &FromWorker::Ready, MAX_FROM_WORKER).unwrap();
    if role == Role::Infer {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // Where none comes there is nothing for it to do, and it misbehaves all the same.
        let _batch: Result<Option<ToWorker>, _> = read_frame(&mut socket, MAX_TO_WORKER);
    }
    eprintln!("INFO a hostile worker: {mode}");
    match mode.as_str() {
        "eat-memory" => eat_memory(),
        "cut-frame" => {
            socket.write_all(&1000_u32.to_le_bytes()).unwrap();
            socket.write_all(&[0; 10]).unwrap();
            socket.shutdown(Shutdown::Both).unwrap();
        }
        "half-frame" => {
            socket.write_all(&1000_u32.to_le_bytes()).unwrap();
            socket.write_all(&[0; 10]).unwrap();
        }
        "garbage-frame" => {
            let mut bytes = [0; 4096];
            fastrand::Rng::with_seed(5).fill(&mut bytes);
            socket.write_all(&1000_u32.to_le_bytes()).unwrap();
            // Whoever reads it may have closed the socket before the end.
            let _ = socket.write_all(&bytes);
        }
        "endless-frame" => {
            let _ = socket.write_all(&u32::MAX.to_le_bytes());
            while socket.write_all(&[b'a'; 64 << 10]).is_ok() {}
        }
        "lie" => {
            let lies = [
                FromWorker::Ack { up_to: u64::MAX },
                FromWorker::Scores { batch: u64::MAX, windows: Vec::new() },
            ];
            for lie in lies {
                let _ = write_frame(&mut socket, &lie, MAX_FROM_WORKER);
            }
        }
        "babble" => {
            let end = std::time::Instant::now() + Duration::from_secs(1);
            while std::time::Instant::now() < end {
                eprintln!("WARN {}", "blah ".repeat(2000));
            }
            exit(1);
        }
        other => panic!("no such mode: {other}"),
    }
    // Nobody has to wait for this one: it is killed.
    loop {
        std::thread::park();
    }
}

/// Takes memory and writes to it, as fast as it can.
fn eat_memory() {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    while eaten.len() << 24 < ENOUGH {
        eaten.push(black_box(vec![1; 1 << 24]));
    }
    exit(NOT_LIMITED);
}
