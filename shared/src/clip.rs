//! Clips of events as the sink tells `web` of them; each goes with its file, open for reading.

use serde::{Deserialize, Serialize};

/// Bytes of a clip at the most, whatever there is room for.
pub const MAX_BYTES: u64 = 256 << 20;
/// Longest id of an event that may be asked for.
pub const MAX_EVENT_ID: usize = 64;

/// What kind of file a clip is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Format {
    /// Sound, as samples or in G.711.
    Wav,
    /// MPEG-4 with sound alone.
    M4a,
    /// MPEG-4 with pictures.
    Mp4,
}

impl Format {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Wav, Self::M4a, Self::Mp4];

    /// Ends the names of such files, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::M4a => "m4a",
            Self::Mp4 => "mp4",
        }
    }

    /// As browsers are told.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::M4a => "audio/mp4",
            Self::Mp4 => "video/mp4",
        }
    }

    /// The format whose files' names end like this.
    pub fn of_extension(extension: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.extension() == extension)
    }
}

/// What is known of a clip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub format: Format,
    pub camera: String,
    /// Wall-clock time of its first and after its last sample, microseconds since 1970.
    pub from_us: i64,
    pub until_us: i64,
    /// Of the file.
    pub bytes: u64,
    /// Why it is shorter than it was meant to be, one line.
    pub note: Option<String>,
}

/// What there is of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// Comes with its file.
    Clip(About),
    /// It is still being written.
    NotYet,
    /// There never was one, or it was removed.
    Nothing,
    /// Why it cannot be had, one line.
    Failed(String),
}

/// Of a shape that ids of events have.
pub fn is_event_id(id: &str) -> bool {
    (1..=MAX_EVENT_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
