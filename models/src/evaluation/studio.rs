//! Where mixtures are made: noise of a colour, noise machines, rooms and the telephone, with the plans of their
//! transforms. One per thread; the same generator gives the same sound.

use super::sound::{self, RATE, gain, rms};
use rand::Rng;
use rand::rngs::StdRng;
use realfft::RealFftPlanner;
use realfft::num_complex::Complex32;
use std::f32::consts::TAU;

/// Taps of the telephone's low pass, and the same number rounded up for the arithmetic.
const TAPS: usize = 127;
const PADDED: usize = 128;
/// Hz at which it is half open.
const CUT: f64 = 3_600.0;
/// Samples without any reflection at the start of a room's answer, 2 ms.
const DIRECT: usize = 32;

/// Plans of transforms and tables; see the module.
pub struct Studio {
    planner: RealFftPlanner<f32>,
    telephone: Telephone,
}

impl Default for Studio {
    fn default() -> Self {
        Self { planner: RealFftPlanner::new(), telephone: Telephone::new() }
    }
}

impl std::fmt::Debug for Studio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Studio").finish_non_exhaustive()
    }
}

/// Two independent standard normal values (Box and Muller, 1958).
fn normals(rng: &mut StdRng) -> (f32, f32) {
    // Not zero: the generator's smallest step is 2^-24.
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    let (sine, cosine) = (TAU * rng.random::<f32>()).sin_cos();
    (radius * cosine, radius * sine)
}

/// The smallest product of twos and threes that is even and not below `n`: transforms of such lengths are quick.
fn quick_length(n: usize) -> usize {
    let mut best = n.next_power_of_two().max(2);
    let mut odd = 3;
    while odd < best {
        let candidate = odd * n.div_ceil(odd).next_power_of_two().max(2);
        best = best.min(candidate);
        odd *= 3;
    }
    best
}

impl Studio {
    /// `n` samples of Gaussian noise of level 1 whose power falls as `1 / frequency^slope` above 30 Hz.
    pub fn noise(&mut self, rng: &mut StdRng, slope: f64, n: usize) -> Vec<f32> {
        let mut out = if slope == 0.0 {
            (0..n.div_ceil(2)).flat_map(|_| <[f32; 2]>::from(normals(rng))).collect()
        } else {
            let length = quick_length(n);
            let inverse = self.planner.plan_fft_inverse(length);
            let mut spectrum = inverse.make_input_vec();
            let step = RATE as f64 / length as f64;
            for (k, bin) in spectrum.iter_mut().enumerate() {
                let weight = (k as f64 * step).max(30.0).powf(-slope / 2.0) as f32;
                let (re, im) = normals(rng);
                *bin = Complex32::new(re * weight, im * weight);
            }
            // Only real values have a real transform.
            for end in [0, length / 2] {
                spectrum[end].im = 0.0;
            }
            let mut out = vec![0.0; length];
            // The buffers have the plan's lengths and real ends, so it cannot fail.
            let _ = inverse.process(&mut spectrum, &mut out);
            out
        };
        out.truncate(n);
        level(&mut out);
        out
    }

    /// A white, pink or brown noise machine or a fan, with its name; level 1.
    pub fn machine(&mut self, rng: &mut StdRng, n: usize) -> (&'static str, Vec<f32>) {
        match rng.random_range(0..4) {
            0 => ("white", self.noise(rng, 0.0, n)),
            1 => ("pink", self.noise(rng, 1.0, n)),
            2 => ("brown", self.noise(rng, 2.0, n)),
            _ => ("fan", self.fan(rng, n)),
        }
    }

    /// Coloured noise with nine partials of the blades' frequency, all of it slowly swelling.
    fn fan(&mut self, rng: &mut StdRng, n: usize) -> Vec<f32> {
        let slope = rng.random_range(0.8..1.8);
        let mut out = self.noise(rng, slope, n);
        let blades = rng.random_range(30.0..110.0);
        for k in 1..10 {
            let amplitude = rng.random_range(0.05..0.6) / f64::from(k);
            let wave = Wave::new(blades * f64::from(k), rng.random_range(0.0..std::f64::consts::TAU));
            out.iter_mut().zip(wave).for_each(|(x, w)| *x += (amplitude * w) as f32);
        }
        let depth = rng.random_range(0.0..0.25);
        let swell = Wave::new(rng.random_range(0.1..1.5), 0.0);
        out.iter_mut().zip(swell).for_each(|(x, w)| *x *= 1.0 + (depth * w) as f32);
        level(&mut out);
        out
    }

