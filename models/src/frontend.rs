//! Audio front end: turns one window of samples into the two time × mel planes that the network reads. One
//! definition for training and serving; it keeps no state between windows.
//!
//! Plane 0 is a per-channel energy normalisation after Wang et al. (2017), "Trainable frontend for robust and
//! far-field keyword spotting": each band divided by its own smoothed past, then root-compressed, so that a
//! steady noise machine fades and the microphone's colour cancels. Plane 1 is the log-mel spectrum minus each
//! band's mean over the window, which keeps the contrast of sounds that last.

use realfft::{RealFftPlanner, RealToComplex, num_complex::Complex32};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Planes per time-frequency point.
pub const PLANES: usize = 2;

/// Everything that defines the front end; stored beside the weights and checked when they are loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontEndConfig {
    /// Hz.
    pub sample_rate: u32,
    /// Samples of one window.
    pub window: usize,
    /// Samples of one spectral frame (Hann window and FFT).
    pub frame: usize,
    /// Samples between spectral frames.
    pub step: usize,
    /// Mel bands.
    pub mels: usize,
    /// Lower edge of the lowest band, Hz.
    pub low_hz: f32,
    /// Upper edge of the highest band, Hz.
    pub high_hz: f32,
    /// Power (full scale = 1) below which a band counts as silent.
    pub floor: f32,
    /// Time constant of the smoother of plane 0, seconds.
    pub smoothing_s: f32,
    /// Offset added before the root compression of plane 0.
    pub offset: f32,
    /// Exponent of the root compression of plane 0.
    pub power: f32,
}

impl Default for FrontEndConfig {
    fn default() -> Self {
        Self {
            sample_rate: 16_000,
            window: 48_000,
            frame: 640,
            step: 400,
            mels: 64,
            low_hz: 60.0,
            high_hz: 7_800.0,
            floor: 1e-11,
            smoothing_s: 0.4,
            offset: 2.0,
            power: 0.5,
        }
    }
}

impl FrontEndConfig {
    /// Spectral frames of one window.
    pub fn frames(&self) -> usize {
        self.window / self.step.max(1)
    }

    /// Says what is out of range, if anything; bounds keep a hostile file from asking for huge tables.
    pub fn check(&self) -> Result<(), String> {
        let in_range = |name: &str, value: f64, low: f64, high: f64| {
            if value.is_finite() && (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(format!("front end: {name} is {value}, must be between {low} and {high}"))
            }
        };
        in_range("sample_rate", f64::from(self.sample_rate), 16_000.0, 16_000.0)?;
        in_range("step", self.step as f64, 80.0, 1_600.0)?;
        in_range("frame", self.frame as f64, self.step as f64, 4_096.0)?;
        in_range("window", self.window as f64, 8_000.0, 480_000.0)?;
        in_range("mels", self.mels as f64, 8.0, 256.0)?;
        in_range("low_hz", f64::from(self.low_hz), 0.0, 4_000.0)?;
        in_range("high_hz", f64::from(self.high_hz), f64::from(self.low_hz) + 500.0, 8_000.0)?;
        in_range("floor", f64::from(self.floor), 1e-14, 1e-4)?;
        in_range("smoothing_s", f64::from(self.smoothing_s), 0.05, 10.0)?;
        in_range("offset", f64::from(self.offset), 1e-3, 100.0)?;
        in_range("power", f64::from(self.power), 0.05, 1.0)?;
        if !self.frame.is_multiple_of(2) || !self.window.is_multiple_of(self.step) {
            return Err("front end: frame must be even and window a multiple of step".into());
        }
        Ok(())
    }
}

/// One triangular mel filter: weights of the FFT bins from `first` on.
struct Filter {
    first: usize,
    weights: Vec<f32>,
}

/// The front end with its tables and scratch space; one per thread.
pub struct FrontEnd {
    config: FrontEndConfig,
    fft: Arc<dyn RealToComplex<f32>>,
    hann: Vec<f32>,
    filters: Vec<Filter>,
    /// Makes the sum over all bins of a frame its mean square.
    scale: f32,
    smoothing: f32,
    samples: Vec<f32>,
    frame: Vec<f32>,
    spectrum: Vec<Complex32>,
    scratch: Vec<Complex32>,
    power: Vec<f32>,
    mel: Vec<f32>,
}

