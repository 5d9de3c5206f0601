//! Role `infer`: scores batches of windows. What the model remembers of a stream comes and goes with the stream's
//! windows; nothing is kept between two batches, so any process can score any window.

use std::path::Path;

use nursery_models::{Detector, StreamState};
use nursery_shared::{
    message::{FromWorker, Role, ToWorker, WindowJob, WindowScores},
    model_state::ModelState,
};

use crate::{
    cage::{Cage, roles::Plan},
    info, link,
};

/// More than any batch takes.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: i32 = 64 << 20;

/// Runs until the supervisor drains this process or is gone.
pub fn run() -> Result<(), String> {
    let link = link::open(Role::Infer)?;
    let mut cage = Cage::enter(link.supervisor());
    cage.expect_no_network();
    let (model, threads) = match link.configuration()? {
        Some(ToWorker::ConfigureInfer { model, threads }) => (model, threads),
        Some(ToWorker::Drain) | None => return Ok(()),
        Some(_) => return Err("the supervisor's first message was not a configuration".into()),
    };
    let plan = Plan::infer();
    let found = info::find_model(model.as_deref().map(Path::new))?;
    cage.confine(&plan);
    let (mut inbox, outbox) = link.start()?;
    let mut receive = move || inbox.recv().map_err(|e| format!("frame from the supervisor: {e}"));
    // SAFETY: read by the compute threads' pool when it starts, which is at the first use below; the only
    // other thread is the link's writer, which does not look at the environment.
    unsafe {
        for pool in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
            std::env::set_var(pool, threads.max(1).to_string());
        }
    }
    keep_memory();
    let mut scorer = Scorer::new(info::load_detector(found)?);
    scorer.warm_up()?;
    // What was read, and not what was asked for: the file may be another one by now.
    outbox.send(&FromWorker::Loaded(info::shape(&scorer.detector)))?;
    // All compute threads have begun when they have answered: beginning takes calls that are about to be given up.
    rayon::broadcast(|_| ());
    outbox.send(&cage.close(&plan)?)?;
    outbox.send(&FromWorker::Ready)?;
    let mut scored = 0;
    loop {
        match receive()? {
            Some(ToWorker::Batch { batch, windows }) => {
                let count = windows.len() as u64;
                let windows = scorer.score(windows).map_err(|e| format!("batch {batch}: {e}"))?;
                scored += count;
                let scores = FromWorker::Scores { batch, windows };
                outbox.send_all(&[scores, FromWorker::Progress { done: scored }])?;
            }
            Some(ToWorker::Drain) | None => {
                outbox.flush();
                return Ok(());
            }
            Some(_) => return Err("the supervisor sent a message that is not for this role".into()),
        }
    }
}

/// What a batch took is left for the next one, which takes the same, instead of being given back to the kernel and taken
/// from it again, page by page.
fn keep_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets numbers inside the C library, while there is no thread that allocates much.
    unsafe {
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, KEPT_BYTES);
        nix::libc::mallopt(nix::libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}

/// The detector, and how often it was given a state that is not its own.
struct Scorer {
    detector: Detector,
    misfits: u64,
}

impl Scorer {
    fn new(detector: Detector) -> Self {
        Self { detector, misfits: 0 }
    }

    /// The first run pays for lazy set-up; better now than when a camera waits.
    fn warm_up(&mut self) -> Result<(), String> {
        let silence = vec![0.0; self.detector.info().window];
        let mut states = [self.detector.fresh()];
        self.detector.score_batch(&[&silence], &mut states).map_err(|e| e.to_string())?;
        Ok(())
    }

    fn score(&mut self, windows: Vec<WindowJob>) -> Result<Vec<WindowScores>, String> {
        let samples: Vec<Vec<f32>> = windows.iter().map(|w| w.pcm.to_f32()).collect();
        let views: Vec<&[f32]> = samples.iter().map(Vec::as_slice).collect();
        let mut states: Vec<StreamState> = windows.iter().map(|w| self.state(&w.state)).collect();
        let scores = self.detector.score_batch(&views, &mut states).map_err(|e| e.to_string())?;
        let results = windows.iter().zip(scores).zip(&states);
        Ok(results
            .map(|((w, scores), state)| WindowScores { id: w.id, scores, state: state.to_bytes().into() })
            .collect())
    }

    /// The stream's state; a fresh one where it begins, or where the one that came does not fit: a few seconds of
    /// poorer scores are better than none.
    fn state(&mut self, came: &ModelState) -> StreamState {
        if came.is_fresh() {
            return self.detector.fresh();
        }
        self.detector.restore(came.as_bytes()).unwrap_or_else(|e| {
            self.misfits += 1;
            // Said at the first, second, fourth, … of them: with every window it would fill the log.
            if self.misfits.is_power_of_two() {
                tracing::warn!(
                    "{e}: the stream begins anew ({} times so far; was the model's file replaced? \
                     `nursery reload` takes it up)",
                    self.misfits
                );
            }
            self.detector.fresh()
        })
    }
}
