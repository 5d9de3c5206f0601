//! The newest media of one camera, each packet once, whatever the number of viewers. Each has a place in it of his own;
//! who falls behind is moved forward, and nobody else notices.

use std::{
    collections::{HashMap, VecDeque},
    task::Waker,
    time::{Duration, Instant},
};

use bytes::Bytes;
use nursery_shared::media::Kind;
use serde_json::json;

use super::record::{What, said};

/// How much is kept, at the most.
const KEPT: Duration = Duration::from_secs(20);
/// Who is further behind than this, and could begin nearer to the end, does.
pub const BEHIND: Duration = Duration::from_secs(3);

/// A packet as viewers get it.
#[derive(Debug, Clone)]
pub struct Item {
    pub kind: Kind,
    /// Decoding may begin here.
    pub key: bool,
    pub bytes: Bytes,
}

struct Kept {
    item: Item,
    /// Of its track's beginning.
    generation: u64,
    at: Instant,
}

/// What a track begins with.
#[derive(Debug, Default)]
struct Track {
    /// Rises with each beginning; 0 before the first.
    generation: u64,
    init: Option<Bytes>,
}

/// Something that is to be said to everybody, once, also to who comes later.
#[derive(Debug, Default)]
struct Standing {
    version: u64,
    bytes: Option<Bytes>,
}

impl Standing {
    fn set(&mut self, bytes: Option<Bytes>) {
        self.version += 1;
        self.bytes = bytes;
    }

    fn tell(&self, seen: &mut u64, out: &mut Vec<Bytes>) -> bool {
        if *seen == self.version {
            return false;
        }
        *seen = self.version;
        out.extend(self.bytes.clone());
        true
    }
}

/// Where a viewer is.
#[derive(Debug)]
pub struct Cursor {
    video: bool,
    /// Number of the item that is next; `None` before the first one.
    next: Option<u64>,
    tracks_seen: u64,
    trouble_seen: u64,
    /// The beginnings that were sent, by track.
    begun: [u64; 2],
}

impl Cursor {
    /// Of somebody who has seen nothing yet.
    pub fn new(video: bool) -> Self {
        Self { video, next: None, tracks_seen: 0, trouble_seen: 0, begun: [0; 2] }
    }

    /// Pictures are wanted.
    pub fn video(&self) -> bool {
        self.video
    }
}

/// See the module.
#[derive(Default)]
pub struct Buffer {
    items: VecDeque<Kept>,
    /// Number of the oldest item.
    first: u64,
    bytes: usize,
    tracks: Standing,
    trouble: Standing,
    by_kind: [Track; 2],
    wakers: HashMap<u64, Waker>,
    /// Viewers that were moved forward.
    pub moved: u64,
}

fn index(kind: Kind) -> usize {
    usize::from(kind == Kind::Video)
}

impl Buffer {
    /// What there is has changed.
    pub fn set_tracks(&mut self, record: Bytes) {
        self.tracks.set(Some(record));
        self.trouble.set(None);
        self.wake();
    }

    /// A track begins anew; what was of it cannot be decoded any more. Its number.
    pub fn begin(&mut self, kind: Kind) -> u64 {
        let track = &mut self.by_kind[index(kind)];
        track.generation += 1;
        track.init = None;
        track.generation
    }

    /// What is to be sent before the first packet of a track.
    pub fn set_init(&mut self, kind: Kind, record: Bytes) {
        self.by_kind[index(kind)].init = Some(record);
    }

    /// Why there is nothing to hear or see at the moment.
    pub fn set_trouble(&mut self, why: &str) {
        self.trouble.set(Some(said(What::Notice, &json!({"notice": "interrupted", "text": why}))));
        self.wake();
    }

    /// One packet more; the oldest go when there are more than `share` bytes.
    pub fn push(&mut self, item: Item, share: usize, now: Instant) {
        self.bytes += item.bytes.len();
        let generation = self.by_kind[index(item.kind)].generation;
        self.items.push_back(Kept { item, generation, at: now });
        while self.bytes > share || self.items.front().is_some_and(|kept| now.duration_since(kept.at) > KEPT)
        {
            let Some(kept) = self.items.pop_front() else { break };
            self.bytes -= kept.item.bytes.len();
            self.first += 1;
        }
        self.wake();
    }

    /// Nobody will see what is here any more.
    pub fn clear(&mut self) {
        self.first += self.items.len() as u64;
        self.items.clear();
        self.bytes = 0;
    }

    fn wake(&mut self) {
        self.wakers.drain().for_each(|(_, waker)| waker.wake());
    }

    /// Wakes this viewer at the next change.
    pub fn wake_later(&mut self, viewer: u64, waker: Waker) {
        self.wakers.insert(viewer, waker);
    }

