//! The supervisor's policy: a state machine that is told what happened and says what to do. It has no clock,
//! no sockets and no pids of its own, so that years of faults can be simulated in seconds.
//!
//! This file holds the state, the entry point and the life of workers; windows and scores are in
//! [`dispatch`], overdue things in [`overdue`], the end of workers that hang or die in [`obituary`], what operators
//! ask for in [`operate`] and [`reload`], new processes for a pool that goes on scoring in [`renewal`], what operators
//! are shown in [`snapshot`].

mod backoff;
mod camera;
mod clips;
mod dispatch;
mod heartbeat;
mod ledger;
mod light;
mod media;
mod obituary;
mod operate;
mod overdue;
mod overload;
mod pool;
mod reload;
mod renewal;
mod snapshot;
mod stagger;
#[cfg(test)]
mod tests;
mod web;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Add,
    time::Duration,
};

use nursery_shared::{
    VERSION,
    cage::{Cage, Guard},
    config::Config,
    control::PoolSize,
    message::{
        CameraReport, DeliveryReport, FromWorker, ModelShape, PROTOCOL, Record, RecordKind, Role, SinkConfig,
        StreamState, ToWorker,
    },
    postmortem::PostMortem,
};

use camera::{Camera, QueueLimits};
use dispatch::LatencyWindow;
use ledger::Ledger;
use worker::{State, Worker};

pub use snapshot::{Accounts, Slot};

/// Monotonic time in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub u64);

impl Time {
    /// From `earlier` to here; zero if it is not earlier.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, d: Duration) -> Time {
        Time(self.0.saturating_add(d.as_micros() as u64))
    }
}

/// One process in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub slot: u32,
    pub generation: u32,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A spawn that was asked for came about.
    Spawned { key: Key, pid: u32 },
    /// … or not.
    SpawnFailed { key: Key, error: String },
    /// A worker said something.
    Message { key: Key, message: FromWorker },
    /// A worker's socket ended, or what came was no frame.
    Broken { key: Key, why: String },
    /// A process was reaped.
    Exited { key: Key, exit: Exit },
    /// A worker was looked into, or could not be.
    Examined { key: Key },
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Start a process; answered by [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn { key: Key, role: Role, name: String },
    /// Queue a message to a worker; one that brings a descriptor goes with that of the message that is being handled.
    Send { key: Key, message: Box<ToWorker> },
    /// Make a socket, and tell both of it: [`ToWorker::Media`], [`ToWorker::MediaOf`].
    Connect { camera: Key, viewer: Key, ticket: u64 },
    /// Find out, without waiting, what a worker that hangs is doing; answered by [`Event::Examined`]. Over at the
    /// latest when it is killed.
    Examine { key: Key },
    /// SIGKILL; answered by [`Event::Exited`].
    Kill { key: Key },
    /// Complete this with what the kernel, the log and the examination tell of a process that was just reaped, and
    /// keep it.
    PostMortem { key: Key, post_mortem: Box<PostMortem> },
    /// Stop or go on reading from a worker.
    SetReading { key: Key, reading: bool },
    /// A line for the log.
    Log { level: Level, text: String },
    /// The body of a stored event, for whoever watches.
    Show { json: String },
    /// Queue a [`ToWorker::Status`] to a worker, with what the kernel knows.
    ShowStatus { key: Key },
    /// Everything has stopped.
    Finished,
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
    Error,
}

/// What the policy is given at the start.
#[derive(Debug, Clone)]
pub struct Setup {
    pub config: Config,
    /// Goes before the configuration's pool size.
    pub pool_override: Option<PoolSize>,
    pub model: ModelShape,
    pub state_dir: String,
    /// For `auto` pools.
    pub cores: u32,
    pub seed: u64,
}

