//! Where samples lie on a movie's timeline: it only ever goes forward, whatever the camera's clock does.

use super::PICTURE_SCALE;

/// Steps back of more than this begin anew from where the movie is; smaller ones are evened out.
const STEP_BACK_US: i64 = 1_000_000;
/// How long a picture lasts while that is not known.
const PICTURE: u32 = PICTURE_SCALE / 25;
/// The longest that a picture lasts where the next one is not known.
const LONGEST: u32 = PICTURE_SCALE * 10;
/// Sound is put one after the other, however its times tremble, up to a part of a second.
const TREMBLE: u64 = 16;
/// Where it has run ahead of its clock, frames are told to be shorter by this part.
const SHORTER: u32 = 64;

#[derive(Debug)]
struct Clock {
    scale: u32,
    epoch_us: i64,
    shift_us: i64,
}

impl Clock {
    /// Ticks of this time, where the movie has come to `next` already (`None`: it begins).
    fn ticks(&mut self, time_us: i64, next: Option<u64>) -> u64 {
        let relative = self.relative(time_us);
        let Some(next) = next else { return self.count(relative) };
        let reached =
            i64::try_from(u128::from(next) * 1_000_000 / u128::from(self.scale)).unwrap_or(i64::MAX);
        if relative < reached.saturating_sub(STEP_BACK_US) {
            self.shift_us = self.shift_us.saturating_add(reached.saturating_sub(relative));
            return next;
        }
        self.count(relative)
    }

    fn relative(&self, time_us: i64) -> i64 {
        time_us.saturating_sub(self.epoch_us).saturating_add(self.shift_us)
    }

    fn count(&self, us: i64) -> u64 {
        let us = u128::from(us.max(0).unsigned_abs());
        u64::try_from(us * u128::from(self.scale) / 1_000_000).unwrap_or(u64::MAX / 2)
    }
}

/// Timeline of pictures.
#[derive(Debug)]
pub struct Pictures {
    clock: Clock,
    /// The newest one, and how long one lasted.
    last: Option<u64>,
    duration: u32,
    /// Where pictures come one by one and no hole may be between them: what is known of the newest one.
    unbroken: Option<Unbroken>,
}

/// The newest picture of a timeline without holes.
#[derive(Debug, Default)]
struct Unbroken {
    /// When it was taken; where it lies may be earlier.
    taken: Option<u64>,
    /// Where it was said to end.
    end: u64,
    /// From the one before it to this one.
    gap: Option<u64>,
}

impl Unbroken {
    /// Where a picture that was taken at `taken` begins, later than `last`, and how long it lasts. It begins where the one
    /// before was said to end at the latest, and lasts until the next one should come: as long after it was taken as the
    /// shorter of the last two gaps, so that one long gap promises nothing.
    fn put(&mut self, taken: u64, last: Option<u64>) -> (u64, u32) {
        let gap = self.taken.map(|before| taken.saturating_sub(before).clamp(1, LONGEST.into()));
        let next_in = gap.into_iter().chain(self.gap).min().unwrap_or(PICTURE.into()).min(match self.gap {
            Some(_) => LONGEST.into(),
            // Of the first two nothing is known: that one comes later than was thought does no harm.
            None => PICTURE.into(),
        });
        let start = match last {
            Some(last) => taken.min(self.end).max(last.saturating_add(1)),
            None => taken,
        };
        let duration = short(taken.saturating_add(next_in).saturating_sub(start)).max(1);
        *self = Self { taken: Some(taken), end: start.saturating_add(duration.into()), gap };
        (start, duration)
    }
}

impl Pictures {
    pub fn new(epoch_us: i64) -> Self {
        let clock = Clock { scale: PICTURE_SCALE, epoch_us, shift_us: 0 };
        Self { clock, last: None, duration: PICTURE, unbroken: None }
    }

    /// Where pictures come one by one and each begins where the one before was said to end, at the latest.
    pub fn unbroken(epoch_us: i64) -> Self {
        Self { unbroken: Some(Unbroken::default()), ..Self::new(epoch_us) }
    }

