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
    /// How far ahead of time the stream may be.
    lead: Duration,
    /// Samples per second that are let through.
    rate: u64,
}

impl Pace {
    /// Starts now.
    pub fn new() -> Self {
        Self { start: Instant::now(), played: 0, lead: Duration::ZERO, rate: u64::from(SAMPLE_RATE) }
    }

    /// For streams that should keep time by themselves: never waits for one whose clock runs a little fast or
    /// that comes in bursts, only for one that does not keep time at all.
    pub fn lenient() -> Self {
        Self { lead: Duration::from_secs(2), rate: u64::from(SAMPLE_RATE) * 21 / 20, ..Self::new() }
    }

    /// Waits until `samples` more have passed in real time, like a microphone would.
    pub async fn wait_for(&mut self, samples: usize) {
        self.played += samples as u64;
        let passed = Duration::from_micros(self.played * 1_000_000 / self.rate);
        let due = self.start + passed;
        let now = Instant::now();
        if due + TOO_LATE < now {
            self.start = now - passed;
        }
        sleep_until(due.checked_sub(self.lead).unwrap_or(now)).await;
    }
}
