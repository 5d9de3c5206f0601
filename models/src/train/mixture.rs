//! Makes training examples without end: crying and cry-like sounds in rooms, over backgrounds and noise
//! machines, through microphones, equalisers and telephone codecs, each with a target for every score frame.
//! Cries and everything else pass the same channels, so the channel says nothing about the cry.

use super::corpus::{Clip, Corpus};
use super::cries::Kind;
use super::signal::{self, gain, rms};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use realfft::RealFftPlanner;
use std::collections::BTreeMap;

/// Classes most easily taken for crying; they stand in front more often than others.
const HARD: &[&str] = &[
    "adult_cry",
    "alarm",
    "animal",
    "beep",
    "birds",
    "cat",
    "child_play",
    "child_speech",
    "cough",
    "dog",
    "laugh",
    "moan",
    "mouth_sound",
    "music",
    "music_box",
    "phone_bg",
    "phone_ring",
    "rooster",
    "scream",
    "singing",
    "siren",
    "sneeze",
    "speech",
    "squeak",
    "toy",
    "whistle",
];

/// What one sample holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Other,
    Cry,
    Unsure,
}

/// One window of training material.
#[derive(Debug, Clone)]
pub struct Example {
    /// One window of samples.
    pub samples: Vec<f32>,
    /// 1 where a score frame is crying.
    pub targets: Vec<f32>,
    /// How much each score frame counts.
    pub weights: Vec<f32>,
    /// dB of the crying over what else is heard, if there is crying.
    pub ratio_db: Option<f32>,
}

/// A sound to be placed into a window.
struct Sound {
    samples: Vec<f32>,
    marks: Vec<Mark>,
}

/// Sources of cries, each with its recordings, each with (clip, first sample, last sample) of its cries.
type Cries = Vec<Vec<Vec<(usize, usize, usize)>>>;

/// Draws examples from a corpus.
pub struct Mixer<'a> {
    corpus: &'a Corpus,
    window: usize,
    step: usize,
    cries: Cries,
    /// Clips without crying by class, then by recording.
    others: BTreeMap<&'a str, Vec<Vec<usize>>>,
    hard: Vec<&'a str>,
    planner: RealFftPlanner<f32>,
}

impl<'a> Mixer<'a> {
    /// `window` samples per example, `step` samples per score frame.
    ///
    /// # Errors
    /// A corpus without crying or without anything else.
    pub fn new(corpus: &'a Corpus, window: usize, step: usize) -> Result<Self, String> {
        let mut cries: BTreeMap<&str, BTreeMap<&str, Vec<_>>> = BTreeMap::new();
        let mut others: BTreeMap<&str, BTreeMap<&str, Vec<usize>>> = BTreeMap::new();
        for (i, clip) in corpus.clips.iter().enumerate() {
            if clip.is_cry {
                for s in clip.stretches.iter().filter(|s| s.kind == Kind::Cry) {
                    let groups = cries.entry(&clip.source).or_default();
                    groups.entry(&clip.group).or_default().push((i, s.start, s.end));
                }
            } else if clip.samples.len() >= 800 {
                others.entry(&clip.class).or_default().entry(&clip.group).or_default().push(i);
            }
        }
        if cries.is_empty() || others.is_empty() {
            return Err("the corpus needs clips with crying and clips without".into());
        }
        let others: BTreeMap<&str, Vec<Vec<usize>>> =
            others.into_iter().map(|(class, groups)| (class, groups.into_values().collect())).collect();
        Ok(Self {
            corpus,
            window,
            step,
            cries: cries.into_values().map(|groups| groups.into_values().collect()).collect(),
            hard: HARD.iter().copied().filter(|c| others.contains_key(c)).collect(),
            others,
            planner: RealFftPlanner::new(),
        })
    }

    /// Bouts of crying that examples are drawn from.
    pub fn cry_count(&self) -> usize {
        self.cries.iter().flatten().map(Vec::len).sum()
    }

