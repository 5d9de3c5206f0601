//! Makes training examples without end: crying and cry-like sounds in rooms, over backgrounds and noise
//! machines, through microphones, equalisers and telephone codecs, each with a target for every score frame.
//! Cries and everything else pass the same channels, so the channel says nothing about the cry.

use super::corpus::{Clip, Corpus};
use super::cries::Kind;
use super::signal::{self, gain, rms};
use super::voice;
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
    "crowd",
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
    "snoring",
    "speech",
    "squeak",
    "toy",
    "whistle",
];

/// How much a frame of made crying counts: it shows what else might be crying, but recordings decide what surely is.
const MADE_WEIGHT: f32 = 0.35;

/// Machine noises that are made once and drawn from, and their length in samples.
const MACHINES: (usize, usize) = (120, 320_000);

/// What one sample holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Other,
    Cry,
    /// Crying that was made, not recorded.
    Made,
    Unsure,
}

/// One stretch of training material.
#[derive(Debug, Clone)]
pub struct Example {
    /// As many samples as were asked for.
    pub samples: Vec<f32>,
    /// 1 where a score frame is crying.
    pub targets: Vec<f32>,
    /// How much each score frame counts.
    pub weights: Vec<f32>,
    /// dB of the crying over what else is heard, if there is crying.
    pub ratio_db: Option<f32>,
}

/// A sound to be placed into an example.
struct Sound {
    samples: Vec<f32>,
    marks: Vec<Mark>,
}

/// Sources of cries, each with its recordings, each with (clip, first sample, last sample) of its cries.
type Cries = Vec<Vec<Vec<(usize, usize, usize)>>>;

/// How loud what is placed into an example is, dB over what is there.
struct Levels {
    cry: std::ops::Range<f32>,
    other: std::ops::Range<f32>,
}

/// Draws examples from a corpus.
pub struct Mixer<'a> {
    corpus: &'a Corpus,
    length: usize,
    step: usize,
    cries: Cries,
    /// Clips without crying by class, then by recording.
    others: BTreeMap<&'a str, Vec<Vec<usize>>>,
    hard: Vec<&'a str>,
    /// Made when they are first drawn.
    machines: Vec<Vec<f32>>,
    /// Clips that the model itself took for crying, with the running sum of their weights.
    mined: Vec<(usize, f32)>,
    /// Share of cries that are made.
    made: f64,
    planner: RealFftPlanner<f32>,
}