    /// Where these begin, and how long each lasts, in ticks; `None` where there is none.
    pub fn place(&mut self, times_us: &[i64], until_us: Option<i64>) -> Option<(u64, Vec<u32>)> {
        if self.unbroken.is_some() {
            return self.place_unbroken(times_us);
        }
        let mut starts = Vec::with_capacity(times_us.len());
        for time in times_us {
            let next = self.last.map(|last| last.saturating_add(1));
            let start = self.clock.ticks(*time, next).max(next.unwrap_or(0));
            if let Some(last) = self.last {
                self.duration = short(start - last).min(LONGEST);
            }
            self.last = Some(start);
            starts.push(start);
        }
        let (first, last) = (*starts.first()?, *starts.last()?);
        let mut durations: Vec<u32> = starts.windows(2).map(|pair| short(pair[1] - pair[0])).collect();
        let until = until_us.map(|us| self.clock.count(self.clock.relative(us)));
        durations
            .push(until.filter(|until| *until > last).map_or(self.duration, |until| short(until - last)));
        Some((first, durations))
    }

    fn place_unbroken(&mut self, times_us: &[i64]) -> Option<(u64, Vec<u32>)> {
        let mut first = None;
        let mut durations: Vec<u32> = Vec::with_capacity(times_us.len());
        let mut before = None;
        for time in times_us {
            let next = self.last.map(|last| last.saturating_add(1));
            let taken = self.clock.ticks(*time, next).max(next.unwrap_or(0));
            let (start, duration) = self.unbroken.as_mut()?.put(taken, self.last);
            // Within a fragment the next one begins where this one ends.
            if let (Some(before), Some(last)) = (before, durations.last_mut()) {
                *last = short(start - before);
            }
            first.get_or_insert(start);
            (self.last, before) = (Some(start), Some(start));
            durations.push(duration);
        }
        Some((first?, durations))
    }
}

/// Timeline of sound.
#[derive(Debug)]
pub struct Sounds {
    clock: Clock,
    /// Where the newest one ends.
    next: Option<u64>,
}

impl Sounds {
    pub fn new(epoch_us: i64, rate: u32) -> Self {
        Self { clock: Clock { scale: rate.max(1), epoch_us, shift_us: 0 }, next: None }
    }

    /// Where frames of these times and durations begin, and how long each lasts, in ticks; `None` where there is none.
    /// A hole lengthens the frame before it, or the fragment begins later.
    pub fn place(&mut self, frames: &[(i64, u32)]) -> Option<(u64, Vec<u32>)> {
        let slack = u64::from(self.clock.scale) / TREMBLE;
        let mut first = None;
        let mut durations: Vec<u32> = Vec::with_capacity(frames.len());
        for (time, duration) in frames {
            let wanted = self.clock.ticks(*time, self.next);
            let start = match self.next {
                Some(next) if wanted <= next.saturating_add(slack) => next,
                _ => wanted,
            };
            if let (Some(next), Some(before)) = (self.next, durations.last_mut()) {
                *before = before.saturating_add(short(start - next));
            }
            first.get_or_insert(start);
            let ticks = (u64::from(*duration) * u64::from(self.clock.scale) + 500_000) / 1_000_000;
            let mut ticks = short(ticks).max(1);
            if start > wanted.saturating_add(slack) {
                ticks -= ticks / SHORTER;
            }
            self.next = Some(start.saturating_add(ticks.into()));
            durations.push(ticks);
        }
        Some((first?, durations))
    }
}

