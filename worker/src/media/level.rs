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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_scale_sine_is_3_db_below_full_scale() {
        let sine: Vec<f32> = (0..16_000).map(|i| (i as f32 * 0.1).sin()).collect();
        assert!((dbfs(&sine) + 3.01).abs() < 0.01, "{}", dbfs(&sine));
    }

    #[test]
    fn silence_and_rubbish_are_the_floor_and_never_nan() {
        assert_eq!(dbfs(&[]), FLOOR_DBFS);
        assert_eq!(dbfs(&[0.0; 100]), FLOOR_DBFS);
        assert_eq!(dbfs(&[f32::NAN, f32::INFINITY]), FLOOR_DBFS);
        assert_eq!(dbfs(&[1e-12; 4]), FLOOR_DBFS);
    }
}
