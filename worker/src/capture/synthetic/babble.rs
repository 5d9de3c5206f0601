//! Speech-like babble: a low voice that strings syllables into phrases. Not a word of sense, and no cry.

use std::f32::consts::PI;

use fastrand::Rng;

use super::{
    RATE, noise,
    voice::{Formant, Pose, Voice},
};

/// First three formants of five vowels of an adult voice, in Hz.
const VOWELS: [[f32; 3]; 5] = [
    [730.0, 1_090.0, 2_440.0],
    [530.0, 1_840.0, 2_480.0],
    [300.0, 2_200.0, 2_950.0],
    [570.0, 840.0, 2_410.0],
    [320.0, 870.0, 2_240.0],
];

const GAIN: f32 = 0.25;

/// Somebody who talks.
pub struct Babble {
    rng: Rng,
    voice: Voice<3>,
    base_hz: f32,
    syllables_left: u32,
    at: u32,
    length: u32,
    /// Samples of consonant noise at the start of the syllable.
    consonant: u32,
    pause: u32,
    pitch: f32,
    from: [f32; 3],
    to: [f32; 3],
    hiss: f32,
}

impl Babble {
    pub fn new(mut rng: Rng) -> Self {
        let voice = Voice::new(rng.fork());
        let base_hz = 95.0 + 45.0 * rng.f32();
        Self {
            rng,
            voice,
            base_hz,
            syllables_left: 0,
            at: 0,
            length: 0,
            consonant: 0,
            pause: 8_000,
            pitch: base_hz,
            from: VOWELS[0],
            to: VOWELS[0],
            hiss: 0.0,
        }
    }

    /// The next sample.
    pub fn next(&mut self) -> f32 {
        if self.pause > 0 {
            self.pause -= 1;
            return 0.0;
        }
        if self.at >= self.length {
            self.next_syllable();
            if self.pause > 0 {
                return 0.0;
            }
        }
        let x = self.at as f32 / self.length as f32;
        let hissing = self.at < self.consonant;
        self.at += 1;
        if hissing {
            let white = noise::white(&mut self.rng);
            let high = white - self.hiss;
            self.hiss = white;
            return high * 0.03 * GAIN;
        }
        let glide = |i: usize| self.from[i] + (self.to[i] - self.from[i]) * (x * 1.6).min(1.0);
        let formant = |i, width_hz, gain| Formant { hz: glide(i), width_hz, gain };
        let pose = Pose {
            pitch: self.pitch * (1.0 - 0.06 * x),
            loudness: (x * PI).sin().max(0.0).sqrt() * 0.9,
            formants: [formant(0, 90.0, 1.0), formant(1, 120.0, 0.6), formant(2, 170.0, 0.25)],
            tilt_db: -9.0,
            roughness: 0.05,
            breath: 0.02,
        };
        self.voice.next(&pose) * GAIN
    }

    fn next_syllable(&mut self) {
        let rng = &mut self.rng;
        if self.syllables_left == 0 {
            self.syllables_left = rng.u32(5..14);
            self.pause = (RATE * (0.5 + rng.f32())) as u32;
            self.pitch = self.base_hz * 1.15;
        }
        self.syllables_left -= 1;
        self.at = 0;
        self.length = (RATE * (0.14 + 0.12 * rng.f32())) as u32;
        self.consonant = if rng.f32() < 0.6 { (RATE * (0.02 + 0.05 * rng.f32())) as u32 } else { 0 };
        // The pitch falls over a phrase and moves a little with each syllable.
        self.pitch = (self.pitch * (0.95 + 0.08 * rng.f32())).clamp(self.base_hz * 0.8, self.base_hz * 1.3);
        self.from = self.to;
        self.to = VOWELS[rng.usize(0..VOWELS.len())];
    }
}
