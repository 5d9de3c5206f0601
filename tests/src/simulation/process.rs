//! A simulated worker process: its life from the start to the moment when the policy knows that it is gone. What it
//! does while it works is in [`super::capture`], [`super::infer`] and [`super::sink`].

use std::{collections::VecDeque, rc::Rc, time::Duration};

use nursery_shared::{
    VERSION,
    message::{FromWorker, PROTOCOL, Role, ToWorker},
};
use nursery_supervisor::policy::{Event, Exit, Key, Time};

use super::{
    capture::Capture,
    faults::Fault,
    infer::Infer,
    models::Model,
    sink::Sink,
    world::{Due, World, millis},
};

/// What a process does at a time of its own.
#[derive(Debug, Clone)]
pub enum Act {
    Hello,
    Ready,
    /// The report of its working loop.
    Beat,
    /// capture: audio.
    Window,
    /// infer: the batch is done.
    Scores {
        batch: u64,
    },
    /// sink: the working loop goes round.
    Pass,
    /// What it was born to do wrong.
    Fate,
    /// It ends, and the policy gets to know later.
    End(Exit),
    /// It hangs, and must have been found by now.
    MustBeFound,
}

/// Whoever hangs is found, looked into and killed within this time after what it is allowed.
const FOUND: Duration = Duration::from_millis(1_700);

/// What a role does.
pub enum Body {
    Capture(Capture),
    Infer(Infer),
    Sink(Box<Sink>),
    /// Says that it works, and nothing else.
    Web,
}

/// One process.
pub struct Process {
    pub key: Key,
    pub role: Role,
    pub name: Rc<str>,
    /// Still runs; one that does not is not reaped yet.
    pub alive: bool,
    pub hangs: bool,
    pub ready: bool,
    /// It gave a reason to be killed.
    pub guilty: bool,
    pub draining: bool,
    pub ignores_drain: bool,
    /// It was told to drain, whether or not it could hear that.
    pub told_to_go: Option<Time>,
    /// It was read from again after a while.
    pub resumed_at: Option<Time>,
    /// Its end was its own and in order.
    pub finished: bool,
    /// Its socket is not read from; what it says waits.
    pub held: Option<VecDeque<FromWorker>>,
    pub body: Body,
}

impl World {
    /// The process that has this key and still works.
    pub(super) fn working(&mut self, key: Key) -> Option<&mut Process> {
        self.processes.get_mut(&key.slot).filter(|p| p.key == key && p.alive && !p.hangs)
    }

    /// A chance that something goes wrong for this worker, by its own stream.
    pub(super) fn befalls(&mut self, name: &str, role: Role, chance: f64) -> bool {
        let heat = self.heat(name, role);
        self.stream(name).f64() < chance * heat
    }

    fn heat(&self, name: &str, role: Role) -> f64 {
        if self.calm || self.options.spared.as_deref() == Some(name) {
            return 0.0;
        }
        match role {
            Role::Capture => self.intensity.capture,
            Role::Infer => self.intensity.infer,
            Role::Sink | Role::Web | Role::Light => self.intensity.sink,
        }
    }

