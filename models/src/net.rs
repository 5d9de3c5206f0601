//! The network: a few convolutions over time × mel that shrink the frequency axis, dilated residual blocks along
//! time, a gated recurrent unit, then one logit per score frame. Everything is causal, so a stream can be scored
//! piece by piece: what the layers remember of it is handed in and out. The same layers run in training (batch
//! normalisation, gradients) and in serving (normalisation folded into weights and bias).

use crate::frontend::PLANES;
use crate::ops::{Add, BatchNormRelu, Conv2d, Conv2dShape, DepthwiseTime, EPSILON, Gru, RunningStats};
use candle_core::{DType, Device, Result, Tensor, Var, bail};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// One convolution over time × frequency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvConfig {
    /// Output channels.
    pub channels: usize,
    /// Kernel along time and frequency; odd along frequency, along time at least the stride.
    pub kernel: (usize, usize),
    /// Stride along time and frequency.
    pub stride: (usize, usize),
}

/// Shape of the network; stored beside the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetConfig {
    /// Convolutions, first to last.
    pub convs: Vec<ConvConfig>,
    /// Channels of the temporal part.
    pub width: usize,
    /// Taps of the temporal filters.
    pub taps: usize,
    /// Dilation of each temporal block, in score frames.
    pub dilations: Vec<usize>,
    /// Values of the recurrent state; 0 for none.
    pub recurrent: usize,
}

impl Default for NetConfig {
    fn default() -> Self {
        let conv = |channels, kernel, stride| ConvConfig { channels, kernel, stride };
        Self {
            convs: vec![
                conv(16, (5, 5), (1, 2)),
                conv(32, (3, 3), (2, 2)),
                conv(48, (3, 3), (1, 2)),
                conv(64, (3, 3), (1, 2)),
            ],
            width: 96,
            taps: 3,
            dilations: vec![1, 2, 4],
            recurrent: 96,
        }
    }
}

impl NetConfig {
    /// Says what is out of range, if anything; bounds keep a hostile file from asking for huge tensors.
    pub fn check(&self) -> std::result::Result<(), String> {
        let kernel = |n: usize| (1..=15).contains(&n);
        if self.convs.is_empty() || self.convs.len() > 12 || self.dilations.len() > 16 {
            return Err("network: needs 1 to 12 convolutions and at most 16 temporal blocks".into());
        }
        for c in &self.convs {
            let strides = (1..=4).contains(&c.stride.0) && (1..=4).contains(&c.stride.1);
            let kernels = kernel(c.kernel.0) && kernel(c.kernel.1) && c.kernel.1 % 2 == 1;
            if !(1..=512).contains(&c.channels) || !kernels || !strides || c.kernel.0 < c.stride.0 {
                return Err(format!("network: convolution out of range: {c:?}"));
            }
        }
        if !(1..=1024).contains(&self.width) || !kernel(self.taps) || self.recurrent > 1024 {
            return Err(format!(
                "network: width {}, taps {} or recurrent {} out of range",
                self.width, self.taps, self.recurrent
            ));
        }
        if self.dilations.iter().any(|d| !(1..=256).contains(d)) {
            return Err("network: dilations must be between 1 and 256".into());
        }
        Ok(())
    }

    /// Spectral frames per score frame.
    pub fn time_stride(&self) -> usize {
        self.convs.iter().map(|c| c.stride.0).product()
    }

    /// The convolutions over `frames` spectral frames at the start of a stream.
    fn conv_shapes(&self, frames: usize, mels: usize) -> Vec<Conv2dShape> {
        let mut input = (frames, mels, PLANES);
        self.convs
            .iter()
            .map(|c| {
                let lead = c.kernel.0 - c.stride.0;
                let shape =
                    Conv2dShape { input, channels: c.channels, kernel: c.kernel, stride: c.stride, lead };
                input = shape.output();
                shape
            })
            .collect()
    }

    fn pointwise(time: usize, from: usize, to: usize) -> Conv2dShape {
        Conv2dShape { input: (time, 1, from), channels: to, kernel: (1, 1), stride: (1, 1), lead: 0 }
    }

    /// Channels after the convolutions, with frequency folded into them.
    fn flattened(&self, mels: usize) -> usize {
        let frames = self.time_stride();
        self.conv_shapes(frames, mels).last().map_or(0, |s| s.output().1 * s.channels)
    }

