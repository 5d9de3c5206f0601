//! The detector: loads weights and turns the windows of streams into probabilities. What it remembers of a stream
//! is handed in and out, so that any process may score any window.

use crate::bounded;
use crate::frontend::{FrontEnd, PLANES};
use crate::net::Network;
use crate::text::one_line;
use crate::weights::{self, Description};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::ErrorKind;
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
    /// Samples between windows; windows do not overlap, so it is `window`.
    pub hop: usize,
    /// Samples by which the scores lag behind the window that brings them.
    pub lookahead: usize,
    /// Samples per score frame.
    pub frame_step: usize,
    /// Scores per window.
    pub frames_per_hop: usize,
    /// Recommended operating point.
    pub threshold: f32,
    /// What the scores stand for; the first is `baby_cry`.
    pub labels: Vec<String>,
    /// Bytes of a stream's state.
    pub state_bytes: usize,
}

/// What the detector remembers of one stream between two windows. It belongs to the model that made it.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamState(Vec<f32>);

impl StreamState {
    /// The state as bytes, for [`Detector::restore`].
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|x| x.to_le_bytes()).collect()
    }
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
    /// There are not as many states as windows, or one is not this model's.
    #[error("the state of a stream does not fit the model: {0}")]
    State(String),
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
        Self::from_bytes(&weights_bytes(path)?, &path.display().to_string())
    }

    /// Loads a weights file that is open; `file` names it in errors.
    pub fn read(handle: File, file: &str) -> Result<Self, ModelError> {
        Self::from_bytes(&read_bytes(handle, file)?, file)
    }

    /// Loads the bytes of a weights file; `file` names it in errors.
    pub fn from_bytes(bytes: &[u8], file: &str) -> Result<Self, ModelError> {
        // What the file holds is repeated in some reasons, and may be anything.
        let invalid =
            |reason: String| ModelError::Invalid { file: file.to_owned(), reason: one_line(&reason) };
        let (description, tensors) = weights::parse(bytes).map_err(invalid)?;
        let front = &description.front_end;
        let network = Network::serving(&description.network, front.mels, &tensors)
            .map_err(|e| invalid(e.to_string()))?;
        let frame_step = description.frame_step();
        let info = ModelInfo {
            id: format!("{}-{}-{:08x}", description.name, description.version, fnv1a(bytes) as u32),
            sample_rate: front.sample_rate,
            window: description.hop,
            hop: description.hop,
            lookahead: description.lookahead,
            frame_step,
            frames_per_hop: description.hop / frame_step,
            threshold: description.threshold,
            labels: description.labels.clone(),
            state_bytes: description.state_len() * 4,
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

    /// The state of a stream that begins.
    pub fn fresh(&self) -> StreamState {
        StreamState(vec![0.0; self.description.state_len()])
    }

    /// The state that [`StreamState::to_bytes`] wrote.
    ///
    /// # Errors
    /// Bytes that no state of this model has: another length, or values that are not finite.
    pub fn restore(&self, bytes: &[u8]) -> Result<StreamState, ModelError> {
        if bytes.len() != self.info.state_bytes {
            let (got, want) = (bytes.len(), self.info.state_bytes);
            return Err(ModelError::State(format!("it has {got} bytes, the model needs {want}")));
        }
        let values: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        if values.iter().any(|v| !v.is_finite()) {
            return Err(ModelError::State("it holds values that are not finite".into()));
        }
        Ok(StreamState(values))
    }

    /// Scores the next window of some streams, `info().window` samples each: per stream `info().frames_per_hop`
    /// probabilities of `labels[0]`, for the stretch of a window's length that ends `info().lookahead` samples before
    /// the window's end. The states are carried on. Samples that are not finite count as silence.
    ///
    /// # Errors
    /// A window of another length, or a state that is not this model's; no state has changed then.
    pub fn score_batch(
        &mut self,
        windows: &[&[f32]],
        states: &mut [StreamState],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        if let Some(w) = windows.iter().find(|w| w.len() != self.info.window) {
            return Err(ModelError::WindowLength { got: w.len(), want: self.info.window });
        }
        self.score(windows, states)
    }

    /// Like [`score_batch`](Self::score_batch) for pieces of any whole number of windows, all of one length.
    pub(crate) fn score(
        &mut self,
        pieces: &[&[f32]],
        states: &mut [StreamState],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let logits = self.logits(pieces, states)?;
        let (scale, bias) = (self.description.logit_scale, self.description.logit_bias);
        let probability = |z: f32| {
            let p = 1.0 / (1.0 + (-(scale * z + bias)).exp());
            // Weights are bounded, but a product of many could still overflow.
            if p.is_finite() { p } else { 0.0 }
        };
        Ok(logits.into_iter().map(|row| row.into_iter().map(probability).collect()).collect())
    }

    fn logits(&mut self, pieces: &[&[f32]], states: &mut [StreamState]) -> Result<Vec<Vec<f32>>, ModelError> {
        let Some(first) = pieces.first() else { return Ok(Vec::new()) };
        let (window, length) = (self.info.window, first.len());
        let odd = |piece: &&&[f32]| piece.len() != length || length == 0 || !length.is_multiple_of(window);
        if let Some(piece) = pieces.iter().find(odd) {
            return Err(ModelError::WindowLength { got: piece.len(), want: window });
        }
        let expected = self.description.state_len();
        if states.len() != pieces.len() || states.iter().any(|s| s.0.len() != expected) {
            let text = format!("{} pieces need as many states of {expected} values", pieces.len());
            return Err(ModelError::State(text));
        }
        let front = &self.description.front_end;
        self.features.clear();
        let mut memories = Vec::with_capacity(states.len());
        for (piece, state) in pieces.iter().zip(states) {
            let (ear, memory) = state.0.split_at_mut(front.state_len());
            self.front_end.features(ear, piece, &mut self.features);
            memories.push(memory);
        }
        let shape = (pieces.len(), length / front.step, front.mels, PLANES);
        let features = Tensor::from_slice(&self.features, shape, &Device::Cpu)?;
        Ok(self.network.advance(&features, &mut memories)?.to_vec2::<f32>()?)
    }
}

/// Bytes of a weights file, of which nothing but the size has been checked.
///
/// # Errors
/// It cannot be read, or is larger than a weights file may be.
pub fn weights_bytes(path: &Path) -> Result<Vec<u8>, ModelError> {
    let file = path.display().to_string();
    let handle = File::open(path).map_err(|source| ModelError::Read { file: file.clone(), source })?;
    read_bytes(handle, &file)
}

fn read_bytes(handle: File, file: &str) -> Result<Vec<u8>, ModelError> {
    bounded::read(handle, weights::MAX_BYTES).map_err(|source| match source.kind() {
        ErrorKind::FileTooLarge => ModelError::TooLarge { file: file.to_owned() },
        _ => ModelError::Read { file: file.to_owned(), source },
    })
}

/// 64-bit FNV-1a: tells files apart, proves nothing about their origin.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
