//! The configuration file: its shape, its defaults and what is allowed in it. Reading it is in [`load`].

mod clips;
mod exposure;
mod load;
mod motion;
mod pictures;
mod reach;
mod sensitivity;
mod source;
mod store;
mod web;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use clips::ClipsConfig;
pub use load::{ConfigError, from_file, from_json, schema};
pub use motion::MotionRule;
pub use pictures::PicturesConfig;
pub use reach::AlertReach;
pub use sensitivity::Sensitivity;
pub use source::{Source, SourceError, Synthetic};
pub use store::StoreConfig;
pub use web::{TlsConfig, WebConfig};

use crate::{control::PoolSize, secret::Secret};

/// Most inference processes that anybody may ask for.
pub const MAX_POOL: u32 = 64;

/// Most windows of one batch. Where so many of a model's windows or states do not fit a frame, batches are smaller.
pub const MAX_BATCH: u32 = 32;

/// The whole file. A bare list of cameras is accepted too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cameras to listen to; names are unique.
    pub cameras: Vec<CameraConfig>,
    #[serde(default)]
    pub inference: InferenceConfig,
    #[serde(default)]
    pub detection: DetectionConfig,
    /// Whom to tell, and how.
    #[serde(default)]
    pub alerts: Vec<AlertConfig>,
    /// A URL that is called (GET) every minute as long as every camera is heard and scored, for a service that gives
    /// the alarm when the calls stop: whoever listens may fail as a whole, and then nobody is left here to say so.
    #[serde(default)]
    pub heartbeat: Option<Secret>,
    #[serde(default)]
    pub supervision: SupervisionConfig,
    #[serde(default)]
    pub control: ControlConfig,
    /// A page and an API for browsers and scripts; nobody listens without this key.
    #[serde(default)]
    pub web: Option<WebConfig>,
    #[serde(default)]
    pub clips: ClipsConfig,
    #[serde(default)]
    pub store: StoreConfig,
}

/// Who may use the control socket. Root and the user that the service runs as always may.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Members of this group (a name or a number) may do everything, too. Not given: the service's own group.
    pub group: Option<String>,
    /// Everybody may ask for the status.
    pub public_status: bool,
}

/// How workers are restarted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SupervisionConfig {
    /// Seconds that a worker must have been ready before it died, so that it is restarted like one that failed
    /// for the first time; otherwise the wait doubles, from 0.1 s up to 30 s.
    pub healthy_after_s: f64,
    /// Mebibytes that a worker process may allocate (capture: 512 at the most). One that wants more dies of it and is
    /// restarted, instead of taking the memory of everybody else. Programs of `exec:` sources are not limited.
    pub worker_memory_mb: u64,
    /// As root: the first of 8192 user and group numbers that nobody else uses; each worker gets one of its own.
    pub uid_base: Option<u32>,
    /// As root: users of the roles, instead of one of those numbers for each worker.
    pub users: UsersConfig,
    /// As root: files with secrets may be readable for everybody.
    pub allow_readable_secrets: bool,
}

impl Default for SupervisionConfig {
    fn default() -> Self {
        Self {
            healthy_after_s: 60.0,
            worker_memory_mb: 1024,
            uid_base: None,
            users: UsersConfig::default(),
            allow_readable_secrets: false,
        }
    }
}

/// Users as which workers run, by role: names or numbers in /etc/passwd, with the groups that have them as members.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UsersConfig {
    pub capture: Option<String>,
    pub infer: Option<String>,
    pub sink: Option<String>,
    pub web: Option<String>,
    pub light: Option<String>,
}

impl UsersConfig {
    /// At least one is given.
    pub fn any(&self) -> bool {
        self.capture.is_some()
            || self.infer.is_some()
            || self.sink.is_some()
            || self.web.is_some()
            || self.light.is_some()
    }
}

