//! The network: a few convolutions over time × mel that shrink the frequency axis, then dilated residual blocks
//! along time, then one logit per score frame. The same layers run in training (batch normalisation, gradients)
//! and in serving (normalisation folded into weights and bias).

use crate::frontend::PLANES;
use crate::ops::{Add, BatchNormRelu, Conv2d, Conv2dShape, DepthwiseTime, EPSILON, RunningStats};
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
    /// Kernel along time and frequency, odd.
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
    /// Taps of the temporal filters, odd.
    pub taps: usize,
    /// Dilation of each temporal block, in score frames.
    pub dilations: Vec<usize>,
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
            taps: 5,
            dilations: vec![1, 2, 4, 8],
        }
    }
}

impl NetConfig {
    /// Says what is out of range, if anything; bounds keep a hostile file from asking for huge tensors.
    pub fn check(&self) -> std::result::Result<(), String> {
        let odd = |n: usize| n % 2 == 1 && n <= 15;
        if self.convs.is_empty() || self.convs.len() > 12 || self.dilations.len() > 16 {
            return Err("network: needs 1 to 12 convolutions and at most 16 temporal blocks".into());
        }
        for c in &self.convs {
            let strides = (1..=4).contains(&c.stride.0) && (1..=4).contains(&c.stride.1);
            if !(1..=512).contains(&c.channels) || !odd(c.kernel.0) || !odd(c.kernel.1) || !strides {
                return Err(format!("network: convolution out of range: {c:?}"));
            }
        }
        if !(1..=1024).contains(&self.width) || !odd(self.taps) {
            return Err(format!("network: width {} or taps {} out of range", self.width, self.taps));
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

    fn conv_shapes(&self, frames: usize, mels: usize) -> Vec<Conv2dShape> {
        let mut input = (frames, mels, PLANES);
        self.convs
            .iter()
            .map(|c| {
                let shape = Conv2dShape { input, channels: c.channels, kernel: c.kernel, stride: c.stride };
                input = shape.output();
                shape
            })
            .collect()
    }

    fn pointwise(&self, time: usize, channels: usize) -> Conv2dShape {
        Conv2dShape { input: (time, 1, channels), channels: self.width, kernel: (1, 1), stride: (1, 1) }
    }

    /// Score frames and channels after the convolutions, with frequency folded into the channels.
    fn flattened(&self, frames: usize, mels: usize) -> (usize, usize) {
        let (t, f, c) = self.conv_shapes(frames, mels).last().map_or((0, 0, 0), Conv2dShape::output);
        (t, f * c)
    }

    /// Every layer's name and weight shape, in order; layers marked `true` have a normalisation (training) or a
    /// bias (serving).
    fn layout(&self, frames: usize, mels: usize) -> Vec<(String, [usize; 2], bool)> {
        let mut all = Vec::new();
        for (i, s) in self.conv_shapes(frames, mels).iter().enumerate() {
            all.push((format!("conv{i}"), [s.fan_in(), s.channels], true));
        }
        all.push(("project".into(), [self.flattened(frames, mels).1, self.width], true));
        for i in 0..self.dilations.len() {
            all.push((format!("block{i}.time"), [self.taps, self.width], false));
            all.push((format!("block{i}.mix"), [self.width, self.width], true));
        }
        all.push(("head".into(), [self.width, 1], false));
        all
    }

    /// Names and shapes of the tensors of a serving file.
    pub fn serving_layout(&self, frames: usize, mels: usize) -> Vec<(String, Vec<usize>)> {
        let mut all = Vec::new();
        for (name, shape, biased) in self.layout(frames, mels) {
            all.push((format!("{name}.weight"), shape.to_vec()));
            if biased {
                all.push((format!("{name}.bias"), vec![shape[1]]));
            }
        }
        all.push(("head.bias".into(), vec![1]));
        all
    }

    /// Learned values of the serving network.
    pub fn parameters(&self, frames: usize, mels: usize) -> usize {
        self.serving_layout(frames, mels).iter().map(|(_, s)| s.iter().product::<usize>()).sum()
    }

    /// Multiply-accumulates for one window.
    pub fn macs(&self, frames: usize, mels: usize) -> usize {
        let (time, flat) = self.flattened(frames, mels);
        let convs: usize = self.conv_shapes(frames, mels).iter().map(Conv2dShape::macs).sum();
        let block = time * self.width * (self.taps + self.width);
        convs + time * flat * self.width + self.dilations.len() * block + time * self.width
    }
}

/// Weights of one layer in the form its mode needs.
#[derive(Debug, Clone)]
enum Layer {
    Plain { weight: Tensor },
    Folded { weight: Tensor, bias: Tensor },
    Normalised { weight: Tensor, scale: Tensor, shift: Tensor, stats: Arc<Mutex<RunningStats>> },
}

/// Momentum of the running statistics.
const MOMENTUM: f32 = 0.02;

/// The network with weights, for serving or for training.
#[derive(Debug, Clone)]
pub struct Network {
    config: NetConfig,
    frames: usize,
    mels: usize,
    layers: BTreeMap<String, Layer>,
    head_bias: Tensor,
    /// What learns, by name; empty when serving.
    vars: BTreeMap<String, Var>,
}

impl Network {
    /// A serving network from the tensors of [`NetConfig::serving_layout`].
    pub fn serving(
        config: &NetConfig,
        frames: usize,
        mels: usize,
        tensors: &BTreeMap<String, Vec<f32>>,
    ) -> Result<Self> {
        let mut held = HashMap::new();
        for (name, shape) in config.serving_layout(frames, mels) {
            let Some(data) = tensors.get(&name) else { bail!("tensor {name} is missing") };
            held.insert(name, Tensor::from_slice(data, shape, &Device::Cpu)?);
        }
        let weights = VarBuilder::from_tensors(held, DType::F32, &Device::Cpu);
        let mut layers = BTreeMap::new();
        for (name, shape, biased) in config.layout(frames, mels) {
            let at = weights.pp(&name);
            let weight = at.get(&shape[..], "weight")?;
            let layer = if biased {
                Layer::Folded { weight, bias: at.get(&shape[1..], "bias")? }
            } else {
                Layer::Plain { weight }
            };
            layers.insert(name, layer);
        }
        let head_bias = weights.pp("head").get(1, "bias")?;
        Ok(Self { config: config.clone(), frames, mels, layers, head_bias, vars: BTreeMap::new() })
    }

    /// A network that learns; `normal` draws from the standard normal distribution, and the weights of each
    /// layer are scaled by its fan-in (He et al., 2015).
    pub fn training(
        config: &NetConfig,
        frames: usize,
        mels: usize,
        mut normal: impl FnMut() -> f32,
    ) -> Result<Self> {
        let mut vars = BTreeMap::new();
        let mut layers = BTreeMap::new();
        for (name, shape, normalised) in config.layout(frames, mels) {
            let deviation = (2.0 / shape[0] as f32).sqrt() * if name == "head" { 0.3 } else { 1.0 };
            let draw: Vec<f32> = (0..shape[0] * shape[1]).map(|_| normal() * deviation).collect();
            let mut var = |suffix: &str, data: Vec<f32>, shape: &[usize]| -> Result<Tensor> {
                let var = Var::from_tensor(&Tensor::from_vec(data, shape, &Device::Cpu)?)?;
                let tensor = var.as_tensor().clone();
                vars.insert(format!("{name}.{suffix}"), var);
                Ok(tensor)
            };
            let weight = var("weight", draw, &shape)?;
            let layer = if normalised {
                // Residual branches start small so that the blocks begin close to the identity.
                let start = if name.ends_with(".mix") { 0.3 } else { 1.0 };
                Layer::Normalised {
                    weight,
                    scale: var("scale", vec![start; shape[1]], &shape[1..])?,
                    shift: var("shift", vec![0.0; shape[1]], &shape[1..])?,
                    stats: Arc::new(Mutex::new(RunningStats::new(shape[1]))),
                }
            } else {
                Layer::Plain { weight }
            };
            layers.insert(name, layer);
        }
        // Crying is rare: starting near its prior saves the first hundred steps.
        let head = Var::from_tensor(&Tensor::from_vec(vec![-1.5f32], 1, &Device::Cpu)?)?;
        let head_bias = head.as_tensor().clone();
        vars.insert("head.bias".into(), head);
        Ok(Self { config: config.clone(), frames, mels, layers, head_bias, vars })
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
        for (name, _, normalised) in self.config.layout(self.frames, self.mels) {
            let mut weight = get(format!("{name}.weight"))?;
            if normalised {
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
        out.insert("head.bias".into(), get("head.bias".into())?);
        Ok(out)
    }

    fn layer(&self, name: &str) -> Result<&Layer> {
        match self.layers.get(name) {
            Some(layer) => Ok(layer),
            None => bail!("layer {name} is missing"),
        }
    }

    fn convolve(&self, name: &str, shape: Conv2dShape, first: bool, x: &Tensor) -> Result<Tensor> {
        let op = Conv2d { shape, input_gradient: !first };
        match self.layer(name)? {
            Layer::Folded { weight, bias } => op.forward_relu(x, weight, bias),
            Layer::Normalised { weight, scale, shift, stats } => {
                let norm = BatchNormRelu { stats: Arc::clone(stats), momentum: MOMENTUM };
                norm.forward(&op.forward(x, weight)?, scale, shift)
            }
            Layer::Plain { weight } => op.forward(x, weight),
        }
    }

    /// Logits `[batch, score frames]` of features `[batch, frames, mels, planes]`.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let batch = features.dim(0)?;
        let mut x = features.clone();
        for (i, shape) in self.config.conv_shapes(self.frames, self.mels).into_iter().enumerate() {
            x = self.convolve(&format!("conv{i}"), shape, i == 0, &x)?;
        }
        let (time, flat) = self.config.flattened(self.frames, self.mels);
        let width = self.config.width;
        let x = x.reshape((batch, time, 1, flat))?;
        let x = self.convolve("project", self.config.pointwise(time, flat), false, &x)?;
        let mut x = x.reshape((batch, time, width))?;
        for (i, &dilation) in self.config.dilations.iter().enumerate() {
            let op = DepthwiseTime { dilation };
            let y = match self.layer(&format!("block{i}.time"))? {
                Layer::Plain { weight } if self.vars.is_empty() => op.forward_no_gradient(&x, weight)?,
                Layer::Plain { weight } => op.forward(&x, weight)?,
                _ => bail!("block{i}.time is no plain layer"),
            };
            let y = y.reshape((batch, time, 1, width))?;
            let y = self.convolve(&format!("block{i}.mix"), self.config.pointwise(time, width), false, &y)?;
            x = Add.forward(&x, &y.reshape((batch, time, width))?)?;
        }
        let shape = Conv2dShape { input: (time, 1, width), channels: 1, kernel: (1, 1), stride: (1, 1) };
        let logits = self.convolve("head", shape, false, &x.reshape((batch, time, 1, width))?)?;
        logits.reshape((batch, time))?.broadcast_add(&self.head_bias)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ops::check::{pseudo, tensor};

    fn values(network: &Network) -> BTreeMap<String, Vec<f32>> {
        let flat = |v: &Var| v.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        network.vars().iter().map(|(name, v)| (name.clone(), flat(v))).collect()
    }

    #[test]
    fn folded_network_equals_the_trained_one() {
        let config = NetConfig::default();
        let mut draws = pseudo(200_000, 5).into_iter();
        let network = Network::training(&config, 120, 64, || draws.next().unwrap() * 1.7).unwrap();
        let x = tensor(&[4, 120, 64, PLANES], 3);
        // One batch seen often enough makes the running statistics its own.
        let mut logits = network.forward(&x).unwrap();
        for _ in 0..400 {
            logits = network.forward(&x).unwrap();
        }
        let folded = network.fold(&values(&network), &network.stats()).unwrap();
        let serving = Network::serving(&config, 120, 64, &folded).unwrap();
        let served = serving.forward(&x).unwrap();
        assert_eq!(served.dims(), [4, 60]);
        let (a, b) = (logits.to_vec2::<f32>().unwrap(), served.to_vec2::<f32>().unwrap());
        for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
            assert!((a - b).abs() < 2e-2, "{a} {b}");
        }
    }

    #[test]
    fn every_variable_gets_a_gradient() {
        let mut draws = pseudo(200_000, 6).into_iter();
        let config = NetConfig::default();
        let network = Network::training(&config, 120, 64, || draws.next().unwrap()).unwrap();
        let grads = network.forward(&tensor(&[2, 120, 64, PLANES], 3)).unwrap();
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
        let parameters = config.parameters(120, 64);
        assert!((80_000..150_000).contains(&parameters), "{parameters}");
        assert!(config.macs(120, 64) < 30_000_000, "{}", config.macs(120, 64));
    }
}
