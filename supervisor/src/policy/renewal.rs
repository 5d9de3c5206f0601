//! New processes for the pool, without a moment in which nobody scores: a stand-in is ready before the first old process
//! is told to go, then one after another is replaced in its place. Another model is tried by as many stand-ins as the
//! pool has processes, and takes over when all of them are ready; where they do not come up, everything stays as it was.

use std::sync::Arc;

use nursery_shared::{
    message::{MAX_SCORES, ModelShape, Role},
    model_state::MAX_STATE,
};

use super::{
    Key, Level, Policy, presentable,
    worker::{State, Worker},
};

/// Stand-ins that may die before they were ready; then everything stays as it was.
const MAX_FAILURES: u32 = 3;

/// A model and where it is read from.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// `None`: the one inside `nursery-worker`.
    pub path: Option<String>,
    pub shape: Arc<ModelShape>,
}

impl Model {
    /// Its name is shown to people, whoever gave it.
    pub(super) fn new(path: Option<String>, mut shape: ModelShape) -> Self {
        shape.id = presentable(&shape.id);
        Self { path, shape: Arc::new(shape) }
    }
}

/// A renewal of the pool that is under way.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// The model that is tried; it is `Policy::model` once it has taken over.
    trial: Option<Model>,
    /// Stand-ins that died before they were ready, and how the last one did.
    failures: u32,
    last_failure: String,
}

impl Renewal {
    /// A worker did not come up in the course of this.
    pub(super) fn failed(&mut self, how: &str) {
        self.failures += 1;
        how.clone_into(&mut self.last_failure);
    }
}

/// A process in service that was started before the pool was to be renewed.
fn is_old(worker: &Worker, edition: u32) -> bool {
    worker.role == Role::Infer
        && worker.wanted
        && worker.edition < edition
        // One that is dead or on its way out comes back as a new one.
        && matches!(worker.state, State::Starting | State::Running)
}

impl Policy {
    /// The model that scores.
    pub fn model(&self) -> &ModelShape {
        &self.model.shape
    }

    /// Where it is read from; `None`: from `nursery-worker`.
    pub fn model_file(&self) -> Option<&str> {
        self.model.path.as_deref()
    }

    /// The model that is tried at present.
    pub(super) fn model_on_trial(&self) -> Option<&Model> {
        self.renewal.as_ref()?.trial.as_ref()
    }

    /// The model that a process which starts now is to load.
    pub(super) fn model_for(&self, worker: &Worker) -> &Model {
        self.model_on_trial().filter(|_| worker.stand_in).unwrap_or(&self.model)
    }

    /// Whether windows can be scored by this one as they are cut now; the error says what differs.
    pub(super) fn fits(&self, new: &ModelShape) -> Result<(), String> {
        let now = &self.model.shape;
        if (new.window, new.hop) != (now.window, now.hop) {
            return Err(format!(
                "model {} takes windows of {} samples every {}, the one in use {} every {}: restart the service for it",
                presentable(&new.id),
                new.window,
                new.hop,
                now.window,
                now.hop
            ));
        }
        let impossible = new.frame_step == 0
            || new.scores_per_window() > MAX_SCORES
            || new.state_bytes as usize > MAX_STATE;
        if impossible {
            return Err(format!("model {} has impossible scores or states", presentable(&new.id)));
        }
        Ok(())
    }

    /// Has the pool go over to another model, or to another file of the same. Refused where windows do not fit.
    pub(super) fn take_up(&mut self, path: Option<String>, shape: ModelShape) -> Result<bool, String> {
        self.fits(&shape)?;
        self.model_refused = None;
        let model = Model::new(path, shape);
        if model.shape.id == self.model.shape.id {
            self.model = model;
            if self.renewal.as_mut().and_then(|r| r.trial.take()).is_some() {
                self.outdate_stand_ins();
            }
            return Ok(false);
        }
        if self.model_on_trial().is_some_and(|t| t.shape.id == model.shape.id && t.path == model.path) {
            return Ok(true);
        }
        self.outdate_stand_ins();
        self.renewal = Some(Renewal { trial: Some(model), ..Renewal::default() });
        Ok(true)
    }

