//! Audio front end: turns samples into the two time × mel planes that the network reads, frame by frame. One
//! definition for training and serving; what it remembers of a stream is handed in and out, so that a stream in
//! parts gives what the whole would.
//!
//! Plane 0 is a per-channel energy normalisation after Wang et al. (2017), "Trainable frontend for robust and
//! far-field keyword spotting": each band divided by its own smoothed past, then root-compressed, so that a
//! steady noise machine fades and the microphone's colour cancels. Plane 1 is the log-mel spectrum over a slow
//! estimate of each band's floor, which follows down at once and up only slowly: it keeps the contrast of sounds
//! that last, such as minutes of crying, as long as they breathe. Nobody knows the floor at the start of a stream:
//! it is taken to be flat and low, or a stream that begins in the middle of a cry would count it as its floor.

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
    /// Samples of one spectral frame (Hann window and FFT); it ends with its step, so it looks back only.
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
    /// Time constant with which the floor of plane 1 rises, seconds.
    pub rise_s: f32,
    /// Time constant with which the floor of plane 1 falls, seconds.
    pub fall_s: f32,
    /// At the start of a stream the floor of plane 1 lies so far below the mean of the first frame's bands, in nats.
    #[serde(default)]
    pub start_below: f32,
    /// How much past that first floor stands for, seconds; with 0 the floor begins as the first frame.
    #[serde(default)]
    pub start_s: f32,
    /// How fast the floor rises at the start, as a share of how fast it falls; 1 in files that do not say it.
    #[serde(default = "one")]
    pub start_rise: f32,
}

fn one() -> f32 {
    1.0
}

impl Default for FrontEndConfig {
    fn default() -> Self {
        Self {
            sample_rate: 16_000,
            frame: 640,
            step: 400,
            mels: 96,
            low_hz: 60.0,
            high_hz: 7_800.0,
            floor: 1e-11,
            smoothing_s: 0.5,
            offset: 2.0,
            power: 0.5,
            rise_s: 8.0,
            fall_s: 1.0,
            start_below: 2.0,
            start_s: 0.25,
            start_rise: 0.5,
        }
    }
}

impl FrontEndConfig {
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
        in_range("mels", self.mels as f64, 8.0, 256.0)?;
        in_range("low_hz", f64::from(self.low_hz), 0.0, 4_000.0)?;
        in_range("high_hz", f64::from(self.high_hz), f64::from(self.low_hz) + 500.0, 8_000.0)?;
        in_range("floor", f64::from(self.floor), 1e-14, 1e-4)?;
        in_range("smoothing_s", f64::from(self.smoothing_s), 0.05, 10.0)?;
        in_range("offset", f64::from(self.offset), 1e-3, 100.0)?;
        in_range("power", f64::from(self.power), 0.05, 1.0)?;
        in_range("rise_s", f64::from(self.rise_s), 0.05, 600.0)?;
        in_range("fall_s", f64::from(self.fall_s), 0.05, 600.0)?;
        in_range("start_below", f64::from(self.start_below), 0.0, 20.0)?;
        in_range("start_s", f64::from(self.start_s), 0.0, 60.0)?;
        in_range("start_rise", f64::from(self.start_rise), 0.0, 1.0)?;
        if !self.frame.is_multiple_of(2) {
            return Err("front end: frame must be even".into());
        }
        Ok(())
    }

    /// The same, where the floor begins as the first frame and averages plainly.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { start_below: 0.0, start_s: 0.0, start_rise: 1.0, ..self }
    }

    /// The same, where the floor begins as it does by default: what streams are served with.
    #[must_use]
    pub fn serving(self) -> Self {
        let Self { start_below, start_s, start_rise, .. } = Self::default();
        Self { start_below, start_s, start_rise, ..self }
    }

    /// Values that the front end remembers of a stream: the samples that the next frame still needs, two smoothers
    /// for each band, and how many frames there have been.
    pub fn state_len(&self) -> usize {
        self.frame - self.step + 2 * self.mels + 1
    }
}

