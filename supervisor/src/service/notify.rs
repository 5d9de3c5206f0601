//! What the service manager is told, as sd_notify(3) has it: ready, reloading, stopping, a line of status, and that
//! the loop still turns. Everything is sent by the loop itself, so that a loop that hangs tells nothing any more, and
//! nothing is waited for: a manager that does not listen costs a line on the log.
//!
//! Workers never see the variables read here, since they are given a list of their own ([`super::spawn::KEPT`]).

use std::{
    collections::{BTreeSet, VecDeque},
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::{Duration, Instant},
};

use nursery_shared::{
    status::{CameraState, Status},
    timestamp,
};
use serde::Deserialize;

/// A changed status line is not sent more often.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// How soon a manager that took nothing more is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// What may wait for such a manager; the oldest give way.
const QUEUE: usize = 8;
/// What a start may take from now on: the probe of worker and model has a limit of 30 s.
const START_LIMIT: Duration = Duration::from_secs(45);
/// What a stop may take: it has a limit of 10 s.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Cameras that a status line names.
const NAMED: usize = 3;

/// The service manager, if one started us and wants to hear of us.
pub struct Notifier {
    manager: Option<Manager>,
    /// Said at the next turn: the log begins later than we do.
    trouble: Option<String>,
}

struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// What it has not taken yet.
    queue: VecDeque<String>,
    retry: Option<Instant>,
    watchdog: Option<Watchdog>,
    status: String,
    next_status: Instant,
    /// Cameras with an event that has not ended, as far as the sink told.
    crying: BTreeSet<String>,
    complained: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Watchdog {
    every: Duration,
    next: Instant,
}

/// Of the body that receivers get, what the status line needs.
#[derive(Deserialize)]
struct Told {
    r#type: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    camera: String,
}

impl Notifier {
    /// By `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self { manager: None, trouble: None };
        };
        let open = || {
            let address = address(&name)?;
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            io::Result::Ok((socket, address))
        };
        let number = |name: &str| env::var(name).ok();
        let every = interval(number("WATCHDOG_USEC"), number("WATCHDOG_PID"), std::process::id());
        match open() {
            Ok((socket, address)) => {
                Self { manager: Some(Manager::new(socket, address, every)), trouble: None }
            }
            Err(e) => {
                let trouble =
                    format!("service manager: NOTIFY_SOCKET {}: {e}; it is told nothing", name.display());
                Self { manager: None, trouble: Some(trouble) }
            }
        }
    }

    /// Worker and model are about to be looked at, which may take longer than the manager's limit.
    pub fn starting(&mut self) {
        let limit = START_LIMIT.as_micros();
        self.tell(format!("EXTEND_TIMEOUT_USEC={limit}\nSTATUS=Looking at the worker and its model"));
    }

    /// The control socket answers, and workers have been begun; or a reload is over.
    pub fn ready(&mut self) {
        self.tell("READY=1".into());
    }

    /// A reload begins.
    pub fn reloading(&mut self) {
        self.tell(format!("RELOADING=1\nMONOTONIC_USEC={}", timestamp::monotonic_us()));
    }

    /// The end has begun.
    pub fn stopping(&mut self) {
        let limit = STOP_LIMIT.as_micros();
        self.tell(format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={limit}\nSTATUS=Stopping"));
        if let Some(manager) = &mut self.manager {
            manager.status = "Stopping".into();
        }
    }

    /// The body of an event that was just stored.
    pub fn event(&mut self, json: &str) {
        let Some(manager) = &mut self.manager else { return };
        let Ok(Told { r#type, data }) = serde_json::from_str(json) else { return };
        match r#type.as_str() {
            "cry.started" => manager.crying.insert(data.camera),
            "cry.ended" => manager.crying.remove(&data.camera),
            _ => return,
        };
    }

    /// A sink begins, which does not repeat what the one before it told last.
    pub fn forget_events(&mut self) {
        if let Some(manager) = &mut self.manager {
            manager.crying.clear();
        }
    }

    /// One turn of the loop: feeds the watchdog, refreshes the status line, sends what waits; each where its time has
    /// come.
    pub fn turn(&mut self, now: Instant, stopping: bool, status: impl FnOnce() -> Status) {
        if let Some(trouble) = self.trouble.take() {
            tracing::warn!("{trouble}");
        }
        let Some(manager) = &mut self.manager else { return };
        if manager.retry.is_some_and(|at| now < at) {
            return;
        }
        if let Some(watchdog) = manager.watchdog.as_mut().filter(|w| w.next <= now) {
            watchdog.next = now + watchdog.every;
            manager.push("WATCHDOG=1".into());
        }
        if manager.next_status <= now && !stopping {
            manager.next_status = now + STATUS_EVERY;
            let status = status();
            manager.crying.retain(|name| status.cameras.iter().any(|camera| camera.name == *name));
            let line = line(&status, &manager.crying);
            if line != manager.status {
                manager.push(format!("STATUS={line}"));
                manager.status = line;
            }
        }
        self.trouble = manager.send(now);
    }

    /// When the next turn has something to do here.
    pub fn next_deadline(&self) -> Option<Instant> {
        let manager = self.manager.as_ref()?;
        manager.retry.or_else(|| manager.watchdog.map(|w| w.next))
    }

    fn tell(&mut self, message: String) {
        if let Some(manager) = &mut self.manager {
            manager.push(message);
            let trouble = manager.send(Instant::now());
            self.trouble = self.trouble.take().or(trouble);
        }
    }
}

impl Manager {
    fn new(socket: UnixDatagram, address: SocketAddr, every: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            socket,
            address,
            queue: VecDeque::new(),
            retry: None,
            watchdog: every.map(|every| Watchdog { every, next: now }),
            status: String::new(),
            next_status: now,
            crying: BTreeSet::new(),
            complained: false,
        }
    }

    fn push(&mut self, message: String) {
        if self.queue.len() == QUEUE {
            self.queue.pop_front();
        }
        self.queue.push_back(message);
    }

    /// Sends what waits, as much as is taken; returns what went wrong, the first time that something does.
    fn send(&mut self, now: Instant) -> Option<String> {
        self.retry = None;
        let mut trouble = None;
        while let Some(message) = self.queue.front() {
            match self.socket.send_to_addr(message.as_bytes(), &self.address) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.retry = Some(now + RETRY);
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if !self.complained => {
                    self.complained = true;
                    trouble = Some(format!("service manager: {e}; what it does not take is left out"));
                }
                Ok(_) | Err(_) => {}
            }
            self.queue.pop_front();
        }
        trouble
    }
}

