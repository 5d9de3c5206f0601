//! Streaming conversion of mono audio of any sample rate to 16 kHz with a proper low-pass: rubato's, or our own where the
//! rates make it cheap.

use nursery_shared::pcm::SAMPLE_RATE;
use rubato::{
    Async, Fft, FixedAsync, FixedSync, SincInterpolationParameters, WindowFunction,
    audioadapter_buffers::direct::InterleavedSlice,
};

use super::polyphase::{Polyphase, gcd};

/// Sample rates that are taken in.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=768_000;

/// Input of one block: short enough to add little delay, long enough for a steep filter.
const BLOCK_MS: u32 = 32;

/// Longest block of the FFT resampler; rates that have so little in common with 16 kHz that a block would be
/// longer take the slower interpolating one.
const LONGEST_BLOCK_MS: u32 = 100;

/// Telephone audio, the most frequent of all, has a converter of this length.
const TELEPHONE: (u32, usize) = (8_000, 48);

/// Length of the converter of audio that has nothing above 8 kHz.
const BAND_LIMITED: usize = 24;

/// Mono audio of one rate in, 16 kHz out. The filter's delay is cut off at the start, so output sample `k`
/// belongs to the time `k / 16000` of the input.
pub struct Resampler {
    how: How,
    rate: u32,
    taken: u64,
    given: u64,
}

enum How {
    /// It is 16 kHz already.
    Through,
    Polyphase(Polyphase),
    Blocks(Box<Block>),
}

struct Block {
    inner: Box<dyn rubato::Resampler<f32>>,
    /// Input that does not fill a block yet.
    input: Vec<f32>,
    /// Room for the output of one block.
    output: Vec<f32>,
    /// Output samples that are still to be cut off.
    skip: usize,
    rate: u32,
}

/// An error where audio of this rate cannot be taken in.
pub fn check_rate(rate: u32) -> Result<(), String> {
    if RATES.contains(&rate) {
        return Ok(());
    }
    let (low, high) = (RATES.start(), RATES.end());
    Err(format!("sample rate {rate} Hz is not supported, expected {low} to {high} Hz"))
}

impl Resampler {
    /// For audio of `rate` samples per second. 16 kHz passes through unchanged.
    pub fn new(rate: u32) -> Result<Self, String> {
        check_rate(rate)?;
        let how = match rate {
            SAMPLE_RATE => How::Through,
            rate if rate == TELEPHONE.0 => {
                How::Polyphase(Polyphase::new(rate, SAMPLE_RATE, TELEPHONE.1, 0.0))
            }
            _ => How::Blocks(Box::new(Block::new(rate)?)),
        };
        Ok(Self { how, rate, taken: 0, given: 0 })
    }

    /// For audio of `rate` samples per second, 22,050 at the least, that has nothing above 8 kHz: far cheaper. `offset`: how
    /// much later than its number says each sample was taken, in samples.
    pub fn band_limited(rate: u32, offset: f64) -> Self {
        let how = How::Polyphase(Polyphase::new(rate, SAMPLE_RATE, BAND_LIMITED, offset));
        Self { how, rate, taken: 0, given: 0 }
    }

    /// Takes samples in and appends what became ready to `out`.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<(), String> {
        let before = out.len();
        match &mut self.how {
            How::Through => out.extend_from_slice(samples),
            How::Polyphase(polyphase) => polyphase.push(samples, out),
            How::Blocks(block) => block.push(samples, out)?,
        }
        self.taken += samples.len() as u64;
        self.given += (out.len() - before) as u64;
        Ok(())
    }

    /// Appends what is left at the end of a recording, so that its length is kept. Nothing may be pushed
    /// afterwards.
    pub fn finish(&mut self, out: &mut Vec<f32>) -> Result<(), String> {
        let wanted = self.taken * u64::from(SAMPLE_RATE) / u64::from(self.rate);
        let (start, before) = (out.len() as u64, self.given);
        let zeros = [0.0; 512];
        while self.given < wanted {
            self.push(&zeros, out)?;
        }
        out.truncate((start + wanted.saturating_sub(before)) as usize);
        Ok(())
    }
}

