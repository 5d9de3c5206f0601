//! The weights file: safetensors whose metadata describes front end, network, timing, labels, calibration and
//! training, all of it checked before a tensor is touched.

use crate::frontend::FrontEndConfig;
use crate::net::NetConfig;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Largest weights file that is read, bytes.
pub const MAX_BYTES: u64 = 64 << 20;

/// Most bytes that a model may want to remember of a stream.
pub const MAX_STATE: usize = 256 << 10;

/// Most multiplications for one window, a hundred times what the built-in model needs: a file of a few kilobytes could
/// otherwise ask for hours.
pub const MAX_MACS: usize = 500_000_000;

/// Most values that one layer may give for one window.
pub const MAX_VALUES: usize = 4 << 20;

/// Metadata key that holds the [`Description`] as JSON.
const KEY: &str = "nursery";

/// Layout version of the metadata.
pub const FORMAT: u32 = 2;

/// What a weights file says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the model.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// How samples become features.
    pub front_end: FrontEndConfig,
    /// Shape of the network.
    pub network: NetConfig,
    /// Samples that are scored at once: a window, and the hop from one to the next.
    pub hop: usize,
    /// Samples by which the scores lag behind the audio: what the network hears of the future of each of them.
    pub lookahead: usize,
    /// Sound that each score stands for.
    pub labels: Vec<String>,
    /// Probability from which a frame counts.
    pub threshold: f32,
    /// The probability is `sigmoid(logit_scale · logit + logit_bias)`.
    pub logit_scale: f32,
    /// See `logit_scale`.
    pub logit_bias: f32,
    /// How it was trained, for people.
    pub recipe: String,
    /// Commit of the code that trained it, with `+` where the working tree had changes; empty where unknown.
    #[serde(default)]
    pub commit: String,
}

impl Description {
    /// Samples of one score frame.
    pub fn frame_step(&self) -> usize {
        self.front_end.step * self.network.time_stride()
    }

    /// Values that are remembered of a stream between two windows: the front end's, then the network's.
    pub fn state_len(&self) -> usize {
        self.front_end.state_len() + self.network.memory_len(self.front_end.mels)
    }

    /// Says what is missing or out of range.
    pub fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format {} is not {FORMAT}, the one this version reads", self.format));
        }
        let printable = |s: &str| (1..=64).contains(&s.len()) && s.chars().all(|c| c.is_ascii_graphic());
        if !printable(&self.name) || !printable(&self.version) {
            return Err("name and version must be 1 to 64 printable characters".into());
        }
        self.front_end.check()?;
        self.network.check()?;
        let step = self.frame_step();
        if self.hop == 0 || !self.hop.is_multiple_of(step) || !self.lookahead.is_multiple_of(step) {
            return Err(format!("hop and lookahead must be multiples of the score frame, {step} samples"));
        }
        if self.hop > 160_000 || self.lookahead > 80_000 {
            return Err("hop may be up to 10 s and lookahead up to 5 s".into());
        }
        if self.labels.first().map(String::as_str) != Some("baby_cry") || self.labels.len() != 1 {
            return Err("labels must be [\"baby_cry\"]".into());
        }
        if self.state_len() * 4 > MAX_STATE {
            return Err(format!(
                "a stream's state would take {} bytes, at most {MAX_STATE}",
                self.state_len() * 4
            ));
        }
        let frames = self.hop / self.front_end.step;
        let (macs, values) = (
            self.network.macs(frames, self.front_end.mels),
            self.network.largest_output(frames, self.front_end.mels),
        );
        if macs > MAX_MACS || values > MAX_VALUES {
            return Err(format!(
                "a window would take {macs} multiplications and {values} values at once, at most {MAX_MACS} and \
                 {MAX_VALUES}"
            ));
        }
        let sane = |x: f32, low: f32, high: f32| x.is_finite() && (low..=high).contains(&x);
        if !sane(self.threshold, 0.001, 0.999)
            || !sane(self.logit_scale, 0.01, 100.0)
            || !sane(self.logit_bias, -100.0, 100.0)
        {
            return Err("threshold or calibration out of range".into());
        }
        Ok(())
    }
}

/// Reads a weights file; errors say what does not fit.
pub fn parse(bytes: &[u8]) -> Result<(Description, BTreeMap<String, Vec<f32>>), String> {
    let (_, header) =
        SafeTensors::read_metadata(bytes).map_err(|e| format!("is no complete safetensors file ({e})"))?;
    let text = header
        .metadata()
        .as_ref()
        .and_then(|m| m.get(KEY))
        .ok_or_else(|| format!("has no \"{KEY}\" entry in its metadata, so it is no detector of ours"))?;
    let description: Description =
        serde_json::from_str(text).map_err(|e| format!("has metadata that does not parse: {e}"))?;
    description.check()?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("does not parse: {e}"))?;
    let layout = description.network.serving_layout(description.front_end.mels);
    if file.len() != layout.len() {
        return Err(format!("holds {} tensors, the network needs {}", file.len(), layout.len()));
    }
    let mut tensors = BTreeMap::new();
    for (name, shape) in layout {
        let view = file.tensor(&name).map_err(|_| format!("lacks tensor {name}"))?;
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            return Err(format!(
                "tensor {name} is {:?} {:?}, the network needs F32 {shape:?}",
                view.dtype(),
                view.shape()
            ));
        }
        let values: Vec<f32> =
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        if values.iter().any(|v| !v.is_finite() || v.abs() > 1e4) {
            return Err(format!("tensor {name} holds values that are not finite or far too large"));
        }
        tensors.insert(name, values);
    }
    Ok((description, tensors))
}

/// Writes a weights file; the same input gives the same bytes.
pub fn serialize(description: &Description, tensors: &BTreeMap<String, Vec<f32>>) -> Result<Vec<u8>, String> {
    description.check()?;
    let text = serde_json::to_string(description).map_err(|e| e.to_string())?;
    let layout = description.network.serving_layout(description.front_end.mels);
    let mut bytes = Vec::new();
    for (name, shape) in layout {
        let values = tensors.get(&name).ok_or_else(|| format!("tensor {name} is missing"))?;
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        bytes.push((name, shape, data));
    }
    let mut views = Vec::new();
    for (name, shape, data) in &bytes {
        let view = TensorView::new(Dtype::F32, shape.clone(), data).map_err(|e| format!("{name}: {e}"))?;
        views.push((name.as_str(), view));
    }
    safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), text)]))).map_err(|e| e.to_string())
}