impl<'a> Mixer<'a> {
    /// `length` samples per example, `step` samples per score frame.
    ///
    /// # Errors
    /// A corpus without crying or without anything else.
    pub fn new(corpus: &'a Corpus, length: usize, step: usize) -> Result<Self, String> {
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
            length,
            step,
            cries: cries.into_values().map(|groups| groups.into_values().collect()).collect(),
            hard: HARD.iter().copied().filter(|c| others.contains_key(c)).collect(),
            others,
            machines: vec![Vec::new(); MACHINES.0],
            mined: Vec::new(),
            made: 0.0,
            planner: RealFftPlanner::new(),
        })
    }

    /// With this share of the crying made instead of recorded (0 to 1), and adults and horns made against it.
    pub fn with_made(self, made: f64) -> Self {
        Self { made: made.clamp(0.0, 1.0), ..self }
    }

    /// Bouts of crying that examples are drawn from.
    pub fn cry_count(&self) -> usize {
        self.cries.iter().flatten().map(Vec::len).sum()
    }

    /// Clips (by index in the corpus) that the model takes for crying, with how much: they are heard more often.
    pub fn set_mined(&mut self, clips: &[(usize, f32)]) {
        let mut sum = 0.0;
        self.mined = clips
            .iter()
            .filter(|(i, w)| *w > 0.0 && self.corpus.clips.get(*i).is_some_and(|c| !c.is_cry))
            .map(|&(i, w)| {
                sum += w;
                (i, sum)
            })
            .collect();
    }

    /// The example of this seed; the same seed gives the same example, as long as the mined clips are the same.
    pub fn example(&mut self, seed: u64) -> Example {
        let rng = &mut StdRng::seed_from_u64(seed);
        let n = self.length;
        let mut marks = vec![Mark::Other; n];
        let (mut mix, levels, busy) = self.scene(rng);
        // Far more happens than in any night, so that each second teaches something; calibration tells the network
        // afterwards how rare crying is.
        let cry = rng.random_bool(0.65);
        for _ in 0..rng.random_range(if busy { 1..5 } else { 0..4 }) {
            if rng.random_bool(if cry { 0.5 } else { 0.85 }) {
                let other = self.other_sound(rng);
                let db = rng.random_range(levels.other.clone());
                self.place(rng, &mut mix, &mut marks, other, db);
            }
        }
        let mut ratio_db = None;
        if cry {
            let count = match rng.random_range(0..10) {
                0..4 => 1,
                4..8 => 2,
                _ => rng.random_range(3..6),
            };
            let db = rng.random_range(levels.cry.clone());
            for _ in 0..count {
                let sound = self.cry(rng);
                self.place(rng, &mut mix, &mut marks, sound, db);
            }
            ratio_db = Some(db);
        }
        self.channel(rng, &mut mix);
        // Camera just connected: nothing before.
        if rng.random_bool(0.06) {
            let cut = rng.random_range(0..n * 5 / 6);
            mix[..cut].fill(0.0);
            marks[..cut].fill(Mark::Other);
        }
        let (targets, weights) = self.targets(&marks);
        Example { samples: mix, targets, weights, ratio_db }
    }

    fn targets(&self, marks: &[Mark]) -> (Vec<f32>, Vec<f32>) {
        let first_second = 16_000 / self.step;
        marks
            .chunks_exact(self.step)
            .enumerate()
            .map(|(i, part)| {
                let share =
                    |mark: Mark| part.iter().filter(|&&m| m == mark).count() as f32 / part.len() as f32;
                let made = share(Mark::Made);
                let (cry, unsure) = (share(Mark::Cry) + made, share(Mark::Unsure));
                let sure = if made > 0.0 { MADE_WEIGHT } else { 1.0 };
                // In the first second after a start nobody can know much yet.
                let place = if i < first_second { 0.35 } else { 1.0 };
                let clear = if unsure > 0.3 {
                    0.0
                } else if (0.15..0.85).contains(&cry) {
                    0.4
                } else {
                    1.0
                };
                (if cry >= 0.5 { 1.0 } else { 0.0 }, place * clear * sure)
            })
            .unzip()
    }

    /// What is heard all the time, at about unit level or, in a quiet room, far below; how loud things in front of it
    /// are; and whether many things happen.
    fn scene(&mut self, rng: &mut StdRng) -> (Vec<f32>, Levels, bool) {
        let n = self.length;
        let lively = Levels { cry: -9.0..18.0, other: -6.0..18.0 };
        match rng.random_range(0..100) {
            0..25 => (self.machine(rng), lively, false),
            25..38 => {
                let mut x = self.machine(rng);
                let level = gain(rng.random_range(-15.0..-3.0));
                let bed = self.bed(rng);
                x.iter_mut().zip(&bed).for_each(|(x, b)| *x += level * b);
                (x, lively, false)
            }
            38..75 => (self.bed(rng), lively, false),
            _ => {
                let mut x = if rng.random_bool(0.5) {
                    self.machine(rng)
                } else {
                    let slope = rng.random_range(0.0..2.0);
                    signal::noise(rng, &mut self.planner, n, slope)
                };
                if let Some(rooms) = self.others.get("roomtone").filter(|_| rng.random_bool(0.4)) {
                    let group = &rooms[rng.random_range(0..rooms.len())];
                    let clip = &self.corpus.clips[group[rng.random_range(0..group.len())]];
                    let tone = Self::excerpt(rng, clip, n);
                    x.iter_mut().zip(&tone).for_each(|(x, t)| *x = 0.5 * *x + t);
                }
                (x, Levels { cry: 3.0..42.0, other: 8.0..46.0 }, true)
            }
        }
    }

    /// A noise machine, a fan or a drone, its level slowly changing at times.
    fn machine(&mut self, rng: &mut StdRng) -> Vec<f32> {
        let number = rng.random_range(0..self.machines.len());
        if self.machines[number].is_empty() {
            let own = &mut StdRng::seed_from_u64(0x6d61_6368 + number as u64);
            self.machines[number] = match number % 5 {
                0 => signal::drone(own, &mut self.planner, MACHINES.1),
                _ => signal::machine(own, &mut self.planner, MACHINES.1),
            };
        }
        let machine = &self.machines[number];
        let start = rng.random_range(0..machine.len().saturating_sub(self.length).max(1));
        let mut x: Vec<f32> = machine.iter().cycle().skip(start).take(self.length).copied().collect();
        if rng.random_bool(0.4) {
            signal::drift(rng, &mut x, 6.0);
        }
        if rng.random_bool(0.4) {
            let range = rng.random_range(2.0..9.0);
            signal::colour(rng, &mut self.planner, &mut x, range);
        }
        x
    }

    /// `n` samples of one clip from a random place on, repeated if it is short, at unit level.
    fn excerpt(rng: &mut StdRng, clip: &Clip, n: usize) -> Vec<f32> {
        let total = clip.samples.len().max(1);
        let start = rng.random_range(0..total);
        let mut x: Vec<f32> =
            clip.samples.iter().cycle().skip(start).take(n).map(|&x| f32::from(x) / 32_768.0).collect();
        x.resize(n, 0.0);
        let scale = 1.0 / rms(&x).max(gain(-65.0));
        x.iter_mut().for_each(|x| *x *= scale);
        x
    }

    /// Recordings of one class without crying, one after the other with crossfades, each at unit level.
    fn bed(&mut self, rng: &mut StdRng) -> Vec<f32> {
        const FADE: usize = 4_000;
        let n = self.length;
        let first = self.other_clip(rng, 0.45);
        // One recording over and over, or several of its class.
        let class = self.others.get(first.class.as_str()).filter(|_| rng.random_bool(0.6));
        let speed = if rng.random_bool(0.3) { rng.random_range(0.75..1.35f32) } else { 1.0 };
        let mut x = vec![0.0; n];
        let (mut at, mut clip) = (0usize, first);
        let mut skip = rng.random_range(0..(clip.samples.len() / 2).max(1));
        while at < n {
            let end = clip.samples.len().min(skip + (n as f32 * speed) as usize + FADE);
            let mut part: Vec<f32> =
                clip.samples[skip..end].iter().map(|&x| f32::from(x) / 32_768.0).collect();
            if speed != 1.0 {
                part = signal::resample(&part, speed);
            }
            part.resize(part.len().max(3 * FADE), 0.0);
            let scale = (1.0 / rms(&part)).min(gain(60.0));
            let last = part.len() - FADE;
            for (i, value) in part.iter().enumerate() {
                let Some(to) = x.get_mut(at + i) else { break };
                let fade_in = if at > 0 && i < FADE { i as f32 / FADE as f32 } else { 1.0 };
                let fade_out = if i >= last { (part.len() - i) as f32 / FADE as f32 } else { 1.0 };
                *to += scale * value * (fade_in * fade_out).sqrt();
            }
            at += last;
            skip = 0;
            if let Some(groups) = class {
                let group = &groups[rng.random_range(0..groups.len())];
                clip = &self.corpus.clips[group[rng.random_range(0..group.len())]];
            }
        }
        let scale = 1.0 / rms(&x).max(gain(-40.0));
        x.iter_mut().for_each(|x| *x *= scale);
        x
    }

    fn other_clip(&self, rng: &mut StdRng, hard_share: f64) -> &'a Clip {
        if let Some(&(_, total)) = self.mined.last()
            && rng.random_bool(0.12)
        {
            let at = rng.random_range(0.0..total);
            let chosen = self.mined.partition_point(|&(_, sum)| sum <= at).min(self.mined.len() - 1);
            return &self.corpus.clips[self.mined[chosen].0];
        }
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

    /// Clip, first and last sample of a bout of crying.
    fn bout(&self, rng: &mut StdRng) -> (&'a Clip, usize, usize) {
        let source = &self.cries[rng.random_range(0..self.cries.len())];
        // A source with few recordings would be learned by heart.
        let source = if source.len() < 5 && rng.random_bool(0.9) {
            self.cries.iter().max_by_key(|s| s.len()).unwrap_or(source)
        } else {
            source
        };
        let group = &source[rng.random_range(0..source.len())];
        let (clip, start, end) = group[rng.random_range(0..group.len())];
        (&self.corpus.clips[clip], start, end)
    }

    /// A bout of crying cut out of its clip, or with what surrounds it; or a made one.
    fn cry(&mut self, rng: &mut StdRng) -> Sound {
        if self.made > 0.0 && rng.random_bool(self.made) {
            let made = voice::crying(rng, &mut self.planner);
            let marks = made.sounding.iter().map(|&s| if s { Mark::Made } else { Mark::Other }).collect();
            let mut sound = Sound { samples: made.samples, marks };
            self.treat(rng, &mut sound);
            return sound;
        }
        let (clip, start, end) = self.bout(rng);
        let mut sound = if rng.random_bool(0.65) {
            // A part of a long bout begins as suddenly as a short one.
            let most = rng.random_range(16_000..100_000usize);
            let first = if end - start > most { rng.random_range(start..end - most) } else { start };
            self.piece(clip, first, end.min(first + most))
        } else {
            let before = rng.random_range(0..48_000);
            let first = start.saturating_sub(before);
            self.piece(clip, first, first + 72_000)
        };
        // Babies differ more than the few hundred that were recorded: in pitch, in its course, and in timbre.
        if rng.random_bool(0.75) {
            let speed = rng.random_range(0.74..1.35f32);
            let depth = if rng.random_bool(0.6) { rng.random_range(0.0..0.05) } else { 1e-6 };
            let (samples, places) = signal::wander(rng, &sound.samples, speed, depth);
            let marks = places.iter().map(|&p| sound.marks.get(p).copied().unwrap_or(Mark::Other)).collect();
            sound = Sound { samples, marks };
        }
        if rng.random_bool(0.5) {
            let padded = sound.samples.len().div_ceil(1_600) * 1_600;
            sound.samples.resize(padded, 0.0);
            sound.marks.resize(padded, Mark::Other);
            let range = rng.random_range(3.0..11.0);
            signal::colour(rng, &mut self.planner, &mut sound.samples, range);
        }
        self.treat(rng, &mut sound);
        sound
    }

    /// Some other sound, often moved into the pitch range of crying.
    fn other_sound(&mut self, rng: &mut StdRng) -> Sound {
        let length = rng.random_range(8_000..80_000usize);
        match rng.random_range(0..100) {
            0..8 => {
                let samples = signal::signal(rng, length);
                let mut sound = Sound { marks: vec![Mark::Other; samples.len()], samples };
                self.treat(rng, &mut sound);
                return sound;
            }
            // Crying an octave down is an adult's.
            8..11 => {
                let (clip, start, end) = self.bout(rng);
                let mut sound = self.piece(clip, start, end.min(start + length / 2));
                Self::shift(&mut sound, rng.random_range(0.38..0.5));
                sound.marks.fill(Mark::Other);
                self.treat(rng, &mut sound);
                return sound;
            }
            // What is made like crying and is none.
            11..17 if self.made > 0.0 => {
                let made = if rng.random_bool(0.5) {
                    voice::adult(rng, &mut self.planner)
                } else {
                    voice::horn(rng, &mut self.planner)
                };
                let mut sound = Sound { marks: vec![Mark::Other; made.len()], samples: made };
                self.treat(rng, &mut sound);
                return sound;
            }
            _ => {}
        }
        let clip = self.other_clip(rng, 0.75);
        let start = rng.random_range(0..clip.samples.len().saturating_sub(length).max(1));
        let mut sound = self.piece(clip, start, start + length);
        // A little: what is moved far into the range of crying is hard to tell from it for anybody.
        if rng.random_bool(0.45) {
            Self::shift(&mut sound, rng.random_range(0.75..1.35));
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
        let padded = x.len().div_ceil(1_600) * 1_600;
        x.resize(padded, 0.0);
        sound.marks.resize(padded, Mark::Other);
        if rng.random_bool(0.3) {
            let range = rng.random_range(2.0..9.0);
            signal::colour(rng, &mut self.planner, x, range);
        }
        // What the phones of the cries did to them happens to everything else, too.
        match rng.random_range(0..100) {
            0..14 => signal::codec(rng, &mut self.planner, x),
            14..22 => signal::telephone(rng, &mut self.planner, x),
            22..30 => signal::adpcm(rng, &mut self.planner, x),
            _ => {}
        }
        if rng.random_bool(0.5) {
            let rt60 = rng.random_range(0.15..1.0);
            signal::reverberate(rng, &mut self.planner, x, rt60);
        }
    }

    /// Adds a sound at a random place, `db` over what is there.
    fn place(&mut self, rng: &mut StdRng, mix: &mut [f32], marks: &mut [Mark], sound: Sound, db: f32) {
        let (n, len) = (mix.len() as i64, sound.samples.len() as i64);
        if len < 1_600 {
            return;
        }
        // At least 0.3 s of it lie inside.
        let keep = 4_800.min(len);
        let at = rng.random_range(keep - len..n - keep + 1);
        let first = (-at).max(0) as usize;
        let last = (n - at).min(len) as usize;
        let to = (at + first as i64) as usize;
        let span = to..to + (last - first);
        let (samples, sound_marks) = (&sound.samples[first..last], &sound.marks[first..last]);
        // Level of the crying itself where there is some, and of the background under it.
        let cries = |mark: Mark| mark == Mark::Cry || mark == Mark::Made;
        let has_cry = sound.marks.iter().any(|m| cries(*m));
        let (mut sum, mut count) = (0.0f32, 0usize);
        for (x, mark) in sound.samples.iter().zip(&sound.marks) {
            if !has_cry || cries(*mark) {
                sum += x * x;
                count += 1;
            }
        }
        let heard = (sum / count.max(1) as f32).sqrt().max(1e-5);
        let level = rms(&mix[span.clone()]).max(gain(-45.0)) * gain(db) / heard;
        for ((to, mark), (x, m)) in
            mix[span.clone()].iter_mut().zip(&mut marks[span]).zip(samples.iter().zip(sound_marks))
        {
            *to += level * x;
            if *m == Mark::Cry
                || (*m == Mark::Made && *mark != Mark::Cry)
                || (*m == Mark::Unsure && *mark == Mark::Other)
            {
                *mark = *m;
            }
        }
    }

    /// Microphone, transmission and level of the whole.
    fn channel(&mut self, rng: &mut StdRng, mix: &mut [f32]) {
        let scale = 0.1 / rms(mix);
        mix.iter_mut().for_each(|x| *x *= scale);
        if rng.random_bool(0.5) {
            let range = rng.random_range(1.0..8.0);
            signal::colour(rng, &mut self.planner, mix, range);
        }
        if rng.random_bool(0.12) {
            signal::automatic_gain(rng, mix);
        } else if rng.random_bool(0.15) {
            signal::drift(rng, mix, 6.0);
        }
        let level = gain(rng.random_range(-60.0..-6.0)) / rms(mix);
        // Some microphones are driven far too loud.
        let drive = if rng.random_bool(0.05) { gain(rng.random_range(0.0..14.0)) } else { 1.0 };
        mix.iter_mut().for_each(|x| *x = (*x * level * drive).clamp(-1.0, 1.0));
        if rng.random_bool(0.3) {
            let floor = gain(rng.random_range(-85.0..-60.0));
            mix.iter_mut().for_each(|x| *x += floor * 3.4 * (rng.random::<f32>() - 0.5));
        }
        match rng.random_range(0..100) {
            0..22 => signal::telephone(rng, &mut self.planner, mix),
            22..29 => signal::adpcm(rng, &mut self.planner, mix),
            29..36 => signal::codec(rng, &mut self.planner, mix),
            _ => {}
        }
        if rng.random_bool(0.07) {
            signal::gaps(rng, mix);
        }
        // 16 bits.
        mix.iter_mut().for_each(|x| *x = (*x * 32_767.0).round().clamp(-32_768.0, 32_767.0) / 32_768.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::train::cries::Stretch;

    fn clip(class: &str, is_cry: bool, hz: f32) -> Clip {
        let samples: Vec<i16> = (0..64_000)
            .map(|i| (8_000.0 * (std::f32::consts::TAU * hz * i as f32 / 16_000.0).sin()) as i16)
            .collect();
        let stretches =
            if is_cry { vec![Stretch { start: 16_000, end: 48_000, kind: Kind::Cry }] } else { Vec::new() };
        Clip {
            path: class.into(),
            class: class.into(),
            is_cry,
            source: "made".into(),
            group: class.into(),
            licence: String::new(),
            attribution: String::new(),
            split: "train".into(),
            samples,
            stretches,
        }
    }

    fn corpus() -> Corpus {
        Corpus {
            clips: vec![
                clip("cry", true, 450.0),
                clip("speech", false, 150.0),
                clip("roomtone", false, 60.0),
            ],
        }
    }

    #[test]
    fn examples_are_finite_repeatable_and_have_both_kinds_of_frames() {
        let corpus = corpus();
        let mut mixer = Mixer::new(&corpus, 80_000, 800).unwrap();
        let (mut crying, mut others) = (0, 0);
        for seed in 0..40 {
            let example = mixer.example(seed);
            assert_eq!(
                (example.samples.len(), example.targets.len(), example.weights.len()),
                (80_000, 100, 100)
            );
            assert!(example.samples.iter().all(|x| x.is_finite() && x.abs() <= 1.0));
            crying += example.targets.iter().filter(|&&t| t == 1.0).count();
            others += example.targets.iter().filter(|&&t| t == 0.0).count();
            assert_eq!(
                example.ratio_db.is_none(),
                example.targets.iter().all(|&t| t == 0.0) && example.ratio_db.is_none()
            );
            assert_eq!(mixer.example(seed).samples, example.samples);
        }
        assert!(crying > 200 && others > 1_000, "{crying} {others}");
    }

    #[test]
    fn made_crying_is_a_target_that_counts_for_less_and_none_changes_nothing() {
        let corpus = corpus();
        let mut without = Mixer::new(&corpus, 80_000, 800).unwrap();
        let mut none = Mixer::new(&corpus, 80_000, 800).unwrap().with_made(0.0);
        let mut all = Mixer::new(&corpus, 80_000, 800).unwrap().with_made(1.0);
        let mut crying = 0;
        for seed in 0..30 {
            assert_eq!(without.example(seed).samples, none.example(seed).samples);
            let example = all.example(seed);
            assert!(example.samples.iter().all(|x| x.is_finite() && x.abs() <= 1.0));
            for (target, weight) in example.targets.iter().zip(&example.weights) {
                assert!(*target == 0.0 || *weight <= MADE_WEIGHT, "{weight}");
                crying += usize::from(*target == 1.0);
            }
        }
        assert!(crying > 100, "{crying}");
    }

    #[test]
    fn mined_clips_are_drawn_more_often_and_cries_are_never_mined() {
        let corpus = corpus();
        let mut mixer = Mixer::new(&corpus, 80_000, 800).unwrap();
        mixer.set_mined(&[(0, 5.0), (2, 1.0), (99, 1.0)]);
        let rng = &mut StdRng::seed_from_u64(1);
        let share = (0..2_000).filter(|_| mixer.other_clip(rng, 1.0).class == "roomtone").count();
        // "speech" is the only hard class, so that roomtone comes from mining alone.
        assert!((180..310).contains(&share), "{share}");
        assert!((0..2_000).all(|_| !mixer.other_clip(rng, 0.5).is_cry));
    }
}
