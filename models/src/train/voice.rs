//! Voices that were never recorded: crying of made babies, and adults' moans and shouts by the same means. A source of
//! harmonics and breath behind a throat's resonances, with the kinds of phonation that studies of infant crying tell
//! apart (Wasz-Höckert et al., 1968; Truby and Lind, 1965): phonated arches and flat whines, hyperphonated squeals,
//! dysphonated roughness, breaks of pitch, and breaths drawn in between.

use super::signal::{filter, gain, normal, rms};
use rand::Rng;
use rand::rngs::StdRng;
use realfft::RealFftPlanner;
use std::f32::consts::{PI, TAU};
use std::ops::Range;

const RATE: f32 = 16_000.0;
/// Samples over which pitch and resonances are taken as constant.
const FRAME: usize = 80;
/// Harmonics end here, Hz.
const HIGHEST: f32 = 7_600.0;

/// A voice: samples at about unit level while it sounds, and for each whether it does, breaths drawn in not counted.
pub struct Voice {
    /// 16 kHz.
    pub samples: Vec<f32>,
    /// Phonation, for each sample.
    pub sounding: Vec<bool>,
}

/// Resonances over a falling spectrum.
struct Throat {
    /// Hz, relative width, dB.
    resonances: [(f32, f32, f32); 4],
    /// dB per octave by which the source falls.
    fall: f32,
}

impl Throat {
    /// `length`: of the vocal tract, relative to a baby's.
    fn new(rng: &mut StdRng, length: f32, fall: Range<f32>) -> Self {
        let centres = [1_050.0, 2_900.0, 4_900.0, 6_700.0f32];
        let resonances = centres.map(|hz| {
            let spread = 2f32.powf(rng.random_range(-0.4..0.4f32));
            (hz * spread / length, rng.random_range(0.1..0.35), rng.random_range(2.0..20.0))
        });
        Self { resonances, fall: rng.random_range(fall) }
    }

    /// Factor at a frequency; `shift` moves all resonances.
    fn response(&self, hz: f32, shift: f32) -> f32 {
        let bells: f32 = self
            .resonances
            .iter()
            .map(|&(centre, width, db)| {
                let centre = centre * shift;
                db / (1.0 + ((hz - centre) / (width * centre)).powi(2))
            })
            .sum();
        gain(bells - self.fall * (hz.max(50.0) / 500.0).log2())
    }
}

/// How the pitch of one burst goes.
struct Contour {
    hz: f32,
    rise: f32,
    fall: f32,
    peak: f32,
    vibrato: (f32, f32),
    /// Part of the burst, and by how much the pitch is higher or lower there.
    broken: Option<(Range<f32>, f32)>,
}

impl Contour {
    fn at(&self, u: f32, seconds: f32) -> f32 {
        let bow = if u < self.peak {
            1.0 - self.rise * (1.0 - (u / self.peak * PI / 2.0).sin())
        } else {
            1.0 - self.fall * (1.0 - ((1.0 - u) / (1.0 - self.peak) * PI / 2.0).sin())
        };
        let broken = self.broken.as_ref().filter(|(part, _)| part.contains(&u)).map_or(1.0, |(_, by)| *by);
        self.hz * bow * broken * (1.0 + self.vibrato.0 * (TAU * self.vibrato.1 * seconds).sin())
    }
}

/// What makes a burst besides its pitch.
struct Phonation {
    /// dB of breath over the voice.
    breath_db: f32,
    /// Depth of subharmonics: every other period is weaker.
    halved: f32,
    /// Depth and Hz of roughness.
    rough: (f32, f32),
    /// Diffusion of the phase, per sample.
    jitter: f32,
    /// How much the pitch walks about in a hundredth of a second.
    unsteady: f32,
    /// Seconds until it is at its full level.
    attack: f32,
    /// How much the level wanders.
    wobble: f32,
}

