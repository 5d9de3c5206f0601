//! Samples: levels, fades, and several sounds joined to one.

/// Hz.
pub const RATE: usize = 16_000;

/// dB to a factor.
pub fn gain(db: f64) -> f32 {
    10f64.powf(db / 20.0) as f32
}

/// Factor to dB, at least -180.
pub fn db(x: f64) -> f64 {
    20.0 * x.max(1e-9).log10()
}

/// Root of the mean square; never zero.
pub fn rms(x: &[f32]) -> f64 {
    // Sums of short stretches in single precision are exact enough, and quick.
    let sum: f64 = x.chunks(1_024).map(|part| f64::from(dot(part, part))).sum();
    (sum / x.len().max(1) as f64 + 1e-20).sqrt()
}

/// Sum of products, in eight lanes.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    let mut lanes = [0.0f32; 8];
    for (a, b) in a.zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    rest + lanes.iter().sum::<f32>()
}

/// 16-bit samples as numbers in -1..1.
pub fn to_float(x: &[i16]) -> Vec<f32> {
    x.iter().map(|&x| f32::from(x) / 32_768.0).collect()
}

/// Samples as 16-bit ones.
pub fn to_pcm(x: &[f32]) -> Vec<i16> {
    x.iter().map(|x| (x * 32_767.0).round_ties_even() as i16).collect()
}

/// Makes the whole softer where it would clip.
pub fn avoid_clipping(x: &mut [f32]) {
    let peak = x.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
    if peak >= 0.99 {
        x.iter_mut().for_each(|x| *x *= 0.99 / peak);
    }
}

/// Fades both ends over `ms`, or over halves where it is shorter.
pub fn fade(x: &mut [f32], ms: usize) {
    let n = (RATE * ms / 1_000).min(x.len() / 2);
    let ramp =
        |i: usize| (std::f64::consts::FRAC_PI_2 * i as f64 / (n.max(2) - 1) as f64).sin().powi(2) as f32;
    for i in 0..n {
        x[i] *= ramp(i);
        let last = x.len() - 1 - i;
        x[last] *= ramp(i);
    }
}

/// Clips one after the other, again and again, until there are `n` samples; each into the next over a quarter of a
/// second at equal power.
pub fn join(clips: &[Vec<f32>], n: usize) -> Vec<f32> {
    let cross = RATE / 4;
    let ramp: Vec<f32> = (0..cross)
        .map(|i| (std::f64::consts::FRAC_PI_2 * i as f64 / (cross - 1) as f64).sin() as f32)
        .collect();
    let mut out = vec![0.0; n + cross];
    let mut start = 0;
    for clip in clips.iter().cycle() {
        if start >= n {
            break;
        }
        let mut clip = clip.clone();
        clip.resize(clip.len().max(3 * cross), 0.0);
        if start > 0 {
            clip.iter_mut().zip(&ramp).for_each(|(x, r)| *x *= r);
        }
        clip.iter_mut().rev().zip(&ramp).for_each(|(x, r)| *x *= r);
        out[start..].iter_mut().zip(&clip).for_each(|(out, x)| *out += x);
        start += clip.len() - cross;
    }
    out.truncate(n);
    out
}

/// Multiplies all samples.
pub fn scale(x: &mut [f32], factor: f32) {
    x.iter_mut().for_each(|x| *x *= factor);
}

/// Adds `sound` times `factor` to `to`, from sample `at` on; what goes beyond the end is lost.
pub fn add(to: &mut [f32], at: usize, sound: &[f32], factor: f32) {
    let at = at.min(to.len());
    to[at..].iter_mut().zip(sound).for_each(|(to, x)| *to += x * factor);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_gains_are_inverse() {
        assert!((db(f64::from(gain(-6.0))) + 6.0).abs() < 1e-5);
        assert!((rms(&[0.5; 3_000]) - 0.5).abs() < 1e-6);
        assert!((rms(&[]) - 1e-10).abs() < 1e-12);
    }

    #[test]
    fn joined_clips_fill_the_length_without_a_hole() {
        let joined = join(&[vec![1.0; 16_000], vec![1.0; 5_000]], 100_000);
        assert_eq!(joined.len(), 100_000);
        // Short clips are filled up with silence, so holes come from them alone.
        let alone = join(&[vec![1.0; 16_000]], 100_000);
        assert!(alone.iter().all(|x| (0.99..1.5).contains(x)));
    }

    #[test]
    fn fades_begin_and_end_at_nothing() {
        let mut x = vec![1.0; 1_000];
        fade(&mut x, 10);
        assert_eq!((x[0], x[999], x[500]), (0.0, 0.0, 1.0));
        fade(&mut [1.0], 10);
        fade(&mut [], 10);
    }

    #[test]
    fn only_what_would_clip_is_made_softer() {
        let mut x = [0.5, -2.0];
        avoid_clipping(&mut x);
        assert!((x[1] + 0.99).abs() < 1e-6 && (x[0] - 0.2475).abs() < 1e-6);
        let mut soft = [0.5, -0.98];
        avoid_clipping(&mut soft);
        assert_eq!(soft, [0.5, -0.98]);
        assert_eq!(to_pcm(&[1.0, -1.0]), [32_767, -32_767]);
    }
}
