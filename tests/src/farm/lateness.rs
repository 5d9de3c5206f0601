//! How late packets were sent, without keeping each.

use serde::{Deserialize, Serialize};

/// Counts by powers of two of microseconds: the last one has no end.
const CLASSES: usize = 24;

/// How late packets were.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lateness {
    /// `counts[n]`: later than 2^(n-1), and at most 2^n microseconds.
    counts: [u64; CLASSES],
    /// The latest one, microseconds.
    pub worst_us: u64,
}

impl Lateness {
    /// Takes in one packet.
    pub fn add(&mut self, us: u64) {
        let class = (u64::BITS - us.saturating_sub(1).leading_zeros()) as usize;
        self.counts[if us == 0 { 0 } else { class.min(CLASSES - 1) }] += 1;
        self.worst_us = self.worst_us.max(us);
    }

    /// All of them.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// So many microseconds are exceeded by no more than `1 - share` of the packets: a bound, a power of two.
    pub fn quantile_us(&self, share: f64) -> u64 {
        let wanted = (share * self.count() as f64).ceil() as u64;
        let mut seen = 0;
        for (n, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return (1 << n).min(self.worst_us.max(1));
            }
        }
        self.worst_us
    }

    /// What came after `earlier`. The worst of all times stands for the worst of these.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts;
        for (count, before) in counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*before);
        }
        let last = counts.iter().rposition(|count| *count > 0);
        Self { counts, worst_us: last.map_or(0, |n| (1 << n).min(self.worst_us)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_and_differences_are_those_of_the_later_packets() {
        let mut all = Lateness::default();
        (0..99).for_each(|_| all.add(100));
        let before = all.clone();
        all.add(9_000);
        assert_eq!((all.quantile_us(0.5), all.quantile_us(0.99), all.quantile_us(1.0)), (128, 128, 9_000));
        let later = all.since(&before);
        assert_eq!((later.count(), later.quantile_us(0.5)), (1, 9_000));
        [0, 1, 2, u64::MAX].into_iter().for_each(|us| all.add(us));
        assert_eq!(all.count(), 104);
    }
}
