//! Interleaved audio of any channel count and rate to 16 kHz mono, following changes of both on the way.

use super::resample::Resampler;

/// Mixes down first, then resamples, so one resampler is enough.
#[derive(Default)]
pub struct ToMono {
    resampler: Option<(u32, Resampler)>,
    mixed: Vec<f32>,
}

impl ToMono {
    /// Appends `interleaved` (frames of `channels` samples at `rate` Hz, in [-1, 1]) to `out` as 16 kHz mono.
    /// An incomplete last frame is left out.
    pub fn push(
        &mut self,
        interleaved: &[f32],
        channels: usize,
        rate: u32,
        out: &mut Vec<f32>,
    ) -> Result<(), String> {
        let mono = if channels <= 1 {
            interleaved
        } else {
            let scale = 1.0 / channels as f32;
            self.mixed.clear();
            self.mixed.extend(interleaved.chunks_exact(channels).map(|f| f.iter().sum::<f32>() * scale));
            &self.mixed
        };
        let resampler = match &mut self.resampler {
            Some((current, resampler)) if *current == rate => resampler,
            _ => {
                let next = Resampler::new(rate)?;
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
    fn a_change_of_rate_loses_nothing() {
        let (mut mono, mut out) = (ToMono::default(), Vec::new());
        mono.push(&[0.1; 8_000], 1, 8_000, &mut out).unwrap();
        mono.push(&[0.1; 48_000], 1, 48_000, &mut out).unwrap();
        mono.finish(&mut out).unwrap();
        assert_eq!(out.len(), 32_000);
    }
}
