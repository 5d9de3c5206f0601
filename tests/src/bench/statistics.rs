//! Percentiles, medians with their spread, and straight lines.

use serde::{Deserialize, Serialize};

/// A nearest-rank percentile; `None` of nothing.
pub fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// The middle of repeated measurements, and the extremes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub n: usize,
}

impl Spread {
    /// Of some values; `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_unstable_by(f64::total_cmp);
        let (n, min, max) = (values.len(), *values.first()?, *values.last()?);
        Some(Self { median: (values[(n - 1) / 2] + values[n / 2]) / 2.0, min, max, n })
    }
}

/// Percentiles of a kind of delay, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Delays {
    pub n: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Delays {
    /// Of delays in microseconds; `None` of nothing.
    pub fn of(us: &[i64]) -> Option<Self> {
        let ms: Vec<f64> = us.iter().map(|us| *us as f64 / 1000.0).collect();
        Some(Self {
            n: ms.len(),
            p50: percentile(&ms, 0.5)?,
            p99: percentile(&ms, 0.99)?,
            max: percentile(&ms, 1.0)?,
        })
    }
}

/// A straight line through points, by least squares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub intercept: f64,
    pub slope: f64,
}

impl Line {
    /// Through these points (x, y); `None` where they are all above each other.
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        let n = points.len() as f64;
        let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
        let (xx, xy) = points
            .iter()
            .fold((0.0, 0.0), |(xx, xy), p| (xx + (p.0 - x).powi(2), xy + (p.0 - x) * (p.1 - y)));
        (xx > 0.0).then(|| Self { intercept: y - x * xy / xx, slope: xy / xx })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_summed_up_is_what_there_was() {
        let spread = Spread::of([3.0, 1.0, 2.0, 10.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max, spread.n), (2.5, 1.0, 10.0, 4));
        assert!(Spread::of([]).is_none());
        let hundred: Vec<i64> = (1..=100).map(|n| n * 1000).collect();
        let delays = Delays::of(&hundred).unwrap();
        assert_eq!((delays.p50, delays.p99, delays.max), (50.0, 99.0, 100.0));
        let line = Line::through(&[(1.0, 3.0), (2.0, 5.0), (3.0, 7.0)]).unwrap();
        assert!((line.slope - 2.0).abs() < 1e-9 && (line.intercept - 1.0).abs() < 1e-9);
        assert!(Line::through(&[(1.0, 3.0)]).is_none());
    }
}
