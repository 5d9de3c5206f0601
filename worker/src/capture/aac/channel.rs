//! One channel of a frame as the stream has it: windows, bands, scale factors, quantised lines (4.4.2.7 of ISO/IEC 14496-3).

use super::{
    Failure,
    bits::Bits,
    huffman,
    layout::{Bands, LINES, Layout, SHORT},
};

/// Bands are numbered by group and band of the group, with room for so many of a group of short windows.
const GROUP: usize = 16;
/// All bands.
const BANDS: usize = 8 * GROUP;

/// Codebooks that are none.
pub const NOTHING: u8 = 0;
const RESERVED: u8 = 12;
pub const NOISE: u8 = 13;
const INTENSITY_INVERSE: u8 = 14;
const INTENSITY: u8 = 15;

/// The scale factor that means 1.
const UNITY: i32 = 100;
const NOISE_OFFSET: i32 = 90;
const NOISE_START: i32 = 256;

/// Longest filter of TNS, for long windows, and how many there may be.
pub const MOST_ORDER: usize = 12;
const MOST_ORDER_SHORT: u32 = 7;
const MOST_FILTERS: usize = 3;

/// How a frame's 1024 lines are windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sequence {
    #[default]
    Long,
    Start,
    Short,
    Stop,
}

/// How windows rise and fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    #[default]
    Sine,
    Kaiser,
}

/// Windows and bands of a frame; both channels of a pair may share them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Info {
    pub sequence: Sequence,
    pub shape: Shape,
    /// Bands that may hold anything.
    pub bands: usize,
    /// Lengths of groups of windows.
    pub groups: [u8; 8],
    pub group_count: usize,
}

impl Info {
    /// Reads `ics_info`.
    fn read(bits: &mut Bits<'_>, layout: &Layout) -> Result<Self, Failure> {
        if bits.flag() {
            return Err(Failure::Corrupt("a reserved bit is set"));
        }
        let sequence =
            [Sequence::Long, Sequence::Start, Sequence::Short, Sequence::Stop][bits.read(2) as usize & 3];
        let shape = if bits.flag() { Shape::Kaiser } else { Shape::Sine };
        let mut info = Self { sequence, shape, group_count: 1, ..Self::default() };
        info.groups[0] = 1;
        if sequence == Sequence::Short {
            info.bands = bits.read(4) as usize;
            for _ in 1..8 {
                // The next window belongs to the group, or begins another.
                info.group_count += usize::from(!bits.flag());
                info.groups[info.group_count - 1] += 1;
            }
        } else {
            info.bands = bits.read(6) as usize;
            if bits.flag() {
                return Err(Failure::Unknown("prediction"));
            }
        }
        if info.bands > info.of(layout).count() {
            return Err(Failure::Corrupt("more bands than there are"));
        }
        Ok(info)
    }

    /// Its windows.
    pub fn of<'a>(&self, layout: &'a Layout) -> &'a Bands {
        if self.sequence == Sequence::Short { &layout.short } else { &layout.long }
    }

    /// Lines from a window to the next.
    pub fn stride(&self) -> usize {
        if self.sequence == Sequence::Short { SHORT } else { LINES }
    }

    /// All bands: number, first window of its group, and the group's windows.
    pub fn each(&self) -> impl Iterator<Item = Band> + use<> {
        let Self { bands, groups, group_count, .. } = *self;
        let mut window = 0;
        groups.into_iter().take(group_count).enumerate().flat_map(move |(group, windows)| {
            let (first, windows) = (window, usize::from(windows));
            window += windows;
            (0..bands).map(move |band| Band { number: group * GROUP + band, band, first, windows })
        })
    }
}

/// A band of a group of windows.
#[derive(Debug, Clone, Copy)]
pub struct Band {
    pub number: usize,
    /// Its place among the bands of a window.
    pub band: usize,
    /// The first window of the group, and how many there are.
    pub first: usize,
    pub windows: usize,
}

/// One filter of TNS.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Bands that it covers, below the one before.
    pub length: usize,
    pub order: usize,
    /// From the highest line down.
    pub downward: bool,
    /// Reflection coefficients as they were quantised, and how finely: 3 or 4 bits.
    pub coefficients: [i8; MOST_ORDER],
    pub resolution: u32,
}

/// The filters of one window.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filters {
    pub filters: [Filter; MOST_FILTERS],
    pub count: usize,
}

