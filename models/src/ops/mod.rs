//! The few operations the network is made of, as candle custom ops with gradients: candle's own convolutions
//! are several times too slow for a service that scores many cameras on a small box.
//!
//! All data is `f32`, channel-last and contiguous. Each op runs on the calling thread.

mod add;
mod conv;
mod depthwise;
mod gru;
mod matmul;
mod norm;

pub use add::Add;
pub use conv::{Conv2d, Conv2dShape};
pub use depthwise::DepthwiseTime;
pub use gru::Gru;
pub use norm::{BatchNormRelu, EPSILON, RunningStats};

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};
use std::ops::Deref;

/// The values of a contiguous `f32` operand.
fn slice<'a>(op: &'static str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(data) = storage else { bail!("{op}: operands must be f32") };
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("{op}: operands must be contiguous") };
    match data.get(start..end) {
        Some(part) => Ok(part),
        None => bail!("{op}: operand lies outside its storage"),
    }
}

/// The values of a tensor: lent where they are contiguous, which gradients almost always are, else copied.
enum Values<'a> {
    Lent(Box<dyn Deref<Target = Storage> + 'a>, &'a Layout),
    Copied(Vec<f32>),
}

impl Values<'_> {
    fn get(&self) -> Result<&[f32]> {
        match self {
            Self::Lent(storage, layout) => match &***storage {
                Storage::Cpu(storage) => slice("values", storage, layout),
                _ => bail!("operands must be on the CPU"),
            },
            Self::Copied(values) => Ok(values),
        }
    }
}

fn read(tensor: &Tensor) -> Result<Values<'_>> {
    if tensor.layout().contiguous_offsets().is_some() {
        let (storage, layout) = tensor.storage_and_layout();
        Ok(Values::Lent(Box::new(storage), layout))
    } else {
        Ok(Values::Copied(tensor.flatten_all()?.to_vec1::<f32>()?))
    }
}

/// Copies a tensor out, whatever its layout.
#[cfg(test)]
fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1::<f32>()
}

#[cfg(test)]
pub(crate) mod check {
    //! Gradient checks against central differences.
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Result, Tensor, Var};

    /// Values spread over about [-1, 1], the same on every run.
    pub fn pseudo(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
            })
            .collect()
    }

    pub fn tensor(shape: &[usize], seed: u32) -> Tensor {
        let n = shape.iter().product();
        Tensor::from_vec(pseudo(n, seed), shape, &Device::Cpu).unwrap()
    }

    /// Compares the gradient of `sum(f(inputs) * weights)` with central differences, for every input.
    pub fn gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>, tolerance: f32) {
        let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let out = f(&tensors).unwrap();
        let weights = tensor(out.dims(), 99);
        let loss = |ins: &[Tensor]| -> f64 {
            let products = (f(ins).unwrap() * &weights).unwrap().flatten_all().unwrap();
            products.to_vec1::<f32>().unwrap().iter().map(|&x| f64::from(x)).sum()
        };
        let grads = (out * &weights).unwrap().sum_all().unwrap().backward().unwrap();
        for (which, input) in inputs.iter().enumerate() {
            let got = super::values(grads.get(&tensors[which]).unwrap()).unwrap();
            let base = super::values(input).unwrap();
            let stride = (base.len() / 40).max(1);
            for i in (0..base.len()).step_by(stride) {
                let nudged = |by: f32| {
                    let mut v = base.clone();
                    v[i] += by;
                    let mut ins: Vec<Tensor> = inputs.to_vec();
                    ins[which] = Tensor::from_vec(v, input.dims(), &Device::Cpu).unwrap();
                    loss(&ins)
                };
                let step = 1e-2;
                let want = ((nudged(step) - nudged(-step)) / f64::from(2.0 * step)) as f32;
                let error = (got[i] - want).abs() / want.abs().max(1.0);
                assert!(
                    error < tolerance,
                    "input {which}, element {i}: {} but differences say {want}",
                    got[i]
                );
            }
        }
    }
}
