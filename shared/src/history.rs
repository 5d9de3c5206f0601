//! Questions about what is stored, and their answers: asked by `web`, answered by the sink, passed on by the supervisor,
//! which looks at neither.

use serde::{Deserialize, Serialize};

use crate::{curve::Curve, light::Picture};

/// Most events of one answer.
pub const MAX_EVENTS: u32 = 100;
/// Longest name of a camera that may be asked for.
pub const MAX_CAMERA: usize = 64;
/// Longest id of an event that may be asked for.
pub const MAX_EVENT_ID: usize = 64;
/// Most points of a timeline.
pub const MAX_POINTS: u32 = 2_000;
/// Longest timeline.
pub const MAX_SPAN_US: i64 = 32 * 86_400 * 1_000_000;
/// Most cries, most motions and most outages of a timeline.
pub const MAX_MARKS: usize = 500;

/// From where on, and in which direction, events are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum From {
    /// Those with greater numbers, oldest first.
    After(i64),
    /// Those with smaller numbers, newest first.
    Before(i64),
}

/// Events that are asked for. They have the numbers under which they are stored, which rise by time of storing and are
/// never used again within a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    pub from: From,
    /// Only events of this time and later, microseconds since 1970.
    pub since_us: Option<i64>,
    /// Only events of this camera.
    pub camera: Option<String>,
    /// So many events at the most, and no more than [`MAX_EVENTS`].
    pub limit: u32,
}

/// What was, or was not, a cry in somebody's opinion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Cry,
    NotCry,
}

impl Verdict {
    /// The word for it in the store, in answers and in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Cry => "cry",
            Verdict::NotCry => "not_cry",
        }
    }

    /// Reads that word.
    pub fn parse(word: &str) -> Option<Self> {
        [Verdict::Cry, Verdict::NotCry].into_iter().find(|v| v.as_str() == word)
    }
}

/// What is asked for, or told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Stored events; answered by [`Answer::Events`].
    Events(Listing),
    /// A camera's curves, cries, motions and outages between two times (microseconds since 1970), in so many points at the most;
    /// answered by [`Answer::Timeline`].
    Timeline { camera: String, from_us: i64, until_us: i64, points: u32 },
    /// One event, by the id that receivers know it by; answered by [`Answer::Event`].
    Event { event_id: String },
    /// What somebody says of an event, to be stored; answered by [`Answer::Event`] when it is. `by` is the way it came.
    Feedback { event_id: String, verdict: Verdict, by: String },
    /// What the camera showed when an event began; answered by [`Answer::Picture`].
    Picture { event_id: String },
}

impl Question {
    /// Within the bounds of what is answered.
    pub fn is_sound(&self) -> bool {
        let is_id = |id: &str| {
            (1..=MAX_EVENT_ID).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        match self {
            Question::Events(listing) => {
                (1..=MAX_EVENTS).contains(&listing.limit)
                    && listing.camera.as_ref().is_none_or(|name| name.len() <= MAX_CAMERA)
            }
            Question::Timeline { camera, from_us, until_us, points } => {
                camera.len() <= MAX_CAMERA
                    && (1..=MAX_POINTS).contains(points)
                    && *from_us >= 0
                    && until_us.checked_sub(*from_us).is_some_and(|span| (1..=MAX_SPAN_US).contains(&span))
            }
            Question::Event { event_id } | Question::Picture { event_id } => is_id(event_id),
            Question::Feedback { event_id, by, .. } => is_id(event_id) && by.len() <= 16,
        }
    }
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    pub id: i64,
    /// The body that receivers get.
    pub json: String,
}

/// Some stored events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// In the order that was asked for.
    pub events: Vec<StoredEvent>,
    /// The number of the newest event of all; 0 where there is none.
    pub newest: i64,
    /// How far events were looked at, where there may be more: a question goes on from there.
    pub next: Option<i64>,
}