    /// Every layer's name, weight shape and kind, in order.
    fn layout(&self, mels: usize) -> Vec<(String, [usize; 2], Kind)> {
        let mut all = Vec::new();
        for (i, s) in self.conv_shapes(self.time_stride(), mels).iter().enumerate() {
            all.push((format!("conv{i}"), [s.fan_in(), s.channels], Kind::Normalised));
        }
        let width = self.width;
        all.push(("project".into(), [self.flattened(mels), width], Kind::Normalised));
        for i in 0..self.dilations.len() {
            all.push((format!("block{i}.time"), [self.taps, width], Kind::Plain));
            all.push((format!("block{i}.mix"), [width, width], Kind::Normalised));
        }
        if self.recurrent > 0 {
            all.push(("gru.input".into(), [width, 3 * self.recurrent], Kind::Biased));
            all.push(("gru.state".into(), [self.recurrent, 3 * self.recurrent], Kind::Plain));
        }
        all.push(("head".into(), [width + self.recurrent, 1], Kind::Biased));
        all
    }

    /// Names and shapes of the tensors of a serving file.
    pub fn serving_layout(&self, mels: usize) -> Vec<(String, Vec<usize>)> {
        let mut all = Vec::new();
        for (name, shape, kind) in self.layout(mels) {
            all.push((format!("{name}.weight"), shape.to_vec()));
            if kind != Kind::Plain {
                all.push((format!("{name}.bias"), vec![shape[1]]));
            }
        }
        all
    }

    /// Shapes of what the layers remember of a stream, in the order in which [`Network::advance`] keeps it: the
    /// last frames before each convolution and each temporal filter, then the recurrent state.
    pub fn memory(&self, mels: usize) -> Vec<Vec<usize>> {
        let convs = self.conv_shapes(self.time_stride(), mels);
        let mut all: Vec<Vec<usize>> =
            convs.iter().filter(|s| s.lead > 0).map(|s| vec![s.lead, s.input.1, s.input.2]).collect();
        if self.taps > 1 {
            all.extend(self.dilations.iter().map(|d| vec![(self.taps - 1) * d, self.width]));
        }
        if self.recurrent > 0 {
            all.push(vec![self.recurrent]);
        }
        all
    }

    /// Values of [`memory`](Self::memory).
    pub fn memory_len(&self, mels: usize) -> usize {
        self.memory(mels).iter().map(|shape| shape.iter().product::<usize>()).sum()
    }

    /// Learned values of the serving network.
    pub fn parameters(&self, mels: usize) -> usize {
        self.serving_layout(mels).iter().map(|(_, s)| s.iter().product::<usize>()).sum()
    }

    /// Values of the largest output of a layer for `frames` spectral frames.
    pub fn largest_output(&self, frames: usize, mels: usize) -> usize {
        let convs = self.conv_shapes(frames, mels);
        let outputs =
            convs.iter().map(Conv2dShape::output).map(|(time, bands, channels)| time * bands * channels);
        let time = frames / self.time_stride().max(1);
        outputs.chain([time * (self.width + 3 * self.recurrent)]).max().unwrap_or(0)
    }

    /// Multiply-accumulates for `frames` spectral frames.
    pub fn macs(&self, frames: usize, mels: usize) -> usize {
        let convs: usize = self.conv_shapes(frames, mels).iter().map(Conv2dShape::macs).sum();
        let time = frames / self.time_stride().max(1);
        let rest = self.layout(mels).into_iter().skip(self.convs.len());
        convs + rest.map(|(_, shape, _)| time * shape[0] * shape[1]).sum::<usize>()
    }
}

/// What follows the product with the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Normalisation (training) or bias (serving), then a ReLU.
    Normalised,
    /// A bias.
    Biased,
    /// Nothing.
    Plain,
}

/// Weights of one layer in the form its mode needs.
#[derive(Debug, Clone)]
enum Layer {
    Plain { weight: Tensor },
    Biased { weight: Tensor, bias: Tensor },
    Folded { weight: Tensor, bias: Tensor },
    Normalised { weight: Tensor, scale: Tensor, shift: Tensor, stats: Arc<Mutex<RunningStats>> },
}

/// Momentum of the running statistics.
const MOMENTUM: f32 = 0.02;

/// Share of the channels that are blanked before the recurrent unit while training (Srivastava et al., 2014; whole
/// channels of an example at once).
pub const DROPOUT: f32 = 0.15;

/// The network with weights, for serving or for training.
#[derive(Debug, Clone)]
pub struct Network {
    config: NetConfig,
    mels: usize,
    layers: BTreeMap<String, Layer>,
    /// Weight of the newest batch in the running statistics.
    momentum: f32,
    /// What learns, by name; empty when serving.
    vars: BTreeMap<String, Var>,
}