    /// What is heard of `x` in a room: the sound itself, then its echoes as noise that dies away by 60 dB in
    /// `rt60_s`, together 6 to 14 dB softer. Longer than `x` by `rt60_s`.
    pub fn reverb(&mut self, rng: &mut StdRng, x: &[f32], rt60_s: f64) -> Vec<f32> {
        let n = (rt60_s * RATE as f64) as usize;
        let decay = -3.0 * std::f64::consts::LN_10 / (rt60_s * RATE as f64);
        let raw: Vec<f32> = (0..n).map(|i| normals(rng).0 * (decay * i as f64).exp() as f32).collect();
        let at = |i: usize| raw.get(i).copied().unwrap_or(0.0);
        // A little darker than white.
        let mut answer: Vec<f32> =
            (0..n).map(|i| (if i > 0 { at(i - 1) } else { 0.0 } + at(i) + at(i + 1)) / 3.0).collect();
        answer[..DIRECT.min(n)].fill(0.0);
        let energy = answer.iter().map(|x| f64::from(x * x)).sum::<f64>();
        let scale = (f64::from(gain(rng.random_range(-14.0..-6.0))) / energy.sqrt().max(1e-12)) as f32;
        answer.iter_mut().for_each(|x| *x *= scale);
        if let Some(first) = answer.first_mut() {
            *first = 1.0;
        }
        self.convolve(x, &answer)
    }

    /// `x * y`, as long as both together.
    fn convolve(&mut self, x: &[f32], y: &[f32]) -> Vec<f32> {
        let total = x.len() + y.len();
        let length = quick_length(total);
        let forward = self.planner.plan_fft_forward(length);
        let spectrum = |x: &[f32]| {
            let mut padded = x.to_vec();
            padded.resize(length, 0.0);
            let mut spectrum = forward.make_output_vec();
            // The buffers have the plan's lengths, so it cannot fail.
            let _ = forward.process(&mut padded, &mut spectrum);
            spectrum
        };
        let (mut a, b) = (spectrum(x), spectrum(y));
        let scale = 1.0 / length as f32;
        a.iter_mut().zip(&b).for_each(|(a, b)| *a *= b * scale);
        // Products of real ends are real.
        let mut out = vec![0.0; length];
        let _ = self.planner.plan_fft_inverse(length).process(&mut a, &mut out);
        out.truncate(total);
        out
    }

    /// What a telephone leaves of `x`: 8 kHz, ITU-T G.711 µ-law (8 bits), and back to 16 kHz.
    pub fn telephone(&self, x: &[f32]) -> Vec<f32> {
        self.telephone.pass(x)
    }
}

fn level(x: &mut [f32]) {
    let scale = (1.0 / rms(x)) as f32;
    x.iter_mut().for_each(|x| *x *= scale);
}

/// A sine, by rotation: the rounding of a night's samples stays far below that of `f32`.
struct Wave {
    sine: f64,
    cosine: f64,
    turn: (f64, f64),
}

impl Wave {
    fn new(hz: f64, phase: f64) -> Self {
        let (sine, cosine) = phase.sin_cos();
        Self { sine, cosine, turn: (std::f64::consts::TAU * hz / RATE as f64).sin_cos() }
    }
}

impl Iterator for Wave {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        let now = self.sine;
        let (s, c) = self.turn;
        (self.sine, self.cosine) = (self.sine * c + self.cosine * s, self.cosine * c - self.sine * s);
        Some(now)
    }
}

/// Low pass at half the rate and the values of µ-law's codes.
struct Telephone {
    low_pass: [f32; PADDED],
    /// Every second tap, from the first and from the second on: on the way up every second sample is zero.
    halves: [[f32; PADDED / 2]; 2],
    values: [f32; 256],
}

impl Telephone {
    fn new() -> Self {
        let mut taps = [0.0f64; PADDED];
        for (i, tap) in taps.iter_mut().take(TAPS).enumerate() {
            let t = i as f64 - (TAPS / 2) as f64;
            let x = std::f64::consts::PI * 2.0 * CUT / RATE as f64 * t;
            let sinc = if x == 0.0 { 1.0 } else { x.sin() / x };
            let turn = std::f64::consts::TAU * i as f64 / (TAPS - 1) as f64;
            *tap = sinc * (0.42 - 0.5 * turn.cos() + 0.08 * (2.0 * turn).cos());
        }
        let sum: f64 = taps.iter().sum();
        let low_pass = taps.map(|t| (t / sum) as f32);
        let half = |first: usize| std::array::from_fn(|i| low_pass[2 * i + first]);
        let values = std::array::from_fn(|code| {
            let c = code as f64 / 255.0 * 2.0 - 1.0;
            (c.signum() * (c.abs() * 256f64.ln()).exp_m1() / 255.0) as f32
        });
        Self { halves: [half(0), half(1)], low_pass, values }
    }

