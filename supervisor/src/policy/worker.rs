//! One worker as the policy sees it: its state, what it owes and until when.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use nursery_shared::{
    cage::Cage,
    message::{ModelShape, Role},
    status::WorkerState,
};

use super::{Time, backoff::Backoff, camera::PendingWindow};

/// From spawn to `Hello`, and from there to `Ready`.
const START_LIMIT: Duration = Duration::from_secs(20);
/// A capture process reports every second in whatever state its camera is.
const CAPTURE_LIMIT: Duration = Duration::from_secs(5);
/// A batch in hand.
const INFER_LIMIT: Duration = Duration::from_secs(4);
/// A sink reports every second; a slow disk is granted more than that.
const SINK_LIMIT: Duration = Duration::from_secs(10);
/// The page's process reports every half second; many requests at once are granted more than that.
const WEB_LIMIT: Duration = Duration::from_secs(5);
/// Who looks at pictures reports every half second; a large picture takes a tenth of that.
const LIGHT_LIMIT: Duration = Duration::from_secs(5);
/// How long a worker that hangs is looked into before it is killed, at the most. From its deadline to its end it
/// shall take no more than a second.
pub(super) const EXAMINATION_LIMIT: Duration = Duration::from_millis(600);
/// From `Drain` to exit.
const DRAIN_LIMIT: Duration = Duration::from_secs(6);

/// What a worker process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Spawned, not ready yet.
    Starting,
    /// Ready.
    Running,
    /// Dead, to be started again at this time.
    Backoff { until: Time },
    /// Told to drain, or killed; its exit is awaited.
    Stopping,
    /// Not running and not wanted.
    Stopped,
}

/// A batch of windows in the hands of an inference process.
#[derive(Debug)]
pub struct Batch {
    pub id: u64,
    /// Camera and window.
    pub windows: Vec<(u32, PendingWindow)>,
    /// The model that scores it, and whose states went with it.
    pub model: Arc<ModelShape>,
}

impl Batch {
    /// A window of it was in the hands of a process that died.
    pub fn is_suspect(&self) -> bool {
        self.windows.iter().any(|(_, pending)| !pending.deaths.is_empty())
    }
}

/// A worker's slot; processes come and go in it, each with its own generation.
#[derive(Debug)]
pub struct Worker {
    pub name: String,
    pub role: Role,
    /// capture: the camera.
    pub camera: Option<u32>,
    pub state: State,
    /// Counts the processes of this slot, so that words from a former one are recognised.
    pub generation: u32,
    pub pid: Option<u32>,
    pub spawned_at: Time,
    pub ready_at: Option<Time>,
    /// Last sign of progress; or since when it owes some.
    pub heard_at: Time,
    pub progress: u64,
    pub progress_at: Option<Time>,
    pub restarts: u64,
    pub last_exit: Option<String>,
    pub backoff: Backoff,
    /// A process should run in this slot.
    pub wanted: bool,
    /// Why it was killed, if it was us.
    pub kill_reason: Option<String>,
    /// When a worker that was told to stop is killed.
    pub stop_deadline: Option<Time>,
    /// It hangs, is being looked into, and is killed at this time if that takes so long.
    pub examined_until: Option<Time>,
    /// infer: what it has in hand, the one that it is scoring first.
    pub batches: VecDeque<Batch>,
    /// infer: microseconds spent with a batch in hand, for sizing the pool.
    pub busy_us: u64,
    /// capture: not read from at present, so it cannot be expected to report.
    pub paused: bool,
    /// capture: the recording came to its end.
    pub ended: bool,
    /// What the process can no longer do.
    pub cage: Option<Cage>,
    /// infer: what the process was told to load, and what it has loaded.
    pub assigned: Option<Arc<ModelShape>>,
    pub loaded: Option<Arc<ModelShape>>,
    /// infer: stands in for others while they are replaced, and goes then.
    pub stand_in: bool,
    /// infer: which edition of the pool its process belongs to.
    pub edition: u32,
    /// infer: it was told to go for a renewal and is not back yet.
    pub renewing: bool,
}

impl Worker {
    /// A slot with nothing in it.
    pub fn new(name: String, role: Role, camera: Option<u32>, seed: u64, now: Time) -> Self {
        Self {
            backoff: Backoff::new(seed, &name),
            name,
            role,
            camera,
            state: State::Stopped,
            generation: 0,
            pid: None,
            spawned_at: now,
            ready_at: None,
            heard_at: now,
            progress: 0,
            progress_at: None,
            restarts: 0,
            last_exit: None,
            wanted: true,
            kill_reason: None,
            stop_deadline: None,
            examined_until: None,
            batches: VecDeque::new(),
            busy_us: 0,
            paused: false,
            ended: false,
            cage: None,
            assigned: None,
            loaded: None,
            stand_in: false,
            edition: 0,
            renewing: false,
        }
    }

    /// A process exists (or is being reaped).
    pub fn is_alive(&self) -> bool {
        matches!(self.state, State::Starting | State::Running | State::Stopping)
    }

    /// Windows in its hands.
    pub fn in_hand(&self) -> u64 {
        self.batches.iter().map(|batch| batch.windows.len() as u64).sum()
    }

    /// When the worker is overdue, if it owes anything.
    pub fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Starting => Some(self.heard_at + START_LIMIT),
            State::Running => match self.role {
                Role::Capture if self.paused => None,
                Role::Capture => Some(self.heard_at + CAPTURE_LIMIT),
                Role::Infer => self.batches.front().map(|_| self.heard_at + INFER_LIMIT),
                Role::Sink => Some(self.heard_at + SINK_LIMIT),
                Role::Web => Some(self.heard_at + WEB_LIMIT),
                Role::Light => Some(self.heard_at + LIGHT_LIMIT),
            },
            State::Stopping => self.examined_until.or(self.stop_deadline),
            State::Backoff { until } => self.wanted.then_some(until),
            State::Stopped => None,
        }
    }

    /// Nothing that it owes is due before `until`.
    pub fn postpone(&mut self, until: Time) {
        let Some(due) = self.deadline().filter(|due| *due < until) else { return };
        match self.state {
            State::Starting | State::Running => self.heard_at = self.heard_at + until.since(due),
            // Whoever is being looked into was judged before.
            State::Stopping if self.examined_until.is_some() => {}
            State::Stopping => self.stop_deadline = Some(until),
            State::Backoff { .. } | State::Stopped => {}
        }
    }

    /// Begins to wait for the exit of a worker that was told to drain.
    pub fn draining(&mut self, now: Time) {
        self.state = State::Stopping;
        self.stop_deadline = Some(now + DRAIN_LIMIT);
    }

    /// The state as people are told.
    pub fn reported_state(&self) -> WorkerState {
        match self.state {
            State::Starting => WorkerState::Starting,
            State::Running => WorkerState::Running,
            State::Backoff { .. } => WorkerState::Backoff,
            State::Stopping => WorkerState::Stopping,
            State::Stopped => WorkerState::Stopped,
        }
    }
}