impl Network {
    /// A serving network from the tensors of [`NetConfig::serving_layout`].
    pub fn serving(config: &NetConfig, mels: usize, tensors: &BTreeMap<String, Vec<f32>>) -> Result<Self> {
        let mut held = HashMap::new();
        for (name, shape) in config.serving_layout(mels) {
            let Some(data) = tensors.get(&name) else { bail!("tensor {name} is missing") };
            held.insert(name, Tensor::from_slice(data, shape, &Device::Cpu)?);
        }
        let weights = VarBuilder::from_tensors(held, DType::F32, &Device::Cpu);
        let mut layers = BTreeMap::new();
        for (name, shape, kind) in config.layout(mels) {
            let at = weights.pp(&name);
            let weight = at.get(&shape[..], "weight")?;
            let layer = match kind {
                Kind::Normalised => Layer::Folded { weight, bias: at.get(&shape[1..], "bias")? },
                Kind::Biased => Layer::Biased { weight, bias: at.get(&shape[1..], "bias")? },
                Kind::Plain => Layer::Plain { weight },
            };
            layers.insert(name, layer);
        }
        Ok(Self { config: config.clone(), mels, layers, momentum: MOMENTUM, vars: BTreeMap::new() })
    }

    /// A network that learns; `normal` draws from the standard normal distribution, and the weights of each
    /// layer are scaled by its fan-in (He et al., 2015).
    pub fn training(config: &NetConfig, mels: usize, mut normal: impl FnMut() -> f32) -> Result<Self> {
        let mut vars = BTreeMap::new();
        let mut layers = BTreeMap::new();
        for (name, shape, kind) in config.layout(mels) {
            let gain = match name.as_str() {
                "head" => 0.3,
                "gru.input" | "gru.state" => 0.7,
                _ => 1.0,
            };
            let deviation = (2.0 / shape[0] as f32).sqrt() * gain;
            let draw: Vec<f32> = (0..shape[0] * shape[1]).map(|_| normal() * deviation).collect();
            let mut var = |suffix: &str, data: Vec<f32>, shape: &[usize]| -> Result<Tensor> {
                let var = Var::from_tensor(&Tensor::from_vec(data, shape, &Device::Cpu)?)?;
                let tensor = var.as_tensor().clone();
                vars.insert(format!("{name}.{suffix}"), var);
                Ok(tensor)
            };
            let weight = var("weight", draw, &shape)?;
            let layer = match kind {
                Kind::Normalised => {
                    // Residual branches start small so that the blocks begin close to the identity.
                    let start = if name.ends_with(".mix") { 0.3 } else { 1.0 };
                    Layer::Normalised {
                        weight,
                        scale: var("scale", vec![start; shape[1]], &shape[1..])?,
                        shift: var("shift", vec![0.0; shape[1]], &shape[1..])?,
                        stats: Arc::new(Mutex::new(RunningStats::new(shape[1]))),
                    }
                }
                Kind::Biased => {
                    // Crying is rare: starting near its prior saves the first hundred steps.
                    let start = if name == "head" { -1.5 } else { 0.0 };
                    Layer::Biased { weight, bias: var("bias", vec![start; shape[1]], &shape[1..])? }
                }
                Kind::Plain => Layer::Plain { weight },
            };
            layers.insert(name, layer);
        }
        Ok(Self { config: config.clone(), mels, layers, momentum: MOMENTUM, vars })
    }

    /// What learns, by name.
    pub fn vars(&self) -> &BTreeMap<String, Var> {
        &self.vars
    }

    /// Running statistics of the normalisations, by layer.
    pub fn stats(&self) -> BTreeMap<String, RunningStats> {
        let normalised = self.layers.iter().filter_map(|(name, layer)| match layer {
            Layer::Normalised { stats, .. } => {
                Some((name.clone(), stats.lock().unwrap_or_else(PoisonError::into_inner).clone()))
            }
            _ => None,
        });
        normalised.collect()
    }

    /// Puts running statistics back, as a resumed training needs.
    pub fn set_stats(&self, saved: &BTreeMap<String, RunningStats>) {
        for (name, layer) in &self.layers {
            if let (Layer::Normalised { stats, .. }, Some(saved)) = (layer, saved.get(name)) {
                *stats.lock().unwrap_or_else(PoisonError::into_inner) = saved.clone();
            }
        }
    }

