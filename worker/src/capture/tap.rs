//! Encoded media for who wants it: what the source sends, or what it is decoded to, goes as it is to the viewers'
//! process over a socket of its own. Nobody here waits for a reader: what one does not take is left out for it.

use std::{
    collections::{BTreeMap, VecDeque},
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nursery_shared::{
    frame::{self, FrameBuffer},
    media::{
        AudioCodec, AudioTrack, Data, FromCapture, Kind, MAX_MEDIA, MAX_WISH, Packet, ToCapture, Tracks,
    },
    pcm::{Pcm, SAMPLE_RATE},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, watch},
    task::AbortHandle,
};

use super::{clock::StreamClock, listener::Now, source::Wishes};

/// Bytes and packets that may wait for the viewers' process; a key frame or two of a large picture, or some seconds.
const WAITING_BYTES: usize = 8 << 20;
const WAITING_PACKETS: usize = 512;

/// Sockets of other workers that media goes to, and of operators who listen.
const MOST_WORKERS: usize = 4;
const MOST_OPERATORS: usize = 8;

/// From here on a time that is before another is another time: the clock was set back.
const SET_BACK_US: i64 = 2_000_000;

/// What is remembered for clips, at the most: half a minute of a large picture.
const REMEMBERED_BYTES: usize = 24 << 20;
const REMEMBERED_PACKETS: usize = 8192;

/// What a source says about its media.
#[derive(Debug, Clone, PartialEq)]
pub enum Media {
    Tracks(Tracks),
    Packet(Packet),
}

/// Passes media on.
pub struct Tap {
    wishes: watch::Sender<Wishes>,
    /// What the source said last; of a source that has no encoded media, what its samples become.
    tracks: Tracks,
    /// The source's samples are all there is.
    samples: Option<SampleTime>,
    memory: Memory,
    viewers: Vec<Viewer>,
    /// What they wish, by number.
    wished: Arc<Mutex<BTreeMap<u64, bool>>>,
    next_viewer: u64,
    /// When the newest packet of either kind was.
    newest_us: [Option<i64>; 2],
}

/// Times of a source's samples.
struct SampleTime {
    clock: StreamClock,
    position: u64,
}

impl Tap {
    /// `encoded`: the source tells of its media itself. Otherwise its samples are the media. The last `memory` of it is
    /// remembered; zero: nothing.
    pub fn new(wishes: watch::Sender<Wishes>, encoded: bool, memory: Duration) -> Self {
        let tracks =
            if encoded { Tracks::default() } else { Tracks { audio: Some(pcm()), ..Tracks::default() } };
        let samples = (!encoded).then(|| SampleTime { clock: StreamClock::new(true), position: 0 });
        let tap = Self {
            wishes,
            tracks,
            samples,
            memory: Memory::new(memory),
            viewers: Vec::new(),
            wished: Arc::default(),
            next_viewer: 0,
            newest_us: [None; 2],
        };
        tap.wishes.send_modify(|wishes| wishes.media = tap.is_wanted());
        tap
    }

    /// The last `memory` of the media is remembered from now on.
    pub fn remember(&mut self, memory: Duration) {
        self.memory.span_us = memory.as_micros() as i64;
        if !self.memory.remembers() {
            self.memory.clear();
        }
        self.wish();
    }

    /// Somebody wants the media: another worker, or an operator who listens. Where there are many, the oldest worker, which
    /// is one that was replaced, gives way to another; operators to nobody, but who comes too late is refused.
    pub fn connect(&mut self, socket: OwnedFd, operator: bool) {
        let alike = |viewer: &&Viewer| viewer.operator == operator;
        let count = self.viewers.iter().filter(alike).count();
        if operator && count >= MOST_OPERATORS {
            tracing::warn!("{MOST_OPERATORS} operators listen already; another was refused");
            return;
        }
        if count >= MOST_WORKERS
            && !operator
            && let Some(oldest) = self.viewers.iter().position(|viewer| !viewer.operator)
        {
            self.viewers.remove(oldest);
        }
        let number = self.next_viewer;
        let wishes = Wished { number, all: Arc::clone(&self.wished), source: self.wishes.clone() };
        match Viewer::new(socket, wishes, operator) {
            Ok(mut viewer) => {
                self.next_viewer += 1;
                viewer.send(&FromCapture::Tracks(self.tracks.clone()), Kind::Audio, true);
                self.viewers.push(viewer);
                self.wish();
            }
            Err(e) => tracing::warn!("the viewers' socket cannot be used: {e}"),
        }
    }

