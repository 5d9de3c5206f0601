//! Questions about stored events, and their answers: asked by `web`, answered by the sink, passed on by the supervisor,
//! which looks at neither.

use serde::{Deserialize, Serialize};

/// Most events of one answer.
pub const MAX_EVENTS: u32 = 100;
/// Longest name of a camera that may be asked for.
pub const MAX_CAMERA: usize = 64;

/// From where on, and in which direction, events are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum From {
    /// Those with greater numbers, oldest first.
    After(i64),
    /// Those with smaller numbers, newest first.
    Before(i64),
}

/// What is asked for. Events have the numbers under which they are stored, which rise by time of storing and are never
/// used again within a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    pub from: From,
    /// Only events of this time and later, microseconds since 1970.
    pub since_us: Option<i64>,
    /// Only events of this camera.
    pub camera: Option<String>,
    /// So many events at the most, and no more than [`MAX_EVENTS`].
    pub limit: u32,
}

impl Question {
    /// Within the bounds of what is answered.
    pub fn is_sound(&self) -> bool {
        (1..=MAX_EVENTS).contains(&self.limit)
            && self.camera.as_ref().is_none_or(|name| name.len() <= MAX_CAMERA)
    }
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    pub id: i64,
    /// The body that receivers get.
    pub json: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// In the order that was asked for.
    pub events: Vec<StoredEvent>,
    /// The number of the newest event of all; 0 where there is none.
    pub newest: i64,
    /// How far events were looked at, where there may be more: a question goes on from there.
    pub next: Option<i64>,
    /// Why there is no answer, one line.
    pub error: Option<String>,
}

impl History {
    /// No answer.
    pub fn failed(why: impl Into<String>) -> Self {
        Self { error: Some(why.into()), ..Self::default() }
    }
}
