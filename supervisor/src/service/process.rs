//! One running worker process as the loop sees it: its socket, its output, its pidfd.

use std::{
    collections::VecDeque,
    io::{self, PipeReader, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::Child,
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        epoll::EpollFlags,
        signal::{Signal, kill},
        socket::{MsgFlags, recv, send},
    },
    unistd::Pid,
};
use nursery_shared::{
    descriptors,
    frame::{self, FrameBuffer, FrameError, MAX_FROM_WORKER, MAX_TO_WORKER},
    message::{FromWorker, Role, ToWorker},
    postmortem::{Finding, PostMortem},
};

use super::{
    cgroups::Group,
    logs::Lines,
    procfs,
    spawn::Spawned,
    sys::{self, Used},
};
use crate::policy::{Exit, Key};

/// Bytes read from one worker before the others have their turn.
const READ_QUOTA: usize = 512 << 10;
/// Output bytes read from one worker before the others have their turn.
const OUTPUT_QUOTA: usize = 64 << 10;
/// Bytes that may wait for a worker. The policy keeps less than this on its way (two batches, 256 records); a
/// worker that lets more pile up does not read.
const MAX_WAITING: usize = 48 << 20;

/// Room for what is sent that is kept between two messages: a batch of sixteen windows with their states.
const KEPT_ROOM: usize = 512 << 10;

/// A running process.
pub struct Process {
    pub key: Key,
    child: Child,
    pub pidfd: OwnedFd,
    pub socket: OwnedFd,
    pub output: PipeReader,
    incoming: FrameBuffer,
    outgoing: Vec<u8>,
    sent: usize,
    /// Descriptors that travel with the byte at this place of `outgoing`.
    passengers: VecDeque<(usize, OwnedFd)>,
    /// Descriptors that came, and whose frames are not whole yet.
    arrived: VecDeque<OwnedFd>,
    /// It may send descriptors.
    brings: bool,
    lines: Lines,
    /// It may be read from; see backpressure in the policy.
    pub reading: bool,
    /// Since when its socket has been at its end while the process still runs.
    pub ended_at: Option<Instant>,
    pub output_ended: bool,
    /// What was found out about it while it hung.
    pub findings: Vec<Finding>,
    /// Its control group; gone when it has ended.
    pub group: Option<Group>,
    /// It was seen in there.
    pub in_group: bool,
    /// Of its user, see [`super::identity::free_number`].
    pub number: u32,
    interest: EpollFlags,
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub exit: Exit,
    /// Bytes that its control group could have, where the kernel killed somebody in it for want of more.
    pub out_of_memory: Option<u64>,
    used: Used,
    core_dumped: bool,
}

/// What is left of a process that was reaped.
pub struct Remains {
    pub key: Key,
    ended: Ended,
    log: Vec<String>,
    findings: Vec<Finding>,
}

impl Remains {
    /// Completes what the policy knew of it.
    pub fn complete(self, post_mortem: &mut PostMortem) {
        for finding in self.findings {
            post_mortem.add(finding);
        }
        let resources = &mut post_mortem.resources;
        // The kernel counts memory roughly, and differently in different places.
        let known = [resources.rss_bytes, resources.peak_rss_bytes, Some(self.ended.used.peak_rss_bytes)];
        resources.peak_rss_bytes = known.into_iter().flatten().max();
        resources.cpu_s = Some(self.ended.used.cpu_s);
        post_mortem.signal_name = post_mortem
            .signal
            .and_then(|number| Signal::try_from(number).ok())
            .map(|signal| signal.as_str().to_owned());
        if let Some(call) = forbidden_call(post_mortem.signal, &self.log) {
            post_mortem.notes.push(format!(
                "it made the system call {call}, which its role has no use for: either somebody took it over through what it read, or a list of system calls is incomplete, which should be reported"
            ));
        }
        if let Some(bytes) = self.ended.out_of_memory {
            post_mortem.notes.push(format!(
                "the kernel killed it, or a program that it had started, because its control group had used up its {} MiB of memory (supervision.worker_memory_mb)",
                bytes >> 20
            ));
        }
        if self.ended.core_dumped {
            post_mortem.notes.push("the kernel wrote a core dump".into());
        }
        post_mortem.log = self.log;
    }
}

