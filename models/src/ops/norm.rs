//! Batch normalisation followed by a ReLU, for training only: for serving both are folded into the layer
//! before. The statistics run over everything but the last axis (Ioffe and Szegedy, 2015).

use super::{read, slice};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::{Arc, Mutex, PoisonError};

/// Added to the variance.
pub const EPSILON: f32 = 1e-3;

/// Exponentially averaged mean and variance of each channel, for folding.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningStats {
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Variance of each channel.
    pub variance: Vec<f32>,
}

impl RunningStats {
    /// Mean 0, variance 1.
    pub fn new(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], variance: vec![1.0; channels] }
    }
}

/// The op: `relu(scale · (x − mean) / deviation + shift)`. Input `[…, channels]`, scale and shift `[channels]`.
#[derive(Debug, Clone)]
pub struct BatchNormRelu {
    /// Updated by every forward pass.
    pub stats: Arc<Mutex<RunningStats>>,
    /// Weight of the newest batch in the running statistics.
    pub momentum: f32,
}

impl BatchNormRelu {
    /// Applies it; differentiable in all three operands.
    pub fn forward(self, input: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
        input.contiguous()?.apply_op3(&scale.contiguous()?, &shift.contiguous()?, self)
    }
}

/// Mean and variance of each channel. Sums run in `f32` over short blocks and in `f64` over the blocks.
fn moments(x: &[f32], channels: usize) -> (Vec<f32>, Vec<f32>) {
    let rows = (x.len() / channels).max(1) as f64;
    let mut sum = vec![0.0f64; channels];
    let mut square = vec![0.0f64; channels];
    let (mut s, mut q) = (vec![0.0f32; channels], vec![0.0f32; channels]);
    for block in x.chunks(channels * 256) {
        s.fill(0.0);
        q.fill(0.0);
        for row in block.chunks_exact(channels) {
            for ((s, q), x) in s.iter_mut().zip(&mut q).zip(row) {
                *s += x;
                *q += x * x;
            }
        }
        for c in 0..channels {
            sum[c] += f64::from(s[c]);
            square[c] += f64::from(q[c]);
        }
    }
    let mean: Vec<f64> = sum.iter().map(|s| s / rows).collect();
    let variance = square.iter().zip(&mean).map(|(q, m)| (q / rows - m * m).max(0.0) as f32).collect();
    (mean.iter().map(|&m| m as f32).collect(), variance)
}

