//! Builds recordings of known contents from the clips of a corpus, in memory, one at a time and each from a seed of
//! its own: cries over everyday sounds, cries beside a noise machine in a room behind a telephone, and quiet nights
//! full of everything but cries.

use super::cutting;
use super::sound::{self, RATE, add, db, gain, rms};
use super::studio::Studio;
use super::truth::{Cry, DCASE, NURSERY, QUIET, Sound, Truth};
use crate::train::corpus::{Clip, Corpus};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use realfft::RealFftPlanner;
use std::collections::BTreeMap;
use std::ops::Range;

/// Sounds that are most easily taken for a cry; where the corpus has them, a quarter of the nursery files holds one.
const DISTRACTORS: [&str; 19] = [
    "adult_cry",
    "scream",
    "laugh",
    "child_speech",
    "singing",
    "cat",
    "animal",
    "siren",
    "alarm",
    "music",
    "speech",
    "dog",
    "rooster",
    "birds",
    "music_box",
    "beep",
    "phone_ring",
    "moan",
    "yawn",
];
const DCASE_EBR: &[i32] = &[-6, 0, 6];
const NURSERY_EBR: &[i32] = &[-6, 0, 6, 12];
/// dBFS below which a background counts as no softer, so that no cry becomes inaudible.
const FLOOR_DBFS: f64 = -60.0;
/// Samples in which a loudest half second is looked for.
const HALF_SECOND: usize = RATE / 2;
/// Seconds that files have at least: cries are at most five seconds long, sounds of the night at most twenty.
const SHORTEST_S: f64 = 6.0;
const SHORTEST_QUIET_MINUTES: f64 = 0.5;

/// How many mixtures of what kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// Files with everyday backgrounds.
    pub dcase: usize,
    /// Files with noise machines.
    pub nursery: usize,
    /// Quiet nights.
    pub quiet: usize,
    /// Minutes of each quiet night.
    pub quiet_minutes: f64,
    /// Seconds of each other file.
    pub seconds: f64,
    /// Share of those with a cry.
    pub presence: f64,
    /// Same seed and same clips, same samples.
    pub seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            dcase: 240,
            nursery: 160,
            quiet: 12,
            quiet_minutes: 10.0,
            seconds: 30.0,
            presence: 0.5,
            seed: 1,
        }
    }
}

/// A recording and what there is to hear in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// What there is to hear.
    pub truth: Truth,
    /// Mono, 16 kHz.
    pub samples: Vec<i16>,
}

/// What is decided for a file before any sound is drawn, so that the shares are exact.
#[derive(Debug, Clone)]
struct Planned {
    condition: &'static str,
    number: usize,
    /// Event-to-background ratio in dB, where there is a cry.
    ebr: Option<i32>,
    /// Index of the background's class.
    class: usize,
}

/// All mixtures of a setup; each is built when it is asked for, by any thread.
#[derive(Debug)]
pub struct Mixtures<'a> {
    setup: Setup,
    plan: Vec<Planned>,
    /// Clips without crying by class.
    classes: Vec<(&'a str, Vec<&'a Clip>)>,
    /// Cries by collection and by recording: drawn in this order, so that no recording dominates.
    sources: Vec<Vec<Vec<Event<'a>>>>,
}

#[derive(Debug)]
struct Event<'a> {
    clip: &'a Clip,
    range: Range<usize>,
}

/// Prepares the mixtures of all clips of a corpus.
///
/// # Errors
/// See [`Mixtures::new`].
pub fn build<'a>(corpus: &'a Corpus, setup: &Setup) -> Result<Mixtures<'a>, String> {
    Mixtures::new(&corpus.clips, setup)
}

