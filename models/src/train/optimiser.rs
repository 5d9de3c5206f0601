//! AdamW (Loshchilov and Hutter, 2019) with gradient clipping and an exponential average of the weights, all of
//! whose state can be saved.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use std::collections::BTreeMap;

/// State of one variable.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The values themselves.
    pub value: Vec<f32>,
    /// First moment of the gradient.
    pub first: Vec<f32>,
    /// Second moment of the gradient.
    pub second: Vec<f32>,
    /// Averaged values, the ones worth keeping.
    pub average: Vec<f32>,
}

/// The optimiser over named variables.
pub struct AdamW {
    vars: BTreeMap<String, Var>,
    /// State by variable.
    pub slots: BTreeMap<String, Slot>,
    /// Steps taken.
    pub step: u64,
}

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.99;
const DECAY: f32 = 0.01;
const CLIP: f32 = 3.0;
const AVERAGE: f32 = 0.999;

impl AdamW {
    /// Starts from the variables' values.
    pub fn new(vars: &BTreeMap<String, Var>) -> Result<Self> {
        let mut slots = BTreeMap::new();
        for (name, var) in vars {
            let value = var.flatten_all()?.to_vec1::<f32>()?;
            let zeros = vec![0.0; value.len()];
            let slot = Slot { average: value.clone(), value, first: zeros.clone(), second: zeros };
            slots.insert(name.clone(), slot);
        }
        Ok(Self { vars: vars.clone(), slots, step: 0 })
    }

    /// Puts saved state back.
    pub fn restore(&mut self, step: u64, slots: BTreeMap<String, Slot>) -> Result<()> {
        for (name, slot) in slots {
            if let (Some(var), true) = (self.vars.get(&name), self.slots.contains_key(&name)) {
                var.set(&Tensor::from_slice(&slot.value, var.shape(), var.device())?)?;
                self.slots.insert(name, slot);
            }
        }
        self.step = step;
        Ok(())
    }

    /// One step at learning rate `rate`; returns the norm of the gradient before clipping. A gradient that is
    /// not finite is skipped.
    pub fn step(&mut self, grads: &GradStore, rate: f32) -> Result<f32> {
        let mut all = BTreeMap::new();
        let mut square = 0.0f64;
        for (name, var) in &self.vars {
            if let Some(grad) = grads.get(var.as_tensor()) {
                let grad = grad.flatten_all()?.to_vec1::<f32>()?;
                square += grad.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
                all.insert(name, grad);
            }
        }
        let norm = square.sqrt() as f32;
        if !norm.is_finite() {
            return Ok(norm);
        }
        self.step += 1;
        let clip = (CLIP / norm.max(1e-12)).min(1.0);
        let n = self.step.min(10_000) as i32;
        let (unbias1, unbias2) = (1.0 - BETA1.powi(n), 1.0 - BETA2.powi(n));
        let average = AVERAGE.min((self.step as f32 + 1.0) / (self.step as f32 + 10.0));
        for (name, var) in &self.vars {
            let (Some(grad), Some(slot)) = (all.get(name), self.slots.get_mut(name)) else { continue };
            let decay = if name.ends_with(".weight") { 1.0 - rate * DECAY } else { 1.0 };
            for (i, g) in grad.iter().enumerate() {
                let g = g * clip;
                slot.first[i] += (1.0 - BETA1) * (g - slot.first[i]);
                slot.second[i] += (1.0 - BETA2) * (g * g - slot.second[i]);
                let step = slot.first[i] / unbias1 / ((slot.second[i] / unbias2).sqrt() + 1e-8);
                slot.value[i] = slot.value[i] * decay - rate * step;
                slot.average[i] += (1.0 - average) * (slot.value[i] - slot.average[i]);
            }
            var.set(&Tensor::from_slice(&slot.value, var.shape(), var.device())?)?;
        }
        Ok(norm)
    }

    /// Averaged values by variable.
    pub fn averages(&self) -> BTreeMap<String, Vec<f32>> {
        self.slots.iter().map(|(name, slot)| (name.clone(), slot.average.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_bowl_is_descended_to_its_bottom() {
        let start = Tensor::from_vec(vec![3.0f32, -2.0], 2, &Device::Cpu).unwrap();
        let vars = BTreeMap::from([("x".to_owned(), Var::from_tensor(&start).unwrap())]);
        let mut adam = AdamW::new(&vars).unwrap();
        let target = Tensor::from_vec(vec![1.0f32, 0.5], 2, &Device::Cpu).unwrap();
        for _ in 0..600 {
            let loss = (vars["x"].as_tensor() - &target).unwrap().sqr().unwrap().sum_all().unwrap();
            adam.step(&loss.backward().unwrap(), 0.02).unwrap();
        }
        let x = vars["x"].to_vec1::<f32>().unwrap();
        assert!((x[0] - 1.0).abs() < 0.02 && (x[1] - 0.5).abs() < 0.02, "{x:?}");
    }
}
