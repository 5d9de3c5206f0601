//! Two-dimensional convolution over channel-last data (time × frequency × channel) by im2col and matrix products,
//! causal along time; a 1×1 kernel skips the copy. With a bias, the bias and a ReLU are fused in (serving);
//! without one it has a gradient (training).

use super::matmul::{Matrix, multiply};
use super::{read, slice};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::ops::Range;

/// Values of the im2col matrix that are made at a time: as many as stay in a core's cache.
const BLOCK: usize = 48 * 1024;

/// Sizes of one convolution. Along frequency the padding is half the kernel on each side ("same" at stride 1);
/// along time an output sees only what came before: `lead` frames of zeros stand before the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dShape {
    /// Input (time, frequency, channels).
    pub input: (usize, usize, usize),
    /// Output channels.
    pub channels: usize,
    /// Kernel (time, frequency); odd along frequency.
    pub kernel: (usize, usize),
    /// Stride (time, frequency).
    pub stride: (usize, usize),
    /// Frames of zeros before the input: kernel − stride at the start of a stream, none where the input itself
    /// begins with that many frames of the past.
    pub lead: usize,
}

impl Conv2dShape {
    /// Output (time, frequency, channels).
    pub fn output(&self) -> (usize, usize, usize) {
        let time = (self.lead + self.input.0 + self.stride.0).saturating_sub(self.kernel.0) / self.stride.0;
        (time, self.input.1.div_ceil(self.stride.1), self.channels)
    }

    /// Values under the kernel for one output point.
    pub fn fan_in(&self) -> usize {
        self.kernel.0 * self.kernel.1 * self.input.2
    }

    /// Multiply-accumulates for one item.
    pub fn macs(&self) -> usize {
        let (t, f, c) = self.output();
        t * f * c * self.fan_in()
    }

    fn input_len(&self) -> usize {
        self.input.0 * self.input.1 * self.input.2
    }

    fn points(&self) -> usize {
        let (t, f, _) = self.output();
        t * f
    }

    fn is_pointwise(&self) -> bool {
        self.kernel == (1, 1) && self.stride == (1, 1)
    }

    /// Output times that are computed at once.
    fn block(&self) -> usize {
        let (_, out_f, _) = self.output();
        (BLOCK / (out_f * self.fan_in()).max(1)).max(1)
    }

    /// Visits every stretch of the im2col rows of output times `times` that lies inside the input: `(column
    /// offset, input offset, length)`. What it leaves out is padding.
    fn stretches(&self, times: Range<usize>, mut visit: impl FnMut(usize, usize, usize)) {
        let (in_t, in_f, c) = self.input;
        let (_, out_f, _) = self.output();
        let (kt, kf) = self.kernel;
        let fan_in = self.fan_in();
        for t in times.clone() {
            for f in 0..out_f {
                let row = ((t - times.start) * out_f + f) * fan_in;
                // First input column under the kernel may lie left of the input.
                let left = f * self.stride.1;
                let skip = (kf / 2).saturating_sub(left);
                let first = (left + skip) - (kf / 2).min(left + skip);
                let run = (kf - skip).min(in_f.saturating_sub(first));
                for dt in 0..kt {
                    let Some(at) = (t * self.stride.0 + dt).checked_sub(self.lead) else { continue };
                    if at < in_t {
                        visit(row + (dt * kf + skip) * c, (at * in_f + first) * c, run * c);
                    }
                }
            }
        }
    }

    /// Calls `work(output times, im2col rows)` block by block; padding in the rows is zero.
    fn blocks(&self, input: &[f32], columns: &mut Vec<f32>, mut work: impl FnMut(Range<usize>, &[f32])) {
        let (out_t, out_f, _) = self.output();
        let row = out_f * self.fan_in();
        for start in (0..out_t).step_by(self.block()) {
            let times = start..(start + self.block()).min(out_t);
            if self.is_pointwise() {
                work(times.clone(), &input[times.start * row..times.end * row]);
            } else {
                columns.clear();
                columns.resize(times.len() * row, 0.0);
                self.stretches(times.clone(), |to, from, n| {
                    columns[to..to + n].copy_from_slice(&input[from..from + n]);
                });
                work(times, columns);
            }
        }
    }
}