    /// Those that are there were started for something else.
    fn outdate_stand_ins(&mut self) {
        self.workers.values_mut().filter(|w| w.stand_in).for_each(|w| w.edition = 0);
    }

    /// All processes of the pool are to be replaced, one after another.
    pub(super) fn renew_all(&mut self) {
        self.edition += 1;
    }

    /// The same for one of them.
    pub(super) fn renew_one(&mut self, slot: u32) {
        if let Some(worker) = self.workers.get_mut(&slot).filter(|w| w.role == Role::Infer) {
            worker.edition = 0;
        }
    }

    /// What an inference process has loaded.
    pub(super) fn on_loaded(&mut self, key: Key, mut shape: ModelShape) -> Result<(), String> {
        let Some(worker) = self.workers.get(&key.slot) else { return Ok(()) };
        match worker.state {
            State::Starting if worker.loaded.is_none() => {}
            State::Stopping => return Ok(()),
            _ => return Err("told of its model twice, or too late".into()),
        }
        shape.id = presentable(&shape.id);
        self.fits(&shape)?;
        let (name, stand_in) = (worker.name.clone(), worker.stand_in);
        let expected = worker.assigned.clone().unwrap_or_else(|| Arc::clone(&self.model.shape));
        let same = shape.id == expected.id;
        if !same && stand_in {
            return Err(format!(
                "loaded model {} instead of {}: its file was replaced meanwhile",
                shape.id, expected.id
            ));
        }
        if !same {
            let text = format!(
                "{name}: the model's file was replaced: it has loaded {} instead of {} (`nursery reload` takes it up \
                 everywhere)",
                shape.id, expected.id
            );
            self.log(Level::Warn, text);
        }
        let shape = if same && shape == *expected { expected } else { Arc::new(shape) };
        if let Some(worker) = self.workers.get_mut(&key.slot) {
            worker.loaded = Some(shape);
        }
        Ok(())
    }

    /// The slots whose processes are given windows: those that have loaded the model in use, or, where none of them
    /// runs, whoever does.
    pub(super) fn serving(&self) -> Vec<u32> {
        let running = || self.judges().filter(|(_, w)| w.state == State::Running);
        let right = |w: &Worker| w.loaded.as_ref().is_some_and(|m| m.id == self.model.shape.id);
        let serving: Vec<u32> = running().filter(|(_, w)| right(w)).map(|(slot, _)| slot).collect();
        if serving.is_empty() { running().map(|(slot, _)| slot).collect() } else { serving }
    }

    /// One step further in a renewal, as soon as the present one is done.
    pub(super) fn renew(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let edition = self.edition;
        if self.renewal.is_none() {
            if !self.members().any(|(_, w)| is_old(w, edition)) {
                return self.dismiss_stand_ins(|_| true);
            }
            self.renewal = Some(Renewal::default());
        }
        if self.renewal.as_ref().is_some_and(|r| r.failures >= MAX_FAILURES) {
            return self.give_up_renewal();
        }
        // Settings, or the model, have changed since they were started.
        self.dismiss_stand_ins(|w| is_old(w, edition));
        if self.model_on_trial().is_some() {
            let needed = self.members().count().max(1);
            if !self.stand_ins_are_ready(needed) {
                return;
            }
            self.take_over();
        }
        self.replace_members();
    }

    fn stand_ins(&self) -> impl Iterator<Item = (u32, &Worker)> {
        self.judges().filter(|(_, w)| w.wanted && w.stand_in)
    }

    /// The processes that make up the pool, whatever state they are in.
    pub(super) fn members(&self) -> impl Iterator<Item = (u32, &Worker)> {
        self.judges().filter(|(_, w)| w.wanted && !w.stand_in)
    }

