//! What the supervisor and its workers say to each other. One socket pair per worker, descriptor
//! [`WORKER_FD`] in the worker; the worker speaks first ([`FromWorker::Hello`]), the supervisor answers with
//! the role's configuration, and from then on both speak as they must.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    cage::Cage,
    clip::Found,
    config::{AlertConfig, CameraConfig, ClipsConfig, DetectionConfig, WebConfig},
    history::{Answer, Question},
    light::{Found as FoundPicture, LightCamera, Wanted},
    media::ClipReport,
    model_state::ModelState,
    pcm::{Pcm, SAMPLE_RATE},
    secret::Secret,
    status::Status,
};

/// Raised whenever a message changes its shape.
pub const PROTOCOL: u32 = 13;

/// The descriptor on which a worker finds its socket.
pub const WORKER_FD: i32 = 3;

/// How often a worker reports progress from its working loop, at the least.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// More scores per window than any model gives.
pub const MAX_SCORES: usize = 4096;

/// What a worker process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Capture,
    Infer,
    Sink,
    Web,
    Light,
}

impl Role {
    /// The word for it on command lines, in names and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Capture => "capture",
            Role::Infer => "infer",
            Role::Sink => "sink",
            Role::Web => "web",
            Role::Light => "light",
        }
    }
}

/// The figures of a model that other roles need: how to cut windows and what a score's place in time is.
/// The probability of frame `k` of a window whose last sample ends at `t` belongs to
/// `t - (lookahead + hop) / rate + k * frame_step / rate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelShape {
    /// Name, version and hash of the weights.
    pub id: String,
    /// Samples of one window.
    pub window: u32,
    /// Samples between the ends of two windows.
    pub hop: u32,
    /// Samples by which the scores lag behind the window that brings them.
    pub lookahead: u32,
    /// Samples per score.
    pub frame_step: u32,
    /// Bytes of a stream's state after a window.
    pub state_bytes: u32,
}

impl ModelShape {
    /// How many windows this much audio makes, at least one: bounds on waiting windows are meant in seconds.
    pub fn windows_in(&self, audio: Duration) -> usize {
        let samples = audio.as_millis() * u128::from(SAMPLE_RATE) / 1000;
        usize::try_from(samples.div_ceil(u128::from(self.hop.max(1)))).unwrap_or(usize::MAX).max(1)
    }

    /// Scores of one window.
    pub fn scores_per_window(&self) -> usize {
        self.hop.div_ceil(self.frame_step.max(1)) as usize
    }
}

/// Everything that a worker tells the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// First message on the socket.
    Hello { protocol: u32, version: String, role: Role },
    /// Configured and able to work.
    Ready,
    /// From the working loop itself, at least every [`PROGRESS_INTERVAL`]: how much was done since the start
    /// (capture: samples heard; infer: windows scored; sink: records handled; web: rounds of its loop, two a second; light: pictures looked at).
    Progress { done: u64 },
    /// capture: what the camera is doing now.
    Camera(CameraReport),
    /// capture: a window.
    Window(CapturedWindow),
    /// infer: the scores of a batch, all of it or nothing.
    Scores { batch: u64, windows: Vec<WindowScores> },
    /// sink: every record up to and including this sequence number is stored, or needed no storing.
    Ack { up_to: u64 },
    /// sink: state of the deliveries.
    Deliveries(DeliveryReport),
    /// sink: an event was stored; `json` is the body that receivers get. At most once, for people to look at:
    /// receivers are served by the sink itself.
    Event { json: String },
    /// What this process can no longer do. Once, before [`FromWorker::Ready`] and before it touches anything foreign.
    Caged(Cage),
    /// infer: the model that it has loaded, whatever its file held when it was asked for. Once, before
    /// [`FromWorker::Ready`].
    Loaded(ModelShape),
    /// web: somebody wants to see the state; answered once, with the newest.
    WantStatus,
    /// web: a question about what is stored, or an answer of somebody who looked. One at a time is answered; the newest of those that wait takes the place of
    /// the others.
    Question { ticket: u64, question: Question },
    /// sink: what the store holds about the question of this number.
    History { number: u64, answer: Answer },
    /// web, light: somebody wants to hear or see a camera. Answered by [`ToWorker::MediaOf`].
    WantMedia { ticket: u64, camera: String },
    /// sink: a camera's capture process shall keep its media from this time on (microseconds since 1970) in a file of
    /// so many bytes at the most. Comes with its descriptor, see [`ToWorker::OpenClip`]. Answered by
    /// [`ToWorker::ClipClosed`] in any case, at the latest when the capture process is gone.
    OpenClip { clip: i64, camera: String, from_us: i64, max_bytes: u64 },
    /// sink: and end there.
    CloseClip { clip: i64, camera: String, until_us: i64 },
    /// capture: the file of a clip is complete, and nothing more will be written to it.
    ClipClosed { clip: i64, report: ClipReport },
    /// web: somebody wants the clip of an event. One at a time is answered; the newest of those that wait takes the place
    /// of the others.
    WantClip { ticket: u64, event_id: String },
    /// sink: what there is of the event that was asked for under this number; with the descriptor of its file.
    ClipOf { number: u64, found: Found },
    /// light: begins to look at a picture of this camera. What it dies of before it says [`FromWorker::Looked`] is that
    /// picture's doing.
    Looking { camera: String },
    /// light: has looked at it, and how much of it is different from the one before (0 to 1), where that is known.
    Looked { camera: String, motion: Option<f32> },
    /// web, sink: somebody wants a picture. Answered by [`ToWorker::PictureOf`], where nothing newer is wanted.
    WantPicture { ticket: u64, wanted: Wanted },
    /// light: the picture that was asked for under this number.
    PictureOf { number: u64, found: FoundPicture },
}

