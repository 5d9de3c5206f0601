//! Source `file:`: a recording, decoded on a thread of its own and played at its own pace or as fast as it is
//! scored.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Seek},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::libc;
use nursery_shared::pcm::SAMPLE_RATE;
use tokio::sync::mpsc;

use super::{
    pace::Pace,
    retry::{Attempt, Failure, Outcome, keep_trying},
    source::{SourceEvent, SourceLink},
};
use crate::{
    cage::files,
    media::decode::{Recording, reason},
};

/// Decoded pieces that may wait to be played.
const QUEUE: usize = 8;

/// Largest piece: a tenth of a second, so that a recording arrives like a camera's audio does.
const PIECE: usize = SAMPLE_RATE as usize / 10;

/// What the decoding thread hands over.
enum Piece {
    Opened,
    Audio(Vec<f32>),
    Corrupt(u64),
    End,
    Broken(String),
}

/// A recording by its name, and as it was when this process might still open files that its user may not: that one is
/// played where the name is out of reach.
#[derive(Clone)]
pub struct Named {
    path: PathBuf,
    early: Option<Arc<Mutex<Arc<File>>>>,
}

/// Keeps the file that was opened early from another pass.
type Alone<'a> = Option<MutexGuard<'a, Arc<File>>>;

impl Named {
    /// Opens the file for later; one that cannot be opened now is tried by its name.
    pub fn open(path: PathBuf) -> Self {
        // Without waiting for the other end of a pipe, which is none of what can be played again.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).ok();
        let early = opened.filter(|f| f.metadata().is_ok_and(|m| m.is_file()));
        Self { path, early: early.map(|file| Arc::new(Mutex::new(Arc::new(file)))) }
    }

    /// From its beginning; with what is to be kept as long as it is read.
    fn recording(&self) -> Result<(Recording, Alone<'_>), String> {
        let Some(early) = &self.early else { return Ok((Recording::open(&self.path)?, None)) };
        // By its name first, since it may have been replaced meanwhile.
        match File::open(&self.path) {
            // Another one in its place is for a new process to open.
            Err(e) if e.kind() == ErrorKind::PermissionDenied && files::replaced().is_none() => {}
            by_name => {
                return Ok((Recording::from_file(by_name.map_err(|e| reason(&e))?, &self.path)?, None));
            }
        }
        // An earlier pass may not have noticed yet that nobody listens to it.
        let file = early.lock().unwrap_or_else(PoisonError::into_inner);
        (&**file).rewind().map_err(|e| e.to_string())?;
        Ok((Recording::from_file(file.clone(), &self.path)?, Some(file)))
    }
}

/// Plays the recording until it ends, for ever with `again`.
pub async fn run(file: Named, again: bool, realtime: bool, link: &SourceLink) {
    keep_trying(link, &Player { file, again, realtime }).await;
}

struct Player {
    file: Named,
    again: bool,
    realtime: bool,
}

impl Attempt for Player {
    async fn attempt(&self, link: &SourceLink) -> Outcome {
        play(&self.file, self.again, self.realtime, link).await
    }
}

async fn play(file: &Named, again: bool, realtime: bool, link: &SourceLink) -> Outcome {
    let (tx, mut pieces) = mpsc::channel(QUEUE);
    let (path, owned) = (&file.path, file.clone());
    let thread = std::thread::Builder::new().name("decode".into()).spawn(move || decode(&owned, again, &tx));
    if let Err(e) = thread {
        return Outcome::Failed(Failure::new(format!("cannot start the decoding thread: {e}")));
    }
    let mut pace: Option<Pace> = None;
    let mut played = 0_u64;
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Opened => {
                link.send(SourceEvent::Connected).await;
                pace = realtime.then(Pace::new);
            }
            Piece::Audio(samples) => {
                if let Some(pace) = &mut pace {
                    pace.wait_for(samples.len()).await;
                }
                played += samples.len() as u64;
                link.send(SourceEvent::Audio(samples)).await;
            }
            Piece::Corrupt(count) => {
                let what = format!("{}: packets that cannot be decoded", path.display());
                link.send(SourceEvent::Corrupt { count, what }).await;
            }
            Piece::End => return Outcome::Ended,
            Piece::Broken(reason) => {
                return Outcome::Failed(Failure {
                    stalled: false,
                    error: format!("{}: {reason}", path.display()),
                    heard: Duration::from_secs(played / u64::from(SAMPLE_RATE)),
                });
            }
        }
    }
    Outcome::Failed(Failure::new(format!("{}: the decoder gave up on it (a bug in it)", path.display())))
}

