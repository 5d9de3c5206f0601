//! Training: examples come from one thread, gradients from another, and the averaged weights are folded into a
//! file that the detector loads. Everything is drawn from one seed, so a run can be repeated and resumed.

pub mod attributions;
pub mod bench;
pub mod checkpoint;
pub mod corpus;
pub mod cries;
pub mod evaluate;
pub mod mixture;
pub mod optimiser;
pub mod signal;

use crate::detector::Detector;
use crate::frontend::{FrontEnd, FrontEndConfig, PLANES};
use crate::net::{NetConfig, Network};
use crate::weights::{self, Description};
use candle_core::{Device, Tensor};
use checkpoint::Checkpoint;
use corpus::Corpus;
use mixture::Mixer;
use optimiser::AdamW;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

/// What to train and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Stop after this many minutes, earlier runs of a resumed training included.
    pub minutes: Option<f64>,
    /// Stop after this many steps.
    pub steps: Option<u64>,
    /// Windows per step.
    pub batch: usize,
    /// Highest learning rate.
    pub rate: f32,
    /// Seed of weights and examples.
    pub seed: u64,
    /// Where checkpoints go.
    pub checkpoint: PathBuf,
    /// Go on from the checkpoint.
    pub resume: bool,
    /// Version written into the file.
    pub version: String,
}

/// Where a training is, for progress bars and logs.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// Share of the plan that is done.
    pub done: f64,
    /// Loss, averaged over recent steps.
    pub loss: f32,
    /// Learning rate.
    pub rate: f32,
    /// Steps per second since the start of this run.
    pub speed: f64,
}

/// One batch on its way from the mixing thread to the learning one.
struct Batch {
    features: Vec<f32>,
    targets: Vec<f32>,
    weights: Vec<f32>,
}

/// Starting point of a file's description.
pub fn description(version: &str) -> Description {
    Description {
        format: weights::FORMAT,
        name: "nursery-cnn".into(),
        version: version.into(),
        front_end: FrontEndConfig::default(),
        network: NetConfig::default(),
        hop: 8_000,
        lookahead: 4_000,
        labels: vec!["baby_cry".into()],
        threshold: 0.5,
        logit_scale: 1.0,
        logit_bias: 0.0,
        recipe: String::new(),
    }
}

