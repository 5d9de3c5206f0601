//! Frames of an RTSP audio track to 16 kHz mono: PCMU, PCMA, L16 and AAC-LC.

use std::num::NonZeroU32;

use nursery_shared::media::{AudioCodec, AudioTrack};
use retina::{
    client::Stream,
    codec::{AudioFrame, ParametersRef},
};
use symphonia::core::{
    audio::{Channels, SampleBuffer},
    codecs::{CODEC_TYPE_AAC, CodecParameters, Decoder, DecoderOptions},
    errors::Error,
    formats::Packet,
};

use crate::media::{g711, guarded, mono::ToMono, resample::check_rate};

/// Longest gap that is filled with silence so that what follows keeps its place in time.
const LONGEST_GAP_S: u32 = 1;

/// More channels than any camera has. A description may claim 65,535, and a second of silence of so many would take
/// gigabytes.
const MAX_CHANNELS: usize = 16;

/// Decoder of one track.
pub struct AudioDecoder {
    codec: Codec,
    rate: u32,
    channels: usize,
    mono: ToMono,
    interleaved: Vec<f32>,
    /// Where the next frame's timestamp should be.
    expected: Option<i64>,
}

enum Codec {
    Ulaw,
    Alaw,
    L16,
    Aac(Box<dyn Decoder>),
}

/// Longest gap without a lost packet that is put down to a broken packet; longer ones are cameras that send nothing
/// while it is quiet.
const LONGEST_BROKEN_MS: i64 = 100;

/// What became of a frame.
pub enum Decoded {
    Audio,
    /// Audio, but the packet before it held less than its time.
    AudioAfterShortPacket,
    /// It cannot be decoded, for this reason.
    Corrupt(String),
}

/// What a server says about a track.
pub struct Track<'a> {
    /// Name of the encoding in lower case.
    pub encoding: &'a str,
    /// Samples per second.
    pub rate: u32,
    pub channels: usize,
    /// AudioSpecificConfig, where the encoding is AAC and has one that can be read.
    pub aac: Option<&'a [u8]>,
}

impl<'a> From<&'a Stream> for Track<'a> {
    fn from(stream: &'a Stream) -> Self {
        let encoding = stream.encoding_name();
        match stream.parameters() {
            Some(ParametersRef::Audio(parameters)) if encoding == "mpeg4-generic" => Self {
                encoding,
                rate: parameters.clock_rate(),
                channels: usize::from(parameters.channels().get()),
                aac: Some(parameters.extra_data()),
            },
            _ => Self {
                encoding,
                rate: stream.clock_rate_hz(),
                channels: stream.channels().map_or(1, |c| usize::from(c.get())),
                aac: None,
            },
        }
    }
}

/// The encoded audio of one frame.
pub struct Piece<'a> {
    pub data: &'a [u8],
    /// Time of its first sample, in units of `clock` per second.
    pub timestamp: i64,
    pub clock: NonZeroU32,
    /// Its length in samples, as far as the codec has frames.
    pub length: NonZeroU32,
    /// Packets lost before it.
    pub lost: u16,
}

impl<'a> From<&'a AudioFrame> for Piece<'a> {
    fn from(frame: &'a AudioFrame) -> Self {
        let timestamp = frame.timestamp();
        Self {
            data: frame.data(),
            timestamp: timestamp.timestamp(),
            clock: timestamp.clock_rate(),
            length: frame.frame_length(),
            lost: frame.loss(),
        }
    }
}

impl AudioDecoder {
    /// For a track as the server describes it; the error names the codec that is not supported.
    pub fn new(track: &Track<'_>) -> Result<Self, String> {
        let (rate, channels) = (track.rate, track.channels);
        if channels > MAX_CHANNELS {
            return Err(format!(
                "its audio has {channels} channels, of which at most {MAX_CHANNELS} are supported"
            ));
        }
        // Silence for lost packets is made by the rate that the description claims.
        check_rate(rate).map_err(|e| format!("its audio cannot be used: {e}"))?;
        let codec = match track.encoding {
            "pcmu" => Codec::Ulaw,
            "pcma" => Codec::Alaw,
            "l16" => Codec::L16,
            "mpeg4-generic" => {
                let config = track.aac.ok_or("its AAC audio is of a kind that is not supported")?;
                Codec::Aac(aac(config, rate, channels)?)
            }
            other => return Err(format!("its audio is {}, which is not supported", name(other))),
        };
        Ok(Self { codec, rate, channels, mono: ToMono::default(), interleaved: Vec::new(), expected: None })
    }

