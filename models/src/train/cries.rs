//! Finds where a clip that is known to contain crying really cries: loud against its own background, and with a
//! clear pitch in the range of infant cries. Home recordings also hold parents' voices, rustling and silence.

use realfft::RealFftPlanner;

/// Samples of one analysis frame.
const HOP: usize = 320;
/// Seconds of pause that still belong to the same bout of crying.
const BRIDGE_FRAMES: usize = 20;

/// What a stretch of a cry clip holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Crying.
    Cry,
    /// Loud or voiced, but not clearly crying: neither taught as cry nor as its absence.
    Unsure,
}

/// Samples `start..end` of a clip; what no stretch covers is background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// First sample.
    pub start: usize,
    /// Sample after the last.
    pub end: usize,
    /// What is heard.
    pub kind: Kind,
}

/// Locates crying. Nothing is found in a clip that is silent or shorter than half a second.
pub fn locate(samples: &[i16]) -> Vec<Stretch> {
    let frames = samples.len() / HOP;
    if frames < 25 {
        return Vec::new();
    }
    let level = smoothed_levels(samples, frames);
    let mut sorted = level.clone();
    sorted.sort_by(f32::total_cmp);
    let (floor, loud) = (sorted[frames / 10], sorted[frames * 95 / 100]);
    if loud < -50.0 {
        return Vec::new();
    }
    // Half-way between background and loud, within 18 dB of loud; a clip that cries throughout has no floor.
    let threshold = if loud - floor >= 9.0 { (loud - 18.0).max((loud + floor) / 2.0) } else { floor - 3.0 };
    let pitched = pitched_frames(samples, frames);
    let mut found = Vec::new();
    for (mut a, mut b) in bridge(&runs(&level, threshold)) {
        while a > 0 && level[a - 1] > threshold - 4.0 && level[a - 1] < level[a] + 1.0 {
            a -= 1;
        }
        while b < frames && level[b] > threshold - 4.0 && level[b] < level[b - 1] + 1.0 {
            b += 1;
        }
        let peak = level[a..b].iter().copied().fold(f32::MIN, f32::max);
        let heard = (a..b).filter(|&i| level[i] > peak - 20.0);
        let (voiced, all) = heard.fold((0, 0), |(v, n), i| (v + usize::from(pitched[i]), n + 1));
        let cries = b - a >= 12 && voiced * 4 >= all;
        let kind = if cries { Kind::Cry } else { Kind::Unsure };
        found.push(Stretch { start: a * HOP, end: b * HOP, kind });
    }
    // Voiced sounds below the threshold are weak crying or a voice: unsure.
    let quiet: Vec<f32> = (0..frames)
        .map(|i| {
            let covered = found.iter().any(|s| (s.start..s.end).contains(&(i * HOP)));
            if !covered && pitched[i] && level[i] > loud - 35.0 { 0.0 } else { -1.0 }
        })
        .collect();
    for (a, b) in bridge(&runs(&quiet, -0.5)) {
        found.push(Stretch { start: a * HOP, end: b * HOP, kind: Kind::Unsure });
    }
    found.sort_by_key(|s| s.start);
    found
}

/// Runs of at least 0.1 s above `threshold`, in frames.
fn runs(level: &[f32], threshold: f32) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    let mut start = None;
    for i in 0..=level.len() {
        let on = level.get(i).is_some_and(|&l| l > threshold);
        match (on, start) {
            (true, None) => start = Some(i),
            (false, Some(s)) => {
                if i - s >= 5 {
                    out.push((s, i));
                }
                start = None;
            }
            _ => {}
        }
    }
    out
}

fn bridge(runs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = Vec::new();
    for &(a, b) in runs {
        match out.last_mut() {
            Some(last) if a - last.1 < BRIDGE_FRAMES => last.1 = b,
            _ => out.push((a, b)),
        }
    }
    out
}

