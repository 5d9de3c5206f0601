//! A worker's end of the socket to the supervisor: reads on one side, blocking or awaited; on the other a bounded queue
//! with a thread that writes what the socket does not take at once, so that the working loop never waits for a slow
//! supervisor unless it wants to.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use interprocess::{local_socket::traits::Stream as _, os::unix::uds_local_socket::Stream};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, send},
};
use nursery_shared::{
    VERSION, descriptors,
    frame::{self, FrameBuffer, FrameError, MAX_FROM_WORKER, MAX_TO_WORKER},
    message::{FromWorker, PROTOCOL, Role, ToWorker, WORKER_FD},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Messages that may wait to be written before [`Outbox::send`] waits too.
const QUEUE: usize = 1024;

/// Frames up to this size leave their room for the next one: any window is smaller.
const SPARE: usize = 64 << 10;

const GONE: &str = "the supervisor is gone";

/// The receiving half.
pub struct Inbox(Arc<Stream>);

impl Inbox {
    /// The next message; `None` when the supervisor is gone. Blocks. A descriptor that comes with it is lost.
    pub fn recv(&mut self) -> Result<Option<ToWorker>, FrameError> {
        frame::read_frame(&mut &*self.0, MAX_TO_WORKER)
    }

    /// For roles that are sent descriptors.
    pub fn with_descriptors(self) -> WideInbox {
        WideInbox { stream: self.0, waiting: VecDeque::new() }
    }

    /// For roles that wait for everything at one place and need no thread for it. To be called within a runtime.
    ///
    /// # Errors
    /// The runtime cannot wait for the socket.
    pub fn polled(self) -> io::Result<PolledInbox> {
        Ok(PolledInbox {
            // SAFETY: the stream keeps its one descriptor open until the last who shares it is gone, which this is then.
            stream: unsafe { AsyncFd::register_with_interest(Socket(self.0), Interest::READABLE)? },
            frames: FrameBuffer::new(MAX_TO_WORKER),
            waiting: VecDeque::new(),
        })
    }
}

struct Socket(Arc<Stream>);

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Bytes that one look at the socket takes; orders are small.
const PIECE: usize = 2048;

/// The receiving half, awaited. What the supervisor reads of ours wakes nobody here, as it does a thread that waits in
/// the kernel.
pub struct PolledInbox {
    stream: AsyncFd<Socket>,
    frames: FrameBuffer,
    /// Descriptors whose frames are not whole yet.
    waiting: VecDeque<OwnedFd>,
}

impl PolledInbox {
    /// As [`WideInbox::recv`], without blocking. May be dropped where it waits.
    ///
    /// # Errors
    /// What came is no frame, or cannot be read.
    pub async fn recv(&mut self) -> Result<Option<(ToWorker, Option<OwnedFd>)>, FrameError> {
        loop {
            if let Some(message) = self.frames.next_frame::<ToWorker>()? {
                let descriptor = if message.brings_descriptor() { self.waiting.pop_front() } else { None };
                return Ok(Some((message, descriptor)));
            }
            let mut ready = self.stream.readable().await?;
            let (mut bytes, waiting) = ([0; PIECE], &mut self.waiting);
            // Our writing half shares the socket, and blocks.
            let take = |socket: &AsyncFd<Socket>| {
                let from = socket.get_ref().0.as_fd();
                Ok(descriptors::receive(from, &mut bytes, waiting, MsgFlags::MSG_DONTWAIT)?)
            };
            match ready.try_io(take) {
                Ok(Ok(0)) if self.frames.is_at_boundary() => return Ok(None),
                Ok(Ok(0)) => return Err(FrameError::Truncated),
                Ok(Ok(n)) => self.frames.feed(&bytes[..n]),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Err(e.into()),
                // Somebody else's readiness.
                Err(_would_block) => {}
            }
        }
    }
}

/// The receiving half, where descriptors come too.
pub struct WideInbox {
    stream: Arc<Stream>,
    /// Those whose frames are not whole yet.
    waiting: VecDeque<OwnedFd>,
}

impl WideInbox {
    /// The next message, and what came with it; `None` when the supervisor is gone. Blocks. Where too many are under way
    /// one may come without its descriptor.
    pub fn recv(&mut self) -> Result<Option<(ToWorker, Option<OwnedFd>)>, FrameError> {
        let Some(message) = frame::read_frame::<ToWorker>(self, MAX_TO_WORKER)? else { return Ok(None) };
        let descriptor = if message.brings_descriptor() { self.waiting.pop_front() } else { None };
        Ok(Some((message, descriptor)))
    }
}

impl Read for WideInbox {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(descriptors::receive(self.stream.as_fd(), bytes, &mut self.waiting, MsgFlags::empty())?)
    }
}

