//! Interleaved audio of any channel count and rate to 16 kHz mono, following changes of both on the way.

use nursery_shared::pcm::SAMPLE_RATE;

use super::resample::Resampler;

/// Mixes down first, then resamples, so one resampler is enough.
#[derive(Default)]
pub struct ToMono {
    /// Rates beyond 16 kHz have nothing above 8 kHz, and their samples were taken so much later than their numbers say.
    band_limited: Option<f64>,
    resampler: Option<(u32, Resampler)>,
    mixed: Vec<f32>,
}

/// Largest sample: 40 dB over full scale. Files of floats may hold anything, and a transform of what is no number is
/// none, for all of its block.
const LOUDEST: f32 = 100.0;

fn tame(sample: f32) -> f32 {
    if sample.is_nan() { 0.0 } else { sample.clamp(-LOUDEST, LOUDEST) }
}

impl ToMono {
    /// For audio that has nothing above 8 kHz, whatever its rate; see [`Resampler::band_limited`].
    pub fn band_limited(offset: f64) -> Self {
        Self { band_limited: Some(offset), ..Self::default() }
    }

    /// Appends `interleaved` (frames of `channels` samples at `rate` Hz, in [-1, 1]) to `out` as 16 kHz mono.
    /// An incomplete last frame is left out.
    pub fn push(
        &mut self,
        interleaved: &[f32],
        channels: usize,
        rate: u32,
        out: &mut Vec<f32>,
    ) -> Result<(), String> {
        let scale = 1.0 / channels.max(1) as f32;
        self.mixed.clear();
        let frames = interleaved.chunks_exact(channels.max(1));
        self.mixed.extend(frames.map(|frame| tame(frame.iter().sum::<f32>() * scale)));
        let mono = &self.mixed;
        let resampler = match &mut self.resampler {
            Some((current, resampler)) if *current == rate => resampler,
            _ => {
                let next = match self.band_limited {
                    Some(offset) if rate > SAMPLE_RATE => Resampler::band_limited(rate, offset),
                    _ => Resampler::new(rate)?,
                };
                if let Some((_, mut last)) = self.resampler.take() {
                    last.finish(out)?;
                }
                &mut self.resampler.insert((rate, next)).1
            }
        };
        resampler.push(mono, out)
    }

    /// Appends what is left at the end of a recording.
    pub fn finish(&mut self, out: &mut Vec<f32>) -> Result<(), String> {
        match self.resampler.take() {
            Some((_, mut resampler)) => resampler.finish(out),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn channels_are_averaged() {
        let mut out = Vec::new();
        ToMono::default().push(&[1.0, 0.0, 0.5, -0.5, 0.25], 2, 16_000, &mut out).unwrap();
        assert_eq!(out, [0.5, 0.0]);
    }

    #[test]
    fn what_is_no_number_becomes_none_of_the_others() {
        for rate in [8_000, 16_000, 44_100] {
            let (mut mono, mut out) = (ToMono::default(), Vec::new());
            let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 0.5];
            mono.push(&odd.repeat(2_000), 1, rate, &mut out).unwrap();
            mono.finish(&mut out).unwrap();
            assert!(!out.is_empty() && out.iter().all(|x| x.abs() < 4.0 * LOUDEST), "{rate}");
        }
    }

    #[test]
    fn a_change_of_rate_loses_nothing() {
        let (mut mono, mut out) = (ToMono::default(), Vec::new());
        mono.push(&[0.1; 8_000], 1, 8_000, &mut out).unwrap();
        mono.push(&[0.1; 48_000], 1, 48_000, &mut out).unwrap();
        mono.finish(&mut out).unwrap();
        assert_eq!(out.len(), 32_000);
    }
}
