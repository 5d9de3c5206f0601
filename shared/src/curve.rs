//! Curves: what a camera's score and level were, as bytes, a value per step. A probability is told in steps of 0.004, a
//! level in steps of half a decibel from -120 dBFS on.

use serde::{Deserialize, Serialize};

/// The byte of a step about which nothing is known.
pub const NOTHING: u8 = u8::MAX;

/// The greatest byte that says something.
const MOST: f32 = 250.0;
const LOWEST_DBFS: f32 = -120.0;

/// The byte of a probability.
pub fn of_score(score: f32) -> u8 {
    // What is no number becomes 0.
    (score.clamp(0.0, 1.0) * MOST).round() as u8
}

/// The byte of a level in dBFS.
pub fn of_level(dbfs: f32) -> u8 {
    ((dbfs - LOWEST_DBFS) * 2.0).clamp(0.0, MOST).round() as u8
}

/// The probability that a byte stands for.
pub fn score(byte: u8) -> Option<f64> {
    (byte != NOTHING).then(|| (f64::from(byte) * 1000.0 / f64::from(MOST)).round() / 1000.0)
}

/// The level in dBFS that a byte stands for.
pub fn level(byte: u8) -> Option<f64> {
    (byte != NOTHING).then(|| f64::from(byte) / 2.0 + f64::from(LOWEST_DBFS))
}

/// Values of steps that follow each other; all three have the same length.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Curve {
    /// Where the first step begins, microseconds since 1970.
    pub from_us: i64,
    /// Microseconds of one step.
    pub step_us: i64,
    /// The greatest probability of crying in each step.
    pub scores: Vec<u8>,
    /// The mean level of each step, and the greatest one of a second in it.
    pub levels: Vec<u8>,
    pub peaks: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_within_half_a_step_and_what_is_no_number_harms_nobody() {
        for p in [0.0, 0.1, 0.5, 0.999, 1.0_f32] {
            assert!(score(of_score(p)).is_some_and(|q| (q - f64::from(p)).abs() <= 0.0021), "{p}");
        }
        for dbfs in [-120.0, -61.3, -0.2, 0.0_f32] {
            assert!(level(of_level(dbfs)).is_some_and(|l| (l - f64::from(dbfs)).abs() <= 0.26), "{dbfs}");
        }
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 7.0, -7.0] {
            assert!(of_score(odd) != NOTHING && of_level(odd) != NOTHING, "{odd}");
        }
        assert_eq!((score(NOTHING), level(NOTHING)), (None, None));
    }
}
