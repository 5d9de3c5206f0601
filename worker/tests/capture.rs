//! `nursery-worker capture` as a process at the end of a real socket pair.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use common::{TempDir, Worker, shape, tone, wav};
use nursery_shared::message::{CameraReport, FromWorker, StreamState, ToWorker};

fn report(message: FromWorker) -> Option<CameraReport> {
    if let FromWorker::Camera(report) = message { Some(report) } else { None }
}

/// The first error that a camera reports.
fn first_error(camera: &str) -> String {
    let mut worker = Worker::capture(camera, shape());
    worker.wait_for(|m| report(m)?.error)
}

#[test]
fn a_recording_arrives_whole_and_then_the_process_ends_with_status_0() {
    let dir = TempDir::new();
    let file = dir.file("tone.wav", &wav(8_000, &tone(8_000, 440.0, 60.0)));
    let started = Instant::now();
    let worker =
        Worker::capture(&format!(r#"{{"name":"a","source":"file:{file}","realtime":false}}"#), shape());
    let (messages, status) = worker.finish();
    assert!(status.success());
    assert!(started.elapsed() < Duration::from_secs(30), "faster than it plays");
    let ends: Vec<i64> = messages
        .iter()
        .filter_map(|m| if let FromWorker::Window(w) = m { Some(w.end_us) } else { None })
        .collect();
    // 60 s in windows of a quarter of a second, and one more for the lookahead.
    assert_eq!(ends.len(), 241);
    assert!(ends.windows(2).all(|w| w[1] - w[0] == 250_000), "{ends:?}");
    let last = messages.into_iter().rev().find_map(report).unwrap();
    assert_eq!((last.state, last.error, last.dropped), (StreamState::Ended, None, 0));
}

#[test]
fn a_slow_supervisor_loses_no_window_of_a_recording() {
    let dir = TempDir::new();
    let file = dir.file("tone.wav", &wav(16_000, &tone(16_000, 440.0, 60.0)));
    let mut worker =
        Worker::capture(&format!(r#"{{"name":"a","source":"file:{file}","realtime":false}}"#), shape());
    // Nothing is read until the worker must have come to a halt: its own reports are then the only news.
    let paused = Instant::now();
    while paused.elapsed() < Duration::from_secs(3) {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let mut windows = 0;
    let ended = worker.wait_for(|m| match m {
        FromWorker::Window(_) => {
            windows += 1;
            None
        }
        FromWorker::Camera(r) if r.state == StreamState::Ended => Some(r),
        _ => None,
    });
    assert_eq!((windows, ended.dropped), (241, 0));
}

#[test]
fn a_live_camera_drops_the_oldest_windows_when_nobody_reads() {
    let dir = TempDir::new();
    let file = dir.file("tone.wav", &wav(16_000, &tone(16_000, 440.0, 60.0)));
    let mut small = shape();
    // Short hops, so that the queue is full within seconds.
    (small.window, small.hop) = (48_000, 160);
    let mut worker = Worker::capture(
        &format!(r#"{{"name":"a","source":"file:{file}","realtime":true,"loop":true}}"#),
        small,
    );
    let paused = Instant::now();
    while paused.elapsed() < Duration::from_secs(3) {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let mut last = None;
    let gap_us = worker.wait_for(|m| match m {
        FromWorker::Window(w) => {
            let gap = w.end_us - last.replace(w.end_us).unwrap_or(w.end_us);
            (gap > 100_000).then_some(gap)
        }
        _ => None,
    });
    assert!(gap_us > 1_000_000, "{gap_us}");
    assert!(worker.wait_for(|m| report(m).map(|r| r.dropped).filter(|d| *d > 0)) > 0);
}

#[test]
fn reports_come_every_second_while_there_is_no_camera() {
    // Bound but not listening for anybody: the connection is accepted by the kernel and never answered.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let camera = format!(r#"{{"name":"a","source":"rtsp://{}/x"}}"#, mute.local_addr().unwrap());
    let mut worker = Worker::capture(&camera, shape());
    worker.wait_for(report);
    for _ in 0..4 {
        let since = Instant::now();
        let now = worker.wait_for(report);
        assert!(since.elapsed() < Duration::from_millis(1_500));
        assert_eq!(now.state, StreamState::Connecting);
    }
    let since = Instant::now();
    worker.send(&ToWorker::Drain);
    let (_, status) = worker.finish();
    assert!(status.success());
    assert!(since.elapsed() < Duration::from_secs(3));
}

#[test]
fn the_end_of_the_supervisor_ends_the_process() {
    let worker = Worker::capture(r#"{"name":"a","source":"synthetic:noise"}"#, shape());
    let mut child = worker.hang_up();
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "still running");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn errors_tell_the_operator_what_is_wrong_and_hold_no_password() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = first_error(&format!(r#"{{"name":"a","source":"rtsp://u:hunter2@{closed}/x"}}"#));
    assert!(refused.contains(&closed.to_string()) && refused.contains("refused"), "{refused}");
    let unknown = first_error(r#"{"name":"a","source":"rtsp://u:hunter2@no-such-host.invalid/x"}"#);
    assert!(unknown.contains("no-such-host.invalid cannot be resolved"), "{unknown}");
    let tls = first_error(&format!(r#"{{"name":"a","source":"rtsps://u:hunter2@{closed}/x"}}"#));
    assert!(tls.contains("refused"), "{tls}");
    let file = first_error(r#"{"name":"a","source":"file:/no/such/file.wav"}"#);
    assert!(file.contains("/no/such/file.wav: no such file"), "{file}");
    let program = first_error(r#"{"name":"a","source":"exec:/no/such/program --key hunter2"}"#);
    assert!(program.contains("/no/such/program: no such program"), "{program}");
    for error in [refused, unknown, tls, program] {
        assert!(!error.contains("hunter2"), "{error}");
    }
}
