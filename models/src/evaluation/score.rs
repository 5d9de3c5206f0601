//! Compares what was detected with what there is to hear: event-based figures after DCASE 2017 task 2, clip-level
//! figures, recall by kind, onset errors and delays, false alarms and what was taken for a cry.

use super::predictions::{Detection, Predictions};
use super::truth::{Cry, DCASE, QUIET, Truth};
use std::collections::BTreeMap;

/// Seconds by which an onset may be off in the event-based figures.
const COLLAR_S: f64 = 0.5;
/// Seconds after an alert in which further events make no new one.
pub const REFRACTORY_S: f64 = 60.0;
/// Thresholds tried for [`Scores::best`], at the most.
const TRIED: usize = 60;
/// Name of all conditions with cries together.
pub const ALL: &str = "all";

/// Event-based figures by onset (Mesaros et al., 2016): an event is right when its onset is within 500 ms of a true
/// one, each true one found at most once.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EventBased {
    /// True events.
    pub events: usize,
    /// Found ones.
    pub hits: usize,
    /// Detected events that are none.
    pub insertions: usize,
}

impl EventBased {
    /// True events that were not found.
    pub fn deletions(&self) -> usize {
        self.events - self.hits
    }

    /// Deletions and insertions per true event.
    pub fn error_rate(&self) -> f64 {
        (self.deletions() + self.insertions) as f64 / self.events.max(1) as f64
    }

    /// Share of the detected events that are right.
    pub fn precision(&self) -> f64 {
        self.hits as f64 / (self.hits + self.insertions).max(1) as f64
    }

    /// Share of the true events that were found.
    pub fn recall(&self) -> f64 {
        self.hits as f64 / self.events.max(1) as f64
    }

    /// Harmonic mean of both.
    pub fn f1(&self) -> f64 {
        f1(self.precision(), self.recall())
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.hits += other.hits;
        self.insertions += other.insertions;
    }
}

fn f1(precision: f64, recall: f64) -> f64 {
    2.0 * precision * recall / (precision + recall).max(1e-12)
}

/// Whether anything is detected in a file, against whether there is a cry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClipLevel {
    /// Share of the files with detections that hold a cry.
    pub precision: f64,
    /// Share of the files with a cry that have a detection.
    pub recall: f64,
    /// Average precision over the files' highest scores, whatever the threshold; NaN without any cry.
    pub average_precision: f64,
    /// Share of the files that hold a cry.
    pub prevalence: f64,
}

impl ClipLevel {
    /// Harmonic mean of precision and recall.
    pub fn f1(&self) -> f64 {
        f1(self.precision, self.recall)
    }
}

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// These.
    pub part: usize,
    /// Of these.
    pub of: usize,
}

impl Share {
    /// As a number; NaN of nothing.
    pub fn value(&self) -> f64 {
        self.part as f64 / self.of as f64
    }
}

/// False alarms in files without a cry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FalseAlarms {
    /// Hours heard.
    pub hours: f64,
    /// Detected events.
    pub events: usize,
    /// Those of them that begin at least [`REFRACTORY_S`] after the last alert.
    pub alerts: usize,
}

impl FalseAlarms {
    /// Events per hour.
    pub fn events_per_hour(&self) -> f64 {
        self.events as f64 / self.hours
    }

    /// Alerts per hour.
    pub fn alerts_per_hour(&self) -> f64 {
        self.alerts as f64 / self.hours
    }
}

/// The threshold with the lowest error rate in the files after DCASE 2017 task 2, seen from behind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// The threshold.
    pub threshold: f64,
    /// Figures there.
    pub figures: EventBased,
}

/// All figures. "Found" here means that a detection overlaps the cry, half a second before and a second after it
/// included.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Detections below this do not count.
    pub threshold: f64,
    /// Files.
    pub files: usize,
    /// Files with a cry.
    pub with_cry: usize,
    /// By condition, and [`ALL`] last.
    pub events: Vec<(String, EventBased)>,
    /// None where nothing was detected at all.
    pub best: Option<Best>,
    /// By condition, and [`ALL`] last.
    pub clips: Vec<(String, ClipLevel)>,
    /// Found cries by condition.
    pub recall_by_condition: BTreeMap<String, Share>,
    /// Found cries by condition and level over the background in dB.
    pub recall_by_level: BTreeMap<(String, i64), Share>,
    /// Found cries by condition and collection.
    pub recall_by_source: BTreeMap<String, Share>,
    /// Onset of the first detection of each found cry, less the true one; seconds.
    pub onset_errors: Vec<f64>,
    /// From the true onset of each found cry until a live service announces it, where that is known; seconds.
    pub delays: Vec<f64>,
    /// Of files without a cry by condition, quiet nights first.
    pub false_alarms: Vec<(String, FalseAlarms)>,
    /// What false detections were taken from: detections, and files (or placed sounds) of the kind; most first.
    pub confusions: Vec<(String, Share)>,
}

impl Scores {
    /// Event-based figures of a condition, or of [`ALL`].
    pub fn events_of(&self, condition: &str) -> Option<&EventBased> {
        self.events.iter().find(|(c, _)| c == condition).map(|(_, e)| e)
    }

