//! One camera's pictures: asks for its media, waits for key frames, looks at one now and then, and begins again whenever
//! the stream ends.

use std::{
    collections::BTreeMap,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nursery_shared::{
    frame::{self, FrameBuffer},
    light::LightCamera,
    media::{FromCapture, Kind, MAX_MEDIA, MAX_WISH, Packet, ToCapture, Tracks, VideoCodec, VideoTrack},
    message::{FromWorker, ToWorker},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
    task::JoinHandle,
};

use super::{
    decode,
    frame::Frame,
    gallery::{Gallery, Taken},
    motion::Grid,
};
use crate::link::Outbox;

/// How long the supervisor has to bring a camera's media.
const ANSWER: Duration = Duration::from_secs(10);
/// Wait before a camera is asked again; doubles.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);
/// Wait where there is nothing to be decoded: somebody has to change the camera's settings first.
const HOPELESS: Duration = Duration::from_secs(600);
/// Key frames come with some jitter.
const JITTER: f64 = 0.9;
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

type Media = Result<OwnedFd, String>;

/// What all cameras have in common.
pub struct Studio {
    outbox: Outbox,
    gallery: Mutex<Gallery>,
    /// Who waits for a camera's media.
    awaited: Mutex<BTreeMap<u64, oneshot::Sender<Media>>>,
    tickets: AtomicU64,
    looked: AtomicU64,
    at_work: Mutex<BTreeMap<String, (LightCamera, JoinHandle<()>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is valid after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Studio {
    /// No camera is looked at yet.
    pub fn new(outbox: Outbox) -> Self {
        Self {
            outbox,
            gallery: Mutex::default(),
            awaited: Mutex::default(),
            tickets: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            at_work: Mutex::default(),
        }
    }

    /// Pictures looked at since the start.
    pub fn looked(&self) -> u64 {
        self.looked.load(Ordering::Relaxed)
    }

    /// These cameras are looked at from now on; those that were already are not disturbed. To be called within the
    /// runtime.
    pub fn set_cameras(self: &Arc<Self>, cameras: Vec<LightCamera>) {
        let mut at_work = lock(&self.at_work);
        at_work.retain(|_, (camera, task)| {
            let stays = cameras.contains(camera);
            if !stays {
                task.abort();
            }
            stays
        });
        lock(&self.gallery).keep(|name| cameras.iter().any(|c| c.camera == name));
        for camera in cameras {
            if !at_work.contains_key(&camera.camera) {
                let task = tokio::spawn(watch(Arc::clone(self), camera.clone()));
                at_work.insert(camera.camera.clone(), (camera, task));
            }
        }
    }

    /// Takes in what the supervisor says.
    ///
    /// # Errors
    /// One line: it is not for this role, or the supervisor is gone.
    pub fn take(self: &Arc<Self>, message: ToWorker, descriptor: Option<OwnedFd>) -> Result<(), String> {
        match message {
            ToWorker::ConfigureLight(cameras) => self.set_cameras(cameras),
            ToWorker::MediaOf { ticket, why_not } => {
                if let Some(answer) = lock(&self.awaited).remove(&ticket) {
                    let why = || why_not.unwrap_or_else(|| "it was lost on the way".into());
                    let _ = answer.send(descriptor.ok_or_else(why));
                }
            }
            ToWorker::WantPicture { number, wanted } => {
                let found = lock(&self.gallery).find(&wanted);
                self.outbox.send(&FromWorker::PictureOf { number, found })?;
            }
            _ => return Err("the supervisor sent a message that is not for this role".into()),
        }
        Ok(())
    }

    async fn media(&self, camera: &str) -> Media {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.awaited).insert(ticket, answer);
        self.outbox.send(&FromWorker::WantMedia { ticket, camera: camera.to_owned() })?;
        match tokio::time::timeout(ANSWER, answered).await {
            Ok(Ok(media)) => media,
            Ok(Err(_)) | Err(_) => {
                lock(&self.awaited).remove(&ticket);
                Err("nobody brings its media".into())
            }
        }
    }

    fn take_down(&self, camera: &str, why: &str) {
        lock(&self.gallery).take_down(camera, why);
    }
}

/// Looks at one camera, for ever.
async fn watch(studio: Arc<Studio>, camera: LightCamera) {
    let mut sight = Sight { studio, camera, grid: None, looked_at: None, failures: 0, told: None };
    let mut wait = FIRST;
    loop {
        let before = sight.looked_at;
        let end = match sight.studio.media(&sight.camera.camera).await {
            Ok(media) => sight.follow(media).await,
            Err(why) => End::Lost(why),
        };
        if sight.looked_at != before {
            wait = FIRST;
        }
        let (why, pause) = match end {
            End::Lost(why) => (why, wait),
            End::Hopeless(why) => {
                if sight.told.as_ref() != Some(&why) {
                    tracing::warn!("camera {}: no pictures: {why}", sight.camera.camera);
                    sight.told = Some(why.clone());
                }
                (why, HOPELESS)
            }
        };
        tracing::debug!("camera {}: {why}, again in {} ms", sight.camera.camera, pause.as_millis());
        sight.grid = None;
        sight.studio.take_down(&sight.camera.camera, &why);
        tokio::time::sleep(pause).await;
        wait = (wait * 2).min(LONGEST);
    }
}

/// Why a stream is followed no further.
enum End {
    Lost(String),
    /// Another one would be no better.
    Hopeless(String),
}

/// A camera that is looked at.
struct Sight {
    studio: Arc<Studio>,
    camera: LightCamera,
    /// Of the picture before.
    grid: Option<Grid>,
    looked_at: Option<Instant>,
    /// Pictures in a row that could not be decoded.
    failures: u64,
    /// Why there are none, as it was logged.
    told: Option<String>,
}

impl Sight {
    async fn follow(&mut self, media: OwnedFd) -> End {
        let lost = |e: std::io::Error| End::Lost(format!("its media cannot be read: {e}"));
        // The supervisor made it so that nobody waits at it.
        let mut socket = match UnixStream::from_std(StdUnixStream::from(media)) {
            Ok(socket) => socket,
            Err(e) => return lost(e),
        };
        let mut wish = Vec::new();
        if let Err(e) = frame::encode_frame(&ToCapture::Want { video: true }, MAX_WISH, &mut wish) {
            return End::Lost(e.to_string());
        }
        if let Err(e) = socket.write_all(&wish).await {
            return lost(e);
        }
        let (mut frames, mut bytes) = (FrameBuffer::new(MAX_MEDIA), vec![0; PIECE]);
        let mut track = None;
        loop {
            match socket.read(&mut bytes).await {
                Ok(0) => return End::Lost("its media has ended".into()),
                Ok(n) => frames.feed(&bytes[..n]),
                Err(e) => return lost(e),
            }
            loop {
                match frames.next_frame() {
                    Ok(None) => break,
                    Ok(Some(FromCapture::Tracks(tracks))) => match self.on_tracks(tracks) {
                        Ok(found) => track = found,
                        Err(end) => return end,
                    },
                    Ok(Some(FromCapture::Packet(packet))) => {
                        if let Some(track) =
                            track.as_ref().filter(|_| packet.kind == Kind::Video && packet.key)
                            && let Err(why) = self.on_key_frame(track, &packet)
                        {
                            return End::Lost(why);
                        }
                    }
                    Err(e) => return End::Lost(format!("its media cannot be read: {e}")),
                }
            }
        }
    }

    fn on_tracks(&mut self, tracks: Tracks) -> Result<Option<VideoTrack>, End> {
        if let Some(why) = tracks.no_video {
            // It asks the camera again by itself.
            self.studio.take_down(&self.camera.camera, &why);
        }
        match tracks.video {
            Some(video) if video.codec == VideoCodec::H265 => Err(End::Hopeless(
                "its video is H.265, which is not decoded here: set it (or another stream of it) to H.264"
                    .into(),
            )),
            video => Ok(video),
        }
    }

    /// # Errors
    /// One line: the supervisor is gone.
    fn on_key_frame(&mut self, track: &VideoTrack, packet: &Packet) -> Result<(), String> {
        let pictures = self.camera.pictures;
        let pause = Duration::from_secs_f64(pictures.every_s * JITTER);
        if self.looked_at.is_some_and(|at| at.elapsed() < pause) {
            return Ok(());
        }
        self.looked_at = Some(Instant::now());
        let (camera, studio) = (self.camera.camera.clone(), Arc::clone(&self.studio));
        let outbox = &studio.outbox;
        // Said before, since nothing is said after it where the decoder is the end of this process.
        outbox.send(&FromWorker::Looking { camera: camera.clone() })?;
        outbox.flush();
        let looked = decode::picture(track, &packet.data, |decoded| {
            Frame::of(decoded, usize::from(pictures.width), pictures.grey)
        });
        let motion = match looked {
            Ok(frame) => {
                let motion = pictures.motion.then(|| self.compare(&frame)).flatten();
                self.failures = 0;
                self.told = None;
                lock(&studio.gallery).hang(&camera, Taken { time_us: packet.time_us, motion, frame });
                motion
            }
            Err(why) => {
                self.failures += 1;
                if self.failures.is_power_of_two() {
                    let count = self.failures;
                    tracing::warn!("camera {camera}: a picture cannot be decoded: {why}; {count} in a row");
                }
                lock(&studio.gallery).take_down(&camera, &why);
                self.grid = None;
                None
            }
        };
        studio.looked.fetch_add(1, Ordering::Relaxed);
        outbox.send(&FromWorker::Looked { camera, motion })
    }

    /// How much is different from the picture before, which this one takes the place of.
    fn compare(&mut self, frame: &Frame) -> Option<f32> {
        let grid = Grid::of(frame);
        let motion = self.grid.as_ref().and_then(|old| grid.motion_since(old));
        self.grid = Some(grid);
        motion
    }
}