    /// Waits until somebody has had enough.
    pub async fn left(&mut self) {
        if self.viewers.is_empty() {
            return std::future::pending().await;
        }
        let closed = self.viewers.iter().map(|viewer| Box::pin(viewer.queue.closed()));
        futures::future::select_all(closed).await;
        self.viewers.retain(|viewer| !viewer.queue.is_closed());
        self.wish();
    }

    fn wish(&self) {
        let (media, live) = (self.is_wanted(), !self.viewers.is_empty());
        self.wishes.send_if_modified(|wishes| {
            let before = *wishes;
            (wishes.media, wishes.live) = (media, live);
            before != *wishes
        });
    }

    fn forget_lost(&mut self) {
        let before = self.viewers.len();
        self.viewers.retain(|viewer| !viewer.lost);
        if self.viewers.len() < before {
            self.wish();
        }
    }

    fn is_wanted(&self) -> bool {
        !self.viewers.is_empty() || self.memory.remembers()
    }

    /// What there is at present.
    pub fn tracks(&self) -> &Tracks {
        &self.tracks
    }

    /// What is remembered from `from_us` on (microseconds since 1970), oldest first: sound from there, pictures from the
    /// last key frame before it on, all of the present tracks.
    pub fn remembered(&self, from_us: i64) -> impl Iterator<Item = &Packet> {
        self.memory.since(from_us)
    }

    /// What the source said about its media. Returns a packet as it is passed on, where anybody wants it.
    pub fn on_media(&mut self, media: Media) -> Option<Packet> {
        match media {
            Media::Tracks(tracks) => {
                self.memory.change(&self.tracks, &tracks);
                self.tracks = tracks;
                self.newest_us = [None; 2];
                self.tell(&FromCapture::Tracks(self.tracks.clone()), Kind::Audio, true);
                None
            }
            Media::Packet(packet) => self.pass(packet),
        }
    }

    /// The source begins anew.
    pub fn on_connected(&mut self) {
        if let Some(time) = &mut self.samples {
            *time = SampleTime { clock: StreamClock::new(true), position: 0 };
        }
    }

    /// What the source heard, 16 kHz mono; of a source that has no encoded media this is the media. Returns a packet as
    /// it is passed on, where anybody wants it.
    pub fn on_samples(&mut self, samples: &[f32], now: Now) -> Option<Packet> {
        let wanted = self.is_wanted();
        let time = self.samples.as_mut()?;
        let start = time.position;
        time.position += samples.len() as u64;
        time.clock.arrived(time.position, samples.len(), now.wall_us);
        if !wanted || samples.is_empty() {
            return None;
        }
        let packet = Packet {
            kind: Kind::Audio,
            time_us: time.clock.at(start),
            duration_us: (samples.len() as u64 * 1_000_000 / u64::from(SAMPLE_RATE)) as u32,
            key: true,
            data: Data::from(Pcm::from_f32(samples).as_bytes()),
        };
        self.pass(packet)
    }

    fn pass(&mut self, mut packet: Packet) -> Option<Packet> {
        if !self.is_wanted() {
            return None;
        }
        let place = usize::from(packet.kind == Kind::Video);
        if self.newest_us[place].is_some_and(|newest| packet.time_us < newest.saturating_sub(SET_BACK_US)) {
            self.begin_anew();
        }
        let newest = &mut self.newest_us[place];
        // Clocks are anchored anew now and then; times never step back for that.
        packet.time_us = newest.map_or(packet.time_us, |newest| packet.time_us.max(newest.saturating_add(1)));
        *newest = Some(packet.time_us);
        self.memory.remember(&packet);
        let (kind, key) = (packet.kind, packet.key);
        self.tell(&FromCapture::Packet(packet.clone()), kind, key);
        Some(packet)
    }

    /// The clock was set back: what was is of another time, and nobody can go on from it.
    fn begin_anew(&mut self) {
        self.newest_us = [None; 2];
        self.memory.clear();
        for tracks in [Tracks::default(), self.tracks.clone()] {
            self.tell(&FromCapture::Tracks(tracks), Kind::Audio, true);
        }
    }

    fn tell(&mut self, message: &FromCapture, kind: Kind, key: bool) {
        self.viewers.iter_mut().for_each(|viewer| viewer.send(message, kind, key));
        self.forget_lost();
    }
}

/// The newest media.
struct Memory {
    span_us: i64,
    packets: VecDeque<Packet>,
    bytes: usize,
}