    /// What it decodes, as it stands now. `config`: AudioSpecificConfig, where it is AAC.
    pub fn track(&self, config: &[u8]) -> AudioTrack {
        let codec = match self.codec {
            Codec::Ulaw => AudioCodec::Ulaw,
            Codec::Alaw => AudioCodec::Alaw,
            Codec::L16 => AudioCodec::S16le,
            Codec::Aac(_) => AudioCodec::Aac,
        };
        // No more than MAX_CHANNELS.
        AudioTrack { codec, rate: self.rate, channels: self.channels as u8, config: config.into() }
    }

    /// Codec, rate and channels, for the log.
    pub fn describe(&self) -> String {
        let codec = match self.codec {
            Codec::Ulaw => "PCMU",
            Codec::Alaw => "PCMA",
            Codec::L16 => "L16",
            Codec::Aac(_) => "AAC",
        };
        format!("{codec} {} Hz, {} channel(s)", self.rate, self.channels)
    }

    /// Appends the frame's audio to `out`, silence for lost packets before it. Fails only where the track
    /// cannot be used at all.
    pub fn decode(&mut self, piece: &Piece<'_>, out: &mut Vec<f32>) -> Result<Decoded, String> {
        let after_short_packet = self.fill_gap(piece, out)?;
        self.interleaved.clear();
        let data = piece.data;
        match &mut self.codec {
            Codec::Ulaw => self.interleaved.extend(data.iter().map(|&b| f32::from(g711::ulaw(b)) / 32_768.0)),
            Codec::Alaw => self.interleaved.extend(data.iter().map(|&b| f32::from(g711::alaw(b)) / 32_768.0)),
            Codec::L16 => self
                .interleaved
                .extend(data.chunks_exact(2).map(|b| f32::from(i16::from_be_bytes([b[0], b[1]])) / 32_768.0)),
            Codec::Aac(decoder) => {
                let packet = Packet::new_from_slice(0, 0, 0, data);
                // The decoder knows of its index errors only when they happen. One broken packet is no reason to
                // lose the session.
                let Some(decoded) = guarded(|| decoder.decode(&packet)) else {
                    decoder.reset();
                    return Ok(Decoded::Corrupt("AAC: the decoder gave up on a packet".into()));
                };
                match decoded {
                    Ok(decoded) => {
                        let spec = *decoded.spec();
                        // Decoders that find out more about the stream than its description says.
                        (self.rate, self.channels) = (spec.rate, spec.channels.count());
                        let mut buffer = SampleBuffer::<f32>::new(decoded.capacity() as u64, spec);
                        buffer.copy_interleaved_ref(decoded);
                        self.interleaved.extend_from_slice(buffer.samples());
                    }
                    Err(Error::DecodeError(what)) => return Ok(Decoded::Corrupt(format!("AAC: {what}"))),
                    Err(Error::Unsupported(what)) => {
                        return Err(format!("its AAC audio is of a kind that is not supported ({what})"));
                    }
                    Err(e) => return Ok(Decoded::Corrupt(format!("AAC: {e}"))),
                }
            }
        }
        self.mono.push(&self.interleaved, self.channels, self.rate, out)?;
        Ok(if after_short_packet { Decoded::AudioAfterShortPacket } else { Decoded::Audio })
    }

    /// Fills the time between the last frame and this one; true where that is too little for a pause, and no
    /// packet was lost.
    fn fill_gap(&mut self, piece: &Piece<'_>, out: &mut Vec<f32>) -> Result<bool, String> {
        let (clock, now) = (piece.clock, piece.timestamp);
        let expected = self.expected.replace(now.saturating_add(self.duration(piece)));
        let Some(expected) = expected else { return Ok(false) };
        let gap = now.saturating_sub(expected);
        if gap <= 0 || gap > i64::from(LONGEST_GAP_S) * i64::from(clock.get()) {
            return Ok(false);
        }
        let frames = gap as u64 * u64::from(self.rate) / u64::from(clock.get());
        let silence = vec![0.0; frames as usize];
        self.mono.push(&silence, 1, self.rate, out)?;
        // Timestamps of codecs with long frames are often rounded; only raw samples are exact.
        let exact = !matches!(self.codec, Codec::Aac(_));
        Ok(exact && piece.lost == 0 && gap * 1000 <= LONGEST_BROKEN_MS * i64::from(clock.get()))
    }

    /// Length of a frame in units of its clock.
    fn duration(&self, piece: &Piece<'_>) -> i64 {
        let samples = match self.codec {
            Codec::Aac(_) => u64::from(piece.length.get()),
            Codec::L16 => piece.data.len() as u64 / 2 / self.channels.max(1) as u64,
            Codec::Ulaw | Codec::Alaw => piece.data.len() as u64 / self.channels.max(1) as u64,
        };
        (samples * u64::from(piece.clock.get()) / u64::from(self.rate.max(1))) as i64
    }
}