fn burst(
    rng: &mut StdRng,
    planner: &mut RealFftPlanner<f32>,
    n: usize,
    throat: &Throat,
    contour: &Contour,
    phonation: &Phonation,
) -> Vec<f32> {
    let own: Vec<f32> = (0..40).map(|_| gain(3.0 * normal(rng).clamp(-2.5, 2.5))).collect();
    let decay = phonation.attack * rng.random_range(1.0..2.5f32);
    let (mut walk, mut drift, mut wobble) = (0.0f32, 0.0f32, 0.0f32);
    let (mut phase, mut half) = (0.0f32, 0.0f32);
    let mut old = vec![0.0f32; 40];
    let mut new = vec![0.0f32; 40];
    let mut voiced = Vec::with_capacity(n + FRAME);
    let mut phases = Vec::with_capacity(n + FRAME);
    let mut envelope = Vec::with_capacity(n + FRAME);
    for start in (0..n).step_by(FRAME) {
        let (u, seconds) = (start as f32 / n as f32, start as f32 / RATE);
        walk = 0.98 * walk + phonation.unsteady * normal(rng);
        drift = 0.99 * drift + 0.7 * phonation.unsteady * normal(rng);
        wobble = 0.97 * wobble + 0.03 * normal(rng);
        let hz = (contour.at(u, seconds) * (1.0 + walk)).clamp(60.0, 4_000.0);
        for (k, a) in new.iter_mut().enumerate() {
            let at = hz * (k + 1) as f32;
            *a = if at < HIGHEST { own[k] * throat.response(at, 1.0 + drift) } else { 0.0 };
        }
        if start == 0 {
            old.copy_from_slice(&new);
        }
        let level = gain(phonation.wobble * wobble)
            * (seconds / phonation.attack).min(1.0)
            * (((n - start) as f32 / RATE) / decay.min(0.4 * n as f32 / RATE)).min(1.0);
        for i in 0..FRAME {
            let t = i as f32 / FRAME as f32;
            let step = TAU * hz / RATE + phonation.jitter * (rng.random::<f32>() - 0.5);
            phase = (phase + step) % TAU;
            half = (half + step / 2.0) % TAU;
            // Sines of multiples, each from the two before.
            let twice = 2.0 * phase.cos();
            let (mut before, mut now) = (0.0, phase.sin());
            let mut sum = 0.0;
            for (a, b) in old.iter().zip(&new) {
                sum += (a + t * (b - a)) * now;
                (before, now) = (now, twice * now - before);
            }
            let rough = 1.0
                + phonation.halved * half.sin()
                + phonation.rough.0 * (TAU * phonation.rough.1 * (seconds + i as f32 / RATE)).sin();
            voiced.push(sum * rough);
            phases.push(phase);
            envelope.push(level);
        }
        std::mem::swap(&mut old, &mut new);
    }
    voiced.truncate(n);
    let mut breath: Vec<f32> = (0..n).map(|_| rng.random::<f32>() - 0.5).collect();
    let lift = throat.fall * 0.6;
    filter(planner, &mut breath, |hz| throat.response(hz, 1.0) * gain(lift * (hz.max(50.0) / 500.0).log2()));
    let beat = rng.random_range(0.0..0.9f32);
    let (v, b) = (1.0 / rms(&voiced), gain(phonation.breath_db) / rms(&breath));
    voiced
        .iter()
        .zip(&breath)
        .zip(phases.iter().zip(&envelope))
        .map(|((voice, breath), (phase, level))| {
            level * (v * voice + b * breath * (1.0 + beat * phase.cos()))
        })
        .collect()
}

/// A burst of air, drawn in or let out.
fn breath(rng: &mut StdRng, planner: &mut RealFftPlanner<f32>, n: usize, throat: &Throat) -> Vec<f32> {
    let mut x: Vec<f32> = (0..n).map(|_| rng.random::<f32>() - 0.5).collect();
    filter(planner, &mut x, |hz| throat.response(hz, 1.1) * (hz.max(50.0) / 500.0).powf(throat.fall / 6.0));
    let level = gain(rng.random_range(-26.0..-6.0)) / rms(&x);
    x.iter_mut().enumerate().for_each(|(i, x)| *x *= level * (PI * i as f32 / n as f32).sin());
    x
}

/// Whole hundredths of a second: FFTs of odd lengths are slow.
fn samples(seconds: f32) -> usize {
    ((seconds * 100.0) as usize).max(8) * 160
}

