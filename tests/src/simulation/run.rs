//! One run: a time of faults, a time in which everything recovers, a cry that must be heard, a stop; and what must be
//! true at each end.

use std::{path::PathBuf, time::Duration};

use nursery_supervisor::policy::Time;

use super::{
    faults::Counts,
    world::{Options, World},
};

/// How long things go wrong, in virtual time.
const FAULTS: Duration = Duration::from_secs(400);
/// Longest backoff, start, hang; and then some.
const RECOVERY: Duration = Duration::from_secs(62);
/// Longest wait of the outbox.
const DELIVERY: Duration = Duration::from_secs(75);
/// Lines that are shown of a run that failed.
const SHOWN: usize = 60;
/// A stop ends within this.
const STOP: Duration = Duration::from_secs(10);

/// A broken promise and all that helps to find out why.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    pub seed: u64,
    pub step: u64,
    /// Virtual seconds since the beginning.
    pub at_s: f64,
    pub what: String,
    /// What happened last.
    pub last: Vec<String>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}, step {}, {:.3} s: {}", self.seed, self.step, self.at_s, self.what)?;
        self.last.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        write!(f, "replay: cargo xtask simulate --seed {} --trace", self.seed)
    }
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub faults: Counts,
    pub steps: u64,
    /// Windows that were made, alerts that were stored, requests that reached receivers.
    pub windows: u64,
    pub alerts: u64,
    pub deliveries: u64,
    pub violation: Option<Violation>,
    pub trace: Vec<String>,
}

/// Runs a seed. Where it fails and no trace was asked for, it is run again with one.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let outcome = once(seed, options.clone());
    if outcome.violation.is_none() || options.trace {
        return outcome;
    }
    let fresh = options.store.as_ref().map(|dir| dir.join("again"));
    fresh.iter().for_each(|dir: &PathBuf| {
        let _ = std::fs::create_dir_all(dir);
    });
    once(seed, Options { trace: true, store: fresh, ..options.clone() })
}

pub fn once(seed: u64, options: Options) -> Outcome {
    let mut world = World::new(seed, options);
    let start = world.now;
    live(&mut world, start);
    outcome_of(world, start)
}

/// All that a run goes through.
pub fn live(world: &mut World, start: Time) {
    world.run_until(start + FAULTS);
    world.become_calm();
    while world.stopped && world.broken.is_none() {
        world.run_until(world.now + Duration::from_secs(1));
    }
    let calm = world.now;
    world.crying = Some(false);
    world.run_until(calm + RECOVERY);
    let before = world.disk.borrow().alerts.starts();
    world.crying = Some(true);
    world.run_until(world.now + Duration::from_secs(4));
    world.crying = Some(false);
    world.run_until(world.now + Duration::from_secs(3));
    world.mute = true;
    world.run_until(world.now + Duration::from_secs(3));
    if world.broken.is_some() {
        return;
    }
    let heard = world.disk.borrow().alerts.starts();
    let deaf = world
        .config
        .cameras
        .iter()
        .filter(|c| c.realtime)
        .find(|c| heard.get(&c.name) == before.get(&c.name));
    if let Some(camera) = deaf {
        let text = format!("camera {} cried after all faults were over, and nobody was told", camera.name);
        return world.violated(text);
    }
    world.run_until(world.now + DELIVERY);
    if world.broken.is_some() {
        return;
    }
    let settled =
        world.truth.is_settled().and_then(|()| world.disk.borrow().alerts.is_settled(&world.receivers()));
    if let Err(broken) = settled {
        return world.violated(broken);
    }
    let missing = world.truth.kept.difference(&world.disk.borrow().set_aside).next().copied();
    if let Some(number) = missing {
        return world.violated(format!("window {number} was set aside and not kept"));
    }
    if let Some(name) = world.rests() {
        return world.violated(format!("{name} does not run again"));
    }
    stop(world);
}

fn stop(world: &mut World) {
    world.stopping = true;
    let (now, wall_us) = (world.now, world.wall_us());
    let actions = world.policy.stop(now, wall_us);
    world.perform(actions);
    world.run_until(now + STOP);
    if world.broken.is_none() && !world.finished {
        world.violated("the stop does not end".into());
    }
    if world.finished && world.policy.accounts().records > 0 {
        world.violated("a stop without faults lost records".into());
    }
}

pub fn outcome_of(world: World, start: Time) -> Outcome {
    let disk = world.disk.borrow();
    let violation = world.broken.clone().map(|what| Violation {
        seed: world.seed,
        step: world.steps,
        at_s: world.now.since(start).as_secs_f64(),
        what,
        last: world.last[world.last.len().saturating_sub(SHOWN)..].to_vec(),
    });
    Outcome {
        faults: world.counts.clone(),
        steps: world.steps,
        windows: world.next_window,
        alerts: disk.alerts.stored,
        deliveries: disk.alerts.deliveries,
        violation,
        trace: world.last.clone(),
    }
}

impl World {
    /// A worker that should run and does not.
    fn rests(&self) -> Option<String> {
        use nursery_shared::status::WorkerState::Running;
        let mut slots = self.policy.slots().filter(|s| s.wanted && s.state != Running);
        slots.find(|s| !self.recordings.contains(&s.number)).map(|s| s.name.to_owned())
    }
}
