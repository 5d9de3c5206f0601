//! The sink's judgement: which records are stored and when they are acknowledged, which delivery is tried when. It is
//! told the time and what became of attempts, and has no thread, socket, receiver or clock of its own, so that faults
//! can be simulated.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use nursery_shared::{
    config::DetectionConfig,
    history::{Answer, Question},
    message::{CameraDetection, DeliveryReport, FromWorker, PROGRESS_INTERVAL, Record, RecordKind},
};

use super::{
    camera::CameraState,
    outbox::Outbox,
    receiver::Attempt,
    recorder::Recorder,
    records,
    store::{Batch, Mark, Pending, Storage},
};

/// Records that are stored with one transaction at the most.
const GROUP: usize = 256;
/// Waits between attempts to store while the store fails.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// How often old rows are removed.
const PURGE: Duration = Duration::from_secs(86_400);

/// What time it is.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For waiting.
    pub instant: Instant,
    /// For people: microseconds since 1970, which may jump.
    pub wall_us: i64,
}

/// An attempt that failed and what follows.
#[derive(Debug)]
pub struct Failure {
    pub error: String,
    /// Until the next attempt.
    pub wait: Duration,
}

/// Everything that the sink knows and owes.
pub struct Keeper<S> {
    store: S,
    cameras: HashMap<String, CameraState>,
    /// What the store has of each camera.
    stored: HashMap<String, CameraState>,
    detection: DetectionConfig,
    per_camera: HashMap<String, DetectionConfig>,
    receivers: Vec<String>,
    /// Those of them that want to be told of motion.
    movers: Vec<String>,
    outbox: Outbox,
    /// The supervisor whose records these are.
    run: u64,
    /// Up to where the store had records when this process began.
    begun: Option<Mark>,
    /// Records that are not stored yet.
    waiting: Vec<(u64, Record)>,
    store_error: Option<String>,
    retry_at: Option<Instant>,
    retry_wait: Duration,
    /// Some of the deliveries could not be read from the store.
    unread: bool,
    handled: u64,
    reported_at: Instant,
    purged_at: Option<Instant>,
    recorder: Recorder,
}

impl<S: Storage> Keeper<S> {
    /// Goes on from what the store has. `seed` draws the jitter of waits. [`configure`](Self::configure) must follow.
    pub fn new(store: S, seed: u64, now: Now) -> Result<Self, String> {
        let cameras = store.cameras().map_err(|e| format!("store: {e}"))?;
        let begun = store.mark().map_err(|e| format!("store: {e}"))?;
        Ok(Self {
            store,
            stored: cameras.clone(),
            cameras,
            detection: DetectionConfig::default(),
            per_camera: HashMap::new(),
            receivers: Vec::new(),
            movers: Vec::new(),
            outbox: Outbox::new(seed),
            run: 0,
            begun,
            waiting: Vec::new(),
            store_error: None,
            retry_at: None,
            retry_wait: RETRY_FIRST,
            unread: false,
            handled: 0,
            reported_at: now.instant,
            purged_at: None,
            recorder: Recorder::new(now.instant),
        })
    }

    /// From now on these settings hold and these receivers are served, beginning with what the store owes them.
    pub fn configure(
        &mut self,
        run: u64,
        detection: DetectionConfig,
        cameras: Vec<CameraDetection>,
        receivers: Vec<String>,
        now: Now,
    ) {
        self.run = run;
        self.detection = detection;
        self.per_camera = cameras.into_iter().map(|c| (c.camera, c.detection)).collect();
        for (name, state) in &mut self.cameras {
            state.configure(self.per_camera.get(name).unwrap_or(&self.detection));
        }
        self.receivers = receivers;
        self.outbox.set_receivers(&self.receivers);
        for receiver in self.receivers.clone() {
            self.load_head(&receiver, None, now);
        }
    }

    /// Only these receivers are told of motion.
    pub fn tell_of_motion(&mut self, receivers: Vec<String>) {
        self.movers = receivers;
    }

    /// Takes a record in; [`store_waiting`](Self::store_waiting) stores it.
    pub fn take(&mut self, seq: u64, record: Record) {
        self.waiting.push((seq, record));
    }

