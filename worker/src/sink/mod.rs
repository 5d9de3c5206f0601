//! Role `sink`: scores in, stored events and delivered alerts out. One thread owns the store and decides; one
//! reads from the supervisor; one runs the deliveries, which may be slow.

mod camera;
mod heartbeat;
mod outbox;
pub mod quarantine;
pub mod query;
mod receiver;
mod sound;
mod store;
mod webhook;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver as Channel, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use nursery_shared::{
    config::DetectionConfig,
    message::{
        DeliveryReport, FromWorker, PROGRESS_INTERVAL, Record, RecordKind, Role, SinkConfig, ToWorker,
    },
    timestamp,
};

use crate::link::{self, Inbox, Outbox as Link};
use camera::CameraState;
use heartbeat::Heartbeat;
use outbox::Outbox;
use receiver::{Attempt, Receiver};
use store::{Batch, Store};

/// Messages that wait for the working loop; the supervisor's socket holds the rest.
const QUEUE: usize = 1024;
/// Records that are stored with one transaction at the most.
const GROUP: usize = 256;
/// How long deliveries under way are waited for at a drain.
const DRAIN: Duration = Duration::from_secs(3);
/// Waits between attempts to store while the store fails.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// How often old rows are removed.
const PURGE: Duration = Duration::from_secs(86_400);

/// What the working loop waits for.
enum Input {
    Message(ToWorker),
    /// The supervisor is gone, or said something that is no message.
    Closed(Option<String>),
    Attempted {
        receiver: String,
        delivery: i64,
        camera: String,
        outcome: Attempt,
    },
    /// A call of the heartbeat's URL has ended.
    Called(Result<(), String>),
}

/// What the delivering thread is asked for.
enum Job {
    Attempt(Delivery),
    Call(Heartbeat),
}

/// One attempt.
struct Delivery {
    receiver: Arc<Receiver>,
    delivery: i64,
    camera: String,
    message_id: String,
    body: String,
}

/// Runs until the supervisor drains this process or is gone.
pub fn run() -> Result<(), String> {
    let (mut inbox, link) = link::open(Role::Sink)?;
    let config = match inbox.recv().map_err(|e| format!("frame from the supervisor: {e}"))? {
        Some(ToWorker::ConfigureSink(config)) => config,
        Some(ToWorker::Drain) | None => return Ok(()),
        Some(_) => return Err("the supervisor's first message was not a configuration".into()),
    };
    let store = Store::open(Path::new(&config.state_dir))?;
    let (sender, inputs) = sync_channel(QUEUE);
    let jobs = start_deliveries(sender.clone())?;
    let cameras = store.cameras().map_err(|e| format!("store: {e}"))?;
    let mut sink = Sink {
        link,
        inputs,
        jobs,
        store,
        stored: cameras.clone(),
        cameras,
        detection: config.detection,
        per_camera: HashMap::new(),
        receivers: HashMap::new(),
        receiver_ids: Vec::new(),
        outbox: Outbox::default(),
        waiting: Vec::new(),
        store_error: None,
        retry_at: None,
        retry_wait: RETRY_FIRST,
        handled: 0,
        reported_at: Instant::now(),
        purged_at: None,
        draining: None,
        failures_logged: HashMap::new(),
        state_dir: PathBuf::from(&config.state_dir),
        heartbeat: None,
        calling: false,
        calls_failed: 0,
    };
    sink.configure(config);
    sink.link.send(&FromWorker::Ready)?;
    std::thread::Builder::new()
        .name("inbox".into())
        .spawn(move || read_loop(&mut inbox, &sender))
        .map_err(|e| format!("cannot start the reading thread: {e}"))?;
    sink.work()
}

fn read_loop(inbox: &mut Inbox, sender: &SyncSender<Input>) {
    loop {
        let input = match inbox.recv() {
            Ok(Some(message)) => Input::Message(message),
            Ok(None) => Input::Closed(None),
            Err(e) => Input::Closed(Some(e.to_string())),
        };
        let last = matches!(input, Input::Closed(_));
        if sender.send(input).is_err() || last {
            return;
        }
    }
}

