//! Training: examples come from one thread, gradients from another, and the averaged weights are folded into a
//! file that the detector loads. Everything is drawn from one seed, so a run can be repeated and resumed. From time
//! to time the network listens to all clips without crying, and those that it takes for crying are then heard more
//! often.

pub mod attributions;
pub mod average;
pub mod bench;
pub mod calibrate;
pub mod checkpoint;
pub mod corpus;
pub mod cries;
pub mod curves;
pub mod evaluate;
pub mod mixture;
pub mod optimiser;
pub mod prepare;
pub mod signal;
pub mod validation;
pub mod voice;

use crate::bounded;
use crate::detector::Detector;
use crate::frontend::{FrontEnd, FrontEndConfig, PLANES};
use crate::net::{DROPOUT, NetConfig, Network};
use crate::recording::score_recording;
use crate::weights::{self, Description};
use candle_core::{Device, Tensor};
use checkpoint::Checkpoint;
use corpus::Corpus;
use curves::Point;
use mixture::Mixer;
use optimiser::AdamW;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::PathBuf;
use std::sync::mpsc::{channel, sync_channel};
use std::time::Instant;
use validation::Validation;

/// What to train and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Stop after this many minutes, earlier runs of a resumed training included.
    pub minutes: Option<f64>,
    /// Stop after this many steps.
    pub steps: Option<u64>,
    /// Examples per step.
    pub batch: usize,
    /// Seconds of an example.
    pub seconds: usize,
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
    /// Commit written into the file.
    pub commit: String,
    /// Shape of the network.
    pub network: NetConfig,
    /// Share of the crying that is made instead of recorded, 0 to 1.
    pub made: f64,
    /// Samples by which scores lag behind their sound: what the network hears of the future. Whole score frames.
    pub lookahead: usize,
    /// Learn from examples that begin as streams are served, with a low floor; otherwise their first frame is the floor.
    pub served_start: bool,
}

impl Plan {
    /// What a checkpoint must have in common with it and what it learns from, besides the seed.
    fn line(&self, corpus: &Corpus) -> String {
        let network = serde_json::to_string(&self.network).unwrap_or_default();
        let Self { batch, seconds, rate, lookahead, made, served_start, .. } = self;
        let start = if *served_start { "low" } else { "plain" };
        let clips = corpus.clips.len();
        let samples: usize = corpus.clips.iter().map(|c| c.samples.len()).sum();
        let stretches = corpus.clips.iter().flat_map(|c| &c.stretches);
        let crying: usize =
            stretches.filter(|s| s.kind == cries::Kind::Cry).map(|s| s.end.saturating_sub(s.start)).sum();
        format!(
            "{batch} examples of {seconds} s, rate {rate}, lookahead {lookahead} samples, network {network}, \
             {clips} clips of {samples} samples, {crying} of them crying, {made} made, {start} start"
        )
    }
}

/// Steps between two looks at the development clips, after each of which the model's own false alarms are heard more
/// often.
pub const ROUND: u64 = 1_500;
/// Steps by which the mixing thread may be ahead of the learning one, at the most.
const AHEAD: u64 = 8;
/// Batches over which the statistics of averaged weights are taken.
const SAMPLE: u64 = 12;
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
    /// The newest point of the learning curve.
    pub last: Option<Point>,
}

/// One batch on its way from the mixing thread to the learning one.
struct Batch {
    features: Vec<f32>,
    targets: Vec<f32>,
    weights: Vec<f32>,
    mask: Vec<f32>,
}