    /// More records may be taken in before what waits is stored.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < GROUP && self.retry_at.is_none()
    }

    /// Everything that was taken in is stored.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Stores what waits and returns its acknowledgement and what else there is to tell; keeps it, and tries again
    /// later, where the store fails.
    pub fn store_waiting(&mut self, now: Now) -> Vec<FromWorker> {
        let mut said = Vec::new();
        let Some(last) = self.waiting.last().map(|(seq, _)| *seq) else { return said };
        if self.retry_at.is_some_and(|t| now.instant < t) {
            return said;
        }
        let mut batch = Batch::default();
        let mut touched: HashMap<String, CameraState> = HashMap::new();
        batch.mark = Mark { run: self.run, seq: last };
        for (seq, record) in &self.waiting {
            if !self.is_known(*seq) {
                let begin = |name: &str| self.state_of(name);
                records::apply(record, &mut touched, begin, &mut batch.alerts);
            }
        }
        for alert in batch.alerts.iter_mut().filter(|a| a.kind.starts_with("motion.")) {
            alert.only = Some(self.movers.clone());
        }
        for (name, state) in &touched {
            let known = self.stored.get(name);
            let news = known.map_or(!state.is_idle(), |stored| !state.is_same_but_for_time(stored));
            if news || batch.alerts.iter().any(|a| a.camera == *name) {
                batch.cameras.insert(name.clone(), state.clone());
            }
        }
        if !batch.is_empty()
            && let Err(e) = self.store.commit(&batch, &self.receivers)
        {
            self.store_failed(&e, now);
            return said;
        }
        if self.store_error.take().is_some() {
            tracing::info!("store: works again");
        }
        self.retry_at = None;
        self.retry_wait = RETRY_FIRST;
        self.handled += self.waiting.len() as u64;
        for (_, record) in std::mem::take(&mut self.waiting) {
            self.recorder.take(&record);
            // One that comes again is kept under the same name.
            if let RecordKind::SetAside(window) = &record.what {
                self.store.set_aside(&record.camera, window);
            }
        }
        self.stored.extend(batch.cameras);
        self.cameras.extend(touched);
        said.push(FromWorker::Ack { up_to: last });
        said.push(FromWorker::Progress { done: self.handled });
        for alert in &batch.alerts {
            said.push(FromWorker::Event { json: alert.body.clone() });
            for receiver in self.receivers.clone() {
                if !self.outbox.has_lane(&receiver, &alert.camera) {
                    self.load_head(&receiver, Some(&alert.camera), now);
                }
            }
        }
        if !batch.alerts.is_empty() {
            said.extend(self.report(now));
        }
        said
    }

    /// A camera as it is now, or will be when it is heard of for the first time.
    fn state_of(&self, name: &str) -> CameraState {
        let known = self.cameras.get(name).cloned();
        known.unwrap_or_else(|| CameraState::new(self.per_camera.get(name).unwrap_or(&self.detection)))
    }

    /// A process before this one stored this record and died before it could say so.
    fn is_known(&self, seq: u64) -> bool {
        self.begun.is_some_and(|mark| mark.run == self.run && seq <= mark.seq)
    }

    /// What the store holds, for people to look at; stores what they say of it.
    pub fn answer(&mut self, question: &Question) -> Answer {
        let mut answer = match self.store.answer(question, self.recorder.fresh()) {
            Ok(answer) => answer,
            Err(e) => {
                if matches!(question, Question::Feedback { .. }) {
                    tracing::error!(
                        "store: what somebody said of an event cannot be stored: {e} (is the disk full?)"
                    );
                }
                Answer::failed(format!("store: {e}"))
            }
        };
        let threshold = |camera: &str| self.per_camera.get(camera).unwrap_or(&self.detection).threshold;
        match (&mut answer, question) {
            (Answer::Timeline(timeline), Question::Timeline { camera, .. }) => {
                timeline.threshold = threshold(camera);
            }
            (Answer::Event(Some(file)), _) => file.threshold = threshold(file.subject.camera()),
            _ => {}
        }
        answer
    }

    /// The store takes what it is given, as far as is known.
    pub fn is_storing(&self) -> bool {
        self.store_error.is_none() && self.recorder.error().is_none()
    }

    /// Since it was asked last, something could not be stored for want of room on the disk.
    pub fn lacked_room(&self) -> bool {
        self.store.lacked_room()
    }

    /// There may be room now: what could not be stored is tried again at once.
    pub fn try_again(&mut self, now: Now) {
        self.retry_at = None;
        self.recorder.try_again(now.instant);
    }

    /// Curves are kept for so many days.
    pub fn keep_curves(&mut self, days: u32, now: Now) {
        self.recorder.keep(days, now.instant);
    }

    /// Stores what was heard, and makes what is old small, where that is due and no alert waits.
    pub fn tend_curves(&mut self, now: Now) {
        if self.is_settled() {
            self.recorder.tend(&mut self.store, now);
        }
    }

    /// Stores what was heard at once: this process is about to end.
    pub fn store_curves(&mut self, now: Now) {
        self.recorder.store(&mut self.store, now);
    }

    fn store_failed(&mut self, error: &str, now: Now) {
        if self.store_error.as_deref() != Some(error) {
            tracing::error!("store: {error}; nothing is lost, storing is tried again (is the disk full?)");
        }
        self.store_error = Some(error.to_owned());
        self.retry_at = Some(now.instant + self.retry_wait);
        self.retry_wait = (self.retry_wait * 2).min(RETRY_LONGEST);
    }

    /// Fills the lanes of a receiver from the store, all or one camera's.
    fn load_head(&mut self, receiver: &str, camera: Option<&str>, now: Now) {
        match self.store.heads(receiver, camera) {
            Ok(heads) => {
                for pending in heads {
                    self.outbox.offer(receiver, pending, now.instant);
                }
            }
            Err(e) => {
                if !std::mem::replace(&mut self.unread, true) {
                    tracing::error!("store: deliveries cannot be read: {e}");
                }
            }
        }
    }

    /// What is to be tried now, by receiver; each is answered by [`attempted`](Self::attempted).
    pub fn due(&mut self, now: Now) -> Vec<(String, Pending)> {
        self.outbox.due(now.instant)
    }

    /// An attempt has ended. One that failed will be made again.
    pub fn attempted(
        &mut self,
        receiver: &str,
        delivery: i64,
        camera: &str,
        outcome: Attempt,
        now: Now,
    ) -> Result<(), Failure> {
        let written = match &outcome {
            Attempt::Delivered => self.store.delivered(delivery),
            Attempt::Impossible(why) => self.store.give_up(delivery, why),
            Attempt::Failed(_) => Ok(()),
        };
        let error = match (outcome, written) {
            (Attempt::Failed(error), _) => error,
            // Delivered but not noted: it will be delivered once more, with the same id.
            (_, Err(e)) => format!("the store could not note the delivery: {e}"),
            _ => {
                self.outbox.done(receiver, camera);
                self.load_head(receiver, Some(camera), now);
                return Ok(());
            }
        };
        let wait = self.outbox.failed(receiver, camera, error.clone(), now.instant, now.wall_us);
        Err(Failure { error, wait })
    }

    /// Attempts under way.
    pub fn in_flight(&self) -> usize {
        self.outbox.in_flight()
    }

    /// A report is due, which proves that the working loop works.
    pub fn must_report(&self, now: Now) -> bool {
        now.instant.saturating_duration_since(self.reported_at) >= PROGRESS_INTERVAL
    }

    /// Progress and deliveries.
    pub fn report(&mut self, now: Now) -> Vec<FromWorker> {
        self.reported_at = now.instant;
        if std::mem::take(&mut self.unread) {
            for receiver in self.receivers.clone() {
                self.load_head(&receiver, None, now);
            }
        }
        let mut said = vec![FromWorker::Progress { done: self.handled }];
        let (failing_since_us, last_error) = self.outbox.failing();
        match self.store.counts() {
            Ok((pending, delivered)) => said.push(FromWorker::Deliveries(DeliveryReport {
                pending,
                delivered,
                failing_since_us,
                last_error: self
                    .store_error
                    .clone()
                    .or_else(|| self.recorder.error().map(str::to_owned))
                    .or(last_error),
            })),
            Err(e) => self.store_failed(&e, now),
        }
        said
    }

    /// Removes old rows once a day.
    pub fn purge_if_due(&mut self, now: Now) {
        if self.purged_at.is_none_or(|t| now.instant.saturating_duration_since(t) >= PURGE) {
            self.purged_at = Some(now.instant);
            if let Err(e) = self.store.purge(&self.receivers) {
                tracing::warn!("store: old rows cannot be removed: {e}");
            }
        }
    }

    /// When there is something to do although nothing happens; `delivering`: new attempts may be begun.
    pub fn next_deadline(&self, delivering: bool) -> Instant {
        let report = self.reported_at + PROGRESS_INTERVAL;
        let due = self.outbox.next_due().filter(|_| delivering);
        [self.retry_at, due].into_iter().flatten().fold(report, Instant::min)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use nursery_shared::message::Lost;

    use super::*;
    use crate::sink::store::Store;

    fn keeper(dir: &std::path::Path, run: u64) -> Keeper<Store> {
        let now = now();
        let mut keeper = Keeper::new(Store::open(dir).unwrap(), 1, now).unwrap();
        keeper.configure(run, DetectionConfig::default(), Vec::new(), vec!["r".into()], now);
        keeper
    }

    fn now() -> Now {
        Now { instant: Instant::now(), wall_us: 0 }
    }

    /// Two outages; returns how many alerts they were.
    fn outages(keeper: &mut Keeper<Store>) -> usize {
        for n in 0..2 {
            let lost = Lost { camera: "a".into(), since_us: n * 2_000_000, reason: "x".into() };
            let offline = RecordKind::Offline(vec![lost]);
            let online = RecordKind::Online { at_us: n * 2_000_000 + 1_000_000 };
            for (i, what) in [offline, online].into_iter().enumerate() {
                keeper.take(n as u64 * 2 + i as u64, Record { camera: "a".into(), what });
            }
        }
        let said = keeper.store_waiting(now());
        assert!(said.contains(&FromWorker::Ack { up_to: 3 }));
        said.iter().filter(|m| matches!(m, FromWorker::Event { .. })).count()
    }

    #[test]
    fn what_was_stored_and_not_acknowledged_is_announced_once() {
        let dir = std::env::temp_dir().join(format!("nursery-keeper-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(outages(&mut keeper(&dir, 7)), 4);
        assert_eq!(outages(&mut keeper(&dir, 7)), 0, "sent again to a new process");
        assert_eq!(outages(&mut keeper(&dir, 8)), 4, "another supervisor counts from the beginning");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