    /// The statistics that a network with other values of its variables has on some batches of features. Averaged
    /// weights need their own: those that were kept while learning belong to the weights of each step (Izmailov et
    /// al., 2018).
    pub fn stats_of(
        &self,
        values: &BTreeMap<String, Vec<f32>>,
        batches: &[Tensor],
    ) -> Result<BTreeMap<String, RunningStats>> {
        let mut other = Self::training(&self.config, self.mels, || 0.0)?;
        for (name, var) in &other.vars {
            let Some(values) = values.get(name) else { bail!("variable {name} is missing") };
            var.set(&Tensor::from_slice(values, var.shape(), var.device())?)?;
        }
        for (i, batch) in batches.iter().enumerate() {
            // A plain average over the batches.
            other.momentum = 1.0 / (i + 1) as f32;
            other.forward(batch, None)?;
        }
        Ok(other.stats())
    }

    /// Folds values of the learning variables and statistics into the tensors of a serving network.
    pub fn fold(
        &self,
        values: &BTreeMap<String, Vec<f32>>,
        stats: &BTreeMap<String, RunningStats>,
    ) -> Result<BTreeMap<String, Vec<f32>>> {
        let get = |name: String| match values.get(&name) {
            Some(v) => Ok(v.clone()),
            None => bail!("variable {name} is missing"),
        };
        let mut out = BTreeMap::new();
        for (name, _, kind) in self.config.layout(self.mels) {
            let mut weight = get(format!("{name}.weight"))?;
            if kind == Kind::Biased {
                out.insert(format!("{name}.bias"), get(format!("{name}.bias"))?);
            }
            if kind == Kind::Normalised {
                let Some(stats) = stats.get(&name) else { bail!("statistics of {name} are missing") };
                let (scale, shift) = (get(format!("{name}.scale"))?, get(format!("{name}.shift"))?);
                let gain: Vec<f32> =
                    scale.iter().zip(&stats.variance).map(|(g, v)| g / (v + EPSILON).sqrt()).collect();
                for row in weight.chunks_exact_mut(gain.len()) {
                    row.iter_mut().zip(&gain).for_each(|(w, g)| *w *= g);
                }
                let bias = shift.iter().zip(&stats.mean).zip(&gain).map(|((b, m), g)| b - m * g);
                out.insert(format!("{name}.bias"), bias.collect());
            }
            out.insert(format!("{name}.weight"), weight);
        }
        Ok(out)
    }

    fn layer(&self, name: &str) -> Result<&Layer> {
        match self.layers.get(name) {
            Some(layer) => Ok(layer),
            None => bail!("layer {name} is missing"),
        }
    }

    fn convolve(&self, name: &str, shape: Conv2dShape, first: bool, x: &Tensor) -> Result<Tensor> {
        let op = Conv2d { shape, input_gradient: !first, relu: false };
        match self.layer(name)? {
            Layer::Folded { weight, bias } => Conv2d { relu: true, ..op }.forward_bias(x, weight, bias),
            Layer::Biased { weight, bias } if self.vars.is_empty() => op.forward_bias(x, weight, bias),
            Layer::Biased { weight, bias } => op.forward(x, weight)?.broadcast_add(bias),
            Layer::Normalised { weight, scale, shift, stats } => {
                let norm = BatchNormRelu { stats: Arc::clone(stats), momentum: self.momentum };
                norm.forward(&op.forward(x, weight)?, scale, shift)
            }
            Layer::Plain { weight } => op.forward(x, weight),
        }
    }

    /// A layer along every frame alone: `[batch, time, from]` to `[batch, time, to]`.
    fn dense(&self, name: &str, to: usize, x: &Tensor) -> Result<Tensor> {
        let (batch, time, from) = x.dims3()?;
        let x = x.reshape((batch, time, 1, from))?;
        let y = self.convolve(name, NetConfig::pointwise(time, from, to), false, &x)?;
        y.reshape((batch, time, to))
    }

    /// Logits `[batch, score frames]` of streams from their start on, given their features `[batch, frames, mels,
    /// planes]`. `mask [batch, 1, width]`, if any, is multiplied onto what the recurrent unit gets.
    pub fn forward(&self, features: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        self.run(features, mask, None)
    }