/// Starting point of a file's description.
pub fn description(version: &str) -> Description {
    Description {
        format: weights::FORMAT,
        name: "nursery-crnn".into(),
        version: version.into(),
        front_end: FrontEndConfig::default(),
        network: NetConfig::default(),
        hop: 4_000,
        lookahead: 6_400,
        labels: vec!["baby_cry".into()],
        threshold: 0.5,
        logit_scale: 1.0,
        logit_bias: 0.0,
        recipe: String::new(),
        commit: String::new(),
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

/// Blanks random bands and random stretches of time (SpecAugment, Park et al., 2019).
fn spec_augment(rng: &mut StdRng, features: &mut [f32], mels: usize) {
    let frames = features.len() / (mels * PLANES);
    for _ in 0..rng.random_range(0..3) {
        let width = rng.random_range(1..=9);
        let first = rng.random_range(0..mels - width);
        for row in features.chunks_exact_mut(mels * PLANES) {
            row[first * PLANES..(first + width) * PLANES].fill(0.0);
        }
    }
    for _ in 0..rng.random_range(0..3) {
        let width = rng.random_range(1..=12);
        let first = rng.random_range(0..frames - width);
        features[first * mels * PLANES..(first + width) * mels * PLANES].fill(0.0);
    }
}

/// Moves values to the frames in which the network has to say them: the lookahead later.
pub(crate) fn delayed<'a>(values: &'a [f32], d: &Description) -> impl Iterator<Item = f32> + 'a {
    let kept = values.len().saturating_sub(d.lookahead / d.frame_step());
    std::iter::repeat_n(0.0, values.len() - kept).chain(values[..kept].iter().copied())
}

fn make_batch(mixer: &mut Mixer<'_>, front: &mut FrontEnd, d: &Description, plan: &Plan, step: u64) -> Batch {
    let mut batch =
        Batch { features: Vec::new(), targets: Vec::new(), weights: Vec::new(), mask: Vec::new() };
    for item in 0..plan.batch {
        let seed = example_seed(plan.seed, step, item as u64);
        let example = mixer.example(seed);
        let start = batch.features.len();
        let mut state = vec![0.0; d.front_end.state_len()];
        front.features(&mut state, &example.samples, &mut batch.features);
        let rng = &mut StdRng::seed_from_u64(seed ^ 1);
        spec_augment(rng, &mut batch.features[start..], d.front_end.mels);
        batch.targets.extend(delayed(&example.targets, d));
        batch.weights.extend(delayed(&example.weights, d));
        let keep = 1.0 - DROPOUT;
        batch
            .mask
            .extend((0..d.network.width).map(|_| if rng.random::<f32>() < keep { 1.0 / keep } else { 0.0 }));
    }
    batch
}