impl Memory {
    fn new(span: Duration) -> Self {
        Self { span_us: span.as_micros() as i64, packets: VecDeque::new(), bytes: 0 }
    }

    fn remembers(&self) -> bool {
        self.span_us > 0
    }

    fn clear(&mut self) {
        self.packets.clear();
        self.bytes = 0;
    }

    /// Other tracks than before: what cannot be decoded with them is forgotten.
    fn change(&mut self, old: &Tracks, new: &Tracks) {
        let audio = old.audio == new.audio;
        // Pictures that begin or end need nothing of what was.
        let video = old.video == new.video;
        self.packets.retain(|p| if p.kind == Kind::Audio { audio } else { video });
        self.bytes = self.packets.iter().map(|p| p.data.len()).sum();
    }

    fn remember(&mut self, packet: &Packet) {
        if !self.remembers() {
            return;
        }
        self.bytes += packet.data.len();
        self.packets.push_back(packet.clone());
        let too_old = |oldest: &Packet| oldest.time_us < packet.time_us - self.span_us;
        while self.packets.len() > REMEMBERED_PACKETS
            || self.bytes > REMEMBERED_BYTES
            || self.packets.front().is_some_and(too_old)
        {
            let Some(oldest) = self.packets.pop_front() else { return };
            self.bytes -= oldest.data.len();
        }
    }

    fn since(&self, from_us: i64) -> impl Iterator<Item = &Packet> {
        let is_key = |p: &&Packet| p.kind == Kind::Video && p.key && p.time_us <= from_us;
        let key = self.packets.iter().rev().find(is_key);
        let pictures_from = key.map_or(from_us, |p| p.time_us);
        self.packets.iter().filter(move |p| match p.kind {
            Kind::Audio => p.time_us + i64::from(p.duration_us) > from_us,
            Kind::Video => p.time_us >= pictures_from,
        })
    }
}

fn pcm() -> AudioTrack {
    AudioTrack { codec: AudioCodec::S16le, rate: SAMPLE_RATE, channels: 1, config: Data::default() }
}

/// What one of those who get media wishes, until it is gone.
struct Wished {
    number: u64,
    all: Arc<Mutex<BTreeMap<u64, bool>>>,
    source: watch::Sender<Wishes>,
}

impl Wished {
    fn set(&self, video: Option<bool>) {
        // Valid after every statement.
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        match video {
            Some(video) => all.insert(self.number, video),
            None => all.remove(&self.number),
        };
        let video = all.values().any(|video| *video);
        drop(all);
        self.source.send_if_modified(|wishes| std::mem::replace(&mut wishes.video, video) != video);
    }
}

impl Drop for Wished {
    fn drop(&mut self) {
        self.set(None);
    }
}

/// Somebody who gets the media, at the other end of a socket.
struct Viewer {
    queue: mpsc::Sender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    /// Pictures were left out: those up to the next key frame are of no use.
    awaits_key: bool,
    /// No other worker.
    operator: bool,
    /// It was not told what everything else depends on: it has to begin anew.
    lost: bool,
    task: AbortHandle,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        // Who does not read would hold its socket, and what waits for it, for ever.
        self.task.abort();
    }
}

impl Viewer {
    fn new(socket: OwnedFd, wishes: Wished, operator: bool) -> std::io::Result<Self> {
        // The supervisor has made it non-blocking.
        let socket = UnixStream::from_std(StdUnixStream::from(socket))?;
        let (queue, rx) = mpsc::channel(WAITING_PACKETS);
        let waiting = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(serve(socket, rx, Arc::clone(&waiting), wishes)).abort_handle();
        Ok(Self { queue, waiting, awaits_key: false, operator, lost: false, task })
    }

    /// Queues a message, where there is room.
    fn send(&mut self, message: &FromCapture, kind: Kind, key: bool) {
        let video = kind == Kind::Video;
        if video && self.awaits_key && !key {
            return;
        }
        let mut bytes = Vec::new();
        // What is too large, no picture that a camera sends, is left out like what finds no room.
        let fits = frame::encode_frame(message, MAX_MEDIA, &mut bytes).is_ok();
        let len = bytes.len();
        let room = self.waiting.load(Ordering::Relaxed) + len <= WAITING_BYTES;
        self.waiting.fetch_add(len, Ordering::Relaxed);
        let sent = fits && room && self.queue.try_send(bytes).is_ok();
        if !sent {
            self.waiting.fetch_sub(len, Ordering::Relaxed);
        }
        if video {
            self.awaits_key = !sent;
        }
        self.lost |= !sent && matches!(message, FromCapture::Tracks(_));
    }
}

