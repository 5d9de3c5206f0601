//! From what a capture process sends to what viewers get: each packet becomes a record once.

use std::time::Instant;

use nursery_shared::media::{AudioCodec, FromCapture, Kind, Packet, Tracks, VideoCodec};

use super::{
    buffer::{Buffer, Item},
    record::{What, describe, record, said},
};
use crate::media::fmp4::{Muxer, Sample, Sound};

/// A movie begins so long before its first packet: packets of the other track may be a little older.
const LEAD_US: i64 = 1_000_000;
/// Pictures that are so much later than the one before are of a clock that was set: their movie begins anew.
const CLOCK_SET_US: i64 = 3_600_000_000;

/// How the packets of a track go on.
enum Way {
    /// Not known before its first packet.
    New,
    Movie(Box<Muxer>),
    AsItIs(What),
    /// It cannot be shown, which was said.
    Nowhere,
}

/// What comes over one socket.
pub struct Intake {
    tracks: Option<Tracks>,
    no_sound: Option<String>,
    epoch_us: Option<i64>,
    /// Time of the newest picture.
    pictured_us: Option<i64>,
    ways: [Way; 2],
    generations: [u64; 2],
}

impl Default for Intake {
    /// Nothing has come yet.
    fn default() -> Self {
        Self {
            tracks: None,
            no_sound: None,
            epoch_us: None,
            pictured_us: None,
            ways: [Way::New, Way::New],
            generations: [0; 2],
        }
    }
}

impl Intake {
    /// Takes in what the capture process says.
    pub fn take(&mut self, message: FromCapture, buffer: &mut Buffer, share: usize, now: Instant) {
        match message {
            FromCapture::Tracks(tracks) => self.begin(tracks, buffer),
            FromCapture::Packet(packet) => self.pass(&packet, buffer, share, now),
        }
    }

    fn begin(&mut self, tracks: Tracks, buffer: &mut Buffer) {
        let known = self.tracks.as_ref();
        // Who only listens does not notice that somebody looks.
        if known.is_none_or(|known| known.audio != tracks.audio) {
            self.generations[0] = buffer.begin(Kind::Audio);
            self.ways[0] = Way::New;
            self.no_sound = None;
        }
        self.begin_pictures(buffer);
        self.tracks = Some(tracks);
        self.tell(buffer);
    }

    fn begin_pictures(&mut self, buffer: &mut Buffer) {
        self.generations[1] = buffer.begin(Kind::Video);
        self.ways[1] = Way::New;
        self.pictured_us = None;
    }

    fn tell(&self, buffer: &mut Buffer) {
        if let Some(tracks) = &self.tracks {
            let [sound, pictures] = self.generations;
            let described = describe(tracks, self.no_sound.as_deref(), sound, pictures);
            buffer.set_tracks(said(What::Tracks, &described));
        }
    }

    fn pass(&mut self, packet: &Packet, buffer: &mut Buffer, share: usize, now: Instant) {
        let kind = packet.kind;
        let place = usize::from(kind == Kind::Video);
        if kind == Kind::Video {
            let before = self.pictured_us.replace(packet.time_us);
            if before.is_some_and(|before| packet.time_us.saturating_sub(before) > CLOCK_SET_US) {
                self.begin_pictures(buffer);
                (self.epoch_us, self.pictured_us) = (None, Some(packet.time_us));
                self.tell(buffer);
            }
        }
        if matches!(self.ways[place], Way::New) {
            let epoch_us = *self.epoch_us.get_or_insert(packet.time_us.saturating_sub(LEAD_US));
            let way = match self.way(kind, epoch_us) {
                Ok(Some(way)) => way,
                // Of a track that nobody spoke of.
                Ok(None) => return,
                Err(why) => {
                    tracing::debug!("{why}");
                    self.give_up(kind, why, buffer);
                    Way::Nowhere
                }
            };
            if let Way::Movie(muxer) = &way {
                let what = if kind == Kind::Video { What::PicturesInit } else { What::SoundInit };
                buffer.set_init(kind, record(what, epoch_us, &muxer.init()));
            }
            self.ways[place] = way;
        }
        let bytes = match &mut self.ways[place] {
            Way::New | Way::Nowhere => return,
            Way::AsItIs(what) => record(*what, packet.time_us, &packet.data),
            Way::Movie(muxer) => {
                let what = if kind == Kind::Video { What::Pictures } else { What::Sound };
                match muxer.fragment(&[Sample::from(packet)], None) {
                    Ok(Some(fragment)) => record(what, packet.time_us, &fragment),
                    // Empty ones are nothing to show, and none is too large for a fragment.
                    Ok(None) | Err(_) => return,
                }
            }
        };
        buffer.push(Item { kind, key: packet.key || kind == Kind::Audio, bytes }, share, now);
    }

    fn way(&self, kind: Kind, epoch_us: i64) -> Result<Option<Way>, String> {
        let Some(tracks) = &self.tracks else { return Ok(None) };
        let movie = match kind {
            Kind::Video => match &tracks.video {
                None => return Ok(None),
                Some(video) if video.codec == VideoCodec::Jpeg => {
                    return Ok(Some(Way::AsItIs(What::Jpeg)));
                }
                Some(video) => {
                    Muxer::new(Some(video), None, epoch_us).map(|muxer| muxer.without_holes(epoch_us))
                }
            },
            Kind::Audio => match &tracks.audio {
                None => return Ok(None),
                Some(audio) if audio.codec == AudioCodec::Aac => {
                    Muxer::new(None, Sound::of(audio).as_ref(), epoch_us)
                }
                Some(audio) if audio.is_sound() => return Ok(Some(Way::AsItIs(What::RawSound))),
                Some(audio) => {
                    return Err(format!("sound of {} Hz, {} channels", audio.rate, audio.channels));
                }
            },
        };
        movie.map(|muxer| Some(Way::Movie(Box::new(muxer)))).map_err(|e| e.to_string())
    }

