//! A small RTSP camera: a real server on a loopback port that streams what its microphone hears as PCMU, PCMA or
//! L16 over interleaved TCP or UDP, asks for a password, and misbehaves on command.

mod auth;
mod connection;
pub mod film;
mod media;
pub(crate) mod request;

use std::{
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

pub use auth::{Credentials, Scheme};
use film::Film;
pub(crate) use media::mu_law;
pub use media::{Codec, Microphone};

use crate::wait;

/// What a camera does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Knows no such stream.
    NotFound,
    /// Offers video only.
    NoAudio,
    /// Offers video, but does not set it up.
    NoPictures,
    /// Offers audio in this encoding (an SDP `rtpmap` such as `SPEEX/16000`) and sends none.
    Encoding(&'static str),
    /// Keeps the connection and answers, but sends no media.
    StallMedia,
    /// Neither answers nor sends, with the connection open.
    Freeze,
    /// Sends packets of which every fifth is broken.
    CorruptMedia,
    /// Sends as another source (SSRC) than before, as an encoder does that began anew.
    OtherSource,
    /// Answers DESCRIBE with random bytes.
    GarbageAnswer,
    /// Writes random bytes where media should be.
    GarbageStream,
    /// Answers DESCRIBE a byte at a time.
    Drip,
    /// Answers DESCRIBE with a header that never ends.
    EndlessHeader,
    /// Answers DESCRIBE with a body that never ends.
    EndlessBody,
}

/// How a camera is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    pub codec: Codec,
    /// Offers a video track before the audio track, in which nothing comes.
    pub video: bool,
    /// Offers this video track.
    pub film: Option<Arc<Film>>,
    /// More sessions than this are refused.
    pub most_sessions: usize,
    pub credentials: Option<Credentials>,
    pub fault: Fault,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            codec: Codec::Pcmu,
            video: false,
            film: None,
            most_sessions: usize::MAX,
            credentials: None,
            fault: Fault::None,
        }
    }
}

/// A running camera; gone when dropped.
pub struct RtspCamera {
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// The path of a camera's one stream.
const PATH: &str = "/live";

struct Shared {
    address: SocketAddr,
    setup: Setup,
    microphone: Arc<Microphone>,
    fault: Mutex<Fault>,
    fault_changed: Condvar,
    listening: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
    connected: AtomicU64,
    /// Sessions that play, and the most there were at once.
    playing: AtomicUsize,
    most_playing: AtomicUsize,
    requests: Mutex<Vec<(String, String)>>,
    goodbyes: Mutex<Vec<Duration>>,
}

impl RtspCamera {
    /// Starts a camera of this codec that does nothing wrong.
    pub fn start(codec: Codec) -> Self {
        Self::with(Setup { codec, ..Setup::default() })
    }

    /// Starts a camera.
    pub fn with(setup: Setup) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a loopback port");
        let shared = Arc::new(Shared {
            address: listener.local_addr().expect("bound"),
            fault: Mutex::new(setup.fault),
            setup,
            microphone: Arc::default(),
            fault_changed: Condvar::new(),
            listening: AtomicBool::new(false),
            connections: Mutex::default(),
            connected: AtomicU64::new(0),
            playing: AtomicUsize::new(0),
            most_playing: AtomicUsize::new(0),
            requests: Mutex::default(),
            goodbyes: Mutex::default(),
        });
        let camera = Self { shared, accepting: Mutex::new(None) };
        camera.accept_on(listener);
        camera
    }

    /// The URL of its stream, without user and password.
    pub fn url(&self) -> String {
        format!("rtsp://{}{PATH}", self.shared.address)
    }

    /// The URL of its stream with this user information.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("rtsp://{user}:{password}@{}{PATH}", self.shared.address)
    }

    /// What the camera hears.
    pub fn microphone(&self) -> &Microphone {
        &self.shared.microphone
    }

    /// From now on the camera does this wrong, also on connections that are open.
    pub fn set_fault(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
        self.shared.fault_changed.notify_all();
    }

    /// Closes all connections; new ones are accepted.
    pub fn hang_up(&self) {
        for stream in self.shared.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Closes the port and all connections: whoever connects is refused.
    pub fn go_away(&self) {
        if self.shared.listening.swap(false, Ordering::SeqCst) {
            // Wakes the accepting thread, which then sees that it is over.
            let _ = TcpStream::connect(self.shared.address);
        }
        if let Some(accepting) = self.accepting.lock().unwrap().take() {
            accepting.join().expect("the accepting thread");
        }
        self.hang_up();
    }

    /// Listens again on the same port after [`go_away`](Self::go_away).
    pub fn come_back(&self) {
        let listener = wait::until("the camera's port to be free again", Duration::from_secs(10), || {
            TcpListener::bind(self.shared.address).ok()
        });
        self.accept_on(listener);
    }

    /// Connections that were made so far.
    pub fn connected(&self) -> u64 {
        self.shared.connected.load(Ordering::SeqCst)
    }

    /// Sessions that play at present.
    pub fn playing(&self) -> usize {
        self.shared.playing.load(Ordering::SeqCst)
    }

    /// The most sessions that played at once since this was asked last.
    pub fn most_playing(&self) -> usize {
        self.shared.most_playing.swap(self.playing(), Ordering::SeqCst)
    }

    /// How often this method was requested so far.
    pub fn count(&self, method: &str) -> usize {
        self.shared.requests.lock().unwrap().iter().filter(|(m, _)| m == method).count()
    }

    /// How long each client that said goodbye kept its connection after it was answered.
    pub fn goodbyes(&self) -> Vec<Duration> {
        self.shared.goodbyes.lock().unwrap().clone()
    }

    /// The tracks that were set up so far, by their names (`audio`, `video`).
    pub fn tracks_set_up(&self) -> Vec<String> {
        let requests = self.shared.requests.lock().unwrap();
        let setups = requests.iter().filter(|(method, _)| method == "SETUP");
        setups.map(|(_, uri)| uri.rsplit('/').next().unwrap_or_default().to_owned()).collect()
    }

    fn accept_on(&self, listener: TcpListener) {
        self.shared.listening.store(true, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        let accept = move || {
            for stream in listener.incoming() {
                if !shared.listening.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                shared.connected.fetch_add(1, Ordering::SeqCst);
                let mut connections = shared.connections.lock().unwrap();
                if let Ok(handle) = stream.try_clone() {
                    connections.push(handle);
                }
                drop(connections);
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || connection::serve(&shared, stream));
            }
        };
        *self.accepting.lock().unwrap() = Some(std::thread::spawn(accept));
    }
}

impl Drop for RtspCamera {
    fn drop(&mut self) {
        // Wakes what waits for a fault to pass.
        self.set_fault(Fault::None);
        self.go_away();
    }
}

impl Shared {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }

    /// Returns when the camera's fault is another one than `while_it_is`.
    fn wait_while(&self, while_it_is: Fault) {
        let mut fault = self.fault.lock().unwrap();
        while *fault == while_it_is && self.listening.load(Ordering::SeqCst) {
            fault = self.fault_changed.wait_timeout(fault, Duration::from_millis(200)).unwrap().0;
        }
    }
}