/// A thread that makes attempts, all at once, and reports each outcome.
fn start_deliveries(results: SyncSender<Input>) -> Result<tokio::sync::mpsc::UnboundedSender<Job>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .map_err(|e| format!("cannot start the delivering runtime: {e}"))?;
    // Bounded by the outbox, which has at most eight attempts per receiver under way, and one call of the heartbeat.
    let (sender, mut jobs) = tokio::sync::mpsc::unbounded_channel::<Job>();
    std::thread::Builder::new()
        .name("deliveries".into())
        .spawn(move || {
            runtime.block_on(async {
                while let Some(job) = jobs.recv().await {
                    let results = results.clone();
                    tokio::spawn(async move {
                        let result = match job {
                            Job::Attempt(job) => {
                                let receiver = job.receiver.id.clone();
                                let outcome = job.receiver.attempt(&job.message_id, &job.body).await;
                                let (delivery, camera) = (job.delivery, job.camera);
                                Input::Attempted { receiver, delivery, camera, outcome }
                            }
                            Job::Call(heartbeat) => Input::Called(heartbeat.call().await),
                        };
                        // Waits only while the working loop is busy storing, which never waits for this.
                        let _ = results.send(result);
                    });
                }
            });
        })
        .map_err(|e| format!("cannot start the delivering thread: {e}"))?;
    Ok(sender)
}

struct Sink {
    link: Link,
    inputs: Channel<Input>,
    jobs: tokio::sync::mpsc::UnboundedSender<Job>,
    store: Store,
    cameras: HashMap<String, CameraState>,
    /// What the store has of each camera.
    stored: HashMap<String, CameraState>,
    detection: DetectionConfig,
    per_camera: HashMap<String, DetectionConfig>,
    receivers: HashMap<String, Arc<Receiver>>,
    receiver_ids: Vec<String>,
    outbox: Outbox,
    /// Records that are not stored yet.
    waiting: Vec<(u64, Record)>,
    store_error: Option<String>,
    retry_at: Option<Instant>,
    retry_wait: Duration,
    handled: u64,
    reported_at: Instant,
    purged_at: Option<Instant>,
    draining: Option<Instant>,
    /// Failures in a row of each receiver, to log the first and then ever fewer.
    failures_logged: HashMap<String, u64>,
    state_dir: PathBuf,
    heartbeat: Option<Heartbeat>,
    /// A call of it is under way.
    calling: bool,
    /// Calls in a row that failed.
    calls_failed: u64,
}

impl Sink {
    fn work(&mut self) -> Result<(), String> {
        self.load_heads();
        self.report()?;
        loop {
            self.start_due();
            if let Some(since) = self.draining
                && self.waiting.is_empty()
                && (self.outbox.in_flight() == 0 || since.elapsed() >= DRAIN)
            {
                self.report()?;
                self.link.flush();
                return Ok(());
            }
            let mut input = match self.inputs.recv_timeout(self.patience()) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            // Everything that is already here goes in with one transaction.
            while let Some(next) = input {
                if let Some(end) = self.take(next) {
                    return end;
                }
                input = match self.waiting.len() < GROUP && self.retry_at.is_none() {
                    true => self.inputs.try_recv().ok(),
                    false => None,
                };
            }
            self.store_waiting()?;
            if self.reported_at.elapsed() >= PROGRESS_INTERVAL {
                self.report()?;
            }
            if self.purged_at.is_none_or(|t| t.elapsed() >= PURGE) {
                self.purged_at = Some(Instant::now());
                if let Err(e) = self.store.purge(&self.receiver_ids) {
                    tracing::warn!("store: old rows cannot be removed: {e}");
                }
            }
        }
    }

    /// How long there is nothing to do but wait.
    fn patience(&self) -> Duration {
        let now = Instant::now();
        let report = self.reported_at + PROGRESS_INTERVAL;
        let drained = self.draining.map(|t| t + DRAIN);
        let due = self.outbox.next_due().filter(|_| self.draining.is_none());
        [Some(report), self.retry_at, due, drained]
            .into_iter()
            .flatten()
            .map(|t| t.saturating_duration_since(now))
            .min()
            .unwrap_or(PROGRESS_INTERVAL)
    }

    /// Takes one input in; `Some` when it ends the process.
    fn take(&mut self, input: Input) -> Option<Result<(), String>> {
        match input {
            Input::Message(ToWorker::Record { seq, record }) => self.waiting.push((seq, record)),
            Input::Message(ToWorker::ConfigureSink(config)) => {
                self.configure(config);
                self.load_heads();
            }
            Input::Message(ToWorker::Heartbeat) => self.call(),
            Input::Message(ToWorker::Drain) => self.draining = Some(Instant::now()),
            Input::Message(_) => {
                return Some(Err("the supervisor sent a message that is not for this role".into()));
            }
            Input::Closed(error) => {
                // Nobody is left to acknowledge to; what is not stored, the next supervisor's cameras tell anew.
                let _ = self.store_waiting();
                return Some(error.map_or(Ok(()), |e| Err(format!("frame from the supervisor: {e}"))));
            }
            Input::Attempted { receiver, delivery, camera, outcome } => {
                self.attempted(&receiver, delivery, &camera, outcome);
            }
            Input::Called(outcome) => self.called(outcome),
        }
        None
    }

