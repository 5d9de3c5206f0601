//! Frames of an RTSP audio track to 16 kHz mono: PCMU, PCMA, L16 and AAC-LC. For AAC there are two decoders: one that
//! makes no more than is listened to, and one for all that the first does not know.

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

use crate::{
    capture::aac,
    media::{g711, guarded, mono::ToMono, resample::check_rate},
};

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
    /// Samples of silence before the last frame.
    filled: usize,
}

enum Codec {
    Ulaw,
    Alaw,
    L16,
    /// What nearly all cameras send that send AAC.
    MonoAac(Box<MonoAac>),
    /// All other kinds.
    Aac(Box<dyn Decoder>),
}

/// A decoder that makes one channel of both.
struct MonoAac {
    decoder: aac::Decoder,
    /// AudioSpecificConfig, for another decoder, should it be needed.
    config: Box<[u8]>,
    /// Frames in a row, up to now, that hold something it does not know.
    unknown: u32,
}

/// So many such frames are no broken ones: another decoder is to see to them.
const MOST_UNKNOWN: u32 = 3;

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
        let mut mono = ToMono::default();
        let codec = match track.encoding {
            "pcmu" => Codec::Ulaw,
            "pcma" => Codec::Alaw,
            "l16" => Codec::L16,
            "mpeg4-generic" => {
                let config = track.aac.ok_or("its AAC audio is of a kind that is not supported")?;
                match aac::Decoder::new(config) {
                    Some(decoder) => {
                        mono = ToMono::band_limited(decoder.offset());
                        Codec::MonoAac(Box::new(MonoAac { decoder, config: config.into(), unknown: 0 }))
                    }
                    None => Codec::Aac(any_aac(config, rate, channels)?),
                }
            }
            other => return Err(format!("its audio is {}, which is not supported", name(other))),
        };
        Ok(Self { codec, rate, channels, mono, interleaved: Vec::new(), expected: None, filled: 0 })
    }

    /// What it decodes, as it stands now. `config`: AudioSpecificConfig, where it is AAC.
    pub fn track(&self, config: &[u8]) -> AudioTrack {
        let codec = match self.codec {
            Codec::Ulaw => AudioCodec::Ulaw,
            Codec::Alaw => AudioCodec::Alaw,
            Codec::L16 => AudioCodec::S16le,
            Codec::MonoAac(_) | Codec::Aac(_) => AudioCodec::Aac,
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
            Codec::MonoAac(_) | Codec::Aac(_) => "AAC",
        };
        format!("{codec} {} Hz, {} channel(s)", self.rate, self.channels)
    }

    /// Packets are all of one size.
    pub fn is_constant(&self) -> bool {
        !matches!(self.codec, Codec::MonoAac(_) | Codec::Aac(_))
    }

    /// Bytes of the connection beside those of a frame: the headers of interleaving and RTP, or as much of them as there
    /// is at least where several frames share a packet.
    pub fn overhead(&self) -> usize {
        if self.is_constant() { 16 } else { 8 }
    }

    /// Appends the frame's audio to `out`, silence for lost packets before it. Fails only where the track
    /// cannot be used at all.
    pub fn decode(&mut self, piece: &Piece<'_>, out: &mut Vec<f32>) -> Result<Decoded, String> {
        let before = out.len();
        let after_short_packet = self.fill_gap(piece, out)?;
        self.filled = out.len() - before;
        self.interleaved.clear();
        let data = piece.data;
        let (mut channels, mut rate) = (self.channels, self.rate);
        if let Codec::MonoAac(mono) = &mut self.codec {
            (channels, rate) = (1, mono.decoder.rate());
            match mono.decoder.decode(data, &mut self.interleaved) {
                Ok(()) => mono.unknown = 0,
                Err(aac::Failure::Corrupt(what)) => return Ok(Decoded::Corrupt(format!("AAC: {what}"))),
                Err(aac::Failure::Unknown(what)) if mono.unknown + 1 < MOST_UNKNOWN => {
                    mono.unknown += 1;
                    return Ok(Decoded::Corrupt(format!("AAC: {what}")));
                }
                Err(aac::Failure::Unknown(what)) => {
                    tracing::debug!("its AAC has {what}: decoding all of it from now on");
                    (channels, rate) = (self.channels, self.rate);
                    self.codec = Codec::Aac(any_aac(&mono.config, rate, channels)?);
                    self.mono.finish(out)?;
                    self.mono = ToMono::default();
                }
            }
        }
        match &mut self.codec {
            Codec::Ulaw => self.interleaved.extend(data.iter().map(|&b| f32::from(g711::ulaw(b)) / 32_768.0)),
            Codec::Alaw => self.interleaved.extend(data.iter().map(|&b| f32::from(g711::alaw(b)) / 32_768.0)),
            Codec::L16 => self
                .interleaved
                .extend(data.chunks_exact(2).map(|b| f32::from(i16::from_be_bytes([b[0], b[1]])) / 32_768.0)),
            // It is decoded already.
            Codec::MonoAac(_) => {}
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
                        (channels, rate) = (self.channels, self.rate);
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
        self.mono.push(&self.interleaved, channels, rate, out)?;
        Ok(if after_short_packet { Decoded::AudioAfterShortPacket } else { Decoded::Audio })
    }

    /// How many of the samples that the last frame was appended as are silence in place of what is missing before it.
    pub fn filled(&self) -> usize {
        self.filled
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
        let rate = match &self.codec {
            Codec::MonoAac(mono) => mono.decoder.rate(),
            _ => self.rate,
        };
        let frames = gap as u64 * u64::from(rate) / u64::from(clock.get());
        let silence = vec![0.0; frames as usize];
        self.mono.push(&silence, 1, rate, out)?;
        // Timestamps of codecs with long frames are often rounded; only raw samples are exact.
        let exact = self.is_constant();
        Ok(exact && piece.lost == 0 && gap * 1000 <= LONGEST_BROKEN_MS * i64::from(clock.get()))
    }

    /// Length of a frame in units of its clock.
    fn duration(&self, piece: &Piece<'_>) -> i64 {
        let samples = match self.codec {
            Codec::MonoAac(_) | Codec::Aac(_) => u64::from(piece.length.get()),
            Codec::L16 => piece.data.len() as u64 / 2 / self.channels.max(1) as u64,
            Codec::Ulaw | Codec::Alaw => piece.data.len() as u64 / self.channels.max(1) as u64,
        };
        (samples * u64::from(piece.clock.get()) / u64::from(self.rate.max(1))) as i64
    }
}

