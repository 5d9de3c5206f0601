//! What a source tells the working loop, and the way it does.

use std::path::Path;

use nursery_shared::config::{CameraConfig, Source, Synthetic};
use tokio::sync::{mpsc, watch};
use url::Url;

use super::{exec, file, rtsp, synthetic, tap::Media};

/// Pieces of audio that may wait for the working loop; a source that is faster waits.
const QUEUE: usize = 32;

/// Something that happened at the source.
#[derive(Debug, PartialEq)]
pub enum SourceEvent {
    /// An attempt begins.
    Connecting,
    /// The source is there; the next audio does not follow the last.
    Connected,
    /// 16 kHz mono in [-1, 1].
    Audio(Vec<f32>),
    /// What it was decoded from, where the source has that and it is wanted.
    Media(Media),
    /// Packets that could not be decoded or were lost.
    Corrupt { count: u64, what: String },
    /// No audio for this reason; another attempt follows. `stalled`: it was connected, but nothing came.
    Down { stalled: bool, error: String },
    /// There is another file in the place of one that this process may read: it must begin anew. Nothing follows.
    Outdated(&'static Path),
    /// A recording came to its end; nothing follows.
    Ended,
}

/// What is wanted of a source beside what the detector hears. Nobody hears less for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// Encoded media, as the camera sends it.
    pub media: bool,
    /// Pictures too, where the camera has any.
    pub video: bool,
    /// As it comes: somebody looks or listens at this moment.
    pub live: bool,
}

/// The switches of a source.
pub struct Controls {
    /// Stops it.
    pub stop: watch::Sender<bool>,
    pub wishes: watch::Sender<Wishes>,
}

/// A source's end of the channel.
pub struct SourceLink {
    events: mpsc::Sender<SourceEvent>,
    stop: watch::Receiver<bool>,
    wishes: watch::Receiver<Wishes>,
    /// Samples after which a window is complete, from the last [`SourceEvent::Connected`] on; 0: unknown.
    hop: u64,
}

impl SourceLink {
    /// The source's end, the working loop's end, and the source's switches.
    pub fn new() -> (Self, mpsc::Receiver<SourceEvent>, Controls) {
        let (events, rx) = mpsc::channel(QUEUE);
        let (switch, stop) = watch::channel(false);
        let (wish, wishes) = watch::channel(Wishes::default());
        (Self { events, stop, wishes, hop: 0 }, rx, Controls { stop: switch, wishes: wish })
    }

    /// The working loop makes a window of every `hop` samples.
    pub fn for_windows_of(self, hop: u32) -> Self {
        Self { hop: hop.into(), ..self }
    }

    /// Samples that make a window, from the last [`SourceEvent::Connected`] on; 0: unknown.
    pub fn hop(&self) -> u64 {
        self.hop
    }

    /// What is wanted now.
    pub fn wishes(&self) -> Wishes {
        *self.wishes.borrow()
    }

    /// To wait for other wishes.
    pub fn watch_wishes(&self) -> watch::Receiver<Wishes> {
        self.wishes.clone()
    }

    /// Hands an event over, waiting while the working loop has enough to do. Once the loop is gone events lead
    /// nowhere, until the source is stopped.
    pub async fn send(&self, event: SourceEvent) {
        if self.events.send(event).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Hands audio over, which is taken out of `samples` in that moment: this may be dropped where it waits.
    pub async fn send_audio(&self, samples: &mut Vec<f32>) {
        match self.events.reserve().await {
            Ok(room) => room.send(SourceEvent::Audio(std::mem::take(samples))),
            Err(_) => std::future::pending::<()>().await,
        }
    }

    /// Resolves when the source shall stop.
    pub async fn stopped(&self) {
        let mut stop = self.stop.clone();
        // An error means that the working loop is gone, which is a reason to stop too.
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

/// A source, with what of it must be open before the cage is put up.
pub enum Ready {
    Rtsp(Url),
    File(file::Named),
    Exec(String),
    Synthetic(Synthetic),
}

impl From<Source> for Ready {
    fn from(source: Source) -> Self {
        match source {
            Source::Rtsp(url) => Self::Rtsp(url),
            Source::File(path) => Self::File(file::Named::open(path)),
            Source::Exec(command) => Self::Exec(command),
            Source::Synthetic(kind) => Self::Synthetic(kind),
        }
    }
}

/// Runs a source until it is stopped or has ended.
pub async fn run(camera: CameraConfig, source: Ready, link: SourceLink) {
    match source {
        Ready::Rtsp(url) => rtsp::run(&camera, url, &link).await,
        Ready::File(file) => file::run(file, camera.r#loop, camera.realtime, &link).await,
        Ready::Exec(command) => exec::run(&command, &link).await,
        Ready::Synthetic(kind) => synthetic::run(kind, &camera.name, &link).await,
    }
}
