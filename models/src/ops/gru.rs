//! Gated recurrent unit (Cho et al., 2014, in the form of cuDNN and PyTorch): the part along time. What depends on
//! the input alone comes in as a matrix product already done for all frames; here the state is carried on.

use super::matmul::{Matrix, multiply};
use super::{read, slice};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

/// The op. Inputs: `gates [batch, time, 3 · hidden]` (what the input adds to the reset gate, the update gate and the
/// candidate, in this order), `weights [hidden, 3 · hidden]` (what the state adds), `start [batch, hidden]` (the
/// state before the first frame). Output: the state after each frame, `[batch, time, hidden]`.
///
/// With `u = state · weights`: `r = σ(gates_r + u_r)`, `z = σ(gates_z + u_z)`, `n = tanh(gates_n + r · u_n)`,
/// `state ← (1 − z) · n + z · state`.
#[derive(Debug, Clone, Copy)]
pub struct Gru;

impl Gru {
    /// Applies it; differentiable in gates and weights, not in the starting state.
    pub fn forward(self, gates: &Tensor, weights: &Tensor, start: &Tensor) -> Result<Tensor> {
        gates.contiguous()?.apply_op3(&weights.contiguous()?, &start.contiguous()?, self)
    }

    /// Applies it without recording a gradient.
    pub fn forward_no_gradient(self, gates: &Tensor, weights: &Tensor, start: &Tensor) -> Result<Tensor> {
        gates.apply_op3_no_bwd(weights, start, &self)
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// By way of the exponential, which is several times as quick as the library's hyperbolic tangent; exact to a few
/// units of the last place of 1.
fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}

/// Reset gate, update gate and candidate of one frame; `g` and `u` are `[3 · hidden]`.
#[inline]
fn unit(g: &[f32], u: &[f32], hidden: usize, i: usize) -> (f32, f32, f32) {
    let r = sigmoid(g[i] + u[i]);
    let z = sigmoid(g[hidden + i] + u[hidden + i]);
    (r, z, tanh(g[2 * hidden + i] + r * u[2 * hidden + i]))
}

impl CustomOp3 for Gru {
    fn name(&self) -> &'static str {
        "gru"
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
        let (gates, weights, start) = (slice("gru", s1, l1)?, slice("gru", s2, l2)?, slice("gru", s3, l3)?);
        let (batch, time, width) = l1.shape().dims3()?;
        let hidden = width / 3;
        if hidden == 0
            || width % 3 != 0
            || l2.dims() != [hidden, width]
            || l3.dims() != [batch, hidden]
            || time == 0
        {
            bail!("gru: weights {:?} or state {:?} do not fit {:?}", l2.shape(), l3.shape(), l1.shape());
        }
        let weights = Matrix::new(weights, hidden, width);
        let mut state = start.to_vec();
        let mut update = vec![0.0; batch * width];
        let mut out = vec![0.0; batch * time * hidden];
        for t in 0..time {
            multiply(Matrix::new(&state, batch, hidden), weights, &mut update, false);
            for (b, (h, u)) in state.chunks_exact_mut(hidden).zip(update.chunks_exact(width)).enumerate() {
                let g = &gates[(b * time + t) * width..][..width];
                for (i, h) in h.iter_mut().enumerate() {
                    let (_, z, n) = unit(g, u, hidden, i);
                    *h = n + z * (*h - n);
                }
                out[(b * time + t) * hidden..][..hidden].copy_from_slice(h);
            }
        }
        Ok((CpuStorage::F32(out), Shape::from((batch, time, hidden))))
    }

