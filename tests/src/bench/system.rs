//! What is measured, seen from outside.

use std::{collections::HashMap, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{nursery::Nursery, rival::Rival};
use crate::{processes::Process, receiver::Receiver, slot::Slot};

/// Who listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    Nursery,
    /// ffmpeg writes segments, which a thread per camera converts and scores.
    Segments,
    /// An ffmpeg per camera pipes PCM into one process.
    Pipes,
    /// A pool of processes that a broker feeds.
    Broker,
    /// A pool of processes with queues.
    Queues,
}

impl Which {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Nursery, Self::Segments, Self::Pipes, Self::Broker, Self::Queues];

    /// The word for it, which is the folder of a rival.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nursery => "nursery",
            Self::Segments => "segments",
            Self::Pipes => "pipes",
            Self::Broker => "broker",
            Self::Queues => "queues",
        }
    }
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|which| which.as_str() == text).ok_or_else(|| {
            format!("{text:?} is not known; there are {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// What rivals need.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Rivals {
    /// The Python with what they require.
    pub python: Option<PathBuf>,
    /// The network as ONNX.
    pub onnx: Option<PathBuf>,
    /// The folder that holds theirs; the one of this repository where this is not given.
    pub folder: Option<PathBuf>,
    /// Another threshold than theirs.
    pub threshold: Option<f64>,
}

/// A camera to listen to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Camera {
    pub name: String,
    pub url: String,
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Windows that were scored.
    pub windows: u64,
    /// Windows that were given up.
    pub dropped: u64,
    /// Windows that were scored more than half a second after their last sample, where the system counts them.
    pub late: Option<u64>,
    /// Seconds of audio that were scored.
    pub scored_s: f64,
    /// Processes that died and were replaced.
    pub restarts: u64,
}

/// Somebody who listens.
pub trait System {
    /// The process from which all others come.
    fn root(&self) -> Process;

    /// How many cameras are heard and scored.
    fn live(&self) -> usize;

    /// Why it will not go on, if so.
    fn failed(&mut self) -> Option<String>;

    /// Totals so far; `None` where they cannot be had.
    fn counters(&self) -> Option<Counters>;

    /// Last sample of a window to its scores, milliseconds: p50 and p99 of the newest windows, where the system says so.
    fn window_latency_ms(&self) -> Option<(f64, f64)> {
        None
    }

    /// Roles of processes that it knows by their ids.
    fn roles(&self) -> HashMap<u32, String>;

    /// Ends it.
    fn stop(self: Box<Self>);
}

/// How it is started.
pub struct Setup<'a> {
    pub which: Which,
    pub cameras: &'a [Camera],
    pub receiver: &'a Receiver,
    pub rivals: &'a Rivals,
    /// nursery: with its page.
    pub web: bool,
    /// The right to run it.
    pub slot: &'a Slot,
}

/// Starts it. The error is one line.
pub fn start(setup: &Setup<'_>) -> Result<Box<dyn System>, String> {
    match setup.which {
        Which::Nursery => Ok(Box::new(Nursery::start(setup))),
        rival => Ok(Box::new(Rival::start(rival, setup)?)),
    }
}

/// Roles by process: known ones by their ids, others by the program they run.
pub fn role_of(process: Process, root: Process, known: &HashMap<u32, String>) -> String {
    if let Some(role) = known.get(&process.pid) {
        return role.clone();
    }
    if process == root {
        return "main".into();
    }
    // By the name that it was called by: programs may have several.
    let name = std::fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap_or_default();
    let name = name.trim().to_owned();
    // Of Python's name the version is of no interest.
    match name.strip_prefix("python") {
        Some(_) => "python".into(),
        None => name,
    }
}