impl FrontEnd {
    /// Builds the tables of a checked configuration.
    pub fn new(config: &FrontEndConfig) -> Self {
        let fft = RealFftPlanner::<f32>::new().plan_fft_forward(config.frame);
        let hann: Vec<f32> = (0..config.frame)
            .map(|i| (std::f32::consts::PI * (i as f32 + 0.5) / config.frame as f32).sin().powi(2))
            .collect();
        let window_power: f32 = hann.iter().map(|w| w * w).sum();
        Self {
            filters: mel_filters(config),
            scale: 2.0 / (window_power * config.frame as f32),
            smoothing: 1.0 - (-(config.step as f32) / (config.smoothing_s * config.sample_rate as f32)).exp(),
            samples: vec![0.0; config.window + config.frame],
            frame: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            power: vec![0.0; config.frame / 2 + 1],
            mel: vec![0.0; config.frames() * config.mels],
            hann,
            fft,
            config: config.clone(),
        }
    }

    /// Length of what [`features`](Self::features) appends: frames × mels × planes.
    pub fn features_len(&self) -> usize {
        self.config.frames() * self.config.mels * PLANES
    }

    /// Appends the features of one window, laid out `[frame][mel][plane]`, to `out`. Samples that are not finite
    /// count as silence and samples beyond full scale are clipped, so every feature is finite; a window that is
    /// too short is taken as preceded by silence, and of one that is too long the end counts.
    pub fn features(&mut self, window: &[f32], out: &mut Vec<f32>) {
        self.mel_power(window);
        let (frames, mels) = (self.config.frames(), self.config.mels);
        let base = out.len();
        out.resize(base + frames * mels * PLANES, 0.0);
        let out = &mut out[base..];
        let warm = (self.config.sample_rate as usize / 2 / self.config.step).clamp(1, frames);
        for band in 0..mels {
            let mut smooth = (0..warm).map(|t| self.mel[t * mels + band]).sum::<f32>() / warm as f32;
            let mut log_sum = 0.0;
            let root = |ratio: f32| (ratio + self.config.offset).powf(self.config.power);
            let rest = root(0.0);
            for t in 0..frames {
                let energy = self.mel[t * mels + band];
                smooth += self.smoothing * (energy - smooth);
                // Bounded so that a sound that breaks digital silence does not dwarf everything after it.
                let ratio = (energy / (smooth + self.config.floor)).min(400.0);
                let log = (energy + self.config.floor).ln();
                log_sum += log;
                let at = (t * mels + band) * PLANES;
                out[at] = 0.5 * (root(ratio) - rest);
                out[at + 1] = log;
            }
            let mean = log_sum / frames as f32;
            for t in 0..frames {
                let at = (t * mels + band) * PLANES + 1;
                out[at] = ((out[at] - mean) * 0.5).clamp(-3.0, 3.0);
            }
        }
    }

    /// Fills `self.mel` with band powers, `[frame][mel]`.
    fn mel_power(&mut self, window: &[f32]) {
        let c = &self.config;
        let pad = c.frame / 2;
        let window = &window[window.len().saturating_sub(c.window)..];
        self.samples.fill(0.0);
        let start = pad + c.window - window.len();
        for (to, &from) in self.samples[start..].iter_mut().zip(window) {
            *to = if from.is_finite() { from.clamp(-1.0, 1.0) } else { 0.0 };
        }
        for (t, mel) in self.mel.chunks_exact_mut(c.mels).enumerate() {
            // Frame t is centred on the middle of its step; `samples` starts `pad` before the window.
            let first = t * c.step + c.step / 2;
            let part = &self.samples[first..first + c.frame];
            for ((to, from), w) in self.frame.iter_mut().zip(part).zip(&self.hann) {
                *to = from * w;
            }
            let done = self.fft.process_with_scratch(&mut self.frame, &mut self.spectrum, &mut self.scratch);
            debug_assert!(done.is_ok(), "buffers were made by the plan itself");
            for (p, x) in self.power.iter_mut().zip(&self.spectrum) {
                *p = x.norm_sqr() * self.scale;
            }
            for (to, filter) in mel.iter_mut().zip(&self.filters) {
                let bins = &self.power[filter.first..filter.first + filter.weights.len()];
                *to = bins.iter().zip(&filter.weights).map(|(p, w)| p * w).sum();
            }
        }
    }
}

