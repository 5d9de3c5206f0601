//! What comes in a session that plays: audio to be heard, and both kinds of media as they are for who wants them.

use std::{
    future::poll_fn,
    task::Poll,
    time::{Duration, Instant as StdInstant},
};

use futures::StreamExt;
use nursery_shared::{media::Tracks, timestamp};
use retina::codec::{AudioFrame, CodecItem};
use tokio::time::{Instant, error::Elapsed, timeout_at};

use super::{
    Camera, HOPELESS, Playing, STALL, STEADY,
    audio::Decoded,
    explain::{self, Phase},
};
use crate::capture::{
    retry::Failure,
    source::{SourceEvent, SourceLink, Wishes},
    tap::Media,
};

/// What came: a frame, an error, the end, or nothing for too long.
pub(super) type Item = Result<Option<Result<CodecItem, retina::Error>>, Elapsed>;

/// Audio that is handed over at once at the most, in samples of 16 kHz, where a lot is there.
const PIECE: usize = 8_000;

/// A session's reception.
pub(super) struct Reception<'a> {
    camera: &'a Camera,
    link: &'a SourceLink,
    pub playing: Playing,
    /// When the first audio came.
    started: Option<StdInstant>,
    /// When it has been silent for too long.
    due: Instant,
    /// When this session began, and whether packets of another source came in it.
    begun: Instant,
    others: bool,
    errors: u32,
    last_error: Option<String>,
    told: Option<Tracks>,
    /// What was heard and is to be handed over; and all that was, in samples of 16 kHz.
    samples: Vec<f32>,
    heard: u64,
}

impl<'a> Reception<'a> {
    pub fn new(camera: &'a Camera, playing: Playing, link: &'a SourceLink) -> Self {
        let begun = Instant::now();
        Self {
            camera,
            link,
            playing,
            started: None,
            due: begun + STALL,
            begun,
            others: false,
            errors: 0,
            last_error: None,
            told: None,
            samples: Vec::new(),
            heard: 0,
        }
    }

    /// Waits for what comes next. May be dropped where it waits. Everything that is there already is taken before any of
    /// it is handed over.
    pub async fn next(&mut self) -> Item {
        loop {
            if !self.samples.is_empty() {
                if self.samples.len() < PIECE {
                    let at_once = poll_fn(|cx| Poll::Ready(self.playing.frames.poll_next_unpin(cx)));
                    if let Poll::Ready(item) = at_once.await {
                        return Ok(item);
                    }
                }
                self.hand_over().await;
            }
            let look = self.playing.gathering.wait(self.missing(), Instant::now());
            let until = look.map_or(self.due, |look| look.min(self.due));
            match timeout_at(until, self.playing.frames.next()).await {
                Err(elapsed) if until >= self.due => return Err(elapsed),
                Err(_) => self.playing.gathering.lift(),
                item => return item,
            }
        }
    }

    /// What is missing to the end of a window, where nobody minds that audio comes in pieces of that length.
    fn missing(&self) -> Option<u64> {
        let hop = self.link.hop();
        let hasty = self.link.wishes().live || self.playing.encoded.has_video() || self.errors > 0;
        (hop > 0 && !hasty).then(|| hop - self.heard % hop)
    }

    /// Hands over what was heard. May be dropped where it waits.
    pub async fn hand_over(&mut self) {
        if !self.samples.is_empty() {
            let count = self.samples.len() as u64;
            self.link.send_audio(&mut self.samples).await;
            self.heard += count;
        }
    }

    /// Goes on in another session, that has audio.
    pub async fn take_over(&mut self, playing: Playing) {
        self.hand_over().await;
        // The former one says goodbye in the background.
        if self.playing.encoded.has_video() {
            self.camera.pictures.ended_well();
        }
        self.playing = playing;
        (self.begun, self.others) = (Instant::now(), false);
        self.told = None;
        self.tell_tracks().await;
    }

    /// Tells what media there is, where that has changed.
    pub async fn tell_tracks(&mut self) {
        let tracks = self.playing.encoded.tracks();
        if self.told.as_ref() != Some(&tracks) {
            self.told = Some(tracks.clone());
            self.link.send(SourceEvent::Media(Media::Tracks(tracks))).await;
        }
    }

    /// Tells why there are no pictures, where somebody wants them.
    pub async fn tell_why_not(&mut self, wishes: Wishes) {
        if self.playing.offers_video {
            let why = self
                .camera
                .pictures
                .why_not(wishes, Instant::now())
                .filter(|_| !self.playing.encoded.has_video());
            self.playing.encoded.no_video = why;
        }
        self.tell_tracks().await;
    }

