//! Another configuration: what is different is applied, and workers whose part of it did not change are not touched.

use nursery_shared::{
    changes::Changes,
    config::{AlertReach, CameraConfig, Config},
    control::PoolSize,
    message::{ModelShape, ToWorker},
};

use super::{Action, Level, Policy, Time, worker::State};

impl Policy {
    /// Goes over to another configuration. `model` is what its model file holds, where somebody has looked; without,
    /// the model stays. Where it cannot be taken up nothing changes.
    pub fn reload(
        &mut self,
        now: Time,
        wall_us: i64,
        config: Config,
        model: Option<ModelShape>,
    ) -> (Result<Changes, String>, Vec<Action>) {
        self.advance(now, wall_us);
        if self.stopping.is_some() {
            return (Err("the service is stopping".into()), self.settle());
        }
        let refused = model.as_ref().map_or(Ok(()), |shape| self.fits(shape));
        if let Err(why) = refused {
            return (Err(format!("inference.model: {why}")), self.settle());
        }
        let mut changes = Changes::between(&self.config, &config);
        let old_pool = (self.pool_setting(), self.pool_target());
        let present: Vec<(u32, String)> = self
            .cameras
            .iter()
            .filter(|(_, c)| !c.removed)
            .map(|(id, c)| (*id, c.config.name.clone()))
            .collect();
        for (id, name) in &present {
            match config.cameras.iter().find(|c| c.name == *name) {
                None => self.remove_camera(*id),
                Some(new) if self.change_camera(*id, new) => {
                    changes.restarted.push(format!("capture:{name}"))
                }
                Some(_) => {}
            }
        }
        let remembered = self.remember_s();
        let old = std::mem::replace(&mut self.config, config);
        for camera in self.config.cameras.clone() {
            if !present.iter().any(|(_, name)| *name == camera.name) {
                self.add_camera(camera);
            }
        }
        if old_pool.0 != PoolSize::Auto {
            self.follow_from(old_pool.1);
        }
        self.reload_pool(&old, old_pool.1, model, &mut changes);
        self.reload_sink(&old, &mut changes);
        self.reload_clips(remembered);
        if self.reload_web(&old) {
            changes.restarted.push("web".into());
        }
        self.reload_light(&old);
        if old.supervision.worker_memory_mb != self.config.supervision.worker_memory_mb {
            changes.notes.push(
                "supervision.worker_memory_mb holds for processes that start from now on (nursery restart all)"
                    .into(),
            );
        }
        self.log(Level::Info, changes.to_string());
        (Ok(changes), self.settle())
    }

    /// The same configuration, but its model file holds another model now.
    pub fn replace_model(
        &mut self,
        now: Time,
        wall_us: i64,
        shape: ModelShape,
    ) -> (Result<String, String>, Vec<Action>) {
        self.advance(now, wall_us);
        if self.stopping.is_some() {
            return (Err("the service is stopping".into()), self.settle());
        }
        let id = super::presentable(&shape.id);
        let path = self.config.inference.model.clone();
        let result = match self.take_up(path, shape) {
            Ok(true) => Ok(format!("inference: going over to model {id}, with new processes")),
            Ok(false) => {
                self.renew_all();
                Ok("inference: new processes, one after another".to_owned())
            }
            Err(why) => Err(format!("inference.model: {why}")),
        };
        if let Ok(text) = &result {
            self.log(Level::Info, text.clone());
        }
        (result, self.settle())
    }

    fn reload_pool(&mut self, old: &Config, old_pool: u32, model: Option<ModelShape>, changes: &mut Changes) {
        let mut renewed = false;
        if let Some(shape) = model {
            let id = super::presentable(&shape.id);
            // That it fits was seen above.
            renewed = matches!(self.take_up(self.config.inference.model.clone(), shape), Ok(true));
            changes.model = renewed.then_some(id);
        }
        if old.inference.threads != self.config.inference.threads {
            self.renew_all();
            renewed = true;
        }
        if renewed {
            changes.restarted.extend(self.members().map(|(_, w)| w.name.clone()));
        }
        self.resize_pool();
        let (new, was) = (&self.config.inference, &old.inference);
        if new.workers != was.workers && self.pool_override.is_some() {
            changes.notes.push(format!(
                "inference.workers is not in force: `nursery scale` or --inference-workers goes before it ({old_pool} \
                 processes)"
            ));
        }
    }

    fn reload_sink(&mut self, old: &Config, changes: &mut Changes) {
        let reach = |c: &Config| AlertReach::of(&c.alerts, c.heartbeat.as_ref());
        if reach(old) != reach(&self.config) {
            // Its cage is put up at the start, for the receivers of that time.
            self.sink_outdated = true;
            // One that waits for its next start waits on, and is caged for the new ones then.
            self.drain(self.sink);
            changes.restarted.push("sink".into());
        } else if self.workers.get(&self.sink).is_some_and(|w| w.state == State::Running) {
            self.send(self.sink, ToWorker::ConfigureSink(self.sink_config()));
        } else {
            // One that has said hello but is not ready yet was told the old one.
            self.sink_outdated = true;
        }
    }

    /// Takes over a camera's new configuration; true where its capture process must start anew for it.
    fn change_camera(&mut self, id: u32, new: &CameraConfig) -> bool {
        let Some(camera) = self.cameras.get_mut(&id) else { return false };
        if camera.config == *new {
            return false;
        }
        // What counts as an event is the sink's business alone, and pictures are those of who makes them.
        let CameraConfig { threshold, sustained_s, pictures, motion, .. } = camera.config;
        let same_stream =
            CameraConfig { threshold, sustained_s, pictures, motion, ..new.clone() } == camera.config;
        if same_stream {
            camera.config = new.clone();
            return false;
        }
        let slot = camera.slot;
        let generation = self.workers.get(&slot).map_or(0, |w| w.generation);
        camera.reconfigure(new.clone(), generation);
        self.restart_slot(slot);
        true
    }
}
