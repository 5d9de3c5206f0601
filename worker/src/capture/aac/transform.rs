//! From lines to samples: the inverse modified discrete cosine transform, windows and overlap, at a fraction of the rate.
//!
//! A line stands for a cosine under a window, both of them functions of time. The lower lines alone, transformed as if
//! they were all, are the same functions at fewer moments: half a sample of the whole rate later where half of the lines are
//! taken, one and a half where it is a quarter. Windows that are made for the smaller size are those moments of the large
//! ones, too.

use std::{f64::consts::PI, sync::Arc};

use rustfft::{Fft, FftPlanner, num_complex::Complex};

use super::{
    channel::{Sequence, Shape},
    layout::{LINES, SHORT},
};
use crate::media::polyphase::bessel;

/// Kaiser's shape parameters, over pi, of long and of short windows.
const ALPHA: f64 = 4.0;
const ALPHA_SHORT: f64 = 6.0;

/// Samples of full scale in the stream.
const FULL_SCALE: f32 = 32_768.0;

/// A cosine transform of type IV: as many samples as lines.
struct Cosine {
    fft: Arc<dyn Fft<f32>>,
    twist: Box<[Complex<f32>]>,
    work: Box<[Complex<f32>]>,
    scratch: Box<[Complex<f32>]>,
}

impl Cosine {
    fn new(size: usize, planner: &mut FftPlanner<f32>) -> Self {
        let fft = planner.plan_fft_forward(size / 2);
        let zeros = |count| vec![Complex::new(0.0, 0.0); count].into_boxed_slice();
        let scratch = zeros(fft.get_inplace_scratch_len());
        let twist = (0..size / 2).map(|n| {
            let angle = -PI * (8.0 * n as f64 + 1.0) / (8.0 * size as f64);
            Complex::new(angle.cos() as f32, angle.sin() as f32)
        });
        Self { fft, twist: twist.collect(), work: zeros(size / 2), scratch }
    }

    /// In place.
    fn transform(&mut self, values: &mut [f32]) {
        let last = values.len() - 1;
        for (n, (work, twist)) in self.work.iter_mut().zip(&self.twist).enumerate() {
            *work = Complex::new(values[2 * n], values[last - 2 * n]) * twist;
        }
        self.fft.process_with_scratch(&mut self.work, &mut self.scratch);
        for (n, (work, twist)) in self.work.iter().zip(&self.twist).enumerate() {
            let value = work * twist;
            values[2 * n] = value.re;
            values[last - 2 * n] = -value.im;
        }
    }
}

/// Rising slopes of one length in both shapes.
struct Slopes([Box<[f32]>; 2]);

impl Slopes {
    fn new(length: usize, alpha: f64) -> Self {
        let sine = (0..length).map(|n| (PI / (2.0 * length as f64) * (n as f64 + 0.5)).sin() as f32);
        let kaiser = |n: usize| {
            let x = 2.0 * n as f64 / length as f64 - 1.0;
            bessel(PI * alpha * (1.0 - x * x).max(0.0).sqrt())
        };
        let all: f64 = (0..=length).map(kaiser).sum();
        let sums = (0..length).scan(0.0, |sum, n| {
            *sum += kaiser(n);
            Some((*sum / all).sqrt() as f32)
        });
        Self([sine.collect(), sums.collect()])
    }

    fn of(&self, shape: Shape) -> &[f32] {
        &self.0[usize::from(shape == Shape::Kaiser)]
    }
}

/// Transforms the frames of one stream.
pub struct Transform {
    /// Samples that a frame becomes, and a short window.
    length: usize,
    short: usize,
    long_cosine: Cosine,
    short_cosine: Cosine,
    long_slopes: Slopes,
    short_slopes: Slopes,
    /// What a frame adds up to: its own samples, then those that the next one overlaps.
    sum: Box<[f32]>,
}

impl Transform {
    /// For frames of a `divisor`th of the samples.
    pub fn new(divisor: usize) -> Self {
        let (length, short) = (LINES / divisor, SHORT / divisor);
        let mut planner = FftPlanner::new();
        Self {
            length,
            short,
            long_cosine: Cosine::new(length, &mut planner),
            short_cosine: Cosine::new(short, &mut planner),
            long_slopes: Slopes::new(length, ALPHA),
            short_slopes: Slopes::new(short, ALPHA_SHORT),
            sum: vec![0.0; 2 * length].into(),
        }
    }

