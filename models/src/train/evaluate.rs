//! Measures a detector on clips, window by window as the service would: recall on clips with crying, false
//! positives by class on clips without, and where to put the operating point.

use super::corpus::Corpus;
use super::mixture::Mixer;
use crate::detector::{Detector, ModelError};
use crate::events::{EventLogic, EventParams};
use crate::window::{Window, WindowCutter};
use std::collections::BTreeMap;

/// Windows scored at once.
const BATCH: usize = 16;

/// Probabilities of every score frame of a recording, the first frame at its first sample.
pub fn score_recording(detector: &mut Detector, samples: &[f32]) -> Result<Vec<f32>, ModelError> {
    let info = detector.info().clone();
    let mut cutter = WindowCutter::new(info.window, info.hop);
    let mut windows: Vec<Window> = Vec::new();
    cutter.push(samples, |w| windows.push(w));
    cutter.finish(info.lookahead, |w| windows.push(w));
    let mut frames = Vec::new();
    // The first stretch begins this long before the recording.
    let before = info.lookahead / info.frame_step;
    for batch in windows.chunks(BATCH) {
        let slices: Vec<&[f32]> = batch.iter().map(|w| w.samples.as_slice()).collect();
        frames.extend(detector.score_batch(&slices)?.into_iter().flatten());
    }
    frames.drain(..before.min(frames.len()));
    frames.truncate(samples.len().div_ceil(info.frame_step));
    Ok(frames)
}

/// The event settings of an untouched configuration.
const EVENTS: EventParams =
    EventParams { threshold: 0.5, min_duration_s: 0.6, end_after_s: 5.0, cooldown_s: 60.0 };
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

/// Log-odds at which at most `share` of the clips without crying count as crying.
pub fn operating_point(scores: &[ClipScore], share: f32) -> f32 {
    let mut others: Vec<f32> = scores.iter().filter(|s| !s.is_cry).map(|s| s.log_odds).collect();
    others.sort_by(|a, b| b.total_cmp(a));
    let allowed = (others.len() as f32 * share) as usize;
    others.get(allowed).map_or(0.0, |next| next + 1e-3)
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

/// Frame scores on `count` mixtures drawn from `corpus` as in training, with a fixed seed: recall of cry frames by
/// how loud the crying is, and the share of other frames taken for crying.
pub fn mixtures(detector: &mut Detector, corpus: &Corpus, count: u64) -> Result<String, ModelError> {
    let info = detector.info().clone();
    let Ok(mut mixer) = Mixer::new(corpus, info.window, info.frame_step) else {
        return Ok("no mixtures: the clips hold no crying that could be located\n".into());
    };
    let end = (info.window - info.lookahead) / info.frame_step;
    let start = end - info.frames_per_hop;
    let mut by_ratio: BTreeMap<i32, (usize, usize)> = BTreeMap::new();
    let (mut wrong, mut others) = (0, 0);
    for seed in 0..count {
        let example = mixer.example(0x6465_7600 + seed);
        let scores = detector.score_batch(&[&example.samples])?.concat();
        for (i, score) in (start..end).zip(scores) {
            let hit = usize::from(score >= info.threshold);
            match (example.weights[i] >= 1.0, example.targets[i] >= 0.5) {
                (true, true) => {
                    let band = example.ratio_db.map_or(0, |db| (db / 6.0).floor() as i32 * 6);
                    let entry = by_ratio.entry(band).or_default();
                    *entry = (entry.0 + hit, entry.1 + 1);
                }
                (true, false) => (wrong, others) = (wrong + hit, others + 1),
                _ => {}
            }
        }
    }
    let share = |a: usize, b: usize| 100.0 * a as f32 / b.max(1) as f32;
    let mut text = format!("mixtures: {:.1} % of other frames taken for crying\n", share(wrong, others));
    for (db, (hit, all)) in by_ratio {
        text.push_str(&format!(
            "  cry frames {db} to {} dB over the rest: {:.1} %\n",
            db + 6,
            share(hit, all)
        ));
    }
    Ok(text)
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
    fn operating_point_lets_the_allowed_share_through() {
        let scores: Vec<_> = (0..100).map(|i| score(false, i as f32)).collect();
        let point = operating_point(&scores, 0.03);
        assert_eq!(scores.iter().filter(|s| s.log_odds >= point).count(), 3);
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
        assert!((score - 9f32.ln()).abs() < 0.1, "{score}");
        assert!(clip_log_odds(&[], 50_000) < -10.0);
    }
}