/// The sending half; clones share one queue.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stream: Arc<Stream>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Item>,
    /// Room for the next frame, used again and again while the socket takes them at once.
    spare: Vec<u8>,
    droppable: usize,
    writing: bool,
    begun: bool,
    closed: bool,
}

struct Item {
    frame: Vec<u8>,
    /// So much of it is in the socket already.
    sent: usize,
    droppable: bool,
    /// Goes with its first byte.
    descriptor: Option<OwnedFd>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid after every statement, so a panic elsewhere leaves nothing half done.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message that must arrive, or queues it; waits while the queue is full. Fails when the supervisor is gone
    /// or the message is too large.
    pub fn send(&self, message: &FromWorker) -> Result<(), String> {
        self.push(self.wait_for_room(), std::slice::from_ref(message), None, false)
    }

    /// As [`Outbox::send`], of several that go together, for the price of one.
    pub fn send_all(&self, messages: &[FromWorker]) -> Result<(), String> {
        self.push(self.wait_for_room(), messages, None, false)
    }

    /// As [`Outbox::send`], of a message that brings a descriptor.
    pub fn send_with(&self, message: &FromWorker, descriptor: OwnedFd) -> Result<(), String> {
        debug_assert!(message.brings_descriptor());
        self.push(self.wait_for_room(), std::slice::from_ref(message), Some(descriptor), false)
    }

    /// Sends a message of which only the newest `limit` matter, or queues it: the oldest of its kind gives way. Never
    /// waits. Returns how many gave way.
    pub fn send_newest(&self, message: &FromWorker, limit: usize) -> Result<u64, String> {
        let mut state = self.lock();
        let mut dropped = 0;
        while state.droppable >= limit.max(1) {
            let Some(oldest) = state.queue.iter().position(|i| i.droppable) else { break };
            state.queue.remove(oldest);
            state.droppable -= 1;
            dropped += 1;
        }
        self.push(state, std::slice::from_ref(message), None, true).map(|()| dropped)
    }

    fn wait_for_room(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.queue.len() >= QUEUE && !state.closed {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Writes messages at once, where nothing waits before it and the socket has room, which is nearly always; else
    /// what is left of it is the writing thread's.
    fn push(
        &self,
        mut state: MutexGuard<'_, State>,
        messages: &[FromWorker],
        descriptor: Option<OwnedFd>,
        droppable: bool,
    ) -> Result<(), String> {
        if state.closed {
            return Err(GONE.into());
        }
        let mut frame = std::mem::take(&mut state.spare);
        frame.clear();
        for message in messages {
            frame::encode_frame(message, MAX_FROM_WORKER, &mut frame).map_err(|e| e.to_string())?;
        }
        let mut sent = 0;
        if state.queue.is_empty() && !state.writing && descriptor.is_none() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.0.stream.as_fd().as_raw_fd(), &frame, flags) {
                Ok(all) if all == frame.len() => {
                    // A frame that was larger than most need not stay.
                    state.spare = if all <= SPARE { frame } else { Vec::new() };
                    return Ok(());
                }
                Ok(part) => sent = part,
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => {}
                Err(_) => {
                    state.closed = true;
                    self.0.changed.notify_all();
                    return Err(GONE.into());
                }
            }
        }
        // What is begun must be ended.
        let droppable = droppable && sent == 0;
        state.droppable += usize::from(droppable);
        state.queue.push_back(Item { frame, sent, droppable, descriptor });
        self.0.changed.notify_all();
        Ok(())
    }

    /// Messages that wait to be written.
    pub fn queued(&self) -> usize {
        self.lock().queue.len()
    }