    fn pass(&self, x: &[f32]) -> Vec<f32> {
        let mut padded = vec![0.0; TAPS / 2];
        padded.extend_from_slice(x);
        padded.resize(x.len() + PADDED + 1, 0.0);
        let scale = (255.0 / 2.0 / 256f64.ln()) as f32;
        // Silence before and after, as the taps reach 32 samples of this rate to either side.
        let mut slow = vec![0.0; PADDED / 4];
        slow.extend((0..x.len()).step_by(2).map(|i| {
            let y = sound::dot(&self.low_pass, &padded[i..i + PADDED]).clamp(-1.0, 1.0);
            let code = (255.0 * y.abs()).ln_1p().copysign(y) * scale + 127.5;
            // Twice as loud, for the zeros between.
            2.0 * self.values[(code.round() as usize).min(255)]
        }));
        slow.resize(slow.len() + PADDED / 2, 0.0);
        // Output 2m reaches the samples m-31.. with the taps 1, 3, ..; output 2m+1 the same with 0, 2, ..
        (0..x.len())
            .map(|i| sound::dot(&self.halves[1 - i % 2], &slow[i / 2 + 1..i / 2 + 1 + PADDED / 2]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sound::db;
    use super::*;
    use rand::SeedableRng;

    const SECOND: usize = RATE;

    /// Level of `x` at a frequency, by correlation with a sine and a cosine.
    fn level_at(x: &[f32], hz: f64) -> f64 {
        let part = |phase: f64| {
            let sum: f64 = x.iter().zip(Wave::new(hz, phase)).map(|(x, w)| f64::from(*x) * w).sum();
            sum / x.len() as f64
        };
        2.0 * (part(0.0).powi(2) + part(std::f64::consts::FRAC_PI_2).powi(2)).sqrt()
    }

    fn tone(hz: f64, n: usize) -> Vec<f32> {
        Wave::new(hz, 0.0).map(|x| (0.5 * x) as f32).take(n).collect()
    }

    #[test]
    fn quick_lengths_are_even_products_of_twos_and_threes() {
        for n in [1, 2, 97, 480_000, 9_600_000] {
            let mut length = quick_length(n);
            assert!(length >= n && length.is_multiple_of(2) && length <= (2 * n).max(2));
            while length.is_multiple_of(2) {
                length /= 2;
            }
            while length.is_multiple_of(3) {
                length /= 3;
            }
            assert_eq!(length, 1, "{n}");
        }
    }

    #[test]
    fn noise_has_level_one_and_falls_as_it_should() {
        let (mut studio, mut rng) = (Studio::default(), StdRng::seed_from_u64(1));
        for (slope, fall) in [(0.0, 0.0), (1.0, 3.0), (2.0, 6.0)] {
            let x = studio.noise(&mut rng, slope, 30 * SECOND);
            assert_eq!(x.len(), 30 * SECOND);
            assert!((rms(&x) - 1.0).abs() < 1e-4);
            // Mean power of some hundred frequencies around two that are three octaves apart.
            let around = |hz: f64| {
                let all =
                    (0..200).map(|i| level_at(&x[..4 * SECOND], hz * (0.9 + 0.001 * f64::from(i))).powi(2));
                all.sum::<f64>() / 200.0
            };
            let measured = 10.0 * (around(500.0) / around(4_000.0)).log10();
            assert!((measured - 3.0 * fall).abs() < 1.5, "slope {slope}: {measured} dB");
        }
    }

    #[test]
    fn machines_have_level_one_and_all_four_come() {
        let (mut studio, mut rng) = (Studio::default(), StdRng::seed_from_u64(2));
        let mut kinds = std::collections::BTreeSet::new();
        for _ in 0..40 {
            let (kind, x) = studio.machine(&mut rng, 2 * SECOND);
            assert!((rms(&x) - 1.0).abs() < 1e-4 && x.len() == 2 * SECOND, "{kind}");
            kinds.insert(kind);
        }
        assert_eq!(kinds.len(), 4);
    }

    #[test]
    fn a_room_adds_echoes_that_die_away() {
        let (mut studio, mut rng) = (Studio::default(), StdRng::seed_from_u64(3));
        let mut click = vec![0.0; 100];
        click[0] = 1.0;
        let heard = studio.reverb(&mut rng, &click, 0.5);
        assert_eq!(heard.len(), 8_100);
        assert!((heard[0] - 1.0).abs() < 1e-4);
        assert!(heard[1..32].iter().all(|x| x.abs() < 1e-4));
        let energy = |x: &[f32]| 10.0 * x.iter().map(|x| f64::from(x * x)).sum::<f64>().log10();
        let echoes = energy(&heard[32..]);
        assert!((-14.1..-5.9).contains(&echoes), "{echoes} dB");
        let fall = energy(&heard[1_000..2_000]) - energy(&heard[5_000..6_000]);
        assert!((fall - 30.0).abs() < 2.0, "{fall} dB in a quarter of a second");
    }

    #[test]
    fn the_telephone_keeps_speech_in_time_and_loses_what_is_above_it() {
        let studio = Studio::default();
        let within = tone(1_000.0, SECOND);
        let heard = studio.telephone(&within);
        assert_eq!(heard.len(), SECOND);
        assert!((db(level_at(&heard, 1_000.0)) - db(0.5)).abs() < 0.2);
        let error: Vec<f32> = heard.iter().zip(&within).map(|(a, b)| a - b).collect();
        let noise = db(rms(&error[200..SECOND - 200])) - db(rms(&within));
        assert!((-45.0..-30.0).contains(&noise), "{noise} dB of companding noise");
        let beyond = studio.telephone(&tone(5_000.0, SECOND));
        assert!(db(rms(&beyond)) < -45.0, "{}", db(rms(&beyond)));
        assert!(studio.telephone(&[]).is_empty());
        assert_eq!(studio.telephone(&[0.1; 7]).len(), 7);
    }
}
