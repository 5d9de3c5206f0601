//! How much was heard in the last minute: a sliding sum over sixty seconds in constant memory, exact to the
//! parts of the one second that the minute begins in.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Microseconds of one slot.
const SLOT_US: i64 = 1_000_000;
/// Slots that sixty seconds can touch: fifty-nine whole ones and a part of one at either end.
const SLOTS: i64 = 61;
/// What is summed over.
const MINUTE_US: i64 = 60 * SLOT_US;

/// Sums of what was heard, one per second of the clock. Silence is not noted, so that nothing changes while
/// nothing is heard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct LastMinute {
    /// The newest second in which something was heard, counted since 1970.
    newest: i64,
    /// Microseconds heard in each second up to that one, oldest first; at most [`SLOTS`].
    sums: VecDeque<u32>,
}

impl LastMinute {
    /// Something was heard from `from_us` to `to_us`; stretches come in order.
    pub(super) fn add(&mut self, from_us: i64, to_us: i64) {
        if to_us <= from_us {
            return;
        }
        let last = to_us.saturating_sub(1).div_euclid(SLOT_US);
        let first = from_us.div_euclid(SLOT_US).max(last - SLOTS + 1);
        for slot in first..=last {
            let begin = from_us.max(slot.saturating_mul(SLOT_US));
            let end = to_us.min((slot + 1).saturating_mul(SLOT_US));
            self.add_to(slot, end.saturating_sub(begin));
        }
    }

    fn add_to(&mut self, slot: i64, us: i64) {
        if self.sums.is_empty() {
            self.newest = slot;
            self.sums.push_back(0);
        }
        // A slot that is older than the newest came too late to be told from it.
        let missing = (slot - self.newest).clamp(0, SLOTS);
        self.newest = self.newest.max(slot);
        self.sums.extend(std::iter::repeat_n(0, missing as usize));
        while self.sums.len() as i64 > SLOTS {
            self.sums.pop_front();
        }
        if let Some(sum) = self.sums.back_mut() {
            *sum = (i64::from(*sum) + us).clamp(0, SLOT_US) as u32;
        }
    }

    /// Microseconds heard in the sixty seconds that end at `at_us`; nothing was heard after it. Of the second in
    /// which they begin, its share is counted.
    pub(super) fn heard_us(&self, at_us: i64) -> i64 {
        let from_us = at_us.saturating_sub(MINUTE_US);
        let heard: i64 = (0..)
            .zip(self.sums.iter().rev())
            .map(|(age, sum)| {
                let end_us = (self.newest - age + 1).saturating_mul(SLOT_US);
                let inside_us = end_us.saturating_sub(from_us).clamp(0, SLOT_US);
                i64::from(*sum) * inside_us / SLOT_US
            })
            .sum();
        heard.min(MINUTE_US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    #[test]
    fn what_was_heard_leaves_the_minute_as_it_came() {
        let mut minute = LastMinute::default();
        assert_eq!(minute.heard_us(0), 0);
        minute.add(10_000_000, 14_500_000);
        assert_eq!(minute.heard_us(14_500_000), 4_500_000);
        assert_eq!(minute.heard_us(70_000_000), 4_500_000);
        assert_eq!(minute.heard_us(71_250_000), 3_250_000);
        assert_eq!(minute.heard_us(75_000_000), 0);
        assert_eq!(minute.heard_us(i64::MAX), 0);
    }

    #[test]
    fn the_sum_is_that_of_a_list_of_everything_to_within_a_second_and_exact_on_whole_seconds() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut minute, mut list) = (LastMinute::default(), Vec::new());
            let mut t: i64 = rng.random_range(-100_000_000..2_000_000_000_000);
            for _ in 0..400 {
                let length = rng.random_range(1..2_000_000);
                minute.add(t, t + length);
                list.push((t, t + length));
                t += length;
                let exact = |at: i64| -> i64 {
                    list.iter().map(|(from, to)| (to - (*from).max(at - MINUTE_US)).max(0)).sum()
                };
                assert!((minute.heard_us(t) - exact(t)).abs() <= 250_000, "seed {seed}");
                let whole = (t + SLOT_US).div_euclid(SLOT_US) * SLOT_US;
                assert_eq!(minute.heard_us(whole), exact(whole), "seed {seed}");
                assert!(minute.sums.len() as i64 <= SLOTS);
                if rng.random_range(0..3) == 0 {
                    t += rng.random_range(0..20_000_000);
                }
            }
        }
    }

    #[test]
    fn memory_and_sum_are_bounded_whatever_comes() {
        let mut minute = LastMinute::default();
        for (from, to) in [
            (i64::MIN, i64::MIN + 5),
            (0, 10_000_000_000),
            (5, 6),
            (i64::MAX - 5, i64::MAX),
            (i64::MIN, i64::MAX),
            (3, 2),
        ] {
            minute.add(from, to);
            for at in [i64::MIN, 0, to, i64::MAX] {
                assert!((0..=MINUTE_US).contains(&minute.heard_us(at)));
            }
            assert!(minute.sums.len() as i64 <= SLOTS);
        }
    }
}
