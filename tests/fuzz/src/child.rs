//! The process that runs a target. Before each execution it writes the input to a file, so that whoever watches can
//! tell what it was at when it crashed or hung; the first broken promise ends it.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use fastrand::Rng;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::{
    corpus::Pool,
    memory,
    target::{Check, Target, Verdict},
};

/// Name of the file with the input in hand, in the folder that parent and child share.
pub const IN_HAND: &str = "in-hand";
/// Name of the file with the report, there when the child is done.
pub const REPORT: &str = "report.json";
/// Bytes before the input in [`IN_HAND`]: executions begun, length.
pub const HEAD: usize = 16;

/// What a child says at its end.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub executions: u64,
    /// Inputs kept, samples included.
    pub kept: usize,
    /// The most that was allocated for one input, bytes.
    pub peak: usize,
    /// The most processor time that one input took, seconds.
    pub slowest: f64,
    /// What was wrong with the last input, if anything was.
    pub finding: Option<String>,
}

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    pub executions: Option<u64>,
    pub time: Option<Duration>,
}

impl Budget {
    fn is_spent(&self, executions: u64, since: Instant) -> bool {
        self.executions.is_some_and(|n| executions >= n) || self.time.is_some_and(|t| since.elapsed() >= t)
    }
}

/// Where the last panic was and what it said.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Runs a target until the budget is spent or an input breaks a promise, and writes the report.
pub fn run(target: &Target, seed: u64, budget: Budget, folder: &Path) -> Result<(), String> {
    let at = |e: io::Error| format!("{}: {e}", folder.display());
    let in_hand = File::create(folder.join(IN_HAND)).map_err(at)?;
    catch_panics();
    let mut report = Report::default();
    let mut pool = Pool::of(target)?;
    let (mut judge, mut random) = (Judge::new(target), Rng::with_seed(seed));
    let since = Instant::now();
    let samples = pool.samples().len();
    while !budget.is_spent(report.executions, since) {
        let n = report.executions as usize;
        let input = match pool.samples().get(n) {
            Some(sample) => sample.clone(),
            None => pool.next(target, &mut random),
        };
        report.executions += 1;
        note(&in_hand, report.executions, &input).map_err(at)?;
        match judge.judge(&input) {
            Ok(way) if n < samples => pool.note(way),
            Ok(way) => pool.learn(input, way, &mut random),
            Err(finding) => {
                report.finding = Some(finding);
                break;
            }
        }
    }
    (report.kept, report.peak, report.slowest) = (pool.len(), judge.peak, judge.slowest);
    let text = serde_json::to_string(&report).map_err(|e| e.to_string())?;
    std::fs::write(folder.join(REPORT), text).map_err(at)
}

/// Runs a target on one input and says what is wrong with it, if anything is.
pub fn replay(target: &Target, input: &[u8]) -> Result<(), String> {
    catch_panics();
    Judge::new(target).judge(input).map(drop)
}

fn note(file: &File, execution: u64, input: &[u8]) -> io::Result<()> {
    let mut record = Vec::with_capacity(HEAD + input.len());
    record.extend_from_slice(&execution.to_le_bytes());
    record.extend_from_slice(&(input.len() as u64).to_le_bytes());
    record.extend_from_slice(input);
    file.write_all_at(&record, 0)
}

/// Where the last panic was and what it said, for targets whose own code catches panics.
pub fn last_panic() -> String {
    PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn catch_panics() {
    panic::set_hook(Box::new(|info| {
        let text = format!("{info}").replace('\n', " ");
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }));
}

/// A target's check with the bounds that hold for every target.
struct Judge<'a> {
    target: &'a Target,
    check: Check,
    peak: usize,
    slowest: f64,
}

impl<'a> Judge<'a> {
    fn new(target: &'a Target) -> Self {
        Self { target, check: (target.check)(), peak: 0, slowest: 0.0 }
    }

    fn judge(&mut self, input: &[u8]) -> Verdict {
        let begin = processor_seconds();
        // A check that panicked is not used again.
        let check = AssertUnwindSafe(|| (self.check)(input));
        let (outcome, peak) = memory::peak_of(|| panic::catch_unwind(check));
        let seconds = processor_seconds() - begin;
        self.peak = self.peak.max(peak);
        self.slowest = self.slowest.max(seconds);
        let way = match outcome {
            Ok(verdict) => verdict?,
            Err(_) => return Err(last_panic()),
        };
        let allowed = (self.target.memory)(input.len());
        if peak > allowed {
            return Err(format!(
                "allocated {peak} bytes for an input of {}, allowed are {allowed}",
                input.len()
            ));
        }
        if seconds > self.target.seconds {
            return Err(format!(
                "took {seconds:.1} s of processor time, allowed are {} s",
                self.target.seconds
            ));
        }
        Ok(way)
    }
}

/// Processor time of this process so far.
pub fn processor_seconds() -> f64 {
    // The clock exists on every Linux.
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    time.map_or(0.0, |t| t.tv_sec() as f64 + t.tv_nsec() as f64 / 1e9)
}