fn aac(config: &[u8], rate: u32, channels: usize) -> Result<Box<dyn Decoder>, String> {
    let mut parameters = CodecParameters::new();
    parameters.for_codec(CODEC_TYPE_AAC).with_sample_rate(rate).with_extra_data(config.into());
    let layout = match channels {
        1 => Channels::FRONT_CENTRE,
        _ => Channels::FRONT_LEFT | Channels::FRONT_RIGHT,
    };
    parameters.with_channels(layout);
    symphonia::default::get_codecs()
        .make(&parameters, &DecoderOptions::default())
        .map_err(|e| format!("its AAC audio is of a kind that is not supported ({e})"))
}

/// How people call an encoding.
fn name(encoding: &str) -> String {
    match encoding {
        "g722" => "G.722".into(),
        "g723" => "G.723".into(),
        "g729" => "G.729".into(),
        "opus" => "Opus".into(),
        "mp4a-latm" => "AAC in LATM packets (MP4A-LATM)".into(),
        "mpa" => "MPEG audio".into(),
        other => match other.strip_prefix("g726-") {
            Some(kbit) => format!("G.726 at {kbit} kbit/s"),
            // What a server sends may hold anything.
            None => other.chars().filter(char::is_ascii_graphic).take(40).collect::<String>().to_uppercase(),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn track(encoding: &str, rate: u32, channels: usize) -> Track<'_> {
        Track { encoding, rate, channels, aac: None }
    }

    #[test]
    fn a_track_of_more_channels_than_any_camera_has_is_refused() {
        for channels in [17, 65_535] {
            let error = AudioDecoder::new(&track("l16", 48_000, channels)).err().unwrap();
            assert!(error.contains("channels"), "{error}");
        }
        assert!(AudioDecoder::new(&track("l16", 48_000, 16)).is_ok());
    }

    #[test]
    fn a_track_of_a_rate_that_no_camera_has_is_refused() {
        for rate in [0, 3_999, 768_001, u32::MAX] {
            let error = AudioDecoder::new(&track("l16", rate, 1)).err().unwrap();
            assert!(error.contains("sample rate"), "{error}");
        }
    }

    #[test]
    fn a_packet_that_the_aac_decoder_cannot_bear_is_counted_and_the_next_is_decoded() {
        let track = Track { encoding: "mpeg4-generic", rate: 16_000, channels: 1, aac: Some(&[0x14, 0x08]) };
        let mut decoder = AudioDecoder::new(&track).unwrap();
        let (clock, length) = (NonZeroU32::new(16_000).unwrap(), NonZeroU32::new(1024).unwrap());
        let mut random = fastrand::Rng::with_seed(1);
        let (mut given_up, mut timestamp) = (0, 0);
        for _ in 0..20_000 {
            let mut data: Vec<u8> = (0..random.usize(8..200)).map(|_| random.u8(..)).collect();
            // A single channel element, with eight short windows every other time.
            data[0] &= 0x1f;
            data[1] = (data[1] & 0x0f) | (0x20 * (data[2] & 2));
            let mut out = Vec::new();
            let piece = Piece { data: &data, timestamp, clock, length, lost: 0 };
            let Ok(decoded) = decoder.decode(&piece, &mut out) else {
                // It took the packet for one of a kind that it does not know.
                decoder = AudioDecoder::new(&track).unwrap();
                continue;
            };
            match decoded {
                Decoded::Corrupt(what) => given_up += u32::from(what.contains("gave up")),
                _ => assert!(out.iter().all(|x| x.is_finite())),
            }
            timestamp += 1024;
        }
        assert!(given_up > 0, "the decoder has no such packets any more: take the guard out");
    }

    #[test]
    fn lost_packets_become_as_much_silence_whatever_the_channels() {
        for channels in [1, 2, 16] {
            let mut decoder = AudioDecoder::new(&track("l16", 16_000, channels)).unwrap();
            let data = vec![0; 160 * 2 * channels];
            let (clock, length) = (NonZeroU32::new(16_000).unwrap(), NonZeroU32::MIN);
            let mut out = Vec::new();
            for timestamp in [0, 160, 480] {
                let lost = u16::from(timestamp == 480);
                decoder.decode(&Piece { data: &data, timestamp, clock, length, lost }, &mut out).unwrap();
            }
            assert_eq!(out.len(), 640, "{channels} channels");
        }
    }
}