    /// Waits until fewer than `limit` messages wait to be written, or the supervisor is gone.
    pub fn wait_below(&self, limit: usize) {
        let mut state = self.lock();
        while state.queue.len() >= limit.max(1) && !state.closed {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until everything queued is in the socket, or the supervisor is gone.
    pub fn flush(&self) {
        let mut state = self.lock();
        while !(state.closed || state.queue.is_empty() && !state.writing) {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn encode(message: &FromWorker) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    frame::encode_frame(message, MAX_FROM_WORKER, &mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// The socket before there is a thread beside this one: hello is said, the configuration may be read, and whatever
/// concerns single threads (the cage's files and ports) can be done for all that will ever be.
pub struct Opened {
    stream: Arc<Stream>,
    supervisor: Option<u32>,
}

impl Opened {
    /// User at the other end.
    pub fn supervisor(&self) -> Option<u32> {
        self.supervisor
    }

    /// The supervisor's first message; `None` when it is gone. Blocks.
    pub fn configuration(&self) -> Result<Option<ToWorker>, String> {
        frame::read_frame(&mut &*self.stream, MAX_TO_WORKER)
            .map_err(|e| format!("frame from the supervisor: {e}"))
    }

    /// Both halves, and the thread that writes.
    pub fn start(self) -> Result<(Inbox, Outbox), String> {
        let outbox = Outbox(Arc::new(Shared {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            stream: Arc::clone(&self.stream),
        }));
        let writer = outbox.clone();
        std::thread::Builder::new()
            .name("link-writer".into())
            .spawn(move || write_loop(&writer))
            .map_err(|e| format!("cannot start the writing thread: {e}"))?;
        // Until it has begun it makes calls that not every role may make.
        let mut state = outbox.lock();
        while !state.begun {
            state = outbox.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        Ok((Inbox(self.stream), outbox))
    }
}

/// Takes the inherited socket and says hello. To be called once, first thing.
pub fn open(role: Role) -> Result<Opened, String> {
    let no_socket = |e: io::Error| {
        format!("no socket on descriptor {WORKER_FD} ({e}): this program is started by `nursery`")
    };
    nix::sys::socket::getsockopt(
        // SAFETY: the descriptor is only looked at; where it is not open the call says so.
        &unsafe { std::os::fd::BorrowedFd::borrow_raw(WORKER_FD) },
        nix::sys::socket::sockopt::SockType,
    )
    .map_err(|e| no_socket(e.into()))?;
    let supervisor = nix::sys::socket::getsockopt(
        // SAFETY: as above.
        &unsafe { std::os::fd::BorrowedFd::borrow_raw(WORKER_FD) },
        nix::sys::socket::sockopt::PeerCredentials,
    );
    let supervisor = supervisor.ok().map(|peer| peer.uid());
    // SAFETY: the supervisor put the socket there for this process alone, nothing else in this process owns
    // it, and `open` is called once.
    let fd = unsafe { OwnedFd::from_raw_fd(WORKER_FD) };
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))
        .map_err(|e| no_socket(e.into()))?;
    let stream = Stream::from(fd);
    stream.set_nonblocking(false).map_err(no_socket)?;
    let hello = encode(&FromWorker::Hello { protocol: PROTOCOL, version: VERSION.to_owned(), role })?;
    (&stream).write_all(&hello).map_err(|_| GONE.to_owned())?;
    Ok(Opened { stream: Arc::new(stream), supervisor })
}

fn write_loop(outbox: &Outbox) {
    outbox.lock().begun = true;
    outbox.0.changed.notify_all();
    loop {
        let mut state = outbox.lock();
        let item = loop {
            match state.queue.pop_front() {
                Some(item) => break item,
                None => state = outbox.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        state.droppable -= usize::from(item.droppable);
        state.writing = true;
        outbox.0.changed.notify_all();
        drop(state);
        let result = write(&outbox.0.stream, &item);
        let mut state = outbox.lock();
        state.writing = false;
        if result.is_err() {
            state.closed = true;
            state.queue.clear();
        }
        outbox.0.changed.notify_all();
        if state.closed {
            return;
        }
    }
}

fn write(mut stream: &Stream, item: &Item) -> io::Result<()> {
    let mut sent = item.sent;
    if let Some(descriptor) = &item.descriptor {
        sent = loop {
            let flags = MsgFlags::MSG_NOSIGNAL;
            match descriptors::send_with(stream.as_fd(), &item.frame, descriptor.as_fd(), flags) {
                Err(nix::errno::Errno::EINTR) => {}
                outcome => break outcome?,
            }
        };
    }
    stream.write_all(&item.frame[sent..])
}
