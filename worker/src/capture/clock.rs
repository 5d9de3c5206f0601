//! Wall-clock time of a stream's samples: counted from an anchor, so that scores are evenly spaced however
//! irregularly packets arrive, and anchored anew when the count and the clock have come apart.

/// Difference between count and clock from which the clock is right.
const TOLERANCE_US: i64 = 1_000_000;

/// How far the count may run ahead of the clock. No sample can have been recorded later than it arrived, so a count
/// that is ahead is wrong by as much: the first packets came late or in one go, or the camera's clock is fast.
const AHEAD_US: i64 = 50_000;

/// A stream that was behind by more than this, all the time for so long, is behind.
const LAG_US: i64 = 50_000;
const LAGS_FOR_US: i64 = 10_000_000;

/// How far a stream is behind the clock at the least, over a while.
#[derive(Debug, Clone, Copy)]
struct Lag {
    since_us: i64,
    least_us: i64,
}

/// The time of each sample since the last [`anchor`](Self::anchor).
#[derive(Debug)]
pub struct StreamClock {
    /// Time of sample 0; `None` until the first audio.
    start_us: Option<i64>,
    /// False for recordings that play faster than time.
    follows_clock: bool,
    /// Follows the clock closely, in steps that are hardly seen or heard.
    tracks: bool,
    lag: Option<Lag>,
}

impl StreamClock {
    /// `live`: the stream keeps pace with the clock.
    pub fn new(live: bool) -> Self {
        Self { start_us: None, follows_clock: live, tracks: false, lag: None }
    }

    /// Follows the clock more closely than to [a second](TOLERANCE_US): two tracks of a camera, each with a crystal of its
    /// own, stay together as people see and hear it. What is late now and then, on a bad network, is no reason to.
    #[must_use]
    pub fn tracking(mut self) -> Self {
        self.tracks = true;
        self
    }

    /// Steps after a stream that is slow, by as much as all of it was behind.
    fn track(&mut self, off: i64, now_us: i64) {
        let lag = self.lag.get_or_insert(Lag { since_us: now_us, least_us: off });
        lag.least_us = lag.least_us.min(off);
        if now_us - lag.since_us < LAGS_FOR_US {
            return;
        }
        let behind = lag.least_us;
        self.lag = None;
        if behind > LAG_US {
            self.start_us = self.start_us.map(|start| start + behind);
        }
    }

    /// The stream begins anew with its next audio.
    pub fn reset(&mut self) {
        self.start_us = None;
        self.lag = None;
    }

    /// Samples up to `position` (16 kHz, since the reset) have arrived at `now_us`, `fresh` of them just now.
    /// True where the times had to jump.
    pub fn arrived(&mut self, position: u64, fresh: usize, now_us: i64) -> bool {
        let (elapsed, first) = (us(position), self.start_us.is_none());
        // The first packet's samples were recorded before it arrived; a recording starts now.
        let start = *self.start_us.get_or_insert_with(|| {
            if self.follows_clock { now_us - elapsed } else { now_us - elapsed + us(fresh as u64) }
        });
        let off = now_us - (start + elapsed);
        if first || !self.follows_clock || (-AHEAD_US..=TOLERANCE_US).contains(&off) {
            if self.tracks {
                self.track(off, now_us);
            }
            return false;
        }
        self.start_us = Some(now_us - elapsed);
        self.lag = None;
        off.abs() > TOLERANCE_US
    }

    /// The time of the end of the sample before `position`.
    pub fn at(&self, position: u64) -> i64 {
        self.start_us.unwrap_or_default() + us(position)
    }
}

fn us(samples: u64) -> i64 {
    (samples * 125 / 2) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    #[test]
    fn times_are_counted_and_not_read_from_the_jittering_clock() {
        let mut clock = StreamClock::new(true);
        assert!(!clock.arrived(16_000, 16_000, 100 * S));
        assert!(!clock.arrived(32_000, 16_000, 101 * S + 400_000));
        assert_eq!(clock.at(32_000), 101 * S);
        assert_eq!(clock.at(24_000), 100 * S + 500_000);
    }

    #[test]
    fn a_drift_beyond_a_second_is_anchored_anew() {
        let mut clock = StreamClock::new(true);
        clock.arrived(16_000, 16_000, 100 * S);
        assert!(clock.arrived(32_000, 16_000, 103 * S));
        assert_eq!(clock.at(32_000), 103 * S);
        assert!(clock.arrived(48_000, 16_000, 50 * S));
        assert_eq!(clock.at(48_000), 50 * S);
    }

    /// Largest difference of the times of a stream from its true ones, over four hours: 20 ms pieces, a crystal that is slow
    /// by so many millionths, delays up to `jitter_us`, of which every other one is small.
    fn worst(mut clock: StreamClock, slow: f64, jitter_us: i64) -> i64 {
        let mut random = fastrand::Rng::with_seed(4);
        let mut worst = 0;
        for n in 1..720_000u64 {
            let truth = (n as f64 * 20_000.0 * (1.0 + slow * 1e-6)) as i64;
            let late = if n % 2 == 0 { 2_000 } else { random.i64(0..=jitter_us) };
            clock.arrived(n * 320, 320, 1_000 * S + truth + late);
            worst = worst.max((clock.at(n * 320) - 1_000 * S - truth).abs());
        }
        worst
    }

    #[test]
    fn tracks_of_one_camera_stay_together_whatever_their_crystals() {
        for slow in [-300.0, -20.0, 0.0, 20.0, 300.0] {
            for jitter_us in [5_000, 300_000] {
                let worst = worst(StreamClock::new(true).tracking(), slow, jitter_us);
                assert!(worst < 80_000, "{slow} ppm, {jitter_us} us: {worst} us");
            }
        }
        assert!(worst(StreamClock::new(true), 50.0, 5_000) > 500_000);
    }

    #[test]
    fn a_backlog_at_the_start_puts_no_sample_into_the_future() {
        let mut clock = StreamClock::new(true);
        clock.arrived(1_600, 1_600, 100 * S);
        assert!(!clock.arrived(12_800, 11_200, 100 * S + 1_000));
        assert_eq!(clock.at(12_800), 100 * S + 1_000);
    }

    #[test]
    fn a_recording_runs_ahead_of_the_clock() {
        let mut clock = StreamClock::new(false);
        clock.arrived(16_000, 16_000, 100 * S);
        assert!(!clock.arrived(160_000, 144_000, 100 * S));
        assert_eq!(clock.at(160_000), 110 * S);
    }
}
