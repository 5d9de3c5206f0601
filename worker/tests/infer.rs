//! `nursery-worker infer` as a process at the end of a real socket pair: what the model remembers of a stream goes
//! in and out with its windows.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Worker, tone};
use nursery_models::Detector;
use nursery_shared::{
    message::{FromWorker, ToWorker, WindowJob, WindowScores},
    model_state::ModelState,
    pcm::Pcm,
};

fn infer() -> Worker {
    let mut worker = Worker::start("infer", &ToWorker::ConfigureInfer { model: None, threads: 1 });
    worker.wait_for(|m| (m == FromWorker::Ready).then_some(()));
    worker
}

/// Six seconds in windows: a voice that rises and falls, over noise.
fn windows(seed: u64) -> Vec<Pcm> {
    let mut random = fastrand::Rng::with_seed(seed);
    let length = Detector::embedded().unwrap().info().window;
    let low = tone(16_000, 440.0, 6.0);
    let high = tone(16_000, 1_320.0, 6.0);
    let mix = low.iter().zip(&high).enumerate().map(|(i, (a, b))| {
        let loudness = (std::f32::consts::TAU * i as f32 / 20_000.0).sin().max(0.0);
        loudness * f32::from(a / 2 + b / 3) / 32_768.0 + 0.01 * (random.f32() - 0.5)
    });
    mix.collect::<Vec<_>>().chunks_exact(length).map(Pcm::from_f32).collect()
}

fn score(worker: &mut Worker, batch: u64, jobs: &[(&Pcm, &ModelState)]) -> Vec<WindowScores> {
    let windows = jobs.iter().zip(0..).map(|((pcm, state), id)| WindowJob {
        id,
        state: (*state).clone(),
        pcm: (*pcm).clone(),
    });
    worker.send(&ToWorker::Batch { batch, windows: windows.collect() });
    worker.wait_for(|m| match m {
        FromWorker::Scores { batch: answered, windows } => {
            assert_eq!(answered, batch);
            assert!(windows.iter().map(|w| w.id).eq(0..jobs.len() as u64));
            Some(windows)
        }
        _ => None,
    })
}

/// The scores of a stream, each window by the process that `whose` says, and the last state.
fn stream(
    workers: &mut [Worker],
    windows: &[Pcm],
    whose: impl Fn(usize) -> usize,
) -> (Vec<Vec<f32>>, ModelState) {
    let mut state = ModelState::fresh();
    let mut all = Vec::new();
    for (n, pcm) in windows.iter().enumerate() {
        let scored = score(&mut workers[whose(n)], n as u64, &[(pcm, &state)]).remove(0);
        state = scored.state;
        all.push(scored.scores);
    }
    (all, state)
}

#[test]
fn a_stream_may_change_processes_between_any_two_windows() {
    let windows = windows(1);
    let info = Detector::embedded().unwrap().info().clone();
    let (one, last) = stream(&mut [infer()], &windows, |_| 0);
    assert!(one.iter().all(|s| s.len() == info.frames_per_hop));
    assert_eq!(last.as_bytes().len(), info.state_bytes);
    let mut three = [infer(), infer(), infer()];
    assert_eq!(stream(&mut three, &windows, |n| n % 3), (one.clone(), last));
    // It does make a difference what is remembered.
    let mut worker = infer();
    let forgetful: Vec<_> = windows
        .iter()
        .map(|pcm| score(&mut worker, 0, &[(pcm, &ModelState::fresh())]).remove(0).scores)
        .collect();
    assert_ne!(forgetful, one);
}

#[test]
fn streams_of_one_batch_do_not_mix() {
    let (a, b) = (windows(2), windows(3));
    let mut worker = infer();
    let mut workers = [worker];
    let (alone, _) = stream(&mut workers, &a, |_| 0);
    [worker] = workers;
    let (mut state_a, mut state_b) = (ModelState::fresh(), ModelState::fresh());
    for (n, (pcm, expected)) in a.iter().zip(&alone).enumerate() {
        // The other one runs backwards and is a beginner now and then.
        if n % 5 == 0 {
            state_b = ModelState::fresh();
        }
        let other = (&b[b.len() - 1 - n], &state_b);
        let jobs = if n % 2 == 0 { [(pcm, &state_a), other] } else { [other, (pcm, &state_a)] };
        let mut scored = score(&mut worker, n as u64, &jobs);
        let (mine, others) = if n % 2 == 0 { (0, 1) } else { (1, 0) };
        for (got, wanted) in scored[mine].scores.iter().zip(expected) {
            assert!((got - wanted).abs() < 1e-4, "window {n}: {got} instead of {wanted}");
        }
        state_b = std::mem::take(&mut scored[others].state);
        state_a = std::mem::take(&mut scored[mine].state);
    }
}

#[test]
fn a_state_that_does_not_fit_is_taken_for_a_fresh_one_and_costs_no_process() {
    let windows = windows(4);
    let mut worker = infer();
    let fresh = score(&mut worker, 0, &[(&windows[5], &ModelState::fresh())]);
    let right = fresh[0].state.as_bytes();
    let not_finite = [&f32::NAN.to_le_bytes(), &right[4..]].concat();
    for wrong in [vec![0], right[..right.len() - 4].to_vec(), [right, right].concat(), not_finite] {
        let scored = score(&mut worker, 1, &[(&windows[5], &ModelState::from(wrong))]);
        assert_eq!(scored, fresh);
    }
    worker.send(&ToWorker::Drain);
    let (_, status) = worker.finish();
    assert!(status.success());
}
