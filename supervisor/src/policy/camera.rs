//! One camera as the policy sees it: its queue of windows, whether it is heard, and what people are told.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use nursery_shared::{
    config::{CameraConfig, Source},
    message::{CapturedWindow, ModelShape, StreamState},
    model_state::ModelState,
    pcm::SAMPLE_RATE,
    status::CameraState,
};

use super::{Time, overload::Strain};

/// Audio that may wait for an inference process; then the oldest window gives way. More than the time in which a
/// process that hangs is found and replaced, so that this alone loses nothing.
const BACKLOG: Duration = Duration::from_secs(6);
/// So much of it where more is heard than can be scored, and has been for a while: what waits longer is not scored in the
/// end all the same, and what is scored is of now.
const SHORT_BACKLOG: Duration = Duration::from_secs(1);
/// Longest gap in a stream after which what the model remembers of it is still of use, whoever hears it then. A room
/// sounds as it did half a minute ago; a model that knows nothing takes whatever it hears first for what is usual there,
/// and where that is crying, may be deaf to it for as long as it lasts.
const LONGEST_GAP_US: u64 = 30_000_000;

/// How many windows of a camera may wait.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Then the oldest gives way, or a recording is held back.
    pub full: usize,
    /// As above, where more is heard of the camera than can be scored.
    pub short: usize,
    /// Below this a recording that was held back goes on.
    pub resume: usize,
    /// Then the oldest of a recording gives way too: each process of it that dies leaves what was on its way.
    pub most: usize,
}

impl QueueLimits {
    /// For the windows of this model.
    pub fn of(model: &ModelShape) -> Self {
        let full = model.windows_in(BACKLOG).max(2);
        let short = model.windows_in(SHORT_BACKLOG).max(2).min(full);
        Self { full, short, resume: full / 2, most: full * 8 }
    }
}

/// A window that waits, or is being scored.
#[derive(Debug)]
pub struct PendingWindow {
    pub id: u64,
    pub window: CapturedWindow,
    /// Which of the sources that the camera had over time it came from.
    pub source: u32,
    /// The inference processes that died with it in hand, and how.
    pub deaths: Vec<String>,
}

/// What the model remembers of a camera's stream, and up to where.
#[derive(Debug)]
pub struct Memory {
    state: ModelState,
    /// Who wrote it, and alone may read it.
    model: Arc<ModelShape>,
    /// What was heard.
    source: u32,
    /// Wall-clock time of the end of the last window it knows.
    end_us: i64,
}

impl Memory {
    /// After the scoring of a window by this model.
    pub fn after(scored: &PendingWindow, state: ModelState, model: &Arc<ModelShape>) -> Self {
        Self { state, model: Arc::clone(model), source: scored.source, end_us: scored.window.end_us }
    }

    /// It is this model's, of the same source, and the window goes on where it ends, or not much later.
    fn serves(&self, next: &PendingWindow, model: &ModelShape) -> bool {
        if self.model.id != model.id || self.source != next.source {
            return false;
        }
        let hop = model.hop;
        let begin_us = next.window.end_us - i64::from(hop) * 1_000_000 / i64::from(SAMPLE_RATE);
        begin_us.abs_diff(self.end_us) <= LONGEST_GAP_US
    }
}

/// State of one camera.
#[derive(Debug)]
pub struct Camera {
    pub config: CameraConfig,
    /// Slot of its capture process.
    pub slot: u32,
    /// A recording that is played as fast as it can be scored: held back instead of dropped.
    pub lossless: bool,
    pub queue: VecDeque<PendingWindow>,
    pub strain: Strain,
    /// Of its last scored window; a window that is being scored may have to be sent again with it.
    pub memory: Option<Memory>,
    /// One of its windows is being scored; another one waits for that, so that scores keep their order.
    pub in_flight: bool,
    /// It stands in the ring of cameras that may be served.
    pub in_ring: bool,
    pub stream: StreamState,
    pub error: Option<String>,
    pub level_dbfs: Option<f64>,
    pub score: Option<f64>,
    /// Its newest window was digital silence.
    pub mute: bool,
    pub windows: u64,
    /// Dropped here.
    pub dropped: u64,
    /// Dropped in the capture process, as it says; and in the processes before it.
    pub dropped_upstream: u64,
    pub dropped_before: u64,
    pub last_audio: Option<Time>,
    /// Last audio, or the moment from which audio is expected.
    pub heard_at: Time,
    /// The sink was told that it is heard / is not heard; `None`: not told anything yet.
    pub told_online: Option<bool>,
    /// Wall-clock end of the newest window.
    pub last_end_us: i64,
    /// It was taken out of the configuration and goes when its last window is scored.
    pub removed: bool,
    /// The end of the recording was passed on.
    pub end_told: bool,
    /// Which of its sources over time it has now, and the last process of the one before.
    source: u32,
    last_of_before: u32,
}

impl Camera {
    /// A camera that was just configured.
    pub fn new(config: CameraConfig, slot: u32, now: Time) -> Self {
        Self {
            lossless: is_lossless(&config),
            config,
            slot,
            queue: VecDeque::new(),
            strain: Strain::default(),
            memory: None,
            in_flight: false,
            in_ring: false,
            stream: StreamState::Connecting,
            error: None,
            level_dbfs: None,
            score: None,
            mute: false,
            windows: 0,
            dropped: 0,
            dropped_upstream: 0,
            dropped_before: 0,
            last_audio: None,
            heard_at: now,
            told_online: None,
            last_end_us: 0,
            removed: false,
            end_told: false,
            source: 0,
            last_of_before: 0,
        }
    }

    /// Takes another configuration; the capture process, now of this generation, is restarted by the caller.
    pub fn reconfigure(&mut self, config: CameraConfig, generation: u32) {
        // Otherwise it is the same room as before, and what is remembered of it holds.
        if self.config.source != config.source {
            // It may be another camera under the old name.
            self.source += 1;
            self.last_of_before = generation;
            self.memory = None;
        }
        self.lossless = is_lossless(&config);
        self.config = config;
        self.stream = StreamState::Connecting;
        self.end_told = false;
    }

    /// The source that a capture process of this generation listens to.
    pub fn source_of(&self, generation: u32) -> u32 {
        if generation > self.last_of_before { self.source } else { self.source.saturating_sub(1) }
    }

    /// When it will have been silent for too long, if that was not said already.
    pub fn offline_deadline(&self, limit: Duration) -> Option<Time> {
        let expected = self.stream != StreamState::Ended && !self.removed && self.told_online != Some(false);
        expected.then(|| self.heard_at + limit)
    }

    /// What this model shall know when it scores this window: the same whenever it is asked again before the window
    /// is scored. Nothing of what another one wrote.
    pub fn state_for(&self, next: &PendingWindow, model: &ModelShape) -> ModelState {
        match &self.memory {
            Some(memory) if memory.serves(next, model) => memory.state.clone(),
            _ => ModelState::fresh(),
        }
    }

    /// Nothing of it waits or is being scored.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.in_flight
    }

    /// The state as people are told.
    pub fn reported_state(&self, worker_running: bool) -> CameraState {
        match self.stream {
            StreamState::Ended => CameraState::Ended,
            _ if self.told_online == Some(false) => CameraState::Offline,
            StreamState::Live if worker_running => CameraState::Live,
            StreamState::Stalled if worker_running => CameraState::Stalled,
            _ => CameraState::Connecting,
        }
    }
}

fn is_lossless(config: &CameraConfig) -> bool {
    !config.realtime && matches!(config.source.parse(), Ok(Source::File(_)))
}