/// The call that a worker died of; it wrote the name itself, as the last thing it did.
fn forbidden_call(signal: Option<i32>, log: &[String]) -> Option<String> {
    if signal != Some(Signal::SIGSYS as i32) {
        return None;
    }
    let line =
        log.iter().rev().find_map(|line| line.split_once("forbidden system call ").map(|(_, rest)| rest))?;
    Some(line.split_once(": ").map_or(line, |(call, _)| call).to_owned())
}

/// What reading from a worker's socket brought.
pub enum Read1 {
    /// Nothing more at present.
    Idle,
    /// There may be more; the others first.
    More,
    /// The socket is at its end.
    End,
    /// What came is no frame.
    Bad(String),
}

impl Process {
    pub fn new(key: Key, name: String, role: Role, spawned: Spawned, in_group: bool) -> Self {
        Self {
            key,
            child: spawned.child,
            pidfd: spawned.pidfd,
            socket: spawned.socket,
            output: spawned.output,
            incoming: FrameBuffer::new(MAX_FROM_WORKER),
            outgoing: Vec::new(),
            sent: 0,
            passengers: VecDeque::new(),
            arrived: VecDeque::new(),
            brings: role == Role::Sink,
            lines: Lines::new(name),
            reading: true,
            ended_at: None,
            output_ended: false,
            findings: Vec::new(),
            group: None,
            in_group,
            number: 0,
            interest: EpollFlags::EPOLLIN,
        }
    }