/// The convolution op. Input `[batch, time, frequency, channels]`, weights `[kernel time × kernel frequency ×
/// channels in, channels out]`, optional bias `[channels out]`.
#[derive(Debug, Clone, Copy)]
pub struct Conv2d {
    /// Sizes that both operands must fit.
    pub shape: Conv2dShape,
    /// Whether anything before this op learns; the first layer saves a third of its work by saying no.
    pub input_gradient: bool,
    /// Whether a ReLU follows the bias; without a bias there is none.
    pub relu: bool,
}

impl Conv2d {
    /// Convolution with a gradient, without bias.
    pub fn forward(self, input: &Tensor, weights: &Tensor) -> Result<Tensor> {
        input.contiguous()?.apply_op2(&weights.contiguous()?, self)
    }

    /// `convolution + bias`, with a ReLU where `relu` says so, without a gradient.
    pub fn forward_bias(self, input: &Tensor, weights: &Tensor, bias: &Tensor) -> Result<Tensor> {
        input.apply_op3_no_bwd(weights, bias, &self)
    }

    fn run(&self, input: &[f32], weights: &[f32], bias: Option<&[f32]>) -> Result<Vec<f32>> {
        let s = &self.shape;
        let (fan_in, points) = (s.fan_in(), s.points());
        if weights.len() != fan_in * s.channels || bias.is_some_and(|b| b.len() != s.channels) {
            bail!("conv2d: weights do not fit {s:?}");
        }
        if s.input_len() == 0 || !input.len().is_multiple_of(s.input_len()) {
            bail!("conv2d: {} values are no batch for {s:?}", input.len());
        }
        let batch = input.len() / s.input_len();
        let weights = Matrix::new(weights, fan_in, s.channels);
        let mut out = vec![0.0; batch * points * s.channels];
        let row = s.output().1 * s.channels;
        let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
        let mut columns = Vec::new();
        for (item, out) in input.chunks_exact(s.input_len()).zip(out.chunks_exact_mut(points * s.channels)) {
            s.blocks(item, &mut columns, |times, columns| {
                let out = &mut out[times.start * row..times.end * row];
                let rows = out.len() / s.channels;
                multiply(Matrix::new(columns, rows, fan_in), weights, out, false);
                if let Some(bias) = bias {
                    for row in out.chunks_exact_mut(s.channels) {
                        for (x, b) in row.iter_mut().zip(bias) {
                            *x = (*x + b).max(floor);
                        }
                    }
                }
            });
        }
        Ok(out)
    }