/// The whole state.
pub struct Policy {
    config: Config,
    pool_override: Option<PoolSize>,
    model: renewal::Model,
    /// Why the newest model that was tried is not the one above.
    model_refused: Option<String>,
    /// Processes of the pool with a smaller number are to be replaced.
    edition: u32,
    renewal: Option<renewal::Renewal>,
    /// Capture processes that are restarted a few at a time.
    stagger: stagger::Stagger,
    queue_limits: QueueLimits,
    state_dir: String,
    cores: u32,
    seed: u64,
    now: Time,
    wall_us: i64,
    /// The deadline that was given out last.
    armed: Option<Time>,
    /// Before this nobody is overdue; `None`: not known, see [`Policy::nobody_is_due_before`].
    quiet_until: Option<Time>,
    /// Windows wait for others until then.
    gathers_until: Option<Time>,
    load: overload::Load,
    /// Newest message of anybody.
    heard_at: Time,
    /// All workers were forgiven a silence, and none has been heard since.
    forgave_silence: bool,
    started_at: Time,
    workers: BTreeMap<u32, Worker>,
    /// The inference processes among them: few among many, and looked for with every window.
    judges: BTreeSet<u32>,
    cameras: BTreeMap<u32, Camera>,
    next_slot: u32,
    next_camera: u32,
    next_window: u64,
    next_batch: u64,
    /// Makes the names of post-mortems unique; begins anywhere.
    next_death: u16,
    /// Cameras with a window waiting and none being scored, in the order of service.
    ring: VecDeque<u32>,
    sink: u32,
    /// The configuration changed while the sink could not be told.
    sink_outdated: bool,
    ledger: Ledger,
    deliveries: DeliveryReport,
    /// Windows that cameras sent, and those that gave way, of all cameras there ever were.
    taken: u64,
    dropped: u64,
    scored: u64,
    quarantined: u64,
    latency: LatencyWindow,
    pool: pool::Sizer,
    heartbeat: heartbeat::Heartbeat,
    web: web::Web,
    media: media::Media,
    light: light::Light,
    clips: clips::Clips,
    stopping: Option<operate::Stopping>,
    finished: bool,
    /// What is missing of the cages of a role, where that was logged.
    told_missing: BTreeSet<(Role, Guard)>,
    actions: Vec<Action>,
}

impl Policy {
    /// A service in which nothing runs yet; the first [`handle`](Self::handle) starts it.
    pub fn new(setup: Setup, now: Time, wall_us: i64) -> Self {
        let mut rng = fastrand::Rng::with_seed(setup.seed);
        let mut policy = Self {
            pool: pool::Sizer::new(now),
            queue_limits: QueueLimits::of(&setup.model),
            model: renewal::Model::new(setup.config.inference.model.clone(), setup.model),
            model_refused: None,
            edition: 1,
            renewal: None,
            stagger: stagger::Stagger::default(),
            config: setup.config,
            pool_override: setup.pool_override,
            state_dir: setup.state_dir,
            cores: setup.cores.max(1),
            next_death: rng.u16(..),
            seed: setup.seed,
            now,
            wall_us,
            armed: None,
            quiet_until: None,
            gathers_until: None,
            load: overload::Load::new(now),
            heard_at: now,
            forgave_silence: false,
            started_at: now,
            workers: BTreeMap::new(),
            judges: BTreeSet::new(),
            cameras: BTreeMap::new(),
            next_slot: 0,
            next_camera: 0,
            next_window: 0,
            next_batch: 0,
            ring: VecDeque::new(),
            sink: 0,
            sink_outdated: false,
            ledger: Ledger::default(),
            deliveries: DeliveryReport::default(),
            taken: 0,
            dropped: 0,
            scored: 0,
            quarantined: 0,
            latency: LatencyWindow::default(),
            heartbeat: heartbeat::Heartbeat::new(now),
            web: web::Web::default(),
            media: media::Media::default(),
            light: light::Light::default(),
            clips: clips::Clips::default(),
            stopping: None,
            finished: false,
            told_missing: BTreeSet::new(),
            actions: Vec::new(),
        };
        policy.sink = policy.add_worker("sink".into(), Role::Sink, None);
        policy.resize_pool();
        for camera in policy.config.cameras.clone() {
            policy.add_camera(camera);
        }
        policy.begin_web();
        policy.begin_light();
        policy
    }