/// Binary cross-entropy of logits and its gradient, both per unit of weight.
pub(crate) fn cross_entropy(logits: &[f32], targets: &[f32], weights: &[f32]) -> (f32, Vec<f32>) {
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

/// How much the clips without crying are taken for it: the mean over their frames of how far the probability is
/// over 0.3, by index in the corpus; only those with any. Clips of the cries' own phones are left out: nobody knows
/// for sure that there is no whimper in them.
fn mine(detector: &mut Detector, corpus: &Corpus) -> Result<Vec<(usize, f32)>, String> {
    let mut found = Vec::new();
    for (i, clip) in corpus.clips.iter().enumerate().filter(|(_, c)| !c.is_cry && c.class != "phone_bg") {
        let samples: Vec<f32> = clip.samples.iter().map(|&x| f32::from(x) / 32_768.0).collect();
        let frames = score_recording(detector, &samples).map_err(|e| e.to_string())?;
        let excess: f32 = frames.iter().map(|p| (p - 0.3).max(0.0)).sum();
        // Long and short clips count alike, and none for more than a few others.
        let weight = (excess / frames.len().max(1) as f32).min(0.3);
        if weight > 0.002 {
            found.push((i, weight));
        }
    }
    Ok(found)
}

/// What came out of a training.
#[derive(Debug)]
pub struct Trained {
    /// Bytes of an uncalibrated weights file.
    pub weights: Vec<u8>,
    /// The learning curve.
    pub curve: Vec<Point>,
    /// Steps taken.
    pub steps: u64,
}

/// Trains on `corpus`; `dev` is looked at from time to time for the learning curve, and `progress` is told of each
/// step.
///
/// # Errors
/// One line for people.
pub fn train(
    corpus: &Corpus,
    dev: &Corpus,
    plan: &Plan,
    mut progress: impl FnMut(Progress),
) -> Result<Trained, String> {
    let text = |e: candle_core::Error| e.to_string();
    let mut d = description(&plan.version);
    d.network = plan.network.clone();
    d.lookahead = plan.lookahead;
    if !plan.served_start {
        d.front_end = d.front_end.plain();
    }
    d.commit.clone_from(&plan.commit);
    d.check()?;
    let mels = d.front_end.mels;
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let network = Network::training(&d.network, mels, || signal::normal(&mut rng)).map_err(text)?;
    let mut adam = AdamW::new(network.vars()).map_err(text)?;
    let (mut spent, mut curve, mut mined) = (0.0, Vec::new(), Vec::new());
    if plan.resume {
        let saved = Checkpoint::load(&plan.checkpoint)?;
        if saved.seed != plan.seed {
            return Err(format!("{}: was made with seed {}", plan.checkpoint.display(), saved.seed));
        }
        let line = plan.line(corpus);
        if saved.plan != line {
            let (path, was, is) = (plan.checkpoint.display(), saved.plan, line);
            return Err(format!("{path}: was made with {was}; this is {is}"));
        }
        network.set_stats(&saved.stats);
        adam.restore(saved.step, saved.slots).map_err(text)?;
        (spent, curve, mined) = (saved.minutes, saved.curve, saved.mined);
    }
    let best_path = plan.checkpoint.with_extension("best");
    let mut best: Option<(f32, Vec<u8>)> = None;
    if plan.resume && !curve.is_empty() {
        let bytes = bounded::read_file(&best_path).map_err(|e| format!("{}: {e}", best_path.display()))?;
        weights::parse(&bytes).map_err(|e| format!("{}: {e}", best_path.display()))?;
        best = curve.iter().map(|p: &Point| p.dev_ap).max_by(f32::total_cmp).map(|ap| (ap, bytes));
    }
    let length = plan.seconds * d.front_end.sample_rate as usize;
    let mut mixer = Mixer::new(corpus, length, d.frame_step())?.with_made(plan.made);
    mixer.set_mined(&mined);
    let validation = Validation::new(dev, length, &d)?;
    let shape = (plan.batch, length / d.front_end.step, mels, PLANES);
    let mut front = FrontEnd::new(&d.front_end);
    let mut sample = Vec::new();
    for i in 0..SAMPLE {
        // Steps that no training reaches.
        let batch = make_batch(&mut mixer, &mut front, &d, plan, u64::MAX / 2 + i);
        sample.push(Tensor::from_vec(batch.features, shape, &Device::Cpu).map_err(text)?);
    }
    let started = Instant::now();
    let first_step = adam.step;
    let minutes_now = || spent + started.elapsed().as_secs_f64() / 60.0;
    let folded = |adam: &AdamW| -> Result<_, String> {
        let averages = adam.averages();
        let stats = network.stats_of(&averages, &sample).map_err(text)?;
        network.fold(&averages, &stats).map_err(text)
    };
    let save = |adam: &AdamW, curve: &[Point], mined: &[(usize, f32)]| {
        Checkpoint {
            step: adam.step,
            minutes: minutes_now(),
            seed: plan.seed,
            plan: plan.line(corpus),
            slots: adam.slots.clone(),
            stats: network.stats(),
            curve: curve.to_vec(),
            mined: mined.to_vec(),
        }
        .save(&plan.checkpoint)
    };
    let (sender, receiver) = sync_channel::<Batch>(4);
    let (mined_sender, mined_receiver) = channel::<Vec<(usize, f32)>>();
    let d_mixer = d.clone();
    std::thread::scope(|scope| -> Result<(), String> {
        scope.spawn(move || {
            let mut front = FrontEnd::new(&d_mixer.front_end);
            // Ends when the learner hangs up.
            for step in first_step.. {
                // A fixed place for what was mined makes a run repeatable.
                let round = step.saturating_sub(AHEAD);
                if round > 0 && round % ROUND == 0 && round >= first_step {
                    let Ok(clips) = mined_receiver.recv() else { break };
                    mixer.set_mined(&clips);
                }
                if sender.send(make_batch(&mut mixer, &mut front, &d_mixer, plan, step)).is_err() {
                    break;
                }
            }
        });
        // Dropped on every way out, which ends the mixing thread.
        let (receiver, mined_sender) = (receiver, mined_sender);
        let mut recent = curve.last().map_or(0.7, |p: &Point| p.loss);
        let mut last_save = Instant::now();
        loop {
            let by_time = plan.minutes.map_or(0.0, |m| minutes_now() / m);
            let by_steps = plan.steps.map_or(0.0, |s| adam.step as f64 / s.max(1) as f64);
            let done = by_time.max(by_steps);
            if (adam.step > 0 && adam.step % ROUND == 0) || done >= 1.0 {
                let mut detector =
                    Detector::from_bytes(&weights::serialize(&d, &folded(&adam)?)?, "new weights")
                        .map_err(|e| e.to_string())?;
                let (dev_loss, dev_ap) = validation.run(detector.network())?;
                let point =
                    Point { step: adam.step, minutes: minutes_now() as f32, loss: recent, dev_loss, dev_ap };
                if curve.last().is_none_or(|p| p.step < point.step) {
                    curve.push(point);
                }
                // What has learned the training clips by heart does worse on others: the best look is kept.
                if best.as_ref().is_none_or(|(ap, _)| dev_ap > *ap) {
                    let bytes = weights::serialize(&d, &folded(&adam)?)?;
                    checkpoint::replace(&best_path, &bytes)?;
                    best = Some((dev_ap, bytes));
                }
                if done >= 1.0 {
                    break;
                }
                mined = mine(&mut detector, corpus)?;
                // The mixing thread waits for it; where it ended early, the next receive tells.
                let _ = mined_sender.send(mined.clone());
                save(&adam, &curve, &mined)?;
                last_save = Instant::now();
            }
            let Ok(batch) = receiver.recv() else { return Err("the mixing thread ended".into()) };
            let warm = ((adam.step + 1) as f32 / 200.0).min(1.0);
            let cosine = 0.5 * (1.0 + (std::f32::consts::PI * done as f32).cos());
            let rate = plan.rate * warm * (0.01 + 0.99 * cosine);
            let features = Tensor::from_vec(batch.features, shape, &Device::Cpu).map_err(text)?;
            let mask =
                Tensor::from_vec(batch.mask, (plan.batch, 1, d.network.width), &Device::Cpu).map_err(text)?;
            let logits = network.forward(&features, Some(&mask)).map_err(text)?;
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
            recent += 0.01 * (loss - recent);
            let speed = (adam.step - first_step) as f64 / started.elapsed().as_secs_f64();
            progress(Progress {
                step: adam.step,
                done,
                loss: recent,
                rate,
                speed,
                last: curve.last().copied(),
            });
            if last_save.elapsed().as_secs() >= 120 {
                save(&adam, &curve, &mined)?;
                last_save = Instant::now();
            }
        }
        Ok(())
    })?;
    save(&adam, &curve, &mined)?;
    d.recipe = format!(
        "{} steps of {} x {} s, AdamW, rate {}, cosine, seed {}, {} clips{}",
        adam.step,
        plan.batch,
        plan.seconds,
        plan.rate,
        plan.seed,
        corpus.clips.len(),
        if plan.served_start { ", served start" } else { "" }
    );
    let chosen = curve.iter().max_by(|a, b| a.dev_ap.total_cmp(&b.dev_ap)).map_or(adam.step, |p| p.step);
    d.recipe += &format!(", weights of step {chosen}");
    let (_, bytes) = best.ok_or("nothing was trained")?;
    let (_, tensors) = weights::parse(&bytes)?;
    Ok(Trained { weights: weights::serialize(&d, &tensors)?, curve, steps: adam.step })
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
