//! Watches the service all the time: what waits in it, windows that it drops, workers that die although nothing was
//! done to them.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::Duration,
};

use nursery_shared::status::Status;
use serde::Serialize;

use super::stage::{Stage, camera_of};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(200);
/// Windows wait for so long before one gives way: in the supervisor (6 s), and before that in the capture process.
const WAITED: Duration = Duration::from_secs(10);

/// The most that was seen of everything that waits.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Extremes {
    /// Windows that wait to be scored, all cameras together.
    pub queued: u64,
    /// Windows in the hands of inference processes.
    pub in_flight: u64,
    /// Alerts that wait for the receiver.
    pub pending: u64,
    /// Windows that gave way, and those that were set aside.
    pub dropped: u64,
    pub quarantined: u64,
    /// Workers that were restarted although nothing had been done to them.
    pub unprovoked: Vec<String>,
}

#[derive(Default)]
struct Seen {
    restarts: HashMap<String, u64>,
    dropped: HashMap<String, u64>,
    quarantined: u64,
    pid: u32,
}

/// Watches until it is over.
pub fn watch(stage: &Stage, over: &AtomicBool) -> Extremes {
    let mut extremes = Extremes::default();
    let mut seen = Seen::default();
    let mut hurt_before: Vec<String> = Vec::new();
    while !over.load(Ordering::SeqCst) {
        // Who is being hurt is looked up on both sides of the status, which shows one moment between them.
        let hurting = |status: &Status| -> Vec<String> {
            let names = status.workers.iter().map(|w| w.name.clone());
            names.filter(|name| stage.is_hurt(name)).collect()
        };
        let alone = stage.calm.try_read().is_ok();
        if let Some(status) = stage.status() {
            let hurt_now = hurting(&status);
            let excused = |name: &String| !alone || hurt_before.contains(name) || hurt_now.contains(name);
            seen.look(stage, &status, &mut extremes, &excused);
            hurt_before = hurt_now;
        }
        sleep(LOOK);
    }
    extremes
}

impl Seen {
    fn look(
        &mut self,
        stage: &Stage,
        status: &Status,
        extremes: &mut Extremes,
        excused: &dyn Fn(&String) -> bool,
    ) {
        if status.pid != self.pid {
            *self = Self { pid: status.pid, ..Self::default() };
        }
        extremes.queued = extremes.queued.max(status.inference.queued);
        extremes.in_flight = extremes.in_flight.max(status.inference.in_flight);
        extremes.pending = extremes.pending.max(status.alerts.pending);
        extremes.quarantined += status.inference.quarantined.saturating_sub(self.quarantined);
        self.quarantined = status.inference.quarantined;
        for worker in &status.workers {
            let before = self.restarts.insert(worker.name.clone(), worker.restarts).unwrap_or(0);
            if worker.restarts > before && !excused(&worker.name) {
                extremes.unprovoked.push(format!("{} ({:?})", worker.name, worker.last_exit));
                let camera = camera_of(&worker.name).and_then(|n| stage.names.iter().position(|c| c == n));
                if let Some(camera) = camera {
                    let deaf = stage.ledger.deaf(camera, WAITED, false, "its process died by itself");
                    stage.wait_heard(camera, WAITED);
                    stage.ledger.hears_again(deaf);
                }
            }
        }
        for (number, name) in stage.names.iter().enumerate() {
            let Some(camera) = status.cameras.iter().find(|c| c.name == *name) else { continue };
            let before = self.dropped.insert(name.clone(), camera.dropped).unwrap_or(0);
            if camera.dropped > before {
                extremes.dropped += camera.dropped - before;
                let deaf = stage.ledger.deaf(number, WAITED, false, "windows dropped, and counted");
                stage.ledger.hears_again(deaf);
            }
        }
    }
}
