//! What comes in a session that plays: audio to be heard, and both kinds of media as they are for who wants them.

use std::time::{Duration, Instant as StdInstant};

use futures::StreamExt;
use nursery_shared::{media::Tracks, timestamp};
use retina::codec::{AudioFrame, CodecItem};
use tokio::time::{Instant, error::Elapsed, timeout_at};

use super::{
    Camera, HOPELESS, Playing, STALL,
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

/// A session's reception.
pub(super) struct Reception<'a> {
    camera: &'a Camera,
    link: &'a SourceLink,
    pub playing: Playing,
    /// When the first audio came.
    started: Option<StdInstant>,
    /// When it has been silent for too long.
    due: Instant,
    errors: u32,
    last_error: Option<String>,
    told: Option<Tracks>,
}

impl<'a> Reception<'a> {
    pub fn new(camera: &'a Camera, playing: Playing, link: &'a SourceLink) -> Self {
        let due = Instant::now() + STALL;
        Self { camera, link, playing, started: None, due, errors: 0, last_error: None, told: None }
    }

    /// Waits for what comes next. May be dropped where it waits.
    pub async fn next(&mut self) -> Item {
        timeout_at(self.due, self.playing.frames.next()).await
    }

    /// Goes on in another session, that has audio.
    pub async fn take_over(&mut self, playing: Playing) {
        // The former one says goodbye in the background.
        if self.playing.encoded.has_video() {
            self.camera.pictures.ended_well();
        }
        self.playing = playing;
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
        let mut samples = Vec::new();
        let decoded = self.playing.decoder.decode(&frame.into(), &mut samples);
        if matches!(decoded, Ok(Decoded::AudioAfterShortPacket)) {
            self.corrupt(1, "a packet held less audio than its time".to_owned()).await;
        }
        match decoded {
            Ok(Decoded::Audio | Decoded::AudioAfterShortPacket) => {
                if self.link.wishes().media {
                    let packet = self.playing.encoded.audio(frame, timestamp::now_us());
                    self.link.send(SourceEvent::Media(Media::Packet(packet))).await;
                }
                if !samples.is_empty() {
                    self.started.get_or_insert_with(StdInstant::now);
                    self.due = Instant::now() + STALL;
                    self.errors = 0;
                    self.link.send(SourceEvent::Audio(samples)).await;
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
