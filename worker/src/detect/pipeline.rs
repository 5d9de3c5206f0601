//! Several recordings at once: each thread listens to one at a time with a detector of its own, and this one takes
//! what they find in the order of the arguments. What waits for its turn is bounded in bytes and in recordings, so
//! memory stays the same however many there are and however long.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
};

use nursery_models::Detector;

use super::{
    backlog::Backlog,
    inputs::Input,
    listen::{Heard, News, Stretch, Wish, listen},
    targets::Picture,
};

/// Bytes that may wait for their turn.
const WAITING: usize = 64 << 20;
/// Recordings that may wait for their turn.
const AHEAD: usize = 1000;

/// What is found in a recording, in order.
enum Item {
    News(News),
    /// Nothing follows after these two.
    Done(Heard),
    Failed(String),
}

/// What the pipeline reports, recording by recording in order.
pub trait Output {
    /// A recording begins; its length in seconds, where it says so.
    fn opened(&mut self, path: &Path, duration_s: Option<f64>);
    /// A stretch of it was scored.
    fn scored(&mut self, stretch: &Stretch);
    /// The recording was read to its end.
    fn done(&mut self, path: &Path, heard: &Heard);
    /// The recording could not be read.
    fn failed(&mut self, path: &Path, reason: &str);
    /// Whether anybody still takes what is reported.
    fn goes_on(&self) -> bool;
}

/// Who listens to what next.
struct Next {
    index: usize,
    /// Where the printing thread finds what is found in it; in order, since it is sent under the lock.
    results: SyncSender<Receiver<Item>>,
}

/// Lets all threads go, also where this one panics: they are waited for.
struct Ending<'a>(&'a Backlog);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Listens to all recordings, with one thread per detector; false where something went wrong with one. `pictures`
/// has one entry for each recording, or none.
pub fn run(
    inputs: &[Input],
    pictures: &[Picture],
    wish: &Wish,
    detectors: Vec<Detector>,
    output: &mut dyn Output,
) -> bool {
    let backlog = Backlog::new(WAITING);
    let (sender, results) = sync_channel(AHEAD);
    let next = Arc::new(Mutex::new(Next { index: 0, results: sender }));
    std::thread::scope(|scope| {
        // In this order, so that no thread waits for a place in the queue when all is over.
        let _ending = Ending(&backlog);
        let results = results;
        for mut detector in detectors {
            let (next, backlog) = (next.clone(), &backlog);
            scope.spawn(move || {
                while let Some((index, found)) = claim(&next, inputs.len()) {
                    let picture = pictures.get(index);
                    work(&mut detector, index, &inputs[index], picture, wish, backlog, &found);
                }
            });
        }
        // Theirs alone: without them nothing would come any more.
        drop(next);
        collect(inputs, &backlog, &results, output)
    })
}

/// The next recording, and where to tell what is found in it; none where nothing is left to do.
fn claim(next: &Mutex<Next>, count: usize) -> Option<(usize, Sender<Item>)> {
    // A number and a sender are as good after a panic elsewhere as before it.
    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
    if next.index >= count {
        return None;
    }
    // Whatever goes into it is booked in the backlog first, which bounds it.
    let (found, items) = channel();
    // Waits where too many recordings wait for their turn; fails where nobody listens any more.
    next.results.send(items).ok()?;
    next.index += 1;
    Some((next.index - 1, found))
}

fn work(
    detector: &mut Detector,
    index: usize,
    input: &Input,
    picture: Option<&Picture>,
    wish: &Wish,
    backlog: &Backlog,
    found: &Sender<Item>,
) {
    let tell = |item: Item| backlog.take(index, item.cost()) && found.send(item).is_ok();
    let last = match listen(input, detector, wish, picture, &mut |news| tell(Item::News(news))) {
        Ok(Some(heard)) => Item::Done(heard),
        Ok(None) => return,
        Err(reason) => Item::Failed(reason),
    };
    tell(last);
}

impl Item {
    /// Bytes that it keeps.
    fn cost(&self) -> usize {
        let inner = match self {
            Self::News(News::Opened(_)) => 0,
            Self::News(News::Scored(stretch)) => std::mem::size_of_val(stretch.frames.as_slice()),
            Self::Done(heard) => std::mem::size_of_val(heard.cries.as_slice()),
            Self::Failed(reason) => reason.len(),
        };
        std::mem::size_of::<Self>() + inner
    }
}

