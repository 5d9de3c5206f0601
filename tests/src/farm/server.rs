//! The farm's one thread: waits until a packet is due or a client has something to say, and waits for nothing else.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    io::{self, ErrorKind, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::BorrowedFd,
    path::PathBuf,
    time::Instant,
};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit},
    },
};
use nursery_shared::timestamp;

use super::{
    client::Client,
    exchange::Wish,
    lateness::Lateness,
    ledger::{Counts, Entry},
    session::{REPORT_EVERY, Session},
    stream::{Kind, Stream},
};

/// Later than this the farm itself is late.
const LATE_US: u64 = 20_000;
/// Beyond this, what was missed is left out: the farm stood still, and no camera sends what is so old.
const STANDSTILL_NS: u64 = 2_000_000_000;
/// Connections at once.
const MAX_CLIENTS: usize = 4096;
/// Descriptors of the farm's own.
const SPARE: u64 = 32;
/// Packets that are sent before clients are looked at again.
const BATCH: usize = 256;

const LISTENER: u64 = u64::MAX;
const END: u64 = u64::MAX - 1;

/// How a farm is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// What cameras there are.
    pub kinds: Vec<Kind>,
    /// Where encoded AAC is kept.
    pub cache: PathBuf,
    /// The niceness to ask for; not everybody is given one below 0.
    pub nice: i32,
}

/// When a session's next packet is due, nanoseconds since the farm's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at_ns: u64,
    session: u64,
    place: u32,
}

/// A farm that listens.
pub struct Farm<W: Write> {
    listener: TcpListener,
    epoll: Epoll,
    /// By [`Kind`]; those that there are.
    streams: Vec<(Kind, Stream)>,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    most_clients: usize,
    schedule: BinaryHeap<Reverse<Due>>,
    begin: Instant,
    sessions: u64,
    /// Of sessions that are over.
    over: Counts,
    lateness: Lateness,
    next_totals_ns: u64,
    ledger: W,
    told: bool,
}

