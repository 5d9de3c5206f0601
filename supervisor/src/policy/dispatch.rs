//! Windows in, batches out, scores back: which window goes to which inference process, and what becomes of
//! windows whose process died. What the model remembers of a stream goes out with each window and comes back with
//! its scores; kept is only what came back with the last window that was scored.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use nursery_shared::{
    frame::{MAX_FROM_WORKER, MAX_TO_WORKER},
    message::{
        CapturedWindow, MAX_SCORES, ModelShape, Record, RecordKind, SetAside, ToWorker, WindowJob,
        WindowScores,
    },
    pcm::SAMPLE_RATE,
    status::Latency,
};

use super::{
    Action, Key, Level, Policy, Time,
    camera::{Memory, PendingWindow},
    worker::{Batch, Worker},
};

/// Bytes in a frame beyond PCM, states and scores: once, and for each window.
const FRAME_OVERHEAD: usize = 256;
const WINDOW_OVERHEAD: usize = 64;
/// A window waits so long for those of other cameras, where there are so many that some will come: a process that is woken
/// for one window does much the same as for several.
const GATHER: Duration = Duration::from_millis(20);
const GATHER_FROM: usize = 8;
/// Windows that one process gets before another one gets any.
const WORTH_WAKING: usize = 4;
/// Batches that one process has in hand at the most: the one that it scores, and where there is more than enough to do, the
/// next, so that it need not wait until this process has time for it.
const IN_HAND: usize = 2;
/// Inference processes that a window may cost.
const MAX_DEATHS: usize = 2;
/// Wall-clock times beyond the year 9999 are not believed.
const LAST_US: i64 = 253_402_300_799_000_000;

/// The newest latencies, for percentiles.
#[derive(Debug, Default)]
pub struct LatencyWindow(VecDeque<u32>);

impl LatencyWindow {
    const KEPT: usize = 4096;

    fn push(&mut self, us: u64) {
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(u32::try_from(us).unwrap_or(u32::MAX));
    }

    /// Percentiles in milliseconds; zero before the first window.
    pub fn percentiles(&self) -> Latency {
        let mut sorted: Vec<u32> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let at = |q: f64| {
            let last = sorted.len().saturating_sub(1);
            sorted.get((last as f64 * q).round() as usize).map_or(0.0, |us| f64::from(*us) / 1000.0)
        };
        Latency { p50: at(0.5), p99: at(0.99) }
    }
}

/// Most windows of a batch that fit a frame with their states, on the way to a process and back.
fn most_in_a_frame(model: &ModelShape) -> usize {
    let (pcm, state) = (model.window as usize * 2, model.state_bytes as usize);
    let there = (MAX_TO_WORKER - FRAME_OVERHEAD) / (pcm + state + WINDOW_OVERHEAD);
    let back = (MAX_FROM_WORKER - FRAME_OVERHEAD) / (model.scores_per_window() * 4 + state + WINDOW_OVERHEAD);
    there.min(back).max(1)
}

impl Policy {
    pub(super) fn on_window(&mut self, slot: u32, mut window: CapturedWindow) -> Result<(), String> {
        let expected = self.model.shape.window as usize;
        if window.pcm.len() != expected {
            return Err(format!("sent a window of {} samples instead of {expected}", window.pcm.len()));
        }
        window.arrived_us = window.arrived_us.min(self.now.0);
        window.end_us = window.end_us.clamp(0, LAST_US);
        // A muted microphone hears nothing, however well its zeros arrive.
        if !window.mute {
            self.heard(slot, Time(window.arrived_us));
        }
        let Some(worker) = self.workers.get(&slot) else { return Ok(()) };
        let (generation, Some(id)) = (worker.generation, worker.camera) else { return Ok(()) };
        let Some(camera) = self.cameras.get_mut(&id) else { return Ok(()) };
        camera.windows += 1;
        camera.mute = window.mute;
        self.taken += 1;
        camera.last_end_us = window.end_us;
        let source = camera.source_of(generation);
        camera.queue.push_back(PendingWindow { id: self.next_window, window, source, deaths: Vec::new() });
        self.next_window += 1;
        let holds_back = camera.lossless && camera.queue.len() >= self.queue_limits.full;
        self.bound_queue(id);
        if holds_back {
            self.set_reading(slot, false);
        }
        self.enter_ring(id);
        Ok(())
    }

