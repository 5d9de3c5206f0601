//! Simulated model files: one path for each, some of which kill whoever loads them. What one of them remembers of a
//! stream has a length of its own, so that a state which reaches another one is seen.

use nursery_shared::message::{ModelShape, ToWorker};

use super::world::{STATE, WINDOW};

/// How many there are; the first one is in no file.
pub const MODELS: u32 = 7;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Model(u32);

impl Model {
    /// The `n`th.
    pub fn nth(n: u32) -> Self {
        Self(n % MODELS)
    }

    /// What an inference process was told to load.
    pub fn told(message: &ToWorker) -> Self {
        match message {
            ToWorker::ConfigureInfer { model: Some(path), .. } => Self::at(path),
            _ => Self(0),
        }
    }

    /// The one in this file.
    pub fn at(path: &str) -> Self {
        Self(path.trim_start_matches("/m").parse().unwrap_or(0))
    }

    /// Where it is.
    pub fn path(self) -> Option<String> {
        (self.0 > 0).then(|| format!("/m{}", self.0))
    }

    /// Whoever loads it dies.
    pub fn is_broken(self) -> bool {
        self.0 % 3 == 2
    }

    /// Bytes of a stream's state.
    pub fn state(self) -> usize {
        (STATE + 4 * self.0) as usize
    }

    /// Its figures.
    pub fn shape(self, hop_us: u64) -> ModelShape {
        let hop = (hop_us * 16 / 1000) as u32;
        ModelShape {
            id: format!("simulated-{}", self.0),
            window: WINDOW as u32,
            hop,
            lookahead: 0,
            frame_step: hop / 2,
            state_bytes: self.state() as u32,
        }
    }
}
