//! The figures as tables, for the terminal and as Markdown.

use super::lasting::Lasting;
use super::percentile;
use super::reliability::Reliability;
use super::score::{EventBased, REFRACTORY_S, Scores, Share};
use super::streams::TOGETHER;
use super::truth::QUIET;
use super::worst::{FalseAlarm, Miss};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Rows of [`Scores::confusions`] that are shown.
const CONFUSIONS: usize = 25;

/// Everything that is known after an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What was evaluated, in a line.
    pub title: String,
    /// At the threshold that was asked for.
    pub scores: Scores,
    /// At other thresholds.
    pub sensitivities: Vec<Scores>,
    /// Over frames, by what they are of; empty without a model.
    pub reliability: Vec<(String, Reliability)>,
    /// Average precision by the files' highest frame scores, by condition; empty without a model.
    pub frame_ap: Vec<(String, f64)>,
    /// By condition, recordings heard one after the other; empty without a model.
    pub streams: Vec<(String, EventBased)>,
    /// Crying that goes on; empty where it was not asked for.
    pub lasting: Vec<Lasting>,
    /// The clearest misses.
    pub misses: Vec<Miss>,
    /// The surest false alarms.
    pub false_alarms: Vec<FalseAlarm>,
}

/// A table with a title; columns that hold figures only stand to the right.
struct Table {
    title: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    note: String,
}

