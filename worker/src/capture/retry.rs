//! Attempts at a source, for as long as it takes: failures are reported, waits grow, a panic in a parser of
//! foreign bytes is a failure like any other.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio::time::sleep;

use crate::cage::files;

use super::{
    backoff::Backoff,
    source::{SourceEvent, SourceLink},
};

/// How an attempt ended.
#[derive(Debug)]
pub enum Outcome {
    /// The recording is over.
    Ended,
    /// There is no audio (any more).
    Failed(Failure),
}

/// Why there is no audio.
#[derive(Debug)]
pub struct Failure {
    /// Connected, but nothing came.
    pub stalled: bool,
    /// In words that tell the operator what to do. No secrets.
    pub error: String,
    /// How long there was audio in this attempt.
    pub heard: Duration,
}

impl Failure {
    /// A failure before any audio.
    pub fn new(error: impl Into<String>) -> Self {
        Self { stalled: false, error: error.into(), heard: Duration::ZERO }
    }
}

/// Something that can be tried.
pub trait Attempt: Sync {
    /// Delivers audio for as long as there is any.
    fn attempt(&self, link: &SourceLink) -> impl Future<Output = Outcome> + Send;
}

/// Tries until the source has ended or is stopped. An attempt is dropped where it stands when the source is
/// stopped.
pub async fn keep_trying(link: &SourceLink, source: &impl Attempt) {
    let tries = async {
        let mut backoff = Backoff::default();
        loop {
            link.send(SourceEvent::Connecting).await;
            let failure = match AssertUnwindSafe(source.attempt(link)).catch_unwind().await {
                Ok(Outcome::Ended) => return link.send(SourceEvent::Ended).await,
                Ok(Outcome::Failed(failure)) => failure,
                Err(_) => Failure::new("the media parser gave up on what the source sent (a bug in it)"),
            };
            let wait = backoff.next(failure.heard);
            tracing::warn!("{}; next attempt in {:.1} s", failure.error, wait.as_secs_f64());
            link.send(SourceEvent::Down { stalled: failure.stalled, error: failure.error }).await;
            if let Some(path) = files::replaced() {
                return link.send(SourceEvent::Outdated(path)).await;
            }
            sleep(wait).await;
        }
    };
    tokio::select! {
        biased;
        () = link.stopped() => {}
        () = tries => {}
    }
}