impl<W: Write> Farm<W> {
    /// Prepares what is sent and listens on a free loopback port. The error is one line.
    pub fn listen(options: &Options, ledger: W) -> Result<Self, String> {
        let text = |e: io::Error| format!("the farm's port: {e}");
        let streams: Result<Vec<_>, String> =
            options.kinds.iter().map(|kind| Ok((*kind, Stream::prepare(*kind, &options.cache)?))).collect();
        let streams = streams?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
        listener.set_nonblocking(true).map_err(text)?;
        let port = listener.local_addr().as_ref().map(SocketAddr::port).map_err(|e| e.to_string())?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| format!("epoll: {e}"))?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
        epoll.add(&listener, event).map_err(|e| format!("epoll: {e}"))?;
        let most_clients = MAX_CLIENTS.min(descriptors().saturating_sub(SPARE) as usize);
        let mut farm = Self {
            listener,
            epoll,
            streams,
            clients: Vec::new(),
            free: Vec::new(),
            most_clients,
            schedule: BinaryHeap::with_capacity(MAX_CLIENTS),
            begin: Instant::now(),
            sessions: 0,
            over: Counts::default(),
            lateness: Lateness::default(),
            next_totals_ns: 0,
            ledger,
            told: false,
        };
        farm.tell(&Entry::Ready { port, kinds: options.kinds.clone(), nice: be_nice(options.nice) })?;
        Ok(farm)
    }

    /// Serves until there is something to read from one of `ends`, or its end.
    pub fn run(&mut self, ends: &[BorrowedFd<'_>]) -> Result<(), String> {
        for end in ends {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, END);
            let added = self.epoll.add(end, event);
            added.map_err(|e| format!("what tells the end is no pipe, and cannot be waited for: {e}"))?;
        }
        let mut events = [EpollEvent::empty(); 128];
        loop {
            let more = self.send_due()?;
            if self.told {
                self.told = false;
                self.ledger.flush().map_err(|e| format!("the ledger: {e}"))?;
            }
            let timeout = if more { EpollTimeout::ZERO } else { self.time_left() };
            let n = match self.epoll.wait(&mut events, timeout) {
                Ok(n) => n,
                Err(Errno::EINTR) => 0,
                Err(e) => return Err(format!("epoll: {e}")),
            };
            for event in &events[..n] {
                match event.data() {
                    END => {
                        self.tell_totals()?;
                        return self.ledger.flush().map_err(|e| format!("the ledger: {e}"));
                    }
                    LISTENER => self.accept(),
                    place => self.attend(place as usize, event.events())?,
                }
            }
        }
    }

    fn now_ns(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    /// Whole milliseconds, at least one: what becomes due meanwhile goes out together, which saves most of the waking up.
    fn time_left(&self) -> EpollTimeout {
        let next = self.schedule.peek().map_or(u64::MAX, |Reverse(due)| due.at_ns).min(self.next_totals_ns);
        let ms = next.saturating_sub(self.now_ns()).div_ceil(1_000_000).clamp(1, 1_000);
        EpollTimeout::from(ms as u16)
    }

    fn tell(&mut self, entry: &Entry) -> Result<(), String> {
        self.told = true;
        serde_json::to_writer(&mut self.ledger, entry).map_err(|e| format!("the ledger: {e}"))?;
        self.ledger.write_all(b"\n").map_err(|e| format!("the ledger: {e}"))
    }

    fn tell_totals(&mut self) -> Result<(), String> {
        let (mut counts, mut playing) = (self.over, 0);
        for session in self.clients.iter().flatten().filter_map(|client| client.session.as_ref()) {
            counts.add(&session.counts);
            playing += 1;
        }
        let lateness = self.lateness.clone();
        let cpu_s = getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
            let (user, system) = (usage.user_time(), usage.system_time());
            (user.tv_sec() + system.tv_sec()) as f64 + (user.tv_usec() + system.tv_usec()) as f64 / 1e6
        });
        self.tell(&Entry::Totals { at_us: timestamp::now_us(), playing, counts, lateness, cpu_s })
    }

    /// Sends what is due. True where there is more.
    fn send_due(&mut self) -> Result<bool, String> {
        if self.now_ns() >= self.next_totals_ns {
            self.tell_totals()?;
            self.next_totals_ns = self.now_ns() + 1_000_000_000;
        }
        for _ in 0..BATCH {
            let now_ns = self.now_ns();
            let Some(mut next) = self.schedule.peek_mut() else { return Ok(false) };
            let Reverse(due) = *next;
            if due.at_ns > now_ns {
                return Ok(false);
            }
            let client = self.clients.get_mut(due.place as usize).and_then(Option::as_mut);
            let session = client.and_then(|c| Some((c.session.take_if(|s| s.id == due.session)?, c)));
            let Some((mut session, client)) = session else {
                // Whoever it was for has gone.
                PeekMut::pop(next);
                continue;
            };
            let kind = session.camera.kind;
            let Some((_, prepared)) = self.streams.iter_mut().find(|(k, _)| *k == kind) else {
                PeekMut::pop(next);
                continue;
            };
            let late_ns = now_ns - due.at_ns;
            if late_ns > STANDSTILL_NS {
                let new = prepared.next_at(now_ns + session.camera.phase_ns());
                session.counts.skipped += new - session.next;
                session.counts.packets += new - session.next;
                session.next = new;
                *next = Reverse(Due { at_ns: session.due_ns(prepared), ..due });
                client.session = Some(session);
                continue;
            }
            self.lateness.add(late_ns / 1000);
            session.counts.late += u64::from(late_ns / 1000 > LATE_US);
            let first = session.is_at_its_first();
            let (onset, crying) = (prepared.has_onset(session.next), prepared.goes_on_crying(session.next));
            if now_ns >= session.next_report_ns {
                session.next_report_ns = now_ns + REPORT_EVERY.as_nanos() as u64;
                let begun_us = timestamp::now_us() - kind.period_us() as i64;
                let report = session.report(prepared, begun_us);
                // One that finds no room is left out.
                let _ = client.backlog.packet(&mut client.stream, &report);
            }
            client.session = Some(session);
            let sent = client.send_next(prepared);
            if let Some(session) = &client.session {
                *next = Reverse(Due { at_ns: session.due_ns(prepared), ..due });
            }
            drop(next);
            let camera = client.session.as_ref().map(|s| s.camera.number).unwrap_or_default();
            if sent.is_err() {
                self.forget(due.place as usize)?;
                continue;
            }
            self.watch_for_room(due.place as usize)?;
            let (session, at_us) = (due.session, timestamp::now_us());
            if first {
                self.tell(&Entry::Started { session, kind, camera, at_us, crying })?;
            }
            if onset {
                self.tell(&Entry::Cry { session, kind, camera, at_us })?;
            }
        }
        Ok(true)
    }

    /// Has the kernel say when a client takes more, as long as something waits for it.
    fn watch_for_room(&mut self, place: usize) -> Result<(), String> {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { return Ok(()) };
        let wants = !client.backlog.is_empty();
        if wants != client.wants_room {
            client.wants_room = wants;
            let more = if wants { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN | more, place as u64);
            self.epoll.modify(&client.stream, &mut event).map_err(|e| format!("epoll: {e}"))?;
        }
        Ok(())
    }

    fn accept(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                // Nobody any more, or somebody who has gone already.
                Err(_) => return,
            };
            if self.clients.len() - self.free.len() >= self.most_clients {
                continue;
            }
            let Ok(client) = Client::new(stream) else { continue };
            let place = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() - 1
            });
            if self.epoll.add(&client.stream, EpollEvent::new(EpollFlags::EPOLLIN, place as u64)).is_ok() {
                self.clients[place] = Some(client);
            } else {
                self.free.push(place);
            }
        }
    }

    /// Handles what a client has said, and gives it what waits for it.
    fn attend(&mut self, place: usize, events: EpollFlags) -> Result<(), String> {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { return Ok(()) };
        let mut goes_on = true;
        if events.contains(EpollFlags::EPOLLOUT) {
            goes_on &= client.backlog.flush(&mut client.stream).is_ok();
        }
        if events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            goes_on &= matches!(client.read(), Ok(true));
        }
        if !goes_on || self.converse(place)?.is_err() {
            return self.forget(place);
        }
        self.watch_for_room(place)
    }

    /// Answers what a client asks. The inner error is the client's.
    fn converse(&mut self, place: usize) -> Result<io::Result<()>, String> {
        loop {
            let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else {
                return Ok(Ok(()));
            };
            let mut out = Vec::new();
            let streams = &self.streams;
            let describe = |kind: Kind, track: &str| {
                streams.iter().find(|(k, _)| *k == kind).map(|(_, stream)| stream.session_description(track))
            };
            let wish = match client.exchange.next(&mut out, describe) {
                Ok(None) => return Ok(Ok(())),
                Ok(Some(wish)) => wish,
                Err(e) => return Ok(Err(e)),
            };
            let mut begun = None;
            if let Some(Wish::Play { camera, channel }) = wish
                && let Some((_, prepared)) = streams.iter().find(|(k, _)| *k == camera.kind)
            {
                self.sessions += 1;
                let now_ns = self.begin.elapsed().as_nanos() as u64;
                let session = Session::begin(self.sessions, camera, channel, prepared, now_ns);
                let stamp = session.stamp(prepared);
                client.exchange.playing(&mut out, stamp.sequence, stamp.timestamp);
                let at_ns = session.due_ns(prepared);
                self.schedule.push(Reverse(Due { at_ns, session: session.id, place: place as u32 }));
                begun = Some(session);
            }
            let answered = client.backlog.answer(&mut client.stream, &out);
            if wish.is_some() {
                let ended = std::mem::replace(&mut client.session, begun);
                self.close(ended)?;
            }
            if answered.is_err() {
                return Ok(answered);
            }
        }
    }

    fn forget(&mut self, place: usize) -> Result<(), String> {
        let Some(client) = self.clients.get_mut(place).and_then(Option::take) else { return Ok(()) };
        self.free.push(place);
        self.close(client.session)
    }

    fn close(&mut self, session: Option<Session>) -> Result<(), String> {
        let Some(Session { id, camera, counts, .. }) = session else { return Ok(()) };
        self.over.add(&counts);
        let (kind, camera, at_us) = (camera.kind, camera.number, timestamp::now_us());
        self.tell(&Entry::Ended { session: id, kind, camera, at_us, counts })
    }
}

/// As many descriptors as may be had.
fn descriptors() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 256 };
    if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

/// Asks for a niceness, and says which one there is.
fn be_nice(nice: i32) -> i32 {
    // SAFETY: both calls take numbers alone; getpriority may return -1 as a value, which errno would tell apart from an
    // error, and there is none for this very process.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, nice);
        libc::getpriority(libc::PRIO_PROCESS, 0)
    }
}