    /// False alarms of a condition.
    pub fn false_alarms_of(&self, condition: &str) -> Option<&FalseAlarms> {
        self.false_alarms.iter().find(|(c, _)| c == condition).map(|(_, f)| f)
    }

    /// [`recall_by_level`](Self::recall_by_level), named.
    pub fn recall_by_named_level(&self) -> Vec<(String, Share)> {
        let name = |(condition, db): &(String, i64)| format!("{condition} EBR {db:>+3} dB");
        self.recall_by_level.iter().map(|(level, share)| (name(level), *share)).collect()
    }

    /// Found cries of all conditions.
    pub fn recall(&self) -> Share {
        let add = |a: Share, b: &Share| Share { part: a.part + b.part, of: a.of + b.of };
        self.recall_by_condition.values().fold(Share::default(), add)
    }
}

/// The detections that overlap a cry, half a second before and a second after it included.
pub fn overlapping<'a>(cry: &'a Cry, all: &'a [Detection]) -> impl Iterator<Item = &'a Detection> {
    all.iter().filter(|d| d.onset_s < cry.offset_s + 1.0 && d.offset_s > cry.onset_s - 0.5)
}

/// Scores the detections with at least `threshold` against what there is to hear.
pub fn score(truths: &[Truth], predictions: &Predictions, threshold: f64) -> Scores {
    let sure = predictions.above(threshold);
    let scenes: Vec<&Truth> = truths.iter().filter(|t| t.condition != QUIET).collect();
    let mut conditions: Vec<&str> = scenes.iter().map(|t| t.condition.as_str()).collect();
    conditions.sort_unstable();
    conditions.dedup();
    let of = |condition: &str| -> Vec<&Truth> {
        scenes.iter().filter(|t| condition == ALL || t.condition == condition).copied().collect()
    };
    let named = |condition: &&str| (*condition).to_owned();
    let groups: Vec<&str> = conditions.iter().copied().chain([ALL]).collect();
    let mut scores = Scores {
        threshold,
        files: truths.len(),
        with_cry: truths.iter().filter(|t| t.cry.is_some()).count(),
        events: groups.iter().map(|c| (named(c), event_based(&of(c), &sure))).collect(),
        best: best(&of(DCASE), predictions),
        clips: groups.iter().map(|c| (named(c), clip_level(&of(c), predictions, &sure))).collect(),
        recall_by_condition: BTreeMap::new(),
        recall_by_level: BTreeMap::new(),
        recall_by_source: BTreeMap::new(),
        onset_errors: Vec::new(),
        delays: Vec::new(),
        false_alarms: Vec::new(),
        confusions: confusions(truths, &sure),
    };
    for truth in &scenes {
        let Some(cry) = &truth.cry else { continue };
        let first = overlapping(cry, sure.of(&truth.file)).next();
        let condition = &truth.condition;
        let by_level = (condition.clone(), cry.ebr_db as i64);
        for share in [
            scores.recall_by_condition.entry(condition.clone()).or_default(),
            scores.recall_by_level.entry(by_level).or_default(),
            scores.recall_by_source.entry(format!("{condition} {}", cry.source)).or_default(),
        ] {
            *share = Share { part: share.part + usize::from(first.is_some()), of: share.of + 1 };
        }
        if let Some(first) = first {
            scores.onset_errors.push(first.onset_s - cry.onset_s);
            scores.delays.extend(first.decided_s.map(|decided_s| decided_s - cry.onset_s));
        }
    }
    for condition in [QUIET].iter().chain(&conditions) {
        let mut alarms = FalseAlarms { hours: 0.0, events: 0, alerts: 0 };
        for truth in truths.iter().filter(|t| t.condition == **condition && t.cry.is_none()) {
            let all = sure.of(&truth.file);
            alarms.hours += truth.duration_s / 3_600.0;
            alarms.events += all.len();
            alarms.alerts += alerts(all);
        }
        if alarms.hours > 0.0 {
            scores.false_alarms.push((named(condition), alarms));
        }
    }
    scores
}

/// The largest number of pairs of a true and a detected onset within the collar. Both in order of time; as all
/// collars are equally wide, the first pair that fits is always right.
fn matches(truth: &[f64], detected: &[f64]) -> usize {
    let (mut hits, mut next) = (0, 0);
    for onset in truth {
        while detected.get(next).is_some_and(|d| *d < *onset && (d - onset).abs() > COLLAR_S) {
            next += 1;
        }
        if detected.get(next).is_some_and(|d| (d - onset).abs() <= COLLAR_S) {
            (hits, next) = (hits + 1, next + 1);
        }
    }
    hits
}

fn event_based(truths: &[&Truth], predictions: &Predictions) -> EventBased {
    let mut figures = EventBased::default();
    for truth in truths {
        let wanted: Vec<f64> = truth.cry.iter().map(|c| c.onset_s).collect();
        let detected: Vec<f64> = predictions.of(&truth.file).iter().map(|d| d.onset_s).collect();
        figures.add(&event_based_of(&wanted, &detected));
    }
    figures
}