    /// This viewer is gone.
    pub fn forget(&mut self, viewer: u64) {
        self.wakers.remove(&viewer);
    }

    fn is_current(&self, kept: &Kept) -> bool {
        kept.generation == self.by_kind[index(kept.item.kind)].generation
    }

    /// Where somebody who comes now begins: the newest key frame, or, without pictures, the newest sound.
    fn start(&self, video: bool) -> u64 {
        let newest = |kind: Kind| {
            self.items.iter().rposition(|k| k.item.kind == kind && k.item.key && self.is_current(k))
        };
        let found = video.then(|| newest(Kind::Video)).flatten().or_else(|| newest(Kind::Audio));
        self.first + found.unwrap_or(self.items.len()) as u64
    }

    /// What this viewer has not seen yet, about `most` bytes of it, in order; nothing where he has seen everything.
    pub fn next(&mut self, cursor: &mut Cursor, most: usize, out: &mut Vec<Bytes>) {
        self.tracks.tell(&mut cursor.tracks_seen, out);
        self.trouble.tell(&mut cursor.trouble_seen, out);
        let mut at = match cursor.next {
            None => self.start(cursor.video),
            Some(next) => self.forward(next, cursor, out),
        };
        let mut len = 0;
        while let Some(kept) = self.items.get(usize::try_from(at - self.first).unwrap_or(usize::MAX)) {
            if len >= most {
                break;
            }
            at += 1;
            let kind = kept.item.kind;
            if !self.is_current(kept) || kind == Kind::Video && !cursor.video {
                continue;
            }
            let begun = &mut cursor.begun[index(kind)];
            if *begun != kept.generation {
                if !kept.item.key {
                    continue;
                }
                *begun = kept.generation;
                out.extend(self.by_kind[index(kind)].init.clone());
            }
            len += kept.item.bytes.len();
            out.push(kept.item.bytes.clone());
        }
        cursor.next = Some(at);
    }