/// One camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CameraConfig {
    /// 1 to 64 letters, digits, `.`, `_` or `-`.
    pub name: String,
    /// `rtsp://…`, `rtsps://…`, `file:PATH`, `exec:COMMAND` (raw s16le 16 kHz mono on stdout) or
    /// `synthetic:KIND`.
    pub source: SourceText,
    /// file: start again at the end.
    #[serde(default)]
    pub r#loop: bool,
    /// file: play as fast as it was recorded, like a camera. Otherwise as fast as it can be scored.
    #[serde(default = "yes")]
    pub realtime: bool,
    /// rtsp: how media travels.
    #[serde(default)]
    pub transport: Transport,
    /// rtsp: when the camera is asked for its pictures too. Crying is heard without.
    #[serde(default)]
    pub video: VideoUse,
    /// rtsp: user name, where it is not in the URL.
    #[serde(default)]
    pub username: Option<String>,
    /// rtsp: password, where it is not in the URL.
    #[serde(default)]
    pub password: Option<Secret>,
    /// rtsps: SHA-256 of the camera's certificate in hex, for cameras whose certificate no authority has signed:
    /// then exactly this certificate is trusted.
    #[serde(default)]
    pub tls_fingerprint: Option<String>,
    /// How readily crying is announced: overrides what `detection` says, for this camera. `"low"`, `"normal"`,
    /// `"high"`, or a number from 0 to 1.
    // Reading the file turns it into `threshold`, so that the program knows one of them.
    #[serde(default)]
    #[schemars(with = "Option<sensitivity::SensitivitySchema>")]
    pub sensitivity: Option<Sensitivity>,
    /// Instead of `sensitivity`: the probability itself, between 0 and 1.
    #[serde(default)]
    pub threshold: Option<f64>,
    /// This camera's noise gate sends digital silence while it is quiet. Otherwise that is taken for a muted
    /// microphone, and the camera for one that is not heard.
    #[serde(default)]
    pub noise_gate: bool,
    /// Overrides `detection.sustained_s` for this camera.
    #[serde(default)]
    pub sustained_s: Option<f64>,
    /// rtsp: pictures to look at, and how much moves in them. Not given: none.
    #[serde(default)]
    pub pictures: Option<PicturesConfig>,
    /// Overrides `detection.motion` for this camera, which must have `pictures`.
    #[serde(default)]
    pub motion: Option<MotionRule>,
}

/// When a camera is asked for pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VideoUse {
    /// While somebody looks.
    #[default]
    OnDemand,
    /// With the sound from the beginning, for cameras that take one connection only.
    Always,
    Never,
}

fn yes() -> bool {
    true
}

/// A camera's source as written. It may hold a password, so people are shown [`SourceText::redacted`].
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
pub struct SourceText(String);

impl SourceText {
    /// Wraps the text of a source.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, passwords included.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text without passwords.
    pub fn redacted(&self) -> String {
        crate::redact::source(&self.0)
    }

    /// What kind of source it is, and its parts.
    pub fn parse(&self) -> Result<Source, SourceError> {
        Source::parse(&self.0)
    }
}

impl std::fmt::Debug for SourceText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.redacted())
    }
}

impl Serialize for SourceText {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.serialize_str(&self.redacted()) } else { s.serialize_str(&self.0) }
    }
}

/// How RTSP media travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Interleaved in the RTSP connection.
    #[default]
    Tcp,
    /// Datagrams to a port of ours.
    Udp,
}

/// The inference pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InferenceConfig {
    /// A number, or `"auto"`: follows the load between `min_workers` and `max_workers`.
    #[schemars(with = "WorkersSchema")]
    #[serde(with = "workers")]
    pub workers: PoolSize,
    /// Fewest processes of an `"auto"` pool; 2 where this is not given, so that the death of one stops nothing.
    #[schemars(range(min = 1, max = 64))]
    pub min_workers: Option<u32>,
    /// Most processes of an `"auto"` pool; as many as there are cores (and 2 at the least) where this is not given.
    #[schemars(range(min = 1, max = 64))]
    pub max_workers: Option<u32>,
    /// Most windows that one inference process takes at once, each of another camera.
    pub max_batch: u32,
    /// Compute threads of one inference process.
    pub threads: u32,
    /// A model file; the one inside `nursery-worker` otherwise.
    pub model: Option<String>,
}

impl InferenceConfig {
    /// Fewest and most processes of an `"auto"` pool on a host with so many cores.
    pub fn bounds(&self, cores: u32) -> (u32, u32) {
        let most = self.max_workers.unwrap_or_else(|| cores.max(2).max(self.min_workers.unwrap_or(0)));
        let most = most.clamp(1, MAX_POOL);
        (self.min_workers.unwrap_or(2).clamp(1, most), most)
    }
}