fn short(ticks: u64) -> u32 {
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn pictures_last_until_the_next_one() {
        let mut pictures = Pictures::new(1_000_000);
        let (start, durations) = pictures.place(&[1_000_000, 1_040_000, 1_100_000], Some(1_200_000)).unwrap();
        assert_eq!((start, durations), (0, vec![3600, 5400, 9000]));
        // One at a time: as long as the one before, where the next one is not known.
        assert_eq!(pictures.place(&[1_200_000], None).unwrap(), (18_000, vec![9000]));
        assert!(pictures.place(&[], None).is_none());
    }

    /// Pictures at these times, one by one: where each begins and how long it lasts, in milliseconds; whether a browser that
    /// goes by the algorithm of Media Source Extensions ("coded frame processing") takes them all without another key frame.
    fn unbroken(times_ms: &[i64]) -> Vec<(u64, u64)> {
        let mut pictures = Pictures::unbroken(0);
        let mut placed: Vec<(u64, u64)> = Vec::new();
        for time in times_ms {
            let (start, durations) = pictures.place(&[time * 1000], None).unwrap();
            if let Some((before, lasted)) = placed.last() {
                assert!(start > *before && start - before <= 2 * lasted, "{times_ms:?}: {placed:?}, {start}");
            }
            placed.push((start, durations[0].into()));
        }
        placed.into_iter().map(|(start, lasts)| (start / 90, lasts / 90)).collect()
    }

    #[test]
    fn pictures_one_by_one_leave_no_hole_however_seldom_they_come_and_whatever_is_missing() {
        // Five a second: from the third one on they are where they belong.
        let slow = unbroken(&(0..50).map(|n| n * 200).collect::<Vec<_>>());
        assert_eq!(slow[..3], [(0, 40), (40, 200), (240, 360)]);
        for (n, placed) in slow.iter().enumerate().skip(3) {
            assert_eq!(*placed, (200 * n as u64, 200));
        }
        // A gap: what comes after it begins where the one before ended, and lasts until it should be over.
        let mut times: Vec<i64> = (0..25).map(|n| n * 40).collect();
        times.extend((0..25).map(|n| 2_500 + n * 40));
        let gap = unbroken(&times);
        assert_eq!(gap[23..28], [(920, 40), (960, 40), (1000, 1540), (2540, 40), (2580, 40)]);
        // Nobody is promised another long gap, nor a picture at once after a rate has fallen.
        let falling = unbroken(&[0, 40, 80, 120, 320, 520, 720, 920]);
        assert_eq!(falling[4..], [(160, 200), (360, 360), (720, 200), (920, 200)]);
        // Times that tremble, stand still, jump by an hour and back, a picture every minute.
        unbroken(&[0, 30, 90, 100, 180, 181, 181, 181, 500, 3_600_500, 3_600_540, 500, 540, 60_540, 120_540]);
        unbroken(&[0, i64::MAX / 1000, 0, i64::MIN / 1000, i64::MAX / 1000, 40]);
        // One that lies where it is as long as it must be is at no other time than the end says.
        for (start, lasts) in unbroken(&(0..100).map(|n| n * 1000).collect::<Vec<_>>()).into_iter().skip(4) {
            assert_eq!((start % 1000, lasts), (0, 1000));
        }
    }

    #[test]
    fn time_only_goes_forward_whatever_the_clock_does() {
        let mut pictures = Pictures::new(0);
        let mut sounds = Sounds::new(0, 16_000);
        let mut seen = (None, None);
        let times = [0, 40_000, 39_000, -5_000_000, 10, i64::MIN, i64::MAX, 0, i64::MAX, 40_000, 80_000];
        for time in times {
            let (start, durations) = pictures.place(&[time], None).unwrap();
            assert!(seen.0.is_none_or(|before| start > before) && durations[0] > 0, "{time}");
            seen.0 = Some(start);
            let (start, durations) = sounds.place(&[(time, 64_000)]).unwrap();
            assert!(seen.1.is_none_or(|before| start > before) && durations[0] > 0, "{time}");
            seen.1 = Some(start);
        }
    }

    #[test]
    fn a_clock_that_was_set_back_goes_on_from_where_it_was() {
        let mut pictures = Pictures::new(0);
        pictures.place(&[3_600_000_000], None).unwrap();
        let (first, _) = pictures.place(&[10_000_000], None).unwrap();
        let (second, _) = pictures.place(&[10_040_000], None).unwrap();
        assert!((3590..3700).contains(&(second - first)), "{}", second - first);
    }

    #[test]
    fn sound_that_trembles_has_no_holes_and_what_is_missing_is_one() {
        let mut sounds = Sounds::new(0, 16_000);
        let mut end = 0;
        for n in 0..100i64 {
            let tremble = if n % 2 == 0 { 9_000 } else { -9_000 };
            let (start, durations) = sounds.place(&[((n * 64_000 + tremble).max(0), 64_000)]).unwrap();
            if n > 0 {
                assert_eq!(start, end);
            }
            end = start + u64::from(durations[0]);
        }
        let (start, _) = sounds.place(&[(10_000_000, 64_000)]).unwrap();
        assert_eq!(start, 160_000, "where it belongs");
    }

    #[test]
    fn sound_of_a_clock_that_is_fast_does_not_run_away() {
        let mut sounds = Sounds::new(0, 8_000);
        let mut start = 0;
        // 20 ms of sound every 19.9 ms.
        for n in 0..100_000i64 {
            start = sounds.place(&[(n * 19_900, 20_000)]).unwrap().0;
        }
        let real = 99_999 * 19_900 * 8 / 1000;
        assert!(start.abs_diff(real) < 8_000 / 10, "{start} {real}");
    }
}
