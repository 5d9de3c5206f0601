//! Clips of events: `/api/events/{event_id}/clip`. Their files are opened by the sink and come with its answer; here they
//! are read in pieces, as fast as somebody takes them, off the thread that serves.

use std::{
    collections::VecDeque,
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};
use nursery_shared::{
    clip::{About, Found, is_event_id},
    message::FromWorker,
    timestamp,
};
use tokio::sync::{Notify, Semaphore, mpsc};

use super::{
    inquiry::Inquiry,
    routes::{Reply, refuse},
    stream::Answer,
};
use crate::link::Outbox;

/// Whoever wants a clip waits in a queue of this length.
const WAITING: usize = 16;
/// Files that are kept open, since players ask for one again and again, and for how long.
const KEPT: usize = 8;
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Bytes that are read at once, and pieces that wait for one browser.
const PIECE: u64 = 64 << 10;
const PIECES: usize = 2;

/// A clip that can be read.
type Clip = (About, Arc<File>);

/// Gets clips of the sink.
pub struct Desk {
    sink: Inquiry<(Found, Option<OwnedFd>)>,
    queue: Semaphore,
    kept: Mutex<VecDeque<(Instant, String, Clip)>>,
    /// There is something that is to be closed some time.
    opened: Notify,
    /// One piece is read at a time: a disk that hangs keeps one thread and no more.
    reading: Arc<Semaphore>,
}

impl Desk {
    /// Nobody has asked yet.
    pub fn new(outbox: Outbox) -> Self {
        Self {
            sink: Inquiry::new(outbox, "the store"),
            queue: Semaphore::new(WAITING),
            kept: Mutex::default(),
            opened: Notify::new(),
            reading: Arc::new(Semaphore::new(1)),
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(Instant, String, Clip)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the supervisor says.
    pub fn answered(&self, ticket: u64, found: Found, file: Option<OwnedFd>) {
        self.sink.answered(ticket, (found, file));
    }

    /// Closes files that have been open for a while: the room of one that was removed is free only then. Ends never.
    pub async fn tidy(&self) {
        loop {
            self.opened.notified().await;
            while let Some(wait) = self.forget(Instant::now()) {
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// Closes files that were kept long enough; how long the next one is to be kept.
    fn forget(&self, now: Instant) -> Option<Duration> {
        let mut kept = self.kept();
        kept.retain(|(since, ..)| now.duration_since(*since) < KEPT_FOR);
        kept.iter().map(|(since, ..)| (*since + KEPT_FOR).saturating_duration_since(now)).min()
    }

    async fn find(&self, event_id: &str) -> Result<Clip, Box<Reply>> {
        let now = Instant::now();
        self.forget(now);
        let known = self.kept().iter().find(|(_, id, _)| id == event_id).map(|(.., clip)| clip.clone());
        if let Some(clip) = known {
            return Ok(clip);
        }
        let not_now = |why: &str| Box::new(again(refuse(StatusCode::SERVICE_UNAVAILABLE, why)));
        let Ok(_place) = self.queue.try_acquire() else {
            return Err(not_now("too many ask for clips: try again"));
        };
        let question = |ticket| FromWorker::WantClip { ticket, event_id: event_id.to_owned() };
        match self.sink.ask(question).await {
            Ok((Found::Clip(about), Some(file))) => {
                let clip = (about, Arc::new(File::from(file)));
                let mut kept = self.kept();
                kept.truncate(KEPT - 1);
                kept.push_front((Instant::now(), event_id.to_owned(), clip.clone()));
                self.opened.notify_one();
                Ok(clip)
            }
            Ok((Found::Clip(_), None)) => Err(not_now("its file was lost on the way: try again")),
            Ok((Found::NotYet, _)) => Err(not_now("it is still being written: try again")),
            Ok((Found::Nothing, _)) => {
                Err(refuse(StatusCode::NOT_FOUND, "there is no clip of this event, or no longer").into())
            }
            Ok((Found::Failed(why), _)) | Err(why) => Err(not_now(&why)),
        }
    }

    /// The clip of an event, or the part of it that is asked for.
    pub async fn clip(&self, event_id: &str, headers: &HeaderMap) -> Reply {
        if !is_event_id(event_id) {
            return refuse(StatusCode::NOT_FOUND, "there is no such event");
        }
        let (about, file) = match self.find(event_id).await {
            Ok(clip) => clip,
            Err(refusal) => return *refusal,
        };
        let whole = about.bytes;
        // Parts of something else than what it was are of no use; nothing says here that it is the same.
        let wanted = headers.get(header::RANGE).filter(|_| !headers.contains_key(header::IF_RANGE));
        let part = match wanted.and_then(|v| v.to_str().ok()).map_or(Part::Whole, |text| part(text, whole)) {
            Part::Whole => None,
            Part::From(first, last) => Some((first, last)),
            Part::None => {
                let mut reply = refuse(StatusCode::RANGE_NOT_SATISFIABLE, "it is not so long");
                put(&mut reply, header::CONTENT_RANGE, &format!("bytes */{whole}"));
                return reply;
            }
        };
        let (first, last) = part.unwrap_or((0, whole.saturating_sub(1)));
        let length = if whole == 0 { 0 } else { last - first + 1 };
        let mut reply = Response::new(Answer::Part(read(file, first, length, Arc::clone(&self.reading))));
        if part.is_some() {
            *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
            put(&mut reply, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{whole}"));
        }
        let headers = reply.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(about.format.content_type()));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        put(&mut reply, header::CONTENT_DISPOSITION, &format!("inline; filename=\"{}\"", file_name(&about)));
        put(&mut reply, header::HeaderName::from_static("x-clip-start"), &timestamp::rfc3339(about.from_us));
        if let Some(note) = &about.note {
            put(&mut reply, header::HeaderName::from_static("x-clip-note"), note);
        }
        reply
    }
}

fn put(reply: &mut Reply, name: header::HeaderName, value: &str) {
    // What a header cannot hold is left out: it is for people.
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

fn again(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    reply
}

/// What somebody finds in his downloads later: camera and time.
fn file_name(about: &About) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let camera: String = about.camera.chars().take(64).map(plain).collect();
    let time = timestamp::rfc3339(about.from_us).replace(':', "");
    format!("{camera}-{time}.{}", about.format.extension())
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Nothing that is understood, which is to be taken for nothing at all.
    Whole,
    /// First and last byte.
    From(u64, u64),
    /// Beyond the end.
    None,
}

fn part(text: &str, whole: u64) -> Part {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
    else {
        return Part::Whole;
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    // Larger than any file is beyond its end.
    let number = |s: &str| s.parse::<u64>().unwrap_or(u64::MAX);
    match (first, last) {
        ("", last) if digits(last) => match number(last).min(whole) {
            0 => Part::None,
            n => Part::From(whole - n, whole - 1),
        },
        (first, last) if digits(first) && (last.is_empty() || digits(last)) => {
            let first = number(first);
            let last = if last.is_empty() { u64::MAX } else { number(last) };
            if last < first {
                Part::Whole
            } else if first >= whole {
                Part::None
            } else {
                Part::From(first, last.min(whole - 1))
            }
        }
        _ => Part::Whole,
    }
}

/// A part of a file on its way to a browser.
pub struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    left: u64,
}

impl Pieces {
    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next piece; `None` at the end, or where the file cannot be read any further.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let piece = std::task::ready!(self.pieces.poll_recv(context));
        if let Some(piece) = &piece {
            self.left = self.left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(piece)
    }
}

fn read(file: Arc<File>, first: u64, length: u64, reading: Arc<Semaphore>) -> Pieces {
    let (sender, pieces) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let (mut at, end) = (first, first + length);
        while at < end {
            let Ok(room) = sender.reserve().await else { return };
            let Ok(_turn) = reading.acquire().await else { return };
            let file = Arc::clone(&file);
            let size = (end - at).min(PIECE) as usize;
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; size];
                file.read_exact_at(&mut bytes, at).map(|()| Bytes::from(bytes))
            });
            match read.await {
                Ok(Ok(bytes)) => room.send(bytes),
                Ok(Err(e)) => return tracing::warn!("a clip cannot be read any further: {e}"),
                Err(_) => return,
            }
            at += size as u64;
        }
    });
    Pieces { pieces, left: length }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use nursery_shared::clip::Format;