impl Default for InferenceConfig {
    fn default() -> Self {
        Self {
            workers: PoolSize::Auto,
            min_workers: None,
            max_workers: None,
            max_batch: 16,
            threads: 1,
            model: None,
        }
    }
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum WorkersSchema {
    Number(#[schemars(range(min = 1, max = 64))] u32),
    Auto(AutoWord),
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum AutoWord {
    Auto,
}

/// `4` or `"auto"` in files; frames carry the enum as it is.
mod workers {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
    use serde_json::Value;

    use crate::control::PoolSize;

    pub fn serialize<S: Serializer>(size: &PoolSize, s: S) -> Result<S::Ok, S::Error> {
        match size {
            _ if !s.is_human_readable() => size.serialize(s),
            PoolSize::Fixed(n) => s.serialize_u32(*n),
            PoolSize::Auto => s.serialize_str("auto"),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<PoolSize, D::Error> {
        if !d.is_human_readable() {
            return PoolSize::deserialize(d);
        }
        let value = Value::deserialize(d)?;
        // What stands here by mistake may hold secrets, if it is more than a word or a number.
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
            other => other.to_string(),
        };
        text.parse().map_err(|e| de::Error::custom(format!("{text}: {e}")))
    }
}

/// When scores become an event, and when an event ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetectionConfig {
    /// How readily crying is announced: `"low"`, `"normal"`, `"high"`, or a number from 0 to 1, where 0.5 is
    /// normal.
    // Reading the file turns it into `threshold`, so that the program knows one of them.
    #[schemars(with = "Option<sensitivity::SensitivitySchema>")]
    pub sensitivity: Option<Sensitivity>,
    /// Instead of `sensitivity`: the probability from which a frame counts as crying, between 0 and 1.
    pub threshold: f64,
    /// Seconds of clear crying (on the breath, small gaps bridged) before an event is announced. What is only just
    /// over the threshold counts in part.
    pub min_duration_s: f64,
    /// Seconds without crying after which an event has ended.
    pub end_after_s: f64,
    /// Seconds after an event's end in which new crying is not announced. Crying that still goes on after that
    /// is an event of its own.
    pub cooldown_s: f64,
    /// Seconds without valid audio after which a camera is announced as offline.
    pub offline_after_s: f64,
    /// Seconds of crying within the last minute before an event is announced, for those who want to hear of
    /// lasting crying alone; 0 asks for no more than `min_duration_s`.
    pub sustained_s: f64,
    /// Ask more of a camera's scores where its usual sounds look a little like crying, and less where nothing does,
    /// within narrow bounds; `false` for a bar that never moves.
    pub adaptive: bool,
    /// When what moves before a camera with `pictures` is an event. Not given: never.
    pub motion: Option<MotionRule>,
}

impl DetectionConfig {
    /// The settings of one camera: its own where it has any, these otherwise.
    pub fn for_camera(&self, camera: &CameraConfig) -> Self {
        Self {
            threshold: camera.threshold.unwrap_or(self.threshold),
            sustained_s: camera.sustained_s.unwrap_or(self.sustained_s),
            motion: camera.pictures.filter(|pictures| pictures.motion).and_then(|pictures| {
                let rule = camera.motion.or(self.motion)?;
                // Longer than it takes until the next picture.
                Some(MotionRule { end_after_s: rule.end_after_s.max(pictures.every_s * 2.5), ..rule })
            }),
            ..*self
        }
    }
}

impl Default for DetectionConfig {
    fn default() -> Self {
        Self {
            sensitivity: None,
            threshold: 0.5,
            min_duration_s: 0.3,
            end_after_s: 5.0,
            cooldown_s: 60.0,
            offline_after_s: 30.0,
            sustained_s: 0.0,
            adaptive: true,
            motion: None,
        }
    }
}

/// A receiver of alerts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertKind {
    Webhook,
    Log,
    Exec,
    Sound,
}

/// One receiver. Which keys it takes depends on `type`: webhook `url`, `secret`, `timeout_s`; exec `command`,
/// `timeout_s`; sound `file`; log none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertConfig {
    pub r#type: AlertKind,
    /// webhook: where to POST to.
    #[serde(default)]
    pub url: Option<Secret>,
    /// webhook: key of the signature (Standard Webhooks), with or without `whsec_` and base64.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// exec: program and arguments, or one line that is split like a shell does; the event comes as JSON on
    /// its standard input.
    #[serde(default)]
    pub command: Option<String>,
    /// sound: the file to play instead of the built-in chime.
    #[serde(default)]
    pub file: Option<String>,
    /// Seconds for one attempt.
    #[serde(default)]
    pub timeout_s: Option<f64>,
    /// Told of motion too (`detection.motion`), not of crying and lost cameras alone.
    #[serde(default)]
    pub motion: bool,
}

impl AlertConfig {
    /// Seconds for one attempt, with the default of its type.
    pub fn timeout(&self) -> std::time::Duration {
        std::time::Duration::from_secs_f64(self.timeout_s.unwrap_or(10.0).clamp(0.1, 600.0))
    }
}
