//! Deterministic inputs, the same as those of tests/golden/signal_generator.py, and sounds that a detector must tell
//! apart.
#![allow(dead_code, reason = "each test binary uses its share")]

use std::f64::consts::TAU;
use std::path::{Path, PathBuf};

/// Hz.
pub const RATE: usize = 16_000;

/// The directory of the audio corpus beside the repository, where there is one; says so where there is none.
pub fn corpus() -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/audio");
    let there = data.join("manifest.csv").exists();
    if !there {
        eprintln!("skipped: {} is not there", data.display());
    }
    there.then_some(data)
}

/// Linear congruential generator of Numerical Recipes; values in [-1, 1) with 24 bits.
pub struct Lcg(u32);

impl Lcg {
    pub fn new(seed: u32) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(self.0 >> 8) / f64::from(1u32 << 23) - 1.0
    }

    pub fn noise(seed: u32, n: usize) -> Vec<f32> {
        let mut lcg = Self::new(seed);
        (0..n).map(|_| lcg.draw() as f32).collect()
    }
}

/// See `golden_signal` in tests/golden/signal_generator.py.
pub fn golden_signal() -> Vec<f32> {
    let mut noise = Lcg::new(1);
    (0..12 * RATE)
        .map(|i| {
            let t = i as f64 / RATE as f64;
            let sine = |hz: f64| (TAU * hz * t).sin();
            let base = 0.01 * noise.draw();
            let x = match t {
                1.0..2.5 => base + 0.1 * sine(440.0),
                2.5..5.0 if i % 6_400 < 4_000 => {
                    base + 0.2 * sine(400.0) + 0.1 * sine(1_200.0) + 0.05 * sine(3_600.0)
                }
                5.0..6.0 => 0.0,
                7.0..8.0 => base + 1.5 * sine(200.0),
                9.0..11.0 => base + 0.3 + 0.003 * sine(5_000.0),
                _ => base,
            };
            x as f32
        })
        .collect()
}

/// A small room: what a sound leaves behind decays by 60 dB in 0.3 s.
fn room(dry: &[f64]) -> Vec<f64> {
    let mut lcg = Lcg::new(77);
    let mut wet = dry.to_vec();
    // From 3 ms on an echo every 4 ms or so.
    let mut delay = 0.003;
    while delay < 0.3 {
        let gain = 0.1 * 10f64.powf(-3.0 * delay / 0.3) * lcg.draw().signum();
        let shift = (delay * RATE as f64) as usize;
        for (to, from) in wet.iter_mut().skip(shift).zip(dry) {
            *to += gain * from;
        }
        delay += 0.004 + 0.003 * lcg.draw();
    }
    wet
}

/// The sound in a room, brought to a root mean square of `dbfs`, over a faint hiss.
fn recorded(dry: &[f64], dbfs: f64) -> Vec<f32> {
    let wet = room(dry);
    let rms = (wet.iter().map(|x| x * x).sum::<f64>() / wet.len() as f64).sqrt();
    let gain = 10f64.powf(dbfs / 20.0);
    let mut hiss = Lcg::new(99);
    // The microphone's own noise, and the room's 40 dB below the sound.
    let floor = 2e-4 + 0.017 * gain;
    wet.iter().map(|x| (x * gain / rms + floor * hiss.draw()) as f32).collect()
}

/// Gain of a vocal tract with these resonances (centre, width, height) at a frequency.
fn tract(formants: &[(f64, f64, f64)], hz: f64) -> f64 {
    let resonances = formants.iter().map(|(f, width, height)| height / (1.0 + ((hz - f) / width).powi(2)));
    0.05 + resonances.sum::<f64>()
}

/// One voiced or hissing sound.
struct Sound<'a> {
    /// Samples: first, length.
    at: (usize, usize),
    /// Hz, as a function of the share of the sound that has passed.
    pitch: &'a dyn Fn(f64) -> f64,
    /// Likewise.
    loudness: &'a dyn Fn(f64) -> f64,
    /// See [`tract`].
    formants: &'a [(f64, f64, f64)],
    /// Noise beside the tone.
    noise: f64,
    /// How hoarse: the folds close badly every time, each time differently.
    rough: f64,
}

/// Adds a sound.
fn voice(out: &mut [f64], lcg: &mut Lcg, sound: &Sound<'_>) {
    let (start, length) = sound.at;
    let (mut phase, mut drift, mut beat, mut last) = (0.0f64, 0.0f64, 1.0f64, 0.0);
    let end = (start + length).min(out.len());
    for (i, x) in out.iter_mut().enumerate().take(end).skip(start) {
        let at = (i - start) as f64 / length as f64;
        let before = phase;
        phase = (phase + (sound.pitch)(at) * (1.0 + drift) / RATE as f64).fract();
        if phase < before {
            // No two beats of the vocal folds are alike, least of all in a hoarse voice.
            drift = 0.7 * drift + (0.003 + 0.01 * sound.rough) * lcg.draw();
            beat = 1.0 - sound.rough * (0.5 + 0.5 * lcg.draw());
        }
        let hz = (sound.pitch)(at);
        let highest = (7_200.0 / hz) as usize;
        let tone: f64 = (1..=highest)
            .map(|k| {
                (TAU * phase * k as f64).sin() / (k as f64).powf(0.8) * tract(sound.formants, hz * k as f64)
            })
            .sum();
        let tone = tone * beat;
        let noise = lcg.draw();
        // The difference of noise is a hiss.
        *x += (sound.loudness)(at) * (tone + sound.noise * (noise - last));
        last = noise;
    }
}

