//! WAVE files of sound as the camera sent it: G.711 stays G.711. The header is written before anything is known of the
//! length; until [`finish`] puts it in, it says that the sound lasts to the end of the file.

use std::{fs::File, io, os::unix::fs::FileExt};

use nursery_shared::media::{AudioCodec, AudioTrack};

/// Lengths that nobody knows yet, as programs write them that write to a pipe.
const UNKNOWN: u32 = u32::MAX;
/// Formats of `fmt `: PCM, A-law, µ-law.
const PCM: u16 = 1;
const ALAW: u16 = 6;
const ULAW: u16 = 7;
/// Where the lengths stand in what [`header`] makes.
const RIFF_SIZE: u64 = 4;
const FRAME: u64 = 32;
const SAMPLES: u64 = 46;
const TIME: usize = 58;
const DATA_SIZE: u64 = 70;
/// Bytes before the sound.
pub const HEADER: usize = 74;
/// Name of the chunk with the time of the first sample: microseconds since 1970, signed, little endian. Programs skip
/// chunks that they do not know.
const TIME_CHUNK: &[u8; 4] = b"nrsy";

/// Bytes of one sample of all channels; `None` for what does not go into such a file.
pub fn frame_bytes(track: &AudioTrack) -> Option<usize> {
    let each = match track.codec {
        AudioCodec::Ulaw | AudioCodec::Alaw => 1,
        AudioCodec::S16le => 2,
        AudioCodec::Aac => return None,
    };
    track.is_sound().then_some(each * usize::from(track.channels))
}

/// A byte of silence, of which any number is silence.
pub fn silence(codec: AudioCodec) -> u8 {
    match codec {
        AudioCodec::Ulaw => 0xff,
        AudioCodec::Alaw => 0xd5,
        AudioCodec::S16le | AudioCodec::Aac => 0,
    }
}

