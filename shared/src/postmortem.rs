//! Post-mortems: what was known of a worker when it died or was killed, as it is stored, sent and shown. Also what
//! the process that looks into a hung worker writes, line by line.

use serde::{Deserialize, Serialize};

use crate::message::Role;

/// Directory below the state directory in which each is a file, `ID.json`.
pub const DIRECTORY: &str = "postmortems";
/// Files kept; then the oldest goes.
pub const MAX_FILES: usize = 200;
/// Bytes of one as JSON.
pub const MAX_BYTES: usize = 256 << 10;
/// Newest ones that the service keeps in memory, whatever the disk does.
pub const KEPT: usize = 20;
/// Log lines of the worker in one, and bytes of all of them.
pub const LOG_LINES: usize = 50;
/// Bytes of all log lines together.
pub const LOG_BYTES: usize = 32 << 10;
/// Threads in one.
pub const MAX_THREADS: usize = 64;
/// Frames of one thread, those of inlined functions included.
pub const MAX_FRAMES: usize = 128;
/// Characters of a function's, file's or thread's name.
pub const MAX_NAME: usize = 200;

/// Everything about one death.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PostMortem {
    pub id: String,
    /// RFC 3339 UTC, when its exit was seen.
    pub time: String,
    pub version: String,
    /// `capture:NAME`, `infer:N` or `sink`.
    pub worker: String,
    pub role: Role,
    pub camera: Option<String>,
    pub pid: Option<u32>,
    /// Why, in words: `signal 11`, `killed: hung: no progress`.
    pub reason: String,
    pub exit_status: Option<i32>,
    pub signal: Option<i32>,
    /// `SIGSEGV` and so on.
    pub signal_name: Option<String>,
    pub uptime_s: f64,
    /// Processes of this worker before this one.
    pub restarts: u64,
    /// What it had done since its start; capture: samples, infer: windows, sink: records.
    pub progress: u64,
    /// Since the last sign of progress.
    pub silent_s: f64,
    /// Windows in its hands.
    pub owed: Vec<OwedWindow>,
    pub resources: Resources,
    /// The last lines that it wrote, oldest first.
    pub log: Vec<String>,
    /// Only of a worker that was looked into before it was killed.
    pub threads: Vec<Thread>,
    /// What could not be had, and why.
    pub notes: Vec<String>,
}

/// A window in the hands of an inference process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedWindow {
    pub window: u64,
    pub camera: String,
    /// Inference processes that had died with it in hand before.
    pub deaths: u8,
}

/// What the kernel counted. Null: not to be had, since the process was dead when it was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Resources {
    pub rss_bytes: Option<u64>,
    pub peak_rss_bytes: Option<u64>,
    pub cpu_s: Option<f64>,
    pub descriptors: Option<u32>,
    pub threads: Option<u32>,
}

/// One thread of a worker that hung.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Thread {
    pub tid: i32,
    pub name: String,
    /// As in `ps`: R running, S sleeping, D in the kernel and not to be disturbed, T stopped, t traced, Z dead.
    pub state: String,
    /// Function of the kernel in which it waits.
    pub wait_channel: Option<String>,
    /// System call that it is in, by name where that is known, else `syscall NUMBER`.
    pub system_call: Option<String>,
    /// Innermost first.
    #[serde(default)]
    pub stack: Vec<Frame>,
    /// Why there is no stack, or only the beginning of one.
    #[serde(default)]
    pub stack_ends: Option<String>,
}

/// One function on a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    /// File name of the program or library, and the address in it in hex.
    pub module: String,
    pub offset: String,
}

/// One line of what `nursery-worker examine PID` writes, in this order: the process, its threads as the kernel
/// shows them, then their stacks as they become known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    Resources(Resources),
    Thread(Thread),
    Stack { tid: i32, stack: Vec<Frame>, stack_ends: Option<String> },
    Note(String),
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Summary {
    pub time: String,
    pub id: String,
    pub worker: String,
    pub reason: String,
}

impl PostMortem {
    /// Its line in the list.
    pub fn summary(&self) -> Summary {
        Summary {
            time: self.time.clone(),
            id: self.id.clone(),
            worker: self.worker.clone(),
            reason: match &self.signal_name {
                Some(name) if !self.reason.starts_with("killed") => format!("{} ({name})", self.reason),
                _ => self.reason.clone(),
            },
        }
    }