    /// Logits `[batch, score frames]` of the next piece of some streams; `states` holds, for each of them, the
    /// [`NetConfig::memory_len`] values that the layers remember (zeros at the start), and is carried on.
    pub fn advance(&self, features: &Tensor, states: &mut [&mut [f32]]) -> Result<Tensor> {
        let batch = features.dim(0)?;
        let expected = self.config.memory_len(self.mels);
        if states.len() != batch || states.iter().any(|s| s.len() != expected) {
            bail!("{batch} streams need as many states of {expected} values");
        }
        let mut memory = Vec::new();
        let mut at = 0;
        for shape in self.config.memory(self.mels) {
            let n: usize = shape.iter().product();
            let values: Vec<f32> = states.iter().flat_map(|s| s[at..at + n].iter().copied()).collect();
            let shape: Vec<usize> = std::iter::once(batch).chain(shape).collect();
            memory.push(Tensor::from_vec(values, shape, &Device::Cpu)?);
            at += n;
        }
        let logits = self.run(features, None, Some(&mut memory))?;
        at = 0;
        for slot in memory {
            let rows = slot.flatten_from(1)?.to_vec2::<f32>()?;
            for (state, row) in states.iter_mut().zip(&rows) {
                state[at..at + row.len()].copy_from_slice(row);
            }
            at += rows.first().map_or(0, Vec::len);
        }
        Ok(logits)
    }

    /// Puts the remembered frames before `x` and remembers the last ones for the next time; without a memory the
    /// stream begins here.
    fn extend(x: Tensor, frames: usize, memory: Option<&mut Tensor>) -> Result<(Tensor, usize)> {
        let Some(memory) = memory.filter(|_| frames > 0) else { return Ok((x, frames)) };
        let joined = Tensor::cat(&[&*memory, &x], 1)?;
        *memory = joined.narrow(1, joined.dim(1)? - frames, frames)?.contiguous()?;
        Ok((joined, 0))
    }

