//! A worker that does no work: windows of nothing are captured, scored and stored at once, so that what is left is what it
//! costs to hand them from one to the other. Everything but these roles is the real worker's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{Read, Write},
    os::{
        fd::FromRawFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, exit},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nursery_shared::{
    VERSION,
    frame::{MAX_FROM_WORKER, MAX_TO_WORKER, encode_frame, read_frame, write_frame},
    message::{
        CameraReport, CapturedWindow, FromWorker, ModelShape, PROGRESS_INTERVAL, PROTOCOL, Role, StreamState,
        ToWorker, WORKER_FD, WindowScores,
    },
    model_state::ModelState,
    pcm::{Pcm, SAMPLE_RATE},
    timestamp,
};
use nursery_tests::{bench::routing::Exchange, service::binary};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let role = arguments.first().map(String::as_str);
    if role == Some("bare") {
        return echo(&Exchange::parse(&arguments[1]).unwrap());
    }
    let role = [Role::Capture, Role::Infer, Role::Sink].into_iter().find(|r| Some(r.as_str()) == role);
    let Some(role) = role else {
        let error = Command::new(binary("nursery-worker")).args(&arguments).exec();
        panic!("nursery-worker: {error}");
    };
    // SAFETY: the supervisor put the socket there for this process, and nothing else in it uses the descriptor.
    let mut socket = unsafe { UnixStream::from_raw_fd(WORKER_FD) };
    let mut say = |message: &FromWorker| write_frame(&mut socket, message, MAX_FROM_WORKER).unwrap();
    say(&FromWorker::Hello { protocol: PROTOCOL, version: VERSION.into(), role });
    let configuration: Option<ToWorker> = read_frame(&mut socket, MAX_TO_WORKER).unwrap();
    match configuration {
        Some(ToWorker::ConfigureCapture { camera, model, .. }) => capture(socket, camera.realtime, &model),
        Some(ToWorker::ConfigureInfer { .. }) => infer(socket),
        Some(ToWorker::ConfigureSink(_)) => sink(socket),
        _ => {}
    }
}

/// Ends when it is told to, or the supervisor is gone.
fn obey(mut socket: UnixStream) {
    thread::spawn(move || {
        while let Ok(Some(message)) = read_frame::<ToWorker>(&mut socket, MAX_TO_WORKER) {
            if message == ToWorker::Drain {
                break;
            }
        }
        exit(0);
    });
}

/// Windows at their time, or as fast as they are taken.
fn capture(mut socket: UnixStream, realtime: bool, model: &ModelShape) {
    obey(socket.try_clone().unwrap());
    let noise: Vec<f32> = (0..model.window).map(|_| fastrand::f32() * 0.01).collect();
    let pcm = Pcm::from_f32(&noise);
    let hop = Duration::from_micros(u64::from(model.hop) * 1_000_000 / u64::from(SAMPLE_RATE));
    // Not all cameras at the same time.
    let mut due = Instant::now() + hop.mul_f64(fastrand::f64());
    let (mut done, mut told) = (0, None::<Instant>);
    let (mut end_us, mut frame) = (timestamp::now_us(), Vec::new());
    let mut ready = Vec::new();
    encode_frame(&FromWorker::Ready, MAX_FROM_WORKER, &mut ready).unwrap();
    socket.write_all(&ready).unwrap();
    loop {
        if told.is_none_or(|told| told.elapsed() > PROGRESS_INTERVAL / 2) {
            told = Some(Instant::now());
            let report = CameraReport {
                state: StreamState::Live,
                error: None,
                level_dbfs: Some(-50.0),
                last_audio_us: Some(timestamp::monotonic_us()),
                dropped: 0,
                corrupt: 0,
                connects: 1,
            };
            for message in [FromWorker::Camera(report), FromWorker::Progress { done }] {
                write_frame(&mut socket, &message, MAX_FROM_WORKER).unwrap();
            }
        }
        if realtime {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due += hop;
        }
        done += u64::from(model.hop);
        end_us += hop.as_micros() as i64;
        let window = CapturedWindow {
            end_us,
            arrived_us: timestamp::monotonic_us(),
            level_dbfs: -50.0,
            mute: false,
            pcm: pcm.clone(),
        };
        frame.clear();
        encode_frame(&FromWorker::Window(window), MAX_FROM_WORKER, &mut frame).unwrap();
        if socket.write_all(&frame).is_err() {
            return;
        }
    }
}

/// Scores of 0 for whatever comes.
fn infer(mut socket: UnixStream) {
    let found = nursery_worker::info::find_model(None).unwrap();
    let shape = nursery_worker::info::shape(&nursery_worker::info::load_detector(found).unwrap());
    let (scores, state) = (vec![0.0; shape.scores_per_window()], vec![7; shape.state_bytes as usize]);
    let state = ModelState::from(state);
    write_frame(&mut socket, &FromWorker::Loaded(shape), MAX_FROM_WORKER).unwrap();
    write_frame(&mut socket, &FromWorker::Ready, MAX_FROM_WORKER).unwrap();
    loop {
        match read_frame(&mut socket, MAX_TO_WORKER) {
            Ok(Some(ToWorker::Batch { batch, windows })) => {
                let scored = |id| WindowScores { id, scores: scores.clone(), state: state.clone() };
                let windows = windows.iter().map(|window| scored(window.id)).collect();
                let reply = FromWorker::Scores { batch, windows };
                write_frame(&mut socket, &reply, MAX_FROM_WORKER).unwrap();
            }
            Ok(Some(ToWorker::Drain) | None) | Err(_) => return,
            Ok(Some(_)) => {}
        }
    }
}

/// Whatever comes is stored.
fn sink(mut socket: UnixStream) {
    let writing = Arc::new(Mutex::new(socket.try_clone().unwrap()));
    write_frame(&mut *writing.lock().unwrap(), &FromWorker::Ready, MAX_FROM_WORKER).unwrap();
    let reporting = Arc::clone(&writing);
    thread::spawn(move || {
        for done in 0.. {
            let progress = FromWorker::Progress { done };
            if write_frame(&mut *reporting.lock().unwrap(), &progress, MAX_FROM_WORKER).is_err() {
                return;
            }
            thread::sleep(PROGRESS_INTERVAL / 2);
        }
    });
    loop {
        match read_frame(&mut socket, MAX_TO_WORKER) {
            Ok(Some(ToWorker::Record { seq, .. })) => {
                let ack = FromWorker::Ack { up_to: seq };
                write_frame(&mut *writing.lock().unwrap(), &ack, MAX_FROM_WORKER).unwrap();
            }
            Ok(Some(ToWorker::Drain) | None) | Err(_) => return,
            Ok(Some(_)) => {}
        }
    }
}

/// The other end of a bare socket pair, which is this process's standard input.
fn echo(exchange: &Exchange) {
    // SAFETY: standard input is the socket pair's end, and nothing else in this process uses it.
    let mut socket = unsafe { UnixStream::from_raw_fd(0) };
    let (mut there, back) = (vec![0; exchange.there], vec![1; exchange.back]);
    while socket.read_exact(&mut there).is_ok() && socket.write_all(&back).is_ok() {}
}