    /// The example of this seed; the same seed gives the same example.
    pub fn example(&mut self, seed: u64) -> Example {
        let rng = &mut StdRng::seed_from_u64(seed);
        let n = self.window;
        let mut mix = self.background(rng);
        let mut marks = vec![Mark::Other; n];
        let cry = rng.random_bool(0.5);
        let mut ratio_db = None;
        if rng.random_bool(if cry { 0.2 } else { 0.75 }) {
            let other = self.other_sound(rng);
            let db = rng.random_range(-6.0..25.0);
            self.place(rng, &mut mix, &mut marks, other, db);
        }
        if cry {
            let count = if rng.random_bool(0.2) { 2 } else { 1 };
            let db = rng.random_range(-9.0..22.0f32);
            for _ in 0..count {
                let sound = self.cry(rng);
                self.place(rng, &mut mix, &mut marks, sound, db);
            }
            ratio_db = Some(db);
        }
        self.channel(rng, &mut mix);
        // Camera just connected: nothing before.
        if rng.random_bool(0.08) {
            let cut = rng.random_range(0..n * 5 / 6);
            mix[..cut].fill(0.0);
            marks[..cut].fill(Mark::Other);
        }
        let (targets, weights) = self.targets(&marks);
        Example { samples: mix, targets, weights, ratio_db }
    }

    fn targets(&self, marks: &[Mark]) -> (Vec<f32>, Vec<f32>) {
        let frames = marks.len() / self.step;
        marks
            .chunks_exact(self.step)
            .enumerate()
            .map(|(i, part)| {
                let share =
                    |mark: Mark| part.iter().filter(|&&m| m == mark).count() as f32 / part.len() as f32;
                let (cry, unsure) = (share(Mark::Cry), share(Mark::Unsure));
                // The first second lacks context and the last frames a future: in service neither is scored.
                let place = if i < frames / 3 {
                    0.35
                } else if i + 3 > frames {
                    0.5
                } else {
                    1.0
                };
                let clear = if unsure > 0.3 {
                    0.0
                } else if (0.15..0.85).contains(&cry) {
                    0.4
                } else {
                    1.0
                };
                (if cry >= 0.5 { 1.0 } else { 0.0 }, place * clear)
            })
            .unzip()
    }

    /// A recorded background or a noise machine, both, or a quiet room; about unit level at most.
    fn background(&mut self, rng: &mut StdRng) -> Vec<f32> {
        let n = self.window;
        match rng.random_range(0..100) {
            0..28 => signal::machine(rng, &mut self.planner, n),
            28..36 => signal::drone(rng, &mut self.planner, n),
            36..45 => {
                let mut x = signal::machine(rng, &mut self.planner, n);
                let level = gain(rng.random_range(-15.0..-3.0));
                let bed = self.bed(rng);
                x.iter_mut().zip(&bed).for_each(|(x, b)| *x += level * b);
                x
            }
            45..82 => self.bed(rng),
            _ => {
                let slope = rng.random_range(0.0..2.0);
                let mut x = signal::noise(rng, &mut self.planner, n, slope);
                let level = gain(rng.random_range(-45.0..-10.0));
                x.iter_mut().for_each(|x| *x *= level);
                x
            }
        }
    }

    /// A window of one recording without crying, repeated if it is short, with unit level.
    fn bed(&mut self, rng: &mut StdRng) -> Vec<f32> {
        let clip = self.other_clip(rng, 0.35);
        let total = clip.samples.len();
        let start = rng.random_range(0..total);
        let mut x: Vec<f32> =
            (0..self.window).map(|i| f32::from(clip.samples[(start + i) % total]) / 32_768.0).collect();
        let level = rms(&x);
        let scale = 1.0 / level.max(gain(-65.0));
        x.iter_mut().for_each(|x| *x *= scale);
        if rng.random_bool(0.25) {
            let speed = rng.random_range(0.75..1.3f32);
            let mut moved = signal::resample(&x, speed);
            while moved.len() < self.window {
                let again = moved.len().min(self.window - moved.len());
                moved.extend_from_within(..again);
            }
            moved.truncate(self.window);
            x = moved;
        }
        x
    }

