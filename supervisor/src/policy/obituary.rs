//! The end of workers that hang or die by themselves: a worker that hangs is looked into before it is killed, and
//! every death that nobody asked for leaves a post-mortem.

use std::time::Duration;

use nursery_shared::{
    VERSION,
    postmortem::{self, OwedWindow, PostMortem, Resources},
    timestamp,
};

use super::{
    Action, Exit, Key, Level, Policy,
    worker::{EXAMINATION_LIMIT, State},
};

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

impl Policy {
    /// A worker hangs: it is looked into and then killed. It counts as stopping meanwhile, so it is given nothing.
    pub(super) fn examine(&mut self, slot: u32, reason: String) {
        if self.stopping.is_some() {
            // Whoever stops the service waits for this.
            return self.kill(slot, reason);
        }
        let until = self.now + EXAMINATION_LIMIT;
        let Some(worker) = self.workers.get_mut(&slot).filter(|w| w.is_alive()) else { return };
        let text = format!("{}: {reason}: looked into, then killed", worker.name);
        worker.kill_reason = Some(reason);
        worker.state = State::Stopping;
        worker.stop_deadline = None;
        worker.examined_until = Some(until);
        let key = Key { slot, generation: worker.generation };
        self.actions.push(Action::Examine { key });
        self.log(Level::Warn, text);
    }

    pub(super) fn on_examined(&mut self, key: Key) {
        if self.current(key).is_some() {
            self.finish_examination(key.slot);
        }
    }

    /// Kills a worker that was looked into; does nothing for one that was not, or is killed already.
    pub(super) fn finish_examination(&mut self, slot: u32) {
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        if worker.examined_until.take().is_some() {
            let key = Key { slot, generation: worker.generation };
            self.actions.push(Action::Kill { key });
        }
    }

    /// The time of a worker that stops is over.
    pub(super) fn overdue_in_stopping(&mut self, slot: u32) {
        match self.workers.get(&slot) {
            Some(worker) if worker.examined_until.is_some() => self.finish_examination(slot),
            _ => self.examine(slot, "did not stop in time".into()),
        }
    }

    /// Has the post-mortem of a process written, unless it ended as it was asked to. To be called while its slot
    /// still shows how it was; returns the name that it is found under.
    pub(super) fn post_mortem(&mut self, slot: u32, how: &str, exit: Exit) -> Option<String> {
        let (now, wall_us) = (self.now, self.wall_us);
        let worker = self.workers.get(&slot)?;
        let told_to_stop = worker.state == State::Stopping && worker.stop_deadline.is_some();
        let as_asked = exit == Exit::Code(0) && how == "exit status 0" && (told_to_stop || worker.ended);
        if as_asked || self.stopping.is_some() {
            return None;
        }
        let id = postmortem::id(wall_us, worker.role, self.next_death);
        self.next_death = self.next_death.wrapping_add(1);
        let name_of = |camera: u32| {
            self.cameras.get(&camera).map_or_else(|| "(removed)".to_owned(), |c| c.config.name.clone())
        };
        let owed = worker.batches.iter().flat_map(|batch| &batch.windows).map(|(camera, pending)| {
            OwedWindow { window: pending.id, camera: name_of(*camera), deaths: pending.deaths.len() as u8 }
        });
        let post_mortem = PostMortem {
            id: id.clone(),
            time: timestamp::rfc3339(wall_us),
            version: VERSION.to_owned(),
            worker: worker.name.clone(),
            role: worker.role,
            camera: worker.camera.map(name_of),
            pid: worker.pid,
            reason: how.to_owned(),
            exit_status: match exit {
                Exit::Code(code) => Some(code),
                Exit::Signal(_) => None,
            },
            signal: match exit {
                Exit::Code(_) => None,
                Exit::Signal(signal) => Some(signal),
            },
            signal_name: None,
            uptime_s: seconds(now.since(worker.spawned_at)),
            restarts: worker.restarts,
            progress: worker.progress,
            silent_s: seconds(now.since(worker.heard_at)),
            owed: owed.collect(),
            resources: Resources::default(),
            log: Vec::new(),
            threads: Vec::new(),
            notes: Vec::new(),
        };
        let key = Key { slot, generation: worker.generation };
        self.actions.push(Action::PostMortem { key, post_mortem: Box::new(post_mortem) });
        Some(id)
    }
}
