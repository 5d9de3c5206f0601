//! A process of role `web` whose supervisor and whose cameras are the test's.

use std::{
    net::TcpStream,
    os::{fd::AsFd, unix::net::UnixStream},
    process::Child,
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use nursery_shared::{
    clip::{About, Found},
    config::from_json,
    frame::{self, MAX_FROM_WORKER, MAX_TO_WORKER},
    history::{Answer, From, History, Question, StoredEvent},
    media::{FromCapture, MAX_MEDIA, MAX_WISH, ToCapture},
    message::{FromWorker, ToWorker},
    status::Status,
};
use serde_json::json;

use crate::{
    bare_worker::{send_with, spawn},
    http::{Client, free_port},
    wait,
};

/// The state that it is shown: one camera, `crib`.
pub fn status() -> Status {
    let camera = json!({"name": "crib", "state": "live", "level_dbfs": -30.0, "score": 0.25, "windows": 1, "dropped": 0,
        "last_audio_age_s": 0.1, "last_error": null, "pictures": false, "motion": null});
    let inference = json!({"workers": 1, "model": {"id": "m", "file": null, "next": null, "refused": null}, "auto": null,
        "queued": 0, "in_flight": 0, "scored": 1, "quarantined": 0, "latency_ms": {"p50": 1.0, "p99": 2.0}});
    let all = json!({"version": "0", "uptime_s": 1.0, "pid": 1, "workers": [], "cameras": [camera],
        "inference": inference, "alerts": {"pending": 0, "delivered": 0, "failing_since": null}});
    serde_json::from_value(all).expect("a state")
}

/// What the test's supervisor tells the page.
pub struct Shown {
    pub status: Status,
    /// All stored events, oldest first; `None`: the store does not answer.
    pub events: Option<Vec<StoredEvent>>,
    /// The clip of every event.
    pub clip: Option<(About, std::fs::File)>,
}

impl Shown {
    fn answer(&self, question: &Question) -> Option<Answer> {
        let Question::Events(listing) = question else { return Some(Answer::Failed("not here".into())) };
        let events = self.events.as_ref()?;
        let newest = events.last().map_or(0, |e| e.id);
        let wanted = |e: &&StoredEvent| match listing.from {
            From::After(id) => e.id > id,
            From::Before(id) => e.id < id,
        };
        let mut events: Vec<StoredEvent> = events.iter().filter(wanted).cloned().collect();
        if matches!(listing.from, From::Before(_)) {
            events.reverse();
        }
        Some(Answer::Events(History { events, newest, next: None }))
    }
}

/// A running page; killed when dropped.
pub struct WebWorker {
    child: Child,
    pub client: Client,
    shown: Arc<Mutex<Shown>>,
    /// Each time somebody wants the camera's media: its capture process.
    captures: Receiver<FakeCapture>,
}

impl WebWorker {
    /// Starts it, and answers what it asks: one camera, and no events.
    pub fn start() -> Self {
        Self::showing(status(), Some(Vec::new()))
    }

    /// Starts it, and answers what it asks with this, see [`Shown`].
    pub fn showing(status: Status, events: Option<Vec<StoredEvent>>) -> Self {
        let port = free_port();
        let text = format!(
            r#"{{"cameras": [{{"name": "crib", "source": "synthetic:cry"}}], "web": {{"listen": "127.0.0.1:{port}"}}}}"#
        );
        let config = from_json(&text, std::path::Path::new("/")).expect("a configuration");
        let (child, mut socket) = spawn("web");
        let say = |socket: &mut UnixStream, message: &ToWorker| {
            frame::write_frame(socket, message, MAX_TO_WORKER).is_ok()
        };
        assert!(say(&mut socket, &ToWorker::ConfigureWeb(config.web.expect("a page"))));
        let (found, captures) = channel();
        let shown = Arc::new(Mutex::new(Shown { status, events, clip: None }));
        let told = Arc::clone(&shown);
        std::thread::spawn(move || {
            let shown_now = || told.lock().expect("nobody panicked");
            while let Ok(Some(message)) = frame::read_frame::<FromWorker>(&mut socket, MAX_FROM_WORKER) {
                let sent = match message {
                    FromWorker::WantStatus => {
                        // As often as the supervisor shows it.
                        std::thread::sleep(Duration::from_millis(100));
                        let status = shown_now().status.clone();
                        say(&mut socket, &ToWorker::Status(Box::new(status)))
                    }
                    FromWorker::Question { ticket, question } => {
                        let answer = shown_now().answer(&question);
                        answer.is_none_or(|answer| say(&mut socket, &ToWorker::History { ticket, answer }))
                    }
                    FromWorker::WantClip { ticket, .. } => match &shown_now().clip {
                        Some((about, file)) => {
                            let found = Found::Clip(about.clone());
                            send_with(&socket, &ToWorker::ClipOf { ticket, found }, file.as_fd());
                            true
                        }
                        None => say(&mut socket, &ToWorker::ClipOf { ticket, found: Found::Nothing }),
                    },
                    FromWorker::WantMedia { ticket, .. } => {
                        let (ours, theirs) = FakeCapture::pair();
                        send_with(&socket, &ToWorker::MediaOf { ticket, why_not: None }, theirs.as_fd());
                        found.send(ours).is_ok()
                    }
                    _ => true,
                };
                if !sent {
                    return;
                }
            }
        });
        let client = Client::new(port);
        wait::until("the page", wait::PATIENCE, || TcpStream::connect(client.address).ok());
        Self { child, client, shown, captures }
    }

    /// What it is told from now on.
    pub fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().expect("nobody panicked")
    }

    /// The capture process that is asked for media next.
    pub fn capture(&self) -> FakeCapture {
        self.captures.recv_timeout(wait::PATIENCE).expect("nobody wants media")
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for WebWorker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The capture process's end of a socket.
pub struct FakeCapture(UnixStream);

impl FakeCapture {
    /// One, and the viewers' process's end, as the supervisor makes them.
    pub fn pair() -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        theirs.set_nonblocking(true).expect("a socket");
        (Self(ours), theirs)
    }

    /// Sends something; false where the other end has had enough.
    pub fn send(&mut self, message: &FromCapture) -> bool {
        frame::write_frame(&mut self.0, message, MAX_MEDIA).is_ok()
    }

    /// What is wished next, within a time; `None` at the end.
    ///
    /// # Panics
    /// Nothing is wished within this time.
    pub fn wish(&mut self, within: Duration) -> Option<bool> {
        self.0.set_read_timeout(Some(within)).expect("a time limit");
        match frame::read_frame(&mut self.0, MAX_WISH) {
            Ok(wish) => wish.map(|ToCapture::Want { video }| video),
            Err(e) => panic!("nothing was wished: {e}"),
        }
    }

    /// Whether the other end closes the socket within this time.
    pub fn ends(&mut self, within: Duration) -> bool {
        let end = Instant::now() + within;
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.0.set_read_timeout(Some(left)).expect("a time limit");
            match frame::read_frame::<ToCapture>(&mut self.0, MAX_WISH) {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// A second one, to read wishes while another thread sends.
    pub fn twin(&self) -> Self {
        Self(self.0.try_clone().expect("a socket"))
    }
}
