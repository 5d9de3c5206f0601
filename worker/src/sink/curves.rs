//! What was heard of cameras and is not stored yet: the greatest score and the greatest level of each second, by camera
//! and minute. Taking the same in twice changes nothing.

use std::collections::{BTreeMap, HashMap};

use nursery_shared::curve::{self, NOTHING};

/// Seconds of a minute.
pub const SECONDS: usize = 60;
/// Minutes of one camera that wait while the store takes nothing; then the oldest goes.
const WAITING: usize = 10;

const MINUTE_US: i64 = 60_000_000;

/// A minute of one camera, a byte per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minute {
    pub scores: [u8; SECONDS],
    pub levels: [u8; SECONDS],
}

impl Default for Minute {
    fn default() -> Self {
        Self { scores: [NOTHING; SECONDS], levels: [NOTHING; SECONDS] }
    }
}

/// The greater one of two, of which either may say nothing.
pub fn greater(a: u8, b: u8) -> u8 {
    match (a, b) {
        (NOTHING, other) | (other, NOTHING) => other,
        (a, b) => a.max(b),
    }
}

impl Minute {
    /// From what is stored; nothing where that is of another length.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut minute = Self::default();
        if bytes.len() == 2 * SECONDS {
            minute.scores.copy_from_slice(&bytes[..SECONDS]);
            minute.levels.copy_from_slice(&bytes[SECONDS..]);
        }
        minute
    }

    /// As it is stored.
    pub fn to_bytes(self) -> [u8; 2 * SECONDS] {
        let mut bytes = [NOTHING; 2 * SECONDS];
        bytes[..SECONDS].copy_from_slice(&self.scores);
        bytes[SECONDS..].copy_from_slice(&self.levels);
        bytes
    }

    /// Takes in what is known of the same minute elsewhere.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.scores.iter_mut().zip(&other.scores) {
            *mine = greater(*mine, *theirs);
        }
        for (mine, theirs) in self.levels.iter_mut().zip(&other.levels) {
            *mine = greater(*mine, *theirs);
        }
    }
}

/// All minutes that wait.
#[derive(Debug, Default)]
pub struct Curves {
    cameras: HashMap<String, BTreeMap<i64, Minute>>,
    /// Minutes that were given up since somebody asked.
    given_up: u64,
    /// Of some camera so many wait that it is time to store them.
    urgent: bool,
}

impl Curves {
    /// Takes in what a window brought: scores from `start_us` on, one every `step_us`, and the level of its audio.
    pub fn note(&mut self, camera: &str, start_us: i64, step_us: u32, scores: &[f32], level_dbfs: f32) {
        if !self.cameras.contains_key(camera) {
            self.cameras.insert(camera.to_owned(), BTreeMap::new());
        }
        let Some(minutes) = self.cameras.get_mut(camera) else { return };
        let mut at = start_us;
        let level = curve::of_level(level_dbfs);
        for (i, score) in scores.iter().enumerate() {
            let minute = minutes.entry(at.div_euclid(MINUTE_US)).or_default();
            // Less than 60, since it is what is left of a minute.
            let second = (at.rem_euclid(MINUTE_US) / 1_000_000) as usize;
            minute.scores[second] = greater(minute.scores[second], curve::of_score(*score));
            if i == 0 {
                minute.levels[second] = greater(minute.levels[second], level);
            }
            at = at.saturating_add(i64::from(step_us));
        }
        self.urgent |= minutes.len() > WAITING / 2;
        while minutes.len() > WAITING {
            minutes.pop_first();
            self.given_up += 1;
        }
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.cameras.is_empty()
    }

    /// More waits of some camera than it should, as of a recording that is not played in real time.
    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Everything is stored.
    pub fn clear(&mut self) {
        self.urgent = false;
        self.cameras.clear();
    }

    /// All that waits, by minute, so that what is stored side by side is written side by side.
    pub fn all(&self) -> Vec<(i64, &str, &Minute)> {
        let mut all: Vec<_> = self
            .cameras
            .iter()
            .flat_map(|(camera, minutes)| minutes.iter().map(move |(at, m)| (*at, camera.as_str(), m)))
            .collect();
        all.sort_by_key(|(at, camera, _)| (*at, *camera));
        all
    }

    /// The first minute that waits of a camera.
    pub fn first(&self, camera: &str) -> Option<i64> {
        self.cameras.get(camera)?.keys().next().copied()
    }

    /// What waits of one camera's minute.
    pub fn minute(&self, camera: &str, minute: i64) -> Option<&Minute> {
        self.cameras.get(camera)?.get(&minute)
    }

    /// Minutes that were given up since this was asked last.
    pub fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_second_has_its_greatest_score_however_often_it_is_told() {
        let mut curves = Curves::default();
        for _ in 0..2 {
            // Half a second before the end of a minute, 50 ms each.
            curves.note("a", 119_500_000, 50_000, &[0.1, 0.9, 0.2], -30.0);
            curves.note("a", 119_750_000, 50_000, &[0.3, 0.4, 0.5, 0.5, 0.5, 0.8], -50.0);
        }
        let first = curves.minute("a", 1).unwrap();
        assert_eq!((first.scores[59], first.levels[59]), (curve::of_score(0.9), curve::of_level(-30.0)));
        assert_eq!(first.scores[58], NOTHING);
        let second = curves.minute("a", 2).unwrap();
        assert_eq!((second.scores[0], second.levels[0]), (curve::of_score(0.8), NOTHING));
        assert_eq!(Minute::from_bytes(&second.to_bytes()), *second);
        assert_eq!(Minute::from_bytes(b"short"), Minute::default());
    }

    #[test]
    fn what_cannot_be_stored_is_bounded_and_counted() {
        let mut curves = Curves::default();
        for minute in 0..100 {
            curves.note("a", minute * MINUTE_US, 50_000, &[0.5], -40.0);
        }
        assert_eq!((curves.all().len(), curves.take_given_up(), curves.take_given_up()), (WAITING, 90, 0));
        for odd in [i64::MIN, i64::MAX, -1] {
            curves.note("a", odd, u32::MAX, &[f32::NAN; 3], f32::NAN);
        }
    }
}
