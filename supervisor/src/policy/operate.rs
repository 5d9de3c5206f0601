//! What operators ask for: another pool, restarts, the stop. Another configuration is in [`super::reload`].

use std::time::Duration;

use nursery_shared::{
    config::{CameraConfig, MAX_POOL},
    control::PoolSize,
    message::{Record, RecordKind, Role, StreamState, ToWorker},
    suggest,
};

use super::{Action, Key, Level, Policy, Time, camera::Camera, worker::State};

/// How long windows may take to be scored, and then records to be stored, at a stop.
const FINISH_LIMIT: Duration = Duration::from_secs(2);
/// When whoever still runs is killed.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// When even those who were killed are no longer waited for: a process in the kernel's hands (a dead disk) dies
/// when it is let go.
const KILL_LIMIT: Duration = Duration::from_millis(1500);

/// A stop in progress.
#[derive(Debug, Clone, Copy)]
pub struct Stopping {
    since: Time,
    step: Step,
    step_since: Time,
}

/// Whom the stop is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Step {
    Capture,
    Infer,
    Sink,
    Killing,
}

impl Policy {
    /// A camera with its capture process.
    pub(super) fn add_camera(&mut self, config: CameraConfig) {
        let id = self.next_camera;
        self.next_camera += 1;
        let slot = self.add_worker(format!("capture:{}", config.name), Role::Capture, Some(id));
        self.cameras.insert(id, Camera::new(config, slot, self.now));
    }