    fn run(&self, features: &Tensor, mask: Option<&Tensor>, memory: Option<&mut [Tensor]>) -> Result<Tensor> {
        let mut slots = memory.map(|m| m.iter_mut());
        let mut slot = |frames: usize| slots.as_mut().filter(|_| frames > 0).and_then(Iterator::next);
        let batch = features.dim(0)?;
        let mut x = features.clone();
        for (i, c) in self.config.convs.iter().enumerate() {
            let past = c.kernel.0 - c.stride.0;
            let (joined, lead) = Self::extend(x, past, slot(past))?;
            let (_, time, mels, channels) = joined.dims4()?;
            let input = (time, mels, channels);
            let shape = Conv2dShape { input, channels: c.channels, kernel: c.kernel, stride: c.stride, lead };
            x = self.convolve(&format!("conv{i}"), shape, i == 0, &joined)?;
        }
        let time = x.dim(1)?;
        let x = x.reshape((batch, time, ()))?;
        let mut x = self.dense("project", self.config.width, &x)?;
        for (i, &dilation) in self.config.dilations.iter().enumerate() {
            let past = (self.config.taps - 1) * dilation;
            let (joined, lead) = Self::extend(x.clone(), past, slot(past))?;
            let op = DepthwiseTime { dilation, lead };
            let y = match self.layer(&format!("block{i}.time"))? {
                Layer::Plain { weight } if self.vars.is_empty() => op.forward_no_gradient(&joined, weight)?,
                Layer::Plain { weight } => op.forward(&joined, weight)?,
                _ => bail!("block{i}.time is no plain layer"),
            };
            x = Add.forward(&x, &self.dense(&format!("block{i}.mix"), self.config.width, &y)?)?;
        }
        if let Some(mask) = mask {
            x = x.broadcast_mul(mask)?;
        }
        let hidden = self.config.recurrent;
        if hidden > 0 {
            let gates = self.dense("gru.input", 3 * hidden, &x)?;
            let Layer::Plain { weight } = self.layer("gru.state")? else {
                bail!("gru.state is no plain layer")
            };
            let state = slot(1);
            let start = match &state {
                Some(state) => (**state).clone(),
                None => Tensor::zeros((batch, hidden), DType::F32, x.device())?,
            };
            let y = if self.vars.is_empty() {
                Gru.forward_no_gradient(&gates, weight, &start)?
            } else {
                Gru.forward(&gates, weight, &start)?
            };
            if let Some(state) = state {
                *state = y.narrow(1, time - 1, 1)?.squeeze(1)?.contiguous()?;
            }
            x = Tensor::cat(&[&x, &y], 2)?;
        }
        self.dense("head", 1, &x)?.squeeze(2)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::frontend::FrontEndConfig;
    use crate::ops::check::{pseudo, tensor};

    fn bands() -> usize {
        FrontEndConfig::default().mels
    }

    fn values(network: &Network) -> BTreeMap<String, Vec<f32>> {
        let flat = |v: &Var| v.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        network.vars().iter().map(|(name, v)| (name.clone(), flat(v))).collect()
    }

    fn trained(config: &NetConfig) -> Network {
        let mut draws = pseudo(400_000, 5).into_iter();
        Network::training(config, bands(), || draws.next().unwrap() * 1.7).unwrap()
    }

    fn served(config: &NetConfig) -> Network {
        let network = trained(config);
        let folded = network.fold(&values(&network), &network.stats()).unwrap();
        Network::serving(config, bands(), &folded).unwrap()
    }

    #[test]
    fn folded_network_equals_the_trained_one() {
        let config = NetConfig::default();
        let network = trained(&config);
        let x = tensor(&[4, 120, bands(), PLANES], 3);
        let logits = network.forward(&x, None).unwrap();
        let stats = network.stats_of(&values(&network), std::slice::from_ref(&x)).unwrap();
        let folded = network.fold(&values(&network), &stats).unwrap();
        let serving = Network::serving(&config, bands(), &folded).unwrap();
        let served = serving.forward(&x, None).unwrap();
        assert_eq!(served.dims(), [4, 60]);
        let (a, b) = (logits.to_vec2::<f32>().unwrap(), served.to_vec2::<f32>().unwrap());
        for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
            assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
    }

    #[test]
    fn a_stream_in_pieces_scores_like_the_whole() {
        for recurrent in [0, 24] {
            let config = NetConfig { recurrent, ..NetConfig::default() };
            let network = served(&config);
            let x = tensor(&[2, 60, bands(), PLANES], 7);
            let whole = network.forward(&x, None).unwrap().to_vec2::<f32>().unwrap();
            let mut states = vec![vec![0.0; config.memory_len(bands())]; 2];
            let mut at = 0;
            for frames in [10, 2, 28, 20] {
                let piece = x.narrow(1, at, frames).unwrap().contiguous().unwrap();
                let mut views: Vec<&mut [f32]> = states.iter_mut().map(Vec::as_mut_slice).collect();
                let logits = network.advance(&piece, &mut views).unwrap().to_vec2::<f32>().unwrap();
                for (whole, piece) in whole.iter().zip(&logits) {
                    for (a, b) in whole[at / 2..].iter().zip(piece) {
                        assert!((a - b).abs() < 1e-5, "{a} {b}");
                    }
                }
                at += frames;
            }
        }
    }

    #[test]
    fn no_output_depends_on_what_comes_later() {
        let network = served(&NetConfig::default());
        let x = tensor(&[1, 40, bands(), PLANES], 7);
        let changed =
            Tensor::cat(&[x.narrow(1, 0, 20).unwrap(), tensor(&[1, 20, bands(), PLANES], 9)], 1).unwrap();
        let score = |x: &Tensor| network.forward(x, None).unwrap().to_vec2::<f32>().unwrap();
        let (a, b) = (score(&x), score(&changed));
        assert_eq!(a[0][..10], b[0][..10]);
        assert_ne!(a[0][10..], b[0][10..]);
    }

    #[test]
    fn every_variable_gets_a_gradient() {
        let network = trained(&NetConfig::default());
        let grads = network.forward(&tensor(&[2, 40, bands(), PLANES], 3), None).unwrap();
        let grads = grads.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for (name, var) in network.vars() {
            let grad = grads.get(var.as_tensor());
            let size: f32 = grad.unwrap().sqr().unwrap().sum_all().unwrap().to_scalar().unwrap();
            assert!(size.is_finite() && size > 0.0, "{name}");
        }
    }

    #[test]
    fn the_network_keeps_to_its_budget() {
        let config = NetConfig::default();
        let parameters = config.parameters(bands());
        assert!(parameters <= 500_000, "{parameters}");
        // 40 spectral frames are a second.
        assert!(config.macs(40, bands()) <= 15_000_000, "{}", config.macs(40, bands()));
    }

    #[test]
    fn states_that_do_not_fit_are_an_error() {
        let network = served(&NetConfig::default());
        let mut short = vec![0.0; 10];
        assert!(network.advance(&tensor(&[1, 2, bands(), PLANES], 1), &mut [&mut short]).is_err());
        assert!(network.advance(&tensor(&[1, 2, bands(), PLANES], 1), &mut []).is_err());
    }
}