    /// The oldest windows give way where more wait than may.
    pub(super) fn bound_queue(&mut self, id: u32) {
        let Some(camera) = self.cameras.get_mut(&id) else { return };
        let most = match (camera.lossless, camera.strain.is_short()) {
            (true, _) => self.queue_limits.most,
            (false, false) => self.queue_limits.full,
            (false, true) => self.queue_limits.short,
        };
        let before = camera.dropped;
        let surplus = camera.queue.len().saturating_sub(most);
        camera.queue.drain(..surplus);
        camera.dropped += surplus as u64;
        self.dropped += surplus as u64;
        // At the first, second, fourth, … of them: with every window it would fill the log.
        if camera.dropped.checked_ilog2() != before.checked_ilog2() {
            let text = format!(
                "capture:{}: {} windows dropped so far: they come faster than they are scored \
                 (more --inference-workers, or fewer cameras)",
                camera.config.name, camera.dropped
            );
            self.log(Level::Warn, text);
        }
    }

    fn set_reading(&mut self, slot: u32, reading: bool) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        if worker.paused != reading {
            return;
        }
        worker.paused = !reading;
        worker.heard_at = now;
        let key = Key { slot, generation: worker.generation };
        self.actions.push(Action::SetReading { key, reading });
    }

    fn enter_ring(&mut self, id: u32) {
        if let Some(camera) = self.cameras.get_mut(&id)
            && !camera.in_ring
            && !camera.in_flight
            && !camera.queue.is_empty()
        {
            camera.in_ring = true;
            self.ring.push_back(id);
        }
    }

    /// Until when those that wait may wait for others; `None` where that is over, or would bring nothing.
    fn gathering(&self) -> Option<Time> {
        let most = self.config.inference.max_batch as usize;
        if self.cameras.len() < GATHER_FROM || self.ring.len() >= most || self.stopping.is_some() {
            return None;
        }
        let mut oldest = Time(u64::MAX);
        for camera in self.ring.iter().filter_map(|id| self.cameras.get(id)) {
            let first = camera.queue.front()?;
            // Recordings are read as fast as they are scored, and what killed a process is to be known soon.
            if camera.lossless || !first.deaths.is_empty() {
                return None;
            }
            oldest = oldest.min(Time(first.window.arrived_us));
        }
        Some(oldest + GATHER).filter(|until| *until > self.now)
    }

    /// Hands waiting windows, one per camera, to idle inference processes, shared out evenly.
    pub(super) fn dispatch(&mut self) {
        self.gathers_until = None;
        if self.ring.is_empty() || self.ledger.is_full() {
            return;
        }
        self.gathers_until = self.gathering();
        if self.gathers_until.is_some() {
            return;
        }
        let serving = self.serving();
        let idle = |slot: u32| self.workers.get(&slot).filter(|w| w.batches.is_empty());
        let mut idle: Vec<(Time, u32)> =
            serving.iter().filter_map(|slot| Some((idle(*slot)?.heard_at, *slot))).collect();
        // Whoever has not been heard for longest: one that hangs with nothing in hand shows only when it is given
        // something, and must not be found when there is much to do.
        idle.sort_unstable();
        // What is read faster than time keeps everybody busy. Where more waits there is enough for all in any case.
        let lossless = self.ring.len() < idle.len() * WORTH_WAKING
            && self.ring.iter().any(|id| self.cameras.get(id).is_some_and(|c| c.lossless));
        let least = if lossless { 1 } else { WORTH_WAKING };
        for (i, (_, slot)) in idle.iter().enumerate() {
            let share = self.ring.len().div_ceil(idle.len() - i).max(least);
            if !self.give(*slot, share) {
                return;
            }
        }
        let max_batch = self.config.inference.max_batch as usize;
        let enough = self.ring.len() >= max_batch * serving.len();
        for slot in serving {
            // Where less than a batch for everybody waits here it goes to whoever is free first. Nothing waits behind what
            // killed a process before, and that waits behind nothing, or the wrong one might be blamed.
            let next_is_suspect = || {
                let camera = self.ring.front().and_then(|id| self.cameras.get(id));
                camera.and_then(|c| c.queue.front()).is_some_and(|p| !p.deaths.is_empty())
            };
            let has_room = |w: &Worker| w.batches.len() < IN_HAND && !w.batches.iter().any(Batch::is_suspect);
            if enough
                && self.ring.len() >= max_batch
                && self.workers.get(&slot).is_some_and(has_room)
                && !next_is_suspect()
            {
                self.give(slot, max_batch);
            }
        }
    }

    /// Gives a process as many windows of those that wait, in a batch; false where none does.
    fn give(&mut self, slot: u32, windows: usize) -> bool {
        let loaded = self.workers.get(&slot).and_then(|w| w.loaded.clone());
        let model = loaded.unwrap_or_else(|| Arc::clone(&self.model.shape));
        let most = most_in_a_frame(&model).min(self.config.inference.max_batch as usize);
        let windows = self.take_windows(windows.min(most));
        if windows.is_empty() {
            return false;
        }
        let batch = self.next_batch;
        self.next_batch += 1;
        let jobs = windows.iter().map(|(id, p)| self.job(*id, p, &model)).collect();
        self.send(slot, ToWorker::Batch { batch, windows: jobs });
        let now = self.now;
        if let Some(worker) = self.workers.get_mut(&slot) {
            if worker.batches.is_empty() {
                worker.heard_at = now;
            }
            worker.batches.push_back(Batch { id: batch, windows, model });
            let due = worker.deadline().unwrap_or(Time(u64::MAX));
            self.quiet_until = self.quiet_until.map(|known| known.min(due));
        }
        true
    }

    fn job(&self, camera: u32, pending: &PendingWindow, model: &ModelShape) -> WindowJob {
        let state = self.cameras.get(&camera).map(|c| c.state_for(pending, model));
        WindowJob { id: pending.id, state: state.unwrap_or_default(), pcm: pending.window.pcm.clone() }
    }

    /// Up to `most` windows, each of another camera. A window that was in the hands of a process that died
    /// goes alone, so that it takes no other window with it if it is the cause.
    fn take_windows(&mut self, most: usize) -> Vec<(u32, PendingWindow)> {
        let mut windows = Vec::new();
        while windows.len() < most {
            let Some(id) = self.ring.pop_front() else { break };
            let Some(camera) = self.cameras.get_mut(&id) else { continue };
            let suspect = camera.queue.front().is_some_and(|p| !p.deaths.is_empty());
            if suspect && !windows.is_empty() {
                self.ring.push_front(id);
                break;
            }
            camera.in_ring = false;
            let Some(pending) = camera.queue.pop_front() else { continue };
            camera.in_flight = true;
            let (slot, resume) =
                (camera.slot, camera.lossless && camera.queue.len() < self.queue_limits.resume);
            if !camera.lossless && !suspect {
                camera.strain.taken(self.now.since(Time(pending.window.arrived_us)));
            }
            windows.push((id, pending));
            if resume {
                self.set_reading(slot, true);
            }
            if suspect {
                break;
            }
        }
        windows
    }

    pub(super) fn on_scores(
        &mut self,
        slot: u32,
        batch_id: u64,
        scores: Vec<WindowScores>,
    ) -> Result<(), String> {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&slot) else { return Ok(()) };
        let Some(batch) = worker.batches.pop_front_if(|b| b.id == batch_id) else {
            return Err(format!("sent scores of batch {batch_id}, which it does not have in hand"));
        };
        let matches = scores.len() == batch.windows.len()
            && batch.windows.iter().zip(&scores).all(|((_, pending), s)| {
                pending.id == s.id && s.scores.len() <= MAX_SCORES && s.scores.iter().all(|p| p.is_finite())
            });
        if !matches {
            worker.batches.push_front(batch); // Taken back when the process is gone.
            return Err(format!("sent scores that do not fit batch {batch_id}"));
        }
        let expected = batch.model.state_bytes as usize;
        if let Some(got) = scores.iter().map(|s| s.state.as_bytes().len()).find(|got| *got != expected) {
            worker.batches.push_front(batch);
            return Err(format!(
                "sent a stream's state of {got} bytes with batch {batch_id} instead of {expected}"
            ));
        }
        worker.busy_us += now.since(worker.heard_at).as_micros() as u64;
        worker.heard_at = now;
        let model = batch.model;
        for ((id, pending), scores) in batch.windows.into_iter().zip(scores) {
            self.scored += 1;
            self.heartbeat.scored_at = Some(now);
            self.latency.push(now.0.saturating_sub(pending.window.arrived_us));
            if let Some(camera) = self.cameras.get_mut(&id) {
                camera.memory = Some(Memory::after(&pending, scores.state, &model));
            }
            self.record_scores(id, &pending.window, scores.scores, &model);
            self.released(id);
        }
        Ok(())
    }

    fn record_scores(&mut self, id: u32, window: &CapturedWindow, values: Vec<f32>, model: &ModelShape) {
        let us = |samples: u32| i64::from(samples) * 1_000_000 / i64::from(SAMPLE_RATE);
        let Some(camera) = self.cameras.get_mut(&id) else { return };
        let peak = values.iter().copied().fold(0.0, f32::max);
        camera.score = Some((f64::from(peak) * 1000.0).round() / 1000.0);
        self.ledger.push(Record {
            camera: camera.config.name.clone(),
            what: RecordKind::Scores {
                start_us: window.end_us - us(model.lookahead.saturating_add(model.hop)),
                step_us: us(model.frame_step) as u32,
                values,
                level_dbfs: window.level_dbfs,
                arrived_us: window.arrived_us,
            },
        });
    }

    /// One of a camera's windows is no longer being scored.
    fn released(&mut self, id: u32) {
        if let Some(camera) = self.cameras.get_mut(&id) {
            camera.in_flight = false;
        }
        self.enter_ring(id);
        self.finish_camera(id);
    }

    /// Windows of a process that died: first in their cameras' queues again, or, those that it was scoring, set aside.
    pub(super) fn take_back(&mut self, name: &str, how: &str, batches: VecDeque<Batch>) {
        let mut batches = batches.into_iter();
        if let Some(batch) = batches.next() {
            self.blame(name, how, batch);
        }
        for (id, pending) in batches.flat_map(|batch| batch.windows) {
            if let Some(camera) = self.cameras.get_mut(&id) {
                camera.queue.push_front(pending);
            }
            self.released(id);
        }
    }

    fn blame(&mut self, name: &str, how: &str, batch: Batch) {
        for (id, mut pending) in batch.windows {
            pending.deaths.push(format!("{name}: {how}"));
            if let Some(camera) = self.cameras.get_mut(&id) {
                if pending.deaths.len() >= MAX_DEATHS {
                    self.quarantined += 1;
                    let state = camera.state_for(&pending, &batch.model);
                    let PendingWindow { id: window, window: heard, deaths, .. } = pending;
                    let set_aside = SetAside { window, end_us: heard.end_us, pcm: heard.pcm, state, deaths };
                    self.ledger.push(Record {
                        camera: camera.config.name.clone(),
                        what: RecordKind::SetAside(set_aside),
                    });
                    let text = format!(
                        "{name}: window {window} of camera {} set aside: {MAX_DEATHS} inference processes died with it \
                         (nursery quarantine)",
                        camera.config.name
                    );
                    self.log(Level::Error, text);
                } else {
                    camera.queue.push_front(pending);
                }
            }
            self.released(id);
        }
    }
}
