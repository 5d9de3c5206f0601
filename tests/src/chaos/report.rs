//! What a run brought, as text and as JSON.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display, Formatter},
    sync::Mutex,
};

use nursery_shared::message::Role;
use serde::Serialize;

use super::{clips::Clips, ledger::Verdict, vitals::Life, watcher::Extremes};

/// One fault: when, what, to whom, and how soon it was over.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Entry {
    /// Since the beginning of the run.
    pub at_s: f64,
    /// Until everything that follows was seen.
    pub took_s: f64,
    pub kind: String,
    pub target: String,
    pub role: Option<Role>,
    /// From the fault to the death of a process that does not die of it at once.
    pub killed_ms: Option<f64>,
    /// From a missed deadline to the death that follows, as the post-mortem has it.
    pub overrun_ms: Option<f64>,
    /// From a death until its replacement runs, and until that has done its first work.
    pub running_ms: Option<f64>,
    pub working_ms: Option<f64>,
    /// From the end of a fault outside of the processes until all is as before.
    pub back_ms: Option<f64>,
}

/// Promises that were broken.
#[derive(Default)]
pub struct Violations(Mutex<Vec<String>>);

impl Violations {
    /// One more.
    pub fn add(&self, what: String) {
        eprintln!("VIOLATION {what}");
        self.0.lock().unwrap().push(what);
    }

    /// All of them.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Everything about a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub seed: u64,
    pub seconds: f64,
    pub cameras: usize,
    pub faults: Vec<Entry>,
    pub ledger: Verdict,
    pub supervisors: Vec<Life>,
    pub extremes: Extremes,
    pub clips: Clips,
    pub postmortems: usize,
    pub notes: Vec<String>,
    /// Promises that were broken, what was lost included.
    pub violations: Vec<String>,
}

/// Measurements of one kind.
struct Figures(Vec<f64>);

impl Figures {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        (!values.is_empty()).then_some(Self(values))
    }

    /// Nearest rank.
    fn rank(&self, p: f64) -> f64 {
        let index = (p * self.0.len() as f64).ceil() as usize;
        self.0[index.clamp(1, self.0.len()) - 1]
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>4} {:>8.0} {:>8.0} {:>8.0}",
            self.0.len(),
            self.rank(0.5),
            self.rank(0.99),
            self.rank(1.0)
        )
    }
}

type Column = (&'static str, fn(&Entry) -> Option<f64>);

impl Report {
    /// Faults by kind.
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for entry in &self.faults {
            *counts.entry(entry.kind.as_str()).or_default() += 1;
        }
        counts
    }

    fn figures(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let columns: [Column; 5] = [
            ("fault to death", |e| e.killed_ms),
            ("deadline to death", |e| e.overrun_ms),
            ("death to running", |e| e.running_ms),
            ("death to first work", |e| e.working_ms),
            ("end of fault to all well", |e| e.back_ms),
        ];
        writeln!(
            f,
            "{:<48} {:<8} {:<24} {:>4} {:>8} {:>8} {:>8}",
            "ms", "role", "", "n", "p50", "p99", "max"
        )?;
        let kinds: BTreeSet<(&str, Option<Role>)> =
            self.faults.iter().map(|e| (e.kind.as_str(), e.role)).collect();
        for (kind, role) in kinds {
            let of_kind = || self.faults.iter().filter(|e| e.kind == kind && e.role == role);
            for (what, get) in &columns {
                if let Some(figures) = Figures::of(of_kind().filter_map(get)) {
                    writeln!(f, "{kind:<48} {:<8} {what:<24} {figures}", role.map_or("", Role::as_str))?;
                }
            }
        }
        Ok(())
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {:.0} s, {} cameras", self.seed, self.seconds, self.cameras)?;
        writeln!(f, "\n{} faults", self.faults.len())?;
        for (kind, count) in self.counts() {
            writeln!(f, "{count:>6}  {kind}")?;
        }
        writeln!(f)?;
        self.figures(f)?;
        let v = &self.ledger;
        writeln!(
            f,
            "\n{} bouts of crying, {} of them owed; {} not (deaf camera), of which {} were announced all the same",
            v.bouts, v.owed, v.not_owed, v.not_owed_but_announced
        )?;
        writeln!(
            f,
            "{} more were heard from their midst on by a model that knew nothing of the room; {} of them were announced",
            v.from_the_midst, v.from_the_midst_announced
        )?;
        for (why, count) in &v.why_not_owed {
            writeln!(f, "{count:>6}  {why}")?;
        }
        writeln!(
            f,
            "alerts expected {}, received {}, LOST {}; {} ids accepted in all, {} delivered again, {} attempts refused",
            v.alerts_expected,
            v.alerts_received,
            v.lost.len(),
            v.alerts_in_all,
            v.duplicates_by_id,
            v.refused
        )?;
        writeln!(f, "outages expected {}, announced {}", v.outages, v.outages_announced)?;
        writeln!(f, "events for which nothing was played: {}", v.unasked.len())?;
        writeln!(f, "\nsupervisors (after warm-up, at the end)")?;
        for life in &self.supervisors {
            let (a, b) = (&life.start, &life.end);
            writeln!(
                f,
                "  pid {}, {:.0} s: RSS {:.1} -> {:.1} MB, descriptors {} -> {}, threads {} -> {}, zombies {} -> {}",
                life.pid,
                life.seconds,
                a.rss_bytes as f64 / 1e6,
                b.rss_bytes as f64 / 1e6,
                a.descriptors,
                b.descriptors,
                a.threads,
                b.threads,
                a.zombies,
                b.zombies
            )?;
        }
        let x = &self.extremes;
        writeln!(
            f,
            "most windows queued {}, in flight {}; most alerts pending {}; windows dropped {}, set aside {}; \
             {} post-mortems kept",
            x.queued, x.in_flight, x.pending, x.dropped, x.quarantined, self.postmortems
        )?;
        let c = &self.clips;
        let read = c.read.map_or_else(|| "no ffprobe".to_owned(), |read| format!("ffprobe reads {read}"));
        writeln!(
            f,
            "{} clips, {:.0} s, {read}, {} left and {} unfinished at the end; at most {:.1} MB on the disk",
            c.files,
            c.seconds,
            c.kept,
            c.unfinished,
            c.most_bytes as f64 / 1e6
        )?;
        writeln!(f, "workers restarted although nothing was done to them: {}", x.unprovoked.len())?;
        for text in x.unprovoked.iter().chain(&v.unasked).chain(&self.notes) {
            writeln!(f, "  {text}")?;
        }
        writeln!(f, "\n{} violations", self.violations.len())?;
        self.violations.iter().try_for_each(|text| writeln!(f, "  {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let figures = Figures::of((1..=100).map(f64::from)).unwrap();
        assert_eq!((figures.rank(0.5), figures.rank(0.99), figures.rank(1.0)), (50.0, 99.0, 100.0));
        assert!(Figures::of(std::iter::empty()).is_none());
        assert_eq!(Figures::of([3.0].into_iter()).unwrap().rank(0.99), 3.0);
    }
}
