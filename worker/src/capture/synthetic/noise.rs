//! Noise of three colours, each of about unit RMS.

use fastrand::Rng;

/// White noise, uniform.
pub fn white(rng: &mut Rng) -> f32 {
    (rng.f32() * 2.0 - 1.0) * 1.732
}

/// Pink noise: white noise through three one-pole filters an octave or so apart (an approximation within 0.5 dB
/// over the middle of the band, after Paul Kellet's economy filter).
#[derive(Debug, Default)]
pub struct Pink([f32; 3]);

impl Pink {
    pub fn next(&mut self, rng: &mut Rng) -> f32 {
        let w = white(rng);
        self.0[0] = 0.997_65 * self.0[0] + w * 0.099_046;
        self.0[1] = 0.963 * self.0[1] + w * 0.296_516_4;
        self.0[2] = 0.57 * self.0[2] + w * 1.052_691_3;
        (self.0.iter().sum::<f32>() + w * 0.184_8) * 0.4
    }
}

/// Brown noise: white noise through a leaky integrator, like a noise machine or a fan.
#[derive(Debug, Default)]
pub struct Brown(f32);

impl Brown {
    pub fn next(&mut self, rng: &mut Rng) -> f32 {
        // The pole at 0.98 (50 Hz) gives a variance of 1 / (1 - 0.98²).
        self.0 = 0.98 * self.0 + white(rng) * 0.199;
        self.0
    }
}
