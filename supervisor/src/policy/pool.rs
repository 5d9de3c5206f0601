//! How many inference processes there should be, and `auto`: between bounds, by how busy the pool is and whether windows
//! wait. It grows within seconds and shrinks after a minute of little load, with a wide gap between the two, so that a
//! load that varies does not make it swing.

use std::{collections::VecDeque, time::Duration};

use nursery_shared::{
    control::PoolSize,
    message::Role,
    status::{AutoStatus, SizeChange},
    timestamp,
};

use super::{Level, Policy, Time, worker::State};

/// How often the load is looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// Looks over which growing is decided, and over which shrinking is.
const SHORT: usize = 2;
const LONG: usize = 30;
/// Busy share of the pool above which one process is added.
const BUSY: f64 = 0.75;
/// Busy share that the smaller pool must stay under before one is taken away: on average, and in every look.
const CALM: f64 = 0.3;
const CALM_PEAK: f64 = 0.6;
/// A window that waits for longer than this shows that the pool is too small, however busy it seems.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// What was seen in one period.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Processes that were busy, on average.
    used: f64,
    /// A camera waited for a process.
    waited: bool,
}

/// Load of the pool, and what was made of it.
#[derive(Debug)]
pub struct Sizer {
    since: Time,
    /// Since the last change, the newest last.
    looks: VecDeque<Look>,
    /// The size that `auto` has arrived at.
    auto: u32,
    last_change: Option<SizeChange>,
}

impl Sizer {
    pub fn new(now: Time) -> Self {
        Self { since: now, looks: VecDeque::new(), auto: 0, last_change: None }
    }

    /// Another size than this, and why.
    fn decide(&self, size: u32, (low, high): (u32, u32)) -> Option<(u32, String)> {
        let newest = || self.looks.iter().rev().take(SHORT);
        let of = |size: u32, used: f64| used / f64::from(size.max(1));
        if self.looks.len() >= SHORT && size < high {
            let share = newest().map(|l| of(size, l.used)).sum::<f64>() / SHORT as f64;
            let seconds = SHORT as u64 * PERIOD.as_secs();
            if share > BUSY {
                return Some((size + 1, format!("busy for {:.0} % of {seconds} s", share.min(1.0) * 100.0)));
            }
            if newest().all(|l| l.waited) {
                return Some((size + 1, format!("windows waited for more than {} s", LONG_WAIT.as_secs())));
            }
        }
        if self.looks.len() >= LONG && size > low {
            let shares = || self.looks.iter().map(|l| of(size - 1, l.used));
            let mean = shares().sum::<f64>() / self.looks.len() as f64;
            if mean < CALM && shares().all(|s| s < CALM_PEAK) && !self.looks.iter().any(|l| l.waited) {
                let seconds = LONG as u64 * PERIOD.as_secs();
                let now = mean * f64::from(size - 1) / f64::from(size) * 100.0;
                return Some((size - 1, format!("busy for {now:.0} % of {seconds} s")));
            }
        }
        None
    }
}

impl Policy {
    pub(super) fn pool_setting(&self) -> PoolSize {
        self.pool_override.unwrap_or(self.config.inference.workers)
    }

    fn auto_bounds(&self) -> (u32, u32) {
        self.config.inference.bounds(self.cores)
    }

    pub(super) fn pool_target(&self) -> u32 {
        match self.pool_setting() {
            PoolSize::Fixed(n) => n,
            PoolSize::Auto => {
                let (low, high) = self.auto_bounds();
                self.pool.auto.clamp(low, high)
            }
        }
    }

    /// `auto` begins with the size that the pool had before.
    pub(super) fn follow_from(&mut self, size: u32) {
        self.pool.auto = size;
        self.pool.looks.clear();
    }

    pub(super) fn auto_status(&self) -> Option<AutoStatus> {
        let (min, max) = self.auto_bounds();
        let last_change = self.pool.last_change.clone();
        (self.pool_setting() == PoolSize::Auto).then_some(AutoStatus { min, max, last_change })
    }

    pub(super) fn pool_deadline(&self) -> Option<Time> {
        (self.pool_setting() == PoolSize::Auto).then(|| self.pool.since + PERIOD)
    }

    /// A camera that is heard live has waited for a process for long. Recordings keep their queues full on purpose, and
    /// one whose window is being scored waits for that and not for a process.
    fn anybody_waits_long(&self) -> bool {
        let waits = |id: &u32| {
            let camera = self.cameras.get(id).filter(|c| !c.lossless);
            let oldest = camera.and_then(|c| c.queue.front());
            oldest.is_some_and(|p| self.now.since(Time(p.window.arrived_us)) > LONG_WAIT)
        };
        !self.ledger.is_full() && self.ring.iter().any(waits)
    }

    /// Looks at the load once per period and follows it by one process at a time.
    pub(super) fn adapt_pool(&mut self) {
        let elapsed = self.now.since(self.pool.since);
        if elapsed < PERIOD {
            return;
        }
        let busy: u64 = self.workers.values_mut().map(|w| std::mem::take(&mut w.busy_us)).sum();
        self.pool.since = self.now;
        if self.pool_setting() != PoolSize::Auto || self.stopping.is_some() {
            return self.pool.looks.clear();
        }
        // What a pool shows that is not whole, or that nobody watched, says nothing about its size.
        let whole = self.members().all(|(_, w)| w.state == State::Running) && self.renewal.is_none();
        if !whole || elapsed > PERIOD * 2 {
            return self.pool.looks.clear();
        }
        let used = busy as f64 / elapsed.as_micros().max(1) as f64;
        let waited = self.anybody_waits_long();
        self.pool.looks.push_back(Look { used, waited });
        if self.pool.looks.len() > LONG {
            self.pool.looks.pop_front();
        }
        let size = self.pool_target();
        if let Some((to, why)) = self.pool.decide(size, self.auto_bounds()) {
            self.pool.auto = to;
            self.pool.looks.clear();
            self.log(Level::Info, format!("inference pool: {size} -> {to} processes (auto): {why}"));
            let at = timestamp::rfc3339(self.wall_us);
            self.pool.last_change = Some(SizeChange { at, from: size, to, why });
        }
        self.resize_pool();
    }

    /// Adds processes or drains the newest ones until the pool has its size.
    pub(super) fn resize_pool(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let target = self.pool_target() as usize;
        let wanted: Vec<(u32, String)> = self.members().map(|(slot, w)| (slot, w.name.clone())).collect();
        for n in (0..).filter(|n| !wanted.iter().any(|(_, name)| *name == format!("infer:{n}"))) {
            if self.members().count() >= target {
                break;
            }
            self.add_worker(format!("infer:{n}"), Role::Infer, None);
        }
        // Those that run stay, so that somebody does; of these the first ones.
        let rests = |slot: u32| self.workers.get(&slot).is_some_and(|w| w.state != State::Running);
        let mut surplus: Vec<(bool, u32, u32)> = wanted
            .iter()
            .filter_map(|(slot, name)| {
                Some((rests(*slot), name.strip_prefix("infer:")?.parse().ok()?, *slot))
            })
            .collect();
        surplus.sort_unstable();
        for (_, _, slot) in surplus.into_iter().skip(target) {
            self.dismiss(slot);
        }
    }

    /// A worker is no longer wanted: it finishes what it has in hand and goes.
    pub(super) fn dismiss(&mut self, slot: u32) {
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        worker.wanted = false;
        if worker.is_alive() {
            self.drain(slot);
        } else {
            worker.state = State::Stopped;
            if matches!(worker.role, Role::Infer | Role::Web | Role::Light) {
                self.remove_worker(slot);
            }
        }
    }
}
