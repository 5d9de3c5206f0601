//! The detector as its callers see it: whatever comes in, sane probabilities come out; however the audio is chunked,
//! the scores are the same; it tells crying from talking at any level.
//!
//! The built-in model is tested, or the one that the environment's NURSERY_TEST_MODEL names.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Lcg, RATE, babble, cry};
use nursery_models::net::NetConfig;
use nursery_models::recording::score_recording;
use nursery_models::weights;
use nursery_models::window::WindowCutter;
use nursery_models::{Detector, ModelError, ModelInfo, StreamState};
use std::path::Path;

fn detector() -> Detector {
    match std::env::var_os("NURSERY_TEST_MODEL") {
        Some(file) => Detector::load(Path::new(&file)).unwrap(),
        None => Detector::embedded().unwrap(),
    }
}

/// Probabilities of a stream that begins with these samples, window by window; what is left over is not scored.
fn stream(detector: &mut Detector, samples: &[f32]) -> Vec<f32> {
    let mut states = [detector.fresh()];
    let windows = samples.chunks_exact(detector.info().window);
    windows.flat_map(|w| detector.score_batch(&[w], &mut states).unwrap().concat()).collect()
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn the_model_keeps_the_promised_timing() {
    let detector = detector();
    let info = detector.info();
    assert_eq!((info.sample_rate, info.window, info.hop), (16_000, 4_000, 4_000));
    assert_eq!(info.frame_step * info.frames_per_hop, info.hop);
    assert!(info.frame_step <= 1_600 && info.lookahead <= 6_400, "{info:?}");
    assert_eq!(info.labels, ["baby_cry"]);
    assert_eq!(info.threshold, 0.5);
    let json = serde_json::to_string(info).unwrap();
    assert_eq!(serde_json::from_str::<ModelInfo>(&json).unwrap(), *info);
}

#[test]
fn the_model_keeps_its_budget() {
    let detector = detector();
    let d = detector.description();
    let parameters = d.network.parameters(d.front_end.mels);
    assert!(parameters <= 500_000, "{parameters} parameters");
    let macs = d.network.macs(RATE / d.front_end.step, d.front_end.mels);
    assert!(macs <= 15_000_000, "{macs} multiply-accumulates per second");
    assert_eq!(detector.info().state_bytes, detector.fresh().to_bytes().len());
    assert!(detector.info().state_bytes <= 64 << 10, "{} bytes of state", detector.info().state_bytes);
}

#[test]
fn any_samples_give_probabilities() {
    let mut detector = detector();
    let n = 3 * RATE;
    let (mut odd, _) = cry(3, -20.0);
    for (i, x) in
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE].into_iter().enumerate()
    {
        odd[20_000 + i * 500] = x;
    }
    let clicks: Vec<f32> = (0..n).map(|i| if i % 5_003 == 0 { 1.0 } else { 0.0 }).collect();
    let square: Vec<f32> = (0..n).map(|i| if i / 20 % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let steps: Vec<f32> = (0..n).map(|i| if i / 9_001 % 2 == 0 { 1.0 } else { 0.0 }).collect();
    let streams = [
        ("silence", vec![0.0; n]),
        ("direct current", vec![1.0; n]),
        ("negative direct current", vec![-1.0; n]),
        ("no numbers", vec![f32::NAN; n]),
        ("infinity", vec![f32::INFINITY; n]),
        ("full-scale noise", Lcg::noise(1, n)),
        ("noise beyond full scale", Lcg::noise(3, n).iter().map(|x| x * 1e30).collect()),
        ("square", square),
        ("clicks", clicks),
        ("steps after silence", steps),
        ("odd values in a cry", odd),
        ("denormal numbers", vec![1e-40; n]),
    ];
    let mut states = vec![detector.fresh(); streams.len()];
    let window = detector.info().window;
    for start in (0..n).step_by(window) {
        let windows: Vec<&[f32]> = streams.iter().map(|(_, s)| &s[start..start + window]).collect();
        let scores = detector.score_batch(&windows, &mut states).unwrap();
        assert_eq!(scores.len(), streams.len());
        for (((name, _), scores), state) in streams.iter().zip(&scores).zip(&states) {
            assert_eq!(scores.len(), detector.info().frames_per_hop);
            assert!(scores.iter().all(|p| (0.0..=1.0).contains(p)), "{name}: {scores:?}");
            assert!(detector.restore(&state.to_bytes()).is_ok(), "{name}: a state that cannot be restored");
        }
    }
}

#[test]
fn what_came_before_does_not_make_a_stream_deaf() {
    let mut detector = detector();
    let (crying, bursts) = cry(12, -30.0);
    for (name, before) in [
        ("full-scale noise", Lcg::noise(5, 4 * RATE)),
        ("no numbers", vec![f32::NAN; 4 * RATE]),
        ("direct current", vec![1.0; 4 * RATE]),
        ("digital silence", vec![0.0; 60 * RATE]),
    ] {
        let scores = stream(&mut detector, &[before.as_slice(), &crying].concat());
        let threshold = detector.info().threshold;
        let step = detector.info().frame_step;
        // The third burst is seconds later: whatever the noise left behind should be gone.
        let late = (before.len() + bursts[2].0 + detector.info().lookahead) / step;
        assert!(scores[late..].iter().any(|&p| p >= threshold), "after {name}: {:.2?}", &scores[late..]);
    }
}

#[test]
fn silence_and_direct_current_are_no_cry() {
    let mut detector = detector();
    let threshold = detector.info().threshold;
    for (name, value) in [("silence", 0.0), ("direct current", 0.7), ("no numbers", f32::NAN)] {
        let scores = stream(&mut detector, &vec![value; 20 * RATE]);
        let highest = scores.iter().copied().fold(0.0, f32::max);
        assert!(highest < threshold, "{name}: {highest}");
    }
}

#[test]
fn crying_scores_above_the_threshold_at_any_level() {
    let mut detector = detector();
    let (threshold, step) = (detector.info().threshold, detector.info().frame_step);
    for dbfs in [-55.0, -40.0, -30.0, -20.0, -10.0] {
        let (samples, bursts) = cry(15, dbfs);
        let scores = score_recording(&mut detector, &samples).unwrap();
        let heard = bursts.iter().filter(|(start, end)| {
            let frames = &scores[start / step..end / step];
            frames.iter().filter(|&&p| p >= threshold).count() * 2 > frames.len()
        });
        let heard = heard.count();
        let (first, last) = (bursts[0].0 / step, bursts[bursts.len() - 1].1 / step);
        let mut sorted = scores[first..last].to_vec();
        sorted.sort_by(f32::total_cmp);
        eprintln!("crying at {dbfs} dBFS: median {:.3}", sorted[sorted.len() / 2]);
        assert!(
            heard * 5 >= bursts.len() * 4,
            "{dbfs} dBFS: {heard} of {} bursts; {scores:.2?}",
            bursts.len()
        );
    }
}

#[test]
fn babble_scores_below_the_threshold_at_any_level() {
    let mut detector = detector();
    let threshold = detector.info().threshold;
    for dbfs in [-55.0, -40.0, -30.0, -20.0, -10.0] {
        let scores = score_recording(&mut detector, &babble(15, dbfs)).unwrap();
        let highest = scores.iter().copied().fold(0.0, f32::max);
        eprintln!("babble at {dbfs} dBFS: at most {highest:.3}");
        assert!(highest < threshold, "{dbfs} dBFS: {highest}");
    }
}

#[test]
fn windows_of_another_length_are_an_error_that_changes_nothing() {
    let mut detector = detector();
    let want = detector.info().window;
    let good = vec![0.1; want];
    let mut states = vec![detector.fresh(); 2];
    for n in [0, 1, want - 1, want + 1, 2 * want] {
        let bad = vec![0.1; n];
        let error = detector.score_batch(&[&good, &bad], &mut states).unwrap_err();
        assert!(
            matches!(error, ModelError::WindowLength { got, want: w } if got == n && w == want),
            "{error}"
        );
        assert!(states.iter().all(|s| *s == detector.fresh()));
    }
    assert!(detector.score_batch(&[], &mut []).unwrap().is_empty());
}

/// A model of the same timing whose network remembers less.
fn another_model(model: &Detector) -> Detector {
    let mut description = model.description().clone();
    description.network = NetConfig { recurrent: 0, dilations: vec![], ..description.network };
    let layout = description.network.serving_layout(description.front_end.mels).into_iter();
    let tensors = layout.map(|(name, shape)| (name, vec![0.01; shape.iter().product()])).collect();
    Detector::from_bytes(&weights::serialize(&description, &tensors).unwrap(), "another").unwrap()
}

#[test]
fn states_that_do_not_fit_are_refused_and_change_nothing() {
    let mut detector = detector();
    let good = vec![0.1; detector.info().window];
    let bytes = detector.fresh().to_bytes();
    for wrong in [&bytes[..0], &bytes[..3], &bytes[4..], &[bytes.as_slice(), &[0; 4]].concat()] {
        let error = detector.restore(wrong).unwrap_err().to_string();
        let expected = format!("{} bytes, the model needs {}", wrong.len(), bytes.len());
        assert!(error.contains(&expected), "{error}");
    }
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut wrong = bytes.clone();
        let at = wrong.len() / 8 * 4;
        wrong[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let error = detector.restore(&wrong).unwrap_err().to_string();
        assert!(error.contains("not finite"), "{error}");
    }
    let foreign = another_model(&detector).fresh();
    for mut states in
        [vec![], vec![detector.fresh()], vec![detector.fresh(), foreign], vec![detector.fresh(); 3]]
    {
        let before = states.clone();
        let error = detector.score_batch(&[&good, &good], &mut states).unwrap_err();
        assert!(matches!(error, ModelError::State(_)), "{error}");
        assert_eq!(states, before);
    }
}

#[test]
fn a_state_of_extreme_values_still_gives_probabilities() {
    let mut detector = detector();
    let window = vec![0.1; detector.info().window];
    for value in [f32::MAX, f32::MIN, -1.0, 1e30] {
        let bytes: Vec<u8> = (0..detector.info().state_bytes / 4).flat_map(|_| value.to_le_bytes()).collect();
        let mut states = [detector.restore(&bytes).unwrap()];
        for _ in 0..3 {
            let scores = detector.score_batch(&[&window], &mut states).unwrap().concat();
            assert!(scores.iter().all(|p| (0.0..=1.0).contains(p)), "{value}: {scores:?}");
        }
    }
}

#[test]
fn a_stream_goes_on_in_another_process_as_if_nothing_had_happened() {
    let (mut here, mut there) = (detector(), detector());
    let (samples, _) = cry(6, -25.0);
    let whole = stream(&mut here, &samples);
    let mut bytes = here.fresh().to_bytes();
    let mut handed_on = Vec::new();
    for (i, window) in samples.chunks_exact(here.info().window).enumerate() {
        let detector = if i % 2 == 0 { &mut here } else { &mut there };
        let state = detector.restore(&bytes).unwrap();
        assert_eq!(state.to_bytes(), bytes);
        let mut states = [state];
        handed_on.extend(detector.score_batch(&[window], &mut states).unwrap().concat());
        bytes = states[0].to_bytes();
    }
    assert_eq!(whole, handed_on);
}

#[test]
fn scores_do_not_depend_on_the_batch() {
    let mut detector = detector();
    let streams: Vec<Vec<f32>> = (0..17)
        .map(|i| match i % 3 {
            0 => cry(2, -20.0 - i as f64).0,
            1 => Lcg::noise(i, 2 * RATE),
            _ => vec![0.0; 2 * RATE],
        })
        .collect();
    let alone: Vec<Vec<f32>> = streams.iter().map(|s| stream(&mut detector, s)).collect();
    let window = detector.info().window;
    for batch in [2, 5, 16, 17] {
        let mut states: Vec<StreamState> = vec![detector.fresh(); batch];
        let mut together = vec![Vec::new(); batch];
        for start in (0..2 * RATE).step_by(window) {
            let windows: Vec<&[f32]> = streams[..batch].iter().map(|s| &s[start..start + window]).collect();
            let scores = detector.score_batch(&windows, &mut states).unwrap();
            together.iter_mut().zip(scores).for_each(|(all, part)| all.extend(part));
        }
        for (i, (together, alone)) in together.iter().zip(&alone).enumerate() {
            assert!(close(together, alone), "stream {i} of {batch}: {together:?} {alone:?}");
        }
    }
}

#[test]
fn scores_do_not_depend_on_the_chunking_of_the_stream() {
    let mut detector = detector();
    let (window, hop, step) = (detector.info().window, detector.info().hop, detector.info().frame_step);
    let mut audio = Lcg::noise(8, RATE);
    audio.extend(cry(4, -20.0).0);
    let mut run = |chunks: &mut dyn Iterator<Item = usize>| {
        let mut cutter = WindowCutter::new(window, hop);
        let mut states = [detector.fresh()];
        let (mut at, mut scores) = (0, Vec::new());
        while at < audio.len() {
            let end = (at + chunks.next().unwrap()).min(audio.len());
            cutter.push(&audio[at..end], |w| {
                scores.push(detector.score_batch(&[&w.samples], &mut states).unwrap().concat());
            });
            at = end;
        }
        scores.concat()
    };
    let whole = run(&mut std::iter::repeat(audio.len()));
    assert_eq!(whole.len(), audio.len() / step);
    for chunks in [&[1usize, 3_999, 12_345, 3, 4_001][..], &[160], &[1_021], &[7, 0, 4_000, 8_191]] {
        let mut cutter_chunks = chunks.iter().copied().cycle();
        assert_eq!(whole, run(&mut cutter_chunks), "{chunks:?}");
    }
}

#[test]
fn a_recording_scores_like_the_live_stream() {
    let mut detector = detector();
    let info = detector.info().clone();
    // Longer than what is scored at once, and no whole number of windows.
    let mut audio = babble(5, -40.0);
    audio.extend(cry(12, -30.0).0);
    audio.extend(Lcg::noise(4, 1_234).iter().map(|x| x * 0.01));
    let offline = score_recording(&mut detector, &audio).unwrap();
    assert_eq!(offline.len(), audio.len().div_ceil(info.frame_step));
    let mut padded = audio;
    padded.resize(padded.len() + info.lookahead + info.window, 0.0);
    let live = stream(&mut detector, &padded);
    // Live scores lag behind: those that come with a window end `lookahead` before its end.
    let late = info.lookahead / info.frame_step;
    assert!(close(&offline, &live[late..late + offline.len()]));
}

#[test]
fn scores_of_a_recording_line_up_with_its_samples() {
    let mut detector = detector();
    let (threshold, step) = (detector.info().threshold, detector.info().frame_step);
    for n in [0, 1, step - 1, step, 3_999, 4_000, 100_000] {
        let frames = score_recording(&mut detector, &Lcg::noise(4, n)).unwrap();
        assert_eq!(frames.len(), n.div_ceil(step), "{n} samples");
    }
    let (crying, bursts) = cry(8, -25.0);
    let quiet = 7 * RATE + 777;
    let hiss: Vec<f32> = Lcg::noise(6, quiet).iter().map(|x| x * 2e-4).collect();
    let scores = score_recording(&mut detector, &[hiss, crying].concat()).unwrap();
    let onset = scores.iter().position(|&p| p >= threshold).expect("the crying is heard") * step;
    let truth = quiet + bursts[0].0;
    assert!(onset.abs_diff(truth) < RATE / 2, "onset at sample {onset}, not {truth}");
}
