//! The one log: every line, ours and the workers', goes into a bounded ring for `nursery logs` and, through a
//! bounded queue and a thread of its own, to standard error. A reader of standard error that stands still
//! costs lines, never the service's time.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use nursery_shared::{
    postmortem::{LOG_BYTES, LOG_LINES},
    timestamp,
};
use tracing_subscriber::fmt::{MakeWriter, format::Writer, time::FormatTime};

/// Lines kept for `nursery logs`.
const KEPT: usize = 10_000;
/// Bytes of all of them: many short ones, or fewer of those that a worker wrote which has much to say.
const KEPT_BYTES: usize = 4 << 20;
/// Lines that may wait for standard error.
const QUEUED: usize = 4096;
/// Longest line; more of it is cut.
pub const MAX_LINE: usize = 4096;

/// The kept lines; the oldest has sequence number `first`.
#[derive(Default)]
struct Ring {
    lines: VecDeque<String>,
    first: u64,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.len();
            self.first += 1;
        }
    }
}

/// A handle on the log; clones share it.
#[derive(Clone)]
pub struct Logs {
    ring: Arc<Mutex<Ring>>,
    stderr: Option<SyncSender<Item>>,
    lost: Arc<AtomicU64>,
}

/// What the writing thread is given.
enum Item {
    Line(String),
    /// Everything before this is written.
    Flush(SyncSender<()>),
}

/// Starts the log and makes it the one that `tracing` writes to.
pub fn start(to_stderr: bool) -> io::Result<Logs> {
    let lost = Arc::new(AtomicU64::new(0));
    let mut stderr = None;
    if to_stderr {
        let (sender, receiver) = sync_channel(QUEUED);
        let lost = Arc::clone(&lost);
        std::thread::Builder::new().name("log-writer".into()).spawn(move || write_lines(&receiver, &lost))?;
        stderr = Some(sender);
    }
    let logs = Logs { ring: Arc::default(), stderr, lost };
    let subscriber = tracing_subscriber::fmt()
        .with_timer(Rfc3339)
        .with_target(false)
        .with_ansi(false)
        .with_writer(logs.clone())
        .finish();
    // A second service in one process would keep the first one's log; there is none.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(logs)
}

fn write_lines(receiver: &Receiver<Item>, lost: &AtomicU64) {
    for item in receiver {
        let line = match item {
            Item::Line(line) => line,
            Item::Flush(done) => {
                // Whoever asked may have stopped waiting.
                let _ = done.try_send(());
                continue;
            }
        };
        let missing = lost.swap(0, Ordering::Relaxed);
        let mut stderr = io::stderr().lock();
        if missing > 0 {
            let _ = writeln!(stderr, "({missing} log lines lost: standard error was not read in time)");
        }
        let _ = stderr.write_all(line.as_bytes());
    }
}

impl Logs {
    /// Waits, for a moment, until everything logged so far is written.
    pub fn flush(&self) {
        let (sender, done) = sync_channel(1);
        if let Some(stderr) = &self.stderr
            && stderr.try_send(Item::Flush(sender)).is_ok()
        {
            // Nobody reads standard error: its last lines are lost with this process.
            let _ = done.recv_timeout(Duration::from_millis(500));
        }
    }

    fn push(&self, line: &str) {
        if let Some(stderr) = &self.stderr
            && let Err(TrySendError::Full(_)) = stderr.try_send(Item::Line(line.to_owned()))
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.push(line.trim_end().to_owned());
    }

    /// Sequence number of the next line.
    pub fn end(&self) -> u64 {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.first + ring.lines.len() as u64
    }

    /// Up to `most` kept lines from sequence number `from` on that concern `name` (or all), the number of
    /// lines that are no longer kept, and where to go on.
    pub fn read(&self, from: u64, name: Option<&str>, most: usize) -> (Vec<String>, u64, u64) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let start = from.max(ring.first);
        let wanted = name.map(|n| (format!(" {n}: "), format!(" capture:{n}: ")));
        let concerns = |line: &str| {
            // The name stands right after time and level.
            let head = line.get(..line.len().min(120)).unwrap_or(line);
            wanted.as_ref().is_none_or(|(a, b)| head.contains(a) || head.contains(b))
        };
        let (mut lines, mut next) = (Vec::new(), start);
        for line in ring.lines.iter().skip((start - ring.first) as usize) {
            if lines.len() >= most {
                break;
            }
            next += 1;
            if concerns(line) {
                lines.push(line.clone());
            }
        }
        (lines, start - from, next)
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = LineWriter;
    fn make_writer(&'a self) -> LineWriter {
        LineWriter { logs: self.clone(), line: Vec::new() }
    }
}

/// Collects one formatted event and hands it over when dropped.
pub struct LineWriter {
    logs: Logs,
    line: Vec<u8>,
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        self.logs.push(&String::from_utf8_lossy(&self.line));
    }
}

struct Rfc3339;

