//! A picture as planes of bytes, and smaller ones made of it. Brightness and colours are as JPEG has them: all of 0 to 255.

/// One plane of a decoded picture: rows of `stride` bytes, of which `width` count.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a> {
    pub bytes: &'a [u8],
    pub stride: usize,
    pub width: usize,
    pub height: usize,
}

impl<'a> Plane<'a> {
    /// Row `y`; what is missing of it is not there.
    fn row(&self, y: usize) -> &'a [u8] {
        let start = (y * self.stride).min(self.bytes.len());
        let end = (start + self.width).min(self.bytes.len());
        &self.bytes[start..end]
    }

    /// The same in another size: each byte is the mean of those in its place. Never larger than it is, and never of no
    /// size at all.
    pub fn scaled(&self, width: usize, height: usize) -> Vec<u8> {
        let (width, height) = (width.clamp(1, self.width.max(1)), height.clamp(1, self.height.max(1)));
        let mut out = Vec::with_capacity(width * height);
        let mut sums = vec![0u32; self.width];
        for y in 0..height {
            let rows = span(y, height, self.height);
            sums.fill(0);
            let mut count = 0u32;
            for row in rows {
                count += 1;
                for (sum, byte) in sums.iter_mut().zip(self.row(row)) {
                    *sum += u32::from(*byte);
                }
            }
            for x in 0..width {
                let columns = span(x, width, self.width);
                let area = (columns.len() as u32 * count).max(1);
                let sum: u32 = sums[columns].iter().sum();
                out.push(((sum + area / 2) / area) as u8);
            }
        }
        out
    }
}

/// What `at` of `parts` equal parts covers of `whole`; at least one, where there is any.
fn span(at: usize, parts: usize, whole: usize) -> std::ops::Range<usize> {
    let start = at * whole / parts;
    let end = ((at + 1) * whole / parts).max(start + 1).min(whole);
    start..end
}

/// What a decoder gives.
#[derive(Debug, Clone, Copy)]
pub struct Decoded<'a> {
    pub y: Plane<'a>,
    /// Both colours; `None`: there are none.
    pub colours: Option<[Plane<'a>; 2]>,
    /// Brightness is 16 to 235 and colours 16 to 240, as in most video.
    pub limited: bool,
}

/// A small picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub width: usize,
    pub height: usize,
    /// Brightness, row by row.
    pub y: Vec<u8>,
    /// Colours, of half the width and height, rounded up; `None`: grey.
    pub colours: Option<[Vec<u8>; 2]>,
}

impl Frame {
    /// Of its planes.
    pub fn bytes(&self) -> usize {
        self.y.len() + self.colours.iter().flatten().map(Vec::len).sum::<usize>()
    }

    /// So wide at the most, of the same shape.
    pub fn of(decoded: &Decoded<'_>, width: usize, grey: bool) -> Self {
        let (from_width, from_height) = (decoded.y.width.max(1), decoded.y.height.max(1));
        let width = width.clamp(1, from_width);
        let height = ((from_height * width + from_width / 2) / from_width).clamp(1, from_height);
        let mut y = decoded.y.scaled(width, height);
        let half = |plane: &Plane<'_>| half_of(plane, width, height);
        let mut colours = decoded.colours.as_ref().filter(|_| !grey).map(|[u, v]| [half(u), half(v)]);
        if decoded.limited {
            let (bright, colour) = (stretch(16, 219, 0), stretch(128, 224, 128));
            y.iter_mut().for_each(|b| *b = bright[usize::from(*b)]);
            colours.iter_mut().flatten().flatten().for_each(|b| *b = colour[usize::from(*b)]);
        }
        Self { width, height, y, colours }
    }

    /// Width and height of the colours.
    pub fn half(&self) -> (usize, usize) {
        (self.width.div_ceil(2), self.height.div_ceil(2))
    }

