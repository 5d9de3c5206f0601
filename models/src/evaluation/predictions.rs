//! What a detector says is in the files: detected events by file, from a model or from the JSON lines that
//! `nursery detect --json` prints.

use super::truth::Truth;
use crate::text::one_line;
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// The label that counts.
const LABEL: &str = "baby_cry";
/// Seconds given to events that end where they begin or before.
const SHORTEST_S: f64 = 0.02;

/// A detected event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Seconds.
    pub onset_s: f64,
    /// Seconds.
    pub offset_s: f64,
    /// The higher, the surer.
    pub score: f64,
    /// When a service that hears the file as it plays announces it (seconds), where that is known.
    pub decided_s: Option<f64>,
}

/// What is detected in files, by name of the file without folders; in order of onset.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Predictions {
    files: HashMap<String, Vec<Detection>>,
}

impl Predictions {
    /// Notes what was detected in a file, beside what was noted before.
    pub fn extend(&mut self, file: &str, detections: impl IntoIterator<Item = Detection>) {
        let all = self.files.entry(file.to_owned()).or_default();
        all.extend(detections);
        all.sort_by(|a, b| {
            let (a, b) = ([a.onset_s, a.offset_s, a.score], [b.onset_s, b.offset_s, b.score]);
            a.iter().zip(&b).map(|(a, b)| a.total_cmp(b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        });
    }

    /// What was detected in a file.
    pub fn of(&self, file: &str) -> &[Detection] {
        self.files.get(file).map_or(&[], Vec::as_slice)
    }

    /// Only what has at least this score.
    pub fn above(&self, threshold: f64) -> Self {
        let sure = |all: &Vec<Detection>| all.iter().filter(|d| d.score >= threshold).copied().collect();
        Self { files: self.files.iter().map(|(file, all)| (file.clone(), sure(all))).collect() }
    }

    /// All scores, ascending, each once.
    pub fn scores(&self) -> Vec<f64> {
        let mut scores: Vec<f64> = self.files.values().flatten().map(|d| d.score).collect();
        scores.sort_by(f64::total_cmp);
        scores.dedup();
        scores
    }

    /// Reads JSON lines `{"file", "onset", "offset", "label", "score"}`; without `label` it is crying, without
    /// `score` 1. Lines of other labels are left out, those of files that are not in `truths` counted: the number
    /// comes second. `name` is told in errors.
    ///
    /// # Errors
    /// One line that names the bad line and what is wrong with it.
    pub fn from_json_lines(text: &str, name: &str, truths: &[Truth]) -> Result<(Self, usize), String> {
        let known: HashSet<&str> = truths.iter().map(|t| t.file.as_str()).collect();
        let (mut found, mut unknown): (HashMap<String, Vec<Detection>>, usize) = Default::default();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let at = |what: String| format!("{name}: line {}: {}", i + 1, one_line(&what));
            let object: Map<String, Value> =
                serde_json::from_str(line).map_err(|e| at(format!("is no JSON object: {e}")))?;
            let number = |key: &str| match object.get(key) {
                Some(value) => {
                    value.as_f64().ok_or_else(|| at(format!("{key:?} is {value}, must be a number")))
                }
                None => Err(at(format!("{key:?} is missing"))),
            };
            let path = object.get("file").and_then(Value::as_str);
            let path = path.ok_or_else(|| at("\"file\" is missing or no text".into()))?;
            let (onset_s, offset_s) = (number("onset")?, number("offset")?);
            let score = if object.contains_key("score") { number("score")? } else { 1.0 };
            if object.get("label").is_some_and(|label| label != LABEL) {
                continue;
            }
            let file = Path::new(path).file_name().and_then(|f| f.to_str()).unwrap_or(path);
            if !known.contains(file) {
                unknown += 1;
                continue;
            }
            let offset_s = if offset_s > onset_s { offset_s } else { onset_s + SHORTEST_S };
            let detection = Detection { onset_s, offset_s, score, decided_s: None };
            found.entry(file.to_owned()).or_default().push(detection);
        }
        let mut predictions = Self::default();
        for (file, all) in found {
            predictions.extend(&file, all);
        }
        Ok((predictions, unknown))
    }
}