impl FormatTime for Rfc3339 {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        w.write_str(&nursery_shared::timestamp::rfc3339(nursery_shared::timestamp::now_us()))
    }
}

/// Puts a worker's output together into lines, cuts long ones, and holds back a worker that floods the log.
pub struct Lines {
    name: String,
    partial: Vec<u8>,
    overlong: bool,
    second: u64,
    in_second: u32,
    suppressed: u64,
    /// The newest lines, for a post-mortem.
    recent: VecDeque<String>,
    recent_bytes: usize,
}

/// Lines that one worker may write in a second.
const PER_SECOND: u32 = 100;

impl Lines {
    /// Whose lines these are.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn new(name: String) -> Self {
        Self {
            name,
            partial: Vec::new(),
            overlong: false,
            second: 0,
            in_second: 0,
            suppressed: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
        }
    }

    /// The newest lines, oldest first, each with its time.
    pub fn into_recent(self) -> Vec<String> {
        self.recent.into()
    }

    fn remember(&mut self, text: &str) {
        let line = format!("{} {text}", timestamp::rfc3339(timestamp::now_us()));
        self.recent_bytes += line.len();
        self.recent.push_back(line);
        while self.recent.len() > LOG_LINES || self.recent_bytes > LOG_BYTES {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.len();
        }
    }

    /// Takes output in at `now_us` and logs the lines that became complete.
    pub fn feed(&mut self, bytes: &[u8], now_us: u64) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end(now_us),
                _ if self.partial.len() < MAX_LINE => self.partial.push(byte),
                _ => self.overlong = true,
            }
        }
    }

    /// Logs what is left, when the worker is gone.
    pub fn finish(&mut self, now_us: u64) {
        if !self.partial.is_empty() {
            self.end(now_us);
        }
        self.admit(now_us + 1_000_000);
    }

    fn admit(&mut self, now_us: u64) -> bool {
        let second = now_us / 1_000_000;
        if second != self.second {
            self.second = second;
            self.in_second = 0;
            let suppressed = std::mem::take(&mut self.suppressed);
            if suppressed > 0 {
                tracing::warn!("{}: ({suppressed} lines suppressed)", self.name);
            }
        }
        self.in_second += 1;
        self.suppressed += u64::from(self.in_second > PER_SECOND);
        self.in_second <= PER_SECOND
    }

    fn end(&mut self, now_us: u64) {
        let bytes = std::mem::take(&mut self.partial);
        let overlong = std::mem::take(&mut self.overlong);
        if !self.admit(now_us) {
            return;
        }
        // Control characters of a hostile stream must not reach the operator's terminal.
        let text: String = String::from_utf8_lossy(&bytes)
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        let cut = if overlong { " …" } else { "" };
        self.remember(&format!("{text}{cut}"));
        let (level, rest) = text.split_once(' ').unwrap_or((text, ""));
        let name = &self.name;
        match level {
            "ERROR" => tracing::error!("{name}: {}{cut}", rest.trim_start()),
            "WARN" => tracing::warn!("{name}: {}{cut}", rest.trim_start()),
            "INFO" => tracing::info!("{name}: {}{cut}", rest.trim_start()),
            // The worker was asked for these; the level says so.
            "DEBUG" | "TRACE" => tracing::info!("{name}: {text}{cut}"),
            _ => tracing::warn!("{name}: {text}{cut}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_log_keeps_the_newest_lines_within_its_bounds_however_long_they_are() {
        for length in [1, 10, 100, MAX_LINE] {
            let logs = Logs { ring: Arc::default(), stderr: None, lost: Arc::default() };
            let count = 3 * KEPT as u64;
            for n in 0..count {
                logs.push(&format!("{n} {}", "x".repeat(length)));
            }
            let (lines, lost, next) = logs.read(0, None, usize::MAX);
            assert!(lines.len() <= KEPT && lines.iter().map(String::len).sum::<usize>() <= KEPT_BYTES);
            assert_eq!((lost + lines.len() as u64, next, logs.end()), (count, count, count));
            assert!(lines.last().unwrap().starts_with(&format!("{} ", count - 1)));
            assert!(lines[0].starts_with(&format!("{lost} ")), "{length}: {lost} lost");
            if length <= 100 {
                assert_eq!(lines.len(), KEPT);
            }
        }
    }

    #[test]
    fn a_worker_that_babbles_gets_a_hundred_lines_a_second_and_none_longer_than_allowed() {
        let mut lines = Lines::new("capture:a".into());
        let mut seen = 0;
        for n in 0..1000 {
            lines.feed("x".repeat(3 * MAX_LINE).as_bytes(), n);
            assert!(lines.partial.len() <= MAX_LINE);
            lines.feed(b"\n", n);
            seen += 1;
        }
        assert_eq!((lines.suppressed, seen), (1000 - u64::from(PER_SECOND), 1000));
        let recent = lines.into_recent();
        assert!(recent.len() <= LOG_LINES && recent.iter().map(String::len).sum::<usize>() <= LOG_BYTES);
    }
}
