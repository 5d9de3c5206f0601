//! Role `infer`: scores batches of windows. Keeps nothing between two batches, so any process can score any
//! window.

use std::path::Path;

use nursery_shared::message::{FromWorker, Role, ToWorker, WindowScores};

use crate::{info, link};

/// Runs until the supervisor drains this process or is gone.
pub fn run() -> Result<(), String> {
    let (mut inbox, outbox) = link::open(Role::Infer)?;
    let mut receive = move || inbox.recv().map_err(|e| format!("frame from the supervisor: {e}"));
    let (model, threads) = match receive()? {
        Some(ToWorker::ConfigureInfer { model, threads }) => (model, threads),
        Some(ToWorker::Drain) | None => return Ok(()),
        Some(_) => return Err("the supervisor's first message was not a configuration".into()),
    };
    // SAFETY: read by the compute threads' pool when it starts, which is at the first use below; the only
    // other thread is the link's writer, which does not look at the environment.
    unsafe {
        for pool in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
            std::env::set_var(pool, threads.max(1).to_string());
        }
    }
    let mut detector = info::load_detector(model.as_deref().map(Path::new))?;
    let window = detector.info().window;
    // The first run pays for lazy set-up; better now than when a camera waits.
    detector.score_batch(&[&vec![0.0; window]]).map_err(|e| e.to_string())?;
    outbox.send(&FromWorker::Ready)?;
    let mut scored = 0;
    loop {
        match receive()? {
            Some(ToWorker::Batch { batch, windows }) => {
                let samples: Vec<Vec<f32>> = windows.iter().map(|w| w.pcm.to_f32()).collect();
                let views: Vec<&[f32]> = samples.iter().map(Vec::as_slice).collect();
                let scores = detector.score_batch(&views).map_err(|e| format!("batch {batch}: {e}"))?;
                scored += windows.len() as u64;
                let windows =
                    windows.iter().zip(scores).map(|(w, scores)| WindowScores { id: w.id, scores }).collect();
                outbox.send(&FromWorker::Scores { batch, windows })?;
                outbox.send(&FromWorker::Progress { done: scored })?;
            }
            Some(ToWorker::Drain) | None => {
                outbox.flush();
                return Ok(());
            }
            Some(_) => return Err("the supervisor sent a message that is not for this role".into()),
        }
    }
}
