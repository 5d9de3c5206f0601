//! The spectrogram of a stream: power in bands of equal width in mel, up to 8 kHz, in a bounded number of columns.

use std::sync::Arc;

use nursery_shared::pcm::SAMPLE_RATE;
use realfft::{RealFftPlanner, RealToComplex, num_complex::Complex32};

use super::series::{Merge, Series};

/// Samples of one spectrum: harmonics of a cry (300 Hz apart and more) lie well apart, its bursts too.
const FRAME: usize = 512;
/// Samples between spectra.
const STEP: usize = 128;
/// Bands of a spectrum.
pub const BANDS: usize = 128;
/// Columns that are kept at most.
const COLUMNS: usize = 2800;
/// Power that is shown as nothing at all.
const FLOOR: f32 = 1e-12;

/// O'Shaughnessy's mel scale.
pub fn mel(hz: f32) -> f32 {
    2595.0 * (1.0 + hz / 700.0).log10()
}

fn hz(mel: f32) -> f32 {
    700.0 * (10f32.powf(mel / 2595.0) - 1.0)
}

/// Sum of the powers of some spectra.
#[derive(Debug, Clone)]
struct Power {
    sum: Box<[f32]>,
    spectra: f32,
}

impl Merge for Power {
    fn merge(&mut self, next: &Self) {
        self.sum.iter_mut().zip(&next.sum).for_each(|(a, b)| *a += b);
        self.spectra += next.spectra;
    }
}

/// One band: weights of the bins from `first` on; they add up to one.
struct Band {
    first: usize,
    weights: Vec<f32>,
}

/// Takes audio in and keeps its spectrogram.
pub struct Spectrogram {
    fft: Arc<dyn RealToComplex<f32>>,
    hann: Vec<f32>,
    bands: Vec<Band>,
    /// Makes the bin of a full-scale sine its mean square.
    scale: f32,
    /// Audio that is not in a spectrum yet, or will be in another.
    audio: Vec<f32>,
    samples: u64,
    frame: Vec<f32>,
    bins: Vec<Complex32>,
    scratch: Vec<Complex32>,
    power: Vec<f32>,
    series: Series<Power>,
}

impl Spectrogram {
    pub fn new() -> Self {
        let fft = RealFftPlanner::<f32>::new().plan_fft_forward(FRAME);
        let hann: Vec<f32> = (0..FRAME)
            .map(|i| (std::f32::consts::PI * (i as f32 + 0.5) / FRAME as f32).sin().powi(2))
            .collect();
        let gain: f32 = hann.iter().sum();
        Self {
            bands: bands(),
            scale: 2.0 / (gain * gain),
            // The first spectrum is centred on the first step.
            audio: vec![0.0; (FRAME - STEP) / 2],
            samples: 0,
            frame: fft.make_input_vec(),
            bins: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            power: vec![0.0; FRAME / 2 + 1],
            series: Series::new(COLUMNS),
            hann,
            fft,
        }
    }

    /// Takes in what follows.
    pub fn push(&mut self, samples: &[f32]) {
        self.samples += samples.len() as u64;
        for piece in samples.chunks(16 * FRAME) {
            self.audio.extend_from_slice(piece);
            let mut from = 0;
            while from + FRAME <= self.audio.len() {
                self.spectrum(from);
                from += STEP;
            }
            self.audio.drain(..from);
        }
    }

    /// The audio is at its end.
    pub fn finish(&mut self) {
        let wanted = self.samples.div_ceil(STEP as u64);
        while self.series.items() < wanted {
            self.audio.resize(FRAME, 0.0);
            self.spectrum(0);
            self.audio.drain(..STEP);
        }
    }

    fn spectrum(&mut self, from: usize) {
        let part = &self.audio[from..from + FRAME];
        for ((to, from), w) in self.frame.iter_mut().zip(part).zip(&self.hann) {
            *to = if from.is_finite() { from * w } else { 0.0 };
        }
        let done = self.fft.process_with_scratch(&mut self.frame, &mut self.bins, &mut self.scratch);
        debug_assert!(done.is_ok(), "buffers were made by the plan itself");
        for (power, bin) in self.power.iter_mut().zip(&self.bins) {
            *power = bin.norm_sqr() * self.scale;
        }
        let in_band =
            |band: &Band| self.power[band.first..].iter().zip(&band.weights).map(|(p, w)| p * w).sum::<f32>();
        self.series.push(Power { sum: self.bands.iter().map(in_band).collect(), spectra: 1.0 });
    }

