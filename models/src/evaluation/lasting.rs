//! Crying that goes on, as most crying does: each recording's crying over and over for 45 s, in a quiet room and beside
//! a noise machine, heard from before its onset and, as after a lost connection, from the middle of the first cry.

use super::listening::{announced_s, listen_all, transitions};
use super::mixtures::generator;
use super::score::Share;
use super::sound::{self, RATE, add, gain, rms};
use super::studio::Studio;
use super::truth::{Cry, Truth};
use crate::detector::{Detector, ModelInfo};
use crate::events::{EventLogic, EventParams, Transition};
use crate::train::corpus::{Clip, Corpus};
use crate::train::cries::Kind;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Samples of background before the first cry.
const BEFORE: usize = 10 * RATE;
/// Samples of crying and pauses.
const LASTS: usize = 45 * RATE;
/// Samples of pause before a recording's crying comes again.
const PAUSE: usize = 3 * RATE / 2;
/// Samples of the first cry that are gone when one begins to listen in its middle: 0.7 s, at most half of it.
const GONE: usize = 7 * RATE / 10;
/// dBFS of the crying, without its pauses.
const LEVEL_DBFS: f64 = -30.0;
/// dB of it over the background.
const OVER_ROOM_DB: f64 = 34.0;
const OVER_MACHINE_DB: f64 = 3.0;
const KINDS: [&str; 4] =
    ["quiet room", "noise machine", "quiet room, from the middle", "noise machine, from the middle"];

/// What became of one kind of these recordings.
#[derive(Debug, Clone, PartialEq)]
pub struct Lasting {
    /// The kind.
    pub name: &'static str,
    /// How many were announced at all.
    pub announced: Share,
    /// Seconds until they were, from the first cry's onset or, in its middle, from the start; of the announced ones.
    pub delays: Vec<f64>,
}

/// Lets a model hear the crying of all clips in which there is any, as a live service would. `progress` is told how
/// many recordings of how many are done.
///
/// # Errors
/// No clip with crying, or what the model says.
pub fn lasting(
    corpus: &Corpus,
    seed: u64,
    detectors: &mut [Detector],
    params: EventParams,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Vec<Lasting>, String> {
    let cries: Vec<&Clip> = corpus.clips.iter().filter(|c| bouts(c).next().is_some()).collect();
    let Some(info) = detectors.first().map(|d| d.info().clone()).filter(|_| !cries.is_empty()) else {
        return Err("no clip holds crying that could go on".into());
    };
    let fetch = |i: usize, studio: &mut Studio| Ok(recording(cries[i / KINDS.len()], i, seed, studio));
    let (total, done) = (KINDS.len() * cries.len(), AtomicUsize::new(0));
    let heard = listen_all(total, detectors, fetch, |_| {
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
    })?;
    let mut out: Vec<Lasting> =
        KINDS.map(|name| Lasting { name, announced: Share::default(), delays: Vec::new() }).into();
    for (i, listened) in heard.iter().enumerate() {
        let kind = &mut out[i % KINDS.len()];
        kind.announced.of += 1;
        let onset_s = listened.truth.cry.as_ref().map_or(0.0, |c| c.onset_s);
        if let Some(at) = announced(&listened.frames, &info, params, onset_s) {
            kind.announced.part += 1;
            kind.delays.push(at - onset_s);
        }
    }
    Ok(out)
}

fn bouts(clip: &Clip) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    clip.stretches.iter().filter(|s| s.kind == Kind::Cry && s.start < s.end).map(|s| s.start..s.end)
}

/// Recording `i` of all, made from this clip.
fn recording(clip: &Clip, i: usize, seed: u64, studio: &mut Studio) -> (Truth, Vec<i16>) {
    let (machine, middle) = (i % 2 == 1, i % KINDS.len() >= 2);
    // Of one clip and background the same sound, from whatever moment it is heard.
    let rng = &mut generator(seed, "lasting", (i / KINDS.len() * 2 + usize::from(machine)) as u64);
    let samples = sound::to_float(&clip.samples);
    let crying: Vec<f32> = bouts(clip).flat_map(|b| samples[b].iter().copied()).collect();
    let (first, last) = (bouts(clip).next().unwrap_or(0..0), bouts(clip).last().unwrap_or(0..0));
    let mut once = samples[first.start..last.end].to_vec();
    sound::fade(&mut once, 10);
    let (mut mix, over_db) = match machine {
        true => (studio.machine(rng, BEFORE + LASTS).1, OVER_MACHINE_DB),
        false => (studio.noise(rng, 1.0, BEFORE + LASTS), OVER_ROOM_DB),
    };
    sound::scale(&mut mix, gain(LEVEL_DBFS - over_db));
    let factor = (f64::from(gain(LEVEL_DBFS)) / rms(&crying)) as f32;
    for at in (BEFORE..mix.len()).step_by(once.len() + PAUSE) {
        add(&mut mix, at, &once, factor);
    }
    let gone = if middle { BEFORE + GONE.min(first.len() / 2) } else { 0 };
    let mut heard = mix.split_off(gone);
    sound::avoid_clipping(&mut heard);
    let seconds = |n: usize| n as f64 / RATE as f64;
    let cry = Cry {
        onset_s: seconds(BEFORE.saturating_sub(gone)),
        offset_s: seconds(heard.len()),
        ebr_db: over_db,
        path: clip.path.clone(),
        source: clip.source.clone(),
    };
    let truth = Truth {
        file: format!("lasting_{i:04}.wav"),
        condition: "lasting".into(),
        duration_s: seconds(heard.len()),
        cry: Some(cry),
        ..Truth::default()
    };
    (truth, sound::to_pcm(&heard))
}

