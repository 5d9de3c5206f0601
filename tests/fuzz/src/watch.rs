//! Watches the process that runs a target: notices when it breaks a promise, dies or hangs, writes the input that did
//! it to a file, and starts another process until the budget is spent.

use std::{
    fs::File,
    io::Read,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::{
    child::{Budget, HEAD, IN_HAND, REPORT, Report},
    target::{Target, way},
};

/// An execution that takes longer than this hangs, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked at the child.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Findings after which a target is left alone.
const ENOUGH: usize = 5;

/// What came of a target.
#[derive(Default)]
pub struct Outcome {
    pub executions: u64,
    pub seconds: f64,
    pub kept: usize,
    pub peak: usize,
    pub slowest: f64,
    pub findings: Vec<Finding>,
}

/// An input that broke a promise.
pub struct Finding {
    pub what: String,
    pub file: PathBuf,
}

/// How targets are run.
pub struct Plan {
    pub seed: u64,
    pub budget: Budget,
    /// Where findings are written to.
    pub findings: PathBuf,
    /// See [`PATIENCE`].
    pub patience: Duration,
}

impl Plan {
    pub fn new(seed: u64, budget: Budget, findings: PathBuf) -> Self {
        Self { seed, budget, findings, patience: PATIENCE }
    }
}

/// Runs a target as planned; the error is one of ours, not of what is fuzzed.
pub fn run(target: &Target, plan: &Plan) -> Result<Outcome, String> {
    let work = Folder::new(target.name)?;
    let mut outcome = Outcome::default();
    let since = Instant::now();
    let mut seed = plan.seed;
    loop {
        let left = Budget {
            executions: plan.budget.executions.map(|n| n.saturating_sub(outcome.executions)),
            time: plan.budget.time.map(|t| t.saturating_sub(since.elapsed())),
        };
        if left.executions == Some(0) || left.time == Some(Duration::ZERO) || outcome.findings.len() >= ENOUGH
        {
            break;
        }
        let (report, finding) = one_child(target, seed, left, plan.patience, &work.0)?;
        outcome.executions += report.executions;
        outcome.kept = outcome.kept.max(report.kept);
        outcome.peak = outcome.peak.max(report.peak);
        outcome.slowest = outcome.slowest.max(report.slowest);
        let Some((what, input)) = finding else { break };
        let file = write_finding(&plan.findings, target, &input)?;
        let sample = report.executions <= 1;
        outcome.findings.push(Finding { what, file });
        if sample {
            // Every other process would begin with it too.
            break;
        }
        seed = seed.wrapping_add(1);
    }
    outcome.seconds = since.elapsed().as_secs_f64();
    Ok(outcome)
}

type Found = Option<(String, Vec<u8>)>;

fn one_child(
    target: &Target,
    seed: u64,
    budget: Budget,
    patience: Duration,
    folder: &Path,
) -> Result<(Report, Found), String> {
    let report = folder.join(REPORT);
    // Not there at the first time.
    let _ = std::fs::remove_file(&report);
    let at = |e: std::io::Error| format!("{}: {e}", folder.display());
    let words = folder.join("stderr");
    let this = std::env::current_exe().map_err(|e| format!("this program cannot be found: {e}"))?;
    let mut command = Command::new(this);
    command.args(["child", target.name, "--seed", &seed.to_string(), "--folder"]).arg(folder);
    if let Some(executions) = budget.executions {
        command.args(["--executions", &executions.to_string()]);
    }
    if let Some(time) = budget.time {
        command.args(["--seconds", &time.as_secs_f64().to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&words).map_err(at)?);
    let child = command.spawn().map_err(|e| format!("{}: cannot be started: {e}", target.name))?;
    let status = wait(child, &folder.join(IN_HAND), patience).map_err(at)?;
    if let Ok(text) = std::fs::read_to_string(&report) {
        let mut report: Report = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let finding = report.finding.take();
        let input = in_hand(folder).map(|(_, input)| input);
        return Ok((report, finding.zip(input)));
    }
    let Some((executions, input)) = in_hand(folder) else {
        let words = std::fs::read_to_string(&words).unwrap_or_default();
        return Err(format!("{}: its process ended before the first input: {}", target.name, words.trim()));
    };
    let what = match status {
        None => format!("hangs: not done after {} s", patience.as_secs()),
        Some(status) => {
            let words = std::fs::read_to_string(&words).unwrap_or_default();
            let first = words.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
            match status.signal() {
                Some(signal) => format!("the process died of signal {signal}: {first}"),
                None => format!("the process ended with {status}: {first}"),
            }
        }
    };
    Ok((Report { executions, ..Report::default() }, Some((what, input))))
}

/// Waits for the child; kills it and returns `None` when it has been at one input for too long.
fn wait(mut child: Child, in_hand: &Path, patience: Duration) -> std::io::Result<Option<ExitStatus>> {
    let mut last = (0, Instant::now());
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let now = execution(in_hand);
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn execution(in_hand: &Path) -> u64 {
    let mut number = [0; 8];
    match File::open(in_hand).and_then(|mut file| file.read_exact(&mut number)) {
        Ok(()) => u64::from_le_bytes(number),
        Err(_) => 0,
    }
}

/// The number of the execution and its input, as the child wrote them last.
fn in_hand(folder: &Path) -> Option<(u64, Vec<u8>)> {
    let bytes = std::fs::read(folder.join(IN_HAND)).ok()?;
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let number = |at: usize| head[at..at + 8].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    let length = usize::try_from(number(8)).ok()?;
    Some((number(0), rest.get(..length)?.to_vec()))
}

fn write_finding(folder: &Path, target: &Target, input: &[u8]) -> Result<PathBuf, String> {
    let file = folder.join(format!("{}-{:016x}", target.name, way(input)));
    let write = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, input));
    write.map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(file)
}

/// A folder for one run, removed at its end; in memory where the host has such a place, since every input is written
/// there.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self, String> {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = base.join(format!("nursery-fuzz-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is a few inputs in the host's temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
