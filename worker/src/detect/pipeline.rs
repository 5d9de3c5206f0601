//! One thread decodes, several score, and this one puts the scores back in order and turns them into cries. Nothing
//! gets further ahead than a few batches, so memory stays the same however long the recordings are.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use nursery_models::{
    Detector,
    events::{EventLogic, EventParams, Transition},
    window::Window,
};
use nursery_shared::{message::ModelShape, pcm::SAMPLE_RATE};

use super::{
    output::{Cry, Output},
    recordings::{self, Summary},
};

/// Batches per scoring thread that may be under way.
const AHEAD: usize = 4;

/// Something about a recording, in the order of its audio.
enum Item {
    Opened(Option<f64>),
    /// Stream position of each window's end, and its scores.
    Scores(Vec<(u64, Vec<f32>)>),
    /// The model failed on a batch.
    Unscored(String),
    /// Nothing follows after these two.
    Done(Summary),
    Failed(String),
}

struct Job {
    seq: u64,
    windows: Vec<Window>,
}

/// Runs all recordings through the detectors; false where one could not be read to its end.
pub fn run(
    files: &[PathBuf],
    shape: &ModelShape,
    params: &EventParams,
    detectors: Vec<Detector>,
    output: &mut dyn Output,
) -> bool {
    let ahead = detectors.len() * AHEAD;
    let (give_token, tokens) = sync_channel(ahead);
    let (jobs, todo) = sync_channel::<Job>(ahead);
    let (items, results) = sync_channel::<(u64, Item)>(ahead);
    let todo = Mutex::new(todo);
    for _ in 0..ahead {
        // There is room for all of them.
        let _ = give_token.try_send(());
    }
    std::thread::scope(|scope| {
        for detector in detectors {
            let (todo, items) = (&todo, items.clone());
            scope.spawn(move || score(detector, todo, &items));
        }
        scope.spawn(move || decode(files, shape, &tokens, &jobs, &items));
        collect(files, shape, params, &results, &give_token, output)
    })
}

/// Numbers everything in order; takes a token for each item so as not to run away from the collector.
fn decode(
    files: &[PathBuf],
    shape: &ModelShape,
    tokens: &Receiver<()>,
    jobs: &SyncSender<Job>,
    items: &SyncSender<(u64, Item)>,
) {
    let seq = std::cell::Cell::new(0);
    // The other ends outlive this thread, so only a panic of theirs can make these fail; then all is over anyway.
    let number = || {
        let number = seq.replace(seq.get() + 1);
        tokens.recv().ok().map(|()| number)
    };
    let tell = |item| number().is_some_and(|n| items.send((n, item)).is_ok());
    for path in files {
        let outcome = recordings::read(
            path,
            shape,
            |duration| {
                tell(Item::Opened(duration));
            },
            &mut |windows| number().is_some_and(|seq| jobs.send(Job { seq, windows }).is_ok()),
        );
        let last = match outcome {
            Ok(summary) => Item::Done(summary),
            Err(reason) => Item::Failed(reason),
        };
        if !tell(last) {
            return;
        }
    }
}

fn score(mut detector: Detector, todo: &Mutex<Receiver<Job>>, items: &SyncSender<(u64, Item)>) {
    loop {
        // A panic elsewhere leaves the receiver as it was.
        let Ok(job) = todo.lock().unwrap_or_else(PoisonError::into_inner).recv() else { return };
        let views: Vec<&[f32]> = job.windows.iter().map(|w| w.samples.as_slice()).collect();
        let item = match detector.score_batch(&views) {
            Ok(scores) => Item::Scores(job.windows.iter().map(|w| w.end).zip(scores).collect()),
            Err(e) => Item::Unscored(format!("the model failed on it: {e}")),
        };
        if items.send((job.seq, item)).is_err() {
            return;
        }
    }
}

fn collect(
    files: &[PathBuf],
    shape: &ModelShape,
    params: &EventParams,
    results: &Receiver<(u64, Item)>,
    give_token: &SyncSender<()>,
    output: &mut dyn Output,
) -> bool {
    let (mut waiting, mut next, mut all_read) = (BTreeMap::new(), 0, true);
    let mut files = files.iter();
    let mut current = files.next().map(|path| Listening::new(path, params));
    for (seq, item) in results {
        waiting.insert(seq, item);
        while let Some(item) = waiting.remove(&next) {
            next += 1;
            // Fails only where the decoding thread is gone and needs none.
            let _ = give_token.try_send(());
            let Some(listening) = &mut current else { continue };
            if listening.take(item, shape, output) {
                all_read &= listening.failed.is_none();
                current = files.next().map(|path| Listening::new(path, params));
            }
        }
    }
    // Everything was said about every file, unless a thread died.
    all_read && current.is_none()
}

/// The recording that is being listened to.
struct Listening<'a> {
    path: &'a PathBuf,
    logic: EventLogic,
    transitions: Vec<Transition>,
    cries: Vec<Cry>,
    failed: Option<String>,
}

impl<'a> Listening<'a> {
    fn new(path: &'a PathBuf, params: &EventParams) -> Self {
        Self {
            path,
            logic: EventLogic::new(*params),
            transitions: Vec::new(),
            cries: Vec::new(),
            failed: None,
        }
    }

    /// True where this was the recording's last item.
    fn take(&mut self, item: Item, shape: &ModelShape, output: &mut dyn Output) -> bool {
        match item {
            Item::Opened(duration_s) => output.opened(self.path, duration_s),
            Item::Scores(windows) => {
                for (end, scores) in windows {
                    output.progress(us(end as i64));
                    for (k, probability) in scores.into_iter().enumerate() {
                        let first = end as i64 - i64::from(shape.lookahead) - i64::from(shape.hop);
                        let start = us(first + k as i64 * i64::from(shape.frame_step));
                        let step = us(i64::from(shape.frame_step)) as u32;
                        self.logic.push(start, step, probability, &mut self.transitions);
                    }
                }
            }
            // The recording's last item is still to come.
            Item::Unscored(reason) => self.failed = self.failed.take().or(Some(reason)),
            Item::Failed(reason) => {
                output.failed(self.path, self.failed.get_or_insert(reason));
                return true;
            }
            Item::Done(_) if self.failed.is_some() => {
                output.failed(self.path, self.failed.as_deref().unwrap_or_default());
                return true;
            }
            Item::Done(summary) => {
                let end = us(summary.samples as i64);
                self.logic.finish(end, &mut self.transitions);
                for transition in self.transitions.drain(..) {
                    if let Transition::Ended { onset_us, offset_us, peak_score, .. } = transition {
                        let onset_us = onset_us.clamp(0, end);
                        self.cries.push(Cry {
                            onset_us,
                            offset_us: offset_us.clamp(onset_us, end),
                            score: peak_score,
                        });
                    }
                }
                output.done(self.path, end, summary.corrupt, &self.cries);
                return true;
            }
        }
        false
    }
}

fn us(samples: i64) -> i64 {
    samples * 1_000_000 / i64::from(SAMPLE_RATE)
}