    /// Takes an event in and returns what to do about it, in order.
    pub fn handle(&mut self, now: Time, wall_us: i64, event: Event) -> Vec<Action> {
        self.advance(now, wall_us);
        // Everything that arrived during a pass is told before its tick: nobody is judged with an answer unread.
        let judge = matches!(event, Event::Tick);
        let everyday = match &event {
            Event::Tick => true,
            Event::Message { message, .. } => is_everyday(message),
            _ => false,
        };
        match event {
            Event::Spawned { key, pid } => self.on_spawned(key, pid),
            Event::SpawnFailed { key, error } => self.on_spawn_failed(key, &error),
            Event::Message { key, message } => self.on_message(key, message),
            Event::Broken { key, why } => self.on_broken(key, why),
            Event::Exited { key, exit } => self.on_exit(key, exit),
            Event::Examined { key } => self.on_examined(key),
            Event::Tick => {}
        }
        let known = everyday && self.actions.iter().all(leaves_deadlines);
        if !known {
            self.quiet_until = None;
        }
        let actions = self.follow_up(judge);
        if !known || !actions.iter().all(leaves_deadlines) {
            self.quiet_until = None;
        }
        if judge && self.armed.is_some_and(|d| d <= now) {
            // This pass was that deadline's, and is not to be taken for a late one by those that follow at once.
            self.armed = self.earliest_deadline();
        }
        actions
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn next_deadline(&mut self) -> Option<Time> {
        self.armed = self.earliest_deadline();
        self.armed
    }

    /// Brings the clock forward, and forgives everybody what they could not do while this process itself did
    /// not run.
    fn advance(&mut self, now: Time, wall_us: i64) {
        self.now = self.now.max(now);
        self.wall_us = wall_us;
        self.forgive_if_late();
    }

    /// What follows when an operator has changed something.
    fn settle(&mut self) -> Vec<Action> {
        self.quiet_until = None;
        let actions = self.follow_up(false);
        self.quiet_until = None;
        actions
    }

    /// Whatever follows from the present state: timers (those of people who owe something only to `judge`), dispatch,
    /// records, the pool's size, the stop.
    fn follow_up(&mut self, judge: bool) -> Vec<Action> {
        self.expire(judge);
        self.beat();
        self.watch_load();
        self.adapt_pool();
        self.renew();
        self.restart_next();
        self.dispatch();
        self.pump_ledger();
        self.serve_web();
        self.serve_light();
        self.progress_stop();
        std::mem::take(&mut self.actions)
    }

    fn log(&mut self, level: Level, text: String) {
        self.actions.push(Action::Log { level, text });
    }

    fn send(&mut self, slot: u32, message: ToWorker) {
        if let Some(worker) = self.workers.get(&slot) {
            let key = Key { slot, generation: worker.generation };
            self.actions.push(Action::Send { key, message: Box::new(message) });
        }
    }

    fn add_worker(&mut self, name: String, role: Role, camera: Option<u32>) -> u32 {
        let slot = self.next_slot;
        self.next_slot += 1;
        let mut worker = Worker::new(name, role, camera, self.seed, self.now);
        // Started by the next pass over the timers.
        worker.state = State::Backoff { until: self.now };
        self.workers.insert(slot, worker);
        self.quiet_until = None;
        if role == Role::Infer {
            self.judges.insert(slot);
        }
        slot
    }

    fn remove_worker(&mut self, slot: u32) {
        self.workers.remove(&slot);
        self.judges.remove(&slot);
    }

    /// The inference processes, whatever state they are in.
    fn judges(&self) -> impl Iterator<Item = (u32, &Worker)> {
        self.judges.iter().filter_map(|slot| Some((*slot, self.workers.get(slot)?)))
    }

    fn start(&mut self, slot: u32) {
        let now = self.now;
        let edition = self.edition;
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        worker.generation += 1;
        worker.edition = edition;
        worker.assigned = None;
        worker.loaded = None;
        worker.state = State::Starting;
        worker.spawned_at = now;
        worker.heard_at = now;
        worker.progress = 0;
        worker.progress_at = None;
        worker.ready_at = None;
        worker.kill_reason = None;
        worker.stop_deadline = None;
        worker.examined_until = None;
        worker.paused = false;
        worker.ended = false;
        worker.cage = None;
        let key = Key { slot, generation: worker.generation };
        self.actions.push(Action::Spawn { key, role: worker.role, name: worker.name.clone() });
    }

    /// The worker that `key` means, unless another process has taken its slot since.
    fn current(&mut self, key: Key) -> Option<&mut Worker> {
        self.workers.get_mut(&key.slot).filter(|w| w.generation == key.generation && w.is_alive())
    }

    fn on_spawned(&mut self, key: Key, pid: u32) {
        if let Some(worker) = self.current(key) {
            worker.pid = Some(pid);
        }
    }

    fn on_spawn_failed(&mut self, key: Key, error: &str) {
        if self.current(key).is_some() {
            self.worker_gone(key.slot, format!("could not be started: {error}"), None);
        }
    }

    fn on_broken(&mut self, key: Key, why: String) {
        let Some(worker) = self.current(key) else { return };
        if worker.state == State::Stopping {
            return; // It closes its socket when it leaves.
        }
        self.kill(key.slot, why);
    }

    /// Kills a worker whose exit then takes its usual way.
    fn kill(&mut self, slot: u32, reason: String) {
        let Some(worker) = self.workers.get_mut(&slot).filter(|w| w.is_alive()) else { return };
        if worker.kill_reason.is_some() && worker.stop_deadline.is_none() {
            // The signal is on its way, or waits for an examination that is over now.
            return self.finish_examination(slot);
        }
        let text = format!("{}: killed: {reason}", worker.name);
        worker.kill_reason = Some(reason);
        worker.state = State::Stopping;
        worker.stop_deadline = None;
        let key = Key { slot, generation: worker.generation };
        self.actions.push(Action::Kill { key });
        self.log(Level::Warn, text);
    }

    fn on_exit(&mut self, key: Key, exit: Exit) {
        let Some(worker) = self.current(key) else { return };
        let how = match (worker.kill_reason.take(), exit) {
            (Some(reason), _) => format!("killed: {reason}"),
            (None, Exit::Code(code)) => format!("exit status {code}"),
            (None, Exit::Signal(signal)) => format!("signal {signal}"),
        };
        self.worker_gone(key.slot, how, Some(exit));
    }

    /// A process is gone: what it had in hand goes to others, and its slot waits, rests or goes.
    fn worker_gone(&mut self, slot: u32, how: String, exit: Option<Exit>) {
        let now = self.now;
        let obituary = exit.and_then(|exit| self.post_mortem(slot, &how, exit));
        let see = obituary.map_or_else(String::new, |id| format!(" (nursery postmortem {id})"));
        let healthy_after = Duration::from_secs_f64(self.config.supervision.healthy_after_s);
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        let asked_for = worker.state == State::Stopping && worker.stop_deadline.is_some();
        let batches = std::mem::take(&mut worker.batches);
        let (name, role, camera) = (worker.name.clone(), worker.role, worker.camera);
        worker.pid = None;
        worker.examined_until = None;
        worker.last_exit = Some(how.clone());
        if worker.ready_at.is_some_and(|t| now.since(t) >= healthy_after) {
            worker.backoff.reset();
        }
        let finished = worker.ended && how == "exit status 0";
        if worker.stand_in
            && worker.wanted
            && worker.ready_at.is_none()
            && let Some(renewal) = &mut self.renewal
        {
            renewal.failed(&how);
        }
        if !worker.wanted || finished {
            worker.state = State::Stopped;
            self.log(Level::Info, format!("{name}: stopped ({how}){see}"));
        } else if asked_for {
            worker.state = State::Backoff { until: now };
            worker.restarts += 1;
            self.log(Level::Info, format!("{name}: stopped as asked ({how}), starting again{see}"));
        } else {
            let wait = worker.backoff.next();
            worker.state = State::Backoff { until: now + wait };
            worker.restarts += 1;
            let died = if how.starts_with("could not") { how.clone() } else { format!("died ({how})") };
            self.log(Level::Warn, format!("{name}: {died}, restart in {} ms{see}", wait.as_millis()));
        }
        self.take_back(&name, &how, batches);
        match role {
            Role::Sink => {
                self.ledger.sink_lost();
                self.question_lost();
                self.clips_orphaned();
                self.clip_answers_lost();
            }
            Role::Web => {
                self.web_lost(slot);
                self.clip_seekers_lost();
            }
            Role::Capture => {
                self.clips_lost(slot);
                self.capture_gone(camera, &how, finished || asked_for);
                if let Some(id) = camera {
                    self.finish_camera(id);
                }
            }
            Role::Light => self.light_lost(slot, asked_for || finished),
            Role::Infer => {}
        }
        self.picture_seeker_lost(slot);
        let passing = matches!(role, Role::Infer | Role::Web | Role::Light);
        if passing && self.workers.get(&slot).is_some_and(|w| !w.wanted) {
            self.remove_worker(slot);
        }
    }

    fn capture_gone(&mut self, camera: Option<u32>, how: &str, expected: bool) {
        let Some(camera) = camera.and_then(|id| self.cameras.get_mut(&id)) else { return };
        camera.dropped_before += std::mem::take(&mut camera.dropped_upstream);
        if camera.stream != StreamState::Ended {
            camera.stream = StreamState::Connecting;
            if !expected {
                camera.error = Some(format!("capture process: {how}; it is being restarted"));
            }
        }
    }

    fn on_message(&mut self, key: Key, message: FromWorker) {
        let now = self.now;
        let Some(worker) = self.current(key) else { return };
        let role = worker.role;
        self.forgave_silence = false;
        self.heard_at = now;
        let Some(worker) = self.current(key) else { return };
        // Whatever it says comes from its working loop: it is not hung. An infer process that owes a batch
        // only counts when it delivers that.
        if worker.batches.is_empty() {
            worker.heard_at = now;
        }
        let crime = match message {
            FromWorker::Hello { protocol, version, role: claimed } => {
                self.on_hello(key, protocol, &version, claimed)
            }
            FromWorker::Caged(cage) => self.on_caged(key, cage),
            FromWorker::Loaded(shape) if role == Role::Infer => self.on_loaded(key, shape),
            FromWorker::Ready => self.on_ready(key),
            FromWorker::Progress { done } => {
                if done != worker.progress || worker.progress_at.is_none() {
                    worker.progress_at = Some(now);
                }
                worker.progress = done;
                Ok(())
            }
            FromWorker::Camera(report) if role == Role::Capture => self.on_camera(key.slot, report),
            FromWorker::Window(window) if role == Role::Capture => self.on_window(key.slot, window),
            FromWorker::Scores { batch, windows } if role == Role::Infer => {
                self.on_scores(key.slot, batch, windows)
            }
            FromWorker::Ack { up_to } if role == Role::Sink => match self.ledger.acknowledge(up_to) {
                true => Ok(()),
                false => Err(format!("acknowledged record {up_to}, which it was never sent")),
            },
            FromWorker::Deliveries(report) if role == Role::Sink => {
                self.deliveries = report;
                Ok(())
            }
            FromWorker::Event { json } if role == Role::Sink => {
                self.actions.push(Action::Show { json });
                self.tell_web_of_event();
                Ok(())
            }
            FromWorker::History { number, answer } if role == Role::Sink => self.on_history(number, answer),
            FromWorker::WantStatus if role == Role::Web => {
                self.on_want_status(key.slot);
                Ok(())
            }
            FromWorker::Question { ticket, question } if role == Role::Web => {
                self.on_question(key.slot, ticket, question)
            }
            FromWorker::WantMedia { ticket, camera } if matches!(role, Role::Web | Role::Light) => {
                self.on_want_media(key, ticket, &camera);
                Ok(())
            }
            FromWorker::OpenClip { clip, camera, from_us, max_bytes } if role == Role::Sink => {
                self.on_open_clip(clip, &camera, from_us, max_bytes)
            }
            FromWorker::CloseClip { clip, camera, until_us } if role == Role::Sink => {
                self.on_close_clip(clip, &camera, until_us);
                Ok(())
            }
            FromWorker::WantClip { ticket, event_id } if role == Role::Web => {
                self.on_want_clip(ticket, event_id)
            }
            FromWorker::ClipOf { number, found } if role == Role::Sink => self.on_clip_of(number, found),
            FromWorker::ClipClosed { clip, report } if role == Role::Capture => {
                self.on_clip_closed(key.slot, clip, report);
                Ok(())
            }
            FromWorker::Looking { camera } if role == Role::Light => self.on_looking(camera),
            FromWorker::Looked { camera, motion } if role == Role::Light => self.on_looked(camera, motion),
            FromWorker::WantPicture { ticket, wanted } if matches!(role, Role::Web | Role::Sink) => {
                self.on_want_picture(key, ticket, wanted)
            }
            FromWorker::PictureOf { number, found } if role == Role::Light => {
                self.on_picture_of(number, found)
            }
            _ => Err(format!("said something that is not for role {} to say", role.as_str())),
        };
        if let Err(crime) = crime {
            self.kill(key.slot, crime);
        }
    }

    fn on_hello(&mut self, key: Key, protocol: u32, version: &str, claimed: Role) -> Result<(), String> {
        let Some(worker) = self.current(key) else { return Ok(()) };
        if worker.state != State::Starting {
            return if worker.state == State::Stopping { Ok(()) } else { Err("said hello twice".into()) };
        }
        if protocol != PROTOCOL || version != VERSION {
            return Err(format!(
                "its program is version {version} (protocol {protocol}), \
                 this nursery is {VERSION} (protocol {PROTOCOL}): install all from the same release"
            ));
        }
        if claimed != worker.role {
            return Err(format!("says it is {}", claimed.as_str()));
        }
        let (role, camera) = (worker.role, worker.camera);
        let configure = match role {
            Role::Capture => {
                let Some(camera) = camera.and_then(|id| self.cameras.get(&id)) else { return Ok(()) };
                let model = ModelShape::clone(&self.model.shape);
                ToWorker::ConfigureCapture {
                    camera: camera.config.clone(),
                    model,
                    remember_s: self.remember_s(),
                }
            }
            Role::Infer => {
                let Some(worker) = self.workers.get(&key.slot) else { return Ok(()) };
                let model = self.model_for(worker).clone();
                if let Some(worker) = self.current(key) {
                    worker.assigned = Some(model.shape);
                }
                ToWorker::ConfigureInfer { model: model.path, threads: self.config.inference.threads }
            }
            Role::Sink => {
                self.sink_outdated = false;
                ToWorker::ConfigureSink(self.sink_config())
            }
            Role::Web => {
                // Without one it was told to go already.
                let Some(configure) = self.web_configuration() else { return Ok(()) };
                configure
            }
            Role::Light => self.light_configuration(),
        };
        self.send(key.slot, configure);
        Ok(())
    }

    /// What a process can no longer do; believed as long as nothing foreign has reached it.
    fn on_caged(&mut self, key: Key, cage: Cage) -> Result<(), String> {
        let Some(worker) = self.current(key) else { return Ok(()) };
        match worker.state {
            State::Starting if worker.cage.is_none() => {
                let (cage, role, name) = (cage.presentable(), worker.role, worker.name.clone());
                worker.cage = Some(cage.clone());
                for missing in cage.missing {
                    // That this is not root was said at the start, and what follows from it is in the status.
                    let known = matches!(
                        missing.guard,
                        Guard::OwnUser | Guard::NotDumpable | Guard::ControlGroup | Guard::NoNetwork
                    );
                    if !known && self.told_missing.insert((role, missing.guard)) {
                        let (guard, why) = (missing.guard.name(), missing.why);
                        self.log(Level::Warn, format!("{name}: its cage is incomplete: {guard}: {why}"));
                    }
                }
                Ok(())
            }
            State::Stopping => Ok(()),
            _ => Err("told of its cage twice, or too late".into()),
        }
    }

    fn on_ready(&mut self, key: Key) -> Result<(), String> {
        let now = self.now;
        let Some(worker) = self.current(key) else { return Ok(()) };
        match worker.state {
            State::Starting => {
                worker.state = State::Running;
                worker.ready_at = Some(now);
                worker.heard_at = now;
                worker.renewing = false;
                if worker.loaded.is_none() {
                    worker.loaded.clone_from(&worker.assigned);
                }
                self.light_ready(key.slot);
                if key.slot == self.sink && std::mem::take(&mut self.sink_outdated) {
                    self.send(key.slot, ToWorker::ConfigureSink(self.sink_config()));
                }
                Ok(())
            }
            State::Stopping => Ok(()),
            _ => Err("said ready twice".into()),
        }
    }

    fn on_camera(&mut self, slot: u32, mut report: CameraReport) -> Result<(), String> {
        let now = self.now;
        report.error = report.error.map(|e| presentable(&e));
        let Some(worker) = self.workers.get_mut(&slot) else { return Ok(()) };
        worker.ended |= report.state == StreamState::Ended;
        let name = worker.name.clone();
        let Some(camera) = worker.camera.and_then(|id| self.cameras.get_mut(&id)) else { return Ok(()) };
        let ended = report.state == StreamState::Ended && camera.stream != StreamState::Ended;
        if camera.stream != report.state {
            self.quiet_until = None;
        }
        camera.stream = report.state;
        camera.error.clone_from(&report.error);
        camera.level_dbfs =
            report.level_dbfs.filter(|l| l.is_finite()).map(|l| (f64::from(l) * 10.0).round() / 10.0);
        camera.dropped_upstream = report.dropped;
        let heard = report.last_audio_us.map(|us| Time(us).min(now));
        if report.state == StreamState::Live && heard.is_some() {
            self.heard(slot, heard.unwrap_or(now));
        }
        // Its errors, and that it is live, a capture process logs itself.
        if ended {
            self.log(Level::Info, format!("{name}: the recording ended"));
        }
        Ok(())
    }

    /// Audio of a camera arrived at `at`.
    fn heard(&mut self, slot: u32, at: Time) {
        let at_us = self.wall_us;
        let Some(id) = self.workers.get(&slot).and_then(|w| w.camera) else { return };
        let Some(camera) = self.cameras.get_mut(&id) else { return };
        let newer = camera.last_audio.is_none_or(|t| at > t);
        if !newer {
            return;
        }
        camera.last_audio = Some(at);
        camera.heard_at = camera.heard_at.max(at);
        if camera.told_online != Some(true) {
            camera.told_online = Some(true);
            self.quiet_until = None;
            let record = Record { camera: camera.config.name.clone(), what: RecordKind::Online { at_us } };
            self.ledger.push(record);
        }
    }

    fn sink_config(&self) -> SinkConfig {
        SinkConfig {
            run: self.seed,
            state_dir: self.state_dir.clone(),
            alerts: self.config.alerts.clone(),
            detection: self.config.detection,
            heartbeat: self.config.heartbeat.clone(),
            clips: self.config.clips.decided(self.config.web.is_some()),
            keep_days: self.config.store.keep_days,
            cameras: self
                .config
                .cameras
                .iter()
                .map(|camera| nursery_shared::message::CameraDetection {
                    camera: camera.name.clone(),
                    detection: self.config.detection.for_camera(camera),
                })
                .collect(),
        }
    }

    fn pump_ledger(&mut self) {
        let sink = self.sink;
        if self.workers.get(&sink).is_some_and(|w| w.state == State::Running) {
            while let Some(message) = self.ledger.next_to_send() {
                self.send(sink, message);
            }
        }
    }
}

/// What is said all the time, and gives nobody an earlier deadline, but where its handler says so.
fn is_everyday(message: &FromWorker) -> bool {
    matches!(
        message,
        FromWorker::Window(_)
            | FromWorker::Scores { .. }
            | FromWorker::Progress { .. }
            | FromWorker::Camera(_)
            | FromWorker::Ack { .. }
    )
}

/// What is done all the time; a batch's deadline is known to whoever sends it.
fn leaves_deadlines(action: &Action) -> bool {
    match action {
        Action::Send { message, .. } => matches!(**message, ToWorker::Batch { .. } | ToWorker::Record { .. }),
        Action::Show { .. } | Action::ShowStatus { .. } => true,
        _ => false,
    }
}

/// Longest error text of a camera that is shown.
const MAX_ERROR: usize = 500;

/// A text from a worker, of bounded length and without anything that would move a terminal's cursor.
fn presentable(text: &str) -> String {
    text.chars().take(MAX_ERROR).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