/// Everything before the sound; `from_us`: time of the first sample. `None` for AAC.
pub fn header(track: &AudioTrack, from_us: i64) -> Option<Vec<u8>> {
    let frame = u16::try_from(frame_bytes(track)?).ok()?;
    let (format, bits) = match track.codec {
        AudioCodec::Ulaw => (ULAW, 8u16),
        AudioCodec::Alaw => (ALAW, 8),
        _ => (PCM, 16),
    };
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(b"RIFF");
    bytes.extend_from_slice(&UNKNOWN.to_le_bytes());
    bytes.extend_from_slice(b"WAVEfmt ");
    bytes.extend_from_slice(&18u32.to_le_bytes());
    bytes.extend_from_slice(&format.to_le_bytes());
    bytes.extend_from_slice(&u16::from(track.channels).to_le_bytes());
    bytes.extend_from_slice(&track.rate.to_le_bytes());
    bytes.extend_from_slice(&track.rate.saturating_mul(u32::from(frame)).to_le_bytes());
    bytes.extend_from_slice(&frame.to_le_bytes());
    bytes.extend_from_slice(&bits.to_le_bytes());
    bytes.extend_from_slice(&0u16.to_le_bytes());
    bytes.extend_from_slice(b"fact");
    bytes.extend_from_slice(&4u32.to_le_bytes());
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(TIME_CHUNK);
    bytes.extend_from_slice(&8u32.to_le_bytes());
    bytes.extend_from_slice(&from_us.to_le_bytes());
    bytes.extend_from_slice(b"data");
    bytes.extend_from_slice(&UNKNOWN.to_le_bytes());
    Some(bytes)
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sound {
    /// Time of the first sample, microseconds since 1970.
    pub from_us: i64,
    pub duration_us: i64,
    /// Of the file, when it holds nothing but whole samples.
    pub bytes: u64,
}

/// What a file of this module with so many bytes holds, from its beginning; `None` where there is no sound in it, or it
/// is of another kind.
pub fn look(begin: &[u8], bytes: u64) -> Option<Sound> {
    let begin = begin.get(..HEADER)?;
    let u16_at = |at: usize| u16::from_le_bytes([begin[at], begin[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes([begin[at], begin[at + 1], begin[at + 2], begin[at + 3]]);
    let codec = match (u16_at(20), u16_at(34)) {
        (ULAW, 8) => AudioCodec::Ulaw,
        (ALAW, 8) => AudioCodec::Alaw,
        (PCM, 16) => AudioCodec::S16le,
        _ => return None,
    };
    let channels = u8::try_from(u16_at(22)).ok()?;
    let track = AudioTrack { codec, rate: u32_at(24), channels, config: [][..].into() };
    let frame = frame_bytes(&track)? as u64;
    let mut time = [0; 8];
    time.copy_from_slice(&begin[TIME..TIME + 8]);
    let from_us = i64::from_le_bytes(time);
    // Whatever else stands there, this module would have written it.
    let mut own = header(&track, from_us)?;
    for (at, size) in [(RIFF_SIZE, 4), (SAMPLES, 4), (DATA_SIZE, 4)] {
        let at = at as usize;
        own[at..at + size].copy_from_slice(&begin[at..at + size]);
    }
    let samples = bytes.saturating_sub(HEADER as u64) / frame;
    if own != begin || samples == 0 {
        return None;
    }
    let duration_us = i64::try_from(u128::from(samples) * 1_000_000 / u128::from(track.rate)).ok()?;
    let bytes = HEADER as u64 + samples * frame;
    // Lengths are 32 bits wide.
    (bytes < u64::from(UNKNOWN)).then_some(Sound { from_us, duration_us, bytes })
}

/// Puts the lengths into a file of so many bytes, which [`look`] has found to be one of this module.
///
/// # Errors
/// Those of the file.
pub fn finish(file: &File, bytes: u64) -> io::Result<()> {
    let mut frame = [0; 2];
    file.read_exact_at(&mut frame, FRAME)?;
    let frame = u64::from(u16::from_le_bytes(frame)).max(1);
    let data = bytes.saturating_sub(HEADER as u64);
    let put =
        |value: u64, at: u64| file.write_all_at(&u32::try_from(value).unwrap_or(UNKNOWN).to_le_bytes(), at);
    put(data / frame, SAMPLES)?;
    put(data, DATA_SIZE)?;
    put(bytes.saturating_sub(8), RIFF_SIZE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn track(codec: AudioCodec, rate: u32, channels: u8) -> AudioTrack {
        AudioTrack { codec, rate, channels, config: [][..].into() }
    }

    #[test]
    fn headers_are_as_long_as_they_say_and_fields_are_where_they_are_looked_for() {
        let header = header(&track(AudioCodec::Ulaw, 8_000, 1), 7).unwrap();
        assert_eq!(header.len(), HEADER);
        assert_eq!(&header[38..42], b"fact");
        assert_eq!(&header[DATA_SIZE as usize - 4..DATA_SIZE as usize], b"data");
        assert_eq!(header[TIME..TIME + 8], 7i64.to_le_bytes());
        assert!(super::header(&track(AudioCodec::Aac, 8_000, 1), 7).is_none());
    }

    #[test]
    fn what_is_torn_is_known_by_its_length_and_others_files_are_nothing() {
        let head = header(&track(AudioCodec::S16le, 16_000, 2), -5).unwrap();
        let sound = look(&head, HEADER as u64 + 64_003).unwrap();
        assert_eq!(sound, Sound { from_us: -5, duration_us: 1_000_000, bytes: HEADER as u64 + 64_000 });
        assert_eq!(look(&head, HEADER as u64 + 3), None, "not one sample");
        assert_eq!(look(&head[..HEADER - 1], 1 << 20), None);
        assert_eq!(look(&head, 1 << 33), None, "longer than lengths may be");
        for at in 0..HEADER {
            let mut other = head.clone();
            other[at] ^= 0x80;
            // Times and lengths may be any; the rest is ours or it is not.
            let free = (TIME..TIME + 8).contains(&at)
                || [RIFF_SIZE, SAMPLES, DATA_SIZE]
                    .iter()
                    .any(|f| (*f as usize..*f as usize + 4).contains(&at));
            assert_eq!(look(&other, 1 << 20).is_some(), free, "byte {at}");
        }
    }
}
