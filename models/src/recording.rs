//! Scores whole recordings the way a live stream is scored, only in longer pieces.

use crate::detector::{Detector, ModelError};

/// Windows scored at once: long pieces are cheaper, and the memory stays bounded.
const WINDOWS: usize = 40;

/// Probabilities of crying of every score frame of a recording (16 kHz, mono), the first frame at its first sample;
/// `ceil(samples / frame_step)` of them.
///
/// # Errors
/// Only those of the computation itself.
pub fn score_recording(detector: &mut Detector, samples: &[f32]) -> Result<Vec<f32>, ModelError> {
    let info = detector.info().clone();
    let total = (samples.len() + info.lookahead).div_ceil(info.window) * info.window;
    let piece = info.window * WINDOWS;
    let mut states = [detector.fresh()];
    let mut frames = Vec::with_capacity(total / info.frame_step);
    for start in (0..total).step_by(piece) {
        let end = (start + piece).min(total);
        let heard = &samples[start.min(samples.len())..end.min(samples.len())];
        let scores = if heard.len() == end - start {
            detector.score(&[heard], &mut states)?
        } else {
            // Silence after the end brings the scores that lag behind.
            let mut padded = heard.to_vec();
            padded.resize(end - start, 0.0);
            detector.score(&[&padded], &mut states)?
        };
        frames.extend(scores.into_iter().flatten());
    }
    // The first scores belong to what was before the recording.
    frames.drain(..(info.lookahead / info.frame_step).min(frames.len()));
    frames.truncate(samples.len().div_ceil(info.frame_step));
    Ok(frames)
}
