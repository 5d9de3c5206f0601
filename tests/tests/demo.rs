//! `nursery demo`: without any configuration somebody cries, is announced, and it ends without a trace.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::mpsc,
    time::Duration,
};

use nix::sys::signal::Signal;
use nursery_tests::{
    processes::{Process, all_gone},
    service::nursery,
    temp_dir::TempDir,
    wait,
};

/// Killed when the test ends early.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_demo_announces_a_cry_and_ends_at_once_without_leaving_a_process() {
    let home = TempDir::new();
    let mut demo = Demo(
        nursery(["demo"])
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_STATE_HOME")
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the demo"),
    );
    let (send, lines) = mpsc::channel();
    let out = demo.0.stdout.take().unwrap();
    let said = send.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _ = said.send(line);
        }
    });
    let err = demo.0.stderr.take().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(err).lines().map_while(Result::ok) {
            let _ = send.send(format!("stderr: {line}"));
        }
    });
    let mut all = Vec::new();
    let announced = wait::poll(Duration::from_secs(60), || {
        all.extend(lines.try_iter());
        all.iter().find(|line| line.contains("cry.started") && !line.starts_with("stderr")).cloned()
    });
    assert!(announced.is_some(), "nothing announced within a minute:\n{}", all.join("\n"));
    let process = Process::of(demo.0.id()).expect("the demo");
    let workers = process.descendants();
    assert!(workers.len() >= 6, "three cameras, a pool of two and a sink: {workers:?}");
    // As a terminal does it: to everybody in the foreground.
    for one in workers.iter().chain([&process]) {
        one.signal(Signal::SIGINT);
    }
    let status = wait::for_exit(&mut demo.0, Duration::from_secs(10)).expect("the end of the demo");
    assert_eq!(status.code(), Some(0), "{status}:\n{}", all.join("\n"));
    all_gone(&workers, Duration::from_secs(5)).unwrap();
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
