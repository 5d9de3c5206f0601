//! Pictures as JPEG files, small enough for a frame.

use jpeg_encoder::{Encoder, ImageBuffer, JpegColorType, SamplingFactor};
use nursery_shared::light::MAX_PICTURE;

use super::frame::Frame;

/// Tried one after another until the file is small enough.
const QUALITIES: [u8; 4] = [80, 60, 35, 15];

struct Rows<'a>(&'a Frame);

impl ImageBuffer for Rows<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        if self.0.colours.is_some() { JpegColorType::Ycbcr } else { JpegColorType::Luma }
    }

    fn width(&self) -> u16 {
        self.0.width as u16
    }

    fn height(&self) -> u16 {
        self.0.height as u16
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let (y, width) = (usize::from(y), self.0.width);
        buffers[0].extend_from_slice(&self.0.y[y * width..(y + 1) * width]);
        let half = self.0.half().0;
        for (plane, buffer) in self.0.colours.iter().flatten().zip(&mut buffers[1..]) {
            let row = &plane[y / 2 * half..];
            buffer.extend((0..width).map(|x| row[x / 2]));
        }
    }
}

/// The picture as a file.
///
/// # Errors
/// One line: it is too large, whatever is left out of it.
pub fn encode(frame: &Frame) -> Result<Vec<u8>, String> {
    if frame.width == 0 || frame.height == 0 || frame.width.max(frame.height) > usize::from(u16::MAX) {
        return Err(format!("a picture of {} x {} pixels cannot be a JPEG file", frame.width, frame.height));
    }
    for quality in QUALITIES {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, quality);
        encoder.set_sampling_factor(SamplingFactor::F_2_2);
        encoder.encode_image(Rows(frame)).map_err(|e| format!("JPEG: {e}"))?;
        if bytes.len() <= MAX_PICTURE {
            return Ok(bytes);
        }
    }
    Err(format!("no JPEG file of it is smaller than {} KiB", MAX_PICTURE >> 10))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::light::decode;

    #[test]
    fn what_was_encoded_is_seen_again() {
        let (width, height) = (101, 57);
        let y = (0..width * height).map(|at| (at % width * 2) as u8).collect();
        let half = 51 * 29;
        let frame = Frame { width, height, y, colours: Some([vec![90; half], vec![200; half]]) };
        let file = encode(&frame).unwrap();
        let again = decode::jpeg(&file, |decoded| Frame::of(decoded, 1_000, false)).unwrap();
        assert_eq!((again.width, again.height), (101, 57));
        let off = again.y.iter().zip(&frame.y).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
        assert!(off < 3 * (width * height) as u64, "{off}");
        let [u, v] = again.colours.unwrap();
        assert!(u[100].abs_diff(90) < 5 && v[100].abs_diff(200) < 5, "{} {}", u[100], v[100]);
        let grey = encode(&Frame { colours: None, ..frame }).unwrap();
        assert!(decode::jpeg(&grey, |decoded| Frame::of(decoded, 64, false)).unwrap().colours.is_none());
    }

    #[test]
    fn pictures_that_cannot_be_small_lose_detail_before_they_are_given_up() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (width, height) = (1280, 720);
        let mut noise = |n: usize| (0..n).map(|_| rng.u8(..)).collect::<Vec<u8>>();
        let y = noise(width * height);
        let colours = Some([noise(width * height / 4), noise(width * height / 4)]);
        let outcome = encode(&Frame { width, height, y, colours });
        assert!(outcome.as_ref().map_or(true, |file| file.len() <= MAX_PICTURE));
        assert!(encode(&Frame { width: 0, height: 0, y: Vec::new(), colours: None }).is_err());
    }
}
