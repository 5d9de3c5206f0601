//! Playing at the pace of time: how long to wait before the next piece of audio, counted in samples so that
//! nothing drifts.

use std::time::Duration;

use nursery_shared::pcm::SAMPLE_RATE;
use tokio::time::{Instant, sleep_until};

/// Delay from which the pace is taken up anew instead of being caught up (the host was asleep).
const TOO_LATE: Duration = Duration::from_secs(1);

/// The pace of one stream.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    played: u64,
}

impl Pace {
    /// Starts now.
    pub fn new() -> Self {
        Self { start: Instant::now(), played: 0 }
    }

    /// Waits until `samples` more have passed in real time, like a microphone would.
    pub async fn wait_for(&mut self, samples: usize) {
        self.played += samples as u64;
        let passed = Duration::from_micros(self.played * 1_000_000 / u64::from(SAMPLE_RATE));
        let due = self.start + passed;
        let now = Instant::now();
        if due + TOO_LATE < now {
            self.start = now - passed;
        }
        sleep_until(due).await;
    }
}