/// One to three bursts of a baby that cries, or up to eight short ones.
pub fn crying(rng: &mut StdRng, planner: &mut RealFftPlanner<f32>) -> Voice {
    let fall = if rng.random_bool(0.12) { 16.0..26.0 } else { 1.0..13.0 };
    let length = 2f32.powf(rng.random_range(-0.2..0.35));
    let throat = Throat::new(rng, length, fall);
    let own = 2f32.powf(rng.random_range(280f32.log2()..600f32.log2()));
    let staccato = rng.random_bool(0.05);
    let squeals = rng.random_bool(0.06);
    let flat = rng.random_bool(0.2);
    let rough = rng.random_bool(0.3);
    let breath_db = rng.random_range(-34.0..if rough { 3.0 } else { -12.0f32 });
    let count = if staccato { rng.random_range(3..9) } else { rng.random_range(1..4) };
    let mut voice = Voice { samples: Vec::new(), sounding: Vec::new() };
    for i in 0..count {
        if i > 0 {
            let pause =
                samples(if staccato { rng.random_range(0.08..0.3) } else { rng.random_range(0.15..0.8) });
            let at = voice.samples.len();
            voice.samples.resize(at + pause, 0.0);
            // What is heard between bursts of one breath belongs to them.
            voice.sounding.resize(at + pause, pause < 6_400);
            if rng.random_bool(0.6) {
                let long = samples(rng.random_range(0.08..0.3)).min(pause);
                let from = at + pause - long;
                let air = breath(rng, planner, long, &throat);
                voice.samples[from..].iter_mut().zip(air).for_each(|(x, a)| *x += a);
            }
        }
        let seconds =
            if staccato { rng.random_range(0.1..0.35) } else { 2f32.powf(rng.random_range(-1.3..1.3)) };
        let n = samples(seconds);
        let squeal = if squeals && rng.random_bool(0.7) { rng.random_range(1.6..2.6f32) } else { 1.0 };
        let (rise, fall) = if flat {
            (rng.random_range(0.0..0.05), rng.random_range(0.0..0.08))
        } else {
            (rng.random_range(0.0..0.45), rng.random_range(0.0..0.5))
        };
        let contour = Contour {
            hz: (own * squeal * 2f32.powf(0.12 * normal(rng).clamp(-2.0, 2.0))).clamp(230.0, 3_000.0),
            rise,
            fall,
            peak: rng.random_range(0.1..0.8),
            vibrato: (
                if rng.random_bool(0.4) { rng.random_range(0.0..0.03) } else { 0.0 },
                rng.random_range(3.0..10.0),
            ),
            broken: rng.random_bool(0.12).then(|| {
                let from = rng.random_range(0.0..0.7);
                let by = if rng.random_bool(0.6) {
                    rng.random_range(1.4..2.2)
                } else {
                    rng.random_range(0.5..0.75)
                };
                (from..from + rng.random_range(0.1..0.5), by)
            }),
        };
        let phonation = Phonation {
            breath_db: breath_db + 3.0 * normal(rng).clamp(-2.0, 2.0),
            halved: if rough && rng.random_bool(0.5) { rng.random_range(0.1..0.9) } else { 0.0 },
            rough: (
                if rough && rng.random_bool(0.5) { rng.random_range(0.1..0.9) } else { 0.0 },
                rng.random_range(15.0..110.0),
            ),
            jitter: rng.random_range(0.0..if rough { 0.25 } else { 0.06f32 }),
            unsteady: rng.random_range(0.002..0.007),
            attack: rng.random_range(0.02..0.18),
            wobble: 6.0,
        };
        let level = gain(rng.random_range(-6.0..0.0));
        let heard = burst(rng, planner, n, &throat, &contour, &phonation);
        voice.samples.extend(heard.iter().map(|x| level * x));
        voice.sounding.resize(voice.samples.len(), true);
    }
    voice
}

/// An adult or an older child that moans, calls or hums: longer throats, lower pitch, resonances that move.
pub fn adult(rng: &mut StdRng, planner: &mut RealFftPlanner<f32>) -> Vec<f32> {
    let length = 2f32.powf(rng.random_range(0.6..1.2));
    let throat = Throat::new(rng, length, 4.0..16.0);
    let own = 2f32.powf(rng.random_range(80f32.log2()..240f32.log2()));
    let breath_db = rng.random_range(-34.0..-8.0f32);
    let mut all = Vec::new();
    for i in 0..rng.random_range(1..5) {
        if i > 0 {
            let pause = samples(rng.random_range(0.05..0.6));
            all.resize(all.len() + pause, 0.0);
        }
        let n = samples(2f32.powf(rng.random_range(-2.0..1.0)));
        let contour = Contour {
            hz: own * 2f32.powf(0.2 * normal(rng).clamp(-2.0, 2.0)),
            rise: rng.random_range(0.0..0.4),
            fall: rng.random_range(0.0..0.5),
            peak: rng.random_range(0.05..0.8),
            vibrato: (if rng.random_bool(0.3) { rng.random_range(0.0..0.04) } else { 0.0 }, 5.5),
            broken: None,
        };
        let phonation = Phonation {
            breath_db,
            halved: 0.0,
            rough: (
                if rng.random_bool(0.2) { rng.random_range(0.1..0.7) } else { 0.0 },
                rng.random_range(15.0..90.0),
            ),
            jitter: rng.random_range(0.0..0.06),
            unsteady: rng.random_range(0.0005..0.006),
            attack: rng.random_range(0.02..0.15),
            wobble: 6.0,
        };
        let level = gain(rng.random_range(-8.0..0.0));
        let heard = burst(rng, planner, n, &throat, &contour, &phonation);
        all.extend(heard.iter().map(|x| level * x));
    }
    all
}