/// Figures of one recording by its true and its detected onsets, both in order of time, seconds.
pub(super) fn event_based_of(wanted: &[f64], detected: &[f64]) -> EventBased {
    let hits = matches(wanted, detected);
    EventBased { events: wanted.len(), hits, insertions: detected.len() - hits }
}

fn best(truths: &[&Truth], predictions: &Predictions) -> Option<Best> {
    let all = predictions.scores();
    let last = all.len().checked_sub(1)?;
    let thresholds: Vec<f64> = if all.len() < TRIED {
        all
    } else {
        let step = last as f64 / (TRIED - 1) as f64;
        let place = |i: usize| if i + 1 == TRIED { last } else { (i as f64 * step) as usize };
        (0..TRIED).map(|i| all[place(i)]).collect()
    };
    let mut best: Option<Best> = None;
    for threshold in thresholds {
        let figures = event_based(truths, &predictions.above(threshold));
        if best.is_none_or(|best| figures.error_rate() < best.figures.error_rate()) {
            best = Some(Best { threshold, figures });
        }
    }
    best
}

fn clip_level(truths: &[&Truth], all: &Predictions, sure: &Predictions) -> ClipLevel {
    let highest = |t: &Truth| all.of(&t.file).iter().map(|d| d.score).fold(f64::NEG_INFINITY, f64::max);
    let detected = |t: &&&Truth| !sure.of(&t.file).is_empty();
    let found = truths.iter().filter(detected).count();
    let present = truths.iter().filter(|t| t.cry.is_some()).count();
    let hits = truths.iter().filter(detected).filter(|t| t.cry.is_some()).count();
    let ranked: Vec<(f64, bool)> = truths.iter().map(|t| (highest(t), t.cry.is_some())).collect();
    ClipLevel {
        precision: hits as f64 / found.max(1) as f64,
        recall: hits as f64 / present.max(1) as f64,
        average_precision: average_precision(&ranked),
        prevalence: present as f64 / truths.len() as f64,
    }
}

/// Average precision of scores with their truth: the sum over operating points of precision times gained recall.
/// Equal scores share one point. NaN without anything true.
pub fn average_precision(ranked: &[(f64, bool)]) -> f64 {
    let mut ranked = ranked.to_vec();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let total = ranked.iter().filter(|r| r.1).count();
    if total == 0 {
        return f64::NAN;
    }
    let (mut seen, mut hits, mut recall, mut sum) = (0, 0, 0.0, 0.0);
    for point in ranked.chunk_by(|a, b| a.0 == b.0) {
        seen += point.len();
        hits += point.iter().filter(|r| r.1).count();
        let now = hits as f64 / total as f64;
        sum += (now - recall) * (hits as f64 / seen as f64);
        recall = now;
    }
    sum
}

/// Alerts that some events in order of onset make.
fn alerts(events: &[Detection]) -> usize {
    let (mut count, mut last) = (0, f64::NEG_INFINITY);
    for event in events {
        if event.onset_s - last >= REFRACTORY_S {
            (count, last) = (count + 1, event.onset_s);
        }
    }
    count
}

fn confusions(truths: &[Truth], sure: &Predictions) -> Vec<(String, Share)> {
    let mut table: BTreeMap<String, Share> = BTreeMap::new();
    for truth in truths {
        let detected = sure.of(&truth.file);
        if truth.condition == QUIET {
            for sound in &truth.sounds {
                table.entry(format!("quiet: {}", sound.class)).or_default().of += 1;
            }
            for d in detected {
                let mut classes = truth.classes_near(d.onset_s, d.offset_s);
                if classes.is_empty() {
                    classes.push("(nothing placed here)");
                }
                for class in classes {
                    table.entry(format!("quiet: {class}")).or_default().part += 1;
                }
            }
        } else {
            let right = truth.cry.as_ref().map_or(0, |cry| overlapping(cry, detected).count());
            let share = table.entry(truth.scene()).or_default();
            *share = Share { part: share.part + detected.len() - right, of: share.of + 1 };
        }
    }
    let mut confusions: Vec<(String, Share)> =
        table.into_iter().filter(|(_, share)| share.part > 0).collect();
    confusions.sort_by_key(|(_, share)| std::cmp::Reverse(share.part));
    confusions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_true_onset_is_found_once_and_as_many_as_possible() {
        assert_eq!(matches(&[1.0, 1.4], &[0.6, 1.2]), 2);
        assert_eq!(matches(&[1.0], &[0.5, 1.0, 1.5]), 1);
        assert_eq!(matches(&[1.0, 5.0], &[1.51, 4.4]), 0);
        assert_eq!(matches(&[2.0], &[1.5]), 1);
        assert_eq!(matches(&[], &[1.0]), 0);
    }

    #[test]
    fn equal_scores_share_one_operating_point() {
        let ap = average_precision(&[(0.9, true), (0.5, false), (0.5, true), (0.1, true)]);
        // Recall 1/3 at precision 1, 2/3 at 2/3, 1 at 3/4.
        assert!((ap - (1.0 + 2.0 / 3.0 + 0.75) / 3.0).abs() < 1e-12, "{ap}");
        assert!(average_precision(&[(0.9, false)]).is_nan());
    }
}
