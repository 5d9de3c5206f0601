//! The world around the policy: it does what the readiness loop does with real processes, in passes of the same shape
//! (everything that has arrived, then a tick, then the next deadline), and asks the truth after every event.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Range,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use nursery_shared::status::WorkerState;
use nursery_shared::{
    config::Config,
    message::{FromWorker, Role, ToWorker},
};
use nursery_supervisor::policy::{Action, Event, Exit, Key, Policy, Setup, Time};

use super::{
    agenda::Agenda,
    disk::Disk,
    faults::{self, Counts, Fault, Intensity},
    host,
    infer::WRONG,
    law::Law,
    models::Model,
    outside::Request,
    planted::Planted,
    process::{Act, Process},
    truth::{Truth, number_in},
};

/// Samples of a window: its number and whether it cries, so that millions of them fit.
pub const WINDOW: usize = 8;
/// Bytes of a stream's state, of the first model.
pub const STATE: u32 = 8;
/// Passes at one moment, from which on a loop does not end.
const MANY_PASSES: u32 = 1_000;

/// Milliseconds.
pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How a seed is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A bug between policy and world.
    pub planted: Option<Planted>,
    /// Keep what happened as text; all of it or, without, nothing.
    pub trace: bool,
    /// This worker has no faults of its own.
    pub spared: Option<String>,
    /// A world in which nothing that workers share is broken, see [`super::isolation`].
    pub isolation: bool,
    /// The sink keeps its memory in a real store in this directory.
    pub store: Option<PathBuf>,
}

/// What will happen.
#[derive(Debug)]
pub enum Due {
    Act(Key, Act),
    /// A process is reaped.
    Exit(Key, Exit),
    Request(Box<Request>),
    Host,
    Operator,
    /// The supervisor goes on after it was stopped.
    Resume,
    DiskFull(bool),
    /// A worker was looked into.
    Examined(Key),
}

/// Everything.
pub struct World {
    pub seed: u64,
    pub options: Options,
    pub intensity: Intensity,
    /// No more faults.
    pub calm: bool,
    /// Every camera cries, or none; `None`: as they like.
    pub crying: Option<bool>,
    /// No camera has audio.
    pub mute: bool,
    pub now: Time,
    pub wall_offset: i64,
    /// What virtual instants are counted from.
    pub epoch: Instant,
    pub agenda: Agenda<Due>,
    pub config: Config,
    /// The wall clock may be set back.
    pub goes_back: bool,
    pub hop_us: u64,
    /// Capture processes that wait for their turn to be restarted, or did.
    pub to_be_restarted: BTreeSet<u32>,
    /// Inference processes that ran when the last pass was over.
    ran: BTreeSet<u32>,
    /// Capture slots of recordings.
    pub recordings: BTreeSet<u32>,
    pub policy: Policy,
    pub armed: Option<Time>,
    /// The supervisor does not run.
    pub stopped: bool,
    pub stood_still_at: Time,
    /// Somebody who owes reports made one.
    reported_at: Option<Time>,
    pending: VecDeque<Event>,
    pub processes: BTreeMap<u32, Process>,
    streams: HashMap<String, fastrand::Rng>,
    pub truth: Truth,
    pub law: Law,
    pub disk: Rc<RefCell<Disk>>,
    pub counts: Counts,
    pub next_window: u64,
    /// The service was told to stop, and has.
    pub stopping: bool,
    pub finished: bool,
    pub steps: u64,
    pub broken: Option<String>,
    pub last: Vec<String>,
    /// Lives of capture processes, to be compared with those of another run.
    pub lives: BTreeMap<String, Vec<(u64, &'static str)>>,
    supervisors: u64,
    /// Names of those that were written.
    post_mortems: BTreeSet<String>,
}

impl World {
    /// The beginning of a seed's run.
    pub fn new(seed: u64, options: Options) -> Self {
        let mut rng = faults::stream(seed, "world");
        let mut intensity = Intensity::draw(&mut rng);
        if options.isolation {
            intensity = Intensity { capture: 1.0, operator: 0.0, infer: 0.0, sink: 0.0, ..intensity };
        }
        let hop_us = [250_000, 500_000, 1_000_000][rng.usize(..3)];
        let goes_back = rng.u8(..4) == 0;
        let config = host::configuration(&mut rng, options.isolation);
        let now = Time(3_600_000_000);
        let disk = Disk::new(options.store.clone());
        disk.borrow_mut().alerts.loose = goes_back;
        disk.borrow_mut().renames = options.planted == Some(Planted::OtherIds);
        let mut world = Self {
            policy: Policy::new(setup(&config, hop_us, seed), now, host::EPOCH_US),
            truth: truth(&config, hop_us),
            law: Law::new(config.supervision.healthy_after_s),
            seed,
            options,
            intensity,
            calm: false,
            crying: None,
            mute: false,
            now,
            wall_offset: host::EPOCH_US - now.0 as i64,
            epoch: Instant::now(),
            agenda: Agenda::default(),
            config,
            goes_back,
            hop_us,
            to_be_restarted: BTreeSet::new(),
            ran: BTreeSet::new(),
            recordings: BTreeSet::new(),
            armed: None,
            stopped: false,
            stood_still_at: Time(0),
            reported_at: None,
            pending: VecDeque::new(),
            processes: BTreeMap::new(),
            streams: HashMap::new(),
            disk,
            counts: Counts::default(),
            next_window: 0,
            stopping: false,
            finished: false,
            steps: 0,
            broken: None,
            last: Vec::new(),
            lives: BTreeMap::new(),
            supervisors: 0,
            post_mortems: BTreeSet::new(),
        };
        world.plan(millis(1_000), Due::Host);
        world.plan(millis(1_500), Due::Operator);
        world.plan(millis(2_000), Due::DiskFull(true));
        world.pass();
        world
    }

