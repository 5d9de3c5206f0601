//! Restarts of many capture processes, a few at a time, so that not all cameras are deaf at once.

use std::{collections::VecDeque, time::Duration};

use nursery_shared::message::StreamState;

use super::{Policy, Time, worker::State};

/// Of so many cameras one is deaf at a time.
const SHARE: usize = 8;
/// A camera that does not come back within this is not waited for: its trouble is its own.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is restarted, and who will be.
#[derive(Debug, Default)]
pub(super) struct Stagger {
    /// Slots, and the process in each that is to be replaced.
    waiting: VecDeque<(u32, u32)>,
    /// Slots, the process that was told to go, and when.
    under_way: Vec<(u32, u32, Time)>,
    /// How many at a time.
    width: usize,
}

impl Policy {
    /// Restarts these capture processes; whoever is there already is not restarted twice.
    pub(super) fn restart_in_turns(&mut self, slots: &[u32]) {
        for slot in slots {
            let generation = self.workers.get(slot).map_or(0, |w| w.generation);
            if !self.stagger.waiting.iter().any(|(waiting, _)| waiting == slot) {
                self.stagger.waiting.push_back((*slot, generation));
            }
        }
        self.stagger.width = self.stagger.waiting.len().div_ceil(SHARE).max(1);
    }

    pub(super) fn stagger_deadline(&self) -> Option<Time> {
        self.stagger.under_way.iter().map(|(_, _, since)| *since + PATIENCE).min()
    }

    /// Tells the next ones to go, as soon as others are heard again.
    pub(super) fn restart_next(&mut self) {
        let now = self.now;
        let mut under_way = std::mem::take(&mut self.stagger.under_way);
        under_way.retain(|(slot, generation, since)| {
            now.since(*since) < PATIENCE && self.is_away(*slot, *generation)
        });
        while under_way.len() < self.stagger.width
            && let Some((slot, generation)) = self.stagger.waiting.pop_front()
        {
            // One that died meanwhile is a new one, or waits to be.
            let is_the_old = self.workers.get(&slot).is_some_and(|w| {
                w.wanted && w.generation == generation && matches!(w.state, State::Starting | State::Running)
            });
            if is_the_old && self.stopping.is_none() {
                self.drain(slot);
                under_way.push((slot, generation, now));
            }
        }
        self.stagger.under_way = under_way;
    }

    /// The camera of this slot is not heard by another process than this one yet.
    fn is_away(&self, slot: u32, generation: u32) -> bool {
        self.workers.get(&slot).is_some_and(|worker| {
            let stream = worker.camera.and_then(|id| self.cameras.get(&id)).map(|c| c.stream);
            let back = worker.generation > generation
                && worker.state == State::Running
                && matches!(stream, Some(StreamState::Live | StreamState::Ended) | None);
            worker.wanted && !back && worker.state != State::Stopped
        })
    }
}
