//! What the cameras of the farm hear, again and again: three minutes of a quiet room, in which a baby cries twice.

use crate::audio::{self, RATE};

/// One loop: a whole number of packets of every kind ([`super::Kind`]).
pub const LOOP_MS: u64 = 180_160;

/// Where in the loop the baby begins to cry. Evenly apart, and further than the minute for which a service that has
/// announced a cry keeps quiet.
pub const CRIES_MS: [u64; 2] = [20_000, 110_080];

/// How long it cries.
pub const CRY_MS: u64 = 8_000;

/// Noise of the room: peak, of 32,767. About -66 dBFS.
const NOISE: i16 = 28;

/// One loop at 8,000, 16,000 or 48,000 samples per second, channels interleaved. Each channel has noise of its own, over
/// the whole band of its rate as a microphone's is.
pub fn pcm(rate: u32, channels: usize) -> Vec<i16> {
    let mut random = fastrand::Rng::with_seed(u64::from(rate));
    let frames = samples(LOOP_MS, rate);
    let mut all: Vec<i16> = (0..frames * channels).map(|_| random.i16(-NOISE..=NOISE)).collect();
    let cry = at_rate(&audio::cry(CRY_MS as f32 / 1000.0), rate);
    for start in CRIES_MS {
        let place = &mut all[samples(start, rate) * channels..];
        for (frame, sound) in place.chunks_exact_mut(channels).zip(&cry) {
            frame.iter_mut().for_each(|sample| *sample = sample.saturating_add(*sound));
        }
    }
    all
}

/// Samples of one channel in so much time.
pub fn samples(ms: u64, rate: u32) -> usize {
    (ms * u64::from(rate) / 1000) as usize
}

/// From 16 kHz to half of it, or to a multiple of it.
fn at_rate(pcm: &[i16], rate: u32) -> Vec<i16> {
    if rate < RATE {
        return pcm.chunks_exact(2).map(|p| ((i32::from(p[0]) + i32::from(p[1])) / 2) as i16).collect();
    }
    let times = (rate / RATE) as i32;
    let next = pcm.iter().skip(1).chain([&0]);
    pcm.iter()
        .zip(next)
        .flat_map(|(&a, &b)| {
            let (a, b) = (i32::from(a), i32::from(b));
            (0..times).map(move |i| (a + (b - a) * i / times) as i16)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cry_begins_and_ends_at_the_same_time_at_every_rate() {
        for (rate, channels) in [(8_000, 1), (16_000, 1), (48_000, 2)] {
            let all = pcm(rate, channels);
            assert_eq!(all.len(), samples(LOOP_MS, rate) * channels);
            let loudest = |from: u64, to: u64| {
                let piece = &all[samples(from, rate) * channels..samples(to, rate) * channels];
                piece.iter().map(|s| i32::from(*s).abs()).max().unwrap_or(0)
            };
            for start in CRIES_MS {
                assert!(loudest(start - 5_000, start) <= i32::from(NOISE), "{rate}");
                assert!(loudest(start, start + 1_500) > 8_000, "{rate}");
                assert!(loudest(start + CRY_MS, start + CRY_MS + 5_000) <= i32::from(NOISE), "{rate}");
            }
        }
    }
}
