//! The detector: loads weights and turns windows of audio into probabilities, without any state between
//! windows, so that any process may score any window.

use crate::frontend::{FrontEnd, PLANES};
use crate::net::Network;
use crate::weights::{self, Description};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The weights that are built into the binary.
static EMBEDDED: &[u8] = include_bytes!("../weights/nursery.safetensors");

/// What callers need to know about a model to feed it and to read its scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Name, version and a hash of the file: `name-version-hash8`.
    pub id: String,
    /// Hz.
    pub sample_rate: u32,
    /// Samples of one window.
    pub window: usize,
    /// Samples between windows, and of the stretch that one window scores.
    pub hop: usize,
    /// Samples at the end of a window that are context only.
    pub lookahead: usize,
    /// Samples per score frame.
    pub frame_step: usize,
    /// Scores per window.
    pub frames_per_hop: usize,
    /// Recommended operating point.
    pub threshold: f32,
    /// What the scores stand for; the first is `baby_cry`.
    pub labels: Vec<String>,
}

/// Why a model cannot be used, or a window not be scored.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file cannot be read.
    #[error("model {file}: cannot be read: {source}")]
    Read {
        /// Path of the file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than any model of ours.
    #[error("model {file}: is larger than {} MiB, so it is no weights file of nursery", weights::MAX_BYTES >> 20)]
    TooLarge {
        /// Path of the file.
        file: String,
    },
    /// The file is something else, damaged, or made for another version.
    #[error("model {file}: {reason}")]
    Invalid {
        /// Path of the file.
        file: String,
        /// What does not fit.
        reason: String,
    },
    /// A window of the wrong length was handed in.
    #[error("a window of {got} samples was given, the model needs {want}")]
    WindowLength {
        /// Samples given.
        got: usize,
        /// Samples needed.
        want: usize,
    },
    /// The computation failed.
    #[error("scoring failed: {0}")]
    Compute(#[from] candle_core::Error),
}

/// A loaded model with its scratch space; one per thread.
pub struct Detector {
    info: ModelInfo,
    description: Description,
    front_end: FrontEnd,
    network: Network,
    features: Vec<f32>,
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detector").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Detector {
    /// The built-in model.
    pub fn embedded() -> Result<Self, ModelError> {
        Self::from_bytes(EMBEDDED, "(built in)")
    }

    /// Loads a weights file. Its size is checked before it is read, and everything it says before it is used.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let file = path.display().to_string();
        let read = |source| ModelError::Read { file: file.clone(), source };
        let handle = File::open(path).map_err(read)?;
        if handle.metadata().map_err(read)?.len() > weights::MAX_BYTES {
            return Err(ModelError::TooLarge { file });
        }
        let mut bytes = Vec::new();
        // The limit again, for files that grow and devices that never end.
        handle.take(weights::MAX_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
        if bytes.len() as u64 > weights::MAX_BYTES {
            return Err(ModelError::TooLarge { file });
        }
        Self::from_bytes(&bytes, &file)
    }

    /// Loads the bytes of a weights file; `file` names it in errors.
    pub fn from_bytes(bytes: &[u8], file: &str) -> Result<Self, ModelError> {
        let invalid = |reason| ModelError::Invalid { file: file.to_owned(), reason };
        let (description, tensors) = weights::parse(bytes).map_err(invalid)?;
        let front = &description.front_end;
        let network = Network::serving(&description.network, front.frames(), front.mels, &tensors)
            .map_err(|e| invalid(e.to_string()))?;
        let frame_step = description.frame_step();
        let info = ModelInfo {
            id: format!("{}-{}-{:08x}", description.name, description.version, fnv1a(bytes) as u32),
            sample_rate: front.sample_rate,
            window: front.window,
            hop: description.hop,
            lookahead: description.lookahead,
            frame_step,
            frames_per_hop: description.hop / frame_step,
            threshold: description.threshold,
            labels: description.labels.clone(),
        };
        Ok(Self { info, front_end: FrontEnd::new(front), network, features: Vec::new(), description })
    }

    /// What this model needs and gives.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Everything the weights file says about itself.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The network itself, without front end and calibration.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Scores windows of `info().window` samples each: per window `info().frames_per_hop` probabilities of
    /// `labels[0]` for the stretch `[window − hop − lookahead, window − lookahead)` of it. Samples that are not
    /// finite count as silence.
    ///
    /// # Errors
    /// A window of another length.
    pub fn score_batch(&mut self, windows: &[&[f32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        let info = &self.info;
        let skip = (info.window - info.hop - info.lookahead) / info.frame_step;
        let per_hop = info.frames_per_hop;
        let all = self.score_frames(windows)?;
        Ok(all.into_iter().map(|frames| frames[skip..skip + per_hop].to_vec()).collect())
    }

    /// Like [`score_batch`](Self::score_batch), but every score frame of each window.
    pub fn score_frames(&mut self, windows: &[&[f32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        if windows.is_empty() {
            return Ok(Vec::new());
        }
        self.features.clear();
        for window in windows {
            if window.len() != self.info.window {
                return Err(ModelError::WindowLength { got: window.len(), want: self.info.window });
            }
            self.front_end.features(window, &mut self.features);
        }
        let front = &self.description.front_end;
        let shape = (windows.len(), front.frames(), front.mels, PLANES);
        let features = Tensor::from_slice(&self.features, shape, &Device::Cpu)?;
        let logits = self.network.forward(&features)?.to_vec2::<f32>()?;
        let (scale, bias) = (self.description.logit_scale, self.description.logit_bias);
        let probability = |z: f32| {
            let p = 1.0 / (1.0 + (-(scale * z + bias)).exp());
            // Weights are bounded, but a product of many could still overflow.
            if p.is_finite() { p } else { 0.0 }
        };
        Ok(logits.into_iter().map(|row| row.into_iter().map(probability).collect()).collect())
    }
}

/// 64-bit FNV-1a: tells files apart, proves nothing about their origin.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
