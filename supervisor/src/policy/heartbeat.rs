//! The dead man's switch: every minute in which every camera is heard and scored, the sink is told to say so to
//! whoever waits for it.

use std::time::Duration;

use nursery_shared::message::{StreamState, ToWorker};

use super::{Policy, Time, worker::State};

/// Between two calls.
const INTERVAL: Duration = Duration::from_secs(60);
/// How soon it is looked again where something did not listen.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest time without a scored window: cameras send four a second.
const SCORED: Duration = Duration::from_secs(10);

/// When the next call is due, and what it depends on.
#[derive(Debug)]
pub(super) struct Heartbeat {
    due: Time,
    /// When scores of a window came last.
    pub scored_at: Option<Time>,
}

impl Heartbeat {
    pub(super) fn new(now: Time) -> Self {
        Self { due: now, scored_at: None }
    }
}

impl Policy {
    pub(super) fn heartbeat_deadline(&self) -> Option<Time> {
        (self.config.heartbeat.is_some() && self.stopping.is_none()).then_some(self.heartbeat.due)
    }

    /// Tells the sink that everything listens, if it is time for it and true.
    pub(super) fn beat(&mut self) {
        let now = self.now;
        if self.heartbeat_deadline().is_none_or(|due| due > now) {
            return;
        }
        if self.everything_listens() {
            self.send(self.sink, ToWorker::Heartbeat);
            self.heartbeat.due = now + INTERVAL;
        } else {
            self.heartbeat.due = now + AGAIN;
        }
    }

    /// Every camera is heard (recordings that have ended do not count, but there must be others), windows are scored,
    /// and scores are taken in by the sink.
    fn everything_listens(&self) -> bool {
        let mut expected =
            self.cameras.values().filter(|c| !c.removed && c.stream != StreamState::Ended).peekable();
        let sink_runs = self.workers.get(&self.sink).is_some_and(|w| w.state == State::Running);
        let scores = self.heartbeat.scored_at.is_some_and(|t| self.now.since(t) <= SCORED);
        let limit = Duration::from_secs_f64(self.config.detection.offline_after_s);
        let heard = |t: Option<Time>| t.is_some_and(|t| self.now.since(t) <= limit);
        expected.peek().is_some()
            && sink_runs
            && scores
            && !self.ledger.is_full()
            && expected.all(|c| c.told_online == Some(true) && heard(c.last_audio))
    }
}