fn any_aac(config: &[u8], rate: u32, channels: usize) -> Result<Box<dyn Decoder>, String> {
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
        // As if something had come before that only this decoder knows.
        let new = || {
            let mut decoder = AudioDecoder::new(&track).unwrap();
            decoder.codec = Codec::Aac(any_aac(&[0x14, 0x08], 16_000, 1).unwrap());
            decoder.mono = ToMono::default();
            decoder
        };
        let mut decoder = new();
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
                decoder = new();
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
    fn what_the_first_aac_decoder_does_not_know_is_the_others() {
        let track = Track { encoding: "mpeg4-generic", rate: 48_000, channels: 2, aac: Some(&[0x11, 0x90]) };
        let mut decoder = AudioDecoder::new(&track).unwrap();
        assert!(matches!(decoder.codec, Codec::MonoAac(_)));
        let (clock, length) = (NonZeroU32::new(48_000).unwrap(), NonZeroU32::new(1024).unwrap());
        // Silence on two channels; and on a single one, of which there should be none.
        let frames: [&[u8]; 2] =
            [&[0x20, 0x32, 0x00, 0x01, 0x90, 0x00, 0x0e], &[0x00, 0xc8, 0x00, 0x07, 0x00]];
        let mut out = Vec::new();
        for n in 0..10 {
            let data = frames[usize::from(n == 2 || n >= 5)];
            let piece = Piece { data, timestamp: n * 1024, clock, length, lost: 0 };
            decoder.decode(&piece, &mut out).unwrap();
        }
        assert!(matches!(decoder.codec, Codec::Aac(_)));
        // All but three.
        assert!(out.iter().all(|x| *x == 0.0) && out.len().abs_diff(7 * 1024 / 3) < 600, "{}", out.len());
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
            assert_eq!((out.len(), decoder.filled()), (640, 160), "{channels} channels");
        }
    }
}
