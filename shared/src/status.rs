//! The document of `nursery status --json`, which people script against.

use serde::{Deserialize, Serialize};

/// All of `nursery status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub uptime_s: f64,
    pub pid: u32,
    pub workers: Vec<WorkerStatus>,
    pub cameras: Vec<CameraStatus>,
    pub inference: InferenceStatus,
    pub alerts: AlertStatus,
}

/// State of a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    Starting,
    Running,
    Backoff,
    Stopping,
    Stopped,
}

/// One worker. `pid` and the figures that the kernel keeps are null while no process runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub name: String,
    pub role: crate::message::Role,
    pub pid: Option<u32>,
    pub state: WorkerState,
    pub uptime_s: f64,
    pub restarts: u64,
    pub last_exit: Option<String>,
    pub progress: u64,
    pub progress_age_s: Option<f64>,
    pub rss_bytes: u64,
    pub cpu_s: f64,
    /// What its process can no longer do; null until it has said so.
    pub cage: Option<crate::cage::Cage>,
}

/// State of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CameraState {
    Connecting,
    Live,
    Stalled,
    Offline,
    Ended,
}

/// One camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameraStatus {
    pub name: String,
    pub state: CameraState,
    pub level_dbfs: Option<f64>,
    /// Highest probability of the newest scored window.
    pub score: Option<f64>,
    /// Windows that reached the supervisor since it started.
    pub windows: u64,
    /// Windows that were given up because nobody could score them in time.
    pub dropped: u64,
    pub last_audio_age_s: Option<f64>,
    pub last_error: Option<String>,
    /// Pictures are made of it.
    pub pictures: bool,
    /// How much of the newest picture is different from the one before, 0 to 1; null where none are looked at.
    pub motion: Option<f64>,
}

/// The pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InferenceStatus {
    pub workers: u32,
    pub model: ModelStatus,
    /// How the pool's size follows the load; null where the size is fixed.
    pub auto: Option<AutoStatus>,
    pub queued: u64,
    pub in_flight: u64,
    pub scored: u64,
    pub quarantined: u64,
    pub latency_ms: Latency,
}

/// The model that scores.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ModelStatus {
    /// Name, version and hash of the weights.
    pub id: String,
    /// Null: the one inside `nursery-worker`.
    pub file: Option<String>,
    /// The model that the pool is going over to.
    pub next: Option<String>,
    /// Why the newest one that was tried is not the one that scores.
    pub refused: Option<String>,
}

/// A pool that follows the load.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AutoStatus {
    pub min: u32,
    pub max: u32,
    pub last_change: Option<SizeChange>,
}

/// One step of a pool that follows the load.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SizeChange {
    pub at: String,
    pub from: u32,
    pub to: u32,
    pub why: String,
}

/// From the arrival of a window's last sample at the capture process to its scores at the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

/// Alert deliveries.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AlertStatus {
    pub pending: u64,
    pub delivered: u64,
    pub failing_since: Option<String>,
}
