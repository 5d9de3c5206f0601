//! What role `web` is told, none of which anybody waits for: the state when it asks, not too often; that an event was
//! stored; and the sink's answers to its questions, one at a time.

use std::time::Duration;

use nursery_shared::{
    history::{Answer, Question},
    message::{Role, ToWorker},
};

use super::{Action, Config, Key, Policy, Time, worker::State};

/// Shortest time between two looks at the state, and what each worker adds to it: looking asks the kernel about all of
/// them.
const LOOKS: Duration = Duration::from_millis(250);
const LOOKS_PER_WORKER: Duration = Duration::from_millis(1);
/// Shortest time between two questions to the sink, which has alerts to store.
const QUESTIONS: Duration = Duration::from_millis(20);

/// What `web` is owed.
#[derive(Debug, Default)]
pub(super) struct Web {
    slot: Option<u32>,
    /// It wants to see the state.
    wants_status: bool,
    shown_at: Option<Time>,
    /// A question that waits for its turn, with the number that `web` gave it.
    waiting: Option<(u64, Question)>,
    /// The question that the sink has: our number, and that of `web`.
    asked: Option<(u64, u64)>,
    asked_at: Option<Time>,
    /// Of the next question to the sink; each has another.
    next_number: u64,
}

impl Policy {
    /// Has `web` run where it is configured.
    pub(super) fn begin_web(&mut self) {
        if self.config.web.is_some() && self.web.slot.is_none() {
            self.web.slot = Some(self.add_worker("web".into(), Role::Web, None));
        }
    }

    /// Goes over to another configuration; true where a process that is there starts anew for it.
    pub(super) fn reload_web(&mut self, old: &Config) -> bool {
        if old.web == self.config.web {
            return false;
        }
        match (self.web.slot, &self.config.web) {
            (Some(slot), Some(_)) => {
                self.restart_slot(slot);
                true
            }
            (Some(slot), None) => {
                self.dismiss(slot);
                self.web = Web { next_number: self.web.next_number, ..Web::default() };
                false
            }
            (None, _) => {
                self.begin_web();
                false
            }
        }
    }

    pub(super) fn web_configuration(&self) -> Option<ToWorker> {
        self.config.web.clone().map(ToWorker::ConfigureWeb)
    }

    pub(super) fn runs(&self, slot: u32) -> bool {
        self.workers.get(&slot).is_some_and(|w| w.state == State::Running)
    }

    pub(super) fn tell_web(&mut self, message: ToWorker) {
        if let Some(slot) = self.web.slot.filter(|slot| self.runs(*slot)) {
            self.send(slot, message);
        }
    }

    /// An event was stored.
    pub(super) fn tell_web_of_event(&mut self) {
        self.tell_web(ToWorker::Stored);
    }

    pub(super) fn on_want_status(&mut self, slot: u32) {
        self.web.wants_status |= self.web.slot == Some(slot);
    }

    pub(super) fn on_question(&mut self, slot: u32, ticket: u64, question: Question) -> Result<(), String> {
        if !question.is_sound() {
            return Err("asked the store in a way that nobody answers".into());
        }
        if self.web.slot == Some(slot) {
            self.web.waiting = Some((ticket, question));
        }
        Ok(())
    }

    pub(super) fn on_history(&mut self, number: u64, answer: Answer) -> Result<(), String> {
        match self.web.asked.take_if(|(asked, _)| *asked == number) {
            Some((_, ticket)) => self.tell_web(ToWorker::History { ticket, answer }),
            // Whoever asked is gone.
            None if number < self.web.next_number => {}
            None => return Err(format!("answered question {number}, which it was never asked")),
        }
        Ok(())
    }

    /// A process of `web` is gone: what it was owed is owed to nobody.
    pub(super) fn web_lost(&mut self, slot: u32) {
        if self.web.slot == Some(slot) {
            self.web.wants_status = false;
            self.web.waiting = None;
            self.web.asked = None;
        }
    }

    /// The sink is gone, with the question that it had.
    pub(super) fn question_lost(&mut self) {
        if let Some((_, ticket)) = self.web.asked.take() {
            self.refuse_question(ticket);
        }
    }

    fn refuse_question(&mut self, ticket: u64) {
        let answer = Answer::failed("the store is not within reach at the moment");
        self.tell_web(ToWorker::History { ticket, answer });
    }

    fn next_look(&self) -> Option<Time> {
        let pause = LOOKS + LOOKS_PER_WORKER * self.workers.len() as u32;
        self.web.wants_status.then(|| self.web.shown_at.map_or(self.now, |t| t + pause))
    }

    fn next_question(&self) -> Option<Time> {
        let free = self.web.waiting.is_some() && self.web.asked.is_none();
        free.then(|| self.web.asked_at.map_or(self.now, |t| t + QUESTIONS))
    }

    /// When there is something to tell `web`, or to ask for it.
    pub(super) fn web_deadline(&self) -> Option<Time> {
        self.next_look().into_iter().chain(self.next_question()).min()
    }

    /// Whatever is due.
    pub(super) fn serve_web(&mut self) {
        let now = self.now;
        let Some(slot) = self.web.slot else { return };
        if self.next_look().is_some_and(|due| due <= now) {
            self.web.wants_status = false;
            self.web.shown_at = Some(now);
            if let Some(worker) = self.workers.get(&slot).filter(|w| w.state == State::Running) {
                let key = Key { slot, generation: worker.generation };
                self.actions.push(Action::ShowStatus { key });
            }
        }
        if self.next_question().is_some_and(|due| due <= now)
            && let Some((ticket, question)) = self.web.waiting.take()
        {
            if !self.runs(self.sink) {
                return self.refuse_question(ticket);
            }
            let number = self.web.next_number;
            self.web.next_number += 1;
            self.web.asked = Some((number, ticket));
            self.web.asked_at = Some(now);
            self.send(self.sink, ToWorker::Question { number, question });
        }
    }
}
