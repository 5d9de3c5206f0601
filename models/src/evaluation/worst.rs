//! The cries that were missed most clearly and the false alarms that were the surest, to be looked at.

use super::listening::Listened;
use super::predictions::Predictions;
use super::score::overlapping;
use super::truth::{QUIET, Truth};
use crate::detector::ModelInfo;
use serde::Serialize;

/// A cry that was not found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Miss {
    /// File.
    pub file: String,
    /// Seconds.
    pub onset: f64,
    /// Seconds.
    pub offset: f64,
    /// Level over the background, dB.
    pub ebr: f64,
    /// Background or distractor.
    pub scene: String,
    /// Clip the cry comes from.
    pub path: String,
    /// Highest frame score in it, where a model was asked.
    pub score: Option<f32>,
}

/// A detection without a cry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FalseAlarm {
    /// File.
    pub file: String,
    /// Seconds.
    pub onset: f64,
    /// Seconds.
    pub offset: f64,
    /// Score.
    pub score: f64,
    /// What is to be heard there instead.
    pub scene: String,
    /// Clips that were placed there, in quiet nights.
    pub paths: Vec<String>,
}

/// Up to `count` of the misses with the lowest frame scores, and without these of the loudest cries.
pub fn misses(
    truths: &[Truth],
    sure: &Predictions,
    heard: Option<(&[Listened], &ModelInfo)>,
    count: usize,
) -> Vec<Miss> {
    let mut misses = Vec::new();
    for (i, truth) in truths.iter().enumerate() {
        let Some(cry) = &truth.cry else { continue };
        if overlapping(cry, sure.of(&truth.file)).next().is_some() {
            continue;
        }
        let peak = |(heard, info): (&[Listened], &ModelInfo)| {
            heard.get(i).map(|l| l.peak(info, cry.onset_s, cry.offset_s))
        };
        misses.push(Miss {
            file: truth.file.clone(),
            onset: cry.onset_s,
            offset: cry.offset_s,
            ebr: cry.ebr_db,
            scene: truth.scene(),
            path: cry.path.clone(),
            score: heard.and_then(peak),
        });
    }
    misses.sort_by(|a, b| {
        let by_score = a.score.unwrap_or(0.0).total_cmp(&b.score.unwrap_or(0.0));
        by_score.then(b.ebr.total_cmp(&a.ebr))
    });
    misses.truncate(count);
    misses
}

/// Up to `count` of the false detections with the highest scores.
pub fn false_alarms(truths: &[Truth], sure: &Predictions, count: usize) -> Vec<FalseAlarm> {
    let mut alarms = Vec::new();
    for truth in truths {
        let all = sure.of(&truth.file);
        let right: Vec<_> = truth.cry.iter().flat_map(|cry| overlapping(cry, all)).collect();
        for d in all.iter().filter(|d| !right.contains(d)) {
            let near = truth.classes_near(d.onset_s, d.offset_s);
            let scene = match truth.condition.as_str() {
                QUIET if near.is_empty() => "quiet: (nothing placed here)".into(),
                QUIET => format!("quiet: {}", near.join("+")),
                _ => truth.scene(),
            };
            alarms.push(FalseAlarm {
                file: truth.file.clone(),
                onset: d.onset_s,
                offset: d.offset_s,
                score: d.score,
                scene,
                paths: truth.sounds_near(d.onset_s, d.offset_s).map(|s| s.path.clone()).collect(),
            });
        }
    }
    alarms.sort_by(|a, b| b.score.total_cmp(&a.score));
    alarms.truncate(count);
    alarms
}
