//! How many inference processes there should be, and `auto`: from the cores and how busy the pool is.

use std::time::Duration;

use nursery_shared::{control::PoolSize, message::Role};

use super::{Policy, Time, worker::State};

/// How often the load is looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// Busy share above which one process is added.
const BUSY: f64 = 0.6;
/// Busy share that the smaller pool must stay under before one is taken away, and for how many periods.
const CALM: f64 = 0.3;
const CALM_PERIODS: u32 = 6;

/// Load of the pool over the present period.
#[derive(Debug)]
pub struct Sizer {
    since: Time,
    calm: u32,
    /// The size that `auto` has arrived at.
    auto: u32,
}

impl Sizer {
    pub fn new(now: Time) -> Self {
        Self { since: now, calm: 0, auto: 0 }
    }
}

impl Policy {
    fn pool_setting(&self) -> PoolSize {
        self.pool_override.unwrap_or(self.config.inference.workers)
    }

    /// At least two processes, so that the death of one does not stop the scoring; no more than cores
    /// (or two).
    fn auto_bounds(&self) -> (u32, u32) {
        (2, self.cores.max(2))
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

    pub(super) fn pool_deadline(&self) -> Option<Time> {
        (self.pool_setting() == PoolSize::Auto).then(|| self.pool.since + PERIOD)
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
            return;
        }
        let size = self.pool_target();
        let used = busy as f64 / elapsed.as_micros().max(1) as f64;
        if used / f64::from(size) > BUSY {
            self.pool.auto = size + 1;
            self.pool.calm = 0;
        } else if size > 1 && used / f64::from(size - 1) < CALM {
            self.pool.calm += 1;
            if self.pool.calm >= CALM_PERIODS {
                self.pool.calm = 0;
                self.pool.auto = size - 1;
            }
        } else {
            self.pool.calm = 0;
        }
        self.resize_pool();
    }

    /// Adds processes or drains the newest ones until the pool has its size.
    pub(super) fn resize_pool(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let target = self.pool_target() as usize;
        let wanted: Vec<(u32, String)> = self
            .workers
            .iter()
            .filter(|(_, w)| w.role == Role::Infer && w.wanted)
            .map(|(slot, w)| (*slot, w.name.clone()))
            .collect();
        for n in (0..).filter(|n| !wanted.iter().any(|(_, name)| *name == format!("infer:{n}"))) {
            let have = self.workers.values().filter(|w| w.role == Role::Infer && w.wanted).count();
            if have >= target {
                break;
            }
            self.add_worker(format!("infer:{n}"), Role::Infer, None);
        }
        let mut surplus: Vec<(u32, u32)> = wanted
            .iter()
            .filter_map(|(slot, name)| Some((name.strip_prefix("infer:")?.parse().ok()?, *slot)))
            .collect();
        surplus.sort_unstable();
        for (_, slot) in surplus.into_iter().skip(target) {
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
            if worker.role == Role::Infer {
                self.workers.remove(&slot);
            }
        }
    }
}