/// One triangular mel filter: weights of the FFT bins from `first` on.
struct Filter {
    first: usize,
    weights: Vec<f32>,
}

/// Frames from which on the smoothers have their full time constants; the count of a stream's frames stops here.
const SETTLED: f32 = 100_000.0;

/// The front end with its tables and scratch space; one per thread.
pub struct FrontEnd {
    config: FrontEndConfig,
    fft: Arc<dyn RealToComplex<f32>>,
    hann: Vec<f32>,
    filters: Vec<Filter>,
    /// Makes the sum over all bins of a frame its mean square.
    scale: f32,
    smoothing: f32,
    rise: f32,
    fall: f32,
    /// Frames that the first floor of plane 1 stands for.
    before: f32,
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
        // Periodic Hann window.
        let hann: Vec<f32> = (0..config.frame)
            .map(|i| (std::f32::consts::PI * i as f32 / config.frame as f32).sin().powi(2))
            .collect();
        let window_power: f32 = hann.iter().map(|w| w * w).sum();
        let share =
            |seconds: f32| 1.0 - (-(config.step as f32) / (seconds * config.sample_rate as f32)).exp();
        Self {
            filters: mel_filters(config),
            scale: 2.0 / (window_power * config.frame as f32),
            smoothing: share(config.smoothing_s),
            rise: share(config.rise_s),
            fall: share(config.fall_s),
            before: config.start_s * config.sample_rate as f32 / config.step as f32,
            samples: Vec::new(),
            frame: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            power: vec![0.0; config.frame / 2 + 1],
            mel: vec![0.0; config.mels],
            hann,
            fft,
            config: config.clone(),
        }
    }

    /// Appends the features of the next samples of a stream, laid out `[frame][mel][plane]`, to `out`, one frame for
    /// every full `step` of samples; what is left over at the end is not looked at. `state` is what the front end
    /// remembers of the stream ([`FrontEndConfig::state_len`] values, zeros at its start) and is carried on. Samples
    /// that are not finite count as silence and samples beyond full scale are clipped, so every feature is finite.
    pub fn features(&mut self, state: &mut [f32], samples: &[f32], out: &mut Vec<f32>) {
        let (step, mels) = (self.config.step, self.config.mels);
        let past = self.config.frame - step;
        debug_assert_eq!(state.len(), self.config.state_len());
        let frames = samples.len() / step;
        self.samples.clear();
        self.samples.extend_from_slice(&state[..past]);
        let clean = |x: &f32| if x.is_finite() { x.clamp(-1.0, 1.0) } else { 0.0 };
        self.samples.extend(samples[..frames * step].iter().map(clean));
        let (history, memory) = state.split_at_mut(past);
        history.copy_from_slice(&self.samples[frames * step..]);
        let base = out.len();
        out.resize(base + frames * mels * PLANES, 0.0);
        for (t, out) in out[base..].chunks_exact_mut(mels * PLANES).enumerate() {
            self.mel_power(t * step);
            self.normalise(memory, out);
        }
    }

    /// Fills `self.mel` with the band powers of the frame that starts at `first` in `self.samples`.
    fn mel_power(&mut self, first: usize) {
        let part = &self.samples[first..first + self.config.frame];
        for ((to, from), w) in self.frame.iter_mut().zip(part).zip(&self.hann) {
            *to = from * w;
        }
        let done = self.fft.process_with_scratch(&mut self.frame, &mut self.spectrum, &mut self.scratch);
        debug_assert!(done.is_ok(), "buffers were made by the plan itself");
        for (p, x) in self.power.iter_mut().zip(&self.spectrum) {
            *p = x.norm_sqr() * self.scale;
        }
        for (to, filter) in self.mel.iter_mut().zip(&self.filters) {
            let bins = &self.power[filter.first..filter.first + filter.weights.len()];
            *to = bins.iter().zip(&filter.weights).map(|(p, w)| p * w).sum();
        }
    }

    /// Both planes of one frame. `memory` holds the smoother and the floor of each band, then the count of frames:
    /// at the start of a stream the smoother is a plain average, and the floor one that is slower to rise.
    fn normalise(&self, memory: &mut [f32], out: &mut [f32]) {
        let c = &self.config;
        let (smooth, rest) = memory.split_at_mut(c.mels);
        let (floor, count) = rest.split_at_mut(c.mels);
        let start = 1.0 / (count[0] + 1.0);
        // Without it the first frame is the floor, whatever stands here.
        if count[0] == 0.0 && self.before > 0.0 {
            let logs = self.mel.iter().map(|energy| (energy + c.floor).ln());
            floor.fill(logs.sum::<f32>() / c.mels as f32 - c.start_below);
        }
        let at_least = 1.0 / (count[0] + 1.0 + self.before);
        let (fall, rise) = (self.fall.max(at_least), self.rise.max(c.start_rise * at_least));
        count[0] = (count[0] + 1.0).min(SETTLED);
        let root = |ratio: f32| {
            if c.power == 0.5 { (ratio + c.offset).sqrt() } else { (ratio + c.offset).powf(c.power) }
        };
        let rest = root(0.0);
        let bands = self.mel.iter().zip(smooth).zip(floor);
        for (((energy, smooth), floor), out) in bands.zip(out.chunks_exact_mut(PLANES)) {
            *smooth += self.smoothing.max(start) * (energy - *smooth);
            // Bounded so that a sound that breaks digital silence does not dwarf everything after it.
            let ratio = (energy / (*smooth + c.floor)).min(400.0);
            out[0] = 0.5 * (root(ratio) - rest);
            let log = (energy + c.floor).ln();
            *floor += if log < *floor { fall } else { rise } * (log - *floor);
            out[1] = ((log - *floor) * 0.35).clamp(-4.0, 4.0);
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

    fn features(samples: &[f32]) -> Vec<f32> {
        let config = FrontEndConfig::default();
        let mut out = Vec::new();
        FrontEnd::new(&config).features(&mut vec![0.0; config.state_len()], samples, &mut out);
        out
    }

    fn tone(hz: f32, amplitude: f32) -> Vec<f32> {
        (0..48_000)
            .map(|i| amplitude * (2.0 * std::f32::consts::PI * hz * i as f32 / 16_000.0).sin())
            .collect()
    }

    fn noise(n: usize) -> Vec<f32> {
        let mut state = 1u32;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state as f32 / u32::MAX as f32 * 0.2 - 0.1
            })
            .collect()
    }

    #[test]
    fn power_of_a_tone_lands_in_its_band_at_its_level() {
        let mels = FrontEndConfig::default().mels;
        let mut front = FrontEnd::new(&FrontEndConfig::default());
        front.samples = tone(1_000.0, 0.1);
        front.mel_power(24_000);
        let total: f32 = front.mel.iter().sum();
        // Mean square 0.005; neighbouring triangles overlap to about one.
        assert!((0.003..0.008).contains(&total), "{total}");
        let peak = (0..mels).max_by(|&a, &b| front.mel[a].total_cmp(&front.mel[b])).unwrap();
        let centre = {
            let mel = |hz: f32| 2595.0 * (1.0 + hz / 700.0).log10();
            (mel(1_000.0) - mel(60.0)) / (mel(7_800.0) - mel(60.0)) * (mels + 1) as f32 - 1.0
        };
        assert!((peak as f32 - centre).abs() <= 1.0, "{peak} {centre}");
    }

    #[test]
    fn a_change_of_level_hardly_changes_the_features() {
        let noise = noise(48_000);
        let quiet: Vec<f32> = noise.iter().map(|x| x * 0.02).collect();
        let (loud, soft) = (features(&noise), features(&quiet));
        let total: f32 = loud.iter().zip(&soft).map(|(a, b)| (a - b).abs()).sum();
        let mean = total / loud.len() as f32;
        assert!(mean < 0.01, "{mean}");
    }

    #[test]
    fn a_stream_in_parts_gives_what_the_whole_gives() {
        let config = FrontEndConfig::default();
        let noise = noise(48_000);
        let whole = features(&noise);
        let mut front = FrontEnd::new(&config);
        let (mut state, mut parts) = (vec![0.0; config.state_len()], Vec::new());
        for part in [&noise[..400], &noise[400..4_400], &noise[4_400..]] {
            front.features(&mut state, part, &mut parts);
        }
        assert_eq!(whole, parts);
    }

    #[test]
    fn a_sound_that_breathes_keeps_its_contrast_for_minutes() {
        let mut x = noise(16_000 * 120);
        // A second of tone on every breath.
        for (i, x) in x.iter_mut().enumerate() {
            let tone = 0.5 * (2.0 * std::f32::consts::PI * 500.0 * i as f32 / 16_000.0).sin();
            *x = *x * 0.05 + if i % 24_000 < 16_000 { tone } else { 0.0 };
        }
        let out = features(&x);
        let mels = FrontEndConfig::default().mels;
        let band = |t: usize, plane: usize| {
            (0..mels).map(|m| out[(t * mels + m) * PLANES + plane]).fold(f32::MIN, f32::max)
        };
        // The last bursts: frames 40 a second, one burst every 60 frames.
        let late: f32 = (4_700..4_760).map(|t| band(t, 1)).fold(f32::MIN, f32::max);
        assert!(late > 1.0, "{late}");
    }

    #[test]
    fn a_stream_that_begins_with_a_sound_keeps_its_contrast() {
        let sound: Vec<f32> = tone(500.0, 0.3).iter().zip(noise(48_000)).map(|(t, n)| t + 0.02 * n).collect();
        let mels = FrontEndConfig::default().mels;
        let out = features(&sound);
        for t in [4, 20, 39] {
            let plane = out[t * mels * PLANES..][..mels * PLANES].iter().skip(1).step_by(PLANES);
            let (least, most) = plane.fold((f32::MAX, f32::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
            assert!(most - least > 1.5, "frame {t}: {least} to {most}");
        }
        // What says nothing of the start takes the first frame for the floor, as files of old do.
        let json = serde_json::to_value(FrontEndConfig::default()).unwrap();
        let old: serde_json::Map<_, _> =
            json.as_object().unwrap().clone().into_iter().filter(|(k, _)| !k.starts_with("start_")).collect();
        let config: FrontEndConfig = serde_json::from_value(old.into()).unwrap();
        config.check().unwrap();
        assert_eq!(config, FrontEndConfig::default().plain());
        assert_eq!(config.clone().serving(), FrontEndConfig::default());
        let mut out = Vec::new();
        FrontEnd::new(&config).features(&mut vec![0.0; config.state_len()], &sound[..400], &mut out);
        assert!(out.iter().skip(1).step_by(PLANES).all(|x| x.abs() < 1e-4), "{out:?}");
    }

    #[test]
    fn every_input_gives_finite_features() {
        let mut odd = tone(500.0, 1.0);
        odd[5] = f32::NAN;
        odd[6] = f32::INFINITY;
        odd[7] = f32::NEG_INFINITY;
        odd[8] = f32::MAX;
        for samples in [vec![], vec![0.0; 48_000], vec![1.0; 48_000], odd, vec![0.3; 10], vec![-1.0; 90_000]]
        {
            let out = features(&samples);
            assert_eq!(out.len(), samples.len() / 400 * FrontEndConfig::default().mels * PLANES);
            assert!(out.iter().all(|x| x.is_finite() && x.abs() < 20.0));
        }
    }

    #[test]
    fn a_configuration_out_of_range_is_refused() {
        for bad in [
            FrontEndConfig { frame: 100_000, ..Default::default() },
            FrontEndConfig { mels: 0, ..Default::default() },
            FrontEndConfig { floor: f32::NAN, ..Default::default() },
            FrontEndConfig { rise_s: f32::INFINITY, ..Default::default() },
            FrontEndConfig { sample_rate: 8_000, ..Default::default() },
            FrontEndConfig { start_below: -1.0, ..Default::default() },
            FrontEndConfig { start_s: f32::NAN, ..Default::default() },
            FrontEndConfig { start_rise: 2.0, ..Default::default() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        FrontEndConfig::default().check().unwrap();
    }
}