    fn output_shape(&self, layout: &Layout) -> Shape {
        let (t, f, c) = self.shape.output();
        let batch = layout.shape().elem_count() / self.shape.input_len().max(1);
        Shape::from((batch, t, f, c))
    }
}

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = self.run(slice("conv2d", s1, l1)?, slice("conv2d", s2, l2)?, None)?;
        Ok((CpuStorage::F32(out), self.output_shape(l1)))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weights: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let s = &self.shape;
        let (fan_in, points) = (s.fan_in(), s.points());
        let (x, w, g) = (read(input)?, read(weights)?, read(grad)?);
        let (x, w, g) = (x.get()?, w.get()?, g.get()?);
        let mut dw = vec![0.0; w.len()];
        let mut dx = vec![0.0; if self.input_gradient { x.len() } else { 0 }];
        let row = s.output().1 * s.channels;
        let w = Matrix::new(w, fan_in, s.channels).t();
        let (mut columns, mut column_grad) = (Vec::new(), Vec::new());
        for (i, (x, g)) in x.chunks_exact(s.input_len()).zip(g.chunks_exact(points * s.channels)).enumerate()
        {
            s.blocks(x, &mut columns, |times, columns| {
                let g = &g[times.start * row..times.end * row];
                let rows = g.len() / s.channels;
                let g = Matrix::new(g, rows, s.channels);
                multiply(Matrix::new(columns, rows, fan_in).t(), g, &mut dw, true);
                if !self.input_gradient {
                    return;
                }
                let dx = &mut dx[i * s.input_len()..(i + 1) * s.input_len()];
                if s.is_pointwise() {
                    let first = times.start * s.output().1 * fan_in;
                    multiply(g, w, &mut dx[first..first + rows * fan_in], false);
                } else {
                    column_grad.resize(rows * fan_in, 0.0);
                    multiply(g, w, &mut column_grad, false);
                    s.stretches(times, |from, to, n| {
                        for (sum, x) in dx[to..to + n].iter_mut().zip(&column_grad[from..from + n]) {
                            *sum += x;
                        }
                    });
                }
            });
        }
        let dx = if self.input_gradient {
            Some(Tensor::from_vec(dx, input.shape(), input.device())?)
        } else {
            None
        };
        Ok((dx, Some(Tensor::from_vec(dw, weights.shape(), weights.device())?)))
    }
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d-bias-relu"
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
        let name = "conv2d-bias-relu";
        let out = self.run(slice(name, s1, l1)?, slice(name, s2, l2)?, Some(slice(name, s3, l3)?))?;
        Ok((CpuStorage::F32(out), self.output_shape(l1)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ops::check::{gradients, tensor};
    use crate::ops::values;

    const SHAPES: [Conv2dShape; 5] = [
        Conv2dShape { input: (7, 6, 2), channels: 3, kernel: (5, 5), stride: (1, 2), lead: 4 },
        Conv2dShape { input: (8, 4, 3), channels: 5, kernel: (3, 3), stride: (2, 2), lead: 1 },
        Conv2dShape { input: (6, 1, 4), channels: 2, kernel: (1, 1), stride: (1, 1), lead: 0 },
        Conv2dShape { input: (2, 2, 1), channels: 1, kernel: (5, 5), stride: (1, 1), lead: 4 },
        Conv2dShape { input: (9, 4, 2), channels: 2, kernel: (3, 3), stride: (2, 2), lead: 0 },
    ];

    fn operands(s: &Conv2dShape) -> (Tensor, Tensor) {
        let (t, f, c) = s.input;
        (tensor(&[2, t, f, c], 1), tensor(&[s.fan_in(), s.channels], 2))
    }

    #[test]
    fn results_equal_candles_own_convolution() {
        for s in SHAPES {
            let (x, w) = operands(&s);
            let got = Conv2d { shape: s, input_gradient: true, relu: false }.forward(&x, &w).unwrap();
            let (kt, kf) = s.kernel;
            let nchw = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
            let nchw = nchw.pad_with_zeros(2, s.lead, 0).unwrap().pad_with_zeros(3, kf / 2, kf / 2).unwrap();
            let kernel = w.reshape((kt, kf, s.input.2, s.channels)).unwrap();
            let kernel = kernel.permute((3, 2, 0, 1)).unwrap().contiguous().unwrap();
            // candle takes one stride for both axes: convolve at stride 1, then keep every n-th.
            let full = nchw.conv2d(&kernel, 0, 1, 1, 1).unwrap();
            let full = full.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
            let keep = |n: usize, stride: usize| {
                let kept: Vec<u32> = (0..n).step_by(stride).map(|i| i as u32).collect();
                let count = kept.len();
                Tensor::from_vec(kept, count, x.device()).unwrap()
            };
            let want = full.index_select(&keep(full.dim(1).unwrap(), s.stride.0), 1).unwrap();
            let want = want.index_select(&keep(s.input.1, s.stride.1), 2).unwrap();
            assert_eq!(got.dims(), want.dims());
            for (a, b) in values(&got).unwrap().iter().zip(values(&want).unwrap()) {
                assert!((a - b).abs() < 1e-5, "{s:?}: {a} {b}");
            }
            let bias = tensor(&[s.channels], 3);
            let fused =
                Conv2d { shape: s, input_gradient: false, relu: true }.forward_bias(&x, &w, &bias).unwrap();
            let want = want.broadcast_add(&bias).unwrap().relu().unwrap();
            for (a, b) in values(&fused).unwrap().iter().zip(values(&want).unwrap()) {
                assert!((a - b).abs() < 1e-5, "{s:?}: {a} {b}");
            }
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        for s in SHAPES {
            let (x, w) = operands(&s);
            let op = Conv2d { shape: s, input_gradient: true, relu: false };
            gradients(&[x, w], |t| op.forward(&t[0], &t[1]), 2e-3);
        }
    }

    #[test]
    fn operands_that_do_not_fit_are_an_error() {
        let (x, w) = operands(&SHAPES[0]);
        let op = Conv2d { shape: SHAPES[1], input_gradient: true, relu: false };
        assert!(op.forward(&x, &w).is_err());
    }
}
