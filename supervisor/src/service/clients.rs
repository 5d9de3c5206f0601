//! The control socket's server side: any number of slow, rude or silent clients, none of which is waited for.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use interprocess::{
    local_socket::{
        ConnectOptions, GenericFilePath, ListenerNonblockingMode, ListenerOptions, ToFsName,
        traits::{Listener as _, StreamCommon},
    },
    os::unix::{
        local_socket::ListenerOptionsExt,
        uds_local_socket::{Listener, Stream},
    },
};
use nix::sys::epoll::EpollFlags;
use nursery_shared::{
    config::ControlConfig,
    control::{MAX_REQUEST, Reply, Request, default_socket},
    line::one_line,
};

use super::{ServiceError, logs::Logs, sys};

/// Clients at once; one more is turned away.
const MAX_CLIENTS: usize = 128;
/// Of these, how many may be people who may only look.
const MAX_GUESTS: usize = 32;
/// How long an answer may be in coming that was put off; whoever put it off is sooner done.
const PUT_OFF: Duration = Duration::from_secs(60);
/// From connection to the whole request, and from the reply to its acceptance.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that may wait for one client while it follows the log.
const FOLLOW_QUEUE: usize = 256 << 10;
/// Log lines per reply line.
const LINES_PER_REPLY: usize = 200;

/// The listening socket and its clients.
pub struct Clients {
    access: Access,
    /// For whom the socket is made, once it is.
    admitted: Option<Access>,
    /// How often somebody asked for what is not his to ask for.
    refused: u64,
    listener: Listener,
    path: PathBuf,
    clients: BTreeMap<u32, Client>,
    next_id: u32,
}

struct Client {
    stream: Stream,
    peer: Peer,
    request: Vec<u8>,
    reply: Vec<u8>,
    written: usize,
    deadline: Instant,
    phase: Phase,
    /// It has said everything that it will ever say.
    read_closed: bool,
    interest: EpollFlags,
}

enum Phase {
    /// Its request is awaited.
    Asking,
    /// What it asked for takes a while.
    Waiting,
    /// It goes when its reply is written.
    Answered,
    /// It gets log lines from sequence number `next` on, up to `end` or for ever.
    Following { name: Option<String>, next: u64, end: Option<u64> },
}

/// What somebody gets who may not ask for what he asked for.
const NOT_FOR_YOU: &str = "not permitted: only root, the service's own user and members of its group (control.group of the configuration) may do that";

/// What became of a client that was looked at.
pub enum Outcome {
    /// Nothing to do yet.
    Waiting,
    /// It asks for this; answer with [`Clients::answer`].
    Asks(Request, Peer),
    /// Gone.
    Closed,
}

/// Who asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peer {
    pub uid: Option<u32>,
    pub pid: Option<i32>,
    /// May do everything.
    trusted: bool,
}

/// Who may use the socket, besides root and our own user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// This group may do everything.
    pub group: Option<u32>,
    /// Everybody may ask for the status.
    pub public_status: bool,
}

impl Access {
    /// What the configuration says.
    ///
    /// # Errors
    /// One line that names the key.
    pub fn new(config: &ControlConfig) -> Result<Self, String> {
        let group = match config.group.as_deref() {
            Some(name) => super::identity::group(name).map_err(|e| format!("control.group: {e}"))?,
            // The group that we were started with, as a unit's `Group=` has it.
            None => nix::unistd::getegid().as_raw(),
        };
        Ok(Self { group: Some(group), public_status: config.public_status })
    }

    fn allows(self, request: &Request, peer: Peer) -> bool {
        peer.trusted || (self.public_status && matches!(request, Request::Status {}))
    }

    fn peer(self, stream: &Stream) -> Peer {
        let creds = stream.peer_creds().ok();
        let uid = creds.as_ref().and_then(|c| c.euid());
        let own = nix::unistd::geteuid().as_raw();
        let belongs = |group| {
            creds.as_ref().and_then(|c| c.egid()) == Some(group)
                || sys::peer_groups(stream.as_fd()).is_ok_and(|groups| groups.contains(&group))
        };
        let trusted = uid.is_some_and(|uid| uid == 0 || uid == own) || self.group.is_some_and(belongs);
        Peer { uid, pid: creds.as_ref().and_then(|c| c.pid()), trusted }
    }

    fn mode(self) -> u32 {
        if self.public_status { 0o666 } else { 0o660 }
    }
}

