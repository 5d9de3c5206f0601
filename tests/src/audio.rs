//! Audio for the tests, all of it 16 kHz mono: a rendered cry, faint room noise, recordings of the corpus where
//! it is at hand, and WAV files.

use std::{
    f32::consts::TAU,
    fs,
    path::{Path, PathBuf},
};

/// Samples per second of everything here.
pub const RATE: u32 = 16_000;

/// Faint noise of a quiet room, about -66 dBFS.
pub fn room_noise(seconds: f32) -> Vec<i16> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..samples(seconds)).map(|_| random.i16(-28..=28)).collect()
}

fn samples(seconds: f32) -> usize {
    (seconds * RATE as f32) as usize
}

/// A rendered cry: bursts of about a second with short breaths between them. A hoarse voice whose pitch rises
/// quickly to about 500 Hz and falls slowly, with the resonances of a small mouth.
pub fn cry(seconds: f32) -> Vec<i16> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut wave: Vec<f32> = Vec::with_capacity(samples(seconds));
    while wave.len() < samples(seconds) {
        burst(&mut random, &mut wave);
        let breath = samples(0.2 + 0.15 * random.f32());
        wave.extend((0..breath).map(|_| (random.f32() - 0.5) * 0.02));
    }
    wave.truncate(samples(seconds));
    let peak = wave.iter().fold(1e-6_f32, |m, s| m.max(s.abs()));
    wave.iter().map(|s| (s / peak * 0.6 * 32767.0) as i16).collect()
}

fn burst(random: &mut fastrand::Rng, wave: &mut Vec<f32>) {
    let length = samples(0.8 + 0.4 * random.f32());
    let top = 440.0 + 100.0 * random.f32();
    let (summit, hoarse) = (0.2 + 0.25 * random.f32(), 0.1 + 0.5 * random.f32());
    let (mut phase, mut jitter, mut beat) = (0.0_f32, 0.0, 1.0);
    for i in 0..length {
        let (x, t) = (i as f32 / length as f32, i as f32 / RATE as f32);
        let effort = (std::f32::consts::PI * x).sin().sqrt();
        let melody = match x < summit {
            true => 0.8 + 0.2 * (x / summit),
            false => 1.0 - 0.28 * (x - summit) / (1.0 - summit),
        };
        let pitch = top * melody * (1.0 + 0.015 * (TAU * 6.5 * t).sin()) * (1.0 + jitter);
        let before = phase;
        phase = (phase + pitch / RATE as f32).fract();
        if phase < before {
            // No two beats of the vocal folds are alike.
            jitter = 0.7 * jitter + 0.015 * hoarse * (random.f32() - 0.5);
            beat = 1.0 - hoarse * effort * random.f32();
        }
        let voice: f32 = (1..=16)
            .map(|k| k as f32)
            .filter(|k| k * pitch < 7200.0)
            .map(|k| (TAU * k * phase).sin() * resonance(k * pitch) * k.powf(-0.8))
            .sum();
        let loudness = (t / 0.05).min(1.0) * ((1.0 - x) / 0.18).min(1.0) * (0.6 + 0.4 * effort);
        wave.push(loudness * (beat * voice + 0.1 * (random.f32() - 0.5)));
    }
}

fn resonance(frequency: f32) -> f32 {
    let one = |centre: f32, width: f32, gain: f32| gain / (1.0 + ((frequency - centre) / width).powi(2));
    0.1 + one(1150.0, 300.0, 1.0)
        + one(2950.0, 450.0, 0.8)
        + one(3600.0, 600.0, 0.7)
        + one(5200.0, 900.0, 0.3)
}

/// The directory of the audio corpus, where there is one: `NURSERY_AUDIO`, or `shared/audio` beside the
/// workspace.
pub fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/audio");
    let dir = std::env::var_os("NURSERY_AUDIO").map_or(beside, PathBuf::from);
    dir.join("manifest.csv").is_file().then_some(dir)
}

/// Loud, verified recordings of crying out of the corpus' split `dev`, at most `count`; `None` without the
/// corpus.
pub fn corpus_cries(count: usize) -> Option<Vec<PathBuf>> {
    let dir = corpus()?;
    let manifest = fs::read_to_string(dir.join("manifest.csv")).expect("read the manifest");
    let mut rows = manifest.lines().map(split_csv);
    let header = rows.next()?;
    let column = |name: &str| header.iter().position(|h| h == name).expect("a column of the manifest");
    let (path, is_cry, split, rms, voiced, quality) = (
        column("path"),
        column("is_cry"),
        column("split"),
        column("rms_dbfs"),
        column("voiced_fraction"),
        column("label_quality"),
    );
    let number = |text: &str| text.parse().unwrap_or(f32::MIN);
    Some(
        rows.filter(|r| r[is_cry] == "1" && r[split] == "dev" && r[quality] == "verified")
            .filter(|r| number(&r[rms]) > -25.0 && number(&r[voiced]) > 0.4)
            .map(|r| dir.join(&r[path]))
            .take(count)
            .collect(),
    )
}

fn split_csv(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            // The list never becomes empty.
            c => fields.last_mut().expect("a field").push(c),
        }
    }
    fields
}

/// Decodes a recording of 16 kHz mono.
pub fn decode(path: &Path) -> Vec<i16> {
    use rodio::Source;
    let file = fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let decoder = rodio::Decoder::try_from(file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!((decoder.sample_rate().get(), decoder.channels().get()), (RATE, 1), "{}", path.display());
    decoder.map(|s| (s.clamp(-1.0, 1.0) * 32767.0) as i16).collect()
}

/// Writes a 16-bit mono WAV file of [`RATE`].
pub fn write_wav(path: &Path, pcm: &[i16]) {
    let data = (pcm.len() * 2) as u32;
    let mut bytes = Vec::with_capacity(44 + pcm.len() * 2);
    bytes.extend_from_slice(b"RIFF");
    bytes.extend_from_slice(&(36 + data).to_le_bytes());
    bytes.extend_from_slice(b"WAVEfmt ");
    bytes.extend_from_slice(&16_u32.to_le_bytes());
    for field in [1_u16, 1] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend_from_slice(&RATE.to_le_bytes());
    bytes.extend_from_slice(&(RATE * 2).to_le_bytes());
    for field in [2_u16, 16] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend_from_slice(b"data");
    bytes.extend_from_slice(&data.to_le_bytes());
    for sample in pcm {
        bytes.extend_from_slice(&sample.to_le_bytes());
    }
    fs::write(path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