    pub(super) fn spawn(&mut self, key: Key, role: Role, name: &str) {
        self.live(name, "start");
        if self.befalls(name, role, 0.04) {
            self.fault(Fault::SpawnFails, name);
            self.tell(Event::SpawnFailed { key, error: "out of descriptors".into() });
            return;
        }
        self.tell(Event::Spawned { key, pid: key.slot * 1000 + key.generation });
        let body = match role {
            Role::Capture => Body::Capture(Capture::new(self.now)),
            Role::Infer => Body::Infer(Infer::default()),
            Role::Sink => Body::Sink(Box::default()),
            // The simulated one looks at nothing.
            Role::Web | Role::Light => Body::Web,
        };
        let process = Process {
            key,
            role,
            name: name.into(),
            alive: true,
            hangs: false,
            ready: false,
            guilty: false,
            draining: false,
            ignores_drain: false,
            told_to_go: None,
            resumed_at: None,
            finished: false,
            held: None,
            body,
        };
        self.processes.insert(key.slot, process);
        let mut delay = self.millis_of(name, 2..30);
        if self.befalls(name, role, 0.05) {
            self.fault(Fault::DiesAtStart, name);
            let signal = self.stream(name).i32(1..32);
            self.plan(delay, Due::Act(key, Act::End(Exit::Signal(signal))));
            if self.stream(name).bool() {
                return;
            }
        } else if self.befalls(name, role, 0.01) {
            self.fault(Fault::HangsAtStart, name);
            self.hang(key, Duration::from_secs(20));
            return;
        }
        if self.befalls(name, role, 0.06) {
            self.fault(Fault::StartsSlowly, name);
            delay += self.millis_of(name, 300..9_000);
        }
        self.plan(delay, Due::Act(key, Act::Hello));
    }

    /// From now on it does nothing; it must be found after `limit`.
    pub(super) fn hang(&mut self, key: Key, limit: Duration) {
        if let Some(process) = self.processes.get_mut(&key.slot) {
            process.hangs = true;
            process.guilty = true;
            self.plan(limit + FOUND, Due::Act(key, Act::MustBeFound));
        }
    }

    /// It ends now, by itself or killed.
    pub(super) fn die(&mut self, key: Key, exit: Exit) {
        let Some(process) = self.processes.get_mut(&key.slot).filter(|p| p.key == key && p.alive) else {
            return;
        };
        process.alive = false;
        let (name, role, finished) = (Rc::clone(&process.name), process.role, process.finished);
        let mut delay = self.millis_of(&name, 0..8);
        if !finished && self.befalls(&name, role, 0.03) {
            self.fault(Fault::LeavesLate, &name);
            delay += self.millis_of(&name, 20..900);
            // Its socket ends before it is reaped.
            if self.stream(&name).bool() {
                self.tell(Event::Broken { key, why: "closed its socket".into() });
            }
        }
        self.plan(delay, Due::Exit(key, exit));
    }

    /// It says something to the policy.
    pub(super) fn say(&mut self, key: Key, message: FromWorker) {
        let Some(process) = self.processes.get_mut(&key.slot).filter(|p| p.key == key && p.alive) else {
            return;
        };
        match &mut process.held {
            Some(held) => held.push_back(message),
            None => self.tell(Event::Message { key, message }),
        }
    }