impl<'a> Mixtures<'a> {
    /// Prepares the mixtures of some clips: finds the cries in them and decides what goes into which file.
    ///
    /// # Errors
    /// No isolated cry where some are wanted, nothing else to mix them with, or lengths that cannot be.
    pub fn new(clips: impl IntoIterator<Item = &'a Clip>, setup: &Setup) -> Result<Self, String> {
        if !(SHORTEST_S..=3_600.0).contains(&setup.seconds) {
            return Err(format!("mixtures of {} s: must be {SHORTEST_S} s to an hour", setup.seconds));
        }
        if !(SHORTEST_QUIET_MINUTES..=600.0).contains(&setup.quiet_minutes) {
            let got = setup.quiet_minutes;
            return Err(format!("quiet nights of {got} minutes: must be {SHORTEST_QUIET_MINUTES} to 600"));
        }
        let mut planner = RealFftPlanner::new();
        let mut classes: BTreeMap<&str, Vec<&Clip>> = BTreeMap::new();
        let mut sources: BTreeMap<&str, BTreeMap<&str, Vec<Event<'_>>>> = BTreeMap::new();
        for clip in clips {
            if clip.is_cry {
                for range in cutting::cries(&sound::to_float(&clip.samples), &mut planner) {
                    let groups = sources.entry(&clip.source).or_default();
                    groups.entry(&clip.group).or_default().push(Event { clip, range });
                }
            } else if clip.class != "cry" && !clip.samples.is_empty() {
                classes.entry(&clip.class).or_default().push(clip);
            }
        }
        let mut mixtures = Self {
            setup: setup.clone(),
            plan: Vec::new(),
            classes: classes.into_iter().collect(),
            sources: sources.into_values().map(|groups| groups.into_values().collect()).collect(),
        };
        mixtures.decide()?;
        Ok(mixtures)
    }

    fn decide(&mut self) -> Result<(), String> {
        let setup = &self.setup;
        for (condition, count, ratios) in
            [(DCASE, setup.dcase, DCASE_EBR), (NURSERY, setup.nursery, NURSERY_EBR)]
        {
            let rng = &mut generator(setup.seed, condition, u64::MAX);
            let with_cry = (count as f64 * setup.presence.clamp(0.0, 1.0)).round_ties_even() as usize;
            let mut present: Vec<bool> = (0..count).map(|i| i < with_cry).collect();
            present.shuffle(rng);
            let mut ebr: Vec<i32> = ratios.iter().copied().cycle().take(with_cry).collect();
            ebr.shuffle(rng);
            let mut class: Vec<usize> = (0..self.classes.len()).cycle().take(count).collect();
            class.shuffle(rng);
            for (number, (present, class)) in present.into_iter().zip(class).enumerate() {
                let ebr = if present { ebr.pop() } else { None };
                self.plan.push(Planned { condition, number, ebr, class });
            }
        }
        for number in 0..setup.quiet {
            self.plan.push(Planned { condition: QUIET, number, ebr: None, class: 0 });
        }
        if self.classes.is_empty() {
            return Err("the clips hold nothing but cries: there is no background to mix them with".into());
        }
        if self.sources.is_empty() && self.plan.iter().any(|p| p.ebr.is_some()) {
            return Err(
                "no clip holds an isolated cry (1 to 5 s, pitched): there is nothing to detect".into()
            );
        }
        Ok(())
    }

    /// Number of mixtures.
    pub fn len(&self) -> usize {
        self.plan.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.plan.is_empty()
    }

    /// Seconds of mixture `i`.
    pub fn seconds(&self, i: usize) -> f64 {
        let quiet = self.plan.get(i).is_some_and(|p| p.condition == QUIET);
        if quiet { self.setup.quiet_minutes * 60.0 } else { self.setup.seconds }
    }

    /// Numbers of isolated cries, of recordings they come from and of classes without crying.
    pub fn material(&self) -> (usize, usize, usize) {
        let recordings: Vec<&Vec<Event<'_>>> = self.sources.iter().flatten().collect();
        (recordings.iter().map(|r| r.len()).sum(), recordings.len(), self.classes.len())
    }

