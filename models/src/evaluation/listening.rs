//! Lets a model hear recordings as a live service would, several at once, and notes when it would announce what.

use super::predictions::{Detection, Predictions};
use super::reliability::Reliability;
use super::sound;
use super::studio::Studio;
use super::truth::Truth;
use crate::detector::{Detector, ModelInfo};
use crate::events::{EventLogic, EventParams, Transition};
use crate::recording::score_recording;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A recording that was heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Listened {
    /// What there is to hear.
    pub truth: Truth,
    /// Samples.
    pub samples: usize,
    /// Probability of crying of each score frame.
    pub frames: Vec<f32>,
}

impl Listened {
    /// Highest probability from `from_s` to `to_s`; 0 where there is no frame.
    pub fn peak(&self, info: &ModelInfo, from_s: f64, to_s: f64) -> f32 {
        let step_s = info.frame_step as f64 / f64::from(info.sample_rate);
        let inside = |i: usize| (i as f64 + 1.0) * step_s > from_s && i as f64 * step_s < to_s;
        let frames = self.frames.iter().enumerate().filter(|(i, _)| inside(*i));
        frames.map(|(_, p)| *p).fold(0.0, f32::max)
    }
}

/// Hears recordings `0..count`, which `fetch` brings, on one thread per detector; `done` is told of each. They come
/// back in order.
///
/// # Errors
/// The first error of `fetch`, or of the model, which is not tried any further.
pub fn listen_all(
    count: usize,
    detectors: &mut [Detector],
    fetch: impl Fn(usize, &mut Studio) -> Result<(Truth, Vec<i16>), String> + Sync,
    done: impl Fn(usize) + Sync,
) -> Result<Vec<Listened>, String> {
    let next = AtomicUsize::new(0);
    let heard: Mutex<BTreeMap<usize, Listened>> = Mutex::new(BTreeMap::new());
    let failure: Mutex<Option<String>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for detector in detectors {
            scope.spawn(|| {
                let mut studio = Studio::default();
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count {
                        break;
                    }
                    let listened = fetch(i, &mut studio).and_then(|(truth, samples)| {
                        let frames = score_recording(detector, &sound::to_float(&samples))
                            .map_err(|e| format!("{}: {e}", truth.file))?;
                        Ok(Listened { truth, samples: samples.len(), frames })
                    });
                    match listened {
                        Ok(listened) => {
                            heard.lock().unwrap_or_else(PoisonError::into_inner).insert(i, listened);
                        }
                        Err(e) => {
                            // The others stop after what they have in hand.
                            next.store(count, Ordering::Relaxed);
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                            break;
                        }
                    }
                    done(i);
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(e) => Err(e),
        None => Ok(heard.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()),
    }
}

/// What is announced in some recordings with these settings.
pub fn predict(heard: &[Listened], info: &ModelInfo, params: EventParams) -> Predictions {
    let mut predictions = Predictions::default();
    for listened in heard {
        predictions
            .extend(&listened.truth.file, detections(&listened.frames, listened.samples, info, params));
    }
    predictions
}

/// What is announced in a recording of so many samples whose score frames are these. Rounded as `nursery detect
/// --json` prints it, so that its figures are the same.
pub fn detections(frames: &[f32], samples: usize, info: &ModelInfo, params: EventParams) -> Vec<Detection> {
    let mut logic = EventLogic::of_recording(params);
    let mut out = transitions(&mut logic, frames, info);
    let end_us = time_us(samples, info);
    logic.finish(end_us, &mut out);
    let round = |x: f64, unit: f64| (x * unit).round() / unit;
    let seconds = |us: i64| round(us.clamp(0, end_us) as f64 / 1e6, 1e3);
    let (mut found, mut announced) = (Vec::new(), None);
    for transition in out {
        match transition {
            Transition::Started { decided_us, .. } => announced = Some(announced_s(decided_us, info)),
            Transition::Ended { onset_us, offset_us, peak_score, .. } => found.push(Detection {
                onset_s: seconds(onset_us),
                offset_s: seconds(offset_us),
                // Rounding must not lower it below the threshold that it passed.
                score: round(f64::from(peak_score), 1e4).max(f64::from(params.threshold)),
                decided_s: announced.take(),
            }),
        }
    }
    found
}

/// What begins and ends while these score frames are heard from the start on.
pub(super) fn transitions(logic: &mut EventLogic, frames: &[f32], info: &ModelInfo) -> Vec<Transition> {
    let (step_us, mut out) = (time_us(info.frame_step, info) as u32, Vec::new());
    for (i, p) in frames.iter().enumerate() {
        logic.push(time_us(i * info.frame_step, info), step_us, *p, &mut out);
    }
    out
}

/// How long so many samples last.
fn time_us(samples: usize, info: &ModelInfo) -> i64 {
    samples as i64 * 1_000_000 / i64::from(info.sample_rate.max(1))
}

/// When a live service knows the frame that ends at `decided_us`: scores lag by the lookahead, and come with the
/// window that is complete then.
pub(super) fn announced_s(decided_us: i64, info: &ModelInfo) -> f64 {
    let hop = info.hop.max(1) as i64;
    let samples = decided_us * i64::from(info.sample_rate) / 1_000_000 + info.lookahead as i64;
    let complete = (samples + hop - 1) / hop * hop;
    complete as f64 / f64::from(info.sample_rate)
}

/// Reliability over the frames of some recordings; a frame is crying when its middle lies in the cry.
pub fn reliability<'a>(heard: impl IntoIterator<Item = &'a Listened>, info: &ModelInfo) -> Reliability {
    let mut reliability = Reliability::default();
    for listened in heard {
        for (i, p) in listened.frames.iter().enumerate() {
            let middle_s = (i as f64 + 0.5) * info.frame_step as f64 / f64::from(info.sample_rate);
            let inside = |c: &super::truth::Cry| (c.onset_s..c.offset_s).contains(&middle_s);
            reliability.add(*p, listened.truth.cry.as_ref().is_some_and(inside));
        }
    }
    reliability
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn info() -> ModelInfo {
        ModelInfo {
            id: "test".into(),
            sample_rate: 16_000,
            window: 4_000,
            hop: 4_000,
            lookahead: 3_200,
            frame_step: 800,
            frames_per_hop: 5,
            threshold: 0.5,
            labels: vec!["baby_cry".into()],
            state_bytes: 0,
        }
    }

    const PARAMS: EventParams = EventParams {
        threshold: 0.5,
        min_duration_s: 0.6,
        end_after_s: 1.0,
        cooldown_s: 0.0,
        sustained_s: 0.0,
        adaptive: false,
    };

    #[test]
    fn an_event_is_announced_when_the_window_that_decides_is_complete() {
        let mut frames = vec![0.01; 200];
        frames[40..60].fill(0.87654);
        let found = detections(&frames, 160_000, &info(), PARAMS);
        // Crying from 2.0 to 3.0 s; decided at 2.6 s, whose scores lag to 2.8 s, and the window ends at 3.0 s.
        assert_eq!(found, [Detection { onset_s: 2.0, offset_s: 3.0, score: 0.8765, decided_s: Some(3.0) }]);
        assert!((announced_s(2_550_000, &info()) - 2.75).abs() < 1e-9);
    }

    #[test]
    fn events_end_with_the_recording_and_keep_their_threshold() {
        let params = EventParams { threshold: 0.33337, min_duration_s: 0.0, ..PARAMS };
        let found = detections(&[0.33338; 21], 16_500, &info(), params);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].onset_s, found[0].offset_s), (0.0, 1.031));
        assert!(found[0].score >= f64::from(0.33337f32));
    }
}
