//! Makes the network's output a probability and puts the operating point at one half: a line through the log-odds
//! (Platt, 1999) on mixtures of the development clips, then a shift to where the event logic errs least. The shift
//! is a change of how frequent crying is taken to be, so that what comes out is still calibrated, for that rate.

use super::corpus::Corpus;
use crate::detector::Detector;
use crate::evaluation::Predictions;
use crate::evaluation::{Listened, Setup, build, listen_all, listening::detections, score};
use crate::events::EventParams;
use crate::weights;
use std::fmt::Write;

/// The event settings of `nursery detect`, with which mixtures are scored.
pub const EVENTS: EventParams = EventParams {
    threshold: 0.5,
    min_duration_s: 0.3,
    end_after_s: 1.0,
    cooldown_s: 0.0,
    sustained_s: 0.0,
    adaptive: true,
};

/// Alerts per hour of a quiet night that weigh as much as an error rate of 1. These nights hold more than three hundred
/// sounds an hour that were chosen to be taken for crying, a hundred times what a home has: a cry that is missed is worse
/// than a false alarm there.
const ALERTS: f64 = 100.0;
/// Operating points that cost so little more than the best are as good, and of those the most sensitive one is taken.
const AS_GOOD: f64 = 0.02;

/// Scale and shift of log-odds that make `(log-odds, crying)` pairs most likely, by Newton's method.
fn platt(frames: &[(f32, bool)]) -> (f64, f64) {
    let (mut scale, mut shift) = (1.0f64, 0.0f64);
    for _ in 0..50 {
        let (mut g, mut h) = ([0.0f64; 2], [1e-6f64, 0.0, 1e-6]);
        for &(z, crying) in frames {
            let z = f64::from(z);
            let p = 1.0 / (1.0 + (-(scale * z + shift)).exp());
            let (e, w) = (p - f64::from(u8::from(crying)), p * (1.0 - p));
            g[0] += e * z;
            g[1] += e;
            h[0] += w * z * z;
            h[1] += w * z;
            h[2] += w;
        }
        let determinant = h[0] * h[2] - h[1] * h[1];
        let step = ((h[2] * g[0] - h[1] * g[1]) / determinant, (h[0] * g[1] - h[1] * g[0]) / determinant);
        // Frames that are told apart without a fault have no best scale.
        if !step.0.is_finite() || !step.1.is_finite() {
            break;
        }
        scale = (scale - step.0.clamp(-1.0, 1.0)).clamp(0.05, 20.0);
        shift = (shift - step.1.clamp(-1.0, 1.0)).clamp(-20.0, 20.0);
        if step.0.abs() < 1e-6 && step.1.abs() < 1e-6 {
            break;
        }
    }
    (scale, shift)
}

/// Log-odds, kept away from where `f32` probabilities end.
fn log_odds(p: f32) -> f32 {
    let p = f64::from(p).clamp(1e-7, 1.0 - 1e-7);
    (p / (1.0 - p)).ln() as f32
}

/// What is written into a file instead of what it says.
#[derive(Debug, Clone, Default)]
pub struct Label {
    /// Version of the model.
    pub version: Option<String>,
    /// Commit of the code that trained it.
    pub commit: Option<String>,
}

