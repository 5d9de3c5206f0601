//! Percentiles of measured durations.

use std::time::Duration;

/// Durations of one kind.
#[derive(Default)]
pub struct Figures(Vec<Duration>);

impl Figures {
    /// Takes in one more.
    pub fn add(&mut self, value: Duration) {
        self.0.push(value);
    }

    /// One line: how many, p50, p99 (nearest rank) and the extremes, in milliseconds.
    pub fn line(&self, what: &str) -> String {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        if sorted.is_empty() {
            return format!("{what:<34} nothing measured");
        }
        let rank = |p: f64| {
            let index = (p * sorted.len() as f64).ceil() as usize;
            sorted[index.clamp(1, sorted.len()) - 1].as_secs_f64() * 1000.0
        };
        format!(
            "{what:<34} n {:>3}  p50 {:>7.0}  p99 {:>7.0}  min {:>7.0}  max {:>7.0} ms",
            sorted.len(),
            rank(0.5),
            rank(0.99),
            rank(0.0),
            rank(1.0),
        )
    }
}
