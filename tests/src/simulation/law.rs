//! The law of restarts, kept beside the policy and independent of it: when the process of a slot may be started again
//! and when it must have been.

use std::{collections::BTreeMap, time::Duration};

use nursery_supervisor::policy::Time;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// What the law says of one slot.
#[derive(Debug, Default)]
struct Case {
    failures: u32,
    ready_at: Option<Time>,
    alive: bool,
    /// It was told to go, so that it is started again at once.
    asked: bool,
    /// Earliest and latest start.
    due: Option<(Time, Time)>,
}

/// All slots.
#[derive(Debug)]
pub struct Law {
    healthy_after: Duration,
    cases: BTreeMap<u32, Case>,
}

impl Law {
    /// For `supervision.healthy_after_s`.
    pub fn new(healthy_after_s: f64) -> Self {
        Self { healthy_after: Duration::from_secs_f64(healthy_after_s), cases: BTreeMap::new() }
    }

    /// A slot that exists; a new one is started at once.
    pub fn know(&mut self, slot: u32, now: Time) {
        self.cases.entry(slot).or_insert_with(|| Case { due: Some((now, now)), ..Case::default() });
    }

    /// A process is started; the error says why it must not be.
    pub fn started(&mut self, slot: u32, now: Time) -> Result<(), String> {
        self.know(slot, now);
        let Some(case) = self.cases.get_mut(&slot) else { return Ok(()) };
        if case.alive {
            return Err(format!("slot {slot} is started although its process runs"));
        }
        let Some((earliest, _)) = case.due else {
            return Err(format!("slot {slot} is started although nothing asks for it"));
        };
        if now < earliest {
            return Err(format!(
                "slot {slot} is started {} ms before its wait after failure {} is over",
                earliest.since(now).as_millis(),
                case.failures
            ));
        }
        *case = Case { failures: case.failures, alive: true, ..Case::default() };
        Ok(())
    }

    /// Its process is able to work.
    pub fn ready(&mut self, slot: u32, now: Time) {
        if let Some(case) = self.cases.get_mut(&slot) {
            case.ready_at.get_or_insert(now);
        }
    }

    /// It was told to go, or not to be waited for any longer.
    pub fn asked(&mut self, slot: u32, asked: bool) {
        if let Some(case) = self.cases.get_mut(&slot) {
            case.asked = asked;
        }
    }

    /// The policy knows that its process is gone; `rests`: a recording came to its end.
    pub fn gone(&mut self, slot: u32, now: Time, rests: bool) {
        let Some(case) = self.cases.get_mut(&slot) else { return };
        case.alive = false;
        if case.ready_at.is_some_and(|t| now.since(t) >= self.healthy_after) {
            case.failures = 0;
        }
        if rests {
            case.due = None;
            return;
        }
        if case.asked {
            case.due = Some((now, now));
            return;
        }
        let full = FIRST.saturating_mul(1 << case.failures.min(16)).min(LONGEST);
        case.failures = case.failures.saturating_add(1);
        // A microsecond for rounding.
        case.due = Some((now + full.mul_f64(0.5).saturating_sub(Duration::from_micros(1)), now + full));
    }

    /// An operator wants it to be started now, whatever it waits for.
    pub fn at_once(&mut self, slot: u32, now: Time) {
        if let Some(case) = self.cases.get_mut(&slot).filter(|c| !c.alive) {
            case.failures = 0;
            case.due = Some((now, now));
        }
    }

    /// When a slot in which no process runs must have been started.
    pub fn latest_start(&self, slot: u32) -> Option<Time> {
        self.cases.get(&slot).filter(|c| !c.alive)?.due.map(|(_, latest)| latest)
    }
}
