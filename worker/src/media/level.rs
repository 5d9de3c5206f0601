//! Sound levels in dBFS.

/// What digital silence is reported as.
pub const FLOOR_DBFS: f32 = -120.0;

/// RMS level of samples in [-1, 1]: a sine of full scale is -3.01, digital silence [`FLOOR_DBFS`]. Never NaN:
/// samples that are no numbers count as silence.
pub fn dbfs(samples: &[f32]) -> f32 {
    if samples.is_empty() {
        return FLOOR_DBFS;
    }
    let sum: f64 = samples.iter().filter(|s| s.is_finite()).map(|&s| f64::from(s) * f64::from(s)).sum();
    let mean = sum / samples.len() as f64;
    ((10.0 * mean.log10()) as f32).max(FLOOR_DBFS)
}

/// Digital silence: one value from beginning to end, or two neighbours of a coarse code (A-law has nothing between -8
/// and 8). A microphone that is switched on always sends more than that.
pub fn is_mute(samples: &[f32]) -> bool {
    const FULL_SCALE: f32 = 32_768.0;
    const NEIGHBOURS: f32 = 16.5;
    let quantised = |s: f32| (s * FULL_SCALE).round();
    let Some(first) = samples.first().map(|s| quantised(*s)) else { return true };
    let mut other = None;
    samples.iter().map(|s| quantised(*s)).filter(|q| *q != first).all(|q| {
        // Also false where it is no number.
        *other.get_or_insert(q) == q && (q - first).abs() < NEIGHBOURS
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_scale_sine_is_3_db_below_full_scale() {
        let sine: Vec<f32> = (0..16_000).map(|i| (i as f32 * 0.1).sin()).collect();
        assert!((dbfs(&sine) + 3.01).abs() < 0.01, "{}", dbfs(&sine));
    }

    #[test]
    fn digital_silence_is_mute_and_the_faintest_hiss_is_not() {
        let (constant, hiss): (Vec<f32>, Vec<f32>) =
            (0..4_000).map(|i| (0.01, [0.0, 1.0, -1.0][i % 3] / 32_768.0)).unzip();
        let idle: Vec<f32> = (0..4_000).map(|i| if i % 7 < 3 { 8.0 } else { -8.0 } / 32_768.0).collect();
        assert!(is_mute(&[0.0; 4_000]) && is_mute(&constant) && is_mute(&idle) && is_mute(&[]));
        let square: Vec<f32> = (0..4_000).map(|i| if i % 40 < 20 { 0.1 } else { -0.1 }).collect();
        assert!(!is_mute(&hiss) && !is_mute(&square) && !is_mute(&[0.0, f32::NAN]));
    }

    #[test]
    fn silence_and_rubbish_are_the_floor_and_never_nan() {
        assert_eq!(dbfs(&[]), FLOOR_DBFS);
        assert_eq!(dbfs(&[0.0; 100]), FLOOR_DBFS);
        assert_eq!(dbfs(&[f32::NAN, f32::INFINITY]), FLOOR_DBFS);
        assert_eq!(dbfs(&[1e-12; 4]), FLOOR_DBFS);
    }
}