    /// How colourful it is: the mean distance from grey, 0 to 128.
    pub fn saturation(&self) -> f32 {
        let Some([u, v]) = &self.colours else { return 0.0 };
        let sum: u64 = u.iter().zip(v).map(|(u, v)| u64::from(u.abs_diff(128).max(v.abs_diff(128)))).sum();
        sum as f32 / u.len().max(1) as f32
    }
}

/// A plane of colours for a picture of this size, where it may not be enlarged: then bytes are repeated.
fn half_of(plane: &Plane<'_>, width: usize, height: usize) -> Vec<u8> {
    let (want_width, want_height) = (width.div_ceil(2), height.div_ceil(2));
    let (has_width, has_height) = (want_width.min(plane.width.max(1)), want_height.min(plane.height.max(1)));
    let scaled = plane.scaled(has_width, has_height);
    if (has_width, has_height) == (want_width, want_height) {
        return scaled;
    }
    let at =
        |x: usize, y: usize| scaled[y * has_height / want_height * has_width + x * has_width / want_width];
    (0..want_height).flat_map(|y| (0..want_width).map(move |x| (x, y))).map(|(x, y)| at(x, y)).collect()
}

/// What each byte becomes where `range` of them become 255, around `low`, which becomes `to`.
fn stretch(low: i32, range: i32, to: i32) -> [u8; 256] {
    let mut table = [0; 256];
    for (byte, entry) in (0i32..).zip(table.iter_mut()) {
        *entry = (to + (2 * (byte - low) * 255 + range) / (2 * range)).clamp(0, 255) as u8;
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn plane(bytes: &[u8], stride: usize, width: usize, height: usize) -> Plane<'_> {
        Plane { bytes, stride, width, height }
    }

    #[test]
    fn each_pixel_is_the_mean_of_those_in_its_place() {
        let bytes = [0, 10, 100, 200, 99, 20, 30, 100, 200, 99];
        let plane = plane(&bytes, 5, 4, 2);
        assert_eq!(plane.scaled(2, 1), [15, 150]);
        assert_eq!(plane.scaled(4, 2), [0, 10, 100, 200, 20, 30, 100, 200]);
        // Parts that do not come out even, and more than there is.
        assert_eq!(plane.scaled(3, 1), [10, 20, 150]);
        assert_eq!(plane.scaled(400, 200).len(), 8);
        assert_eq!(plane.scaled(0, 0), [83]);
    }

    #[test]
    fn planes_that_are_shorter_than_they_say_are_no_danger() {
        assert_eq!(plane(&[50; 5], 4, 4, 3).scaled(2, 3).len(), 6);
        assert_eq!(plane(&[], 0, 0, 0).scaled(3, 3), [0]);
    }

    #[test]
    fn the_shape_stays_and_the_range_becomes_that_of_jpeg() {
        let (y, u) = (vec![235; 1920 * 1080], vec![128; 960 * 540]);
        let v = vec![16; 960 * 540];
        let colours = Some([plane(&u, 960, 960, 540), plane(&v, 960, 960, 540)]);
        let decoded = Decoded { y: plane(&y, 1920, 1920, 1080), colours, limited: true };
        let frame = Frame::of(&decoded, 641, false);
        assert_eq!((frame.width, frame.height, frame.half()), (641, 361, (321, 181)));
        assert_eq!((frame.y.len(), frame.y[7]), (641 * 361, 255));
        let [u, v] = frame.colours.as_ref().unwrap();
        assert_eq!((u.len(), u[0], v[0]), (321 * 181, 128, 1));
        assert!((frame.saturation() - 127.0).abs() < 1.0);
        let grey = Frame::of(&decoded, 5_000, true);
        assert_eq!((grey.width, grey.height, grey.colours), (1920, 1080, None));
        assert_eq!(
            (stretch(16, 219, 0)[16], stretch(16, 219, 0)[255], stretch(16, 219, 0)[126]),
            (0, 255, 128)
        );
    }
}
