//! Conversion between two rates that have much in common: a windowed sinc, of which each output sample takes the phase that
//! it falls on. Costs a short dot product per sample, and delays by half of its length.

/// Kaiser's shape parameter: images and aliases are 70 to 80 dB down.
const BETA: f64 = 7.2;

/// Samples that are multiplied side by side.
const LANES: usize = 8;

/// A converter of one stream.
pub struct Polyphase {
    /// Output samples per `down` input samples.
    up: usize,
    down: usize,
    taps: usize,
    /// Weights, phase by phase.
    table: Box<[f32]>,
    /// Input from the first sample that is still needed on.
    input: Vec<f32>,
    /// Where the next output sample falls, in parts of `up` after the first sample of `input`.
    position: usize,
}

impl Polyphase {
    /// From `from` to `to` samples per second. Everything up to half of `from` passes, less at the very end the fewer `taps`
    /// (a multiple of 8) there are; the caller sees to it that nothing is beyond half of `to`. `offset`: how much later than
    /// its number says each input sample was taken, in input samples.
    pub fn new(from: u32, to: u32, taps: usize, offset: f64) -> Self {
        debug_assert!(taps.is_multiple_of(LANES) && taps > 0);
        let common = gcd(from, to).max(1);
        let (up, down) = ((to / common) as usize, (from / common) as usize);
        let mut table = vec![0.0; up * taps].into_boxed_slice();
        let half = taps as f64 / 2.0;
        for (phase, weights) in table.chunks_exact_mut(taps).enumerate() {
            let at = phase as f64 / up as f64 - offset + half - 1.0;
            let exact = |tap: usize| {
                let distance = at - tap as f64;
                sinc(distance) * kaiser(distance / half)
            };
            let sum: f64 = (0..taps).map(exact).sum();
            for (tap, weight) in weights.iter_mut().enumerate() {
                *weight = (exact(tap) / sum) as f32;
            }
        }
        // What was before the beginning is silence.
        let input = vec![0.0; taps / 2 - 1];
        Self { up, down, taps, table, input, position: 0 }
    }

    /// Takes samples in and appends what became ready to `out`.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.input.extend_from_slice(samples);
        let (mut first, mut phase) = (self.position / self.up, self.position % self.up);
        while let Some(window) = self.input.get(first..first + self.taps) {
            out.push(dot(window, &self.table[phase * self.taps..][..self.taps]));
            phase += self.down;
            first += phase / self.up;
            phase %= self.up;
        }
        let over = first.min(self.input.len());
        self.input.drain(..over);
        self.position = (first - over) * self.up + phase;
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}

fn sinc(x: f64) -> f64 {
    let x = std::f64::consts::PI * x;
    if x.abs() < 1e-9 { 1.0 } else { x.sin() / x }
}

/// Kaiser's window over [-1, 1].
fn kaiser(x: f64) -> f64 {
    let inside = 1.0 - x * x;
    if inside <= 0.0 { 0.0 } else { bessel(BETA * inside.sqrt()) / bessel(BETA) }
}

/// The modified Bessel function of the first kind and order zero, by its series.
pub fn bessel(x: f64) -> f64 {
    let (mut sum, mut term, quarter) = (1.0, 1.0, x * x / 4.0);
    for k in 1..60 {
        term *= quarter / f64::from(k * k);
        sum += term;
        if term < 1e-14 * sum {
            break;
        }
    }
    sum
}

/// The greatest common divisor.
pub fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: f64, hz: f64, offset: f64, count: usize) -> Vec<f32> {
        (0..count).map(|n| (std::f64::consts::TAU * hz * (n as f64 + offset) / rate).sin() as f32).collect()
    }

    #[test]
    fn a_tone_comes_out_as_the_same_tone_at_the_same_time() {
        for (from, taps, offset, highest) in [
            (8_000, 48, 0.0, 3_500.0),
            (24_000, 24, 0.25, 7_900.0),
            (22_050, 24, 0.25, 7_900.0),
            (24_000, 24, 0.0, 7_900.0),
        ] {
            for hz in [100.0, 1_000.0, highest] {
                let mut resampler = Polyphase::new(from, 16_000, taps, offset);
                let mut out = Vec::new();
                for piece in tone(f64::from(from), hz, offset, from as usize / 4).chunks(173) {
                    resampler.push(piece, &mut out);
                }
                let expected = tone(16_000.0, hz, 0.0, out.len());
                let error = (100..out.len()).map(|n| (out[n] - expected[n]).abs()).fold(0.0, f32::max);
                assert!(error < 1e-3, "{from} {hz}: {error}");
                assert!(out.len().abs_diff(4_000) < 60);
            }
        }
    }
}