/// What was said of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feedback {
    pub verdict: Verdict,
    /// When it was said, microseconds since 1970.
    pub at_us: i64,
    /// The way it came: `page` or `api`.
    pub by: String,
}

/// A cry with its beginning and end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cry {
    pub event_id: String,
    pub camera: String,
    /// Microseconds since 1970.
    pub onset_us: i64,
    /// `None` while it goes on.
    pub offset_us: Option<i64>,
    /// Probability at its announcement, and the greatest one, which is known at the end.
    pub score: f64,
    pub peak_score: Option<f64>,
    pub feedback: Option<Feedback>,
}

/// Motion before a camera with its beginning and end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Motion {
    pub event_id: String,
    pub camera: String,
    /// Microseconds since 1970.
    pub onset_us: i64,
    /// `None` while it goes on.
    pub offset_us: Option<i64>,
    /// How much of the picture moved at its announcement, and at the most, which is known at the end; from 0 to 1.
    pub motion: f64,
    pub peak_motion: Option<f64>,
}

/// What an event that lasts is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Subject {
    Cry(Cry),
    Motion(Motion),
}

impl Subject {
    /// The camera before which it was.
    pub fn camera(&self) -> &str {
        match self {
            Subject::Cry(cry) => &cry.camera,
            Subject::Motion(motion) => &motion.camera,
        }
    }

    /// Its beginning and, where it has ended, its end, microseconds since 1970.
    pub fn times_us(&self) -> (i64, Option<i64>) {
        match self {
            Subject::Cry(cry) => (cry.onset_us, cry.offset_us),
            Subject::Motion(motion) => (motion.onset_us, motion.offset_us),
        }
    }
}

/// A time in which a camera was not heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    pub event_id: String,
    pub camera: String,
    /// Microseconds since 1970.
    pub since_us: i64,
    /// `None` while it goes on.
    pub until_us: Option<i64>,
    pub reason: String,
}

/// What there was of a camera.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Timeline {
    pub curve: Curve,
    /// Oldest first; of more than [`MAX_MARKS`] the newest.
    pub cries: Vec<Cry>,
    pub motions: Vec<Motion>,
    pub outages: Vec<Outage>,
    /// There are more of them.
    pub truncated: bool,
    /// The probability from which a moment counts as crying, as it is set now.
    pub threshold: f64,
}

/// All of one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventFile {
    pub subject: Subject,
    /// From some seconds before its onset to some seconds after its end.
    pub curve: Curve,
    /// The probability from which a moment counts as crying, as it is set now.
    pub threshold: f64,
    /// There is a picture of it.
    pub picture: bool,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// Why there is none, one line.
    Failed(String),
    Events(History),
    Timeline(Box<Timeline>),
    /// `None`: there is no such event, or it is none that lasts; none of crying, where something was said of it.
    Event(Option<Box<EventFile>>),
    /// `None`: there is none, or no longer.
    Picture(Option<Box<Picture>>),
}

impl Answer {
    /// No answer.
    pub fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_answered_within_bounds_is_sound() {
        let span = |from_us, until_us, points| {
            Question::Timeline { camera: "crib".into(), from_us, until_us, points }.is_sound()
        };
        assert!(span(0, 1, 1) && span(5, 5 + MAX_SPAN_US, MAX_POINTS));
        assert!(!span(0, 0, 1) && !span(1, 0, 1) && !span(0, 1, 0) && !span(0, 1, MAX_POINTS + 1));
        assert!(!span(0, MAX_SPAN_US + 1, 1) && !span(-1, 1, 1) && !span(i64::MIN, i64::MAX, 1));
        let event = |id: &str| Question::Event { event_id: id.into() }.is_sound();
        assert!(event("0198c2a1-7000-7abc-8def-0123456789ab"));
        assert!(!event("") && !event("a b") && !event("../x") && !event(&"a".repeat(65)));
        assert_eq!(Verdict::parse("not_cry"), Some(Verdict::NotCry));
        assert_eq!(Verdict::parse("maybe"), None);
    }
}