/// Calibrates the bytes of a weights file on mixtures of `dev`, with the start of a stream as it is served. Returns the
/// new bytes and a report.
///
/// # Errors
/// One line for people.
pub fn calibrate(bytes: &[u8], dev: &Corpus, label: &Label) -> Result<(Vec<u8>, String), String> {
    let (mut description, tensors) = weights::parse(bytes)?;
    description.version = label.version.clone().unwrap_or(description.version);
    description.commit = label.commit.clone().unwrap_or(description.commit);
    description.front_end = description.front_end.serving();
    let bytes = weights::serialize(&description, &tensors)?;
    // Two threads: what there is everywhere; the result is the same with any number.
    let mut detectors = Vec::new();
    for _ in 0..2 {
        detectors.push(Detector::from_bytes(&bytes, "new weights").map_err(|e| e.to_string())?);
    }
    let info = detectors[0].info().clone();
    // Another seed than the evaluation's, and many more of each: where the operating point lies must not be chance.
    let setup = Setup { dcase: 720, nursery: 480, quiet: 24, seed: 0x6361_6c69, ..Setup::default() };
    let mixtures = build(dev, &setup)?;
    let fetch = |i: usize, studio: &mut _| {
        let mixture = mixtures.mixture(i, studio).ok_or("there is no such mixture")?;
        Ok((mixture.truth, mixture.samples))
    };
    let mut heard = listen_all(mixtures.len(), &mut detectors, fetch, |_| ())?;
    let step_s = info.frame_step as f64 / f64::from(info.sample_rate);
    let mut frames = Vec::new();
    for listened in &mut heard {
        for (i, p) in listened.frames.iter_mut().enumerate() {
            *p = log_odds(*p);
            let middle = (i as f64 + 0.5) * step_s;
            let crying =
                listened.truth.cry.as_ref().is_some_and(|c| (c.onset_s..c.offset_s).contains(&middle));
            // Frames at the edges belong to neither.
            let edge = |c: &crate::evaluation::truth::Cry| {
                (middle - c.onset_s).abs() < 0.1 || (middle - c.offset_s).abs() < 0.3
            };
            if !listened.truth.cry.as_ref().is_some_and(edge) {
                frames.push((*p, crying));
            }
        }
    }
    let (scale, shift) = platt(&frames);
    let prior = frames.iter().filter(|f| f.1).count() as f64 / frames.len().max(1) as f64;
    let truths: Vec<_> = heard.iter().map(|l| l.truth.clone()).collect();
    let mut report =
        format!("calibration: log-odds x {scale:.3} {shift:+.3}, {:.1} % of the frames cry\n", 100.0 * prior);
    let mut costs = Vec::new();
    for step in -8..=24 {
        let by = f64::from(step) * 0.25;
        let predictions = announced(&heard, &info, scale, shift - by);
        let scores = score(&truths, &predictions, 0.0);
        let rate = |condition: &str| scores.events_of(condition).map_or(1.0, |e| e.error_rate());
        let alerts = scores.false_alarms_of("quiet").map_or(0.0, |f| f.alerts_per_hour());
        let cost = rate("dcase") + rate("nursery") + alerts / ALERTS;
        // Writing to a string cannot fail.
        let _ = writeln!(
            report,
            "  operating point {by:+.2}: error rate {:.3} / {:.3}, {alerts:.1} alerts per hour, cost {cost:.3}",
            rate("dcase"),
            rate("nursery")
        );
        costs.push((cost, by));
    }
    let least = costs.iter().map(|c| c.0).fold(f64::INFINITY, f64::min);
    let by = costs.iter().find(|c| c.0 <= least + AS_GOOD).map_or(0.0, |c| c.1);
    let odds = prior / (1.0 - prior) * (-by).exp();
    let _ = writeln!(
        report,
        "operating point {by:+.2}: a probability is right where {:.2} % of the time there is crying",
        100.0 * odds / (1.0 + odds)
    );
    description.logit_bias = (scale * f64::from(description.logit_bias) + shift - by) as f32;
    description.logit_scale = (scale * f64::from(description.logit_scale)) as f32;
    Ok((weights::serialize(&description, &tensors)?, report))
}

/// What is announced in recordings whose `frames` are log-odds that are still to be scaled and shifted.
fn announced(heard: &[Listened], info: &crate::ModelInfo, scale: f64, shift: f64) -> Predictions {
    let mut predictions = Predictions::default();
    for listened in heard {
        let probability = |z: &f32| (1.0 / (1.0 + (-(scale * f64::from(*z) + shift)).exp())) as f32;
        let frames: Vec<f32> = listened.frames.iter().map(probability).collect();
        predictions.extend(&listened.truth.file, detections(&frames, listened.samples, info, EVENTS));
    }
    predictions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platts_line_finds_the_scale_that_made_the_frames() {
        // Frames whose true log-odds are 0.5 z - 1.
        let mut state = 1u32;
        let mut draw = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1u32 << 24)
        };
        let frames: Vec<(f32, bool)> = (0..40_000)
            .map(|_| {
                let z = draw() * 8.0 - 4.0;
                (z as f32, draw() < 1.0 / (1.0 + (-(0.5 * z - 1.0)).exp()))
            })
            .collect();
        let (scale, shift) = platt(&frames);
        assert!((scale - 0.5).abs() < 0.03 && (shift + 1.0).abs() < 0.05, "{scale} {shift}");
        let (scale, shift) = platt(&[(1.0, true), (-1.0, false)]);
        assert!(scale.is_finite() && shift.is_finite());
    }
}