    /// All of them, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Mixture> + '_ {
        let mut studio = Studio::default();
        (0..self.len()).filter_map(move |i| self.mixture(i, &mut studio))
    }

    /// Builds mixture `i`; none beyond the last.
    pub fn mixture(&self, i: usize, studio: &mut Studio) -> Option<Mixture> {
        let planned = self.plan.get(i)?;
        let rng = &mut generator(self.setup.seed, planned.condition, planned.number as u64);
        let mut truth =
            Truth { condition: planned.condition.into(), duration_s: self.seconds(i), ..Truth::default() };
        let mut samples = if planned.condition == QUIET {
            truth.file = format!("{}_{:03}.wav", planned.condition, planned.number);
            self.quiet(planned, rng, studio, &mut truth)
        } else {
            truth.file = format!("{}_{:04}.wav", planned.condition, planned.number);
            self.scene(planned, rng, studio, &mut truth)
        };
        sound::avoid_clipping(&mut samples);
        Some(Mixture { truth, samples: sound::to_pcm(&samples) })
    }

    /// A background, with or without a cry.
    fn scene(&self, planned: &Planned, rng: &mut StdRng, studio: &mut Studio, truth: &mut Truth) -> Vec<f32> {
        let n = (self.setup.seconds * RATE as f64) as usize;
        let nursery = planned.condition == NURSERY;
        let level = rng.random_range(-35.0..-25.0);
        let mut mix;
        if nursery {
            let (kind, machine) = studio.machine(rng, n);
            (truth.background_class, truth.background_source) =
                (format!("machine:{kind}"), "synthetic".into());
            mix = machine;
            sound::scale(&mut mix, gain(level));
            if rng.random_bool(0.5) {
                let (bed, source) = self.bed(rng, planned.class, n);
                add(&mut mix, 0, &bed, (f64::from(gain(level - 12.0)) / rms(&bed)) as f32);
                truth.background_class += &format!("+{}", self.classes[planned.class].0);
                truth.background_source += &format!("+{source}");
            }
        } else {
            (mix, truth.background_source) = self.bed(rng, planned.class, n);
            truth.background_class = self.classes[planned.class].0.into();
            let factor = f64::from(gain(level)) / rms(&mix);
            sound::scale(&mut mix, factor as f32);
        }
        let rt60_s = nursery.then(|| rng.random_range(0.3..0.8));
        if let Some(rt60_s) = rt60_s.filter(|_| rng.random_bool(0.25)) {
            truth.distractor = self.distract(rng, studio, rt60_s, &mut mix);
        }
        if let Some(ebr) = planned.ebr {
            truth.cry = self.cry(rng, studio, ebr, rt60_s, &mut mix);
        }
        if nursery {
            sound::avoid_clipping(&mut mix);
            mix = studio.telephone(&mix);
            truth.telephone = true;
        }
        truth.rt60_s = rt60_s;
        mix
    }

    /// Adds a sound that is easily taken for a cry; its class and onset.
    fn distract(
        &self,
        rng: &mut StdRng,
        studio: &mut Studio,
        rt60_s: f64,
        mix: &mut [f32],
    ) -> Option<(String, f64)> {
        let known: Vec<usize> =
            (0..self.classes.len()).filter(|&i| DISTRACTORS.contains(&self.classes[i].0)).collect();
        let (class, clips) = &self.classes[*pick(rng, &known)?];
        let clip = pick(rng, clips)?;
        let mut dry = sound::to_float(&clip.samples[..clip.samples.len().min(4 * RATE)]);
        sound::fade(&mut dry, 10);
        let wet = studio.reverb(rng, &dry, rt60_s);
        let onset = place(rng, mix.len(), wet.len());
        let ebr = *pick(rng, NURSERY_EBR)?;
        let end = (onset + wet.len()).min(mix.len());
        let span = &mix[onset..end];
        let factor = rms(span).max(f64::from(gain(FLOOR_DBFS))) * f64::from(gain(ebr.into()))
            / rms(&wet[..end - onset]);
        add(mix, onset, &wet, factor as f32);
        Some(((*class).to_owned(), seconds(onset)))
    }

    /// Adds a cry. The ratio holds in the span of the dry cry; its echoes go on beyond.
    fn cry(
        &self,
        rng: &mut StdRng,
        studio: &mut Studio,
        ebr: i32,
        rt60_s: Option<f64>,
        mix: &mut [f32],
    ) -> Option<Cry> {
        let source = pick(rng, &self.sources)?;
        let recording = pick(rng, source)?;
        let event = pick(rng, recording)?;
        let mut dry = sound::to_float(&event.clip.samples[event.range.clone()]);
        sound::fade(&mut dry, 10);
        let length = dry.len();
        let heard = match rt60_s {
            Some(rt60_s) => studio.reverb(rng, &dry, rt60_s),
            None => dry,
        };
        let onset = place(rng, mix.len(), length);
        let end = (onset + length).min(mix.len());
        let background = rms(&mix[onset..end]).max(f64::from(gain(FLOOR_DBFS)));
        let factor = background * f64::from(gain(ebr.into())) / rms(&heard[..length]);
        add(mix, onset, &heard, factor as f32);
        Some(Cry {
            onset_s: seconds(onset),
            offset_s: seconds(onset + length),
            ebr_db: ebr.into(),
            path: event.clip.path.clone(),
            source: event.clip.source.clone(),
        })
    }

    /// A quiet night: the tone of a room, and 40 to 70 sounds.
    fn quiet(&self, planned: &Planned, rng: &mut StdRng, studio: &mut Studio, truth: &mut Truth) -> Vec<f32> {
        let n = (self.setup.quiet_minutes * 60.0 * RATE as f64) as usize;
        let slope = rng.random_range(0.8..2.0);
        let mut mix = studio.noise(rng, slope, n);
        if let Some(class) = self.classes.iter().position(|c| c.0 == "roomtone") {
            let (tone, _) = self.bed(rng, class, n);
            sound::scale(&mut mix, 0.5);
            add(&mut mix, 0, &tone, (1.0 / rms(&tone)) as f32);
        }
        let factor = f64::from(gain(rng.random_range(-62.0..-50.0))) / rms(&mix);
        sound::scale(&mut mix, factor as f32);
        for _ in 0..rng.random_range(40..71) {
            // No class is empty, and there is one.
            let Some((class, clip)) = pick(rng, &self.classes).and_then(|c| Some((c.0, *pick(rng, &c.1)?)))
            else {
                continue;
            };
            let longest = (rng.random_range(4.0..20.0) * RATE as f64) as usize;
            let mut sound = sound::to_float(&clip.samples[..clip.samples.len().min(longest)]);
            sound::fade(&mut sound, 50);
            let onset = place(rng, n, sound.len());
            let level_dbfs: f64 = rng.random_range(-40.0..-16.0);
            // A last piece shorter than half a second does not count beside others.
            let loudest = match sound.len() / HALF_SECOND {
                0 => rms(&sound),
                _ => sound.chunks_exact(HALF_SECOND).map(rms).fold(0.0, f64::max),
            };
            add(&mut mix, onset, &sound, (f64::from(gain(level_dbfs)) / loudest.max(1e-10)) as f32);
            truth.sounds.push(Sound {
                onset_s: seconds(onset),
                offset_s: seconds((onset + sound.len()).min(n)),
                class: class.into(),
                source: clip.source.clone(),
                path: clip.path.clone(),
                level_dbfs: (level_dbfs * 10.0).round() / 10.0,
            });
        }
        let mut sources: Vec<&str> = truth.sounds.iter().map(|s| s.source.as_str()).collect();
        sources.sort_unstable();
        sources.dedup();
        truth.background_source = sources.join("+");
        truth.background_class = "quiet_night".into();
        truth.telephone = planned.number % 2 == 1;
        if truth.telephone {
            sound::avoid_clipping(&mut mix);
            mix = studio.telephone(&mix);
        }
        mix
    }

    /// A continuous background of clips of one class, all equally loud, and the collections they come from.
    fn bed(&self, rng: &mut StdRng, class: usize, n: usize) -> (Vec<f32>, String) {
        let mut order = self.classes[class].1.clone();
        order.shuffle(rng);
        let (mut clips, mut total, mut sources) = (Vec::new(), 0, Vec::new());
        for clip in order {
            let mut samples = sound::to_float(&clip.samples);
            let change = (-30.0 - db(rms(&samples))).clamp(-30.0, 30.0);
            sound::scale(&mut samples, gain(change));
            total += samples.len();
            clips.push(samples);
            sources.push(clip.source.as_str());
            if total as f64 > n as f64 * 1.2 {
                break;
            }
        }
        sources.sort_unstable();
        sources.dedup();
        (sound::join(&clips, n), sources.join("+"))
    }
}

/// One of them; none of nothing.
fn pick<'a, T>(rng: &mut StdRng, all: &'a [T]) -> Option<&'a T> {
    if all.is_empty() { None } else { all.get(rng.random_range(0..all.len())) }
}

/// Where in `total` samples something of `length` begins.
fn place(rng: &mut StdRng, total: usize, length: usize) -> usize {
    match total.saturating_sub(length) {
        0 => 0,
        room => rng.random_range(0..room),
    }
}

/// As exact as the files say it, so that scores in memory and from files agree.
fn seconds(samples: usize) -> f64 {
    (samples as f64 / RATE as f64 * 1e3).round() / 1e3
}

/// A generator for one file: neighbours and conditions are as far apart as seeds can be.
pub(super) fn generator(seed: u64, condition: &str, number: u64) -> StdRng {
    let mut bytes = [0; 32];
    let name = condition
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    for (part, value) in bytes.chunks_exact_mut(8).zip([seed, name, number, 0x6d69_7874_7572_6573]) {
        part.copy_from_slice(&value.to_le_bytes());
    }
    StdRng::from_seed(bytes)
}
