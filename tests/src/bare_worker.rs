//! A worker process at the end of a socket of the test's, and what it sends as media over another.

use std::{
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use nix::sys::socket::MsgFlags;
use nursery_shared::{
    config::{CameraConfig, from_json},
    descriptors,
    frame::{self, MAX_FROM_WORKER, MAX_TO_WORKER},
    media::{FromCapture, MAX_MEDIA, MAX_WISH, ToCapture},
    message::{FromWorker, ModelShape, ToWorker, WORKER_FD},
};

use crate::{service::binary, wait};

/// Starts the program of a role, and gives the supervisor's end of its socket.
pub fn spawn(role: &str) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let theirs = OwnedFd::from(theirs);
    let descriptor = theirs.as_raw_fd();
    let mut command =
        Command::new(binary(if role == "capture" { "nursery-capture" } else { "nursery-worker" }));
    command.arg(role).stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
    // SAFETY: between fork and exec only a system call is made; the descriptor is open until then.
    unsafe {
        command.pre_exec(move || {
            let socket = BorrowedFd::borrow_raw(descriptor);
            let mut target = OwnedFd::from_raw_fd(WORKER_FD);
            let outcome = nix::unistd::dup2(socket, &mut target);
            // The descriptor is for the worker.
            let _ = target.into_raw_fd();
            Ok(outcome?)
        });
    }
    (command.spawn().expect("start a worker"), ours)
}

/// A camera of this source; `rest`: what else its configuration says, with a comma before it.
pub fn crib(source: &str, rest: &str) -> CameraConfig {
    let text = format!(r#"[{{"name": "crib", "source": "{source}"{rest}}}]"#);
    from_json(&text, Path::new("/")).expect("a valid camera").cameras.remove(0)
}

/// What a capture process is told first, with windows of a quarter of a second.
pub fn configure_capture(camera: &CameraConfig) -> ToWorker {
    let model = ModelShape {
        id: "test".into(),
        window: 4_000,
        hop: 4_000,
        lookahead: 4_000,
        frame_step: 800,
        state_bytes: 25_000,
    };
    ToWorker::ConfigureCapture { camera: camera.clone(), model, remember_s: 0 }
}

/// Says something to a worker, with a descriptor.
pub fn send_with(socket: &UnixStream, message: &ToWorker, descriptor: BorrowedFd<'_>) {
    let mut bytes = Vec::new();
    frame::encode_frame(message, MAX_TO_WORKER, &mut bytes).expect("a message");
    let sent = descriptors::send_with(socket.as_fd(), &bytes, descriptor, MsgFlags::empty());
    assert_eq!(sent.expect("a worker that listens"), bytes.len());
}

/// A worker; killed when dropped.
pub struct BareWorker {
    child: Child,
    socket: UnixStream,
}

impl BareWorker {
    /// Starts `nursery-worker ROLE` and says the first thing to it.
    pub fn start(role: &str, configure: &ToWorker) -> Self {
        let (child, socket) = spawn(role);
        socket.set_read_timeout(Some(wait::PATIENCE)).expect("a time limit");
        let mut worker = Self { child, socket };
        worker.send(configure);
        worker
    }

    /// Says something.
    pub fn send(&mut self, message: &ToWorker) {
        frame::write_frame(&mut self.socket, message, MAX_TO_WORKER).expect("a worker that listens");
    }

    /// Says something, with a descriptor.
    pub fn send_with(&mut self, message: &ToWorker, descriptor: BorrowedFd<'_>) {
        send_with(&self.socket, message, descriptor);
    }

    /// What it says next.
    pub fn receive(&mut self) -> FromWorker {
        let message = frame::read_frame(&mut self.socket, MAX_FROM_WORKER).expect("a frame");
        message.expect("the worker ended early")
    }

    /// Reads everything that it says from now on, so that it never waits for its reader.
    pub fn read_on(&mut self) -> Arc<Mutex<Vec<FromWorker>>> {
        let said: Arc<Mutex<Vec<FromWorker>>> = Arc::default();
        let mut socket = self.socket.try_clone().expect("a socket");
        let reader = Arc::clone(&said);
        std::thread::spawn(move || {
            while let Ok(Some(message)) = frame::read_frame(&mut socket, MAX_FROM_WORKER) {
                reader.lock().unwrap().push(message);
            }
        });
        said
    }

    /// Asks for its media, as the viewers' process would.
    pub fn connect(&mut self) -> MediaEnd {
        connect(&self.socket)
    }

    /// Asks for its media for somebody else, who is given the other end.
    pub fn hand_over(&mut self, give: impl FnOnce(BorrowedFd<'_>)) {
        let (ours, theirs) = media_pair();
        send_with(&self.socket, &ToWorker::Media { operator: false }, theirs.as_fd());
        give(ours.as_fd());
    }
}

/// Two ends of a camera's media, as the supervisor makes them.
pub fn media_pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    for end in [&ours, &theirs] {
        end.set_nonblocking(true).expect("a socket");
    }
    (ours, theirs)
}

/// Asks the capture process at the other end of `socket` for its media.
pub fn connect(socket: &UnixStream) -> MediaEnd {
    let (ours, theirs) = media_pair();
    send_with(socket, &ToWorker::Media { operator: false }, theirs.as_fd());
    ours.set_nonblocking(false).expect("a socket");
    ours.set_read_timeout(Some(wait::PATIENCE)).expect("a time limit");
    MediaEnd(ours)
}

impl Drop for BareWorker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The viewers' end of a camera's media.
pub struct MediaEnd(UnixStream);

impl MediaEnd {
    /// What comes next; `None` at the end.
    pub fn receive(&mut self) -> Option<FromCapture> {
        frame::read_frame(&mut self.0, MAX_MEDIA).expect("a frame")
    }

    /// Reads on until `wanted` gives something.
    pub fn wait_for<T>(&mut self, mut wanted: impl FnMut(FromCapture) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.receive().expect("the media ended early")) {
                return found;
            }
        }
    }

    /// Wants pictures, or no longer.
    pub fn want(&mut self, video: bool) {
        frame::write_frame(&mut self.0, &ToCapture::Want { video }, MAX_WISH).expect("a wish");
    }
}