    /// Adds a channel's lines, window after window, `LINES` or `SHORT` from one to the next, which are used up. `before`: the
    /// shape of the frame before.
    pub fn add(&mut self, lines: &mut [f32], sequence: Sequence, shape: Shape, before: Shape) {
        let (length, short) = (self.length, self.short);
        let half = length / 2;
        if sequence == Sequence::Short {
            return self.add_short(lines, shape, before);
        }
        let values = &mut lines[..length];
        self.long_cosine.transform(values);
        let scale = 1.0 / (LINES as f32 * FULL_SCALE);
        let flat = (length - short) / 2;
        let (first, second) = self.sum.split_at_mut(length);
        // The transform's samples are those of the window's two halves, each folded at its middle.
        let rising = |n: usize| if n < half { values[n + half] } else { -values[3 * half - 1 - n] };
        let falling = |n: usize| if n < half { -values[half - 1 - n] } else { -values[n - half] };
        if sequence == Sequence::Stop {
            let slope = self.short_slopes.of(before);
            for n in 0..short {
                first[flat + n] += scale * slope[n] * rising(flat + n);
            }
            for (n, sample) in first.iter_mut().enumerate().skip(flat + short) {
                *sample += scale * rising(n);
            }
        } else {
            let slope = self.long_slopes.of(before);
            for n in 0..length {
                first[n] += scale * slope[n] * rising(n);
            }
        }
        if sequence == Sequence::Start {
            let slope = self.short_slopes.of(shape);
            for (n, sample) in second[..flat].iter_mut().enumerate() {
                *sample += scale * falling(n);
            }
            for n in 0..short {
                second[flat + n] += scale * slope[short - 1 - n] * falling(flat + n);
            }
        } else {
            let slope = self.long_slopes.of(shape);
            for n in 0..length {
                second[n] += scale * slope[length - 1 - n] * falling(n);
            }
        }
    }

    fn add_short(&mut self, lines: &mut [f32], shape: Shape, before: Shape) {
        let (length, short) = (self.length, self.short);
        let half = short / 2;
        let scale = 1.0 / (SHORT as f32 * FULL_SCALE);
        for (window, lines) in lines.chunks_exact_mut(SHORT).enumerate() {
            let values = &mut lines[..short];
            self.short_cosine.transform(values);
            let rising = self.short_slopes.of(if window == 0 { before } else { shape });
            let falling = self.short_slopes.of(shape);
            let sum = &mut self.sum[(length - short) / 2 + window * short..][..2 * short];
            for n in 0..short {
                let value = if n < half { values[n + half] } else { -values[3 * half - 1 - n] };
                sum[n] += scale * rising[n] * value;
                let value = if n < half { -values[half - 1 - n] } else { -values[n - half] };
                sum[short + n] += scale * falling[short - 1 - n] * value;
            }
        }
    }

    /// Appends a frame's samples, times `gain`, to `out`; the next one begins.
    pub fn take(&mut self, out: &mut Vec<f32>) {
        let (first, second) = self.sum.split_at_mut(self.length);
        out.extend_from_slice(first);
        first.copy_from_slice(second);
        second.fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transform_is_the_sum_of_its_cosines() {
        let mut random = fastrand::Rng::with_seed(5);
        for size in [32, 128, 512] {
            let lines: Vec<f32> = (0..size).map(|_| random.f32() - 0.5).collect();
            let mut values = lines.clone();
            Cosine::new(size, &mut FftPlanner::new()).transform(&mut values);
            for (m, value) in values.iter().enumerate() {
                let angle = |k: usize| PI / size as f64 * (m as f64 + 0.5) * (k as f64 + 0.5);
                let exact: f64 = lines.iter().enumerate().map(|(k, x)| f64::from(*x) * angle(k).cos()).sum();
                assert!((exact - f64::from(*value)).abs() < 1e-4, "{size} {m}: {value} {exact}");
            }
        }
    }

    #[test]
    fn slopes_are_complements_of_themselves() {
        for (length, alpha) in [(1024, ALPHA), (256, ALPHA), (128, ALPHA_SHORT), (32, ALPHA_SHORT)] {
            let slopes = Slopes::new(length, alpha);
            for shape in [Shape::Sine, Shape::Kaiser] {
                let slope = slopes.of(shape);
                for n in 0..length {
                    let sum = slope[n] * slope[n] + slope[length - 1 - n] * slope[length - 1 - n];
                    assert!((sum - 1.0).abs() < 1e-5, "{length} {shape:?} {n}: {sum}");
                }
            }
        }
    }
}