    /// Reads what is there, within the quota, and decodes it into `messages`. `bytes`: room for what comes.
    pub fn read(&mut self, bytes: &mut [u8], messages: &mut Vec<(FromWorker, Option<OwnedFd>)>) -> Read1 {
        let mut quota = READ_QUOTA;
        loop {
            if quota == 0 {
                return Read1::More;
            }
            let received = if self.brings {
                let (socket, flags) = (self.socket.as_fd(), MsgFlags::MSG_DONTWAIT);
                descriptors::receive(socket, bytes, &mut self.arrived, flags)
            } else {
                recv(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT)
            };
            match received {
                Ok(0) => return Read1::End,
                Ok(n) => {
                    quota = quota.saturating_sub(n);
                    if let Err(why) = self.decode(&bytes[..n], messages) {
                        return Read1::Bad(why);
                    }
                    // All that was there; what has come since is reported. Those who send descriptors are given less than
                    // there is where one is attached.
                    if n < bytes.len() && !self.brings {
                        return Read1::Idle;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Read1::Idle,
                Err(_) => return Read1::End,
            }
        }
    }

    fn decode(
        &mut self,
        mut bytes: &[u8],
        messages: &mut Vec<(FromWorker, Option<OwnedFd>)>,
    ) -> Result<(), String> {
        let bad = |e: FrameError| format!("sent a bad frame: {e}");
        while let Some(message) = self.incoming.next_frame_of::<FromWorker>(&mut bytes).map_err(bad)? {
            let descriptor = match message.brings_descriptor() {
                true => Some(self.arrived.pop_front().ok_or("sent a message without its descriptor")?),
                false => None,
            };
            messages.push((message, descriptor));
        }
        Ok(())
    }

    /// Queues a message, with what comes with it, and writes as much as the socket takes.
    pub fn send(&mut self, message: &ToWorker, descriptor: Option<OwnedFd>) -> Result<(), String> {
        if self.outgoing.len() - self.sent > MAX_WAITING {
            return Err("does not read what it is sent".into());
        }
        if self.sent > 0 && self.sent * 2 > self.outgoing.len() {
            self.outgoing.drain(..self.sent);
            // All that wait are of bytes that were not sent.
            self.passengers.iter_mut().for_each(|(place, _)| *place -= self.sent);
            self.sent = 0;
        }
        let place = self.outgoing.len();
        frame::encode_frame(message, MAX_TO_WORKER, &mut self.outgoing)
            .map_err(|e| format!("cannot be told: {e}"))?;
        self.passengers.extend(descriptor.map(|descriptor| (place, descriptor)));
        self.flush();
        Ok(())
    }

    /// Writes what waits, as much as the socket takes. An error shows as the end of the socket soon.
    pub fn flush(&mut self) {
        while self.sent < self.outgoing.len() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let on_board = self.passengers.front().is_some_and(|(place, _)| *place <= self.sent);
            // Up to the next byte that takes somebody along.
            let end =
                self.passengers.get(usize::from(on_board)).map_or(self.outgoing.len(), |(place, _)| *place);
            let bytes = &self.outgoing[self.sent..end];
            let outcome = match self.passengers.front().filter(|_| on_board) {
                Some((_, descriptor)) => {
                    descriptors::send_with(self.socket.as_fd(), bytes, descriptor.as_fd(), flags)
                }
                None => send(self.socket.as_raw_fd(), bytes, flags),
            };
            match outcome {
                Ok(n) => {
                    self.sent += n;
                    if on_board {
                        self.passengers.pop_front();
                    }
                }
                Err(Errno::EINTR) => {}
                // Too many are on their way already: its message goes without, which the other end can tell.
                Err(Errno::ETOOMANYREFS) if on_board => {
                    self.passengers.pop_front();
                }
                Err(_) => return,
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        // Clips' lists and the like are large and rare, and their size is not held for ever; a batch comes again at once.
        self.outgoing.shrink_to(KEPT_ROOM);
    }

    /// What the socket waits for, if that is something else than when this was asked last.
    pub fn changed_interest(&mut self) -> Option<EpollFlags> {
        let flags = self.wants();
        let changed = self.ended_at.is_none() && flags != self.interest;
        changed.then(|| {
            self.interest = flags;
            flags
        })
    }

    /// There is something to ask [`changed_interest`](Self::changed_interest) for.
    pub fn has_other_interest(&self) -> bool {
        self.wants() != self.interest
    }

    fn wants(&self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, self.reading);
        flags.set(EpollFlags::EPOLLOUT, self.sent < self.outgoing.len());
        flags
    }

    /// Logs what the worker wrote; sets `output_ended` at the end.
    pub fn read_output(&mut self, now_us: u64) {
        let mut bytes = [0; 8192];
        let mut quota = OUTPUT_QUOTA;
        while quota > 0 && !self.output_ended {
            match self.output.read(&mut bytes) {
                Ok(0) => self.output_ended = true,
                Ok(n) => {
                    quota = quota.saturating_sub(n);
                    self.lines.feed(&bytes[..n], now_us);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.output_ended = true,
            }
        }
    }

    /// Logs the last words.
    pub fn finish_output(&mut self, now_us: u64) {
        self.read_output(now_us);
        self.lines.finish(now_us);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        // It fails only for a process that was reaped already.
        let _ = self.child.kill();
    }

    /// Nobody holds the other end of the socket any more.
    pub fn has_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO).is_ok()
            && polled[0].revents().is_some_and(|r| r.contains(PollFlags::POLLHUP))
    }
    /// SIGKILL to whatever a worker that has exited left behind in its session. To be called before
    /// [`reap`](Self::reap), so that the session's number is still its own.
    pub fn kill_session(&self) {
        // Again where somebody forked meanwhile, but not for ever.
        for _ in 0..3 {
            let left = procfs::in_session(self.child.id());
            if left.is_empty() {
                return;
            }
            for pid in left {
                // Gone already: just as well.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// How it ended, if it has exited.
    pub fn reap(&mut self) -> Option<Ended> {
        let (status, used) = sys::reap(self.child.id()).ok().flatten()?;
        let exit = match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(0)),
        };
        Some(Ended { exit, out_of_memory: None, used, core_dumped: status.core_dumped() })
    }

    /// What is left of it for its post-mortem.
    pub fn into_remains(self, ended: Ended) -> Remains {
        Remains { key: self.key, ended, log: self.lines.into_recent(), findings: self.findings }
    }

    /// Name of the worker.
    pub fn name(&self) -> &str {
        self.lines.name()
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its three descriptors: pidfd, socket, output.
    pub fn descriptors(&self) -> [std::os::fd::BorrowedFd<'_>; 3] {
        [self.pidfd.as_fd(), self.socket.as_fd(), self.output.as_fd()]
    }
}