    /// A supervisor begins, with the same disk.
    pub fn begin_supervisor(&mut self) {
        let wall_us = self.wall_us();
        // It does not start with a model that nobody can load.
        if self.config.inference.model.as_deref().is_some_and(|path| Model::at(path).is_broken()) {
            self.config.inference.model = None;
        }
        self.supervisors += 1;
        let run = self.seed.wrapping_add(self.supervisors << 40);
        self.policy = Policy::new(setup(&self.config, self.hop_us, run), self.now, wall_us);
        self.truth = truth(&self.config, self.hop_us);
        self.law = Law::new(self.config.supervision.healthy_after_s);
        self.processes.clear();
        self.recordings.clear();
        self.ran.clear();
        self.pending.clear();
        self.agenda.retain(|due| !matches!(due, Due::Act(..) | Due::Exit(..)));
        self.armed = None;
        self.pass();
    }

    pub fn wall_us(&self) -> i64 {
        self.now.0 as i64 + self.wall_offset
    }

    /// The stream of chance of whoever is called so.
    pub fn stream(&mut self, name: &str) -> &mut fastrand::Rng {
        if !self.streams.contains_key(name) {
            self.streams.insert(name.to_owned(), faults::stream(self.seed, name));
        }
        self.streams.get_mut(name).expect("was put there if it was missing")
    }

    pub fn millis_of(&mut self, name: &str, range: Range<u64>) -> Duration {
        millis(self.stream(name).u64(range))
    }

    /// A fault is injected.
    pub fn fault(&mut self, fault: Fault, whom: &str) {
        self.counts.add(fault);
        if self.options.trace {
            self.note(format!("FAULT {whom}: {}", fault.name()));
        }
    }

    pub fn note(&mut self, text: String) {
        if self.options.trace {
            self.last.push(format!("{:>12.6} s  {text}", (self.now.0 - 3_600_000_000) as f64 / 1e6));
        }
    }

    /// A promise is broken; the first one counts.
    pub fn violated(&mut self, what: String) {
        self.note(format!("BROKEN {what}"));
        self.broken.get_or_insert(what);
    }

    /// Something in the life of a capture process.
    pub fn live(&mut self, name: &str, what: &'static str) {
        if self.options.isolation && name.starts_with("capture:") {
            self.lives.entry(name.to_owned()).or_default().push((self.now.0, what));
        }
    }