    /// Levels in dBFS (a sine of full scale has about -3), `columns` columns of [`BANDS`] from low to high, that
    /// together stand for `samples` samples.
    pub fn columns(&self, columns: usize, samples: u64) -> Vec<[f32; BANDS]> {
        let level = |power: &Power| {
            let mut levels = [0.0; BANDS];
            for (to, sum) in levels.iter_mut().zip(&power.sum) {
                *to = 10.0 * (sum / power.spectra + FLOOR).log10();
            }
            levels
        };
        let silence = [10.0 * FLOOR.log10(); BANDS];
        let total = samples as f64 / STEP as f64;
        let bins = total / self.series.per_bin() as f64;
        if bins >= columns as f64 {
            let columns = self.series.columns(columns, total);
            return columns.iter().map(|power| power.as_ref().map_or(silence, level)).collect();
        }
        // Fewer spectra than columns: between the centres of two, something in between.
        let at = |i: f64| self.series.bin(i as usize).map_or(silence, level);
        (0..columns)
            .map(|column| {
                let place = ((column as f64 + 0.5) * bins / columns as f64 - 0.5)
                    .clamp(0.0, self.series.len().saturating_sub(1) as f64);
                let (mut left, right) = (at(place.floor()), at(place.ceil()));
                let share = place.fract() as f32;
                left.iter_mut().zip(right).for_each(|(l, r)| *l += (r - *l) * share);
                left
            })
            .collect()
    }
}

fn bands() -> Vec<Band> {
    let bin_hz = SAMPLE_RATE as f32 / FRAME as f32;
    let top = mel(SAMPLE_RATE as f32 / 2.0);
    let edge = |i: f32| hz(top * i / BANDS as f32) / bin_hz;
    (0..BANDS)
        .map(|band| {
            let centre = edge(band as f32 + 0.5);
            // At least a bin to each side, so that narrow bands lie between their two bins.
            let left = edge(band as f32 - 0.5).min(centre - 1.0);
            let right = edge(band as f32 + 1.5).max(centre + 1.0);
            let first = (left.ceil().max(0.0) as usize).min(FRAME / 2);
            let last = (right.floor().max(0.0) as usize).clamp(first, FRAME / 2);
            let mut weights: Vec<f32> = (first..=last)
                .map(|bin| {
                    let bin = bin as f32;
                    ((bin - left) / (centre - left)).min((right - bin) / (right - centre)).max(1e-6)
                })
                .collect();
            let sum: f32 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
            Band { first, weights }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f32, samples: usize) -> Vec<f32> {
        (0..samples).map(|i| (std::f32::consts::TAU * hz * i as f32 / SAMPLE_RATE as f32).sin()).collect()
    }

    fn loudest(column: &[f32; BANDS]) -> usize {
        (0..BANDS).max_by(|&a, &b| column[a].total_cmp(&column[b])).unwrap_or(0)
    }

    #[test]
    fn a_tone_stands_in_its_band_at_its_time() {
        let mut spectrogram = Spectrogram::new();
        for piece in [tone(500.0, 16_000), vec![0.0; 16_000], tone(4_000.0, 16_000)] {
            piece.chunks(777).for_each(|chunk| spectrogram.push(chunk));
        }
        spectrogram.finish();
        let columns = spectrogram.columns(30, 48_000);
        let band = |hz: f32| (mel(hz) / mel(8_000.0) * BANDS as f32) as usize;
        assert!(loudest(&columns[5]).abs_diff(band(500.0)) <= 1, "{}", loudest(&columns[5]));
        assert!(loudest(&columns[25]).abs_diff(band(4_000.0)) <= 1, "{}", loudest(&columns[25]));
        assert!(columns[5][band(500.0)] > -12.0 && columns[15][band(500.0)] < -60.0);
    }

    #[test]
    fn the_number_of_spectra_is_that_of_the_steps_however_the_audio_comes() {
        for samples in [1, 127, 128, 129, 5_000] {
            let mut spectrogram = Spectrogram::new();
            tone(300.0, samples).chunks(100).for_each(|chunk| spectrogram.push(chunk));
            spectrogram.finish();
            assert_eq!(spectrogram.series.items(), samples.div_ceil(STEP) as u64);
        }
    }

    #[test]
    fn hours_take_no_more_memory_than_minutes_and_rubbish_stays_finite() {
        let mut spectrogram = Spectrogram::new();
        let odd = vec![f32::NAN, f32::INFINITY, 1.0, -1.0];
        for _ in 0..100_000 {
            spectrogram.push(&odd);
        }
        spectrogram.push(&vec![0.5; 2_000_000]);
        spectrogram.finish();
        assert!(spectrogram.series.len() <= COLUMNS);
        assert!(spectrogram.columns(100, 2_400_000).iter().flatten().all(|x| x.is_finite()));
    }
}
