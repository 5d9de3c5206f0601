//! Streams that begin in the middle of a cry, as after every lost connection: who listens must not need quiet first.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{RATE, cry};
use nursery_models::Detector;
use nursery_models::recording::score_recording;
use nursery_models::train::corpus::Corpus;
use nursery_models::train::cries::Kind;

/// Samples of a cry that are cut off: 0.7 s.
const CUT: usize = 11_200;

/// Score frames of a recording's first four seconds that are crying.
fn crying(detector: &mut Detector, samples: &[f32], from: usize) -> usize {
    let scores = score_recording(detector, samples).unwrap();
    let first = from / detector.info().frame_step;
    let last = scores.len().min(first + 4 * RATE / detector.info().frame_step);
    scores[first..last].iter().filter(|&&p| p >= detector.info().threshold).count()
}

#[test]
fn a_rendered_cry_is_heard_from_wherever_in_it_the_stream_begins() {
    let mut detector = Detector::embedded().unwrap();
    let step = detector.info().frame_step;
    let (samples, bursts) = cry(12, -25.0);
    for (start, end) in &bursts[..4] {
        for at in [0.0, 0.3, 0.6] {
            let from = start + ((end - start) as f64 * at) as usize;
            let (cold, warm) =
                (crying(&mut detector, &samples[from..], 0), crying(&mut detector, &samples, from));
            let seconds = |frames: usize| (frames * step) as f64 / RATE as f64;
            eprintln!("from {from}: {:.2} s, {:.2} s with what came before", seconds(cold), seconds(warm));
            assert!(seconds(cold) >= 1.0, "from sample {from}: {:.2} s", seconds(cold));
        }
    }
}

#[test]
fn of_recorded_crying_nearly_as_much_is_heard_without_what_came_before() {
    let Some(data) = common::corpus() else { return };
    let corpus = Corpus::read(&data, 2, |c| c.split == "dev" && c.is_cry, |_, _| ()).unwrap();
    let mut detector = Detector::embedded().unwrap();
    let (mut cold, mut warm) = (0, 0);
    for clip in &corpus.clips {
        let samples: Vec<f32> = clip.samples.iter().map(|&x| f32::from(x) / 32_768.0).collect();
        let bouts = clip.stretches.iter().filter(|s| s.kind == Kind::Cry && s.end - s.start >= 2 * RATE);
        for bout in bouts {
            // Two seconds of something like the recording's quiet before it, then from the middle of the cry on.
            let from = bout.start + CUT;
            let hiss = common::Lcg::noise(3, 2 * RATE).into_iter().map(|x| x * 1e-3);
            let with: Vec<f32> = hiss.chain(samples[bout.start..].iter().copied()).collect();
            warm += crying(&mut detector, &with, 2 * RATE + CUT);
            cold += crying(&mut detector, &samples[from..], 0);
        }
    }
    eprintln!("frames of crying: {cold} from the middle, {warm} with what came before");
    assert!(warm > 1_000, "{warm}");
    assert!(cold * 100 >= warm * 80, "{cold} of {warm}");
}
