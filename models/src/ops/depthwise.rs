//! Dilated depthwise convolution along time, causal: each channel has its own short filter over its past. Direct
//! form; the inner loop runs over contiguous channels.

use super::{read, slice};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// The op. Input `[batch, time, channels]`, weights `[taps, channels]`, the last tap on the present. The output has
/// `(taps − 1) · dilation − lead` frames fewer than the input.
#[derive(Debug, Clone, Copy)]
pub struct DepthwiseTime {
    /// Steps between taps.
    pub dilation: usize,
    /// Frames of zeros before the input: the whole reach at the start of a stream, none where the input itself
    /// begins with that many frames of the past.
    pub lead: usize,
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

    /// Output frames for `time` input frames.
    fn frames(&self, time: usize, taps: usize) -> usize {
        (time + self.lead).saturating_sub(taps.saturating_sub(1) * self.dilation)
    }

    /// Visits `(output time, input time, tap)` of every product inside the input.
    fn pairs(&self, time: usize, taps: usize, mut visit: impl FnMut(usize, usize, usize)) {
        for t in 0..self.frames(time, taps) {
            for tap in 0..taps {
                match (t + tap * self.dilation).checked_sub(self.lead) {
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
        let (batch, time, channels) = l1.shape().dims3()?;
        let (taps, width) = l2.shape().dims2()?;
        let frames = self.frames(time, taps);
        if width != channels || taps == 0 || x.is_empty() || frames == 0 {
            bail!("depthwise-time: weights {:?} do not fit input {:?}", l2.shape(), l1.shape());
        }
        let mut out = vec![0.0; batch * frames * channels];
        for (x, out) in x.chunks_exact(time * channels).zip(out.chunks_exact_mut(frames * channels)) {
            self.pairs(time, taps, |t, from, tap| {
                fused(
                    &mut out[t * channels..(t + 1) * channels],
                    &x[from * channels..(from + 1) * channels],
                    &w[tap * channels..(tap + 1) * channels],
                );
            });
        }
        Ok((CpuStorage::F32(out), Shape::from((batch, frames, channels))))
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
        let frames = self.frames(time, taps);
        let (x, w, g) = (read(input)?, read(weights)?, read(grad)?);
        let (x, w, g) = (x.get()?, w.get()?, g.get()?);
        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        let items = x.chunks_exact(time * channels).zip(g.chunks_exact(frames * channels));
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
    use crate::ops::values;

    #[test]
    fn results_equal_candles_own_grouped_convolution() {
        for dilation in [1, 2, 4] {
            let (x, w) = (tensor(&[2, 9, 3], 1), tensor(&[5, 3], 2));
            let got = DepthwiseTime { dilation, lead: 4 * dilation }.forward(&x, &w).unwrap();
            let nct = x.transpose(1, 2).unwrap().contiguous().unwrap();
            let kernel = w.t().unwrap().reshape((3, 1, 5)).unwrap().contiguous().unwrap();
            let nct = nct.pad_with_zeros(2, 4 * dilation, 0).unwrap();
            let want = nct.conv1d(&kernel, 0, 1, dilation, 3).unwrap();
            let want = want.transpose(1, 2).unwrap().contiguous().unwrap();
            for (a, b) in values(&got).unwrap().iter().zip(values(&want).unwrap()) {
                assert!((a - b).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        for (dilation, lead) in [(1, 4), (3, 12), (1, 0)] {
            let op = DepthwiseTime { dilation, lead };
            gradients(&[tensor(&[2, 7, 3], 1), tensor(&[5, 3], 2)], |t| op.forward(&t[0], &t[1]), 2e-3);
        }
    }
}