    /// The policy is told at its next pass.
    pub fn tell(&mut self, event: Event) {
        self.pending.push_back(event);
    }

    /// Lets time pass until `end`, or until a promise is broken.
    pub fn run_until(&mut self, end: Time) {
        let mut passes = 0;
        while self.broken.is_none() && !self.finished {
            let timer = self.armed.filter(|_| !self.stopped);
            let next = [self.agenda.next_at(), timer].into_iter().flatten().min().unwrap_or(end);
            if next > end {
                self.now = self.now.max(end);
                return;
            }
            passes = if next <= self.now { passes + 1 } else { 0 };
            if passes > MANY_PASSES {
                let text = format!("the loop goes round without end, its timer is {:?}", self.armed);
                return self.violated(text);
            }
            self.now = self.now.max(next);
            while let Some(due) = self.agenda.take_due(self.now) {
                self.happen(due);
            }
            if !self.stopped {
                self.pass();
            }
        }
    }

    fn happen(&mut self, due: Due) {
        if self.options.trace && !matches!(due, Due::Act(_, Act::Pass | Act::Beat | Act::Window)) {
            self.note(format!("{due:?}"));
        }
        match due {
            Due::Act(key, act) => self.act(key, act),
            Due::Exit(key, exit) => {
                // Its last words are read first.
                self.set_reading(key, true);
                self.tell(Event::Exited { key, exit });
            }
            Due::Request(request) => self.request_ends(*request),
            Due::Host => self.host_fault(),
            Due::Operator => self.operator_acts(),
            Due::Resume => self.stopped = false,
            Due::DiskFull(full) => self.disk_fills(full),
            Due::Examined(key) => self.tell(Event::Examined { key }),
        }
    }

    /// One round of the readiness loop.
    pub fn pass(&mut self) {
        if self.options.planted == Some(Planted::BlamesAfterStandstill) {
            self.count_on();
        }
        loop {
            while let Some(event) = self.pending.pop_front() {
                self.deliver(event);
            }
            self.deliver(Event::Tick);
            if self.pending.is_empty() || self.broken.is_some() {
                break;
            }
        }
        self.armed = self.policy.next_deadline();
        if self.options.planted == Some(Planted::TimerMissing)
            && self.policy.slots().any(|s| s.state == WorkerState::Backoff)
        {
            self.armed = self.armed.map(|t| t + Duration::from_secs(3600));
        }
        self.audit_slots();
    }

    fn count_on(&mut self) {
        while let Some(at) = self.armed.filter(|at| *at + Duration::from_secs(2) < self.now) {
            let wall_us = self.wall_us();
            let actions = self.policy.handle(at, wall_us, Event::Tick);
            self.perform(actions);
            self.armed = self.policy.next_deadline().filter(|next| *next > at);
        }
    }