    /// Everything listens, as far as the supervisor knows; the store has its say too.
    fn call(&mut self) {
        if let Some(heartbeat) =
            self.heartbeat.clone().filter(|_| !self.calling && self.store_error.is_none())
        {
            self.calling = self.jobs.send(Job::Call(heartbeat)).is_ok();
        }
    }

    fn called(&mut self, outcome: Result<(), String>) {
        self.calling = false;
        let place = self.heartbeat.as_ref().map(Heartbeat::place).unwrap_or_default();
        match outcome {
            Ok(()) if self.calls_failed == 0 => {}
            Ok(()) => {
                self.calls_failed = 0;
                tracing::info!("heartbeat {place}: works again");
            }
            Err(error) => {
                self.calls_failed += 1;
                if self.calls_failed.is_power_of_two() {
                    let count = self.calls_failed;
                    tracing::warn!(
                        "heartbeat {place}: {error}; {count} failures in a row, the next call is in a minute"
                    );
                }
            }
        }
    }

    /// Puts a window that was set aside on the shelf. Where that fails it is gone: the rest must not wait for it.
    fn set_aside(&self, record: &Record) {
        let RecordKind::SetAside(window) = &record.what else { return };
        match quarantine::keep(&self.state_dir, &record.camera, window) {
            Ok(path) => tracing::info!(
                "window {} of camera {} kept as {}",
                window.window,
                record.camera,
                path.display()
            ),
            Err(e) => tracing::error!(
                "window {} of camera {} could not be kept for study: {e}",
                window.window,
                record.camera
            ),
        }
    }