    /// Where a viewer goes on who was at `next`: there, or nearer to the end where he is too far behind.
    fn forward(&mut self, next: u64, cursor: &mut Cursor, out: &mut Vec<Bytes>) -> u64 {
        let lost = next < self.first;
        let place = usize::try_from(next.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let behind = match (self.items.get(place), self.items.back()) {
            (Some(here), Some(newest)) => newest.at.duration_since(here.at),
            _ => Duration::ZERO,
        };
        if !lost && behind <= BEHIND {
            return next;
        }
        let start = self.start(cursor.video);
        if !lost && start <= next {
            return next;
        }
        self.moved += 1;
        // Where there is no key frame left it takes the next one that comes.
        cursor.begun[index(Kind::Video)] = 0;
        let skipped = start.saturating_sub(next);
        let behind_s = behind.as_secs_f64().round();
        out.push(said(
            What::Notice,
            &json!({"notice": "moved", "skipped": skipped, "behind_s": behind_s,
                "text": "this connection is too slow; what could not be sent in time was left out"}),
        ));
        start
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const SHARE: usize = 1 << 20;

    fn item(kind: Kind, key: bool, text: &str) -> Item {
        Item { kind, key, bytes: Bytes::copy_from_slice(text.as_bytes()) }
    }

    /// What a viewer gets now, as text; of records their JSON.
    fn texts(buffer: &mut Buffer, cursor: &mut Cursor) -> Vec<String> {
        let mut out = Vec::new();
        buffer.next(cursor, usize::MAX, &mut out);
        out.iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect()
    }

    /// A second of media: a picture every 250 ms with a key frame first, and as much sound.
    fn second(buffer: &mut Buffer, n: u64, start: Instant) {
        for quarter in 0..4 {
            let at = start + Duration::from_millis(n * 1000 + quarter * 250);
            let kind = if quarter == 0 { "K" } else { "p" };
            buffer.push(item(Kind::Video, quarter == 0, &format!("{kind}{n}.{quarter}")), SHARE, at);
            buffer.push(item(Kind::Audio, true, &format!("a{n}.{quarter}")), SHARE, at);
        }
    }

    fn begun() -> Buffer {
        let mut buffer = Buffer::default();
        buffer.begin(Kind::Audio);
        buffer.begin(Kind::Video);
        buffer.set_tracks(Bytes::from_static(b"tracks"));
        buffer.set_init(Kind::Audio, Bytes::from_static(b"ainit"));
        buffer.set_init(Kind::Video, Bytes::from_static(b"vinit"));
        buffer
    }

    #[test]
    fn who_comes_late_begins_at_the_newest_key_frame_and_who_listens_at_the_newest_sound() {
        let (mut buffer, start) = (begun(), Instant::now());
        (0..3).for_each(|n| second(&mut buffer, n, start));
        let mut viewer = Cursor::new(true);
        let seen = texts(&mut buffer, &mut viewer);
        assert_eq!(seen[..5], ["tracks", "vinit", "K2.0", "ainit", "a2.0"]);
        assert_eq!(seen.len(), 11);
        let mut listener = Cursor::new(false);
        assert_eq!(texts(&mut buffer, &mut listener), ["tracks", "ainit", "a2.3"]);
        second(&mut buffer, 3, start);
        assert_eq!(texts(&mut buffer, &mut listener), ["a3.0", "a3.1", "a3.2", "a3.3"]);
        assert_eq!(texts(&mut buffer, &mut viewer).len(), 8);
        assert!(texts(&mut buffer, &mut viewer).is_empty());
    }

    #[test]
    fn who_falls_behind_is_moved_forward_and_told_so_and_nobody_else_sees_a_gap() {
        let (mut buffer, start) = (begun(), Instant::now());
        let (mut slow, mut fast) = (Cursor::new(true), Cursor::new(true));
        second(&mut buffer, 0, start);
        texts(&mut buffer, &mut slow);
        let mut got = texts(&mut buffer, &mut fast);
        for n in 1..10 {
            second(&mut buffer, n, start);
            got.extend(texts(&mut buffer, &mut fast));
        }
        assert_eq!(got.iter().filter(|t| t.starts_with(['K', 'p'])).count(), 40);
        assert_eq!(buffer.moved, 0);
        let seen = texts(&mut buffer, &mut slow);
        assert!(seen[0].contains(r#""notice":"moved""#), "{seen:?}");
        assert_eq!(seen[1..3], ["vinit", "K9.0"]);
        assert_eq!(buffer.moved, 1);
        // A long way between two key frames is no reason to be moved.
        let mut late = Cursor::new(true);
        for n in 0..80 {
            let at = start + Duration::from_millis(10_000 + n * 250);
            buffer.push(item(Kind::Video, n == 0, "x"), SHARE, at);
        }
        let mut out = Vec::new();
        for _ in 0..40 {
            buffer.next(&mut late, 2, &mut out);
        }
        assert_eq!((buffer.moved, out.len()), (1, 82));
    }

    #[test]
    fn what_is_kept_is_bounded_by_bytes_and_time_and_who_lost_his_place_waits_for_a_key_frame() {
        let (mut buffer, start) = (begun(), Instant::now());
        let mut viewer = Cursor::new(true);
        let large = "x".repeat(1000);
        buffer.push(item(Kind::Video, true, "K"), 10_000, start);
        texts(&mut buffer, &mut viewer);
        for _ in 0..100 {
            buffer.push(item(Kind::Video, false, &large), 10_000, start);
        }
        assert_eq!(buffer.bytes, 10_000);
        let seen = texts(&mut buffer, &mut viewer);
        assert_eq!(seen.len(), 1, "no picture can be decoded");
        buffer.push(item(Kind::Video, false, "p"), 10_000, start);
        assert!(texts(&mut buffer, &mut viewer).is_empty());
        buffer.push(item(Kind::Video, true, "K"), 10_000, start);
        assert_eq!(texts(&mut buffer, &mut viewer), ["vinit", "K"]);
        buffer.push(item(Kind::Video, false, "p"), 10_000, start + KEPT + Duration::from_secs(1));
        assert_eq!(buffer.bytes, 1);
        // One that is larger than everything is not kept at all.
        buffer.push(item(Kind::Video, true, &large), 10, start);
        assert_eq!(buffer.bytes, 0);
    }

    #[test]
    fn a_track_that_begins_anew_is_begun_anew_by_everybody() {
        let (mut buffer, start) = (begun(), Instant::now());
        let (mut viewer, mut listener) = (Cursor::new(true), Cursor::new(false));
        second(&mut buffer, 0, start);
        texts(&mut buffer, &mut viewer);
        texts(&mut buffer, &mut listener);
        second(&mut buffer, 1, start);
        buffer.begin(Kind::Video);
        buffer.set_tracks(Bytes::from_static(b"other"));
        buffer.set_init(Kind::Video, Bytes::from_static(b"vinit2"));
        buffer.push(item(Kind::Video, false, "p"), SHARE, start);
        buffer.push(item(Kind::Video, true, "K"), SHARE, start);
        assert_eq!(texts(&mut buffer, &mut viewer), ["other", "a1.0", "a1.1", "a1.2", "a1.3", "vinit2", "K"]);
        assert_eq!(texts(&mut buffer, &mut listener), ["other", "a1.0", "a1.1", "a1.2", "a1.3"]);
        buffer.set_trouble("gone");
        assert!(texts(&mut buffer, &mut viewer)[0].contains("interrupted"));
        buffer.set_tracks(Bytes::from_static(b"back"));
        assert_eq!(texts(&mut buffer, &mut viewer), ["back"]);
    }
}