    /// Tells a worker to finish and go.
    pub(super) fn drain(&mut self, slot: u32) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        if !matches!(worker.state, State::Starting | State::Running) {
            return;
        }
        worker.draining(now);
        if worker.paused {
            worker.paused = false;
            let key = Key { slot, generation: worker.generation };
            self.actions.push(Action::SetReading { key, reading: true });
        }
        self.send(slot, ToWorker::Drain);
    }

    /// Resizes the pool; stays in force over a reload.
    pub fn scale(
        &mut self,
        now: Time,
        wall_us: i64,
        size: PoolSize,
    ) -> (Result<String, String>, Vec<Action>) {
        self.advance(now, wall_us);
        if self.stopping.is_some() {
            return (Err("the service is stopping".into()), self.settle());
        }
        if let PoolSize::Fixed(n) = size
            && !(1..=MAX_POOL).contains(&n)
        {
            let message = format!("a pool of {n} processes: expected a number from 1 to {MAX_POOL}, or auto");
            return (Err(message), self.settle());
        }
        let before = (self.pool_setting(), self.pool_target());
        self.pool_override = Some(size);
        if before.0 != PoolSize::Auto {
            self.follow_from(before.1);
        }
        self.resize_pool();
        let workers = self.pool_target();
        let auto = if size == PoolSize::Auto { " (auto)" } else { "" };
        let message = format!("inference pool: {workers} processes{auto}");
        self.log(Level::Info, message.clone());
        (Ok(message), self.settle())
    }

    /// Restarts a worker, a camera's capture process, a whole role, or all.
    pub fn restart(&mut self, now: Time, wall_us: i64, name: &str) -> (Result<String, String>, Vec<Action>) {
        self.advance(now, wall_us);
        if self.stopping.is_some() {
            return (Err("the service is stopping".into()), self.settle());
        }
        let capture = format!("capture:{name}");
        let slots: Vec<u32> = self
            .workers
            .iter()
            .filter(|(_, w)| w.wanted && !w.stand_in)
            .filter(|(_, w)| w.name == name || w.name == capture || w.role.as_str() == name || name == "all")
            .map(|(slot, _)| *slot)
            .collect();
        if slots.is_empty() {
            let known = self.workers.values().map(|w| w.name.strip_prefix("capture:").unwrap_or(&w.name));
            let hint =
                suggest::nearest(name, known.chain(["capture", "infer", "sink", "web", "light", "all"]))
                    .map_or_else(String::new, |n| format!(", did you mean {n:?}?"));
            return (Err(format!("no worker, camera or role is called {name:?}{hint}")), self.settle());
        }
        let cameras = |w: &super::Worker| w.role == Role::Capture && w.is_alive();
        let turns: Vec<u32> =
            slots.iter().copied().filter(|s| self.workers.get(s).is_some_and(cameras)).collect();
        for slot in &slots {
            match self.workers.get(slot) {
                Some(w) if w.role == Role::Infer && w.is_alive() => self.renew_one(*slot),
                Some(_) if turns.len() > 1 && turns.contains(slot) => {}
                _ => self.restart_slot(*slot),
            }
        }
        if turns.len() > 1 {
            self.restart_in_turns(&turns);
        }
        let plural = if slots.len() == 1 { "" } else { "s" };
        let message = format!("restarting {} worker{plural}", slots.len());
        self.log(Level::Info, format!("{name}: {message}"));
        (Ok(message), self.settle())
    }

    pub(super) fn restart_slot(&mut self, slot: u32) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        match worker.state {
            State::Starting | State::Running => self.drain(slot),
            State::Backoff { .. } | State::Stopped => {
                worker.state = State::Backoff { until: now };
                worker.backoff.reset();
                if let Some(camera) = worker.camera.and_then(|id| self.cameras.get_mut(&id)) {
                    camera.stream = StreamState::Connecting;
                    camera.end_told = false;
                    camera.heard_at = now;
                }
            }
            State::Stopping => {}
        }
    }

    pub(super) fn remove_camera(&mut self, id: u32) {
        let Some(camera) = self.cameras.get_mut(&id) else { return };
        camera.removed = true;
        let slot = camera.slot;
        self.dismiss(slot);
        self.finish_camera(id);
    }

    /// Passes on the end of a recording, or of a camera's time with us, once its last window is scored.
    pub(super) fn finish_camera(&mut self, id: u32) {
        let wall_us = self.wall_us;
        let Some(camera) = self.cameras.get_mut(&id).filter(|c| c.is_idle()) else { return };
        let gone = !self.workers.get(&camera.slot).is_some_and(super::Worker::is_alive);
        let at_an_end = gone && (camera.removed || camera.stream == StreamState::Ended);
        if !at_an_end {
            return;
        }
        let (slot, removed) = (camera.slot, camera.removed);
        if !std::mem::replace(&mut camera.end_told, true) {
            let at_us = if camera.last_end_us > 0 { camera.last_end_us } else { wall_us };
            camera.memory = None;
            let camera = camera.config.name.clone();
            self.ledger.push(Record { camera, what: RecordKind::Ended { at_us } });
        }
        if removed {
            self.cameras.remove(&id);
            self.remove_worker(slot);
        }
    }

    /// Begins to stop: capture first, then what is being scored, then what is being stored.
    pub fn stop(&mut self, now: Time, wall_us: i64) -> Vec<Action> {
        self.advance(now, wall_us);
        if self.stopping.is_none() {
            self.log(Level::Info, "stopping".into());
            self.stopping = Some(Stopping { since: now, step: Step::Capture, step_since: now });
            self.dismiss_role(Role::Capture);
            // Nobody waits for the page, nor for pictures.
            self.dismiss_role(Role::Web);
            self.dismiss_role(Role::Light);
        }
        self.settle()
    }

    pub(super) fn stop_deadline(&self) -> Option<Time> {
        let stop = self.stopping?;
        match stop.step {
            Step::Killing => Some(stop.step_since + KILL_LIMIT),
            Step::Capture | Step::Infer => Some(stop.step_since + FINISH_LIMIT),
            Step::Sink => Some(stop.since + STOP_LIMIT),
        }
    }

    fn dismiss_role(&mut self, role: Role) {
        let slots: Vec<u32> =
            self.workers.iter().filter(|(_, w)| w.role == role).map(|(slot, _)| *slot).collect();
        slots.into_iter().for_each(|slot| self.dismiss(slot));
    }

    fn any_alive(&self, role: Role) -> bool {
        self.workers.values().any(|w| w.role == role && w.is_alive())
    }

    /// One step further in the stop, as soon as the present one is done or has taken too long.
    pub(super) fn progress_stop(&mut self) {
        let Some(stop) = self.stopping else { return };
        let now = self.now;
        let step_over = now.since(stop.step_since) >= FINISH_LIMIT;
        let next = match stop.step {
            Step::Capture => {
                let scored = self.cameras.values().all(Camera::is_idle);
                (step_over || (!self.any_alive(Role::Capture) && scored)).then_some(Step::Infer)
            }
            Step::Infer => (step_over
                || (!self.any_alive(Role::Infer) && (self.ledger.is_empty() || !self.sink_runs())))
            .then_some(Step::Sink),
            Step::Sink => (now.since(stop.since) >= STOP_LIMIT).then_some(Step::Killing),
            Step::Killing => None,
        };
        if let Some(step) = next {
            self.stopping = Some(Stopping { since: stop.since, step, step_since: now });
            match step {
                Step::Infer => self.dismiss_role(Role::Infer),
                Step::Sink => self.dismiss_role(Role::Sink),
                Step::Killing => self.kill_all(),
                Step::Capture => {}
            }
            return self.progress_stop();
        }
        let late = stop.step >= Step::Sink;
        let given_up = stop.step == Step::Killing && now.since(stop.step_since) >= KILL_LIMIT;
        let nobody = !self.workers.values().any(super::Worker::is_alive);
        if late && (nobody || given_up) && !std::mem::replace(&mut self.finished, true) {
            if !self.ledger.is_empty() {
                self.log(Level::Warn, "stopped before everything was stored".into());
            }
            self.actions.push(Action::Finished);
        }
    }

    fn sink_runs(&self) -> bool {
        self.workers.get(&self.sink).is_some_and(super::Worker::is_alive)
    }

    fn kill_all(&mut self) {
        let slots: Vec<u32> = self.workers.keys().copied().collect();
        slots.into_iter().for_each(|slot| self.kill(slot, "still running at the end of the stop".into()));
    }
}