    /// Takes in one thing that was found out about the process while it still ran.
    pub fn add(&mut self, finding: Finding) {
        match finding {
            Finding::Resources(resources) => self.resources = resources,
            Finding::Thread(thread) if self.threads.len() < MAX_THREADS => self.threads.push(thread),
            Finding::Thread(_) => {}
            Finding::Stack { tid, stack, stack_ends } => {
                if let Some(thread) = self.threads.iter_mut().find(|t| t.tid == tid) {
                    (thread.stack, thread.stack_ends) = (stack, stack_ends);
                    thread.stack.truncate(MAX_FRAMES);
                }
            }
            Finding::Note(note) => self.notes.push(note),
        }
    }

    /// As JSON of at most [`MAX_BYTES`]: what is too much goes, stacks of the last threads first, and a note says so.
    pub fn to_bounded_json(&self) -> String {
        let json = |p: &Self| serde_json::to_string(p).unwrap_or_default();
        let text = json(self);
        if text.len() <= MAX_BYTES {
            return text;
        }
        let mut less = self.clone();
        less.notes.truncate(10);
        less.notes.push(format!("cut, since it was longer than {} KiB", MAX_BYTES >> 10));
        // Halved again and again: whoever calls this has little time.
        let mut stacks = less.threads.len();
        while stacks > 0 {
            stacks /= 2;
            less.threads.iter_mut().skip(stacks).for_each(|thread| thread.stack.clear());
            let text = json(&less);
            if text.len() <= MAX_BYTES {
                return text;
            }
        }
        less.threads.clear();
        less.log.clear();
        less.owed.truncate(100);
        json(&less)
    }
}

/// True for what can be the name of a post-mortem, and therefore of a file; nothing that leads out of a directory.
pub fn is_id(text: &str) -> bool {
    (1..=80).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The name of a post-mortem: when, what, and something that makes it unique.
pub fn id(wall_us: i64, role: Role, unique: u16) -> String {
    // 2026-01-31T02:03:04.500Z
    let time = crate::timestamp::rfc3339(wall_us);
    let digits: String = time.chars().take(19).filter(char::is_ascii_digit).collect();
    let (day, clock) = digits.split_at(digits.len().min(8));
    format!("{day}-{clock}-{}-{unique:04x}", role.as_str())
}

/// At most `most` characters of a text, none of which moves a terminal's cursor.
pub fn clean(text: &str, most: usize) -> String {
    let mut clean: String =
        text.chars().take(most).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn example() -> PostMortem {
        PostMortem {
            id: id(1_769_824_984_500_000, Role::Infer, 0x3f),
            time: crate::timestamp::rfc3339(1_769_824_984_500_000),
            version: "1".into(),
            worker: "infer:0".into(),
            role: Role::Infer,
            camera: None,
            pid: Some(7),
            reason: "signal 11".into(),
            exit_status: None,
            signal: Some(11),
            signal_name: Some("SIGSEGV".into()),
            uptime_s: 1.0,
            restarts: 0,
            progress: 0,
            silent_s: 0.5,
            owed: Vec::new(),
            resources: Resources::default(),
            log: Vec::new(),
            threads: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn an_id_says_when_and_what_and_is_a_safe_file_name() {
        assert_eq!(example().id, "20260131-020304-infer-003f");
        assert!(is_id(&example().id));
        for bad in ["", "..", "a/b", "../x", "a\0", &"x".repeat(81)] {
            assert!(!is_id(bad), "{bad}");
        }
        assert_eq!(example().summary().reason, "signal 11 (SIGSEGV)");
    }

    #[test]
    fn findings_of_any_number_and_size_fit_the_bound_and_the_rest_is_kept() {
        let mut p = example();
        let frame = Frame {
            function: Some("\"".repeat(MAX_NAME)),
            file: Some("\\".repeat(MAX_NAME)),
            line: Some(u32::MAX),
            module: "m".repeat(MAX_NAME),
            offset: "0x0".into(),
        };
        for tid in 0..1000 {
            p.add(Finding::Thread(Thread { tid, name: "t".into(), ..Thread::default() }));
            p.add(Finding::Stack { tid, stack: vec![frame.clone(); 1000], stack_ends: None });
        }
        p.log = vec!["line".into(); LOG_LINES];
        let json = p.to_bounded_json();
        assert!(json.len() <= MAX_BYTES, "{}", json.len());
        let back: PostMortem = serde_json::from_str(&json).unwrap();
        assert_eq!((back.threads.len(), back.log.len()), (MAX_THREADS, LOG_LINES));
        assert_eq!(back.threads[0].stack.len(), MAX_FRAMES);
        assert!(back.threads[63].stack.is_empty() && back.notes[0].contains("256 KiB"));
        let lines = vec!["\u{1}".repeat(LOG_BYTES); LOG_LINES];
        p.log = lines;
        assert!(p.to_bounded_json().len() <= MAX_BYTES);
        assert_eq!(serde_json::from_str::<PostMortem>(&example().to_bounded_json()).unwrap(), example());
    }
}