    fn other_clip(&self, rng: &mut StdRng, hard_share: f64) -> &'a Clip {
        let hard = !self.hard.is_empty() && rng.random_bool(hard_share);
        let classes = self.others.len();
        let groups = if hard {
            self.others.get(self.hard[rng.random_range(0..self.hard.len())])
        } else {
            self.others.values().nth(rng.random_range(0..classes))
        };
        let clip = groups.map_or(0, |groups| {
            let group = &groups[rng.random_range(0..groups.len())];
            group[rng.random_range(0..group.len())]
        });
        &self.corpus.clips[clip]
    }

    /// A piece of a clip as samples, with marks from its stretches.
    fn piece(&self, clip: &Clip, start: usize, end: usize) -> Sound {
        let end = end.min(clip.samples.len());
        let start = start.min(end);
        let samples = clip.samples[start..end].iter().map(|&x| f32::from(x) / 32_768.0).collect();
        let mut marks = vec![Mark::Other; end - start];
        for s in &clip.stretches {
            let (a, b) = (s.start.clamp(start, end), s.end.clamp(start, end));
            let mark = if s.kind == Kind::Cry { Mark::Cry } else { Mark::Unsure };
            marks[a - start..b - start].fill(mark);
        }
        Sound { samples, marks }
    }

    fn fade(sound: &mut Sound) {
        let n = (320).min(sound.samples.len() / 2);
        let total = sound.samples.len();
        for i in 0..n {
            let ramp = (i as f32 / n as f32 * std::f32::consts::FRAC_PI_2).sin().powi(2);
            sound.samples[i] *= ramp;
            sound.samples[total - 1 - i] *= ramp;
        }
    }

    fn shift(sound: &mut Sound, speed: f32) {
        let samples = signal::resample(&sound.samples, speed);
        let last = sound.marks.len().saturating_sub(1);
        let marks = (0..samples.len())
            .map(|i| sound.marks.get(((i as f32 * speed) as usize).min(last)).copied().unwrap_or(Mark::Other))
            .collect();
        *sound = Sound { samples, marks };
    }

    /// A bout of crying cut out of its clip, or with what surrounds it.
    fn cry(&mut self, rng: &mut StdRng) -> Sound {
        let source = &self.cries[rng.random_range(0..self.cries.len())];
        // A source with few recordings would be learned by heart.
        let source = if source.len() < 5 && rng.random_bool(0.8) {
            self.cries.iter().max_by_key(|s| s.len()).unwrap_or(source)
        } else {
            source
        };
        let group = &source[rng.random_range(0..source.len())];
        let (clip, start, end) = group[rng.random_range(0..group.len())];
        let clip = &self.corpus.clips[clip];
        let mut sound = if rng.random_bool(0.6) {
            self.piece(clip, start, end)
        } else {
            let before = rng.random_range(0..self.window);
            let first = start.saturating_sub(before);
            self.piece(clip, first, first + self.window * 3 / 2)
        };
        if rng.random_bool(0.5) {
            Self::shift(&mut sound, rng.random_range(0.85..1.2));
        }
        self.treat(rng, &mut sound);
        sound
    }

    /// Some other sound, often moved into the pitch range of crying.
    fn other_sound(&mut self, rng: &mut StdRng) -> Sound {
        if rng.random_bool(0.1) {
            let length = rng.random_range(8_000..self.window * 3 / 2);
            let samples = signal::signal(rng, length);
            let mut sound = Sound { marks: vec![Mark::Other; samples.len()], samples };
            self.treat(rng, &mut sound);
            return sound;
        }
        let clip = self.other_clip(rng, 0.75);
        let length = rng.random_range(8_000..self.window * 3 / 2);
        let start = rng.random_range(0..clip.samples.len().saturating_sub(length).max(1));
        let mut sound = self.piece(clip, start, start + length);
        if rng.random_bool(0.6) {
            Self::shift(&mut sound, rng.random_range(0.7..1.6));
        }
        self.treat(rng, &mut sound);
        sound
    }

    /// Recording and room of one sound alone.
    fn treat(&mut self, rng: &mut StdRng, sound: &mut Sound) {
        Self::fade(sound);
        let x = &mut sound.samples;
        if x.len() < 1_600 {
            return;
        }
        let scale = 0.1 / rms(x);
        x.iter_mut().for_each(|x| *x *= scale);
        // FFTs of odd lengths are slow: work on whole hundredths of a second.
        let padded = x.len().div_ceil(800) * 800;
        x.resize(padded, 0.0);
        sound.marks.resize(padded, Mark::Other);
        if rng.random_bool(0.3) {
            let range = rng.random_range(2.0..9.0);
            signal::colour(rng, &mut self.planner, x, range);
        }
        if rng.random_bool(0.22) {
            signal::codec(rng, &mut self.planner, x);
        }
        if rng.random_bool(0.12) {
            signal::telephone(rng, &mut self.planner, x);
        }
        if rng.random_bool(0.5) {
            let rt60 = rng.random_range(0.15..0.9);
            signal::reverberate(rng, &mut self.planner, x, rt60);
        }
    }

    /// Adds a sound at a random place, `db` over what is there.
    fn place(&mut self, rng: &mut StdRng, mix: &mut [f32], marks: &mut [Mark], sound: Sound, db: f32) {
        let (n, len) = (mix.len() as i64, sound.samples.len() as i64);
        if len < 1_600 {
            return;
        }
        // At least 0.3 s of it lie in the window.
        let keep = 4_800.min(len);
        let at = rng.random_range(keep - len..n - keep + 1);
        let first = (-at).max(0) as usize;
        let last = (n - at).min(len) as usize;
        let to = (at + first as i64) as usize;
        let span = to..to + (last - first);
        let (samples, sound_marks) = (&sound.samples[first..last], &sound.marks[first..last]);
        // Level of the crying itself where there is some, and of the background under it.
        let has_cry = sound.marks.contains(&Mark::Cry);
        let heard: Vec<f32> = sound
            .samples
            .iter()
            .zip(&sound.marks)
            .filter(|(_, m)| !has_cry || **m == Mark::Cry)
            .map(|(x, _)| *x)
            .collect();
        let level = rms(&mix[span.clone()]).max(gain(-45.0)) * gain(db) / rms(&heard).max(1e-5);
        for ((to, mark), (x, m)) in
            mix[span.clone()].iter_mut().zip(&mut marks[span]).zip(samples.iter().zip(sound_marks))
        {
            *to += level * x;
            if *m == Mark::Cry || (*m == Mark::Unsure && *mark == Mark::Other) {
                *mark = *m;
            }
        }
    }

    /// Microphone, transmission and level of the whole.
    fn channel(&mut self, rng: &mut StdRng, mix: &mut [f32]) {
        let scale = 0.1 / rms(mix);
        mix.iter_mut().for_each(|x| *x *= scale);
        if rng.random_bool(0.55) {
            let range = rng.random_range(1.0..8.0);
            signal::colour(rng, &mut self.planner, mix, range);
        }
        if rng.random_bool(0.08) {
            signal::codec(rng, &mut self.planner, mix);
        }
        // Automatic gain of a cheap microphone: the level drifts.
        if rng.random_bool(0.15) {
            let (a, b) = (rng.random_range(-6.0..6.0f32), rng.random_range(-6.0..6.0f32));
            let n = mix.len() as f32;
            mix.iter_mut().enumerate().for_each(|(i, x)| *x *= gain(a + (b - a) * i as f32 / n));
        }
        let level = gain(rng.random_range(-60.0..-6.0)) / rms(mix);
        mix.iter_mut().for_each(|x| *x = (*x * level).clamp(-1.0, 1.0));
        if rng.random_bool(0.35) {
            let floor = gain(rng.random_range(-85.0..-60.0));
            mix.iter_mut().for_each(|x| *x += floor * 3.4 * (rng.random::<f32>() - 0.5));
        }
        if rng.random_bool(0.25) {
            signal::telephone(rng, &mut self.planner, mix);
        }
        // 16 bits.
        mix.iter_mut().for_each(|x| *x = (*x * 32_767.0).round().clamp(-32_768.0, 32_767.0) / 32_768.0);
    }
}
