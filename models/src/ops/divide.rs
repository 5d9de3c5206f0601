//! Divisive normalisation (Carandini and Heeger, 2012): what a channel says, over how much it usually says.

use super::{read, slice};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

/// The op. Input `x [batch, time, channels]`, what each channel usually says by several clocks `means [batch, time,
/// clocks × channels]`, and `gains [clocks, channels]`. Output `x / (1 + Σ gains² · means)`, the sum over clocks; means below
/// zero count as zero.
#[derive(Debug, Clone, Copy)]
pub struct Divide;

/// Values of the operands of one call, whose shapes fit each other.
struct Operands<'a> {
    x: &'a [f32],
    means: &'a [f32],
    gains: &'a [f32],
    channels: usize,
    clocks: usize,
}

impl<'a> Operands<'a> {
    fn new(values: [&'a [f32]; 3], shapes: [&Shape; 3]) -> Result<Self> {
        let [(batch, time, channels), of_means] = [shapes[0].dims3()?, shapes[1].dims3()?];
        let (clocks, width) = shapes[2].dims2()?;
        if width != channels || channels == 0 || of_means != (batch, time, clocks * channels) {
            bail!("divide: {:?} and {:?} do not fit {:?}", shapes[1], shapes[2], shapes[0]);
        }
        let [x, means, gains] = values;
        Ok(Self { x, means, gains, channels, clocks })
    }

    /// Visits each value of `x` with what it is divided by, its place, its channel, and the place of its first mean.
    fn each(&self, mut visit: impl FnMut(f32, f32, usize, usize, usize)) {
        for (frame, x) in self.x.chunks_exact(self.channels).enumerate() {
            let means = frame * self.clocks * self.channels;
            for (channel, &x) in x.iter().enumerate() {
                let below = (0..self.clocks).map(|clock| {
                    let at = clock * self.channels + channel;
                    self.gains[at] * self.gains[at] * self.means[means + at].max(0.0)
                });
                visit(x, 1.0 + below.sum::<f32>(), frame * self.channels + channel, channel, means + channel);
            }
        }
    }
}

impl Divide {
    /// Applies it; differentiable in all three operands.
    pub fn forward(self, x: &Tensor, means: &Tensor, gains: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op3(&means.contiguous()?, &gains.contiguous()?, self)
    }

    /// Applies it without recording a gradient.
    pub fn forward_no_gradient(self, x: &Tensor, means: &Tensor, gains: &Tensor) -> Result<Tensor> {
        x.apply_op3_no_bwd(means, gains, &self)
    }
}

impl CustomOp3 for Divide {
    fn name(&self) -> &'static str {
        "divide"
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
        let values = [slice("divide", s1, l1)?, slice("divide", s2, l2)?, slice("divide", s3, l3)?];
        let all = Operands::new(values, [l1.shape(), l2.shape(), l3.shape()])?;
        let mut out = Vec::with_capacity(all.x.len());
        all.each(|x, below, _, _, _| out.push(x / below));
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        means: &Tensor,
        gains: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let held = [read(x)?, read(means)?, read(gains)?, read(grad)?];
        let values = [held[0].get()?, held[1].get()?, held[2].get()?];
        let all = Operands::new(values, [x.shape(), means.shape(), gains.shape()])?;
        let grad = held[3].get()?;
        let mut dx = vec![0.0; all.x.len()];
        let (mut dmeans, mut dgains) = (vec![0.0; all.means.len()], vec![0.0; all.gains.len()]);
        all.each(|x, below, at, channel, first| {
            let g = grad[at] / below;
            dx[at] = g;
            let dbelow = -g * x / below;
            for clock in 0..all.clocks {
                let (place, mean) = (clock * all.channels + channel, first + clock * all.channels);
                if all.means[mean] > 0.0 {
                    dmeans[mean] = dbelow * all.gains[place] * all.gains[place];
                    dgains[place] += dbelow * 2.0 * all.gains[place] * all.means[mean];
                }
            }
        });
        let back = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device()).map(Some);
        Ok((back(dx, x)?, back(dmeans, means)?, back(dgains, gains)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ops::check::{gradients, tensor};
    use candle_core::Device;

    #[test]
    fn gradients_equal_finite_differences() {
        // Means away from zero, where the division bends.
        let means = (tensor(&[2, 3, 8], 2) + 1.5).unwrap();
        let inputs = [tensor(&[2, 3, 4], 1), means, tensor(&[2, 4], 3)];
        gradients(&inputs, |t| Divide.forward(&t[0], &t[1], &t[2]), 2e-3);
    }

    #[test]
    fn a_channel_is_divided_by_what_it_usually_says_and_never_by_less_than_one() {
        let new = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        let x = new(&[6.0, 6.0], &[1, 1, 2]);
        // Two clocks: means 1 and 3 of the first channel, -9 and 0 of the second.
        let (means, gains) = (new(&[1.0, -9.0, 3.0, 0.0], &[1, 1, 4]), new(&[1.0, 1.0, -2.0, 5.0], &[2, 2]));
        let y = Divide.forward_no_gradient(&x, &means, &gains).unwrap();
        assert_eq!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [6.0 / (1.0 + 1.0 + 12.0), 6.0]);
    }

    #[test]
    fn operands_that_do_not_fit_are_an_error() {
        let (x, gains) = (tensor(&[2, 3, 4], 1), tensor(&[2, 4], 3));
        for means in [[2, 3, 4], [2, 2, 8], [1, 3, 8]] {
            assert!(Divide.forward(&x, &tensor(&means, 2), &gains).is_err());
        }
        assert!(Divide.forward(&x, &tensor(&[2, 3, 8], 2), &tensor(&[2, 3], 3)).is_err());
    }
}
