//! Clips that this camera's process writes into files that it was handed. Writing happens on a thread of its own, behind a
//! queue that has bounds: a disk that is slow costs the clip, never a second of what is heard.

use std::{
    collections::VecDeque,
    fs::File,
    io::Write,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nursery_shared::media::{ClipReport, Kind, Packet, Tracks};

use crate::media::clip::encoder::{Encoder, End};

/// Clips that are written at the same time; those of one camera overlap where an event follows another.
pub const MOST: usize = 4;
/// Media that waits for the disk.
const MOST_WAITING: usize = 16 << 20;
/// Things that wait, whatever their size.
const MOST_ITEMS: usize = 16_384;
/// Longest clip, should nobody say where it ends.
const LONGEST_US: i64 = 3_600_000_000;
/// How long after its end packets of a clip are waited for, where none come that are later.
const LATE_US: i64 = 2_000_000;
/// How long the last clips are waited for when this process ends.
const GOODBYE: Duration = Duration::from_millis(500);

enum Item {
    Open {
        clip: i64,
        from_us: i64,
        max_bytes: u64,
        file: File,
        tracks: Tracks,
        recent: Vec<Packet>,
    },
    Close {
        clip: i64,
        until_us: i64,
    },
    Tracks(Tracks),
    Packet(Packet),
    Tick {
        now_us: i64,
    },
    /// Everything ends here, for this reason.
    Finish(&'static str),
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// Media was left out, since the disk did not take it.
    overflowed: bool,
    /// Clips that are not over.
    open: usize,
    finished: bool,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, item: Item) {
        let mut state = self.lock();
        if let Item::Packet(packet) = &item {
            if state.bytes + packet.data.len() > MOST_WAITING || state.items.len() >= MOST_ITEMS {
                state.overflowed = true;
                return;
            }
            state.bytes += packet.data.len();
        }
        state.items.push_back(item);
        self.changed.notify_all();
    }
}

/// Is told what became of a clip; an error where nobody is left to hear it.
pub type Tell = Arc<dyn Fn(i64, ClipReport) -> Result<(), String> + Send + Sync>;

/// The clips of this camera.
pub struct Clips {
    queue: Arc<Queue>,
    tell: Tell,
    begun: bool,
}

impl Clips {
    /// None yet; `tell` hears what becomes of each.
    pub fn new(tell: Tell) -> Self {
        Self { queue: Arc::default(), tell, begun: false }
    }

    /// Some are being written: packets are wanted.
    pub fn are_open(&self) -> bool {
        self.queue.lock().open > 0
    }

    /// Begins one in `file`, with as much of `recent`, oldest first, as belongs to it; `tracks`: of all of them.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn open(
        &mut self,
        (clip, from_us, max_bytes): (i64, i64, u64),
        file: OwnedFd,
        tracks: &Tracks,
        recent: Vec<Packet>,
    ) -> Result<(), String> {
        if !self.begun {
            let (queue, tell) = (Arc::clone(&self.queue), Arc::clone(&self.tell));
            let thread = std::thread::Builder::new().name("clips".into());
            if let Err(e) = thread.spawn(move || Writer::new(tell).work(&queue)) {
                return self.refuse(clip, format!("cannot start the writing thread: {e}"));
            }
            self.begun = true;
        }
        let mut state = self.queue.lock();
        if state.open >= MOST {
            drop(state);
            return self.refuse(clip, format!("{MOST} clips of this camera are being written already"));
        }
        state.open += 1;
        drop(state);
        let (file, tracks) = (File::from(file), tracks.clone());
        self.queue.put(Item::Open { clip, from_us, max_bytes, file, tracks, recent });
        Ok(())
    }

    /// Says why one will not be written.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn refuse(&self, clip: i64, why: String) -> Result<(), String> {
        let report = ClipReport { from_us: 0, until_us: 0, bytes: 0, video: false, error: Some(why) };
        (self.tell)(clip, report)
    }

    /// One ends at this time, or now where that is past.
    pub fn close(&self, clip: i64, until_us: i64) {
        if self.are_open() {
            self.queue.put(Item::Close { clip, until_us });
        }
    }

    /// Packets are of these tracks from now on.
    pub fn set_tracks(&self, tracks: &Tracks) {
        if self.are_open() {
            self.queue.put(Item::Tracks(tracks.clone()));
        }
    }

    /// The next packet.
    pub fn push(&self, packet: &Packet) {
        if self.are_open() {
            self.queue.put(Item::Packet(packet.clone()));
        }
    }

    /// It is now this late, whether packets come or not. To be called about once a second.
    pub fn tick(&self, now_us: i64) {
        if self.are_open() {
            self.queue.put(Item::Tick { now_us });
        }
    }

    /// Ends all of them, for this reason, and waits a moment for the disk. Blocks. Nothing may follow.
    pub fn finish(&self, why: &'static str) {
        self.queue.put(Item::Finish(why));
        let deadline = Instant::now() + GOODBYE;
        let mut state = self.queue.lock();
        while self.begun && !state.finished {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!("clips: the disk is slow, {} are left as they are", state.open);
                return;
            }
            let waited = self.queue.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A clip as the thread knows it.
struct Clip {
    number: i64,
    until_us: i64,
    max_bytes: u64,
    file: File,
    written: u64,
    /// Made when the first packet comes.
    encoder: Option<Encoder>,
    tracks: Tracks,
    /// Pictures have changed since it began: those that come now are others.
    sound_only: bool,
    /// Its file did not take something: nothing more goes in, or it would be torn in the middle.
    broken: bool,
}

/// The thread's part.
struct Writer {
    clips: Vec<Clip>,
    tell: Tell,
    /// Bytes on their way to a file.
    buffer: Vec<u8>,
}

impl Writer {
    fn new(tell: Tell) -> Self {
        Self { clips: Vec::new(), tell, buffer: Vec::new() }
    }

    fn work(mut self, queue: &Queue) {
        loop {
            let mut state = queue.lock();
            let (item, overflowed) = loop {
                let overflowed = std::mem::take(&mut state.overflowed);
                match state.items.pop_front() {
                    Some(item) => {
                        if let Item::Packet(packet) = &item {
                            state.bytes -= packet.data.len();
                        }
                        break (item, overflowed);
                    }
                    None => state = queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            let before = self.clips.len() + usize::from(matches!(item, Item::Open { .. }));
            if overflowed {
                self.end_all("the disk was too slow");
            }
            let last = matches!(item, Item::Finish(_));
            self.handle(item);
            let mut state = queue.lock();
            state.open = state.open.saturating_sub(before - self.clips.len());
            state.finished = last;
            queue.changed.notify_all();
            if last {
                return;
            }
        }
    }

    fn handle(&mut self, item: Item) {
        match item {
            Item::Open { clip, from_us, max_bytes, file, tracks, recent } => {
                self.clips.push(Clip {
                    number: clip,
                    until_us: from_us.saturating_add(LONGEST_US),
                    max_bytes,
                    file,
                    written: 0,
                    encoder: None,
                    tracks,
                    sound_only: false,
                    broken: false,
                });
                let last = self.clips.len() - 1;
                for packet in &recent {
                    if !self.give(last, packet) {
                        break;
                    }
                }
            }
            Item::Close { clip, until_us } => {
                if let Some(at) = self.clips.iter().position(|c| c.number == clip) {
                    let reached = self.clips[at].encoder.as_ref().and_then(Encoder::span);
                    self.clips[at].until_us = until_us;
                    if reached.is_some_and(|span| span.until_us >= until_us) {
                        self.end(at, None);
                    }
                }
            }
            Item::Tracks(tracks) => {
                for at in (0..self.clips.len()).rev() {
                    let clip = &mut self.clips[at];
                    if clip.encoder.is_none() {
                        clip.tracks = tracks.clone();
                        continue;
                    }
                    match goes_on(&clip.tracks, &tracks) {
                        GoesOn::Yes => clip.sound_only = false,
                        GoesOn::SoundOnly => clip.sound_only = true,
                        GoesOn::No => {
                            self.end(at, Some("the camera sends something else since then".into()));
                        }
                    }
                }
            }
            Item::Packet(packet) => {
                for at in (0..self.clips.len()).rev() {
                    self.give(at, &packet);
                }
            }
            Item::Tick { now_us } => {
                for at in (0..self.clips.len()).rev() {
                    if now_us.saturating_sub(LATE_US) > self.clips[at].until_us {
                        self.end(at, None);
                    }
                }
            }
            Item::Finish(why) => self.end_all(why),
        }
    }

    fn end_all(&mut self, why: &str) {
        for at in (0..self.clips.len()).rev() {
            self.end(at, Some(why.to_owned()));
        }
    }

    /// Gives a packet to a clip; false where that ended it.
    fn give(&mut self, at: usize, packet: &Packet) -> bool {
        let clip = &mut self.clips[at];
        if clip.sound_only && packet.kind == Kind::Video {
            return true;
        }
        if packet.time_us >= clip.until_us {
            self.end(at, None);
            return false;
        }
        match clip.take(packet, &mut self.buffer) {
            Ok(()) => true,
            Err(End(why)) => {
                self.end(at, Some(why));
                false
            }
        }
    }

    /// Closes a clip and says what became of it.
    fn end(&mut self, at: usize, error: Option<String>) {
        let mut clip = self.clips.swap_remove(at);
        let finished = clip.finish(&mut self.buffer).err().map(|End(why)| why);
        let span = clip.encoder.as_ref().and_then(Encoder::span);
        let nothing = || span.is_none().then(|| "nothing came from the camera".to_owned());
        let report = ClipReport {
            from_us: span.map_or(0, |s| s.from_us),
            until_us: span.map_or(0, |s| s.until_us),
            bytes: clip.written,
            video: clip.encoder.as_ref().is_some_and(Encoder::has_video),
            error: error.or(finished).or_else(nothing),
        };
        if let Some(why) = &report.error {
            tracing::warn!("clip {}: ended early: {why}", clip.number);
        }
        // Nobody is left to be told where this fails.
        let _ = (self.tell)(clip.number, report);
    }
}

/// How what is in a file can go on with other tracks.
enum GoesOn {
    Yes,
    /// Pictures that cannot be decoded like those before are left out.
    SoundOnly,
    No,
}

/// Pictures may come to an end, and those that begin are left out; that they change, as at nightfall, costs nobody the sound.
fn goes_on(in_file: &Tracks, now: &Tracks) -> GoesOn {
    if now.audio.is_none() && now.video.is_none() {
        return GoesOn::Yes;
    }
    let pictures = in_file.video.is_none() || now.video.is_none() || in_file.video == now.video;
    match (in_file.audio == now.audio, pictures) {
        (true, true) => GoesOn::Yes,
        (true, false) if now.audio.is_some() => GoesOn::SoundOnly,
        _ => GoesOn::No,
    }
}

impl Clip {
    fn take(&mut self, packet: &Packet, buffer: &mut Vec<u8>) -> Result<(), End> {
        if self.encoder.is_none() {
            self.encoder = Some(Encoder::new(&self.tracks)?);
        }
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        buffer.clear();
        let outcome = encoder.push(packet, buffer);
        self.write(buffer).and(outcome)
    }

    fn finish(&mut self, buffer: &mut Vec<u8>) -> Result<(), End> {
        buffer.clear();
        let outcome = self.encoder.as_mut().map_or(Ok(()), |encoder| encoder.finish(buffer));
        self.write(buffer).and(outcome)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        if self.broken || bytes.is_empty() {
            return Ok(());
        }
        let written = if self.written + bytes.len() as u64 > self.max_bytes {
            Err(End(format!("larger than {} KiB, which is all there is for it", self.max_bytes >> 10)))
        } else {
            self.file.write_all(bytes).map_err(|e| End(e.to_string()))
        };
        match &written {
            Ok(()) => self.written += bytes.len() as u64,
            Err(_) => self.broken = true,
        }
        written
    }
}

#[cfg(test)]
mod tests;