impl Clients {
    /// Binds `path`, making its directory where it is missing; a socket that nobody answers on any more is replaced.
    pub fn bind(path: &Path, access: Access) -> Result<Self, ServiceError> {
        let failed = |what: &str| ServiceError {
            message: format!("control socket {}: {what}", path.display()),
            exit: 1,
        };
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            super::private_dir(dir, 0o750).map_err(|e| {
                failed(&format!("directory cannot be made: {e} (run as root, or give --control-socket)"))
            })?;
            // Whoever owns the directory could put a socket of his own in its place.
            let owner = std::fs::metadata(dir).map_or(0, |m| m.uid());
            let me = nix::unistd::geteuid();
            if !me.is_root() && owner != 0 && owner != me.as_raw() {
                return Err(failed(&format!(
                    "its directory belongs to somebody else (uid {owner}): give another --control-socket"
                )));
            }
        }
        let name = || path.to_fs_name::<GenericFilePath>().map_err(|e| failed(&e.to_string()));
        match ConnectOptions::new().name(name()?).connect_sync_as::<Stream>() {
            Ok(_) => return Err(failed("another nursery is already running here")),
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                // A connection to anything but a socket is refused just so.
                let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
                if !is_socket {
                    return Err(failed("exists and is not a socket: give another --control-socket"));
                }
                std::fs::remove_file(path)
                    .map_err(|e| failed(&format!("stale socket cannot be removed: {e}")))?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(&e.to_string())),
        }
        let listener = ListenerOptions::new()
            .name(name()?)
            .mode(0o660)
            .nonblocking(ListenerNonblockingMode::Both)
            .create_sync_as::<Listener>()
            .map_err(|e| failed(&format!("{e} (run as root, or give --control-socket)")))?;
        let mut clients = Self {
            access,
            admitted: None,
            refused: 0,
            listener,
            path: path.to_owned(),
            clients: BTreeMap::new(),
            next_id: 0,
        };
        clients.admit(access).map_err(|e| failed(&e))?;
        Ok(clients)
    }

    /// Has others use the socket from now on.
    ///
    /// # Errors
    /// One line; nobody more may use it then.
    pub fn admit(&mut self, access: Access) -> Result<(), String> {
        if self.admitted == Some(access) {
            return Ok(());
        }
        (self.access, self.admitted) = (Access::default(), None);
        let at = |path: &Path, e: io::Error| format!("{}: {e}", path.display());
        let own = nix::unistd::getegid().as_raw();
        let group = access.group.unwrap_or(own);
        // Through a descriptor of what is there now, which is no link; a socket cannot be opened otherwise.
        let set = |path: &Path, is_ours: fn(&std::fs::Metadata) -> bool, mode: u32| -> io::Result<()> {
            let flags = libc::O_PATH | libc::O_NOFOLLOW;
            let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
            let found = file.metadata()?;
            if !is_ours(&found) {
                return Err(io::Error::other("somebody has put another thing in its place"));
            }
            let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            let change =
                |mode| std::fs::set_permissions(&by_descriptor, std::fs::Permissions::from_mode(mode));
            // Closed first: what it is for one group is not for the other.
            change(0o600)?;
            if found.gid() != group {
                std::os::unix::fs::chown(&by_descriptor, None, Some(group))?;
            }
            change(mode)
        };
        let own_user = |m: &std::fs::Metadata| m.uid() == nix::unistd::geteuid().as_raw();
        if !own_user(&std::fs::symlink_metadata(&self.path).map_err(|e| at(&self.path, e))?) {
            return Err(format!("{}: belongs to somebody else", self.path.display()));
        }
        set(&self.path, |m| m.file_type().is_socket(), access.mode()).map_err(|e| at(&self.path, e))?;
        // Nobody comes to a socket in a closed directory. Of all others, what is right is for their owners to know.
        if let Some(directory) = self.path.parent().filter(|_| self.path == default_socket())
            && std::fs::symlink_metadata(directory).is_ok_and(|m| own_user(&m))
        {
            let mode = if access.public_status { 0o755 } else { 0o750 };
            set(directory, |m| m.is_dir(), mode).map_err(|e| at(directory, e))?;
        }
        (self.access, self.admitted) = (access, Some(access));
        Ok(())
    }

    /// The listening descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The descriptor of a client.
    pub fn client_fd(&self, id: u32) -> Option<BorrowedFd<'_>> {
        self.clients.get(&id).map(|c| c.stream.as_fd())
    }

    /// Accepts one waiting client; `Ok(None)` when nobody waits or it was turned away.
    pub fn accept(&mut self) -> io::Result<Option<u32>> {
        let stream = match self.listener.accept() {
            Ok(stream) => stream,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        };
        let peer = self.access.peer(&stream);
        let guests = self.clients.values().filter(|c| !c.peer.trusted).count();
        if self.clients.len() >= MAX_CLIENTS || (!peer.trusted && guests >= MAX_GUESTS) {
            return Ok(None);
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let deadline = Instant::now() + PATIENCE;
        let client = Client {
            stream,
            peer,
            request: Vec::new(),
            reply: Vec::new(),
            written: 0,
            deadline,
            phase: Phase::Asking,
            read_closed: false,
            interest: EpollFlags::EPOLLIN,
        };
        self.clients.insert(id, client);
        Ok(Some(id))
    }

    /// Reads from and writes to a client as far as that goes without waiting.
    pub fn serve(&mut self, id: u32) -> Outcome {
        let Some(client) = self.clients.get_mut(&id) else { return Outcome::Closed };
        // It had said everything, so that there is nothing but its end to be told of.
        if matches!(client.phase, Phase::Waiting) && client.read_closed {
            self.clients.remove(&id);
            return Outcome::Closed;
        }
        let outcome = match client.read() {
            Outcome::Asks(request, peer) if !self.access.allows(&request, peer) => {
                self.refused += 1;
                // Said at the first, second, fourth, … of them: somebody may ask as often as he likes.
                if self.refused.is_power_of_two() {
                    let show = |n: Option<i64>| n.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
                    tracing::warn!(
                        "control socket: refused what uid {}, pid {} asked for ({} refusals so far)",
                        show(peer.uid.map(i64::from)),
                        show(peer.pid.map(i64::from)),
                        self.refused
                    );
                }
                client.refuse(NOT_FOR_YOU.to_owned())
            }
            other => other,
        };
        let outcome = match outcome {
            Outcome::Waiting if !client.write() => Outcome::Closed,
            other => other,
        };
        if matches!(outcome, Outcome::Closed) {
            self.clients.remove(&id);
        }
        outcome
    }

    /// The reply to this client comes later.
    pub fn put_off(&mut self, id: u32) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.phase = Phase::Waiting;
            client.deadline = Instant::now() + PUT_OFF;
        }
    }

    /// Sends a reply, after which the client goes. False when it is gone already.
    pub fn answer(&mut self, id: u32, reply: &Reply) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return false };
        client.push(reply);
        client.phase = Phase::Answered;
        client.deadline = Instant::now() + PATIENCE;
        if !client.write() {
            self.clients.remove(&id);
        }
        self.clients.contains_key(&id)
    }

    /// Sends a short reply and gives the connection away; `None` where the client does not take it at once.
    pub fn hand_over(&mut self, id: u32, reply: &Reply) -> Option<OwnedFd> {
        let mut client = self.clients.remove(&id)?;
        client.push(reply);
        // So that having written everything is not the end.
        client.phase = Phase::Waiting;
        let whole = client.write() && client.reply.is_empty();
        whole.then(|| client.stream.into())
    }

    /// Sends the kept log lines, and goes on with new ones if `follow`.
    pub fn follow(&mut self, id: u32, name: Option<String>, follow: bool, logs: &Logs) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let end = (!follow).then(|| logs.end());
        client.phase = Phase::Following { name, next: 0, end };
        client.deadline = Instant::now() + PATIENCE;
        if !client.feed(logs) {
            self.clients.remove(&id);
        }
    }

    /// Hands new log lines to everybody who follows.
    pub fn pump_logs(&mut self, logs: &Logs) {
        self.clients
            .retain(|_, client| !matches!(client.phase, Phase::Following { .. }) || client.feed(logs));
    }

    /// Clients that follow the log.
    pub fn anybody_follows(&self) -> bool {
        self.clients.values().any(|c| matches!(c.phase, Phase::Following { .. }))
    }

    /// When the next client's patience ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.clients.values().filter_map(Client::due).min()
    }

    /// Closes clients that neither ask nor take their reply in time.
    pub fn expire(&mut self, now: Instant) {
        self.clients.retain(|_, client| client.due().is_none_or(|due| due > now));
    }

    /// The clients whose sockets wait for something else than when this was asked last.
    pub fn changed_interest(&mut self) -> Vec<(u32, EpollFlags)> {
        let change = |(id, client): (&u32, &mut Client)| {
            let mut flags = EpollFlags::empty();
            flags.set(EpollFlags::EPOLLIN, !client.read_closed);
            flags.set(EpollFlags::EPOLLOUT, client.written < client.reply.len());
            let changed = flags != client.interest;
            client.interest = flags;
            changed.then_some((*id, flags))
        };
        self.clients.iter_mut().filter_map(change).collect()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // The listener removes its name itself where it can; a socket that stays is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Client {
    fn due(&self) -> Option<Instant> {
        match self.phase {
            // Whoever has taken everything may wait for more as long as he likes.
            Phase::Following { end: None, .. } if self.written == self.reply.len() => None,
            _ => Some(self.deadline),
        }
    }

    fn read(&mut self) -> Outcome {
        let mut bytes = [0; 4096];
        // A bounded number of reads, so that a flood from one client does not starve the loop.
        for _ in 0..=MAX_REQUEST / bytes.len() {
            match (&self.stream).read(&mut bytes) {
                Ok(0) => {
                    self.read_closed = true;
                    return match self.phase {
                        Phase::Asking if !self.request.is_empty() => self.understand(self.request.len() - 1),
                        // A client that only closed its sending side still gets its reply.
                        Phase::Answered | Phase::Waiting => Outcome::Waiting,
                        _ => Outcome::Closed,
                    };
                }
                Ok(n) if matches!(self.phase, Phase::Asking) => {
                    self.request.extend_from_slice(&bytes[..n]);
                    if let Some(end) = self.request.iter().position(|b| *b == b'\n') {
                        return self.understand(end);
                    }
                    if self.request.len() > MAX_REQUEST {
                        return self.refuse(format!("request is longer than {MAX_REQUEST} bytes"));
                    }
                }
                Ok(_) => {} // Whatever it says after its request is not listened to.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Outcome::Waiting,
                Err(_) => return Outcome::Closed,
            }
        }
        Outcome::Waiting
    }

    fn understand(&mut self, end: usize) -> Outcome {
        let line: Vec<u8> = self.request.drain(..=end).collect();
        self.request = Vec::new();
        match serde_json::from_slice::<Request>(&line) {
            Ok(request) => {
                self.phase = Phase::Answered;
                Outcome::Asks(request, self.peer)
            }
            // The message may repeat a part of the request.
            Err(e) => self.refuse(format!("not a request: {}", one_line(&e.to_string()))),
        }
    }

    fn refuse(&mut self, message: String) -> Outcome {
        self.push(&Reply::Error { message });
        self.phase = Phase::Answered;
        self.request = Vec::new();
        Outcome::Waiting
    }

    fn push(&mut self, reply: &Reply) {
        if self.written == self.reply.len() {
            self.deadline = Instant::now() + PATIENCE;
        }
        if self.written > 0 {
            self.reply.drain(..self.written);
            self.written = 0;
        }
        // Replies are plain data with string keys, which JSON can always express.
        if serde_json::to_writer(&mut self.reply, reply).is_ok() {
            self.reply.push(b'\n');
        }
    }

    /// Fills and writes in turns until the client takes no more for now, or has got everything. False when it
    /// is gone or has got everything it asked for.
    fn feed(&mut self, logs: &Logs) -> bool {
        loop {
            let complete = self.fill(logs);
            if complete {
                self.phase = Phase::Answered;
            }
            if !self.write() {
                return false;
            }
            let idle = self.written == self.reply.len();
            if !idle || complete || !self.has_more(logs) {
                return true;
            }
        }
    }

    fn has_more(&self, logs: &Logs) -> bool {
        matches!(&self.phase, Phase::Following { next, .. } if *next < logs.end())
    }

    /// Queues log lines, as many as may wait for one client; true when none will follow.
    fn fill(&mut self, logs: &Logs) -> bool {
        loop {
            let Phase::Following { name, next, end } = &mut self.phase else { return false };
            if end.is_some_and(|end| *next >= end) {
                return true;
            }
            if self.reply.len() - self.written >= FOLLOW_QUEUE {
                return false;
            }
            // The first read asks for everything that is kept: what is gone by then was not lost by it.
            let first = *next == 0;
            let (lines, lost, after) = logs.read(*next, name.as_deref(), LINES_PER_REPLY);
            let at_end = after == *next || lines.is_empty();
            *next = after;
            let finite = end.is_some();
            if !lines.is_empty() {
                self.push(&Reply::Logs { lines, lost: if first { 0 } else { lost } });
            }
            if at_end {
                return finite;
            }
        }
    }

    /// False when the client is gone or has got everything it asked for.
    fn write(&mut self) -> bool {
        while self.written < self.reply.len() {
            match (&self.stream).write(&self.reply[self.written..]) {
                Ok(0) => return false,
                Ok(n) => {
                    self.written += n;
                    self.deadline = Instant::now() + PATIENCE;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        self.reply.clear();
        self.written = 0;
        !matches!(self.phase, Phase::Answered)
    }
}
