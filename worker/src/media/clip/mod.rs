//! Files of clips: a camera's media as it was sent, in a form that browsers play. They are only ever added to, in pieces
//! that are whole by themselves, so that one that is torn anywhere is still a clip up to there; [`whole`] says up to where,
//! and puts the lengths in that nobody knew while it was written.

pub mod boxes;
pub mod encoder;
pub mod flac;
pub mod wav;
pub mod whole;

/// What kind of file a clip is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