    fn configure(&mut self, config: SinkConfig) {
        self.detection = config.detection;
        self.per_camera = config.cameras.into_iter().map(|c| (c.camera, c.detection)).collect();
        for (name, state) in &mut self.cameras {
            state.configure(self.per_camera.get(name).unwrap_or(&self.detection));
        }
        self.heartbeat = config.heartbeat.as_ref().and_then(|url| {
            Heartbeat::new(url)
                .inspect_err(|e| tracing::error!("the URL of the heartbeat cannot be used: {e}"))
                .ok()
        });
        self.receivers.clear();
        for alert in &config.alerts {
            match Receiver::new(alert) {
                Ok(receiver) => {
                    self.receivers.insert(receiver.id.clone(), Arc::new(receiver));
                }
                Err(e) => tracing::error!("an alert receiver cannot be used: {e}"),
            }
        }
        let wants_sound = config.alerts.iter().any(|a| a.r#type == nursery_shared::config::AlertKind::Sound);
        if wants_sound && !sound::BUILT_IN {
            tracing::warn!("alerts of type sound: nursery-worker was built without the feature `sound`");
        }
        self.receiver_ids = self.receivers.keys().cloned().collect();
        self.outbox.set_receivers(&self.receiver_ids);
    }

    /// Stores what waits and acknowledges it; keeps it, and tries again later, where the store fails.
    fn store_waiting(&mut self) -> Result<(), String> {
        let Some(last) = self.waiting.last().map(|(seq, _)| *seq) else { return Ok(()) };
        if self.retry_at.is_some_and(|t| Instant::now() < t) {
            return Ok(());
        }
        let mut batch = Batch::default();
        let mut touched: HashMap<String, CameraState> = HashMap::new();
        for (_, record) in self.waiting.iter().filter(|(_, r)| !matches!(r.what, RecordKind::SetAside(_))) {
            let state = touched.entry(record.camera.clone()).or_insert_with(|| {
                self.cameras.get(&record.camera).cloned().unwrap_or_else(|| {
                    CameraState::new(self.per_camera.get(&record.camera).unwrap_or(&self.detection))
                })
            });
            state.apply(&record.camera, &record.what, &mut batch.alerts);
        }
        for (name, state) in &touched {
            let known = self.stored.get(name);
            let news = known.map_or(!state.is_idle(), |stored| !state.is_same_but_for_time(stored));
            if news || batch.alerts.iter().any(|a| a.camera == *name) {
                batch.cameras.insert(name.clone(), state.clone());
            }
        }
        if !batch.is_empty()
            && let Err(e) = self.store.commit(&batch, &self.receiver_ids)
        {
            self.store_failed(&e.to_string());
            return Ok(());
        }
        if self.store_error.take().is_some() {
            tracing::info!("store: works again");
        }
        self.retry_at = None;
        self.retry_wait = RETRY_FIRST;
        self.waiting.iter().for_each(|(_, record)| self.set_aside(record));
        self.handled += self.waiting.len() as u64;
        self.waiting.clear();
        self.stored.extend(batch.cameras);
        self.cameras.extend(touched);
        self.link.send(&FromWorker::Ack { up_to: last })?;
        self.link.send(&FromWorker::Progress { done: self.handled })?;
        for alert in &batch.alerts {
            self.link.send(&FromWorker::Event { json: alert.body.clone() })?;
            for receiver in self.receiver_ids.clone() {
                if !self.outbox.has_lane(&receiver, &alert.camera) {
                    self.load_head(&receiver, Some(&alert.camera));
                }
            }
        }
        if !batch.alerts.is_empty() {
            self.report()?;
        }
        Ok(())
    }

    fn store_failed(&mut self, error: &str) {
        if self.store_error.as_deref() != Some(error) {
            tracing::error!("store: {error}; nothing is lost, storing is tried again (is the disk full?)");
        }
        self.store_error = Some(error.to_owned());
        self.retry_at = Some(Instant::now() + self.retry_wait);
        self.retry_wait = (self.retry_wait * 2).min(RETRY_LONGEST);
    }

    fn load_heads(&mut self) {
        for receiver in self.receiver_ids.clone() {
            self.load_head(&receiver, None);
        }
    }

    /// Fills the lanes of a receiver from the store, all or one camera's.
    fn load_head(&mut self, receiver: &str, camera: Option<&str>) {
        match self.store.heads(receiver, camera) {
            Ok(heads) => {
                for pending in heads {
                    self.outbox.offer(receiver, pending, Instant::now());
                }
            }
            Err(e) => tracing::error!("store: deliveries cannot be read: {e}"),
        }
    }

    fn start_due(&mut self) {
        if self.draining.is_some() {
            return;
        }
        for (id, pending) in self.outbox.due(Instant::now()) {
            let Some(receiver) = self.receivers.get(&id) else { continue };
            let job = Delivery {
                receiver: Arc::clone(receiver),
                delivery: pending.delivery,
                camera: pending.camera,
                message_id: pending.message_id,
                body: pending.body,
            };
            if self.jobs.send(Job::Attempt(job)).is_err() {
                tracing::error!("the delivering thread is gone");
            }
        }
    }

    fn attempted(&mut self, receiver: &str, delivery: i64, camera: &str, outcome: Attempt) {
        let label = self.receivers.get(receiver).map_or("a former receiver", |r| &r.label).to_owned();
        let written = match &outcome {
            Attempt::Delivered => self.store.delivered(delivery),
            Attempt::Impossible(why) => {
                tracing::error!("{label}: alert of camera {camera} given up: {why}");
                self.store.give_up(delivery, why)
            }
            Attempt::Failed(_) => Ok(()),
        };
        let failure = match (outcome, written) {
            (Attempt::Failed(error), _) => error,
            // Delivered but not noted: it will be delivered once more, with the same id.
            (_, Err(e)) => format!("the store could not note the delivery: {e}"),
            _ => {
                if self.failures_logged.remove(receiver).is_some() {
                    tracing::info!("{label}: works again");
                }
                self.outbox.done(receiver, camera);
                self.load_head(receiver, Some(camera));
                return;
            }
        };
        let wait = self.outbox.failed(receiver, camera, failure.clone(), Instant::now(), timestamp::now_us());
        let count = self.failures_logged.entry(receiver.to_owned()).or_default();
        *count += 1;
        if count.is_power_of_two() {
            tracing::warn!(
                "{label}: {failure}; {count} failures in a row, next attempt in {:.1} s",
                wait.as_secs_f64()
            );
        }
    }

    /// Progress and deliveries, from the working loop itself.
    fn report(&mut self) -> Result<(), String> {
        self.reported_at = Instant::now();
        self.link.send(&FromWorker::Progress { done: self.handled })?;
        let (failing_since_us, last_error) = self.outbox.failing();
        match self.store.counts() {
            Ok((pending, delivered)) => self.link.send(&FromWorker::Deliveries(DeliveryReport {
                pending,
                delivered,
                failing_since_us,
                last_error: self.store_error.clone().or(last_error),
            })),
            Err(e) => {
                self.store_failed(&e.to_string());
                Ok(())
            }
        }
    }
}
