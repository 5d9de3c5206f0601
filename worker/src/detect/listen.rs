//! Listens to one recording: decodes it, scores it piece by piece and finds the cries. Nothing of it is kept longer
//! than a few seconds, so memory stays the same however long it is.

use std::{io::Read, panic::AssertUnwindSafe};

use nursery_models::{
    Detector, ModelInfo, StreamState,
    events::{EventLogic, EventParams, Transition},
};
use nursery_shared::pcm::SAMPLE_RATE;

use super::{
    curve::Frame,
    inputs::Input,
    output::Cry,
    plot::Sketch,
    targets::{Picture, write_picture},
};
use crate::media::{
    decode::{Recording, reason},
    level,
};

/// Windows that are scored at once, ten seconds.
const WINDOWS: usize = 40;

/// Most bytes that are taken from standard input: an hour of uncompressed stereo at 48 kHz fits.
const LONGEST_INPUT: u64 = 1 << 30;

/// What is wanted of every recording.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    pub params: EventParams,
    /// The scores of all frames too.
    pub curve: bool,
}

/// A stretch of a recording that was scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// The recording was heard up to here.
    pub heard_us: i64,
    /// Start of the first frame.
    pub first_us: i64,
    pub step_us: i64,
    /// Empty where no curve is wanted.
    pub frames: Vec<Frame>,
}

/// A recording that was heard to its end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Heard {
    pub length_us: i64,
    /// Packets that could not be decoded.
    pub corrupt: u64,
    pub cries: Vec<Cry>,
    /// Why its picture could not be written.
    pub undrawn: Option<String>,
}

/// What is told while listening.
#[derive(Debug)]
pub enum News {
    /// Length in seconds, where the recording says it.
    Opened(Option<f64>),
    Scored(Stretch),
}

/// Listens to a recording and draws its `picture`. `tell` says whether to go on; nothing is found out where it does
/// not. A decoder that panics is an error like any other.
pub fn listen(
    input: &Input,
    detector: &mut Detector,
    wish: &Wish,
    picture: Option<&Picture>,
    tell: &mut dyn FnMut(News) -> bool,
) -> Result<Option<Heard>, String> {
    if let Some(problem) = &input.problem {
        return Err(problem.clone());
    }
    std::panic::catch_unwind(AssertUnwindSafe(|| hear(input, detector, wish, picture, tell)))
        .unwrap_or_else(|_| Err("something in it is too much for nursery (a bug)".into()))
}

fn hear(
    input: &Input,
    detector: &mut Detector,
    wish: &Wish,
    picture: Option<&Picture>,
    tell: &mut dyn FnMut(News) -> bool,
) -> Result<Option<Heard>, String> {
    let mut recording = if input.is_standard_input() {
        Recording::from_bytes(standard_input()?)?
    } else {
        Recording::open(&input.path)?
    };
    if !tell(News::Opened(recording.duration_s())) {
        return Ok(None);
    }
    let mut listener = Listener::new(detector, wish, picture.is_some());
    let (mut samples, mut more) = (Vec::new(), true);
    while more {
        samples.clear();
        more = recording.read(&mut samples)?;
        if !listener.push(&samples, tell)? {
            return Ok(None);
        }
    }
    if listener.samples == 0 {
        return Err(match recording.corrupt() {
            0 => "holds no audio".into(),
            n => format!("none of its {n} packets can be decoded"),
        });
    }
    let Some((mut heard, sketch)) = listener.finish(tell)? else { return Ok(None) };
    heard.corrupt = recording.corrupt();
    if let (Some(sketch), Some(picture)) = (sketch, picture) {
        heard.undrawn = draw(sketch, picture, input, wish, &heard.cries).err();
    }
    Ok(Some(heard))
}

fn draw(sketch: Sketch, picture: &Picture, input: &Input, wish: &Wish, cries: &[Cry]) -> Result<(), String> {
    let bytes = sketch
        .draw(picture.format, &input.name(), wish.params.threshold, cries)
        .map_err(|e| format!("its picture cannot be drawn: {e}"))?;
    write_picture(&picture.path, &bytes)
}

fn standard_input() -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(LONGEST_INPUT + 1).read_to_end(&mut bytes);
    read.map_err(|e| format!("cannot be read: {}", reason(&e)))?;
    if bytes.len() as u64 > LONGEST_INPUT {
        return Err(format!("is longer than {} MiB: save it as a file first", LONGEST_INPUT >> 20));
    }
    Ok(bytes)
}

