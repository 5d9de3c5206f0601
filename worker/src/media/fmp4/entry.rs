//! Sample entries: how a track is encoded, from what the camera says of it, checked.

use mp4_atom::{
    Atom, Audio, Avc1, Avc3, Avcc, Codec, Dfla, Flac, FlacMetadataBlock, Hev1, Hvc1, Hvcc, Mp4a, Visual,
    esds::{DecoderConfig, DecoderSpecific, EsDescriptor, Esds, SLConfig},
};
use nursery_shared::media::{VideoCodec, VideoTrack};

use super::{MuxError, Sound, SoundCodec};
use crate::media::guarded;

/// Longest configuration of a decoder, bytes.
const MAX_CONFIG: usize = 8 << 10;
/// Samples per second, at the least and at the most.
const RATES: std::ops::RangeInclusive<u32> = 1000..=192_000;
/// Of AAC in an elementary stream descriptor (ISO/IEC 14496-1): MPEG-4 audio, an audio stream.
const MPEG4_AUDIO: u8 = 0x40;
const AUDIO_STREAM: u8 = 5;

pub fn of_pictures(video: &VideoTrack) -> Result<Codec, MuxError> {
    let broken = |why: String| MuxError(format!("configuration of the pictures: {why}"));
    if video.width == 0 || video.height == 0 {
        return Err(broken(format!("{}x{} pixels", video.width, video.height)));
    }
    let visual =
        Visual { data_reference_index: 1, width: video.width, height: video.height, ..Visual::default() };
    // Parameter sets may come within the stream, too, where the name says so.
    let within = ["avc3", "hev1"].iter().any(|name| video.codecs.starts_with(name));
    match video.codec {
        VideoCodec::H264 => {
            let avcc: Avcc = read(&video.config).map_err(broken)?;
            if avcc.length_size != 4 {
                return Err(broken(format!("lengths of {} bytes instead of 4", avcc.length_size)));
            }
            let whole = !avcc.sequence_parameter_sets.is_empty() && !avcc.picture_parameter_sets.is_empty();
            if !(whole || within) {
                return Err(broken("no parameter sets".into()));
            }
            Ok(match within {
                true => Avc3 { visual, avcc, ..Avc3::default() }.into(),
                false => Avc1 { visual, avcc, ..Avc1::default() }.into(),
            })
        }
        VideoCodec::H265 => {
            let hvcc: Hvcc = read(&video.config).map_err(broken)?;
            if (hvcc.configuration_version, hvcc.length_size_minus_one) != (1, 3) {
                return Err(broken("an unknown version, or lengths of other than 4 bytes".into()));
            }
            if hvcc.arrays.is_empty() && !within {
                return Err(broken("no parameter sets".into()));
            }
            Ok(match within {
                true => Hev1 { visual, hvcc, ..Hev1::default() }.into(),
                false => Hvc1 { visual, hvcc, ..Hvc1::default() }.into(),
            })
        }
        VideoCodec::Jpeg => Err(broken("JPEG pictures are not kept in MP4".into())),
    }
}

/// Reads the content of a box, all of it.
fn read<T: Atom>(config: &[u8]) -> Result<T, String> {
    if config.len() > MAX_CONFIG {
        return Err(format!("{} bytes, at most {MAX_CONFIG} are read", config.len()));
    }
    let mut rest = config;
    let found = guarded(|| T::decode_body(&mut rest)).ok_or("cannot be read")?;
    let found = found.map_err(|e| e.to_string())?;
    if !rest.is_empty() {
        return Err(format!("{} bytes too many", rest.len()));
    }
    Ok(found)
}

pub fn of_sound(sound: &Sound) -> Result<Codec, MuxError> {
    let broken = |why: String| MuxError(format!("configuration of the sound: {why}"));
    if !RATES.contains(&sound.rate) || !(1..=8).contains(&sound.channels) {
        return Err(broken(format!("{} Hz, {} channels", sound.rate, sound.channels)));
    }
    let mut audio = Audio {
        data_reference_index: 1,
        channel_count: sound.channels.into(),
        sample_size: 16,
        // A rate that does not fit is in the decoder's configuration alone.
        sample_rate: u16::try_from(sound.rate).unwrap_or(0).into(),
    };
    match &sound.codec {
        SoundCodec::Aac { config } => {
            if !(2..=64).contains(&config.len()) {
                return Err(broken(format!("an AudioSpecificConfig of {} bytes", config.len())));
            }
            let specific = DecoderSpecific { raw: config.to_vec(), ..DecoderSpecific::default() };
            let dec_config = DecoderConfig {
                object_type_indication: MPEG4_AUDIO,
                stream_type: AUDIO_STREAM,
                dec_specific: Some(specific),
                ..DecoderConfig::default()
            };
            let es_desc = EsDescriptor { dec_config, sl_config: SLConfig {}, ..EsDescriptor::default() };
            Ok(Mp4a { audio, esds: Esds { es_desc }, btrt: None, taic: None }.into())
        }
        SoundCodec::Flac { block, bits } => {
            if *block < 16 || !matches!(bits, 8 | 16 | 24) {
                return Err(broken(format!("FLAC of {block} samples in a block, {bits} bits")));
            }
            audio.sample_size = (*bits).into();
            let info = FlacMetadataBlock::StreamInfo {
                minimum_block_size: *block,
                maximum_block_size: *block,
                // Unknown, as are the number of samples and their checksum while a stream goes on.
                minimum_frame_size: [0; 3].into(),
                maximum_frame_size: [0; 3].into(),
                sample_rate: sound.rate,
                num_channels_minus_one: sound.channels - 1,
                bits_per_sample_minus_one: bits - 1,
                number_of_interchannel_samples: 0,
                md5_checksum: vec![0; 16],
            };
            Ok(Flac { audio, dfla: Dfla { blocks: vec![info] } }.into())
        }
    }
}

/// Media type of pictures in MP4, with the `codecs` parameter of RFC 6381; `None` where there is none.
pub fn mime_of_video(video: &VideoTrack) -> Option<String> {
    let sound = !video.codecs.is_empty()
        && video.codecs.len() <= 64
        && video.codecs.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    (sound && video.codec != VideoCodec::Jpeg).then(|| format!("video/mp4; codecs=\"{}\"", video.codecs))
}

/// Media type of sound in MP4.
pub fn mime_of_sound(sound: &Sound) -> String {
    match &sound.codec {
        SoundCodec::Aac { config } => {
            let mut kind = config.first().map_or(2, |b| b >> 3);
            if kind == 31 {
                // Further ones are named in six more bits.
                kind = 32 + ((config[0] & 7) << 3 | config.get(1).map_or(0, |b| b >> 5));
            }
            format!("audio/mp4; codecs=\"mp4a.40.{kind}\"")
        }
        SoundCodec::Flac { .. } => "audio/mp4; codecs=\"flac\"".into(),
    }
}
