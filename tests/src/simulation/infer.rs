//! Simulated inference processes: a batch in, scores out, late, twice, wrong or never.

use std::{collections::VecDeque, rc::Rc, time::Duration};

use nursery_shared::message::{FromWorker, Role, WindowJob, WindowScores};
use nursery_supervisor::policy::{Exit, Key};

use super::{
    faults::Fault,
    models::Model,
    process::{Act, Body},
    truth::{number_in, state_after},
    world::{Due, World},
};

/// A score that no model gives: that of an answer which must be refused.
pub const WRONG: f32 = 7.0;

/// The working state of an inference process.
#[derive(Default)]
pub struct Infer {
    /// The one that it scores first.
    batches: VecDeque<(u64, Vec<WindowJob>)>,
    /// What it was told to load.
    pub model: Model,
}

impl Infer {
    /// It has a batch in hand.
    pub fn is_busy(&self) -> bool {
        !self.batches.is_empty()
    }
}

impl World {
    fn infer(&mut self, key: Key) -> Option<&mut Infer> {
        match &mut self.working(key)?.body {
            Body::Infer(infer) => Some(infer),
            _ => None,
        }
    }

    pub(super) fn take_batch(&mut self, key: Key, batch: u64, windows: Vec<WindowJob>) {
        let bytes = self.infer(key).map_or(0, |infer| infer.model.state());
        if let Some(job) = windows.iter().find(|w| !w.state.is_fresh() && w.state.as_bytes().len() != bytes) {
            let text =
                format!("window {} comes with the state of another model", number_in(job.pcm.as_bytes()));
            return self.violated(text);
        }
        let Some(infer) = self.infer(key) else { return };
        infer.batches.push_back((batch, windows));
        if infer.batches.len() == 1 {
            self.begin_batch(key);
        }
    }

    fn begin_batch(&mut self, key: Key) {
        let Some((batch, windows)) = self.infer(key).and_then(|i| i.batches.front()) else { return };
        let (batch, numbers) =
            (*batch, windows.iter().map(|w| number_in(w.pcm.as_bytes())).collect::<Vec<_>>());
        let deadly = numbers.into_iter().any(|number| self.is_deadly(number));
        let Some(process) = self.working(key) else { return };
        let name = Rc::clone(&process.name);
        let mut delay = self.millis_of(&name, 3..20);
        if deadly {
            self.fault(Fault::DeadlyWindow, &name);
            self.plan(delay, Due::Act(key, Act::End(Exit::Signal(11))));
            return;
        }
        if self.befalls(&name, Role::Infer, 0.02) {
            self.fault(Fault::Dies, &name);
            self.plan(delay, Due::Act(key, Act::End(Exit::Signal(9))));
            return;
        }
        if self.befalls(&name, Role::Infer, 0.005) {
            self.fault(Fault::HangsWithWork, &name);
            self.hang(key, Duration::from_secs(4));
            return;
        }
        if self.befalls(&name, Role::Infer, 0.1) {
            self.fault(Fault::AnswersLate, &name);
            delay += self.millis_of(&name, 30..1_200);
        }
        self.plan(delay, Due::Act(key, Act::Scores { batch }));
    }

    /// One of about a thousand windows kills whoever scores it, while things go wrong.
    fn is_deadly(&self, number: u64) -> bool {
        let hash = (number ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        !self.calm && self.intensity.infer > 0.0 && !self.options.isolation && hash.is_multiple_of(700)
    }

    pub(super) fn finish_batch(&mut self, key: Key, batch: u64) {
        let done = self.infer(key).and_then(|i| i.batches.pop_front_if(|(held, _)| *held == batch));
        let Some((batch, jobs)) = done else { return };
        let Some(name) = self.working(key).map(|p| Rc::clone(&p.name)) else { return };
        let bytes = self.infer(key).map_or(0, |infer| infer.model.state());
        let score = |job: &WindowJob| {
            let p = if job.pcm.as_bytes().get(8) == Some(&1) { 0.97 } else { 0.01 };
            let state = state_after(number_in(job.pcm.as_bytes()), bytes);
            WindowScores { id: job.id, scores: vec![p; 2], state }
        };
        let mut windows: Vec<WindowScores> = jobs.iter().map(score).collect();
        if self.befalls(&name, Role::Infer, 0.015) {
            self.fault(Fault::AnswersWrongly, &name);
            self.blame(key);
            windows.iter_mut().for_each(|w| w.scores = vec![WRONG; 2]);
            match self.stream(&name).u8(..4) {
                0 => windows.iter_mut().for_each(|w| w.id += 1),
                1 => windows.clear(),
                2 => windows.iter_mut().for_each(|w| w.scores = vec![f32::NAN]),
                _ => windows.iter_mut().for_each(|w| w.state = state_after(1, 3)),
            }
            return self.say(key, FromWorker::Scores { batch, windows });
        }
        self.say(key, FromWorker::Scores { batch, windows: windows.clone() });
        if self.befalls(&name, Role::Infer, 0.015) {
            self.fault(Fault::AnswersTwice, &name);
            self.blame(key);
            self.say(key, FromWorker::Scores { batch, windows });
        }
        self.begin_batch(key);
        self.may_leave(key);
    }
}
