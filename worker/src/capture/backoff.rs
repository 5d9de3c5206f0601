//! How long to wait before the next attempt: exponential with jitter, so that many cameras behind one switch do
//! not all knock at the same moment.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(15);

/// Audio for this long makes the next failure a first one again.
pub const HEALTHY: Duration = Duration::from_secs(30);

/// Doubling waits from half a second to a quarter of a minute.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// The wait before the next attempt, 75 to 125 % of the nominal one; `heard` is how long there was audio
    /// since the last attempt.
    pub fn next(&mut self, heard: Duration) -> Duration {
        if heard >= HEALTHY {
            *self = Self::default();
        }
        let wait = self.0.mul_f64(0.75 + fastrand::f64() / 2.0);
        self.0 = (self.0 * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_quarter_of_a_minute_and_start_anew_after_health() {
        let mut backoff = Backoff::default();
        for nominal in [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0] {
            let wait = backoff.next(Duration::from_secs(3)).as_secs_f64();
            assert!((nominal * 0.75..=nominal * 1.25).contains(&wait), "{nominal}: {wait}");
        }
        assert!(backoff.next(HEALTHY) < Duration::from_secs(1));
    }
}
