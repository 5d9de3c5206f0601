//! Dilated depthwise convolution along time: each channel has its own short filter. Direct form; the inner loop
//! runs over contiguous channels.

use super::{slice, values};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// The op. Input `[batch, time, channels]`, weights `[taps, channels]` with an odd number of taps; the output
/// has the input's shape, with zeros beyond both ends.
#[derive(Debug, Clone, Copy)]
pub struct DepthwiseTime {
    /// Steps between taps.
    pub dilation: usize,
}

impl DepthwiseTime {
    /// Applies it; differentiable in both operands.
    pub fn forward(self, input: &Tensor, weights: &Tensor) -> Result<Tensor> {
        input.contiguous()?.apply_op2(&weights.contiguous()?, self)
    }

    /// Applies it without recording a gradient.
    pub fn forward_no_gradient(self, input: &Tensor, weights: &Tensor) -> Result<Tensor> {
        input.apply_op2_no_bwd(weights, &self)
    }

    /// Visits `(output time, input time, tap)` of every product inside the input.
    fn pairs(&self, time: usize, taps: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let reach = taps / 2 * self.dilation;
        for t in 0..time {
            for tap in 0..taps {
                match (t + tap * self.dilation).checked_sub(reach) {
                    Some(from) if from < time => visit(t, from, tap),
                    _ => {}
                }
            }
        }
    }
}

/// `sum += a * b`, element by element.
fn fused(sum: &mut [f32], a: &[f32], b: &[f32]) {
    for ((s, a), b) in sum.iter_mut().zip(a).zip(b) {
        *s += a * b;
    }
}

impl CustomOp2 for DepthwiseTime {
    fn name(&self) -> &'static str {
        "depthwise-time"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (slice("depthwise-time", s1, l1)?, slice("depthwise-time", s2, l2)?);
        let (_, time, channels) = l1.shape().dims3()?;
        let (taps, width) = l2.shape().dims2()?;
        if width != channels || taps % 2 == 0 || x.is_empty() {
            bail!("depthwise-time: weights {:?} do not fit input {:?}", l2.shape(), l1.shape());
        }
        let mut out = vec![0.0; x.len()];
        for (x, out) in x.chunks_exact(time * channels).zip(out.chunks_exact_mut(time * channels)) {
            self.pairs(time, taps, |t, from, tap| {
                fused(
                    &mut out[t * channels..(t + 1) * channels],
                    &x[from * channels..(from + 1) * channels],
                    &w[tap * channels..(tap + 1) * channels],
                );
            });
        }
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weights: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, time, channels) = input.dims3()?;
        let taps = weights.dim(0)?;
        let (x, w, g) = (values(input)?, values(weights)?, values(grad)?);
        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        let items = x.chunks_exact(time * channels).zip(g.chunks_exact(time * channels));
        for ((x, g), dx) in items.zip(dx.chunks_exact_mut(time * channels)) {
            self.pairs(time, taps, |t, from, tap| {
                let g = &g[t * channels..(t + 1) * channels];
                let at = from * channels..(from + 1) * channels;
                let tap = tap * channels..(tap + 1) * channels;
                fused(&mut dx[at.clone()], g, &w[tap.clone()]);
                fused(&mut dw[tap], g, &x[at]);
            });
        }
        Ok((
            Some(Tensor::from_vec(dx, input.shape(), input.device())?),
            Some(Tensor::from_vec(dw, weights.shape(), weights.device())?),
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ops::check::{gradients, tensor};

    #[test]
    fn results_equal_candles_own_grouped_convolution() {
        for dilation in [1, 2, 4] {
            let (x, w) = (tensor(&[2, 9, 3], 1), tensor(&[5, 3], 2));
            let got = DepthwiseTime { dilation }.forward(&x, &w).unwrap();
            let nct = x.transpose(1, 2).unwrap().contiguous().unwrap();
            let kernel = w.t().unwrap().reshape((3, 1, 5)).unwrap().contiguous().unwrap();
            let want = nct.conv1d(&kernel, 2 * dilation, 1, dilation, 3).unwrap();
            let want = want.transpose(1, 2).unwrap().contiguous().unwrap();
            for (a, b) in values(&got).unwrap().iter().zip(values(&want).unwrap()) {
                assert!((a - b).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        for dilation in [1, 3] {
            let op = DepthwiseTime { dilation };
            gradients(&[tensor(&[2, 7, 3], 1), tensor(&[5, 3], 2)], |t| op.forward(&t[0], &t[1]), 2e-3);
        }
    }
}