fn mel_filters(config: &FrontEndConfig) -> Vec<Filter> {
    // O'Shaughnessy's mel scale.
    let to_mel = |hz: f32| 2595.0 * (1.0 + hz / 700.0).log10();
    let to_hz = |mel: f32| 700.0 * (10f32.powf(mel / 2595.0) - 1.0);
    let (low, high) = (to_mel(config.low_hz), to_mel(config.high_hz));
    let bin_hz = config.sample_rate as f32 / config.frame as f32;
    let edge = |i: usize| to_hz(low + (high - low) * i as f32 / (config.mels + 1) as f32) / bin_hz;
    let last = config.frame / 2;
    (0..config.mels)
        .map(|band| {
            let centre = edge(band + 1);
            // At least one bin on each side, or the lowest bands would be empty.
            let left = edge(band).min(centre - 1.0);
            let right = edge(band + 2).max(centre + 1.0);
            let first = (left.ceil().max(0.0) as usize).min(last);
            let end = (right.floor() as usize).clamp(first, last);
            let weights = (first..=end)
                .map(|bin| {
                    let bin = bin as f32;
                    let rise = (bin - left) / (centre - left);
                    let fall = (right - bin) / (right - centre);
                    rise.min(fall).max(0.0)
                })
                .collect();
            Filter { first, weights }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn features(window: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        FrontEnd::new(&FrontEndConfig::default()).features(window, &mut out);
        out
    }

    fn tone(hz: f32, amplitude: f32) -> Vec<f32> {
        (0..48_000)
            .map(|i| amplitude * (2.0 * std::f32::consts::PI * hz * i as f32 / 16_000.0).sin())
            .collect()
    }

    #[test]
    fn power_of_a_tone_lands_in_its_band_at_its_level() {
        let mut front = FrontEnd::new(&FrontEndConfig::default());
        front.mel_power(&tone(1_000.0, 0.1));
        let frame = &front.mel[60 * 64..61 * 64];
        let total: f32 = frame.iter().sum();
        // Mean square 0.005; neighbouring triangles overlap to about one.
        assert!((0.003..0.008).contains(&total), "{total}");
        let peak = (0..64).max_by(|&a, &b| frame[a].total_cmp(&frame[b])).unwrap();
        let centre = {
            let mel = |hz: f32| 2595.0 * (1.0 + hz / 700.0).log10();
            (mel(1_000.0) - mel(60.0)) / (mel(7_800.0) - mel(60.0)) * 65.0 - 1.0
        };
        assert!((peak as f32 - centre).abs() <= 1.0, "{peak} {centre}");
    }

    #[test]
    fn a_change_of_level_hardly_changes_the_features() {
        let mut state = 1u32;
        let noise: Vec<f32> = (0..48_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state as f32 / u32::MAX as f32 * 0.2 - 0.1
            })
            .collect();
        let quiet: Vec<f32> = noise.iter().map(|x| x * 0.02).collect();
        let (loud, soft) = (features(&noise), features(&quiet));
        let total: f32 = loud.iter().zip(&soft).map(|(a, b)| (a - b).abs()).sum();
        let mean = total / loud.len() as f32;
        assert!(mean < 0.01, "{mean}");
    }

    #[test]
    fn every_input_gives_finite_features() {
        let mut odd = tone(500.0, 1.0);
        odd[5] = f32::NAN;
        odd[6] = f32::INFINITY;
        odd[7] = f32::NEG_INFINITY;
        odd[8] = f32::MAX;
        for window in [vec![], vec![0.0; 48_000], vec![1.0; 48_000], odd, vec![0.3; 10], vec![-1.0; 90_000]] {
            let out = features(&window);
            assert_eq!(out.len(), 120 * 64 * PLANES);
            assert!(out.iter().all(|x| x.is_finite() && x.abs() < 20.0));
        }
    }

    #[test]
    fn a_configuration_out_of_range_is_refused() {
        for bad in [
            FrontEndConfig { frame: 100_000, ..Default::default() },
            FrontEndConfig { window: usize::MAX, ..Default::default() },
            FrontEndConfig { mels: 0, ..Default::default() },
            FrontEndConfig { floor: f32::NAN, ..Default::default() },
            FrontEndConfig { sample_rate: 8_000, ..Default::default() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        FrontEndConfig::default().check().unwrap();
    }
}