/// When a service announces crying that has its onset then or later, or is going on then, seconds.
fn announced(frames: &[f32], info: &ModelInfo, params: EventParams, onset_s: f64) -> Option<f64> {
    let out = transitions(&mut EventLogic::new(params), frames, info);
    let mut decided = out.iter().filter_map(|transition| match transition {
        Transition::Started { decided_us, .. } => Some(announced_s(*decided_us, info)),
        Transition::Ended { .. } => None,
    });
    decided.find(|at| *at >= onset_s)
}

#[cfg(test)]
mod tests {
    use super::super::sound::db;
    use super::*;
    use crate::train::calibrate::EVENTS;
    use crate::train::cries::Stretch;

    fn clip() -> Clip {
        // Two bouts of a second, half a second of something else between them, quiet before and after.
        let loud = |i: usize| {
            matches!(i / (RATE / 2), 2 | 3 | 5 | 6)
                .then(|| (8_000.0 * (i as f32 * 0.2).sin()) as i16)
                .unwrap_or(10)
        };
        let stretch = |start: usize, end: usize, kind| Stretch { start, end, kind };
        Clip {
            path: "a.wav".into(),
            class: "cry".into(),
            is_cry: true,
            source: "s".into(),
            group: "g".into(),
            licence: String::new(),
            attribution: String::new(),
            split: "dev".into(),
            samples: (0..5 * RATE).map(loud).collect(),
            stretches: vec![
                stretch(0, RATE, Kind::Unsure),
                stretch(RATE, 2 * RATE, Kind::Cry),
                stretch(5 * RATE / 2, 7 * RATE / 2, Kind::Cry),
            ],
        }
    }

    #[test]
    fn recordings_hold_the_crying_over_and_over_and_begin_where_they_say() {
        let (clip, mut studio) = (clip(), Studio::default());
        let made: Vec<_> = (0..4).map(|i| recording(&clip, i, 3, &mut studio)).collect();
        for (i, (truth, samples)) in made.iter().enumerate() {
            let cry = truth.cry.as_ref().unwrap();
            let middle = i >= 2;
            assert_eq!(cry.onset_s, if middle { 0.0 } else { 10.0 });
            // Half of a first cry of one second is gone.
            assert_eq!(samples.len(), if middle { LASTS - RATE / 2 } else { BEFORE + LASTS });
            let x = sound::to_float(samples);
            let onset = (cry.onset_s * RATE as f64) as usize;
            let level = |from: usize, n: usize| db(rms(&x[onset + from..][..n]));
            let first = if middle { RATE / 2 } else { 0 };
            // 2.5 s of crying, 1.5 s of pause, and again.
            let again = 4 * RATE - first;
            let loud = if i % 2 == 1 { LEVEL_DBFS + 1.8 } else { LEVEL_DBFS };
            for at in [0, again, 10 * 4 * RATE - first] {
                assert!((level(at, RATE / 4) - loud).abs() < 1.0, "{i}: {} dB", level(at, RATE / 4));
            }
            let pause = level(again - RATE, RATE / 2);
            assert!((pause - (LEVEL_DBFS - cry.ebr_db)).abs() < 2.0, "{i}: {pause} dB in the pause");
        }
        // From the middle it is the same sound.
        assert_eq!(made[0].1[BEFORE + RATE / 2..], made[2].1);
        assert_ne!(made[0].1[..BEFORE], made[1].1[..BEFORE]);
    }

    #[test]
    fn what_is_announced_before_the_onset_does_not_count() {
        let info = ModelInfo {
            id: "test".into(),
            sample_rate: 16_000,
            window: 4_000,
            hop: 4_000,
            lookahead: 0,
            frame_step: 800,
            frames_per_hop: 5,
            threshold: 0.5,
            labels: vec!["baby_cry".into()],
            state_bytes: 0,
        };
        let params = EventParams { adaptive: false, ..EVENTS };
        let mut frames = vec![0.01; 300];
        frames[20..40].fill(0.9);
        assert_eq!(announced(&frames, &info, params, 5.0), None);
        frames[100..140].fill(0.9);
        let at = announced(&frames, &info, params, 5.0).unwrap();
        assert!((5.25..=5.75).contains(&at), "{at}");
        assert!(announced(&frames, &info, params, 0.0).unwrap() < 2.0);
    }

    #[test]
    fn without_crying_there_is_nothing_to_hear() {
        let mut detectors = [Detector::embedded().unwrap()];
        let none = lasting(&Corpus::default(), 1, &mut detectors, EVENTS, |_, _| ());
        assert!(none.unwrap_err().contains("no clip holds crying"));
    }
}
