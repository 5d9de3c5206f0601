//! Exponential backoff with jitter: how long to wait before a worker that died is started again.

use std::time::Duration;

/// Wait before the first restart.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures in a row.
#[derive(Debug, Clone)]
pub struct Backoff {
    failures: u32,
    /// Its own, so that the deaths of one worker do not change when another one is started again.
    rng: fastrand::Rng,
}

impl Backoff {
    /// No failure yet. The seed is made of the service's and of the worker's name.
    pub fn new(seed: u64, name: &str) -> Self {
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, fold);
        Self { failures: 0, rng: fastrand::Rng::with_seed(seed ^ hash) }
    }

    /// The wait after one more failure: 100 ms doubling to 30 s, of which a random half is taken off so that
    /// workers that died together do not all come back at once.
    pub fn next(&mut self) -> Duration {
        let full = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + 0.5 * self.rng.f64())
    }

    /// The worker has been healthy for long enough: the next failure is a first one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_longest_and_start_anew_after_a_reset() {
        let mut backoff = Backoff::new(1, "capture:a");
        let mut full = FIRST;
        for _ in 0..40 {
            let wait = backoff.next();
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
            full = (full * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
