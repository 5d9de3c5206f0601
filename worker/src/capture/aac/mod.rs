//! A decoder of AAC-LC (ISO/IEC 14496-3) for who listens in mono, to nothing above 8 kHz. Everything in the stream is read,
//! and both channels are heard; but they are mixed as spectra where their windows agree, and only those lines are
//! transformed that are wanted, at half or a quarter of the rate. That leaves a fraction of the work of a decoder that
//! makes everything.
//!
//! Mono and stereo of frames of 1024 samples, from 12 kHz on, are decoded. Of what else there may be (SBR that is announced, other kinds of
//! AAC, more channels, coupling) it says that it does not know it.

mod bits;
mod channel;
mod codebooks;
mod huffman;
mod layout;
mod program;
mod spectrum;
mod tns;
mod transform;

use bits::Bits;
use channel::{Channel, Pair, Shape};
use layout::{LINES, Layout, RATES};
use spectrum::{Side, Spectrum};
use transform::Transform;

/// Why a frame is not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It is broken.
    Corrupt(&'static str),
    /// It has something that this decoder does not know.
    Unknown(&'static str),
}

/// What an AudioSpecificConfig says, where this decoder is for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Config {
    /// Index of the sampling frequency.
    rate: usize,
    channels: usize,
}

impl Config {
    fn read(config: &[u8]) -> Option<Self> {
        const AAC_LC: u32 = 2;
        const SBR: u32 = 5;
        const EXTENSION: u32 = 0x2b7;
        let mut bits = Bits::new(config);
        let kind = bits.read(5);
        let rate = bits.read(4) as usize;
        let channels = bits.read(4) as usize;
        // Frames of 960 samples, a core coder below, extensions.
        let plain = bits.read(3) == 0;
        let whole = !bits.is_over();
        // What may follow announces SBR, or says that there is none.
        let extended = bits.read(11) == EXTENSION;
        let other = extended && (bits.read(5) != SBR || bits.flag());
        // Lower rates are too rare to be worth a decoder of their own: not all of their tools are verified.
        let usual = RATES.get(rate).is_some_and(|rate| *rate >= LOWEST);
        let known = kind == AAC_LC && usual && (1..=2).contains(&channels);
        (whole && known && plain && !other).then_some(Self { rate, channels })
    }
}

/// Lowest rate that is decoded here.
const LOWEST: u32 = 12_000;

/// Decodes one stream.
pub struct Decoder {
    config: Config,
    layout: Layout,
    channels: Box<[Channel; 2]>,
    pair: Box<Pair>,
    /// Shapes of the last frame's windows.
    before: [Shape; 2],
    spectrum: Spectrum,
    transform: Transform,
    lines: Box<[f32]>,
}

impl Decoder {
    /// For a stream with this AudioSpecificConfig; `None` where it is of a kind that this decoder does not know.
    pub fn new(config: &[u8]) -> Option<Self> {
        let config = Config::read(config)?;
        let layout = Layout::new(config.rate)?;
        Some(Self {
            config,
            layout,
            channels: Box::new([Channel::new(), Channel::new()]),
            pair: Box::new(Pair::new()),
            before: [Shape::default(); 2],
            spectrum: Spectrum::new(),
            transform: Transform::new(layout.divisor),
            lines: vec![0.0; LINES].into(),
        })
    }

    /// Samples per second that it makes: 16,000 at the least, or what the stream has. Above 8 kHz there is nothing.
    pub fn rate(&self) -> u32 {
        self.layout.rate
    }

    /// How much later than its number says each of its samples was taken, in samples.
    pub fn offset(&self) -> f64 {
        (self.layout.divisor as f64 - 1.0) / 2.0 / self.layout.divisor as f64
    }

    /// Appends the audio of a frame (`raw_data_block`), the mean of its channels, to `out`. Where this fails nothing is
    /// appended, and the next frame can be decoded.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn decode(&mut self, frame: &[u8], out: &mut Vec<f32>) -> Result<(), Failure> {
        if self.read(frame)? {
            self.spectrum.next();
            if self.config.channels == 1 {
                self.transform_single();
            } else {
                self.transform_pair();
            }
            for (before, channel) in self.before.iter_mut().zip(self.channels.iter()) {
                *before = channel.info.shape;
            }
        }
        self.transform.take(out);
        Ok(())
    }

    /// True where there is anything to be heard: encoders that are muted may write frames of nothing.
    fn read(&mut self, frame: &[u8]) -> Result<bool, Failure> {
        const TAG: u32 = 4;
        let (bits, layout) = (&mut Bits::new(frame), &self.layout);
        let mut heard = false;
        loop {
            if bits.position() + 3 > frame.len() * 8 {
                // Not everybody says that it ends.
                if heard && !bits.is_over() {
                    break;
                }
                return Err(Failure::Corrupt("it ends early"));
            }
            match bits.read(3) {
                0 if self.config.channels == 1 && !heard => {
                    bits.read(TAG);
                    self.channels[0].read(bits, layout, None)?;
                    heard = true;
                }
                1 if self.config.channels == 2 && !heard => {
                    bits.read(TAG);
                    self.pair.read(bits, layout, &mut self.channels)?;
                    heard = true;
                }
                0..=3 => return Err(Failure::Unknown("other channels than it should have")),
                4 => {
                    bits.read(TAG);
                    let aligned = bits.flag();
                    let count = bits.read(8) as usize;
                    let more = if count == 255 { bits.read(8) as usize } else { 0 };
                    if aligned {
                        bits.align();
                    }
                    bits.skip_bytes(count + more);
                }
                5 => program::skip(bits),
                6 => {
                    let count = bits.read(4) as usize;
                    let more = if count == 15 { bits.read(8) as usize } else { 1 };
                    bits.skip_bytes((count + more).saturating_sub(1));
                }
                _ => break,
            }
        }
        Ok(heard)
    }

    fn transform_single(&mut self) {
        let channel = &self.channels[0];
        self.spectrum.single(channel, &self.layout, channel.has_tns, &mut self.lines);
        if channel.has_tns {
            tns::apply(channel, &self.layout, &mut self.lines);
        }
        self.add(0);
    }

    fn transform_pair(&mut self) {
        let (channels, layout) = (&*self.channels, &self.layout);
        let same = |n: usize| (channels[n].info.sequence, channels[n].info.shape, self.before[n]);
        let any_tns = channels.iter().any(|channel| channel.has_tns);
        if same(0) == same(1) && !any_tns {
            self.spectrum.pair(channels, &self.pair, layout, Side::Mono, false, &mut self.lines);
            return self.add(0);
        }
        for (n, side) in [Side::Left, Side::Right].into_iter().enumerate() {
            let (channels, layout) = (&*self.channels, &self.layout);
            self.spectrum.pair(channels, &self.pair, layout, side, any_tns, &mut self.lines);
            if channels[n].has_tns {
                tns::apply(&channels[n], layout, &mut self.lines);
            }
            self.lines.iter_mut().for_each(|line| *line *= 0.5);
            self.add(n);
        }
    }

    /// Adds the lines as those of a channel, of which only those are left that are wanted.
    fn add(&mut self, n: usize) {
        let info = &self.channels[n].info;
        let wanted = info.of(&self.layout).wanted;
        for window in self.lines.chunks_exact_mut(info.stride()) {
            window[wanted..].fill(0.0);
        }
        self.transform.add(&mut self.lines, info.sequence, info.shape, self.before[n]);
    }
}

#[cfg(test)]
mod tests;
