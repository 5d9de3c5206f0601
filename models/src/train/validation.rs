//! A fixed set of mixtures of the development clips, by which a training is followed: loss and average precision
//! over their frames.

use super::corpus::Corpus;
use super::mixture::Mixer;
use super::{cross_entropy, delayed};
use crate::frontend::{FrontEnd, PLANES};
use crate::net::Network;
use crate::weights::Description;
use candle_core::{Device, Tensor};

/// Mixtures in the set.
const COUNT: u64 = 160;
/// Mixtures scored at once.
const BATCH: usize = 8;

/// The set, as features.
pub struct Validation {
    shape: (usize, usize, usize, usize),
    features: Vec<Vec<f32>>,
    targets: Vec<f32>,
    weights: Vec<f32>,
}

impl Validation {
    /// Mixes the set; the same corpus gives the same set.
    ///
    /// # Errors
    /// A corpus without crying or without anything else.
    pub fn new(dev: &Corpus, length: usize, d: &Description) -> Result<Self, String> {
        let mut mixer = Mixer::new(dev, length, d.frame_step())?;
        let mut front = FrontEnd::new(&d.front_end);
        let mut set = Self {
            shape: (BATCH, length / d.front_end.step, d.front_end.mels, PLANES),
            features: Vec::new(),
            targets: Vec::new(),
            weights: Vec::new(),
        };
        for seed in 0..COUNT {
            let example = mixer.example(0x6465_7600 + seed);
            if seed % BATCH as u64 == 0 {
                set.features.push(Vec::new());
            }
            let mut state = vec![0.0; d.front_end.state_len()];
            if let Some(features) = set.features.last_mut() {
                front.features(&mut state, &example.samples, features);
            }
            set.targets.extend(delayed(&example.targets, d));
            set.weights.extend(delayed(&example.weights, d));
        }
        Ok(set)
    }

    /// Cross-entropy and average precision over all frames that count.
    ///
    /// # Errors
    /// Those of the computation.
    pub fn run(&self, network: &Network) -> Result<(f32, f32), String> {
        let mut logits = Vec::new();
        for features in &self.features {
            let scored = Tensor::from_slice(features, self.shape, &Device::Cpu)
                .and_then(|x| network.forward(&x, None)?.flatten_all()?.to_vec1::<f32>());
            logits.extend(scored.map_err(|e| e.to_string())?);
        }
        let (loss, _) = cross_entropy(&logits, &self.targets, &self.weights);
        let frames = logits.iter().zip(&self.targets).zip(&self.weights);
        let clear = frames.filter(|(_, w)| **w >= 1.0).map(|((z, t), _)| (*z, *t >= 0.5)).collect();
        Ok((loss, average_precision(clear)))
    }
}

/// Average precision of scores with their truth: the mean, over all true ones, of the precision down to each.
pub fn average_precision(mut scores: Vec<(f32, bool)>) -> f32 {
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut sum) = (0.0f64, 0.0f64);
    for (i, (_, truth)) in scores.iter().enumerate() {
        if *truth {
            hits += 1.0;
            sum += hits / (i + 1) as f64;
        }
    }
    (sum / hits.max(1.0)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_precision_is_one_for_a_perfect_order_and_less_for_others() {
        assert_eq!(average_precision(vec![(3.0, true), (2.0, true), (1.0, false)]), 1.0);
        assert_eq!(average_precision(vec![(1.0, true), (2.0, false)]), 0.5);
        assert_eq!(average_precision(Vec::new()), 0.0);
    }
}