    fn fail<T>(&self, stalled: bool, error: String) -> Result<T, Failure> {
        let heard = self.started.map_or(Duration::ZERO, |s| s.elapsed());
        Err(Failure { stalled, error, heard })
    }

    async fn corrupt(&mut self, count: u64, what: String) {
        self.link.send(SourceEvent::Corrupt { count, what }).await;
    }

    /// Takes in what came; fails where the session is over.
    pub async fn take(&mut self, item: Item) -> Result<(), Failure> {
        let outcome = self.take_in(item).await;
        if outcome.is_err() {
            self.hand_over().await;
        }
        outcome
    }

    async fn take_in(&mut self, item: Item) -> Result<(), Failure> {
        let camera = self.camera;
        let place = &camera.place;
        match item {
            Ok(Some(Ok(CodecItem::AudioFrame(frame)))) => self.on_audio(&frame).await,
            Ok(Some(Ok(CodecItem::VideoFrame(frame)))) => {
                let streams = self.playing.frames.streams();
                if !self.link.wishes().media {
                    // Who wants them later needs what they say of themselves now.
                    if self.playing.encoded.note(&frame, streams) {
                        self.tell_tracks().await;
                    }
                } else {
                    let packet = self.playing.encoded.video(frame, streams, timestamp::now_us());
                    if let Some((other_tracks, packet)) = packet {
                        if other_tracks {
                            self.tell_tracks().await;
                        }
                        self.link.send(SourceEvent::Media(Media::Packet(packet))).await;
                    }
                }
                Ok(())
            }
            Ok(Some(Ok(_))) => Ok(()),
            Ok(Some(Err(e))) => self.on_error(&e).await,
            Ok(None) => self.fail(false, place.closed(self.last_error.as_deref())),
            Err(_) if self.errors > 0 => {
                self.fail(true, place.undecodable(self.errors, self.last_error.as_deref()))
            }
            Err(_) => self.fail(true, place.silent(STALL, camera.transport)),
        }
    }

    async fn on_error(&mut self, e: &retina::Error) -> Result<(), Failure> {
        let what = explain::first_line(e);
        self.errors += 1;
        if explain::is_of_other_source(e)
            && !std::mem::replace(&mut self.others, true)
            && self.begun.elapsed() >= STEADY
        {
            self.camera.former.encoder_began_anew();
        }
        if !explain::is_of_one_packet(e) || self.errors >= HOPELESS {
            if explain::is_corrupt(e) {
                self.corrupt(1, what).await;
            }
            return self.fail(false, self.camera.place.explain(Phase::Receive, e));
        }
        self.corrupt(1, what.clone()).await;
        self.last_error = Some(what);
        Ok(())
    }

    async fn on_audio(&mut self, frame: &AudioFrame) -> Result<(), Failure> {
        let lost = u64::from(frame.loss());
        if lost > 0 {
            self.corrupt(lost, format!("{lost} RTP packet(s) lost")).await;
        }
        let before = self.samples.len();
        let decoded = self.playing.decoder.decode(&frame.into(), &mut self.samples);
        if matches!(decoded, Ok(Decoded::AudioAfterShortPacket)) {
            self.corrupt(1, "a packet held less audio than its time".to_owned()).await;
        }
        match decoded {
            Ok(Decoded::Audio | Decoded::AudioAfterShortPacket) => {
                if self.link.wishes().media {
                    let packet = self.playing.encoded.audio(frame, timestamp::now_us());
                    self.link.send(SourceEvent::Media(Media::Packet(packet))).await;
                }
                // More than one packet's where one is missing before it.
                let samples = self.samples.len() - before;
                let its_own = samples.saturating_sub(self.playing.decoder.filled());
                if samples > 0 {
                    let now = Instant::now();
                    self.started.get_or_insert_with(StdInstant::now);
                    self.due = now + STALL;
                    self.errors = 0;
                    let overhead = self.playing.decoder.overhead();
                    self.playing.gathering.came(frame.data().len() + overhead, its_own, now);
                }
                Ok(())
            }
            Ok(Decoded::Corrupt(what)) => {
                self.errors += 1;
                self.corrupt(1, what.clone()).await;
                self.last_error = Some(what);
                Ok(())
            }
            Err(error) => self.fail(false, format!("{}: {error}", self.camera.place)),
        }
    }
}
