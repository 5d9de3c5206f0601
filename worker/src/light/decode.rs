//! One picture out of what a camera sent: key frames of H.264 by OpenH264, JPEG files by zune-jpeg. What is too large is
//! refused by its header.

use nursery_shared::line::one_line;
use nursery_shared::media::{VideoCodec, VideoTrack};
use openh264::{decoder::Decoder, formats::YUVSource};
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use super::frame::{Decoded, Plane};

/// Most pixels of a picture, across or down, and in all: 4096 × 2304.
const LONGEST: usize = 4096;
const MOST_PIXELS: usize = 4096 * 2304;

/// The picture in a packet that a track's decoding may begin with, as `look` sees it.
///
/// # Errors
/// One line: what is wrong with it.
pub fn picture<T>(
    track: &VideoTrack,
    data: &[u8],
    look: impl FnOnce(&Decoded<'_>) -> T,
) -> Result<T, String> {
    match track.codec {
        VideoCodec::H264 => h264(&track.config, data, look),
        VideoCodec::Jpeg => jpeg(data, look),
        VideoCodec::H265 => Err("H.265 is not decoded here: set the camera to H.264".into()),
    }
}

fn check(width: usize, height: usize) -> Result<(), String> {
    if width == 0 || height == 0 || width.max(height) > LONGEST || width * height > MOST_PIXELS {
        return Err(format!("{width} x {height} pixels, at most 4096 x 2304 are decoded"));
    }
    Ok(())
}

/// Makes the library do what it does only once, such as looking at the processor, while it still may.
///
/// # Errors
/// One line: it cannot be used.
pub fn begin() -> Result<(), String> {
    Decoder::new().map(drop).map_err(|e| format!("the decoder for H.264 cannot be used: {e}"))
}

/// A decoder of its own for each picture: between two there is nothing to remember, and memory is its size only then.
fn h264<T>(config: &[u8], data: &[u8], look: impl FnOnce(&Decoded<'_>) -> T) -> Result<T, String> {
    let stream = byte_stream(config, data)?;
    let mut decoder = Decoder::new().map_err(|e| format!("decoder: {e}"))?;
    let failed = |e: openh264::Error| format!("H.264: {e}");
    if let Some(picture) = decoder.decode(&stream).map_err(failed)? {
        return seen(&picture, look);
    }
    let pictures = decoder.flush_remaining().map_err(failed)?;
    pictures.first().map_or_else(|| Err("H.264: no picture in it".into()), |picture| seen(picture, look))
}

fn seen<T>(picture: &impl YUVSource, look: impl FnOnce(&Decoded<'_>) -> T) -> Result<T, String> {
    let ((width, height), strides) = (picture.dimensions(), picture.strides());
    check(width, height)?;
    let half = |bytes, stride| Plane { bytes, stride, width: width.div_ceil(2), height: height.div_ceil(2) };
    Ok(look(&Decoded {
        y: Plane { bytes: picture.y(), stride: strides.0, width, height },
        colours: Some([half(picture.u(), strides.1), half(picture.v(), strides.2)]),
        // Few cameras send all of the range, and say so where nobody looks.
        limited: true,
    }))
}

/// What decoders of H.264 take: start codes before the parameter sets of a track and the units of a picture, instead of
/// lengths. Only what makes up the picture is in it.
fn byte_stream(config: &[u8], data: &[u8]) -> Result<Vec<u8>, String> {
    let mut stream = Vec::with_capacity(config.len() + data.len() + 64);
    let mut push = |unit: &[u8]| {
        stream.extend_from_slice(&[0, 0, 0, 1]);
        stream.extend_from_slice(unit);
    };
    let mut rest = config.get(5..).ok_or("H.264: its parameters are missing")?;
    // Sequence parameter sets, whose number shares a byte with reserved bits, then picture parameter sets.
    for mask in [0x1f, 0xff] {
        let (count, after) = rest.split_first().ok_or("H.264: its parameters are cut")?;
        rest = after;
        for _ in 0..count & mask {
            let (unit, after) = split(rest, 2).ok_or("H.264: its parameters are cut")?;
            push(unit);
            rest = after;
        }
    }
    let (mut rest, mut slices) = (data, 0);
    while !rest.is_empty() {
        let (unit, after) = split(rest, 4).ok_or("H.264: a picture is cut")?;
        rest = after;
        if unit.first().is_some_and(|head| head & 0x1f == 5) {
            push(unit);
            slices += 1;
        }
    }
    if slices == 0 { Err("H.264: no key frame in it".into()) } else { Ok(stream) }
}

/// What follows a length of so many bytes, and the rest.
fn split(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    let (number, rest) = bytes.split_at_checked(length)?;
    let number = number.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    rest.split_at_checked(number)
}

/// A JPEG file.
///
/// # Errors
/// One line: what is wrong with it.
pub fn jpeg<T>(file: &[u8], look: impl FnOnce(&Decoded<'_>) -> T) -> Result<T, String> {
    let options = DecoderOptions::default().set_max_width(LONGEST).set_max_height(LONGEST);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    // Its messages have several lines.
    let failed = |e| one_line(&format!("JPEG: {e}")).trim_end().to_owned();
    decoder.decode_headers().map_err(failed)?;
    let (width, height) = decoder.dimensions().ok_or("JPEG: it does not say how large it is")?;
    check(width, height)?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let wanted = if grey { ColorSpace::Luma } else { ColorSpace::YCbCr };
    decoder.set_options(options.jpeg_set_out_colorspace(wanted));
    let bytes = decoder.decode().map_err(failed)?;
    let plane = |bytes| Plane { bytes, stride: width, width, height };
    if grey {
        return Ok(look(&Decoded { y: plane(&bytes), colours: None, limited: false }));
    }
    let part = |n: usize| bytes.iter().skip(n).step_by(3).copied().collect::<Vec<u8>>();
    let [y, u, v] = [part(0), part(1), part(2)];
    Ok(look(&Decoded { y: plane(&y), colours: Some([plane(&u), plane(&v)]), limited: false }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use nursery_shared::media::Data;

    use super::*;
    use crate::light::frame::Frame;

    fn track(codec: VideoCodec, config: &[u8]) -> VideoTrack {
        VideoTrack { codec, codecs: String::new(), width: 0, height: 0, config: Data::from(config) }
    }

    fn refused(codec: VideoCodec, config: &[u8], data: &[u8]) -> String {
        picture(&track(codec, config), data, |_| ()).unwrap_err()
    }

    /// An AVCDecoderConfigurationRecord with these two sets.
    fn record(sps: &[u8], pps: &[u8]) -> Vec<u8> {
        let length = |unit: &[u8]| (unit.len() as u16).to_be_bytes();
        [&[1, 66, 0, 30, 0xff, 0xe1], &length(sps)[..], sps, &[1], &length(pps), pps].concat()
    }

    #[test]
    fn what_is_no_picture_is_refused_in_words() {
        assert!(refused(VideoCodec::H265, b"", b"x").contains("set the camera to H.264"));
        assert!(refused(VideoCodec::H264, b"", b"").contains("parameters are missing"));
        assert!(
            refused(VideoCodec::H264, &[1, 66, 0, 30, 255, 0xe1, 0, 200, 7], b"")
                .contains("parameters are cut")
        );
        let config = record(&[0x67, 66, 0, 30], &[0x68, 1]);
        assert!(refused(VideoCodec::H264, &config, &[0, 0, 0, 9, 0x65]).contains("a picture is cut"));
        assert!(refused(VideoCodec::H264, &config, &[0, 0, 0, 2, 0x41, 1]).contains("no key frame"));
        assert!(refused(VideoCodec::Jpeg, b"", b"GIF89a").starts_with("JPEG: "));
        assert!(check(4096, 2304).is_ok() && check(2304, 4096).is_ok());
        for (width, height) in [(0, 1), (4097, 1), (4096, 4096)] {
            assert!(check(width, height).is_err());
        }
    }

    #[test]
    fn garbage_is_refused_or_seen_and_nothing_worse() {
        begin().unwrap();
        let mut rng = fastrand::Rng::with_seed(11);
        let mut noise = |n: usize| (0..n).map(|_| rng.u8(..)).collect::<Vec<u8>>();
        for n in 0..60 {
            let sps = [&[0x67, 66, 0xc0, 30][..], &noise(n % 20)].concat();
            let config = record(&sps, &[&[0x68][..], &noise(n % 5)].concat());
            let unit = [&[0x65][..], &noise(n * 50)].concat();
            let data = [&(unit.len() as u32).to_be_bytes()[..], &unit].concat();
            let _ = picture(&track(VideoCodec::H264, &config), &data, |d| Frame::of(d, 640, false));
            let _ = jpeg(&[&[0xff, 0xd8][..], &noise(n * 20)].concat(), |d| Frame::of(d, 640, false));
        }
    }
}
