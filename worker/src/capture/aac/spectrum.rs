//! From quantised lines to the spectrum: scale, noise, and the kinds of stereo (4.6.1 to 4.6.8 and 4.6.13 of ISO/IEC 14496-3).

use super::{
    channel::{Channel, Content, Pair},
    layout::Layout,
};

/// Powers of quantised values that are looked up.
const LOOKED_UP: usize = 64;

/// Scales lines.
pub struct Spectrum {
    /// Numbers to the power of 4/3.
    powers: [f32; LOOKED_UP],
    /// Tells the noise of frames apart.
    frame: u32,
}

/// What each decoded channel contributes to what is heard on the left and on the right.
#[derive(Clone, Copy)]
struct Shares {
    left: [f32; 2],
    right: [f32; 2],
    /// Noise is the same in both.
    same_noise: bool,
}

/// What is made of a pair.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
    /// The mean of both.
    Mono,
}

impl Spectrum {
    /// The first frame begins.
    pub fn new() -> Self {
        let mut powers = [0.0; LOOKED_UP];
        for (n, power) in powers.iter_mut().enumerate() {
            *power = (n as f64).powf(4.0 / 3.0) as f32;
        }
        Self { powers, frame: 0 }
    }

    /// The next frame begins, with other noise.
    pub fn next(&mut self) {
        self.frame = self.frame.wrapping_add(1);
    }

    /// The lines of the only channel. `all`: those that are not wanted, too.
    pub fn single(&self, channel: &Channel, layout: &Layout, all: bool, out: &mut [f32]) {
        out.fill(0.0);
        self.add_channel(channel, 0, layout, all, out, |_| (1.0, false));
    }

    /// The lines of a pair of channels.
    pub fn pair(
        &self,
        channels: &[Channel; 2],
        pair: &Pair,
        layout: &Layout,
        side: Side,
        all: bool,
        out: &mut [f32],
    ) {
        out.fill(0.0);
        for (n, channel) in channels.iter().enumerate() {
            self.add_channel(channel, n, layout, all, out, |number| {
                let shares = if pair.common { shares(channels, pair, number) } else { Shares::APART };
                let share = match side {
                    Side::Left => shares.left[n],
                    Side::Right => shares.right[n],
                    Side::Mono => (shares.left[n] + shares.right[n]) / 2.0,
                };
                (share, shares.same_noise)
            });
        }
    }

    /// Adds all bands of a channel. `share`: how much of a band by its number, and whether its noise is the first channel's.
    fn add_channel(
        &self,
        channel: &Channel,
        n: usize,
        layout: &Layout,
        all: bool,
        out: &mut [f32],
        share: impl Fn(usize) -> (f32, bool),
    ) {
        let (info, bands) = (&channel.info, channel.info.of(layout));
        for band in info.each() {
            let (from, to) = (usize::from(bands.edges[band.band]), usize::from(bands.edges[band.band + 1]));
            let content = channel.content(band.number);
            if content == Content::Nothing || from >= bands.wanted && !all {
                continue;
            }
            let (share, same_noise) = share(band.number);
            if share == 0.0 {
                continue;
            }
            for window in band.first..band.first + band.windows {
                let at = window * info.stride();
                let lines = at + from..at + to;
                match content {
                    Content::Lines(exponent) => {
                        let scale = share * power_of_two(exponent);
                        for (out, value) in out[lines.clone()].iter_mut().zip(&channel.lines[lines]) {
                            *out += scale * self.power(*value);
                        }
                    }
                    Content::Noise(exponent) => {
                        let place = (at + from) as u32 * 2 + if same_noise { 0 } else { n as u32 };
                        let seed = self.frame.wrapping_mul(0x9e37_79b9) ^ place.wrapping_mul(0x85eb_ca6b);
                        noise(seed, share * power_of_two(exponent), &mut out[lines]);
                    }
                    Content::Nothing | Content::Intensity(..) => {}
                }
            }
        }
    }

    fn power(&self, value: i16) -> f32 {
        let size = value.unsigned_abs();
        let power = match self.powers.get(usize::from(size)) {
            Some(power) => *power,
            None => f32::from(size) * f32::from(size).cbrt(),
        };
        if value < 0 { -power } else { power }
    }
}

impl Shares {
    const APART: Self = Self { left: [1.0, 0.0], right: [0.0, 1.0], same_noise: false };
}

fn shares(channels: &[Channel; 2], pair: &Pair, number: usize) -> Shares {
    let is_plain = |content| matches!(content, Content::Nothing | Content::Lines(_));
    let (first, second) = (channels[0].content(number), channels[1].content(number));
    let differs = pair.differences[number];
    match (first, second) {
        (_, Content::Intensity(exponent, inverse)) => {
            let size = power_of_two(exponent);
            let inverse = inverse ^ (differs && pair.chosen);
            Shares { right: [if inverse { -size } else { size }, 0.0], ..Shares::APART }
        }
        _ if !differs => Shares::APART,
        _ if is_plain(first) && is_plain(second) => {
            Shares { left: [1.0, 1.0], right: [1.0, -1.0], same_noise: false }
        }
        _ => Shares { same_noise: true, ..Shares::APART },
    }
}

/// Two to the power of so many quarters, -400 to 400.
fn power_of_two(quarters: i32) -> f32 {
    const ROOTS: [f32; 4] = [1.0, 1.189_207_1, std::f32::consts::SQRT_2, 1.681_792_8];
    let whole = (127 + quarters.div_euclid(4)).clamp(1, 254) as u32;
    f32::from_bits(whole << 23) * ROOTS[quarters.rem_euclid(4) as usize]
}

/// Adds noise whose energy is the square of `size`.
fn noise(seed: u32, size: f32, out: &mut [f32]) {
    let values = || {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state as i32) as f32 / 2_147_483_648.0
        })
    };
    let energy: f32 = values().take(out.len()).map(|value| value * value).sum();
    let scale = size / energy.max(1e-9).sqrt();
    for (out, value) in out.iter_mut().zip(values()) {
        *out += scale * value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarters_of_powers_of_two_are_what_they_are() {
        for quarters in -200..=200 {
            let exact = 2f64.powf(f64::from(quarters) / 4.0);
            let ratio = f64::from(power_of_two(quarters)) / exact;
            assert!((ratio - 1.0).abs() < 1e-6, "{quarters}: {ratio}");
        }
    }

    #[test]
    fn noise_has_the_energy_that_it_must_have() {
        for (seed, width) in (1..200).zip([4, 8, 20, 96].into_iter().cycle()) {
            let mut out = vec![0.0; width];
            noise(seed, 3.0, &mut out);
            let energy: f32 = out.iter().map(|x| x * x).sum();
            assert!((energy - 9.0).abs() < 1e-3, "{energy}");
        }
    }
}