impl CustomOp3 for BatchNormRelu {
    fn name(&self) -> &'static str {
        "batch-norm-relu"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let name = "batch-norm-relu";
        let (x, scale, shift) = (slice(name, s1, l1)?, slice(name, s2, l2)?, slice(name, s3, l3)?);
        let channels = scale.len();
        if channels == 0 || shift.len() != channels || l1.dims().last() != Some(&channels) {
            bail!("batch-norm-relu: {channels} channels do not fit input {:?}", l1.shape());
        }
        let (mean, variance) = moments(x, channels);
        let gain: Vec<f32> = scale.iter().zip(&variance).map(|(g, v)| g / (v + EPSILON).sqrt()).collect();
        let bias: Vec<f32> = shift.iter().zip(&mean).zip(&gain).map(|((b, m), g)| b - m * g).collect();
        let mut out = vec![0.0; x.len()];
        for (row, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
            for (((o, x), g), b) in out.iter_mut().zip(row).zip(&gain).zip(&bias) {
                *o = (x * g + b).max(0.0);
            }
        }
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        for (old, new) in stats.mean.iter_mut().zip(&mean) {
            *old += self.momentum * (new - *old);
        }
        for (old, new) in stats.variance.iter_mut().zip(&variance) {
            *old += self.momentum * (new - *old);
        }
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x, gamma, y, g) = (read(input)?, read(scale)?, read(res)?, read(grad)?);
        let (x, gamma, y, mut g) = (x.get()?, gamma.get()?, y.get()?, g.get()?.to_vec());
        let channels = gamma.len();
        let rows = (x.len() / channels).max(1) as f32;
        let (mean, variance) = moments(x, channels);
        let inverse: Vec<f32> = variance.iter().map(|v| 1.0 / (v + EPSILON).sqrt()).collect();
        let (mut d_scale, mut d_shift) = (vec![0.0f64; channels], vec![0.0f64; channels]);
        let (mut a, mut b) = (vec![0.0f32; channels], vec![0.0f32; channels]);
        let block = channels * 256;
        for ((g, x), y) in g.chunks_mut(block).zip(x.chunks(block)).zip(y.chunks(block)) {
            a.fill(0.0);
            b.fill(0.0);
            let rows = g.chunks_exact_mut(channels).zip(x.chunks_exact(channels));
            for ((g, x), y) in rows.zip(y.chunks_exact(channels)) {
                let sums = a.iter_mut().zip(&mut b).zip(&mean);
                for (((g, x), y), ((a, b), mean)) in g.iter_mut().zip(x).zip(y).zip(sums) {
                    // Slope 0 where the ReLU is closed.
                    *g = if *y > 0.0 { *g } else { 0.0 };
                    *a += *g * (x - mean);
                    *b += *g;
                }
            }
            for c in 0..channels {
                d_scale[c] += f64::from(a[c] * inverse[c]);
                d_shift[c] += f64::from(b[c]);
            }
        }
        // dx = gamma/deviation · (g − mean(g) − normalised x · mean(g · normalised x))
        let gain: Vec<f32> = gamma.iter().zip(&inverse).map(|(g, i)| g * i).collect();
        let centre: Vec<f32> = d_shift.iter().map(|&d| d as f32 / rows).collect();
        let slope: Vec<f32> = d_scale.iter().zip(&inverse).map(|(&d, i)| d as f32 / rows * i).collect();
        // The same as gain · g + offset − x · tilt, with what depends on the channel alone computed once.
        let tilt: Vec<f32> = gain.iter().zip(&slope).map(|(g, s)| g * s).collect();
        let offset: Vec<f32> =
            gain.iter().zip(&centre).zip(&tilt).zip(&mean).map(|(((g, c), t), m)| t * m - g * c).collect();
        for (g, x) in g.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            let constants = gain.iter().zip(&offset).zip(&tilt);
            for ((g, x), ((gain, offset), tilt)) in g.iter_mut().zip(x).zip(constants) {
                *g = gain * *g + offset - x * tilt;
            }
        }
        let small = |v: Vec<f64>, like: &Tensor| {
            let v: Vec<f32> = v.into_iter().map(|x| x as f32).collect();
            Tensor::from_vec(v, like.shape(), like.device())
        };
        Ok((
            Some(Tensor::from_vec(g, input.shape(), input.device())?),
            Some(small(d_scale, scale)?),
            Some(small(d_shift, shift)?),
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ops::check::{gradients, tensor};
    use crate::ops::values;

    fn op() -> BatchNormRelu {
        BatchNormRelu { stats: Arc::new(Mutex::new(RunningStats::new(4))), momentum: 1.0 }
    }

    #[test]
    fn output_is_normalised_and_statistics_are_kept() {
        let x = ((tensor(&[5, 40, 4], 1) * 3.0).unwrap() + 7.0).unwrap();
        let ones = Tensor::ones(4, candle_core::DType::F32, x.device()).unwrap();
        let norm = op();
        let y = norm.clone().forward(&x, &ones, &(&ones * 10.0).unwrap()).unwrap();
        let (mean, variance) = moments(&values(&y).unwrap(), 4);
        for c in 0..4 {
            assert!((mean[c] - 10.0).abs() < 1e-3 && (variance[c] - 1.0).abs() < 1e-2);
        }
        let stats = norm.stats.lock().unwrap();
        assert!(stats.mean.iter().all(|m| (m - 7.0).abs() < 0.6), "{stats:?}");
        assert!(stats.variance.iter().all(|v| (v - 3.0).abs() < 1.0), "{stats:?}");
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let shift = (tensor(&[4], 3) + 5.0).unwrap();
        let inputs = [tensor(&[2, 9, 4], 1), tensor(&[4], 2), shift];
        gradients(&inputs, |t| op().forward(&t[0], &t[1], &t[2]), 1e-2);
    }
}