    fn give_up(&mut self, kind: Kind, why: String, buffer: &mut Buffer) {
        let Some(tracks) = &mut self.tracks else { return };
        match kind {
            Kind::Audio => {
                tracks.audio = None;
                self.no_sound = Some(why);
            }
            Kind::Video => {
                tracks.video = None;
                tracks.no_video = Some(why);
            }
        }
        self.tell(buffer);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use nursery_shared::media::{AudioTrack, Data, VideoTrack};
    use serde_json::Value;

    use super::{
        super::{buffer::Cursor, record::HEAD},
        *,
    };

    fn ulaw() -> Option<AudioTrack> {
        Some(AudioTrack { codec: AudioCodec::Ulaw, rate: 8000, channels: 1, config: Data::default() })
    }

    fn packet(kind: Kind, time_us: i64) -> FromCapture {
        let data = Data::from(vec![1, 2, 3]);
        FromCapture::Packet(Packet { kind, time_us, duration_us: 20_000, key: true, data })
    }

    fn taken(messages: Vec<FromCapture>) -> Vec<(u8, Vec<u8>)> {
        let (mut intake, mut buffer) = (Intake::default(), Buffer::default());
        let mut cursor = Cursor::new(true);
        let mut out = Vec::new();
        for message in messages {
            intake.take(message, &mut buffer, 1 << 20, Instant::now());
            buffer.next(&mut cursor, usize::MAX, &mut out);
        }
        out.iter().map(|b| (b[4], b[HEAD..].to_vec())).collect()
    }

    #[test]
    fn sound_that_no_browser_decodes_goes_as_it_is_and_pictures_that_come_later_do_not_interrupt_it() {
        let tracks = |video| FromCapture::Tracks(Tracks { audio: ulaw(), video, no_video: None });
        let jpeg = VideoTrack {
            codec: VideoCodec::Jpeg,
            codecs: String::new(),
            width: 8,
            height: 8,
            config: Data::default(),
        };
        let got = taken(vec![
            packet(Kind::Audio, 0),
            tracks(None),
            packet(Kind::Audio, 1),
            packet(Kind::Video, 1),
            tracks(Some(jpeg)),
            packet(Kind::Audio, 2),
            packet(Kind::Video, 2),
        ]);
        let kinds: Vec<u8> = got.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [1, 6, 1, 6, 7]);
        assert_eq!(got[1].1, [1, 2, 3]);
        let [before, after] = [0, 2].map(|n| serde_json::from_slice::<Value>(&got[n].1).unwrap());
        assert_eq!(before["audio"], after["audio"]);
        assert_eq!((&before["audio"]["codec"], &after["video"]["codec"]), (&"ulaw".into(), &"jpeg".into()));
    }

    #[test]
    fn pictures_of_a_clock_that_was_set_begin_anew_and_sound_goes_on() {
        let avcc = vec![1, 66, 192, 30, 0xff, 0xe1, 0, 2, 0x67, 66, 1, 0, 1, 0x68];
        let video = VideoTrack {
            codec: VideoCodec::H264,
            codecs: "avc1.42C01E".into(),
            width: 8,
            height: 8,
            config: Data::from(avcc),
        };
        const SET: i64 = 1_790_000_000_000_000;
        let got = taken(vec![
            FromCapture::Tracks(Tracks { audio: ulaw(), video: Some(video), no_video: None }),
            packet(Kind::Video, 0),
            packet(Kind::Audio, 0),
            packet(Kind::Video, 200_000),
            packet(Kind::Audio, SET),
            packet(Kind::Video, SET),
            packet(Kind::Video, SET + 200_000),
        ]);
        assert_eq!(got.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [1, 2, 4, 6, 4, 6, 1, 2, 4, 4]);
        let [before, after] = [0, 6].map(|n| serde_json::from_slice::<Value>(&got[n].1).unwrap());
        assert_eq!(before["audio"], after["audio"]);
        assert_ne!(before["video"]["generation"], after["video"]["generation"]);
    }

    #[test]
    fn what_cannot_be_shown_is_said_and_the_rest_is_shown() {
        let broken = VideoTrack {
            codec: VideoCodec::H264,
            codecs: "avc1.42C01E".into(),
            width: 8,
            height: 8,
            config: Data::from(vec![1, 2]),
        };
        let got = taken(vec![
            FromCapture::Tracks(Tracks { audio: ulaw(), video: Some(broken), no_video: None }),
            packet(Kind::Video, 1),
            packet(Kind::Video, 2),
            packet(Kind::Audio, 2),
        ]);
        assert_eq!(got.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [1, 1, 6]);
        let said: Value = serde_json::from_slice(&got[1].1).unwrap();
        assert!(said["no_video"].as_str().unwrap().contains("configuration of the pictures"), "{said}");
        assert!(said["video"].is_null());
    }
}
