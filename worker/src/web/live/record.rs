//! Records of a live stream: a u32 (little endian) that counts what follows, a byte that says what it is, an i64 (little
//! endian) of wall-clock time in microseconds since 1970, and the content.

use bytes::{BufMut, Bytes, BytesMut};
use nursery_shared::media::{AudioCodec, Tracks, VideoCodec};
use serde_json::{Value, json};

use crate::media::fmp4::{self, Sound};

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// JSON: what there is to hear and see.
    Tracks = 1,
    /// The beginning of an MP4 of pictures, of sound; its time is where that MP4's time is 0.
    PicturesInit = 2,
    SoundInit = 3,
    /// A fragment of it.
    Pictures = 4,
    Sound = 5,
    /// Sound as the camera sends it, G.711 or signed 16 bit little endian.
    RawSound = 6,
    /// A JPEG file.
    Jpeg = 7,
    /// JSON: something that whoever looks should know.
    Notice = 8,
    /// Nothing: the stream is alive.
    KeepAlive = 9,
}

/// Bytes before the content.
pub const HEAD: usize = 13;

/// Longest text of a reason, in characters.
const TEXT: usize = 500;

/// A whole record.
pub fn record(what: What, time_us: i64, content: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD + content.len());
    // No content is larger than a frame of media and its boxes.
    bytes.put_u32_le(u32::try_from(content.len() + HEAD - 4).unwrap_or(u32::MAX));
    bytes.put_u8(what as u8);
    bytes.put_i64_le(time_us);
    bytes.extend_from_slice(content);
    bytes.freeze()
}

/// The same of JSON, now.
pub fn said(what: What, content: &Value) -> Bytes {
    record(what, nursery_shared::timestamp::now_us(), content.to_string().as_bytes())
}

/// What there is, as JSON. Generations rise whenever a track has to be decoded from the beginning.
pub fn describe(tracks: &Tracks, no_sound: Option<&str>, sound: u64, pictures: u64) -> Value {
    let audio = tracks.audio.as_ref().map(|audio| {
        let codec = match audio.codec {
            AudioCodec::Aac => "aac",
            AudioCodec::Ulaw => "ulaw",
            AudioCodec::Alaw => "alaw",
            AudioCodec::S16le => "s16le",
        };
        let mime = Sound::of(audio).map(|sound| fmp4::mime_of_sound(&sound));
        json!({"codec": codec, "rate": audio.rate, "channels": audio.channels, "mime": mime, "generation": sound})
    });
    let video = tracks.video.as_ref().map(|video| {
        let codec = match video.codec {
            VideoCodec::H264 => "h264",
            VideoCodec::H265 => "h265",
            VideoCodec::Jpeg => "jpeg",
        };
        json!({"codec": codec, "width": video.width, "height": video.height, "mime": fmp4::mime_of_video(video),
            "generation": pictures})
    });
    // Said by another process, and sent to everybody.
    let no_pictures: Option<String> = tracks.no_video.as_ref().map(|why| why.chars().take(TEXT).collect());
    json!({"audio": audio, "video": video, "no_audio": no_sound, "no_video": no_pictures})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_how_long_it_is() {
        let bytes = record(What::Jpeg, -2, b"abc");
        assert_eq!(bytes.as_ref(), b"\x0c\0\0\0\x07\xfe\xff\xff\xff\xff\xff\xff\xffabc");
        assert_eq!(bytes.len(), HEAD + 3);
    }
}