    /// The policy takes an event in.
    fn deliver(&mut self, event: Event) {
        // What a process said before it was no longer read from waits too.
        let mut event = match event {
            Event::Message { key, message } => {
                match self.processes.get_mut(&key.slot).filter(|p| p.key == key).and_then(|p| p.held.as_mut())
                {
                    Some(held) => return held.push_back(message),
                    None => Event::Message { key, message },
                }
            }
            other => other,
        };
        self.steps += 1;
        if self.options.trace {
            match &event {
                Event::Tick
                | Event::Message {
                    message:
                        FromWorker::Progress { .. }
                        | FromWorker::Camera(_)
                        | FromWorker::Deliveries(_)
                        | FromWorker::Event { .. },
                    ..
                } => {}
                other => {
                    let mut text = format!("{other:?}");
                    text.truncate(text.floor_char_boundary(160));
                    self.note(text);
                }
            }
        }
        if self.sabotage(&mut event) {
            return;
        }
        let mut scores = None;
        let mut window_of = None;
        let mut by_itself = false;
        match &event {
            Event::Message { key, message } => {
                let speaker = self.processes.get(&key.slot).filter(|p| p.key == *key).map(|p| p.role);
                let known = speaker.is_some();
                let owes = speaker.is_some_and(|role| role != Role::Infer);
                match message {
                    FromWorker::Progress { .. } if owes => self.reported_at = Some(self.now),
                    FromWorker::Window(w) if speaker == Some(Role::Capture) && w.pcm.len() == WINDOW => {
                        self.truth.window_comes(key.slot, number_in(w.pcm.as_bytes()), Time(w.arrived_us));
                        window_of = Some(key.slot);
                    }
                    FromWorker::Scores { batch, windows } if known => {
                        let wrong = windows.is_empty()
                            || windows.iter().any(|w| w.scores.first().is_none_or(|s| *s == WRONG));
                        scores = Some((key.slot, *batch, wrong));
                    }
                    FromWorker::Ready if known && self.processes[&key.slot].told_to_go.is_none() => {
                        self.law.ready(key.slot, self.now);
                    }
                    _ => {}
                }
            }
            Event::Exited { key, exit } => {
                let Some(process) = self.processes.remove(&key.slot) else { return };
                let rests = process.finished && *exit == Exit::Code(0) && !process.guilty;
                self.law.gone(key.slot, self.now, rests);
                self.truth.process_gone(key.slot);
                self.live(&process.name, "gone");
                by_itself = *exit != Exit::Code(0) && !self.stopping;
            }
            Event::SpawnFailed { key, .. } => {
                self.law.gone(key.slot, self.now, false);
            }
            _ => {}
        }
        let before = self.policy.accounts().scored;
        let (now, wall_us) = (self.now, self.wall_us());
        let actions = self.policy.handle(now, wall_us, event);
        let accounts = self.policy.accounts();
        let written = actions.iter().filter(|a| matches!(a, Action::PostMortem { .. })).count();
        if by_itself && written != 1 {
            self.violated(format!("{written} post-mortems of a process that died"));
        }
        if let Some(slot) = window_of {
            self.truth.after_window(slot);
        }
        if let Some((slot, batch, wrong)) = scores.filter(|_| accounts.scored > before) {
            if wrong {
                self.violated(format!("wrong scores of batch {batch} were taken"));
            }
            self.truth.scored(slot, batch);
        }
        self.perform_and_audit(actions, &accounts);
    }

    pub fn perform_and_audit(
        &mut self,
        actions: Vec<Action>,
        accounts: &nursery_supervisor::policy::Accounts,
    ) {
        let strained = self.policy.strained().collect();
        if let Err(broken) = self.truth.strained(&strained) {
            self.violated(broken);
        }
        self.perform(actions);
        let audit = self.truth.audit(accounts).and_then(|()| self.truth.audit_queues());
        if let Err(broken) = audit {
            self.violated(broken);
        }
        let broken = self.disk.borrow_mut().broken.take();
        if let Some(broken) = broken {
            self.violated(broken);
        }
    }

    /// Planted bugs in what the policy is told. True where it is told nothing.
    fn sabotage(&mut self, event: &mut Event) -> bool {
        match (self.options.planted, event) {
            (
                Some(Planted::AcknowledgementTooFar),
                Event::Message { message: FromWorker::Ack { up_to }, .. },
            ) => {
                if self.truth.was_sent(*up_to + 1) {
                    *up_to += 1;
                }
                false
            }
            (Some(Planted::CameraStarved), Event::Message { key, message: FromWorker::Window(w) }) => {
                let lost = key.generation > 1;
                if lost {
                    let number = number_in(w.pcm.as_bytes());
                    self.truth.window_comes(key.slot, number, Time(w.arrived_us));
                }
                lost
            }
            (Some(Planted::NoBackoff), Event::Exited { key, .. }) => {
                let key = *key;
                self.pending.push_back(Event::Tick);
                // The operator in the bug restarts it as soon as the policy knows.
                self.restart_after(key);
                true
            }
            _ => false,
        }
    }