    fn bwd(
        &self,
        gates: &Tensor,
        weights: &Tensor,
        start: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (batch, time, width) = gates.dims3()?;
        let hidden = width / 3;
        let (g, w, h0, h, dh) = (read(gates)?, read(weights)?, read(start)?, read(res)?, read(grad)?);
        let (g, w, h0, h, dh) = (g.get()?, w.get()?, h0.get()?, h.get()?, dh.get()?);
        // The state before each frame, and with it all the recurrent products at once.
        let mut before = vec![0.0; batch * time * hidden];
        for b in 0..batch {
            let rows = &mut before[b * time * hidden..][..time * hidden];
            rows[..hidden].copy_from_slice(&h0[b * hidden..][..hidden]);
            rows[hidden..].copy_from_slice(&h[b * time * hidden..][..(time - 1) * hidden]);
        }
        let weights_matrix = Matrix::new(w, hidden, width);
        let mut update = vec![0.0; batch * time * width];
        multiply(Matrix::new(&before, batch * time, hidden), weights_matrix, &mut update, false);
        let mut d_gates = vec![0.0; batch * time * width];
        // Gradient of the recurrent products: overwrites `update` frame by frame, from the last to the first.
        let mut carry = vec![0.0f32; batch * hidden];
        let mut row = vec![0.0f32; batch * width];
        let mut back = vec![0.0f32; batch * hidden];
        for t in (0..time).rev() {
            for b in 0..batch {
                let at = b * time + t;
                let g = &g[at * width..][..width];
                let u = &mut update[at * width..][..width];
                let dg = &mut d_gates[at * width..][..width];
                let row = &mut row[b * width..][..width];
                for i in 0..hidden {
                    let (r, z, n) = unit(g, u, hidden, i);
                    let d = dh[at * hidden + i] + carry[b * hidden + i];
                    let dn = d * (1.0 - z) * (1.0 - n * n);
                    let dz = d * (before[at * hidden + i] - n) * z * (1.0 - z);
                    let dr = dn * u[2 * hidden + i] * r * (1.0 - r);
                    dg[i] = dr;
                    dg[hidden + i] = dz;
                    dg[2 * hidden + i] = dn;
                    row[i] = dr;
                    row[hidden + i] = dz;
                    row[2 * hidden + i] = dn * r;
                    carry[b * hidden + i] = d * z;
                }
                u.copy_from_slice(row);
            }
            multiply(Matrix::new(&row, batch, width), weights_matrix.t(), &mut back, false);
            carry.iter_mut().zip(&back).for_each(|(c, b)| *c += b);
        }
        let mut d_weights = vec![0.0; hidden * width];
        multiply(
            Matrix::new(&before, batch * time, hidden).t(),
            Matrix::new(&update, batch * time, width),
            &mut d_weights,
            false,
        );
        Ok((
            Some(Tensor::from_vec(d_gates, gates.shape(), gates.device())?),
            Some(Tensor::from_vec(d_weights, weights.shape(), weights.device())?),
            None,
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
    fn gradients_equal_finite_differences() {
        let start = tensor(&[2, 3], 3);
        let inputs = [tensor(&[2, 6, 9], 1), tensor(&[3, 9], 2)];
        gradients(&inputs, |t| Gru.forward(&t[0], &t[1], &start), 2e-3);
    }

    #[test]
    fn a_stream_in_two_parts_equals_the_whole() {
        let (gates, weights) = (tensor(&[2, 6, 9], 1), tensor(&[3, 9], 2));
        let start = tensor(&[2, 3], 3);
        let whole = Gru.forward_no_gradient(&gates, &weights, &start).unwrap();
        let part = |from, n| gates.narrow(1, from, n).unwrap().contiguous().unwrap();
        let first = Gru.forward_no_gradient(&part(0, 2), &weights, &start).unwrap();
        let state = first.narrow(1, 1, 1).unwrap().squeeze(1).unwrap().contiguous().unwrap();
        let second = Gru.forward_no_gradient(&part(2, 4), &weights, &state).unwrap();
        let joined = Tensor::cat(&[first, second], 1).unwrap();
        assert_eq!(values(&joined).unwrap(), values(&whole).unwrap());
    }

    #[test]
    fn operands_that_do_not_fit_are_an_error() {
        let op = |gates: &[usize], weights: &[usize], start: &[usize]| {
            Gru.forward(&tensor(gates, 1), &tensor(weights, 2), &tensor(start, 3)).is_err()
        };
        assert!(op(&[2, 6, 8], &[3, 9], &[2, 3]));
        assert!(op(&[2, 6, 9], &[9, 3], &[2, 3]));
        assert!(op(&[2, 6, 9], &[3, 9], &[1, 3]));
    }
}
