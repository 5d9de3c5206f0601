//! Live media: of each camera that somebody wants one stream comes in, whatever the number of viewers, and goes out to
//! each at the pace of his connection. Nothing comes in for nobody.

pub mod buffer;
pub mod intake;
pub mod record;
mod source;
mod viewer;

use std::{
    collections::HashMap,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use nursery_shared::message::FromWorker;
use tokio::{
    net::UnixStream,
    sync::{Notify, oneshot},
};

use buffer::Buffer;
pub use viewer::Viewer;

/// Viewers at once, of all cameras together.
pub const MOST_VIEWERS: usize = 500;
/// Cameras that are heard or seen at once.
pub const MOST_CAMERAS: usize = 64;
/// Bytes that are kept of all cameras together, and of one at the most.
const KEPT: usize = 384 << 20;
const KEPT_OF_ONE: usize = 24 << 20;
/// How long a camera's media goes on coming when the last viewer has left.
const LINGER: Duration = Duration::from_secs(10);
/// How long the supervisor has to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How messages to the supervisor are sent, without waiting.
type Send = dyn Fn(&FromWorker) -> Result<(), String> + std::marker::Send + Sync;

/// A socket to a capture process, or why there is none.
type Answer = Result<OwnedFd, String>;

/// All cameras that somebody wants.
pub struct Live {
    send: Box<Send>,
    linger: Duration,
    most_viewers: usize,
    state: Mutex<State>,
    /// Beside the state, for those who hold a camera's buffer.
    cameras: AtomicUsize,
    tickets: AtomicU64,
}

#[derive(Default)]
struct State {
    cameras: HashMap<String, Arc<Camera>>,
    /// Who waits for which answer of the supervisor.
    asked: HashMap<u64, oneshot::Sender<Answer>>,
    viewers: usize,
    /// Numbers viewers.
    next: u64,
}

/// Figures of all live media.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub viewers: usize,
    pub cameras: usize,
}

/// One camera that somebody wants, or wanted a moment ago.
pub struct Camera {
    name: String,
    buffer: Mutex<Buffer>,
    /// How many there are, and how many of them want pictures. Changes only while the state is locked.
    viewers: AtomicUsize,
    lookers: AtomicUsize,
    /// Somebody has come or gone.
    changed: Notify,
}

impl Camera {
    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        // The buffer is valid after every statement.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn audience(&self) -> (usize, usize) {
        (self.viewers.load(Ordering::Relaxed), self.lookers.load(Ordering::Relaxed))
    }
}

impl Live {
    /// Nobody looks yet.
    pub fn new(
        send: impl Fn(&FromWorker) -> Result<(), String> + std::marker::Send + Sync + 'static,
    ) -> Self {
        Self {
            send: Box::new(send),
            linger: LINGER,
            most_viewers: MOST_VIEWERS,
            state: Mutex::default(),
            cameras: AtomicUsize::new(0),
            tickets: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The figures now.
    pub fn figures(&self) -> Figures {
        let state = self.lock();
        Figures { viewers: state.viewers, cameras: state.cameras.len() }
    }

    /// Somebody wants to hear a camera, and to see it where `video` is set. To be called inside the runtime.
    ///
    /// # Errors
    /// One line: there are too many already.
    pub fn watch(self: &Arc<Self>, name: &str, video: bool) -> Result<Viewer, String> {
        let mut state = self.lock();
        if state.viewers >= self.most_viewers {
            return Err(format!("{} viewers are there already, more are not served", state.viewers));
        }
        let camera = match state.cameras.get(name) {
            Some(camera) => Arc::clone(camera),
            None if state.cameras.len() >= MOST_CAMERAS => {
                return Err(format!("{MOST_CAMERAS} cameras are watched already, more are not served"));
            }
            None => {
                let camera = Arc::new(Camera {
                    name: name.to_owned(),
                    buffer: Mutex::default(),
                    viewers: AtomicUsize::new(0),
                    lookers: AtomicUsize::new(0),
                    changed: Notify::new(),
                });
                state.cameras.insert(name.to_owned(), Arc::clone(&camera));
                self.cameras.store(state.cameras.len(), Ordering::Relaxed);
                tokio::spawn(source::tend(Arc::clone(self), Arc::clone(&camera)));
                camera
            }
        };
        state.viewers += 1;
        state.next += 1;
        let id = state.next;
        camera.viewers.fetch_add(1, Ordering::Relaxed);
        camera.lookers.fetch_add(usize::from(video), Ordering::Relaxed);
        drop(state);
        camera.changed.notify_one();
        Ok(Viewer::new(Arc::clone(self), camera, id, video))
    }

    fn leave(&self, camera: &Camera, video: bool) {
        let mut state = self.lock();
        state.viewers -= 1;
        camera.viewers.fetch_sub(1, Ordering::Relaxed);
        camera.lookers.fetch_sub(usize::from(video), Ordering::Relaxed);
        drop(state);
        camera.changed.notify_one();
    }

    /// Takes a camera out where nobody wants it; whether it is out.
    fn forget(&self, camera: &Camera) -> bool {
        let mut state = self.lock();
        if camera.audience().0 > 0 {
            return false;
        }
        state.cameras.remove(&camera.name);
        self.cameras.store(state.cameras.len(), Ordering::Relaxed);
        camera.buffer().clear();
        true
    }

    /// Bytes that one camera may keep.
    fn share(&self) -> usize {
        (KEPT / self.cameras.load(Ordering::Relaxed).max(1)).min(KEPT_OF_ONE)
    }

    /// What the supervisor answered to a question of this process.
    pub fn answered(&self, ticket: u64, answer: Answer) {
        if let Some(asker) = self.lock().asked.remove(&ticket) {
            // Whoever does not wait any more drops the socket, which the other end sees.
            let _ = asker.send(answer);
        }
    }

    async fn connect(&self, camera: &str) -> Result<UnixStream, String> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (asker, answer) = oneshot::channel();
        self.lock().asked.insert(ticket, asker);
        let sent = (self.send)(&FromWorker::WantMedia { ticket, camera: camera.to_owned() });
        let outcome = match sent {
            Ok(()) => tokio::time::timeout(ANSWER, answer).await,
            Err(why) => Ok(Ok(Err(why))),
        };
        self.lock().asked.remove(&ticket);
        let socket = match outcome {
            Ok(Ok(answer)) => StdUnixStream::from(answer?),
            Ok(Err(_)) | Err(_) => return Err("the supervisor does not answer; asking again".into()),
        };
        // The supervisor has made it non-blocking.
        UnixStream::from_std(socket).map_err(|e| format!("the socket to its process cannot be watched: {e}"))
    }
}

#[cfg(test)]
mod tests;
