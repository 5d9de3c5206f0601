//! A session's frames as encoded media: which tracks there are, and packets with times by the wall clock.

use nursery_shared::media::{AudioCodec, AudioTrack, Data, Kind, Packet, Tracks, VideoCodec, VideoTrack};
use retina::{
    client::Stream,
    codec::{AudioFrame, ParametersRef, VideoFrame, VideoParameters, VideoParametersCodec},
};

use crate::capture::clock::StreamClock;

/// Units of [`StreamClock`] per second.
const UNITS: i128 = 16_000;

/// Times of one track's packets.
struct TrackClock {
    clock: StreamClock,
    first: Option<i64>,
}

impl TrackClock {
    fn new() -> Self {
        Self { clock: StreamClock::new(true).tracking(), first: None }
    }

    /// Wall-clock time of what begins at `timestamp`, lasts for `length` (both in units of `rate` per second), and was
    /// whole at `now_us`.
    fn time(&mut self, timestamp: i64, length: u32, rate: u32, now_us: i64) -> i64 {
        let first = *self.first.get_or_insert(timestamp);
        let units = |n: i128| u64::try_from(n * UNITS / i128::from(rate.max(1))).unwrap_or(0);
        let start = units(i128::from(timestamp) - i128::from(first));
        let length = units(i128::from(length));
        self.clock.arrived(start + length, length as usize, now_us);
        self.clock.at(start)
    }
}

/// Pictures of a session.
struct Pictures {
    /// Number of the stream.
    index: usize,
    codec: VideoCodec,
    /// Known at the first picture at the latest.
    track: Option<VideoTrack>,
    clock: TrackClock,
}

/// Tells of a session's encoded media.
pub struct Encoded {
    audio: AudioTrack,
    clock: TrackClock,
    pictures: Option<Pictures>,
    /// Why there are none although they are wanted.
    pub no_video: Option<String>,
}

/// The first video track that people's browsers can show; else why there is none.
pub fn choose_video(streams: &[Stream]) -> Result<(usize, VideoCodec), String> {
    let mut refused = Vec::new();
    for (index, stream) in streams.iter().enumerate() {
        match (stream.media(), stream.encoding_name()) {
            ("video", "h264") => return Ok((index, VideoCodec::H264)),
            ("video", "h265") => return Ok((index, VideoCodec::H265)),
            ("video" | "image", "jpeg") => return Ok((index, VideoCodec::Jpeg)),
            ("video", other) => {
                refused.push(other.chars().filter(char::is_ascii_graphic).take(40).collect::<String>());
            }
            _ => {}
        }
    }
    Err(match refused.is_empty() {
        true => "the stream has no video track".into(),
        false => format!(
            "its video is {}, which is not supported: set it to H.264",
            refused.join(", ").to_uppercase()
        ),
    })
}

fn video_track(codec: VideoCodec, parameters: &VideoParameters) -> Option<VideoTrack> {
    let (width, height) = parameters.pixel_dimensions();
    let known = match parameters.codec_params() {
        VideoParametersCodec::H264 { .. } => VideoCodec::H264,
        VideoParametersCodec::H265 { .. } => VideoCodec::H265,
        VideoParametersCodec::Jpeg => VideoCodec::Jpeg,
        _ => return None,
    };
    let jpeg = codec == VideoCodec::Jpeg;
    (known == codec).then(|| VideoTrack {
        codec,
        codecs: if jpeg { String::new() } else { parameters.rfc6381_codec().to_owned() },
        width: u16::try_from(width).unwrap_or(u16::MAX),
        height: u16::try_from(height).unwrap_or(u16::MAX),
        config: if jpeg { Data::default() } else { parameters.extra_data().into() },
    })
}

fn parameters(codec: VideoCodec, stream: Option<&Stream>) -> Option<VideoTrack> {
    match stream?.parameters()? {
        ParametersRef::Video(parameters) => video_track(codec, parameters),
        _ => None,
    }
}

impl Encoded {
    /// `video`: which of the streams, where pictures come too.
    pub fn new(audio: AudioTrack, video: Option<(usize, VideoCodec)>, streams: &[Stream]) -> Self {
        let pictures = video.map(|(index, codec)| Pictures {
            index,
            codec,
            track: parameters(codec, streams.get(index)),
            clock: TrackClock::new(),
        });
        Self { audio, clock: TrackClock::new(), pictures, no_video: None }
    }