/// Rises and falls within the first and last shares of a sound.
fn envelope(at: f64, attack: f64, release: f64) -> f64 {
    (at / attack).min((1.0 - at) / release).clamp(0.0, 1.0)
}

/// Crying: bursts of about a second on the breath with a pitch that rises to some 480 Hz and falls again, energy in the
/// second and the third kilohertz, a gasp between them. Returns it at the level with the samples where each burst begins
/// and ends.
pub fn cry(seconds: usize, dbfs: f64) -> (Vec<f32>, Vec<(usize, usize)>) {
    let mut out = vec![0.0; seconds * RATE];
    let mut lcg = Lcg::new(21);
    let mut bursts = Vec::new();
    let mut at = RATE / 2;
    loop {
        let length = ((1.0 + 0.25 * lcg.draw()) * RATE as f64) as usize;
        if at + length > out.len() {
            break;
        }
        let peak = 485.0 + 45.0 * lcg.draw();
        let (onset, end, top) = (0.81 * peak, 0.72 * peak, 0.32 + 0.1 * lcg.draw());
        let tremor = 6.5 + lcg.draw();
        let seconds = length as f64 / RATE as f64;
        let glide =
            |from: f64, to: f64, x: f64| from + (to - from) * (1.0 - (std::f64::consts::PI * x).cos()) / 2.0;
        let pitch = move |at: f64| {
            let melody = if at < top {
                glide(onset, peak, at / top)
            } else {
                glide(peak, end, (at - top) / (1.0 - top))
            };
            melody * (1.0 + 0.015 * (TAU * tremor * at * seconds).sin())
        };
        let loud = move |at: f64| {
            let effort = (std::f64::consts::PI * at).sin().max(0.0).sqrt();
            envelope(at, 0.05, 0.18) * (0.6 + 0.4 * effort)
        };
        let formants =
            [(1_150.0, 300.0, 1.0), (2_950.0, 450.0, 0.8), (3_600.0, 600.0, 0.7), (5_200.0, 900.0, 0.3)];
        let burst = Sound {
            at: (at, length),
            pitch: &pitch,
            loudness: &loud,
            formants: &formants,
            noise: 0.05,
            rough: 0.5,
        };
        voice(&mut out, &mut lcg, &burst);
        bursts.push((at, at + length));
        // The gasp: a short noise in the middle of the pause.
        let pause = ((0.3 + 0.05 * lcg.draw()) * RATE as f64) as usize;
        let gasp = Sound {
            at: (at + length + pause / 3, pause / 2),
            pitch: &|_| 600.0,
            loudness: &|at| 0.02 * envelope(at, 0.3, 0.3),
            noise: 1.0,
            ..burst
        };
        voice(&mut out, &mut lcg, &gasp);
        at += length + pause;
    }
    (recorded(&out, dbfs), bursts)
}

/// Babble: four adults who talk at once, 100 to 210 Hz, four syllables a second with vowels and hissing consonants.
pub fn babble(seconds: usize, dbfs: f64) -> Vec<f32> {
    let mut out = vec![0.0; seconds * RATE];
    for (speaker, pitch) in [100.0, 120.0, 180.0, 205.0].into_iter().enumerate() {
        let mut lcg = Lcg::new(31 + speaker as u32);
        let mut at = speaker * RATE / 5;
        while at < out.len() {
            let syllables = (6.5 + 2.5 * lcg.draw()) as usize;
            for n in 0..syllables {
                let length = ((0.25 + 0.06 * lcg.draw()) * RATE as f64) as usize;
                let first = 500.0 + 220.0 * lcg.draw();
                let second = 1_500.0 + 600.0 * lcg.draw();
                let formants =
                    [(first, 80.0, 1.0), (second, 120.0, 0.5), (2_600.0, 180.0, 0.3), (3_600.0, 250.0, 0.15)];
                // Statements fall; every syllable has a small arch of its own.
                let high = pitch * (1.12 - 0.24 * n as f64 / syllables as f64);
                let tone = move |at: f64| high * (1.0 + 0.04 * (std::f64::consts::PI * at).sin());
                let vowel = Sound {
                    at: (at, length),
                    pitch: &tone,
                    loudness: &|at| envelope(at, 0.25, 0.35),
                    formants: &formants,
                    noise: 0.01,
                    rough: 0.05,
                };
                voice(&mut out, &mut lcg, &vowel);
                if lcg.draw() > 0.0 {
                    let consonant = Sound {
                        at: (at.saturating_sub(RATE / 20), RATE / 14),
                        pitch: &|_| 7_600.0,
                        loudness: &|at| 0.15 * envelope(at, 0.3, 0.3),
                        formants: &[],
                        rough: 0.0,
                        noise: 1.0,
                    };
                    voice(&mut out, &mut lcg, &consonant);
                }
                at += length;
            }
            at += ((0.6 + 0.3 * lcg.draw()) * RATE as f64) as usize;
        }
    }
    recorded(&out, dbfs)
}

/// Writes samples as 16-bit PCM.
pub fn write_wav(path: &Path, samples: &[f32]) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: RATE as u32,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::create(path, spec).unwrap();
    samples.iter().for_each(|x| wav.write_sample((x * 32_767.0) as i16).unwrap());
    wav.finalize().unwrap();
}