/// Horns, hooters and ringers: harmonics as a cry has them, but in chords, or in short blasts again and again, of
/// pitches that do not move at all.
pub fn horn(rng: &mut StdRng, planner: &mut RealFftPlanner<f32>) -> Vec<f32> {
    let length = 2f32.powf(rng.random_range(-0.8..1.5));
    let throat = Throat::new(rng, length, -2.0..16.0);
    let own = 2f32.powf(rng.random_range(180f32.log2()..900f32.log2()));
    let blast = Phonation {
        breath_db: rng.random_range(-60.0..-20.0),
        halved: 0.0,
        rough: (0.0, 0.0),
        jitter: 0.0,
        unsteady: 0.0,
        attack: rng.random_range(0.005..0.06),
        wobble: rng.random_range(0.0..2.0),
    };
    // A single pitch for long could be a whine as well.
    let chord = rng.random_bool(0.7);
    let ratios = [1.19, 1.26, 1.33, 1.5, rng.random_range(1.04..2.0)];
    let mut pitches = vec![own];
    if chord {
        pitches.push(own * ratios[rng.random_range(0..ratios.len())]);
        if rng.random_bool(0.3) {
            pitches.push(own * ratios[rng.random_range(0..ratios.len())]);
        }
    }
    let seconds = if chord { 2f32.powf(rng.random_range(-2.5..1.5)) } else { rng.random_range(0.08..0.3) };
    let (on, off) = (samples(seconds), samples(rng.random_range(0.05..0.5)));
    let blasts = if chord { rng.random_range(1..5) } else { rng.random_range(3..8) };
    let mut all = Vec::new();
    for _ in 0..blasts {
        let mut sum = vec![0.0; on];
        for &hz in &pitches {
            let contour = Contour { hz, rise: 0.0, fall: 0.0, peak: 0.5, vibrato: (0.0, 1.0), broken: None };
            let one = burst(rng, planner, on, &throat, &contour, &blast);
            sum.iter_mut().zip(one).for_each(|(s, x)| *s += x);
        }
        all.extend(sum);
        all.resize(all.len() + off, 0.0);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::cries::{Kind, locate};
    use rand::SeedableRng;

    type Maker = fn(&mut StdRng, &mut RealFftPlanner<f32>) -> Voice;

    fn throughout(samples: Vec<f32>) -> Voice {
        Voice { sounding: vec![true; samples.len()], samples }
    }

    #[test]
    fn voices_sound_where_they_say_are_finite_and_the_same_for_the_same_seed() {
        let planner = &mut RealFftPlanner::new();
        let makers: [Maker; 3] = [crying, |r, p| throughout(adult(r, p)), |r, p| throughout(horn(r, p))];
        for make in makers {
            for seed in 0..40 {
                let voice = make(&mut StdRng::seed_from_u64(seed), planner);
                assert_eq!(voice.samples.len(), voice.sounding.len());
                assert!(voice.samples.len() < 40 * 16_000, "{}", voice.samples.len());
                assert!(voice.samples.iter().all(|x| x.is_finite() && x.abs() < 60.0));
                let heard: Vec<f32> =
                    voice.samples.iter().zip(&voice.sounding).filter(|(_, s)| **s).map(|(x, _)| *x).collect();
                assert!(heard.len() >= 1_280 && rms(&heard) > 0.1, "{} {}", heard.len(), rms(&heard));
                assert_eq!(make(&mut StdRng::seed_from_u64(seed), planner).samples, voice.samples);
            }
        }
    }

    #[test]
    fn what_finds_crying_in_recordings_finds_it_in_most_made_voices_and_where_it_is() {
        let planner = &mut RealFftPlanner::new();
        let (mut found, mut long) = (0, 0);
        for seed in 0..60 {
            let rng = &mut StdRng::seed_from_u64(seed);
            let voice = crying(rng, planner);
            // A second of a quiet room on either side.
            let at =
                |i: usize| i.checked_sub(16_000).and_then(|i| voice.samples.get(i)).copied().unwrap_or(0.0);
            let samples: Vec<i16> = (0..voice.samples.len() + 32_000)
                .map(|i| (2_000.0 * at(i) + 20.0 * normal(rng)).clamp(-32_768.0, 32_767.0) as i16)
                .collect();
            // What is shorter than a quarter of a second is crying to nobody.
            if voice.sounding.iter().filter(|&&s| s).count() < 8_000 {
                continue;
            }
            long += 1;
            let cries: Vec<_> = locate(&samples).into_iter().filter(|s| s.kind == Kind::Cry).collect();
            found += usize::from(!cries.is_empty());
            for cry in cries {
                let sounds = (cry.start..cry.end)
                    .filter(|i| i.checked_sub(16_000).and_then(|i| voice.sounding.get(i)) == Some(&true))
                    .count();
                assert!(sounds * 10 > (cry.end - cry.start) * 6, "{seed}: {sounds} of {cry:?}");
            }
        }
        assert!(long > 40 && found * 10 > long * 7, "{found} of {long}");
    }
}
