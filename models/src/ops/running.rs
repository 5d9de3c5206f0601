//! Running mean along time, causal: how much each channel usually says. A plain mean at the start of a stream, one that
//! fades exponentially as soon as `limit` frames were heard.

use super::{read, slice};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// The op. Input `[batch, time, channels]` and what is remembered, `[batch, channels + 1]`: the means, then the number
/// of frames that they were taken over, zeros at the start of a stream. Output `[batch, time, channels]`: for each frame the
/// mean up to and with it.
#[derive(Debug, Clone, Copy)]
pub struct RunningMean {
    /// Frames over which the mean fades, at least 1.
    pub limit: usize,
}

impl RunningMean {
    /// Applies it; differentiable in the input.
    pub fn forward(self, input: &Tensor, memory: &Tensor) -> Result<Tensor> {
        input.contiguous()?.apply_op2(&memory.contiguous()?, self)
    }

    /// Applies it without recording a gradient.
    pub fn forward_no_gradient(self, input: &Tensor, memory: &Tensor) -> Result<Tensor> {
        input.apply_op2_no_bwd(memory, &self)
    }

    /// What is to be remembered after `output` of an input that followed `memory`.
    pub fn remember(self, output: &Tensor, memory: &Tensor) -> Result<Tensor> {
        let (_, time, channels) = output.dims3()?;
        let heard = (memory.narrow(1, channels, 1)? + time as f64)?.clamp(0.0, self.limit as f64)?;
        Tensor::cat(&[&output.narrow(1, time - 1, 1)?.squeeze(1)?, &heard], 1)
    }

    /// Weight of the newest frame where `before` frames were heard.
    fn newest(self, before: f32) -> f32 {
        1.0 / (before + 1.0).clamp(1.0, self.limit.max(1) as f32)
    }
}

impl CustomOp2 for RunningMean {
    fn name(&self) -> &'static str {
        "running-mean"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, memory) = (slice("running-mean", s1, l1)?, slice("running-mean", s2, l2)?);
        let (batch, time, channels) = l1.shape().dims3()?;
        if l2.shape().dims() != [batch, channels + 1] || x.is_empty() {
            bail!("running-mean: memory {:?} does not fit input {:?}", l2.shape(), l1.shape());
        }
        let mut out = Vec::with_capacity(x.len());
        for (x, memory) in x.chunks_exact(time * channels).zip(memory.chunks_exact(channels + 1)) {
            let (mut mean, heard) = (memory[..channels].to_vec(), memory[channels]);
            for (t, frame) in x.chunks_exact(channels).enumerate() {
                let newest = self.newest(heard + t as f32);
                mean.iter_mut().zip(frame).for_each(|(m, x)| *m += newest * (x - *m));
                out.extend_from_slice(&mean);
            }
        }
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        memory: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, time, channels) = input.dims3()?;
        let (g, memory) = (read(grad)?, read(memory)?);
        let (g, memory) = (g.get()?, memory.get()?);
        let mut dx = vec![0.0; g.len()];
        let items = g.chunks_exact(time * channels).zip(memory.chunks_exact(channels + 1));
        for ((g, memory), dx) in items.zip(dx.chunks_exact_mut(time * channels)) {
            let mut total = vec![0.0; channels];
            for t in (0..time).rev() {
                let newest = self.newest(memory[channels] + t as f32);
                let frame = t * channels..(t + 1) * channels;
                for ((total, g), dx) in total.iter_mut().zip(&g[frame.clone()]).zip(&mut dx[frame]) {
                    *total += g;
                    *dx = newest * *total;
                    *total *= 1.0 - newest;
                }
            }
        }
        Ok((Some(Tensor::from_vec(dx, input.shape(), input.device())?), None))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ops::check::{gradients, tensor};
    use candle_core::{DType, Device};

    fn nothing(batch: usize, channels: usize) -> Tensor {
        Tensor::zeros((batch, channels + 1), DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let op = RunningMean { limit: 4 };
        gradients(&[tensor(&[2, 9, 3], 1)], |t| op.forward(&t[0], &nothing(2, 3)), 2e-3);
    }

    #[test]
    fn it_is_a_mean_at_first_and_fades_then() {
        let x = Tensor::from_vec(vec![3.0f32, 5.0, 1.0, 7.0], (1, 4, 1), &Device::Cpu).unwrap();
        let y = RunningMean { limit: 3 }.forward(&x, &nothing(1, 1)).unwrap();
        let y = y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(y[..3], [3.0, 4.0, 3.0]);
        assert!((y[3] - (3.0 + (7.0 - 3.0) / 3.0)).abs() < 1e-6);
    }

    #[test]
    fn what_is_remembered_goes_on_where_the_input_ended() {
        let op = RunningMean { limit: 4 };
        let x = tensor(&[2, 9, 3], 1);
        let whole = op.forward(&x, &nothing(2, 3)).unwrap();
        let (mut memory, mut at) = (nothing(2, 3), 0);
        for frames in [1, 2, 5, 1] {
            let piece = x.narrow(1, at, frames).unwrap().contiguous().unwrap();
            let y = op.forward_no_gradient(&piece, &memory).unwrap();
            let wanted = whole.narrow(1, at, frames).unwrap().contiguous().unwrap();
            assert_eq!(y.to_vec3::<f32>().unwrap(), wanted.to_vec3::<f32>().unwrap());
            memory = op.remember(&y, &memory).unwrap();
            at += frames;
        }
    }

    #[test]
    fn a_memory_that_does_not_fit_is_an_error() {
        let op = RunningMean { limit: 4 };
        assert!(op.forward(&tensor(&[2, 4, 3], 1), &nothing(2, 2)).is_err());
        assert!(op.forward(&tensor(&[2, 4, 3], 1), &nothing(1, 3)).is_err());
    }
}
