//! An infant's cry: bursts on the breath of about a second with a gasp between them, a fundamental of 270 to
//! 500 Hz that rises and falls in each, energy in the second and third kilohertz, hoarse where it is loudest.

use std::f32::consts::{PI, TAU};

use fastrand::Rng;

use super::{
    RATE, noise,
    voice::{Formant, Pose, Voice},
};

/// Length of an episode in seconds.
const EPISODE_S: std::ops::Range<f32> = 8.0..10.0;

/// From the start of an episode to the start of the next, in seconds.
const EVERY_S: std::ops::Range<f32> = 40.0..70.0;

/// Somebody who cries now and then.
pub struct Crying {
    rng: Rng,
    voice: Voice<4>,
    /// Samples until the next episode.
    quiet: u32,
    /// Samples left of the episode.
    left: u32,
    burst: Burst,
    gasp: f32,
}

/// One cry on the breath and the gasp after it.
struct Burst {
    at: u32,
    length: u32,
    gap: u32,
    onset_hz: f32,
    peak_hz: f32,
    end_hz: f32,
    peak_at: f32,
    loudness: f32,
    roughness: f32,
    vibrato: f32,
}

impl Crying {
    /// The first episode starts after `first_s` seconds.
    pub fn new(mut rng: Rng, first_s: f32) -> Self {
        let (voice, burst) = (Voice::new(rng.fork()), Burst::new(&mut rng));
        Self { rng, voice, quiet: samples(first_s), left: 0, burst, gasp: 0.0 }
    }

    /// The next sample, about 0.3 RMS while crying.
    pub fn next(&mut self) -> f32 {
        if self.left == 0 {
            if self.quiet > 0 {
                self.quiet -= 1;
                return 0.0;
            }
            let length = between(&mut self.rng, EPISODE_S);
            self.left = samples(length);
            self.quiet = samples(between(&mut self.rng, EVERY_S) - length);
            self.burst = Burst::new(&mut self.rng);
        }
        self.left -= 1;
        if self.burst.at >= self.burst.length + self.burst.gap {
            self.burst = Burst::new(&mut self.rng);
        }
        let burst = &mut self.burst;
        let at = burst.at;
        burst.at += 1;
        if at < burst.length {
            return self.voice.next(&burst.pose(at));
        }
        // The gasp: high, breathy and short, in the middle of the gap.
        let x = (at - burst.length) as f32 / burst.gap as f32;
        let envelope = if (0.25..0.85).contains(&x) { ((x - 0.25) / 0.6 * PI).sin() } else { 0.0 };
        self.gasp = 0.75 * self.gasp + noise::white(&mut self.rng) * 0.25;
        self.gasp * envelope * 0.05
    }
}

impl Burst {
    fn new(rng: &mut Rng) -> Self {
        let peak_hz = between(rng, 400.0..500.0);
        Self {
            at: 0,
            length: samples(between(rng, 0.8..1.2)),
            gap: samples(between(rng, 0.25..0.35)),
            onset_hz: peak_hz * between(rng, 0.76..0.86),
            peak_hz,
            end_hz: peak_hz * between(rng, 0.66..0.78),
            peak_at: between(rng, 0.2..0.45),
            loudness: between(rng, 0.75..1.0),
            roughness: between(rng, 0.1..0.6),
            vibrato: between(rng, 5.5..8.0),
        }
    }

    fn pose(&self, at: u32) -> Pose<4> {
        let (x, t) = (at as f32 / self.length as f32, at as f32 / RATE);
        let glide = |from: f32, to: f32, x: f32| from + (to - from) * (1.0 - (x * PI).cos()) / 2.0;
        let melody = if x < self.peak_at {
            glide(self.onset_hz, self.peak_hz, x / self.peak_at)
        } else {
            glide(self.peak_hz, self.end_hz, (x - self.peak_at) / (1.0 - self.peak_at))
        };
        let effort = (x * PI).sin().sqrt();
        let ramp = |seconds: f32, t: f32| (t / seconds).clamp(0.0, 1.0);
        let rest = (self.length - at) as f32 / RATE;
        Pose {
            pitch: melody * (1.0 + 0.015 * (TAU * self.vibrato * t).sin()),
            loudness: self.loudness * ramp(0.05, t) * ramp(0.18, rest) * (0.6 + 0.4 * effort),
            formants: [
                Formant { hz: 1_100.0 + 120.0 * effort, width_hz: 320.0, gain: 1.0 },
                Formant { hz: 2_900.0 + 150.0 * effort, width_hz: 500.0, gain: 0.8 },
                Formant { hz: 3_500.0, width_hz: 600.0, gain: 0.7 },
                Formant { hz: 5_200.0, width_hz: 900.0, gain: 0.3 },
            ],
            tilt_db: -5.0,
            roughness: self.roughness * effort,
            breath: 0.05,
        }
    }
}

fn between(rng: &mut Rng, range: std::ops::Range<f32>) -> f32 {
    range.start + (range.end - range.start) * rng.f32()
}

fn samples(seconds: f32) -> u32 {
    (seconds.max(0.0) * RATE) as u32
}
