//! Measures a detector on whole clips: recall on clips with crying, false
//! positives by class on clips without, and where to put the operating point.

use super::corpus::Corpus;
use crate::detector::{Detector, ModelError};
use crate::events::{EventLogic, EventParams};
pub use crate::recording::score_recording;
use std::collections::BTreeMap;

/// The event settings of an untouched configuration.
const EVENTS: EventParams = EventParams {
    threshold: 0.5,
    min_duration_s: 0.3,
    end_after_s: 5.0,
    cooldown_s: 60.0,
    sustained_s: 0.0,
    adaptive: true,
};
/// Log-odds that no clip goes beyond.
const LIMIT: f32 = 14.0;

/// Whether an event is announced when every frame's log-odds are lowered by `by`.
fn announces(log_odds: &[f32], step_us: u32, by: f32) -> bool {
    let mut logic = EventLogic::new(EVENTS);
    let mut out = Vec::new();
    log_odds.iter().enumerate().any(|(i, z)| {
        let start = i as i64 * i64::from(step_us);
        logic.push(start, step_us, 1.0 / (1.0 + (by - z).exp()), &mut out);
        !out.is_empty()
    })
}

/// The operating point, in log-odds, up to which the event logic with its default settings announces an event in
/// a recording with these frames.
pub fn clip_log_odds(frames: &[f32], step_us: u32) -> f32 {
    let odds: Vec<f32> = frames
        .iter()
        .map(|&p| {
            let p = f64::from(p).clamp(1e-6, 1.0 - 1e-6);
            (p / (1.0 - p)).ln() as f32
        })
        .collect();
    let (mut low, mut high) = (-LIMIT, LIMIT);
    for _ in 0..16 {
        let middle = (low + high) / 2.0;
        if announces(&odds, step_us, middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// Score of one clip.
#[derive(Debug, Clone)]
pub struct ClipScore {
    /// Class of the clip.
    pub class: String,
    /// Collection.
    pub source: String,
    /// Path in the corpus.
    pub path: String,
    /// Whether it contains crying.
    pub is_cry: bool,
    /// See [`clip_log_odds`].
    pub log_odds: f32,
}

/// Scores every clip of a corpus.
pub fn score_clips(detector: &mut Detector, corpus: &Corpus) -> Result<Vec<ClipScore>, ModelError> {
    let info = detector.info();
    let step_us = (info.frame_step as u64 * 1_000_000 / u64::from(info.sample_rate.max(1))) as u32;
    let mut scores = Vec::new();
    for clip in &corpus.clips {
        let samples: Vec<f32> = clip.samples.iter().map(|&x| f32::from(x) / 32_768.0).collect();
        let frames = score_recording(detector, &samples)?;
        scores.push(ClipScore {
            class: clip.class.clone(),
            source: clip.source.clone(),
            path: clip.path.clone(),
            is_cry: clip.is_cry,
            log_odds: clip_log_odds(&frames, step_us),
        });
    }
    Ok(scores)
}

/// Average precision of clip scores.
pub fn average_precision(scores: &[ClipScore]) -> f32 {
    let mut sorted: Vec<&ClipScore> = scores.iter().collect();
    sorted.sort_by(|a, b| b.log_odds.total_cmp(&a.log_odds));
    let (mut hits, mut sum) = (0.0f32, 0.0f32);
    for (i, s) in sorted.iter().enumerate() {
        if s.is_cry {
            hits += 1.0;
            sum += hits / (i + 1) as f32;
        }
    }
    sum / hits.max(1.0)
}

/// A table for people.
pub fn report(scores: &[ClipScore], threshold: f32) -> String {
    let point = (threshold / (1.0 - threshold)).ln();
    let mut classes: BTreeMap<(bool, &str), (usize, usize)> = BTreeMap::new();
    let (mut found, mut cries, mut false_alarms, mut others) = (0, 0, 0, 0);
    for s in scores {
        let hit = usize::from(s.log_odds >= point);
        let key = if s.is_cry { s.source.as_str() } else { s.class.as_str() };
        let entry = classes.entry((s.is_cry, key)).or_default();
        *entry = (entry.0 + hit, entry.1 + 1);
        if s.is_cry {
            (found, cries) = (found + hit, cries + 1);
        } else {
            (false_alarms, others) = (false_alarms + hit, others + 1);
        }
    }
    let share = |a: usize, b: usize| 100.0 * a as f32 / b.max(1) as f32;
    let mut text = format!(
        "clips at threshold {threshold}: recall {:.1} % ({found}/{cries}), false positives {:.1} % \
         ({false_alarms}/{others}), average precision {:.3}\n",
        share(found, cries),
        share(false_alarms, others),
        average_precision(scores)
    );
    for ((cry, name), (hit, all)) in classes {
        if cry || hit > 0 {
            let what = if cry { "cries of" } else { "false positives in" };
            text.push_str(&format!("  {what} {name}: {hit}/{all}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(is_cry: bool, log_odds: f32) -> ClipScore {
        ClipScore { class: "x".into(), source: "y".into(), path: String::new(), is_cry, log_odds }
    }

    #[test]
    fn average_precision_is_one_for_a_perfect_order() {
        let scores = [score(true, 3.0), score(true, 2.0), score(false, 1.0)];
        assert!((average_precision(&scores) - 1.0).abs() < 1e-6);
        let reversed = [score(true, 1.0), score(false, 2.0)];
        assert!((average_precision(&reversed) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn a_clip_scores_what_its_sustained_crying_reaches() {
        let mut frames = vec![0.01; 40];
        frames[20] = 0.99;
        assert!(clip_log_odds(&frames, 50_000) < 0.0);
        frames[10..30].fill(0.9);
        let score = clip_log_odds(&frames, 50_000);
        // The clear share of a second of them that makes 0.3 s.
        assert!((score - (9f32.ln() - 0.3)).abs() < 0.1, "{score}");
        assert!(clip_log_odds(&[], 50_000) < -10.0);
    }
}