    pub(super) fn set_reading(&mut self, key: Key, reading: bool) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&key.slot).filter(|p| p.key == key) else { return };
        if !reading {
            process.held.get_or_insert_default();
        } else if let Some(held) = process.held.take() {
            process.resumed_at = Some(now);
            held.into_iter().for_each(|message| self.tell(Event::Message { key, message }));
        }
    }

    /// Something that the policy sent arrives.
    pub(super) fn arrives(&mut self, key: Key, message: ToWorker) {
        let Some(process) = self.working(key) else { return };
        let (name, role) = (Rc::clone(&process.name), process.role);
        match message {
            ToWorker::Drain => {
                process.draining = true;
                if self.befalls(&name, role, 0.1) {
                    self.fault(Fault::IgnoresDrain, &name);
                    if let Some(process) = self.working(key) {
                        process.guilty = true;
                        process.ignores_drain = true;
                    }
                } else {
                    self.may_leave(key);
                }
            }
            ToWorker::ConfigureCapture { .. }
            | ToWorker::ConfigureInfer { .. }
            | ToWorker::ConfigureWeb(_) => {
                if let Body::Infer(infer) = &mut process.body {
                    infer.model = Model::told(&message);
                    if infer.model.is_broken() {
                        self.fault(Fault::BrokenModel, &name);
                        let delay = self.millis_of(&name, 1..60);
                        return self.plan(delay, Due::Act(key, Act::End(Exit::Code(1))));
                    }
                }
                let delay = self.millis_of(&name, 1..60);
                self.plan(delay, Due::Act(key, Act::Ready));
            }
            ToWorker::ConfigureSink(config) => self.configure_sink(key, config),
            ToWorker::Batch { batch, windows } => self.take_batch(key, batch, windows),
            ToWorker::Record { seq, record } => self.take_record(key, seq, record),
            // What it says of the service is checked by the policy's own tests.
            ToWorker::Heartbeat => {}
            // Nobody looks, so nothing is asked.
            ToWorker::Status(_) | ToWorker::Stored | ToWorker::Question { .. } | ToWorker::History { .. } => {
            }
            ToWorker::Media { .. }
            | ToWorker::MediaOf { .. }
            | ToWorker::OpenClip { .. }
            | ToWorker::CloseClip { .. }
            | ToWorker::ClipClosed { .. }
            | ToWorker::Remember { .. }
            | ToWorker::WantClip { .. }
            | ToWorker::ClipOf { .. }
            | ToWorker::ConfigureLight(_)
            | ToWorker::WantPicture { .. }
            | ToWorker::PictureOf { .. } => {}
        }
    }

    /// A process that drains goes as soon as it has nothing in hand.
    pub(super) fn may_leave(&mut self, key: Key) {
        let Some(process) = self.working(key) else { return };
        let busy = match &process.body {
            Body::Capture(_) | Body::Web => false,
            Body::Infer(infer) => infer.is_busy(),
            Body::Sink(sink) => sink.is_busy(),
        };
        if process.draining && !process.ignores_drain && !busy {
            let name = Rc::clone(&process.name);
            let delay = self.millis_of(&name, 1..40);
            self.plan(delay, Due::Act(key, Act::End(Exit::Code(0))));
        }
    }

    pub(super) fn act(&mut self, key: Key, act: Act) {
        if let Act::End(exit) = act {
            return self.die(key, exit);
        }
        if let Act::MustBeFound = act {
            return self.must_be_found(key);
        }
        let Some(process) = self.working(key) else { return };
        let (name, role) = (Rc::clone(&process.name), process.role);
        match act {
            Act::Hello => {
                let wrong = self.befalls(&name, role, 0.01);
                if wrong {
                    self.fault(Fault::WrongVersion, &name);
                    self.blame(key);
                }
                let version = if wrong { "0.0.0".into() } else { VERSION.into() };
                self.say(key, FromWorker::Hello { protocol: PROTOCOL, version, role });
            }
            Act::Ready => {
                process.ready = true;
                if let Body::Infer(infer) = &process.body {
                    let shape = infer.model.shape(self.hop_us);
                    self.say(key, FromWorker::Loaded(shape));
                }
                self.live(&name, "ready");
                self.say(key, FromWorker::Ready);
                self.plan(Duration::ZERO, Due::Act(key, Act::Beat));
                if role == Role::Capture {
                    let delay = self.millis_of(&name, 20..400) + Duration::from_micros(self.hop_us);
                    self.plan(delay, Due::Act(key, Act::Window));
                }
                let heat = self.heat(&name, role);
                if heat > 0.0 {
                    // Lives of any length around this one.
                    let wait = -self.stream(&name).f64().max(1e-9).ln() * 5_000.0 / heat;
                    self.plan(millis(wait as u64), Due::Act(key, Act::Fate));
                }
            }
            Act::Beat => self.beat(key),
            Act::Window => self.hear(key),
            Act::Scores { batch } => self.finish_batch(key, batch),
            Act::Pass => self.sink_pass(key),
            Act::Fate => self.fate(key, &name, role),
            Act::End(_) | Act::MustBeFound => {}
        }
    }

    /// It will be killed, and rightly so.
    pub(super) fn blame(&mut self, key: Key) {
        if let Some(process) = self.processes.get_mut(&key.slot) {
            process.guilty = true;
        }
    }

    /// A sudden end of a life, in one way or another.
    fn fate(&mut self, key: Key, name: &str, role: Role) {
        if self.heat(name, role) == 0.0 {
            return;
        }
        match self.stream(name).u8(..8) {
            0..=3 => {
                self.fault(Fault::Dies, name);
                let signal = self.stream(name).i32(1..32);
                self.die(key, Exit::Signal(signal));
            }
            4 => {
                let busy = matches!(&self.processes[&key.slot].body, Body::Infer(i) if i.is_busy());
                self.fault(if busy { Fault::HangsWithWork } else { Fault::HangsIdle }, name);
                let limit = match role {
                    Role::Capture => Duration::from_secs(6),
                    // Idle it owes nothing; found with the next batch, and counted from there.
                    Role::Infer if !busy => Duration::from_secs(3600),
                    Role::Infer => Duration::from_secs(4),
                    Role::Sink => Duration::from_secs(11),
                    Role::Web | Role::Light => Duration::from_secs(6),
                };
                self.hang(key, limit);
            }
            5 => {
                self.fault(Fault::ClosesSocket, name);
                self.blame(key);
                self.tell(Event::Broken { key, why: "closed its socket".into() });
            }
            6 if role == Role::Capture => {
                self.fault(Fault::MisshapenWindow, name);
                self.blame(key);
                self.misshapen(key);
            }
            _ => {
                self.fault(Fault::Babbles, name);
                self.blame(key);
                let message = match (self.stream(name).u8(..4), role) {
                    (0, _) => FromWorker::Hello { protocol: PROTOCOL, version: VERSION.into(), role },
                    (1, _) => FromWorker::Ready,
                    (2, Role::Sink) | (_, Role::Capture) => {
                        FromWorker::Scores { batch: 0, windows: Vec::new() }
                    }
                    _ => self.window_of(u64::MAX, 0, false),
                };
                self.say(key, message);
            }
        }
    }

    /// A process that hangs is found in time, unless the supervisor could not look.
    fn must_be_found(&mut self, key: Key) {
        let Some(process) = self.processes.get(&key.slot).filter(|p| p.key == key && p.alive) else { return };
        let role = process.role;
        let told = process.told_to_go.max(process.resumed_at);
        let going = process.told_to_go.is_some();
        let grace = Duration::from_secs(match (role, process.ready) {
            _ if going => 9,
            (_, false) => 22,
            (Role::Capture | Role::Web | Role::Light, _) => 8,
            (Role::Infer, _) => 6,
            (Role::Sink, _) => 13,
        });
        let since = self.now.since(told.map_or(self.stood_still_at, |t| t.max(self.stood_still_at)));
        let idle = role == Role::Infer && process.ready && self.truth.is_idle(key.slot);
        if process.held.is_some() || (idle && !going) {
            return;
        }
        if since < grace || self.stopped {
            let wait = grace.saturating_sub(since) + Duration::from_millis(100);
            self.plan(wait, Due::Act(key, Act::MustBeFound));
        } else {
            let text = format!("{} hangs and nobody finds it", process.name);
            self.violated(text);
        }
    }

    pub(super) fn beat(&mut self, key: Key) {
        let Some(process) = self.working(key) else { return };
        match process.role {
            Role::Capture => self.capture_beat(key),
            Role::Infer | Role::Web | Role::Light => self.say(key, FromWorker::Progress { done: 1 }),
            // Its working loop reports.
            Role::Sink => return self.sink_pass(key),
        }
        self.plan(Duration::from_secs(1), Due::Act(key, Act::Beat));
    }

    /// When something is to happen with this process.
    pub(super) fn plan(&mut self, after: Duration, due: Due) {
        let at: Time = self.now + after;
        self.agenda.plan(at, due);
    }
}
