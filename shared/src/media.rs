//! Encoded media on its way from a capture process to who wants it, without passing through the supervisor: over a
//! stream socket of its own, that the supervisor makes and gives an end of to each. The capture process tells what there
//! is ([`FromCapture`]), the other what it needs of it ([`ToCapture`]), in the same frames as everything else. Who has
//! had enough closes its end.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Largest frame of [`FromCapture`]: a key frame of a large picture fits.
pub const MAX_MEDIA: usize = 4 << 20;
/// Largest frame of [`ToCapture`].
pub const MAX_WISH: usize = 64;

/// Bytes that are shared, and travel as bytes.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Data(Arc<[u8]>);

impl From<&[u8]> for Data {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl std::ops::Deref for Data {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Data({} bytes)", self.0.len())
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Data;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Data, E> {
                Ok(bytes.into())
            }
        }
        d.deserialize_bytes(Bytes)
    }
}

/// How pictures are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VideoCodec {
    /// Access units with lengths of four bytes before each NAL unit.
    H264,
    /// The same.
    H265,
    /// A JPEG file each.
    Jpeg,
}

/// What is to be known of a camera's pictures to decode them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoTrack {
    pub codec: VideoCodec,
    /// As in the `codecs` parameter of RFC 6381, such as `avc1.64001F`; empty for JPEG.
    pub codecs: String,
    /// Pixels.
    pub width: u16,
    pub height: u16,
    /// AVCDecoderConfigurationRecord or HEVCDecoderConfigurationRecord; empty for JPEG.
    pub config: Data,
}

/// How sound is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AudioCodec {
    /// Raw AAC-LC frames.
    Aac,
    /// G.711 µ-law, A-law.
    Ulaw,
    Alaw,
    /// Signed 16 bit, little endian, channels interleaved.
    S16le,
}

/// What is to be known of a camera's sound to decode it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioTrack {
    pub codec: AudioCodec,
    /// Samples per second and channel.
    pub rate: u32,
    pub channels: u8,
    /// AudioSpecificConfig; empty for all but AAC.
    pub config: Data,
}

impl AudioTrack {
    /// Its numbers are those of sound: 1 to 192 kHz, at most 8 channels.
    pub fn is_sound(&self) -> bool {
        (1000..=192_000).contains(&self.rate) && (1..=8).contains(&self.channels)
    }
}

/// What a camera sends at present.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tracks {
    pub audio: Option<AudioTrack>,
    pub video: Option<VideoTrack>,
    /// Why there are no pictures although they are wanted; `None` while they are awaited, or there, or not wanted.
    pub no_video: Option<String>,
}

/// Of which track a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Audio,
    Video,
}

/// Encoded media, as the camera sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    pub kind: Kind,
    /// Wall-clock time of its first sample, or of the picture, microseconds since 1970; both tracks of a camera by the
    /// same clock. Rises within a track, steps aside after another [`FromCapture::Tracks`].
    pub time_us: i64,
    /// How long it lasts; 0 for pictures, which last until the next one.
    pub duration_us: u32,
    /// Decoding may begin here. Always true of audio.
    pub key: bool,
    pub data: Data,
}

/// What a capture process says. [`FromCapture::Tracks`] comes first, and again whenever something about them changes;
/// what follows needs decoding from the beginning then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromCapture {
    Tracks(Tracks),
    Packet(Packet),
}

/// What it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToCapture {
    /// Pictures are wanted beside the sound, or no longer. Not wanted before it is said.
    Want { video: bool },
}

/// A file of a clip, as it was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClipReport {
    /// Wall-clock time of its first and after its last sample, microseconds since 1970.
    pub from_us: i64,
    pub until_us: i64,
    /// Bytes of the file.
    pub bytes: u64,
    pub video: bool,
    /// Why it is shorter than it was meant to be, one line.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::codec;

    #[test]
    fn packets_come_back_as_they_were_sent() {
        let data = Data::from(vec![7; 100_000]);
        let packet = Packet { kind: Kind::Video, time_us: 1, duration_us: 0, key: true, data };
        let sent = FromCapture::Packet(packet);
        let mut bytes = Vec::new();
        codec::encode_into(&sent, &mut bytes).unwrap();
        assert!(bytes.len() < 100_100);
        assert_eq!(codec::decode::<FromCapture>(&bytes).unwrap(), sent);
        let mut wish = Vec::new();
        codec::encode_into(&ToCapture::Want { video: true }, &mut wish).unwrap();
        assert!(wish.len() <= MAX_WISH);
    }
}
