//! FLAC (RFC 9639) without prediction: samples as they are, in frames. MP4 has no place for G.711 or plain samples that
//! browsers would look at, but one for this, and nothing is lost on the way. It is as large as the samples, which beside
//! pictures is little.

use nursery_shared::media::AudioCodec;

use crate::media::g711;

/// Samples of each channel in a frame; the last frame of a stream may have fewer.
pub const BLOCK: u16 = 1024;
/// Bits of a sample.
pub const BITS: u8 = 16;

/// Linear samples of what a camera sent; an incomplete one at the end is left out. AAC gives nothing.
pub fn samples(codec: AudioCodec, data: &[u8]) -> Vec<i16> {
    match codec {
        AudioCodec::Ulaw => data.iter().map(|b| g711::ulaw(*b)).collect(),
        AudioCodec::Alaw => data.iter().map(|b| g711::alaw(*b)).collect(),
        AudioCodec::S16le => data.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect(),
        AudioCodec::Aac => Vec::new(),
    }
}

/// One frame of interleaved samples: at the most [`BLOCK`] of each of 1 to 8 channels. `number`: which frame of the stream
/// it is; `None` where there is nothing to be written, or too much.
pub fn frame(number: u32, channels: u8, interleaved: &[i16]) -> Option<Vec<u8>> {
    let width = usize::from(channels);
    if !(1..=8).contains(&channels) || interleaved.is_empty() || !interleaved.len().is_multiple_of(width) {
        return None;
    }
    let length = u16::try_from(interleaved.len() / width).ok().filter(|n| *n <= BLOCK)?;
    let mut bytes = Vec::with_capacity(interleaved.len() * 2 + width + 16);
    // Sync code, blocks of one size; size of the block at the end of the header, rate as in the stream's description.
    bytes.extend_from_slice(&[0xff, 0xf8, 0x70]);
    // Channels one by one, 16 bits.
    bytes.push((channels - 1) << 4 | 0b1000);
    put_number(number & 0x7fff_ffff, &mut bytes);
    bytes.extend_from_slice(&(length - 1).to_be_bytes());
    bytes.push(crc8(&bytes));
    for channel in 0..width {
        // Samples as they are, no bits left out.
        bytes.push(0b10);
        let own = interleaved.iter().skip(channel).step_by(width);
        own.for_each(|sample| bytes.extend_from_slice(&sample.to_be_bytes()));
    }
    let check = crc16(&bytes);
    bytes.extend_from_slice(&check.to_be_bytes());
    Some(bytes)
}

/// As UTF-8 would write a character of that number, up to 31 bits.
fn put_number(number: u32, bytes: &mut Vec<u8>) {
    let more = match number {
        0..0x80 => return bytes.push(number as u8),
        0x80..0x800 => 1,
        0x800..0x1_0000 => 2,
        0x1_0000..0x20_0000 => 3,
        0x20_0000..0x400_0000 => 4,
        _ => 5,
    };
    // As many ones as there are bytes.
    bytes.push((0xff00u16 >> (more + 1)) as u8 | (number >> (6 * more)) as u8);
    for n in (0..more).rev() {
        bytes.push(0x80 | (number >> (6 * n)) as u8 & 0x3f);
    }
}

/// x^8 + x^2 + x + 1.
fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 != 0 { crc << 1 ^ 0x07 } else { crc << 1 })
    })
}

/// x^16 + x^15 + x^2 + 1.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ u16::from(*byte) << 8,
            |crc, _| {
                if crc & 0x8000 != 0 { crc << 1 ^ 0x8005 } else { crc << 1 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::media::decode::Recording;

    /// A file of such frames.
    fn stream(rate: u32, channels: u8, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"fLaC\x80\0\0\x22".to_vec();
        bytes.extend_from_slice(&BLOCK.to_be_bytes());
        bytes.extend_from_slice(&BLOCK.to_be_bytes());
        bytes.extend_from_slice(&[0; 6]);
        let packed = u64::from(rate) << 44 | u64::from(channels - 1) << 41 | u64::from(BITS - 1) << 36;
        bytes.extend_from_slice(&packed.to_be_bytes());
        bytes.extend_from_slice(&[0; 16]);
        frames.iter().for_each(|f| bytes.extend_from_slice(f));
        bytes
    }

    #[test]
    fn a_decoder_finds_what_was_written() {
        // More frames than one byte numbers.
        let wave = |n: usize| ((n as f32 * 0.05).sin() * 12_000.0) as i16;
        let samples: Vec<i16> = (0..BLOCK as usize * 200 + 77).map(wave).collect();
        let frames: Vec<Vec<u8>> = samples
            .chunks(BLOCK.into())
            .enumerate()
            .map(|(n, chunk)| frame(n as u32, 1, chunk).unwrap())
            .collect();
        let file = stream(16_000, 1, &frames);
        let mut decoded: Vec<f32> = Vec::new();
        let mut recording = Recording::from_bytes(file).unwrap();
        while recording.read(&mut decoded).unwrap() {}
        assert_eq!(decoded.len(), samples.len());
        assert!(decoded.iter().zip(&samples).all(|(d, s)| (d * 32_768.0 - f32::from(*s)).abs() < 0.5));
    }

    #[test]
    fn numbers_are_written_as_characters_are() {
        for number in [0, 0x7f, 0x80, 0x7ff, 0x800, 0xffff, 0x1_0000, 0x10_ffff] {
            let (mut bytes, mut text) = (Vec::new(), [0; 4]);
            let Some(character) = char::from_u32(number) else { continue };
            put_number(number, &mut bytes);
            assert_eq!(bytes, character.encode_utf8(&mut text).as_bytes(), "{number:x}");
        }
        let mut bytes = Vec::new();
        put_number(0x7fff_ffff, &mut bytes);
        assert_eq!(bytes, [0xfd, 0xbf, 0xbf, 0xbf, 0xbf, 0xbf]);
    }

    #[test]
    fn what_does_not_fit_a_frame_is_none() {
        assert!(frame(0, 1, &[]).is_none());
        assert!(frame(0, 0, &[1]).is_none());
        assert!(frame(0, 2, &[1, 2, 3]).is_none());
        assert!(frame(0, 1, &[0; BLOCK as usize + 1]).is_none());
    }
}