/// Everything that the supervisor tells a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// capture: whom to listen to and how to cut windows. It remembers the encoded media of the last `remember_s` seconds
    /// for clips; 0: there are none.
    ConfigureCapture { camera: CameraConfig, model: ModelShape, remember_s: u32 },
    /// infer: which model (`None`: the embedded one).
    ConfigureInfer { model: Option<String>, threads: u32 },
    /// sink: where to store, whom to tell, what counts as an event. May come again at a reload.
    ConfigureSink(SinkConfig),
    /// infer: windows to score, each of another camera.
    Batch { batch: u64, windows: Vec<WindowJob> },
    /// sink: something to handle; sequence numbers rise by one and start anew with each supervisor.
    /// After a sink was replaced, everything that was not acknowledged is sent again.
    Record { seq: u64, record: Record },
    /// sink: all cameras are heard and scored: say so to whoever waits for it. Sent every minute while it is true and
    /// [`SinkConfig::heartbeat`] is there.
    Heartbeat,
    /// Finish what is in hand, then exit with status 0. The socket stays open until then.
    Drain,
    /// web: where to listen, and who may look.
    ConfigureWeb(WebConfig),
    /// web: the state now. Sent when it was asked for, some times a second at the most.
    Status(Box<Status>),
    /// web: an event was stored; whoever wants it asks for it.
    Stored,
    /// sink: a question about what is stored, to be answered when there is nothing to store. A newer one takes its place.
    Question { number: u64, question: Question },
    /// web: the answer to its question.
    History { ticket: u64, answer: Answer },
    /// capture: somebody wants the media ([`crate::media`]). Comes with the descriptor of a stream socket.
    Media { operator: bool },
    /// web, light: what it wanted. Comes with the descriptor of a stream socket where nothing speaks against it.
    MediaOf { ticket: u64, why_not: Option<String> },
    /// capture: to remember so much of the media from now on, for clips.
    Remember { seconds: u32 },
    /// capture: to write media into a file, from this time on as far as it is still there, until it is told where to end
    /// or has written `max_bytes`. Comes with the descriptor of the file, empty and open for reading and writing.
    OpenClip { clip: i64, from_us: i64, max_bytes: u64 },
    /// capture: to end a clip at this time, or now where that is past.
    CloseClip { clip: i64, until_us: i64 },
    /// sink: what became of a clip.
    ClipClosed { clip: i64, report: ClipReport },
    /// sink: somebody wants the clip of an event, when there is nothing to store.
    WantClip { number: u64, event_id: String },
    /// web: what there is of it; with the descriptor of its file.
    ClipOf { ticket: u64, found: Found },
    /// light: of which cameras to make pictures. May come again at any time.
    ConfigureLight(Vec<LightCamera>),
    /// light: somebody wants a picture.
    WantPicture { number: u64, wanted: Wanted },
    /// web, sink: what there is of it.
    PictureOf { ticket: u64, found: FoundPicture },
}

impl FromWorker {
    /// An open file or socket comes with it.
    pub fn brings_descriptor(&self) -> bool {
        matches!(self, Self::OpenClip { .. } | Self::ClipOf { found: Found::Clip(_), .. })
    }
}

impl ToWorker {
    /// An open file or socket comes with it.
    pub fn brings_descriptor(&self) -> bool {
        matches!(
            self,
            Self::Media { .. }
                | Self::MediaOf { why_not: None, .. }
                | Self::OpenClip { .. }
                | Self::ClipOf { found: Found::Clip(_), .. }
        )
    }
}

/// State of a camera's stream, as its capture process sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamState {
    /// No audio yet, or again none: connecting, or waiting before the next attempt.
    Connecting,
    /// Audio arrives.
    Live,
    /// Connected, but nothing arrives.
    Stalled,
    /// A recording came to its end. The capture process exits with status 0 after saying so.
    Ended,
}

/// What a capture process knows of its camera. Sent at every change, and with every progress report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameraReport {
    pub state: StreamState,
    /// Why there is no audio, in words that tell the operator what to do; stays after recovery only as a log
    /// line, here `None` once live. Holds no secret.
    pub error: Option<String>,
    /// Level of the last second or so; `None` before the first sample. Never NaN; digital silence is -120.
    pub level_dbfs: Option<f32>,
    /// Monotonic time ([`crate::timestamp::monotonic_us`]) at which the last audio arrived that was more than digital
    /// silence.
    pub last_audio_us: Option<u64>,
    /// Windows that were dropped inside the capture process because the supervisor did not take them.
    pub dropped: u64,
    /// Packets or frames that could not be decoded since the start.
    pub corrupt: u64,
    /// Connections that were made since the start.
    pub connects: u64,
}