/// How a band's content is to be understood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Content {
    Nothing,
    /// Quantised lines, with this exponent (in quarters) of 2.
    Lines(i32),
    /// Noise of an energy, whose square root has this exponent (in quarters) of 2.
    Noise(i32),
    /// As in the other channel, times 2 to the power of this (in quarters); upside down where the flag says so.
    Intensity(i32, bool),
}

/// One channel.
pub struct Channel {
    pub info: Info,
    books: [u8; BANDS],
    factors: [i16; BANDS],
    /// Lines, window after window; those of bands that have none are not to be looked at.
    pub lines: [i16; LINES],
    /// Per window.
    pub tns: [Filters; 8],
    pub has_tns: bool,
}

impl Channel {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            info: Info::default(),
            books: [0; BANDS],
            factors: [0; BANDS],
            lines: [0; LINES],
            tns: [Filters::default(); 8],
            has_tns: false,
        }
    }

    /// What is in a band.
    pub fn content(&self, number: usize) -> Content {
        let factor = i32::from(self.factors[number]);
        match self.books[number] {
            NOTHING => Content::Nothing,
            NOISE => Content::Noise(factor),
            INTENSITY_INVERSE => Content::Intensity(-factor, true),
            INTENSITY => Content::Intensity(-factor, false),
            _ => Content::Lines(factor - UNITY),
        }
    }

    /// Reads an `individual_channel_stream`. `info`: where it is shared with the other channel.
    pub fn read(&mut self, bits: &mut Bits<'_>, layout: &Layout, info: Option<Info>) -> Result<(), Failure> {
        let gain = bits.read(8) as i32;
        self.info = match info {
            Some(info) => info,
            None => Info::read(bits, layout)?,
        };
        self.read_sections(bits)?;
        self.read_factors(bits, gain)?;
        let mut pulses = Pulses::default();
        if bits.flag() {
            pulses = Pulses::read(bits, &self.info, layout)?;
        }
        self.has_tns = bits.flag();
        if self.has_tns {
            self.read_tns(bits)?;
        }
        if bits.flag() {
            return Err(Failure::Unknown("gain control"));
        }
        self.read_lines(bits, layout)?;
        pulses.add(self, layout);
        if bits.is_over() {
            return Err(Failure::Corrupt("it ends early"));
        }
        Ok(())
    }

    fn read_sections(&mut self, bits: &mut Bits<'_>) -> Result<(), Failure> {
        let width = if self.info.sequence == Sequence::Short { 3 } else { 5 };
        let more = (1 << width) - 1;
        for group in 0..self.info.group_count {
            let mut band = 0;
            while band < self.info.bands {
                let book = bits.read(4) as u8;
                if book == RESERVED {
                    return Err(Failure::Corrupt("a reserved codebook"));
                }
                let mut length = 0;
                loop {
                    let part = bits.read(width) as usize;
                    length += part;
                    if part != more || length > self.info.bands {
                        break;
                    }
                }
                // An empty section leads nowhere: a packet without end of them would.
                if (length == 0 && bits.is_over()) || band + length > self.info.bands {
                    return Err(Failure::Corrupt("sections of more bands than there are"));
                }
                self.books[group * GROUP + band..][..length].fill(book);
                band += length;
            }
        }
        Ok(())
    }

    fn read_factors(&mut self, bits: &mut Bits<'_>, gain: i32) -> Result<(), Failure> {
        let (mut factor, mut place, mut noise) = (gain, 0, None);
        for Band { number, .. } in self.info.each() {
            let value = match self.books[number] {
                NOTHING => 0,
                NOISE => {
                    let energy = match noise {
                        None => gain - NOISE_OFFSET - NOISE_START + bits.read(9) as i32,
                        Some(energy) => energy + huffman::scale_factor(bits),
                    };
                    noise = Some(energy);
                    energy.clamp(-200, 200)
                }
                INTENSITY | INTENSITY_INVERSE => {
                    place += huffman::scale_factor(bits);
                    place.clamp(-200, 200)
                }
                _ => {
                    factor += huffman::scale_factor(bits);
                    if !(0..256).contains(&factor) {
                        return Err(Failure::Corrupt("a scale factor out of range"));
                    }
                    factor
                }
            };
            self.factors[number] = value as i16;
        }
        Ok(())
    }

    fn read_tns(&mut self, bits: &mut Bits<'_>) -> Result<(), Failure> {
        let short = self.info.sequence == Sequence::Short;
        let (counts, lengths, orders) = if short { (1, 4, 3) } else { (2, 6, 5) };
        let most = if short { MOST_ORDER_SHORT } else { MOST_ORDER as u32 };
        for window in &mut self.tns[..if short { 8 } else { 1 }] {
            window.count = bits.read(counts) as usize;
            let resolution = if window.count > 0 { 3 + bits.read(1) } else { 0 };
            for filter in &mut window.filters[..window.count] {
                *filter = Filter { length: bits.read(lengths) as usize, resolution, ..Filter::default() };
                let order = bits.read(orders);
                if order > most {
                    return Err(Failure::Corrupt("a filter that is too long"));
                }
                filter.order = order as usize;
                if order > 0 {
                    filter.downward = bits.flag();
                    let width = resolution - bits.read(1);
                    for coefficient in &mut filter.coefficients[..order as usize] {
                        let value = bits.read(width) as i8;
                        let negative = value >> (width - 1) & 1 == 1;
                        *coefficient = if negative { value - (1 << width) } else { value };
                    }
                }
            }
        }
        Ok(())
    }

    fn read_lines(&mut self, bits: &mut Bits<'_>, layout: &Layout) -> Result<(), Failure> {
        let (edges, stride) = (self.info.of(layout).edges, self.info.stride());
        for Band { number, band, first, windows } in self.info.each() {
            let book = self.books[number];
            if !(1..RESERVED).contains(&book) {
                continue;
            }
            let (from, to) = (usize::from(edges[band]), usize::from(edges[band + 1]));
            for window in first..first + windows {
                let lines = &mut self.lines[window * stride..][from..to];
                if !huffman::spectrum(bits, book, lines) {
                    return Err(Failure::Corrupt("a value that is too large"));
                }
            }
        }
        Ok(())
    }
}