    fn restart_after(&mut self, key: Key) {
        let Some(process) = self.processes.remove(&key.slot) else { return };
        self.law.gone(key.slot, self.now, false);
        self.truth.process_gone(key.slot);
        let (now, wall_us) = (self.now, self.wall_us());
        let first = self.policy.handle(now, wall_us, Event::Exited { key, exit: Exit::Signal(9) });
        self.perform(first);
        let (_, actions) = self.policy.restart(now, wall_us, &process.name);
        self.perform(actions);
    }

    pub fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Spawn { key, role, name } => self.on_spawn(key, role, &name),
                Action::Send { key, message } => self.on_send(key, *message),
                Action::Kill { key } => self.on_kill(key),
                Action::SetReading { key, reading } => self.set_reading(key, reading),
                Action::Log { text, .. } => {
                    if text.contains("fell silent at once") {
                        self.all_forgiven();
                    }
                    if self.options.trace {
                        self.note(format!("policy: {text}"));
                    }
                }
                // Nobody looks.
                Action::Show { .. } | Action::ShowStatus { .. } | Action::Connect { .. } => {}
                Action::Examine { key } => self.on_examine(key),
                Action::PostMortem { post_mortem, .. } => {
                    if !self.post_mortems.insert(post_mortem.id.clone()) {
                        self.violated(format!("post-mortem {} is written twice", post_mortem.id));
                    }
                }
                Action::Finished => self.finished = true,
            }
        }
    }

    fn on_spawn(&mut self, key: Key, role: Role, name: &str) {
        if let Err(broken) = self.law.started(key.slot, self.now) {
            self.violated(format!("{name}: {broken}"));
        }
        if self.processes.contains_key(&key.slot) {
            self.violated(format!("{name} runs twice"));
        }
        if role == Role::Capture {
            let camera = name.strip_prefix("capture:").unwrap_or_default();
            let lossless = self.config.cameras.iter().any(|c| c.name == camera && !c.realtime);
            if lossless {
                self.disk.borrow_mut().alerts.recording(camera);
            }
            self.truth.is_lossless(key.slot, lossless);
            if lossless {
                self.recordings.insert(key.slot);
            } else {
                self.recordings.remove(&key.slot);
            }
        }
        self.spawn(key, role, name);
    }

    fn on_send(&mut self, key: Key, message: ToWorker) {
        match &message {
            ToWorker::Batch { batch, windows } => {
                if let Err(broken) = self.truth.batch(key.slot, *batch, windows) {
                    self.violated(broken);
                }
                if self.options.planted == Some(Planted::BatchLost) && batch % 50 == 49 {
                    return;
                }
            }
            ToWorker::Record { seq, record } => {
                if self.options.planted == Some(Planted::RecordSkipped)
                    && key.generation > 1
                    && *seq == self.policy.accounts().oldest_record
                    && seq % 7 == 0
                {
                    return;
                }
                match self.truth.record(*seq, record) {
                    Ok(true) => self.disk.borrow_mut().alerts.record(record),
                    Ok(false) => {}
                    Err(broken) => self.violated(broken),
                }
            }
            ToWorker::Drain => {
                self.law.asked(key.slot, true);
                self.somebody_scores(key.slot);
                let now = self.now;
                if let Some(process) = self.processes.get_mut(&key.slot).filter(|p| p.key == key) {
                    process.told_to_go.get_or_insert(now);
                }
            }
            _ => {}
        }
        // The policy has not been told yet that it could not be started.
        let fails = |e: &Event| matches!(e, Event::SpawnFailed { key: failed, .. } if *failed == key);
        if message == ToWorker::Drain && self.pending.iter().any(fails) {
            return;
        }
        if self.processes.get(&key.slot).is_none_or(|p| p.key != key) {
            self.violated(format!("{message:?} goes to a process that does not run"));
        }
        self.arrives(key, message);
    }

    /// An inference process is told to go: another one must run if this one did.
    fn somebody_scores(&mut self, slot: u32) {
        let runs = |s: &nursery_supervisor::policy::Slot<'_>| {
            s.role == Role::Infer && s.state == WorkerState::Running && s.number != slot
        };
        if self.ran.contains(&slot) && !self.stopping && !self.policy.slots().any(|s| runs(&s)) {
            self.violated("the only process that scores is told to go".into());
        }
    }

    /// The examiner answers before its time is over, or hangs, or answers when nobody waits for it any more.
    fn on_examine(&mut self, key: Key) {
        // From now on its end is its fault, whoever brings it about.
        self.law.asked(key.slot, false);
        // Of each worker its own, so that nobody's faults are another's chances.
        match self.millis_of(&format!("examiner of slot {}", key.slot), 0..1_200) {
            hangs if hangs > millis(1_000) => {}
            wait => self.plan(wait, Due::Examined(key)),
        }
    }

    /// The policy finds that all fell silent at once, and begins to wait anew.
    fn all_forgiven(&mut self) {
        if let Some(spoken) = self.reported_at.filter(|t| self.now.since(*t) < Duration::from_secs(3)) {
            let before = self.now.since(spoken).as_millis();
            self.violated(format!("all are said to be silent, and one reported {before} ms before"));
        }
        self.stood_still_at = self.now;
    }

    /// Only who gave a reason is killed.
    fn on_kill(&mut self, key: Key) {
        self.law.asked(key.slot, false);
        let Some(process) = self.processes.get(&key.slot).filter(|p| p.key == key) else { return };
        let name = Rc::clone(&process.name);
        // A sink that cannot store cannot leave.
        let stuck = process.role == Role::Sink
            && process.told_to_go.is_some_and(|t| self.now.since(t) >= Duration::from_secs(6));
        if process.alive && !process.guilty && !stuck && !self.stopping {
            self.violated(format!("{name} is killed and has done nothing"));
        }
        self.blame(key);
        self.live(&name, "killed");
        self.die(key, Exit::Signal(9));
    }

    /// After every pass: whoever should run does or will, no idle process beside a waiting window.
    fn audit_slots(&mut self) {
        if self.stopping {
            return;
        }
        let (now, armed) = (self.now, self.armed);
        let scores = |s: &nursery_supervisor::policy::Slot<'_>| {
            s.role == Role::Infer && s.state == WorkerState::Running
        };
        self.ran = self.policy.slots().filter(scores).map(|s| s.number).collect();
        let mut broken = None;
        for slot in self.policy.slots() {
            self.law.know(slot.number, now);
            let waits = matches!(slot.state, WorkerState::Backoff | WorkerState::Stopped);
            if !slot.wanted || !waits {
                continue;
            }
            match self.law.latest_start(slot.number) {
                // A slot that was made in this pass is started by the next, which is due at once.
                Some(latest) if armed.is_none_or(|t| t > latest.max(now)) => {
                    broken = Some(format!("{} waits to be started and no timer is armed for it", slot.name));
                }
                None if slot.state == WorkerState::Backoff => {
                    broken = Some(format!("{} waits to be started for no reason", slot.name));
                }
                None if !self.recordings.contains(&slot.number) => {
                    broken = Some(format!("{} is wanted and given up", slot.name));
                }
                _ => {}
            }
        }
        let idle = |s: nursery_supervisor::policy::Slot<'_>| s.serves && self.truth.is_idle(s.number);
        if broken.is_none() && self.truth.anybody_waits(now, armed) && self.policy.slots().any(idle) {
            broken = Some("a window waits beside an idle inference process".into());
        }
        if let Some(broken) = broken {
            self.violated(broken);
        }
    }
}

fn setup(config: &Config, hop_us: u64, seed: u64) -> Setup {
    Setup {
        config: config.clone(),
        pool_override: None,
        model: config.inference.model.as_deref().map_or(Model::default(), Model::at).shape(hop_us),
        state_dir: "simulated".into(),
        cores: 4,
        seed,
    }
}

fn truth(config: &Config, hop_us: u64) -> Truth {
    // Six seconds of audio may wait, in an overload one.
    let windows_in = |us: u64| us.div_ceil(hop_us).max(2) as usize;
    Truth::new((windows_in(6_000_000), windows_in(1_000_000)), config.inference.max_batch as usize)
}