/// A path, or a name in the abstract namespace after `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::other("expected a path, or @ and a name")),
    }
}

/// How often the watchdog is fed: twice as often as asked for. `None` where nobody asks, or somebody else is meant.
fn interval(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let usec: u64 = usec?.parse().ok()?;
    (usec > 0).then(|| Duration::from_micros(usec.div_ceil(2)))
}

/// One line of how it stands.
fn line(status: &Status, crying: &BTreeSet<String>) -> String {
    let of = |state: CameraState| -> Vec<&str> {
        status.cameras.iter().filter(|c| c.state == state).map(|c| c.name.as_str()).collect()
    };
    let all = status.cameras.len();
    let mut parts = vec![format!("{} of {all} cameras live", of(CameraState::Live).len())];
    for (state, word) in [
        (CameraState::Connecting, "connecting"),
        (CameraState::Stalled, "stalled"),
        (CameraState::Offline, "offline"),
        (CameraState::Ended, "ended"),
    ] {
        let names = of(state);
        if !names.is_empty() {
            parts.push(format!("{word}: {}", some(&names)));
        }
    }
    if !crying.is_empty() {
        parts.push(format!("crying: {}", some(&crying.iter().map(String::as_str).collect::<Vec<_>>())));
    }
    parts.push(format!("{} inference processes", status.inference.workers));
    if status.alerts.failing_since.is_some() {
        parts.push(format!("{} alerts cannot be delivered", status.alerts.pending));
    }
    parts.join("; ")
}

