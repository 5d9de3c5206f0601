//! The readiness loop: turns what the kernel reports into events for the policy, and the policy's actions into
//! system calls.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        socket::{AddressFamily, SockFlag, SockType, socketpair},
    },
};
use nursery_shared::{
    cage::Guard,
    control::{Reply, Request},
    message::{FromWorker, Role, ToWorker},
    postmortem::Finding,
    timestamp,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{
    Options, ServiceError,
    cgroups::{Group, Groups},
    clients::{Clients, Outcome, Peer},
    examiner::Examiner,
    identity::{self, Identities},
    logs::Logs,
    notify::Notifier,
    postmortems::PostMortems,
    probe::Probe,
    process::{Process, Read1, Remains},
    procfs,
    programs::Programs,
    reload::Tryout,
    spawn::{self, Conditions},
};
use crate::policy::{Action, Event, Key, Level, Policy, Setup, Time};

/// A worker whose socket has ended but that still runs is not going to work again.
const END_GRACE: Duration = Duration::from_secs(1);
/// Read quotas that the last words of a worker may take.
const LAST_WORDS: usize = 8;
/// How long no client is accepted after accepting one failed.
const DEAF: Duration = Duration::from_secs(1);
/// Processes that look into workers at once. Many that hang at once do so for one reason, and two that are looked
/// into in time tell more than many that take the processor from each other.
const MAX_EXAMINERS: usize = 2;
/// Readiness events taken at once.
const EVENTS: usize = 256;
/// Bytes taken from a worker's socket at once: as much as fits into one.
const READ_AT_ONCE: usize = 256 << 10;

/// What a descriptor in the loop is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token {
    Signal(u32),
    Listener,
    Exit(u32),
    Socket(u32),
    Output(u32),
    Client(u32),
    /// Its exit.
    Examiner(u32),
    /// Its output.
    Findings(u32),
    /// The exit of a look at a model.
    Probe,
}

impl Token {
    pub(super) fn encode(self) -> u64 {
        let (kind, value) = match self {
            Token::Signal(n) => (0, n),
            Token::Listener => (1, 0),
            Token::Exit(n) => (2, n),
            Token::Socket(n) => (3, n),
            Token::Output(n) => (4, n),
            Token::Client(n) => (5, n),
            Token::Examiner(n) => (6, n),
            Token::Findings(n) => (7, n),
            Token::Probe => (8, 0),
        };
        (kind << 32) | u64::from(value)
    }

    fn decode(data: u64) -> Option<Self> {
        let value = data as u32;
        Some(match data >> 32 {
            0 => Token::Signal(value),
            1 => Token::Listener,
            2 => Token::Exit(value),
            3 => Token::Socket(value),
            4 => Token::Output(value),
            5 => Token::Client(value),
            6 => Token::Examiner(value),
            7 => Token::Findings(value),
            8 => Token::Probe,
            _ => return None,
        })
    }
}

/// Between two looks for programs that were killed for want of memory.
const STARVED: Duration = Duration::from_secs(2);

/// What workers are, as whom and where they run.
pub struct Quarters {
    pub programs: Programs,
    /// `None`: as our own user.
    pub identities: Option<Identities>,
    pub directory: PathBuf,
    /// Or why workers have no control groups.
    pub groups: Result<Groups, String>,
}

/// Everything that the loop holds.
pub struct EventLoop {
    pub(super) options: Options,
    pub(super) quarters: Quarters,
    pub(super) policy: Policy,
    pub(super) epoll: Epoll,
    signals: Vec<(i32, UnixStream)>,
    pub(super) clients: Clients,
    logs: Logs,
    /// By slot.
    processes: BTreeMap<u32, Process>,
    /// By a number of their own: one that the kernel does not let go may outlive its worker's slot.
    examiners: BTreeMap<u32, Examiner>,
    next_examiner: u32,
    /// Of the process that was just reaped.
    remains: Option<Remains>,
    post_mortems: PostMortems,
    pub(super) notifier: Notifier,
    /// Room for what is read from a worker.
    buffer: Vec<u8>,
    /// Sockets with more to read than their quota.
    more: Vec<u32>,
    /// Those that may wait for something else than the kernel was told last.
    changed: Vec<u32>,
    /// Those at whose end a process still runs.
    ended: BTreeSet<u32>,
    events: VecDeque<Event>,
    /// Of those messages among the events that bring one, in their order.
    descriptors: VecDeque<OwnedFd>,
    /// That of the message that is being handled.
    passing: Option<OwnedFd>,
    /// A request that waits for a look at its model, and whether HUP came meanwhile.
    pub(super) tryout: Option<Tryout>,
    pub(super) reload_again: bool,
    /// Looks that took too long, and are not reaped yet.
    pub(super) abandoned: Vec<Probe>,
    /// No client is accepted before this; see [`EventLoop::accept`].
    deaf_until: Option<Instant>,
    stopping: bool,
    finished: bool,
    /// When to look next for who was killed for want of memory.
    starved_at: Instant,
}

