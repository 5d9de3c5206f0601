//! Sum of two tensors on the calling thread. candle's own hands large tensors to a pool of spinning threads,
//! which a process that was given one core must not do.

use super::slice;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// The op; both operands have the same shape.
#[derive(Debug, Clone, Copy)]
pub struct Add;

impl Add {
    /// Adds; differentiable in both operands.
    pub fn forward(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.contiguous()?.apply_op2(&b.contiguous()?, self)
    }
}

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if l1.shape() != l2.shape() {
            bail!("add: {:?} and {:?} differ", l1.shape(), l2.shape());
        }
        let (a, b) = (slice("add", s1, l1)?, slice("add", s2, l2)?);
        let sum = a.iter().zip(b).map(|(a, b)| a + b).collect();
        Ok((CpuStorage::F32(sum), l1.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.clone()), Some(grad.clone())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ops::check::{gradients, tensor};

    #[test]
    fn gradients_equal_finite_differences() {
        gradients(&[tensor(&[2, 3], 1), tensor(&[2, 3], 2)], |t| Add.forward(&t[0], &t[1]), 2e-3);
    }

    #[test]
    fn operands_of_different_shapes_are_an_error() {
        assert!(Add.forward(&tensor(&[2, 3], 1), &tensor(&[3, 2], 2)).is_err());
    }
}