fn some(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMED)].join(", ");
    match names.len() - names.len().min(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use nursery_shared::status::{AlertStatus, CameraStatus, InferenceStatus, Latency};

    use super::*;

    fn status(cameras: &[(&str, CameraState)]) -> Status {
        let cameras = cameras.iter().map(|(name, state)| CameraStatus {
            name: (*name).into(),
            state: *state,
            level_dbfs: None,
            score: None,
            windows: 0,
            dropped: 0,
            last_audio_age_s: None,
            last_error: None,
            pictures: false,
            motion: None,
        });
        Status {
            version: String::new(),
            uptime_s: 0.0,
            pid: 1,
            workers: Vec::new(),
            cameras: cameras.collect(),
            inference: InferenceStatus {
                workers: 2,
                model: Default::default(),
                auto: None,
                queued: 0,
                in_flight: 0,
                scored: 0,
                quarantined: 0,
                latency_ms: Latency::default(),
            },
            alerts: AlertStatus::default(),
        }
    }

    /// A manager that listens on an abstract name, and what is told it.
    fn pair(every: Option<Duration>) -> (UnixDatagram, Notifier) {
        let name = format!("@nursery-notify-{}-{:x}", std::process::id(), fastrand::u64(..));
        let address = address(OsStr::new(&name)).unwrap();
        let theirs = UnixDatagram::bind_addr(&address).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let ours = UnixDatagram::unbound().unwrap();
        ours.set_nonblocking(true).unwrap();
        (theirs, Notifier { manager: Some(Manager::new(ours, address, every)), trouble: None })
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut bytes = [0; 4096];
        std::iter::from_fn(|| {
            socket.recv(&mut bytes).ok().map(|n| String::from_utf8_lossy(&bytes[..n]).into())
        })
        .collect()
    }

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_asked_and_only_where_this_process_is_meant() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(interval(some("3000000"), None, 7), Some(Duration::from_millis(1500)));
        assert_eq!(interval(some("3000000"), some("7"), 7), Some(Duration::from_millis(1500)));
        assert_eq!(interval(some("3000000"), some("8"), 7), None);
        for nothing in ["0", "", "-1", "soon", "99999999999999999999999"] {
            assert_eq!(interval(some(nothing), None, 7), None, "{nothing}");
        }
        assert_eq!(interval(None, None, 7), None);
        let (socket, mut notifier) = pair(Some(Duration::from_secs(5)));
        let now = Instant::now();
        for (after, beats) in [(0, 1), (4, 0), (5, 1), (6, 0), (60, 1)] {
            notifier.turn(now + Duration::from_secs(after), false, || status(&[]));
            let fed = heard(&socket).iter().filter(|m| *m == "WATCHDOG=1").count();
            assert_eq!(fed, beats, "after {after} s");
        }
    }

    #[test]
    fn the_status_line_is_sent_when_it_changes_and_not_too_often() {
        let (socket, mut notifier) = pair(None);
        let now = Instant::now();
        let live = || status(&[("a", CameraState::Live)]);
        notifier.turn(now, false, live);
        assert_eq!(heard(&socket), ["STATUS=1 of 1 cameras live; 2 inference processes"]);
        notifier.turn(now + Duration::from_secs(10), false, live);
        assert!(heard(&socket).is_empty());
        notifier.event(r#"{"type":"cry.started","data":{"camera":"a"}}"#);
        notifier.event(r#"{"type":"cry.started","data":{"camera":"of another life"}}"#);
        notifier.event("no JSON");
        notifier.turn(now + Duration::from_secs(11), false, live);
        assert!(heard(&socket).is_empty());
        notifier.turn(now + Duration::from_secs(12), false, live);
        assert_eq!(heard(&socket), ["STATUS=1 of 1 cameras live; crying: a; 2 inference processes"]);
        notifier.event(r#"{"type":"cry.ended","data":{"camera":"a"}}"#);
        notifier.turn(now + Duration::from_secs(15), false, live);
        assert_eq!(heard(&socket), ["STATUS=1 of 1 cameras live; 2 inference processes"]);
        notifier.stopping();
        assert!(heard(&socket)[0].starts_with("STOPPING=1\n"));
        notifier.turn(now + Duration::from_secs(30), true, live);
        assert!(heard(&socket).is_empty());
    }

    #[test]
    fn a_status_line_stays_short_whatever_there_is() {
        let names: Vec<String> = (0..4096).map(|n| format!("camera-{n:0>57}")).collect();
        let cameras: Vec<_> = names.iter().map(|n| (n.as_str(), CameraState::Offline)).collect();
        let crying = names.iter().cloned().collect();
        let line = line(&status(&cameras), &crying);
        assert!(line.len() < 1000 && line.contains("and 4093 more"), "{line}");
    }

    #[test]
    fn a_manager_that_takes_nothing_is_not_waited_for_and_gets_the_newest_later() {
        let (socket, mut notifier) = pair(Some(Duration::from_millis(1)));
        let start = Instant::now();
        // As many as the kernel queues for a socket that is not read, and many more.
        for n in 0..3000 {
            notifier.turn(start + Duration::from_secs(n), false, || status(&[]));
        }
        notifier.ready();
        assert!(start.elapsed() < Duration::from_secs(5));
        let manager = notifier.manager.as_ref().unwrap();
        assert!(manager.queue.len() <= QUEUE && manager.retry.is_some());
        assert!(notifier.next_deadline().is_some());
        heard(&socket);
        notifier.turn(Instant::now() + Duration::from_secs(10_000), false, || status(&[]));
        assert!(heard(&socket).iter().any(|m| m == "READY=1"));
    }

    #[test]
    fn a_manager_that_is_gone_is_survived() {
        let (socket, mut notifier) = pair(None);
        drop(socket);
        notifier.ready();
        notifier.stopping();
        assert!(notifier.manager.unwrap().queue.is_empty());
        assert!(address(OsStr::new("vsock:2:1234")).is_err());
        assert!(address(OsStr::new("@abstract")).is_ok() && address(OsStr::new("/run/x")).is_ok());
    }
}
