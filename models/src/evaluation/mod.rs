//! How well a detector does: mixtures with known contents are built from the corpus, listened to and scored, and
//! the figures are told as tables. The protocol is that of DCASE 2017 task 2 (rare sound events), with noise
//! machines, quiet nights and crying that goes on beside it.

pub mod cutting;
pub mod json;
pub mod lasting;
pub mod listening;
pub mod mixtures;
pub mod predictions;
pub mod reliability;
pub mod report;
pub mod score;
pub mod sound;
pub mod streams;
pub mod studio;
pub mod truth;
pub mod worst;

pub use listening::{Listened, listen_all, predict};
pub use mixtures::{Mixture, Mixtures, Setup, build};
pub use predictions::{Detection, Predictions};
pub use score::{Scores, score};
pub use studio::Studio;
pub use truth::Truth;

/// The `q`-th percentile (0 to 100) of some values, neighbours joined by a straight line; NaN where there are none.
pub fn percentile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = q / 100.0 * last as f64;
    let below = (place.floor() as usize).min(last);
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_lie_between_their_neighbours() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(percentile(&values, 50.0), 2.5);
        assert_eq!(percentile(&values, 0.0), 1.0);
        assert_eq!(percentile(&values, 100.0), 4.0);
        assert!((percentile(&values, 90.0) - 3.7).abs() < 1e-12);
        assert!(percentile(&[], 50.0).is_nan());
    }
}