/// A stream of samples on its way through the detector and the event logic.
struct Listener<'a> {
    detector: &'a mut Detector,
    info: ModelInfo,
    state: [StreamState; 1],
    /// The samples whose scores are still to come, `lookahead` of them, then those that were not scored yet.
    waiting: Vec<f32>,
    /// Samples taken in.
    samples: u64,
    /// Samples scored, silence after the end included.
    scored: u64,
    logic: EventLogic,
    transitions: Vec<Transition>,
    cries: Vec<Cry>,
    curve: bool,
    sketch: Option<Sketch>,
}

impl<'a> Listener<'a> {
    fn new(detector: &'a mut Detector, wish: &Wish, sketch: bool) -> Self {
        let info = detector.info().clone();
        Self {
            state: [detector.fresh()],
            waiting: vec![0.0; info.lookahead],
            samples: 0,
            scored: 0,
            logic: EventLogic::of_recording(wish.params),
            transitions: Vec::new(),
            cries: Vec::new(),
            curve: wish.curve,
            sketch: sketch.then(|| Sketch::new(info.frame_step as u32)),
            detector,
            info,
        }
    }

    /// Takes in the next samples, however many.
    fn push(&mut self, samples: &[f32], tell: &mut dyn FnMut(News) -> bool) -> Result<bool, String> {
        if let Some(sketch) = &mut self.sketch {
            sketch.audio(samples);
        }
        let piece = WINDOWS * self.info.window;
        let mut rest = samples;
        while !rest.is_empty() {
            let room = self.info.lookahead + piece - self.waiting.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.waiting.extend_from_slice(now);
            self.samples += now.len() as u64;
            rest = later;
            if now.len() == room && !self.score(tell)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Scores what lags behind and says what was heard.
    fn finish(
        mut self,
        tell: &mut dyn FnMut(News) -> bool,
    ) -> Result<Option<(Heard, Option<Sketch>)>, String> {
        let unscored = self.waiting.len() - self.info.lookahead;
        // Silence after the end brings the scores that lag behind.
        let wanted = (unscored + self.info.lookahead).div_ceil(self.info.window) * self.info.window;
        self.waiting.resize(self.info.lookahead + wanted, 0.0);
        if wanted > 0 && !self.score(tell)? {
            return Ok(None);
        }
        let end_us = us(self.samples as i64);
        self.logic.finish(end_us, &mut self.transitions);
        self.note_cries();
        for cry in &mut self.cries {
            cry.onset_us = cry.onset_us.clamp(0, end_us);
            cry.offset_us = cry.offset_us.clamp(cry.onset_us, end_us);
        }
        let heard = Heard { length_us: end_us, cries: self.cries, ..Heard::default() };
        Ok(Some((heard, self.sketch)))
    }

    /// Scores everything that waits, a whole number of windows.
    fn score(&mut self, tell: &mut dyn FnMut(News) -> bool) -> Result<bool, String> {
        let (lookahead, step) = (self.info.lookahead, self.info.frame_step);
        let mut scores = Vec::with_capacity((self.waiting.len() - lookahead) / step);
        for window in self.waiting[lookahead..].chunks_exact(self.info.window) {
            let scored = self.detector.score_batch(&[window], &mut self.state);
            scores.extend(scored.map_err(|e| format!("the model failed on it: {e}"))?.into_iter().flatten());
        }
        let begin = self.scored as i64 - lookahead as i64;
        let mut stretch = Stretch {
            heard_us: us(self.samples as i64),
            first_us: us(begin.max(0)),
            step_us: us(step as i64),
            frames: Vec::new(),
        };
        for (k, &score) in scores.iter().enumerate() {
            let start = begin + (k * step) as i64;
            // Silence before the recording and after it is nobody's business.
            if start < 0 || start as u64 >= self.samples {
                continue;
            }
            let judged = self.logic.push(us(start), us(step as i64) as u32, score, &mut self.transitions);
            if let Some(sketch) = &mut self.sketch {
                sketch.score(score, judged);
            }
            if self.curve {
                let length = step.min((self.samples - start as u64) as usize);
                let heard = &self.waiting[k * step..k * step + length];
                stretch.frames.push(Frame { score, judged, level_dbfs: level::dbfs(heard) });
            }
        }
        self.note_cries();
        self.scored += (self.waiting.len() - lookahead) as u64;
        self.waiting.drain(..self.waiting.len() - lookahead);
        Ok(tell(News::Scored(stretch)))
    }

    fn note_cries(&mut self) {
        for transition in self.transitions.drain(..) {
            if let Transition::Ended { onset_us, offset_us, peak_score, sustained_us, .. } = transition {
                self.cries.push(Cry { onset_us, offset_us, score: peak_score, sustained_us });
            }
        }
    }
}

fn us(samples: i64) -> i64 {
    samples * 1_000_000 / i64::from(SAMPLE_RATE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use nursery_models::recording::score_recording;

    /// Something like crying between something like a quiet room.
    fn recording(seconds: usize) -> Vec<f32> {
        let (mut phase, mut noise) = (0.0f32, 1u32);
        (0..seconds * SAMPLE_RATE as usize + 1234)
            .map(|i| {
                let t = i as f32 / SAMPLE_RATE as f32;
                let part = t.fract();
                phase = (phase + (400.0 + 120.0 * (part * 3.0).sin()) / SAMPLE_RATE as f32).fract();
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let hiss = (noise >> 8) as f32 / (1u32 << 24) as f32 * 0.004 - 0.002;
                let tone: f32 =
                    (1..9).map(|k| (std::f32::consts::TAU * phase * k as f32).sin() / k as f32).sum();
                let crying = (6.0..14.0).contains(&(t % 20.0)) && part < 0.75;
                hiss + if crying { 0.15 * tone * (part * 4.1).sin().abs() } else { 0.0 }
            })
            .collect()
    }

    fn heard(samples: &[f32], chunk: usize, wish: &Wish) -> (i64, Vec<Cry>, Vec<(i64, Frame)>) {
        let mut detector = Detector::embedded().unwrap();
        let mut listener = Listener::new(&mut detector, wish, true);
        let mut frames = Vec::new();
        let mut tell = |news| {
            if let News::Scored(stretch) = news {
                let times = (0..).map(|k| stretch.first_us + k * stretch.step_us);
                frames.extend(times.zip(stretch.frames));
            }
            true
        };
        for piece in samples.chunks(chunk) {
            assert!(listener.push(piece, &mut tell).unwrap());
        }
        let (heard, sketch) = listener.finish(&mut tell).unwrap().expect("everybody listened");
        assert!(sketch.is_some());
        (heard.length_us, heard.cries, frames)
    }

    fn wish(threshold: f32) -> Wish {
        let params = EventParams {
            threshold,
            min_duration_s: 0.3,
            end_after_s: 1.0,
            cooldown_s: 0.0,
            sustained_s: 0.0,
            adaptive: true,
        };
        Wish { params, curve: true }
    }

    #[test]
    fn curve_and_cries_are_the_same_however_the_audio_comes() {
        let samples = recording(25);
        // Low enough that there are cries whatever the weights are.
        let wish = wish(1e-6);
        let whole = heard(&samples, samples.len(), &wish);
        assert!(!whole.1.is_empty());
        for chunk in [160, 4_000, 4_001, 50_000] {
            assert_eq!(heard(&samples, chunk, &wish), whole, "{chunk}");
        }
    }

    #[test]
    fn the_curve_is_the_detectors_own_from_the_first_sample_to_the_last() {
        for samples in [recording(23), recording(1), vec![0.1; 1], vec![0.0; 160_000]] {
            let (length_us, _, frames) = heard(&samples, 1_000, &wish(0.5));
            assert_eq!(length_us, us(samples.len() as i64));
            let expected = score_recording(&mut Detector::embedded().unwrap(), &samples).unwrap();
            assert_eq!(frames.len(), expected.len());
            let step = us(Detector::embedded().unwrap().info().frame_step as i64);
            for (i, ((time, frame), score)) in frames.iter().zip(&expected).enumerate() {
                assert_eq!(*time, i as i64 * step);
                assert!((frame.score - score).abs() < 1e-5, "{i}: {} {score}", frame.score);
            }
        }
    }

    #[test]
    fn the_level_is_that_of_the_frames_own_samples() {
        let mut samples = vec![0.0; 32_000];
        samples[16_000..24_000].fill(0.1);
        samples.extend([0.5; 100]);
        let (_, _, frames) = heard(&samples, 999, &wish(0.5));
        for (time, frame) in &frames {
            let expected = match *time {
                1_000_000..1_500_000 => -20.0,
                // The last frame has only a hundred samples, all loud.
                2_000_000.. => -6.02,
                _ => level::FLOOR_DBFS,
            };
            assert!((frame.level_dbfs - expected).abs() < 0.01, "{time}: {}", frame.level_dbfs);
        }
    }

    #[test]
    fn whoever_does_not_want_to_hear_more_is_not_told_more() {
        let mut detector = Detector::embedded().unwrap();
        let wish = wish(0.5);
        let mut listener = Listener::new(&mut detector, &wish, false);
        assert!(!listener.push(&vec![0.0; 400_000], &mut |_| false).unwrap());
    }
}