    /// Sends some stand-ins away, but nobody without whom there would be nobody: such a one goes later.
    fn dismiss_stand_ins(&mut self, which: impl Fn(&Worker) -> bool) {
        let slots: Vec<u32> = self.stand_ins().filter(|(_, w)| which(w)).map(|(slot, _)| slot).collect();
        for slot in slots {
            let runs = |w: &Worker| w.role == Role::Infer && w.state == State::Running;
            let covered = self.workers.iter().any(|(other, w)| *other != slot && runs(w));
            if covered || !self.workers.get(&slot).is_some_and(runs) {
                self.dismiss(slot);
            }
        }
    }

    /// So many stand-ins run; otherwise sees to it that they will, one after another.
    fn stand_ins_are_ready(&mut self, needed: usize) -> bool {
        let edition = self.edition;
        let fresh = || self.stand_ins().filter(|(_, w)| !is_old(w, edition));
        let running = fresh().filter(|(_, w)| w.state == State::Running).count();
        if running >= needed {
            return true;
        }
        if running == fresh().count() {
            let free = |n: &u32| !self.workers.values().any(|w| w.name == format!("infer:stand-in-{n}"));
            let n = (0..).find(free).unwrap_or_default();
            let slot = self.add_worker(format!("infer:stand-in-{n}"), Role::Infer, None);
            if let Some(worker) = self.workers.get_mut(&slot) {
                worker.stand_in = true;
                worker.edition = edition;
            }
        }
        false
    }

    /// The model on trial is the one in use from now on. What the other one remembers of streams is of no use to it.
    fn take_over(&mut self) {
        let Some(model) = self.renewal.as_mut().and_then(|r| r.trial.take()) else { return };
        let old = std::mem::replace(&mut self.model, model);
        self.edition += 1;
        let edition = self.edition;
        let stand_ins = self.workers.values_mut().filter(|w| w.stand_in);
        stand_ins.for_each(|w| w.edition = edition);
        let text = format!("inference: model {} takes over from {}", self.model.shape.id, old.shape.id);
        self.log(Level::Info, text);
    }

    /// Tells the next old process to go, if everybody who was told before is back.
    fn replace_members(&mut self) {
        let edition = self.edition;
        let old = self.members().find(|(_, w)| is_old(w, edition)).map(|(slot, _)| slot);
        let under_way = self.members().any(|(_, w)| w.renewing);
        match old {
            None if under_way || !self.members().any(|(_, w)| w.state == State::Running) => {}
            None => {
                self.end_renewal();
                self.log(Level::Info, "inference pool: all processes are new".into());
            }
            Some(slot) => {
                if self.stand_ins_are_ready(1) && !under_way {
                    self.drain(slot);
                    if let Some(worker) = self.workers.get_mut(&slot) {
                        worker.renewing = true;
                    }
                }
            }
        }
    }

    fn end_renewal(&mut self) {
        self.renewal = None;
        self.dismiss_stand_ins(|_| true);
    }

    fn give_up_renewal(&mut self) {
        let Some(renewal) = self.renewal.take() else { return };
        self.end_renewal();
        let why = renewal.last_failure;
        let edition = self.edition;
        self.workers.values_mut().for_each(|w| w.edition = edition);
        match renewal.trial {
            Some(model) => {
                let place = model.path.map_or_else(String::new, |p| format!(" of {p}"));
                let reason = format!("model {}{place}: its processes do not come up ({why})", model.shape.id);
                let text = format!("inference.model: {reason}; {} goes on scoring", self.model.shape.id);
                self.log(Level::Error, text);
                self.model_refused = Some(reason);
            }
            None => self.log(
                Level::Error,
                format!("inference pool: new processes do not come up ({why}); the old ones go on scoring"),
            ),
        }
    }
}