impl Block {
    fn new(rate: u32) -> Result<Self, String> {
        let smallest = rate / gcd(rate, SAMPLE_RATE);
        let inner: Box<dyn rubato::Resampler<f32>> = if smallest <= rate / 1000 * LONGEST_BLOCK_MS {
            let chunk = (rate * BLOCK_MS / 1000) as usize;
            Box::new(
                Fft::new_custom(
                    rate as usize,
                    SAMPLE_RATE as usize,
                    chunk,
                    1,
                    1,
                    WindowFunction::BlackmanHarris2,
                    FixedSync::Both,
                )
                .map_err(|e| format!("resampling from {rate} Hz: {e}"))?,
            )
        } else {
            Box::new(
                Async::new_sinc(
                    f64::from(SAMPLE_RATE) / f64::from(rate),
                    1.0,
                    &SincInterpolationParameters::new(256, WindowFunction::BlackmanHarris2),
                    (rate * BLOCK_MS / 1000) as usize,
                    1,
                    FixedAsync::Input,
                )
                .map_err(|e| format!("resampling from {rate} Hz: {e}"))?,
            )
        };
        let skip = inner.output_delay();
        let output = vec![0.0; inner.output_frames_max()];
        let input = Vec::with_capacity(inner.input_frames_max());
        Ok(Self { inner, input, output, skip, rate })
    }

    fn push(&mut self, mut samples: &[f32], out: &mut Vec<f32>) -> Result<(), String> {
        while !samples.is_empty() {
            let needed = self.inner.input_frames_next();
            let take = samples.len().min(needed - self.input.len());
            self.input.extend_from_slice(&samples[..take]);
            samples = &samples[take..];
            if self.input.len() < needed {
                break;
            }
            let frames = self.output.len();
            let sized = |e| format!("resampling from {} Hz: {e}", self.rate);
            let input = InterleavedSlice::new(&self.input, 1, needed).map_err(|e| sized(e.to_string()))?;
            let mut output =
                InterleavedSlice::new_mut(&mut self.output, 1, frames).map_err(|e| sized(e.to_string()))?;
            let (_, made) = self
                .inner
                .process_into_buffer(&input, &mut output, None)
                .map_err(|e| sized(e.to_string()))?;
            self.input.clear();
            let skip = self.skip.min(made);
            self.skip -= skip;
            out.extend_from_slice(&self.output[skip..made]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::media::level::dbfs;

    fn sine(rate: u32, hz: f32, seconds: u32) -> Vec<f32> {
        (0..rate * seconds)
            .map(|i| (std::f64::consts::TAU * f64::from(hz) * f64::from(i) / f64::from(rate)).sin() as f32)
            .collect()
    }

    fn resample(rate: u32, samples: &[f32], chunk: usize) -> Vec<f32> {
        let mut resampler = Resampler::new(rate).unwrap();
        let mut out = Vec::new();
        for part in samples.chunks(chunk) {
            resampler.push(part, &mut out).unwrap();
        }
        resampler.finish(&mut out).unwrap();
        out
    }

    const ODD: u32 = 15_999;

    #[test]
    fn a_tone_above_the_new_band_is_attenuated_by_more_than_50_db() {
        for rate in [32_000, 44_100, 48_000] {
            let out = resample(rate, &sine(rate, 10_000.0, 2), 1000);
            let level = dbfs(&out[4_000..28_000]);
            assert!(level < -53.1, "{rate}: {level}");
        }
    }

    #[test]
    fn a_tone_within_the_band_keeps_its_level() {
        for rate in [8_000, 11_025, 12_000, ODD, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000] {
            let out = resample(rate, &sine(rate, 1_000.0, 2), 1000);
            let level = dbfs(&out[4_000..28_000]);
            assert!((level + 3.0103).abs() < 0.1, "{rate}: {level}");
        }
    }

    #[test]
    fn the_output_does_not_depend_on_the_chunking() {
        for rate in [8_000, 44_100, 48_000, ODD] {
            let input = sine(rate, 440.0, 1);
            let whole = resample(rate, &input, input.len());
            assert_eq!(whole, resample(rate, &input, 1), "{rate}");
            assert_eq!(whole, resample(rate, &input, 333), "{rate}");
        }
    }

    #[test]
    fn length_and_place_in_time_are_kept() {
        for rate in [8_000, ODD, 44_100, 48_000] {
            let mut input = vec![0.0; rate as usize];
            for s in &mut input[rate as usize / 2..] {
                *s = 1.0;
            }
            let out = resample(rate, &input, 100);
            assert!(out.len().abs_diff(16_000) <= 1, "{rate}: {}", out.len());
            let edge = out.iter().position(|s| *s > 0.5).unwrap();
            assert!(edge.abs_diff(8_000) <= 3, "{rate}: {edge}");
        }
    }

    #[test]
    fn an_impossible_rate_is_an_error_that_names_it() {
        assert!(Resampler::new(0).err().unwrap().contains("0 Hz"));
        assert!(Resampler::new(u32::MAX).is_err());
    }
}