    /// Pictures come too.
    pub fn has_video(&self) -> bool {
        self.pictures.is_some()
    }

    /// What there is.
    pub fn tracks(&self) -> Tracks {
        Tracks {
            audio: Some(self.audio.clone()),
            video: self.pictures.as_ref().and_then(|p| p.track.clone()),
            no_video: self.no_video.clone(),
        }
    }

    /// The packet of a frame that arrived at `now_us`.
    pub fn audio(&mut self, frame: &AudioFrame, now_us: i64) -> Packet {
        let data = frame.data();
        let channels = u32::from(self.audio.channels.max(1));
        let samples = match self.audio.codec {
            AudioCodec::Aac => frame.frame_length().get(),
            AudioCodec::S16le => data.len() as u32 / 2 / channels,
            AudioCodec::Ulaw | AudioCodec::Alaw => data.len() as u32 / channels,
        };
        let (timestamp, rate) = (frame.timestamp(), self.audio.rate.max(1));
        let clock = timestamp.clock_rate().get();
        let length = u64::from(samples) * u64::from(clock) / u64::from(rate);
        let time_us = self.clock.time(timestamp.timestamp(), length as u32, clock, now_us);
        let duration_us = u64::from(samples) * 1_000_000 / u64::from(rate);
        let data = match self.audio.codec {
            // RTP has them the other way round.
            AudioCodec::S16le => data.chunks_exact(2).flat_map(|b| [b[1], b[0]]).collect::<Vec<u8>>().into(),
            _ => data.into(),
        };
        Packet { kind: Kind::Audio, time_us, duration_us: duration_us as u32, key: true, data }
    }

    /// Looks at what a picture says of all that follow; true where that is something else than before.
    pub fn note(&mut self, frame: &VideoFrame, streams: &[Stream]) -> bool {
        let Some(pictures) = self.pictures.as_mut().filter(|p| p.index == frame.stream_id()) else {
            return false;
        };
        if !frame.has_new_parameters() && pictures.track.is_some() {
            return false;
        }
        let track = parameters(pictures.codec, streams.get(pictures.index));
        let other = track.is_some() && pictures.track != track;
        pictures.track = track.or(pictures.track.take());
        other
    }

    /// The packet of a picture that arrived at `now_us`, and whether the tracks are others before it. `None` where it
    /// cannot be decoded, for want of what is to be known of it.
    pub fn video(&mut self, frame: VideoFrame, streams: &[Stream], now_us: i64) -> Option<(bool, Packet)> {
        let other = self.note(&frame, streams);
        let pictures = self.pictures.as_mut().filter(|p| p.index == frame.stream_id())?;
        pictures.track.as_ref()?;
        let timestamp = frame.timestamp();
        let time_us = pictures.clock.time(timestamp.timestamp(), 0, timestamp.clock_rate().get(), now_us);
        let key = frame.is_random_access_point() || pictures.codec == VideoCodec::Jpeg;
        let data = frame.into_data().into();
        Some((other, Packet { kind: Kind::Video, time_us, duration_us: 0, key, data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_the_tracks_own_timestamps() {
        let mut clock = TrackClock::new();
        // Pictures of 25 a second, that arrive when they like.
        let times: Vec<i64> = [0, 30_000, -10_000, 5_000]
            .into_iter()
            .zip(0..)
            .map(|(late, n)| clock.time(1_000_000 + n * 3_600, 0, 90_000, 9_000_000 + n * 40_000 + late))
            .collect();
        assert_eq!(times, [9_000_000, 9_040_000, 9_080_000, 9_120_000]);
    }

    #[test]
    fn timestamps_that_jump_or_make_no_sense_give_the_time_of_arrival() {
        for jump in [i64::MAX, i64::MIN, -900_000, 90_000_000_000] {
            let mut clock = TrackClock::new();
            clock.time(0, 0, 90_000, 1_000_000_000);
            let time = clock.time(jump, 0, 90_000, 1_010_000_000);
            assert!((time - 1_010_000_000).abs() <= 10_000_000, "{jump}: {time}");
        }
        assert_eq!(TrackClock::new().time(5, 0, 0, 7), 7);
    }
}