/// dBFS of each frame, averaged over five.
fn smoothed_levels(samples: &[i16], frames: usize) -> Vec<f32> {
    let raw: Vec<f32> = samples
        .chunks_exact(HOP)
        .map(|c| {
            let power: f32 = c.iter().map(|&x| (f32::from(x) / 32_768.0).powi(2)).sum::<f32>() / HOP as f32;
            10.0 * (power + 1e-12).log10()
        })
        .collect();
    (0..frames)
        .map(|i| {
            let part = &raw[i.saturating_sub(2)..(i + 3).min(frames)];
            part.iter().sum::<f32>() / part.len() as f32
        })
        .collect()
}

/// Whether each frame has a clear pitch of 250 to 1100 Hz: autocorrelation of 60 ms, relative to that of the
/// analysis window (Boersma, 1993).
fn pitched_frames(samples: &[i16], frames: usize) -> Vec<bool> {
    const WIDTH: usize = 960;
    const SIZE: usize = 2048;
    let mut planner = RealFftPlanner::<f32>::new();
    let (forward, inverse) = (planner.plan_fft_forward(SIZE), planner.plan_fft_inverse(SIZE));
    let hann: Vec<f32> =
        (0..WIDTH).map(|i| (std::f32::consts::PI * (i as f32 + 0.5) / WIDTH as f32).sin().powi(2)).collect();
    let mut time = forward.make_input_vec();
    let mut spectrum = forward.make_output_vec();
    let mut autocorrelation = |input: &mut dyn FnMut(usize) -> f32| -> Vec<f32> {
        time.fill(0.0);
        for (i, t) in time.iter_mut().take(WIDTH).enumerate() {
            *t = input(i);
        }
        // The buffers were made by the plans, so neither transform can fail.
        let _ = forward.process(&mut time, &mut spectrum);
        for x in &mut spectrum {
            *x = realfft::num_complex::Complex32::new(x.norm_sqr(), 0.0);
        }
        let _ = inverse.process(&mut spectrum, &mut time);
        time[..80].to_vec()
    };
    let window = autocorrelation(&mut |i| hann[i]);
    (0..frames)
        .map(|t| {
            let start =
                (t * HOP + HOP / 2).saturating_sub(WIDTH / 2).min(samples.len().saturating_sub(WIDTH));
            let part = &samples[start..(start + WIDTH).min(samples.len())];
            let mean = part.iter().map(|&x| f32::from(x)).sum::<f32>() / part.len().max(1) as f32;
            let ac = autocorrelation(&mut |i| part.get(i).map_or(0.0, |&x| (f32::from(x) - mean) * hann[i]));
            if ac[0] < 1.0 {
                return false;
            }
            // 16 kHz / 1100 Hz to 16 kHz / 250 Hz.
            (14..=64).any(|lag| ac[lag] / ac[0] / (window[lag] / window[0]) > 0.5)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn noise(state: &mut u32) -> f32 {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    }

    #[test]
    fn a_pitched_burst_is_a_cry_and_a_noise_burst_is_not() {
        let mut state = 1;
        let samples: Vec<i16> = (0..16_000 * 8)
            .map(|i| {
                let t = i as f32 / 16_000.0;
                let tone: f32 =
                    (1..6).map(|k| (std::f32::consts::TAU * 420.0 * k as f32 * t).sin() / k as f32).sum();
                let cry = if (2.0..3.5).contains(&t) { 0.2 * tone } else { 0.0 };
                let burst = if (5.5..6.5).contains(&t) { 0.3 * noise(&mut state) } else { 0.0 };
                ((cry + burst + 0.002 * noise(&mut state)) * 32_767.0) as i16
            })
            .collect();
        let found = locate(&samples);
        let cries: Vec<_> = found.iter().filter(|s| s.kind == Kind::Cry).collect();
        assert_eq!(cries.len(), 1, "{found:?}");
        assert!((cries[0].start as f32 / 16_000.0 - 2.0).abs() < 0.1, "{found:?}");
        assert!((cries[0].end as f32 / 16_000.0 - 3.5).abs() < 0.1, "{found:?}");
        assert!(found.iter().any(|s| s.kind == Kind::Unsure && s.start > 16_000 * 5));
    }

    #[test]
    fn silence_and_short_clips_hold_no_cry() {
        assert!(locate(&[0; 50_000]).is_empty());
        assert!(locate(&[]).is_empty());
        assert!(locate(&[1_000; 300]).is_empty());
    }
}
