//! What the sampling frequency decides: how lines are put together to bands, and how far TNS reaches (tables 4.110 to 4.129
//! and 4.139 of ISO/IEC 14496-3), and what of the stream is decoded at all.

/// Lines of a long window.
pub const LINES: usize = 1024;
/// Lines of each of eight short ones.
pub const SHORT: usize = 128;

/// Sampling frequencies by their index.
pub const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// Nothing beyond it is wanted, hertz.
const HIGHEST: u32 = 8_000;

const LONG_96: &[u16] = &[
    0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 64, 72, 80, 88, 96, 108, 120, 132, 144, 156,
    172, 188, 212, 240, 276, 320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960, 1024,
];
const LONG_64: &[u16] = &[
    0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 64, 72, 80, 88, 100, 112, 124, 140, 156, 172,
    192, 216, 240, 268, 304, 344, 384, 424, 464, 504, 544, 584, 624, 664, 704, 744, 784, 824, 864, 904, 944,
    984, 1024,
];
const LONG_48: &[u16] = &[
    0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64, 72, 80, 88, 96, 108, 120, 132, 144, 160, 176, 196,
    216, 240, 264, 292, 320, 352, 384, 416, 448, 480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800, 832,
    864, 896, 928, 1024,
];
const LONG_32: &[u16] = &[
    0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64, 72, 80, 88, 96, 108, 120, 132, 144, 160, 176, 196,
    216, 240, 264, 292, 320, 352, 384, 416, 448, 480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800, 832,
    864, 896, 928, 960, 992, 1024,
];
const LONG_24: &[u16] = &[
    0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 52, 60, 68, 76, 84, 92, 100, 108, 116, 124, 136, 148, 160,
    172, 188, 204, 220, 240, 260, 284, 308, 336, 364, 396, 432, 468, 508, 552, 600, 652, 704, 768, 832, 896,
    960, 1024,
];
const LONG_16: &[u16] = &[
    0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 100, 112, 124, 136, 148, 160, 172, 184, 196, 212, 228, 244,
    260, 280, 300, 320, 344, 368, 396, 424, 456, 492, 532, 572, 616, 664, 716, 772, 832, 896, 960, 1024,
];
const LONG_8: &[u16] = &[
    0, 12, 24, 36, 48, 60, 72, 84, 96, 108, 120, 132, 144, 156, 172, 188, 204, 220, 236, 252, 268, 288, 308,
    328, 348, 372, 396, 420, 448, 476, 508, 544, 580, 620, 664, 712, 764, 820, 880, 944, 1024,
];
const SHORT_96: &[u16] = &[0, 4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 92, 128];
const SHORT_48: &[u16] = &[0, 4, 8, 12, 16, 20, 28, 36, 44, 56, 68, 80, 96, 112, 128];
const SHORT_24: &[u16] = &[0, 4, 8, 12, 16, 20, 24, 28, 36, 44, 52, 64, 76, 92, 108, 128];
const SHORT_16: &[u16] = &[0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 60, 72, 88, 108, 128];
const SHORT_8: &[u16] = &[0, 4, 8, 12, 16, 20, 24, 28, 36, 44, 52, 60, 72, 88, 108, 128];

/// What is to be known of windows of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Bands {
    /// Where each band begins, and the last one ends.
    pub edges: &'static [u16],
    /// TNS reaches up to this band.
    pub tns: usize,
    /// Lines that are wanted.
    pub wanted: usize,
}

impl Bands {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.edges.len() - 1
    }
}

/// What is to be known of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    pub long: Bands,
    pub short: Bands,
    /// One in so many samples is made.
    pub divisor: usize,
    /// Samples per second that are made.
    pub rate: u32,
}

impl Layout {
    /// For a sampling frequency by its index.
    pub fn new(index: usize) -> Option<Self> {
        let rate = *RATES.get(index)?;
        let (long, short, tns_long, tns_short) = match index {
            0 | 1 => (LONG_96, SHORT_96, 31, 9),
            2 => (LONG_64, SHORT_96, 34, 10),
            3 => (LONG_48, SHORT_48, 40, 14),
            4 => (LONG_48, SHORT_48, 42, 14),
            5 => (LONG_32, SHORT_48, 51, 14),
            6 | 7 => (LONG_24, SHORT_24, 46, 14),
            8..=10 => (LONG_16, SHORT_16, 42, 14),
            _ => (LONG_8, SHORT_8, 39, 14),
        };
        // The lower half or quarter of the spectrum, transformed as if it were all, makes audio of half or a quarter of
        // the rate.
        let divisor = match rate {
            64_000.. => 4,
            32_000.. => 2,
            _ => 1,
        };
        let wanted = |lines: usize| {
            let lines_up_to = (u64::from(HIGHEST) * 2 * lines as u64).div_ceil(u64::from(rate)) as usize;
            lines_up_to.min(lines / divisor)
        };
        Some(Self {
            long: Bands { edges: long, tns: tns_long, wanted: wanted(LINES) },
            short: Bands { edges: short, tns: tns_short, wanted: wanted(SHORT) },
            divisor,
            rate: rate / divisor as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bands_follow_each_other_to_the_end_in_steps_of_four() {
        for index in 0..13 {
            let layout = Layout::new(index).unwrap();
            for (bands, lines) in [(layout.long, LINES), (layout.short, SHORT)] {
                assert_eq!((bands.edges[0], bands.edges[bands.count()]), (0, lines as u16));
                assert!(bands.edges.windows(2).all(|e| e[0] < e[1] && (e[1] - e[0]) % 4 == 0), "{index}");
                assert!(bands.tns <= bands.count() && bands.wanted <= lines / layout.divisor);
            }
            assert!(layout.rate >= 16_000 || layout.divisor == 1);
            // What is made and above 8 kHz is nothing.
            let highest = layout.long.wanted as u32 * layout.rate / 2 / (LINES / layout.divisor) as u32;
            assert!(highest <= 8_020, "{index}: {highest}");
        }
        assert!(Layout::new(13).is_none());
    }
}