fn io_error(what: &str) -> impl Fn(Errno) -> ServiceError + '_ {
    move |e| ServiceError::failed(format!("{what}: {e}"))
}

impl EventLoop {
    /// Registers signals and the control socket.
    pub fn new(
        options: Options,
        quarters: Quarters,
        setup: Setup,
        clients: Clients,
        logs: Logs,
        post_mortems: PostMortems,
        notifier: Notifier,
    ) -> Result<Self, ServiceError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io_error("epoll"))?;
        let mut signals = Vec::new();
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            let pair = || -> std::io::Result<UnixStream> {
                let (ours, theirs) = UnixStream::pair()?;
                ours.set_nonblocking(true)?;
                signal_hook::low_level::pipe::register(signal, theirs)?;
                Ok(ours)
            };
            let ours = pair().map_err(|e| ServiceError::failed(format!("signal {signal}: {e}")))?;
            let token = Token::Signal(signals.len() as u32).encode();
            epoll.add(&ours, EpollEvent::new(EpollFlags::EPOLLIN, token)).map_err(io_error("epoll"))?;
            signals.push((signal, ours));
        }
        epoll
            .add(clients.fd(), EpollEvent::new(EpollFlags::EPOLLIN, Token::Listener.encode()))
            .map_err(io_error("epoll"))?;
        let policy = Policy::new(setup, Time(timestamp::monotonic_us()), timestamp::now_us());
        Ok(Self {
            options,
            quarters,
            policy,
            epoll,
            signals,
            clients,
            logs,
            processes: BTreeMap::new(),
            examiners: BTreeMap::new(),
            next_examiner: 0,
            remains: None,
            post_mortems,
            notifier,
            buffer: vec![0; READ_AT_ONCE],
            more: Vec::new(),
            changed: Vec::new(),
            ended: BTreeSet::new(),
            events: VecDeque::new(),
            descriptors: VecDeque::new(),
            passing: None,
            tryout: None,
            reload_again: false,
            abandoned: Vec::new(),
            deaf_until: None,
            stopping: false,
            finished: false,
            starved_at: Instant::now(),
        })
    }

    /// Runs until everything has stopped.
    pub fn run(mut self) -> Result<(), ServiceError> {
        tracing::info!(
            "nursery {} with {} cameras, control socket {}",
            nursery_shared::VERSION,
            self.options.config.cameras.len(),
            self.options.control_socket.display()
        );
        self.events.push_back(Event::Tick);
        let mut ready = [EpollEvent::empty(); EVENTS];
        // Begins the workers.
        self.handle_events();
        self.notifier.ready();
        loop {
            self.handle_events();
            if self.finished {
                self.post_mortems.flush();
                tracing::info!("stopped");
                return Ok(());
            }
            if self.clients.anybody_follows() {
                self.clients.pump_logs(&self.logs);
            }
            self.update_interest();
            self.notifier.turn(Instant::now(), self.stopping, || self.policy.status(Self::now().0));
            let timeout = self.timeout();
            let count = match self.epoll.wait(&mut ready, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(e) => return Err(io_error("epoll")(e)),
            };
            for event in &ready[..count] {
                if let Some(token) = Token::decode(event.data()) {
                    self.on_ready(token);
                }
            }
            for slot in std::mem::take(&mut self.more) {
                self.read_socket(slot);
            }
            self.expire();
            self.look_for_starved();
            self.events.push_back(Event::Tick);
        }
    }

    pub(super) fn now() -> (Time, i64) {
        (Time(timestamp::monotonic_us()), timestamp::now_us())
    }

    /// Feeds the policy until nothing is left to be told.
    fn handle_events(&mut self) {
        while let Some(event) = self.events.pop_front() {
            let (now, wall_us) = Self::now();
            self.passing = match &event {
                Event::Message { message, .. } if message.brings_descriptor() => self.descriptors.pop_front(),
                _ => None,
            };
            let actions = self.policy.handle(now, wall_us, event);
            self.perform(actions);
        }
        self.passing = None;
    }

    pub(super) fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Spawn { key, role, name } => self.spawn(key, role, name),
                Action::Send { key, message } => {
                    let descriptor = if message.brings_descriptor() { self.passing.take() } else { None };
                    self.send(key, &message, descriptor);
                }
                Action::Connect { camera, viewer, ticket } => self.connect(camera, viewer, ticket),
                Action::Examine { key } => self.examine(key),
                Action::PostMortem { key, mut post_mortem } => {
                    if let Some(remains) = self.remains.take_if(|r| r.key == key) {
                        remains.complete(&mut post_mortem);
                    }
                    self.post_mortems.keep(&post_mortem);
                }
                Action::Kill { key } => {
                    self.end_examination(key);
                    if let Some(process) = self.process(key) {
                        process.kill();
                    }
                }
                Action::SetReading { key, reading } => {
                    if let Some(process) = self.process(key) {
                        process.reading = reading;
                        self.changed.push(key.slot);
                    }
                }
                Action::Log { level, text } => match level {
                    Level::Info => tracing::info!("{text}"),
                    Level::Warn => tracing::warn!("{text}"),
                    Level::Error => tracing::error!("{text}"),
                },
                Action::Show { json } => {
                    self.notifier.event(&json);
                    if let Some(watcher) = &self.options.events {
                        // Full: whoever watches is slow, and is not waited for.
                        let _ = watcher.try_send(json);
                    }
                }
                Action::ShowStatus { key } => {
                    let status = Box::new(self.status());
                    self.send(key, &ToWorker::Status(status), None);
                }
                Action::Finished => self.finished = true,
            }
        }
    }

    fn send(&mut self, key: Key, message: &ToWorker, descriptor: Option<OwnedFd>) {
        let Some(process) = self.process(key) else { return };
        let outcome = process.send(message, descriptor);
        if process.has_other_interest() {
            self.changed.push(key.slot);
        }
        if let Err(why) = outcome {
            self.events.push_back(Event::Broken { key, why });
        }
    }

    /// Gives a capture process and who wants its media an end each of a socket of their own.
    fn connect(&mut self, camera: Key, viewer: Key, ticket: u64) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        match socketpair(AddressFamily::Unix, SockType::Stream, None, flags) {
            Ok((from, to)) => {
                self.send(camera, &ToWorker::Media { operator: false }, Some(from));
                self.send(viewer, &ToWorker::MediaOf { ticket, why_not: None }, Some(to));
            }
            Err(e) => {
                let why_not = Some(format!("no socket could be made: {e}"));
                self.send(viewer, &ToWorker::MediaOf { ticket, why_not }, None);
            }
        }
    }

    fn process(&mut self, key: Key) -> Option<&mut Process> {
        self.processes.get_mut(&key.slot).filter(|p| p.key == key)
    }

    fn spawn(&mut self, key: Key, role: Role, name: String) {
        if role == Role::Sink {
            self.notifier.forget_events();
        }
        let memory = self.options.config.supervision.worker_memory_mb.saturating_mul(1 << 20);
        let number = match role {
            Role::Sink => 0,
            Role::Capture | Role::Infer | Role::Web | Role::Light => {
                identity::free_number(|n| self.processes.values().any(|p| p.number == n))
            }
        };
        let identity = self.quarters.identities.as_ref().map(|ids| ids.of(role, number));
        let directory = &self.quarters.directory;
        let mut group =
            self.quarters.groups.as_mut().ok().and_then(|groups| match groups.make(role, memory) {
                Ok(group) => Some(group),
                Err(e) => {
                    tracing::warn!("{name}: no control group: {e}; it has only the limits of a process");
                    None
                }
            });
        let conditions = Conditions {
            identity: identity.as_ref(),
            directory,
            memory,
            alone: self.quarters.identities.as_ref().is_some_and(|ids| ids.are_apart(role)),
            entrances: group.as_ref().map(Group::entrances).unwrap_or_default(),
        };
        let started = spawn::spawn(&self.quarters.programs, role, conditions).and_then(|spawned| {
            let inside = group.as_mut().map(|group| group.close(spawned.child.id()));
            if inside == Some(false) {
                tracing::warn!("{name}: is not in its control group; it has only the limits of a process");
            }
            let process = Process::new(key, name, role, spawned, inside == Some(true));
            let tokens = [Token::Exit(key.slot), Token::Socket(key.slot), Token::Output(key.slot)];
            for (fd, token) in process.descriptors().into_iter().zip(tokens) {
                self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token.encode()))?;
            }
            Ok(process)
        });
        match started {
            Ok(mut process) => {
                process.group = group;
                process.number = number;
                self.events.push_back(Event::Spawned { key, pid: process.pid() });
                self.processes.insert(key.slot, process);
            }
            Err(e) => {
                if let (Some(group), Ok(groups)) = (group, &mut self.quarters.groups) {
                    groups.end(group);
                }
                self.events.push_back(Event::SpawnFailed { key, error: e.to_string() });
            }
        }
    }

    fn on_ready(&mut self, token: Token) {
        match token {
            Token::Signal(n) => self.on_signal(n as usize),
            Token::Listener => self.accept(),
            Token::Exit(slot) => self.on_exit(slot),
            Token::Socket(slot) => {
                if let Some(process) = self.processes.get_mut(&slot) {
                    process.flush();
                    if process.has_other_interest() {
                        self.changed.push(slot);
                    }
                    if !process.reading && process.has_hung_up() {
                        // What it said before is read when it has exited, which is to be expected now.
                        process.ended_at.get_or_insert_with(Instant::now);
                        self.ended.insert(slot);
                        let _ = self.epoll.delete(process.socket.as_fd());
                    }
                }
                self.read_socket(slot);
            }
            Token::Output(slot) => self.read_output(slot),
            Token::Client(id) => self.serve(id),
            Token::Examiner(id) => self.examiner_exited(id),
            Token::Probe => self.end_tryout(),
            Token::Findings(id) => {
                if let Some(examiner) = self.examiners.get_mut(&id) {
                    examiner.read();
                    if examiner.output_ended {
                        let _ = self.epoll.delete(examiner.descriptors()[1]);
                    }
                }
            }
        }
    }

    /// Has a worker looked into; whatever comes of it, the policy is told.
    fn examine(&mut self, key: Key) {
        let Some(process) = self.processes.get_mut(&key.slot).filter(|p| p.key == key) else { return };
        let id = self.next_examiner;
        let started = if self.examiners.len() >= MAX_EXAMINERS {
            Err(std::io::Error::other(format!("{MAX_EXAMINERS} others are being looked into")))
        } else {
            Examiner::start(self.quarters.programs.worker(), key, process.pid()).and_then(|examiner| {
                let tokens = [Token::Examiner(id), Token::Findings(id)];
                let added = examiner.descriptors().into_iter().zip(tokens).try_for_each(|(fd, token)| {
                    self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token.encode()))
                });
                match added {
                    Ok(()) => Ok(examiner),
                    Err(e) => {
                        examiner.abandon();
                        Err(e.into())
                    }
                }
            })
        };
        match started {
            Ok(examiner) => {
                self.next_examiner = self.next_examiner.wrapping_add(1);
                self.examiners.insert(id, examiner);
            }
            Err(e) => {
                process.findings.push(Finding::Note(format!("what it was doing is not known: {e}")));
                self.events.push_back(Event::Examined { key });
            }
        }
    }

    fn examiner_exited(&mut self, id: u32) {
        let Some(examiner) = self.examiners.get_mut(&id) else { return };
        let Some(unfinished) = examiner.reap() else { return };
        if !examiner.over {
            let key = examiner.key;
            let findings = examiner.findings(unfinished.as_deref());
            if let Some(process) = self.process(key) {
                process.findings.extend(findings);
            }
            self.events.push_back(Event::Examined { key });
        }
        self.examiners.remove(&id);
    }

    /// A worker is killed: whoever still looks into it has had its time.
    fn end_examination(&mut self, key: Key) {
        let Some(examiner) = self.examiners.values_mut().find(|e| e.key == key && !e.over) else { return };
        let findings = examiner.findings(Some("looking took too long"));
        // It is reaped when its exit is reported.
        examiner.kill();
        if let Some(process) = self.process(key) {
            process.findings.extend(findings);
        }
    }

    fn on_signal(&mut self, n: usize) {
        let Some((signal, stream)) = self.signals.get_mut(n) else { return };
        let signal = *signal;
        let mut bytes = [0; 64];
        while stream.read(&mut bytes).is_ok_and(|n| n > 0) {}
        if signal == SIGHUP {
            // The outcome is in the log; a signal has nobody to answer to.
            if self.tryout.is_some() {
                self.reload_again = true;
            } else {
                self.reload(None);
            }
        } else {
            self.stop();
        }
    }

    fn stop(&mut self) {
        self.notifier.stopping();
        self.stopping = true;
        let (now, wall_us) = Self::now();
        let actions = self.policy.stop(now, wall_us);
        self.perform(actions);
    }

    fn read_socket(&mut self, slot: u32) {
        let Some(process) = self.processes.get_mut(&slot) else { return };
        if !process.reading || process.ended_at.is_some() {
            return;
        }
        let key = process.key;
        let mut messages = Vec::new();
        let outcome = process.read(&mut self.buffer, &mut messages);
        for (message, _) in &mut messages {
            if let FromWorker::Caged(cage) = message {
                // What a worker cannot know itself.
                let why = self.quarters.groups.as_ref().err();
                cage.note(
                    Guard::ControlGroup,
                    match (process.in_group, why) {
                        (true, _) => Ok(()),
                        (false, Some(why)) => Err(why.clone()),
                        (false, None) => Err("it could not be made, see the log".into()),
                    },
                );
            }
        }
        self.take(key, messages);
        match outcome {
            Read1::Idle => {}
            Read1::More => self.more.push(slot),
            Read1::Bad(why) => self.events.push_back(Event::Broken { key, why }),
            Read1::End => {
                // Usually its exit is reported in a moment, and tells more.
                if let Some(process) = self.processes.get_mut(&slot) {
                    process.ended_at = Some(Instant::now());
                    self.ended.insert(slot);
                    let _ = self.epoll.delete(process.socket.as_fd());
                }
            }
        }
        // In order with what else this worker's actions bring about.
        self.handle_events();
    }

    /// What a worker said is to be handled next, with what came with it.
    fn take(&mut self, key: Key, messages: Vec<(FromWorker, Option<OwnedFd>)>) {
        for (message, descriptor) in messages {
            self.descriptors.extend(descriptor);
            self.events.push_back(Event::Message { key, message });
        }
    }

    fn read_output(&mut self, slot: u32) {
        let Some(process) = self.processes.get_mut(&slot) else { return };
        process.read_output(timestamp::monotonic_us());
        if process.output_ended {
            let _ = self.epoll.delete(process.output.as_fd());
        }
    }

    fn on_exit(&mut self, slot: u32) {
        let Some(process) = self.processes.get_mut(&slot) else { return };
        process.kill_session();
        let Some(mut ended) = process.reap() else { return };
        if let (Some(group), Ok(groups)) = (process.group.take(), &mut self.quarters.groups) {
            ended.out_of_memory = groups.end(group).out_of_memory;
        }
        let key = process.key;
        // Its last words count: an acknowledgement, the end of a recording. A socket holds far less than this
        // many quotas, unless somebody who inherited it goes on writing.
        let mut messages = Vec::new();
        for _ in 0..LAST_WORDS {
            if !matches!(process.read(&mut self.buffer, &mut messages), Read1::More) {
                break;
            }
        }
        process.finish_output(timestamp::monotonic_us());
        self.take(key, messages);
        self.events.push_back(Event::Exited { key, exit: ended.exit });
        self.end_examination(key);
        self.ended.remove(&slot);
        self.remains = self.processes.remove(&slot).map(|process| process.into_remains(ended));
        self.handle_events();
        self.remains = None;
    }

    fn accept(&mut self) {
        loop {
            match self.clients.accept() {
                Ok(Some(id)) => {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Client(id).encode());
                    if let Some(fd) = self.clients.client_fd(id)
                        && let Err(e) = self.epoll.add(fd, event)
                    {
                        tracing::warn!("control socket: a client was turned away: {e}");
                    }
                }
                Ok(None) => return,
                Err(e) => {
                    // Out of descriptors, most likely: the client stays in the queue, and asking the kernel
                    // about it again and again would help nobody.
                    tracing::warn!("control socket: {e}; no client is taken for a second");
                    self.deaf_until = Some(Instant::now() + DEAF);
                    self.listen_for(EpollFlags::empty());
                    return;
                }
            }
        }
    }

    fn listen_for(&mut self, flags: EpollFlags) {
        // It can only fail for a descriptor that was never added.
        let _ = self.epoll.modify(self.clients.fd(), &mut EpollEvent::new(flags, Token::Listener.encode()));
    }

    fn serve(&mut self, id: u32) {
        let Outcome::Asks(request, peer) = self.clients.serve(id) else { return };
        if let Request::Logs { name, follow } = request {
            let known = name.as_deref().is_none_or(|name| self.knows(name));
            if known {
                self.clients.follow(id, name, follow, &self.logs);
            } else {
                let message = format!("no worker or camera is called {:?}", name.unwrap_or_default());
                self.clients.answer(id, &Reply::Error { message });
            }
            return;
        }
        if let Request::Listen { camera } = request {
            return self.listen(id, &camera, peer);
        }
        if let Some(reply) = self.reply(id, request, peer) {
            self.clients.answer(id, &reply);
        }
    }

    /// Gives a client's connection to a capture process, which sends its media over it.
    fn listen(&mut self, id: u32, camera: &str, peer: Peer) {
        let key = match self.policy.capturing(camera) {
            Ok(key) => key,
            Err(why) => {
                let message = format!("camera {camera:?}: {why}");
                let reply = match self.policy.has_camera(camera) {
                    true => Reply::Refused { message },
                    false => Reply::Error { message },
                };
                self.clients.answer(id, &reply);
                return;
            }
        };
        // Whoever gets it goes on being told of it otherwise.
        if let Some(socket) = self.clients.client_fd(id) {
            let _ = self.epoll.delete(socket);
        }
        let reply = Reply::Done { message: format!("the media of camera {camera:?} follows") };
        if let Some(socket) = self.clients.hand_over(id, &reply) {
            tracing::info!("{camera}: listened to by (uid {}, pid {})", show(peer.uid), show(peer.pid));
            self.send(key, &ToWorker::Media { operator: true }, Some(socket));
        }
    }

    fn knows(&self, name: &str) -> bool {
        let status = self.policy.status(Self::now().0);
        status.workers.iter().any(|w| w.name == name || w.name.strip_prefix("capture:") == Some(name))
    }

    /// Does what is asked for; `None`: the answer comes later.
    fn reply(&mut self, id: u32, request: Request, peer: Peer) -> Option<Reply> {
        let (now, wall_us) = Self::now();
        let who = format!("(uid {}, pid {})", show(peer.uid), show(peer.pid));
        let result = match request {
            Request::Status {} => return Some(Reply::Status { status: Box::new(self.status()) }),
            Request::Info {} => {
                return Some(Reply::Info {
                    state_dir: self.options.state_dir.clone(),
                    config: self.options.config_path.clone(),
                });
            }
            Request::Postmortems {} => {
                return Some(Reply::Postmortems {
                    kept: self.post_mortems.list(),
                    directory: self.post_mortems.directory().to_owned(),
                });
            }
            Request::Postmortem { id } => match self.post_mortems.get(&id) {
                Some(postmortem) => return Some(Reply::Postmortem { postmortem: Box::new(postmortem) }),
                None => Err(format!("no post-mortem {id:?} is in memory")),
            },
            Request::Logs { .. } | Request::Listen { .. } => Err("that is not asked for here".to_owned()),
            Request::Scale { workers } => {
                tracing::info!("scale asked for {who}");
                let (result, actions) = self.policy.scale(now, wall_us, workers);
                self.perform(actions);
                result
            }
            Request::Restart { name } => {
                tracing::info!("restart of {name:?} asked for {who}");
                return self.restart(Some(id), name);
            }
            Request::Reload {} => {
                tracing::info!("reload asked for {who}");
                return self.reload(Some(id));
            }
            Request::Stop {} => {
                tracing::info!("stop asked for {who}");
                self.stop();
                Ok("stopping".to_owned())
            }
        };
        Some(done(result))
    }

    fn status(&self) -> nursery_shared::status::Status {
        let mut status = self.policy.status(Self::now().0);
        status.pid = std::process::id();
        for worker in &mut status.workers {
            if let Some(pid) = worker.pid {
                (worker.rss_bytes, worker.cpu_s) = procfs::usage(pid);
            }
        }
        status
    }

    /// A program of a worker may be killed for want of memory without the worker, which knows nothing of the reason.
    fn look_for_starved(&mut self) {
        let now = Instant::now();
        if now < self.starved_at {
            return;
        }
        self.starved_at = now + STARVED;
        for process in self.processes.values_mut() {
            if let Some(bytes) = process.group.as_mut().and_then(Group::starved) {
                tracing::error!(
                    "{}: the kernel killed a program of it: its control group had used up its {} MiB of memory (supervision.worker_memory_mb)",
                    process.name(),
                    bytes >> 20
                );
            }
        }
    }

    /// Whoever's time is over: clients without patience, workers whose socket ended.
    fn expire(&mut self) {
        let now = Instant::now();
        if self.deaf_until.take_if(|t| *t <= now).is_some() {
            self.listen_for(EpollFlags::EPOLLIN);
        }
        self.clients.expire(now);
        if self.tryout.as_ref().is_some_and(|t| t.probe.deadline() <= now) {
            self.end_tryout();
        }
        self.abandoned.retain_mut(|probe| !probe.is_gone());
        let processes = &self.processes;
        let is_over = |slot: &u32| {
            let ended_at = processes.get(slot).and_then(|p| p.ended_at);
            ended_at.is_none_or(|t| now >= t + END_GRACE)
        };
        // Said once; the kill follows.
        for slot in self.ended.extract_if(.., is_over) {
            if let Some(process) = processes.get(&slot) {
                let why = "closed its socket".into();
                self.events.push_back(Event::Broken { key: process.key, why });
            }
        }
    }

    fn timeout(&mut self) -> EpollTimeout {
        if !self.more.is_empty() || !self.events.is_empty() {
            return EpollTimeout::ZERO;
        }
        let mut wait = Duration::from_secs(60);
        if let Some(deadline) = self.policy.next_deadline() {
            wait = wait.min(deadline.since(Self::now().0));
        }
        let now = Instant::now();
        let ended_at = |slot| self.processes.get(slot).and_then(|p| p.ended_at);
        let ended = self.ended.iter().filter_map(ended_at).map(|t| t + END_GRACE);
        let probe = self.tryout.as_ref().map(|t| t.probe.deadline());
        let own = self
            .clients
            .next_deadline()
            .into_iter()
            .chain(self.deaf_until)
            .chain(probe)
            .chain(self.notifier.next_deadline());
        for deadline in own.chain(ended) {
            wait = wait.min(deadline.saturating_duration_since(now));
        }
        // Rounded up: waking just before a deadline would spin until it is there.
        let millis = wait.as_micros().div_ceil(1000) as u64;
        EpollTimeout::try_from(Duration::from_millis(millis)).unwrap_or(EpollTimeout::MAX)
    }

    /// Tells the kernel what each descriptor waits for, where that changed.
    fn update_interest(&mut self) {
        for slot in self.changed.drain(..) {
            let Some(process) = self.processes.get_mut(&slot) else { continue };
            if let Some(flags) = process.changed_interest() {
                let mut event = EpollEvent::new(flags, Token::Socket(slot).encode());
                // It can only fail for a descriptor that was never added.
                let _ = self.epoll.modify(process.socket.as_fd(), &mut event);
            }
        }
        for (id, flags) in self.clients.changed_interest() {
            if let Some(fd) = self.clients.client_fd(id) {
                let _ = self.epoll.modify(fd, &mut EpollEvent::new(flags, Token::Client(id).encode()));
            }
        }
    }
}

/// The answer to something that is done at once.
pub(super) fn done(result: Result<String, String>) -> Reply {
    match result {
        Ok(message) => Reply::Done { message },
        Err(message) => Reply::Error { message },
    }
}

fn show<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "?".into(), |v| v.to_string())
}
