//! What operators are shown.

use nursery_shared::{
    VERSION,
    message::Role,
    status::{AlertStatus, CameraStatus, InferenceStatus, ModelStatus, Status, WorkerState, WorkerStatus},
    timestamp,
};

use super::{
    Policy, Time,
    worker::{State, Worker},
};

/// Where every window and record is, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accounts {
    /// Windows that were taken from capture processes.
    pub taken: u64,
    /// Of these: waiting, in the hands of inference processes, scored, dropped, set aside.
    pub queued: u64,
    pub in_flight: u64,
    pub scored: u64,
    pub dropped: u64,
    pub set_aside: u64,
    /// Records that the sink has not acknowledged, and the sequence number of the oldest (of the next, where there
    /// is none).
    pub records: u64,
    pub oldest_record: u64,
}

/// A place for a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot<'a> {
    pub number: u32,
    pub name: &'a str,
    pub role: Role,
    /// A process should run in it.
    pub wanted: bool,
    pub state: WorkerState,
    /// It stands in for others that are being replaced, beside the pool.
    pub stand_in: bool,
    /// An inference process that is given windows as soon as it is idle.
    pub serves: bool,
}

fn seconds(from: Time, to: Time) -> f64 {
    (to.since(from).as_secs_f64() * 1000.0).round() / 1000.0
}

impl Policy {
    /// Where every window and record is: the same accounts as in [`status`](Self::status) for all cameras there ever
    /// were, cheap enough to be audited after every event.
    pub fn accounts(&self) -> Accounts {
        let (records, oldest_record) = self.ledger.extent();
        Accounts {
            taken: self.taken,
            queued: self.cameras.values().map(|c| c.queue.len() as u64).sum(),
            in_flight: self.workers.values().map(Worker::in_hand).sum(),
            scored: self.scored,
            dropped: self.dropped,
            set_aside: self.quarantined,
            records: records as u64,
            oldest_record,
        }
    }

    /// Slots of the cameras whose queues are short, because more is heard of them than can be scored.
    pub fn strained(&self) -> impl Iterator<Item = u32> {
        self.cameras.values().filter(|c| c.strain.is_short()).map(|c| c.slot)
    }

    /// All places for worker processes, in the order in which they were made.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let serving = self.serving();
        self.workers.iter().map(move |(number, w)| Slot {
            number: *number,
            name: &w.name,
            role: w.role,
            wanted: w.wanted,
            state: w.reported_state(),
            stand_in: w.stand_in,
            serves: serving.contains(number),
        })
    }

    /// The state now. What only the kernel knows (`rss_bytes`, `cpu_s`) is left at zero.
    pub fn status(&self, now: Time) -> Status {
        let mut workers: Vec<WorkerStatus> = self
            .workers
            .values()
            .map(|w| WorkerStatus {
                name: w.name.clone(),
                role: w.role,
                pid: w.pid,
                state: w.reported_state(),
                uptime_s: if w.is_alive() { seconds(w.spawned_at, now) } else { 0.0 },
                restarts: w.restarts,
                last_exit: w.last_exit.clone(),
                progress: w.progress,
                progress_age_s: w.progress_at.map(|t| seconds(t, now)),
                rss_bytes: 0,
                cpu_s: 0.0,
                cage: w.cage.clone(),
            })
            .collect();
        workers.sort_by_key(|w| (w.role, w.name.len(), w.name.clone()));
        let running = |slot: u32| self.workers.get(&slot).is_some_and(|w| w.state == State::Running);
        let cameras = self
            .cameras
            .values()
            .filter(|c| !c.removed)
            .map(|c| CameraStatus {
                name: c.config.name.clone(),
                state: c.reported_state(running(c.slot)),
                level_dbfs: c.level_dbfs,
                score: c.score,
                windows: c.windows,
                dropped: c.dropped + c.dropped_upstream + c.dropped_before,
                last_audio_age_s: c.last_audio.map(|t| seconds(t, now)),
                last_error: c.error.clone(),
                pictures: c.config.pictures.is_some(),
                motion: self.motion_of(&c.config, now),
            })
            .collect();
        let infer = || self.workers.values().filter(|w| w.role == Role::Infer);
        Status {
            version: VERSION.to_owned(),
            uptime_s: seconds(self.started_at, now),
            pid: 0,
            workers,
            cameras,
            inference: InferenceStatus {
                workers: self.members().count() as u32,
                model: ModelStatus {
                    id: self.model().id.clone(),
                    file: self.model_file().map(str::to_owned),
                    next: self.model_on_trial().map(|m| m.shape.id.clone()),
                    refused: self.model_refused.clone(),
                },
                auto: self.auto_status(),
                queued: self.cameras.values().map(|c| c.queue.len() as u64).sum(),
                in_flight: infer().map(Worker::in_hand).sum(),
                scored: self.scored,
                quarantined: self.quarantined,
                latency_ms: self.latency.percentiles(),
            },
            alerts: AlertStatus {
                pending: self.deliveries.pending,
                delivered: self.deliveries.delivered,
                failing_since: self.deliveries.failing_since_us.map(timestamp::rfc3339),
            },
        }
    }
}