/// Decodes on its own thread; ends when nobody takes the pieces any more.
fn decode(file: &Named, again: bool, pieces: &mpsc::Sender<Piece>) {
    let last = match decode_passes(file, again, pieces) {
        Ok(()) => Piece::End,
        Err(reason) => Piece::Broken(reason),
    };
    // Nobody may be listening any more.
    let _ = pieces.blocking_send(last);
}

fn decode_passes(file: &Named, again: bool, pieces: &mpsc::Sender<Piece>) -> Result<(), String> {
    let mut first = true;
    loop {
        // Opened for each pass, since it may have been replaced meanwhile.
        let (mut recording, _alone) = file.recording()?;
        if std::mem::take(&mut first) && pieces.blocking_send(Piece::Opened).is_err() {
            return Ok(());
        }
        let (mut empty, mut corrupt, mut more, mut samples) = (true, 0, true, Vec::new());
        while more {
            more = recording.read(&mut samples)?;
            if recording.corrupt() > corrupt {
                let count = recording.corrupt() - std::mem::replace(&mut corrupt, recording.corrupt());
                if pieces.blocking_send(Piece::Corrupt(count)).is_err() {
                    return Ok(());
                }
            }
            if more && samples.len() < PIECE {
                continue;
            }
            for piece in samples.chunks(PIECE) {
                empty = false;
                if pieces.blocking_send(Piece::Audio(piece.to_vec())).is_err() {
                    return Ok(());
                }
            }
            samples.clear();
        }
        if empty {
            return Err("holds no audio".into());
        }
        if !again {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{capture::source::SourceLink, media::decode::tests::wav};

    async fn events_of(bytes: &[u8], count: usize, again: bool) -> Vec<SourceEvent> {
        let dir =
            std::env::temp_dir().join(format!("nursery-file-{}-{}", std::process::id(), fastrand::u64(..)));
        std::fs::write(&dir, bytes).unwrap();
        let (link, mut events, controls) = SourceLink::new();
        let file = Named::open(dir.clone());
        let task = tokio::spawn(async move { run(file, again, false, &link).await });
        let mut got = Vec::new();
        while got.len() < count
            && let Some(event) = tokio::time::timeout(Duration::from_secs(10), events.recv()).await.unwrap()
        {
            got.push(event);
        }
        controls.stop.send_replace(true);
        drop(events);
        task.await.unwrap();
        std::fs::remove_file(dir).unwrap();
        got
    }

    fn samples(events: &[SourceEvent]) -> usize {
        events.iter().map(|e| if let SourceEvent::Audio(a) = e { a.len() } else { 0 }).sum()
    }

    #[tokio::test]
    async fn a_recording_is_played_to_its_end_and_ends() {
        let events = events_of(&wav(8_000, 1, &vec![0.1; 8_000]), 1_000, false).await;
        assert_eq!(events[..2], [SourceEvent::Connecting, SourceEvent::Connected]);
        assert_eq!(events.last(), Some(&SourceEvent::Ended));
        assert_eq!(samples(&events), 16_000);
    }

    #[tokio::test]
    async fn a_looped_recording_goes_on_without_a_new_connection() {
        let events = events_of(&wav(16_000, 1, &vec![0.1; 3_200]), 10, true).await;
        assert!(samples(&events) > 2 * 3_200, "{events:?}");
        assert_eq!(events.iter().filter(|e| **e == SourceEvent::Connected).count(), 1);
    }

    #[tokio::test]
    async fn a_broken_or_empty_file_is_an_error_that_names_it_and_is_tried_again() {
        for bytes in [b"rubbish".to_vec(), wav(16_000, 1, &[])] {
            let events = events_of(&bytes, 4, true).await;
            let down = events.iter().find_map(|e| match e {
                SourceEvent::Down { error, .. } => Some(error.clone()),
                _ => None,
            });
            assert!(down.unwrap().contains("nursery-file-"));
            assert!(events.iter().filter(|e| **e == SourceEvent::Connecting).count() >= 2, "{events:?}");
        }
    }
}