fn collect(
    inputs: &[Input],
    backlog: &Backlog,
    results: &Receiver<Receiver<Item>>,
    output: &mut dyn Output,
) -> bool {
    let mut all_well = true;
    for (index, input) in inputs.iter().enumerate() {
        backlog.turn(index);
        let mut ended = false;
        for item in results.recv().into_iter().flatten() {
            backlog.give(item.cost());
            match item {
                Item::News(News::Opened(duration_s)) => output.opened(&input.path, duration_s),
                Item::News(News::Scored(stretch)) => output.scored(&stretch),
                Item::Done(heard) => {
                    ended = true;
                    all_well &= heard.undrawn.is_none();
                    output.done(&input.path, &heard);
                }
                Item::Failed(reason) => {
                    (ended, all_well) = (true, false);
                    output.failed(&input.path, &reason);
                }
            }
            if !output.goes_on() {
                return false;
            }
        }
        if !ended {
            all_well = false;
            output.failed(&input.path, "nobody listened to it to its end (a bug in nursery)");
        }
    }
    all_well
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::media::decode::tests::wav;
    use nursery_models::events::EventParams;
    use std::{path::PathBuf, time::Duration};

    /// Notes what it is told, and stops after a number of reports.
    #[derive(Default)]
    struct Notes {
        told: Vec<String>,
        enough: Option<usize>,
    }

    impl Output for Notes {
        fn opened(&mut self, path: &Path, _: Option<f64>) {
            self.told.push(format!("{} opened", path.display()));
        }

        fn scored(&mut self, stretch: &Stretch) {
            self.told.push(format!("{:?}", stretch.frames));
        }

        fn done(&mut self, path: &Path, heard: &Heard) {
            self.told.push(format!("{} {:?}", path.display(), heard.cries));
        }

        fn failed(&mut self, path: &Path, reason: &str) {
            self.told.push(format!("{} failed: {reason}", path.display()));
        }

        fn goes_on(&self) -> bool {
            self.enough.is_none_or(|n| self.told.len() < n)
        }
    }

    struct Recordings(PathBuf, Vec<Input>);

    impl Recordings {
        /// Of different lengths, one of them broken.
        fn new() -> Self {
            let directory = std::env::temp_dir().join(format!("nursery-pipeline-{:x}", fastrand::u64(..)));
            std::fs::create_dir(&directory).unwrap();
            let inputs = (0..9u32).map(|i| {
                let length = [25_000, 1_600, 200_000][i as usize % 3];
                let tone: Vec<f32> =
                    (0..length).map(|t| (t as f32 * 0.01 * (i + 9) as f32).sin() * 0.3).collect();
                let path = directory.join(format!("{i}.wav"));
                let bytes = if i == 4 { b"RIFF".to_vec() } else { wav(16_000, 1, &tone) };
                std::fs::write(&path, bytes).unwrap();
                Input { path, problem: None }
            });
            Self(directory.clone(), inputs.collect())
        }
    }

    impl Drop for Recordings {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn told(recordings: &Recordings, jobs: usize, enough: Option<usize>) -> (bool, Vec<String>) {
        let params = EventParams {
            threshold: 1e-6,
            min_duration_s: 0.1,
            end_after_s: 0.2,
            cooldown_s: 0.0,
            sustained_s: 0.0,
            adaptive: true,
        };
        let detectors = (0..jobs).map(|_| Detector::embedded().unwrap()).collect();
        let mut notes = Notes { enough, ..Notes::default() };
        let well = run(&recordings.1, &[], &Wish { params, curve: true }, detectors, &mut notes);
        (well, notes.told)
    }

    #[test]
    fn many_threads_find_what_one_finds_in_the_same_order() {
        let recordings = Recordings::new();
        let (well, alone) = told(&recordings, 1, None);
        assert!(!well, "one of them is broken");
        assert_eq!(alone.iter().filter(|t| t.contains("failed")).count(), 1);
        assert!(alone.len() > 3 * 8, "{}", alone.len());
        for jobs in [2, 5, 16] {
            assert_eq!(told(&recordings, jobs, None).1, alone, "{jobs}");
        }
    }

    #[test]
    fn when_nobody_takes_the_output_all_threads_stop() {
        let recordings = Recordings::new();
        let (done, ended) = channel();
        std::thread::spawn(move || {
            for enough in [1, 2, 7] {
                let (well, notes) = told(&recordings, 3, Some(enough));
                assert!(!well && notes.len() == enough);
            }
            done.send(()).unwrap();
        });
        ended.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}