/// One window of a camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CapturedWindow {
    /// Wall-clock time of the end of the last sample, microseconds since 1970.
    pub end_us: i64,
    /// Monotonic time at which the last sample arrived at the capture process.
    pub arrived_us: u64,
    /// Level of the newest hop.
    pub level_dbfs: f32,
    /// Digital silence from beginning to end, as no microphone that is switched on sends it.
    pub mute: bool,
    /// Exactly the model's window.
    pub pcm: Pcm,
}

/// A window on its way to an inference process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowJob {
    pub id: u64,
    /// What the model remembers of the stream up to here.
    pub state: ModelState,
    pub pcm: Pcm,
}

/// The scores of one window: one probability per frame of its newest hop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowScores {
    pub id: u64,
    pub scores: Vec<f32>,
    /// What the model remembers of the stream after this window; goes with the stream's next one.
    pub state: ModelState,
}

/// Something that the sink handles for a camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name, or all their names.
    pub camera: String,
    pub what: RecordKind,
}

impl Record {
    /// What several cameras are called together. Names have no commas.
    pub fn name_of(cameras: &[&str]) -> String {
        cameras.join(TOGETHER)
    }

    /// The cameras that are called so together.
    pub fn cameras_in(name: &str) -> impl Iterator<Item = &str> {
        name.split(TOGETHER)
    }
}

const TOGETHER: &str = ", ";

/// Kinds of records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RecordKind {
    /// Probabilities of crying; the first belongs to `start_us`, the next to `step_us` later.
    Scores {
        start_us: i64,
        step_us: u32,
        values: Vec<f32>,
        level_dbfs: f32,
        /// Monotonic time of arrival of the window's last sample, for measuring the whole way.
        arrived_us: u64,
    },
    /// These cameras have not been heard for longer than allowed; those lost at about the same time are told together.
    Offline(Vec<Lost>),
    /// The camera is heard. Sent at the first audio after the start and after every `Offline`; announced only
    /// where the store says that it was offline.
    Online { at_us: i64 },
    /// A recording came to its end, or the camera was taken out of the configuration: an open event ends.
    Ended { at_us: i64 },
    /// A window cost so many inference processes that it is not sent to another: kept for study.
    SetAside(SetAside),
    /// More is heard than is scored; of these cameras, most of all.
    Overloaded(Overload),
    /// All that is heard is scored. Sent once after the start, and after every `Overloaded`; announced only where the store
    /// says that there was one.
    Relieved { at_us: i64 },
    /// How much of a camera's picture was different from the one before, 0 to 1; only where that may be an event.
    Motion { at_us: i64, motion: f32 },
}

/// A camera that is not heard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    pub camera: String,
    /// Wall-clock time from which it was not heard, microseconds since 1970.
    pub since_us: i64,
    pub reason: String,
}

/// Windows that nobody got to score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overload {
    /// Wall-clock time of its beginning, microseconds since 1970.
    pub since_us: i64,
    /// Their share of all windows, of late.
    pub dropped: f32,
    pub reason: String,
}

/// A window that was set aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetAside {
    /// Number of the window.
    pub window: u64,
    /// Wall-clock time of the end of its last sample, microseconds since 1970.
    pub end_us: i64,
    pub pcm: Pcm,
    /// What the model remembered of the stream before it.
    pub state: ModelState,
    /// The processes that died with it in hand, and how, first to last.
    pub deaths: Vec<String>,
}

/// What the sink needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkConfig {
    /// Of this supervisor alone: with it, a record's sequence number tells whether it was stored already.
    pub run: u64,
    /// Directory of the store; made by the supervisor.
    pub state_dir: String,
    pub alerts: Vec<AlertConfig>,
    /// For every camera; per-camera differences are merged in by the supervisor.
    pub detection: DetectionConfig,
    pub cameras: Vec<CameraDetection>,
    /// The URL that is called at each [`ToWorker::Heartbeat`].
    pub heartbeat: Option<Secret>,
    /// With `enabled` decided.
    pub clips: ClipsConfig,
    /// Days that curves and outages are kept.
    pub keep_days: u32,
}

/// Detection settings of one camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameraDetection {
    pub camera: String,
    pub detection: DetectionConfig,
}

/// State of the alert deliveries.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DeliveryReport {
    /// Deliveries that are not confirmed yet, all receivers together.
    pub pending: u64,
    /// Confirmed since the store was made.
    pub delivered: u64,
    /// Since when (microseconds since 1970) the oldest failing receiver has been failing.
    pub failing_since_us: Option<i64>,
    /// The newest failure in words, without secrets.
    pub last_error: Option<String>,
}