/// Seed of one example.
fn example_seed(seed: u64, step: u64, item: u64) -> u64 {
    // SplitMix64's finaliser keeps neighbouring steps apart.
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (step << 20) ^ item;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Blanks a random band and a random stretch of time (SpecAugment, Park et al., 2019).
fn spec_augment(rng: &mut StdRng, features: &mut [f32], frames: usize, mels: usize) {
    if rng.random_bool(0.5) {
        let width = rng.random_range(1..=10);
        let first = rng.random_range(0..mels - width);
        for row in features.chunks_exact_mut(mels * PLANES) {
            row[first * PLANES..(first + width) * PLANES].fill(0.0);
        }
    }
    if rng.random_bool(0.4) {
        let width = rng.random_range(1..=10);
        let first = rng.random_range(0..frames - width);
        features[first * mels * PLANES..(first + width) * mels * PLANES].fill(0.0);
    }
}

fn make_batch(mixer: &mut Mixer<'_>, front: &mut FrontEnd, d: &Description, plan: &Plan, step: u64) -> Batch {
    let (frames, mels) = (d.front_end.frames(), d.front_end.mels);
    let mut batch = Batch { features: Vec::new(), targets: Vec::new(), weights: Vec::new() };
    for item in 0..plan.batch {
        let seed = example_seed(plan.seed, step, item as u64);
        let example = mixer.example(seed);
        let start = batch.features.len();
        front.features(&example.samples, &mut batch.features);
        let rng = &mut StdRng::seed_from_u64(seed ^ 1);
        spec_augment(rng, &mut batch.features[start..], frames, mels);
        batch.targets.extend(&example.targets);
        batch.weights.extend(&example.weights);
    }
    batch
}

/// Binary cross-entropy of logits and its gradient, both per unit of weight.
fn cross_entropy(logits: &[f32], targets: &[f32], weights: &[f32]) -> (f32, Vec<f32>) {
    let total: f32 = weights.iter().sum::<f32>().max(1.0);
    let mut loss = 0.0;
    let gradient = logits
        .iter()
        .zip(targets)
        .zip(weights)
        .map(|((&z, &t), &w)| {
            loss += w * (z.max(0.0) - z * t + (-z.abs()).exp().ln_1p());
            w * (1.0 / (1.0 + (-z).exp()) - t) / total
        })
        .collect();
    (loss / total, gradient)
}

/// Trains on `corpus` and returns the bytes of an uncalibrated weights file; `progress` is told of each step.
///
/// # Errors
/// One line for people.
pub fn train(corpus: &Corpus, plan: &Plan, mut progress: impl FnMut(Progress)) -> Result<Vec<u8>, String> {
    let text = |e: candle_core::Error| e.to_string();
    let mut d = description(&plan.version);
    let (frames, mels) = (d.front_end.frames(), d.front_end.mels);
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let network = Network::training(&d.network, frames, mels, || signal::normal(&mut rng)).map_err(text)?;
    let mut adam = AdamW::new(network.vars()).map_err(text)?;
    let mut spent = 0.0;
    if plan.resume {
        let saved = Checkpoint::load(&plan.checkpoint)?;
        if saved.seed != plan.seed {
            return Err(format!("{}: was made with seed {}", plan.checkpoint.display(), saved.seed));
        }
        network.set_stats(&saved.stats);
        adam.restore(saved.step, saved.slots).map_err(text)?;
        spent = saved.minutes;
    }
    let mut mixer = Mixer::new(corpus, d.front_end.window, d.frame_step())?;
    let started = Instant::now();
    let first_step = adam.step;
    let minutes_now = || spent + started.elapsed().as_secs_f64() / 60.0;
    let save = |adam: &AdamW| {
        Checkpoint {
            step: adam.step,
            minutes: minutes_now(),
            seed: plan.seed,
            slots: adam.slots.clone(),
            stats: network.stats(),
        }
        .save(&plan.checkpoint)
    };
    let (sender, receiver) = sync_channel::<Batch>(4);
    let d_mixer = d.clone();
    std::thread::scope(|scope| -> Result<(), String> {
        scope.spawn(move || {
            let mut front = FrontEnd::new(&d_mixer.front_end);
            // Ends when the learner hangs up.
            for step in first_step.. {
                if sender.send(make_batch(&mut mixer, &mut front, &d_mixer, plan, step)).is_err() {
                    break;
                }
            }
        });
        // Dropped on every way out, which ends the mixing thread.
        let receiver = receiver;
        let mut recent = 0.7;
        let mut last_save = Instant::now();
        loop {
            let by_time = plan.minutes.map_or(0.0, |m| minutes_now() / m);
            let by_steps = plan.steps.map_or(0.0, |s| adam.step as f64 / s.max(1) as f64);
            let done = by_time.max(by_steps);
            if done >= 1.0 {
                break;
            }
            let Ok(batch) = receiver.recv() else { return Err("the mixing thread ended".into()) };
            let warm = ((adam.step + 1) as f32 / 150.0).min(1.0);
            let cosine = 0.5 * (1.0 + (std::f32::consts::PI * done as f32).cos());
            let rate = plan.rate * warm * (0.02 + 0.98 * cosine);
            let shape = (plan.batch, frames, mels, PLANES);
            let features = Tensor::from_vec(batch.features, shape, &Device::Cpu).map_err(text)?;
            let logits = network.forward(&features).map_err(text)?;
            let flat = logits.flatten_all().and_then(|l| l.to_vec1::<f32>()).map_err(text)?;
            let (loss, gradient) = cross_entropy(&flat, &batch.targets, &batch.weights);
            // Its gradient with respect to the logits is the one computed above.
            let gradient = Tensor::from_vec(gradient, logits.shape(), &Device::Cpu).map_err(text)?;
            let surrogate = (logits * gradient).and_then(|x| x.sum_all()).map_err(text)?;
            let grads = surrogate.backward().map_err(text)?;
            let norm = adam.step(&grads, rate).map_err(text)?;
            if !norm.is_finite() {
                return Err(format!("step {}: the gradient is not finite; try a lower --rate", adam.step));
            }
            recent += 0.02 * (loss - recent);
            let speed = (adam.step - first_step) as f64 / started.elapsed().as_secs_f64();
            progress(Progress { step: adam.step, done, loss: recent, rate, speed });
            if last_save.elapsed().as_secs() >= 120 {
                save(&adam)?;
                last_save = Instant::now();
            }
        }
        Ok(())
    })?;
    save(&adam)?;
    d.recipe = format!(
        "{} steps of {} windows, AdamW, rate {}, cosine, {:.0} minutes, seed {}, {} clips",
        adam.step,
        plan.batch,
        plan.rate,
        minutes_now(),
        plan.seed,
        corpus.clips.len()
    );
    let folded = network.fold(&adam.averages(), &network.stats()).map_err(text)?;
    weights::serialize(&d, &folded)
}

/// Moves the operating point of a weights file to 0.5: at most `share` of the clips without crying in `dev` are
/// taken for crying there. Returns the new bytes and the scores after calibration.
///
/// # Errors
/// A file that does not load.
pub fn calibrate(
    bytes: &[u8],
    dev: &Corpus,
    share: f32,
) -> Result<(Vec<u8>, Vec<evaluate::ClipScore>), String> {
    let (mut description, tensors) = weights::parse(bytes)?;
    let mut detector = Detector::from_bytes(bytes, "new weights").map_err(|e| e.to_string())?;
    let mut scores = evaluate::score_clips(&mut detector, dev).map_err(|e| e.to_string())?;
    let point = evaluate::operating_point(&scores, share);
    description.logit_bias -= point;
    scores.iter_mut().for_each(|s| s.log_odds -= point);
    Ok((weights::serialize(&description, &tensors)?, scores))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_and_its_gradient_agree_with_differences() {
        let (z, t, w) = (vec![0.3, -2.0, 40.0, -40.0], vec![1.0, 0.0, 1.0, 1.0], vec![1.0, 0.5, 1.0, 1.0]);
        let (_, gradient) = cross_entropy(&z, &t, &w);
        for i in 0..z.len() {
            let nudged = |by: f32| {
                let mut z = z.clone();
                z[i] += by;
                cross_entropy(&z, &t, &w).0
            };
            let want = (nudged(0.05) - nudged(-0.05)) / 0.1;
            assert!((gradient[i] - want).abs() < 1e-3, "{i}: {} {want}", gradient[i]);
        }
    }

    #[test]
    fn seeds_of_examples_do_not_repeat() {
        let mut seen = std::collections::BTreeSet::new();
        for step in 0..200 {
            for item in 0..32 {
                assert!(seen.insert(example_seed(7, step, item)));
            }
        }
    }
}