/// Writes what is queued and reads what is wished, until either ends.
async fn serve(
    mut socket: UnixStream,
    mut queue: mpsc::Receiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    wishes: Wished,
) {
    let (mut reader, mut writer) = socket.split();
    let write = async {
        while let Some(bytes) = queue.recv().await {
            let outcome = writer.write_all(&bytes).await;
            waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
            if outcome.is_err() {
                return;
            }
        }
    };
    let read = async {
        let (mut bytes, mut frames) = ([0; 256], FrameBuffer::new(MAX_WISH));
        while let Ok(n @ 1..) = reader.read(&mut bytes).await {
            frames.feed(&bytes[..n]);
            loop {
                match frames.next_frame() {
                    Ok(Some(ToCapture::Want { video })) => wishes.set(Some(video)),
                    Ok(None) => break,
                    Err(e) => return tracing::warn!("what viewers wish cannot be read: {e}"),
                }
            }
        }
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
    // The queue ends here, which the tap sees.
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{os::fd::OwnedFd, time::Duration};

    use nursery_shared::media::{VideoCodec, VideoTrack};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    struct End {
        socket: UnixStream,
        frames: FrameBuffer,
    }

    fn pair() -> (OwnedFd, End) {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (
            ours.into(),
            End { socket: UnixStream::from_std(theirs).unwrap(), frames: FrameBuffer::new(MAX_MEDIA) },
        )
    }

    impl End {
        async fn next(&mut self) -> FromCapture {
            loop {
                if let Some(message) = self.frames.next_frame().unwrap() {
                    return message;
                }
                let mut bytes = [0; 4096];
                let n = timeout(PATIENCE, self.socket.read(&mut bytes)).await.unwrap().unwrap();
                assert!(n > 0, "the socket ended");
                self.frames.feed(&bytes[..n]);
            }
        }

        async fn want(&mut self, video: bool) {
            let mut bytes = Vec::new();
            frame::encode_frame(&ToCapture::Want { video }, MAX_WISH, &mut bytes).unwrap();
            self.socket.write_all(&bytes).await.unwrap();
        }
    }

    fn picture(time_us: i64, key: bool, len: usize) -> Media {
        let data = Data::from(vec![0; len]);
        Media::Packet(Packet { kind: Kind::Video, time_us, duration_us: 0, key, data })
    }

    fn at(wall_us: i64) -> Now {
        Now { wall_us, mono_us: wall_us as u64 }
    }

    #[tokio::test]
    async fn samples_are_media_where_there_is_nothing_else() {
        let (wishes, wished) = watch::channel(Wishes::default());
        let mut tap = Tap::new(wishes, false, Duration::ZERO);
        tap.on_samples(&[0.5; 160], at(1_000_000));
        let (ours, mut end) = pair();
        tap.connect(ours, false);
        assert_eq!(*wished.borrow(), Wishes { media: true, video: false, live: true });
        tap.on_samples(&[0.5; 160], at(1_010_000));
        let FromCapture::Tracks(tracks) = end.next().await else { panic!("no tracks") };
        assert_eq!(tracks.audio, Some(pcm()));
        let FromCapture::Packet(packet) = end.next().await else { panic!("no packet") };
        assert_eq!((packet.time_us, packet.duration_us, packet.data.len()), (1_000_000, 10_000, 320));
    }

    #[tokio::test]
    async fn wishes_reach_the_source_and_end_with_who_had_them() {
        let (wishes, mut wished) = watch::channel(Wishes::default());
        let mut tap = Tap::new(wishes, true, Duration::ZERO);
        let (ours, mut end) = pair();
        tap.connect(ours, false);
        end.want(true).await;
        timeout(PATIENCE, wished.wait_for(|w| w.video)).await.unwrap().unwrap();
        // A second one that wants none takes the first's away from nobody.
        let (ours, mut other) = pair();
        tap.connect(ours, false);
        assert!(matches!(other.next().await, FromCapture::Tracks(_)));
        other.want(false).await;
        drop(other);
        timeout(PATIENCE, tap.left()).await.unwrap();
        assert_eq!(*wished.borrow(), Wishes { media: true, video: true, live: true });
        drop(end);
        timeout(PATIENCE, tap.left()).await.unwrap();
        assert_eq!(*wished.borrow(), Wishes::default());
        tap.on_media(picture(1, true, 10));
    }

    #[tokio::test]
    async fn of_too_many_workers_the_oldest_gives_way() {
        let (wishes, wished) = watch::channel(Wishes::default());
        let mut tap = Tap::new(wishes, true, Duration::ZERO);
        let mut ends = Vec::new();
        for _ in 0..=MOST_WORKERS {
            let (ours, end) = pair();
            tap.connect(ours, false);
            ends.push(end);
        }
        let mut bytes = [0; 4096];
        while timeout(PATIENCE, ends[0].socket.read(&mut bytes)).await.unwrap().unwrap() > 0 {}
        tap.on_media(picture(1, true, 10));
        for end in &mut ends[1..] {
            while !matches!(end.next().await, FromCapture::Packet(_)) {}
        }
        assert!(wished.borrow().media);
    }

    #[tokio::test]
    async fn operators_interrupt_nobody_and_who_comes_too_late_is_refused() {
        let (wishes, wished) = watch::channel(Wishes::default());
        let mut tap = Tap::new(wishes, true, Duration::ZERO);
        let (ours, mut page) = pair();
        tap.connect(ours, false);
        let mut operators = Vec::new();
        for _ in 0..MOST_OPERATORS + 1 {
            let (ours, end) = pair();
            tap.connect(ours, true);
            operators.push(end);
        }
        let mut late = operators.pop().unwrap();
        assert_eq!(timeout(PATIENCE, late.socket.read(&mut [0; 64])).await.unwrap().unwrap(), 0);
        tap.on_media(sound(1));
        for end in operators.iter_mut().chain([&mut page]) {
            while !matches!(end.next().await, FromCapture::Packet(_)) {}
        }
        assert!(wished.borrow().media);
    }

    #[tokio::test]
    async fn who_gives_way_holds_no_socket_and_has_no_wishes_even_if_it_never_reads() {
        let (wishes, mut wished) = watch::channel(Wishes::default());
        let mut tap = Tap::new(wishes, true, Duration::ZERO);
        let (ours, mut deaf) = pair();
        tap.connect(ours, false);
        deaf.want(true).await;
        timeout(PATIENCE, wished.wait_for(|w| w.video)).await.unwrap().unwrap();
        // More than the socket takes.
        (0..100).for_each(|n| drop(tap.on_media(picture(n, true, 50_000))));
        tokio::task::yield_now().await;
        let mut others = Vec::new();
        for _ in 0..MOST_WORKERS {
            let (ours, end) = pair();
            tap.connect(ours, false);
            others.push(end);
        }
        timeout(PATIENCE, wished.wait_for(|w| !w.video)).await.unwrap().unwrap();
        let mut bytes = [0; 65_536];
        while timeout(PATIENCE, deaf.socket.read(&mut bytes)).await.unwrap().unwrap() > 0 {}
    }

    #[tokio::test]
    async fn who_could_not_be_told_of_other_tracks_has_to_begin_anew() {
        let (wishes, wished) = watch::channel(Wishes::default());
        let mut tap = Tap::new(wishes, true, Duration::ZERO);
        let (ours, mut end) = pair();
        tap.connect(ours, false);
        (0..WAITING_PACKETS as i64 + 1).for_each(|n| drop(tap.on_media(sound(n))));
        assert!(wished.borrow().media);
        tap.on_media(Media::Tracks(Tracks { no_video: Some("refused".into()), ..Tracks::default() }));
        assert!(!wished.borrow().media, "it goes on as if nothing had changed");
        let mut bytes = [0; 65_536];
        while timeout(PATIENCE, end.socket.read(&mut bytes)).await.unwrap().unwrap() > 0 {}
    }

    #[tokio::test]
    async fn after_the_clock_was_set_back_media_goes_on_at_once_as_if_begun_anew() {
        let (wishes, _wished) = watch::channel(Wishes::default());
        let mut tap = Tap::new(wishes, true, Duration::from_secs(20));
        let (ours, mut end) = pair();
        tap.connect(ours, false);
        let hour = 3_600_000_000;
        for time in [hour, hour + 10_000, 5_000, 15_000] {
            tap.on_media(sound(time));
        }
        assert_eq!(tap.remembered(0).map(|p| p.time_us).collect::<Vec<_>>(), [5_000, 15_000]);
        let (mut times, mut tracks) = (Vec::new(), 0);
        while times.len() < 4 {
            match end.next().await {
                FromCapture::Packet(p) => times.push(p.time_us),
                FromCapture::Tracks(_) => tracks += 1,
            }
        }
        assert_eq!((times, tracks), (vec![hour, hour + 10_000, 5_000, 15_000], 3));
    }

    #[tokio::test]
    async fn who_does_not_read_gets_whole_pictures_from_a_key_frame_on_later() {
        let (wishes, _wished) = watch::channel(Wishes::default());
        let mut tap = Tap::new(wishes, true, Duration::ZERO);
        let (ours, mut end) = pair();
        tap.connect(ours, false);
        let video = VideoTrack {
            codec: VideoCodec::H264,
            codecs: "avc1.42C01E".into(),
            width: 2,
            height: 2,
            config: Data::default(),
        };
        tap.on_media(Media::Tracks(Tracks { video: Some(video), ..Tracks::default() }));
        let mut time = 0;
        // More than may wait, with no turn for the writing task.
        for n in 0..200 {
            time += 40_000;
            tap.on_media(picture(time, n % 25 == 0, 100_000));
        }
        // Taken in turns from here on.
        let (mut got, mut gap) = (Vec::new(), None);
        while got.last().is_none_or(|t| *t < time) {
            if let FromCapture::Packet(p) = end.next().await {
                if got.last().is_some_and(|last| p.time_us > last + 40_000) {
                    assert!(p.key, "decoding cannot go on at {}", p.time_us);
                    gap = Some(p.time_us);
                }
                got.push(p.time_us);
            }
            if gap.is_none() {
                time += 40_000;
                tap.on_media(picture(time, time % 1_000_000 == 0, 1_000));
            }
        }
        assert!(gap.is_some(), "all of it found room");
    }

    fn sound(time_us: i64) -> Media {
        let data = Data::from(vec![0; 80]);
        Media::Packet(Packet { kind: Kind::Audio, time_us, duration_us: 10_000, key: true, data })
    }

    #[tokio::test]
    async fn what_was_is_remembered_for_so_long_and_as_far_as_it_can_be_decoded() {
        let (wishes, wished) = watch::channel(Wishes::default());
        let mut tap = Tap::new(wishes, true, Duration::from_secs(20));
        assert_eq!(*wished.borrow(), Wishes { media: true, video: false, live: false });
        let times = |tap: &Tap, kind| -> Vec<i64> {
            tap.remembered(25_000_001).filter(|p| p.kind == kind).map(|p| p.time_us / 1000).collect()
        };
        let track = |config: &[u8]| Tracks {
            audio: Some(AudioTrack {
                codec: AudioCodec::Aac,
                rate: 16_000,
                channels: 1,
                config: config.into(),
            }),
            ..Tracks::default()
        };
        tap.on_media(Media::Tracks(track(b"1")));
        for n in 0..3_000 {
            tap.on_media(sound(n * 10_000));
            if n % 10 == 0 {
                tap.on_media(picture(n * 10_000, n % 100 == 0, 100));
            }
        }
        assert_eq!(times(&tap, Kind::Audio)[..2], [25_000, 25_010]);
        assert_eq!(tap.remembered(0).map(|p| p.time_us).min(), Some(9_990_000));
        // From the key frame before.
        assert_eq!(times(&tap, Kind::Video)[0], 25_000);
        tap.on_media(Media::Tracks(Tracks { no_video: Some("refused".into()), ..track(b"1") }));
        assert_eq!(times(&tap, Kind::Audio)[0], 25_000);
        tap.on_media(Media::Tracks(track(b"2")));
        assert!(times(&tap, Kind::Audio).is_empty());
        // However large it is, it has an end.
        (0..1_000).for_each(|n| drop(tap.on_media(picture(40_000_000 + n, true, 1 << 20))));
        assert!(tap.remembered(0).map(|p| p.data.len()).sum::<usize>() <= REMEMBERED_BYTES);
    }

    #[tokio::test]
    async fn times_of_a_track_never_step_back() {
        let (wishes, _wished) = watch::channel(Wishes::default());
        let mut tap = Tap::new(wishes, true, Duration::ZERO);
        let (ours, mut end) = pair();
        tap.connect(ours, false);
        for time in [1_000, 900, 2_000] {
            tap.on_media(picture(time, true, 1));
        }
        let mut times = Vec::new();
        while times.len() < 3 {
            if let FromCapture::Packet(p) = end.next().await {
                times.push(p.time_us);
            }
        }
        assert_eq!(times, [1_000, 1_001, 2_000]);
    }
}