    use super::*;

    #[test]
    fn parts_are_understood_as_browsers_mean_them() {
        for (text, expected) in [
            ("bytes=0-", Part::From(0, 99)),
            ("bytes=0-0", Part::From(0, 0)),
            ("bytes=10-19", Part::From(10, 19)),
            ("bytes=90-500", Part::From(90, 99)),
            ("bytes=-10", Part::From(90, 99)),
            ("bytes=-500", Part::From(0, 99)),
            ("bytes=99-", Part::From(99, 99)),
            ("bytes=100-", Part::None),
            ("bytes=99999999999999999999999-", Part::None),
            ("bytes=-0", Part::None),
            ("bytes=20-10", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("pages=1-2", Part::Whole),
            ("", Part::Whole),
        ] {
            assert_eq!(part(text, 100), expected, "{text}");
        }
        assert_eq!(part("bytes=0-", 0), Part::None);
        assert_eq!(part("bytes=-5", 0), Part::None);
    }

    #[test]
    fn names_of_downloads_tell_camera_and_time_and_nothing_else() {
        let about = About {
            format: Format::M4a,
            camera: "crib\"\r\n/../x".into(),
            from_us: 1_769_824_983_250_000,
            until_us: 0,
            bytes: 0,
            note: None,
        };
        assert_eq!(file_name(&about), "crib____.._x-2026-01-31T020303.250Z.m4a");
    }

    #[tokio::test]
    async fn a_file_comes_in_pieces_and_ends_where_it_was_asked_to() {
        let path = std::env::temp_dir().join(format!("nursery-web-clip-{}", std::process::id()));
        let content: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        for (first, length) in [(0, 300_000), (5, 1), (299_999, 1), (70_000, 150_000), (0, 0)] {
            let mut pieces = read(Arc::clone(&file), first, length, Arc::new(Semaphore::new(1)));
            let mut got = Vec::new();
            while let Some(piece) = std::future::poll_fn(|context| pieces.poll_next(context)).await {
                got.extend_from_slice(&piece);
            }
            assert_eq!(got, content[first as usize..(first + length) as usize]);
            assert_eq!(pieces.left(), 0);
        }
        // Shorter than it was: it ends early, which the browser sees.
        let mut pieces = read(file, 290_000, 20_000, Arc::new(Semaphore::new(1)));
        assert!(std::future::poll_fn(|context| pieces.poll_next(context)).await.is_none());
        assert!(pieces.left() > 0);
    }
}
