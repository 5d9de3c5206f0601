//! A voice: harmonics of a gliding fundamental, shaped by formants, a little rough and breathy.

use std::f32::consts::TAU;

use fastrand::Rng;

use super::{RATE, noise};

/// Samples between two updates of the harmonics' amplitudes.
const CONTROL: usize = 80;

/// Harmonics above this are left out.
const TOP_HZ: f32 = 7_200.0;

/// A resonance of the vocal tract.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Formant {
    pub hz: f32,
    pub width_hz: f32,
    pub gain: f32,
}

/// What the voice shall sound like at this moment.
#[derive(Debug, Clone, Copy)]
pub struct Pose<const N: usize> {
    /// Fundamental in Hz.
    pub pitch: f32,
    pub loudness: f32,
    pub formants: [Formant; N],
    /// Fall of the source's spectrum in dB per octave above its fundamental.
    pub tilt_db: f32,
    /// 0 smooth to 1 hoarse.
    pub roughness: f32,
    /// Share of breath noise.
    pub breath: f32,
}

/// Oscillators and filters of one voice with `N` formants.
#[derive(Debug)]
pub struct Voice<const N: usize> {
    rng: Rng,
    phase: f32,
    amplitudes: Vec<f32>,
    targets: Vec<f32>,
    until_update: usize,
    jitter: f32,
    shimmer: f32,
    breath: [[f32; 2]; N],
}

impl<const N: usize> Voice<N> {
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            phase: 0.0,
            amplitudes: Vec::new(),
            targets: Vec::new(),
            until_update: 0,
            jitter: 0.0,
            shimmer: 1.0,
            breath: [[0.0; 2]; N],
        }
    }

    /// The next sample, about 0.3 RMS at loudness 1.
    pub fn next(&mut self, pose: &Pose<N>) -> f32 {
        if self.until_update == 0 {
            self.until_update = CONTROL;
            self.update(pose);
        }
        self.until_update -= 1;
        if pose.loudness <= 0.0 {
            return 0.0;
        }
        self.phase = (self.phase + pose.pitch * (1.0 + self.jitter) / RATE).fract();
        // Hoarseness: the folds skip every other beat by half.
        let beat = 1.0 - pose.roughness * 0.35 * (1.0 - (self.phase * TAU).cos()) * self.rng.f32();
        // One sine and cosine per sample; the harmonics follow by rotation.
        let (sin, cos) = (self.phase * TAU).sin_cos();
        let (mut s, mut c, mut sum) = (sin, cos, 0.0);
        for (now, target) in self.amplitudes.iter_mut().zip(&self.targets) {
            *now += (target - *now) * 0.03;
            sum += *now * s;
            (s, c) = (s * cos + c * sin, c * cos - s * sin);
        }
        (sum * beat * self.shimmer + self.breathe(pose)) * pose.loudness
    }

    fn update(&mut self, pose: &Pose<N>) {
        // Cycle-to-cycle irregularities of every living voice, stronger in a hoarse one.
        let irregular = 0.004 + 0.02 * pose.roughness;
        self.jitter = 0.7 * self.jitter + irregular * (self.rng.f32() - 0.5);
        self.shimmer = 1.0 + (0.1 + 0.5 * pose.roughness) * (self.rng.f32() - 0.5);
        let count = (TOP_HZ / pose.pitch.max(50.0)) as usize;
        self.targets.clear();
        let mut power = 0.0;
        for k in 1..=count {
            let hz = pose.pitch * k as f32;
            let amplitude =
                10_f32.powf(pose.tilt_db / 20.0 * (k as f32).log2()) * response(&pose.formants, hz);
            power += amplitude * amplitude / 2.0;
            self.targets.push(amplitude);
        }
        let scale = 0.3 / power.sqrt().max(1e-6);
        self.targets.iter_mut().for_each(|a| *a *= scale);
        self.amplitudes.resize(count, 0.0);
    }

    /// Noise through the same formants.
    fn breathe(&mut self, pose: &Pose<N>) -> f32 {
        let input = noise::white(&mut self.rng) * pose.breath;
        let mut sum = 0.0;
        for (formant, [a, b]) in pose.formants.iter().zip(&mut self.breath) {
            let r = (-std::f32::consts::PI * formant.width_hz / RATE).exp();
            let out = input * (1.0 - r) + 2.0 * r * (TAU * formant.hz / RATE).cos() * *a - r * r * *b;
            (*a, *b) = (out, *a);
            sum += out * formant.gain;
        }
        sum
    }
}

/// Gain of the vocal tract at a frequency.
fn response<const N: usize>(formants: &[Formant; N], hz: f32) -> f32 {
    let at = |f: &Formant| {
        let x = (hz - f.hz) / (f.width_hz / 2.0);
        f.gain / (1.0 + x * x).sqrt()
    };
    0.02 + formants.iter().map(at).sum::<f32>()
}