impl Table {
    fn new(title: impl Into<String>, header: &str) -> Self {
        let header = header.split('|').map(|h| h.trim().to_owned()).collect();
        Self { title: title.into(), header, rows: Vec::new(), note: String::new() }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether column `i` holds nothing but figures.
    fn holds_figures(&self, i: usize) -> bool {
        let is_figure = |c: &String| c == "-" || c.parse::<f64>().is_ok();
        self.rows.iter().filter_map(|r| r.get(i)).all(is_figure)
    }

    fn text(&self, out: &mut String) {
        let width = |i: usize| {
            let cells = self.rows.iter().chain([&self.header]).filter_map(|r| r.get(i));
            cells.map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let columns: Vec<(usize, bool)> =
            (0..self.header.len()).map(|i| (width(i), self.holds_figures(i))).collect();
        let _ = writeln!(out, "{}", self.title);
        for row in [&self.header].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (cell, &(width, right)) in row.iter().zip(&columns) {
                let _ =
                    if right { write!(line, "  {cell:>width$}") } else { write!(line, "  {cell:<width$}") };
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
        if !self.note.is_empty() {
            let _ = writeln!(out, "  ({})", self.note);
        }
        out.push('\n');
    }

    fn markdown(&self, out: &mut String) {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|c| c.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let _ = write!(out, "### {}\n\n{}", self.title, line(&self.header));
        let side = |i: usize| if self.holds_figures(i) { "--:" } else { ":--" };
        let rule: Vec<String> = (0..self.header.len()).map(|i| side(i).to_owned()).collect();
        out.push_str(&line(&rule));
        self.rows.iter().for_each(|row| out.push_str(&line(row)));
        if !self.note.is_empty() {
            let _ = write!(out, "\n{}\n", self.note);
        }
        out.push('\n');
    }
}

impl Report {
    /// For a terminal.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n{}\n\n", self.title, self.summary());
        self.tables().iter().for_each(|table| table.text(&mut out));
        out
    }

    /// For documents.
    pub fn markdown(&self) -> String {
        let mut out = format!("## {}\n\n{}\n\n", self.title, self.summary());
        self.tables().iter().for_each(|table| table.markdown(&mut out));
        out
    }

    fn summary(&self) -> String {
        let Scores { threshold, files, with_cry, .. } = &self.scores;
        format!("threshold {threshold}; {files} files, {with_cry} with a cry")
    }

    fn tables(&self) -> Vec<Table> {
        let scores = &self.scores;
        if scores.files == 0 {
            return vec![lasting(&self.lasting)];
        }
        let streams = format!("The same, up to {TOGETHER} recordings heard one after the other");
        let mut tables = vec![events(scores), event_based(&streams, &self.streams), self.clips()];
        let named = |table: &BTreeMap<String, Share>| table.clone().into_iter().collect();
        tables.push(recall("Recall (overlap) by condition", named(&scores.recall_by_condition)));
        let levels = scores.recall_by_named_level();
        tables.push(recall("Recall by condition and level over the background", levels));
        tables.push(recall("Recall by condition and collection", named(&scores.recall_by_source)));
        tables.extend(times(scores));
        tables.push(lasting(&self.lasting));
        tables.push(false_alarms(scores));
        tables.push(sensitivities(&self.sensitivities));
        tables.extend(self.reliability.iter().map(|(name, r)| reliability(name, r)));
        tables.push(confusions(scores));
        tables.push(misses(&self.misses));
        tables.push(surest(&self.false_alarms));
        tables.retain(|table| !table.rows.is_empty());
        tables
    }

    fn clips(&self) -> Table {
        let mut table = Table::new(
            "Clip level",
            "condition | precision | recall | F1 | AP | prevalence | AP of frame scores",
        );
        if self.frame_ap.is_empty() {
            table.header.pop();
        }
        for (name, clip) in &self.scores.clips {
            let of_frames = self.frame_ap.iter().find(|(n, _)| n == name).map(|(_, ap)| thousandths(*ap));
            let figures = [clip.precision, clip.recall, clip.f1(), clip.average_precision].map(thousandths);
            let prevalence = format!("{:.2}", clip.prevalence);
            table.row([name.clone()].into_iter().chain(figures).chain([prevalence]).chain(of_frames));
        }
        table
    }
}

fn thousandths(x: f64) -> String {
    if x.is_nan() { "nan".into() } else { format!("{x:.3}") }
}

fn events(scores: &Scores) -> Table {
    let title = "Event-based (onset ±500 ms, DCASE 2017 task 2)";
    let mut table = event_based(title, &scores.events);
    if let Some(best) = scores.best {
        let (er, f1) = (best.figures.error_rate(), best.figures.f1());
        table.note = format!(
            "with the best threshold for dcase, seen from behind: {:.3}, ER {er:.3}, F1 {f1:.3}",
            best.threshold
        );
    }
    table
}

fn event_based(title: &str, all: &[(String, EventBased)]) -> Table {
    let mut table = Table::new(title, "condition | ER | F1 | P | R | deletions | insertions | events");
    for (name, e) in all {
        let figures = [e.error_rate(), e.f1(), e.precision(), e.recall()].map(thousandths);
        let counts = [e.deletions(), e.insertions, e.events].map(|n| n.to_string());
        table.row([name.clone()].into_iter().chain(figures).chain(counts));
    }
    table
}

fn recall(title: &str, shares: Vec<(String, Share)>) -> Table {
    let mut table = Table::new(title, "kind | recall | found | of");
    for (name, share) in shares {
        table.row([name, thousandths(share.value()), share.part.to_string(), share.of.to_string()]);
    }
    table
}

fn times(scores: &Scores) -> Option<Table> {
    let mut table = Table::new("Times of found cries, seconds", "time | median | 90 % | 95 % | longest");
    let magnitudes: Vec<f64> = scores.onset_errors.iter().map(|e| e.abs()).collect();
    for (name, values, signed) in [
        ("onset, detected less true", &scores.onset_errors, true),
        ("the same without sign", &magnitudes, false),
        ("from true onset to announcement", &scores.delays, false),
    ] {
        if values.is_empty() {
            continue;
        }
        let show = |q: f64| match signed {
            true => format!("{:+.2}", percentile(values, q)),
            false => format!("{:.2}", percentile(values, q)),
        };
        table.row([name.to_owned()].into_iter().chain([50.0, 90.0, 95.0, 100.0].map(show)));
    }
    (!table.rows.is_empty()).then_some(table)
}

fn lasting(all: &[Lasting]) -> Table {
    let title = "Crying that goes on: announced, and seconds from its onset or the start until then";
    let mut table = Table::new(title, "heard | share | announced | of | median | 90 % | 95 %");
    for l in all {
        let delay = |q: f64| match l.delays.is_empty() {
            true => "-".to_owned(),
            false => format!("{:.2}", percentile(&l.delays, q)),
        };
        let counts = [l.announced.part, l.announced.of].map(|n| n.to_string());
        let share = [thousandths(l.announced.value())];
        table.row(
            [l.name.to_owned()].into_iter().chain(share).chain(counts).chain([50.0, 90.0, 95.0].map(delay)),
        );
    }
    table
}

fn false_alarms(scores: &Scores) -> Table {
    let title = format!("False alarms per hour (alerts {REFRACTORY_S} s apart)");
    let mut table = Table::new(title, "condition | hours | events/h | alerts/h | events | alerts");
    for (name, f) in &scores.false_alarms {
        let name = if name == QUIET { name.clone() } else { format!("{name} (files without a cry)") };
        let rates = [f.hours, f.events_per_hour(), f.alerts_per_hour()].map(|x| format!("{x:.2}"));
        table.row([name].into_iter().chain(rates).chain([f.events, f.alerts].map(|n| n.to_string())));
    }
    table
}

fn sensitivities(all: &[Scores]) -> Table {
    let mut table = Table::new(
        "Sensitivities",
        "threshold | recall | ER dcase | ER nursery | alerts/h quiet | events/h quiet | median delay, s | 95 %",
    );
    for scores in all {
        let of = |x: Option<f64>, digits: usize| x.map_or("-".into(), |x| format!("{x:.digits$}"));
        let error = |c: &str| of(scores.events_of(c).map(EventBased::error_rate), 3);
        let quiet = scores.false_alarms_of(QUIET);
        let delay = |q: f64| of(Some(percentile(&scores.delays, q)).filter(|x| x.is_finite()), 2);
        table.row([
            scores.threshold.to_string(),
            thousandths(scores.recall().value()),
            error(super::truth::DCASE),
            error(super::truth::NURSERY),
            of(quiet.map(|f| f.alerts_per_hour()), 2),
            of(quiet.map(|f| f.events_per_hour()), 2),
            delay(50.0),
            delay(95.0),
        ]);
    }
    table
}

fn reliability(name: &str, r: &Reliability) -> Table {
    let mut table =
        Table::new(format!("Reliability over frames: {name}"), "probability | frames | predicted | observed");
    for (i, bin) in r.bins.iter().enumerate() {
        let range = format!("{:.1}..{:.1}", i as f64 / 10.0, (i + 1) as f64 / 10.0);
        table.row([range, bin.frames.to_string(), thousandths(bin.predicted()), thousandths(bin.observed())]);
    }
    let (error, brier, prior) = (r.calibration_error(), r.brier(), r.prior());
    table.note = format!("expected calibration error {error:.4}, Brier score {brier:.4}, prior {prior:.4}");
    table
}

fn confusions(scores: &Scores) -> Table {
    let mut table = Table::new("Most confused", "taken for a cry | false events | files or placed sounds");
    for (name, share) in scores.confusions.iter().take(CONFUSIONS) {
        table.row([name.clone(), share.part.to_string(), share.of.to_string()]);
    }
    table
}

fn misses(all: &[Miss]) -> Table {
    let mut table = Table::new("Worst misses", "file | onset | offset | EBR | highest score | scene | cry");
    for m in all {
        let score = m.score.map_or("-".into(), |s| format!("{s:.3}"));
        let times = [m.onset, m.offset].map(|s| format!("{s:.2}"));
        let rest = [format!("{:+}", m.ebr), score, m.scene.clone(), m.path.clone()];
        table.row([m.file.clone()].into_iter().chain(times).chain(rest));
    }
    table
}

fn surest(all: &[FalseAlarm]) -> Table {
    let mut table = Table::new("Surest false alarms", "file | onset | offset | score | scene | clips");
    for f in all {
        let times = [f.onset, f.offset].map(|s| format!("{s:.2}"));
        let rest = [format!("{:.3}", f.score), f.scene.clone(), f.paths.join(" ")];
        table.row([f.file.clone()].into_iter().chain(times).chain(rest));
    }
    table
}
