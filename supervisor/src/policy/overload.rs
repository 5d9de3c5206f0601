//! Whether what is heard is scored: windows that give way because nobody gets to score them are a monitor that hears less
//! than it seems to, and people are told of it.

use std::time::Duration;

use nursery_shared::message::{Overload, Record, RecordKind};

use super::{Level, Policy, Time};

/// Windows are counted over so long.
const PERIOD: Duration = Duration::from_secs(10);
/// More than this share of them in each of so many periods is an overload, and so is any where those that are scored have
/// waited long as a rule; a process that hangs and is replaced, or a host that stood still, is none.
const MOST: f64 = 0.05;
const LONG: Duration = Duration::from_secs(2);
const BEGINS_AFTER: u32 = 2;
/// It is over after so many periods in which none gave way.
const ENDS_AFTER: u32 = 3;
/// So many cameras are named at the most: a record must fit a frame.
const MOST_NAMED: usize = 64;

/// One camera's part in it. Each is judged by what it loses itself: one that sends more than it should must not cost the
/// others their places.
#[derive(Debug, Default)]
pub(super) struct Strain {
    /// Its windows at the beginning of the period: heard, and given way.
    heard: u64,
    dropped: u64,
    /// Those that were given to somebody in the period, and how long they had waited in all.
    taken: u32,
    waited: Duration,
    /// Periods in a row in which too many gave way, and in which none did.
    bad: u32,
    good: u32,
    short: bool,
}

impl Strain {
    /// A window was given to somebody after this time.
    pub fn taken(&mut self, waited: Duration) {
        self.taken += 1;
        self.waited += waited;
    }

    /// More is heard of the camera than can be scored, and has been for a while: its queue is to be short, so that what is
    /// scored is of now.
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// Judges the last period, after which the camera has so many windows. True where its queue is to be short from now on.
    fn look(&mut self, heard: u64, dropped: u64) -> bool {
        let lost = dropped - self.dropped;
        let too_many = lost as f64 > (heard - self.heard) as f64 * MOST;
        let bad = too_many || is_late(lost, self.waited, self.taken);
        (self.heard, self.dropped) = (heard, dropped);
        (self.waited, self.taken) = (Duration::ZERO, 0);
        self.bad = if bad { self.bad + 1 } else { 0 };
        self.good = if lost == 0 { self.good + 1 } else { 0 };
        let before = self.short;
        self.short = self.bad >= BEGINS_AFTER || before && self.good < ENDS_AFTER;
        self.short && !before
    }
}

fn is_late(lost: u64, waited: Duration, taken: u32) -> bool {
    lost > 0 && waited > LONG * taken
}

/// What was counted so far, of all cameras.
#[derive(Debug)]
pub(super) struct Load {
    until: Time,
    /// Windows at the beginning of the period: heard, and given way.
    heard: u64,
    dropped: u64,
    /// Periods in a row in which too many gave way, and in which none did.
    bad: u32,
    good: u32,
    /// The sink was told that there is an overload, or none; `None`: nothing yet.
    told: Option<bool>,
}

impl Load {
    pub fn new(now: Time) -> Self {
        Self { until: now + PERIOD, heard: 0, dropped: 0, bad: 0, good: 0, told: None }
    }
}

impl Policy {
    /// Windows heard, and those of them that gave way, since the beginning.
    fn windows_lost(&self) -> (u64, u64) {
        let upstream: u64 = self.cameras.values().map(|c| c.dropped_upstream + c.dropped_before).sum();
        (self.taken + upstream, self.dropped + upstream)
    }

    /// Judges the last period, where it is over.
    pub(super) fn watch_load(&mut self) {
        let now = self.now;
        if now < self.load.until || self.stopping.is_some() {
            return;
        }
        let (all, lost) = self.windows_lost();
        // Cameras that were taken out take their counts along.
        let heard = all.saturating_sub(self.load.heard);
        let dropped = lost.saturating_sub(self.load.dropped).min(heard);
        let share = dropped as f64 / heard.max(1) as f64;
        let strains = self.cameras.values().map(|c| &c.strain);
        let (waited, taken) = strains.fold((Duration::ZERO, 0), |(w, t), s| (w + s.waited, t + s.taken));
        let late = is_late(dropped, waited, taken);
        self.shorten_queues();
        let load = &mut self.load;
        (load.heard, load.dropped, load.until) = (all, lost, now + PERIOD);
        load.bad = if share > MOST || late { load.bad + 1 } else { 0 };
        load.good = if dropped == 0 { load.good + 1 } else { 0 };
        if load.bad >= BEGINS_AFTER && load.told != Some(true) {
            load.told = Some(true);
            let periods = PERIOD * load.bad;
            self.tell_overload(periods, share);
        } else if load.good >= ENDS_AFTER && load.told != Some(false) {
            if load.told == Some(true) {
                self.log(Level::Info, "everything that is heard is scored again".into());
            }
            self.load.told = Some(false);
            let record = Record { camera: String::new(), what: RecordKind::Relieved { at_us: self.wall_us } };
            self.ledger.push(record);
        }
    }

    /// What waits longer than it may from now on is late already.
    fn shorten_queues(&mut self) {
        let cameras = self.cameras.iter_mut();
        let short = cameras.filter_map(|(id, c)| c.strain.look(c.windows, c.dropped).then_some(*id));
        let short: Vec<u32> = short.collect();
        short.into_iter().for_each(|id| self.bound_queue(id));
    }

    fn tell_overload(&mut self, for_so_long: Duration, share: f64) {
        let reason = format!(
            "{:.*} % of what was heard in the last {} s was not scored: {}",
            usize::from(share < 0.01),
            share * 100.0,
            PERIOD.as_secs(),
            if self.serving().is_empty() {
                "no inference process is running"
            } else {
                "it comes faster than it is scored (more --inference-workers, or fewer cameras)"
            }
        );
        self.log(Level::Warn, reason.clone());
        let mut cameras: Vec<(u64, &str)> = self
            .cameras
            .values()
            .map(|c| (c.dropped + c.dropped_upstream + c.dropped_before, c.config.name.as_str()))
            .filter(|(dropped, _)| *dropped > 0)
            .collect();
        // Those that lost most, where there are more than can be named.
        cameras.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        cameras.truncate(MOST_NAMED);
        let mut names: Vec<&str> = cameras.into_iter().map(|(_, name)| name).collect();
        names.sort_unstable();
        let camera = Record::name_of(&names);
        let since_us = self.wall_us - i64::try_from(for_so_long.as_micros()).unwrap_or(0);
        let overload = Overload { since_us, dropped: share as f32, reason };
        self.ledger.push(Record { camera, what: RecordKind::Overloaded(overload) });
    }
}