/// Single lines that are larger than the others, and are written apart.
#[derive(Default)]
struct Pulses {
    pulses: [(usize, i16); 4],
    count: usize,
}

impl Pulses {
    fn read(bits: &mut Bits<'_>, info: &Info, layout: &Layout) -> Result<Self, Failure> {
        if info.sequence == Sequence::Short {
            return Err(Failure::Corrupt("pulses in short windows"));
        }
        let mut pulses = Self { count: bits.read(2) as usize + 1, ..Self::default() };
        let first = bits.read(6) as usize;
        let edges = layout.long.edges;
        if first >= layout.long.count() {
            return Err(Failure::Corrupt("pulses beyond the last band"));
        }
        let mut line = usize::from(edges[first]);
        for pulse in &mut pulses.pulses[..pulses.count] {
            line += bits.read(5) as usize;
            if line >= LINES {
                return Err(Failure::Corrupt("pulses beyond the last line"));
            }
            *pulse = (line, bits.read(4) as i16);
        }
        Ok(pulses)
    }

    fn add(&self, channel: &mut Channel, layout: &Layout) {
        for (line, amplitude) in &self.pulses[..self.count] {
            let band = layout.long.edges.partition_point(|edge| usize::from(*edge) <= *line) - 1;
            if band < channel.info.bands && matches!(channel.content(band), Content::Lines(_)) {
                let value = &mut channel.lines[*line];
                *value += if *value > 0 { *amplitude } else { -amplitude };
            }
        }
    }
}

/// What both channels of a pair share.
pub struct Pair {
    /// Windows and bands.
    pub common: bool,
    /// By band: sum and difference instead of left and right.
    pub differences: [bool; BANDS],
    /// Said band by band; then it turns intensity upside down.
    pub chosen: bool,
}

impl Pair {
    /// An empty one.
    pub fn new() -> Self {
        Self { common: false, differences: [false; BANDS], chosen: false }
    }

    /// Reads a `channel_pair_element` behind its tag.
    pub fn read(
        &mut self,
        bits: &mut Bits<'_>,
        layout: &Layout,
        channels: &mut [Channel; 2],
    ) -> Result<(), Failure> {
        self.differences.fill(false);
        (self.common, self.chosen) = (bits.flag(), false);
        let mut common = None;
        if self.common {
            let info = Info::read(bits, layout)?;
            match bits.read(2) {
                0 => {}
                1 => {
                    self.chosen = true;
                    info.each().for_each(|band| self.differences[band.number] = bits.flag());
                }
                2 => self.differences.fill(true),
                _ => return Err(Failure::Corrupt("a reserved kind of stereo")),
            }
            common = Some(info);
        }
        let [left, right] = channels;
        left.read(bits, layout, common)?;
        right.read(bits, layout, common)
    }
}
